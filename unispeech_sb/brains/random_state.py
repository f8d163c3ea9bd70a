"""The states of the random generators, saved and restored, of all processes."""

import random

import numpy as np
import torch
from speechbrain.utils.distributed import is_distributed_initialized
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def random_states():
    """States of the global generators of every process, one dict each, in types
    that ``torch.load`` reads safely; every process calls this and gets all of
    them."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.is_available()
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
    }
    if not is_distributed_initialized():
        return [state]
    states = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def set_random_state(states):
    """Restore the generators of this process, from ``random_states``. A process
    that was not there then keeps its generators as they are, and says so."""
    distributed = is_distributed_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    if rank >= len(states):
        logger.warning(
            "The checkpoint was written by %d processes: process %d goes on "
            "with fresh random numbers",
            len(states),
            rank,
            main_process_only=False,
        )
        return
    state = states[rank]
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    for index in range(min(torch.cuda.device_count(), len(state["cuda"]))):
        torch.cuda.set_rng_state(state["cuda"][index], index)
