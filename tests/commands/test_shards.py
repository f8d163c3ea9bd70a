"""``unispeech-sb shards`` as a user types it."""

import shutil

import numpy as np
import pytest
import soundfile

from tests.shards import write_recordings
from unispeech_sb.commands import main
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.shards import ShardRows, read_index

pytest.importorskip("webdataset")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("recorded"), 6, 2)


def counts(folder):
    """Split -> utterances."""
    splits = read_index(folder)["splits"]
    return {split: own["count"] for split, own in splits.items()}


def test_manifests_of_a_recipe(records, tmp_path, capsys):
    write_manifests(records, tmp_path / "manifests")
    line = ["shards", "make", str(tmp_path / "manifests"), "-o"]
    assert main([*line, str(tmp_path / "out"), "--workers=2"]) == 0
    said = capsys.readouterr().out
    assert "train      1 shards          6 utterances" in said
    assert "0 of 8 recordings as they were" in said
    assert f"--data_folder={tmp_path / 'out'}" in said
    assert counts(tmp_path / "out") == {"train": 6, "valid": 2}
    assert {row["wrd"] for row in ShardRows(tmp_path / "out", "valid")} == {
        "word 6", "word 7",
    }  # fmt: skip
    one = ["shards", "make", str(tmp_path / "manifests/train.csv"), "-o"]
    assert main([*one, str(tmp_path / "one"), "--valid-share=0"]) == 0
    assert counts(tmp_path / "one") == {"train": 6}
    assert main(["shards", "check", str(tmp_path / "out")]) == 0
    assert "2 shards with 8 utterances are whole" in capsys.readouterr().out


def test_a_folder_of_recordings_and_a_list(records, tmp_path):
    folder = tmp_path / "recordings"
    for record in records:
        (folder / record["ID"]).mkdir(parents=True)
        shutil.copy(record["wav"], folder / record["ID"] / "a.wav")
    line = ["shards", "make", str(folder), "-o", str(tmp_path / "a")]
    assert main([*line, "--valid-share=0.25"]) == 0
    assert counts(tmp_path / "a") == {"train": 6, "valid": 2}
    rows = [f"{r['wav']},{r['wrd']},{r['split']}" for r in records]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,text,split", *rows]))
    line = ["shards", "make", str(table), "-o", str(tmp_path / "b")]
    assert main([*line, "--task=asr", "--audio=copy"]) == 0
    assert {row["wrd"] for row in ShardRows(tmp_path / "b", "valid")} == {
        "word 6", "word 7",
    }  # fmt: skip
    assert read_index(tmp_path / "b")["kept"] == 8


def test_what_is_wrong_is_one_line(records, tmp_path, capsys):
    def said(*words, code=1):
        try:
            assert main(["shards", *map(str, words)]) == code
        except SystemExit as end:
            assert end.code == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return out + err

    out = tmp_path / "out"
    assert "no such file" in said("make", tmp_path / "none", "-o", out)
    assert "-o FOLDER" in said("make", tmp_path, code=2)
    assert "need --task" in said("make", tmp_path, "-o", out, "--x=1", code=2)
    assert "one folder" in said("check", tmp_path, tmp_path, code=2)
    assert "expected the index" in said("check", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in said("make", empty, "-o", out)
    (empty / "text.wav").write_text("no audio")
    assert "text.wav" in said("make", empty, "-o", out)
    assert not out.exists() and "none" not in said("--help", code=0)
    (empty / "text.wav").unlink()
    soundfile.write(empty / "b.wav", np.ones((9000, 2)) * [0.1, 0.2], 8000)
    assert "silent" in said("make", empty, "-o", out)
    assert not out.exists()


def test_a_check_exits_with_one_and_the_names(records, tmp_path, capsys):
    write_manifests(records, tmp_path / "manifests")
    out = tmp_path / "out"
    main(["shards", "make", str(tmp_path / "manifests"), "-o", str(out)])
    (out / "train-000000.tar").unlink()
    (out / "mine.txt").touch()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1"):
        main(["shards", "check", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{out}/train-000000.tar: missing",
        f"{out}/mine.txt: no part of these shards",
    ]
