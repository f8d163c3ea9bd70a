"""A model that knows who speaks, and tiny ones, for the tests of diarization.

A speaker of these tests is a tone, which is found without training.
"""

import functools

import numpy as np
import torch

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.inference.diarization import (
    LocalSegmentation,
    SpeakerDiarization,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import EENDVCHead, FrameHead

RATE, HOP = 16000, 320
HEADS = {
    "vectors": lambda: EENDVCHead(
        16, 3, model_size=16, num_layers=1, num_heads=2, speaker_size=8
    ),
    "frames": lambda: FrameHead(16, 3, num_states=3),
    "last": lambda: FrameHead(16, 2),
}


def talk(turns, seconds):
    """A recording: a tone for each speaker, and a little noise."""
    wav = 1e-4 * torch.randn(round(seconds * RATE))
    for start, end, speaker in turns:
        first, last = round(start * RATE), round(end * RATE)
        time = torch.arange(first, last) / RATE
        tone = torch.sin(2 * torch.pi * 200 * (2 + speaker) * time)
        wav[first:last] += 0.1 * tone
    return wav


def conversation(num_speakers, seconds, seed=0):
    """Turns in whole frames, some of two speakers at once, short pauses."""
    draw, turns, now, last = np.random.default_rng(seed), [], 0.4, -1
    while now < seconds - 1:
        others = [n for n in range(num_speakers) if n != last]
        last = int(draw.choice(others))
        end = min(now + draw.uniform(1.0, 4.0), seconds)
        turns.append((round(now, 1), round(end, 1), last))
        now = end + draw.uniform(-0.4, 0.6)
    return turns


class Oracle:
    """Stands for ``LocalSegmentationModel``: finds the tones of a recording.

    As a real one it knows nothing of other windows: it gives the speakers of
    each in another order.
    """

    hop, least, rate, frame_s, num_outputs = HOP, 400, RATE, HOP / RATE, 4

    def __init__(self, has_embeddings, num_speakers=4, size=16):
        self.has_embeddings, self.num_outputs = has_embeddings, num_speakers
        draw = np.random.default_rng(5)
        self.speakers = np.linalg.qr(draw.normal(size=(size, size)))[0]

    def segment(self, wavs, threshold=0.5):
        """The speakers of windows."""
        return [self._find(wav) for wav in wavs]

    def _find(self, wav):
        frames = max(1, len(wav) // HOP)
        time = np.arange(HOP) / RATE
        pieces = wav[: frames * HOP].numpy().reshape(frames, -1)
        tones = 200 * (2 + np.arange(self.num_outputs))
        waves = np.exp(-2j * np.pi * tones * time[: pieces.shape[1], None])
        loud = np.abs(pieces @ waves) > 0.025 * HOP
        draw = np.random.default_rng(abs(int(1e6 * float(wav.sum()))))
        order = draw.permutation(self.num_outputs)
        activities = np.where(loud, 0.9, 0.02)[:, order]
        if not self.has_embeddings:
            return LocalSegmentation(activities, np.arange(len(order)), None)
        active = np.flatnonzero(activities.mean(0) > 0.02)
        noise = 0.03 * draw.normal(size=(len(active), len(self.speakers)))
        embeddings = self.speakers[order[active]] + noise
        return LocalSegmentation(activities, active, embeddings)


def oracle(has_embeddings, num_speakers=4, **options):
    """An interface whose model is the oracle."""
    found = SpeakerDiarization(
        {"backbone": Backbone.from_preset("tiny"), "head": FrameHead(16, 2)},
        {"threshold": 0.5, "median_filter": 1, "chunk_s": 10.0},
        **options,
    )
    found.model = Oracle(has_embeddings, num_speakers)
    return found


def save_model(path, head="vectors", **options):
    """Writes a pretrained folder; its activities are no close calls."""
    torch.manual_seed(1)
    backbone, made = Backbone.from_preset("tiny"), HEADS[head]()
    last = getattr(made, "activities", getattr(made, "classifier", None))
    with torch.no_grad():
        last.weight *= 20
        last.bias.zero_()
    options = {
        "threshold": 0.5, "median_filter": 5, "min_speech_s": 0.0,
        "min_pause_s": 0.0, "chunk_s": 1.0, "narrow_band": False,
        "num_local_speakers": 3, "frame_s": 0.02, **options,
    }  # fmt: skip
    lobes = {"backbone": backbone, "head": made}
    write_pretrained(path, lobes, "SpeakerDiarization", "A test.", **options)
    return path


@functools.lru_cache
def babble(seconds, seed=0):
    """Noise whose level and colour change, of no speaker."""
    draw = torch.Generator().manual_seed(seed)
    wav = torch.randn(round(seconds * RATE), generator=draw)
    swell = torch.randn(round(seconds * 4) + 2, generator=draw).abs()
    swell = torch.nn.functional.interpolate(
        swell[None, None], len(wav), mode="linear"
    )
    return 0.05 * wav * swell[0, 0]
