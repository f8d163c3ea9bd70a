"""A pre-training that goes on with the head of another one."""

from pathlib import Path

from unispeech_sb.checkpoints.files import load_strict, read_tensors

CLASSIFIERS = ("ctc_proj.weight", "ctc_proj.bias", "label_embeddings_concat")
"""What depends on the phones or units that are told apart."""


def load_head(head, source):
    """Gives a head the weights of a trained one.

    Its classifier keeps its own where the other one has none, or one of
    another number of phones or units: so the authors' second stage goes on
    without the phones of the first.

    Arguments
    ---------
    head : Lobe
        Whose weights to replace.
    source : str or pathlib.Path
        A folder that a pre-training exported.

    Raises
    ------
    ValueError
        When the folder has no head, or anything else does not fit.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import UniSpeechHead
    >>> first = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=5)
    >>> first.save(getfixture("tmp_path") / "head.ckpt")
    >>> second = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=0)
    >>> load_head(second, getfixture("tmp_path"))
    >>> bool((first.project_q.weight == second.project_q.weight).all())
    True
    """
    path = Path(source, "head.ckpt")
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file; expected the folder of a "
            "pre-trained model with its head"
        )
    tensors, own = read_tensors(path), head.state_dict()
    for name in CLASSIFIERS:
        found, wanted = tensors.pop(name, None), own.get(name)
        if wanted is not None:
            fits = found is not None and found.shape == wanted.shape
            tensors[name] = found if fits else wanted
    load_strict(head, tensors, path)
