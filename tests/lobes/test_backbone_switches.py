"""Options on which publishers differ, each against its publisher."""

import pytest
import torch
from safetensors.torch import load_file

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.fairseq import rename_backbone
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UtteranceEncoder, UtteranceHead

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
PRE_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout"), 0.0
)


def tiny(**options):
    """A tiny pre-norm backbone that draws nothing in training."""
    torch.manual_seed(0)
    return Backbone.from_preset("tiny", **{**NO_DROPOUT, **PRE_NORM, **options})


def draw(*shape):
    """The same random numbers in every test."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def gradients(module):
    """Name -> gradient, zeros where there is none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
    }


def assert_same_gradients(module, reference):
    """Compares gradients by name, each to the scale of its largest."""
    found, expected = gradients(module), gradients(reference)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1.0)
        torch.testing.assert_close(
            found[name] / scale, gradient / scale, **TOLERANCE,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("stable", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("last_state", ["raw", "normed"])
@pytest.mark.parametrize("family", ["unispeech", "unispeech-sat"])
def test_last_state_equals_what_transformers_gives_before_and_after_the_norm(
    family, last_state, stable, tmp_path
):
    options = {**PRE_NORM, "do_stable_layer_norm": stable}
    model = tiny_model(family, **options).train()
    folder = save_folder(model, tmp_path)
    backbone = Backbone.from_pretrained(folder, last_state=last_state).train()
    wavs = draw(2, 4000)
    theirs = model(wavs, output_hidden_states=True)
    ours = backbone.encode(wavs, output_hidden_states=True)
    last = {
        "raw": theirs.hidden_states[-1],
        "normed": theirs.last_hidden_state,
    }
    assert torch.equal(last["raw"], last["normed"]) != stable
    expected = [*theirs.hidden_states[:-1], last[last_state]]
    for found, reference in zip(ours.hidden_states, expected, strict=True):
        torch.testing.assert_close(found, reference, **TOLERANCE)
    torch.testing.assert_close(
        ours.last_hidden_state, theirs.last_hidden_state, **TOLERANCE
    )
    weights = draw(*expected[0].shape)
    sum((state * weights).sum() for state in expected).backward()
    sum((state * weights).sum() for state in ours.hidden_states).backward()
    assert_same_gradients(backbone, model)


def test_last_state_changes_the_end_of_all_hidden_states_only():
    wavs, states = draw(2, 4000), {}
    for last_state in ("normed", "raw"):
        options = {"last_state": last_state, "output_all_hiddens": True}
        backbone = tiny(**options).eval()
        states[last_state] = backbone(wavs)
        backbone.output_all_hiddens = False
        assert torch.equal(backbone(wavs), states["normed"][-1])
        out = backbone.encode(wavs)
        assert torch.equal(out.last_hidden_state, states["normed"][-1])
        for asked in states:
            *_, last = backbone.iter_states(wavs, last_state=asked)
            assert torch.equal(last, states[asked][-1])
    assert torch.equal(states["normed"][:-1], states["raw"][:-1])
    assert not torch.allclose(states["normed"][-1], states["raw"][-1])


def test_raw_states_give_the_unused_final_norm_a_zero_gradient():
    backbone = tiny(last_state="raw", output_all_hiddens=True).train()
    backbone(draw(2, 4000)).square().sum().backward()
    missing = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert missing == []
    assert not backbone.encoder.layer_norm.weight.grad.any()


def test_heads_without_a_layer_mix_take_the_normed_state():
    wavs, found = draw(2, 4000), {}
    for mixes in (False, True):
        head = UtteranceHead(16, 4, 8, mixes, 3 if mixes else None)
        for last_state in ("normed", "raw"):
            backbone = tiny(last_state=last_state).eval()
            encoder = UtteranceEncoder(backbone, head)
            found[mixes, last_state] = encoder(wavs)
    assert torch.equal(found[False, "normed"], found[False, "raw"])
    assert not torch.allclose(found[True, "normed"], found[True, "raw"])


def recorded(authors_folder, mask_rule):
    """The recorded padded run, and the backbone with its weights."""
    run = load_file(authors_folder / "unispeech_train_padded.safetensors")
    state = {k[6:]: v for k, v in run.items() if k.startswith("state/")}
    tensors, _ = rename_backbone(state, "w2v_encoder.w2v_model.")
    backbone = Backbone.from_preset(
        "tiny", **PRE_NORM, **NO_DROPOUT, mask_rule=mask_rule,
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, conv_dim=[16] * 7, conv_bias=True,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        normalize_wav=False,
    )  # fmt: skip
    backbone.load_state_dict(tensors)
    return run, backbone


@pytest.mark.parametrize("together", [True, False])
def test_fairseq_rule_equals_the_recorded_padded_run(
    together, authors_folder, monkeypatch
):
    least = 10**6 if together else 1  # rows in one group, or each in its own
    monkeypatch.setattr("unispeech_sb.nnet.frontend.CPU_PIECE_SAMPLES", least)
    run, backbone = recorded(authors_folder, "fairseq")
    wav_lens = (~run["sample/padding_mask"]).float().mean(1)
    valid = ~run["out/padding_mask"]
    masks = run["draws/00.mask_indices.mask"].bool()
    wavs = run["sample/source"].clone()
    wavs[run["sample/padding_mask"]] = 7.0  # what is there does not matter
    out = backbone.encode(wavs, wav_lens, masks)
    assert torch.equal(out.lengths, valid.sum(1))
    frames = valid.shape[1] * backbone.frame_lens(wavs.shape[1], wav_lens)
    assert torch.equal(frames.round().long(), valid.sum(1))
    torch.testing.assert_close(
        out.last_hidden_state[valid], run["out/feats"][valid], **TOLERANCE
    )


def test_the_default_rule_counts_only_frames_without_padding(authors_folder):
    run, backbone = recorded(authors_folder, "hf")
    wav_lens = (~run["sample/padding_mask"]).float().mean(1)
    out = backbone.encode(run["sample/source"], wav_lens)
    samples = (~run["sample/padding_mask"]).sum(1)
    assert torch.equal(out.lengths, backbone.output_lengths(samples))
    assert not torch.equal(out.lengths, (~run["out/padding_mask"]).sum(1))


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_fairseq_rule_ignores_what_is_in_the_padding(norm):
    backbone = tiny(mask_rule="fairseq", feat_extract_norm=norm).eval()
    wav_lens = torch.tensor([1.0, 0.55, 0.5])
    wavs = draw(3, 6000)
    valid = torch.round(backbone.frame_lens(6000, wav_lens) * 18).long()
    assert not torch.equal(valid, backbone.output_lengths(6000 * wav_lens))
    clean, other = wavs.clone(), wavs.clone()
    for row, share in enumerate(wav_lens):
        clean[row, int(6000 * share) :] = 0.0
        other[row, int(6000 * share) :] = 7.0
    expected, found = backbone(clean, wav_lens), backbone(other, wav_lens)
    for row, count in enumerate(valid):
        torch.testing.assert_close(
            found[row, :count], expected[row, :count], **TOLERANCE
        )


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_rules_agree_where_nothing_is_padded(norm):
    wavs = draw(2, 6000)
    hf, fairseq = (
        tiny(mask_rule=rule, feat_extract_norm=norm).eval()(wavs, torch.ones(2))
        for rule in ("hf", "fairseq")
    )
    assert torch.equal(hf, fairseq)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny(last_state="last"), "last_state: .* raw; got 'last'"),
        (lambda: tiny(mask_rule="conv"), "mask_rule: .* fairseq; got 'conv'"),
        (
            lambda: list(tiny().iter_states(draw(1, 800), None, "Raw")),
            "normed or raw; got 'Raw'",
        ),
        (
            lambda: tiny(adapter_attn_dim=4, do_stable_layer_norm=False),
            "adapter_attn_dim: expected None .* pre-norm .*; got 4",
        ),
    ],
)
def test_unknown_choices_get_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_switches_are_saved_with_the_backbone(tmp_path):
    options = {
        "last_state": "raw",
        "mask_rule": "fairseq",
        "adapter_attn_dim": 4,
    }
    tiny(**options).save(tmp_path / "backbone.ckpt")
    loaded = Backbone.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in options} == options
    assert (loaded.last_state, loaded.mask_rule) == ("raw", "fairseq")
