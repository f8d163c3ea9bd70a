"""Beam search, language models and hot words hold for every method, or not at
all.
"""

import pytest
import soundfile
import torch

from tests.inference.models import (
    TOKENS,
    characters,
    recognizer,
    save_arpa,
    uneven_speech,
)
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.decoding import PrefixBeamSearcher
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead

GREEDY = """\
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: !ref <blank_index>
"""
BEAM = """\
decoding_function: !name:unispeech_sb.decoding.PrefixBeamSearcher
test_beam_search:
    tokenizer: !ref <tokenizer>
    beam_size: 20
"""
SAID = [(2, 0.9, 4), (3, 0.6, 4), (1, 0.95, 0), (2, 0.9, 3), (3, 0.6, 4)]
"""Token, its probability, and what gets most of the rest: "ab ab", or else
"ac ac"."""
SAMPLES = 400 + 320 * (len(SAID) - 1)


def unsure():
    """A recogniser that wavers between "ab" and "ac"."""
    probs = torch.full((1, len(SAID), len(TOKENS)), 1e-6)
    for frame, (token, prob, other) in enumerate(SAID):
        probs[0, frame, token] = prob
        probs[0, frame, other] = 1 - prob
    asr = recognizer()
    asr.mods.encoder.forward = lambda wav, wav_lens=None: probs.log()
    return asr


def texts_of(asr):
    """What each of the ways to transcribe says."""
    wav, lens = torch.zeros(SAMPLES), torch.ones(1)
    (batch,), _ = asr.transcribe_batch(wav[None], lens)
    stream = " ".join(word.text for word in asr.transcribe_stream(wav))
    return {batch, stream, asr.transcribe_long(wav).text}


@pytest.fixture
def arpa(tmp_path):
    """One that likes "ac"."""
    return save_arpa(tmp_path / "ac.arpa", ab=-3.0, ac=-0.1)


def test_beam_search_holds_for_every_method():
    asr = unsure()
    assert asr.decodes_greedily
    assert texts_of(asr) == {"ab ab"}
    asr.use_beam_search(beam_size=7)
    assert not asr.decodes_greedily
    assert asr.decoding_function.search.beam_size == 7
    assert texts_of(asr) == {"ab ab"}


def test_a_language_model_changes_what_is_heard(tmp_path, arpa):
    pytest.importorskip("kenlm")
    asr = unsure()
    asr.use_language_model(arpa, alpha=1.0, beta=0.5)
    model = asr.decoding_function.search.language_model
    assert (model.alpha, model.beta) == (1.0, 0.5)
    assert texts_of(asr) == {"ac ac"}
    asr.use_language_model(save_arpa(tmp_path / "b", ab=-0.1, ac=-3.0))
    assert texts_of(asr) == {"ab ab"}
    asr.use_language_model(arpa)
    asr.use_language_model(None)
    assert asr.decoding_function.search.language_model is None
    assert texts_of(asr) == {"ab ab"}


def test_hot_words_change_what_is_heard():
    asr = unsure()
    asr.use_hot_words(["ac"], weight=5.0)
    assert texts_of(asr) == {"ac ac"}
    asr.use_hot_words([])
    assert texts_of(asr) == {"ab ab"}


def test_what_is_not_switched_stays(arpa):
    pytest.importorskip("kenlm")
    asr = unsure()
    asr.use_language_model(None)
    assert asr.decodes_greedily
    asr.use_beam_search(beam_size=7)
    asr.use_hot_words(["ab"], weight=3.0)
    asr.use_language_model(arpa, alpha=2.0)
    asr.use_beam_search(token_threshold=6.0)
    search = asr.decoding_function.search
    assert (search.beam_size, search.token_threshold) == (7, 6.0)
    assert search.hot_words.words == ["ab"]
    assert search.language_model.alpha == 2.0


@pytest.mark.parametrize(
    "switch",
    [
        lambda asr: asr.use_language_model("nowhere.arpa"),
        lambda asr: asr.use_beam_search(beam_size=0),
    ],
)
def test_what_does_not_fit_changes_nothing(switch):
    asr = unsure()
    for _ in range(2):  # greedy, then by beam search
        before = asr.decoding_function, dict(vars(asr.hparams))
        with pytest.raises((ValueError, OSError, ImportError)):
            switch(asr)
        assert (asr.decoding_function, vars(asr.hparams)) == before
        asr.use_beam_search(beam_size=5)


@pytest.fixture(scope="module")
def beam_folder(tmp_path_factory):
    """A folder whose yaml names the beam search."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("beam") / "tiny"
    head = FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= 20
    lobes = {"backbone": Backbone.from_preset("tiny"), "head": head}
    write_pretrained(
        path, lobes, "EncoderASR", "A test.", characters(), blank_index=0
    )
    text = (path / "hyperparams.yaml").read_text()
    assert GREEDY in text
    (path / "hyperparams.yaml").write_text(text.replace(GREEDY, BEAM))
    return path


def test_a_folder_may_name_the_beam_search(beam_folder, tmp_path):
    asr = LongFormASR.from_hparams(
        str(beam_folder), window_s=2.0, context_s=0.3
    )
    assert isinstance(asr.decoding_function, PrefixBeamSearcher)
    assert asr.decoding_function.search.beam_size == 20
    torch.manual_seed(2)
    paths = [str(tmp_path / f"{n}.wav") for n in range(3)]
    for path, seconds in zip(paths, (1.0, 5.0, 1.5)):
        soundfile.write(path, uneven_speech(seconds).numpy(), 16000)
    results = dict(asr.transcribe_files(paths))
    for path in paths:
        alone = asr.transcribe_long(path)
        assert results[path].text == alone.text
        assert len(alone.words) >= 3
        stream = tuple(asr.transcribe_stream(path))
        assert [w.text for w in stream] == [w.text for w in alone.words]
        assert [w.start_s for w in stream] == [w.start_s for w in alone.words]
    for path in (paths[0], paths[2]):
        assert results[path].text == asr.transcribe_file(path)


def test_partial_text_is_what_follows_the_final_words(beam_folder):
    asr = LongFormASR.from_hparams(
        str(beam_folder), window_s=2.0, context_s=0.3
    )
    wav, said, words = uneven_speech(9.0), [], []

    def partial(text):
        said.append(" ".join([*words, *text.split()]))

    for word in asr.transcribe_stream(wav, partial):
        words.append(word.text)
    assert len(said) == 7
    assert said[-1] == asr.transcribe_long(wav).text == " ".join(words)
    assert len(set(said)) == 7
