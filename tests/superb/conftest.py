"""Results that were made up, and a folder of corpora that holds enough to be
found."""

import random
import sys

import pytest

from unispeech_sb.commands import main
from unispeech_sb.superb import run
from unispeech_sb.superb.kinds import FAILED, FINISHED, MISSING, RUNNING
from unispeech_sb.superb.results import SCORES, published_rows
from unispeech_sb.superb.tasks import TASKS


def layers(name, count=13):
    """Weights that differ between tasks."""
    draws = random.Random(name)
    weights = [draws.random() ** 3 for _ in range(count)]
    return [round(weight / sum(weights), 6) for weight in weights]


def record(name, scores, **more):
    """What a run notes of a task that it has finished on its own corpus."""
    return {
        "title": TASKS[name].title,
        "state": FINISHED,
        "corpus": TASKS[name].corpora[0].name,
        "own_corpus": True,
        "scores": {
            column: value
            for column, value in scores.items()
            if SCORES[column][0] == name
        },
        "lr": 0.001,
        "seed": 1337,
        "updates": 200000,
        "seconds": 5400.0,
        "scored_on": "test",
        "layers": layers(name),
        **more,
    }


def made_up(model="models/my-sat-base", preset="superb", of="HuBERT Base"):
    """Results of all tasks on their own corpora, those of a published model."""
    (scores,) = (
        row["scores"] for row in published_rows() if row["model"] == of
    )
    tasks = {name: record(name, scores) for name in TASKS}
    return {"model": model, "preset": preset, "seed": None, "tasks": tasks}


def partly(model="results/pretrain_unispeech_sat/LibriSpeech/1337/export"):
    """Results with other corpora, and tasks that came to nothing."""
    row = made_up(model, "tiny", "WavLM Base")
    tasks = row["tasks"]
    tasks["ks"] |= {
        "corpus": "digits",
        "own_corpus": False,
        "scores": {"KS on digits": 43.21},
        "changed": {"lr": 0.01, "batch_size": 8},
        "searched": [{"learning_rate": rate} for rate in (0.1, 0.001)],
    }
    tasks["qbe"] |= {
        "corpus": "embedded synthetic speech",
        "own_corpus": False,
        "scores": {"QbE on embedded synthetic speech": 31.5},
    }
    for name, state, reason in (
        ("sd", FAILED, "out/tasks/sd/save: No space left on device"),
        ("er", MISSING, "IEMOCAP: there is no IEMOCAP_full_release or IEMOCAP"),
        ("sf", RUNNING, ""),
    ):
        title = TASKS[name].title
        tasks[name] = {"title": title, "state": state, "reason": reason}
    return row


@pytest.fixture
def rows():
    """Results of two models."""
    return [made_up(), partly()]


def run_in_process(monkeypatch):
    """Has recipes run in this process; gives the lines of their commands, as
    they come."""
    lines = []

    def watch(line, log, variables, failure):
        lines.append(line)
        with open(log, "a") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            return main(line)

    monkeypatch.setattr(run, "_watch", watch)
    return lines


@pytest.fixture
def in_process(monkeypatch):
    """Recipes run in this process; the lines of their commands."""
    return run_in_process(monkeypatch)
