"""Speaker embeddings: trained to classify the speakers of a corpus, scored on
verification trials of any (Snyder et al. 2018; Chen et al. 2021, section 4.3).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger
from torch.nn import functional as F

from unispeech_sb.atomic import write_json
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_speakers
from unispeech_sb.dataio.speakers import UNKNOWN
from unispeech_sb.dataio.trials import write_trials
from unispeech_sb.metrics.calibration import Calibration
from unispeech_sb.metrics.det import system_name, write_det, write_histogram
from unispeech_sb.metrics.verification import bootstrap, eer, min_dcf

logger = get_logger(__name__)

BLOCK = 65536
"""Trials that are scored at a time."""

CHOSEN_ON_TEST = "EER chosen on test, as s3prl does"


class SpeakerBrain(SSLBrain):
    """Speaker verification.

    Batches have ``id``, ``sig`` and ``label_encoded`` (index of the speaker,
    ``UNKNOWN`` for others, which only occur in validation and test).
    ``hparams`` names, beside what ``SSLBrain`` reads:

    * ``modules["head"]``: features, relative frame lengths -> the vectors
      that train; with ``embed`` and ``project`` as ``SpeakerHead``.
    * ``modules["objective"]``: ``AMSoftmax`` or ``AAMSoftmax``.
    * ``trials``: Stage.VALID and Stage.TEST -> ``Trials`` over the ids of the
      split. Their scores are cosines.
    * ``trial_speakers``, optional: Stage.TEST -> the speakers of the left and
      of the right side of each trial, for confidence intervals.
    * ``validate_on``, optional: "test" where validations are of the test set,
      as s3prl chooses checkpoints. Then the last checkpoint is evaluated, and
      its scores stand beside the ``EER after epoch`` 1, 2, ... and the lowest
      of these, ``EER chosen on test, as s3prl does``.
    * ``margin_schedule``, optional: epochs made, as a float -> share of the
      objective's margins.

    Scores: ``EER`` in percent, ``minDCF`` at a prior of 0.01, and
    ``accuracy`` of the known speakers; of a test also the ends of the 95 %
    confidence intervals of both rates, by resampling speakers. The lowest EER
    is the best. Where no speaker of a validation is known, its loss is the EER
    as a share.

    Example
    -------
    >>> from unispeech_sb.dataio.trials import Trials
    >>> sides = np.array([[0, 0], [1, 2]])
    >>> trials = Trials(["a", "b", "c"], *sides, np.array([True, False]))
    >>> brain = SpeakerBrain(
    ...     hparams={"trials": {Stage.VALID: trials}},
    ...     run_opts={"device": "cpu"},
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> brain.vectors = dict(zip("abc", vectors))
    >>> brain.stage_scores(Stage.VALID)["EER"]
    0.0
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calibration = Calibration()
        self.test_rates: list[float] = []
        if self.checkpointer is None:
            return
        self.checkpointer.add_recoverable(
            "calibration",
            self,
            custom_save_hook=lambda brain, path: brain.calibration.save(path),
            custom_load_hook=_load_calibration,
        )
        if self._validates_on_test:
            self.checkpointer.add_recoverable(
                "test_rates",
                self,
                custom_save_hook=lambda brain, path: write_json(
                    path, brain.test_rates
                ),
                custom_load_hook=_load_rates,
            )

    @property
    def _validates_on_test(self):
        """Whether what is called a validation is of the test set."""
        return getattr(self.hparams, "validate_on", "valid") == "test"

    def compute_forward(self, batch: PaddedBatch, stage: Stage) -> torch.Tensor:
        """``sig`` to embeddings, [B, X], that train or are compared."""
        feats, frame_lens = self.compute_features(batch, stage)
        if stage == Stage.TRAIN:
            return self.modules.head(feats, frame_lens)
        return self.hparams.head.embed(feats, frame_lens)

    def compute_objectives(
        self, predictions: torch.Tensor, batch: PaddedBatch, stage: Stage
    ) -> torch.Tensor:
        """Mean loss of embeddings and ``label_encoded``, 0 where no speaker is
        of the training set; after training keeps the embeddings."""
        labels = batch.to(self.device).label_encoded.data.reshape(-1)
        if stage == Stage.TRAIN:
            augmentation = getattr(self.hparams, "augmentation", None)
            if augmentation is not None:
                labels = augmentation.replicate_labels(labels)
            return self.modules.objective(predictions, labels)
        vectors = F.normalize(predictions.float(), dim=1).cpu()
        self.vectors.update(zip(batch.id, vectors, strict=True))
        known = labels != UNKNOWN
        if not known.any():
            return predictions.new_zeros(())
        vectors = self.hparams.head.project(predictions[known])
        scores = self.hparams.objective(vectors)
        self.num_known += len(vectors)
        self.num_right += int((scores.argmax(1) == labels[known]).sum())
        return self.hparams.objective(vectors, labels[known])

    def on_fit_batch_start(self, batch: PaddedBatch, should_step: bool) -> None:
        """Set the margins of this update."""
        super().on_fit_batch_start(batch, should_step)
        schedule = getattr(self.hparams, "margin_schedule", None)
        if schedule is not None:
            epochs = self.hparams.epoch_counter.current - 1
            epochs += (self.step - 1) / len(self.train_loader)
            self.hparams.objective.margin_share = schedule(epochs)

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start without vectors."""
        super().on_stage_start(stage, epoch)
        self.vectors: dict[str, torch.Tensor] = {}
        self.num_known = self.num_right = 0

    def on_stage_end(
        self, stage: Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Score the trials before the base logs and saves."""
        if stage == Stage.VALID and self._validates_on_test:
            self.test_rates.append(100 * eer(*self._sides(stage))[0])
        elif stage == Stage.VALID:
            self.calibration = self._calibrated(stage)
        if stage != Stage.TRAIN and not self.num_known:
            stage_loss = self.stage_scores(stage)["EER"] / 100
        super().on_stage_end(stage, stage_loss, epoch)

    def cosines(self, stage: Stage) -> np.ndarray:
        """Cosines of a stage's trials, in their order, [N]; a ``ValueError``
        where the split lacks an utterance of a trial."""
        trials = self.hparams.trials[stage]
        for name in trials.names:
            if name not in self.vectors:
                raise ValueError(
                    "trials: expected utterances of the split "
                    f"{stage.name.lower()}; got {name!r}"
                )
        vectors = torch.stack([self.vectors[name] for name in trials.names])
        cosines = np.empty(len(trials.targets), np.float32)
        for start in range(0, len(cosines), BLOCK):
            block = slice(start, start + BLOCK)
            left, right = (
                vectors[side[block].astype(np.int64)]
                for side in (trials.left, trials.right)
            )
            cosines[block] = (left * right).sum(1)
        return cosines

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """``EER`` in percent and ``minDCF`` of the trials; ``accuracy``, 0 to
        1, of known speakers; of a test also ``EER low``, ``EER high``,
        ``minDCF low`` and ``minDCF high``, the ends of the intervals."""
        positive, negative = self._sides(stage)
        scores = {
            "EER": 100 * eer(positive, negative)[0],
            "minDCF": min_dcf(positive, negative)[0],
        }
        if self.num_known:
            scores["accuracy"] = self.num_right / self.num_known
        if stage == Stage.TEST:
            scores |= self._intervals(stage)
            scores |= {
                f"EER after epoch {number}": rate
                for number, rate in enumerate(self.test_rates, 1)
            }
        if stage == Stage.TEST and self.test_rates:
            scores[CHOSEN_ON_TEST] = min(self.test_rates)
        return scores

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """The EER first, then the loss."""
        rate = checkpoint.meta.get("EER", 100.0)
        return (-rate, *super().importance(checkpoint))

    def precedence(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """As the base; the last where the test set would choose."""
        if self._validates_on_test:
            return (ckpt_recency(checkpoint),)
        return super().precedence(checkpoint)

    def write_report(self, folder: Path) -> None:
        """Write scores.json, the trials with their scores, and pictures of
        both: det.png and histogram.png."""
        super().write_report(folder)
        trials = self.hparams.trials[Stage.TEST]
        write_trials(
            folder / "trials.csv", trials, "csv", self.cosines(Stage.TEST)
        )
        positive, negative = self._sides(Stage.TEST)
        name = system_name(folder)
        write_det(folder / "det.png", {name: (positive, negative)})
        thresholds = {"EER": eer(positive, negative)[1]}
        if any(self.calibration.num_trials):
            even = self.calibration.threshold(0.5)
            thresholds["calibrated, even odds"] = float(even)
        write_histogram(
            folder / "histogram.png", positive, negative, thresholds
        )

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the evaluated model for SpeechBrain's SpeakerRecognition and
        EncoderClassifier."""
        targets = self.hparams.trials[Stage.TEST].targets
        facts = {
            "target trials scored": int(targets.sum()),
            "non-target trials scored": int((~targets).sum()),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        export_speakers(
            folder, self.hparams, self.calibration, scores, scored_on, facts
        )

    def _intervals(self, stage):
        """Ends of the confidence intervals, where the trials allow them."""
        speakers = getattr(self.hparams, "trial_speakers", {}).get(stage)
        if speakers is None:
            return {}
        cosines, ends = self.cosines(stage), {}
        targets = self.hparams.trials[stage].targets
        for name, metric, unit in (("EER", eer, 100), ("minDCF", min_dcf, 1)):
            try:
                interval = bootstrap(metric, cosines, targets, speakers)
            except ValueError as error:  # too few speakers
                logger.warning(f"No confidence interval of {name}: {error}")
                return {}
            ends[f"{name} low"] = unit * interval.low
            ends[f"{name} high"] = unit * interval.high
        return ends

    def _sides(self, stage):
        """Cosines of target and of non-target trials."""
        cosines = self.cosines(stage)
        targets = self.hparams.trials[stage].targets
        return cosines[targets], cosines[~targets]

    def _calibrated(self, stage):
        """A calibration by a stage's trials, if the scores separate them."""
        try:
            return Calibration.fit(
                self.cosines(stage),
                self.hparams.trials[stage].targets,
                prior=0.5,
                smoothing=True,
            )
        except ValueError as error:  # scores that do not separate them yet
            logger.warning(f"No calibration: {error}")
            return Calibration()


def _load_calibration(brain, path, end_of_epoch):
    """Recovers a Brain's calibration."""
    brain.calibration = Calibration.read(path)


def _load_rates(brain, path, end_of_epoch):
    """Recovers the error rates of a Brain on the test set."""
    brain.test_rates = json.loads(Path(path).read_text(encoding="utf-8"))
