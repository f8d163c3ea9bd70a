"""Corpora of conversations are read, and what is wrong is named with a line."""

import numpy as np
import pytest
import soundfile

from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.rttm import read_annotations

LINE = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"


def conversations(folder):
    """The records of a folder, whatever its layout."""
    return read_corpus("speaker_diarization", {}, folder)


def record_talk(path, duration_s=4.0):
    """Writes a recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).normal(size=round(8000 * duration_s))
    soundfile.write(path, 0.1 * wav, 8000)


@pytest.fixture
def kaldi(tmp_path):
    """A function that writes a Kaldi folder of two recordings."""

    def write(name="train", scp="a a.wav\nb sub/b.wav\n", rttm=None):
        folder = tmp_path / name
        record_talk(folder / "a.wav")
        record_talk(folder / "sub/b.wav", 2.0)
        (folder / "wav.scp").write_text(scp)
        if rttm is None:
            lines = [LINE.format("a", 0.5, 2.0, "anna")]
            lines += [LINE.format("a", 2.0, 1.5, "ben")]
            rttm = "".join(lines)
        (folder / "rttm").write_text(rttm)
        return folder

    return write


def test_a_kaldi_folder_is_read(kaldi):
    folder = kaldi()
    first, second = conversations(folder)
    assert first == {
        "ID": "a",
        "wav": str(folder / "a.wav"),
        "split": "train",
        "rttm": str(folder / "rttm"),
        "uem": "",
        "duration": 4.0,
    }
    assert second["wav"] == str(folder / "sub/b.wav")
    assert read_annotations(first["rttm"]) == {
        "a": [(0.5, 2.5, "anna"), (2.0, 3.5, "ben")]
    }


def test_without_rttm_its_segments_are_taken(kaldi):
    folder = kaldi()
    (folder / "rttm").unlink()
    (folder / "segments").write_text("anna-1 a 0.5 2.5\nben-1 a 2.0 3.5\n")
    (folder / "utt2spk").write_text("anna-1 anna\nben-1 ben\n")
    (folder / "uem").write_text("a 1 0.0 3.0\n")
    first, second = conversations(folder)
    assert first["rttm"] == str(folder / "segments")
    assert [first["uem"], second["uem"]] == [str(folder / "uem"), ""]
    assert read_annotations(first["rttm"])["a"][1] == (2.0, 3.5, "ben")
    (folder / "segments").write_text("anna-1 a 0.5 2.5\nben-1 a 2.0 4.5\n")
    with pytest.raises(ValueError, match="segments, line 2: ben of a speaks"):
        list(conversations(folder))


def test_folders_beside_each_other_are_splits(kaldi, tmp_path):
    for name in ("train", "dev", "test-360"):
        kaldi(name)
    found = [
        (r["wav"].split("/")[-2], r["split"]) for r in conversations(tmp_path)
    ]
    assert found[::2] == [
        ("dev", "valid"),
        ("test-360", "test"),
        ("train",) * 2,
    ]


def test_a_folder_of_another_name_needs_a_split(kaldi):
    folder = kaldi("meetings")
    with pytest.raises(ValueError, match="meetings: .* got 'meetings'"):
        list(conversations(folder))


@pytest.mark.parametrize(
    ("scp", "message"),
    [
        ("a a.wav\nb sph2pipe -f wav b.sph |\n", "line 2: .* not run"),
        ("a a.wav\nb c.wav\n", "line 2: no such file: .*train/c.wav"),
        ("a a.wav\nb\n", "line 2: expected the path of a recording"),
    ],
)
def test_a_bad_line_of_the_list_is_named(kaldi, scp, message):
    with pytest.raises(ValueError, match=f"wav.scp, {message}"):
        list(conversations(kaldi(scp=scp)))


def test_a_segment_past_the_end_is_named_with_its_line(kaldi):
    good = LINE.format("a", 0.0, 1.0, "anna") + LINE.format(
        "b", 0, 2.01, "anna"
    )
    assert len(list(conversations(kaldi(rttm=good)))) == 2
    late = good + "SPKR-INFO a 1 <NA> <NA> <NA> unknown anna <NA> <NA>\n"
    late += LINE.format("a", 1.0, 3.5, "anna")
    message = (
        r"rttm, line 4: anna of a speaks until 4.5 s, but .*a\.wav has 4 s"
    )
    with pytest.raises(ValueError, match=message):
        list(conversations(kaldi(rttm=late)))


def test_a_speaker_that_overlaps_itself_is_named_with_its_line(kaldi):
    lines = LINE.format("a", 0.0, 1.0, "anna") + LINE.format(
        "a", 0.5, 1, "anna"
    )
    with pytest.raises(ValueError, match="rttm, line 2: anna of a"):
        list(conversations(kaldi(rttm=lines)))


def test_a_recording_without_speakers_is_one(kaldi):
    folder = kaldi(rttm=";; nobody\n")
    assert [r["ID"] for r in conversations(folder)] == ["a", "b"]
    assert read_annotations(folder / "rttm") == {}


def test_a_table_with_rttm_files_is_read(tmp_path):
    for name in ("x", "y"):
        record_talk(tmp_path / f"audio/{name}.flac")
        line = LINE.format(name, 0.0, 1.0, "anna")
        (tmp_path / f"audio/{name}.rttm").write_text(line)
    (tmp_path / "audio/x.uem").write_text("x 1 0.0 3.0\n")
    lists = tmp_path / "audio/lists"
    lists.mkdir()
    rows = [
        "id,split,path,rttm",
        "x,dev,audio/x.flac,audio/x.rttm",
        "y,train,y.flac,y.rttm",
    ]
    (lists / "manifest.csv").write_text("\n".join(rows))
    first, second = conversations(lists)
    assert (first["split"], second["split"]) == ("valid", "train")
    assert first["uem"] == str(tmp_path / "audio/x.uem")
    assert second["uem"] == ""
    rows[2] = "y,train,y.flac,z.rttm"
    (lists / "manifest.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"csv, line 3: no such .*'z\.rttm'"):
        list(conversations(lists))
    (lists / "manifest.csv").write_text("id,path\nx,x.flac\n")
    with pytest.raises(
        ValueError, match="expected a column 'rttm', got id, path"
    ):
        list(conversations(lists / "manifest.csv"))


def test_recordings_with_rttm_files_beside_them_are_read(tmp_path):
    folder = tmp_path / "test"
    record_talk(folder / "x.wav")
    with pytest.raises(ValueError, match=r"x\.wav: expected an RTTM file"):
        list(conversations(folder))
    (folder / "x.rttm").write_text(LINE.format("x", 0.0, 1.0, "anna"))
    assert [r["ID"] for r in conversations(folder)] == ["x"]
    (tmp_path / "dev").mkdir()
    with pytest.raises(ValueError, match="dev: expected recordings with RTTM"):
        list(conversations(tmp_path / "dev"))


def pair(folder, wav, rttm, lines):
    """A recording with an RTTM file beside it."""
    record_talk(folder / wav)
    (folder / rttm).write_text(lines)
    return folder


@pytest.mark.parametrize(
    ("wav", "name"),
    [
        ("0513.wav", "0513.wav"),
        ("talk.wav", "TALK"),
        ("my talk.wav", "my_talk"),
        ("a.wav", "audio/a.flac"),
        ("a.wav", "entirely_other"),
    ],
)
def test_segments_under_another_name_are_found_and_said(
    wav, name, tmp_path, caplog
):
    rttm = wav.replace("wav", "rttm")
    folder = pair(
        tmp_path / "dev", wav, rttm, LINE.format(name, 0.5, 1.0, "anna")
    )
    (folder / rttm).with_suffix(".uem").write_text(f"{name} 1 0 2\n")
    (record,) = conversations(folder)
    assert record["rttm_name"] == record["uem_name"] == name
    assert caplog.text.count("1 recordings have another name") == 2
    assert f"{name} for {folder / wav}" in caplog.text


def test_segments_of_other_recordings_only_are_refused_with_both_sides(
    tmp_path,
):
    lines = "".join(LINE.format(n, 0.5, 1.0, "anna") for n in ("x", "y"))
    folder = pair(tmp_path / "dev", "a.wav", "a.rttm", lines)
    with pytest.raises(ValueError, match="no name in common: a against x, y"):
        list(conversations(folder))


def test_recordings_that_share_an_rttm_file_are_not_taken_for_its_only_name(
    kaldi,
):
    with pytest.raises(ValueError, match="a, b against c"):
        list(conversations(kaldi(rttm=LINE.format("c", 0, 1, "anna"))))


def test_recordings_without_segments_beside_others_are_counted(kaldi, caplog):
    lines = LINE.format("a", 0, 1, "anna") + LINE.format("c", 0, 1, "anna")
    assert len(list(conversations(kaldi(rttm=lines)))) == 2
    assert "1 of 2 names of the recordings are not in" in caplog.text
    assert not any("rttm_name" in r for r in conversations(kaldi(rttm=lines)))


def test_a_duration_that_a_recording_does_not_have_is_logged(kaldi, caplog):
    folder = kaldi()
    (folder / "reco2dur").write_text("a 400.0\nb 2.0\n")
    assert [r["duration"] for r in conversations(folder)] == [4.0, 2.0]
    assert "1 of 2 recordings do not last" in caplog.text
    assert "a.wav (400 s)" in caplog.text


def test_a_table_pairs_recordings_with_names_of_another_kind(tmp_path, caplog):
    record_talk(tmp_path / "a.wav")
    lines = LINE.format("session_7", 0.5, 1.0, "anna")
    (tmp_path / "one.rttm").write_text(lines)
    (tmp_path / "two.rttm").write_text(lines + lines.replace("n_7", "n_8"))
    table = tmp_path / "manifest.csv"
    table.write_text("path,rttm,split\na.wav,one.rttm,dev\n")
    (record,) = conversations(tmp_path)
    assert record["rttm_name"] == "session_7"
    assert "session_7 for " in caplog.text
    table.write_text("path,rttm,split\na.wav,two.rttm,dev\n")
    with pytest.raises(ValueError, match="a against session_7, session_8"):
        list(conversations(tmp_path))


def test_empty_rttm_files_are_counted(kaldi, caplog):
    assert len(list(conversations(kaldi(rttm="")))) == 2
    assert "1 rttm files are empty" in caplog.text


def test_a_uem_of_other_recordings_is_refused(kaldi):
    folder = kaldi()
    (folder / "uem").write_text("x 1 0 1\ny 1 0 1\n")
    with pytest.raises(
        ValueError, match="uem have no name .*a, b against x, y"
    ):
        list(conversations(folder))
    (folder / "uem").write_text("a 1 4 5\nb 1 0 1\n")
    with pytest.raises(ValueError, match="uem: expected a stretch of .*a.wav"):
        list(conversations(folder))


def test_turns_that_overlap_or_are_empty_are_merged_when_asked(kaldi, caplog):
    lines = "".join(
        LINE.format("a", start, length, "anna")
        for start, length in ((0.0, 1.0), (0.5, 1.0), (3.0, 0.0))
    )
    folder = kaldi(rttm=lines)
    with pytest.raises(ValueError, match="merge_segments=True"):
        list(conversations(folder))
    hparams = {"merge_segments": True}
    assert list(read_corpus("speaker_diarization", hparams, folder))
    assert "joined 1 segments" in caplog.text


def test_hidden_files_are_passed_over_and_suffixes_may_be_capital(tmp_path):
    lines = LINE.format("a", 0.5, 1.0, "anna")
    folder = pair(tmp_path / "dev", "a.WAV", "a.RTTM", lines)
    (folder / "._a.wav").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0")
    assert [r["ID"] for r in conversations(folder)] == ["a"]


@pytest.mark.real_data
def test_real_conversations_are_read(data_folder):
    mixtures = list(conversations(data_folder / "diarization/mix2"))
    splits = [record["split"] for record in mixtures]
    assert (splits.count("train"), splits.count("valid")) == (60, 16)
    meetings = list(conversations(data_folder / "diarization/real"))
    assert len(meetings) == 10 and all(record["uem"] for record in meetings)
    assert meetings[0]["duration"] == pytest.approx(30.0, abs=0.001)
