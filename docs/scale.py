"""Prints the tables of docs/scale.md: what pre-training costs on many GPUs.

    python docs/scale.py [--write]

Nothing here was measured on a GPU. Operations are those of
``brains.throughput``, settings those of the yamls; all else is in ``GPUS``,
``ASSUMED`` and ``MEASURED`` below. ``--write`` puts the tables in the page.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from unispeech_sb.brains.throughput import forward_flops
from unispeech_sb.lobes.backbone import Backbone

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_name("scale.md")
COUNTS = 1, 8, 32, 128
HOURS = 960, 60_000, 94_000
RATE = 16000


class Gpu(NamedTuple):
    """Peak of dense bfloat16 (operations a second), bytes a second to another
    GPU of the machine and of another machine in one direction, and dollars an
    hour."""

    peak: float
    inside: float
    between: float
    price: float


GPUS = {
    # NVIDIA's data sheets: tensor cores without sparsity; half of NVLink's
    # 600 and 900 GB/s, which count both directions; an InfiniBand port of
    # 200 or 400 Gbit/s for each GPU, as in DGX systems
    "A100": Gpu(312e12, 300e9, 25e9, 2.0),
    "H100": Gpu(989e12, 450e9, 50e9, 3.0),
}
ETHERNET = 100e9 / 8 / 8
"""Bytes a second of a GPU where eight share a port of 100 Gbit/s."""

ASSUMED = {
    "mfu": 0.2,  # share of the peak that is used; unknown until measured.
    # wav2vec 2.0 (Baevski et al. 2020, section 4.2) took 1.6 days of 64 V100
    # for Base and 5.2 days of 128 for Large, which ``published`` makes 0.1
    "gpus": 8,  # of a machine
    "hop_s": 1e-5,  # latency of a step around the ring
    "failure_h": 50_000,  # hours of a GPU between interruptions; Llama 3's
    # pre-training had 419 that were unexpected in 54 days on 16,384 GPUs
    # (Dubey et al. 2024, section 3.3.4): one in 50,700 hours of a GPU
    "write": 1e9,  # bytes a second to the disk of checkpoints
    "flac": 0.55,  # bytes of FLAC to those of WAV
}
PUBLISHED = {"Base": (400_000, 1.6, 64, 1.6), "Large": (600_000, 2.7, 128, 5.2)}
"""wav2vec 2.0's updates, hours of audio in each, V100s and days."""
V100 = 125e12
"""Its peak in float16, by the data sheet."""
MEASURED = {
    "read": 3300,  # seconds of audio in a second of one core, from FLAC files
    # at 16 kHz (benchmarks/README.md, reading ahead)
}
MODELS = {
    "Base": ("unispeech_sat_base", "pretrain_unispeech_sat_base"),
    "Large": ("unispeech_sat_large", "pretrain_unispeech_sat_large"),
}
"""Name -> preset, and the yaml of its pre-training."""


class Plan(NamedTuple):
    """A model and its training."""

    parameters: int
    flops: float  # of a second of audio, forward and backward
    batches: int  # of an update
    batch_s: float
    updates: int

    @property
    def update_s(self):
        """Seconds of audio of an update."""
        return self.batches * self.batch_s


def read_plan(preset, name):
    """Sizes of a preset, settings of a yaml."""
    with torch.device("meta"):
        backbone = Backbone.from_preset(preset)
    text = (ROOT / "hparams" / f"{name}.yaml").read_text(encoding="utf-8")
    given = {key.value: value.value for key, value in yaml.compose(text).value}
    crop_s = float(given["crop_s"])
    flops = 3 * forward_flops(backbone.config, round(crop_s * RATE)) / crop_s
    return Plan(
        sum(p.numel() for p in backbone.parameters()),
        flops,
        int(given["grad_accumulation_factor"]),
        float(given["max_batch_s"]),
        int(given["total_updates"]),
    )


def reduce_s(plan, gpus, gpu, between):
    """Seconds of a ring all-reduce of gradients of 4 bytes: each GPU sends
    2 (G - 1) / G of them through its slowest link."""
    if gpus == 1:
        return 0.0
    link = gpu.inside if gpus <= ASSUMED["gpus"] else between
    share = 2 * (gpus - 1) / gpus
    sent = share * 4 * plan.parameters / link
    return sent + 2 * (gpus - 1) * ASSUMED["hop_s"]


def compute_s(plan, gpus, gpu):
    """Seconds that an update computes, at the assumed share of the peak."""
    return plan.flops * plan.update_s / (gpus * gpu.peak * ASSUMED["mfu"])


def published(plan, updates, hours, gpus, days):
    """Share of their peak that the GPUs of a published run used."""
    needed = plan.flops * 3600 * hours * updates
    return needed / (86400 * days * gpus * V100)


def efficiency(plan, gpus, compute, wait):
    """Computing to computing and waiting: with all of the gathering, and with
    what is left of it behind the backward pass of a GPU's last batch, two
    thirds of its time."""
    last = compute * min(1.0, gpus / plan.batches)
    left = max(0.0, wait - 2 / 3 * last)
    worst, best = (compute / (compute + w) for w in (wait, left))
    return f"{worst:.2f} to {best:.2f}" if wait else "1"


def audio_rate(plan, gpu):
    """Seconds of audio that a GPU takes in a second."""
    return gpu.peak * ASSUMED["mfu"] / plan.flops


def table(head, rows):
    """A table of the page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def short(value):
    """Three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds):
    """Seconds as hours or days."""
    hours = seconds / 3600
    return f"{short(hours)} h" if hours < 48 else f"{short(hours / 24)} d"


def sizes(plans):
    """What a model and its training are."""
    rows = [
        [
            name, f"{plan.parameters / 1e6:.1f} M",
            f"{plan.flops / 1e9:.1f} GFLOP", f"{plan.batches} x "
            f"{plan.batch_s:g} s", f"{plan.updates:,}",
            f"{plan.flops * plan.update_s * plan.updates:.2g}",
            f"{plan.update_s * plan.updates / 3600:,.0f} h",
            *(
                short(plan.update_s * plan.updates / 3600 / hours)
                for hours in HOURS
            ),
            f"{published(plan, *PUBLISHED[name]):.3f}",
        ]
        for name, plan in plans.items()
    ]  # fmt: skip
    return table(
        ["", "parameters", "a second of audio", "an update", "updates",
         "FLOP in all", "audio in all",
         *(f"passes over {hours:,} h" for hours in HOURS),
         "wav2vec 2.0 used"],
        rows,
    )  # fmt: skip


def times(plans, kind):
    """Time and price of a training, and where an update waits."""
    gpu, rows = GPUS[kind], []
    for name, plan in plans.items():
        for gpus in COUNTS:
            compute = compute_s(plan, gpus, gpu)
            networks = (gpu.between, ETHERNET)
            waits = [reduce_s(plan, gpus, gpu, n) for n in networks]
            total = (compute + waits[0]) * plan.updates
            rows.append(
                [
                    name, gpus, short(plan.batches / gpus),
                    f"{short(compute)} s", f"{short(1000 * waits[0])} ms",
                    *(efficiency(plan, gpus, compute, w) for w in waits),
                    duration(total),
                    f"{gpus * total / 3600 * gpu.price:,.0f} $",
                    *(
                        duration(
                            hours * 3600 / plan.update_s
                            * (compute + waits[0])
                        )
                        for hours in HOURS
                    ),
                ]
            )  # fmt: skip
    return table(
        ["", "GPUs", "batches of a GPU", "computes", "gathers", "efficiency",
         "with 100 Gbit/s", "all updates", "price",
         *(f"a pass of {hours:,} h" for hours in HOURS)],
        rows,
    )  # fmt: skip


def reading(plans):
    """What the GPUs read."""
    rows = []
    for name, plan in plans.items():
        for kind, gpu in GPUS.items():
            rate = audio_rate(plan, gpu)
            flac = rate * RATE * 2 * ASSUMED["flac"] / 1e6
            rows.append(
                [
                    name, kind, short(rate), short(flac),
                    short(rate / MEASURED["read"]),
                    *(short(gpus * flac / 1000) for gpus in COUNTS[1:]),
                ]
            )  # fmt: skip
    return table(
        ["", "GPU", "s of audio in a s", "MB/s of FLAC", "cores that decode",
         *(f"GB/s of {gpus} GPUs" for gpus in COUNTS[1:])],
        rows,
    )  # fmt: skip


def storing():
    """What corpora take."""
    rows = [
        [f"{h:,} h", *(short(h * 3600 * RATE * 2 * x / 1e12)
                       for x in (1, ASSUMED["flac"]))]
        for h in HOURS
    ]  # fmt: skip
    return table(["", "TB of WAV", "TB of FLAC"], rows)


def keeping(plans):
    """Memory of the weights, and checkpoints."""
    rows = []
    for name, plan in plans.items():
        saved = 12 * plan.parameters
        write_s = saved / ASSUMED["write"]
        for gpus in COUNTS:
            gap_s = 3600 * ASSUMED["failure_h"] / gpus
            every_s = (2 * write_s * gap_s) ** 0.5
            rows.append(
                [
                    name, gpus, short(16 * plan.parameters / 1e9),
                    short(16 * plan.parameters / gpus / 1e9),
                    short(saved / 1e9), duration(gap_s),
                    f"{short(every_s / 60)} min",
                ]
            )  # fmt: skip
    return table(
        ["", "GPUs", "GB of state, ddp", "fsdp", "GB of a checkpoint",
         "between failures", "best interval"],
        rows,
    )  # fmt: skip


def tables():
    """Name -> text, of all tables of the page."""
    plans = {name: read_plan(*where) for name, where in MODELS.items()}
    return {
        "sizes": sizes(plans),
        **{kind: times(plans, kind) for kind in GPUS},
        "reading": reading(plans),
        "storing": storing(),
        "keeping": keeping(plans),
    }


def main():
    """Prints the tables, or writes them."""
    made = tables()
    if sys.argv[1:] != ["--write"]:
        for name, text in made.items():
            print(f"{name}\n\n{text}\n")
        return
    page = PAGE.read_text(encoding="utf-8")
    for name, text in made.items():
        mark = f"<!-- {name} -->\n"
        pattern = re.escape(mark) + r"(\|.*\n)*"
        assert mark in page, name
        page = re.sub(pattern, mark + text.replace("\\", "") + "\n", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
