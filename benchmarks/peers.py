"""What the timings of the backbone share: the same weights on both sides, one
interleaved run, the machine's own rate."""

import datetime
import math
import os
import statistics
import time

for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    # Sides that run in turn share it, and none is to compile for the others
    os.environ.setdefault(_cache, "4096")

import speechbrain  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from unispeech_sb.lobes.backbone import PRESETS, Backbone  # noqa: E402

RATE = 16000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MIXED_S = (2.1, 4.5, 6.8, 8.2, 10.4, 12.3, 14.7, 15.6)
"""Seconds of the utterances of one batch of mixed lengths."""
_OURS_ONLY = ("normalize_wav",)
_DROPOUTS = (
    "hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop",
)  # fmt: skip


def models(name):
    """The same random weights here and in transformers, without dropout."""
    torch.manual_seed(0)
    options = {**PRESETS[name], **dict.fromkeys(_DROPOUTS, 0.0)}
    ours = Backbone(**{**options, "normalize_wav": False})
    options = {k: v for k, v in options.items() if k not in _OURS_ONLY}
    theirs = transformers.UniSpeechSatModel(
        transformers.UniSpeechSatConfig(
            **options, apply_spec_augment=False, attn_implementation="sdpa"
        )
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


class Batch:
    """Random waveforms of some lengths, zeros behind them: ``wavs``, [B, N],
    relative lengths, transformers' mask, and how many frames are valid."""

    def __init__(self, seconds):
        counts = torch.tensor([round(each * RATE) for each in seconds])
        longest = int(counts.max())
        generator = torch.Generator().manual_seed(1)
        self.mask = (torch.arange(longest) < counts[:, None]).long()
        drawn = torch.randn(len(counts), longest, generator=generator)
        self.wavs = 0.1 * drawn * self.mask
        self.counts, self.wav_lens = counts.tolist(), counts / longest

    def alone(self):
        """Each waveform without its padding, [1, N]."""
        for wav, count in zip(self.wavs, self.counts):
            yield wav[None, :count]


def matrix_product():
    """A function, and its operations: what the machine can do at most."""
    left, right = torch.randn(2, 2048, 2048)
    return lambda: left @ right, 2 * 2048**3


def interleaved(functions, rounds, clock="wall", warm_up=1):
    """Name -> median seconds of functions that are called in turn, the first
    ``warm_up`` rounds left out."""
    now, times = CLOCKS[clock], {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            start = now()
            function()
            if number >= warm_up:
                times[name].append(now() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def difference(found, expected):
    """Largest difference of two lists of tensors, to their root mean square."""
    squares = sum(each.square().sum().item() for each in expected)
    rms = math.sqrt(squares / sum(each.numel() for each in expected))
    pairs = zip(found, expected, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs) / rms


def print_setting(name):
    """What the figures depend on."""
    load = os.getloadavg()[0]
    print(
        f"{name}, random weights, float32, {datetime.date.today()}, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, load "
        f"{load:.1f}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, SpeechBrain {speechbrain.__version__}\n"
    )
