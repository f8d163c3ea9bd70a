"""What SpeechBrain's recipes and benchmarks touch on its lobes.

    python -m tests.speechbrain_recipes.surface CLONE BENCHMARKS_CLONE

writes ``surface.csv`` from the trees of all Python files and yamls of the
clones: every keyword that a yaml or a script gives to a class, every attribute,
method and call on what is built from it, and every argument and method of the
class itself, with the number of places.
"""

import ast
import csv
import re
import sys
from collections import Counter
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("surface.csv")
CLASSES = {
    "Wav2Vec2": "Wav2Vec2",
    "HuBERT": "Wav2Vec2",
    "WavLM": "Wav2Vec2",
    "HuggingFaceWav2Vec2": "Wav2Vec2",
    "FairseqWav2Vec2": "FairseqWav2Vec2",
    "Wav2Vec2Pretrain": "Wav2Vec2Pretrain",
    "HuggingFaceWav2Vec2Pretrain": "Wav2Vec2Pretrain",
    "WeightedSSLModel": "WeightedSSLModel",
    "HFTransformersInterface": "HFTransformersInterface",
}
"""Class of SpeechBrain's, by its present and its former name -> row's name."""

_TAG = re.compile(r"!(?:new|name|apply):speechbrain\.[\w.]*?(\w+)$")
_HOLDERS = ("self", "modules", "hparams", "params")
_PARTS = ("recipes", "benchmarks", "templates")
_USERS = ("integrations/audio_tokenizers", "utils")
_GIVEN = {"ssl_model": "Wav2Vec2"}
"""Folders of the library that are given a lobe, and the argument's name."""


def surface(*clones):
    """(class, use) -> number of places, in everything that clones hold."""
    found, by_folder, others = Counter(), {}, set()
    folders = [Path(clone) / part for clone in clones for part in _PARTS]
    files = (f for folder in folders for f in sorted(folder.rglob("*.y*ml")))
    for file in files:
        document = yaml.compose(file.read_text(encoding="utf-8"))
        built = by_folder.setdefault(file.parent.parent, {})
        _of_yaml(document, built, others, found)
    anywhere = {
        key: name
        for built in by_folder.values()
        for key, name in built.items()
        if key not in others
    }
    for script, tree in _scripts(folders):
        _of_script(tree, by_folder.get(script.parent, anywhere), found)
    library = [Path(clone) / "speechbrain" for clone in clones]
    users = [folder / user for folder in library for user in _USERS]
    for _, tree in _scripts(users):
        _of_script(tree, _GIVEN, found)
    for _, tree in _scripts(library):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in CLASSES:
                _of_class(node, found)
    return found


def _scripts(folders):
    """Python files with their trees."""
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            yield file, ast.parse(file.read_text(encoding="utf-8"))


def _of_yaml(node, built, others, found):
    """Counts keywords; notes key -> class, and keys of other classes."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _of_yaml(item, built, others, found)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        match = _TAG.search(value.tag)
        name = CLASSES.get(match[1]) if match else None
        if name is not None:
            built[key.value] = name
            keywords = (f"{keyword.value}=" for keyword, _ in value.value)
            found.update((name, use) for use in keywords)
        elif value.tag.startswith("!new:"):
            others.add(key.value)
        _of_yaml(value, built, others, found)


def _of_script(tree, built, found):
    """Counts what a script does with what the yamls beside it build, and with
    what it builds itself."""
    ours, inside = {}, set()
    built = {f"held {key}": name for key, name in built.items()} | _GIVEN
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith("speechbrain"):
                names = (alias.name for alias in node.names)
                ours |= {n: CLASSES[n] for n in names if n in CLASSES}
    for node in ast.walk(tree):
        made = ours.get(_name(getattr(node, "func", None)))
        if isinstance(node, ast.Call) and made:
            given = [k.arg for k in node.keywords if k.arg]
            found.update((made, f"{keyword}=") for keyword in given)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ours.get(_name(node.value.func))
            if made:
                key = _name(node.targets[0])
                built |= {key: made, f"held {key}": made}
    for node in ast.walk(tree):  # outer nodes come before those within
        if node not in inside:
            root, use, nodes = _chain(node)
            if root in built and use:
                found[built[root], use] += 1
                inside |= nodes


def _chain(node):
    """What an expression begins with, what is done with it, and the nodes that
    this takes: ``held wav2vec2``, where it is of ``self.hparams`` or the like,
    and ``.model.encoder.layers[]``."""
    use, nodes = "", set()
    while True:
        nodes.add(node)
        if isinstance(node, ast.Call):
            given = ["*"] * len(node.args)
            given += [f"{keyword.arg}=" for keyword in node.keywords]
            use, node = f"({', '.join(given)}){use}", node.func
        elif isinstance(node, ast.Attribute):
            if _name(node.value) in _HOLDERS:
                return f"held {node.attr}", use, nodes
            stored = " =" if isinstance(node.ctx, ast.Store) else ""
            use, node = f".{node.attr}{stored}{use}", node.value
        elif isinstance(node, ast.Subscript):
            key = getattr(node.slice, "value", None)
            if isinstance(key, str) and _name(node.value) in _HOLDERS:
                return f"held {key}", use, nodes
            use, node = f"[]{use}", node.value
        else:
            return getattr(node, "id", None), use, nodes


def _name(node):
    """The last name of ``self.hparams`` or ``hparams``."""
    return getattr(node, "attr", getattr(node, "id", None))


def _of_class(node, found):
    """Counts what a class has: arguments, attributes, methods."""
    name = CLASSES[node.name]
    for method in node.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        if method.name == "__init__":
            given = method.args.args[1:] + method.args.kwonlyargs
            found.update((name, f"{argument.arg}=") for argument in given)
            found.update((name, f"has {node}") for node in _stored(method))
        elif not method.name.startswith("_"):
            found[name, f"def {method.name}"] += 1


def _stored(method):
    """Attributes of ``self`` that a constructor sets."""
    for node in ast.walk(method):
        if isinstance(node, ast.Attribute) and _name(node.value) == "self":
            if isinstance(node.ctx, ast.Store):
                yield node.attr


def read_table():
    """The committed rows."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(name, use): int(places) for name, use, places in rows}


def main():
    """Writes the table."""
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "use", "places"])
        for (name, use), places in sorted(surface(*sys.argv[1:]).items()):
            writer.writerow([name, use, places])


if __name__ == "__main__":
    main()
