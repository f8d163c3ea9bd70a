"""Windows over recordings of any length: where they are, and one cutter.

``plan_windows`` places windows evenly over a recording of known length, with
context on both sides of what each one gives. ``SlidingWindow`` moves on step
by step and needs no length, so that it serves streams too. Windows begin at
multiples of a frame, and frame j of a window is frame ``offset + j`` of the
whole::

    evenly   |-------------------|              gives [0, a)
                       |-------------------|    gives [a, T)
                            a = middle of the overlap

    sliding  0        step      2 step     3 step    end
             |----------------------|                  (size)
                       |----------------------|
                             |----------------------|  last: moved back
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from unispeech_sb.dataio.audio import AudioError


class Window(NamedTuple):
    """Samples of a recording, and the frames that a window gives of it.

    Arguments
    ---------
    start, stop : int
        First sample, and the one after the last.
    offset : int
        Number in the recording of the window's frame 0.
    first, last : int
        First frame of the recording that is taken from this window, and the
        one after the last.
    """

    start: int
    stop: int
    offset: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """The frames that are taken, counted from the window's own first."""
        return slice(self.first - self.offset, self.last - self.offset)


def cut_windows(
    blocks: Iterable[torch.Tensor],
    windows: Iterable[Window],
    find_last: Callable[[Window, int], Window | None] | None = None,
) -> Iterator[tuple[Window, torch.Tensor]]:
    """Cuts windows from a recording that comes in blocks.

    No more is read than the next window needs, and nothing is kept from before
    the start of the last one.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        The recording in blocks of any length, [N].
    windows : iterable of Window
        By their starts.
    find_last : callable, optional
        Where the length is not known in advance: (window, number of samples)
        to the window that takes the place of the first one without a sample
        behind it; None for no further window.

    Yields
    ------
    window : Window
        The next one.
    wav : torch.Tensor
        Its samples, [N].

    Raises
    ------
    ValueError
        When the recording ends before a window does.
    """
    blocks, behind = iter(blocks), 0 if find_last is None else 1
    buffer, begin, total = torch.zeros(0), 0, 0
    for window in windows:
        parts = [buffer]
        while total < window.stop + behind:
            block = next(blocks, None)
            if block is None:
                break
            parts.append(block)
            total += len(block)
        buffer = torch.cat(parts)
        has_ended = total < window.stop + behind
        if has_ended:
            if find_last is None:
                raise ValueError(
                    f"waveform: expected {window.stop} samples; got {total}"
                )
            last = find_last(window, total)
            if last is None:
                return
            window = last
        buffer, begin = buffer[window.start - begin :], window.start
        yield window, buffer[: window.stop - begin]
        if has_ended:
            return


def plan_windows(
    num_samples: int,
    num_frames: int,
    context: int,
    stride: int = 320,
    field: int = 400,
) -> list[Window]:
    """Places windows of one length evenly over a waveform.

    There are as few as can be, and they are as short as that number allows.
    Each frame is kept from the window in which it is farthest from an edge;
    the ends of the waveform do not count as edges.

    Arguments
    ---------
    num_samples : int
        Samples of the waveform.
    num_frames : int
        Most frames of a window.
    context : int
        Least number of frames between a kept frame and an edge.
    stride : int
        Samples from one frame to the next.
    field : int
        Samples that one frame sees.

    Returns
    -------
    list of Window
        In order; a single one where the waveform is no longer than a window.

    Raises
    ------
    ValueError
        When a waveform has no frame, or a window is all context.
    """
    if num_samples < field:
        raise ValueError(
            f"waveform: expected at least {field} samples, one frame; "
            f"got {num_samples}"
        )
    if context < 0 or num_frames <= 2 * context:
        raise ValueError(
            "windows: expected more frames than the context on both sides; "
            f"got {num_frames} and 2 * {context}"
        )
    total = (num_samples - field) // stride + 1
    if total <= num_frames:
        return [Window(0, num_samples, 0, 0, total)]
    steps = -((num_frames - total) // (num_frames - 2 * context))
    num_frames = -(-(total + steps * 2 * context) // (steps + 1))
    offsets = [i * (total - num_frames) // steps for i in range(steps + 1)]
    stops = [(o + num_frames - 1) * stride + field for o in offsets]
    stops[-1] = num_samples  # the tail makes no frame but is in the window
    cuts = [(a + b + num_frames) // 2 for a, b in zip(offsets, offsets[1:])]
    return [
        Window(offset * stride, *rest)
        for offset, *rest in zip(
            offsets, stops, offsets, [0, *cuts], [*cuts, total]
        )
    ]


class SlidingWindow(NamedTuple):
    """Windows of one size that move on by one step; all in frames.

    A window gives the frames from where those of the one before it end up to
    ``context`` frames before its own end, the last one all that are left.
    Where windows are does not depend on what follows them.

    Arguments
    ---------
    size : int
        Longest window.
    step : int
        From the end of a window to that of the next.
    context : int
        Frames behind those that a window gives; less than the step and, where
        windows do not overlap, 0.
    first : int
        End of the first window: its size, or less for an early answer, and
        then windows grow up to their size.
    moves_back : bool
        The last window is moved back to full size; else it is shorter.
    """

    size: int
    step: int
    context: int
    first: int
    moves_back: bool = True

    @classmethod
    def offline(
        cls, size: int, overlapping: bool = False, moves_back: bool = True
    ) -> "SlidingWindow":
        """Windows side by side, or each half in the one before it."""
        overlap = size // 2 if overlapping else 0
        return cls(size, size - overlap, overlap // 2, size, moves_back)

    @classmethod
    def online(cls, size: int, ahead: int, context: int) -> "SlidingWindow":
        """Windows that end at most ``ahead`` frames after what they give.

        Of these frames ``context`` are behind what a window gives, half of
        them at most; the first window is as short as ``ahead`` asks for.
        """
        ahead = min(ahead, size)
        context = min(context, ahead // 2)
        return cls(size, ahead - context, context, ahead)

    def cut(
        self,
        blocks: Iterable[torch.Tensor],
        hop: int,
        least: int = 1,
        name: str | Path = "waveform",
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """Cuts a recording that comes in blocks.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            The recording in blocks of any length, [N].
        hop : int
            Samples of a frame.
        least : int
            Fewest samples of a recording.
        name : str or path-like
            What an error calls the recording.

        Yields
        ------
        window : Window
            The next one, when there are samples behind it or none will come.
            The frames that all give are the whole, each once; samples that
            do not fill a frame are left out at its end.
        wav : torch.Tensor
            Its samples, [N].

        Raises
        ------
        AudioError
            When the recording is too short.
        """
        find_last = partial(self._last, hop=hop, least=least, name=name)
        return cut_windows(blocks, self._planned(hop), find_last)

    def _planned(self, hop):
        """Yields windows without end."""
        end, given = self.first, 0
        while True:
            offset = max(0, end - self.size)
            last = end - self.context
            yield Window(offset * hop, end * hop, offset, given, last)
            given, end = last, end + self.step

    def _last(self, planned, num_samples, hop, least, name):
        """The window that ends a recording; None where one has done so."""
        if num_samples < least:
            raise AudioError(
                f"{name}: too short, expected at least {least} samples, got "
                f"{num_samples}"
            )
        frames = max(1, num_samples // hop)
        if frames <= planned.first:
            return None
        offset = planned.offset
        if self.moves_back:
            offset = max(0, frames - self.size)
        stop = max(frames * hop, min(num_samples, least))
        return Window(offset * hop, stop, offset, planned.first, frames)
