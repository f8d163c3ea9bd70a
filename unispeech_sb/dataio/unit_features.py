"""Frames that units are made of: MFCCs, or hidden states of any backbone, as
HuBERT's authors cluster them (Hsu et al. 2021, section IV-B).
"""

import math
from itertools import islice

import torch
from torch.nn.utils.rnn import pad_sequence

SAMPLE_RATE = 16000
_LONGEST = 4000  # samples, more than a frame of any backbone sees


class MFCCs:
    """39 numbers every 10 ms: 13 MFCCs by Kaldi's recipe, without energy, and
    their first and second differences.

    Example
    -------
    >>> MFCCs()([torch.randn(16000)])[0].shape
    torch.Size([98, 39])
    """

    dim = 39
    label_rate = 100
    window_s = 0.025

    def __call__(self, wavs):
        """Computes the frames of recordings.

        Arguments
        ---------
        wavs : list of torch.Tensor
            Waveforms at 16 kHz, in [-1, 1], each [N].

        Returns
        -------
        list of torch.Tensor
            Frames of each, [T, 39].
        """
        return [_mfccs(wav) for wav in wavs]


def _mfccs(wav):
    """MFCCs of a waveform, with their differences."""
    from torchaudio.compliance import kaldi
    from torchaudio.functional import compute_deltas

    cepstra = kaldi.mfcc(
        wav[None], sample_frequency=SAMPLE_RATE, use_energy=False
    ).T
    slopes = compute_deltas(cepstra)
    return torch.cat([cepstra, slopes, compute_deltas(slopes)]).T.contiguous()


class HiddenStates:
    """Hidden states of one layer of a backbone, before any final LayerNorm.

    Recordings longer than ``chunk_s`` are cut into equal pieces. These overlap
    by what a frame sees, so that there are as many frames as without cuts.
    (The authors' do not: theirs are a frame late after each 100 s.)

    Arguments
    ---------
    backbone : torch.nn.Module
        A ``Backbone``; it is put into evaluation mode.
    layer : int
        Which states: 0 for the input of the blocks, 1 for the output of the
        first block, and so on.
    chunk_s : float
        Longest piece to compute at once, in seconds.
    device : str or torch.device
        Where to compute.

    Raises
    ------
    ValueError
        When the backbone has no such layer.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> states = HiddenStates(Backbone.from_preset("tiny"), layer=1)
    >>> [feats.shape for feats in states([torch.randn(16000)])]
    [torch.Size([49, 16])]
    """

    def __init__(self, backbone, layer, chunk_s=100.0, device="cpu"):
        if not 0 <= layer < backbone.num_states:
            raise ValueError(
                f"layer: expected 0 to {backbone.num_states - 1}, the layers "
                f"of the model; got {layer}"
            )
        self.backbone = backbone.to(device).eval()
        self.layer, self.device = layer, device
        self.dim = backbone.dim
        counts = backbone.output_lengths(torch.arange(_LONGEST))
        self.window = int((counts < 1).sum())
        self.hop = int((counts < 2).sum()) - self.window
        self.label_rate = SAMPLE_RATE // self.hop
        self.window_s = self.window / SAMPLE_RATE
        self.max_frames = max(1, int(chunk_s * self.label_rate))

    def __call__(self, wavs):
        """Computes the frames of recordings, all those of a call in a batch.

        Arguments
        ---------
        wavs : list of torch.Tensor
            Waveforms at 16 kHz, each [N].

        Returns
        -------
        list of torch.Tensor
            Frames of each, float32, on the CPU, [T, D].
        """
        pieces = [self._pieces(wav) for wav in wavs]
        if max(map(len, pieces)) == 1:
            return self._states([piece for (piece,) in pieces])
        return [
            torch.cat([self._states([piece])[0] for piece in own])
            for own in pieces
        ]

    def _pieces(self, wav):
        """Cuts a waveform where its frames are too many."""
        num_frames = self.backbone.output_lengths(len(wav))
        if num_frames <= self.max_frames:
            return [wav]
        size = math.ceil(num_frames / math.ceil(num_frames / self.max_frames))
        starts = range(0, num_frames, size)
        stops = [min(start + size, num_frames) for start in starts]
        return [
            wav[start * self.hop : (stop - 1) * self.hop + self.window]
            for start, stop in zip(starts, stops)
        ]

    @torch.inference_mode()
    def _states(self, wavs):
        """The layer's states of a batch of waveforms."""
        lengths = torch.tensor([len(wav) for wav in wavs])
        batch = pad_sequence(wavs, batch_first=True).to(self.device)
        wav_lens = (lengths / batch.shape[1]).to(self.device)
        states = self.backbone.iter_states(batch, wav_lens, last_state="raw")
        # Computed one by one: what is above the layer is not
        state = next(islice(states, self.layer, None))
        counts = self.backbone.output_lengths(lengths).tolist()
        rows = state.float().cpu()
        return [row[:count] for row, count in zip(rows, counts)]
