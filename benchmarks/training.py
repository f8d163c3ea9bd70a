"""Time of a fine-tuning step on mixed lengths, beside transformers, in one run.

    python benchmarks/training.py [--model unispeech_sat_base] [--rounds 3]

Both sides have the same random weights and take one step of AdamW on a batch of
eight mixed lengths, for the distance of valid frames' features to random ones,
in turn. Gradients are compared first with those of transformers, utterance by
utterance: in its padded batch the group norm of Base models counts the padding.
Ratios above 1 mean that this package is faster; ``--clock cpu`` counts the
processor's time, for a machine that does other things beside.
"""

import argparse

import torch
from peers import (
    CLOCKS,
    MIXED_S,
    Batch,
    interleaved,
    matrix_product,
    models,
    print_setting,
)

from unispeech_sb.brains.throughput import forward_flops


def loss_of(features, frames):
    """A loss with a gradient everywhere: LayerNorm fixes the squares' sum."""
    generator = torch.Generator().manual_seed(2)
    total = 0.0
    for row, count in zip(features, frames, strict=True):
        wanted = torch.randn(row[:count].shape, generator=generator)
        total = total + (row[:count] - wanted).square().sum()
    return total / sum(frames)


def largest_difference(found, expected):
    """How far gradients are apart, to the scale of their tensor, and which.

    Those of the keys' biases, which softmax takes away, are zero but for
    rounding, and so are any that are so small beside the others.
    """
    expected = {n: p for n, p in expected.items() if p.grad is not None}
    scales = {n: p.grad.abs().max().item() for n, p in expected.items()}
    least = 1e-6 * max(scales.values())
    return max(
        ((found[n].grad - p.grad).abs().max().item() / scales[n], n)
        for n, p in expected.items()
        if scales[n] > least
    )


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--seconds", type=float, nargs="+", default=MIXED_S)
    arguments = parser.parse_args()
    ours, theirs = (model.train() for model in models(arguments.model))
    batch = Batch(arguments.seconds)
    frames = ours.output_lengths(torch.tensor(batch.counts)).tolist()
    sides = {
        "unispeech_sb": lambda: ours(batch.wavs, batch.wav_lens),
        "padded": lambda: (
            theirs(batch.wavs, attention_mask=batch.mask).last_hidden_state
        ),
        "one by one": lambda: [
            theirs(wav).last_hidden_state[0] for wav in batch.alone()
        ],
    }
    print_setting(arguments.model)
    gradients = {}
    for name, model in (("unispeech_sb", ours), ("one by one", theirs)):
        loss_of(sides[name](), frames).backward()
        gradients[name] = dict(model.named_parameters())
    worst, name = largest_difference(*gradients.values())
    print("largest difference of a gradient to the largest of its tensor: "
          f"{worst:.1e} ({name})\n")  # fmt: skip
    optimizers = {
        "unispeech_sb": torch.optim.AdamW(ours.parameters(), 1e-6),
        "padded": torch.optim.AdamW(theirs.parameters(), 1e-6),
    }
    optimizers["one by one"] = optimizers["padded"]

    def step(name):
        optimizers[name].zero_grad()
        loss_of(sides[name](), frames).backward()
        optimizers[name].step()

    product, operations = matrix_product()
    runs = {name: lambda name=name: step(name) for name in sides}
    times = interleaved(
        {**runs, "product": product}, arguments.rounds, arguments.clock,
        arguments.warm_up,
    )  # fmt: skip
    rate = operations / times.pop("product")
    needed = 3 * sum(
        forward_flops(ours.config, count) for count in batch.counts
    )
    mine = times["unispeech_sb"]
    print("| side | s | ratio | of the rate |")
    print("|---|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.3f} | {seconds / mine:.2f} | "
              f"{needed / seconds / rate:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
