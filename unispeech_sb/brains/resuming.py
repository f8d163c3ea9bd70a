"""A training that goes on after ``kill -9`` as if nothing had happened."""

import os
from functools import partial

import torch
from speechbrain import Stage
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.dataio.dataloader import LoopedLoader, SaveableDataLoader
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import run_on_main
from torch.utils.data import DataLoader

from unispeech_sb.brains.checkpoints import (
    random_states,
    save_checkpoint,
    set_random_state,
)
from unispeech_sb.brains.updates import UpdatingBrain


@partial(register_checkpoint_hooks, save_on_main_only=False)
class ResumingBrain(UpdatingBrain):
    """The part of ``SSLBrain`` that continues a run where it was stopped.

    Against ``Brain``: the random generators are saved, a checkpoint inside an
    epoch is only taken between updates, the order of every epoch and batch is
    kept in one process too, and a finished run is not gone on with.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        As ``speechbrain.core.Brain``; ``hparams`` is required.
    """

    def __init__(
        self,
        modules=None,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        self.total_weight = 0.0
        self.pending_batches = 0
        self.scores = {}
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if self.optimizer_step_limit is not None:
            # SpeechBrain's command line hands it over as a string
            self.optimizer_step_limit = int(self.optimizer_step_limit)
        self.tensorboard = None
        if getattr(self.hparams, "tensorboard", False):
            self.tensorboard = self.hparams.tensorboard_logger()

    def make_dataloader(
        self, dataset, stage, ckpt_prefix="dataloader-", **loader_kwargs
    ):
        """As ``Brain``, and the sampler learns of each epoch in one process.

        Arguments
        ---------
        dataset, stage, ckpt_prefix, **loader_kwargs
            As ``Brain.make_dataloader``.

        Returns
        -------
        DataLoader
        """
        loader = super().make_dataloader(
            dataset, stage, ckpt_prefix, **loader_kwargs
        )
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

    def fit(
        self,
        epoch_counter,
        train_set,
        valid_set=None,
        progressbar=None,
        train_loader_kwargs=None,
        valid_loader_kwargs=None,
    ):
        """Train, or go on from the last checkpoint.

        Arguments
        ---------
        epoch_counter, train_set, valid_set, progressbar
            As ``Brain.fit``.
        train_loader_kwargs, valid_loader_kwargs : dict, optional
            As ``Brain.fit``; left unchanged.
        """
        if isinstance(train_set, DataLoader):
            self._follow(train_set)
        elif not isinstance(train_set, LoopedLoader) and not self.test_only:
            train_set = self.make_dataloader(
                train_set, Stage.TRAIN, **(train_loader_kwargs or {})
            )
        self.train_loader = train_set
        super().fit(
            self._remaining(epoch_counter),
            train_set,
            valid_set,
            progressbar,
            valid_loader_kwargs=dict(valid_loader_kwargs or {}),
        )

    def _remaining(self, epoch_counter):
        """Epochs to do; ``Brain.fit`` asks after it has loaded a checkpoint."""
        for epoch in epoch_counter:
            debugged = self.debug and 0 < self.debug_epochs < epoch
            if debugged or self._optimizer_step_limit_exceeded:
                return
            yield epoch

    def on_stage_start(self, stage, epoch=None):
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
        if stage == Stage.TRAIN:
            self.pending_batches = 0
            if isinstance(self.train_loader, DataLoader):
                seed = int(os.environ.get("SB_GLOBAL_SEED", 0)) + epoch
                self.train_loader.generator.manual_seed(seed)

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Only between updates: gradients are not saved."""
        return self.pending_batches == 0 and (
            super()._should_save_intra_epoch_ckpt(
                last_ckpt_time, steps_since_ckpt
            )
        )

    def _save_intra_epoch_ckpt(self):
        """As ``Brain``, complete or absent."""
        save_checkpoint(
            self.checkpointer,
            {INTRA_EPOCH_CKPT_FLAG: True},
            self.importance,
            end_of_epoch=False,
        )

    @mark_as_saver
    def _save(self, path):
        """Write position and generators; all processes take part."""
        states = random_states()
        state = {
            "step": self.step,
            "avg_train_loss": self.avg_train_loss,
            "total_weight": self.total_weight,
            "optimizer_step": self.optimizer_step,
            "random_states": states,
        }
        if self.tensorboard is not None:
            state["tensorboard"] = self.tensorboard.global_step
        run_on_main(torch.save, [state, path])

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Read what ``_save`` wrote; an epoch that has ended starts anew."""
        state = torch.load(path, weights_only=True)
        self.optimizer_step = state["optimizer_step"]
        self.step = 0 if end_of_epoch else state["step"]
        self.avg_train_loss = 0.0 if end_of_epoch else state["avg_train_loss"]
        self.total_weight = state["total_weight"]
        set_random_state(state["random_states"])
        if self.tensorboard is not None and "tensorboard" in state:
            self.tensorboard.global_step = state["tensorboard"]
