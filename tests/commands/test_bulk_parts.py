"""Parts of bulk jobs: what is there is not done again, and not done twice."""

import os
import shutil

import pytest

from tests.commands.bulk_jobs import contents, rows_in, run
from tests.dataio.test_sources import write_lines
from unispeech_sb.atomic import OneWriter
from unispeech_sb.commands import bulk

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra scale")


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
