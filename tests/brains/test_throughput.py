"""Operations by the formula are those that torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unispeech_sb.brains import throughput
from unispeech_sb.brains.throughput import Throughput, forward_flops
from unispeech_sb.lobes.backbone import Backbone


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("samples", [930, 16000, 51234])
def test_operations_are_those_that_torch_counts(samples, stable):
    backbone = Backbone.from_preset(
        "small",
        num_conv_pos_embeddings=15,  # an even one computes a frame too many
        feat_extract_norm="layer",
        do_stable_layer_norm=stable,
    ).eval()
    # With gradients, as fused layers of inference are not counted
    with FlopCounterMode(display=False) as counter:
        # Maps, as torch counts nothing in the kernels of attention on a CPU
        backbone.encode(torch.randn(1, samples), output_attentions=True)
    found = forward_flops(backbone.config, samples)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_padding_and_speed_are_of_valid_samples(monkeypatch):
    config = Backbone.from_preset("tiny").config
    now = iter([0.0, 10.0, 14.0, 20.0, 30.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now))
    counted = Throughput()
    counted.clear()
    counted.add(torch.zeros(2, 16000), torch.tensor([1.0, 0.5]), config)
    counted.add(torch.zeros(1, 24000), torch.ones(1), config)
    assert counted.padding == pytest.approx(1 - 48000 / 56000)
    needed = 3 * sum(forward_flops(config, n) for n in (16000, 8000, 24000))
    assert counted.speed(1e6) == pytest.approx((3 / 4, needed / 4 / 1e6))
    # What a run that goes on has from before counts as padding alone
    counted.clear(*counted.samples)
    assert counted.padding == pytest.approx(1 - 48000 / 56000)
    assert counted.speed(1e6) == (0.0, 0.0)


def test_the_rate_counts_both_operations_of_a_product(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now))
    monkeypatch.setitem(throughput._SIZES, "cpu", 64)
    state = torch.get_rng_state()
    assert throughput.matrix_product_rate("cpu") == 2 * 64**3
    assert torch.equal(torch.get_rng_state(), state)
