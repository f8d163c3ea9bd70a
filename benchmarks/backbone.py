"""Time of the backbone beside transformers, in one run.

    python benchmarks/backbone.py [--model unispeech_sat_base] [--rounds 5]

Both run the same random weights on the same padded batch, in turn, so that a
drift of the machine's speed hits both. Printed: medians and their ratio; above
1 means that this package is faster.
"""

import argparse
import statistics
import time

import torch
import transformers

from unispeech_sb.lobes.backbone import PRESETS, Backbone
from unispeech_sb.nnet.pooling import LayerMix

DROPOUTS = (
    "hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop",
)  # fmt: skip


def models(name):
    """The same weights in both packages."""
    options = {**PRESETS[name], **dict.fromkeys(DROPOUTS, 0.0)}
    options["normalize_wav"] = False
    ours = Backbone(**options)
    del options["normalize_wav"]
    config = transformers.UniSpeechSatConfig(
        **options, apply_spec_augment=False
    )
    theirs = transformers.UniSpeechSatModel(config)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def seconds(functions, rounds):
    """Median time of each function, called in turn."""
    times = [[] for _ in functions]
    for round_number in range(rounds + 1):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_number:  # the first one warms up
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def backward(loss):
    """One backward pass."""
    loss.sum().backward()


def padded_batch(batch, samples):
    """Waveforms of falling length, relative lengths, transformers' mask."""
    wav_lens = torch.linspace(1.0, 0.6, batch)
    counts = torch.round(wav_lens * samples)[:, None]
    mask = (torch.arange(samples) < counts).long()
    return torch.randn(batch, samples) * mask, wav_lens, mask


def cases(ours, theirs, wavs, wav_lens, mask):
    """What is timed: name -> (this package, transformers)."""
    mix = LayerMix(ours.num_states)

    @torch.no_grad()
    def mixed_theirs():
        out = theirs(wavs, attention_mask=mask, output_hidden_states=True)
        weights = mix.weights.softmax(0).view(-1, 1, 1)
        (torch.stack(out.hidden_states, dim=1) * weights).sum(1)

    def forward(model, *inputs, **options):
        with torch.no_grad():
            model(*inputs, **options)

    return {
        "forward, no padding": (
            lambda: forward(ours, wavs),
            lambda: forward(theirs, wavs),
        ),
        "forward, padded batch": (
            lambda: forward(ours, wavs, wav_lens),
            lambda: forward(theirs, wavs, attention_mask=mask),
        ),
        "weighted sum of all layers": (
            torch.no_grad()(lambda: mix(ours.iter_states(wavs, wav_lens))),
            mixed_theirs,
        ),
        "training step, padded batch": (
            lambda: backward(ours(wavs, wav_lens)),
            lambda: backward(
                theirs(wavs, attention_mask=mask).last_hidden_state
            ),
        ),
    }


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    ours, theirs = (model.eval() for model in models(arguments.model))
    batch = padded_batch(arguments.batch, int(16000 * arguments.seconds))
    print(
        f"{arguments.model}, {arguments.batch} x {arguments.seconds:g} s, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    print("| case | unispeech_sb (s) | transformers (s) | ratio |")
    print("|---|---|---|---|")
    for name, functions in cases(ours, theirs, *batch).items():
        mine, other = seconds(functions, arguments.rounds)
        print(f"| {name} | {mine:.3f} | {other:.3f} | {other / mine:.2f} |")


if __name__ == "__main__":
    main()
