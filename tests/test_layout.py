"""Imports point downwards; budgets hold; public names have docstrings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "checkpoints": set(),
    "environment": set(),
    "moved": set(),
    "__init__": {"moved"},
    "nnet": set(),
    "dataio": set(),
    "metrics": set(),
    "experiment": set(),
    "decoding": set(),
    "lobes": {"nnet", "checkpoints"},
    "inference": {
        *("nnet", "checkpoints", "dataio", "decoding", "lobes", "metrics"),
    },
    "brains": {"nnet", "metrics", "checkpoints"},
    "convert": {"lobes", "checkpoints", "nnet", "dataio"},
    "cli": {"convert", "inference", "lobes", "demo"},
    "recipes": {"brains", "dataio", "metrics", "experiment"},
    "hparams": set(),
}
"""Part -> parts it may import; any may import ``environment``."""

FREE = {"demo"}
"""Parts that show the whole and may import all of it."""

BUDGETS = {"lines": 60, "arguments": 8, "nesting": 3}
FILE_LINES = 400
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

FILES = sorted(
    file.relative_to(ROOT)
    for folder in ("unispeech_sb", "recipes", "hparams")
    for file in (ROOT / folder).rglob("*.py")
)
each_file = pytest.mark.parametrize("file", FILES, ids=str)


def part_of(file):
    """First folder or module below the package: ``nnet``, ``cli``, ..."""
    parts = file.with_suffix("").parts
    return parts[1] if parts[0] == "unispeech_sb" else parts[0]


def imported_parts(tree):
    """Parts of the package that a file imports, at its top or anywhere."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    split = [name.split(".") for name in names]
    ours = [name[1] for name in split if name[0] == "unispeech_sb" and name[1:]]
    return set(ours) - {"__version__"}


def body_lines(function):
    """Lines of a function without its docstring."""
    doc = ast.get_docstring(function, clean=False)
    length = function.end_lineno - function.lineno + 1
    return length - (doc.count("\n") + 1 if doc else 0)


def num_arguments(function):
    """Arguments that a caller can give."""
    given = [*function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in given)


def nesting(node, depth=0):
    """Deepest block below a node; an ``elif`` is as deep as its ``if``."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        is_elif = (
            isinstance(node, ast.If)
            and isinstance(child, ast.If)
            and node.orelse == [child]
        )
        step = isinstance(child, BLOCKS) and not is_elif
        deepest = max(deepest, nesting(child, depth + step))
    return deepest


def public_names(tree):
    """Public classes, functions and methods with what they are called."""
    for node in tree.body:
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for name, method in public_names(node):
                yield f"{node.name}.{name}", method


def test_there_are_files_to_look_at():
    seen = {part_of(file) for file in FILES}
    assert len(FILES) >= 20
    assert {"nnet", "lobes", "metrics", "cli", "recipes"} <= seen


@each_file
def test_imports_point_downwards(file):
    part = part_of(file)
    imported = imported_parts(ast.parse((ROOT / file).read_text()))
    if part not in FREE:
        allowed = MAY_IMPORT.get(part, set()) | {part, "environment"}
        assert imported <= allowed, f"{part} may import {sorted(allowed)}"


def test_every_part_has_a_rule():
    parts = {part_of(file) for file in FILES} - {"__init__"}
    assert parts <= set(MAY_IMPORT) | FREE


@each_file
def test_no_file_is_called_utils(file):
    assert not {"utils", "misc", "helpers"} & set(file.with_suffix("").parts)


@each_file
def test_public_names_have_docstrings(file):
    tree = ast.parse((ROOT / file).read_text())
    assert ast.get_docstring(tree), "no module docstring"
    bare = [n for n, node in public_names(tree) if not ast.get_docstring(node)]
    assert not bare


@each_file
def test_budgets_hold(file):
    text = (ROOT / file).read_text()
    assert text.count("\n") <= FILE_LINES
    over = []
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, FUNCTIONS):
            continue
        costs = {
            "lines": body_lines(function),
            "arguments": num_arguments(function),
            "nesting": nesting(function),
        }
        if is_backbone_init(file, function):
            del costs["arguments"]
        over += [
            f"{function.name}: {cost} {what}"
            for what, cost in costs.items()
            if cost > BUDGETS[what]
        ]
    assert not over


def is_backbone_init(file, function):
    """The one function that may have many arguments: a config's every key."""
    return "lobes/backbone" in file.as_posix() and function.name == "__init__"
