"""Speaker diarization of recordings of any length, for any number of speakers.

SpeechBrain has no interface for it. A recording goes through the model in
windows of what it was trained on (local segmentation); the speakers of all
windows are grouped by their embeddings (Kinoshita et al. 2021, section 3.3),
or, for models that give none, followed through the time that windows share.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.checkpoints.interfaces import expect_folder
from unispeech_sb.dataio.audio import AudioError, attempt, naming
from unispeech_sb.inference.audio_blocks import (
    Source,
    ahead,
    as_source,
    check_blocks,
    check_list,
    is_stream,
    padded_batches,
    read_blocks,
    return_memory,
    seconds_of,
    source_name,
    with_progress,
)
from unispeech_sb.inference.clustering import (
    OverlapStitcher,
    SpeakerLimits,
    SpeakerTracker,
    cluster_segments,
    spread,
    stitch_segments,
    warn_of_fewer,
)
from unispeech_sb.inference.formats import recording_name
from unispeech_sb.inference.loading import CheckedFolder
from unispeech_sb.inference.segments import (
    Binarizer,
    Diarization,
    SpeakerNames,
    Turn,
    exclusive_turns,
)
from unispeech_sb.inference.sliding_window import SlidingWindow
from unispeech_sb.inference.speaker_verification import SpeakerVerification
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    DiarizationHead,
    EENDVCHead,
    FrameActivities,
    FrameHead,
)
from unispeech_sb.nnet.binarize import BinarizeConfig

_CONTEXT_S = 1.0
"""Seconds of a stream behind a frame before it is decided, where the delay
allows it."""

HEADS = (DiarizationHead, EENDVCHead, FrameHead)
"""What gives activities of speakers."""

_MIN_WINDOW_S = 1.0
"""Shortest windows that are tried to find as many speakers as are asked for."""

_MIN_SHARE = 0.05
"""Mean activity in a window up to which a speaker is silent there: the
authors' ``sil_spk_th``."""

_MIN_ALONE_S = 0.5
"""Least speech of one speaker alone that an embedding is made of; with less,
of all segments of the speaker in the window."""


class SpeakerDiarization(CheckedFolder):
    """Finds who speaks when.

    Loads with ``from_hparams`` what the recipe of diarization exports, and
    what ``convert`` makes of ``ForAudioFrameClassification`` and of the
    authors' EEND with vector clustering. It decides by the folder's
    ``threshold``, ``median_filter`` (frames), ``min_speech_s`` and
    ``min_pause_s``, which are in ``smoothing`` and may be changed.

    With embeddings, of the head or of a speaker model, windows lie side by
    side, the last one moved back to full length, as in the authors' code: a
    speaker who goes on after a cut is found by the embedding. As there, a
    speaker with less than 5 % of a window is not active in it. Without
    embeddings half of each window is in the next one too, which takes twice
    the time, and there are as many speakers as the head has outputs. A
    recording needs memory for a window and some bytes a frame, and its
    speakers as much as ``cluster_speakers`` states.

    Arguments
    ---------
    *args : tuple
        As for ``Pretrained``.
    speaker_model : SpeakerVerification or str or pathlib.Path, optional
        A model, or folder of one, whose embeddings of each speaker's segments
        without overlap take the place of the head's.
    chunk_s : float, optional
        Length of a window; the folder's when omitted.
    cluster_threshold : float, optional
        Distance of unit vectors from which on embeddings are of two speakers.
        When omitted that of the speaker model's calibration, else 1.
    batch_seconds : float
        Most seconds of windows that go through the model together, one at
        least. More is faster on a GPU, not on a CPU.
    **kwargs : dict
        As for ``Pretrained``.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> modules = {"backbone": Backbone.from_preset("tiny")}
    >>> modules["head"] = FrameHead(16, num_classes=2)
    >>> rule = {"threshold": 0.01, "median_filter": 11, "chunk_s": 1.0}
    >>> diarization = SpeakerDiarization(modules, rule)
    >>> diarization.diarize_file(torch.randn(40000)).speakers
    ['speaker1', 'speaker2']
    """

    HPARAMS_NEEDED = ["threshold", "median_filter", "chunk_s"]
    files_method = "diarize_files"

    def __init__(
        self,
        *args: Any,
        speaker_model: SpeakerVerification | str | Path | None = None,
        chunk_s: float | None = None,
        cluster_threshold: float | None = None,
        batch_seconds: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        backbone, head = modules_of(self.mods)
        if isinstance(speaker_model, (str, Path)):
            own = {"device": self.device, "precision": self.precision}
            load = SpeakerVerification.from_hparams
            speaker_model = load(speaker_model, run_opts=own)
        self.model = LocalSegmentationModel(
            backbone,
            head,
            getattr(self.hparams, "narrow_band", False),
            speaker_model,
        )
        self.audio_normalizer = AudioNormalizer(self.model.rate)
        rule: dict[str, Any] = {
            name: getattr(self.hparams, name, 0.0)
            for name in BinarizeConfig._fields[:-1]
        }
        self.smoothing = BinarizeConfig(**rule, frame_s=self.model.frame_s)
        self.chunk_s = chunk_s or self.hparams.chunk_s
        if cluster_threshold is None:
            cluster_threshold = _distance_of(speaker_model)
        self.cluster_threshold = cluster_threshold
        self.batch_seconds = batch_seconds

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        *args: Any,
        speaker_model: SpeakerVerification | str | Path | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> "SpeakerDiarization":
        """Loads a pretrained folder, and one of a speaker model, as
        ``CheckedFolder``."""
        if isinstance(speaker_model, (str, Path)):
            expect_folder(source, cls)
            shared = ("run_opts", "precision", "engine")
            own = {key: kwargs[key] for key in shared if key in kwargs}
            speaker_model = SpeakerVerification.from_hparams(
                speaker_model, trust=trust, **own
            )
        return super().from_hparams(
            source, *args, trust=trust, speaker_model=speaker_model, **kwargs
        )

    def diarize_file(
        self,
        source: Source,
        num_speakers: int | None = None,
        min_speakers: int = 1,
        max_speakers: int | None = None,
        on_progress: Callable[[float], object] | None = None,
        exclusive: bool = False,
    ) -> Diarization:
        """Finds who speaks when in a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that ``read_audio`` reads, or a waveform at the model's rate,
            [N].
        num_speakers : int, optional
            Number of speakers; estimated when omitted.
        min_speakers : int
            Fewest, where the number is estimated.
        max_speakers : int, optional
            Most, where the number is estimated.
        on_progress : callable, optional
            Called with the seconds that were read, some at a time.
        exclusive : bool
            Without overlap: where several speakers are active, the most active
            one alone.

        Returns
        -------
        Diarization
            Without segments where nobody speaks. Where fewer speakers than
            asked for are found, shorter windows are tried, if there are
            embeddings; the log says when these do not help either, and why.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When the numbers of speakers make no sense, or the model has fewer
            outputs and there are no embeddings.
        """
        limits = self._limits(num_speakers, min_speakers, max_speakers)
        source = as_source(source)
        with naming(source_name(source)):
            return self._diarized(source, limits, on_progress, exclusive)

    def _diarized(self, source, limits, on_progress, exclusive):
        """Who speaks when in a recording."""
        is_wav = isinstance(source, torch.Tensor)
        name = "waveform" if is_wav else recording_name(source)
        seconds = seconds_of(source, self.model.rate)
        turns = self._all_turns(source, limits, on_progress, exclusive)
        names = SpeakerNames()
        return Diarization(
            name,
            seconds,
            tuple(
                Turn(start, min(end, round(seconds, 6)), names[speaker], prob)
                for start, end, speaker, prob in turns
            ),
        )

    def diarize_files(
        self,
        paths: Iterable[str | Path],
        num_speakers: int | None = None,
        min_speakers: int = 1,
        max_speakers: int | None = None,
        on_progress: Callable[[float], object] | None = None,
        exclusive: bool = False,
    ) -> Iterator[tuple[str | Path, Diarization | AudioError]]:
        """Finds who speaks when in many files, one after the other.

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that ``read_audio`` reads.
        num_speakers : int, optional
            Number of speakers in each file; estimated when omitted.
        min_speakers : int
            Fewest, where the number is estimated.
        max_speakers : int, optional
            Most, where the number is estimated.
        on_progress : callable, optional
            Called with the seconds that were read, some at a time.
        exclusive : bool
            Without overlap: where several speakers are active, the most active
            one alone.

        Yields
        ------
        path : str or path-like
            As given, in that order.
        result : Diarization or AudioError
            Who speaks when, or why the file cannot be used.

        Raises
        ------
        ValueError
            When the numbers of speakers make no sense, or the model has fewer
            outputs and there are no embeddings.
        """
        numbers = num_speakers, min_speakers, max_speakers
        self._limits(*numbers)
        check_list(paths)
        for path in paths:
            options = path, *numbers, on_progress, exclusive
            yield path, attempt(path, self.diarize_file, *options)
            return_memory()

    def diarize_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes the activities of waveforms that go through at once.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at the model's rate, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each, in (0, 1], [B]. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Probability that each speaker is active, 0 in the padding,
            [B, T, S], on the CPU. Speakers of different waveforms have
            nothing to do with each other.
        """
        with torch.no_grad(), self.inference_ctx:
            return self.model.activities(wavs, wav_lens)[0].cpu()

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes activities, [B, T, S], on the CPU, as ``diarize_batch``."""
        return self.diarize_batch(wavs, wav_lens)

    def diarize_stream(
        self,
        source: Source | Iterable[torch.Tensor],
        delay_s: float = 10.0,
        num_speakers: int | None = None,
        max_speakers: int | None = None,
    ) -> Iterator[Turn]:
        """Finds who speaks when while a recording goes on.

        The segments up to a time t do not depend on the recording after
        t + ``delay_s``. A window ends every ``delay_s`` less what binarization
        and up to one second of context take, and is as long as those of
        ``diarize_file``: the shorter the delay, the more often each second goes
        through the model. The first windows are shorter, and speakers that they
        confuse stay confused: ``diarize_file`` is more accurate.

        Arguments
        ---------
        source : str or path-like or torch.Tensor or iterable of torch.Tensor
            A recording as for ``diarize_file``, or its samples as they come,
            at the model's rate, [N] each.
        delay_s : float
            Seconds after which nothing changes.
        num_speakers : int, optional
            Most speakers, as a stream cannot wait for others.
        max_speakers : int, optional
            Most speakers, where ``num_speakers`` is omitted.

        Yields
        ------
        Turn
            The next segment that is over, in the order of their ends at about
            the delay; a window and the segments that are not over are kept.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When the delay is shorter than what binarization takes.
        """
        most = self._limits(num_speakers, 1, max_speakers).most_or_number
        sliding = self._sliding_within(delay_s)
        tracker = SpeakerTracker(self.cluster_threshold, most)
        stitcher, binarizer = OverlapStitcher(), Binarizer(self.smoothing)
        names = SpeakerNames()
        for window, local in self._segmented(source, sliding):
            if self.model.has_embeddings:
                ids = tracker.assign(local.embeddings)
                active = local.activities[:, local.active]
                activities = spread(active, ids, tracker.count)
            else:
                activities = stitcher.push(window.offset, local.activities)
            turns = binarizer.push(activities[window.kept])
            for start, end, speaker, prob in turns:
                yield Turn(start, end, names[speaker], prob)
        for start, end, speaker, prob in binarizer.finish():
            yield Turn(start, end, names[speaker], prob)

    @property
    def exportable(self) -> FrameActivities:
        """Waveforms to activities; a speaker model has an engine of its own."""
        return self.model.encoder

    def _all_turns(self, source, limits, on_progress, exclusive):
        """Sorted segments of a recording, with as many speakers as are asked
        for, if any windows give so many."""
        asked = limits.number or limits.least
        limit = self.batch_seconds * self.model.rate
        best, size = None, self._size
        while True:
            sliding = SlidingWindow.offline(
                size, overlapping=not self.model.has_embeddings
            )
            found = list(self._segmented(source, sliding, limit, on_progress))
            count = sum(
                (local.activities > self.smoothing.threshold).any(0).sum()
                for _, local in found
            )
            if self.model.has_embeddings:
                activities = cluster_segments(
                    found, self.smoothing.threshold, self.cluster_threshold,
                    limits,
                )  # fmt: skip
            else:
                activities = stitch_segments(
                    found, self.smoothing.threshold, limits
                )
            binarizer = Binarizer(self.smoothing)
            turns = sorted(binarizer.push(activities) + binarizer.finish())
            if exclusive:
                turns = exclusive_turns(turns, activities, self.smoothing)
            reported = len({speaker for _, _, speaker, _ in turns})
            if best is None or reported > best[0]:
                best = reported, turns, count
            size, on_progress = size // 2, None
            enough = reported >= asked or not self.model.has_embeddings
            if enough or size * self.model.frame_s < _MIN_WINDOW_S:
                break
        reported, turns, count = best
        warn_of_fewer(source_name(source), asked, reported, count)
        return turns

    def _segmented(self, source, sliding, limit=0, on_progress=None):
        """Yields windows, batches of up to ``limit`` samples, and their
        ``LocalSegmentation``."""
        blocks, name = self._blocks(source)
        if on_progress is not None:
            blocks = with_progress(blocks, self.model.rate, on_progress)
        windows = sliding.cut(blocks, self.model.hop, self.model.least, name)
        for batch in padded_batches(windows, lambda pair: len(pair[1]), limit):
            with torch.no_grad(), self.inference_ctx:
                found = self.model.segment(
                    [wav for _, wav in batch], self.smoothing.threshold
                )
            yield from zip([window for window, _ in batch], found, strict=True)

    def _blocks(self, source):
        """The samples of a recording, and what errors call it."""
        if is_stream(source):
            return check_blocks(source, "stream"), "stream"
        source = as_source(source)
        blocks = read_blocks(source, self.audio_normalizer)
        blocks = ahead(blocks, self.workers)
        if isinstance(source, torch.Tensor):  # those of a file are checked
            blocks = check_blocks(blocks, "waveform")
        return blocks, source_name(source)

    def _sliding_within(self, delay_s):
        """The sliding window that gives an answer within a delay."""
        frame_s, reach = self.model.frame_s, self.smoothing.reach
        ahead = math.floor(delay_s / frame_s + 1e-6) - reach
        if ahead < 1:
            raise ValueError(
                f"delay_s: expected at least {(reach + 1) * frame_s:g} s, as "
                f"smoothing takes {reach * frame_s:g}; got {delay_s}"
            )
        context = round(_CONTEXT_S / frame_s)
        return SlidingWindow.online(self._size, ahead, context)

    @property
    def _size(self):
        """Frames of a window."""
        return max(2, round(self.chunk_s / self.model.frame_s))

    def _limits(self, *numbers):
        """How many speakers there may be, checked."""
        model = self.model
        outputs = None if model.has_embeddings else model.num_outputs
        return SpeakerLimits(*numbers).checked(outputs)


class LocalSegmentation(NamedTuple):
    """Speakers of a window: activities [T, S]; the active, [n]; [n, E]."""

    activities: np.ndarray
    active: np.ndarray
    embeddings: np.ndarray | None


class LocalSegmentationModel:
    """Finds the speakers of windows, each by itself as in training.

    With ``narrow_band`` waveforms are at 8 kHz and resampled to 16 kHz. A
    ``speaker_model`` gives the embeddings in place of the head.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: EENDVCHead | FrameHead | DiarizationHead,
        narrow_band: bool = False,
        speaker_model: SpeakerVerification | None = None,
    ) -> None:
        self.backbone, self.head = backbone, head
        self.narrow_band, self.speaker_model = narrow_band, speaker_model
        self.encoder = FrameActivities(backbone, head, narrow_band)
        self.rate, self.hop = self.encoder.rate, self.encoder.hop
        self.least, self.frame_s = self.encoder.least, self.encoder.frame_s

    @property
    def has_embeddings(self) -> bool:
        """Whether windows come with embeddings of their speakers."""
        return self.speaker_model is not None or self.encoder.clusters

    @property
    def num_outputs(self) -> int:
        """Speakers of a window that the head has outputs for."""
        config = self.head.config
        frames_only = isinstance(self.head, FrameHead)
        return config["num_classes" if frames_only else "num_speakers"]

    def activities(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Activities of waveforms, [B, N], as [B, T, S], 0 in the padding; and
        the head's embeddings of the speakers, [B, S, E], or None."""
        device = next(self.backbone.parameters()).device
        if wav_lens is not None:
            wav_lens = wav_lens.to(device)
        found, frames, *others = self.encoder(wavs.to(device), wav_lens)
        found = found[:, : int(frames.max())]  # a graph has them for padding
        return found, others[0] if others else None

    def segment(
        self, wavs: list[torch.Tensor], threshold: float = 0.5
    ) -> list[LocalSegmentation]:
        """Speakers of windows, [N] each; none in constant ones."""
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        shares = None if counts.unique().numel() == 1 else counts / counts.max()
        found, embeddings = self.activities(padded, shares)
        results = []
        for row, wav in enumerate(wavs):
            frames = max(1, len(wav) // self.hop)
            activities = found[row, :frames].cpu().numpy()
            if bool(wav.min() == wav.max()):
                activities = np.zeros_like(activities)
            active = np.flatnonzero(activities.mean(0) > _MIN_SHARE)
            own = None
            if self.speaker_model is not None:
                own = self._embed(wav, activities > threshold, active)
            elif embeddings is not None:
                own = embeddings[row].float().cpu().numpy()[active]
            results.append(LocalSegmentation(activities, active, own))
        return results

    def _embed(self, wav, active, speakers):
        """Embeddings of some speakers by the speaker model, [n, E]."""
        vectors = []
        least = max(self.least, round(_MIN_ALONE_S * self.rate))
        for speaker in speakers:
            alone = active[:, speaker] & (active.sum(1) == 1)
            wanted = wav
            for frames in (alone, active[:, speaker]):
                part = _taken(wav, frames, self.hop)
                if len(part) >= least and part.min() < part.max():
                    wanted = part
                    break
            if self.narrow_band:
                wanted = self.encoder.widen(wanted[None])[0]
            vectors.append(self.speaker_model.embed(wanted).vector.numpy())
        return np.stack(vectors) if vectors else np.zeros((0, 1))


def modules_of(
    mods: nn.ModuleDict,
) -> tuple[Backbone, DiarizationHead | EENDVCHead | FrameHead]:
    """A folder's backbone, ``encoder`` in converted ones, and head."""
    for name in ("backbone", "encoder"):
        if name in mods and "head" in mods:
            backbone, head = mods[name], mods["head"]
            if isinstance(head, HEADS):
                return cast(Backbone, backbone), head
    raise ValueError(
        "modules: expected backbone (or encoder) and a head that scores frames "
        f"({', '.join(cls.__name__ for cls in HEADS)}), not compiled and not "
        f"data-parallel; got {[type(m).__name__ for m in mods.values()]}"
    )


def _taken(wav, frames, hop):
    """The samples of some frames, one after the other."""
    taken = torch.from_numpy(np.repeat(frames, hop))[: len(wav)]
    return wav[: len(taken)][taken]


def _distance_of(speaker_model: SpeakerVerification | None) -> float:
    """Distance of unit vectors at which two speakers are as probable as one,
    where the model's calibration gives it by the cosine alone."""
    calibration = getattr(speaker_model, "calibration", None)
    if calibration is None or calibration.quality:
        return 1.0
    cosine = float(calibration.threshold(0.5))
    return math.sqrt(max(2 - 2 * cosine, 1e-6))
