"""Windows that move over a recording of unknown length, one after the other.

Unlike those of ``windows``, where they are does not depend on what follows::

    frames   0        step       2 step      3 step    end
    window 0 |-----------------------|                  (size)
    window 1          |-----------------------|
    last                     |-----------------------|  moved back

A window gives the frames from where those of the one before it end up to
``context`` frames before its own end, the last one all that are left.
"""

from typing import NamedTuple

import torch

from unispeech_sb.dataio.audio import AudioError


class Moves(NamedTuple):
    """How windows move, in frames.

    Arguments
    ---------
    size : int
        Longest window.
    step : int
        From the end of a window to that of the next.
    context : int
        Frames that a window hears behind those that it gives; less than the
        step and, where windows do not overlap, 0.
    first : int
        End of the first window: its size, or less for an early answer, and
        then windows grow up to their size.

    Example
    -------
    >>> Moves(size=750, step=750, context=0, first=750).overlap
    0
    """

    size: int
    step: int
    context: int
    first: int

    @property
    def overlap(self):
        """Frames that two windows of full size share."""
        return self.size - self.step


class MovingWindow(NamedTuple):
    """A stretch of a recording, and which of its frames count.

    Arguments
    ---------
    offset : int
        Number in the whole of the window's frame 0.
    first, last : int
        First frame of the whole that it gives, and the one after the last.
    wav : torch.Tensor
        Samples, [N].

    Example
    -------
    >>> MovingWindow(10, 15, 30, torch.zeros(6400)).kept
    slice(5, 20, None)
    """

    offset: int
    first: int
    last: int
    wav: torch.Tensor

    @property
    def kept(self):
        """The frames that it gives, counted from its own first."""
        return slice(self.first - self.offset, self.last - self.offset)


def moves_over(size, overlapping):
    """Lets windows go over a whole recording.

    Arguments
    ---------
    size : int
        Frames of a window.
    overlapping : bool
        Half of each window is heard again by the next; else none of it.

    Returns
    -------
    Moves
        Windows of full size from the first one on.

    Example
    -------
    >>> moves_over(100, overlapping=True)
    Moves(size=100, step=50, context=25, first=100)
    """
    overlap = size // 2 if overlapping else 0
    return Moves(size, size - overlap, overlap // 2, first=size)


def moves_within(size, ahead, context):
    """Lets windows follow a recording as it comes.

    Arguments
    ---------
    size : int
        Frames of a window.
    ahead : int
        Most frames from one to the end of the window that gives it; 1 or
        more.
    context : int
        Of these, how many are heard behind it: half of them at most.

    Returns
    -------
    Moves
        With a first window as short as that asks for.

    Example
    -------
    >>> moves_within(size=100, ahead=30, context=10)
    Moves(size=100, step=20, context=10, first=30)
    """
    ahead = min(ahead, size)
    context = min(context, ahead // 2)
    return Moves(size, ahead - context, context, first=ahead)


def checked_blocks(blocks, name):
    """Passes on what is one waveform, and finite.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        A recording in stretches of any length.
    name : str
        What an error calls it.

    Yields
    ------
    torch.Tensor
        The same, float32, on the CPU, [N].

    Raises
    ------
    AudioError
        When a sample is NaN or infinite.
    ValueError
        When a block has another shape.

    Example
    -------
    >>> [len(block) for block in checked_blocks([torch.zeros(3)], "stream")]
    [3]
    """
    for block in blocks:
        if block.dim() != 1:
            raise ValueError(
                f"{name}: expected shape [N]; got {list(block.shape)}"
            )
        if not block.isfinite().all():
            raise AudioError(f"{name}: some samples are NaN or infinite")
        yield block.float().cpu()


def moving_windows(blocks, moves, hop, least=400, name="waveform"):
    """Cuts a recording that comes in blocks.

    Only a window, a step and a block are held.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        The recording in stretches of any length, [N].
    moves : Moves
        Where windows end.
    hop : int
        Samples of a frame.
    least : int
        Fewest samples of a recording.
    name : str
        What an error calls the recording.

    Yields
    ------
    MovingWindow
        The next one, when there are samples behind it or none will come. The
        frames that all give are the whole, each once; samples that do not
        fill a frame are left out at its end.

    Raises
    ------
    AudioError
        When the recording is too short.

    Example
    -------
    >>> blocks = torch.arange(1000).split(70)
    >>> moves = Moves(size=30, step=20, context=5, first=30)
    >>> for window in moving_windows(blocks, moves, hop=10):
    ...     print(window[:3], len(window.wav))
    (0, 0, 25) 300
    (20, 25, 45) 300
    (40, 45, 65) 300
    (60, 65, 85) 300
    (70, 85, 100) 300
    """
    held, begin = torch.zeros(0), 0
    end, given = moves.first, 0
    for block in blocks:
        held = torch.cat([held, block]) if len(held) else block
        while begin + len(held) > end * hop:
            offset = max(0, end - moves.size)
            held, begin = held[offset * hop - begin :], offset * hop
            last = end - moves.context
            yield MovingWindow(offset, given, last, held[: end * hop - begin])
            given, end = last, end + moves.step
    total = begin + len(held)
    if total < least:
        raise AudioError(
            f"{name}: too short, expected at least {least} samples, got {total}"
        )
    frames = max(1, total // hop)
    if frames > given:
        offset = max(0, frames - moves.size)
        stop = max(frames * hop, min(total, least))
        wav = held[offset * hop - begin : stop - begin]
        yield MovingWindow(offset, given, frames, wav)
