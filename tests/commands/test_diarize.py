"""The command, on a folder as convert writes it."""

import json
from pathlib import Path

import pytest
import torch

from tests.inference.diarization_models import babble, save_model
from tests.inference.hostile import check_report, hostile_files
from tests.inference.speaker_models import save_model as save_voices
from tests.inference.speaker_models import write
from unispeech_sb import commands
from unispeech_sb.commands.diarize import diarize
from unispeech_sb.dataio.rttm import read_rttm, write_rttm
from unispeech_sb.inference.diarization import SpeakerDiarization


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder."""
    return str(save_model(tmp_path_factory.mktemp("diarize") / "model"))


@pytest.fixture
def files(tmp_path):
    """Two recordings, the longer one first."""
    return [
        write(tmp_path / f"{name}.wav", babble(seconds))
        for name, seconds in (("long one", 3.3), ("b", 1.2))
    ]


def test_one_file_is_its_turns(folder, files, capsys):
    diarize([folder, files[0]])
    captured = capsys.readouterr()
    found = SpeakerDiarization.from_hparams(folder).diarize_file(files[0])
    assert captured.out == found.to_text() != ""
    assert "diarize: 100%" not in captured.err


def test_several_files_become_rttm_files_and_pictures(
    folder, files, tmp_path, capsys
):
    target = tmp_path / "new" / "folder"
    diarize([folder, *files, "--rttm-dir", str(target), "--plot",
          "--num-speakers", "2"])  # fmt: skip
    assert sorted(p.name for p in target.iterdir()) == [
        "b.png", "b.rttm", "long_one.png", "long_one.rttm",
    ]  # fmt: skip
    model = SpeakerDiarization.from_hparams(folder)
    lines = []
    for file, name in zip(files, ("long_one", "b")):
        found = model.diarize_file(file, 2)
        assert read_rttm(target / f"{name}.rttm") == {name: found.annotation}
        lines += [f"{file}\t{line}" for line in found.to_text().splitlines()]
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("form", ["rttm", "json"])
def test_files_follow_each_other_in_their_order(form, folder, files, capsys):
    diarize([folder, *files, "--format", form])
    model = SpeakerDiarization.from_hparams(folder)
    texts = [getattr(model.diarize_file(f), f"to_{form}")() for f in files]
    assert capsys.readouterr().out == "".join(texts)


def test_labels_of_one_file_are_for_audacity(folder, files, capsys):
    diarize([folder, files[0], "--format", "audacity"])
    start, end, speaker = capsys.readouterr().out.splitlines()[0].split("\t")
    assert float(start) < float(end) and speaker == "speaker1"


def test_a_speaker_model_may_be_given(folder, files, tmp_path, capsys):
    voices = str(save_voices(tmp_path / "voices"))
    diarize([folder, files[0], "--speaker-model", voices, "--format", "json",
          "--min-speakers", "2", "--max-speakers", "2"])  # fmt: skip
    assert len(json.loads(capsys.readouterr().out)["speakers"]) <= 2
    with pytest.raises(ValueError, match="none: expected a folder"):
        diarize([folder, files[0], "--speaker-model", str(tmp_path / "none")])


def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(
    folder, files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(commands.diarize, "load_folder", pytest.fail)
    (tmp_path / "file").touch()
    reference = tmp_path / "b.rttm"
    write_rttm(reference, {"b": [(0.0, 1.0, "anna")]})
    for options, message in (
        (["--rttm-dir", str(tmp_path / "file")], "expected a folder; .*file"),
        (
            ["--rttm-dir", str(tmp_path), "--plot", "--reference", reference],
            "b.rttm: expected another file to write than the input",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            diarize([folder, files[1], *map(str, options)])
    for options in (
        "--min-speakers 3 --max-speakers 2",
        "--num-speakers 3 --max-speakers 2",
        "--num-speakers 1 --min-speakers 2",
    ):
        with pytest.raises(SystemExit) as caught:
            diarize([folder, files[0], *options.split()])
        assert caught.value.code == 2
    assert "--min-speakers 2: expected 1 at most" in capsys.readouterr().err


def test_the_reference_is_drawn(folder, files, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "truth.rttm"
    write_rttm(path, {"long_one": [(0.0, 1.0, "anna")]})
    diarize([folder, files[0], "--plot"])
    plain = (tmp_path / "long_one.png").read_bytes()
    diarize([folder, files[0], "--plot", "--reference", str(path)])
    assert (tmp_path / "long_one.png").read_bytes() != plain
    diarize([folder, *files, "--plot", "--reference", str(path)])
    assert "1 of 2 names of the recordings are not in" in caplog.text
    write_rttm(path, {"LONG_ONE.wav": [(0.0, 1.0, "anna")]})
    diarize([folder, files[0], "--plot", "--reference", str(path)])
    assert (tmp_path / "long_one.png").read_bytes() != plain
    with pytest.raises(
        ValueError, match="no name in common: b against LONG_ON"
    ):
        diarize([folder, files[1], "--plot", "--reference", str(path)])


def test_bad_files_are_named_at_the_end(folder, files, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    bad = [str(tmp_path / "no.wav"), str(tmp_path / "text.wav")]
    silent = write(tmp_path / "silent.wav", torch.zeros(16000))
    target = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        diarize([folder, bad[0], files[1], bad[1], silent,
              "--rttm-dir", str(target)])  # fmt: skip
    assert caught.value.code == 1
    *_, first, second, third = capsys.readouterr().err.splitlines()
    assert first == "diarize: 2 of 4 files failed:"
    assert second == f"  {bad[0]}: there is no such file"
    assert third.startswith(f"  {bad[1]}: not readable as audio")
    assert sorted(p.name for p in target.iterdir()) == ["b.rttm", "silent.rttm"]
    assert (target / "silent.rttm").read_text() == ""


@pytest.mark.parametrize("form", ["text", "json", "rttm"])
def test_no_file_ends_a_batch(form, folder, tmp_path, capsys):
    files = hostile_files(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        diarize([folder, *files, "--rttm-dir", str(out), "--format", form])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    check_report(files, captured.err, "diarize")
    good = [Path(name).stem for name, said in files.items() if not said]
    written = {path.name for path in out.iterdir()}
    stems = {stem.replace("\udce9", "\\xe9") for stem in good}
    assert written == {f"{stem}.rttm" for stem in stems}
    assert read_rttm(out / "good.rttm")
    shown = captured.out.replace("\\\\", "\\")  # as JSON escapes it
    assert all(stem in shown for stem in stems)


def test_what_makes_no_sense_is_refused(folder, files, tmp_path, capsys):
    for names in (["a.wav", "a.wav"], ["x/a.wav", "y/a.flac"]):
        with pytest.raises(ValueError, match="expected different names"):
            diarize([folder, *names])
    with pytest.raises(ValueError, match="folder with hyperparams.yaml"):
        diarize([str(tmp_path / "none"), "a.wav"])
    for options in (
        ["--reference", "a.rttm"],
        ["b.wav", "--format", "audacity"],
        ["--num-speakers", "0"],
        ["--format", "srt"],
    ):
        with pytest.raises(SystemExit) as caught:
            diarize([folder, "a.wav", *options])
        assert caught.value.code == 2
    assert "give --plot" in capsys.readouterr().err
