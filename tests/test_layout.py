"""Imports point downwards; budgets hold; public names have docstrings."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ANYWHERE = {"atomic", "environment", "errors", "text"}
"""Parts that any other may import; they import nothing of ours."""

MAY_IMPORT = {
    "__init__": {"moved", "inference"},
    "__main__": {"commands"},
    "moved": set(),
    "nnet": set(),
    "metrics": set(),
    "plots": {"metrics"},
    "decoding": set(),
    "checkpoints": {"moved"},
    "ray_session": set(),
    "dataio": {"ray_session"},
    "recipe_options": set(),
    "fingerprint": {"moved"},
    "output_folder": {"fingerprint"},
    "experiment": {
        *("recipe_options", "fingerprint", "output_folder", "checkpoints"),
        *("brains", "metrics"),
    },
    "lobes": {"nnet", "checkpoints"},
    "convert": {"lobes", "checkpoints", "nnet", "dataio"},
    "inference": {
        *("nnet", "checkpoints", "dataio", "decoding", "lobes", "metrics"),
        *("plots", "convert"),
    },
    "superb": {"checkpoints", "recipe_options"},
    "serve": {"dataio", "decoding", "inference"},
    "brains": {"nnet", "metrics", "checkpoints", "dataio", "plots"},
    "commands": {
        *("checkpoints", "convert", "dataio", "decoding", "inference"),
        *("metrics", "ray_session", "recipe_options", "serve", "superb"),
    },
    "cli": {"commands"},
    "recipes": {"brains", "dataio", "metrics", "experiment"},
    "hparams": set(),
}
"""Part -> parts that it may import. A part is a folder or module of the
package, or one of the folders ``recipes`` and ``hparams``."""


BUDGETS = {"lines": 60, "arguments": 8, "nesting": 3}
FILE_CODE_LINES = 400
FILE_LINES = 900
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

SOURCES = {
    file.relative_to(ROOT): file.read_text(encoding="utf-8")
    for folder in ("unispeech_sb", "recipes", "hparams")
    for file in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {file: ast.parse(text) for file, text in SOURCES.items()}


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


def code_lines(file):
    """Lines of a file without docstrings, comments and blank lines."""
    texts = set()
    for node in ast.walk(TREES[file]):
        value = getattr(node, "value", None)
        if isinstance(node, ast.Expr) and isinstance(value, ast.Constant):
            texts.update(range(node.lineno, node.end_lineno + 1))
    return sum(
        bool(line.strip()) and line.strip()[0] != "#" and number not in texts
        for number, line in enumerate(SOURCES[file].splitlines(), 1)
    )


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


def is_backbone_init(file, function):
    """The one function that may have many arguments: a config's every key."""
    return "lobes/backbone" in file.as_posix() and function.name == "__init__"


def test_there_are_files_to_look_at():
    assert len(SOURCES) >= 100
    seen = {part_of(file) for file in SOURCES}
    assert {"nnet", "lobes", "metrics", "recipes"} <= seen


def test_imports_point_downwards():
    faults = []
    for file, tree in TREES.items():
        part = part_of(file)
        if part in ANYWHERE:
            continue
        allowed = MAY_IMPORT.get(part, set()) | {part} | ANYWHERE
        faults += [
            f"{file}: {part} may not import {other}"
            for other in imported_parts(tree) - allowed
        ]
    assert not faults


def test_every_part_has_a_rule():
    parts = {part_of(file) for file in SOURCES}
    assert parts <= set(MAY_IMPORT) | ANYWHERE


def test_parts_import_in_one_direction_only():
    """No circle: every part comes after all parts that it imports."""
    left = {part: set(others) for part, others in MAY_IMPORT.items()}
    while left:
        ready = {
            part for part, others in left.items() if not others & set(left)
        }
        assert ready, f"a circle among {sorted(left)}"
        left = {part: left[part] for part in set(left) - ready}


def test_no_file_is_called_utils():
    names = {"utils", "misc", "helpers"}
    assert not [f for f in SOURCES if names & set(f.with_suffix("").parts)]


def test_public_names_have_docstrings():
    bare = [f for f, tree in TREES.items() if not ast.get_docstring(tree)]
    bare += [
        f"{file}: {name}"
        for file, tree in TREES.items()
        for name, node in public_names(tree)
        if not ast.get_docstring(node)
    ]
    assert not bare


def test_files_are_within_the_budget():
    over = [
        f"{file}: {code_lines(file)} lines of code"
        for file in SOURCES
        if code_lines(file) > FILE_CODE_LINES
    ]
    over += [
        f"{file}: {text.count(chr(10))} lines"
        for file, text in SOURCES.items()
        if text.count("\n") > FILE_LINES
    ]
    assert not over


def test_functions_are_within_the_budgets():
    over = []
    for file, tree in TREES.items():
        for function in ast.walk(tree):
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
                f"{file}: {function.name}: {cost} {what}"
                for what, cost in costs.items()
                if cost > BUDGETS[what]
            ]
    assert not over
