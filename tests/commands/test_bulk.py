"""Commands with --engine ray: Parquet parts with what the commands give."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.commands.bulk_jobs import check_equal, rows_in, run
from tests.dataio.test_sources import lhotse_recording, write_lines, write_tar
from tests.inference.hostile import hostile_files
from unispeech_sb.commands import bulk, main
from unispeech_sb.commands.bulk_parts import COLUMNS, JOBS, schema_of
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.formats import unicode_name

pa = pytest.importorskip("pyarrow", reason="needs the extra scale")
pq = pytest.importorskip("pyarrow.parquet")


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
            check_equal(row[key], expected[key])
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
    monkeypatch.setattr(bulk, "ray_session", pytest.fail)
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
