"""Long recordings and many files transcribe as whole files do alone; what is
chosen at run time holds for every method, or not at all.
"""

import copy
import itertools
import json
import weakref

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from speechbrain.decoders.ctc import CTCBeamSearcher

from tests.inference.models import (
    TOKENS,
    VOCABULARIES,
    characters,
    recognizer,
    recut,
    save_arpa,
    save_languages,
    uneven_speech,
)
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.decoding import PrefixBeamSearcher, Transcript
from unispeech_sb.inference.asr import (
    LongFormASR,
    folder_languages,
    language_tokenizer,
)
from unispeech_sb.inference.audio_blocks import read_blocks
from unispeech_sb.inference.sliding_window import Window
from unispeech_sb.inference.window_encoder import Chunk, WindowEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead
from unispeech_sb.nnet.lengths import conv_lengths

NORMS = pytest.mark.parametrize("norm", ["group", "layer"])
NORMALIZE = pytest.mark.parametrize("normalize", [True, False])
CUTS = [(5.0, 1.0), (3.1, 0.5), (2.0, 0.7)]
TOLERANCE = 0.2
"""Of log-posteriors, for windows with half a second of context and more."""

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
WAV = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))


def spoken(path, seconds, rate=16000, channels=1):
    """A file of uneven noise."""
    wav = uneven_speech(seconds, rate)[:, None].repeat(1, channels)
    soundfile.write(path, wav.numpy(), rate, subtype="FLOAT")
    return path


@NORMS
@NORMALIZE
def test_a_model_that_hears_little_is_exact_however_it_is_cut(norm, normalize):
    whole = recognizer(60, 1, feat_extract_norm=norm, normalize_wav=normalize)
    for layer in whole.mods.encoder.backbone.encoder.layers:
        # Without attention a frame hears but the positional convolution's 8
        layer.attention.out_proj.weight.data.zero_()
    wav = uneven_speech(12.003)
    expected = whole.log_probs(wav)
    assert len(expected) == conv_lengths(
        len(wav), [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
    )
    for window_s, context_s in CUTS:
        ours = recut(whole, window_s, context_s).log_probs(wav)
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)


@NORMS
@NORMALIZE
def test_a_model_with_attention_is_near_however_it_is_cut(norm, normalize):
    whole = recognizer(60, 1, feat_extract_norm=norm, normalize_wav=normalize)
    wav = uneven_speech(12.003)
    expected = whole.log_probs(wav)
    for window_s, context_s in CUTS:
        ours = recut(whole, window_s, context_s).log_probs(wav)
        assert (ours - expected).abs().max() < TOLERANCE
        same = ours.argmax(-1) == expected.argmax(-1)
        assert same.float().mean() > 0.98


@NORMS
def test_a_short_recording_goes_through_as_in_transcribe_file(norm, tmp_path):
    asr = recognizer(feat_extract_norm=norm)
    path = spoken(tmp_path / "a.wav", 3.0, rate=44100, channels=2)
    transcript = asr.transcribe_long(path)
    assert len(transcript.words) > 5
    assert transcript.text.split() == asr.transcribe_file(str(path)).split()
    assert transcript.duration_s == pytest.approx(3.0)


def test_a_file_and_its_waveform_give_the_same(tmp_path):
    asr = recognizer(2.0, 0.3)
    path = spoken(tmp_path / "a.wav", 9.0)
    wav = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    ours, seconds = asr.transcribe_long(path), []
    assert ours == asr.transcribe_long(wav, on_progress=seconds.append)
    assert tuple(asr.transcribe_stream(wav)) == ours.words
    assert len(seconds) > 5
    assert sum(seconds) == pytest.approx(9.0, abs=0.04)


def test_words_come_while_the_model_serves_others():
    asr = recognizer(2.0, 0.3)
    wav, other = uneven_speech(9.0), torch.randn(1, 8000)
    expected = asr.encode_batch(other, torch.ones(1))
    words = []
    for word in asr.transcribe_stream(wav):
        words.append(word)
        assert torch.equal(asr.encode_batch(other, torch.ones(1)), expected)
    assert tuple(words) == asr.transcribe_long(wav).words


def test_partial_texts_and_words_make_the_transcript():
    asr = recognizer(2.0, 0.3)
    wav, partial, words = uneven_speech(9.0), [], []
    for word in asr.transcribe_stream(wav, partial.append):
        words.append(word.text)
    expected = asr.transcribe_long(wav).text.split()
    assert words == expected
    assert len(partial) == 7  # one for each window
    assert partial[-1] in ("", expected[-1])
    assert all(len(text.split()) <= 1 for text in partial)
    assert any(partial)


@pytest.mark.parametrize(("batch_seconds", "batches"), [(20.0, 10), (60.0, 4)])
def test_no_more_than_a_few_blocks_are_held(
    tmp_path, monkeypatch, batch_seconds, batches
):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for _ in range(3):
            file.write(np.random.default_rng(0).normal(0, 0.1, 16000 * 60))
    blocks, alive = [], []

    def watched(*arguments):
        for block in read_blocks(*arguments):
            blocks.append(weakref.ref(block))
            yield block

    def encode(wavs, wav_lens):
        alive.append(sum(block() is not None for block in blocks))
        return torch.randn(len(wavs), wavs.shape[1] // 320, 6)

    monkeypatch.setattr(
        "unispeech_sb.inference.window_encoder.read_blocks", watched
    )
    asr = recognizer(20.0, 1.0, normalize_wav=False)
    monkeypatch.setattr(asr._windows, "encode", encode)
    transcript = asr.transcribe_long(path, batch_seconds)
    assert transcript.duration_s == 180.0
    assert len(blocks) == 12  # 30 s each, read twice
    assert len(alive) == batches
    assert max(alive) <= 1


@NORMS
def test_files_together_are_files_alone(tmp_path, norm):
    asr = recognizer(6.0, 0.5, feat_extract_norm=norm)
    lengths = [0.4, 2.0, 1.3, 0.9, 7.5, 1.31, 9.0, 17.0]
    paths = [
        spoken(tmp_path / f"{n}.wav", seconds)
        for n, seconds in enumerate(lengths)
    ]
    alone = {path: asr.transcribe_long(path) for path in paths}
    for batch_seconds in (1.0, 4.0, 100.0):
        seconds = []
        results = dict(
            asr.transcribe_files(paths, batch_seconds, seconds.append)
        )
        assert set(results) == set(paths)
        for path in paths:
            same(results[path], alone[path])
        assert sum(seconds) == pytest.approx(sum(lengths), abs=0.2)


def same(ours, theirs):
    """Equal but for rounding in the confidences."""
    assert ours.text == theirs.text
    assert ours.duration_s == theirs.duration_s
    for one, other in zip(ours.words, theirs.words, strict=True):
        assert (one.start_s, one.end_s) == (other.start_s, other.end_s)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_a_file_given_twice_comes_twice(tmp_path):
    path = spoken(tmp_path / "a.wav", 1.0)
    results = list(recognizer().transcribe_files([path, path]))
    assert [given for given, _ in results] == [path, path]


def test_batches_hold_no_more_than_asked(tmp_path, monkeypatch):
    asr = recognizer()
    paths = [spoken(tmp_path / f"{n}.wav", 0.5 + n / 10) for n in range(9)]
    encode, sizes = asr._windows.encode, []

    def watched(wavs, wav_lens):
        sizes.append(wavs.numel())
        return encode(wavs, wav_lens)

    monkeypatch.setattr(asr._windows, "encode", watched)
    list(asr.transcribe_files(paths, batch_seconds=3.0))
    assert max(sizes) <= 3.0 * 16000
    assert len(sizes) < 5


def test_a_bad_file_leaves_the_others(tmp_path):
    asr = recognizer()
    good = [spoken(tmp_path / f"{n}.wav", 1.0 + 25 * n) for n in range(2)]
    text, short = tmp_path / "text.wav", spoken(tmp_path / "s.wav", 0.02)
    text.write_text("no audio")
    cut = [spoken(tmp_path / f"{n}.wav", 1.0 + 9 * n) for n in (2, 3)]
    for path in cut:
        with open(path, "rb+") as file:
            file.truncate(path.stat().st_size - 2)
    flac = tmp_path / "cut.flac"
    soundfile.write(flac, np.random.default_rng(0).normal(0, 0.1, 9**6), 16000)
    flac.write_bytes(flac.read_bytes()[:900_000])
    bad = [text, short, *cut, flac, tmp_path / "absent.wav"]
    results = dict(asr.transcribe_files([*bad, *good]))
    for path in bad:
        assert isinstance(results[path], AudioError)
        assert str(path) in str(results[path])
    assert all(isinstance(results[path], Transcript) for path in good)
    assert "too short" in str(results[short])
    assert all("truncated" in str(results[path]) for path in [*cut, flac])


def test_a_waveform_without_a_frame_is_refused():
    with pytest.raises(AudioError, match="waveform: too short.*got 399"):
        recognizer().transcribe_long(torch.randn(399))


def test_an_encoder_without_a_backbone_is_refused():
    asr = recognizer()
    with pytest.raises(ValueError, match="one Backbone; got 0"):
        LongFormASR({"encoder": torch.nn.Linear(2, 2)}, vars(asr.hparams))
    both = torch.nn.ModuleList([Backbone.from_preset("tiny") for _ in "ab"])
    with pytest.raises(ValueError, match="one Backbone; got 2"):
        LongFormASR({"encoder": both}, vars(asr.hparams))


def test_a_folder_with_another_beam_search_is_refused():
    asr = recognizer()
    hparams = {**vars(asr.hparams), "decoding_function": CTCBeamSearcher}
    hparams["test_beam_search"] = {"blank_index": 0}
    with pytest.raises(ValueError, match="ctc_greedy_decode .*; got CTCBeamS"):
        LongFormASR(dict(asr.mods), hparams)


def test_a_file_that_breaks_off_on_the_way_has_no_transcript(
    tmp_path, monkeypatch
):
    asr = recognizer(2.0, 0.3)
    paths = [spoken(tmp_path / f"{n}.wav", 5.0 + n) for n in range(3)]
    cut = asr._windows.cut

    def breaking(path):
        for n, chunk in enumerate(cut(path)):
            if n == 2 and path == paths[1]:
                raise AudioError(f"{path}: gone")
            yield chunk

    monkeypatch.setattr(asr._windows, "cut", breaking)
    results = list(asr.transcribe_files(paths))
    assert sorted(path for path, _ in results) == paths
    for path, result in results:
        expected = AudioError if path == paths[1] else Transcript
        assert isinstance(result, expected)


def watched(asr):
    """The encoder, and the shapes of the batches that go through it."""
    windows, shapes = asr._windows, []

    def encode(wavs, wav_lens):
        shapes.append(tuple(wavs.shape))
        return asr._encode(wavs, wav_lens)

    return WindowEncoder(
        windows.backbone,
        encode,
        windows.normalizer,
        windows.window_s,
        windows.context_s,
    ), shapes


def assert_near(ours, expected):
    """Compares log-posteriors on logits of +-20."""
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)


@NORMS
@NORMALIZE
def test_batches_of_windows_change_nothing(norm, normalize):
    asr = recognizer(2.0, 0.3, feat_extract_norm=norm, normalize_wav=normalize)
    encoder, shapes = watched(asr)
    wav = uneven_speech(12.003)
    alone = [row for _, row in encoder.encode_all(encoder.cut(wav), 0.1)]
    assert {rows for rows, _ in shapes} == {1}
    assert len(shapes) == 9
    shapes.clear()
    ours = [row for _, row in encoder.encode_all(encoder.cut(wav), 8.0)]
    assert [rows for rows, _ in shapes] == [4, 4, 1]
    for one, other in zip(ours, alone, strict=True):
        assert_near(one, other)


@NORMS
@NORMALIZE
def test_recordings_share_batches_and_nothing_else(norm, normalize):
    asr = recognizer(2.0, 0.3, feat_extract_norm=norm, normalize_wav=normalize)
    encoder, shapes = watched(asr)
    loudness = (1.0, 0.01, 20.0, 3.0)
    wavs = [
        uneven_speech(seconds) * gain
        for seconds, gain in zip((5.0, 4.0, 1.0, 7.01), loudness)
    ]
    alone = [torch.cat(rows(encoder, [wav], 0.1)) for wav in wavs]
    shapes.clear()
    together = torch.cat(rows(encoder, wavs, 6.0))
    # four windows and three meet; the third recording needs none
    assert [count for count, _ in shapes] == [3, 3, 1, 1, 3, 2]
    assert_near(together, torch.cat(alone))
    expected = asr.log_probs(wavs[1])
    assert_near(alone[1], expected)


def rows(encoder, wavs, batch_seconds):
    """Log-posteriors of each window of several recordings."""
    chunks = itertools.chain.from_iterable(map(encoder.cut, wavs))
    return [row for _, row in encoder.encode_all(chunks, batch_seconds)]


def test_no_more_is_read_than_the_next_batch_needs():
    encoder, shapes = watched(recognizer(2.0, 0.3))
    taken = []

    def chunks():
        for chunk in encoder.cut(uneven_speech(12.0)):
            taken.append(chunk)
            yield chunk

    encoded = encoder.encode_all(chunks(), 4.0)
    for batches, windows in ((1, 2), (1, 2), (2, 4)):
        next(encoded)
        assert (len(shapes), len(taken)) == (batches, windows)


def test_a_chunk_knows_its_place():
    parts = [(0, 5, False, False), (5, 10, True, False), (0, 10, True, True)]
    for first, last, is_last, is_whole in parts:
        window = Window(0, 400, 0, first, last)
        chunk = Chunk("a.wav", None, window, torch.zeros(400), 10)
        assert (chunk.is_last, chunk.is_whole) == (is_last, is_whole)


def test_the_model_is_as_before_between_windows():
    asr = recognizer(2.0, 0.3, normalize_wav=True)
    encoder, _ = watched(asr)
    keys, other = list(asr.state_dict()), torch.randn(1, 8000)
    expected = asr.encode_batch(other, torch.ones(1))
    for _ in encoder.encode_all(encoder.cut(uneven_speech(9.0)), 4.0):
        assert torch.equal(asr.encode_batch(other, torch.ones(1)), expected)
        assert list(asr.state_dict()) == keys


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


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A model of several languages, as transformers has it."""
    return save_languages(tmp_path_factory.mktemp("languages") / "hf")


@pytest.fixture
def folder(multilingual, tmp_path):
    """The same, converted."""
    convert_checkpoint(multilingual, tmp_path / "sb")
    return tmp_path / "sb"


@pytest.fixture
def asr(folder):
    """It, loaded."""
    return LongFormASR.from_hparams(str(folder))


def state_of(asr):
    """All that a language changes."""
    return (
        copy.deepcopy(asr.mods.encoder.state_dict()),
        asr.mods.encoder.head.config["num_classes"],
        asr.tokenizer,
        asr.hparams.tokenizer,
    )


def assert_same(found, expected):
    """Compares two results of ``state_of``."""
    assert all(torch.equal(found[0][n], t) for n, t in expected[0].items())
    assert found[1] == expected[1]
    assert found[2] is found[3] is expected[2]


def test_languages_have_an_adapter_and_a_vocabulary(folder, asr):
    assert asr.languages == folder_languages(folder) == ["eng", "fra"]
    (folder / "adapter.xx.bin").touch()
    assert asr.languages == ["eng", "fra"]
    assert folder_languages(folder / "transformers") == []


@pytest.mark.parametrize("lang", ["eng", "fra"])
def test_a_language_is_that_of_a_conversion_to_it(
    lang, multilingual, asr, tmp_path
):
    convert_checkpoint(multilingual, tmp_path / lang, target_lang=lang)
    expected = LongFormASR.from_hparams(str(tmp_path / lang))
    for other in ("fra", "eng", lang):
        asr.set_language(other)
    assert asr.tokenizer.lab2ind == expected.tokenizer.lab2ind
    for name in ("specials", "word_delimiter", "lowercase", "separator"):
        ours, theirs = (getattr(one.tokenizer, name) for one in (asr, expected))
        assert ours == theirs
    lens = torch.ones(1)
    assert torch.equal(
        asr.encode_batch(WAV, lens), expected.encode_batch(WAV, lens)
    )
    transcript = asr.transcribe_long(WAV[0])
    assert transcript == expected.transcribe_long(WAV[0])
    assert set(transcript.text) & set("".join(VOCABULARIES[lang]))
    texts, _ = asr.transcribe_batch(WAV, lens)
    assert texts == expected.transcribe_batch(WAV, lens)[0]


def without_bias(folder):
    """Changes what the adapter file holds."""
    path = folder / "adapter.fra.safetensors"
    tensors = load_file(path)
    del tensors["unispeech.encoder.layers.0.adapter_layer.linear_1.bias"]
    save_file(tensors, path)


def without_classifier(folder):
    """Leaves the classifier out."""
    path = folder / "adapter.fra.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path)


def other_blank(folder):
    """Moves the blank."""
    vocabulary = {"a": 0, "<pad>": 1, "é": 2, "b": 3, "|": 4}
    write_vocabulary(folder, {**VOCABULARIES, "fra": vocabulary})


def index_twice(folder):
    """Gives an index twice."""
    vocabulary = {"<pad>": 0, "a": 1, "é": 1, "b": 3, "|": 4}
    write_vocabulary(folder, {**VOCABULARIES, "fra": vocabulary})


def one_vocabulary(folder):
    """One vocabulary for all."""
    write_vocabulary(folder, VOCABULARIES["eng"])


def write_vocabulary(folder, vocabulary):
    """Writes the vocabulary of a converted folder."""
    (folder / "transformers" / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_bias, "missing .*linear_1.bias"),
        (without_classifier, r"expected lm_head.weight, \[V, D\]"),
        (
            other_blank,
            "expected '<pad>', the blank, at index 0 of 'fra'; got .'a'",
        ),
        (index_twice, "one token for each index"),
        (one_vocabulary, r"one of the languages \(none there\); got 'fra'"),
    ],
)
def test_a_language_that_does_not_fit_changes_nothing(
    change, said, folder, asr
):
    asr.set_language("eng")
    before = state_of(asr)
    change(folder)
    with pytest.raises(ValueError, match=said):
        asr.set_language("fra")
    assert_same(state_of(asr), before)


@pytest.mark.parametrize("lang", ["zho", "xx", "../eng", ""])
def test_an_unknown_language_gets_the_list_of_those_there(lang, asr, folder):
    before = state_of(asr)
    with pytest.raises(ValueError, match="of the languages eng, fra; got"):
        asr.set_language(lang)
    assert_same(state_of(asr), before)
    with pytest.raises(ValueError, match="of the languages eng, fra; got"):
        language_tokenizer(folder, lang, asr.tokenizer)


def test_without_a_folder_there_are_no_languages(asr):
    alone = LongFormASR(dict(asr.mods), vars(asr.hparams))
    assert alone.languages == []
    with pytest.raises(ValueError, match="loaded from a folder; got None"):
        alone.set_language("eng")


def test_beam_search_and_hot_words_go_along(asr):
    asr.use_hot_words(["ab"], weight=3.0)
    asr.use_beam_search(beam_size=7)
    for lang in ("fra", "eng"):
        asr.set_language(lang)
        search = asr.decoding_function.search
        assert search.tokenizer is asr.tokenizer
        assert search.hot_words.words == ["ab"]
        assert search.beam_size == 7
        text = asr.transcribe_long(WAV[0]).text
        assert text
        assert asr.transcribe_batch(WAV, torch.ones(1))[0] == [text]


def test_a_language_model_does_not_go_along(asr, tmp_path):
    pytest.importorskip("kenlm")
    asr.use_language_model(save_arpa(tmp_path / "ab.arpa", ab=-0.1))
    before = state_of(asr)
    with pytest.raises(ValueError, match="language model in use"):
        asr.set_language("fra")
    assert_same(state_of(asr), before)
    asr.use_language_model(None)
    asr.set_language("fra")
    assert asr.tokenizer.decode([2]) == "é"


def test_methods_of_speechbrain_read_as_ours_do(tmp_path):
    asr = recognizer()
    for rate, subtype in ((44101, "PCM_16"), (8000, "GSM610")):
        path = str(tmp_path / f"{rate}.wav")
        wav = uneven_speech(1.0).numpy()
        soundfile.write(path, wav, rate, subtype)
        text = " ".join(asr.transcribe_file(path).split())
        assert text == asr.transcribe_long(path).text
    with open(path, "rb+") as file:
        file.truncate(400)
    with pytest.raises(AudioError, match="truncated"):
        asr.transcribe_file(path)
