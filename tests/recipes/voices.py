"""A few voices that each say a few words, and small runs on them."""

import csv

import soundfile

from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

VOICES = {
    "ann": Voice(variant="f2", pitch=70),
    "bob": Voice(variant="m1", pitch=35),
    "eve": Voice(variant="f4", pitch=55),
    "max": Voice(variant="m3", pitch=50),
}
TEXTS = ("yes no seven", "go stop yes", "seven seven no", "no go yes")
SMALL_HEAD = [
    "--tdnn_dim=[16, 16, 16, 16, 24]",
    "--xvector_output_dim=12",
]
QUICK = ["--model=tiny", "--num_workers=0", "--noprogressbar", "--device=cpu"]


def write_voices(folder):
    """Writes manifest.csv; what is in valid is in train, too."""
    rows = [("id", "path", "split", "speaker")]
    for name, voice in VOICES.items():
        for number, text in enumerate(TEXTS):
            path = f"{name}{number}.wav"
            samples = speak(text, voice).samples.numpy()
            soundfile.write(folder / path, samples, SAMPLE_RATE)
            rows += [
                (f"{split}_{name}{number}", path, split, name)
                for split in ("train", "valid")
            ]
    write_table(folder / "manifest.csv", rows)
    return folder


def write_table(path, rows):
    """Writes a CSV."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def read_rows(path):
    """The rows of a CSV, as dicts."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
