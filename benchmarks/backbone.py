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


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    ours, theirs = models(arguments.model)
    samples = int(16000 * arguments.seconds)
    wavs = torch.randn(arguments.batch, samples)
    wav_lens = torch.linspace(1.0, 0.6, arguments.batch)
    full = torch.ones(arguments.batch)
    counts = torch.round(wav_lens * samples)[:, None]
    mask = (torch.arange(samples) < counts).long()
    wavs = wavs * mask
    mix = LayerMix(ours.num_states)

    def mixed_ours():
        with torch.no_grad():
            mix(ours.iter_states(wavs, wav_lens))

    def mixed_theirs():
        with torch.no_grad():
            out = theirs(
                wavs, attention_mask=mask, output_hidden_states=True
            ).hidden_states
            weights = mix.weights.softmax(0).view(-1, 1, 1)
            (torch.stack(out, dim=1) * weights).sum(1)

    def forward(function):
        with torch.no_grad():
            function()

    cases = {
        "forward, no padding": (
            lambda: forward(lambda: ours(wavs, full)),
            lambda: forward(lambda: theirs(wavs)),
        ),
        "forward, padded batch": (
            lambda: forward(lambda: ours(wavs, wav_lens)),
            lambda: forward(lambda: theirs(wavs, attention_mask=mask)),
        ),
        "weighted sum of all layers": (mixed_ours, mixed_theirs),
        "training step, padded batch": (
            lambda: backward(ours(wavs, wav_lens)),
            lambda: backward(
                theirs(wavs, attention_mask=mask).last_hidden_state
            ),
        ),
    }
    for model in (ours, theirs):
        model.eval()
    print(
        f"{arguments.model}, {arguments.batch} x {arguments.seconds:g} s, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    print("| case | unispeech_sb (s) | transformers (s) | ratio |")
    print("|---|---|---|---|")
    for name, functions in cases.items():
        mine, other = seconds(functions, arguments.rounds)
        print(f"| {name} | {mine:.3f} | {other:.3f} | {other / mine:.2f} |")


if __name__ == "__main__":
    main()
