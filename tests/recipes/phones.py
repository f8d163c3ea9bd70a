"""Spoken texts with their phones, for the recipes of phonemes."""

import csv

import soundfile

from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

TEXTS = ("yes no", "no seven", "go yes", "stop no", "seven go")
PHONES = ("j ɛ s n oː", "n oː s ɛ v n", "ɡ oː j ɛ s", "s t ɒ p n oː",
          "s ɛ v n ɡ oː")  # fmt: skip
LEXICON = """\
YES\tY EH1 S
NO\tN OW1
NO\tN OW0
SEVEN\tS EH1 V AH0 N
GO\tG OW1
STOP\tS T AA1 P
"""


def spoken_texts():
    """The samples of each text."""
    voice = Voice(variant="m1", pitch=45)
    return [speak(text, voice).samples.numpy() for text in TEXTS]


def write_librispeech(root, waves):
    """A LibriSpeech tree of the texts, and a lexicon beside it."""
    for subset, readers in (("train-mini", "19"), ("dev-mini", "26")):
        chapter = root / subset / readers / "1"
        chapter.mkdir(parents=True)
        lines = []
        for number, wave in enumerate(waves):
            name = f"{readers}-1-{number:04d}"
            soundfile.write(chapter / f"{name}.flac", wave, SAMPLE_RATE)
            lines.append(f"{name} {TEXTS[number].upper()}\n")
        (chapter / f"{readers}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text(LEXICON)
    return root


def written(output, split="train"):
    """ID -> phones of a manifest that a run has written."""
    with open(output / "manifests" / f"{split}.csv", newline="") as file:
        return {row["ID"]: row["phones"] for row in csv.DictReader(file)}
