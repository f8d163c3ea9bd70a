"""Classification of utterances, many files at a time.

On top of SpeechBrain's ``EncoderClassifier``, from the same folders.
"""

import html
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.audio_blocks import (
    Reading,
    load_audio,
    read_blocks,
    run_files,
    seconds_of,
    source_name,
)
from unispeech_sb.inference.loading import CheckedFolder, expect_exportable
from unispeech_sb.lobes.heads import UtteranceEncoder
from unispeech_sb.nnet.losses import PROBLEM_TYPES
from unispeech_sb.text import notebook_html

_MOST_SHOWN = 10
"""Classes that a notebook shows."""
_BAR = 160
"""Pixels of a posterior of 1."""


class LabelScore(NamedTuple):
    """A class and its posterior probability, 0 to 1."""

    label: str
    posterior: float


class Classification(NamedTuple):
    """What a recording is.

    Arguments
    ---------
    classes : tuple of LabelScore
        The most probable classes, the first one first.
    duration_s : float
        Length of the recording in seconds.

    Example
    -------
    >>> found = Classification((LabelScore("yes", 0.9),), 1.0)
    >>> found.label, found.posterior
    ('yes', 0.9)
    """

    classes: tuple[LabelScore, ...]
    duration_s: float

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0].label

    @property
    def posterior(self) -> float:
        """The probability of that class."""
        return self.classes[0].posterior

    def _repr_html_(self):
        """What notebooks show: a bar for each of the first classes."""
        rows = [
            f'<tr><td dir="auto">{html.escape(label)}</td><td>'
            f'<svg width="{_BAR}" height="10" aria-hidden="true"><rect '
            f'height="10" width="{_BAR * posterior:.0f}" fill="#4c78a8"/></svg>'
            f"</td><td>{posterior:.1%}</td></tr>"
            for label, posterior in self.classes[:_MOST_SHOWN]
        ]
        left = len(self.classes) - len(rows)
        note = f"\u2026 and {left} more classes" if left else ""
        return notebook_html(f"<table>{''.join(rows)}</table>", note)


class UtteranceClassifier(CheckedFolder, EncoderClassifier):
    """Says which of a model's classes a recording is of.

    Loads with ``from_hparams`` what ``EncoderClassifier`` loads, and has its
    methods too. A recording goes through the model as a whole.

    Arguments
    ---------
    *args : tuple
        As for ``EncoderClassifier``.
    max_s : float
        Longest recording in seconds that is taken.
    **kwargs : dict
        As for ``EncoderClassifier``.

    Example
    -------
    >>> from unispeech_sb.dataio.labels import LabelEncoder
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import (
    ...     PassThrough,
    ...     UtteranceEncoder,
    ...     UtteranceHead,
    ...     UtterancePosteriors,
    ... )
    >>> head = UtteranceHead(16, num_classes=2, proj_size=8)
    >>> classifier = UtteranceClassifier(
    ...     {
    ...         "compute_features": PassThrough(),
    ...         "mean_var_norm": PassThrough(),
    ...         "embedding_model": UtteranceEncoder(
    ...             Backbone.from_preset("tiny"), head
    ...         ),
    ...         "classifier": UtterancePosteriors(head),
    ...     },
    ...     {"label_encoder": LabelEncoder.from_labels(["no", "yes"])},
    ... )
    >>> found = classifier(torch.randn(16000))
    >>> sorted(label for label, posterior in found.classes)
    ['no', 'yes']
    """

    files_method = "classify_files"
    load_audio = load_audio

    def __init__(self, *args: Any, max_s: float = 120.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not max_s > 0:
            raise ValueError(
                f"max_s: expected more than 0 seconds; got {max_s}"
            )
        self.max_s = max_s
        kind = getattr(self.mods.classifier, "problem_type", PROBLEM_TYPES[0])
        if kind == "regression":
            raise ValueError(
                "problem_type: expected classes; got regression, for which "
                "SpeechBrain's EncoderClassifier gives values"
            )

    def classify_files(
        self,
        paths: Iterable[str | Path],
        top_k: int | None = None,
        batch_seconds: float = 60.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> Iterator[tuple[str | Path, Classification | AudioError]]:
        """Classifies many files, several at a time.

        Files of similar length go through the model together. A file gives the
        same alone and in any batch (not under fairseq's ``mask_rule``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that ``read_audio`` reads.
        top_k : int, optional
            Most classes of each result, all when omitted.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, one file at
            least.
        on_progress : callable, optional
            Called with the seconds that each batch adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : Classification or AudioError
            The classes, or why the file cannot be used.

        Raises
        ------
        ValueError
            When ``top_k`` is less than 1.
        """
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k: expected 1 or more; got {top_k!r}")
        return run_files(
            paths,
            self._read,
            partial(self._classify, top_k),
            lambda long: [],  # none is above the limit below
            math.inf,
            batch_seconds,
            on_progress,
            Reading(self._seconds, self.workers),
        )

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes; None where the folder has none."""
        encoder = getattr(self.hparams, "label_encoder", None)
        if encoder is None:
            return None
        return [str(encoder.ind2lab[n]) for n in range(len(encoder.ind2lab))]

    @property
    def exportable(self) -> UtteranceEncoder:
        """Waveforms to vectors."""
        return expect_exportable(self.mods.embedding_model, UtteranceEncoder)

    def _seconds(self, source):
        """Length of a recording, without reading it."""
        return seconds_of(source, self.audio_normalizer.sample_rate)

    def _read(self, source):
        """A whole recording, [N]."""
        blocks, num_samples = [], 0
        most = self.max_s * self.audio_normalizer.sample_rate
        for block in read_blocks(source, self.audio_normalizer):
            blocks.append(block)
            num_samples += len(block)
            if num_samples > most:  # what a header says may not be there
                raise AudioError(
                    f"{source_name(source)}: expected an utterance of at most "
                    f"{self.max_s:g} s; got {self._seconds(source):.1f} s"
                )
        wav = torch.cat(blocks)
        if not len(wav):
            raise AudioError(f"{source_name(source)}: the recording is empty")
        silent = not wav.any()
        encoder = self.mods.embedding_model
        if silent and not getattr(encoder, "allow_silence", True):
            raise AudioError(f"{source_name(source)}: all silent")
        return wav

    def _classify(self, top_k, pairs):
        """Classes of recordings that are one batch."""
        wavs = [wav for _, wav in pairs]
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        with torch.no_grad(), self.inference_ctx:
            found = self.encode_batch(padded, counts / padded.shape[1])
            scores = self.mods.classifier(found).squeeze(1)
        posteriors = scores.cpu().double().exp()  # [B, C]
        labels = self.labels or [str(n) for n in range(posteriors.shape[1])]
        if len(labels) != posteriors.shape[1]:
            raise ValueError(
                f"label_encoder: expected {posteriors.shape[1]} labels; got "
                f"{len(labels)}"
            )
        values, places = posteriors.topk(min(top_k or len(labels), len(labels)))
        rate = self.audio_normalizer.sample_rate
        for count, row, indices in zip(
            counts.tolist(), values.tolist(), places.tolist(), strict=True
        ):
            classes = [
                LabelScore(labels[n], round(value, 6))
                for n, value in zip(indices, row, strict=True)
            ]
            yield Classification(tuple(classes), count / rate)
