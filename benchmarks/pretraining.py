"""What pre-training brings: small models, and one probe on frozen features.

    python benchmarks/pretraining.py --data data --work results/pretraining

First pre-trains what is not in the folder of work yet: UniSpeech-SAT on units
of MFCCs of libri248 and LibriSpeech's train-mini, and UniSpeech on train-mini
and the embedded corpus with their phones, by the recipes and their yamls; a run
that was killed goes on. Each takes 40 minutes of one core at most. Then it
compares them with MFCCs and with random weights. The probe sees all layers, and
is the same for all:

* digits, wake words, speakers: mean and standard deviation over time, then
  linear discriminant analysis (scikit-learn); of speakers, pieces of a second
  are learned;
* phones: one linear layer and CTC, greedy, learned on train-mini and tested on
  other readers (test-other-mini).

The folder of data has digits/manifest.csv, wakewords/manifest.csv,
libri248/sid_segments.csv and LibriSpeech/manifest.csv. NAME=FOLDER adds a row
for any pre-trained folder. Intervals of 95 % are drawn over recordings.
"""

import argparse
import csv
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchaudio
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from speechbrain.utils.edit_distance import wer_details_for_batch
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora.aligned import aligned_sentences
from unispeech_sb.dataio.corpora.table import table
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.ctc import ctc_loss
from unispeech_sb.nnet.pooling import masked_statistics

RATE, PIECE_S, DRAWS = 16000, 1.0, 1000
EPOCHS, BATCH, LR = 40, 8, 0.01  # of the layer that hears phones
MFCC = torchaudio.transforms.MFCC(
    RATE, n_mfcc=20, melkwargs={"n_fft": 400, "hop_length": 160, "n_mels": 40}
)
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
    units = work / "units" / "units"
    if not units.is_dir():
        folders = f"[{data / 'libri248'}, {data / 'LibriSpeech'}]"
        recipe(
            "make_units",
            units.parent,
            f"--data_folder={folders}",
            "--subsets=[train-mini]",
        )
    return recipe(
        "pretrain_unispeech_sat", work / "sat", f"--units_folder={units}"
    )


def write_table(folder, rows):
    """Writes a manifest of recordings and their phones."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "split", "phones"])
        writer.writerows(rows)


def pretrain_unispeech(data, work):
    """Two kinds of phones, as of two languages."""
    folder = work / "phones"
    read = known_phones(data / "LibriSpeech")
    rows = [(r["ID"], r["wav"], r["split"], r["phones"]) for r in read]
    write_table(folder / "real", [row for row in rows if row[2] != "test"])
    spoken = aligned_sentences(work / "spoken", SENTENCES, VOICES, seed=1986)
    rows = [(r["ID"], r["wav"], r["split"], r["phn"]) for r in spoken]
    write_table(folder / "spoken", rows)
    return recipe(
        "pretrain_unispeech",
        work / "unispeech",
        f"--data_folder={folder}",
        "--languages={real: {}, spoken: {}}",
    )


def mfccs(wav):
    """20 MFCCs and their differences, [T, 40]."""
    feats = MFCC(wav)
    feats = torch.cat([feats, torchaudio.functional.compute_deltas(feats)])
    return feats.T


@torch.no_grad()
def states(backbone, wav):
    """The states of all layers side by side, [T, (L + 1) * D]."""
    return torch.cat(list(backbone.iter_states(wav[None])), dim=2)[0]


def read(record):
    """A recording's samples."""
    return read_audio(
        record["wav"], record.get("start"), record.get("stop"), RATE
    )


def pieces(wav):
    """Overlapping pieces of about a second."""
    size = round(PIECE_S * RATE)
    return wav.unfold(0, min(size, len(wav)), size // 2)


def clips(features, path, label, tested):
    """Whether each test recording was put into its class."""
    sets = {"train": ([], []), tested: ([], [])}
    for record in table(path, label_column=None):
        rows, labels = sets[record["split"]]
        wav = read(record)
        cut = label == "spk_id" and record["split"] == "train"
        for piece in pieces(wav) if cut else [wav]:
            rows.append(masked_statistics(features(piece)[None])[0].numpy())
            labels.append(record[label])
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    analysis.fit(*sets["train"])
    rows, labels = sets[tested]
    return analysis.predict(rows) == np.array(labels)


def known_phones(path):
    """The recordings whose phones are all known."""
    records = table(path, label_column=None, split_names=PHONES)
    return [record for record in records if not record["oov"]]


def featured(features, path):
    """Features and phones to learn from, and to test on."""
    sets = {"train": [], "valid": [], "test": []}
    for record in known_phones(path):
        phones = record["phones"].split()
        sets[record["split"]].append((features(read(record)), phones))
    return sets["train"], sets["test"]


def hear(train, known):
    """Trains the layer; returns what maps features to phones."""
    frames = torch.cat([feats for feats, _ in train])
    mean, deviation = frames.mean(0), frames.std(0).clamp_min(1e-5)
    torch.manual_seed(0)
    layer = torch.nn.Linear(frames.shape[1], len(known) + 1)
    optimizer = torch.optim.Adam(layer.parameters(), LR)
    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    rows = [
        ((feats - mean) / deviation, torch.tensor([known[p] for p in phones]))
        for feats, phones in train
    ]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows)).split(BATCH):
            feats, labels = zip(*(rows[i] for i in batch), strict=True)
            loss = ctc_loss(
                layer(pad_sequence(feats, batch_first=True)),
                pad_sequence(labels, batch_first=True, padding_value=-100),
                torch.tensor([len(row) for row in feats]),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return lambda feats: layer((feats - mean) / deviation)


def phones(features, path):
    """Errors and phones of each test recording, [2, N]."""
    train, test = featured(features, path)
    names = sorted({phone for _, row in train for phone in row})
    known = {name: number for number, name in enumerate(names, 1)}
    layer, found = hear(train, known), []
    for feats, _ in test:
        best = torch.unique_consecutive(layer(feats).argmax(1)).tolist()
        found.append([names[number - 1] for number in best if number])
    said = [row for _, row in test]
    details = wer_details_for_batch(range(len(said)), said, found)
    counts = [(row["num_edits"], row["num_ref_tokens"]) for row in details]
    return np.array(counts, float).T


def interval(right, out_of):
    """A share with its interval, in %."""
    draws = np.random.default_rng(0).integers(
        len(right), size=(DRAWS, len(right))
    )
    shares = right[draws].sum(1) / out_of[draws].sum(1)
    low, high = 100 * np.quantile(shares, [0.025, 0.975])
    return f"{100 * right.sum() / out_of.sum():.1f} [{low:.1f}, {high:.1f}]"


def row(features, data):
    """The cells of a row."""
    cells = []
    for path, label, tested in CLIPS.values():
        right = clips(features, data / path, label, tested).astype(float)
        cells.append(interval(right, np.ones_like(right)))
    return [*cells, interval(*phones(features, data / "LibriSpeech"))]


def candidates(folders):
    """Yields name and features of each row."""
    yield "MFCC", mfccs
    loaded = {
        name: Backbone.from_pretrained(folder, freeze=True)
        for name, folder in folders.items()
    }
    config = next(iter(loaded.values())).config
    torch.manual_seed(0)
    for name, backbone in {"random": Backbone(**config), **loaded}.items():
        yield name, partial(states, backbone.eval())


def main():
    """Pre-trains and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("folders", nargs="*", metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    data, work = arguments.data.absolute(), arguments.work.absolute()
    folders = {
        "UniSpeech": pretrain_unispeech(data, work),
        "UniSpeech-SAT": pretrain_sat(data, work),
        **dict(text.split("=", 1) for text in arguments.folders),
    }
    print(f"| features | {' | '.join(CLIPS)} | phone error rate |")
    print("|---|---|---|---|---|")
    for name, features in candidates(folders):
        cells = row(features, data)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
