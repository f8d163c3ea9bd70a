"""Properties of the backbone that no reference implementation has."""

import gc
import json
import weakref

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.forks import run_script
from unispeech_sb.lobes.backbone import PRESETS, Backbone
from unispeech_sb.nnet.pooling import LayerMix

NO_DROPOUT = {
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
}


def tiny(**options):
    """A tiny backbone that draws nothing in training."""
    torch.manual_seed(0)
    return Backbone.from_preset("tiny", **{**NO_DROPOUT, **options})


def spread(feats):
    """A scalar with a gradient: LayerNorm fixes the sum and the squares."""
    generator = torch.Generator().manual_seed(3)
    return (feats * torch.randn(feats.shape, generator=generator)).sum()


VARIANTS = [
    {"feat_extract_norm": norm, "do_stable_layer_norm": stable, **extra}
    for norm in ("group", "layer")
    for stable in (False, True)
    for extra in (
        {"conv_bias": True},
        {"output_norm": True, "normalize_wav": 0},
    )
]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_padding_changes_nothing(options, train):
    backbone = tiny(output_all_hiddens=True, **options).train(train)
    lengths = torch.tensor([9000, 8999, 4321, 800])
    wavs = 0.1 + torch.randn(4, 9000)  # anything in the padding
    wav_lens = lengths / 9000
    batched = backbone(wavs, wav_lens)
    frames = backbone.output_lengths(lengths)
    for row, (samples, count) in enumerate(zip(lengths, frames)):
        alone = backbone(wavs[row : row + 1, :samples])
        assert alone.shape[2] == count
        torch.testing.assert_close(
            batched[:, row, :count], alone[:, 0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_changes_no_gradient(norm):
    backbone = tiny(feat_extract_norm=norm)
    wavs, wav_lens = torch.randn(2, 5000), torch.tensor([1.0, 0.5])
    frames = backbone.output_lengths(2500)
    spread(backbone(wavs, wav_lens)[1, :frames]).backward()
    batched = {n: p.grad.clone() for n, p in backbone.named_parameters()}
    backbone.zero_grad()
    spread(backbone(wavs[1:, :2500])[0]).backward()
    assert backbone.feature_projection.projection.weight.grad.norm() > 1.0
    for name, parameter in backbone.named_parameters():
        scale = parameter.grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(
            batched[name] / scale, parameter.grad / scale,
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


def test_relative_frame_lengths_round_to_the_exact_frame():
    backbone = tiny()
    samples = torch.randint(400, 160000, (1000,))
    longest = int(samples.max())
    lens = backbone.frame_lens(longest, samples / longest)
    frames = torch.round(lens * backbone.output_lengths(longest)).long()
    assert torch.equal(frames, backbone.output_lengths(samples))
    rounded = torch.round(samples / longest * backbone.output_lengths(longest))
    assert not torch.equal(rounded.long(), frames)  # SpeechBrain's rule


def test_frozen_backbone_stays_in_evaluation_mode_and_gets_no_gradient():
    backbone = Backbone.from_preset("tiny", freeze=True, layerdrop=0.5)
    torch.nn.ModuleDict({"backbone": backbone}).train()
    assert not any(module.training for module in backbone.modules())
    wavs = torch.randn(1, 2000)
    feats = backbone(wavs)
    assert not feats.requires_grad
    assert torch.equal(feats, backbone(wavs))


def test_frozen_feature_extractor_gets_no_gradient_and_the_rest_does():
    backbone = tiny(freeze_feature_extractor=True, feat_extract_norm="layer")
    backbone.train()
    assert not backbone.feature_extractor.training
    backbone(torch.randn(1, 2000)).sum().backward()
    without = {n for n, p in backbone.named_parameters() if p.grad is None}
    assert without == {
        "feature_extractor." + name
        for name, _ in backbone.feature_extractor.named_parameters()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layerdrop": 1.0},
        {"apply_spec_augment": True, "mask_time_prob": 0.5},
    ],
    ids=str,
)
def test_every_trained_parameter_gets_a_gradient_in_every_step(options):
    backbone = tiny(**options)
    backbone(torch.randn(2, 8000)).sum().backward()
    missing = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert missing == []


def test_positions_work_without_weight_norm():
    backbone = tiny(pos_conv_weight_norm=False)
    names = {n for n, _ in backbone.encoder.pos_conv_embed.named_parameters()}
    assert names == {"conv.weight", "conv.bias"}
    spread(backbone(torch.randn(1, 2000))).backward()
    assert backbone.encoder.pos_conv_embed.conv.weight.grad.any()


def test_layerdrop_skips_layers_in_training_only():
    backbone = tiny(layerdrop=1.0, output_all_hiddens=True)
    states = backbone(torch.randn(1, 2000))
    assert torch.equal(states[0], states[1])
    states = backbone.eval()(torch.randn(1, 2000))
    assert not torch.allclose(states[0], states[1])


def test_gradient_checkpointing_recomputes_and_changes_no_gradient():
    grads, calls = [], []
    for recompute in (False, True):
        backbone = tiny(gradient_checkpointing=recompute, layerdrop=0.0)
        layers = [
            backbone.feature_extractor.conv_layers[0],
            backbone.encoder.layers[0],
        ]
        for layer in layers:
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(1)
        wavs, lens = torch.randn(2, 3000), torch.tensor([1.0, 0.7])
        spread(backbone(wavs, lens)[:, :5]).backward()
        grads.append([p.grad for p in backbone.parameters()])
    assert len(calls) == 2 + 2 * 2
    assert sum(g.norm() for g in grads[0]) > 1.0
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(plain, recomputed)


def test_masks_replace_frames_by_the_embedding_in_training_only():
    backbone = tiny(
        apply_spec_augment=True, mask_time_prob=1.0, mask_time_length=2,
        mask_feature_prob=0.5, mask_feature_length=2,
    )  # fmt: skip
    wavs = torch.randn(2, 16000)
    assert not torch.equal(backbone(wavs), backbone(wavs))
    backbone.eval()
    assert torch.equal(backbone(wavs), backbone(wavs))
    everything = torch.ones(2, 49, dtype=torch.bool)
    other = backbone.encode(torch.randn(2, 16000), None, everything)
    masked = backbone.encode(wavs, mask_time_indices=everything)
    torch.testing.assert_close(
        masked.last_hidden_state, other.last_hidden_state
    )


def test_layer_mix_holds_one_state_at_a_time_without_gradients():
    backbone = tiny(num_hidden_layers=6).eval()
    mix = LayerMix(backbone.num_states)
    alive, most = [], 0

    def watched():
        nonlocal most
        for state in backbone.iter_states(torch.randn(1, 2000)):
            alive.append(weakref.ref(state))
            most = max(most, sum(ref() is not None for ref in alive))
            yield state
            del state

    with torch.no_grad():
        mix(watched())
    assert len(alive) == 7
    assert most <= 2  # the state and its successor


def test_layer_mix_is_the_softmax_weighted_sum():
    backbone = tiny(output_all_hiddens=True).eval()
    wavs, mix = torch.randn(2, 3000), LayerMix(backbone.num_states)
    torch.nn.init.normal_(mix.weights)
    states = backbone(wavs)
    expected = torch.einsum("l,lbtd->btd", mix.weights.softmax(0), states)
    torch.testing.assert_close(mix(backbone.iter_states(wavs)), expected)
    for wrong in (states[:2], torch.cat([states, states[:1]])):
        message = f"expected 3 hidden states; got {len(wrong)}"
        with pytest.raises(ValueError, match=message):
            mix(wrong)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_published_number_of_parameters(name):
    with torch.device("meta"):
        backbone = Backbone.from_preset(name)
    count = sum(p.numel() for p in backbone.parameters())
    base, large = 94_370_000, 315_430_000
    expected = {
        "unispeech_sat_base": base,
        "unispeech_sat_base_plus": base,
        "unispeech_sat_large": large,
        "unispeech_large": large,
        "wavlm_base_plus": base,
        "wavlm_large": large,
    }
    if name in expected:
        assert abs(count / expected[name] - 1) < 1e-3
    else:
        assert count < 2_000_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Backbone.from_preset("bass"), "unispeech_sat_base, .* 'bass'"),
        (
            lambda: Backbone.from_preset("tiny", layer_drop=0.1),
            "'layer_drop' .did you mean layerdrop.",
        ),
        (lambda: tiny(hidden_act="glue"), "gelu, .* got 'glue'"),
        (lambda: tiny(feat_extract_norm="batch"), "'group' or 'layer'"),
        (lambda: tiny(num_attention_heads=3), "got 16 and 3"),
        (lambda: tiny(conv_dim=[8, 8]), "got 2, 7, 7"),
        (
            lambda: tiny()(torch.randn(1, 399)),
            "400 samples, one frame; got 399",
        ),
        (lambda: tiny()(torch.randn(1, 0)), "one frame; got 0"),
        (
            lambda: tiny()(torch.randn(2, 800), torch.tensor([1.0, 0.1])),
            "waveform 1 of the batch: .* got 80",
        ),
        (
            lambda: tiny()(torch.randn(2, 800), torch.tensor([2.0, 1.0])),
            "in .0, 1.; got 2",
        ),
        (
            lambda: tiny()(torch.randn(2, 800), torch.ones(3)),
            r"\[2\]; got \[3\]",
        ),
        (lambda: tiny()(torch.randn(800)), r"\[B, N\]; got \[800\]"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_saved_backbone_loads_with_the_same_bits_and_options(tmp_path):
    backbone = tiny(feat_extract_norm="layer", conv_bias=True)
    backbone.save(tmp_path / "backbone.ckpt")
    loaded = Backbone.from_pretrained(tmp_path, layerdrop=0.25)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded.config["layerdrop"] == loaded.encoder.layerdrop == 0.25
    same = {**loaded.config, "layerdrop": 0.0}
    assert json.dumps(same) == json.dumps(backbone.config)
    loaded(torch.randn(1, 800)).sum().backward()  # trainable as it is
    with torch.no_grad():
        loaded.masked_spec_embed.add_(1.0)  # and not tied to the file
    again = Backbone.from_pretrained(tmp_path)
    assert torch.equal(again.masked_spec_embed, backbone.masked_spec_embed)


DISTRIBUTED = [
    {"layerdrop": 0.5},
    {"apply_spec_augment": True, "mask_time_prob": 0.01},
    {"freeze_feature_extractor": True, "gradient_checkpointing": True},
    {
        "do_stable_layer_norm": True,
        "adapter_attn_dim": 4,
        "last_state": "raw",
        "output_all_hiddens": True,
        "layerdrop": 0.5,
    },
]


def be_one_of_two():
    """One process of a distributed run of each set of options."""
    torch.distributed.init_process_group("gloo")
    for options in DISTRIBUTED:
        _train_with_another(torch.distributed.get_rank(), options)
    # A wrapper that outlives the group may abort the process at its exit
    gc.collect()
    torch.distributed.destroy_process_group()


def _train_with_another(rank, options):
    """Three steps, after which both processes have the same gradients."""
    backbone = DistributedDataParallel(tiny(**options).train())
    torch.manual_seed(rank)  # each rank drops and masks on its own
    for _ in range(3):
        spread(backbone(torch.randn(2, 4000))).backward()
    trained = [p for p in backbone.parameters() if p.requires_grad]
    total = sum(p.grad.abs().sum() for p in trained).reshape(1)
    assert total > 1.0, options
    totals = [torch.zeros(1), torch.zeros(1)]
    torch.distributed.all_gather(totals, total)
    assert torch.equal(*totals), options


@pytest.mark.slow
def test_layerdrop_and_masks_are_safe_in_distributed_training(tmp_path):
    script = tmp_path / "one_of_two.py"
    script.write_text(
        "from tests.lobes.test_backbone import be_one_of_two\nbe_one_of_two()\n"
    )
    done = run_script(script, processes=2)
    assert done.returncode == 0, done.stderr
