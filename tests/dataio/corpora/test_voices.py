"""Recordings of single speakers are read, whatever their splits."""

import numpy as np
import pytest
import soundfile

from unispeech_sb.dataio.corpora.voices import voices


def test_trees_of_all_splits_are_of_train(tmp_path):
    chapter = tmp_path / "libri" / "dev-mini" / "19" / "198"
    chapter.mkdir(parents=True)
    (chapter / "19-198-0000.flac").touch()
    (chapter / "19-198.trans.txt").write_text("19-198-0000 SO IT IS\n")
    video = tmp_path / "vox" / "id10270" / "video"
    video.mkdir(parents=True)
    (video / "00001.wav").touch()
    found = [*voices(tmp_path / "libri"), *voices(tmp_path / "vox")]
    assert [record["split"] for record in found] == ["train", "train"]
    assert [record["spk_id"] for record in found] == ["19", "id10270"]


def test_a_table_is_read_with_its_stretches(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 8000)
    table = tmp_path / "lists" / "voices.csv"
    table.parent.mkdir()
    table.write_text(
        "id,path,speaker,start,stop\n"
        "whole,a.wav,anna,,\n"
        "part,a.wav,anna,0.5,1.25\n"
        "rest,a.wav,ben,1.5,\n"
    )
    whole, part, rest = voices(table)
    assert "start" not in whole and whole["wav"] == str(tmp_path / "a.wav")
    assert (part["start"], part["stop"]) == (4000, 10000)
    assert (rest["start"], rest["stop"], rest["spk_id"]) == (
        12000,
        16000,
        "ben",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav,,", "line 2: expected a speaker"),
        ("b.wav,anna,", r"line 2: no such file, .*'b\.wav'"),
        ("a.wav,anna,soon", "line 2: expected seconds in start and stop"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 8000)
    (tmp_path / "manifest.csv").write_text(f"path,speaker,start\n{row}\n")
    with pytest.raises(ValueError, match=message):
        list(voices(tmp_path))


def test_nothing_is_no_corpus(tmp_path):
    with pytest.raises(ValueError, match="there is nothing"):
        list(voices(tmp_path))


@pytest.mark.real_data
def test_real_voices_are_read(data_folder):
    found = list(voices(data_folder / "libri248"))
    assert len(found) == len({record["spk_id"] for record in found}) == 200
