"""A search over learning rates, by full trainings of which the best is kept.

SUPERB allows it, and its numbers depend on it: every rate is trained from the
same start on the same batches, and the recipe's first score of the validation
set decides, the first of equals. Each rate has its checkpoints to itself, in
``save_folder/learning_rates``: a killed search goes on from the last one, and
trains no more with rates that were done.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.logger import get_logger
from speechbrain.utils.seed import seed_everything

from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.saving import best_checkpoint

logger = get_logger(__name__)

_NO_SCORES = ("end-of-epoch", "unixtime")
"""What SpeechBrain adds to the scores of a checkpoint."""


def search_learning_rate(
    make_brain: Callable[[dict[str, Any]], SSLBrain],
    fit: Callable[[SSLBrain], object],
    hparams: dict[str, Any],
) -> tuple[SSLBrain, dict[str, Any]]:
    """Trains with each rate of ``learning_rate_search``.

    ``make_brain`` makes a Brain of hparams, ``fit`` trains it, or goes on from
    its last checkpoint. Gives the Brain of the best rate, and what to report:
    ``learning_rate``, and ``learning_rate_search``, the rates with their scores
    of the validation set. A ``ValueError`` where the backbone trains too.
    """
    rates = _rates(hparams)
    train = _trainer(make_brain, fit, hparams)
    keys, rows = [], []
    for rate in rates:
        brain = train(rate)
        key, scores = _outcome(brain)
        keys.append(key)
        rows.append({"learning_rate": rate, **scores})
    best = rates[keys.index(max(keys))]
    logger.info(f"The best learning rate on the validation set is {best:g}")
    record = {"learning_rate": best, "learning_rate_search": rows}
    return brain if best == rates[-1] else train(best), record


def _rates(hparams):
    """The rates to try, as numbers."""
    given = hparams["learning_rate_search"]
    try:
        rates = [float(rate) for rate in given]
    except (TypeError, ValueError):
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(
            "learning_rate_search: expected a list of rates above 0, such as "
            f"[0.1, 0.01, 0.001]; got {given}"
        )
    if any(p.requires_grad for p in hparams["backbone"].parameters()):
        raise ValueError(
            "learning_rate_search: expected a frozen backbone (--freeze=True); "
            "this one trains"
        )
    if "lr" not in getattr(hparams["opt_class"], "keywords", {}):
        raise ValueError(
            "learning_rate_search: expected an opt_class with the argument lr"
        )
    return list(dict.fromkeys(rates))


def _trainer(make_brain, fit, hparams):
    """What trains with a rate, always from the same start."""
    modules = [m for n, m in hparams["modules"].items() if n != "backbone"]
    start = [copy.deepcopy(module.state_dict()) for module in modules]
    base = hparams["checkpointer"]
    folder = Path(hparams["save_folder"], "learning_rates")
    # The frozen backbone is what the yaml says
    kept = {k: v for k, v in base.recoverables.items() if k != "backbone"}
    opened = {}

    def train(rate):
        for module, state in zip(modules, start, strict=True):
            module.load_state_dict(state)
        hparams["epoch_counter"].current = 0
        own = {
            "curves": f"curves_{rate:g}",
            "opt_class": partial(hparams["opt_class"], lr=rate),
            "checkpointer": Checkpointer(
                folder / str(rate),
                kept,
                dict(base.custom_load_hooks),
                dict(base.custom_save_hooks),
            ),
        }
        if "lr" in hparams:
            own["lr"] = rate
        if "seed" in hparams:
            seed_everything(hparams["seed"])
        brain = make_brain({**hparams, **own, **opened})
        opened["opened_cache"] = brain.cache
        try:
            fit(brain)
        except ValueError:
            if brain.nonfinite_count <= brain.nonfinite_patience:
                raise
            logger.warning(f"Learning rate {rate:g}: the loss is not finite")
        return brain

    return train


def _outcome(brain):
    """How good a Brain's best checkpoint is, by the recipe's first score alone,
    as in SUPERB, and its scores of the validation set; none of one whose loss
    was not finite before the first."""
    best = best_checkpoint(brain.checkpointer, brain.precedence)
    if best is not None:
        scores = {k: v for k, v in best.meta.items() if k not in _NO_SCORES}
        return brain.importance(best)[0], scores
    if brain.nonfinite_count <= brain.nonfinite_patience:
        raise ValueError(
            f"{brain.checkpointer.checkpoints_dir}: expected a checkpoint of a "
            "finished epoch; got none"
        )
    return -math.inf, {}
