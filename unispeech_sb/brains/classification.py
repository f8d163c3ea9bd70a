"""One decision per utterance: keywords, speakers, emotions, intents."""

from collections.abc import Mapping
from pathlib import Path

import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint

from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_classifier
from unispeech_sb.metrics.classification import ConfusionMatrix


class UtteranceBrain(SSLBrain):
    """Classification (or regression) of whole utterances.

    Batches have ``sig`` and ``label_encoded``: an index for a single label,
    [B] or [B, 1], or floats for several labels or regression, [B, C].
    ``hparams`` names, beside what ``SSLBrain`` reads:

    * ``modules["head"]``: features, relative frame lengths -> logits [B, C].
    * ``compute_cost``: logits, targets -> mean loss.
    * ``label_encoder``: SpeechBrain's encoder of the single label. Without
      one there is no accuracy, and the lowest loss is the best.

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
            targets = targets.reshape(-1)  # [B]
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            targets = augmentation.replicate_labels(targets)
        # Half precision costs accuracy in the softmax's sum
        loss = self.hparams.compute_cost(predictions.float(), targets)
        if stage != Stage.TRAIN and self.confusion is not None:
            self.confusion.append(predictions.argmax(dim=-1), targets)
        return loss

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start an empty confusion matrix."""
        super().on_stage_start(stage, epoch)
        encoder = getattr(self.hparams, "label_encoder", None)
        self.confusion = None
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
        if self.confusion is not None:
            print(self.confusion.terminal())
            self.confusion.write(folder, "confusion")

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
