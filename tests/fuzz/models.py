"""Tiny exported folders and recordings, which the kinds share."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from tests.inference import diarization_models, speaker_models
from tests.inference.models import TOKENS, characters
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead, UtteranceHead


def _recognizer(folder):
    """A speech recognizer whose decisions are not close calls."""
    torch.manual_seed(1)
    backbone, head = Backbone.from_preset("tiny"), FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= 20
    lobes = {"backbone": backbone, "head": head}
    write_pretrained(
        folder, lobes, "EncoderASR", "A test.", characters(), blank_index=0
    )


def _classifier(folder):
    """A keyword spotter."""
    torch.manual_seed(1)
    encoder = LabelEncoder()
    encoder.update_from_iterable(["yes", "no", "seven"])
    lobes = {"backbone": Backbone.from_preset("tiny")}
    lobes["head"] = UtteranceHead(16, 3)
    write_pretrained(
        folder,
        lobes,
        "EncoderClassifier",
        "A test.",
        encoder,
        problem_type="single_label_classification",
    )


def _backbone(folder):
    """A backbone alone."""
    torch.manual_seed(1)
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(folder, lobes, "WaveformEncoder", "A test.")


MODELS = {
    "asr": _recognizer,
    "speaker": speaker_models.save_model,
    "diarization": diarization_models.save_model,
    "classifier": _classifier,
    "backbone": _backbone,
}
"""Name -> what writes a folder of it."""


@functools.cache
def _place(name):
    """A folder that goes with the process."""
    return tempfile.TemporaryDirectory(prefix=f"fuzzed-{name}-")


@functools.cache
def model(name):
    """A folder, written once in a process and those that it forks."""
    folder = Path(_place(name).name, name)
    MODELS[name](folder)
    return folder


def speech(seconds, rate, seed):
    """Noise that grows louder, with an offset and a tone, [N]."""
    draw = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    noise = draw.normal(size=len(time)) * np.linspace(0.02, 0.2, len(time))
    return noise + 0.1 * np.sin(2 * np.pi * (200 + 50 * seed) * time) + 0.01


GOOD = {
    "good0.wav": (0.9, 16000, {"subtype": "FLOAT"}),
    "good1.flac": (0.6, 44100, {}),
    "good2.wav": (1.3, 8000, {"subtype": "PCM_16"}),
}
"""Recordings that every command takes: seconds, rate, format."""


def write_good(folder):
    """Writes the good recordings."""
    for seed, (name, (seconds, rate, form)) in enumerate(GOOD.items()):
        samples = speech(seconds, rate, seed)
        soundfile.write(folder / name, samples, rate, **form)


def write_more(folder):
    """Writes a fourth recording, of another speaker."""
    soundfile.write(folder / "more.wav", speech(0.8, 16000, 7), 16000)


def write_corpus(folder):
    """Writes a few clips with words and labels, for training."""
    folder.mkdir()
    rows = ["id,path,split,label,wrd"]
    for split, count in (("train", 6), ("valid", 2)):
        for number in range(count):
            name = f"{split}{number}"
            label = ("yes", "no")[number % 2]
            samples = speech(0.6 + 0.05 * number, 16000, 3 * (number % 2) + 1)
            soundfile.write(folder / f"{name}.wav", samples, 16000)
            rows.append(f"{name},{name}.wav,{split},{label},{label}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
