"""How far hidden states in windows are from those of the whole recording.

    python benchmarks/windows.py FOLDER [--seconds 120]

LibriSpeech utterances from the folder in UNISPEECH_SB_DATA, joined, go through
the backbone of a pretrained folder as a whole and in windows of several sizes
and contexts. Printed is the norm of the difference to that of the states, of
all frames and of those within half a second of a cut: of the encoder's input,
which sees no window, and of the last layer. For a recognizer (EncoderASR) also
how many frames have another most probable token in ``log_probs``.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from longform import write_speech

from unispeech_sb.checkpoints.interfaces import folder_kind
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.features import SpeechFeatures

ROOT = Path(__file__).parent.parent
NEAR = 25
"""Frames on either side of a cut."""


def away(found, expected, frames):
    """Difference of some frames, [T, D], to the states."""
    apart = (found - expected)[frames].norm() / expected[frames].norm()
    return f"{apart.item():.1e}"


def near_cuts(plan):
    """True at frames near a cut."""
    near = torch.zeros(plan[-1].last, dtype=torch.bool)
    for window in plan[1:]:
        near[window.first - NEAR : window.first + NEAR] = True
    return near


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument(
        "--windows", type=float, nargs="+", default=[20, 30, 60]
    )
    parser.add_argument(
        "--contexts", type=float, nargs="+", default=[0.0, 0.75, 1.5, 3.0]
    )
    arguments = parser.parse_args()
    data = os.environ.get("UNISPEECH_SB_DATA", ROOT.parent / "shared/data")
    recognizes = folder_kind(arguments.folder) == "EncoderASR"
    with tempfile.TemporaryDirectory(prefix="windows-") as folder:
        path = Path(folder, "speech.wav")
        write_speech(Path(data), path, arguments.seconds)

        def states(window_s, context_s=0.75):
            model = SpeechFeatures.from_hparams(
                arguments.folder, window_s=window_s, context_s=context_s
            )
            windows = model._windows([0])
            plan = windows.plan(windows.statistics(str(path)).num_samples)
            return model(str(path), layers=[0, model.num_layers]).states, plan

        def tokens(window_s, context_s=0.75):
            if not recognizes:
                return torch.zeros(1)
            asr = LongFormASR.from_hparams(
                arguments.folder, window_s=window_s, context_s=context_s
            )
            return asr.log_probs(str(path)).argmax(-1)

        (first, last), _ = states(2 * arguments.seconds)
        spelt = tokens(2 * arguments.seconds)
        print("| window (s) | context (s) | input | last layer | near a cut "
              "| other tokens |\n|---|---|---|---|---|---|")  # fmt: skip
        for size in arguments.windows:
            for context in arguments.contexts:
                (own_first, own), plan = states(size, context)
                every, near = torch.ones(len(own)).bool(), near_cuts(plan)
                other = (tokens(size, context) != spelt).float().mean()
                print(f"| {size:g} | {context:g} "
                      f"| {away(own_first, first, every)} "
                      f"| {away(own, last, every)} | {away(own, last, near)} "
                      f"| {other.item():.2%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
