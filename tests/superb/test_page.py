"""The page of SUPERB: its commands run, or say what they need; its names are
those of the tables."""

import json
import re
import shlex
import sys

import pytest

from tests.conftest import ROOT
from unispeech_sb.commands import main
from unispeech_sb.commands import superb as command
from unispeech_sb.superb.kinds import PRESETS, Part
from unispeech_sb.superb.tasks import TASKS

PAGE = (ROOT / "docs" / "superb.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [block.replace("\\\n", "").strip() for block in BLOCKS]
RUN = [line for line in COMMANDS if " # needs " not in line]
SMALL = [
    *("pr.synthetic_sentences=[4,2,2]", "pr.synthetic_voices=[2,1,1]"),
    "pr.optimizer_step_limit=1",
    *("asr.synthetic_sentences=[4,2,2]", "asr.synthetic_voices=[2,1,1]"),
    *("asr.batches_per_epoch=1", "asr.batch_size=2", "ks.draws_per_epoch=16"),
    *("qbe.synthetic_documents=3", "qbe.synthetic_voices=[2,1,1]"),
    "sid.draws_per_epoch=32",
    "asv.synthetic_sentences=[20,10,10]",
    *("er.synthetic_sentences=1", "er.draws_per_epoch=32"),
    *("ic.synthetic_sentences=[80,2,2]", "ic.draws_per_epoch=16"),
    *("sf.synthetic_sentences=[4,2,2]", "sf.synthetic_voices=[2,1,1]"),
    *("sf.batches_per_epoch=1", "sf.batch_size=2"),
]
"""What makes a run of all tasks small."""


def test_every_command_runs_here_or_says_what_it_needs():
    assert len(COMMANDS) == 4
    assert [line.split()[2] for line in RUN] == ["run", "report"]


@pytest.mark.parametrize("line", [c for c in COMMANDS if c not in RUN])
def test_commands_that_need_corpora_are_understood(line, monkeypatch):
    words = shlex.split(line, comments=True)
    requests = []
    monkeypatch.setattr(command, "run_tasks", requests.append)
    main(words[words.index("superb") :])
    assert requests[0].model == "microsoft/unispeech-sat-base"
    assert str(requests[0].root) == "/data/corpora"


def test_the_table_has_every_task_and_where_its_corpus_lies():
    rows = dict(re.findall(r"^\| `(\w+)` (.*)$", PAGE, re.MULTILINE))
    assert list(rows) == list(TASKS)
    for name, row in rows.items():
        task = TASKS[name]
        title, corpus, places, held, _ = row.split("|")
        assert title.strip() == task.title.lower()
        assert corpus.strip() == task.corpora[0].name
        known = {
            place
            for parts in task.corpora[0].parts.values()
            for part in ((parts,) if isinstance(parts, Part) else parts)
            for place in part.places
        }
        assert set(re.findall(r"`([^`]+)`", places)) <= known


def test_the_options_of_the_page_are_there(monkeypatch):
    options = re.findall(r"`(--[^`]+)`", PAGE[PAGE.index("## 3.") :])
    requests = []
    monkeypatch.setattr(command, "run_tasks", requests.append)
    monkeypatch.setattr(command, "check_device", str)
    used = [o for o in options if "preset" not in o and "=" in o]
    main(["superb", "run", "--model=tiny", "--data-root=.", *used])
    assert len(requests) == 1
    for preset in PRESETS:
        assert f"`--preset={preset}`" in PAGE


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch, in_process, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpora").mkdir()
    first, report = (shlex.split(line)[1:] for line in RUN)
    changes = [f"--set={change}" for change in SMALL]
    with pytest.raises(SystemExit) as end:
        sys.exit(main([*first, "--device=cpu", "--search=none", *changes]))
    output = tmp_path / "results" / "superb" / "tiny"
    found = json.loads((output / "results.json").read_text())["tasks"]
    reasons = {name: r.get("reason") for name, r in found.items()}
    assert list(found) == list(TASKS)
    assert [name for name, reason in reasons.items() if reason] == ["sd"]
    assert end.value.code == 1  # nobody speaks conversations
    on = "on embedded synthetic speech"
    scores = [s for r in found.values() for s in r.get("scores", ())]
    assert len(scores) == 10
    assert all(name.endswith(on) for name in scores)
    assert main(report) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    printed = capsys.readouterr().out
    assert printed.count(f" {on} ") >= 20
