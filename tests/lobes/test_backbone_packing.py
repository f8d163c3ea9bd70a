"""Padding is left out: same values, same gradients, nothing computed on it."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet import transformer
from unispeech_sb.nnet.packing import plan_windows
from unispeech_sb.nnet.pooling import LayerMix

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout"), 0.0
)
SAMPLES = torch.tensor([9000, 800, 4321, 9000, 2500])
VARIANTS = list(product(("group", "layer"), (False, True), (None, 12)))


def tiny(norm="group", stable=False, num_buckets=None, **options):
    """A tiny backbone, without dropout if not asked for."""
    torch.manual_seed(0)
    given = {**NO_DROPOUT, "num_hidden_layers": 3, **options}
    given |= {"num_buckets": num_buckets, "max_bucket_distance": 9}
    return Backbone.from_preset(
        "tiny", feat_extract_norm=norm, do_stable_layer_norm=stable, **given
    )


def batch():
    """Waveforms with anything in the padding, and their lengths."""
    wavs = torch.randn(5, 9000, generator=torch.Generator().manual_seed(0))
    return wavs, SAMPLES / 9000


def on_padding(call):
    """What a call gives where the blocks compute on padding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "makes_graph", lambda: True)
        return call()


@pytest.fixture(params=[1, 20, 10**6], ids="rows of {}".format, autouse=True)
def row_frames(request, monkeypatch):
    """How many frames make a row."""
    monkeypatch.setattr(transformer, "CPU_ROW_FRAMES", request.param)
    return request.param


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_values_equal_those_of_a_padded_batch_and_padding_is_zero(variant):
    wavs, wav_lens = batch()
    backbone = tiny(*variant, output_all_hiddens=True).eval()
    found = backbone(wavs, wav_lens)
    expected = on_padding(lambda: backbone(wavs, wav_lens))
    assert found.shape == expected.shape == (4, 5, 27, 16)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    for row, count in enumerate(backbone.output_lengths(SAMPLES)):
        torch.testing.assert_close(
            found[:, row, :count], expected[:, row, :count], **TOLERANCE
        )
        assert not found[:, row, count:].any()


def backward(feats, backbone):
    """Gradients of a projection of the valid frames."""
    frames = backbone.output_lengths(SAMPLES)
    weights = torch.randn(
        feats.shape, generator=torch.Generator().manual_seed(1)
    )
    sum((f[:n] * w[:n]).sum() for f, w, n in zip(feats, weights, frames)
        ).backward()  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_equal_those_of_a_padded_batch(variant, checkpointing):
    wavs, wav_lens = batch()
    masks = {"apply_spec_augment": True, "mask_time_prob": 0.3}
    masks |= {"mask_time_length": 3, "mask_feature_prob": 0.2}
    options = {**masks, "layerdrop": 0.4, "mask_feature_length": 2}
    gradients = []
    for run in (lambda call: call(), on_padding):
        backbone = tiny(
            *variant, gradient_checkpointing=checkpointing, **options
        ).train()
        torch.manual_seed(7)  # the same masks and dropped layers
        run(lambda one=backbone: backward(one(wavs, wav_lens), one))
        gradients.append(dict(backbone.named_parameters()))
    packed, reference = gradients
    for name, parameter in reference.items():
        scale = parameter.grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(
            packed[name].grad / scale, parameter.grad / scale, **TOLERANCE,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def test_the_blocks_see_valid_frames_only_and_no_mask(monkeypatch):
    backbone, seen, masks = tiny().eval(), [], []
    for block in backbone.encoder.layers:
        for layer in block.modules():
            if isinstance(layer, (nn.Linear, nn.LayerNorm)):
                layer.register_forward_pre_hook(
                    lambda layer, args: seen.append(args[0][..., 0].numel())
                )
    attend = F.scaled_dot_product_attention

    def watched(query, key, value, mask, dropout):
        masks.append(mask)
        return attend(query, key, value, mask, dropout)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    backbone(*batch())
    frames = int(backbone.output_lengths(SAMPLES).sum())
    assert sum(seen) == frames * 3 * (4 + 2 + 2)
    assert masks == [None] * 3 * len(SAMPLES)


def test_dropout_draws_for_every_frame_in_training():
    backbone = tiny(hidden_dropout=0.5, attention_dropout=0.5).train()
    feats = [backbone(*batch()) for _ in range(2)]
    same = (feats[0] == feats[1]).all(2)
    frames = backbone.output_lengths(SAMPLES)
    assert not any(row[:n].any() for row, n in zip(same, frames))
    feats[0].sum().backward()


def test_what_depends_on_the_padding_or_shows_it_keeps_it():
    wavs, wav_lens = batch()
    fairseq = tiny(mask_rule="fairseq").eval()
    assert fairseq(wavs, wav_lens)[1, 3:].any()
    out = tiny().eval().encode(wavs, wav_lens, output_attentions=True)
    assert out.attentions[0].shape == (5, 2, 27, 27)


@pytest.mark.parametrize("layers", [[0], [2], [1, 3], [3]])
def test_no_block_above_the_wanted_states_is_computed(layers):
    backbone, ran = tiny(output_all_hiddens=True).eval(), []
    for number, block in enumerate(backbone.encoder.layers, 1):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    wavs, wav_lens = batch()
    states = list(backbone.iter_states(wavs, wav_lens, layers=layers))
    assert max(ran, default=0) == layers[-1]
    torch.testing.assert_close(
        torch.stack(states), backbone(wavs, wav_lens)[layers]
    )


@pytest.mark.parametrize("layers", [[], [4], [-1], [0, 9]])
def test_unknown_layers_get_one_clear_error(layers):
    with pytest.raises(ValueError, match="layers: expected .* from 0 to 3"):
        list(tiny().iter_states(*batch(), layers=layers))


def test_a_layer_mix_computes_no_block_above_its_last_weight():
    backbone, ran = tiny().eval(), []
    for number, block in enumerate(backbone.encoder.layers, 1):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    mix = LayerMix(4)
    mix.weights.data = torch.tensor([0.5, -torch.inf, 0.0, -torch.inf])
    with torch.no_grad():
        found = mix(backbone.iter_states(*batch()))
    assert set(ran) == {1, 2}
    states = list(backbone.iter_states(*batch()))
    expected = sum(w * s for w, s in zip(mix.weights.softmax(0), states))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_windows_attend_to_themselves_and_all_else_sees_the_whole(variant):
    options = {"window_s": 4.0, "num_hidden_layers": 1}
    backbone = tiny(*variant, **options).eval()
    whole = tiny(*variant, num_hidden_layers=1).eval()
    wavs = torch.randn(2, 16000 * 9)  # 449 frames, and 100 that are one window
    wav_lens = torch.tensor([1.0, 32080 / wavs.shape[1]])
    found = backbone(wavs, wav_lens)
    assert torch.equal(found[1], whole(wavs, wav_lens)[1])
    (start,) = whole.iter_states(wavs[:1], layers=[0])
    (own,) = backbone.iter_states(wavs[:1], layers=[0])
    torch.testing.assert_close(own, start, **TOLERANCE)
    windows = plan_windows(449, 200, 75, stride=1, field=1)
    assert len(windows) == 6
    parts = []
    for window in windows:
        part = start[:, window.start : window.stop]
        block = whole.encoder.layers[0]
        biases = block.attention.biases(part.shape[1])
        last, _ = block(part, biases=biases)
        last = whole.encoder.final_norm(last)
        parts.append(last[:, window.kept])
    torch.testing.assert_close(found[:1], torch.cat(parts, 1), **TOLERANCE)
    torch.testing.assert_close(
        backbone(wavs[:1]), torch.cat(parts, 1), **TOLERANCE
    )


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("sides", [(0, 7), (5, 0), (5, 7)])
def test_frames_beside_an_utterance_are_seen_by_positions_alone(stable, sides):
    backbone = tiny(stable=stable, num_conv_pos_embeddings=24).eval()
    feats, (before, behind) = torch.randn(1, 40, 16), sides
    (wide, _), *_ = backbone.encoder(feats)
    expected = wide[:, before : 40 - behind]
    (first, _), *others = backbone.encoder(feats, sides=sides)
    reach = backbone.encoder.pos_conv_embed.reach
    assert reach == 12
    torch.testing.assert_close(
        first[:, max(0, reach - before) : -max(1, reach - behind)],
        expected[:, max(0, reach - before) : -max(1, reach - behind)],
        **TOLERANCE,
    )
    for layer, (state, _) in zip(backbone.encoder.layers, others):
        first = layer(first)[0]
        if layer is backbone.encoder.layers[-1]:
            first = backbone.encoder.final_norm(first)
        torch.testing.assert_close(state, first, **TOLERANCE)


def test_windows_train():
    backbone = tiny(window_s=4.0).train()
    feats = backbone(torch.randn(1, 16000 * 9))
    (feats * torch.randn(feats.shape)).sum().backward()
    missing = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert missing == []
