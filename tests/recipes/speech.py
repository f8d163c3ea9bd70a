"""A few spoken sentences, and the command line of small runs on them."""

import csv

import soundfile

from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

TEXTS = ("yes no", "no seven", "go yes", "stop no", "seven go")
PHONES = ("j ɛ s n oː", "n oː s ɛ v n", "ɡ oː j ɛ s", "s t ɒ p n oː", "s ɛ v n")
SCRATCH = [
    "--model=tiny",
    "--freeze_feature_extractor=False",
    "--freeze_backbone_updates=0",
    "--spec_augment=False",
    "--layerdrop=0.0",
    "--dropout=0.0",
    "--max_batch_s=3.0",
    "--num_buckets=2",
    "--noprogressbar",
    "--device=cpu",
]


def write_speech(folder):
    """Writes manifest.csv, whose validation set is in train."""
    rows = [("id", "path", "split", "wrd", "phones")]
    for number, (text, phones) in enumerate(zip(TEXTS, PHONES, strict=True)):
        name = f"{number}.wav"
        speech = speak(text, Voice(variant="m1", pitch=45))
        soundfile.write(folder / name, speech.samples.numpy(), SAMPLE_RATE)
        rows += [
            (f"{split}_{number}", name, split, text, phones)
            for split in ("train", "valid")
        ]
    with open(folder / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


def arguments(root, corpus, output, *options):
    """The command line of a small run of hparams/asr.yaml."""
    return [
        str(root / "hparams/asr.yaml"),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *SCRATCH,
        *options,
    ]
