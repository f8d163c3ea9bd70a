"""Speaker recipes beside a plain baseline on the same recordings.

    python benchmarks/speakers.py --identification RUN --verification RUN

RUN is the output folder of a finished run of recipes/speaker_identification.py
or recipes/speaker_verification.py. The baseline is trained on the run's
training manifest and scored on its test manifest or trials: mean and standard
deviation over time of 20 MFCCs and their differences, of pieces of a second,
and linear discriminant analysis (scikit-learn). Verification compares by the
cosine in its space. Intervals of 95 % are drawn over speakers.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchaudio
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.trials import read_trials
from unispeech_sb.metrics.verification import (
    bootstrap,
    cosine_scores,
    eer,
    min_dcf,
)

RATE, PIECE_S, DRAWS = 16000, 1.0, 1000
MFCC = torchaudio.transforms.MFCC(
    RATE, n_mfcc=20, melkwargs={"n_fft": 400, "hop_length": 160, "n_mels": 40}
)


def mfccs(wav):
    """20 MFCCs and their differences, [T, 40]."""
    feats = MFCC(wav)
    feats = torch.cat([feats, torchaudio.functional.compute_deltas(feats)])
    return feats.T


def statistics(wav):
    """Mean and standard deviation of MFCCs and their differences, [80]."""
    feats = mfccs(wav)
    return torch.cat([feats.mean(0), feats.std(0)]).numpy()


def read(record):
    """A recording's samples."""
    return read_audio(
        record["wav"], record.get("start"), record.get("stop"), RATE
    )


def pieces(wav):
    """Overlapping pieces of about a second."""
    size = round(PIECE_S * RATE)
    return wav.unfold(0, min(size, len(wav)), size // 2)


def fit(run):
    """Discriminant analysis of the training speakers."""
    rows, speakers = [], []
    for record in read_manifest(run / "manifests" / "train.csv"):
        found = [statistics(piece) for piece in pieces(read(record))]
        rows += found
        speakers += [record["spk_id"]] * len(found)
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return analysis.fit(np.stack(rows), speakers)


def accuracy_row(right):
    """Share of right decisions, one per test recording, with its interval."""
    right = np.asarray(right, float)
    draws = np.random.default_rng(0).integers(
        len(right), size=(DRAWS, len(right))
    )
    low, high = np.quantile(right[draws].mean(1), [0.025, 0.975])
    return f"{right.mean():.3f} | [{low:.3f}, {high:.3f}]"


def identification(run):
    """Prints the accuracies on a run's test recordings."""
    analysis = fit(run)
    tests = read_manifest(run / "manifests" / "test.csv")
    found = analysis.predict(np.stack([statistics(read(r)) for r in tests]))
    right = [f == r["spk_id"] for f, r in zip(found, tests, strict=True)]
    scores = json.loads((run / "scores.json").read_text())
    ours = round(scores["accuracy"] * len(tests))
    ours = [True] * ours + [False] * (len(tests) - ours)
    print(f"\n{len(tests)} recordings of {len(analysis.classes_)} speakers\n")
    print("| identification | accuracy | 95 % |\n|---|---|---|")
    print(f"| chance | {1 / len(analysis.classes_):.3f} | |")
    print(f"| MFCC statistics, LDA | {accuracy_row(right)} |")
    print(f"| recipe, {run.name} | {accuracy_row(ours)} |")


def verification(run):
    """Prints the error rates on a run's trials."""
    analysis = fit(run)
    tests = read_manifest(run / "manifests" / "test.csv")
    trials = read_trials(run / "trials.csv")
    by_name = {record["ID"]: record for record in tests}
    rows = [statistics(read(by_name[name])) for name in trials.names]
    voices = torch.from_numpy(analysis.transform(np.stack(rows))).float()
    scores = cosine_scores(voices, trials.left, trials.right).numpy()
    speakers = np.array([by_name[name]["spk_id"] for name in trials.names])
    sides = speakers[trials.left], speakers[trials.right]
    print(f"\n{len(scores)} trials of {len(set(speakers))} speakers\n")
    print("| verification | EER (%) | 95 % | minDCF | 95 % |")
    print("|---|---|---|---|---|\n| chance | 50.0 | | 1.000 | |")
    cells = []
    for factor, digits, metric in (
        (100, 1, eer),
        (1, 3, partial(min_dcf, p_target=0.01)),
    ):
        found = bootstrap(metric, scores, trials.targets, sides, DRAWS)
        value, low, high = (
            f"{factor * number:.{digits}f}" for number in found[:3]
        )
        cells.append(f"{value} | [{low}, {high}]")
    print(f"| MFCC statistics, LDA | {' | '.join(cells)} |")
    ours = json.loads((run / "scores.json").read_text())
    cells = [
        f"{ours[name]:.{digits}f} | "
        f"[{ours[f'{name} low']:.{digits}f}, {ours[f'{name} high']:.{digits}f}]"
        for name, digits in (("EER", 1), ("minDCF", 3))
    ]
    print(f"| recipe, {run.name} | {' | '.join(cells)} |")


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--identification", type=Path, metavar="RUN")
    parser.add_argument("--verification", type=Path, metavar="RUN")
    arguments = parser.parse_args()
    if arguments.identification:
        identification(arguments.identification)
    if arguments.verification:
        verification(arguments.verification)


if __name__ == "__main__":
    main()
