"""Speaker verification of recordings of any length, and of many files.

On top of SpeechBrain's ``SpeakerRecognition``, from the same folders, with
the threshold that a folder's calibration gives.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain.inference.speaker import SpeakerRecognition
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import AudioError, attempt, naming
from unispeech_sb.inference.audio_blocks import (
    Reading,
    Source,
    ahead,
    as_source,
    check_batch_seconds,
    check_list,
    load_audio,
    padded_batches,
    read_blocks,
    run_files,
    seconds_of,
    source_name,
)
from unispeech_sb.inference.loading import CheckedFolder, expect_exportable
from unispeech_sb.inference.sliding_window import SlidingWindow
from unispeech_sb.lobes.heads import UtteranceEncoder
from unispeech_sb.metrics.calibration import Calibration, quality_measures
from unispeech_sb.metrics.verification import Scores


class SpeakerEmbedding(NamedTuple):
    """Embedding of a speaker, float32, [D], and the seconds that it is from.

    Only its direction is compared; its norm is a measure of quality.
    """

    vector: torch.Tensor
    duration_s: float

    @property
    def magnitude(self) -> float:
        """Norm of the embedding."""
        return self.vector.norm().item()

    def __repr__(self) -> str:
        """What a session shows: no numbers, of which there are many."""
        return (
            f"SpeakerEmbedding({len(self.vector)} numbers of norm "
            f"{self.magnitude:.4g}, {self.duration_s:.3g} s)"
        )


class Decision(NamedTuple):
    """What is decided of two embeddings.

    Arguments
    ---------
    score : float
        Cosine of the embeddings, -1 to 1.
    llr : float or None
        Natural log-likelihood ratio of one speaker against two; None without
        a calibration.
    same : bool
        Whether the score is at least the threshold.
    threshold : float
        Of the score.

    Example
    -------
    >>> Decision(score=0.8, llr=2.0, same=True, threshold=0.6).same
    True
    """

    score: float
    llr: float | None
    same: bool
    threshold: float


class SpeakerVerification(CheckedFolder, SpeakerRecognition):
    """Decides whether two recordings are of one speaker.

    Loads with ``from_hparams`` what ``SpeakerRecognition`` loads, and has its
    methods too. Those decide at a cosine of 0.25, whatever the model;
    ``verify`` decides by the folder's calibration.

    A recording up to ``window_s`` goes through the model at once. A longer
    one is cut into windows of one length; its embedding has the direction of
    the mean of theirs, each of norm 1 and weighted by its length, and the
    mean of their norms.

    The level of a recording does not matter, as each is first scaled to one
    level, that of usual speech. Without that it does: a model that takes raw
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

    MODULES_NEEDED = ["compute_features", "mean_var_norm", "embedding_model"]
    files_method = "embed_files"
    load_audio = load_audio

    def __init__(
        self,
        *args: Any,
        window_s: float = 30.0,
        rms: float | None = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not window_s > 0:
            raise ValueError(
                f"window_s: expected more than 0 seconds; got {window_s}"
            )
        self.window_s, self.rms = window_s, rms
        self.calibration = getattr(self.hparams, "calibration", None)

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        *args: Any,
        any_model: bool = False,
        **kwargs: Any,
    ) -> "SpeakerVerification":
        """Loads a pretrained folder, as ``CheckedFolder``.

        With ``any_model`` that of an ``EncoderClassifier``, such as a keyword
        spotter, too, whose embeddings are not of speakers.
        """
        others = ("EncoderClassifier",) if any_model else ()
        found = super().from_hparams(
            source, *args, other_kinds=others, **kwargs
        )
        if "embedding_model" not in found.mods:
            raise ValueError(
                f"{source}: expected a folder for SpeakerRecognition, with "
                f"the module embedding_model; got {', '.join(found.mods)}"
            )
        return found

    def encode_batch(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        normalize: bool = False,
    ) -> torch.Tensor:
        """As ``SpeakerRecognition``, in the ``precision`` of ``run_opts``."""
        with self.inference_ctx:
            return super().encode_batch(wavs, wav_lens, normalize)

    def embed(
        self,
        source: Source,
        batch_seconds: float = 60.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> SpeakerEmbedding:
        """Computes the embedding of a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that ``read_audio`` reads, or a waveform at the model's rate,
            [N].
        batch_seconds : float
            Most seconds of windows that go through the model together, one
            window at least.
        on_progress : callable, optional
            Called with the seconds that each batch adds.

        Returns
        -------
        SpeakerEmbedding
            Embedding and length.

        Raises
        ------
        AudioError
            When the recording cannot be used: see ``read_blocks``; or when it
            is silent, or too short for the model.
        """
        source = as_source(source)
        check_batch_seconds(batch_seconds)
        with naming(source_name(source)):
            seconds = self._seconds(source)
            if seconds > self.window_s:
                return self._embed_windows(
                    source, seconds, batch_seconds, on_progress
                )
            (result,) = self._embed_batch([(source, self._read(source))])
            if isinstance(result, AudioError):
                raise result
            if on_progress is not None:
                on_progress(seconds)
            return result

    def embed_files(
        self,
        paths: Iterable[str | Path],
        batch_seconds: float = 60.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> Iterator[tuple[str | Path, SpeakerEmbedding | AudioError]]:
        """Computes the embeddings of many files, several at a time.

        Files of similar length go through the model together, and so do the
        windows of a long one. A file gives the same alone and in any batch
        (not under ``tdnn_lengths: hf``, nor fairseq's ``mask_rule``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that ``read_audio`` reads.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, one file or
            window at least.
        on_progress : callable, optional
            Called with the seconds that each batch adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : SpeakerEmbedding or AudioError
            The embedding, or why the file cannot be used.
        """
        return run_files(
            paths,
            self._read,
            self._embed_batch,
            partial(
                self._embed_long,
                batch_seconds=batch_seconds,
                on_progress=on_progress,
            ),
            self.window_s,
            batch_seconds,
            on_progress,
            Reading(self._seconds, self.workers),
        )

    def enroll(
        self, sources: Iterable[Source | SpeakerEmbedding]
    ) -> SpeakerEmbedding:
        """Joins recordings of one speaker.

        Arguments
        ---------
        sources : iterable of str, path-like, Tensor or SpeakerEmbedding
            As ``embed`` takes them, or what it gave; at least one.

        Returns
        -------
        SpeakerEmbedding
            The direction of the mean of the embeddings, which count alike;
            the mean of their norms; all seconds together.

        Raises
        ------
        AudioError
            When a recording cannot be used.
        ValueError
            When there is none.
        """
        averager = EmbeddingAverager()
        check_list(sources)
        for source in sources:
            one = self._embedding(source)
            averager.add(one.vector[None], torch.ones(1), one.duration_s)
        if not averager.weight:
            raise ValueError(
                "enroll: expected at least one recording; got none"
            )
        return averager.mean("enroll")

    def score(
        self, left: Source | SpeakerEmbedding, right: Source | SpeakerEmbedding
    ) -> float:
        """Compares two speakers.

        Arguments
        ---------
        left : str, path-like, torch.Tensor or SpeakerEmbedding
            As ``embed`` takes it, or what it or ``enroll`` gave.
        right : str, path-like, torch.Tensor or SpeakerEmbedding
            The other speaker, in any of these forms.

        Returns
        -------
        float
            Cosine, -1 to 1; the same for ``right`` and ``left``.

        Raises
        ------
        AudioError
            When a recording cannot be used.
        """
        return cosine(self._embedding(left), self._embedding(right))

    def verify(
        self,
        left: Source | SpeakerEmbedding,
        right: Source | SpeakerEmbedding,
        p_target: float | None = None,
        threshold: float | None = None,
    ) -> Decision:
        """Decides whether two embeddings are of one speaker.

        Arguments
        ---------
        left : str, path-like, torch.Tensor or SpeakerEmbedding
            As ``embed`` takes it, or what it or ``enroll`` gave.
        right : str, path-like, torch.Tensor or SpeakerEmbedding
            The other speaker, in any of these forms.
        p_target : float, optional
            Prior probability of one speaker, in (0, 1): the threshold is the
            calibration's for it, and for 0.5 when omitted.
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
        _check_number("p_target", p_target)
        _check_number("threshold", threshold)
        if threshold is not None and p_target is not None:
            raise ValueError("verify: expected p_target or threshold, got both")
        pair = self._embedding(left), self._embedding(right)
        score, llr = cosine(*pair), None
        if self.calibration is not None:
            quality = pair_quality(
                self.calibration,
                [[one.duration_s] for one in pair],
                [[one.magnitude] for one in pair],
            )
            (llr,) = self.calibration.llr([score], quality).tolist()
        if threshold is None:
            assert self.calibration is not None
            limit = self.calibration.threshold(
                0.5 if p_target is None else p_target, quality=quality
            )
            threshold = float(torch.as_tensor(limit).reshape(()))
        return Decision(score, llr, score >= threshold, float(threshold))

    @property
    def exportable(self) -> UtteranceEncoder:
        """Waveforms to vectors."""
        return expect_exportable(self.mods.embedding_model, UtteranceEncoder)

    def _embedding(self, source):
        """An embedding, computed where it is not one already."""
        if isinstance(source, SpeakerEmbedding):
            return source
        return self.embed(source)

    def _seconds(self, source):
        """Length of a recording, without reading it."""
        return seconds_of(source, self.audio_normalizer.sample_rate)

    def _read(self, source):
        """A whole recording, [N]."""
        wav = torch.cat(list(read_blocks(source, self.audio_normalizer)))
        if not len(wav):
            raise AudioError(f"{source_name(source)}: the recording is empty")
        if _is_silent(wav):
            raise AudioError(f"{source_name(source)}: all silent")
        return wav

    def _embed_batch(self, pairs):
        """Embeddings of whole recordings, or why they have no direction."""
        rate = self.audio_normalizer.sample_rate
        vectors = self._vectors([wav for _, wav in pairs])
        results = []
        for (source, wav), vector in zip(pairs, vectors, strict=True):
            found = SpeakerEmbedding(vector, len(wav) / rate)
            name = source_name(source)
            results.append(attempt(name, validate_embedding, found, name))
        return results

    def _embed_long(self, paths, batch_seconds, on_progress):
        """Embeddings or errors of files that are cut into windows."""
        for path in paths:
            options = path, batch_seconds, on_progress
            yield path, attempt(path, self.embed, *options)

    def _embed_windows(self, source, seconds, batch_seconds, on_progress):
        """The embedding of a recording by windows of one length."""
        rate = self.audio_normalizer.sample_rate
        count = math.ceil(seconds / self.window_s)
        size = math.ceil(seconds * rate / count)
        most = max(1, int(batch_seconds * rate / size + 1e-6))
        blocks = read_blocks(source, self.audio_normalizer)
        windows = SlidingWindow.offline(size, moves_back=False).cut(
            ahead(blocks, self.workers), hop=1
        )
        averager = EmbeddingAverager()
        wavs = (wav for _, wav in windows)
        for batch in padded_batches(wavs, len, most * size):
            loud = [wav for wav in batch if not _is_silent(wav)]
            if loud:
                lengths = torch.tensor([len(wav) / rate for wav in loud])
                vectors = self._vectors(loud)
                averager.add(vectors, lengths, lengths.sum().item())
            if on_progress is not None:
                on_progress(sum(map(len, batch)) / rate)
        if not averager.weight:
            raise AudioError(f"{source_name(source)}: all silent")
        return averager.mean(source_name(source))

    def _vectors(self, wavs):
        """Embeddings of a batch, float32, on the CPU, [B, D]."""
        counts = torch.tensor([len(wav) for wav in wavs])
        if self.rms is not None:
            wavs = [_scaled(wav.float().cpu(), self.rms) for wav in wavs]
        padded = pad_sequence(wavs, batch_first=True)
        with torch.no_grad():
            found = self.encode_batch(padded, counts / padded.shape[1])
        return found[:, 0].float().cpu()


def _scaled(wav, rms):
    """A waveform at another level, in float64 as rounding depends on it."""
    wide = wav.double()
    return (wide * (rms / wide.square().mean().sqrt())).float()


def _check_number(name, value):
    """Refuses what is neither a number nor None."""
    number = value is None or isinstance(value, Real)
    if not number or value != value:  # NaN
        raise ValueError(f"{name}: expected a number; got {value!r:.60}")


def _is_silent(wav):
    """Whether all samples are the same; not where one is NaN."""
    return bool(wav.min() == wav.max() < math.inf)


class EmbeddingAverager:
    """Averages embeddings: the mean of their directions and of their norms."""

    def __init__(self) -> None:
        self.directions = torch.zeros((), dtype=torch.float64)
        self.weight = self.magnitude = self.seconds = 0.0

    def add(
        self, vectors: torch.Tensor, weights: torch.Tensor, seconds: float
    ) -> None:
        """Adds embeddings, [B, D], with weights, [B], and seconds."""
        vectors, weights = vectors.double(), weights.double()
        norms = vectors.norm(dim=1)
        # One without a direction becomes NaN, and so does the mean
        self.directions = self.directions + weights @ (vectors / norms[:, None])
        self.magnitude += float(weights @ norms)
        self.weight += float(weights.sum())
        self.seconds += seconds

    def mean(self, name: str | Path) -> SpeakerEmbedding:
        """The mean; an ``AudioError`` with the name if it has no direction."""
        direction = self.directions / self.directions.norm()
        vector = direction * self.magnitude / self.weight
        return validate_embedding(
            SpeakerEmbedding(vector.float(), self.seconds), name
        )


def validate_embedding(
    embedding: SpeakerEmbedding, name: str | Path
) -> SpeakerEmbedding:
    """Gives an embedding back; an ``AudioError`` if it has no direction."""
    if 0 < embedding.magnitude < math.inf:
        return embedding
    raise AudioError(
        f"{name}: expected an embedding with a direction; its norm is "
        f"{embedding.magnitude:g}"
    )


def cosine(left: SpeakerEmbedding, right: SpeakerEmbedding) -> float:
    """Cosine of two embeddings, in float64: exactly 1 for one vector."""
    one, other = left.vector.double(), right.vector.double()
    norms = one.square().sum() * other.square().sum()
    return max(-1.0, min(1.0, ((one * other).sum() / norms.sqrt()).item()))


def pair_quality(
    calibration: Calibration,
    durations: Sequence[Scores],
    magnitudes: Sequence[Scores],
) -> dict[str, np.ndarray] | None:
    """The quality measures, [N] each, that a calibration takes; None for none.

    ``durations`` (seconds) and ``magnitudes`` (norms) are pairs of [N].
    """
    if not calibration.quality:
        return None
    measures = quality_measures(
        (durations[0], durations[1]), (magnitudes[0], magnitudes[1])
    )
    unknown = calibration.quality.keys() - measures.keys()
    if unknown:
        raise ValueError(
            "calibration: expected quality measures among "
            f"{', '.join(measures)}; got {', '.join(sorted(unknown))}"
        )
    return {name: measures[name] for name in calibration.quality}
