"""Samples that come give what offline windows give, however they come, at a
cost that does not grow."""

import weakref

import pytest
import torch

from tests.decoding.posteriors import letters, noise
from tests.inference.models import recognizer, recut, uneven_speech
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.decoding import BeamWordDecoder, PrefixBeamSearch, WordDecoder
from unispeech_sb.inference.audio_blocks import GlobalStatistics, global_norm

RATE, HOP, FIELD = 16000, 320, 400
NORMS = pytest.mark.parametrize("norm", ["group", "layer"])


def live(asr, blocks):
    """Final log-posteriors of samples that come."""
    pairs = asr._windows.encode_live(iter(blocks))
    return torch.cat([rows for rows, is_final in pairs if is_final])


def near_sighted(window_s):
    """A model that normalises nothing over time and sees the positional
    convolution's 8 frames, as attention gives nothing."""
    asr = recognizer(
        window_s, 0.5, feat_extract_norm="layer", normalize_wav=False
    )
    for layer in asr.mods.encoder.backbone.encoder.layers:
        layer.attention.out_proj.weight.data.zero_()
    return asr


def sliding(asr, wav, size, context):
    """The same by the definition: of a whole recording, in frames."""
    found, first = [], 0
    total = (len(wav) - FIELD) // HOP + 1
    for begin in range(0, total, size // 2):
        stop = (begin + size) * HOP + FIELD - 1
        part, end = wav[begin * HOP : stop], begin + size - context
        statistics = GlobalStatistics(10, 5)
        statistics.add(wav[:stop])
        with global_norm(asr.mods.encoder.backbone, [statistics]) as prepare:
            (rows,) = asr._windows.encode_whole(prepare([part]))
        if stop >= len(wav):
            return torch.cat([*found, rows[first - begin :]])
        found.append(rows[first - begin : end - begin])
        first = end
    raise AssertionError


@NORMS
@pytest.mark.parametrize("normalize", [True, False])
def test_samples_that_come_give_offline_windows(norm, normalize):
    options = {"feat_extract_norm": norm, "normalize_wav": normalize}
    asr, wav = recognizer(4.0, 0.5, **options), uneven_speech(11.003)
    expected = sliding(asr, wav, size=199, context=25)
    assert len(expected) == (len(wav) - FIELD) // HOP + 1
    for size in (1600, 7001, len(wav)):
        ours = live(asr, wav.split(size))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)


def test_what_sees_little_gives_what_a_whole_recording_gives():
    asr = near_sighted(60)
    wav = uneven_speech(41.7)
    whole = asr.transcribe_long(wav)
    words = list(asr.transcribe_stream(wav.split(8000)))
    assert len(words) > 100
    assert [w.text for w in words] == [w.text for w in whole.words]
    assert [w.start_s for w in words] == [w.start_s for w in whole.words]
    torch.testing.assert_close(
        live(asr, wav.split(8000)), asr.log_probs(wav), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("seconds", [0.03, 3.0, 4.0])
def test_one_window_is_a_whole_recording(seconds):
    asr, wav = recognizer(4.0, 0.5), uneven_speech(seconds)
    words = tuple(asr.transcribe_stream(wav.split(5000)))
    assert words == asr.transcribe_long(wav).words


@pytest.mark.parametrize("beam", [False, True])
def test_partial_text_follows_the_final_words_and_becomes_final(beam):
    asr, wav = near_sighted(4.0), uneven_speech(13.0)
    if beam:
        asr.use_beam_search(beam_size=5)
    words, shown = [], []

    def on_partial(text):
        shown.append((len(words), text.split()))

    for word in asr.transcribe_stream(wav.split(8000), on_partial):
        words.append(word)
    decoder = asr._decoder()
    whole = [*decoder.push(live(asr, [wav])), *decoder.finish()]
    assert words == whole and len(shown) == 26
    assert [count for count, _ in shown[:8]] == [0] * 8  # one window
    assert 0 < shown[8][0] < shown[12][0] < shown[-1][0] < len(words)
    sures = [texts[:-4] for _, texts in shown]  # the next frames change others
    assert sum(map(len, sures)) > 50
    for (count, _), sure in zip(shown, sures):
        assert sure == [w.text for w in words[count : count + len(sure)]]


@pytest.mark.parametrize("kind", ["greedy", "beams"])
@pytest.mark.parametrize("case", range(6))
def test_a_fork_goes_on_alone(kind, case):
    tokenizer = letters()
    rows = noise(240, 6, seed=case, sharpness=5.0)

    def new():
        if kind == "greedy":
            return WordDecoder(tokenizer, 0.02)
        search = PrefixBeamSearch(tokenizer, beam_size=8, hot_words=["ab"])
        return BeamWordDecoder(search, 0.02)

    one, other, plain = new(), new(), new()
    cut = 40 + 25 * case
    begun, same = one.push(rows[:cut]), other.push(rows[:cut])
    fork = one.fork()
    ahead = [*fork.push(rows[cut:]), *fork.finish()]
    assert begun == same and one.partial() == other.partial()
    expected = [*other.push(rows[cut:]), *other.finish()]
    assert ahead == expected
    assert [*one.push(rows[cut:]), *one.finish()] == expected
    assert [*plain.push(rows), *plain.finish()] == begun + expected


def test_ten_minutes_cost_the_same_each_and_leave_nothing(monkeypatch):
    asr = recognizer(20.0, 0.75)
    costs, blocks, alive, waiting = [], [], [], []
    calm = torch.tensor([0.0, -9, -9, -9, -9, -9]).log_softmax(0)

    def encode(wavs, wav_lens):
        costs[-1] += wavs.numel()
        alive.append(sum(block() is not None for block in blocks))
        frames = (wavs.shape[1] - FIELD) // HOP + 1
        rows = calm.repeat(1, frames, 1)
        if len(costs) == 1:  # a word, and then nothing but silence
            rows[0, 1, 2] = 1.0
        return rows

    def coming():
        for number in range(1200):
            if number % 120 == 0:
                costs.append(0)
            block = torch.randn(8000)
            blocks.append(weakref.ref(block))
            yield block

    decoder = asr._decoder()
    monkeypatch.setattr(asr._windows, "encode", encode)
    monkeypatch.setattr(asr, "_decoder", lambda: decoder)

    def on_partial(text):
        waiting.append(len(decoder._waiting))
        assert text == "a"

    words = list(asr.transcribe_stream(coming(), on_partial))
    assert [word.text for word in words] == ["a"]
    assert len(waiting) == 1200 and max(waiting) <= 3 and max(alive) <= 2
    minutes = [cost / RATE / 60 for cost in costs]
    assert len(minutes) == 10 and max(minutes[1:]) < 1.03 * minutes[1]
    assert minutes[1] < 27  # two blocks a second, of up to 15 s; windows twice


def test_what_comes_has_to_be_samples_enough():
    asr = recognizer(4.0, 0.5)
    for blocks, expected in (
        ([], "stream: too short, expected at least 400 .* got 0"),
        ([torch.zeros(399)], "got 399"),
        ([torch.zeros(0), torch.full((800,), torch.nan)], "NaN or infinite"),
        (["a.wav", "b.wav"], "stream: expected waveforms"),
        ([torch.zeros(2, 800)], "expected shape"),
    ):
        with pytest.raises(AudioError, match=expected):
            list(asr.transcribe_stream(iter(blocks)))


def test_windows_are_as_short_as_the_models_own():
    asr = recut(recognizer(4.0, 0.5), 2.0, 0.9)
    encode, longest = asr._windows.encode, []

    def watched(wavs, wav_lens):
        longest.append(wavs.shape[1])
        return encode(wavs, wav_lens)

    asr._windows.encode = watched
    assert list(asr.transcribe_stream(uneven_speech(7.0).split(4000)))
    assert max(longest) < 2.0 * RATE + HOP
