"""A checkpoint's tensors in the lobes that they belong to."""

import inspect
from typing import NamedTuple

from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.keys import CLASSES, split_heads
from unispeech_sb.checkpoints.safety.limits import shown
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AAMSoftmax,
    AMSoftmax,
    DiarizationHead,
    ECAPAHead,
    EENDVCHead,
    FrameHead,
    ProjectedFrameHead,
    RecurrentHead,
    SpeakerHead,
    StatisticsHead,
    UniSpeechHead,
    UniSpeechSATHead,
    UtteranceHead,
)
from unispeech_sb.lobes.lobe import without_weights


class LobeKind(NamedTuple):
    """A module that a folder may have, and what is known of it.

    Arguments
    ---------
    cls : type
        Its class.
    task : str, optional
        One of ``TASKS``, where a checkpoint of another framework has it.
    family : str, optional
        Its family, where the other one does not have it.
    shown : tuple of str
        What ``info`` shows of it: arguments of the class, or options of
        transformers.
    """

    cls: type
    task: str | None = None
    family: str | None = None
    shown: tuple = ()

    @property
    def in_transformers(self):
        """Whether transformers has a class with it."""
        return self.task in {task for _, task in CLASSES.values()}


CODEVECTORS = (
    "num_codevector_groups",
    "num_codevectors_per_group",
    "codevector_dim",
    "codevectors",
    "proj_codevector_dim",
    "gumbel_temperature",
)
XVECTOR = ("tdnn_dim", "xvector_output_dim", "tdnn_lengths", "relu")
MIXED = "use_weighted_layer_sum"
KINDS = (
    LobeKind(Backbone, "Model"),
    LobeKind(
        UtteranceHead,
        "ForSequenceClassification",
        shown=(MIXED, "classifier_proj_size", "proj_size"),
    ),
    LobeKind(
        FrameHead,
        "ForCTC",
        shown=("final_dropout", "ctc_loss_reduction", "ctc_zero_infinity"),
    ),
    LobeKind(FrameHead, "ForAudioFrameClassification", shown=(MIXED,)),
    LobeKind(SpeakerHead, "ForXVector", shown=(MIXED, *XVECTOR)),
    LobeKind(AMSoftmax),
    LobeKind(UniSpeechHead, "ForPreTraining", "unispeech", CODEVECTORS),
    LobeKind(UniSpeechSATHead, "ForPreTraining", "unispeech-sat", CODEVECTORS),
    LobeKind(ECAPAHead, "ForECAPA", shown=("channels", "embedding_size")),
    LobeKind(
        EENDVCHead,
        "ForEENDVC",
        shown=("num_speakers", "num_layers", "num_heads", "speaker_size"),
    ),
    LobeKind(DiarizationHead, shown=("num_speakers", "num_layers", "context")),
    LobeKind(StatisticsHead, shown=("proj_size", "embedding_size")),
    LobeKind(ProjectedFrameHead, shown=("proj_size",)),
    LobeKind(RecurrentHead, shown=("proj_size", "num_layers")),
    LobeKind(AAMSoftmax, shown=("sub_centers",)),
)
"""All modules that a folder may have. A new head is one row here."""


MOST_NUMBER = 10**6
"""Largest number among a lobe's arguments."""


def build_lobes(checkpoint, path):
    """Builds every module of a checkpoint, with its tensors in place.

    The modules take the file's tensors over, in the file's precision:
    nothing is copied or drawn.

    Arguments
    ---------
    checkpoint : Checkpoint
        As a reader gives it, with a backbone.
    path : str or pathlib.Path
        Where it is from, for errors.

    Returns
    -------
    dict
        Name in a pretrained folder -> ``Lobe``.

    Raises
    ------
    ValueError
        When a tensor is missing, unexpected or misshapen.

    Example
    -------
    >>> from unispeech_sb.checkpoints.checkpoint import Checkpoint
    >>> tiny = Backbone.from_preset("tiny")
    >>> found = Checkpoint(
    ...     "test", "unispeech", "Model", tiny.config, tiny.state_dict()
    ... )
    >>> list(build_lobes(found, "test"))
    ['backbone']
    """
    if not checkpoint.backbone:
        raise ValueError(
            f"{path}: a head of {checkpoint.origin} without the backbone that "
            "it was trained on; expected that one to be given (--backbone)"
        )
    if checkpoint.task in MAKERS:
        tensors, unknown = split_heads(checkpoint.top, checkpoint.task)
    else:  # the authors' heads come under their lobe's names
        tensors, unknown = {"head": checkpoint.top}, []
    if unknown:
        raise ValueError(
            f"{path}: unexpected {', '.join(sorted(unknown)[:5])}, which "
            f"{checkpoint.task} does not have"
        )
    with without_weights(path):
        lobes = {"backbone": _from_options(Backbone, checkpoint.config)}
        lobes |= _heads(checkpoint)
    tensors = {"backbone": checkpoint.backbone, **tensors}
    for name, lobe in lobes.items():
        load_strict(lobe, tensors[name], path, assign=True, dtype=None)
    return lobes


def kinds_of(file, path):
    """The rows of a lobe: two for a head that two tasks have.

    Arguments
    ---------
    file : LobeFile
        What its file holds.
    path : str or pathlib.Path
        Where it is from, for the error.

    Returns
    -------
    list of LobeKind
        One at least.

    Raises
    ------
    ValueError
        When the class is none of this package.
    """
    module, _, name = file.cls.rpartition(".")
    found = [kind for kind in KINDS if kind.cls.__name__ == name]
    if not found or not f"{module}.".startswith("unispeech_sb.lobes."):
        raise ValueError(
            f"{path}: expected a lobe of this package; got {shown(file.cls)}"
        )
    return found


def shown_of(kinds):
    """What ``info`` shows of some kinds of lobes, each name once."""
    return tuple(dict.fromkeys(name for kind in kinds for name in kind.shown))


def check_lobe(file, path):
    """Checks that a lobe's arguments and tensors fit its class.

    Arguments
    ---------
    file : LobeFile
        What its file holds.
    path : str or pathlib.Path
        Where it is from, for errors.

    Returns
    -------
    Lobe
        Built, with the file's tensors, and with all arguments in ``config``.

    Raises
    ------
    ValueError
        When the class is none of this package, or something does not fit.

    Example
    -------
    >>> from unispeech_sb.checkpoints.pretrained import LobeFile
    >>> check_lobe(LobeFile("os.system", {}, {}), "a.ckpt")
    Traceback (most recent call last):
    ...
    ValueError: a.ckpt: expected a lobe of this package; got 'os.system'
    """
    cls = kinds_of(file, path)[0].cls
    numbers = [
        number
        for value in file.config.values()
        for number in (value if isinstance(value, list) else [value])
        if isinstance(number, int)
    ]
    if max(numbers, default=0) > MOST_NUMBER:
        raise ValueError(
            f"{path}: expected arguments of at most {MOST_NUMBER}; "
            f"got {shown(max(numbers))}"
        )
    try:
        with without_weights(path):
            lobe = cls(**file.config)
    except (TypeError, RuntimeError, ArithmeticError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}: expected the arguments of {cls.__name__} ({first})"
        ) from error
    load_strict(lobe, file.tensors, path, assign=True, dtype=None)
    return lobe


def _heads(checkpoint):
    """What stands on the backbone, without weights."""
    if checkpoint.task == "Model":
        return {}
    if checkpoint.task == "ForECAPA":
        return {"head": _from_options(ECAPAHead, checkpoint.config)}
    if checkpoint.task == "ForEENDVC":
        return {"head": _from_options(EENDVCHead, checkpoint.config)}
    return MAKERS[checkpoint.task](checkpoint)


def _from_options(cls, config):
    """A module of those options that its constructor has."""
    known = inspect.signature(cls).parameters
    return cls(**{name: config[name] for name in known if name in config})


def _num_states(config):
    """Number of hidden states that a head mixes; None where it does not."""
    mixes = config["use_weighted_layer_sum"]
    return config["num_hidden_layers"] + 1 if mixes else None


def _ctc(checkpoint):
    """The head of ``ForCTC``."""
    config = checkpoint.config
    return {
        "head": FrameHead(
            config["hidden_size"],
            config["vocab_size"],
            config["final_dropout"],
        )
    }


def _utterance(checkpoint):
    """The head of ``ForSequenceClassification``."""
    config = checkpoint.config
    return {
        "head": UtteranceHead(
            config["hidden_size"],
            len(checkpoint.labels),
            config["classifier_proj_size"],
            config["use_weighted_layer_sum"],
            _num_states(config),
        )
    }


def _frame(checkpoint):
    """The head of ``ForAudioFrameClassification``."""
    config = checkpoint.config
    return {
        "head": FrameHead(
            config["hidden_size"],
            len(checkpoint.labels),
            num_states=_num_states(config),
        )
    }


def _speaker(checkpoint):
    """The head of ``ForXVector``, and its objective where there is one."""
    config = checkpoint.config
    size = config["xvector_output_dim"]
    heads = {
        "head": SpeakerHead(
            config["hidden_size"],
            config["tdnn_dim"],
            config["tdnn_kernel"],
            config["tdnn_dilation"],
            size,
            _num_states(config),
            config["tdnn_lengths"],
            config.get("relu", False),
        )
    }
    if "objective.weight" in checkpoint.top:
        heads["objective"] = AMSoftmax(size, len(checkpoint.labels))
    return heads


def _pretraining(checkpoint):
    """What pre-training needs beside the backbone."""
    config, top = checkpoint.config, checkpoint.top
    codevectors = [
        config["num_codevector_groups"],
        config["num_codevectors_per_group"],
        config["codevector_dim"],
    ]
    if checkpoint.family == "unispeech":
        up = config["hidden_size"], config["proj_codevector_dim"]
        found = top.get("project_hid.weight")
        return {
            "head": UniSpeechHead(
                config["hidden_size"],
                config["conv_dim"][-1],
                codevectors,
                config["proj_codevector_dim"],
                config["num_ctc_classes"] if "ctc_proj.weight" in top else 0,
                config["replace_prob"],
                [config["feat_quantizer_dropout"], config["final_dropout"]],
                found is None or tuple(found.shape) == up,
            )
        }
    embeddings = top.get("label_embeddings_concat")
    applied = "apply" if config["do_stable_layer_norm"] else "keep"
    normed = "layer_norm_for_extract.weight" in top
    return {
        "head": UniSpeechSATHead(
            config["hidden_size"],
            config["num_clusters"],
            config["proj_codevector_dim"],
            codevectors if "quantizer.codevectors" in top else None,
            None if embeddings is None else embeddings.shape[-1],
            extract_norm=applied if normed else None,
            layer_norm_eps=config["layer_norm_eps"],
        )
    }


MAKERS = {
    "Model": _heads,
    "ForCTC": _ctc,
    "ForSequenceClassification": _utterance,
    "ForAudioFrameClassification": _frame,
    "ForXVector": _speaker,
    "ForPreTraining": _pretraining,
}
"""Task of transformers -> function that builds its heads."""
