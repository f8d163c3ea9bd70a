"""The activations that checkpoints of both families name."""

from functools import partial

import torch.nn.functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "selu": F.selu,
}


def activation(name):
    """Finds an activation by the name that transformers gives it.

    Arguments
    ---------
    name : str
        One of ``gelu``, ``gelu_new``, ``relu``, ``selu``.

    Returns
    -------
    callable
        A function from tensor to tensor.

    Raises
    ------
    ValueError
        When the name is none of them.

    Example
    -------
    >>> import torch
    >>> activation("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(ACTIVATIONS)}; "
            f"got {name!r}"
        )
    return ACTIVATIONS[name]
