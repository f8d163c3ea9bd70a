"""Windows give each frame once, line up with the frames of the whole, and
wait for nothing that they do not need.
"""

import itertools

import pytest
import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.sliding_window import (
    SlidingWindow,
    cut_windows,
)
from unispeech_sb.nnet.frontend import FeatureExtractor
from unispeech_sb.nnet.lengths import conv_lengths
from unispeech_sb.nnet.packing import plan_windows

KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
HOP = 10
PLANS = [
    SlidingWindow.offline(30),
    SlidingWindow.offline(30, overlapping=True),
    SlidingWindow.offline(31, overlapping=True),
    SlidingWindow.online(30, 8, 3),
    SlidingWindow.online(30, 1, 1),
    SlidingWindow.online(30, 90, 10),
]
lengths = pytest.mark.parametrize(
    "num_samples",
    [400, 719, 720, 15919, 16000, 16320, 16321, 39999, 64000, 100001],
)
shapes = pytest.mark.parametrize(
    ("frames", "context"), [(49, 0), (49, 5), (20, 9)]
)


@lengths
@shapes
def test_every_frame_is_kept_once_from_a_window_that_has_it(
    num_samples, frames, context
):
    windows = plan_windows(num_samples, frames, context)
    total = conv_lengths(num_samples, KERNELS, STRIDES)
    kept = [k for w in windows for k in range(w.first, w.last)]
    assert kept == list(range(total))
    for window in windows:
        own = conv_lengths(window.stop - window.start, KERNELS, STRIDES)
        assert window.start == 320 * window.offset
        assert 0 <= window.kept.start < window.kept.stop <= own
    assert windows[0].start == 0
    assert windows[-1].stop == num_samples


@lengths
@shapes
def test_there_are_no_more_windows_than_needed(num_samples, frames, context):
    windows = plan_windows(num_samples, frames, context)
    total = conv_lengths(num_samples, KERNELS, STRIDES)
    if total <= frames:
        assert len(windows) == 1
    else:
        fewer = len(windows) - 1
        assert frames + (fewer - 1) * (frames - 2 * context) < total
        assert {w.stop - w.start for w in windows[:-1]} == {
            (length_of(windows) - 1) * 320 + 400
        }


@lengths
@shapes
def test_windows_are_no_longer_than_needed(num_samples, frames, context):
    windows = plan_windows(num_samples, frames, context)
    total = conv_lengths(num_samples, KERNELS, STRIDES)
    length, repeated = length_of(windows), 2 * context * (len(windows) - 1)
    assert length <= frames
    assert len(windows) * (length - 1) < total + repeated


def length_of(windows):
    """Frames of each window."""
    return conv_lengths(windows[0].stop - windows[0].start, KERNELS, STRIDES)


@lengths
@shapes
def test_a_frame_is_from_the_window_where_it_is_farthest_from_an_edge(
    num_samples, frames, context
):
    windows = plan_windows(num_samples, frames, context)
    if len(windows) == 1:
        return
    frames = length_of(windows)
    for window in windows:
        for k in range(window.first, window.last):
            own = margin(k, window, windows, frames)
            assert own >= context
            assert own >= max(margin(k, w, windows, frames) for w in windows)


def margin(frame, window, windows, frames):
    """Frames between one and the nearer cut; negative outside."""
    before = frame - window.offset
    after = window.offset + frames - 1 - frame
    if window is windows[0] and after >= 0:
        return after
    if window is windows[-1] and before >= 0:
        return before
    return min(before, after)


def stitch(windows, frames):
    """Joins what the windows keep, [T, ...]."""
    return torch.cat([f[w.kept] for w, f in zip(windows, frames, strict=True)])


def test_frame_k_of_the_whole_is_frame_j_of_its_window():
    extractor = FeatureExtractor([4] * 7, KERNELS, STRIDES, norm="layer")
    wav = torch.randn(40123)
    with torch.no_grad():
        whole = extractor(wav[None])[0]
        windows = plan_windows(len(wav), num_frames=30, context=4)
        parts = [extractor(wav[None, w.start : w.stop])[0] for w in windows]
    assert len(windows) == 6
    for window, part in zip(windows, parts):
        torch.testing.assert_close(
            part, whole[window.offset : window.offset + len(part)]
        )
    torch.testing.assert_close(stitch(windows, parts), whole)


def test_a_model_that_sees_less_than_the_context_gives_the_same():
    conv = torch.nn.Conv1d(1, 3, kernel_size=11, padding=5)  # sees 5 around
    frames = torch.randn(1, 97)
    windows = plan_windows(400 + 96 * 320, num_frames=30, context=5)
    with torch.no_grad():
        whole = conv(frames).T
        parts = [conv(frames[:, w.offset : w.offset + 30]).T for w in windows]
    torch.testing.assert_close(stitch(windows, parts), whole)
    closer = plan_windows(400 + 96 * 320, num_frames=30, context=1)
    with torch.no_grad():
        parts = [conv(frames[:, w.offset : w.offset + 30]).T for w in closer]
    assert not torch.allclose(stitch(closer, parts), whole, atol=1e-3)


@pytest.mark.parametrize("block", [1, 700, 6000, 100000])
def test_blocks_of_any_length_give_the_windows(block):
    wav = torch.randn(16000 if block == 1 else 64123)
    windows = plan_windows(len(wav), num_frames=25, context=3)
    cut = list(cut_windows(wav.split(block), windows))
    assert [window for window, _ in cut] == windows
    for window, samples in cut:
        assert torch.equal(samples, wav[window.start : window.stop])
        held = samples.untyped_storage().nbytes() / samples.element_size()
        assert held <= 2 * (24 * 320 + 400) + block


def test_a_waveform_that_ends_early_is_an_error():
    windows = plan_windows(64000, num_frames=25, context=3)
    with pytest.raises(ValueError, match="expected 64000 samples; got 63000"):
        list(cut_windows(torch.randn(63000).split(5000), windows))


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="at least 400 samples.*got 399"):
        plan_windows(399, num_frames=25, context=3)
    with pytest.raises(ValueError, match="more frames than the context"):
        plan_windows(64000, num_frames=6, context=3)


def cut(num_samples, sliding, block=70, least=4):
    """All windows of a recording whose samples are their own numbers."""
    blocks = torch.arange(num_samples).float().split(block)
    return list(sliding.cut(blocks, HOP, least))


@pytest.mark.parametrize("sliding", PLANS, ids=str)
@pytest.mark.parametrize("num_samples", [5, 9, 10, 79, 80, 300, 301, 600, 1234])
def test_every_frame_is_given_once(num_samples, sliding):
    windows = cut(num_samples, sliding)
    given = [f for w, _ in windows for f in range(w.first, w.last)]
    assert given == list(range(max(1, num_samples // HOP)))
    for window, wav in windows:
        assert window.offset <= window.first < window.last
        assert window.start == window.offset * HOP
        stop = min(window.stop, num_samples)
        assert wav.tolist() == list(range(window.start, stop))
        assert len(wav) <= sliding.size * HOP
    for window, wav in windows[:-1]:
        end = window.offset + len(wav) // HOP
        assert end - window.last == sliding.context
    if num_samples >= sliding.size * HOP:
        assert len(windows[-1][1]) == sliding.size * HOP


@pytest.mark.parametrize("sliding", PLANS, ids=str)
def test_how_the_recording_comes_does_not_matter(sliding):
    expected = cut(1234, sliding)
    for block in (1, 33, 300, 5000):
        found = cut(1234, sliding, block)
        assert [window for window, _ in found] == [w for w, _ in expected]
        for (_, wav), (_, wanted) in zip(found, expected, strict=True):
            assert torch.equal(wav, wanted)


def test_windows_side_by_side_are_the_authors():
    windows = cut(950, SlidingWindow.offline(30))
    assert [(w.offset, w.first, w.last) for w, _ in windows] == [
        (0, 0, 30), (30, 30, 60), (60, 60, 90), (65, 90, 95),
    ]  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
@pytest.mark.parametrize("size", [100, 37, 185, 370, 371])
def test_windows_that_stay_hold_every_sample_once(block, size):
    wav = torch.arange(370.0)
    sliding = SlidingWindow.offline(size, moves_back=False)
    wavs = [part for _, part in sliding.cut(wav.split(block), hop=1)]
    assert torch.equal(torch.cat(wavs), wav)
    assert len(wavs) == -(-370 // size)
    assert {len(part) for part in wavs[:-1]} <= {size}


@pytest.mark.parametrize("ahead, context", [(8, 3), (8, 100), (1, 1), (90, 10)])
def test_a_frame_is_given_within_the_delay(ahead, context):
    for window, wav in cut(2000, SlidingWindow.online(30, ahead, context))[:-1]:
        end = window.offset + len(wav) // HOP
        assert end - window.first <= ahead


def test_no_more_is_read_than_a_window_needs():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield torch.zeros(HOP)

    windows = SlidingWindow.online(30, 8, 3).cut(endless(), HOP)
    for window, wav in itertools.islice(windows, 200):
        end = window.offset + len(wav) // HOP
        assert len(read) == end + 1


def test_windows_hold_no_more_than_their_own_samples_need():
    sliding = SlidingWindow(30, 5, 0, 30)
    for _, wav in sliding.cut(torch.zeros(30000).split(70), HOP):
        storage = wav.untyped_storage().nbytes() / 4
        assert storage <= (sliding.size + sliding.step) * HOP + 70


def test_the_only_window_has_as_many_samples_as_the_model_needs():
    ((window, wav),) = cut(15, PLANS[0], least=14)
    assert (window.first, window.last) == (0, 1)
    assert len(wav) == 14


def test_a_recording_that_is_too_short_is_refused():
    for blocks, number in (([torch.zeros(3)], 3), ([], 0)):
        with pytest.raises(
            AudioError, match=f"a.wav: too .* 4 .* got {number}"
        ):
            list(PLANS[0].cut(blocks, HOP, 4, "a.wav"))
