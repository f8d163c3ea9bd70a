"""The command line of superb: what is asked for, refused and merged."""

import json
import subprocess
import sys

import pytest

from tests.superb.conftest import made_up, partly
from unispeech_sb.commands import main
from unispeech_sb.commands import superb as command
from unispeech_sb.superb.tasks import TASKS


@pytest.fixture
def requests(monkeypatch, tmp_path):
    """What would be run."""
    found = []

    def note(request):
        found.append(request)
        return 0

    monkeypatch.setattr(command, "run_tasks", note)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNISPEECH_SB_DATA", raising=False)
    return found


def call(*argv):
    """Exit status of a command."""
    try:
        return main(["superb", *argv])
    except SystemExit as end:
        return end.code


RUN = ("run", "--model=tiny", "--data-root=corpora")


def test_tasks_come_in_the_order_of_the_table(requests, tmp_path):
    assert call(*RUN, "--tasks=sid,ks, asr") == 0
    (request,) = requests
    assert request.tasks == ("asr", "ks", "sid")
    assert request.root == tmp_path / "corpora"
    assert str(request.output) == "results/superb/tiny"
    assert (request.preset, request.seed) == ("superb", None)
    assert (request.cache, request.search) == ("means", "means")


def test_results_of_exports_are_apart_by_default(requests, tmp_path):
    model = tmp_path / "results" / "asr" / "mine" / "1986" / "export"
    model.mkdir(parents=True)
    call("run", f"--model={model}", "--data-root=corpora")
    assert str(requests[0].output) == "results/superb/asr-mine-1986"


def test_all_tasks_of_a_preset_are_run(requests):
    for preset, tasks in (
        ("superb", tuple(TASKS)),
        ("tiny", tuple(TASKS)),
        ("mini", ("asr", "sid")),
    ):
        call(*RUN, f"--preset={preset}")
        assert requests[-1].tasks == tasks


def test_the_environment_may_name_the_corpora(requests, monkeypatch):
    assert call("run", "--model=tiny") == 2
    monkeypatch.setenv("UNISPEECH_SB_DATA", "/corpora")
    assert call("run", "--model=tiny") == 0
    assert str(requests[0].root) == "/corpora"


def test_keys_may_be_set_for_a_task(requests):
    call(*RUN, "--set=sid.lr=0.05", "--set=sid.crop_s=null", "--set=ks.lr=1")
    assert requests[0].changed == {
        "sid": {"lr": 0.05, "crop_s": None},
        "ks": {"lr": 1},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks=kws",), "no task of this preset is named 'kws'"),
        (("--preset=mini", "--tasks=ks"), "there are: asr, sid"),
        (("--tasks=,",), "expected names of tasks"),
        (("--set=lr=1",), "expected TASK.KEY=VALUE"),
        (("--set=sid.lr",), "expected TASK.KEY=VALUE"),
        (("--set=sid.lr=[",), "expected a value of yaml"),
    ],
)
def test_mistakes_are_refused(options, message, requests, capsys):
    assert call(*RUN, *options) == 2
    assert message in capsys.readouterr().err
    assert requests == []


def test_places_that_are_not_there_are_named(requests, capsys, monkeypatch):
    assert call("run", "--model=./nowhere", "--data-root=.") == 1
    assert "./nowhere: there is no such model" in capsys.readouterr().err
    monkeypatch.undo()
    assert call(*RUN[:2], "--data-root=/nowhere") == 1
    assert "/nowhere: expected a folder of corpora" in capsys.readouterr().err


def test_an_unknown_command_is_one_sentence(capsys):
    assert call("rum") == 2
    assert "did you mean 'run'" in capsys.readouterr().err
    assert call("--help") == 0
    assert "superb report" in capsys.readouterr().out


def write(folder, row):
    """A folder of results."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(row))
    return str(folder)


def test_reports_are_merged(tmp_path, capsys):
    folders = [
        write(tmp_path / name, row)
        for name, row in (
            ("a", made_up("a/one")),
            ("b", partly("b/two")),
            ("c", made_up("c/three", of="WavLM Large")),
        )
    ]
    assert call("report", *folders, f"-o={tmp_path / 'new'}") == 0
    page = (tmp_path / "new" / "report.html").read_text()
    printed = capsys.readouterr().out
    for name in ("one", "two", "three"):
        assert f">{name}<" in page
        assert f"{name}, preset " in printed
    assert "KS on digits 43.21" in printed


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert call("report", str(tmp_path)) == 1
    assert "expected a folder of results" in capsys.readouterr().err


def test_help_and_the_list_of_corpora_need_no_torch(tmp_path):
    code = (
        "import sys\n"
        "from unispeech_sb.commands import main\n"
        "try: main(['superb', 'run', '--help'])\n"
        "except SystemExit: pass\n"
        "from unispeech_sb.superb.tasks import TASKS\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL
    )
