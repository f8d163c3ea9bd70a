"""Commands with --engine ray: Parquet parts with what the commands give."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.commands.test_transcribe import save_tiny
from tests.dataio.test_sources import lhotse_recording, write_lines, write_tar
from tests.inference import diarization_models, speaker_models
from tests.inference.hostile import hostile_files
from tests.inference.test_classification import save_model
from unispeech_sb.atomic import OneWriter
from unispeech_sb.commands import bulk, main
from unispeech_sb.commands.bulk_parts import COLUMNS, JOBS, schema_of
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.formats import unicode_name

pa = pytest.importorskip("pyarrow", reason="needs the extra scale")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Name -> folder of a tiny model."""
    root = tmp_path_factory.mktemp("models")
    return {
        "asr": str(save_tiny(root / "asr", 20)),
        "diarization": str(diarization_models.save_model(root / "diarization")),
        "keywords": save_model(root / "keywords"),
        "speakers": str(speaker_models.save_model(root / "speakers")),
    }


@pytest.fixture
def files(tmp_path):
    """Recordings of several lengths and rates, the longest first."""
    (tmp_path / "in").mkdir()
    found = []
    for number, (seconds, rate) in enumerate(
        ((2.5, 16000), (0.6, 8000), (1.0, 44100), (0.6, 16000))
    ):
        path = str(tmp_path / "in" / f"{number}.wav")
        wav = diarization_models.babble(seconds, number).numpy()[::2]
        soundfile.write(path, np.tile(wav, 2), rate)
        found.append(path)
    return found


class _Here:
    """Ray's data set, in this process."""

    def __init__(self, command, arguments, shards, parts):
        known = lambda: parts.known  # noqa: E731
        self.worker = partial(
            bulk.Worker, command, arguments, parts.model, known
        )
        seconds = arguments.part_seconds or JOBS[command].group_s
        self.groups = (
            bulk._fetched(group)
            for shard in shards
            for group in bulk._listed(bulk._packed(shard), seconds, known)
        )

    def iter_batches(self, **options):
        """Yields what the actors give."""
        worker = None
        for group in self.groups:
            worker = worker or self.worker()
            yield worker(group)


@pytest.fixture
def here(monkeypatch):
    """Bulk jobs run in this process."""
    monkeypatch.setattr(bulk, "_ray", lambda arguments: nullcontext())
    monkeypatch.setattr(bulk, "_pipeline", _Here)


@pytest.fixture(scope="session")
def two_cpus():
    """A Ray of this machine with two processors."""
    ray = pytest.importorskip("ray", reason="needs the extra scale")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=2**28,
    )
    yield
    ray.shutdown()


def rows_in(folder):
    """Id -> row of all parts, of which none may be there twice."""
    rows = [
        row
        for file in sorted(Path(folder).glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def run(*words):
    """Exit code of a command line with --engine ray."""
    try:
        return main([*map(str, words), "--engine", "ray"])
    except SystemExit as error:
        return error.code


def lines_of(capsys, *words):
    """Name -> what a command prints of a recording as JSON."""
    capsys.readouterr()
    assert main([*map(str, words), "-f", "json"]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {line.pop("name"): line for line in lines}


OPTIONS = {
    "transcribe": ("asr",),
    "diarize": ("diarization", "--max-speakers", "2"),
    "classify": ("keywords", "--top-k", "2"),
    "embed": ("speakers",),
    "features": ("speakers", "--layers", "2,0", "--window-s", "2"),
}
"""Command -> its model and options."""


def check_equal(found, expected):
    """Numbers are equal within 1e-6, all else is the same."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            check_equal(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected):
            check_equal(*pair)
    else:
        near = isinstance(expected, float)
        assert found == (
            pytest.approx(expected, abs=1e-6) if near else expected
        )


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize("together", [True, False])
def test_a_job_gives_what_the_command_gives(
    command, together, models, files, here, tmp_path, capsys
):
    model, *options = OPTIONS[command]
    line = [command, models[model], *files, *options]
    out, single = tmp_path / "out", tmp_path / "single"
    if not together:
        line += ["--batch-seconds", "0.1"]
    parts = [] if together else ["--part-seconds", 0.1]
    assert run(*line, "-o", out, *parts) == 0
    assert len([*out.iterdir()]) == (1 if together else len(files))
    rows = rows_in(out)
    assert set(rows) == set(files)
    for row in rows.values():
        assert row["error"] is None and len(row["content"]) == 32
        info = soundfile.info(row["id"])
        assert row["duration"] == pytest.approx(info.duration, abs=1e-3)
    if command == "embed":
        main([*line, "-o", str(single)])
        store = EmbeddingStore.load(single)
        for name in files:
            vector = store[name].vector.numpy()
            np.testing.assert_allclose(
                rows[name]["embedding"], vector, atol=1e-6
            )
    elif command == "features":
        main([*line, "-o", str(single)])
        for name in files:
            row = rows[name]
            states = np.array(row["states"], np.float32).reshape(row["shape"])
            expected = np.load(single / f"{Path(name).stem}.npy")
            np.testing.assert_allclose(states, expected, atol=1e-6)
            assert row["layers"] == [2, 0] and row["frame_s"] == 0.02
    else:
        for name, expected in lines_of(capsys, *line).items():
            key = (
                name
                if name in rows
                else next(n for n in files if Path(n).stem == name)
            )
            check_equal(rows[key], expected)


def test_words_have_their_speakers(models, files, here, tmp_path, capsys):
    line = ["transcribe", models["asr"], files[0]]
    line += ["--speakers", models["diarization"]]
    assert run(*line, "-o", tmp_path / "out") == 0
    (row,) = rows_in(tmp_path / "out").values()
    (expected,) = lines_of(capsys, *line).values()
    assert expected["speakers"] and expected["segments"]
    check_equal(row, expected)


def test_inputs_of_all_kinds_give_the_same(models, files, here, tmp_path):
    first, content = files[0], Path(files[0]).read_bytes()
    write_tar(tmp_path / "a.tar", {"u.wav": content})
    audio = pa.table({"audio": [{"bytes": content, "path": "x.wav"}]})
    pq.write_table(audio, tmp_path / "a.parquet")
    write_lines(tmp_path / "n.jsonl", [{"audio_filepath": first}])
    write_lines(tmp_path / "l.jsonl", [lhotse_recording(first)])
    (tmp_path / "wav.scp").write_text(f"kaldi {first}\n")
    (tmp_path / "list").write_text(f"file://{first}\n{tmp_path}/a.tar\n")
    expected = None
    for word, ids in {
        first: {first},
        tmp_path / "in": {*files},
        f"{tmp_path}/in/*": {*files},
        tmp_path / "a.tar": {f"{tmp_path}/a.tar/u.wav"},
        f"{tmp_path}/*.tar": {f"{tmp_path}/a.tar/u.wav"},
        tmp_path / "a.parquet": {f"{tmp_path}/a.parquet#0"},
        tmp_path / "n.jsonl": {first},
        tmp_path / "l.jsonl": {"rec"},
        tmp_path / "wav.scp": {"kaldi"},
        f"@{tmp_path}/list": {f"file://{first}", f"{tmp_path}/a.tar/u.wav"},
        f"file://{tmp_path}/in/0*": {f"file://{first}"},
    }.items():
        out = tmp_path / "out"
        assert run("classify", models["keywords"], word, "-o", out) == 0
        rows = rows_in(out)
        assert set(rows) == ids
        row = next(
            r for name, r in rows.items() if name in (first, *ids - {*files})
        )
        expected = expected or row
        for key in ("content", "posterior", "label", "duration"):
            assert row[key] == expected[key], word
        shutil.rmtree(out)


def test_archives_of_a_folder_are_read_but_not_the_job_itself(
    models, files, here, tmp_path
):
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "a.tar", {"u.wav": Path(files[0]).read_bytes()})
    line = ["classify", models["keywords"], folder, "-o", folder / "out"]
    for _ in range(2):
        assert run(*line) == 0
        assert set(rows_in(folder / "out")) == {f"{folder}/a.tar/u.wav"}


def test_bad_files_are_rows_with_the_words_of_the_command(
    models, here, tmp_path, capsys
):
    (tmp_path / "in").mkdir()
    files = hostile_files(tmp_path / "in")
    out = tmp_path / "out"
    for _ in range(2):  # what failed is tried again, and stays one row
        assert run("classify", models["keywords"], *files, "-o", out) == 1
        count = sum(map(bool, files.values()))
        said = capsys.readouterr().err.splitlines()
        assert f"classify: {count} recordings failed:" in said
        rows = rows_in(out)
    with pytest.raises(SystemExit):
        main(
            ["classify", models["keywords"], *files, "-o", str(tmp_path / "f")]
        )
    single = capsys.readouterr().err
    assert len(rows) == len(files)
    said = {unicode_name(name): bad for name, bad in files.items()}
    for name, row in rows.items():
        bad = said[name]
        assert bool(row["error"]) == bool(bad) == (row["label"] is None)
        assert row["error"] is None or f"  {row['error']}\n" in single


def test_a_bad_recording_in_an_archive_has_its_own_name(models, here, tmp_path):
    write_tar(tmp_path / "a.tar", {"u.wav": b"no audio", "v.wav": b""})
    write_lines(tmp_path / "l.jsonl", [{"audio_filepath": "u", "offset": 1}])
    line = ["classify", models["keywords"], tmp_path / "a.tar"]
    assert run(*line, "-o", tmp_path / "out") == 1
    name = f"{tmp_path}/a.tar"
    assert {
        i: row["error"] for i, row in rows_in(tmp_path / "out").items()
    } == {
        f"{name}/u.wav": f"{name}/u.wav: not readable as audio: Format not "
        "recognised",
        f"{name}/v.wav": f"{name}/v.wav: the file is empty",
    }


def contents(folder):
    """Name -> bytes and time of the parts."""
    return {
        p.name: (p.read_bytes(), p.stat().st_mtime_ns)
        for p in Path(folder).iterdir()
    }


@pytest.fixture
def counted(monkeypatch):
    """Paths that went through the model."""
    seen = []
    opened = bulk.importlib.import_module("unispeech_sb.commands.classify")
    original = opened.open_classifier

    def open_classifier(arguments):
        own = original(arguments)

        def run_files(paths, **options):
            seen.extend(paths)
            return own(paths, **options)

        return run_files

    monkeypatch.setattr(opened, "open_classifier", open_classifier)
    return seen


def test_what_is_there_is_not_done_again(
    models, files, here, counted, tmp_path, capsys
):
    line = ["classify", models["keywords"], "-o", tmp_path / "out"]
    line += ["--part-seconds", 0.1]
    assert run(*line, *files[:2]) == 0 and counted == files[:2]
    first = contents(tmp_path / "out")
    capsys.readouterr()
    assert run(*line, *files) == 0 and counted == files
    assert "4 recordings in 4 parts, 2 of them from before" in (
        capsys.readouterr().out
    )
    both = contents(tmp_path / "out")
    assert {name: both[name] for name in first} == first
    # Another time of a file: its bytes are the same, the model is not run
    os.utime(files[0], (1, 1))
    assert run(*line, *files) == 0 and counted == files
    assert contents(tmp_path / "out") == both
    # Other bytes: the row is replaced
    shutil.copy(files[1], files[0])
    assert run(*line, *files) == 0 and counted == [*files, files[0]]
    rows = rows_in(tmp_path / "out")
    assert len(rows) == 4 and rows[files[0]]["duration"] == pytest.approx(
        rows[files[1]]["duration"]
    )
    for folder in tmp_path.iterdir():
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_a_part_that_is_taken_away_is_done_again(
    models, files, here, counted, tmp_path
):
    line = ["classify", models["keywords"], *files, "-o", tmp_path / "out"]
    line += ["--part-seconds", 0.1]
    assert run(*line) == 0
    first = {
        name: data for name, (data, _) in contents(tmp_path / "out").items()
    }
    gone = next((tmp_path / "out").iterdir())
    (name,) = pq.read_table(gone)["id"].to_pylist()
    gone.unlink()
    assert run(*line) == 0
    assert counted == [*files, name]
    again = {
        name: data for name, (data, _) in contents(tmp_path / "out").items()
    }
    assert again == first  # to the byte, under the same name


def test_another_model_or_other_options_are_refused(
    models, files, here, tmp_path, capsys
):
    out = tmp_path / "out"
    line = ["classify", models["keywords"], files[0], "-o", out]
    assert run(*line) == 0
    first = contents(out)
    assert run(*line, "--batch-seconds", 7, "--threads", 2) == 0
    assert run(*line, "--top-k", 2) == 1
    assert "expected results of this model and these" in capsys.readouterr().err
    assert run("embed", models["speakers"], files[0], "-o", out) == 1
    copy = shutil.copytree(models["keywords"], tmp_path / "copy")
    assert run("classify", copy, *line[2:]) == 0  # the same files elsewhere
    (copy / "label_encoder.txt").open("a").write("\n")
    assert run("classify", copy, *line[2:]) == 1
    assert contents(out) == first
    assert run(*line, "--top-k", 2, "--overwrite") == 0
    (row,) = rows_in(out).values()
    assert len(row["classes"]) == 2
    next(out.iterdir()).write_bytes(b"PAR1 is not all")
    assert run(*line) == 1
    assert "expected a part of a job" in capsys.readouterr().err


def test_a_second_driver_is_refused(models, files, here, tmp_path, capsys):
    out = tmp_path / "out"
    with OneWriter(out):
        assert run("classify", models["keywords"], *files, "-o", out) == 1
    assert f"{out}: being written by process" in capsys.readouterr().err
    assert not [*out.iterdir()]


def test_a_recording_that_is_there_twice_counts_once(
    models, files, here, tmp_path, capsys
):
    write_lines(tmp_path / "n.jsonl", [{"audio_filepath": files[0]}] * 2)
    line = ["classify", models["keywords"], tmp_path / "n.jsonl"]
    assert run(*line, "-o", tmp_path / "out") == 1
    assert len(rows_in(tmp_path / "out")) == 1
    assert "have the id of another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("classify keywords a.wav", "give --output-dir"),
        ("classify keywords gone.wav -o out", "there is no such file"),
        ("classify keywords s3x://a/b -o out", "s3x"),
        ("classify keywords a.wav -o a.wav", "expected a folder"),
        ("classify keywords a.wav -o out --actors 2:1", "MIN up to MAX"),
        ("classify keywords a.wav -o out --actors x", "expected 1 or more"),
        ("classify speakers a.wav -o out", "EncoderClassifier"),
        ("classify nowhere a.wav -o out", "nowhere"),
        ("diarize diarization a.wav -o out --plot", "--plot: expected no"),
        ("align asr a.wav --text x -o out", "invalid choice: 'ray'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words, said, models, files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bulk, "_ray", pytest.fail)
    monkeypatch.chdir(tmp_path)
    shutil.copy(files[0], "a.wav")
    command, model, *rest = words.split()
    assert run(command, models.get(model, model), *rest) in (1, 2)
    assert said in capsys.readouterr().err


def test_options_of_ray_go_with_it_alone(models, files, capsys):
    line = ["classify", models["keywords"], files[0], "--actors", "2"]
    assert main(line) == 1
    assert "--actors: expected --engine ray" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(models, files, monkeypatch, capsys):
    from unispeech_sb import environment

    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    assert run("classify", models["keywords"], files[0], "-o", "x") == 1
    assert "pip install 'unispeech_sb[scale]'" in capsys.readouterr().err


def test_columns_are_those_of_the_page(root):
    text = (root / "docs" / "bulk.md").read_text("utf-8")
    for command, job in (("all", None), *JOBS.items()):
        columns = COLUMNS if job is None else job.columns
        for name, (_, about) in columns.items():
            assert f"| `{name}` | {about} |" in text, (command, name)
        if job is not None:
            assert set(schema_of(command).names) == {*COLUMNS, *columns}


def test_ray_gives_the_same_on_two_actors(
    two_cpus, models, files, tmp_path, monkeypatch, capsys
):
    write_tar(
        tmp_path / "a.tar",
        {f"{n}.wav": Path(path).read_bytes() for n, path in enumerate(files)},
    )
    bad = tmp_path / "in" / "bad.wav"
    bad.write_text("no audio")
    words = [tmp_path / "a.tar", f"file://{files[0]}", *files, bad]
    line = ["classify", models["keywords"], *words, "--part-seconds", 1]
    assert run(*line, "-o", tmp_path / "out", "--actors", "1:2") == 1
    said = capsys.readouterr()
    assert "9 recordings in" not in said.out
    assert "classify: 1 recordings failed:" in said.err
    monkeypatch.setattr(bulk, "_ray", lambda arguments: nullcontext())
    monkeypatch.setattr(bulk, "_pipeline", _Here)
    assert run(*line, "-o", tmp_path / "here") == 1
    rows, expected = rows_in(tmp_path / "out"), rows_in(tmp_path / "here")
    assert len(rows) == 10
    check_equal(rows, expected)


def workers():
    """Processes of this test's Ray that have a model."""
    import psutil

    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if "MapBatches(Worker)" in " ".join(p.cmdline())]


def test_a_killed_worker_loses_nothing(
    two_cpus, models, files, tmp_path, monkeypatch
):
    killed = []
    add = bulk.Parts.add

    def add_and_kill(self, table):
        if not killed:
            for process in workers():
                process.kill()
                killed.append(process.pid)
        return add(self, table)

    monkeypatch.setattr(bulk.Parts, "add", add_and_kill)
    write_tar(
        tmp_path / "a.tar",
        {f"{n}.wav": Path(files[n % 4]).read_bytes() for n in range(40)},
    )
    line = ["classify", models["keywords"], tmp_path / "a.tar"]
    line += ["--part-seconds", 2, "--actors", 1]
    assert run(*line, "-o", tmp_path / "out") == 0
    assert killed and len(rows_in(tmp_path / "out")) == 40


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(models, files, here, counted, tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {f"{n}.wav": Path(files[n % 4]).read_bytes() for n in range(200)},
    )
    out = tmp_path / "out"
    line = ["classify", models["keywords"], tmp_path / "a.tar", "-o", out]
    line += ["--part-seconds", 2, "--actors", 1]
    program = [sys.executable, "-m", "unispeech_sb"]
    process = subprocess.Popen(
        [*program, *map(str, line), "--engine", "ray"],
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not [*out.glob("part-*")]:
        time.sleep(0.02)
    process.kill()
    process.wait()
    first = contents(out)
    done = len(rows_in(out))
    assert 0 < done
    assert run(*line) == 0
    assert len(rows_in(out)) == 200 and len(counted) == 200 - done
    after = contents(out)
    assert {name: after[name] for name in first if name in after} == {
        name: value for name, value in first.items() if name[0] != "."
    }


@pytest.mark.slow
def test_the_page_runs_on_a_cluster(root, models, files, tmp_path):
    """The five lines: two nodes of a cluster on this machine."""
    pytest.importorskip("ray", reason="needs the extra scale")
    text = (root / "docs" / "bulk.md").read_text("utf-8")
    section = text.partition("## A cluster")[2].partition("\n## ")[0]
    block = re.search(r"^```\n(.*?)^```", section, re.M | re.S)[1]
    lines = [shlex.split(line) for line in block.splitlines()]
    head, node, *commands = [
        w for w in lines if w[0] in ("ray", "unispeech-sb")
    ]
    assert head[:3] == ["ray", "start", "--head"] and len(commands) == 2
    assert commands[0][0] == "unispeech-sb" and commands[1] == ["ray", "stop"]
