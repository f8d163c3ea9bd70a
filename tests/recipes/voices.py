"""A few voices that each say a few words, and small runs on them."""

import csv
from itertools import combinations

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
    "--proj_size=24",
    "--embedding_size=12",
]
OVERFIT = [
    "--model=small",
    "--number_of_epochs=20",
    "--batch_size=8",
    "--warmup_updates=10",
    "--hold_updates=20",
    "--decay_updates=10",
    "--lr=0.003",
    "--lr_backbone=0.003",
    "--augmentation=null",
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


def small_run(root, corpus, output, *options, yaml):
    """The command line of a small run."""
    return [
        str(root / yaml),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *QUICK,
        *options,
    ]


def run_recipe(recipe, *args, **kwargs):
    """One small run of a recipe in this process: its scores."""
    return recipe.main(small_run(*args, **kwargs))


def table_of(corpus, path, *splits, **columns):
    """A table of splits of the corpus."""
    rows = read_rows(corpus / "manifest.csv")
    rows = [
        {**r, "path": corpus / r["path"], **columns}
        for r in rows
        if r["split"] in splits
    ]
    return write_table(path, [list(rows[0]), *(r.values() for r in rows)])


def table_with_test(corpus, path):
    """A table of the corpus whose validation set is its test set."""
    rows = read_rows(corpus / "manifest.csv")
    for row in rows:
        row["path"] = corpus / row["path"]
        row["split"] = {"valid": "test"}.get(row["split"], row["split"])
    return write_table(path, [list(rows[0]), *(r.values() for r in rows)])


def trial_list(path, form):
    """All pairs of two voices' recordings, named as the form says."""
    names = [(who, n) for who in ("bob", "eve") for n in range(len(TEXTS))]
    path.write_text(
        "".join(
            f"{int(a[0] == b[0])} {form.format(*a)} {form.format(*b)}\n"
            for a, b in combinations(names, 2)
        )
    )
    return path
