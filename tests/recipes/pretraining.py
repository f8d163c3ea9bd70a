"""Small corpora of pre-training, and command lines of small runs on them."""

import numpy as np
import soundfile

from tests.recipes.speech import write_speech
from unispeech_sb.dataio.corpora.csv_table import csv_table
from unispeech_sb.dataio.manifest import check_records
from unispeech_sb.dataio.units import write_units

NUM_UNITS = 8
SMALL = [
    "--model=tiny",
    "--codevectors=[2,6,8]",
    "--final_dim=8",
    "--min_duration_s=0.2",
    "--max_batch_s=3.0",
    "--num_buckets=2",
    "--num_workers=0",
    "--grad_accumulation_factor=1",
    "--precision=fp32",
    "--warmup_updates=5",
    "--total_updates=1000",
    "--number_of_epochs=1",
    "--noprogressbar",
    "--device=cpu",
]


def phones_arguments(root, corpus, output, *options):
    """The command line of a small run of hparams/pretrain_unispeech.yaml."""
    return [
        str(root / "hparams/pretrain_unispeech.yaml"),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *SMALL,
        *options,
    ]


def units_arguments(root, units, output, *options):
    """The same of hparams/pretrain_unispeech_sat.yaml."""
    return [
        str(root / "hparams/pretrain_unispeech_sat.yaml"),
        f"--units_folder={units}",
        f"--output_folder={output}",
        *SMALL,
        "--contrastive_layer=1",
        *options,
    ]


def write_loudness_units(folder):
    """Speaks sentences, whose units at 100 Hz say how loud they are."""
    write_speech(folder)
    records = check_records(csv_table(folder, label_column=None))
    about = {"label_rate": 100, "num_units": NUM_UNITS}
    units = [_loudness(record["wav"]) for record in records]
    write_units(folder / "units", records, units, about)
    return folder / "units"


def _loudness(path):
    """A number for each 10 ms."""
    wav, rate = soundfile.read(path)
    hop = rate // 100
    frames = wav[: len(wav) // hop * hop].reshape(-1, hop)
    levels = np.log10(np.square(frames).mean(1) + 1e-6)
    return ((levels + 6) * NUM_UNITS / 6).clip(0, NUM_UNITS - 1).astype(int)


def losses(output, name="loss", stage="train"):
    """A number of each epoch, out of the log."""
    found = []
    for line in (output / "train_log.txt").read_text().splitlines():
        if line.startswith("epoch: "):
            part = line.split(f"{stage} {name}: ")[1]
            found.append(float(part.replace(" ", ",").split(",")[0]))
    return found
