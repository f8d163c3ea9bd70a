"""Windows to their speakers: who of them is active when, and a vector each."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torchaudio.transforms import Resample

from unispeech_sb.lobes.heads import DiarizationHead, EENDVCHead, FrameHead
from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    length_mask,
    receptive_field,
)

HEADS = (DiarizationHead, EENDVCHead, FrameHead)
"""What gives activities of speakers."""

NARROW_HZ, WIDE_HZ = 8000, 16000
"""Rate of telephone speech, and of what backbones take."""

MIN_SHARE = 0.05
"""Mean activity in a window up to which a speaker is silent there: the
authors' ``sil_spk_th``."""

MIN_ALONE_S = 0.5
"""Least speech of one speaker alone that a vector is made of; with less, of
all that the speaker says in the window."""


class LocalSpeakers(NamedTuple):
    """The speakers of one window.

    Arguments
    ---------
    activities : numpy.ndarray
        Probability that each is active, [T, S].
    heard : numpy.ndarray
        Numbers of those that are not silent, [n].
    vectors : numpy.ndarray or None
        A vector for each of these, [n, E]; None where there are none to make.

    Example
    -------
    >>> LocalSpeakers(np.zeros((5, 2)), np.zeros(0, int), None).heard.size
    0
    """

    activities: np.ndarray
    heard: np.ndarray
    vectors: np.ndarray | None


class LocalSpeakerModel:
    """Finds the speakers of windows, each by itself as in training.

    Arguments
    ---------
    backbone : Backbone
        Waveforms to features.
    head : EENDVCHead or FrameHead or DiarizationHead
        Features to activities; ``EENDVCHead`` gives vectors too.
    narrow_band : bool
        The model hears telephone speech: waveforms are at 8 kHz and brought
        to 16 kHz by ``torchaudio.transforms.Resample``.
    voices : unispeech_sb.inference.speakers.SpeakerVerification, optional
        Gives the vectors in place of the head.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> model = LocalSpeakerModel(
    ...     Backbone.from_preset("tiny"), FrameHead(16, 2)
    ... )
    >>> with torch.no_grad():
    ...     (found,) = model.find([torch.randn(16000)])
    >>> found.activities.shape, found.vectors
    ((50, 2), None)
    """

    def __init__(self, backbone, head, narrow_band=False, voices=None):
        self.backbone, self.head = backbone, head
        self.narrow_band, self.voices = narrow_band, voices
        self._widen = Resample(NARROW_HZ, WIDE_HZ)
        extractor = backbone.feature_extractor
        self._stride = int(np.prod(extractor.strides))
        self._field = receptive_field(extractor.kernels, extractor.strides)

    @property
    def has_vectors(self):
        """Whether windows come with vectors of their speakers."""
        return self.voices is not None or self._clusters

    @property
    def num_outputs(self):
        """Speakers that the head tells apart in a window."""
        config = self.head.config
        return config.get("num_speakers", config.get("num_classes"))

    @property
    def rate(self):
        """Sampling rate of the waveforms in Hz."""
        return NARROW_HZ if self.narrow_band else WIDE_HZ

    @property
    def hop(self):
        """Samples of a frame of the activities."""
        stride = 2 * self._stride if self._clusters else self._stride
        return stride * self.rate // WIDE_HZ

    @property
    def least(self):
        """Fewest samples of a waveform."""
        return -(-self._field * self.rate // WIDE_HZ)

    @property
    def frame_s(self):
        """Seconds of a frame."""
        return self.hop / self.rate

    def activities(self, wavs, wav_lens=None):
        """Computes who is active when in whole waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at ``rate``, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            Probabilities, 0 in the padding, [B, T, S].
        vectors : torch.Tensor or None
            One for each speaker, [B, S, E]; None where the head has none.
        """
        device = next(self.backbone.parameters()).device
        wavs = wavs.to(device)
        counts = torch.full((len(wavs),), wavs.shape[1], device=device)
        if wav_lens is not None:
            wav_lens = wav_lens.to(device)
            counts = absolute_lengths(wav_lens, wavs.shape[1])
        frames = (counts // self.hop).clamp(min=1)
        if self.narrow_band:
            wavs = self._widen.to(device)(wavs)
        lengths = None
        if wav_lens is not None:
            lengths = self.backbone.frame_lens(wavs.shape[1], wav_lens)
        feats = self.backbone.iter_states(
            wavs, wav_lens, "normed" if self.head.layer_mix is None else None
        )
        if self.head.layer_mix is None:
            for state in feats:
                feats = state
        if self._clusters:
            found, vectors = self.head.estimate(feats, lengths, frames)
        else:
            found = self.head(feats, lengths).float().sigmoid()
            found = _continued(found, lengths, frames)
            vectors = None
        mask = length_mask(frames, found.shape[1])[..., None]
        return found.float().masked_fill(~mask, 0.0), vectors

    def find(self, wavs, threshold=0.5):
        """Finds the speakers of windows.

        Arguments
        ---------
        wavs : list of torch.Tensor
            Windows at ``rate``, [N] each. Where all samples of one are the
            same, nobody speaks.
        threshold : float
            Probability above which a speaker speaks, for the voices.

        Returns
        -------
        list of LocalSpeakers
            In their order.
        """
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        shares = None if counts.unique().numel() == 1 else counts / counts.max()
        found, vectors = self.activities(padded, shares)
        results = []
        for row, wav in enumerate(wavs):
            frames = max(1, len(wav) // self.hop)
            activities = found[row, :frames].cpu().numpy()
            if bool(wav.min() == wav.max()):
                activities = np.zeros_like(activities)
            heard = np.flatnonzero(activities.mean(0) > MIN_SHARE)
            own = None
            if self.voices is not None:
                own = self._voices_of(wav, activities > threshold, heard)
            elif vectors is not None:
                own = vectors[row].float().cpu().numpy()[heard]
            results.append(LocalSpeakers(activities, heard, own))
        return results

    @property
    def _clusters(self):
        """Whether the head gives vectors, and a frame every 40 ms."""
        return isinstance(self.head, EENDVCHead)

    def _voices_of(self, wav, active, heard):
        """Vectors by the speaker model."""
        vectors = []
        least = max(self.least, round(MIN_ALONE_S * self.rate))
        for speaker in heard:
            alone = active[:, speaker] & (active.sum(1) == 1)
            wanted = wav
            for frames in (alone, active[:, speaker]):
                part = _taken(wav, frames, self.hop)
                if len(part) >= least and part.min() < part.max():
                    wanted = part
                    break
            if self.narrow_band:
                wanted = self._widen.cpu()(wanted)
            vectors.append(self.voices.embed(wanted).vector.numpy())
        return np.stack(vectors) if vectors else np.zeros((0, 1))


def modules_of(mods):
    """Takes a backbone and a head from the modules of a folder.

    Arguments
    ---------
    mods : torch.nn.ModuleDict or dict
        With ``backbone``, or ``encoder`` as converted folders call it, and
        ``head``.

    Returns
    -------
    backbone : Backbone
        Waveforms to features.
    head : torch.nn.Module
        Features to activities.

    Raises
    ------
    ValueError
        When it has none, or a head of another task.

    Example
    -------
    >>> modules_of({"encoder": 1, "head": 2})
    Traceback (most recent call last):
    ...
    ValueError: modules: expected backbone (or encoder) and a head ...
    """
    for name in ("backbone", "encoder"):
        if name in mods and "head" in mods:
            backbone, head = mods[name], mods["head"]
            if isinstance(head, HEADS):
                return backbone, head
    raise ValueError(
        "modules: expected backbone (or encoder) and a head that scores "
        f"frames ({', '.join(cls.__name__ for cls in HEADS)}); "
        f"got {', '.join(mods)}"
    )


def _taken(wav, frames, hop):
    """The samples of some frames, one after the other."""
    taken = torch.from_numpy(np.repeat(frames, hop))[: len(wav)]
    return wav[: len(taken)][taken]


def _continued(found, lengths, frames):
    """Lets the last frame of each row last until its samples end.

    The convolutions leave one frame less than there are strides.
    """
    most = int(frames.max())
    counts = torch.full_like(frames, found.shape[1])
    if lengths is not None:
        counts = absolute_lengths(lengths, found.shape[1])
    places = torch.arange(most, device=found.device)
    places = torch.minimum(places[None], counts[:, None] - 1)
    return found.gather(1, places[..., None].expand(-1, -1, found.shape[2]))
