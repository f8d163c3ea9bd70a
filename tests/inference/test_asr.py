"""Long recordings and many files are transcribed as whole files alone."""

import weakref

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.decoders.ctc import CTCBeamSearcher

from tests.inference.models import (
    NORMALIZE,
    NORMS,
    recognizer,
    recut,
    uneven_speech,
)
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.decoding import Transcript
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.audio_blocks import read_blocks
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.lengths import conv_lengths

CUTS = [(5.0, 1.0), (3.1, 0.5), (2.0, 0.7)]
TOLERANCE = 0.2
"""Of log-posteriors, for windows with half a second of context and more."""


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
