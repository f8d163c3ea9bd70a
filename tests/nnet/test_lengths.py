"""Length arithmetic, checked against what convolutions really leave."""

import torch
from safetensors.torch import load_file
from torch import nn

from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    chunk_lengths,
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


def fairseq_frames(samples, longest, frames):
    """fairseq's rule as its code says it: a mask, cut, viewed, reduced."""
    padding = torch.arange(longest)[None] >= samples
    extra = longest % frames
    if extra > 0:
        padding = padding[:, :-extra]
    padding = padding.view(1, frames, -1).all(-1)
    return int((~padding).sum())


def test_chunk_rule_equals_its_literal_restatement():
    generator = torch.Generator().manual_seed(0)
    more = []
    for _ in range(1000):
        drawn = torch.randint(400, 40_000, (2,), generator=generator)
        samples, longest = sorted(drawn.tolist())
        total = conv_lengths(longest, KERNELS, STRIDES)
        expected = fairseq_frames(samples, longest, total)
        found = chunk_lengths(torch.tensor([samples, longest]), longest, total)
        assert found.tolist() == [expected, total]
        more.append(expected - conv_lengths(samples, KERNELS, STRIDES))
    assert set(more) == {0, 1, 2}
    assert sum(count > 0 for count in more) > 800  # the rules do differ


def test_chunk_rule_equals_the_recorded_run(authors_folder):
    run = load_file(authors_folder / "unispeech_train_padded.safetensors")
    lengths = (~run["sample/padding_mask"]).sum(1)
    valid = ~run["out/padding_mask"]
    found = chunk_lengths(lengths, 16000, valid.shape[1])
    assert torch.equal(length_mask(found, valid.shape[1]), valid)
    assert not torch.equal(conv_lengths(lengths, KERNELS, STRIDES), found)
