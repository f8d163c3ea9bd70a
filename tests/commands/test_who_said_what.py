"""``transcribe --speakers``: words, and whose they are."""

import json

import pytest
import soundfile
import torch

from tests.commands.test_transcribe import save_tiny
from tests.inference.diarization_models import save_model
from tests.inference.models import uneven_speech
from tests.inference.speaker_models import save_model as save_speakers
from unispeech_sb import load
from unispeech_sb.commands import main
from unispeech_sb.commands.transcribe import transcribe
from unispeech_sb.inference.attribution import attribute_words


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A recognizer, a diarization model, and two speaker models."""
    root = tmp_path_factory.mktemp("models")
    save_tiny(root / "asr", 20)
    save_model(root / "diarization")
    save_speakers(root / "speakers")
    save_speakers(root / "others", calibration=None, layerdrop=0.2)
    return root


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with three recordings."""
    monkeypatch.chdir(tmp_path)
    for name, rate, seconds in (
        ("talk", 16000, 3.0),
        ("ann", 8000, 1.0),
        ("bob", 44100, 1.2),
    ):
        wav = uneven_speech(seconds, rate)
        wavs = torch.stack([wav, wav], 1) if rate == 8000 else wav
        soundfile.write(tmp_path / f"{name}.wav", wavs.numpy(), rate)
    return tmp_path


@pytest.fixture
def line(folders, place):
    """The start of a command line."""
    speakers = ["--speakers", str(folders / "diarization")]
    return [str(folders / "asr"), "talk.wav", *speakers]


def test_words_have_the_speakers_of_the_diarization(
    line, folders, place, capsys
):
    transcribe([*line, "-f", "json"])
    found = json.loads(capsys.readouterr().out)
    talk = load(folders / "asr")("talk.wav")
    turns = load(folders / "diarization").diarize_file(
        "talk.wav", exclusive=True
    )
    assert turns.speakers
    wanted = attribute_words(talk, turns)
    assert [word["speaker"] for word in found["words"]] == [*wanted.speakers]
    assert found["text"] == talk.text
    assert [s["text"] for s in found["segments"]] == [
        segment.text for segment in wanted.segments
    ]


def test_each_format_has_a_file(line, folders, place):
    transcribe([line[0], "ann.wav", *line[1:], "-o", "out", "-f", "all"])
    made = {path.name for path in (place / "out").iterdir()}
    suffixes = ("txt", "json", "srt", "vtt", "tsv", "ctm", "stm", "rttm")
    assert made == {f"{n}.{s}" for n in ("talk", "ann") for s in suffixes}
    assert (place / "out/talk.txt").read_text().startswith("speaker1: ")
    assert "<v speaker1>" in (place / "out/talk.vtt").read_text()
    assert " lex speaker1\n" in (place / "out/talk.ctm").read_text()


def test_enrolled_speakers_are_named(line, folders, place, capsys):
    model = ["--speaker-model", str(folders / "speakers")]
    embed = ["embed", str(folders / "speakers"), "ann.wav", "bob.wav"]
    assert main([*embed, "-o", "people"]) == 0
    capsys.readouterr()
    store = ["--enrolled", "people"]
    transcribe([*line, *model, *store, "--threshold", "-1", "-f", "json"])
    found = json.loads(capsys.readouterr().out)
    assert {*found["speakers"]} <= {"ann", "bob"} and found["speakers"]
    transcribe([*line, *model, *store, "--threshold", "1", "-f", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["speakers"][0] == "speaker1"
    other = ["--speaker-model", str(folders / "others")]
    with pytest.raises(ValueError, match="of the model .*others; got those of"):
        transcribe([*line, *other, *store])
    with pytest.raises(ValueError, match="people.*there is no such"):
        (place / "people").unlink()
        transcribe([*line, *model, *store])
    (place / "text").write_text("no embeddings")
    with pytest.raises(ValueError, match="text: "):
        transcribe([*line, *model, "--enrolled", "text"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--num-speakers 2", "--num-speakers goes with --speakers"),
        ("--speaker-model x", "--speaker-model goes with --speakers"),
        ("--enrolled x", "--enrolled goes with --speaker-model"),
        ("--format stm", "--format stm: give --speakers, too"),
        ("-f rttm", "--format rttm: give --speakers, too"),
        ("--max-speakers 2 --min-speakers 3 --speakers x", "--max-speakers 2"),
        (
            "--speakers x --speaker-model y --threshold 1",
            "--threshold goes with --enrolled",
        ),
    ],
)
def test_options_that_make_no_sense_are_2(options, said, folders, capsys):
    with pytest.raises(SystemExit) as caught:
        transcribe([str(folders / "asr"), "talk.wav", *options.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_more_speakers_than_a_model_has_are_refused_before_any_work(
    folders, place, tmp_path
):
    save_model(tmp_path / "three", "frames")
    speakers = ["--speakers", str(tmp_path / "three"), "--num-speakers", "4"]
    with pytest.raises(ValueError, match="expected 3 at most"):
        transcribe([str(folders / "asr"), "talk.wav", *speakers])


def test_another_folder_is_refused_before_any_work(folders, place):
    with pytest.raises(ValueError, match="expected a folder for SpeakerDiar"):
        transcribe(
            [str(folders / "asr"), "talk.wav"]
            + ["--speakers", str(folders / "asr")]
        )


def test_a_recording_that_fails_is_named(line, place, capsys):
    (place / "bad.wav").write_text("no audio")
    with pytest.raises(SystemExit):
        transcribe([line[0], "bad.wav", *line[1:], "-f", "text"])
    captured = capsys.readouterr()
    assert "bad.wav: not readable" in captured.err
    assert captured.out.startswith("talk.wav\tspeaker1: ")
