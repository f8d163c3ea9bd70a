"""Recordings of any length through an encoder, in batches of windows.

A recording is read twice in blocks, first for its length and the statistics
that models normalise by, and never held as a whole.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.recordings import read_blocks
from unispeech_sb.inference.statistics import Moments, statistics_of_whole
from unispeech_sb.inference.windows import Window, cut_windows, plan_windows
from unispeech_sb.nnet.lengths import conv_lengths, receptive_field


@dataclass(frozen=True, eq=False)
class Stretch:
    """A window of a recording, ready for the encoder.

    Arguments
    ---------
    source : str or path-like or torch.Tensor
        The recording.
    moments : Moments
        Of the whole recording.
    window : Window
        Where the stretch is, and which frames it gives.
    wav : torch.Tensor
        Its samples, [N].
    num_frames : int
        Frames of the whole recording.

    Example
    -------
    >>> window = Window(start=0, stop=400, offset=0, first=0, last=1)
    >>> Stretch("a.wav", None, window, torch.zeros(400), 1).is_whole
    True
    """

    source: object
    moments: Moments
    window: Window
    wav: torch.Tensor
    num_frames: int

    @property
    def is_last(self):
        """Whether the recording ends here."""
        return self.window.last == self.num_frames

    @property
    def is_whole(self):
        """Whether this is all of the recording."""
        return self.is_last and self.window.first == 0


class WindowEncoder:
    """Gives the log-posteriors of recordings of any length.

    Arguments
    ---------
    backbone : Backbone
        What ``encode`` runs; its norms over time take the statistics of the
        whole recording while windows go through.
    encode : callable
        Waveforms, [B, N], and relative lengths, [B], to log-posteriors,
        [B, T, V].
    normalizer : speechbrain.dataio.preprocess.AudioNormalizer
        Gives the rate of the waveforms and converts to it.
    window_s : float
        Length of a window in seconds.
    context_s : float
        Least distance of a kept frame from a cut, in seconds.

    Example
    -------
    >>> from speechbrain.dataio.preprocess import AudioNormalizer
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> backbone = Backbone.from_preset("tiny").eval()
    >>> rate = AudioNormalizer(16000)
    >>> encoder = WindowEncoder(backbone, backbone, rate, 0.5, 0.1)
    >>> stretches = encoder.cut(torch.randn(20000))
    >>> with torch.no_grad():
    ...     sum(len(f) for _, f in encoder.encode_all(stretches, 1.0))
    62
    """

    def __init__(self, backbone, encode, normalizer, window_s, context_s):
        extractor = backbone.feature_extractor
        self.backbone, self.encode, self.normalizer = (
            backbone,
            encode,
            normalizer,
        )
        self.window_s, self.context_s = window_s, context_s
        self._convs = extractor.kernels, extractor.strides
        self._stride = math.prod(extractor.strides)
        self._field = receptive_field(*self._convs)

    @property
    def frame_s(self):
        """Seconds from one frame to the next."""
        return self._stride / self.normalizer.sample_rate

    def read(self, path):
        """Reads a whole recording.

        Arguments
        ---------
        path : str or path-like
            A file that soundfile reads.

        Returns
        -------
        torch.Tensor
            Its samples, [N].

        Raises
        ------
        AudioError
            When it cannot be used.
        """
        blocks = list(read_blocks(path, self.normalizer))
        self._check_length(path, sum(map(len, blocks)))
        return torch.cat(blocks)

    def cut(self, source):
        """Reads a recording as windows.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that soundfile reads, or a waveform at the model's rate,
            [N].

        Yields
        ------
        Stretch
            The next window; the only one where none is needed.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        """
        moments = self._moments(source)
        windows = plan_windows(
            moments.num_samples,
            num_frames=self._num_frames(self.window_s),
            context=round(self.context_s / self.frame_s),
            stride=self._stride,
            field=self._field,
        )
        blocks = read_blocks(source, self.normalizer)
        for window, wav in cut_windows(windows, blocks):
            if len(windows) > 1:  # the last samples may make no frame
                wav = wav[: len(wav) - (len(wav) - self._field) % self._stride]
            yield Stretch(source, moments, window, wav, windows[-1].last)

    def encode_all(self, stretches, batch_seconds):
        """Runs windows of one or several recordings, some at a time.

        Arguments
        ---------
        stretches : iterable of Stretch
            As ``cut`` yields them; read no further than the next batch needs.
        batch_seconds : float
            Most seconds of windows in a batch, padding included; it holds one
            window at least.

        Yields
        ------
        stretch : Stretch
            The next one.
        log_probs : torch.Tensor
            Log-posteriors of the frames that it gives, [T, V], on the CPU.
        """
        most = batch_seconds * self.normalizer.sample_rate
        for batch in _batches(stretches, most):
            if batch[0].is_whole:
                rows = self.encode_whole([batch[0].wav])
            else:
                rows = self._encode_windows(batch)
            for stretch, row in zip(batch, rows, strict=True):
                yield stretch, row[stretch.window.kept]

    def encode_whole(self, wavs):
        """Runs whole recordings in one batch.

        Arguments
        ---------
        wavs : list of torch.Tensor
            Waveforms, [N] each.

        Returns
        -------
        list of torch.Tensor
            Log-posteriors of each one's own frames, [T, V], on the CPU.
        """
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        rows = self.encode(padded, counts / padded.shape[1]).float().cpu()
        frames = conv_lengths(counts, *self._convs).tolist()
        return [row[:n] for row, n in zip(rows, frames)]

    def _moments(self, source):
        """Reads a recording for its length and statistics."""
        moments = Moments(self._convs[0][0], self._convs[1][0])
        for block in read_blocks(source, self.normalizer):
            moments.add(block)
        self._check_length(source, moments.num_samples)
        return moments

    def _encode_windows(self, batch):
        """Runs windows; those of one recording need no padding."""
        moments = [stretch.moments for stretch in batch]
        with statistics_of_whole(self.backbone, moments) as prepare:
            return self.encode_whole(prepare([s.wav for s in batch]))

    def _num_frames(self, seconds):
        """Counts the frames of a window."""
        samples = round(seconds * self.normalizer.sample_rate)
        return (samples - self._field) // self._stride + 1

    def _check_length(self, source, num_samples):
        """Raises when a recording has no frame."""
        if num_samples < self._field:
            name = "waveform" if isinstance(source, torch.Tensor) else source
            raise AudioError(
                f"{name}: too short, expected at least {self._field} samples "
                f"at {self.normalizer.sample_rate} Hz, got {num_samples}"
            )


def _batches(stretches, most):
    """Groups windows by samples; a recording without cuts goes alone."""
    batch, longest = [], 0
    for stretch in stretches:
        longest = max(longest, len(stretch.wav))
        if batch and (stretch.is_whole or longest * (len(batch) + 1) > most):
            yield batch
            batch, longest = [], len(stretch.wav)
        batch.append(stretch)
        if stretch.is_whole or longest * (len(batch) + 1) > most:
            yield batch
            batch, longest = [], 0
    if batch:
        yield batch
