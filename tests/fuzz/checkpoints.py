"""Damaged checkpoints and pretrained folders.

Each damaged file has to convert into a folder that loads, or be refused by one
printable line that names the file, with nothing written.
"""

from functools import partial

import torch
from hyperpyyaml import load_hyperpyyaml

from tests.fuzz import files
from tests.fuzz.kinds import Kind, Unfit, check_refusal, command, refused_line
from tests.fuzz.mutations import CANARY, mutate
from unispeech_sb.lobes.adapters import load_adapter
from unispeech_sb.lobes.backbone import Backbone

COUNT = 2000


def run(*arguments):
    """Runs a command line; a refusal becomes an error with what it printed."""
    code, _, printed = command(*arguments)
    if code:
        raise ValueError(refused_line(printed))


def convert(source, target):
    """Describes and converts; what was written has to load."""
    inside = list(source.iterdir())
    source = inside[0] if len(inside) == 1 else source
    _, refusal = attempts(
        source,
        lambda: run("info", source),
        lambda: run("convert", source, target),
    )
    if refusal:
        raise refusal
    hparams = load_hyperpyyaml((target / "hyperparams.yaml").read_text())
    hparams["pretrainer"].set_collect_in(str(target))
    hparams["pretrainer"].collect_files(default_source=str(target))
    hparams["pretrainer"].load_collected()


def serve(source, target):
    """Describes, loads and converts back; what does not load, does not."""
    _, not_loaded, refusal = attempts(
        source,
        lambda: run("info", source),
        lambda: Backbone.from_pretrained(source),
        lambda: run("to-hf", source, target),
    )
    if refusal:
        raise refusal
    if not_loaded:
        raise AssertionError(f"written for transformers, but: {not_loaded}")


def attempts(source, *actions):
    """The refusal of each action, its words checked; None where it went."""
    found = []
    for action in actions:
        try:
            action()
            found.append(None)
        except (ValueError, OSError) as error:
            check_refusal(error, source)
            found.append(error)
    return found


def switch(source, target):
    """Switches modules to a language; refused, they stay as they were."""
    backbone, head = files.adapted()
    before = [p.clone() for p in (*backbone.parameters(), *head.parameters())]
    try:
        load_adapter(source, "eng", backbone, head)
    except (ValueError, OSError):
        after = (*backbone.parameters(), *head.parameters())
        if not all(map(torch.equal, before, after)):
            raise AssertionError("refused, but the modules changed") from None
        raise


def damage(names, source, rng):
    """Damages one of the files that are there."""
    paths = [source / name for name in names]
    mutate(rng.choice([path for path in paths if path.exists()]), rng)


def judge(action, case):
    """What becomes of a case."""
    source, target = case / "source", case / "target"
    try:
        action(source, target)
    except (ValueError, OSError) as error:
        check_refusal(error, source)
        if {path.name for path in case.iterdir()} - {"source", CANARY}:
            raise Unfit(f"left something behind after: {error}") from error
        return "refused", str(error)
    return "accepted", ""


def kind(writers, names, action=convert):
    """A kind of checkpoint: who writes it, which files are damaged."""
    return Kind(writers, partial(damage, names), partial(judge, action), COUNT)


SPEAKER, CTC = "UniSpeechSatForXVector", "UniSpeechForCTC"
HUGGING_FACE = tuple(files.huggingface(name) for name in files.HEADS)
OWN = tuple(files.own(name) for name in (SPEAKER, CTC))
DAMAGED = {
    "hf-safetensors": (HUGGING_FACE, ("model.safetensors",)),
    "hf-config": (HUGGING_FACE, ("config.json",)),
    "hf-preprocessor": (
        HUGGING_FACE, ("preprocessor_config.json", "processor_config.json"),
    ),
    "hf-vocabulary": (
        (files.huggingface(CTC),), ("vocab.json", "tokenizer_config.json"),
    ),
    "hf-bin": (
        (files.huggingface(SPEAKER, "pytorch_model.bin"),),
        ("pytorch_model.bin",),
    ),
    "hf-bin-legacy": (
        (files.huggingface(SPEAKER, "legacy"),), ("pytorch_model.bin",)
    ),
    "hf-shards": (
        (files.huggingface(SPEAKER, files.INDEX),), (files.INDEX,)
    ),
    "fairseq": ((files.fairseq,), ("checkpoint.pt",)),
    "fairseq-2021": ((files.fairseq_2021,), ("checkpoint.pt",)),
    "speaker-verification": ((files.speaker_verification,), ("model.th",)),
    "diarization": ((files.diarization,), ("model.th",)),
    "s3prl": ((files.s3prl,), ("states.ckpt",)),
    "adapter": ((files.adapter,), ("adapter.eng.safetensors",), switch),
    "own-backbone": ((*OWN, files.own_backbone), ("backbone.ckpt",), serve),
    "own-head": (OWN, ("head.ckpt",), serve),
    "own-labels": (OWN[:1], ("label_encoder.ckpt",), serve),
    "own-tokenizer": (OWN[1:], ("tokenizer.ckpt",), serve),
    "own-origin": (OWN, ("origin.json",), serve),
}  # fmt: skip
"""Name -> writers, names of files that they may have, what takes them."""

KINDS = {name: kind(*row) for name, row in DAMAGED.items()}
