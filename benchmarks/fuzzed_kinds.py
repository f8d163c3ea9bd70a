"""Each kind of file that ``fuzzing.py`` damages, and all that reads it."""

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import fuzzed_files as files
import torch
from hyperpyyaml import load_hyperpyyaml

from unispeech_sb import cli
from unispeech_sb.lobes.adapters import load_adapter
from unispeech_sb.lobes.backbone import Backbone

MOST_TEXT = 1500
"""Characters of a refusal, the path included."""


class Unfit(Exception):
    """A refusal that is not one short line that names the file."""


def command(*arguments):
    """Runs a command line; a refusal becomes an error with what it printed."""
    told = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(told):
        code = cli.main([str(argument) for argument in arguments])
    if code:
        line = told.getvalue().removesuffix("\n")
        if not line.isprintable():
            raise Unfit(f"not one printable line: {ascii(line)[:300]}")
        raise ValueError(line.removeprefix("unispeech-sb: "))


def convert(source, target):
    """Describes and converts; what was written has to load."""
    _, refusal = attempts(
        source,
        lambda: command("info", source),
        lambda: command("convert", source, target),
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
        lambda: command("info", source),
        lambda: Backbone.from_pretrained(source),
        lambda: command("to-hf", source, target),
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


def check_refusal(error, source):
    """Checks the words of an error, as the command line folds them."""
    text = " ".join(str(error).split())
    folder = source if source.is_dir() else source.parent
    if len(text) > MOST_TEXT:
        raise Unfit(f"{len(text)} characters: {text[:300]}") from error
    if str(folder) not in text:
        raise Unfit(f"does not name the file: {text[:600]}") from error


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


class Kind(NamedTuple):
    """A kind of file.

    ``writers`` make folders, ``damaged`` are names of files in them,
    ``run`` takes the folder (or its only file) and a place to write to.
    """

    writers: tuple
    damaged: tuple
    run: object = convert


SPEAKER, CTC = "UniSpeechSatForXVector", "UniSpeechForCTC"
HUGGING_FACE = tuple(files.huggingface(name) for name in files.HEADS)
OWN = tuple(files.own(name) for name in (SPEAKER, CTC))
INDEX = "model.safetensors.index.json"
KINDS = {
    "hf-safetensors": Kind(HUGGING_FACE, ("model.safetensors",)),
    "hf-config": Kind(HUGGING_FACE, ("config.json",)),
    "hf-preprocessor": Kind(HUGGING_FACE, ("preprocessor_config.json",)),
    "hf-vocabulary": Kind(
        (files.huggingface(CTC),),
        ("vocab.json", "tokenizer_config.json", "added_tokens.json"),
    ),
    "hf-bin": Kind(
        (files.huggingface(SPEAKER, "pytorch_model.bin"),),
        ("pytorch_model.bin",),
    ),
    "hf-bin-legacy": Kind(
        (files.huggingface(SPEAKER, "legacy"),), ("pytorch_model.bin",)
    ),
    "hf-shards": Kind((files.huggingface(SPEAKER, INDEX),), (INDEX,)),
    "fairseq": Kind((files.fairseq,), ("checkpoint.pt",)),
    "fairseq-2021": Kind((files.fairseq_2021,), ("checkpoint.pt",)),
    "speaker-verification": Kind((files.speaker_verification,), ("model.th",)),
    "diarization": Kind((files.diarization,), ("model.th",)),
    "s3prl": Kind((files.s3prl,), ("states.ckpt",)),
    "adapter": Kind((files.adapter,), ("adapter.eng.safetensors",), switch),
    "own-backbone": Kind((*OWN, files.own_backbone), ("backbone.ckpt",), serve),
    "own-head": Kind(OWN, ("head.ckpt",), serve),
    "own-labels": Kind(OWN[:1], ("label_encoder.ckpt",), serve),
    "own-tokenizer": Kind(OWN[1:], ("tokenizer.ckpt",), serve),
    "own-origin": Kind(OWN, ("origin.json",), serve),
}
