"""Activities of windows put together, where speakers have no vectors: by what
two windows say of the time that they share.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


class OverlapStitcher:
    """Keeps the order of a head's outputs from window to window.

    A head without vectors numbers its speakers anew in each window. The
    outputs of the next one are put into the order in which they differ least
    from those of the window before it, on the frames that both have (mean
    square, which is greatest correlation). Where a speaker is silent in all
    of these, the order is a guess.

    Example
    -------
    >>> stitcher = OverlapStitcher()
    >>> whole = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> _ = stitcher.push(0, whole[:3])
    >>> stitcher.push(1, whole[1:, ::-1]).tolist()
    [[1, 0], [0, 1], [0, 1]]
    """

    def __init__(self):
        self._offset, self._before = 0, None

    def push(self, offset, activities):
        """Takes the next window.

        Arguments
        ---------
        offset : int
            Its first frame.
        activities : numpy.ndarray
            Probabilities, [T, S].

        Returns
        -------
        numpy.ndarray
            The same with speakers in order, [T, S].
        """
        if self._before is not None:
            before = self._before[offset - self._offset :]
            shared = min(len(before), len(activities))
            products = before[:shared].T @ activities[:shared]
            _, order = linear_sum_assignment(products, maximize=True)
            activities = activities[:, order]
        self._offset, self._before = offset, activities
        return activities


def spread(activities, speakers, count):
    """Puts the speakers of a window in the places of those of the recording.

    Arguments
    ---------
    activities : numpy.ndarray
        Probabilities of the window's speakers, [T, n].
    speakers : numpy.ndarray
        Number of each among those of the recording, [n].
    count : int
        Number of these.

    Returns
    -------
    numpy.ndarray
        Probabilities, the highest where several are one, 0 for those who are
        not in the window, [T, count].

    Example
    -------
    >>> spread(np.array([[0.2, 0.9, 0.4]]), np.array([2, 0, 2]), 3)
    array([[0.9, 0. , 0.4]])
    """
    found = np.zeros((len(activities), count), activities.dtype)
    for column, speaker in zip(activities.T, speakers):
        np.maximum(found[:, speaker], column, out=found[:, speaker])
    return found
