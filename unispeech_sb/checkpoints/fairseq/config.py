"""fairseq's options under transformers' names.

Files of both generations are read: ``args`` (a Namespace, all options in one
place) and ``cfg`` (a section for the model, one for the task).
"""

from typing import NamedTuple

from unispeech_sb.checkpoints.checkpoint import Fact
from unispeech_sb.checkpoints.fairseq.literals import read_layers
from unispeech_sb.checkpoints.safety.limits import shown
from unispeech_sb.checkpoints.safety.stubs import plain


class Kind(NamedTuple):
    """What a name of a fairseq model means.

    Arguments
    ---------
    family : str
        ``unispeech`` or ``unispeech-sat``.
    task : str
        ``ForPreTraining`` or ``ForCTC``.
    prefix : str
        What the names of the backbone's tensors start with.

    Example
    -------
    >>> KINDS["bc_m_hubert"].family
    'unispeech-sat'
    """

    family: str
    task: str
    prefix: str


WRAPPED = "w2v_encoder.w2v_model."
KINDS = {
    "unispeech": Kind("unispeech", "ForPreTraining", WRAPPED),
    "wav2vec_mtls1": Kind("unispeech", "ForPreTraining", WRAPPED),
    "wav2vec2": Kind("unispeech", "ForPreTraining", ""),
    "wav2vec_ctc": Kind("unispeech", "ForCTC", WRAPPED),
    "unispeech_sat": Kind("unispeech-sat", "ForPreTraining", ""),
    "bc_m_hubert": Kind("unispeech-sat", "ForPreTraining", ""),
    "hubert_ctc": Kind("unispeech-sat", "ForCTC", WRAPPED),
}
"""Name of a model, of 2021 and of the released code -> what it is."""

SIZES = {
    "encoder_embed_dim": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_ffn_embed_dim": "intermediate_size",
    "encoder_attention_heads": "num_attention_heads",
    "extractor_mode": "feat_extract_norm",
    "layer_norm_first": "do_stable_layer_norm",
    "conv_feature_layers": "conv_dim, conv_kernel, conv_stride",
    "activation_fn": "hidden_act",
    "conv_pos": "num_conv_pos_embeddings",
    "conv_pos_groups": "num_conv_pos_embedding_groups",
}
"""Options that give the backbone its shape -> transformers'."""

TRAINING = {
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "feat_proj_dropout",
    "dropout_features": "feat_quantizer_dropout",
    "final_dropout": "final_dropout",
    "encoder_layerdrop": "layerdrop",
    "layerdrop": "layerdrop",
    "mask_prob": "mask_time_prob",
    "mask_length": "mask_time_length",
    "mask_channel_prob": "mask_feature_prob",
    "mask_channel_length": "mask_feature_length",
    "replace_prob": "replace_prob",
    "logit_temp": "contrastive_logits_temperature",
    "num_negatives": "num_negatives",
    "feature_grad_mult": "feature_grad_mult",
}
"""Options that steer training -> transformers', or as they are."""

SAT_TRAINING = {
    "spk_layer": "utterance_contrastive_layer",
    "utterance_contrastive_layer": "utterance_contrastive_layer",
    "num_negatives": "num_instances",
    "num_instances": "num_instances",
    "cross_sample_negatives": "cross_sample_instances",
    "cross_sample_instances": "cross_sample_instances",
}
"""The same for UniSpeech-SAT, of 2021 and of the released code."""

NORMS = {"layer_norm": "layer", "default": "group"}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "relu": "relu",
}


class Options(NamedTuple):
    """What a file says about its model.

    Arguments
    ---------
    name : str
        Name of the model.
    model, task : dict
        fairseq's options, as plain data.
    upstream : dict
        Those of the model that was fine-tuned; empty where the file leaves
        them out.
    place : str
        ``cfg`` or ``args``.
    criterion : dict
        Those of the loss.

    Example
    -------
    >>> Options("unispeech", {}, {}, {}, "cfg").place
    'cfg'
    """

    name: str
    model: dict
    task: dict
    upstream: dict
    place: str
    criterion: dict = {}

    @property
    def kind(self):
        """What the model is."""
        return KINDS[self.name]

    def where(self, section):
        """Name of the place that has a section, for sources.

        Arguments
        ---------
        section : str
            ``model`` or ``task``.

        Returns
        -------
        str
            ``cfg.model``, for instance.
        """
        return self.place if self.place == "args" else f"cfg.{section}"


def read_options(objects, path):
    """Finds the options of model and task.

    Arguments
    ---------
    objects : dict
        A fairseq checkpoint.
    path : str or pathlib.Path
        The file, for errors.

    Returns
    -------
    Options
        As plain data.

    Raises
    ------
    ValueError
        When there are none, or they are of another model.

    Example
    -------
    >>> read_options({"cfg": {"model": {"_name": "wavlm"}}}, "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected a model named unispeech, ... or hubert_ctc; ...
    """
    place = "cfg" if objects.get("cfg") is not None else "args"
    try:
        found = plain(objects.get(place))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: expected the options of a fairseq model in cfg or args; "
            "there are none"
        )
    model, task, criterion = (
        _section(found, name, place) for name in ("model", "task", "criterion")
    )
    name = model.get("_name") or model.get("arch")
    if not isinstance(name, str) or name not in KINDS:
        *names, last = KINDS
        raise ValueError(
            f"{path}: expected a model named {', '.join(names)} or {last}; "
            f"got {shown(name)}"
        )
    options = Options(name, model, task, _upstream(model), place, criterion)
    return _check_upstream(options, path)


def known_sizes(model, source, path):
    """What options say about the backbone's shape.

    Arguments
    ---------
    model : dict
        fairseq's options of a pre-trained model.
    source : str
        Where they are from, such as ``cfg.model``.
    path : str or pathlib.Path
        The file, for errors.

    Returns
    -------
    dict
        transformers' name -> ``Fact``.

    Raises
    ------
    ValueError
        When an option has a value that no backbone here has.

    Example
    -------
    >>> known_sizes({"encoder_layers": 24}, "cfg.model", "x.pt")
    {'num_hidden_layers': Fact(value=24, source='cfg.model.encoder_layers')}
    """
    facts = {}
    for theirs, ours in SIZES.items():
        value = model.get(theirs)
        if value is None:
            continue
        where = f"{source}.{theirs}"
        if theirs == "conv_feature_layers":
            layers = read_layers(value, f"{path}: {where}")
            for name, numbers in zip(ours.split(", "), zip(*layers)):
                facts[name] = Fact(list(numbers), where)
            continue
        table = {"extractor_mode": NORMS, "activation_fn": ACTIVATIONS}
        if theirs in table:
            value = _translate(value, table[theirs], f"{path}: {where}")
        facts[ours] = Fact(value, where)
    return facts


def known_training(options):
    """What options say about training, those of fine-tuning first.

    Arguments
    ---------
    options : Options
        Of a file.

    Returns
    -------
    dict
        transformers' name -> ``Fact``.

    Example
    -------
    >>> model = {"mask_prob": 0.65, "layerdrop": 0.1}
    >>> options = Options("wav2vec_ctc", model, {}, {}, "cfg")
    >>> list(known_training(options))
    ['layerdrop', 'mask_time_prob']
    """
    table, facts = dict(TRAINING), {}
    if options.kind.family == "unispeech-sat":
        table |= SAT_TRAINING
    place = options.where("model")
    for where, model in (
        (f"{place}.w2v_args", options.upstream),
        (place, options.model),
    ):
        for theirs, ours in table.items():
            if model.get(theirs) is not None:
                facts[ours] = Fact(model[theirs], f"{where}.{theirs}")
    infinity = options.criterion.get("zero_infinity")
    if infinity is not None:
        where = f"{options.where('criterion')}.zero_infinity"
        facts["ctc_zero_infinity"] = Fact(infinity, where)
    return facts


def _section(found, name, place):
    """The options of the model or the task, wherever they are kept."""
    section = found.get(name)
    if place == "cfg" and isinstance(section, dict):
        return section
    return found  # a Namespace has them all in one place


def _upstream(model):
    """Options of the model that was fine-tuned, where the file has them."""
    found = model.get("w2v_args")
    return _section(found, "model", "cfg") if isinstance(found, dict) else {}


def _check_upstream(options, path):
    """Refuses CTC models that were fine-tuned from another family."""
    name = options.upstream.get("_name") or options.upstream.get("arch")
    found = KINDS.get(name) if isinstance(name, str) else None
    if name is None or (found and found.family == options.kind.family):
        return options
    raise ValueError(
        f"{path}: expected a CTC model fine-tuned from "
        f"{options.kind.family}; got one from {shown(name)}"
    )


def _translate(value, table, where):
    """A value's counterpart."""
    if not isinstance(value, str) or value not in table:
        raise ValueError(
            f"{where}: expected {' or '.join(table)}; got {shown(value)}"
        )
    return table[value]
