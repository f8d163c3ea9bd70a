"""The Brain that every task starts from.

``SSLBrain`` is SpeechBrain's ``Brain`` with two optimizers, a learning rate per
update, clipping over everything that is stepped, no lost batches, scores per
utterance, and checkpoints from which a killed run continues to the same
weights.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG, Brain
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import LoopedLoader, SaveableDataLoader
from speechbrain.utils import checkpoints
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import (
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions
from torch.utils.data import DataLoader, Dataset

from unispeech_sb.atomic import write_json
from unispeech_sb.brains import data_parallel
from unispeech_sb.brains.feature_cache import open_cache
from unispeech_sb.brains.saving import (
    Curves,
    StateWriter,
    best_checkpoint,
    log_stats,
    random_states,
    save_checkpoint,
    set_random_state,
)
from unispeech_sb.brains.schedules import fused
from unispeech_sb.brains.throughput import Throughput
from unispeech_sb.dataio.shard_batches import ShardBatches, ShardLoader

logger = get_logger(__name__)


@partial(checkpoints.register_checkpoint_hooks, save_on_main_only=False)
class SSLBrain(Brain):
    """Base of all tasks; a subclass computes, this class trains.

    A subclass writes ``compute_forward`` and ``compute_objectives``, and may
    write ``stage_scores``, ``importance`` and ``write_report``, and
    ``export(folder, scores, scored_on)``, which ``experiment.run`` calls last.

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
    * ``epoch_counter``, ``output_folder``, ``augmentation`` (optional). Losses,
      scores and learning rates of each epoch are in ``curves.csv`` of that
      folder, and drawn in ``curves.png``.
    * ``feature_cache``, a folder: features of a frozen backbone are computed
      once and read from there, with ``cache_dtype``, ``cache_crops`` and
      ``seed``; see ``brains.feature_cache``. A ``--debug`` run has none.
    * ``protocol``: "superb" breaks no ties of checkpoints by the loss.
    * ``data_parallel``, of several processes: "ddp", or "fsdp", which shards
      weights, gradients and optimizers. ``activation_checkpointing``: True
      computes the backbone's activations again in the backward pass.
    * ``async_checkpoints``: True writes checkpoints while the training goes
      on, from copies in memory; ``keep_checkpoints``: how many of the last.

    Against ``Brain``: gradients are clipped by their global norm over all
    that is stepped, ``max_grad_norm`` of None, 0 or less means no clipping,
    the last batches of an epoch are not lost when they are fewer than
    ``grad_accumulation_factor``. The random generators are saved, a checkpoint
    inside an epoch is only taken between updates, the order of every epoch and
    batch is kept in one process too, and a finished run is not gone on with.
    Optimizers are fused where torch has that, and the log has the share of
    ``padding`` in the waveforms of training.

    Checkpoints are complete or absent: they are written to
    ``<checkpoints_dir>/partial`` and moved. The best and the last are kept.
    They have the same files for any number of processes, sharded or not; one
    from within an epoch goes on at the same share of it.
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

    optimizer_step_limit: int | None
    noprogressbar: bool

    def __init__(
        self,
        modules: dict[str, torch.nn.Module] | None = None,
        opt_class: Callable[..., torch.optim.Optimizer] | None = None,
        hparams: dict[str, Any] | None = None,
        run_opts: dict[str, Any] | RunOptions | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.total_weight = 0.0
        self.pending_batches = 0
        self.nonfinite_count = 0
        self.scores: dict[str, float] = {}
        self.throughput, self.counted = Throughput(), (0, 0)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if not sys.stderr.isatty():
            self.noprogressbar = True  # a file is no place for bars
        self.is_sharded = data_parallel.is_to_shard(self)
        self.writer = StateWriter(self.hparams, self.is_sharded)
        if getattr(self.hparams, "activation_checkpointing", False):
            data_parallel.recompute(self.modules)
        if self.optimizer_step_limit is not None:
            # SpeechBrain's command line hands it over as a string
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        self.cache = getattr(self.hparams, "opened_cache", None)
        if self.cache is None and not self.debug:
            head = self.modules["head"] if "head" in self.modules else None
            self.cache = open_cache(self.hparams, head, self.device)
        self.curves = Curves(self.hparams)
        self.tensorboard = None
        if getattr(self.hparams, "tensorboard", False):
            self.tensorboard = self.hparams.tensorboard_logger()

    def compute_features(
        self, batch: PaddedBatch, stage: Stage
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments ``sig``, [B, N] at 16 kHz, in training; runs the backbone.

        Features are [B, T, D], or [L+1, B, T, D] of a backbone that gives all
        layers; lengths are valid shares of the T frames, in (0, 1], [B]. From
        a cache they may be a mean of the frames, with T = 1.
        """
        if self.cache is not None:
            return self.cache.features(batch)
        if stage == Stage.TRAIN:
            self.throughput.add(*batch.sig)
        wavs, wav_lens = batch.to(self.device).sig
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            wavs, wav_lens = augmentation(wavs, wav_lens)
        # Not by requires_grad: DDP has registered the parameters by now
        grad = torch.is_grad_enabled() and not self.backbone_is_frozen
        with torch.set_grad_enabled(grad):
            feats = self.modules.backbone(wavs, wav_lens)
        backbone = self.hparams.backbone
        return feats, backbone.frame_lens(wavs.size(1), wav_lens)

    @property
    def backbone_is_frozen(self) -> bool:
        """Whether ``freeze_backbone_updates`` still freezes the backbone."""
        updates = getattr(self.hparams, "freeze_backbone_updates", None) or 0
        return self.optimizer_step < updates

    def fit(
        self,
        epoch_counter: Iterable[int],
        train_set: Dataset[Any] | DataLoader[Any],
        valid_set: Dataset[Any] | DataLoader[Any] | None = None,
        progressbar: bool | None = None,
        train_loader_kwargs: dict[str, Any] | None = None,
        valid_loader_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Train, or go on from the last checkpoint."""
        if isinstance(train_set, DataLoader):
            self._follow(train_set)
        elif not isinstance(train_set, LoopedLoader) and not self.test_only:
            train_set = self.make_dataloader(
                train_set, Stage.TRAIN, **(train_loader_kwargs or {})
            )
        self.train_loader: Any = train_set
        try:
            super().fit(
                self._remaining(epoch_counter),
                train_set,
                valid_set,
                progressbar,
                valid_loader_kwargs=dict(valid_loader_kwargs or {}),
            )
            run_on_main(self.writer.wait)  # and the others for it
        finally:  # after Ctrl-C, too
            self.writer.wait()
            self.curves.draw()

    def _remaining(self, epoch_counter):
        """Epochs to do; ``Brain.fit`` asks after it has loaded a checkpoint."""
        for epoch in epoch_counter:
            debugged = self.debug and 0 < self.debug_epochs < epoch
            if debugged or self._optimizer_step_limit_exceeded:
                return
            yield epoch

    def on_fit_start(self) -> None:
        """As ``Brain``; a cache is of the backbone that a run goes on with."""
        super().on_fit_start()
        data_parallel.align(self, self.train_loader)
        if self.cache is not None:
            self.cache.check()

    def _wrap_distributed(self):
        """As ``Brain``, or sharded. Batch norms of several CPUs are left as
        they are, for torch synchronizes those of GPUs only."""
        if self.is_sharded:
            data_parallel.shard(self.modules, self.device_type)
        elif is_distributed_initialized() and self.device_type == "cpu":
            data_parallel.wrap(self.modules, self.find_unused_parameters)
        else:
            super()._wrap_distributed()

    def make_dataloader(
        self,
        dataset: Dataset[Any],
        stage: Stage,
        ckpt_prefix: str | None = "dataloader-",
        **kwargs: Any,
    ) -> DataLoader[Any]:
        """As ``Brain``, and the sampler learns of each epoch in one process."""
        if kwargs.get("num_workers") and sys.platform == "linux":
            # From Python 3.14 on a worker is not forked by default, and could
            # not be given the functions that a pipeline makes
            kwargs.setdefault("multiprocessing_context", "fork")
        if self.cache is not None:
            kwargs.setdefault("collate_fn", PaddedBatch)
            dataset = self.cache.view(
                dataset, kwargs.get("num_workers", 0), not self.noprogressbar
            )
        # Those are of this process alone, and SpeechBrain would share them out
        is_own = isinstance(kwargs.get("batch_sampler"), ShardBatches)
        make = ShardLoader.of_stage if is_own else super().make_dataloader
        loader = make(dataset, stage, ckpt_prefix, **kwargs)
        if stage == Stage.TRAIN:
            self._follow(loader)
        return loader

    def _follow(self, loader):
        """Note what of a training loader each epoch and resuming depend on."""
        # A generator of its own, because starting a loader draws from the
        # global one, and a resumed epoch starts its loader once more
        loader.generator = torch.Generator()
        for sampler in (loader.batch_sampler, loader.sampler):
            if self.train_sampler is None and hasattr(sampler, "set_epoch"):
                self.train_sampler = sampler
        if self.checkpointer is not None and isinstance(
            loader, SaveableDataLoader
        ):
            self.checkpointer.add_recoverable("dataloader-TRAIN", loader)

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Forget the last stage; a subclass that overrides it calls it.

        Arguments
        ---------
        stage : Stage
            Stage of the experiment.
        epoch : int, optional
            Epoch, from 1; none in a test.
        """
        if self.step == 0:  # else a stage that was resumed inside
            self.total_weight = 0.0
        if self.is_sharded:
            data_parallel.gather_for(stage == Stage.TRAIN, self.modules)
        if stage == Stage.TRAIN:
            self.pending_batches = 0
            self.throughput.clear(*self.counted)
            self.counted = 0, 0
            if isinstance(self.train_loader, DataLoader):
                assert epoch is not None  # in training there is one
                seed = int(os.environ.get("SB_GLOBAL_SEED", 0)) + epoch
                self.train_loader.generator.manual_seed(seed)

    def fit_batch(self, batch: PaddedBatch) -> torch.Tensor:
        """Accumulates one batch and updates where its group of batches ends.

        The last group of an epoch may be short; its gradient is the mean over
        the batches that it has.
        """
        group, should_step = self._accumulation()
        self.pending_batches = 0 if should_step else self.pending_batches + 1
        self.batch_weight = len(batch)
        self.on_fit_batch_start(batch, should_step)
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, Stage.TRAIN)
            scaled_loss = self.scaler.scale(loss / group)
            # The one wait for the device, while it has all of a step to do
            shown = torch.stack([scaled_loss.detach(), loss.detach()]).cpu()
            self.check_loss_isfinite(shown[0])
            scaled_loss.backward()
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return shown[1]

    def _accumulation(self):
        """Size of this batch's group, and whether this batch ends it."""
        factor = self.grad_accumulation_factor
        if factor == 1:
            return 1, True
        # Known ahead, since DDP has to synchronise within the last batch
        total = len(self.train_loader)
        if self.debug:
            total = min(total, self.debug_batches)
        short = total % factor
        if short and self.step > total - short:
            return short, self.step == total
        return factor, self.step % factor == 0

    def optimizers_step(self) -> None:
        """One update: learning rates, global clipping, step."""
        optimizers = self.freeze_optimizers(self.optimizers_dict)
        groups = [g for o in optimizers.values() for g in o.param_groups]
        schedule = getattr(self.hparams, "lr_scheduler", None)
        if schedule is not None:
            factor = schedule(self.optimizer_step)
            for group in groups:
                group["lr"] = group["initial_lr"] * factor
        for optimizer in optimizers.values():
            self.scaler.unscale_(optimizer)
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        if self.max_grad_norm is not None and self.max_grad_norm > 0:
            parameters = [p for g in groups for p in g["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        for optimizer in optimizers.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def init_optimizers(self) -> None:
        """Make ``self.optimizers_dict`` and add it to the checkpoints."""
        backbone_class = getattr(self.hparams, "backbone_opt_class", None)
        own = set()
        if backbone_class is not None:
            own = set(self.modules["backbone"].parameters())
        trainable = [p for p in self.modules.parameters() if p.requires_grad]
        shares = {
            "head": (self.opt_class, [p for p in trainable if p not in own]),
            "backbone": (backbone_class, [p for p in trainable if p in own]),
        }
        self.optimizers_dict = {
            name: opt_class(
                self._groups(parameters), **fused(opt_class, parameters)
            )
            for name, (opt_class, parameters) in shares.items()
            if opt_class is not None and parameters
        }
        for name, made in self.optimizers_dict.items():
            for group in made.param_groups:
                group.setdefault("initial_lr", group["lr"])
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(f"{name}_optimizer", made)
        self.writer.attach(self.checkpointer)

    def _groups(self, parameters):
        """Parameter groups, vectors apart if they are not to decay."""
        if not self.remove_vector_weight_decay:
            return parameters
        vectors = [p for p in parameters if p.ndim == 1]
        others = [p for p in parameters if p.ndim != 1]
        return [{"params": vectors, "weight_decay": 0.0}, {"params": others}]

    def freeze_optimizers(
        self, optimizers: dict[str, torch.optim.Optimizer]
    ) -> dict[str, torch.optim.Optimizer]:
        """Leave out the backbone's optimizer while the backbone is frozen."""
        if not self.backbone_is_frozen:
            return optimizers
        return {k: v for k, v in optimizers.items() if k != "backbone"}

    def evaluate(
        self,
        test_set: Dataset[Any] | DataLoader[Any],
        max_key: str | None = None,
        min_key: str | None = None,
        progressbar: bool | None = None,
        test_loader_kwargs: dict[str, Any] | None = None,
    ) -> float:
        """Scores the best checkpoint, by ``importance`` if no key is given.

        Arguments are those of ``Brain.evaluate``. Gives the mean loss per
        utterance; all scores are in ``self.scores``.
        """
        kwargs = dict(test_loader_kwargs or {})
        return super().evaluate(test_set, max_key, min_key, progressbar, kwargs)

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Loads the best checkpoint, by ``importance`` if no key is given; a
        ``ValueError`` where no epoch was finished."""
        if self.checkpointer is None:
            return
        if max_key is not None or min_key is not None:
            find = self.checkpointer.find_checkpoint
            best = find(max_key=max_key, min_key=min_key)
        else:
            best = best_checkpoint(self.checkpointer, self.precedence)
        if best is None:
            raise ValueError(
                f"{self.checkpointer.checkpoints_dir} holds no checkpoint of a "
                "finished epoch to evaluate"
            )
        self.checkpointer.load_checkpoint(best)
        self.step = 0
        if self.cache is not None:
            self.cache.check()

    @torch.no_grad()
    def evaluate_batch(self, batch: PaddedBatch, stage: Stage) -> torch.Tensor:
        """As ``Brain``, noting how many utterances the loss is a mean of."""
        self.batch_weight = len(batch)
        return super().evaluate_batch(batch, stage)

    def update_average(self, loss: torch.Tensor, avg_loss: float) -> float:
        """Running mean per utterance, since batches differ in size.

        A loss that is not finite is left out in training and makes the mean
        of a validation or test not finite.
        """
        if self.modules.training and not torch.isfinite(loss):
            return avg_loss
        self.total_weight += self.batch_weight
        share = self.batch_weight / self.total_weight
        return avg_loss + (float(loss) - avg_loss) * share

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """Scores of a validation or test beside the loss, name -> float: for
        subclasses."""
        return {}

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """Sort key of a checkpoint, by the scores in its ``meta``: the highest
        is kept and evaluated. Here the negative loss."""
        loss = checkpoint.meta["loss"]
        return (-loss if math.isfinite(loss) else -math.inf,)

    def precedence(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """``importance``, of which SUPERB takes the first score alone: of
        equal checkpoints the first stays, whatever their loss. Of a run without
        validation the last is the best."""
        if "loss" not in checkpoint.meta:
            return (checkpoints.ckpt_recency(checkpoint),)
        found = self.importance(checkpoint)
        superb = getattr(self.hparams, "protocol", None) == "superb"
        return found[:1] if superb else found

    def _fit_valid(self, valid_set, epoch, enable):
        """As ``Brain``, and what is drawn is the same in every validation;
        without a validation set an epoch is saved as it is."""
        if valid_set is not None:
            with self.writer.own_draws():
                super()._fit_valid(valid_set, epoch, enable)
        else:
            self._end_epoch(epoch)

    def _end_epoch(self, epoch, **scores):
        """Logs and saves an epoch, with the scores of its validation."""
        stats = {"train_stats": self.train_scores}
        stats |= {"valid_stats": scores} if scores else {}
        numbers = {"epoch": epoch, **self._learning_rates()}
        log_stats(self.hparams.train_logger, self.tensorboard, numbers, **stats)
        self.curves.append(numbers, self.train_scores, scores)
        if self.checkpointer is not None:
            save_checkpoint(
                self.checkpointer, scores, self.precedence, writer=self.writer
            )

    def on_stage_end(
        self, stage: Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Logs; saves after a validation; reports after a test."""
        if stage == Stage.TRAIN:
            loss = data_parallel.mean_of_all(
                stage_loss, self.total_weight, self.device
            )
            self.train_scores = {"loss": loss}
            if self.throughput.num_samples:
                self.train_scores["padding"] = self.throughput.padding
            return
        scores = {"loss": float(stage_loss)}
        scores |= {k: float(v) for k, v in self.stage_scores(stage).items()}
        if stage == Stage.VALID:
            self._end_epoch(epoch, **scores)
        else:
            self.scores = scores
            loaded = {"epoch loaded": self.hparams.epoch_counter.current}
            loggers = self.hparams.train_logger, self.tensorboard
            log_stats(*loggers, loaded, test_stats=scores)
            run_on_main(self.write_report, [Path(self.hparams.output_folder)])

    def write_report(self, folder: Path) -> None:
        """Write ``self.scores`` to ``scores.json``, on the main process.

        Arguments
        ---------
        folder : pathlib.Path
            The experiment's folder.
        """
        write_json(folder / "scores.json", self.scores)

    def _learning_rates(self):
        """What the log shows: ``lr``, and ``lr_backbone`` if it has its own."""
        return {
            "lr" if name == "head" else f"lr_{name}": o.param_groups[0]["lr"]
            for name, o in self.optimizers_dict.items()
        }

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Only between updates: gradients are not saved."""
        usual = super()._should_save_intra_epoch_ckpt
        is_time = usual(last_ckpt_time, steps_since_ckpt)
        return self.pending_batches == 0 and is_time

    def _save_intra_epoch_ckpt(self):
        """As ``Brain``, complete or absent."""
        save_checkpoint(
            self.checkpointer,
            {INTRA_EPOCH_CKPT_FLAG: True},
            self.precedence,
            end_of_epoch=False,
            writer=self.writer,
        )

    @checkpoints.mark_as_saver
    def _save(self, path):
        """Write position and generators; all processes take part."""
        state = {
            "step": self.step,
            "avg_train_loss": self.avg_train_loss,
            "total_weight": self.total_weight,
            "samples": self.throughput.samples,
            "optimizer_step": self.optimizer_step,
            "random_states": random_states(),
        }
        if self.tensorboard is not None:
            state["tensorboard"] = self.tensorboard.global_step
        run_on_main(torch.save, [state, path])

    @checkpoints.mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Read what ``_save`` wrote; an epoch that has ended starts anew."""
        state = torch.load(path, weights_only=True)
        self.optimizer_step = state["optimizer_step"]
        self.step = 0 if end_of_epoch else data_parallel.position(self, state)
        self.avg_train_loss = 0.0 if end_of_epoch else state["avg_train_loss"]
        self.total_weight = state["total_weight"]
        if not end_of_epoch and "samples" in state:
            self.counted = state["samples"]
        set_random_state(state["random_states"])
        if self.tensorboard is not None and "tensorboard" in state:
            self.tensorboard.global_step = state["tensorboard"]
