"""Speech recognition of long recordings and of many files.

On top of SpeechBrain's ``EncoderASR``, from the same folders. A long
recording goes through the model in overlapping windows whose log-posteriors
are stitched; it is read twice in blocks, first for its length and the
statistics that the model normalises by, and never held as a whole.
"""

import functools
import math

import torch
from speechbrain.inference.ASR import EncoderASR
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.inference.recordings import (
    RecordingError,
    duration_s,
    read_blocks,
)
from unispeech_sb.inference.statistics import Moments, statistics_of_whole
from unispeech_sb.inference.windows import cut_windows, plan_windows
from unispeech_sb.inference.words import (
    Transcript,
    WordDecoder,
    greedy_transcript,
)
from unispeech_sb.nnet.frontend import FeatureExtractor
from unispeech_sb.nnet.lengths import conv_lengths, receptive_field


class LongFormASR(EncoderASR):
    """Greedy CTC recognition of recordings of any length.

    Loads with ``from_hparams`` what ``EncoderASR`` loads, where the module
    ``encoder`` holds a ``Backbone``, and has its methods too. Recordings up
    to ``window_s`` go through the model at once, as in ``transcribe_file``.

    How a longer one is cut changes only how much of its surroundings a frame
    hears: ``context_s`` at least on both sides. A model that hears no further
    gives the same log-posteriors however it is cut, within 1e-3 on logits of
    +-20; one that attends further changes a little. For that, what a model
    normalises over time (the waveform, and the first convolution of Base
    models) is normalised by statistics of the whole recording; ``output_norm``
    stays one of each window. ``normalize_wav`` and that norm are set aside
    while a window runs, so one object cannot serve several threads.

    Arguments
    ---------
    *args : tuple
        As for ``EncoderASR``.
    window_s : float
        Length of a window in seconds.
    context_s : float
        Least distance of a kept frame from a cut, in seconds. A window costs
        ``window_s / (window_s - 2 * context_s)`` times its share of the
        recording.
    **kwargs : dict
        As for ``EncoderASR``.

    Example
    -------
    >>> from functools import partial
    >>> from speechbrain.decoders import ctc_greedy_decode
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead, FramePosteriors
    >>> backbone, head = Backbone.from_preset("tiny"), FrameHead(16, 4)
    >>> asr = LongFormASR(
    ...     {"encoder": FramePosteriors(backbone, head)},
    ...     {
    ...         "tokenizer": CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0),
    ...         "decoding_function": partial(ctc_greedy_decode, blank_id=0),
    ...     },
    ...     window_s=0.5,
    ...     context_s=0.1,
    ... )
    >>> asr.transcribe_long(torch.randn(32000)).duration_s
    2.0
    """

    def __init__(self, *args, window_s=30.0, context_s=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        if not isinstance(self.decoding_function, functools.partial):
            raise ValueError(
                "decoding_function: expected !name:speechbrain.decoders."
                "ctc_greedy_decode, as long recordings are decoded greedily; "
                f"got {type(self.decoding_function).__name__}"
            )
        self.window_s, self.context_s = window_s, context_s
        self.sample_rate = self.audio_normalizer.sample_rate
        holders = [
            module
            for module in self.mods.encoder.modules()
            if isinstance(
                getattr(module, "feature_extractor", None), FeatureExtractor
            )
        ]
        if len(holders) != 1:
            raise ValueError(
                "encoder: expected a module with one Backbone; got "
                f"{len(holders)}"
            )
        # In a tuple: SpeechBrain's object would register it a second time
        self._backbones = tuple(holders)
        extractor = holders[0].feature_extractor
        self._convs = extractor.kernels, extractor.strides
        self._stride = math.prod(extractor.strides)
        self._field = receptive_field(*self._convs)

    def transcribe_long(self, source, on_progress=None):
        """Transcribes a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that soundfile reads, or a waveform at the model's rate,
            [N].
        on_progress : callable, optional
            Called with the seconds that each window adds.

        Returns
        -------
        Transcript
            Text, words and length.

        Raises
        ------
        RecordingError
            When the recording cannot be used.
        """
        words, decoder = [], self._decoder()
        moments = self._moments(source)
        for piece in self._pieces(source, moments):
            words += decoder.push(piece)
            if on_progress is not None:
                on_progress(len(piece) * decoder.frame_s)
        words += decoder.finish()
        duration_s = moments.num_samples / self.sample_rate
        return Transcript(decoder.join(words), tuple(words), duration_s)

    def transcribe_stream(self, source):
        """Transcribes a recording of any length, word by word.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.

        Yields
        ------
        Word
            The next word, as soon as a window has shown where it ends.
        """
        decoder = self._decoder()
        for piece in self.iter_log_probs(source):
            yield from decoder.push(piece)
        yield from decoder.finish()

    def log_probs(self, source):
        """Computes the log-posteriors of a whole recording.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.

        Returns
        -------
        torch.Tensor
            Log-posteriors, [T, V], on the CPU.
        """
        return torch.cat(list(self.iter_log_probs(source)))

    def iter_log_probs(self, source):
        """Yields the log-posteriors of a recording, window by window.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.

        Yields
        ------
        torch.Tensor
            Those of the next frames, [T, V], on the CPU. All together are
            one row for each frame of the recording.
        """
        yield from self._pieces(source, self._moments(source))

    def transcribe_files(self, paths, batch_seconds=60.0, on_progress=None):
        """Transcribes many files, those of like length together.

        A file gives the same transcript alone and in any batch (not under
        fairseq's ``mask_rule``, see ``Backbone``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that soundfile reads.
        batch_seconds : float
            Most seconds of audio in a batch, padding included. A file that
            is longer than this or than a window goes alone.
        on_progress : callable, optional
            Called with the seconds that each batch or window adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first.
        result : Transcript or RecordingError
            What is said, or why the file cannot be used.
        """
        lengths, longest = [], min(self.window_s, batch_seconds)
        for path in paths:
            try:
                lengths.append((duration_s(path), path))
            except RecordingError as error:
                yield path, error
        lengths.sort(key=lambda pair: pair[0])
        short = [pair for pair in lengths if pair[0] <= longest]
        for batch in _batches(short, batch_seconds):
            yield from self._transcribe_batch(batch)
            if on_progress is not None:
                on_progress(sum(seconds for seconds, _ in batch))
        for _, path in lengths[len(short) :]:
            try:
                yield path, self.transcribe_long(path, on_progress)
            except RecordingError as error:
                yield path, error

    def _transcribe_batch(self, batch):
        """Transcripts or errors of files that go through together."""
        paths, wavs = [], []
        for _, path in batch:
            try:
                wavs.append(self._read(path).to(self.device))
            except RecordingError as error:
                yield path, error
            else:
                paths.append(path)
        if not wavs:
            return
        frame_s = self._stride / self.sample_rate
        for path, wav, row in zip(paths, wavs, self._encode(wavs)):
            seconds = len(wav) / self.sample_rate
            made = greedy_transcript(row, self.tokenizer, frame_s, seconds)
            yield path, made

    def _read(self, path):
        """A whole recording, [N]."""
        blocks = list(read_blocks(path, self.audio_normalizer))
        self._check_length(path, sum(map(len, blocks)))
        return torch.cat(blocks)

    def _moments(self, source):
        """Reads a recording for its length and statistics."""
        kernels, strides = self._convs
        moments = Moments(kernels[0], strides[0])
        for block in read_blocks(source, self.audio_normalizer):
            moments.add(block)
        self._check_length(source, moments.num_samples)
        return moments

    def _check_length(self, source, num_samples):
        """Raises when a recording has no frame."""
        if num_samples < self._field:
            name = "waveform" if isinstance(source, torch.Tensor) else source
            raise RecordingError(
                f"{name}: too short, expected at least {self._field} samples "
                f"at {self.sample_rate} Hz, got {num_samples}"
            )

    def _pieces(self, source, moments):
        """Log-posteriors window by window.

        The statistics are set for each window, not around the loop: between
        two of them the caller may use the model for something else.
        """
        frames, context = (
            round(seconds * self.sample_rate / self._stride)
            for seconds in (self.window_s, self.context_s)
        )
        windows = plan_windows(
            moments.num_samples, frames, context, self._stride, self._field
        )
        blocks = read_blocks(source, self.audio_normalizer)
        for window, wav in cut_windows(windows, blocks):
            if len(windows) == 1:
                (piece,) = self._encode([wav.to(self.device)])
            else:
                with statistics_of_whole(self._backbones[0], moments) as ready:
                    (piece,) = self._encode([ready(wav.to(self.device))])
            yield piece[window.kept]

    def _encode(self, wavs):
        """Log-posteriors of each waveform's own frames, on the CPU."""
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        wav_lens = counts / padded.shape[1]
        with torch.no_grad(), self.inference_ctx:
            rows = self.encode_batch(padded, wav_lens).float().cpu()
        frames = conv_lengths(counts, *self._convs).tolist()
        return [row[:n] for row, n in zip(rows, frames)]

    def _decoder(self):
        """A decoder of words for this model's tokenizer and frames."""
        return WordDecoder(self.tokenizer, self._stride / self.sample_rate)


def _batches(lengths, batch_seconds):
    """Groups (seconds, path) pairs, shortest first, to a padded length."""
    batch = []
    for seconds, path in lengths:
        if batch and seconds * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append((seconds, path))
    if batch:
        yield batch
