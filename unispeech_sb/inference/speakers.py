"""Speaker verification of recordings of any length, and of many files.

On top of SpeechBrain's ``SpeakerRecognition``, from the same folders, with
the threshold that a folder's calibration gives.
"""

import math

import torch
from speechbrain.inference.speaker import SpeakerRecognition
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.batches import (
    even_windows,
    groups,
    length_batches,
)
from unispeech_sb.inference.recordings import duration_s, read_blocks
from unispeech_sb.inference.voices import (
    Decision,
    MeanVoice,
    Voice,
    cosine,
    fault_of,
    pair_quality,
)


class SpeakerVerification(SpeakerRecognition):
    """Tells whether two recordings are of one speaker.

    Loads with ``from_hparams`` what ``SpeakerRecognition`` loads, and has its
    methods too. Those decide at a cosine of 0.25, whatever the model;
    ``verify`` decides as the folder's calibration says.

    A recording up to ``window_s`` goes through the model at once. A longer
    one is cut into windows of one length; its embedding has the direction of
    the mean of theirs, each of norm 1 and weighted by its length, and the
    mean of their norms.

    The level of a recording does not matter, as each is first scaled to one
    level, that of usual speech. Without that it does: a model that hears raw
    waveforms, as most Base models do, changes its mind on quiet ones, and
    even one with ``normalize_wav`` does where their variance comes near
    ``normalize_eps``. SpeechBrain's methods take waveforms as they are; at
    usual levels the cosines agree within 1e-3, but for a model with
    ``feat_extract_norm: layer`` and without ``normalize_wav``.

    Arguments
    ---------
    *args : tuple
        As for ``SpeakerRecognition``.
    window_s : float
        Most seconds that go through the model at once.
    rms : float or None
        Root mean square that recordings and windows are scaled to; None
        takes them as they are.
    **kwargs : dict
        As for ``SpeakerRecognition``.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import (
    ...     PassThrough,
    ...     SpeakerHead,
    ...     UtteranceEncoder,
    ... )
    >>> from unispeech_sb.metrics.calibration import Calibration
    >>> head = SpeakerHead(16, [8], [1], [1], xvector_output_dim=4)
    >>> encoder = UtteranceEncoder(Backbone.from_preset("tiny"), head)
    >>> verification = SpeakerVerification(
    ...     {
    ...         "compute_features": PassThrough(),
    ...         "mean_var_norm": PassThrough(),
    ...         "embedding_model": encoder,
    ...     },
    ...     {"calibration": Calibration(scale=10.0, offset=-5.0)},
    ... )
    >>> wav = torch.randn(16000)
    >>> verification.verify(wav, wav)
    Decision(score=1.0, llr=5.0, same=True, threshold=0.5)
    """

    def __init__(self, *args, window_s=30.0, rms=0.05, **kwargs):
        super().__init__(*args, **kwargs)
        if not window_s > 0:
            raise ValueError(
                f"window_s: expected more than 0 seconds; got {window_s}"
            )
        self.window_s, self.rms = window_s, rms
        self.calibration = getattr(self.hparams, "calibration", None)

    def embed(self, source, batch_seconds=60.0, on_progress=None):
        """Computes the embedding of a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that soundfile reads, or a waveform at the model's rate,
            [N].
        batch_seconds : float
            Most seconds of windows that go through the model together, one
            window at least.
        on_progress : callable, optional
            Called with the seconds that each batch adds.

        Returns
        -------
        Voice
            Embedding and length.

        Raises
        ------
        AudioError
            When the recording cannot be used: see ``read_blocks``; or when it
            is silent, or too short for the model.
        """
        seconds = self._seconds(source)
        if seconds <= self.window_s:
            wav = self._read(source)
            (result,) = self._voices([(source, wav)])
            if isinstance(result, AudioError):
                raise result
            if on_progress is not None:
                on_progress(seconds)
            return result
        return self._embed_windows(source, seconds, batch_seconds, on_progress)

    def embed_files(self, paths, batch_seconds=60.0, on_progress=None):
        """Computes the embeddings of many files, several at a time.

        Files of like length go through the model together, and so do the
        windows of a long one. A file gives the same alone and in any batch
        (not under ``tdnn_lengths: hf``, nor fairseq's ``mask_rule``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that soundfile reads.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, one file or
            window at least.
        on_progress : callable, optional
            Called with the seconds that each batch adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : Voice or AudioError
            The voice, or why the file cannot be used.
        """
        lengths = []
        for path in paths:
            try:
                lengths.append((duration_s(path), path))
            except AudioError as error:
                yield path, error
        lengths.sort(key=lambda pair: pair[0])
        short = [pair for pair in lengths if pair[0] <= self.window_s]
        for batch in length_batches(short, batch_seconds):
            yield from self._embed_batch([path for _, path in batch])
            if on_progress is not None:
                on_progress(sum(seconds for seconds, _ in batch))
        for _, path in lengths[len(short) :]:
            try:
                yield path, self.embed(path, batch_seconds, on_progress)
            except AudioError as error:
                yield path, error

    def enroll(self, sources):
        """Joins recordings of one speaker.

        Arguments
        ---------
        sources : iterable of str, path-like, torch.Tensor or Voice
            As ``embed`` takes them, or what it gave; at least one.

        Returns
        -------
        Voice
            The direction of the mean of the embeddings, which count alike;
            the mean of their norms; all seconds together.

        Raises
        ------
        AudioError
            When a recording cannot be used.
        ValueError
            When there is none.
        """
        mean = MeanVoice()
        for source in sources:
            voice = self._voice(source)
            mean.add(voice.vector[None], torch.ones(1), voice.duration_s)
        if not mean.weight:
            raise ValueError(
                "enroll: expected at least one recording; got none"
            )
        return mean.voice("enroll")

    def score(self, left, right):
        """Compares two voices.

        Arguments
        ---------
        left : str, path-like, torch.Tensor or Voice
            As ``embed`` takes it, or what it or ``enroll`` gave.
        right : str, path-like, torch.Tensor or Voice
            The same.

        Returns
        -------
        float
            Cosine, -1 to 1; the same for ``right`` and ``left``.

        Raises
        ------
        AudioError
            When a recording cannot be used.
        """
        return cosine(self._voice(left), self._voice(right))

    def verify(self, left, right, p_target=None, threshold=None):
        """Decides whether two voices are of one speaker.

        Arguments
        ---------
        left : str, path-like, torch.Tensor or Voice
            As ``embed`` takes it, or what it or ``enroll`` gave.
        right : str, path-like, torch.Tensor or Voice
            The same.
        p_target : float, optional
            How probable one speaker is before they are heard, in (0, 1): the
            threshold is the calibration's for it, and for 0.5 when omitted.
        threshold : float, optional
            Least cosine of one speaker, in place of the calibration's.

        Returns
        -------
        Decision
            Score, log-likelihood ratio, decision, threshold.

        Raises
        ------
        AudioError
            When a recording cannot be used.
        ValueError
            When there is neither a calibration nor a threshold, or
            ``p_target`` is given with a threshold.
        """
        if threshold is None and self.calibration is None:
            raise ValueError(
                "verify: expected a threshold, as this folder has no "
                "calibration; SpeechBrain's verify_files decides at 0.25, "
                "which suits few models"
            )
        if threshold is not None and p_target is not None:
            raise ValueError("verify: expected p_target or threshold, got both")
        voices = self._voice(left), self._voice(right)
        score, llr = cosine(*voices), None
        if self.calibration is not None:
            quality = pair_quality(
                self.calibration,
                [[voice.duration_s] for voice in voices],
                [[voice.magnitude] for voice in voices],
            )
            (llr,) = self.calibration.llr([score], quality).tolist()
        if threshold is None:
            limit = self.calibration.threshold(
                0.5 if p_target is None else p_target, quality=quality
            )
            threshold = float(torch.as_tensor(limit).reshape(()))
        return Decision(score, llr, score >= threshold, float(threshold))

    def _voice(self, source):
        """A voice, embedded where it is not one already."""
        return source if isinstance(source, Voice) else self.embed(source)

    def _seconds(self, source):
        """Length of a recording, without reading it."""
        if isinstance(source, torch.Tensor):
            return source.shape[-1] / self.audio_normalizer.sample_rate
        return duration_s(source)

    def _read(self, source):
        """A whole recording, [N]."""
        wav = torch.cat(list(read_blocks(source, self.audio_normalizer)))
        if _is_silent(wav):
            raise AudioError(f"{_name(source)}: all silent")
        return wav

    def _embed_batch(self, paths):
        """Voices or errors of files that go through the model together."""
        pairs = []
        for path in paths:
            try:
                pairs.append((path, self._read(path)))
            except AudioError as error:
                yield path, error
        results = self._voices(pairs) if pairs else []
        for (path, _), result in zip(pairs, results, strict=True):
            yield path, result

    def _voices(self, pairs):
        """Voices of whole recordings, or what the model finds wrong."""
        rate = self.audio_normalizer.sample_rate
        try:
            vectors = self._vectors([wav for _, wav in pairs])
        except ValueError as error:
            if len(pairs) == 1:
                return [AudioError(f"{_name(pairs[0][0])}: {error}")]
            # One of them spoils the batch: each by itself tells which
            return [self._voices([pair])[0] for pair in pairs]
        results = []
        for (source, wav), vector in zip(pairs, vectors, strict=True):
            voice = Voice(vector, len(wav) / rate)
            error = fault_of(voice, _name(source))
            results.append(voice if error is None else error)
        return results

    def _embed_windows(self, source, seconds, batch_seconds, on_progress):
        """The voice of a recording that is heard window by window."""
        rate = self.audio_normalizer.sample_rate
        count = math.ceil(seconds / self.window_s)
        size = math.ceil(seconds * rate / count)
        most = max(1, int(batch_seconds * rate / size + 1e-6))
        windows = even_windows(
            read_blocks(source, self.audio_normalizer), size, count
        )
        mean = MeanVoice()
        for batch in groups(windows, most):
            heard = [wav for wav in batch if not _is_silent(wav)]
            if heard:
                lengths = torch.tensor([len(wav) / rate for wav in heard])
                vectors = self._vectors(heard)
                mean.add(vectors, lengths, lengths.sum().item())
            if on_progress is not None:
                on_progress(sum(map(len, batch)) / rate)
        if not mean.weight:
            raise AudioError(f"{_name(source)}: all silent")
        return mean.voice(_name(source))

    def _vectors(self, wavs):
        """Embeddings of a batch, float32, on the CPU, [B, D]."""
        counts = torch.tensor([len(wav) for wav in wavs])
        if self.rms is not None:
            wavs = [_scaled(wav.float().cpu(), self.rms) for wav in wavs]
        padded = pad_sequence(wavs, batch_first=True)
        with torch.no_grad(), self.inference_ctx:
            found = self.encode_batch(padded, counts / padded.shape[1])
        return found[:, 0].float().cpu()


def _name(source):
    """What an error calls a recording."""
    return "waveform" if isinstance(source, torch.Tensor) else source


def _scaled(wav, rms):
    """A waveform at another level, in float64 as rounding depends on it."""
    wide = wav.double()
    return (wide * (rms / wide.square().mean().sqrt())).float()


def _is_silent(wav):
    """Whether all samples are the same; not where one is NaN."""
    return len(wav) > 0 and bool(wav.min() == wav.max())
