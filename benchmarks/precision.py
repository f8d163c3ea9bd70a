"""What lower precisions cost: the task's own score in each, by trained models.

    python benchmarks/precision.py RUN [RUN ...]

RUN is the folder of a recipe's run (recognition, classification, verification
or diarization), with its export and its manifests; the model goes through the
recordings of ``--split``, the test set where the run has one. The share is of
results that float32 gives too, letter by letter.
"""

import argparse
import time
from pathlib import Path

import torch

import unispeech_sb as us
from unispeech_sb.checkpoints.interfaces import PRECISIONS, folder_kind
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.dataio.trials import pair_trials
from unispeech_sb.decoding.tuning import word_error_rate
from unispeech_sb.inference.speaker_verification import cosine
from unispeech_sb.metrics.diarization import diarization_error, sum_errors
from unispeech_sb.metrics.verification import eer


def words(found, rows):
    """Word error rate, and the texts."""
    texts = [each.text for each in found]
    return word_error_rate(texts, [row["wrd"] for row in rows]), texts


def classes(found, rows):
    """Error rate, and the classes."""
    labels = [each.label for each in found]
    wrong = sum(a != row["label"] for a, row in zip(labels, rows))
    return 100 * wrong / len(rows), labels


def speakers(found, rows):
    """Equal error rate of all pairs, and which are above its threshold."""
    trials = pair_trials(range(len(rows)), [row["spk_id"] for row in rows])
    pairs = zip(trials.left, trials.right)
    scores = torch.tensor([cosine(found[a], found[b]) for a, b in pairs])
    targets = torch.from_numpy(trials.targets)
    rate, threshold = eer(scores[targets], scores[~targets])
    return 100 * rate, (scores >= threshold).tolist()


def turns(found, rows):
    """Diarization error rate, and the segments to a tenth of a second."""
    errors = [
        diarization_error(
            read_rttm(row["rttm"])[row.get("rttm_name") or row["ID"]],
            [(s.start, s.end, s.speaker) for s in each.segments],
        )
        for each, row in zip(found, rows)
    ]
    segments = [
        [(round(s.start, 1), round(s.end, 1), s.speaker) for s in each.segments]
        for each in found
    ]
    return 100 * sum_errors(errors).rate, segments


SCORES = {
    "EncoderASR": ("WER", words),
    "EncoderClassifier": ("error rate", classes),
    "SpeakerRecognition": ("EER", speakers),
    "SpeakerDiarization": ("DER", turns),
}


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS,
        default=["fp32", "bf16", "int8"],
    )  # fmt: skip
    arguments = parser.parse_args()
    print("| run | recordings | score | precision | % | same as fp32 | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for run in arguments.runs:
        path = run / "manifests" / f"{arguments.split or 'test'}.csv"
        if arguments.split is None and not path.exists():
            path = path.with_name("valid.csv")
        rows, expected = read_manifest(path), None
        name, score = SCORES[folder_kind(run / "export")]
        wavs = [read_audio(r["wav"], r["start"], r["stop"]) for r in rows]
        for precision in dict.fromkeys(["fp32", *arguments.precisions]):
            model = us.load(run / "export", "cpu", precision=precision)
            start = time.process_time()
            rate, results = score(model(wavs), rows)
            seconds = time.process_time() - start
            expected = expected or results
            same = sum(a == b for a, b in zip(results, expected))
            print(f"| {run.parent.parent.name} | {len(rows)} {path.stem} | "
                  f"{name} | {precision} | {rate:.2f} | "
                  f"{100 * same / len(results):.1f} % | {seconds:.1f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
