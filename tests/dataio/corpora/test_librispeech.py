"""LibriSpeech's tree to records."""

import pytest

from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech


@pytest.fixture
def tree(tmp_path):
    """Two utterances for training, one for validation."""
    for subset, reader, texts in (
        ("train-mini", "19", ("SO IT IS", "IT'S  NOT")),
        ("dev-clean", "26", ("NO",)),
    ):
        chapter = tmp_path / subset / reader / "1"
        chapter.mkdir(parents=True)
        lines = []
        for number, text in enumerate(texts):
            (chapter / f"{reader}-1-{number:04d}.flac").touch()
            lines.append(f"{reader}-1-{number:04d} {text}\n")
        (chapter / f"{reader}-1.trans.txt").write_text("".join(lines))
    return tmp_path


def test_every_utterance_has_its_text_reader_and_split(tree):
    found = {
        record["ID"]: (record["split"], record["spk_id"], record["wrd"])
        for record in librispeech(tree)
    }
    assert found == {
        "26-1-0000": ("valid", "26", "NO"),
        "19-1-0000": ("train", "19", "SO IT IS"),
        "19-1-0001": ("train", "19", "IT'S  NOT"),
    }


def test_hidden_files_are_passed_over(tree):
    chapter = tree / "dev-clean" / "26" / "1"
    (chapter / "._26-1.trans.txt").write_bytes(b"\0\5\x16\7")
    (chapter / "26-1-0000.flac").rename(chapter / "26-1-0000.FLAC")
    (record,) = librispeech(tree, ["dev-clean"])
    assert record["wav"] == str(chapter / "26-1-0000.FLAC")


def test_only_the_chosen_subsets_are_read(tree):
    records = list(librispeech(tree, ["train-mini"]))
    assert [record["split"] for record in records] == ["train", "train"]


def test_a_tree_is_known_by_its_transcripts(tree, tmp_path):
    assert is_librispeech(tree)
    assert not is_librispeech(tmp_path / "train-mini")


@pytest.mark.parametrize("subset", ["train-nothing", "other"])
def test_a_subset_that_is_none_is_named(tree, subset):
    with pytest.raises(ValueError, match=f"{subset}: expected "):
        list(librispeech(tree, [subset]))


@pytest.mark.parametrize("line", ["19-1-0000", "19-1-0009 NO SUCH FILE", ""])
def test_a_bad_line_is_named(tree, line):
    file = tree / "train-mini" / "19" / "1" / "19-1.trans.txt"
    file.write_text(f"19-1-0001 GOOD\n{line}\n")
    with pytest.raises(ValueError, match=f"{file}, line 2: expected the name"):
        list(librispeech(tree))


@pytest.mark.real_data
def test_the_real_excerpt_is_whole(data_folder):
    records = list(librispeech(data_folder / "LibriSpeech"))
    counts = {"train": 132, "valid": 27, "test": 50}
    for split, count in counts.items():
        assert sum(r["split"] == split for r in records) == count


def test_hidden_files_are_passed_over_and_odd_ones_counted(tmp_path, caplog):
    chapter = tmp_path / "train-mini" / "19" / "1"
    chapter.mkdir(parents=True)
    for name in ("19-1-0.FLAC", "19-1-1.WAV", "19-1-2.flac"):
        (chapter / name).touch()
    text = "19-1-0 SO\u2028IT\r\n19-1-1 IS\r\n"
    (chapter / "19-1.trans.txt").write_bytes(text.encode("utf-8-sig"))
    for name in ("._19-1.trans.txt", "._19-1-0.flac"):
        (chapter / name).write_bytes(b"\0\5\x16\7")
    found = list(librispeech(tmp_path))
    assert [r["wrd"] for r in found] == ["SO\u2028IT", "IS"]
    assert "train-mini: 1 recordings have no text: " in caplog.text
    (chapter / "19-1.trans.txt").write_bytes("19-1-0 É".encode("latin-1"))
    with pytest.raises(ValueError, match="trans.txt, line 1: expected text in"):
        list(librispeech(tmp_path))
