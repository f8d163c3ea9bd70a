"""Speaker diarization, trained without an order of the speakers (Fujita et al.
2019; with speaker embeddings, Kinoshita et al. 2021), and how well a way to
binarize activities does on recordings whose speakers are known.
"""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint

from unispeech_sb.atomic import atomic
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_diarization
from unispeech_sb.checkpoints.files import write_tensors
from unispeech_sb.dataio.rttm import Segment, write_rttm
from unispeech_sb.metrics.diarization import (
    ErrorTimes,
    diarization_error,
    jaccard_error,
    speaker_count_error,
    sum_errors,
)
from unispeech_sb.nnet.binarize import BinarizeConfig, binarize
from unispeech_sb.nnet.eend import speaker_loss, speaker_means
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask


class DiarizationBrain(SSLBrain):
    """Speaker diarization.

    Batches have ``id``, ``sig``, ``activity`` (1 where a speaker is active,
    [T, S]), ``speaker_labels`` (index of each among the speakers of the
    training, -1 for none, [S]) and, in validation and test, ``recording`` and
    ``start_s``, where in it the item begins. ``hparams`` names, beside what
    ``SSLBrain`` reads:

    * ``modules["head"]``: features, cut to the labels or with their last
      frame repeated, and relative frame lengths -> logits, [B, T, S]. With
      ``speaker_loss_weight`` it is an ``EENDVCHead``, which takes the number
      of frames and gives speaker vectors, too.
    * ``compute_cost``: logits, labels, number of frames -> loss, and which
      speaker each output was taken for; ``pit_loss``.
    * ``references``: Stage -> recording -> segments (start, end, speaker);
      ``uems``: the same of stretches to score, where there are any.
    * ``frame_s``, ``min_speech_s``, ``min_pause_s``, ``thresholds`` and
      ``median_filters``: how activities become speakers.
    * ``protocol``: ``clean`` chooses threshold and median filter on the
      validation set, keeps them with the checkpoint, and takes the lowest
      error rate for the best. ``superb`` takes the highest accuracy of
      frames, joins the chunks of a recording, and reports the threshold and
      median filter that are the best on the test set.

    Scores, over all scored time, overlapped speech included: ``DER``, of
    which ``miss``, ``false alarm`` and ``confusion``, and in a test ``JER``,
    all in percent, and ``speakers off``, the mean error of the number of
    speakers. ``accuracy`` of the frames of all speakers, the mean over chunks.

    Example
    -------
    >>> brain = DiarizationBrain(
    ...     hparams={
    ...         "protocol": "clean",
    ...         "frame_s": 0.5,
    ...         "min_speech_s": 0.0,
    ...         "min_pause_s": 0.0,
    ...         "thresholds": [0.3, 0.5],
    ...         "median_filters": [1],
    ...     },
    ...     run_opts={"device": "cpu"},
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> found = np.array([[0.9], [0.4]])
    >>> reference = [(0.0, 0.5, "ann")]
    >>> brain.chunks = [Chunk("a", "a", 0.0, found, reference, None)]
    >>> brain.accuracies = [1.0]
    >>> brain.choose_binarization(Stage.VALID)
    >>> brain.stage_scores(Stage.VALID)["DER"], brain.binarize_config.threshold
    (0.0, 0.5)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fixed = ("frame_s", "min_speech_s", "min_pause_s")
        self.binarize_config = BinarizeConfig(
            **{name: getattr(self.hparams, name) for name in fixed}
        )
        self.comparison: dict[BinarizeConfig, ErrorTimes] = {}
        self.chunks: list[Chunk] = []
        self.accuracies: list[float] = []
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(
                "decision",
                self,
                custom_save_hook=_save_decision,
                custom_load_hook=_load_decision,
            )

    def compute_forward(
        self, batch: PaddedBatch, stage: Stage
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``sig`` to activities, [B, T, S], and to speaker embeddings,
        [B, T, S, E], or None where the head has none."""
        feats, frame_lens = self.compute_features(batch, stage)
        num_frames = _num_frames(batch)
        if self._has_vectors:
            return self.modules.head(feats, frame_lens, num_frames)
        counts = absolute_lengths(frame_lens, feats.shape[-2])
        if not torch.equal(counts, num_frames):
            feats = _fitted(feats, counts, num_frames)
        return self.modules.head(feats, batch.activity.lengths), None

    @property
    def _has_vectors(self):
        """Whether the head gives speaker vectors, too."""
        weight = getattr(self.hparams, "speaker_loss_weight", None)
        return weight is not None

    def compute_objectives(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor | None],
        batch: PaddedBatch,
        stage: Stage,
    ) -> torch.Tensor:
        """Loss of both against ``activity``; after training keeps the
        activities."""
        logits, vectors = predictions
        labels = batch.to(self.device).activity.data
        num_frames = _num_frames(batch)
        loss, order = self.hparams.compute_cost(logits, labels, num_frames)
        if vectors is not None:
            head = self.hparams.head
            loss = loss + self.hparams.speaker_loss_weight * speaker_loss(
                speaker_means(logits.float(), vectors.float(), num_frames),
                batch.speaker_labels.data.gather(1, order),
                head.embed.weight,
                head.alpha,
                head.beta,
            )
        if stage != Stage.TRAIN:
            right = _accuracies(logits, labels, num_frames, order)
            if self.hparams.protocol == "superb":
                right = right * labels.flatten(1).any(1)
            self.accuracies += right.tolist()
            self._keep(logits, num_frames, batch, stage)
        return loss

    def _keep(self, logits, num_frames, batch, stage):
        """Keeps the activities of a batch, to be scored at the stage's end."""
        rows = logits.float().sigmoid().cpu().numpy()
        whole = self.hparams.protocol == "superb"
        references = self.hparams.references[stage]
        uems = getattr(self.hparams, "uems", {}).get(stage, {})
        items = zip(batch.id, batch.recording, batch.start_s, strict=True)
        for row, (name, recording, start_s) in enumerate(items):
            if recording not in references:
                raise ValueError(
                    f"{name}: expected a reference of the recording "
                    f"{recording!r}; there is none"
                )
            start_s, uem = float(start_s), uems.get(recording)
            activities = rows[row, : num_frames[row]]
            if not whole:
                stop_s = start_s + len(activities) * self.hparams.frame_s
                uem = clip_uem(uem, start_s, stop_s)
            reference = references[recording]
            self.chunks.append(
                Chunk(str(name), recording, start_s, activities, reference, uem)
            )

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start without chunks."""
        super().on_stage_start(stage, epoch)
        self.comparison, self.chunks, self.accuracies = {}, [], []

    def on_stage_end(
        self, stage: Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Choose how to binarize before the base scores, logs and saves."""
        if stage != Stage.TRAIN:
            self.choose_binarization(stage)
        super().on_stage_end(stage, stage_loss, epoch)

    def choose_binarization(self, stage: Stage) -> None:
        """Chooses threshold and median filter, where the protocol does.

        Arguments
        ---------
        stage : Stage
            VALID or TEST.
        """
        superb = self.hparams.protocol == "superb"
        if superb:
            self.chunks = join_chunks(self.chunks)
        if stage != (Stage.TEST if superb else Stage.VALID):
            return
        self.comparison = compare_configs(
            self.chunks,
            self.hparams.thresholds,
            self.hparams.median_filters,
            self.binarize_config,
        )
        self.binarize_config = next(iter(self.comparison))

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """Error rates, threshold and median filter, accuracy of frames; in a
        test of SUPERB's protocol also the DER of every threshold and median
        filter that were compared."""
        test = stage == Stage.TEST
        scores = score_chunks(self.chunks, self.binarize_config, thorough=test)
        scores |= {"accuracy": float(np.mean(self.accuracies))}
        scores |= _chosen(self.binarize_config)
        if test and self.hparams.protocol == "superb":
            scores |= {
                f"DER at {c.threshold:g}, median {c.median_filter}": 100
                * errors.rate
                for c, errors in self.comparison.items()
            }
        return scores

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """The lowest DER, or SUPERB's highest accuracy; then the loss."""
        if self.hparams.protocol == "superb":
            first = checkpoint.meta.get("accuracy", 0.0)
        else:
            first = -checkpoint.meta.get("DER", np.inf)
        return (first, *super().importance(checkpoint))

    def write_report(self, folder: Path) -> None:
        """Write scores.json, hypotheses.rttm, and activities.safetensors:
        the probabilities of each chunk, with the seconds of a frame and where
        in which recording the chunk begins."""
        super().write_report(folder)
        places: dict[str, Any] = {}
        found: dict[str, list[tuple[float, float, str]]] = {}
        for chunk in self.chunks:
            places[chunk.name] = [chunk.recording, chunk.start_s]
            segments = chunk_segments(chunk, self.binarize_config)
            found.setdefault(chunk.recording, []).extend(segments)
        write_rttm(folder / "hypotheses.rttm", found)
        notes = {"frame_s": self.hparams.frame_s, "pieces": places}
        write_tensors(
            folder / "activities.safetensors",
            {c.name: torch.from_numpy(c.activities) for c in self.chunks},
            {name: json.dumps(note) for name, note in notes.items()},
        )

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the evaluated model for ``SpeakerDiarization``."""
        facts = {
            "recordings scored": len({c.recording for c in self.chunks}),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        export_diarization(
            folder,
            self.hparams,
            self.binarize_config,
            scores,
            scored_on,
            facts,
        )


def _num_frames(batch):
    """Number of labelled frames of each row, [B]."""
    activity = batch.activity
    return absolute_lengths(activity.lengths, activity.data.shape[1])


def _fitted(feats, counts, wanted):
    """Features of as many frames as are wanted: the further ones cut off, the
    last one repeated. [..., B, T', D]."""
    frames = torch.arange(int(wanted.max()), device=feats.device)
    places = torch.minimum(frames, counts[:, None] - 1)  # [B, T']
    rows = torch.arange(len(places), device=feats.device)[:, None]
    return feats[..., rows, places, :]


def _accuracies(logits, labels, num_frames, order):
    """Share of right decisions at 0.5, over frames and speakers, [B]."""
    taken = labels.gather(2, order[:, None].expand_as(labels))
    right = ((logits > 0) == (taken > 0.5)).float().mean(2)
    mask = length_mask(num_frames, logits.shape[1])
    return (right * mask).sum(1) / num_frames.clamp(min=1)


def _chosen(config):
    """The part of a ``BinarizeConfig`` that is chosen on recordings."""
    return {n: getattr(config, n) for n in ("threshold", "median_filter")}


def _save_decision(brain, path):
    """Writes how a Brain binarizes."""
    with atomic(path) as file:
        file.write(json.dumps(_chosen(brain.binarize_config)) + "\n")


def _load_decision(brain, path, end_of_epoch):
    """Recovers how a Brain binarizes."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        brain.binarize_config = brain.binarize_config._replace(
            threshold=float(found["threshold"]),
            median_filter=int(found["median_filter"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a threshold and a median filter, as a "
            f"checkpoint has them; got {error}"
        ) from error


class Chunk(NamedTuple):
    """Activities that a model gives of a recording, or of a part of one.

    ``name`` is that of the chunk, ``start_s`` its place in the recording in
    seconds, ``activities`` the probability that each speaker is active, [T, S].
    ``reference`` has the true segments (start, end, speaker) of the whole
    recording, ``uem`` the stretches (start, end) to score, None for all time.
    """

    name: str
    recording: str
    start_s: float
    activities: np.ndarray
    reference: list[Segment]
    uem: list[tuple[float, float]] | None


def clip_uem(uem, start_s, stop_s):
    """The parts of the scored stretches (start, end) of a recording, None for
    all of it, that are between two times in seconds."""
    if uem is None:
        return [(start_s, stop_s)]
    cut = [(max(start, start_s), min(stop, stop_s)) for start, stop in uem]
    return [(start, stop) for start, stop in cut if start < stop]


def join_chunks(chunks):
    """One chunk for each recording, as if the outputs of its chunks were the
    same speakers in all of them."""
    parts = {}
    for chunk in sorted(chunks, key=lambda c: (c.recording, c.start_s)):
        parts.setdefault(chunk.recording, []).append(chunk)
    return [
        found[0]._replace(
            name=recording,
            activities=np.concatenate([c.activities for c in found]),
        )
        for recording, found in parts.items()
    ]


def chunk_segments(chunk, config):
    """Segments (start, end, speaker) of a chunk, in seconds of the recording;
    the speakers have the name of the chunk: only in it they are known to be
    the same."""
    segments = binarize(
        chunk.activities, start_s=chunk.start_s, **config._asdict()
    )
    return [(s, e, f"{chunk.name}_{index}") for s, e, index in segments]


def sum_error_times(chunks, config):
    """Error times of a ``BinarizeConfig`` over one or more chunks, without
    collar and with overlapped speech."""
    return sum_errors(
        diarization_error(c.reference, chunk_segments(c, config), c.uem)
        for c in chunks
    )


def compare_configs(chunks, thresholds, median_filters, config):
    """Tries all thresholds with all median filters, in place of those of a
    ``BinarizeConfig``: config -> its error times, the least error first; of
    equal ones that with the threshold nearest to 0.5, then that with the
    shortest filter."""
    configs = [
        config._replace(threshold=threshold, median_filter=median_filter)
        for threshold, median_filter in product(thresholds, median_filters)
    ]
    configs.sort(key=lambda c: (abs(c.threshold - 0.5), c.median_filter))
    errors = {c: sum_error_times(chunks, c) for c in configs}
    return dict(sorted(errors.items(), key=lambda item: sum(item[1][:3])))


def score_chunks(chunks, config, thorough=False):
    """Error rates in percent: ``DER`` and of it ``miss``, ``false alarm`` and
    ``confusion``; if thorough also ``JER``, and ``speakers off``, the mean
    error of the number of speakers."""
    times = sum_error_times(chunks, config)
    scores = {"DER": 100 * times.rate}
    for name in ("miss", "false_alarm", "confusion"):
        part_s = getattr(times, f"{name}_s")
        scores[name.replace("_", " ")] = 100 * part_s / (times.total_s or 1.0)
    if not thorough:
        return scores
    cases = [(c.reference, chunk_segments(c, config), c.uem) for c in chunks]
    scores["JER"] = 100 * sum_errors(jaccard_error(*c) for c in cases).rate
    off = [abs(speaker_count_error(*case)) for case in cases]
    return {**scores, "speakers off": float(np.mean(off))}
