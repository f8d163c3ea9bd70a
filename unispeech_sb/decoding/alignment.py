"""The best alignment of known tokens to the frames of a CTC model."""

from dataclasses import dataclass

import numpy as np

_UNLIKELY = -1e4
"""In place of -inf: sums of it still compare."""


@dataclass(frozen=True)
class Span:
    """A token on its frames.

    Arguments
    ---------
    token : int
        Its index.
    first, last : int
        First frame, and the one after the last.
    log_prob : float
        Sum of its log-posteriors on them.

    Example
    -------
    >>> Span(token=2, first=10, last=12, log_prob=-0.5).last
    12
    """

    token: int
    first: int
    last: int
    log_prob: float


def align(rows, tokens, blank, delimiter=None, before=None):
    """Finds the most likely frames of tokens (Viterbi).

    States are the gaps before, between and after the tokens, and the tokens::

        gap 0 -> token 0 -> gap 1 -> token 1 -> gap 2     and the shortcut
                    |________________^                    past a gap

    Arguments
    ---------
    rows : numpy.ndarray
        Log-posteriors, [T, V].
    tokens : list of int
        The tokens that are written, repeats parted by blanks.
    blank : int
        Index of CTC's blank.
    delimiter : int, optional
        A token of which a second one in a row says nothing.
    before : int, optional
        The token that ended before the first frame; ``delimiter`` at the
        beginning of a recording.

    Returns
    -------
    list of Span
        One for each token.

    Raises
    ------
    ValueError
        When there are more tokens than frames.

    Example
    -------
    >>> rows = np.log(np.eye(3)[[0, 1, 1, 0, 2]] + 1e-9)
    >>> [(s.first, s.last) for s in align(rows, [1, 2], blank=0)]
    [(1, 3), (4, 5)]
    """
    if not tokens:
        return []
    previous = np.array([-1 if before is None else before, *tokens])
    repeats = previous[1:] == previous[:-1]
    if len(rows) < len(tokens) + repeats.sum():
        raise ValueError(
            f"alignment: expected at least {len(tokens) + repeats.sum()} "
            f"frames for {len(tokens)} tokens; got {len(rows)}"
        )
    scores = _emissions(rows, tokens, blank, previous == delimiter, delimiter)
    path = _best_path(scores, repeats)
    firsts = np.searchsorted(path, range(1, 2 * len(tokens), 2), "left")
    lasts = np.searchsorted(path, range(1, 2 * len(tokens), 2), "right")
    return [
        Span(token, first, last, float(rows[first:last, token].sum()))
        for token, first, last in zip(tokens, firsts.tolist(), lasts.tolist())
    ]


def _emissions(rows, tokens, blank, after_delimiter, delimiter):
    """Log-posteriors of each state, [T, S]."""
    scores = np.empty((len(rows), 2 * len(tokens) + 1))
    scores[:, 0::2] = rows[:, [blank]]
    scores[:, 1::2] = rows[:, tokens]
    if delimiter is not None:
        either = np.logaddexp(rows[:, blank], rows[:, delimiter])
        scores[:, 0::2][:, after_delimiter] = either[:, None]
    return np.maximum(scores, _UNLIKELY)


def _best_path(scores, repeats):
    """The state of each frame, [T]."""
    num_frames, num_states = scores.shape
    shortcut = np.full(num_states, -np.inf)
    shortcut[1::2] = np.where(repeats, -np.inf, 0.0)
    # Row k: what a state gets from the one k places before
    moves = np.full((3, num_states + 2), -np.inf)
    # The path comes from the place before gap 0: a step to it, or a shortcut
    moves[1, 0] = 0.0
    moves[2, 1] = shortcut[1]
    choices = np.empty((num_frames, num_states), dtype=np.int8)
    for frame in range(num_frames):
        options = moves[:, :num_states]
        choices[frame] = options.argmax(0)
        best = options.max(0) + scores[frame]
        moves[0, :-2] = best
        moves[1, 0], moves[1, 1:-1] = -np.inf, best
        moves[2, :2], moves[2, 2:-2] = -np.inf, best[:-2] + shortcut[2:]
    state = num_states - 1 - int(best[-2] >= best[-1])
    path = np.empty(num_frames, dtype=int)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(choices[frame, state])
    return path
