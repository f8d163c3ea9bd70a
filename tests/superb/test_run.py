"""Tasks run one after the other, on a few spoken words: what each leaves, what
is missing, what fails, and what goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from tests.forks import run_script
from tests.recipes.conftest import write_corpus
from tests.recipes.processes import environment
from tests.recipes.voices import write_voices
from tests.superb.conftest import run_in_process
from unispeech_sb.atomic import OneWriter
from unispeech_sb.commands import main
from unispeech_sb.superb import run
from unispeech_sb.superb.kinds import FAILED, FINISHED, MISSING

SET = [
    "--set=ks.num_classes=3",
    "--set=ks.draws_per_epoch=16",
    "--set=sid.valid_tail_s=0.1",
    "--set=sid.draws_per_epoch=32",
]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A data root: words as "digits", voices as "libri248", and conversations
    that cannot be read as "mix2"; not to be changed."""
    root = tmp_path_factory.mktemp("corpora")
    for name in ("digits", "libri248", "mix2/train", "mix2/dev"):
        (root / name).mkdir(parents=True)
    write_corpus(root / "digits")
    write_voices(root / "libri248")
    table = root / "libri248" / "manifest.csv"
    rows = [r for r in table.read_text().splitlines() if ",valid," not in r]
    (root / "libri248" / "sid_segments.csv").write_text("\n".join(rows))
    for split in ("train", "dev"):
        (root / "mix2" / split / "wav.scp").write_text("a nowhere.wav\n")
    return root


def superb(root, output, *options, tasks="ks"):
    """One call of the command; its status."""
    try:
        return main(
            ["superb", "run", "--model=tiny", "--preset=tiny", "--device=cpu",
             f"--tasks={tasks}", f"--data-root={root}", f"--output={output}",
             "--search=none", "--cache=none", *SET, *options]
        )  # fmt: skip
    except SystemExit as end:
        return end.code


def results(output):
    """What results.json holds of the tasks."""
    return json.loads((output / "results.json").read_text())["tasks"]


@pytest.fixture(scope="module")
def finished(corpora, tmp_path_factory):
    """Output of a run of two tasks, of which one fails, and one without a
    corpus; its status and what it printed."""
    output = tmp_path_factory.mktemp("superb") / "out"
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        patch.setattr(run, "_say", printed.append)
        empty = corpora.parent / "empty"
        patch.setitem(
            run.TASKS,
            "asr",
            run.TASKS["asr"]._replace(corpora=run.TASKS["asr"].corpora[:1]),
        )
        assert not empty.exists()
        status = superb(corpora, output, tasks="asr,ks,sd")
    return output, status, "\n".join(printed)


def test_all_corpora_are_looked_for_before_any_work(finished):
    _, _, printed = finished
    opening = printed[: printed.index("[1/2]")]
    assert "asr Speech recognition: missing" in opening
    assert "LibriSpeech: there is no LibriSpeech or librispeech" in opening
    assert "ks  Keyword spotting on digits, not Speech Commands" in opening


def test_one_failure_leaves_the_others_unharmed(finished):
    output, status, printed = finished
    found = results(output)
    assert status == 1
    assert {name: r["state"] for name, r in found.items()} == {
        "asr": MISSING,
        "ks": FINISHED,
        "sd": FAILED,
    }
    assert "no such file" in found["sd"]["reason"]
    assert "\n" not in found["sd"]["reason"]
    assert found["sd"]["reason"] in printed
    page = (output / "report.html").read_text()
    assert "1 failed" in page and "1 no corpus" in page


def test_the_corpus_is_named_wherever_its_number_stands(finished):
    output, _, printed = finished
    record = results(output)["ks"]
    (name,) = record["scores"]
    assert name == "KS on digits"
    assert record["corpus"] == "digits" and not record["own_corpus"]
    value = f"{record['scores'][name]:.2f}"
    assert f"KS on digits {value}" in printed
    for text in (printed, (output / "report.html").read_text()):
        for part in text.split(value)[:-1]:
            assert "digits" in part[-60:] + text[text.index(value) :][:60]


def test_a_task_says_how_it_was_trained(finished):
    record = results(finished[0])["ks"]
    assert record["lr"] == 0.0001
    assert record["seed"] == 1337
    assert record["updates"] == 1
    assert record["changed"] == {"num_classes": 3, "draws_per_epoch": 16}
    assert record["yaml"] == "keyword_spotting_superb.yaml"
    assert record["seconds"] > 0
    assert len(record["layers"]) == 3
    assert sum(record["layers"]) == pytest.approx(1, abs=1e-4)


def test_predictions_of_another_corpus_are_kept_apart(finished):
    output, _, _ = finished
    place = output / "predict_on_digits" / "ks_public" / "predict.txt"
    lines = place.read_text().splitlines()
    assert 0 < len(lines) <= 9  # drawn, as the protocol has it
    assert all(line.split()[0].endswith(".wav") for line in lines)
    assert not (output / "predict").exists()
    assert not (output / "predict.zip").exists()


def test_the_same_command_trains_nothing_again(
    finished, corpora, tmp_path, in_process, capsys
):
    output = shutil.copytree(finished[0], tmp_path / "out")
    before = results(output)["ks"]
    assert superb(corpora, output) == 0
    assert len(in_process) == 1
    assert results(output)["ks"] == before
    log = (output / "logs" / "ks.log").read_text()
    assert "Already finished, nothing trained." in log
    assert results(output)["sd"]["state"] == FAILED  # as it was


def test_further_tasks_join_the_results(
    finished, corpora, tmp_path, in_process
):
    output = shutil.copytree(finished[0], tmp_path / "out")
    assert superb(corpora, output, tasks="sid") == 0
    found = results(output)
    assert list(found) == ["asr", "ks", "sid", "sd"]
    assert list(found["sid"]["scores"]) == ["SID on libri248"]


def test_predictions_on_the_tasks_own_corpora_are_packed(
    corpora, tmp_path, in_process, monkeypatch
):
    task = run.TASKS["ks"]
    digits = task.corpora[1]._replace(presets=("superb", "tiny"))
    monkeypatch.setitem(run.TASKS, "ks", task._replace(corpora=(digits,)))
    output = tmp_path / "out"
    assert superb(corpora, output) == 0
    assert list(results(output)["ks"]["scores"]) == ["KS"]
    with zipfile.ZipFile(output / "predict.zip") as file:
        assert "predict/ks_public/predict.txt" in file.namelist()
    # A task that then fails has none to submit
    assert superb(corpora, output, "--set=ks.num_classes=4") == 1
    assert results(output)["ks"]["state"] == FAILED
    assert not list(output.glob("predict*/*")) + list(output.glob("*.zip"))


def test_predictions_that_cannot_be_written_are_said(
    corpora, tmp_path, in_process, monkeypatch, capsys
):
    def lacking(*_):
        raise ImportError("the leaderboard's form of diarizations needs h5py")

    monkeypatch.setattr(run, "write_predictions", lacking)
    assert superb(corpora, tmp_path / "out") == 0
    assert "\n      no predictions: the leaderb" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option", ["--model=small", "--preset=superb", "--seed=3"]
)
def test_results_of_something_else_are_refused(
    option, finished, corpora, in_process, capsys
):
    assert superb(corpora, finished[0], option) == 1
    assert "holds other results: " in capsys.readouterr().err
    assert in_process == []


def test_one_process_at_a_time(corpora, tmp_path, in_process, capsys):
    with OneWriter(tmp_path, tmp_path / ".lock"):
        assert superb(corpora, tmp_path) == 1
    assert "being written by process" in capsys.readouterr().err
    assert in_process == []


def test_a_full_disk_is_one_line_of_its_task(
    corpora, tmp_path, in_process, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device", "predict")

    monkeypatch.setattr(run, "write_predictions", full)
    assert superb(corpora, tmp_path / "out", tasks="ks,sid") == 1
    found = results(tmp_path / "out")
    assert [r["state"] for r in found.values()] == [FAILED, FAILED]
    assert all("No space left on device" in r["reason"] for r in found.values())


def test_keys_come_in_their_order(corpora, tmp_path):
    plan, _ = run.plan_task("ks", run.TASKS["ks"], "tiny", corpora)
    request = run.Request(
        "tiny", ("ks",), corpora, tmp_path, "tiny", seed=3,
        cache="none", search="none", changed={"ks": {"batch_size": 5}},
    )  # fmt: skip
    keys = request.keys(plan)
    assert keys["batch_size"] == 5
    assert keys["num_classes"] == 10
    assert keys["seed"] == 3
    assert keys["data_folder"] == str(corpora / "digits")
    assert keys["output_folder"] == str(tmp_path / "tasks" / "ks")
    assert "learning_rate_search" not in keys


@pytest.mark.parametrize(
    ("suit", "cached"), [("none", ""), ("means", "ks"), ("all", "ks asr")]
)
def test_caches_and_searches_are_for_the_tasks_that_are_asked_for(
    suit, cached, corpora, tmp_path, monkeypatch
):
    known = ["feature_cache", "learning_rate_search"]
    monkeypatch.setattr(run, "keys_of", lambda yaml: known)
    for name in ("ks", "asr"):
        plan, _ = run.plan_task(name, run.TASKS[name], "tiny", corpora)
        request = run.Request(
            "tiny", ("ks",), corpora, tmp_path, "superb", None, suit, suit
        )
        keys = request.keys(plan)
        assert set(known) & set(keys) == set(
            known if name in cached.split() else ()
        )
        if name in cached.split():
            assert keys["feature_cache"] == str(tmp_path / "cache")
            assert len(keys["learning_rate_search"]) == 7


def test_a_linked_corpus_is_one_folder(tmp_path):
    corpus = next(c for c in run.TASKS["asr"].corpora if c.links)
    for name in ("9h/clean", "9h/other", "1h/0/clean", "1h/1/other"):
        (tmp_path / "librispeech_finetuning" / name).mkdir(parents=True)
    for name in ("dev-clean", "test-clean"):
        (tmp_path / "LibriSpeech" / name).mkdir(parents=True)
    assert corpus.find(tmp_path)[1] == []
    for _ in range(2):  # the second time over the first's
        run._link(corpus, tmp_path, tmp_path / "linked")
    assert sorted(p.name for p in (tmp_path / "linked").iterdir()) == [
        *("dev-clean", "test-clean", "train-1h-0-clean", "train-1h-0-other"),
        *("train-9h-clean", "train-9h-other"),
    ]


COMMAND = """
import sys
from unispeech_sb.commands import main
main(sys.argv[1:])
"""


def start(root, corpora, output):
    """The command as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "superb", "run", "--model=tiny",
         "--preset=tiny", "--device=cpu", "--tasks=ks", "--search=none",
         "--cache=none", f"--data-root={corpora}", f"--output={output}", *SET],
        stdout=subprocess.DEVNULL, env=environment(root),
    )  # fmt: skip


def wait_for(condition, process):
    """Looks until something is there, as long as the process runs."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["logs/ks.log", "tasks/ks/save/CKPT*"])
def test_a_killed_run_goes_on(place, root, corpora, tmp_path, in_process):
    process = start(root, corpora, tmp_path)
    wait_for(lambda: any(tmp_path.glob(place)), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert results(tmp_path)["ks"]["state"] == "running"
    assert "not finished" in (tmp_path / "report.html").read_text()
    assert superb(corpora, tmp_path) == 0  # nothing is in its way
    assert results(tmp_path)["ks"]["state"] == FINISHED


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own way")
def test_a_killed_run_takes_its_recipe_with_it(root, corpora, tmp_path):
    process = start(root, corpora, tmp_path)
    lock = tmp_path / "tasks" / "ks" / ".lock"
    wait_for(lambda: lock.is_file() and lock.read_text(), process)
    pid = json.loads(lock.read_text())["pid"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the recipe runs on")


@pytest.mark.slow
def test_each_task_is_run_by_all_processes(corpora, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(COMMAND)
    done = run_script(
        script, "superb", "run", "--model=tiny", "--preset=tiny",
        "--device=cpu", "--tasks=ks,sid", "--search=none", "--cache=none",
        f"--data-root={corpora}", f"--output={tmp_path / 'out'}", *SET,
        processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "out")
    assert [record["state"] for record in found.values()] == [FINISHED] * 2
    assert done.stdout.count("[1/2]") == 1
    assert not list((tmp_path / "out").glob(".ranks-*"))


def test_a_task_waits_for_the_recipe_of_a_killed_run(tmp_path):
    other = (
        "import sys, time; from pathlib import Path\n"
        "from unispeech_sb.atomic import OneWriter\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with OneWriter(folder, folder / '.lock'):\n"
        "    print('has it', flush=True); time.sleep(1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", other], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    run._await_writer(tmp_path)
    assert process.wait(10) == 0 and not (tmp_path / ".lock").exists()
