"""Windows in batches give what each gives alone, and leave the model alone."""

import itertools

import torch

from tests.inference.models import NORMALIZE, NORMS, recognizer, uneven_speech
from unispeech_sb.inference.sliding_window import Window
from unispeech_sb.inference.window_encoder import Chunk, WindowEncoder


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
