"""Sizes that a pickle's storages claim are counted as torch counts them."""

import pytest
import torch

from unispeech_sb.checkpoints.safety.opcodes import STORAGES


@pytest.mark.parametrize("name", STORAGES)
def test_an_element_takes_as_many_bytes_as_in_torch(name):
    kind = getattr(torch, name.partition(".")[2])
    dtype = getattr(kind, "dtype", torch.uint8)  # UntypedStorage has none
    assert STORAGES[name] == torch.zeros(1, dtype=dtype).element_size()
