"""The Brain that every task starts from.

``SSLBrain`` is SpeechBrain's ``Brain`` with two optimizers, a learning rate per
update, clipping over everything that is stepped, no lost batches, scores per
utterance, and checkpoints from which a killed run continues to the same
weights.
"""

import json
import math
import os
from pathlib import Path

import torch
from speechbrain import Stage
from speechbrain.utils.distributed import (
    is_distributed_initialized,
    run_on_main,
)

from unispeech_sb.brains.checkpoints import best_checkpoint, save_checkpoint
from unispeech_sb.brains.resuming import ResumingBrain


class SSLBrain(ResumingBrain):
    """Base of all tasks; a subclass computes, this class trains.

    A subclass writes ``compute_forward`` and ``compute_objectives``, and may
    write ``stage_scores``, ``importance`` and ``write_report``.

    Keys read from ``hparams``, beside SpeechBrain's own:

    * ``backbone``: the module that is also ``modules["backbone"]``.
    * ``opt_class``: optimizer of all trainable parameters, under the name
      ``head``. With ``backbone_opt_class`` the backbone's go to a second one,
      ``backbone``. Frozen parameters are in neither.
    * ``freeze_backbone_updates``: the first so many updates leave the backbone
      as it is, in its current train or eval mode.
    * ``lr_scheduler``: number of updates made -> factor on every learning
      rate (``!name:unispeech_sb.brains.tri_stage``). It has no state, so
      nothing of it needs saving.
    * ``train_logger``; with ``tensorboard: True`` also
      ``tensorboard_logger``, a ``!name:`` that is only then built.
    * ``epoch_counter``, ``output_folder``, ``augmentation`` (optional).

    Checkpoints are complete or absent: they are written to
    ``<checkpoints_dir>/partial`` and moved. The best and the last are kept.
    With data pipelines that draw random numbers in worker processes, a run
    resumed inside an epoch draws others than an uninterrupted one.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        As ``speechbrain.core.Brain``; ``hparams`` is required.

    Example
    -------
    >>> class Regression(SSLBrain):
    ...     def compute_forward(self, batch, stage):
    ...         return self.modules.head(batch)
    ...
    ...     def compute_objectives(self, predictions, batch, stage):
    ...         return predictions.square().mean()
    >>> from functools import partial
    >>> brain = Regression(
    ...     {"head": torch.nn.Linear(2, 1)},
    ...     partial(torch.optim.SGD, lr=0.1),
    ...     {"train_logger": None},
    ...     {"device": "cpu"},
    ... )
    >>> loader = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    >>> brain.fit(range(1, 3), loader, progressbar=False)
    >>> brain.optimizer_step
    4
    """

    def compute_features(self, batch, stage):
        """Augment in training, then run the backbone.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``: waveforms at 16 kHz, [B, N], and relative lengths.
        stage : Stage
            Stage of the experiment.

        Returns
        -------
        feats : torch.Tensor
            [B, T, D], or [L+1, B, T, D] of a backbone that gives all layers.
        frame_lens : torch.Tensor
            Valid share of the T frames, in (0, 1], [B].
        """
        wavs, wav_lens = batch.to(self.device).sig
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            wavs, wav_lens = augmentation(wavs, wav_lens)
        # Not by requires_grad: DDP has registered the parameters by now
        grad = torch.is_grad_enabled() and not self.backbone_is_held
        with torch.set_grad_enabled(grad):
            feats = self.modules.backbone(wavs, wav_lens)
        backbone = self.hparams.backbone
        return feats, backbone.frame_lens(wavs.size(1), wav_lens)

    def evaluate(
        self,
        test_set,
        max_key=None,
        min_key=None,
        progressbar=None,
        test_loader_kwargs=None,
    ):
        """Score the best checkpoint, by ``importance`` if no key is given.

        Arguments
        ---------
        test_set, max_key, min_key, progressbar
            As ``Brain.evaluate``.
        test_loader_kwargs : dict, optional
            As ``Brain.evaluate``; left unchanged.

        Returns
        -------
        float
            Mean loss per utterance. All scores are in ``self.scores``.
        """
        kwargs = dict(test_loader_kwargs or {})
        return super().evaluate(test_set, max_key, min_key, progressbar, kwargs)

    @torch.no_grad()
    def evaluate_batch(self, batch, stage):
        """As ``Brain``, noting how many utterances the loss is a mean of.

        Arguments
        ---------
        batch : PaddedBatch
            Batch to evaluate.
        stage : Stage
            VALID or TEST.

        Returns
        -------
        torch.Tensor
            Detached loss.
        """
        self.batch_weight = len(batch)
        return super().evaluate_batch(batch, stage)

    def update_average(self, loss, avg_loss):
        """Running mean per utterance, since batches differ in size.

        Arguments
        ---------
        loss : torch.Tensor
            Mean loss of a batch. One that is not finite is left out in
            training and makes the mean of a validation or test not finite.
        avg_loss : float
            Mean so far.

        Returns
        -------
        float
            New mean.
        """
        if self.modules.training and not torch.isfinite(loss):
            return avg_loss
        self.total_weight += self.batch_weight
        share = self.batch_weight / self.total_weight
        return avg_loss + (float(loss) - avg_loss) * share

    def stage_scores(self, stage):
        """Scores of a validation or test beside the loss, for subclasses.

        Arguments
        ---------
        stage : Stage
            VALID or TEST.

        Returns
        -------
        dict
            Name -> float.
        """
        return {}

    def importance(self, checkpoint):
        """How good a checkpoint is; the highest is kept and evaluated.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            With the scores of its validation in ``meta``.

        Returns
        -------
        tuple
            Sort key: here the negative loss.
        """
        loss = checkpoint.meta["loss"]
        return (-loss if math.isfinite(loss) else -math.inf,)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log; save after a validation; report after a test.

        Arguments
        ---------
        stage : Stage
            Stage that has ended.
        stage_loss : float
            Mean loss per utterance.
        epoch : int, optional
            Epoch, from 1; none in a test.
        """
        if stage == Stage.TRAIN:
            self.train_scores = {"loss": self._mean_over_ranks(stage_loss)}
            return
        scores = {"loss": float(stage_loss)}
        scores |= {k: float(v) for k, v in self.stage_scores(stage).items()}
        if stage == Stage.VALID:
            self._log(
                {"epoch": epoch, **self._learning_rates()},
                train_stats=self.train_scores,
                valid_stats=scores,
            )
            if self.checkpointer is not None:
                save_checkpoint(self.checkpointer, scores, self.importance)
        else:
            self.scores = scores
            loaded = self.hparams.epoch_counter.current
            self._log({"epoch loaded": loaded}, test_stats=scores)
            run_on_main(self.write_report, [Path(self.hparams.output_folder)])

    def write_report(self, folder):
        """Write ``self.scores`` to ``scores.json``, on the main process.

        Arguments
        ---------
        folder : pathlib.Path
            The experiment's folder.
        """
        partial_file = folder / "scores.json.partial"
        partial_file.write_text(json.dumps(self.scores, indent=2) + "\n")
        os.replace(partial_file, folder / "scores.json")

    def _learning_rates(self):
        """What the log shows: ``lr``, and ``lr_backbone`` if it has its own."""
        return {
            "lr" if name == "head" else f"lr_{name}": optimizer.param_groups[0][
                "lr"
            ]
            for name, optimizer in self.optimizers_dict.items()
        }

    def _log(self, meta, **stats):
        """Write one line to every logger."""
        for log in (self.hparams.train_logger, self.tensorboard):
            if log is not None:
                log.log_stats(meta, **stats)

    def _mean_over_ranks(self, mean):
        """Mean over the utterances that all processes have seen."""
        if not is_distributed_initialized():
            return mean
        total = self.total_weight
        sums = torch.tensor([mean * total, total], device=self.device)
        torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1].clamp(min=1.0))

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the best checkpoint.

        Arguments
        ---------
        max_key, min_key : str, optional
            As ``Brain``; ``importance`` decides without them.

        Raises
        ------
        ValueError
            Where there is no checkpoint of a finished epoch.
        """
        if self.checkpointer is None:
            return
        if max_key is not None or min_key is not None:
            best = self.checkpointer.find_checkpoint(
                max_key=max_key, min_key=min_key
            )
        else:
            best = best_checkpoint(self.checkpointer, self.importance)
        if best is None:
            raise ValueError(
                f"{self.checkpointer.checkpoints_dir} holds no checkpoint of a "
                "finished epoch to evaluate"
            )
        self.checkpointer.load_checkpoint(best)
        self.step = 0
