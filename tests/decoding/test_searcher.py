"""EncoderASR builds the search from a folder, wherever the folder is."""

import shutil

import pytest
import soundfile
import torch
from speechbrain.decoders.ctc import CTCHypothesis
from speechbrain.inference.ASR import EncoderASR

from tests.decoding.posteriors import LETTERS, arpa, letters, noise, saying
from unispeech_sb.checkpoints.pretrained_folder import (
    write_beam_search,
    write_pretrained,
)
from unispeech_sb.decoding import PrefixBeamSearch, PrefixBeamSearcher
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead


@pytest.fixture(scope="module")
def greedy_folder(tmp_path_factory):
    """A tiny model that says letters at random, in a folder."""
    torch.manual_seed(0)
    lobes = {
        "backbone": Backbone.from_preset("tiny"),
        "head": FrameHead(16, len(LETTERS)),
    }
    lobes["head"].classifier.weight.data *= 5
    path = tmp_path_factory.mktemp("folders") / "greedy"
    write_pretrained(
        path,
        lobes,
        "EncoderASR",
        "A test.",
        labels=letters(),
        files={"notes/a.txt": "kept"},
        blank_index=0,
    )
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A second of noise."""
    path = tmp_path_factory.mktemp("wavs") / "a.wav"
    wav = torch.randn(16000, generator=torch.Generator().manual_seed(1)) / 10
    soundfile.write(path, wav.numpy(), 16000)
    return path


def log_probs_of(asr, recording):
    """Log-posteriors of one recording, [T, V]."""
    wav = asr.load_audio(str(recording))[None]
    with torch.no_grad():
        return asr.encode_batch(wav, torch.ones(1))[0]


def test_a_folder_decodes_by_beam_search(greedy_folder, recording, tmp_path):
    path = tmp_path / "beam"
    write_beam_search(path, greedy_folder, beam_size=50, hot_words=["cab"])
    asr = EncoderASR.from_hparams(str(path))
    assert asr.decoding_function.search.beam_size == 50
    search = PrefixBeamSearch(asr.tokenizer, hot_words=["cab"], beam_size=50)
    (best,) = search.decode(log_probs_of(asr, recording))
    assert len(best.text) > 3
    assert asr.transcribe_file(str(recording)) == best.text
    assert (path / "notes" / "a.txt").read_text() == "kept"
    assert not list(tmp_path.glob(".beam*"))


def test_a_folder_carries_its_language_model(
    greedy_folder, recording, tmp_path, monkeypatch
):
    pytest.importorskip("kenlm", reason="the extra lm is not installed")
    first = tmp_path / "first"
    weights = {"alpha": 1.5, "beta": -2.0, "case": "lower"}
    write_beam_search(first, greedy_folder, arpa(tmp_path), weights)
    moved = tmp_path / "else" / "where"
    shutil.copytree(first, moved)
    shutil.rmtree(first)
    monkeypatch.chdir(tmp_path / "else")
    asr = EncoderASR.from_hparams("where")
    model = asr.decoding_function.search.language_model
    assert (model.alpha, model.beta, model.case) == (1.5, -2.0, "lower")
    assert model.score_beginning("ab") == 0 > model.score_beginning("x")
    (best,) = asr.decoding_function.search.decode(log_probs_of(asr, recording))
    assert best.lm_score != 0.0
    assert asr.transcribe_file(str(recording)) == best.text
    plain = tmp_path / "plain"
    write_beam_search(plain, moved)
    asr = EncoderASR.from_hparams(str(plain))
    assert asr.decoding_function.search.language_model is None
    assert not (plain / "language_model.ckpt").exists()


def test_settings_can_be_overridden(greedy_folder, tmp_path):
    path = tmp_path / "beam"
    write_beam_search(path, greedy_folder, beam_size=50)
    asr = EncoderASR.from_hparams(
        str(path), overrides={"test_beam_search": {"beam_size": 3}}
    )
    assert asr.decoding_function.search.beam_size == 3


def test_other_folders_are_refused(greedy_folder, tmp_path):
    with pytest.raises(ValueError, match="none: expected a folder with hyper"):
        write_beam_search(tmp_path / "beam", tmp_path / "none")
    other = tmp_path / "other"
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(other, lobes, "WaveformEncoder", "A test.")
    with pytest.raises(ValueError, match="expected a tokenizer, a decoding"):
        write_beam_search(tmp_path / "beam", other)
    with pytest.raises(ValueError, match="expected a new folder"):
        write_beam_search(other, greedy_folder)


def test_rows_of_a_batch_decode_as_they_do_alone():
    texts, longest = ["ab|c", "cab|b|ab", "a"], 24
    rows = [saying(text, sharpness=5.0) for text in texts]
    batch = torch.stack(
        [
            torch.cat([row, noise(longest - len(row), len(LETTERS))])
            for row in rows
        ]
    )
    wav_lens = torch.tensor([len(row) / longest for row in rows])
    searcher = PrefixBeamSearcher(letters(), topk=3)
    together = searcher(batch, wav_lens)
    for row, made, text in zip(rows, together, texts, strict=True):
        assert made == searcher(row[None])[0]
        assert len(made) == 3
        assert isinstance(made[0], CTCHypothesis)
        assert made[0].text == text.replace("|", " ")
        ranks = [one.lm_score for one in made]
        assert ranks == sorted(ranks, reverse=True)
        words = [word for word, _ in made[0].text_frames]
        assert " ".join(words) == made[0].text


def test_tokens_of_another_model_are_refused():
    with pytest.raises(ValueError, match="tokens of its tokenizer; got 2"):
        PrefixBeamSearcher(letters(), vocab_list=["-", "a"])


def test_texts_begin_at_their_beginning():
    with pytest.raises(ValueError, match="no start state"):
        PrefixBeamSearcher(letters())(noise(3, 6)[None], None, "state")
