"""Public names are annotated, and mypy finds no fault in the package.

Public is what a yaml, the README or an ``__all__`` names, what the package
``inference`` loads on request, and each command with ``main``.
"""

import ast
import functools
import inspect
import os
import pydoc
import re
import subprocess
import sys
import warnings
from importlib import import_module
from operator import attrgetter

from tests.conftest import ROOT
from unispeech_sb import commands, inference

PACKAGE = ROOT / "unispeech_sb"
LATER = ("brains",)
"""Parts whose names are not annotated yet."""


def listed():
    """What the modules list as their public names."""
    for file in PACKAGE.rglob("*.py"):
        if "\n__all__ = " in file.read_text():
            parts = file.relative_to(ROOT).with_suffix("").parts
            module = import_module(".".join(parts).removesuffix(".__init__"))
            for name in module.__all__:
                yield f"{module.__name__}.{name}", getattr(module, name)


def named():
    """What the yamls and the README name by a path or import."""
    readme = (ROOT / "README.md").read_text()
    yamls = [file.read_text() for file in (ROOT / "hparams").glob("*.yaml")]
    paths = set(re.findall(r"\bunispeech_sb(?:\.\w+)+", " ".join(yamls)))
    paths |= set(re.findall(r"\bunispeech_sb(?:\.\w+)+", readme))
    for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        paths |= {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if node.module.startswith("unispeech_sb")
        }
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            found = pydoc.locate(path)
        assert found is not None, path
        yield path, found


def commanded():
    """The interfaces for inference, and the commands."""
    for name in inference.INTERFACES:
        yield f"inference.{name}", getattr(inference, name)
    yield "commands.main", commands.main
    for place, _ in commands.COMMANDS.values():
        module, _, name = place.partition(":")
        module = import_module(f"unispeech_sb.commands.{module}")
        yield place, getattr(module, name)


def is_ours(function):
    """Whether a function stands in a file of the package."""
    code = getattr(function, "__code__", None)
    return code and code.co_filename.startswith(str(PACKAGE))


def function_of(member):
    """The function behind a method, a property or a decorator."""
    for wrapper, name in (
        (property, "fget"),
        (functools.cached_property, "func"),
        ((classmethod, staticmethod), "__func__"),
    ):
        if isinstance(member, wrapper):
            member = attrgetter(name)(member)
    return inspect.unwrap(member) if callable(member) else None


def functions(name, found):
    """A function itself; the public methods of a class and of its bases."""
    if not inspect.isclass(found):
        yield name, function_of(found), False
        return
    for base in found.__mro__:
        for member_name, member in vars(base).items():
            special = re.fullmatch("__.*__", member_name)
            if special or not member_name.startswith("_"):
                bound = not isinstance(member, staticmethod)
                yield f"{name}.{member_name}", function_of(member), bound


def public_functions():
    """Name -> function and whether its first parameter is the object's."""
    return {
        name: (function, bound)
        for path, found in [*listed(), *named(), *commanded()]
        for name, function, bound in functions(path, found)
        if is_ours(function)
    }


def bare_parts(function, bound):
    """Parameters without annotation, and ``return``."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[bound:]
    bare = [p.name for p in parameters if p.annotation is p.empty]
    if signature.return_annotation is signature.empty:
        bare.append("return")
    return bare


def test_every_public_name_is_annotated():
    found = public_functions()
    assert len(found) > 300
    bare = [
        f"{name}: {part}"
        for name, (function, bound) in found.items()
        if function.__module__.split(".")[1] not in LATER
        for part in bare_parts(function, bound)
    ]
    assert not bare, bare


def test_parts_without_annotation_are_found():
    def half(first: int, second, *rest) -> None:
        pass

    def bare(itself, argument=1):
        pass

    assert bare_parts(half, bound=False) == ["second", "rest"]
    assert bare_parts(bare, bound=True) == ["argument", "return"]


def test_methods_are_found_behind_decorators():
    class Shape:
        """Of every kind of method one."""

        @property
        def size(self):
            pass

        @functools.cached_property
        def area(self):
            pass

        @classmethod
        def square(cls, side):
            pass

        @staticmethod
        def check(side):
            pass

        def _own(self):
            pass

    found = {name: f.__name__ for name, f, _ in functions("S", Shape) if f}
    assert found["S.size"] == "size" and found["S.area"] == "area"
    assert found["S.square"] == "square" and found["S.check"] == "check"
    assert "S._own" not in found


def test_mypy_finds_no_fault():
    done = subprocess.run(
        [sys.executable, "-m", "mypy"],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in" in done.stdout
