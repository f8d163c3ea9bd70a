"""The commands, on a folder as convert writes it."""

import csv
import gzip
import json
import os
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from speechbrain.inference.ASR import EncoderASR

from benchmarks.ngrams import write_arpa
from tests.inference.hostile import check_report, hostile_files
from tests.inference.models import (
    TOKENS,
    characters,
    save_arpa,
    save_languages,
    uneven_speech,
)
from unispeech_sb import commands
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.commands.transcribe import transcribe, tune_lm
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.window_encoder import WindowEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead


def save_tiny(path, sharpness):
    """A pretrained folder with a tiny model."""
    torch.manual_seed(1)
    backbone, head = Backbone.from_preset("tiny"), FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= sharpness
    lobes = {"backbone": backbone, "head": head}
    write_pretrained(
        path, lobes, "EncoderASR", "A test.", characters(), blank_index=0
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One whose decisions are not close calls."""
    return save_tiny(tmp_path_factory.mktemp("asr") / "tiny", 20)


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
    transcribe([str(folder), files[0]])
    captured = capsys.readouterr()
    assert captured.out == expected(folder, files[0]) + "\n"
    assert captured.out.strip()
    assert "transcribe: 100%" not in captured.err


def test_files_come_in_the_order_given(folder, files, capsys):
    transcribe([str(folder), *files])
    assert capsys.readouterr().out == "".join(
        f"{path}\t{expected(folder, path)}\n" for path in files
    )
    transcribe(
        [str(folder), *files, "--format", "json", "--batch-seconds", "1"]
    )
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
    transcribe([*arguments, "--output-dir", str(out)])
    assert capsys.readouterr().out == ""
    written = sorted(path.name for path in out.iterdir())
    assert written == [f"a.{suffix}", f"b.{suffix}"]
    first_word = expected(folder, files[0]).split()[0]
    assert first_word in (out / f"b.{suffix}").read_text()


def test_bad_files_are_named_at_the_end(folder, files, tmp_path, capsys):
    bad = [str(tmp_path / "no.wav"), str(tmp_path / "text.mp3")]
    (tmp_path / "text.mp3").write_text("hello " * 1000)
    with pytest.raises(SystemExit) as caught:
        transcribe([str(folder), bad[0], *files, bad[1]])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == files
    *_, first, second, third = captured.err.splitlines()
    assert first == "transcribe: 2 of 4 files failed:"
    assert second == f"  {bad[0]}: there is no such file"
    assert third.startswith(f"  {bad[1]}: not readable as audio: ")


@pytest.mark.parametrize("form", ["text", "json", "ctm"])
def test_no_file_ends_a_batch(form, folder, tmp_path, capsys):
    files = hostile_files(tmp_path)
    out = tmp_path / "out"
    for options in ([], ["--output-dir", str(out)]):
        with pytest.raises(SystemExit) as caught:
            transcribe([str(folder), *files, "--format", form, *options])
        assert caught.value.code == 1
        captured = capsys.readouterr()
        check_report(files, captured.err, "transcribe")
        if not options:
            names = {line.split("\t")[0] for line in captured.out.splitlines()}
    stems = sorted(path.stem for path in out.iterdir())
    assert stems == sorted(
        Path(f).stem for f, said in files.items() if not said
    )
    if form == "text":
        shown = f"{tmp_path}/caf\\xe9.wav"
        assert shown in names and len(names) == len(stems)


def test_a_transcript_that_cannot_be_written_is_its_own_error(
    folder, files, tmp_path, capsys
):
    out, long = tmp_path / "out", str(tmp_path / ("n" * 251 + ".wav"))
    os.link(files[0], long)  # its name has room for no longer suffix
    (out / "a.json").mkdir(parents=True)
    with pytest.raises(SystemExit):
        transcribe(
            [str(folder), *files, long, "--output-dir", str(out)]
            + ["--format", "json"]
        )
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"  {files[1]}: ")
    assert second.startswith(f"  {long}: File name too long: {out}")
    assert (out / "b.json").read_text()


def test_a_batch_that_the_model_fails_on_is_tried_file_by_file(
    folder, files, tmp_path, monkeypatch, capsys
):
    """Short files and windows of long ones alike."""
    paths = [*files, str(tmp_path / "long.wav"), str(tmp_path / "other.wav")]
    for path, seconds in zip(paths[2:], (33.0, 34.0)):
        soundfile.write(path, uneven_speech(seconds).numpy(), 16000)
    encode = WindowEncoder.encode_whole

    def failing(self, wavs):
        sizes.append(len(wavs))
        if len(wavs) > 1 or len(wavs[0]) == 32000:
            raise RuntimeError("out of memory\nframe #0")
        return encode(self, wavs)

    sizes: list[int] = []
    monkeypatch.setattr(WindowEncoder, "encode_whole", failing)
    with pytest.raises(SystemExit):
        transcribe([str(folder), *paths, "--batch-seconds", "60"])
    assert sizes[:4] == [2, 1, 1, 3] and set(sizes[4:]) == {1}
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"  {files[0]}: out of memory"
    shown = [line.split("\t")[0] for line in captured.out.splitlines()]
    assert shown == paths[1:]


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
        transcribe([str(folder), *arguments])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="folder with hyperparams.yaml"):
        transcribe([str(tmp_path / "none"), "a.wav"])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x"])
def test_a_wrong_batch_length_is_2(seconds, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        transcribe([str(folder), "a.wav", "--batch-seconds", seconds])
    assert caught.value.code == 2
    assert "--batch-seconds" in capsys.readouterr().err


def test_the_command_line_chooses_the_decoding(files, tmp_path, capsys):
    pytest.importorskip("kenlm")
    folder = save_tiny(tmp_path / "unsure", 3)
    word = expected(folder, files[0]).split()[0]
    arpa = save_arpa(tmp_path / "one.arpa", **{word: -0.1})
    options = "--alpha 0.7 --beta -30 --beam-size 8".split()
    transcribe([str(folder), files[0], "--lm", str(arpa), *options])
    asr = LongFormASR.from_hparams(str(folder))
    asr.use_beam_search(beam_size=8)
    asr.use_language_model(arpa, alpha=0.7, beta=-30.0)
    with_model = asr.transcribe_long(files[0]).text
    assert capsys.readouterr().out == with_model + "\n"
    assert with_model != " ".join(expected(folder, files[0]).split())
    asr.use_language_model(None)
    asr.use_hot_words(["abc cab", "bb"])
    transcribe(
        [str(folder), files[0], "--hot-words", "abc cab, bb", *options[-2:]]
    )
    assert capsys.readouterr().out == asr.transcribe_long(files[0]).text + "\n"


def test_the_command_line_chooses_the_language(files, tmp_path, capsys):
    save_languages(tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "sb")
    asr = LongFormASR.from_hparams(str(tmp_path / "sb"))
    for lang in ("fra", "eng"):
        transcribe([str(tmp_path / "sb"), files[1], "--language", lang])
        asr.set_language(lang)
        text = asr.transcribe_long(files[1]).text
        assert text
        assert capsys.readouterr().out == text + "\n"
    with pytest.raises(ValueError, match="languages eng, fra; got 'deu'"):
        transcribe([str(tmp_path / "sb"), files[1], "--language", "deu"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--alpha 1", "--alpha weighs a language model: give --lm"),
        ("--beta 1", "--beta weighs a language model: give --lm"),
        ("--beam-size 0", "expected 1 or more, got 0"),
        ("--beam-size x", "expected 1 or more, got x"),
        ("--hot-words a,,b", "expected words between commas, got 'a,,b'"),
    ],
)
def test_options_that_make_no_sense_are_2(options, said, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        transcribe([str(folder), "a.wav", *options.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_missing_extra_is_named_before_any_work(
    folder, files, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    (tmp_path / "manifest.csv").touch()
    model = ["--lm", files[0]]
    remedy = r"pip install 'unispeech_sb\[lm\]'"
    with pytest.raises(ImportError, match=remedy):
        transcribe([str(folder), *files, *model])
    with pytest.raises(ImportError, match=remedy):
        tune_lm([str(folder), str(tmp_path), *model])


def test_a_packed_model_in_capitals_decodes_as_the_plain_one(
    files, tmp_path, capsys
):
    pytest.importorskip("kenlm")
    folder = save_tiny(tmp_path / "unsure", 3)
    word = expected(folder, files[0]).split()[0]
    options = "--alpha 0.7 --beta -30 --beam-size 8".split()
    texts = set()
    for name in (word, word.upper()):
        plain = save_arpa(tmp_path / "one.arpa", **{name: -0.1})
        packed = tmp_path / "one.arpa.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        for path in (plain, packed):
            transcribe([str(folder), files[0], "--lm", str(path), *options])
            texts.add(capsys.readouterr().out)
    assert len(texts) == 1


def test_what_cannot_be_used_is_refused_before_the_model_is_loaded(
    folder, files, tmp_path, monkeypatch
):
    pytest.importorskip("kenlm")
    monkeypatch.setattr(commands.transcribe, "load_folder", pytest.fail)
    arpa = save_arpa(tmp_path / "lm.arpa", ab=-0.1)
    broken = tmp_path / "cut.arpa.gz"
    broken.write_bytes(gzip.compress(arpa.read_bytes())[:-9])
    for options, message in (
        (["--lm", broken], "cut.arpa.gz"),
        (["--output-dir", arpa], "lm.arpa: expected a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            transcribe([str(folder), files[1], *map(str, options)])
    table = [str(folder), str(tmp_path), "--lm", str(arpa)]
    for options, message in (
        (["--json", tmp_path], "it is a folder"),
        (["--json", arpa], "than the input"),
        (["--to", arpa / "new"], "expected a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            tune_lm([*table, *map(str, options)])


def test_from_hparams_takes_the_windows(folder):
    asr = LongFormASR.from_hparams(str(folder), window_s=3.0, context_s=0.5)
    assert (asr.window_s, asr.context_s) == (3.0, 0.5)
    assert asr.transcribe_long(uneven_speech(7.0)).text


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """A model whose decisions are close calls."""
    pytest.importorskip("kenlm", reason="the extra lm is not installed")
    return save_tiny(tmp_path_factory.mktemp("unsure") / "tiny", 3)


@pytest.fixture
def corpus(unsure, tmp_path):
    """A table of recordings, and a language model of what a model that
    errs a little hears in them."""
    asr, rows = EncoderASR.from_hparams(str(unsure)), []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, uneven_speech(1.0 + number / 4).numpy(), 16000)
        text = asr.transcribe_file(str(path))
        rows.append((path.name, "dev", " ".join(text[3:].split())))
    rows.append((path.name, "train", ""))
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "wrd"), *rows])
    texts = [text for *_, text in rows if text]
    write_arpa(tmp_path / "lm.arpa", texts, order=2)
    return tmp_path


def test_the_folder_it_writes_decodes_as_it_says(
    unsure, corpus, tmp_path, capsys
):
    new, report = tmp_path / "new", tmp_path / "report.json"
    tune_lm(
        [str(unsure), str(corpus), "--lm", str(corpus / "lm.arpa")]
        + ["--to", str(new), "--json", str(report), "--rounds", "1"]
        + ["--beam-size", "20"]
    )
    results = json.loads(report.read_text())
    rates = results["word_error_rates"]
    tuned = rates["language model, tuned"]
    assert tuned == min(point["wer"] for point in results["tried"])
    assert tuned <= rates["language model"]
    shown = capsys.readouterr().out
    assert [line.split("  ")[0] for line in shown.splitlines()[:-1]] == [*rates]
    asr = EncoderASR.from_hparams(str(new))
    search = asr.decoding_function.search
    assert search.language_model.alpha == results["alpha"]
    assert search.language_model.beta == results["beta"]
    assert search.beam_size == 20
    assert not list(tmp_path.glob(".*"))


def test_texts_of_other_layouts_are_found(files, tmp_path):
    folder = tmp_path / "kaldi/dev"
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text(f"a {files[0]}\nb {files[1]}\n")
    (folder / "text").write_text("a so it\nb is\n")
    found = commands.transcribe._records(tmp_path / "kaldi", "valid", "wrd")
    assert [record["wrd"] for record in found] == ["so it", "is"]
    with pytest.raises(ValueError, match="split 'test', got those of valid"):
        commands.transcribe._records(tmp_path / "kaldi", "test", "wrd")
    with pytest.raises(ValueError, match="none of them\n(.*\n)*.*LibriSpeech"):
        commands.transcribe._records(tmp_path, "valid", "wrd")


def test_what_it_cannot_use_is_refused_before_any_work(unsure, corpus):
    model = ["--lm", str(corpus / "lm.arpa")]
    with pytest.raises(ValueError, match="expected rows of the split 'test'"):
        tune_lm([str(unsure), str(corpus), *model, "--split", "test"])
    with pytest.raises(ValueError, match="the column 'text' of .*0.wav"):
        tune_lm([str(unsure), str(corpus), *model, "--text-column", "text"])
    with pytest.raises(ValueError, match="expected a new folder; it exists"):
        tune_lm([str(unsure), str(corpus), *model, "--to", str(corpus)])
    with pytest.raises(ValueError, match="expected an ARPA file"):
        tune_lm([str(unsure), str(corpus), "--lm", str(corpus / "0.wav")])
