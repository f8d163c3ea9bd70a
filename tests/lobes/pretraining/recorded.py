"""Recorded runs of the authors' code, and this package's replay of them.

A run is a pair NAME.json, NAME.safetensors with a batch (``sample/``) and
random decisions (``draws/``). Nothing here knows the names of runs or sizes.
"""

import json
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from unispeech_sb.checkpoints.fairseq import read_fairseq, rename_backbone
from unispeech_sb.checkpoints.fairseq.options import KINDS
from unispeech_sb.checkpoints.fairseq.reader import read_pretraining
from unispeech_sb.checkpoints.huggingface import split_heads
from unispeech_sb.convert.lobes import build_lobes
from unispeech_sb.lobes.pretraining import (
    Instances,
    Negatives,
    UniSpeech,
    UniSpeechDraws,
    UniSpeechSAT,
    UniSpeechSATDraws,
)
from unispeech_sb.nnet.contrastive import authors_negatives
from unispeech_sb.nnet.ctc import IGNORED
from unispeech_sb.nnet.quantizer import gumbel_noise

SEEDS = 100_000
"""Seeds to try: the records hold choices, but not the noise they are from,
which the gradients need. The authors' code drew it right after a seed."""

CERTAIN = 1e4
"""Noise that makes a choice certain, where no seed is found."""


class Run(NamedTuple):
    """One recorded run."""

    path: object
    tensors: dict
    cfg: dict
    log: dict

    def part(self, name):
        """Tensors below a name, in their order."""
        start = name + "/"
        return {
            key.removeprefix(start): tensor
            for key, tensor in sorted(self.tensors.items())
            if key.startswith(start)
        }

    def drawn(self, ending):
        """What was drawn by one kind of draw, in its order."""
        draws = self.part("draws").items()
        return [tensor for key, tensor in draws if key.endswith(ending)]

    @property
    def name(self):
        """fairseq's name of the model."""
        state = self.part("state")
        if "label_embs_concat" in state:
            return "unispeech_sat"
        wrapped = any(key.startswith("w2v_encoder.") for key in state)
        return "unispeech" if wrapped else "wav2vec2"

    @property
    def training(self):
        """Whether the model was in training mode: only then codes are drawn,
        in a model that has them."""
        coded = any("quantizer." in key for key in self.part("state"))
        return bool(self.drawn("gumbel.onehot")) or not coded


def find_runs(folder):
    """All pairs of files in a folder that are runs of pre-training."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        if not path.with_suffix(".safetensors").exists():
            continue
        tensors = load_file(path.with_suffix(".safetensors"))
        kinds = {key.partition("/")[0] for key in tensors}
        if {"sample", "draws"} <= kinds:
            record = json.loads(path.read_text())
            runs.append(Run(path, tensors, record["cfg"], record["log"]))
    return runs


def find_noise(run):
    """Gumbel noise of every choice, and whether it is that of the run."""
    logits, choices = run.drawn("gumbel.logits"), run.drawn("gumbel.onehot")
    if not logits:
        return [], True
    generator = torch.Generator()
    few = slice(0, 8)
    for seed in range(SEEDS):
        generator.manual_seed(seed)
        if agree(logits[0][few], choices[0][few], generator):
            generator.manual_seed(seed)
            noise = [gumbel_noise(each, generator) for each in logits]
            drawn = [each + more for each, more in zip(logits, noise)]
            if all(map(same_choice, drawn, choices)):
                return noise, True
    return [CERTAIN * each for each in choices], False


def agree(logits, choices, generator):
    """Whether a generator draws these choices."""
    return same_choice(logits + gumbel_noise(logits, generator), choices)


def same_choice(noisy, choices):
    """Whether noisy logits lead to these choices."""
    return torch.equal(noisy.argmax(-1), choices.argmax(-1))


def build(run):
    """The objective with the run's weights and options."""
    options = {**run.cfg, "_name": run.name}
    content = {
        "model": run.part("state"),
        "cfg": {"model": options, "task": {"normalize": False}},
    }
    lobes = build_lobes(read_fairseq(content, run.path), run.path)
    parts = lobes["backbone"], lobes["head"]
    cfg, temperature = run.cfg, run.log.get("temp", 2.0)
    common = {
        "latent_temp": (temperature, temperature, 1.0),
        "feature_grad_mult": cfg["feature_grad_mult"],
        "paper_code_compat": True,
    }
    if run.name == "unispeech_sat":
        instances = Instances(
            cfg["utterance_contrastive_layer"],
            cfg["num_instances"],
            cfg["cross_sample_instances"],
        )
        return UniSpeechSAT(
            *parts,
            instances=instances,
            label_rate=cfg["label_rate"],
            **common,
        ).train(run.training)
    negatives = Negatives(
        cfg["num_negatives"],
        cfg["cross_sample_negatives"],
        cfg["negatives_from_everywhere"],
        cfg["logit_temp"],
    )
    objective = UniSpeech(*parts, negatives=negatives, **common)
    return objective.train(run.training)


def replay(run, objective, noise):
    """The objective's answer to the batch, with the run's decisions."""
    padding = run.tensors.get("sample/padding_mask")
    wav_lens = None if padding is None else (~padding).double().mean(1)
    wavs, sat = run.tensors["sample/source"], run.name == "unispeech_sat"
    draws = (sat_draws if sat else unispeech_draws)(run, objective, noise)
    if sat:
        targets = run.tensors["sample/target_list.0"]
    else:
        targets = phones(run, objective)
    return objective(wavs, wav_lens, targets, draws=draws)


def sat_draws(run, objective, noise):
    """Decisions of a run of UniSpeech-SAT."""
    (mask,) = run.drawn("mask")
    if objective.head.quantizer is None:
        return UniSpeechSATDraws(mask)
    return UniSpeechSATDraws(
        mask,
        by_codebook(noise[0], objective) if noise else None,
        candidates(run, mask, objective.sampler),
    )


def unispeech_draws(run, objective, noise):
    """Decisions of a run of UniSpeech, which evaluates without a mask."""
    samples = run.tensors["sample/source"].shape[1]
    frames = objective.backbone.output_lengths(samples)
    every = torch.ones(len(run.tensors["sample/source"]), frames).bool()
    mask, *_ = [*run.drawn("mask"), None]
    targets = every if mask is None else mask
    masked, whole = [by_codebook(n, objective) for n in noise] or (None, None)
    replaced = run.drawn("bernoulli.out")
    return UniSpeechDraws(
        mask,
        masked,
        None if whole is None else whole.unflatten(0, every.shape),
        candidates(run, targets, objective.sampler),
        replaced[0].T.bool() if replaced else None,
    )


def by_codebook(noise, objective):
    """Noise as the quantizer takes it, [frames, G, V]."""
    groups = objective.head.quantizer.num_groups
    return noise.view(-1, groups, noise.shape[-1])


def candidates(run, mask, sampler):
    """Candidates that the run's integers stand for, [S, N]."""
    integers = iter(run.drawn("randint.out"))
    within, across = (
        next(integers) if count else torch.zeros(len(mask), 0).long()
        for count in (sampler.num_within, sampler.num_across)
    )
    anchors = int(mask[0].sum())
    frames = mask.shape[1] if sampler.everywhere else anchors
    return authors_negatives(within, across, anchors, frames, sampler.by_sample)


def phones(run, objective):
    """Labels without fairseq's padding and ends, [B, U]."""
    if objective.blank_index is None:
        return None
    targets = run.tensors["sample/target"]
    pad, end = objective.blank_index + 1, objective.blank_index + 2
    return targets.masked_fill((targets == pad) | (targets == end), IGNORED)


def recorded_gradients(run):
    """The run's gradients under the objective's names."""
    kind = KINDS[run.name]
    backbone, rest = rename_backbone(run.part("grads"), kind.prefix)
    top, _, dropped = read_pretraining(rest, kind, run.path)
    lobes, unknown = split_heads(top, "ForPreTraining")
    assert not dropped and not unknown
    return {
        **{f"backbone.{name}": tensor for name, tensor in backbone.items()},
        **{f"head.{name}": tensor for name, tensor in lobes["head"].items()},
    }
