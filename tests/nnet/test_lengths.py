"""Length arithmetic, checked against what convolutions really leave."""

import torch
from torch import nn

from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    conv_lengths,
    length_mask,
    receptive_field,
)

KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]


def test_formula_counts_what_convolutions_leave():
    layers = zip(KERNELS, STRIDES)
    stack = nn.Sequential(*(nn.Conv1d(1, 1, k, s) for k, s in layers))
    for samples in (400, 401, 719, 720, 16000, 16001):
        frames = stack(torch.zeros(1, 1, samples)).shape[-1]
        assert conv_lengths(samples, KERNELS, STRIDES) == frames
        counted = conv_lengths(torch.tensor([samples]), KERNELS, STRIDES)
        assert counted.tolist() == [frames]


def test_receptive_field_is_the_shortest_input_with_a_frame():
    least = receptive_field(KERNELS, STRIDES)
    assert conv_lengths(least, KERNELS, STRIDES) == 1
    assert conv_lengths(least - 1, KERNELS, STRIDES) == 0


def test_relative_lengths_come_back_exactly():
    lengths = torch.randint(1, 500_000, (2000,))
    longest = int(lengths.max())
    relative = (lengths / longest).float()
    assert torch.equal(absolute_lengths(relative, longest), lengths)


def test_mask_marks_as_many_frames_as_there_are():
    lengths = torch.tensor([3, 0, 5])
    mask = length_mask(lengths, 5)
    assert torch.equal(mask.sum(1), lengths)
    assert mask[0].tolist() == [True, True, True, False, False]
