"""Time of the backbone on lengths as they come, beside its peers, in one run.

    python benchmarks/inference.py [--cases mixed librispeech 5 10 60 300]
        [--precisions bf16 int8]

All sides have the same random weights and run in turn, so that a drift of the
machine's speed hits them alike; what they compute is compared first. Cases: one
batch of eight mixed lengths; 64 lengths of LibriSpeech utterances from the
folder in UNISPEECH_SB_DATA in batches of eight, as drawn; and single waveforms
of some seconds. Sides: this package; the same with windows of 30 s;
transformers on the padded batch with its mask, and utterance by utterance;
SpeechBrain's lobe around transformers; this package's exports by ONNX Runtime
and OpenVINO (``--sides onnx openvino "openvino bf16"``). With ``--precisions``
also this package in each; for bf16 by torch.autocast, too, and transformers
with weights of bfloat16. Ratios above 1 mean that this package is faster;
``--clock cpu`` counts the processor's time, for a machine that does other
things beside. "of the rate": operations on valid frames to what the machine
does in products of large matrices.
"""

import argparse
import copy
import os
import random
import tempfile
from pathlib import Path

import soundfile
import torch
import transformers
from peers import (
    CLOCKS,
    MIXED_S,
    Batch,
    difference,
    interleaved,
    matrix_product,
    models,
    print_setting,
)
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

from unispeech_sb.brains.throughput import forward_flops
from unispeech_sb.inference.features import StateEncoder
from unispeech_sb.inference.graphs import GraphRunner
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.precision import lower_precision

ROOT = Path(__file__).parent.parent
ENGINE_SIDES = {
    "onnx": ("onnx", "fp32"), "onnx int8": ("onnx", "int8"),
    "openvino": ("openvino", "fp32"), "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
}  # fmt: skip
SIDES = ("windows", "padded", "one by one", "SpeechBrain", *ENGINE_SIDES)


def librispeech_s(number):
    """Lengths of some utterances, in seconds."""
    data = os.environ.get("UNISPEECH_SB_DATA", ROOT.parent / "shared/data")
    paths = sorted(Path(data, "LibriSpeech").rglob("*.flac"))
    if len(paths) < number:
        raise FileNotFoundError(
            f"{data}: expected LibriSpeech/**/*.flac; UNISPEECH_SB_DATA names "
            "the folder"
        )
    chosen = random.Random(0).sample(paths, number)
    return [soundfile.info(path).duration for path in chosen]


def batches_of(case):
    """The batches of a case."""
    if case == "mixed":
        return [Batch(MIXED_S)]
    if case == "librispeech":
        seconds = librispeech_s(64)
        return [Batch(seconds[i : i + 8]) for i in range(0, 64, 8)]
    return [Batch([float(case)])]


def lobe(theirs, folder):
    """SpeechBrain's lobe with the weights of transformers' model."""
    theirs.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=False, return_attention_mask=True
    ).save_pretrained(folder)
    found = Wav2Vec2(folder, folder, freeze=True)
    found.model.set_attn_implementation("sdpa")
    return found.eval()


def sides_of(ours, theirs, speechbrain_lobe):
    """Name -> function from a batch to its features, a tensor or several."""
    with torch.device("meta"):
        windowed = Backbone(**{**ours.config, "window_s": 30.0}).eval()
    windowed.load_state_dict(ours.state_dict(), assign=True)
    return {
        "unispeech_sb": lambda batch: ours(batch.wavs, batch.wav_lens),
        "windows": lambda batch: windowed(batch.wavs, batch.wav_lens),
        "padded": lambda batch: (
            theirs(batch.wavs, attention_mask=batch.mask).last_hidden_state
        ),
        "one by one": lambda batch: [
            theirs(wav).last_hidden_state[0] for wav in batch.alone()
        ],
        "SpeechBrain": lambda batch: speechbrain_lobe(
            batch.wavs, batch.wav_lens
        ),
    }


def engine_sides(ours, names):
    """The same for our exports, whose graphs are made once, in the cache."""
    for name in names:
        if name in ENGINE_SIDES:
            runner = GraphRunner(*ENGINE_SIDES[name], StateEncoder(ours))
            yield (
                name,
                lambda batch, runner=runner: runner(batch.wavs, batch.wav_lens)[
                    0
                ],
            )


def sides_in(precision, ours, theirs):
    """The same for a lower precision."""
    lowered = copy.deepcopy(ours)
    lower_precision(lowered.feature_extractor, lowered.encoder, precision)
    sides = {precision: lambda batch: lowered(batch.wavs, batch.wav_lens)}
    if precision == "bf16":
        half = copy.deepcopy(theirs).bfloat16()

        def autocast(batch):
            with torch.autocast("cpu", torch.bfloat16):
                return ours(batch.wavs, batch.wav_lens)

        def padded(batch):
            wavs = batch.wavs.bfloat16()
            found = half(wavs, attention_mask=batch.mask)
            return found.last_hidden_state

        sides |= {"bf16, autocast": autocast, "bf16, padded": padded}
    return sides


def compare(case, ours, sides, batch):
    """Prints how far each side is from the first, on valid frames."""
    frames = ours.output_lengths(torch.tensor(batch.counts)).tolist()
    found = {
        name: [row[:n] for row, n in zip(run(batch), frames)]
        for name, run in sides.items()
    }
    expected = found.pop("unispeech_sb")
    print(f"{case}: largest difference of features to their root mean square: "
          + ", ".join(f"{name} {difference(each, expected):.1e}"
                      for name, each in found.items()), flush=True)  # fmt: skip


@torch.no_grad()
def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES[1:4])
    parser.add_argument(
        "--precisions", nargs="*", choices=("bf16", "int8"), default=()
    )
    parser.add_argument(
        "--cases", nargs="+",
        default=["mixed", "librispeech", "5", "10", "60", "300"],
    )  # fmt: skip
    arguments = parser.parse_args()
    ours, theirs = (model.eval() for model in models(arguments.model))
    with tempfile.TemporaryDirectory(prefix="inference-") as folder:
        sides = sides_of(ours, theirs, lobe(theirs, folder))
    sides = {
        name: run
        for name, run in sides.items()
        if name in ("unispeech_sb", *arguments.sides)
    }
    sides |= engine_sides(ours, arguments.sides)
    for precision in arguments.precisions:
        sides |= sides_in(precision, ours, theirs)
    print_setting(arguments.model)
    lines = []
    for case in arguments.cases:
        batches = batches_of(case)
        compare(case, ours, sides, batches[0])
        runs = {
            name: lambda run=run, batches=batches: [run(b) for b in batches]
            for name, run in sides.items()
        }
        product, operations = matrix_product()
        times = interleaved(
            {**runs, "product": product}, arguments.rounds, arguments.clock
        )
        rate = operations / times.pop("product")
        needed = sum(
            forward_flops(ours.config, count)
            for b in batches
            for count in b.counts
        )
        mine = times.pop("unispeech_sb")
        ratios = [f"{times[name]:.3f} ({times[name] / mine:.2f})"
                  for name in times]  # fmt: skip
        lines.append([case, f"{mine:.3f}", *ratios,
                      f"{needed / mine / rate:.2f}"])  # fmt: skip
    head = ["case", "unispeech_sb (s)"]
    head += [f"{name} (s, ratio)" for name in [*sides][1:]]
    head.append("of the rate")
    print()
    for line in [head, ["---"] * len(head), *lines]:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
