"""Speaker diarization of recordings of any length, for any number of speakers.

SpeechBrain has no interface for it. A recording goes through the model in
windows of what it was trained on; the speakers of all windows are grouped by
their vectors (Kinoshita et al. 2021, section 3.3), or, for models that give
none, followed through the time that windows share.
"""

import math
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.batches import groups
from unispeech_sb.inference.clustering import (
    SpeakerLimits,
    SpeakerTracker,
    cluster_speakers,
)
from unispeech_sb.inference.diarized import Diarization, recording_name
from unispeech_sb.inference.local_speakers import LocalSpeakerModel, modules_of
from unispeech_sb.inference.moving import (
    checked_blocks,
    moves_over,
    moves_within,
    moving_windows,
)
from unispeech_sb.inference.recordings import duration_s, read_blocks
from unispeech_sb.inference.speakers import SpeakerVerification
from unispeech_sb.inference.stitching import OverlapStitcher, spread
from unispeech_sb.inference.turns import (
    Smoothing,
    SpeakerNames,
    Turn,
    TurnFinder,
)

CONTEXT_S = 1.0
"""Seconds that a stream is heard on before a frame is decided, where the
delay allows it."""


class SpeakerDiarization(Pretrained):
    """Tells who speaks when.

    Loads with ``from_hparams`` what the recipe of diarization exports, and
    what ``convert`` makes of ``ForAudioFrameClassification`` and of the
    authors' EEND with vector clustering. It decides by the folder's
    ``threshold``, ``median_filter`` (frames), ``min_speech_s`` and
    ``min_pause_s``, which are in ``smoothing`` and may be changed.

    With vectors, of the head or of a speaker model, windows lie side by side,
    the last one moved back to full length, as in the authors' code: whoever
    speaks on after a cut is found by the voice. As there, who has less than
    5 % of a window is not heard in it. Without vectors half of each window is
    heard again by the next, which takes twice the time, and there are as many
    speakers as the head has outputs. A recording needs memory for a window
    and some bytes a frame, and its speakers what ``cluster_speakers`` says.

    Arguments
    ---------
    *args : tuple
        As for ``Pretrained``.
    speaker_model : SpeakerVerification or str or pathlib.Path, optional
        A model, or folder of one, whose voices of what each speaker of a
        window says alone take the place of the head's vectors.
    chunk_s : float, optional
        Length of a window; the folder's when omitted.
    cluster_threshold : float, optional
        Distance of unit vectors from which on voices are of two speakers.
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

    def __init__(
        self,
        *args,
        speaker_model=None,
        chunk_s=None,
        cluster_threshold=None,
        batch_seconds=30.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        backbone, head = modules_of(self.mods)
        rule = {
            name: getattr(self.hparams, name, 0.0)
            for name in Smoothing._fields[:-1]
        }
        if isinstance(speaker_model, (str, Path)):
            speaker_model = SpeakerVerification.from_hparams(
                str(speaker_model), run_opts={"device": self.device}
            )
        self.model = LocalSpeakerModel(
            backbone,
            head,
            getattr(self.hparams, "narrow_band", False),
            speaker_model,
        )
        self.audio_normalizer = AudioNormalizer(self.model.rate)
        self.smoothing = Smoothing(**rule, frame_s=self.model.frame_s)
        self.chunk_s = chunk_s or self.hparams.chunk_s
        self.cluster_threshold = cluster_threshold
        if cluster_threshold is None:
            self.cluster_threshold = _distance_of(speaker_model)
        self.batch_seconds = batch_seconds

    def diarize_file(
        self,
        source,
        num_speakers=None,
        min_speakers=1,
        max_speakers=None,
        on_progress=None,
    ):
        """Tells who speaks when in a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that soundfile reads, or a waveform at the model's rate,
            [N].
        num_speakers : int, optional
            How many speak; found when omitted.
        min_speakers : int
            Fewest, where they are found.
        max_speakers : int, optional
            Most, where they are found.
        on_progress : callable, optional
            Called with the seconds that were read, some at a time.

        Returns
        -------
        Diarization
            Without segments where nobody speaks. There may be less speakers
            than asked for, when less are heard.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When the numbers of speakers make no sense, or the model has less
            outputs and there are no vectors.
        """
        limits = self._limits(num_speakers, min_speakers, max_speakers)
        is_wav = isinstance(source, torch.Tensor)
        rate = self.audio_normalizer.sample_rate
        seconds = len(source) / rate if is_wav else duration_s(source)
        moves = moves_over(self._size, overlapping=not self.model.has_vectors)
        found = self._windows(source, moves, on_progress)
        if self.model.has_vectors:
            activities = self._clustered(found, limits)
        else:
            activities = self._stitched(found, limits)
        finder, names = TurnFinder(self.smoothing), SpeakerNames()
        turns = sorted(finder.push(activities) + finder.finish())
        return Diarization(
            "waveform" if is_wav else recording_name(source),
            seconds,
            tuple(
                Turn(start, min(end, round(seconds, 6)), names[who], sure)
                for start, end, who, sure in turns
            ),
        )

    def diarize_files(
        self,
        paths,
        num_speakers=None,
        min_speakers=1,
        max_speakers=None,
        on_progress=None,
    ):
        """Tells who speaks when in many files, one after the other.

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that soundfile reads.
        num_speakers : int, optional
            As for ``diarize_file``, in each file.
        min_speakers : int
            The same.
        max_speakers : int, optional
            The same.
        on_progress : callable, optional
            The same.

        Yields
        ------
        path : str or path-like
            As given, in that order.
        result : Diarization or AudioError
            Who speaks when, or why the file cannot be used.
        """
        numbers = num_speakers, min_speakers, max_speakers
        self._limits(*numbers)
        for path in paths:
            try:
                yield path, self.diarize_file(path, *numbers, on_progress)
            except AudioError as error:
                yield path, error

    def diarize_batch(self, wavs, wav_lens=None):
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

    def forward(self, wavs, wav_lens=None):
        """The same as ``diarize_batch``."""
        return self.diarize_batch(wavs, wav_lens)

    def diarize_stream(
        self, source, delay_s=10.0, num_speakers=None, max_speakers=None
    ):
        """Tells who speaks when while a recording goes on.

        What is said of the time up to t does not depend on what is heard
        after t + ``delay_s``. A window ends every ``delay_s`` less what
        smoothing and ``CONTEXT_S`` take, and is as long as those of
        ``diarize_file``: the shorter the delay, the more often each second
        goes through the model. The first windows are shorter, and whom they
        take for one or for two is not thought over: ``diarize_file`` knows
        better.

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
            The same.

        Yields
        ------
        Turn
            The next one that is over, in the order of their ends at about
            the delay; held are a window and the turns that are not over.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When the delay is shorter than what smoothing takes.
        """
        most = self._limits(num_speakers, 1, max_speakers).most_or_number
        moves = self._moves_within(delay_s)
        tracker = SpeakerTracker(self.cluster_threshold, most)
        stitcher, finder = OverlapStitcher(), TurnFinder(self.smoothing)
        names = SpeakerNames()
        for window, local in self._windows(source, moves, one_by_one=True):
            if self.model.has_vectors:
                ids = tracker.assign(local.vectors)
                heard = local.activities[:, local.heard]
                activities = spread(heard, ids, tracker.count)
            else:
                activities = stitcher.push(window.offset, local.activities)
            for start, end, who, sure in finder.push(activities[window.kept]):
                yield Turn(start, end, names[who], sure)
        for start, end, who, sure in finder.finish():
            yield Turn(start, end, names[who], sure)

    def _windows(self, source, moves, on_progress=None, one_by_one=False):
        """Yields windows and their speakers."""
        blocks, name = self._blocks(source)
        if on_progress is not None:
            blocks = _telling(blocks, self.model.rate, on_progress)
        windows = moving_windows(
            blocks, moves, self.model.hop, self.model.least, name
        )
        size_s = moves.size * self.model.frame_s
        most = 1 if one_by_one else max(1, int(self.batch_seconds / size_s))
        for batch in groups(windows, most):
            with torch.no_grad(), self.inference_ctx:
                found = self.model.find(
                    [window.wav for window in batch], self.smoothing.threshold
                )
            for window, local in zip(batch, found, strict=True):
                # The samples are not needed any more
                yield window._replace(wav=None), local

    def _blocks(self, source):
        """The samples of a recording, and what errors call it."""
        if isinstance(source, torch.Tensor):
            blocks = read_blocks(source, self.audio_normalizer)
            return checked_blocks(blocks, "waveform"), "waveform"
        if hasattr(source, "__iter__") and not isinstance(source, str):
            return checked_blocks(source, "stream"), "stream"
        return read_blocks(source, self.audio_normalizer), source

    def _clustered(self, found, limits):
        """Activities of the recording's speakers by their vectors, [F, K]."""
        parts, vectors, places = [], [], []
        for number, (window, local) in enumerate(found):
            vectors += list(local.vectors)
            places += [number] * len(local.heard)
            # A copy: a view would hold the window
            parts.append(local.activities[window.kept, local.heard].copy())
        owners = cluster_speakers(
            vectors, np.array(places), self.cluster_threshold, limits
        )
        count, begin, rows = int(owners.max(initial=-1)) + 1, 0, []
        for part in parts:
            own = owners[begin : begin + part.shape[1]]
            rows.append(spread(part, own, count))
            begin += part.shape[1]
        return np.concatenate(rows)

    def _stitched(self, found, limits):
        """Activities of the head's speakers, [F, S]; of those who are too
        many those who say least are left out."""
        stitcher, rows = OverlapStitcher(), []
        for window, local in found:
            row = stitcher.push(window.offset, local.activities)
            rows.append(row[window.kept])
        activities = np.concatenate(rows)
        said = (activities > self.smoothing.threshold).sum(0)
        loudest = np.argsort(-said, kind="stable")[: limits.most_or_number]
        return activities[:, np.sort(loudest)]

    def _moves_within(self, delay_s):
        """How windows move for an answer within a delay."""
        frame_s, reach = self.model.frame_s, self.smoothing.reach
        ahead = math.floor(delay_s / frame_s + 1e-6) - reach
        if ahead < 1:
            raise ValueError(
                f"delay_s: expected at least {(reach + 1) * frame_s:g} s, as "
                f"smoothing takes {reach * frame_s:g}; got {delay_s}"
            )
        return moves_within(self._size, ahead, round(CONTEXT_S / frame_s))

    @property
    def _size(self):
        """Frames of a window."""
        return max(2, round(self.chunk_s / self.model.frame_s))

    def _limits(self, *numbers):
        """How many speakers there may be, checked."""
        outputs = None if self.model.has_vectors else self.model.num_outputs
        return SpeakerLimits(*numbers).checked(outputs)


def _telling(blocks, rate, on_progress):
    """Tells of each block when the next one is asked for."""
    for block in blocks:
        yield block
        on_progress(len(block) / rate)


def _distance_of(speaker_model):
    """Distance of unit vectors at which two speakers are as probable as one,
    where the model's calibration tells it from the cosine alone."""
    calibration = getattr(speaker_model, "calibration", None)
    if calibration is None or calibration.quality:
        return 1.0
    cosine = float(calibration.threshold(0.5))
    return math.sqrt(max(2 - 2 * cosine, 1e-6))
