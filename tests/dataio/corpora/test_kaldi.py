"""Kaldi folders of speech with texts."""

import numpy as np
import pytest
import soundfile

from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.manifest import check_records


@pytest.fixture
def folder(tmp_path):
    """Two recordings, a second each, with three texts."""
    folder = tmp_path / "train_clean"
    folder.mkdir()
    noise = 0.1 * np.random.default_rng(0).normal(size=8000)
    for name in "ab":
        soundfile.write(folder / f"{name}.wav", noise, 8000)
    write(folder, "wav.scp", f"a a.wav\nb {folder}/b.wav\n")
    write(folder, "segments", "a-1 a 0 0.5\na-2 a 0.5 -1\nb-1 b 0 1.0005\n")
    write(folder, "text", "a-1 so it  is\na-2 yes\nb-1 zürich\n")
    write(folder, "utt2spk", "a-1 ann\na-2 ann\nb-1 bob\n")
    return folder


def write(folder, name, text):
    """Writes a file."""
    (folder / name).write_text(text, encoding="utf-8")


def read(folder):
    """ID -> record, for speech recognition."""
    assert find_corpus("asr", {}, folder) == "kaldi"
    return {r["ID"]: r for r in read_corpus("asr", {}, folder)}


def test_segments_have_their_texts_and_speakers(folder):
    found = read(folder)
    assert found["a-2"] == {
        "ID": "a-2",
        "wav": str(folder / "a.wav"),
        "split": "train",
        "spk_id": "ann",
        "wrd": "yes",
        "start": 4000,
        "stop": 8000,
        "duration": 0.5,
    }
    assert found["a-1"]["wrd"] == "so it is"
    assert found["b-1"]["stop"] == 8000


def test_without_segments_whole_recordings_have_texts(folder):
    (folder / "segments").unlink()
    (folder / "utt2spk").unlink()
    write(folder, "text", "a so\nb it\n")
    found = read(folder)
    assert found["a"] == {
        "ID": "a",
        "wav": str(folder / "a.wav"),
        "split": "train",
        "spk_id": "",
        "wrd": "so",
    }


def test_folders_beside_each_other_are_splits(folder):
    other = folder.with_name("dev.mini")
    folder.rename(folder.with_name(".hidden"))
    other.mkdir()
    write(other, "wav.scp", "x ../.hidden/a.wav\n")
    write(other, "text", "x so\n")
    found = read(folder.parent)
    assert [r["split"] for r in found.values()] == ["valid"]


def test_names_without_a_counterpart_are_counted(folder, caplog):
    write(folder, "text", "a-1 so\na-9 no\n")
    write(folder, "segments", "a-1 a 0 1\na-2 a 0 1\nc-1 c 0 1\n")
    assert list(read(folder)) == ["a-1"]
    for said in (
        "1 of 2 names of {}/segments are not in {}/wav.scp: c",
        "1 of 2 names of {}/text are not in {}/segments: a-9",
        "1 of 2 names of {}/segments are not in {}/text: a-2",
    ):
        assert said.format(folder, folder) in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("text", "x so\ny it\n", "have no name in common: x, y against a-1, a"),
        ("segments", "x-1 x 0 1\n", "in common: x against a, b"),
        ("utt2spk", "x ann\n", "in common: a-1, a-2, b-1 against x"),
        ("segments", "a-1 a 0 1e12\n", "segments, line 1: expected seconds at"),
        ("segments", "a-1 a 0 nan\n", "segments, line 1: expected seconds"),
        ("segments", "a-1 a 0 2\n", "segments, line 1: .* the 1 s of .*a.wav"),
        ("segments", "a-1 a 0\n", "segments, line 1: expected 4 fields"),
        ("wav.scp", f"a {'a' * 300}.wav\n", "wav.scp, line 1: no such file"),
        ("wav.scp", "a cat a.wav |\n", "wav.scp, line 1: .*not run"),
    ],
)
def test_what_is_wrong_is_named(folder, name, text, message):
    write(folder, name, text)
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_of_repeated_names_the_last_line_counts(folder, caplog):
    write(folder, "text", "a-1 so\na-1 it\na-2 is\nb-1 no\n")
    assert read(folder)["a-1"]["wrd"] == "it"
    assert "text: 1 names occur several times" in caplog.text


def test_a_stated_duration_is_taken_along_to_be_compared(folder, caplog):
    (folder / "segments").unlink()
    (folder / "utt2spk").unlink()
    write(folder, "text", "a so\nb it\n")
    write(folder, "utt2dur", "a 5.0\nb 1.0\n")
    found = list(read(folder).values())
    assert [r["duration"] for r in found] == [5.0, 1.0]
    assert check_records(found)[0]["duration"] == 1.0
    assert "1 of 2 recordings do not last as many" in caplog.text
    write(folder, "utt2dur", "a 1e12\n")
    with pytest.raises(ValueError, match="utt2dur, line 1: expected seconds"):
        read(folder)


def test_another_encoding_is_named_with_its_line(folder):
    text = "a-1 so\na-2 zürich\n"
    (folder / "text").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="text, line 2: expected text in UTF"):
        read(folder)
