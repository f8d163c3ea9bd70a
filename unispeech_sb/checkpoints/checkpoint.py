"""What any file of another framework holds, under one set of names."""

from dataclasses import dataclass, field
from typing import NamedTuple

from unispeech_sb.checkpoints.safety.limits import shown

TASKS = (
    "Model",
    "ForPreTraining",
    "ForCTC",
    "ForSequenceClassification",
    "ForAudioFrameClassification",
    "ForXVector",
    "ForECAPA",
    "ForEENDVC",
)
"""What stands on the backbone: transformers' classes without the family's
name, then the authors' speaker verification and diarization."""


TENSORS = "shapes of the tensors"
"""Source of what cannot be set otherwise."""


class Fact(NamedTuple):
    """Something known about a checkpoint.

    Arguments
    ---------
    value : object
        A number, a text or a list.
    source : str
        Where it was read, or the rule that gave it.

    Example
    -------
    >>> Fact(16, "config.json").value
    16
    """

    value: object
    source: str


@dataclass
class Checkpoint:
    """A checkpoint of another framework under transformers' names.

    Every reader gives this, so what follows knows one layout only.

    Arguments
    ---------
    origin : str
        What was read: ``Hugging Face``, ``fairseq``, ``s3prl``, ...
    family : str
        ``unispeech`` or ``unispeech-sat``.
    task : str
        One of ``TASKS``.
    config : dict
        Options of ``Backbone`` and of the head, under the names of
        transformers' configuration.
    backbone : dict
        Name in ``Backbone`` -> tensor. Empty where the file has a head only.
    top : dict
        transformers' name -> tensor, for what stands on the backbone.
    tokens : list of str or None
        The vocabulary of a CTC model by index.
    blank_index : int or None
        Index of CTC's blank.
    labels : list of str or None
        Names of the classes by index.
    files : dict
        Name -> text of files to keep as they are, such as ``vocab.json``.
    facts : dict
        Name -> ``Fact``.
    dropped : dict
        Name of a tensor that is left out -> why.
    notes : list of str
        What was added, assumed or changed on the way.

    Example
    -------
    >>> Checkpoint("fairseq", "unispeech", "Model", {}, {}).notes
    []
    """

    origin: str
    family: str
    task: str
    config: dict
    backbone: dict
    top: dict = field(default_factory=dict)
    tokens: list | None = None
    blank_index: int | None = None
    labels: list | None = None
    files: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    dropped: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def settle(facts, overrides, path):
    """Puts the options that the user gave in place of what was found.

    Arguments
    ---------
    facts : dict
        Name -> ``Fact``.
    overrides : dict
        Name -> value.
    path : str or pathlib.Path
        The file, for the error.

    Returns
    -------
    dict
        Name -> ``Fact``.

    Raises
    ------
    ValueError
        When an option contradicts the tensors.

    Example
    -------
    >>> settle({"relu": Fact(False, "assumed")}, {"relu": True}, "x.pt")
    {'relu': Fact(value=True, source='given')}
    """
    settled = dict(facts)
    for name, value in overrides.items():
        fact = facts.get(name)
        if fact and fact.source == TENSORS and fact.value != value:
            raise ValueError(
                f"{path}: expected {name} {fact.value} ({TENSORS}); "
                f"got {shown(value)} (given)"
            )
        settled[name] = Fact(value, "given")
    return settled
