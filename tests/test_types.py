"""Public names are annotated, and mypy finds no fault in the package.

Public is what a yaml, the README or an ``__all__`` names, what the package
``inference`` loads on request, and each command with ``main``.
"""

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

import numpy
import pytest

from tests.conftest import ROOT
from tests.fixtures.public_names import listing
from unispeech_sb import commands, inference

PACKAGE = ROOT / "unispeech_sb"


def public_names():
    """Classes, functions and all else that is public, by its path."""
    exported = {
        f"{module}.{name}": getattr(import_module(module), name)
        for module, names in listing.exported().items()
        for name in names
    }
    paths = {f"unispeech_sb.inference.{name}" for name in inference.INTERFACES}
    places = [place for place, _ in commands.COMMANDS.values()]
    paths |= {f"unispeech_sb.commands.{p.replace(':', '.')}" for p in places}
    paths.add("unispeech_sb.commands.main")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for file in (*pages, *(ROOT / "hparams").glob("*.yaml")):
        paths |= listing.paths_in(file.read_text("utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return {path: pydoc.locate(path) for path in paths} | exported


def is_ours(function):
    """Whether a function stands in a file of the package."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(str(PACKAGE))


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


def functions(found):
    """A function itself; the public methods of a class and of its bases.

    With each comes whether its first parameter is the object's.
    """
    if not inspect.isclass(found):
        yield function_of(found), False
        return
    for base in found.__mro__:
        for name, member in vars(base).items():
            if re.fullmatch("__.*__", name) or not name.startswith("_"):
                yield function_of(member), not isinstance(member, staticmethod)


def public_functions():
    """Functions of ours by full name, as ``functions`` gives them."""
    found = {}
    for path, value in public_names().items():
        assert value is not None, path
        for function, is_bound in functions(value):
            if is_ours(function):
                name = f"{function.__module__}.{function.__qualname__}"
                found[name] = function, is_bound
    return found


def bare_parts(function, is_bound):
    """Parameters without annotation, and ``return``."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[is_bound:]
    bare = [p.name for p in parameters if p.annotation is p.empty]
    if signature.return_annotation is signature.empty:
        bare.append("return")
    return bare


def test_every_public_name_is_annotated():
    found = public_functions()
    assert len(found) > 250
    bare = [
        f"{name}: {part}"
        for name, (function, is_bound) in found.items()
        for part in bare_parts(function, is_bound)
    ]
    assert not bare, bare


def test_parts_without_annotation_are_found():
    def half(first: int, second, *rest) -> None:
        pass

    def bare(itself, argument=1):
        pass

    assert bare_parts(half, is_bound=False) == ["second", "rest"]
    assert bare_parts(bare, is_bound=True) == ["argument", "return"]


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

    found = {f.__name__: is_bound for f, is_bound in functions(Shape) if f}
    assert found["size"] and found["area"] and found["square"]
    assert not found["check"]
    assert "_own" not in found


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, numpy.__version__.split(".")[:2])) < (2, 3),
    reason="older NumPy asks for the type arguments of its arrays",
)
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
