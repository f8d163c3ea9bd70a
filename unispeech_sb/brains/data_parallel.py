"""Training by several processes whose weights are sharded (FSDP2), as if they
were not: states are whole where they are saved, loaded and exported.

DDP, SpeechBrain's own way, has all weights, gradients and moments of the
optimizer in each process. ``torch.distributed.fsdp.fully_shard`` leaves each
process its share of them, and gathers the weights of a block while it computes.
Checkpoints have the same files either way, for any number of processes.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import (
    get_local_rank,
    get_rank,
    is_distributed_initialized,
)
from speechbrain.utils.logger import get_logger
from torch import nn

from unispeech_sb.dataio.shard_batches import ShardLoader
from unispeech_sb.nnet.transformer import Encoder

logger = get_logger(__name__)

_NUM_JOINED = count()  # groups of processes that this one has joined


def join_group(backend: str, minutes: float) -> None:
    """Joins the group of torchrun's processes, where there is one."""
    local = get_local_rank()
    if get_rank() is None or local is None:
        return
    if backend == "nccl" and local >= torch.cuda.device_count():
        raise ValueError(
            "distributed_backend: expected gloo on CPUs, as nccl needs a GPU "
            f"for each process; got nccl, and {torch.cuda.device_count()} GPUs "
            f"for process {local} of this machine"
        )
    distributed = torch.distributed
    if not distributed.is_backend_available(backend):
        raise ValueError(
            f"distributed_backend: expected one that this PyTorch has; got "
            f"{backend}"
        )
    limit = timedelta(minutes=minutes)
    try:
        store, rank, size = next(
            distributed.rendezvous("env://", timeout=limit)
        )
        # torchrun keeps the store when it starts its processes again, and they
        # would find where the earlier ones were, as would those of a second run
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        place = f"{again}/{size}/{next(_NUM_JOINED)}"
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore(place, store),
            rank=rank,
            world_size=size,
            timeout=limit,
        )
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConnectionError(
            f"expected all processes of torchrun to meet; got: {text}"
        ) from error


def world_size() -> int:
    """Processes of this run."""
    if not is_distributed_initialized():
        return 1
    return torch.distributed.get_world_size()


def is_to_shard(brain: Any) -> bool:
    """Whether the processes of a Brain share its weights: ``data_parallel``."""
    kind = getattr(brain.hparams, "data_parallel", None) or "ddp"
    if kind not in ("ddp", "fsdp"):
        raise ValueError(f"data_parallel: expected ddp or fsdp; got {kind!r}")
    if kind == "ddp" or world_size() == 1:
        return False
    others = {
        "jit": brain.jit,
        "compile": brain.compile,
        "learning_rate_search": getattr(
            brain.hparams, "learning_rate_search", None
        ),
    }
    used = [name for name, value in others.items() if value]
    if used:
        raise ValueError(
            f"data_parallel: expected ddp with {used[0]}; got fsdp"
        )
    return True


def recompute(modules: nn.Module) -> None:
    """Has backbones compute activations again in the backward pass."""
    for module in modules.modules():
        if hasattr(module, "gradient_checkpointing"):
            vars(module)["gradient_checkpointing"] = True


def mean_of_all(mean: float, weight: float, device: str) -> float:
    """Weighted mean of what each process has a mean of."""
    if not is_distributed_initialized():
        return mean
    sums = torch.tensor([mean * weight, weight], device=device)
    torch.distributed.all_reduce(sums)
    return float(sums[0] / sums[1].clamp(min=1.0))


def position(brain: Any, state: Mapping[str, Any]) -> int:
    """The batch of an epoch from which a Brain goes on, by the state of one
    that stopped there, of another number of processes perhaps."""
    before, now = len(state["random_states"]), world_size()
    if before == now:
        return state["step"]
    logger.warning(
        "The checkpoint was written by %d processes: %d go on from the same "
        "share of the epoch, in another order; an update has %.3g times the "
        "batches of before, unless grad_accumulation_factor makes up for it",
        before,
        now,
        now / before,
    )
    step = state["step"] * before // now
    return step - step % brain.grad_accumulation_factor


def align(brain: Any, loader: Any) -> None:
    """Has a Brain and its loader go on from the same batch of an epoch."""
    skipped = getattr(loader, "_speechbrain_recovery_skip_to", None)
    if skipped and isinstance(loader, ShardLoader):
        brain.step = skipped  # it knows what other processes have read
    elif skipped:
        # Its own file has the position of a process among as many as then
        loader._speechbrain_recovery_skip_to = brain.step


def wrap(modules: nn.ModuleDict, find_unused_parameters: bool) -> None:
    """Wraps the modules that train in DDP, in their place, on CPUs."""
    for name, module in modules.items():
        if any(p.requires_grad for p in module.parameters()):
            modules[name] = nn.parallel.DistributedDataParallel(
                module, find_unused_parameters=find_unused_parameters
            )


def shard(modules: nn.ModuleDict, device_type: str) -> None:
    """Shards the modules that train, in their place; all processes call this.

    Each block of an encoder is gathered by itself, all else of a module
    together, and with it the first block, whose weights the encoder reads.

    Raises
    ------
    ValueError
        When a parameter has no dimension that could be sharded.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device_type, (world_size(),))
    for name, module in modules.items():
        parameters = dict(module.named_parameters())
        if not any(p.requires_grad for p in parameters.values()):
            continue
        for own, parameter in parameters.items():
            if parameter.ndim == 0:
                raise ValueError(
                    "data_parallel: expected ddp, as fsdp cannot shard a "
                    f"single number, such as {name}.{own}; got fsdp"
                )
        if device_type != "cpu":  # which torch has none for
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            modules[name] = module
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
        encoders = [m for m in module.modules() if isinstance(m, Encoder)]
        for encoder in encoders:
            encoder.in_one_row = True
        for block in chain(*(encoder.layers[1:] for encoder in encoders)):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        for part in filter(_is_sharded, module.modules()):
            # Files say of which class a module is
            kind: Any = type(part)
            own = kind.__mro__[2]
            for word in ("__module__", "__name__", "__qualname__"):
                setattr(kind, word, getattr(own, word))


def gather_for(training: bool, modules: Any) -> None:
    """Gathers what is no block for an evaluation, which may call more than a
    module's forward; for a training it is sharded again."""
    for module in filter(_is_sharded, modules.values()):
        if training:
            module.reshard()
            continue
        module.unshard()
        for buffer in module.buffers():  # as DDP does
            torch.distributed.broadcast(buffer, 0)


def make_whole(modules: Any) -> None:
    """Undoes ``shard``, and lets go of the wrappers of DDP; all processes call
    this.

    A wrapper that outlives its group aborts the process at its exit now and
    then, after all work is done (torch 2.11, gloo).
    """
    for name, module in modules.items():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            modules[name] = module.module
    sharded = [m for m in modules.modules() if _is_sharded(m)]
    for module in sharded:
        module.reshard()
    for module in modules.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if hasattr(parameter, "full_tensor"):
                module._parameters[name] = nn.Parameter(
                    parameter.detach().full_tensor(), parameter.requires_grad
                )
    for module in sharded:
        state = module._get_fsdp_state()
        state._pre_forward_hook_handle.remove()
        state._post_forward_hook_handle.remove()
        module.__class__ = type(module).__mro__[2]


def _is_sharded(module):
    """Whether ``fully_shard`` was called on it."""
    return hasattr(module, "unshard")


def whole_state(state: Any, is_main: bool, copies: bool) -> Any:
    """A state without shards, on the CPU; of processes that are not the main
    one nothing is to be used. ``copies`` shares no memory with it."""
    if isinstance(state, torch.Tensor):
        tensor: Any = state.detach()
        gathers = hasattr(tensor, "full_tensor")
        tensor = tensor.full_tensor() if gathers else tensor
        if not is_main:
            return None
        copies = copies and not gathers and tensor.device.type == "cpu"
        return tensor.clone() if copies else tensor.cpu()
    if isinstance(state, Mapping):
        items = [(k, whole_state(v, is_main, copies)) for k, v in state.items()]
        made: Any = type(state)
        made = made(items)
        vars_of = getattr(state, "__dict__", {})  # versions of modules
        if vars_of:
            vars(made).update(vars_of)
        return made
    if isinstance(state, (list, tuple)):
        return type(state)(whole_state(v, is_main, copies) for v in state)
    return state


@contextmanager
def in_place_of(
    obj: Any, name: str, function: Callable[..., Any]
) -> Iterator[None]:
    """Gives an object another method for a while."""
    setattr(obj, name, function)
    try:
        yield
    finally:
        delattr(obj, name)


def load_whole(
    loader: Callable[..., None],
    obj: nn.Module | torch.optim.Optimizer,
    path: Path,
    end_of_epoch: bool,
) -> None:
    """Loads a module or an optimizer by its own loader; of the whole state this
    process takes its shards."""
    load = obj.load_state_dict

    def load_shards(state, **options):
        return load(_sharded_state(obj, state), **options)

    with in_place_of(obj, "load_state_dict", load_shards):
        loader(obj, path, end_of_epoch)


def _sharded_state(obj, state):
    """A whole state, its tensors sharded as those of the object are."""
    if isinstance(obj, nn.Module):
        own = obj.state_dict()
        return {k: _sharded_as(own.get(k), v) for k, v in state.items()}
    groups = obj.param_groups
    parameters = [p for group in groups for p in group["params"]]
    moments = {
        number: {k: _sharded_as(parameters[number], v) for k, v in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": moments}


def _sharded_as(own, value):
    """A whole tensor, sharded as one of its shape is."""
    if not hasattr(own, "full_tensor") or own.shape != value.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(own.device), own.device_mesh, own.placements,
        src_data_rank=None,
    )  # fmt: skip
