"""Learning rate as a function of the number of updates made, and by which
pass an update is made."""

import torch

_FUSED_CLASSES = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
_OTHER_PASSES = ("capturable", "differentiable", "foreach", "fused")


def tri_stage(
    update: int,
    warmup: int = 0,
    hold: int = 0,
    decay: int = 0,
    initial_scale: float = 0.01,
    final_scale: float = 0.05,
) -> float:
    """Learning-rate factor that rises, stays, and falls.

    The rise is linear. The fall is exponential, as fairseq's tri-stage
    schedule, or linear to zero if ``final_scale`` is 0.

    Arguments
    ---------
    update : int
        Number of optimizer updates already made.
    warmup, hold, decay : int
        Length of each stage in updates.
    initial_scale, final_scale : float
        Factor before the rise and after the fall.

    Returns
    -------
    float
        What to multiply the optimizer's learning rate by.

    Example
    -------
    >>> [tri_stage(u, 2, 1, 2, 0.0, 0.0) for u in range(7)]
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if update < warmup:
        return initial_scale + (1.0 - initial_scale) * update / warmup
    fallen = update - warmup - hold
    if fallen <= 0 or decay == 0:
        return 1.0
    share = min(fallen / decay, 1.0)
    return final_scale**share if final_scale > 0 else 1.0 - share


def polynomial(
    update: int,
    warmup: int = 0,
    total: int = 1,
    power: float = 1.0,
    final_scale: float = 0.0,
) -> float:
    """Learning-rate factor that rises linearly and falls as a power.

    fairseq's ``polynomial_decay``, which both pre-trainings follow: the first
    update of a warm-up has a factor of 0.

    Arguments
    ---------
    update : int
        Number of optimizer updates already made.
    warmup : int
        Length of the rise in updates.
    total : int
        Update from which on the factor is ``final_scale``; that of the rise
        is counted in.
    power : float
        Of the share that is left.
    final_scale : float
        Factor at the end.

    Returns
    -------
    float
        What to multiply the optimizer's learning rate by.

    Raises
    ------
    ValueError
        When the rise does not end before all does.

    Example
    -------
    >>> [polynomial(u, warmup=2, total=6) for u in range(8)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if not 0 <= warmup < total:
        raise ValueError(
            "polynomial schedule: expected fewer updates of warmup than in "
            f"total; got {warmup} of {total}"
        )
    if update < warmup:
        return update / warmup
    left = max(0.0, 1.0 - (update - warmup) / (total - warmup))
    return final_scale + (1.0 - final_scale) * left**power


def fused(opt_class, parameters):
    """The option by which torch's optimizers update all parameters in one pass,
    where there is one and the yaml has chosen no other."""
    chosen = getattr(opt_class, "keywords", {}).keys()
    kinds = {parameter.device.type for parameter in parameters}
    if (
        getattr(opt_class, "func", opt_class) in _FUSED_CLASSES
        and chosen.isdisjoint(_OTHER_PASSES)
        and kinds <= {"cpu", "cuda"}
    ):
        return {"fused": True}
    return {}
