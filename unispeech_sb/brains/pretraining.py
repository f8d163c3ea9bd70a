"""Pre-training of either kind: UniSpeech and UniSpeech-SAT (Wang et al. 2021,
section 3; Chen et al. 2021, section 3), normalised as the authors' trainer
does.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import (
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_pretraining
from unispeech_sb.brains.throughput import matrix_product_rate

logger = get_logger(__name__)


@partial(register_checkpoint_hooks, save_on_main_only=False)
class WeightedMeans:
    """Weighted means of named numbers, over batches and processes.

    A checkpoint keeps what was added so far; one at the end of an epoch
    keeps nothing.

    Example
    -------
    >>> means = WeightedMeans()
    >>> means.add({"loss": 3.0}, weight=1)
    >>> means.add({"loss": 5.0}, weight=3)
    >>> means.summarize()
    {'loss': 4.5}
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all numbers."""
        self.sums: dict[str, float] = {}
        self.weight = 0.0

    def add(self, numbers: Mapping[str, float], weight: float) -> None:
        """Take in the numbers of a batch.

        Arguments
        ---------
        numbers : dict
            Name -> float.
        weight : float
            What they count.
        """
        self.weight += weight
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + weight * number

    def summarize(self, over_processes: bool = False) -> dict[str, float]:
        """Means, name -> float; ``over_processes`` of what all processes have
        added, and then all of them call this."""
        sums, weight = self._totals() if over_processes else self._own()
        return {name: total / weight for name, total in sums.items()}

    def _own(self):
        """Sums and weight of this process."""
        return self.sums, self.weight

    def _totals(self):
        """Sums and weight over all processes."""
        if not is_distributed_initialized():
            return self._own()
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self._own())
        sums = {}
        for own, _ in parts:
            for name, number in own.items():
                sums[name] = sums.get(name, 0.0) + number
        return sums, sum(weight for _, weight in parts)

    @mark_as_saver
    def _save(self, path):
        """Write the sums; all processes take part."""
        text = json.dumps(self._totals())
        run_on_main(Path(path).write_text, [text, "utf-8"])

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Read the sums, which the main process then holds for all."""
        self.clear()
        main = (
            not is_distributed_initialized()
            or torch.distributed.get_rank() == 0
        )
        if main and not end_of_epoch:
            text = Path(path).read_text(encoding="utf-8")
            self.sums, self.weight = json.loads(text)


class _PretrainingOutput(Protocol):
    """What an objective gives; that of ``lobes``, which is not imported."""

    @property
    def losses(self) -> Mapping[str, torch.Tensor]:
        """Sums over ``sample_size`` frames."""

    @property
    def sample_size(self) -> int:
        """Number of masked frames."""

    @property
    def diagnostics(self) -> Mapping[str, torch.Tensor | float]:
        """Accuracies and the like."""


class PretrainBrain(SSLBrain):
    """Pre-training by whatever losses ``modules["objective"]`` computes.

    The gradients of an update are those of the sum of the losses over all its
    batches and processes, divided by the sum of their masked frames: however
    the same utterances are spread over batches, each masked frame counts the
    same. Only what is no sum over frames (diversity, the feature penalty)
    depends on what a process sees at once, as it does in the authors' code.

    Batches have ``id``, ``sig`` and, but for unlabelled speech, ``targets``.
    ``hparams`` names, beside what ``SSLBrain`` reads:

    * ``modules["objective"]``: a ``lobes.pretraining.Objective``; there is no
      other module.
    * ``objective``, ``backbone`` and ``head``: the same, and its parts.
    * ``compute_cost``: ``lobes.pretraining.weighted_loss`` with its weights.
    * ``mixing`` (optional): waveforms and lengths -> mixed waveforms, in
      training.
    * ``seed``: of what validations draw (masks, candidates, replaced context
      vectors), which is the same each time.

    The log has, for training and validation, the loss, all its parts before
    they are weighed, accuracies, perplexities and the temperature: losses per
    masked frame, in nats. The temperature follows ``optimizer_step``, so a
    run that goes on has that of an uninterrupted one. After each epoch the
    console and ``log.txt`` have the seconds of audio in a second of this
    process, and the MFU: see ``brains.throughput``.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UniSpeechSATHead
    >>> from unispeech_sb.lobes.pretraining import UniSpeechSAT, weighted_loss
    >>> backbone = Backbone.from_preset("tiny")
    >>> objective = UniSpeechSAT(
    ...     backbone, UniSpeechSATHead(16, 9, 12, codevectors=None)
    ... )
    >>> hparams = {"seed": 1, "backbone": backbone, "objective": objective}
    >>> weights = {"cluster": 1.0, "feature_penalty": 0.0}
    >>> hparams["compute_cost"] = partial(weighted_loss, weights=weights)
    >>> brain = PretrainBrain(
    ...     {"objective": objective},
    ...     hparams=hparams,
    ...     run_opts={"device": "cpu"},
    ... )
    >>> batch = SimpleNamespace(
    ...     sig=(torch.randn(2, 8000), torch.ones(2)),
    ...     targets=(torch.randint(9, (2, 24)), torch.ones(2)),
    ... )
    >>> batch.to = lambda device: batch
    >>> brain.on_stage_start(Stage.VALID)
    >>> output = brain.compute_forward(batch, Stage.VALID)
    >>> loss = brain.compute_objectives(output, batch, Stage.VALID)
    >>> sorted(brain.stage_scores(Stage.VALID))
    ['cluster', 'cluster_accuracy', 'feature_penalty']
    """

    def __init__(
        self,
        modules: dict[str, torch.nn.Module] | None = None,
        opt_class: Callable[..., torch.optim.Optimizer] | None = None,
        hparams: dict[str, Any] | None = None,
        run_opts: dict[str, Any] | RunOptions | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.means = WeightedMeans()
        self.sample_sizes: list[int] = []
        self.generator: torch.Generator | None = None
        self.matrix_rate: float | None = None
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("means", self.means)

    def compute_forward(
        self, batch: PaddedBatch, stage: Stage
    ) -> _PretrainingOutput:
        """``sig``, and ``targets`` if there are any, to losses, sample size and
        diagnostics."""
        if stage == Stage.TRAIN:
            wavs, wav_lens = batch.sig
            config = self.hparams.backbone.config
            self.throughput.add(wavs, wav_lens, config)
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        mixing = getattr(self.hparams, "mixing", None)
        if stage == Stage.TRAIN and mixing is not None:
            wavs = mixing(wavs, wav_lens)
        targets, target_lens = getattr(batch, "targets", (None, None))
        return self.modules.objective(
            wavs,
            wav_lens,
            targets=targets,
            target_lens=target_lens,
            num_updates=self.optimizer_step,
            generator=self.generator,
        )

    def compute_objectives(
        self, predictions: _PretrainingOutput, batch: PaddedBatch, stage: Stage
    ) -> torch.Tensor:
        """Weighted sum of the losses over the masked frames."""
        loss = self.hparams.compute_cost(predictions)
        size = self.batch_weight = predictions.sample_size
        if stage == Stage.TRAIN:
            self.sample_sizes.append(size)
        numbers: dict[str, torch.Tensor | float]
        numbers = {n: p / size for n, p in predictions.losses.items()}
        numbers |= predictions.diagnostics
        scalars = [
            torch.as_tensor(value).detach() for value in numbers.values()
        ]
        scalars = [s.to(loss.device, torch.double) for s in scalars]
        values = torch.stack(scalars).tolist()  # one transfer for all of them
        if stage != Stage.TRAIN or all(map(math.isfinite, values)):
            self.means.add(dict(zip(numbers, values, strict=True)), size)
        return loss

    def update_average(self, loss: torch.Tensor, avg_loss: float) -> float:
        """Running mean per masked frame of losses that are sums over them."""
        return super().update_average(loss / self.batch_weight, avg_loss)

    def optimizers_step(self) -> None:
        """One update, of gradients that are divided by all masked frames."""
        frames: torch.Tensor | float = float(sum(self.sample_sizes))
        processes = 1
        if is_distributed_initialized():
            frames = torch.tensor(frames, device=self.device)
            torch.distributed.all_reduce(frames)
            processes = torch.distributed.get_world_size()
        # So far they are means over batches and processes
        factor = processes * len(self.sample_sizes) / frames
        if self.is_sharded:
            factor = float(factor)
        for parameter in self.modules.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        self.sample_sizes.clear()
        super().optimizers_step()

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start with no numbers; choose who draws masks."""
        if self.step == 0:  # else a stage that was resumed inside
            self.means.clear()
        super().on_stage_start(stage, epoch)
        self.sample_sizes.clear()
        self.generator = None
        if stage != Stage.TRAIN:
            self.generator = torch.Generator(self.device)
            self.generator.manual_seed(self.hparams.seed)

    def on_stage_end(
        self, stage: Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """As ``SSLBrain``, with the parts of the training loss in the log."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TRAIN:
            self.train_scores |= self.means.summarize(over_processes=True)
            self._log_speed()

    def _log_speed(self):
        """Says how fast the epoch was, not in the log of its numbers, which
        are the same whenever it runs."""
        if self.matrix_rate is None:
            kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
            kind = kinds.get(self.precision, torch.float32)
            self.matrix_rate = matrix_product_rate(self.device, kind)
        speed, mfu = self.throughput.speed(self.matrix_rate)
        logger.info(
            f"{speed:.1f} s of audio in a second; MFU {mfu:.1%} of "
            f"{self.matrix_rate / 1e9:.0f} GFLOP/s, measured in products of "
            "matrices"
        )

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """Parts of the loss and diagnostics."""
        return self.means.summarize()

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the backbone, and the head that it was trained with."""
        facts = {
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        for key in ("units_folder", "languages", "head_from"):
            if getattr(self.hparams, key, None):
                facts[key] = getattr(self.hparams, key)
        export_pretraining(folder, self.hparams, scores, scored_on, facts)


def build_objective(
    hparams: dict[str, Any], head_options: dict[str, Any], **options: Any
) -> None:
    """Builds head and objective once the number of their classes is known.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``head`` and ``objective`` are names of classes
        there, and become what they build. A run that begins takes the head's
        weights from the folder ``head_from``, if there is one.
    head_options : dict
        Arguments of the head that the yaml does not have.
    **options
        Those of the objective.

    Example
    -------
    >>> from speechbrain.utils.checkpoints import Checkpointer
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UniSpeechSATHead
    >>> from unispeech_sb.lobes.pretraining import Instances, UniSpeechSAT
    >>> hparams = {"backbone": Backbone.from_preset("tiny"), "modules": {}}
    >>> hparams["head"] = partial(UniSpeechSATHead, 16, codevectors=[2, 4, 6])
    >>> hparams["objective"] = partial(UniSpeechSAT, instances=Instances(1))
    >>> hparams["checkpointer"] = Checkpointer(getfixture("tmpdir"))
    >>> hparams["head_from"] = None
    >>> build_objective(hparams, {"num_clusters": 9}, label_rate=100)
    >>> list(hparams["modules"])
    ['objective']
    """
    head, checkpointer = (
        hparams["head"](**head_options),
        hparams["checkpointer"],
    )
    if hparams["head_from"] and checkpointer.find_checkpoint() is None:
        hparams["load_head"](head, hparams["head_from"])
    objective = hparams["objective"](hparams["backbone"], head, **options)
    hparams |= {"head": head, "objective": objective}
    hparams["modules"]["objective"] = objective
    checkpointer.add_recoverable("head", head)
