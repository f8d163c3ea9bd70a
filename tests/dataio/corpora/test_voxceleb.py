"""VoxCeleb's trees and lists to records."""

import pytest

from unispeech_sb.dataio.corpora.voxceleb import (
    TEST_SPEAKERS,
    is_voxceleb,
    voxceleb,
    voxceleb_identification,
)


def plant(folder, *names):
    """Makes empty recordings."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def splits(records):
    """ID -> split."""
    return {record["ID"]: record["split"] for record in records}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("", ""),
        ("wav/", "wav/"),
        ("dev/", "test/"),
        ("dev/wav/", "test/wav/"),
        ("dev/aac/", "test/aac/"),
    ],
)
def test_every_layout_gives_the_same_records(tmp_path, train, test):
    plant(tmp_path, f"{train}id10001/video/00001.wav")
    plant(tmp_path, f"{test}id10309/video/00002.flac")
    assert is_voxceleb(tmp_path)
    assert list(voxceleb(tmp_path)) == [
        {
            "ID": "id10001/video/00001.wav",
            "wav": str(tmp_path / train / "id10001/video/00001.wav"),
            "split": "train",
            "spk_id": "id10001",
            "label": "id10001",
        },
        {
            "ID": "id10309/video/00002.wav",
            "wav": str(tmp_path / test / "id10309/video/00002.flac"),
            "split": "test",
            "spk_id": "id10309",
            "label": "id10309",
        },
    ]


def test_speakers_of_the_trials_are_never_trained_on(tmp_path):
    assert len(TEST_SPEAKERS) == 40
    plant(tmp_path, "dev/wav/id10270/video/00001.wav")
    plant(tmp_path, "test/aac/id00017/video/00001.wav")  # VoxCeleb2's test
    assert set(splits(voxceleb(tmp_path)).values()) == {"test"}


def test_records_are_in_the_order_of_the_ids(tmp_path):
    plant(tmp_path, "dev/id00017/a/00001.wav", "test/id00012/b/00001.wav")
    found = splits(voxceleb(tmp_path))
    assert list(found.items()) == [
        ("id00012/b/00001.wav", "test"),
        ("id00017/a/00001.wav", "train"),
    ]


def test_aac_is_refused_with_what_to_do(tmp_path):
    plant(tmp_path, "dev/aac/id00012/a/00001.m4a", "dev/aac/id00012/a/1.txt")
    message = r"1 recordings are \.m4a.*00001\.m4a; .*ffmpeg"
    with pytest.raises(ValueError, match=message):
        list(voxceleb(tmp_path))
    plant(tmp_path, "wav/id00012/a/00001.wav")  # converted to another place
    assert list(splits(voxceleb(tmp_path))) == ["id00012/a/00001.wav"]


def test_folders_that_are_none_and_doubles_are_named(tmp_path):
    plant(tmp_path, "19/198/19-198-0000.wav", "id1/a/1.wav", "id10002/._a/x")
    assert is_voxceleb(tmp_path)  # by id10002, which turns out to be empty
    assert not is_voxceleb(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected <speaker>/<video>"):
        list(voxceleb(tmp_path))
    plant(tmp_path, "dev/id10001/a/1.wav", "wav/id10001/a/1.flac")
    with pytest.raises(ValueError, match=r"^id10001/a/1\.wav: .* one file"):
        list(voxceleb(tmp_path))


@pytest.fixture
def identification(tmp_path):
    """A function that writes a split file; two recordings of a speaker."""
    plant(tmp_path, "wav/id10001/a/1.wav", "wav/id10001/b/2.wav")

    def write(text):
        (tmp_path / "iden_split.txt").write_text(text)
        return voxceleb_identification(tmp_path)

    return write


def test_the_identification_split_says_what_is_what(identification, tmp_path):
    records = list(identification("3 id10001/b/2.wav\n1 id10001/a/1.wav\n"))
    assert [record["split"] for record in records] == ["test", "train"]
    assert {record["label"] for record in records} == {"id10001"}
    elsewhere = tmp_path / "other.txt"
    elsewhere.write_text("2 id10001/a/1.wav\n")
    found = splits(voxceleb_identification(tmp_path, elsewhere))
    assert found == {"id10001/a/1.wav": "valid"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("4 id10001/b/2.wav", "1, 2 or 3"),
        ("1", "1, 2 or 3"),
        ("", "1, 2 or 3"),
        ("1 id10001/a/1.wav", "each recording once"),
        ("1 id10001/b/3.wav", "a recording that is in"),
    ],
)
def test_a_bad_line_of_the_split_is_named(identification, line, fault):
    records = identification(f"1 id10001/a/1.wav\n{line}\n")
    message = rf"iden_split\.txt, line 2: expected {fault}.*got '{line}'"
    with pytest.raises(ValueError, match=message):
        list(records)


def test_a_split_file_that_says_nothing_is_refused(identification, tmp_path):
    with pytest.raises(ValueError, match="the file is empty"):
        list(identification(""))
    (tmp_path / "iden_split.txt").unlink()
    with pytest.raises(ValueError, match="there is no such file"):
        list(voxceleb_identification(tmp_path))
