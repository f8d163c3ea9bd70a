"""What names recordings, and where the results of each go."""

import os

import pytest

from unispeech_sb.commands.recordings import Outputs, chosen, find_recordings
from unispeech_sb.inference.formats import (
    DIARIZATION_FORMATS,
    TRANSCRIPT_FORMATS,
    recording_name,
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of files, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "x/b.wav", "x/y/a.FLAC", "x/y/._a.flac", "x/.hidden/c.wav",
        "x/notes.txt", "z/a.wav", "one.wav", "odd[1].wav",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def places(*words):
    """Path -> place."""
    return {p: r.place for p, r in find_recordings(words).items()}


def test_a_folder_is_searched_and_keeps_its_tree(tree):
    expected = {"x/b.wav": "b", "x/y/a.FLAC": "y/a"}
    assert places("x") == expected
    absolute = places(str(tree / "x"))
    assert [*absolute.values()] == ["b", "y/a"]
    (tree / "empty" / "memo.M4A").touch()
    assert places("empty") == {"empty/memo.M4A": "memo"}
    assert places("x/../x/") == {
        f"x/../x/{path[2:]}": place for path, place in expected.items()
    }


def test_recordings_of_one_stem_keep_their_suffixes(tree):
    (tree / "x" / "b.flac").touch()
    assert places("x") == {
        "x/b.flac": "b.flac", "x/b.wav": "b.wav", "x/y/a.FLAC": "y/a",
    }  # fmt: skip
    made(tree / "out", ["x"]).check()
    with pytest.raises(ValueError, match="x/b.flac and x/b.wav would both"):
        made(tree / "out", ["x/b.flac", "x/b.wav"]).check()


def test_a_pattern_that_the_shell_left_is_expanded(tree):
    assert places("x/*.wav") == {"x/b.wav": "b"}
    assert places("**/*.wav") == {
        "odd[1].wav": "odd[1]", "one.wav": "one", "x/b.wav": "x/b",
        "z/a.wav": "z/a",
    }  # fmt: skip
    assert places("[xz]") == {
        "x/b.wav": "x/b", "x/y/a.FLAC": "x/y/a", "z/a.wav": "z/a",
    }  # fmt: skip
    assert places("odd[1].wav") == {"odd[1].wav": "odd[1]"}
    assert places("no*.wav") == {"no*.wav": "no*"}


def test_lists_name_recordings(tree):
    (tree / "list.txt").write_text("\ufeffx/b.wav\r\n\r\n x/y/a.FLAC \r\n")
    assert places("@list.txt") == {"x/b.wav": "b", "x/y/a.FLAC": "y/a"}
    (tree / "x" / "own.txt").write_text("b.wav\ny/a.FLAC\nno.wav\n")
    assert places("@x/own.txt") == {
        "x/b.wav": "b", "x/y/a.FLAC": "y/a", "x/no.wav": "no",
    }  # fmt: skip
    (tree / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list\.txt: expected paths of"):
        places("@list.txt")
    (tree / "list.txt").write_bytes(b"caf\xe9.wav\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 1: expected text"):
        places("@list.txt")
    assert places("@none.txt") == {"@none.txt": "@none"}


@pytest.mark.parametrize("word", ["wav.scp", "@wav.scp"])
def test_kaldis_names_are_those_of_the_results(word, tree):
    (tree / "wav.scp").write_text("utt.1 x/b.wav\nutt/2 z/a.wav\n")
    found = find_recordings([word])
    assert [*found] == ["x/b.wav", "z/a.wav"]
    assert [r.name for r in found.values()] == ["utt.1", "utt/2"]
    assert [r.place for r in found.values()] == ["utt.1", "utt_2"]
    assert recording_name(found["x/b.wav"].name) == "utt.1"
    outputs = Outputs(found, chosen(TRANSCRIPT_FORMATS, "json"), tree / "out")
    assert outputs.targets("x/b.wav") == [tree / "out" / "utt.1.json"]
    for line, said in (
        ("a sox b.wav - |", r"wav\.scp, line 1: .* commands are not run"),
        ("a x/b.wav\nb x/b.wav", "x/b.wav is a and b"),
    ):
        (tree / "wav.scp").write_text(f"{line}\n")
        with pytest.raises(ValueError, match=said):
            find_recordings([word])


def test_what_is_named_twice_is_taken_once(tree):
    assert [*places("x/b.wav", "x")] == ["x/b.wav", "x/y/a.FLAC"]


def test_what_is_not_there_stays(tree):
    assert places("none.wav", "empty", "x/b.wav") == {
        "none.wav": "none", "empty": ".", "x/b.wav": "b",
    }  # fmt: skip
    os.mkfifo("pipe[a].scp")
    os.symlink("none", "link.wav")
    assert places("pipe[a].scp", "link.wav") == {
        "pipe[a].scp": "pipe[a]", "link.wav": "link",
    }  # fmt: skip


def test_no_name_is_no_recording(tree):
    with pytest.raises(ValueError, match="files: expected the name of a rec"):
        find_recordings(["x/b.wav", ""])


def made(folder, words, form="json", table=TRANSCRIPT_FORMATS):
    """Outputs of recordings."""
    return Outputs(find_recordings(words), chosen(table, form), folder)


def test_outputs_that_would_mix_are_refused(tree):
    for words, form in ((["x/b.wav", "z"], "srt"), (["one.wav", "x"], "tsv")):
        with pytest.raises(ValueError, match="give --output-dir"):
            made(None, words, form).check()
        made(tree / "out", words, form).check()
    with pytest.raises(ValueError, match="a.wav and x/y/a.FLAC would both"):
        made(tree / "out", ["z", "x/y"]).check()
    made(tree / "out", ["[xz]"]).check()
    with pytest.raises(ValueError, match="z/a.wav and x/y/a.FLAC"):
        made(None, ["z", "x"], "ctm").check()
    with pytest.raises(ValueError, match="--format all: expected an output"):
        made(None, ["one.wav"], "all").check()
    made(tree / "out", ["one.wav"], "all").check()
    with pytest.raises(ValueError, match="one.wav: expected a folder"):
        made(tree / "one.wav", ["x"]).check()


def test_no_input_is_overwritten(tree):
    os.link("one.wav", "one.json")
    with pytest.raises(ValueError, match="another file to write than the inp"):
        made(tree, ["x", "one.wav"]).check()
    os.unlink("one.json")
    (tree / "b.rttm").touch()
    outputs = made(tree, ["x"], "rttm", DIARIZATION_FORMATS)
    outputs.check()
    with pytest.raises(ValueError, match=r"b\.rttm: expected another file"):
        outputs.check(["b.rttm"])


def test_what_is_done_is_skipped(tree, capsys):
    outputs = made(tree / "out", ["x", "none.wav"], "all")
    assert outputs.left("transcribe", False) == [
        "x/b.wav", "x/y/a.FLAC", "none.wav",
    ]  # fmt: skip
    assert "1 of 3 files do not exist" in capsys.readouterr().err
    for target in outputs.targets("x/y/a.FLAC"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    outputs.targets("x/b.wav")[0].touch()  # one format of several
    assert outputs.left("transcribe", False) == ["x/b.wav", "none.wav"]
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        f"transcribe: 1 of 3 are in {tree / 'out'} already and skipped; "
        "--overwrite does them again"
    )
    assert len(outputs.left("transcribe", True)) == 3
    with pytest.raises(SystemExit):
        made(tree, ["none.wav", "empty"]).left("transcribe", False)
    *_, one, two = capsys.readouterr().err.splitlines()
    assert one.endswith("none.wav: there is no such file")
    assert two.endswith("empty: expected recordings in the folder; there are "
                        "none")  # fmt: skip
