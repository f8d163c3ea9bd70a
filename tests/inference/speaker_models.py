"""Tiny speaker models, and speech-like noise, for the tests of inference."""

import functools

import numpy as np
import soundfile
import torch

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.inference.speaker_verification import SpeakerVerification
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import ECAPAHead, SpeakerHead, UtteranceEncoder
from unispeech_sb.metrics.calibration import Calibration

CALIBRATION = Calibration(scale=20.0, offset=-10.0, num_trials=(30, 70))
HEADS = {
    "xvector": lambda: SpeakerHead(
        16, [12, 14], [3, 3], [1, 2], xvector_output_dim=10, num_states=3
    ),
    "ecapa": lambda: ECAPAHead(16, 3, channels=16, pooled_channels=24),
}


def save_model(path, head="xvector", calibration=CALIBRATION, **options):
    """Writes a pretrained folder."""
    torch.manual_seed(1)
    lobes = {"backbone": Backbone.from_preset("tiny", **options)}
    lobes["head"] = HEADS[head]()
    _spread(**lobes)
    write_pretrained(
        path, lobes, "SpeakerRecognition", "A test.", calibration=calibration
    )
    return path


@torch.no_grad()
def _spread(backbone, head):
    """Takes off what all embeddings share, which is most of them where
    weights are random, so that cosines are anything from -1 to 1."""
    encoder = UtteranceEncoder(backbone, head).eval()
    wavs = torch.stack([voice(speaker, 1.0) for speaker in range(16)])
    last = head.embedding if hasattr(head, "embedding") else head.linear
    last.bias -= encoder(wavs)[:, 0].mean(0)


def load_model(path, **options):
    """The model of a pretrained folder."""
    return SpeakerVerification.from_hparams(str(path), **options)


@functools.lru_cache
def voice(speaker, seconds, take=0, rate=16000):
    """Noise with a speaker's own spectrum, at -26 dB of full scale."""
    draw = np.random.default_rng((speaker, take))
    noise = draw.normal(size=round(seconds * rate))
    colour = np.random.default_rng(speaker).normal(size=32)
    samples = np.convolve(noise, colour, "same")
    return torch.from_numpy(0.05 * samples / samples.std()).float()


def write(path, wav, subtype="FLOAT", rate=16000):
    """Writes a recording; gives its name."""
    soundfile.write(path, wav.numpy(), rate, subtype)
    return str(path)
