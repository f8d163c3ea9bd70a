"""What the table of SUPERB's tasks is made of: scores, corpora and where they
lie, tasks, and what is to be run of one.

Nothing here imports torch: missing corpora are named at once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

PRESETS = {
    "superb": "the tasks as published: days on one GPU",
    "mini": "MiniSUPERB's smoke test, of which ASR and SID have recipes here",
    "tiny": "a few updates of each task, on whatever corpus there is: minutes",
}

FINISHED, FAILED, MISSING, RUNNING = "finished", "failed", "missing", "running"
TROUBLES = {
    FAILED: "failed",
    MISSING: "no corpus",
    RUNNING: "not finished",
}
STATES = (FINISHED, *TROUBLES)
"""Of a task in the results."""


SUITS = ("means", "all", "none")
"""Of which tasks features are cached, or learning rates searched: those whose
heads take means over time, all, none."""

GRID = tuple(10.0**-power for power in range(1, 8))
"""Learning rates that SUPERB's rules search."""


class Score(NamedTuple):
    """A score: its column in the published table and key in ``scores.json``.

    ``scale`` takes it to the column's unit, all in percent. ``baseline`` and
    ``topline`` are the leaderboard's 0 and 1000 points.
    """

    column: str
    key: str
    name: str
    higher: bool
    scale: float
    baseline: float
    topline: float

    @property
    def heading(self) -> str:
        """Task, measure, and which way is better."""
        return f"{self.name} {'↑' if self.higher else '↓'}"


@dataclass(frozen=True)
class Part:
    """A file or folder of a corpus: where it may lie under the data root, and
    the patterns that it has to hold, of alternatives by ``|``."""

    places: tuple[str, ...]
    holds: tuple[str, ...] = ()

    def find(self, root: Path) -> tuple[Path | None, str]:
        """Its place; what is missing, empty where nothing is."""
        found = [root / place for place in self.places]
        place = next((path for path in found if path.exists()), None)
        if place is None:
            return None, f"there is no {' or '.join(self.places)}"
        lacks = [
            held
            for held in self.holds
            if not any(
                next(place.glob(pattern), None) is not None
                for pattern in held.split("|")
            )
        ]
        if not lacks:
            return place, ""
        named = ", ".join(held.replace("|", " or ") for held in lacks)
        return None, f"{place} lacks {named}"


class Corpus(NamedTuple):
    """A corpus of a task, for some presets.

    ``parts`` are key of the yaml -> what it names; several parts make a list.
    ``keys`` are further values, of which "{output}" is the task's folder, and
    ``links`` name -> pattern under the data root of what is linked together in
    one folder, the ``data_folder``. One of the preset "superb" is the task's
    own.
    """

    name: str
    presets: tuple[str, ...]
    parts: Mapping[str, Part | tuple[Part, ...]] = {}
    keys: Mapping[str, Any] = {}
    links: Mapping[str, str] = {}
    yaml: str | None = None

    def find(self, root: Path) -> tuple[dict[str, Any], list[str]]:
        """Keys of the yaml with their places; what is missing."""
        keys: dict[str, Any] = {}
        missing = []
        for key, parts in self.parts.items():
            several = (parts,) if isinstance(parts, Part) else parts
            places = [part.find(root) for part in several]
            missing += [fault for _, fault in places if fault]
            paths = [str(path) for path, _ in places]
            keys[key] = paths[0] if isinstance(parts, Part) else paths
        for pattern in self.links.values():
            if next(root.glob(pattern), None) is None:
                missing.append(f"there is no {pattern}")
        if self.keys.get("synthetic") and find_spec("espeakng_loader") is None:
            missing.append("synthetic speech needs the extra [demo]")
        return {**self.keys, **keys}, missing


class Task(NamedTuple):
    """A row of the table.

    ``recipe`` names the recipe and its yaml, ``tiny`` and ``mini`` are keys of
    presets, and ``corpora`` are looked for in their order.
    """

    title: str
    recipe: str
    scores: tuple[Score, ...]
    corpora: tuple[Corpus, ...]
    tiny: Mapping[str, Any] = {}
    mini: Mapping[str, Any] = {}
    pooled: bool = False
    """Whether the head takes means over time: they are cached and learning
    rates searched in minutes."""
    alone: bool = False
    """Whether one process does it, of those of torchrun."""

    def keys(self, preset: str) -> dict[str, Any]:
        """Keys of a preset."""
        return dict({"tiny": self.tiny, "mini": self.mini}.get(preset, {}))


class Plan(NamedTuple):
    """What is to be run of a task; ``keys`` has the places of the corpus."""

    name: str
    task: Task
    corpus: Corpus
    keys: dict[str, Any]

    @property
    def own(self) -> bool:
        """Whether the corpus is that of the benchmark."""
        return "superb" in self.corpus.presets

    @property
    def yaml(self) -> str:
        """Name of the yaml."""
        return self.corpus.yaml or f"{self.task.recipe}_superb.yaml"


def plan_task(
    name: str, task: Task, preset: str, root: Path
) -> tuple[Plan | None, list[str]]:
    """The first corpus of a task, of those for a preset, that is complete; if
    none is, what is missing of the one that lacks least."""
    faults: list[list[str]] = []
    for corpus in task.corpora:
        if preset not in corpus.presets:
            continue
        keys, missing = corpus.find(root)
        if not missing:
            return Plan(name, task, corpus, keys), []
        faults.append([f"{corpus.name}: {fault}" for fault in missing])
    return None, min(faults, key=len, default=[])


def as_option(key: str, value: Any) -> str:
    """A key of a yaml on a recipe's command line."""
    return f"--{key}={json.dumps(value, ensure_ascii=False)}"
