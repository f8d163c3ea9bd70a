"""One decision per utterance: keywords, speakers, emotions, intents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint

from unispeech_sb.atomic import atomic
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_classifier, export_intents
from unispeech_sb.metrics.classification import ConfusionMatrix
from unispeech_sb.nnet.losses import check_combinations


class UtteranceBrain(SSLBrain):
    """Classification (or regression) of whole utterances.

    Batches have ``sig`` and ``label_encoded``: an index for a single label,
    [B] or [B, 1], or floats for several labels or regression, [B, C].
    ``hparams`` names, beside what ``SSLBrain`` reads:

    * ``modules["head"]``: features, relative frame lengths -> logits [B, C].
    * ``compute_cost``: logits, targets -> mean loss.
    * ``label_encoder``: SpeechBrain's encoder of the single label. Without
      one there is no accuracy, and the lowest loss is the best.
    * ``predictions_file``: name of a file in the output folder for ``id`` and
      predicted label of each utterance of the test, SUPERB's form.

    Example
    -------
    >>> from speechbrain.dataio.batch import PaddedBatch
    >>> import torch
    >>> batch = PaddedBatch(
    ...     [{"sig": torch.ones(8), "label_encoded": torch.tensor([1])}] * 2
    ... )
    >>> brain = UtteranceBrain(
    ...     {"head": torch.nn.Linear(1, 3)},
    ...     hparams={"compute_cost": torch.nn.functional.cross_entropy},
    ...     run_opts={"device": "cpu"},
    ... )
    >>> brain.confusion = None
    >>> brain.compute_objectives(torch.zeros(2, 3), batch, Stage.VALID)
    tensor(1.0986)
    """

    def compute_forward(self, batch: PaddedBatch, stage: Stage) -> torch.Tensor:
        """``sig`` to logits, [B, C]."""
        feats, frame_lens = self.compute_features(batch, stage)
        return self.modules.head(feats, frame_lens)

    def compute_objectives(
        self, predictions: torch.Tensor, batch: PaddedBatch, stage: Stage
    ) -> torch.Tensor:
        """Mean loss of logits, [B, C], and ``label_encoded``; after training
        also the confusions."""
        targets = batch.to(self.device).label_encoded.data
        if not targets.is_floating_point():
            # [B]; [B, S] of several decisions
            targets = targets.reshape(len(targets), -1).squeeze(1)
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            targets = augmentation.replicate_labels(targets)
        # Half precision costs accuracy in the softmax's sum
        loss = self.hparams.compute_cost(predictions.float(), targets)
        if stage != Stage.TRAIN:
            self.score(predictions, targets, batch)
        return loss

    def score(
        self, logits: torch.Tensor, targets: torch.Tensor, batch: PaddedBatch
    ) -> None:
        """Counts decisions by logits, [B, C], and keeps them by ``id``."""
        if self.confusion is None:
            return
        chosen = logits.argmax(dim=-1)
        self.confusion.append(chosen, targets)
        if getattr(self.hparams, "predictions_file", None):
            labels = [self.confusion.labels[i] for i in chosen.tolist()]
            pairs = zip(batch.id, labels, strict=True)
            self.predictions += [f"{uid} {label}" for uid, label in pairs]

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start an empty confusion matrix."""
        super().on_stage_start(stage, epoch)
        encoder = getattr(self.hparams, "label_encoder", None)
        self.confusion: ConfusionMatrix | None = None
        self.predictions: list[str] = []
        if encoder is not None:
            labels = [encoder.ind2lab[i] for i in range(len(encoder))]
            self.confusion = ConfusionMatrix(labels)

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """``accuracy``, 0 to 1, of a single label, or nothing."""
        if self.confusion is None:
            return {}
        return {"accuracy": self.confusion.accuracy}

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """Accuracy first, then the loss."""
        accuracy = checkpoint.meta.get("accuracy", 0.0)
        return (accuracy, *super().importance(checkpoint))

    def write_report(self, folder: Path) -> None:
        """Print and write the confusions beside the scores."""
        super().write_report(folder)
        self.write_predictions(folder)
        if self.confusion is not None:
            print(self.confusion.terminal())
            self.confusion.write(folder, "confusion")

    def write_predictions(self, folder: Path) -> None:
        """Write the predictions, where the yaml names a file for them."""
        if self.predictions:
            with atomic(folder / self.hparams.predictions_file) as file:
                file.writelines(f"{line}\n" for line in self.predictions)

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the evaluated model as SpeechBrain's EncoderClassifier."""
        if self.confusion is None:
            return  # nothing to name the classes by
        facts = {
            "utterances scored": int(self.confusion.counts.sum()),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        table = self.confusion.table()
        export_classifier(folder, self.hparams, scores, scored_on, facts, table)


class IntentBrain(UtteranceBrain):
    """Several decisions per utterance, one for each slot of an intent; an
    utterance is right where all of them are.

    Batches have ``id`` and ``label_encoded``, an index for each slot, [B, S].
    ``hparams`` names, beside what ``UtteranceBrain`` reads:

    * ``slot_encoders``: name of a slot -> SpeechBrain's encoder of its values.
    * ``compute_cost``: ``nnet.losses.intent_loss``, with ``slot_sizes``.
    * ``predictions_file``: each line has ``id`` and the values, with commas.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.labels import LabelEncoder
    >>> slots = {"action": ["stop", "go"], "object": ["lamp", "tv", "none"]}
    >>> encoders = {k: LabelEncoder.from_labels(v) for k, v in slots.items()}
    >>> brain = IntentBrain(
    ...     hparams={"slot_encoders": encoders}, run_opts={"device": "cpu"}
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> logits = torch.tensor([[0.0, 1, 3, 1, 2], [0, 1, 1, 0, 0]])
    >>> batch = SimpleNamespace(id=["a", "b"])
    >>> brain.score(logits, torch.tensor([[1, 0], [0, 0]]), batch)
    >>> brain.stage_scores(Stage.VALID)
    {'accuracy': 0.5}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = {
            slot: [encoder.ind2lab[i] for i in range(len(encoder))]
            for slot, encoder in self.hparams.slot_encoders.items()
        }
        self.slot_sizes = [len(values) for values in self.slots.values()]
        check_combinations(self.slot_sizes)

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start an empty confusion matrix for each slot."""
        super().on_stage_start(stage, epoch)
        self.confusions = {k: ConfusionMatrix(v) for k, v in self.slots.items()}
        self.num_right = self.num_scored = 0

    def score(
        self, logits: torch.Tensor, targets: torch.Tensor, batch: PaddedBatch
    ) -> None:
        """Counts decisions by logits, [B, C], and keeps them by ``id``."""
        parts = logits.split(self.slot_sizes, dim=1)
        chosen = torch.stack([part.argmax(1) for part in parts], 1)  # [B, S]
        for column, confusion in enumerate(self.confusions.values()):
            confusion.append(chosen[:, column], targets[:, column])
        self.num_right += int((chosen == targets).all(1).sum())
        self.num_scored += len(targets)
        if getattr(self.hparams, "predictions_file", None):
            for uid, row in zip(batch.id, chosen.tolist(), strict=True):
                pairs = zip(self.slots.values(), row, strict=True)
                values = [names[index] for names, index in pairs]
                self.predictions.append(",".join([uid, *values]))

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """``accuracy``, 0 to 1: the share of utterances that are all right."""
        return {"accuracy": self.num_right / max(self.num_scored, 1)}

    def write_report(self, folder: Path) -> None:
        """Write the confusions of each slot and the predictions beside the
        scores."""
        SSLBrain.write_report(self, folder)
        for slot, confusion in self.confusions.items():
            confusion.write(folder, f"confusion.{slot}")
        self.write_predictions(folder)

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the evaluated model as SpeechBrain's EncoderClassifier, whose
        labels are the values of all slots with ``|`` between them."""
        facts = {
            "utterances scored": self.num_scored,
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        tables = "\n\n".join(
            f"{slot}\n\n{confusion.table()}"
            for slot, confusion in self.confusions.items()
        )
        export_intents(
            folder, self.hparams, self.slots, scores, scored_on, facts, tables
        )
