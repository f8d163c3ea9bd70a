"""Diarization of mixtures and of meetings, beside plain baselines.

    python benchmarks/diarization.py [--run NAME=FOLDER ...]

Scores the 16 two-reader mixtures of diarization/mix2/dev and the ten AMI
excerpts of diarization/real within their UEM, from the folder in
UNISPEECH_SB_DATA, with dscore's setting: no collar, overlap scored. DER with
its parts and JER are of all recordings of a set together; "speakers off" is
the mean over recordings of how many speakers too many or too few there are.

Baselines: everything is one speaker; and energy VAD with clustering of MFCC
statistics (mean and standard deviation over windows of 1.5 s, Ward's linkage),
with the number of speakers of the reference and with the number that a
threshold gives. Its levels and its threshold are chosen on mix2/train, where
all have two speakers, and say nothing of meetings.

FOLDER is what the recipe exported or convert wrote for SpeakerDiarization.
"""

import argparse
import csv
import os
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchaudio
from sklearn.cluster import AgglomerativeClustering

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.rttm import normalized, read_rttm, read_uem
from unispeech_sb.dataio.vad import sound_stretches
from unispeech_sb.metrics.diarization import (
    diarization_error,
    jaccard_error,
    speaker_count_error,
    sum_errors,
)

ROOT = Path(__file__).parent.parent
RATE, WINDOW_S, HOP_S = 16000, 1.5, 0.75
LEVELS_DB = (-50, -45, -40, -35, -30, -25, -20)
MFCC = torchaudio.transforms.MFCC(
    RATE, n_mfcc=20, melkwargs={"n_fft": 400, "hop_length": 160, "n_mels": 40}
)


class Recording(NamedTuple):
    """A recording to score: where it is, its length, truth, and stretches."""

    path: Path
    duration: float
    reference: list
    uem: list


def read_set(data, folder):
    """Recordings of a folder with a manifest, RTTM and UEM."""
    recordings = []
    with open(data / folder / "manifest.csv", newline="") as file:
        for row in csv.DictReader(file):
            rttm = data / row["rttm"] if "rttm" in row else None
            truth = read_rttm(rttm or data / folder / "rttm")[row["id"]]
            whole = [(0.0, float(row["duration"]))]
            if rttm:
                whole = read_uem(rttm.with_suffix(".uem"))[row["id"]]
            path, duration = data / row["path"], float(row["duration"])
            recordings.append(Recording(path, duration, truth, whole))
    return recordings


@cache
def read(path):
    """A recording's samples."""
    return read_audio(path, sample_rate=RATE)


def one_speaker(recording):
    """Everything is one speaker."""
    return [(0.0, recording.duration, "one")]


def speech(path, level_db):
    """Stretches above a level, in seconds, against that of the recording."""
    wav = read(path)
    threshold = 10 ** (level_db / 20) * float(wav.abs().max())
    return [
        (start / RATE, stop / RATE)
        for start, stop in sound_stretches(wav, RATE, threshold)
    ]


def pieces(stretch):
    """Windows over a stretch, each with the piece of it that it decides."""
    start, end = stretch
    count = max(1, round((end - start - WINDOW_S) / HOP_S) + 1)
    cuts = np.linspace(start, end, count + 1)
    middles = (cuts[:-1] + cuts[1:]) / 2
    for middle, left, right in zip(middles, cuts[:-1], cuts[1:]):
        half = min(WINDOW_S, end - start) / 2
        middle = min(max(middle, start + half), end - half)
        yield (middle - half, middle + half), (left, right)


@cache
def statistics(path, level_db):
    """MFCC statistics of windows, [W, 40], and what each of them decides."""
    feats = MFCC(read(path))  # [20, T], 100 frames a second
    rows, decided = [], []
    for stretch in speech(path, level_db):
        for (start, end), piece in pieces(stretch):
            part = feats[:, round(100 * start) : round(100 * end) + 1]
            rows.append(torch.cat([part.mean(1), part.std(1)]).numpy())
            decided.append(piece)
    return np.stack(rows) if rows else np.zeros((0, 40)), decided


def clustered(recording, level_db, scale, num_speakers=None, threshold=None):
    """Energy VAD, and Ward clustering of MFCC statistics."""
    rows, decided = statistics(recording.path, level_db)
    if len(rows) < 2:
        return [(start, end, "0") for start, end in decided]
    if num_speakers is not None:
        num_speakers = min(num_speakers, len(rows))
    clustering = AgglomerativeClustering(
        num_speakers, distance_threshold=threshold, linkage="ward"
    )
    labels = clustering.fit_predict(rows / scale)
    return normalized(
        (start, end, str(label)) for (start, end), label in zip(decided, labels)
    )


def given(recording, **settings):
    """The same, with the reference's number of speakers."""
    names = {speaker for _, _, speaker in recording.reference}
    return clustered(recording, num_speakers=len(names), **settings)


def score(system, recordings):
    """Errors, Jaccard errors and the mean error of the speaker count."""
    times, shares, counts = [], [], []
    for recording in recordings:
        sides = recording.reference, system(recording), recording.uem
        times.append(diarization_error(*sides))
        shares.append(jaccard_error(*sides))
        counts.append(abs(speaker_count_error(*sides)))
    return sum_errors(times), sum_errors(shares), np.mean(counts)


def tuned(recordings):
    """Both clusterings, with the settings that are best on recordings."""
    settings = []
    for level_db in LEVELS_DB:
        rows = [statistics(r.path, level_db)[0] for r in recordings]
        settings.append(
            {"level_db": level_db, "scale": np.concatenate(rows).std(0)}
        )
    best = min(
        settings, key=lambda s: score(partial(given, **s), recordings)[0].rate
    )
    threshold = min(
        range(2, 60),
        key=lambda t: (
            score(partial(clustered, threshold=t, **best), recordings)[0].rate
        ),
    )
    print(
        f"chosen on mix2/train: {best['level_db']} dB, threshold {threshold}\n"
    )
    return {
        "energy VAD, MFCC clustering, number given": partial(given, **best),
        "energy VAD, MFCC clustering, number found": partial(
            clustered, threshold=threshold, **best
        ),
    }


def model(folder):
    """What a pretrained folder makes of a recording."""
    from unispeech_sb.inference.diarization import SpeakerDiarization

    loaded = SpeakerDiarization.from_hparams(folder)
    return lambda recording: loaded.diarize_file(recording.path).annotation


def print_table(name, systems, recordings):
    """Scores of all systems on one set."""
    minutes = sum(recording.duration for recording in recordings) / 60
    print(f"{name}: {len(recordings)} recordings, {minutes:.1f} min\n")
    print(
        "| system | DER (%) | miss | false alarm | confusion | JER (%) | "
        "speakers off |\n|---|---|---|---|---|---|---|"
    )
    for title, system in systems.items():
        times, shares, off = score(system, recordings)
        parts = [100 * part / times.total_s for part in times[:3]]
        cells = [times.rate * 100, *parts, shares.rate * 100]
        row = " | ".join(f"{cell:.1f}" for cell in cells)
        print(f"| {title} | {row} | {off:.2f} |", flush=True)
    print()


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a pretrained folder, and what to call it",
    )
    arguments = parser.parse_args()
    models = {}
    for run in arguments.run:
        title, _, source = run.partition("=")
        if not Path(source, "hyperparams.yaml").is_file():
            parser.error(f"--run: expected NAME=FOLDER, got {run!r}")
        models[title] = model(source)
    torch.set_num_threads(1)
    default = ROOT.parent / "shared" / "data"
    data = Path(os.environ.get("UNISPEECH_SB_DATA", default)).resolve()
    folder = Path("diarization")
    systems = {
        "everything is one speaker": one_speaker,
        **tuned(read_set(data, folder / "mix2" / "train")),
        **models,
    }
    for name in ("mix2/dev", "real"):
        recordings = read_set(data, folder / name)
        print_table(f"diarization/{name}", systems, recordings)


if __name__ == "__main__":
    main()
