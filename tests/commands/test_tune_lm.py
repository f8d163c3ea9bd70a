"""The command finds weights and writes a folder that uses them."""

import csv
import json

import pytest
import soundfile
from speechbrain.inference.ASR import EncoderASR
from tests.inference.test_transcribe import save_tiny

from benchmarks.ngrams import write_arpa
from tests.inference.models import uneven_speech
from unispeech_sb.inference.tune_lm import main

pytest.importorskip("kenlm", reason="the extra lm is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose decisions are close calls."""
    return save_tiny(tmp_path_factory.mktemp("asr") / "tiny", 3)


@pytest.fixture
def corpus(folder, tmp_path):
    """A table of recordings, and a language model of what a model that
    errs a little hears in them."""
    asr, rows = EncoderASR.from_hparams(str(folder)), []
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
    folder, corpus, tmp_path, capsys
):
    new, report = tmp_path / "new", tmp_path / "report.json"
    main(
        [str(folder), str(corpus), "--lm", str(corpus / "lm.arpa")]
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


def test_what_it_cannot_use_is_refused_before_any_work(folder, corpus):
    model = ["--lm", str(corpus / "lm.arpa")]
    with pytest.raises(ValueError, match="expected rows of the split 'test'"):
        main([str(folder), str(corpus), *model, "--split", "test"])
    with pytest.raises(ValueError, match="the column 'text' of .*0.wav"):
        main([str(folder), str(corpus), *model, "--text-column", "text"])
    with pytest.raises(ValueError, match="expected a new folder; it exists"):
        main([str(folder), str(corpus), *model, "--to", str(corpus)])
    with pytest.raises(ValueError, match="expected an ARPA file"):
        main([str(folder), str(corpus), "--lm", str(corpus / "0.wav")])
