"""What pre-training brings: small models, and one probe on frozen features.

    python benchmarks/pretraining.py [--work FOLDER] [NAME=FOLDER ...]

First pre-trains what is not in the folder of work yet (results/pretraining):
UniSpeech-SAT on units of MFCCs of libri248 and LibriSpeech's train-mini, and
UniSpeech on train-mini and the embedded corpus with their phones, by the
recipes and their yamls; a run that was killed goes on. Each takes 40 minutes of
one core at most. Then it compares them with MFCCs and with random weights. The
probe sees all layers, and is the same for all:

* digits, wake words, speakers: mean and standard deviation over time, then
  linear discriminant analysis (scikit-learn); of speakers, pieces of a second
  are learned;
* phones: the same analysis of single frames, on the embedded corpus, which
  knows when each is spoken; tested on other voices.

The folder in UNISPEECH_SB_DATA has digits/manifest.csv, wakewords/manifest.csv,
libri248/sid_segments.csv and LibriSpeech/manifest.csv. NAME=FOLDER adds a row
for any pre-trained folder. Intervals of 95 % are drawn over recordings.
"""

import argparse
import csv
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from speakers import DRAWS, RATE, mfccs, pieces, read

from unispeech_sb.dataio.corpora.csv_table import csv_table
from unispeech_sb.dataio.corpora.synthetic import aligned_sentences
from unispeech_sb.dataio.units import NO_PHONE, phone_frames, read_spans
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.lengths import receptive_field
from unispeech_sb.nnet.pooling import masked_statistics

PHONES = {"train-mini": "train", "dev-mini": "valid", "test-other-mini": "test"}
CLIPS = {
    "digits": ("digits", "label", "valid"),
    "wake words": ("wakewords", "label", "valid"),
    "speakers": ("libri248/sid_segments.csv", "spk_id", "test"),
}
SENTENCES, VOICES = (800, 60, 60), (100, 10, 10)  # of the embedded corpus
ROOT = Path(__file__).parents[1]


def recipe(name, output, *options):
    """Runs a recipe with its yaml; the folder that it exports."""
    if not (output / "export").is_dir():
        script, yaml = f"recipes/{name}.py", f"hparams/{name}.yaml"
        arguments = [f"--output_folder={output}", "--noprogressbar", *options]
        subprocess.run(
            [sys.executable, ROOT / script, ROOT / yaml, *arguments], check=True
        )
    return output / "export"


def pretrain_sat(data, work):
    """Units of MFCCs, then their prediction."""
    units, output = work / "units", work / "sat"
    if not (output / "export").is_dir():
        folders = f"[{data / 'libri248'}, {data / 'LibriSpeech'}]"
        options = f"--data_folder={folders}", "--subsets=[train-mini]"
        recipe("make_units", units, *options)
    options = [f"--units_folder={units / 'units'}"]
    return recipe("pretrain_unispeech_sat", output, *options)


def write_table(folder, rows):
    """Writes a manifest of recordings and their phones."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "split", "phones"])
        writer.writerows(rows)


def spoken_sentences(work):
    """The embedded corpus."""
    return aligned_sentences(work / "spoken", SENTENCES, VOICES, seed=1986)


def pretrain_unispeech(data, work):
    """Two kinds of phones, as of two languages."""
    folder = work / "phones"
    read = known_phones(data / "LibriSpeech")
    rows = [(r["ID"], r["wav"], r["split"], r["phones"]) for r in read]
    write_table(folder / "real", [row for row in rows if row[2] != "test"])
    spoken = spoken_sentences(work)
    rows = [(r["ID"], r["wav"], r["split"], r["phn"]) for r in spoken]
    write_table(folder / "spoken", rows)
    return recipe(
        "pretrain_unispeech",
        work / "unispeech",
        f"--data_folder={folder}",
        "--languages={real: {}, spoken: {}}",
    )


class Features(NamedTuple):
    """What a probe hears.

    Arguments
    ---------
    compute : callable
        Waveform [N] -> features of each frame, [T, D].
    rate : float
        Frames in a second.
    window_s : float
        Seconds that a frame sees, from its place on.
    """

    compute: Callable
    rate: float
    window_s: float


@torch.no_grad()
def states(backbone, wav):
    """The states of all layers side by side, [T, (L + 1) * D]."""
    return torch.cat(list(backbone.iter_states(wav[None])), dim=2)[0]


def clips(features, path, label, tested):
    """Whether each test recording was put into its class."""
    sets = {"train": ([], []), tested: ([], [])}
    for record in csv_table(path, label_column=None):
        rows, labels = sets[record["split"]]
        wav = read(record)
        cut = label == "spk_id" and record["split"] == "train"
        for piece in pieces(wav) if cut else [wav]:
            rows.append(
                masked_statistics(features.compute(piece)[None])[0].numpy()
            )
            labels.append(record[label])
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    analysis.fit(*sets["train"])
    rows, labels = sets[tested]
    return analysis.predict(rows) == np.array(labels)


def known_phones(path):
    """The recordings whose phones are all known."""
    records = csv_table(path, label_column=None, split_names=PHONES)
    return [record for record in records if not record["oov"]]


def frames(features, records):
    """Right and all frames within phones, of each test recording, [2, N]."""
    names = sorted({phone for r in records for phone in r["phn"].split()})
    known = {name: number for number, name in enumerate(names)}
    sets = {"train": [], "test": []}
    for record in records:
        if record["split"] not in sets:
            continue
        feats = features.compute(read(record)).numpy()
        said = phone_frames(
            read_spans(record),
            len(feats),
            features.rate,
            features.window_s,
            known,
        )
        spoken = said != NO_PHONE
        sets[record["split"]].append((feats[spoken], said[spoken]))
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    analysis.fit(*map(np.concatenate, zip(*sets["train"], strict=True)))
    counts = [
        ((analysis.predict(feats) == said).sum(), len(said))
        for feats, said in sets["test"]
    ]
    return np.array(counts, float).T


def interval(right, out_of):
    """A share with its interval, in %."""
    draws = np.random.default_rng(0).integers(
        len(right), size=(DRAWS, len(right))
    )
    shares = right[draws].sum(1) / out_of[draws].sum(1)
    low, high = 100 * np.quantile(shares, [0.025, 0.975])
    return f"{100 * right.sum() / out_of.sum():.1f} [{low:.1f}, {high:.1f}]"


def row(features, data, spoken):
    """The cells of a row."""
    cells = []
    for path, label, tested in CLIPS.values():
        right = clips(features, data / path, label, tested).astype(float)
        cells.append(interval(right, np.ones_like(right)))
    return [*cells, interval(*frames(features, spoken))]


def candidates(folders):
    """Yields name and features of each row."""
    # Each frame of torchaudio's is around its time, not behind it
    yield "MFCC", Features(mfccs, 100, 0.0)
    loaded = {
        name: Backbone.from_pretrained(folder, freeze=True)
        for name, folder in folders.items()
    }
    config = next(iter(loaded.values())).config
    torch.manual_seed(0)
    for name, backbone in {"random": Backbone(**config), **loaded}.items():
        sizes = config["conv_kernel"], config["conv_stride"]
        yield (
            name,
            Features(
                partial(states, backbone.eval()),
                RATE / math.prod(config["conv_stride"]),
                receptive_field(*sizes) / RATE,
            ),
        )


def main():
    """Pre-trains and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "results" / "pretraining"
    )
    parser.add_argument("folders", nargs="*", metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    default = ROOT.parent / "shared" / "data"
    data = Path(os.environ.get("UNISPEECH_SB_DATA", default)).resolve()
    work = arguments.work.absolute()
    folders = {
        "UniSpeech": pretrain_unispeech(data, work),
        "UniSpeech-SAT": pretrain_sat(data, work),
        **dict(text.split("=", 1) for text in arguments.folders),
    }
    spoken = spoken_sentences(work)
    kinds = [*CLIPS, "phones"]
    print(f"| features | {' | '.join(kinds)} |\n|{'---|' * (len(kinds) + 1)}")
    for name, features in candidates(folders):
        cells = row(features, data, spoken)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
