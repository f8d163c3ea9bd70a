"""How recordings are cut, and put together in batches."""

import torch


def even_windows(blocks, size, count):
    """Cuts a recording that comes in blocks into windows.

    Little more than a window and a block is held.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        The recording, [N] each.
    size : int
        Samples of each window but the last one, which takes what is left.
    count : int
        Most windows.

    Yields
    ------
    torch.Tensor
        The next window, [N].

    Example
    -------
    >>> windows = even_windows(torch.arange(10).split(3), size=4, count=2)
    >>> [window.tolist() for window in windows]
    [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    """
    held, missing = None, count - 1
    for block in blocks:
        held = block if held is None else torch.cat([held, block])
        while missing and len(held) >= size:
            yield held[:size]
            held, missing = held[size:], missing - 1
    if held is not None and len(held):
        yield held


def groups(items, most):
    """Groups what comes one by one.

    Arguments
    ---------
    items : iterable
        Read no further than the next group needs.
    most : int
        Most items of a group.

    Yields
    ------
    list
        The next items; fewer in the last group only.

    Example
    -------
    >>> list(groups("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    group = []
    for item in items:
        group.append(item)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def length_batches(lengths, batch_seconds):
    """Groups files by what a batch of them is padded to.

    Arguments
    ---------
    lengths : list of tuple
        Seconds and path of each file, the shortest first.
    batch_seconds : float
        Most seconds of a batch, padding included; one file may have more.

    Yields
    ------
    list of tuple
        Seconds and path of the files of the next batch.

    Example
    -------
    >>> list(length_batches([(1.0, "a"), (2.0, "b"), (3.0, "c")], 5.0))
    [[(1.0, 'a'), (2.0, 'b')], [(3.0, 'c')]]
    """
    batch = []
    for seconds, path in lengths:
        if batch and seconds * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append((seconds, path))
    if batch:
        yield batch
