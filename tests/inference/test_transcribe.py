"""The command, on a folder as convert writes it."""

import json

import pytest
import soundfile
from speechbrain.inference.ASR import EncoderASR

from tests.inference.models import TOKENS, characters, uneven_speech
from unispeech_sb.checkpoints.folder import write_pretrained
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.transcribe import main
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder with a tiny model."""
    path = tmp_path_factory.mktemp("asr") / "tiny"
    head = FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= 20
    lobes = {"backbone": Backbone.from_preset("tiny"), "head": head}
    write_pretrained(
        path, lobes, "EncoderASR", "A test.", characters(), blank_index=0
    )
    return path


@pytest.fixture
def files(tmp_path):
    """Two recordings, the longer one first."""
    paths = [str(tmp_path / name) for name in ("b.wav", "a.flac")]
    for path, seconds, rate in zip(paths, (2.0, 1.0), (44100, 16000)):
        soundfile.write(path, uneven_speech(seconds, rate).numpy(), rate)
    return paths


def expected(folder, path):
    """What SpeechBrain's own interface makes of a file."""
    text = EncoderASR.from_hparams(str(folder)).transcribe_file(path)
    return " ".join(text.split())


def test_one_file_is_its_text(folder, files, capsys):
    main([str(folder), files[0]])
    captured = capsys.readouterr()
    assert captured.out == expected(folder, files[0]) + "\n"
    assert captured.out.strip()
    assert "transcribe: 100%" in captured.err


def test_files_come_in_the_order_given(folder, files, capsys):
    main([str(folder), *files])
    assert capsys.readouterr().out == "".join(
        f"{path}\t{expected(folder, path)}\n" for path in files
    )
    main([str(folder), *files, "--format", "json", "--batch-seconds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == files
    assert json.loads(lines[0])["text"] == expected(folder, files[0])


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("text", "txt"),
        ("json", "json"),
        ("srt", "srt"),
        ("vtt", "vtt"),
        ("ctm", "ctm"),
    ],
)
def test_each_file_gets_its_transcript(
    name, suffix, folder, files, tmp_path, capsys
):
    out = tmp_path / "new" / "out"
    arguments = [str(folder), *files, "--format", name]
    main([*arguments, "--output-dir", str(out)])
    assert capsys.readouterr().out == ""
    written = sorted(path.name for path in out.iterdir())
    assert written == [f"a.{suffix}", f"b.{suffix}"]
    first_word = expected(folder, files[0]).split()[0]
    assert first_word in (out / f"b.{suffix}").read_text()


def test_bad_files_are_named_at_the_end(folder, files, tmp_path, capsys):
    bad = [str(tmp_path / "no.wav"), str(tmp_path / "text.mp3")]
    (tmp_path / "text.mp3").write_text("hello " * 1000)
    with pytest.raises(SystemExit) as caught:
        main([str(folder), bad[0], *files, bad[1]])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == files
    *_, first, second, third = captured.err.splitlines()
    assert first == "transcribe: 2 of 4 files failed:"
    assert second == f"  {bad[0]}: there is no such file"
    assert third.startswith(f"  {bad[1]}: not readable as audio: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.wav", "b.wav", "--format", "srt"], "give --output-dir"),
        (["a.wav", "x/a.mp3", "--output-dir", "out"], "different names"),
        (["a.wav", "x/a.mp3", "--format", "ctm"], "different names"),
        (["a.wav", "a.wav"], "each of them once"),
    ],
)
def test_outputs_never_mix(arguments, said, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        main([str(folder), *arguments])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="folder with hyperparams.yaml"):
        main([str(tmp_path / "none"), "a.wav"])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x"])
def test_a_wrong_batch_length_is_2(seconds, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(folder), "a.wav", "--batch-seconds", seconds])
    assert caught.value.code == 2
    assert "--batch-seconds" in capsys.readouterr().err


def test_from_hparams_takes_the_windows(folder):
    asr = LongFormASR.from_hparams(str(folder), window_s=3.0, context_s=0.5)
    assert (asr.window_s, asr.context_s) == (3.0, 0.5)
    assert asr.transcribe_long(uneven_speech(7.0)).text
