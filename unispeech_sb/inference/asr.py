"""Speech recognition of long recordings and of many files.

On top of SpeechBrain's ``EncoderASR``, from the same folders. A long
recording goes through the model in overlapping windows whose log-posteriors
are stitched; several windows are a batch, of one recording or of many.
"""

import itertools

import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.decoding import BeamWordDecoder, Transcript, WordDecoder
from unispeech_sb.inference.batches import length_batches
from unispeech_sb.inference.encoding import WindowEncoder
from unispeech_sb.inference.recordings import duration_s
from unispeech_sb.inference.switching import SwitchableASR
from unispeech_sb.nnet.frontend import FeatureExtractor


class LongFormASR(SwitchableASR):
    """CTC recognition of recordings of any length.

    Loads with ``from_hparams`` what ``EncoderASR`` loads, where the module
    ``encoder`` holds a ``Backbone``, and has its methods too. Recordings up
    to ``window_s`` go through the model at once, as in ``transcribe_file``.

    How a longer one is cut changes only how much of its surroundings a frame
    hears: ``context_s`` at least on both sides. A model that hears no further
    gives the same log-posteriors however it is cut, within 1e-3 on logits of
    +-20; one that attends further changes a little. For that, what a model
    normalises over time (the waveform, and the first convolution of Base
    models) is normalised by statistics of the whole recording; ``output_norm``
    stays one of each window. The backbone is changed while windows run, so
    one object cannot serve several threads.

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
        As for ``SwitchableASR``.

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

    def __init__(self, *args, window_s=30.0, context_s=0.75, **kwargs):
        super().__init__(*args, **kwargs)
        self.window_s, self.context_s = window_s, context_s
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
        self._windows = WindowEncoder(
            holders[0],
            self._encode,
            self.audio_normalizer,
            window_s,
            context_s,
        )

    def transcribe_long(self, source, batch_seconds=30.0, on_progress=None):
        """Transcribes a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that soundfile reads, or a waveform at the model's rate,
            [N].
        batch_seconds : float
            Most seconds of windows that go through the model together, one
            at least. More is faster on a GPU, not on a CPU.
        on_progress : callable, optional
            Called with the seconds that each window adds.

        Returns
        -------
        Transcript
            Text, words and length.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        """
        stretches = self._windows.cut(source)
        rows = self._windows.encode_all(stretches, batch_seconds)
        return self._transcript(rows, on_progress)

    def transcribe_stream(self, source, on_partial=None):
        """Transcribes a recording of any length, word by word.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        on_partial : callable, optional
            Called after each window with the text that is not final yet: the
            word, or with beam search the words, that the next windows may
            change.

        Yields
        ------
        Word
            The next word, as soon as a window has shown where it ends.
        """
        decoder = self._decoder()
        for piece in self.iter_log_probs(source, self.window_s):
            yield from decoder.push(piece)
            if on_partial is not None:
                on_partial(decoder.join(decoder.partial()))
        yield from decoder.finish()

    def log_probs(self, source, batch_seconds=30.0):
        """Computes the log-posteriors of a whole recording.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        batch_seconds : float
            As for ``transcribe_long``.

        Returns
        -------
        torch.Tensor
            Log-posteriors, [T, V], on the CPU.
        """
        return torch.cat(list(self.iter_log_probs(source, batch_seconds)))

    def iter_log_probs(self, source, batch_seconds=30.0):
        """Yields the log-posteriors of a recording, window by window.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        batch_seconds : float
            As for ``transcribe_long``.

        Yields
        ------
        torch.Tensor
            Those of the next frames, [T, V], on the CPU. All together are
            one row for each frame of the recording.
        """
        stretches = self._windows.cut(source)
        for _, piece in self._windows.encode_all(stretches, batch_seconds):
            yield piece

    def transcribe_files(self, paths, batch_seconds=30.0, on_progress=None):
        """Transcribes many files, several at a time.

        Files of like length that need no windows go through the model
        together, and so do the windows of long ones. A file gives the same
        transcript alone and in any batch (not under fairseq's ``mask_rule``,
        see ``Backbone``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that soundfile reads.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, or one
            window.
        on_progress : callable, optional
            Called with the seconds that each batch or window adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : Transcript or AudioError
            What is said, or why the file cannot be used.
        """
        lengths, longest = [], min(self.window_s, batch_seconds)
        for path in paths:
            try:
                lengths.append((duration_s(path), path))
            except AudioError as error:
                yield path, error
        lengths.sort(key=lambda pair: pair[0])
        short = [pair for pair in lengths if pair[0] <= longest]
        for batch in length_batches(short, batch_seconds):
            yield from self._transcribe_short(batch)
            if on_progress is not None:
                on_progress(sum(seconds for seconds, _ in batch))
        long = [path for _, path in lengths[len(short) :]]
        yield from self._transcribe_long(long, batch_seconds, on_progress)

    def _transcribe_short(self, batch):
        """Transcripts or errors of files that go through together."""
        paths, wavs = [], []
        for _, path in batch:
            try:
                wavs.append(self._windows.read(path))
            except AudioError as error:
                yield path, error
            else:
                paths.append(path)
        if not wavs:
            return
        rows = self._windows.encode_whole(wavs)
        for path, wav, row in zip(paths, wavs, rows):
            decoder = self._decoder()
            words = [*decoder.push(row), *decoder.finish()]
            seconds = len(wav) / self.audio_normalizer.sample_rate
            text = decoder.join(words)
            yield path, Transcript(text, tuple(words), seconds)

    def _transcribe_long(self, paths, batch_seconds, on_progress):
        """Transcripts or errors of files whose windows go through together."""
        errors = []

        def stretches():
            for path in paths:
                try:
                    yield from self._windows.cut(path)
                except AudioError as error:
                    errors.append((path, error))

        rows = self._windows.encode_all(stretches(), batch_seconds)
        for _, own in itertools.groupby(rows, key=lambda row: row[0].moments):
            first = next(own)
            own = itertools.chain([first], own)
            result = self._transcript(own, on_progress)
            if result is not None:
                yield first[0].source, result
        yield from errors

    def _transcript(self, rows, on_progress):
        """What is said in windows; None where the last ones are missing."""
        words, decoder = [], self._decoder()
        for stretch, log_probs in rows:
            words += decoder.push(log_probs)
            samples, is_whole = stretch.moments.num_samples, stretch.is_last
            if on_progress is not None:
                on_progress(len(log_probs) * decoder.frame_s)
        if not is_whole:
            return None
        words += decoder.finish()
        seconds = samples / self.audio_normalizer.sample_rate
        return Transcript(decoder.join(words), tuple(words), seconds)

    def _encode(self, wavs, wav_lens):
        """Log-posteriors of a batch, [B, T, V]."""
        with torch.no_grad(), self.inference_ctx:
            return self.encode_batch(wavs, wav_lens)

    def _decoder(self):
        """A decoder of words for this model's tokenizer and frames."""
        frame_s = self._windows.frame_s
        if self.decodes_greedily:
            return WordDecoder(self.tokenizer, frame_s)
        return BeamWordDecoder(self.decoding_function.search, frame_s)
