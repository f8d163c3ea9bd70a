"""Windows must give each frame once, hear on, and wait for nothing."""

import itertools

import pytest
import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.moving import (
    Moves,
    checked_blocks,
    moves_over,
    moves_within,
    moving_windows,
)

HOP = 10
PLANS = [
    moves_over(30, overlapping=False),
    moves_over(30, overlapping=True),
    moves_over(31, overlapping=True),
    moves_within(30, 8, 3),
    moves_within(30, 1, 1),
    moves_within(30, 90, 10),
]


def cut(num_samples, moves, block=70, least=4):
    """All windows of a recording whose samples are their own numbers."""
    blocks = torch.arange(num_samples).float().split(block)
    return list(moving_windows(blocks, moves, HOP, least))


@pytest.mark.parametrize("moves", PLANS, ids=str)
@pytest.mark.parametrize("num_samples", [5, 9, 10, 79, 80, 300, 301, 600, 1234])
def test_every_frame_is_given_once(num_samples, moves):
    windows = cut(num_samples, moves)
    given = [f for w in windows for f in range(w.first, w.last)]
    assert given == list(range(max(1, num_samples // HOP)))
    for window in windows:
        assert window.offset <= window.first < window.last
        start = window.offset * HOP
        stop = min(start + len(window.wav), num_samples)
        assert window.wav.tolist() == list(range(start, stop))
        assert len(window.wav) <= moves.size * HOP
    for window in windows[:-1]:
        end = window.offset + len(window.wav) // HOP
        assert end - window.last == moves.context
    if num_samples >= moves.size * HOP:
        assert len(windows[-1].wav) == moves.size * HOP


@pytest.mark.parametrize("moves", PLANS, ids=str)
def test_how_the_recording_comes_does_not_matter(moves):
    expected = cut(1234, moves)
    for block in (1, 33, 300, 5000):
        windows = cut(1234, moves, block)
        assert [w[:3] for w in windows] == [w[:3] for w in expected]
        assert all(map(torch.equal, *zip(*[(a.wav, b.wav)
                   for a, b in zip(windows, expected)])))  # fmt: skip


def test_windows_side_by_side_are_the_authors():
    windows = cut(950, moves_over(30, overlapping=False))
    assert [w[:3] for w in windows] == [
        (0, 0, 30), (30, 30, 60), (60, 60, 90), (65, 90, 95),
    ]  # fmt: skip


@pytest.mark.parametrize("ahead, context", [(8, 3), (8, 100), (1, 1), (90, 10)])
def test_a_frame_is_given_within_the_delay(ahead, context):
    moves = moves_within(30, ahead, context)
    for window in cut(2000, moves)[:-1]:
        end = window.offset + len(window.wav) // HOP
        assert end - window.first <= ahead


def test_no_more_is_read_than_a_window_needs():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield torch.zeros(HOP)

    windows = moving_windows(endless(), moves_within(30, 8, 3), HOP)
    for window in itertools.islice(windows, 200):
        end = window.offset + len(window.wav) // HOP
        assert len(read) == end + 1


def test_windows_hold_no_more_than_their_own_samples_need():
    moves = Moves(30, 5, 0, 30)
    blocks = torch.zeros(30000).split(70)
    for window in moving_windows(blocks, moves, HOP):
        storage = window.wav.untyped_storage().nbytes() / 4
        assert storage <= (moves.size + moves.step) * HOP + 70


def test_what_is_too_short_or_no_waveform_is_refused():
    with pytest.raises(AudioError, match="a.wav: too short, .* 4 .* got 3"):
        list(moving_windows([torch.zeros(3)], PLANS[0], HOP, 4, "a.wav"))
    with pytest.raises(AudioError, match="a.wav: too short, .* got 0"):
        list(moving_windows([], PLANS[0], HOP, 4, "a.wav"))
    with pytest.raises(AudioError, match="stream: some samples are NaN"):
        list(checked_blocks([torch.zeros(3), torch.tensor([1.0, float("nan")])],
                            "stream"))  # fmt: skip
    with pytest.raises(ValueError, match=r"stream: expected shape \[N\]"):
        list(checked_blocks([torch.zeros(2, 3)], "stream"))
