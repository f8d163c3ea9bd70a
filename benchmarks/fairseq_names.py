"""fairseq's names of a backbone's tensors, the way back from the package's."""

from unispeech_sb.checkpoints.fairseq.tensors import BACKBONE, TOP, rename


def as_fairseq(tensors, prefix=""):
    """Renames tensors of a model with a norm in each convolution.

    Arguments
    ---------
    tensors : dict
        Name in ``Backbone`` or in a pre-training head -> tensor.
    prefix : str
        What fairseq's names start with.

    Returns
    -------
    dict
        fairseq's name -> tensor.
    """
    table = {
        new: old
        for old, new in {**BACKBONE, **TOP}.items()
        if not old.endswith("*.2")  # the norm of Base models
    }
    return {prefix + rename(n, table): t for n, t in tensors.items()}
