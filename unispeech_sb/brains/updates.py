"""One update: two optimizers, accumulation, clipping, learning rates."""

import torch
from speechbrain import Stage
from speechbrain.core import Brain


class UpdatingBrain(Brain):
    """The part of ``SSLBrain`` that makes optimizer updates.

    Against ``Brain``: gradients are clipped by their global norm over all
    that is stepped, ``max_grad_norm`` of None, 0 or less means no clipping,
    the last batches of an epoch are not lost when they are fewer than
    ``grad_accumulation_factor``, and learning rates follow ``lr_scheduler``.
    """

    def init_optimizers(self):
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
            name: opt_class(self._groups(parameters))
            for name, (opt_class, parameters) in shares.items()
            if opt_class is not None and parameters
        }
        for name, optimizer in self.optimizers_dict.items():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(
                    f"{name}_optimizer", optimizer
                )

    def _groups(self, parameters):
        """Parameter groups, vectors apart if they are not to decay."""
        if not self.remove_vector_weight_decay:
            return parameters
        vectors = [p for p in parameters if p.ndim == 1]
        others = [p for p in parameters if p.ndim != 1]
        return [{"params": vectors, "weight_decay": 0.0}, {"params": others}]

    @property
    def backbone_is_held(self):
        """Whether ``freeze_backbone_updates`` still holds the backbone."""
        updates = getattr(self.hparams, "freeze_backbone_updates", None) or 0
        return self.optimizer_step < updates

    def freeze_optimizers(self, optimizers):
        """Leave out the backbone's optimizer while the backbone is held.

        Arguments
        ---------
        optimizers : dict
            Name -> optimizer.

        Returns
        -------
        dict
            The optimizers of this update.
        """
        if not self.backbone_is_held:
            return optimizers
        return {k: v for k, v in optimizers.items() if k != "backbone"}

    def fit_batch(self, batch):
        """Accumulate one batch and update where its group of batches ends.

        The last group of an epoch may be short; its gradient is the mean over
        the batches that it has.

        Arguments
        ---------
        batch : PaddedBatch
            One micro-batch.

        Returns
        -------
        torch.Tensor
            Detached loss.
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
            self.check_loss_isfinite(scaled_loss)
            scaled_loss.backward()
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach().cpu()

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

    def optimizers_step(self):
        """One update: learning rates, global clipping, step."""
        optimizers = self.freeze_optimizers(self.optimizers_dict)
        groups = [g for o in optimizers.values() for g in o.param_groups]
        schedule = getattr(self.hparams, "lr_scheduler", None)
        if schedule is not None:
            for group in groups:
                group["lr"] = group["initial_lr"] * schedule(
                    self.optimizer_step
                )
        for optimizer in optimizers.values():
            self.scaler.unscale_(optimizer)
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        if self.max_grad_norm is not None and self.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(
                [p for g in groups for p in g["params"]], self.max_grad_norm
            )
        for optimizer in optimizers.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
