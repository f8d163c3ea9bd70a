"""Overlapping windows over a waveform of any length, and their stitching.

Windows begin at multiples of the convolutions' stride, so that frame j of a
window is frame ``offset + j`` of the whole::

    window 0   |-------------------|              kept: [0, a)
    window 1              |-------------------|   kept: [a, T)
                              a = middle of the overlap
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Window:
    """A stretch of samples and the frames of the whole that it gives.

    Arguments
    ---------
    start, stop : int
        First sample, and the one after the last.
    offset : int
        Number in the whole of the window's frame 0.
    first, last : int
        First frame of the whole that is kept from this window, and the one
        after the last.

    Example
    -------
    >>> Window(start=640, stop=7040, offset=2, first=5, last=20).kept
    slice(3, 18, None)
    """

    start: int
    stop: int
    offset: int
    first: int
    last: int

    @property
    def kept(self):
        """The kept frames, counted from the window's own first."""
        return slice(self.first - self.offset, self.last - self.offset)


def plan_windows(num_samples, num_frames, context, stride=320, field=400):
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

    Example
    -------
    >>> windows = plan_windows(400 + 27 * 320, num_frames=20, context=5)
    >>> [(w.offset, w.first, w.last) for w in windows]
    [(0, 0, 14), (9, 14, 28)]
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
    stops[-1] = num_samples  # the tail makes no frame but is heard
    cuts = [(a + b + num_frames) // 2 for a, b in zip(offsets, offsets[1:])]
    return [
        Window(offset * stride, *rest)
        for offset, *rest in zip(
            offsets, stops, offsets, [0, *cuts], [*cuts, total]
        )
    ]


def cut_windows(windows, blocks):
    """Cuts windows from a waveform that comes in blocks.

    Only what the current window needs is held.

    Arguments
    ---------
    windows : list of Window
        As ``plan_windows`` makes them.
    blocks : iterable of torch.Tensor
        The waveform in stretches of any length, [N].

    Yields
    ------
    window : Window
        The next one.
    wav : torch.Tensor
        Its samples, [N].

    Raises
    ------
    ValueError
        When the blocks end before the last window does.

    Example
    -------
    >>> windows = plan_windows(400 + 29 * 320, num_frames=20, context=5)
    >>> blocks = torch.arange(400 + 29 * 320).split(1000)
    >>> [int(wav[0]) for _, wav in cut_windows(windows, blocks)]
    [0, 3200]
    """
    blocks = iter(blocks)
    held, begin = torch.zeros(0), 0
    for window in windows:
        held, begin = held[window.start - begin :], window.start
        parts, missing = [held], window.stop - begin - len(held)
        while missing > 0:
            block = next(blocks, None)
            if block is None:
                raise ValueError(
                    f"waveform: expected {windows[-1].stop} samples; "
                    f"got {missing} less than sample {window.stop}"
                )
            parts.append(block)
            missing -= len(block)
        held = torch.cat(parts)
        yield window, held[: window.stop - begin]


def stitch(windows, frames):
    """Joins the kept frames of all windows.

    Arguments
    ---------
    windows : list of Window
        As ``plan_windows`` makes them.
    frames : iterable of torch.Tensor
        What the model gave for each of them, [T, ...].

    Returns
    -------
    torch.Tensor
        One row per frame of the whole, [T, ...].

    Example
    -------
    >>> windows = plan_windows(400 + 29 * 320, num_frames=20, context=5)
    >>> whole = torch.arange(30)
    >>> parts = [whole[w.offset : w.offset + 20] for w in windows]
    >>> bool((stitch(windows, parts) == whole).all())
    True
    """
    return torch.cat([f[w.kept] for w, f in zip(windows, frames, strict=True)])
