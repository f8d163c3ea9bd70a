"""Checkpoints to lobes and back: one table of what a folder may have."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.checkpoints.checkpoint import Checkpoint
from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.huggingface import (
    CLASSES,
    HEAD_TENSORS,
    split_heads,
)
from unispeech_sb.checkpoints.options import check_arguments, shown
from unispeech_sb.checkpoints.pretrained_folder import LobeFile
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
from unispeech_sb.lobes.lobe import Lobe, build_empty, without_weights


class LobeKind(NamedTuple):
    """A module that a folder may have, and what is known of it.

    Arguments
    ---------
    cls : type
        Its class.
    task : str, optional
        One of ``TASKS``, where a checkpoint of another framework has it.
    interface : str
        What serves a converted checkpoint with it.
    build : callable, optional
        From the ``Checkpoint`` of such a task to lobes without weights.
    options : callable, optional
        From its arguments to options of transformers.
    family : str, optional
        Its family, where not all have it.
    shown : tuple of str
        What ``info`` shows of it: arguments of the class, or options of
        transformers.
    """

    cls: type
    task: str | None = None
    interface: str = "WaveformEncoder"
    build: Callable[[Checkpoint], dict[str, Lobe]] | None = None
    options: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    family: str | None = None
    shown: tuple[str, ...] = ()

    @property
    def in_transformers(self) -> bool:
        """Whether transformers has a class with it."""
        return self.task in {task for _, task in CLASSES.values()}


def build_lobes(checkpoint: Checkpoint, path: str | Path) -> dict[str, Lobe]:
    """Builds every module of a ``Checkpoint``, which has to have a backbone:
    name in a pretrained folder -> ``Lobe``.

    The modules take the file's tensors over, in the file's precision:
    nothing is copied or drawn. A tensor that is missing, unexpected or
    misshapen is a ``ValueError``.
    """
    if not checkpoint.backbone:
        raise ValueError(
            f"{path}: a head of {checkpoint.origin} without the backbone that "
            "it was trained on; expected that one to be given (--backbone)"
        )
    if checkpoint.task in HEAD_TENSORS:
        tensors, unknown = split_heads(checkpoint.top, checkpoint.task)
    else:  # the authors' heads come under their lobe's names
        tensors, unknown = {"head": checkpoint.top}, []
    if unknown:
        raise ValueError(
            f"{path}: unexpected {', '.join(sorted(unknown)[:5])}, which "
            f"{checkpoint.task} does not have"
        )
    build = kind_of(checkpoint).build
    assert build is not None  # every task has one
    with without_weights(path):
        lobes = {"backbone": _from_options(Backbone, checkpoint.config)}
        lobes |= build(checkpoint)
    tensors = {"backbone": checkpoint.backbone, **tensors}
    for name, lobe in lobes.items():
        load_strict(lobe, tensors[name], path, assign=True, dtype=None)
    return lobes


def kind_of(checkpoint: Checkpoint) -> LobeKind:
    """The row of what stands on a checkpoint's backbone."""
    rows = [kind for kind in KINDS if kind.task == checkpoint.task]
    return next(
        (kind for kind in rows if kind.family == checkpoint.family), rows[0]
    )


def kinds_of(file: LobeFile, path: str | Path) -> list[LobeKind]:
    """The rows of a ``LobeFile``: two for a head that two tasks have, none
    for another package's class, which is a ``ValueError``."""
    module, _, name = file.cls.rpartition(".")
    found = [kind for kind in KINDS if kind.cls.__name__ == name]
    if not found or not f"{module}.".startswith("unispeech_sb.lobes."):
        raise ValueError(
            f"{path}: expected a lobe of this package; got {shown(file.cls)}"
        )
    return found


def shown_of(kinds: Iterable[LobeKind]) -> tuple[str, ...]:
    """What ``info`` shows of some kinds of lobes, each name once."""
    return tuple(dict.fromkeys(name for kind in kinds for name in kind.shown))


def check_lobe(file, path):
    """Builds what a ``LobeFile`` holds, with its tensors: ``config`` then has
    all arguments. What does not fit its class is a ``ValueError``."""
    cls = kinds_of(file, path)[0].cls
    check_arguments(file.config, path)
    lobe = build_empty(cls, file.config, path)
    load_strict(lobe, file.tensors, path, assign=True, dtype=None)
    return lobe


def _from_options(cls, config):
    """A module of those options that its constructor has."""
    known = inspect.signature(cls).parameters
    return cls(**{name: config[name] for name in known if name in config})


def _num_states(config):
    """Number of hidden states that a head mixes; None where it does not."""
    mixes = config["use_weighted_layer_sum"]
    return config["num_hidden_layers"] + 1 if mixes else None


def _mixes(head):
    """Option of transformers for a head that may mix hidden states."""
    return {"use_weighted_layer_sum": head["num_states"] is not None}


def _ctc(checkpoint):
    """The head of ``ForCTC``."""
    config = checkpoint.config
    sizes = config["hidden_size"], config["vocab_size"]
    return {"head": FrameHead(*sizes, config["final_dropout"])}


def _ctc_options(head):
    """Options of ``ForCTC``."""
    return {"vocab_size": head["num_classes"], "final_dropout": head["dropout"]}


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


def _utterance_options(head):
    """Options of ``ForSequenceClassification``."""
    return {
        "classifier_proj_size": head["proj_size"],
        "use_weighted_layer_sum": head["use_weighted_layer_sum"],
    }


def _frame(checkpoint):
    """The head of ``ForAudioFrameClassification``."""
    size = checkpoint.config["hidden_size"]
    states = _num_states(checkpoint.config)
    return {"head": FrameHead(size, len(checkpoint.labels), num_states=states)}


def _recurrent(checkpoint):
    """s3prl's head for speech recognition."""
    config = checkpoint.config
    return {
        "head": RecurrentHead(
            config["hidden_size"],
            config["vocab_size"],
            config["classifier_proj_size"],
            config["rnn_size"],
            config["num_layers"],
            num_states=_num_states(config),
        )
    }


def _projected(checkpoint):
    """s3prl's head for phoneme recognition."""
    config = checkpoint.config
    return {
        "head": ProjectedFrameHead(
            config["hidden_size"],
            config["vocab_size"],
            config["classifier_proj_size"],
            _num_states(config),
        )
    }


def _diarization(checkpoint):
    """s3prl's head for diarization."""
    config = checkpoint.config
    return {
        "head": DiarizationHead(
            config["hidden_size"],
            len(checkpoint.labels),
            config["rnn_size"],
            config["num_layers"],
            num_states=_num_states(config),
        )
    }


TDNN = ("tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim")


def _speaker(checkpoint):
    """The head of ``ForXVector``, and its objective where there is one."""
    config = checkpoint.config
    heads = {
        "head": SpeakerHead(
            config["hidden_size"],
            *(config[name] for name in TDNN),
            _num_states(config),
            config["tdnn_lengths"],
            config.get("relu", False),
        )
    }
    if "objective.weight" in checkpoint.top:
        size = config["xvector_output_dim"]
        heads["objective"] = AMSoftmax(size, len(checkpoint.labels))
    return heads


def _speaker_options(head):
    """Options of ``ForXVector``."""
    return {name: head[name] for name in (*TDNN, "tdnn_lengths")} | _mixes(head)


def _codevectors(config):
    """Groups, entries of each, and size of a quantizer."""
    return [
        config["num_codevector_groups"],
        config["num_codevectors_per_group"],
        config["codevector_dim"],
    ]


def _unispeech(checkpoint):
    """What UniSpeech's pre-training needs beside the backbone, and wav2vec
    2.0's, which is the same without phones."""
    config, top = checkpoint.config, checkpoint.top
    up = config["hidden_size"], config["proj_codevector_dim"]
    found = top.get("project_hid.weight")
    down = checkpoint.family == "wav2vec2"
    return {
        "head": UniSpeechHead(
            config["hidden_size"],
            config["conv_dim"][-1],
            _codevectors(config),
            config["proj_codevector_dim"],
            config["num_ctc_classes"] if "ctc_proj.weight" in top else 0,
            config["replace_prob"],
            [config["feat_quantizer_dropout"], config["final_dropout"]],
            not down and (found is None or tuple(found.shape) == up),
        )
    }


def _unispeech_sat(checkpoint):
    """What UniSpeech-SAT's needs."""
    config, top = checkpoint.config, checkpoint.top
    embeddings = top.get("label_embeddings_concat")
    applied = "apply" if config["do_stable_layer_norm"] else "keep"
    normed = "layer_norm_for_extract.weight" in top
    return {
        "head": UniSpeechSATHead(
            config["hidden_size"],
            config["num_clusters"],
            config["proj_codevector_dim"],
            _codevectors(config) if "quantizer.codevectors" in top else None,
            None if embeddings is None else embeddings.shape[-1],
            extract_norm=applied if normed else None,
            layer_norm_eps=config["layer_norm_eps"],
        )
    }


def _pretraining_options(head):
    """Options of ``ForPreTraining``, of either family."""
    groups, entries, size = head["codevectors"]
    quantizer_dropout, final_dropout = head.get("dropouts", (None, None))
    return {
        "num_codevector_groups": groups,
        "num_codevectors_per_group": entries,
        "codevector_dim": size,
        "proj_codevector_dim": head["proj_codevector_dim"],
        "num_ctc_classes": head.get("num_ctc_classes"),
        "replace_prob": head.get("replace_prob"),
        "feat_quantizer_dropout": quantizer_dropout,
        "final_dropout": final_dropout,
        "num_clusters": head.get("num_clusters"),
        "contrastive_logits_temperature": head.get("logit_temp"),
    }


MIXED = "use_weighted_layer_sum"
CODEVECTORS = (
    "num_codevector_groups",
    "num_codevectors_per_group",
    "codevector_dim",
    "codevectors",
    "proj_codevector_dim",
    "gumbel_temperature",
)
KINDS = (
    LobeKind(Backbone, "Model", build=lambda checkpoint: {}),
    LobeKind(
        UtteranceHead,
        "ForSequenceClassification",
        "EncoderClassifier",
        _utterance,
        _utterance_options,
        shown=(MIXED, "classifier_proj_size", "proj_size"),
    ),
    LobeKind(
        FrameHead,
        "ForCTC",
        "EncoderASR",
        _ctc,
        _ctc_options,
        shown=("final_dropout", "ctc_loss_reduction", "ctc_zero_infinity"),
    ),
    LobeKind(
        FrameHead,
        "ForAudioFrameClassification",
        "SpeakerDiarization",
        _frame,
        _mixes,
        shown=(MIXED,),
    ),
    LobeKind(
        SpeakerHead,
        "ForXVector",
        "SpeakerRecognition",
        _speaker,
        _speaker_options,
        shown=(
            MIXED,
            "tdnn_dim",
            "xvector_output_dim",
            "tdnn_lengths",
            "relu",
        ),
    ),
    LobeKind(
        UniSpeechHead,
        "ForPreTraining",
        build=_unispeech,
        options=_pretraining_options,
        family="unispeech",
        shown=CODEVECTORS,
    ),
    LobeKind(
        UniSpeechSATHead,
        "ForPreTraining",
        build=_unispeech_sat,
        options=_pretraining_options,
        family="unispeech-sat",
        shown=CODEVECTORS,
    ),
    LobeKind(
        ECAPAHead,
        "ForECAPA",
        "SpeakerRecognition",
        lambda found: {"head": _from_options(ECAPAHead, found.config)},
        shown=("channels", "embedding_size"),
    ),
    LobeKind(
        EENDVCHead,
        "ForEENDVC",
        "SpeakerDiarization",
        lambda found: {"head": _from_options(EENDVCHead, found.config)},
        shown=("num_speakers", "num_layers", "num_heads", "speaker_size"),
    ),
    LobeKind(
        DiarizationHead,
        "ForLSTMDiarization",
        "SpeakerDiarization",
        _diarization,
        shown=("num_speakers", "num_layers", "context"),
    ),
    LobeKind(StatisticsHead, shown=("proj_size", "embedding_size")),
    LobeKind(
        ProjectedFrameHead,
        "ForProjectedCTC",
        "EncoderASR",
        _projected,
        shown=("proj_size",),
    ),
    LobeKind(
        RecurrentHead,
        "ForRecurrentCTC",
        "EncoderASR",
        _recurrent,
        shown=("proj_size", "num_layers"),
    ),
    LobeKind(AMSoftmax),
    LobeKind(AAMSoftmax, shown=("sub_centers",)),
)
"""All modules that a folder may have. A new head is one row here."""
