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
from unispeech_sb.nnet.packing import Window


def cut_windows(
    blocks: Iterable[torch.Tensor],
    windows: Iterable[Window],
    find_last: Callable[[Window, int], Window | None] | None = None,
) -> Iterator[tuple[Window, torch.Tensor]]:
    """Yields windows, ordered by start, with their samples, [N].

    Where the length is not known, ``find_last`` (window, number of samples)
    gives what replaces the first window without a sample behind it, or None. No
    more is read or kept than the next window needs.
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
                    f"waveform: expected {window.stop} samples; got {total}: "
                    "it has fewer than when it was first read"
                )
            last = find_last(window, total)
            if last is None:
                return
            window = last
        buffer, begin = buffer[window.start - begin :], window.start
        yield window, buffer[: window.stop - begin]
        if has_ended:
            return


class SlidingWindow(NamedTuple):
    """Windows of one size that move on by one step; all in frames.

    A window gives the frames up to ``context`` before its end, the last one,
    which ``moves_back`` to full size or is shorter, all. ``first`` is the end
    of the first; where it is less than the size, windows grow up to their size.
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
        """Yields windows of a recording in blocks, [N] each, and their samples.

        The windows give each frame of ``hop`` samples once; samples that fill
        no frame are left out at the end. Fewer than ``least`` samples are an
        ``AudioError``.
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
