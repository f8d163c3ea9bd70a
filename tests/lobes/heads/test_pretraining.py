"""UniSpeech's head against transformers and the authors' recorded runs."""

import pytest
import torch
from safetensors.torch import load_file

from tests.huggingface import tiny_model
from unispeech_sb.lobes.heads import UniSpeechHead

SIZES = {
    "num_codevectors_per_group": 6,
    "codevector_dim": 8,
    "proj_codevector_dim": 12,
}


def tops(model):
    """Parameters that stand on the backbone."""
    prefix = model.base_model_prefix + "."
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(prefix)
    }


def unispeech_pair(**options):
    """transformers' model and a head with its weights."""
    model = tiny_model(
        "unispeech", "ForPreTraining", num_ctc_classes=7, **SIZES, **options
    )
    with torch.no_grad():
        model.quantizer.codevectors.uniform_()
        model.quantizer.weight_proj.weight.normal_()
    head = UniSpeechHead(16, 8, [2, 6, 8], 12, 7, dropouts=[0.0, 0.0])
    head.load_state_dict(tops(model))
    return model, head


def run_theirs(model, wavs, chosen, monkeypatch):
    """transformers' answer, its CTC logits, and its backbone's."""
    kept = {}
    hooks = [
        model.ctc_proj.register_forward_hook(
            lambda module, args, out: kept.update(logits=out)
        ),
        model.base_model.register_forward_hook(
            lambda module, args, out: kept.update(base=out)
        ),
        # Both quantizers draw the same noise
        model.quantizer.register_forward_pre_hook(
            lambda module, args: torch.manual_seed(7) and None
        ),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bernoulli", lambda probs: chosen.T.float())
        output = model(wavs)
    for hook in hooks:
        hook.remove()
    return output, kept["logits"], kept["base"]


@pytest.mark.parametrize("training", [False, True])
def test_unispeech_outputs_and_gradients_equal_transformers(
    training, monkeypatch
):
    model, head = unispeech_pair()
    model.train(training)
    head.train(training)
    chosen = torch.rand(2, 12) < 0.5
    theirs, logits, base = run_theirs(
        model, torch.randn(2, 4000), chosen, monkeypatch
    )
    torch.manual_seed(7)
    ours = head(
        base.last_hidden_state.detach(),
        base.extract_features.detach(),
        replace_prob=chosen,
    )
    pairs = [
        (ours.projected_states, theirs.projected_states),
        (ours.projected_quantized_states, theirs.projected_quantized_states),
        (ours.codevector_perplexity, theirs.codevector_perplexity),
        (ours.logits, logits),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = [torch.randn_like(expected) for _, expected in pairs]
    for side in range(2):
        total = sum((p[side] * w).sum() for p, w in zip(pairs, weights))
        total.backward()
    parameters = dict(head.named_parameters())
    assert parameters.keys() == tops(model).keys()
    for name, parameter in tops(model).items():
        if "weight_proj" in name and not training:
            assert parameters[name].grad is None
            continue
        assert parameter.grad.abs().max() > 1e-3, name
        torch.testing.assert_close(
            parameters[name].grad, parameter.grad, rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize("run", ["unispeech_train", "unispeech_train_padded"])
def test_unispeech_head_meets_the_authors(run, authors_folder):
    tensors = load_file(authors_folder / f"{run}.safetensors")
    state = {
        name.split("w2v_model.")[-1].replace("w2v_encoder.", ""): tensor
        for name, tensor in (
            (key.removeprefix("state/"), tensor)
            for key, tensor in tensors.items()
            if key.startswith("state/")
        )
    }
    head = UniSpeechHead(32, 16, [2, 8, 24], 24, 80)
    names = {
        "quantizer.codevectors": "quantizer.vars",
        "project_hid": "final_proj",
        "ctc_proj": "proj",
    }
    for ours in head.state_dict():
        module, _, last = ours.rpartition(".")
        theirs = names.get(ours) or f"{names.get(module, module)}.{last}"
        head.get_parameter(ours).data = state[theirs]
    head.quantizer.weight_proj.weight.data = torch.eye(16)
    head.quantizer.weight_proj.bias.data.zero_()
    logits = tensors["draws/02.gumbel.logits"].view(3, 49, 16)
    feats = torch.randn(3, 49, 32)
    output = head.eval()(
        feats,
        logits,
        replace_prob=tensors["draws/04.bernoulli.out"].T,
        one_hots=tensors["draws/02.gumbel.onehot"].view(3, 49, 2, 8),
    )
    torch.testing.assert_close(
        output.projected_quantized_states,
        tensors["out/q"],
        rtol=1e-5,
        atol=1e-5,
    )
    chosen = tensors["draws/04.bernoulli.out"].T.bool()
    theirs = tensors["out/encoder_out"].transpose(0, 1)
    torch.testing.assert_close(
        output.logits[chosen], theirs[chosen], rtol=1e-5, atol=1e-5
    )
    kept = head.ctc_proj(feats)[~chosen]
    torch.testing.assert_close(output.logits[~chosen], kept)


def test_frames_are_replaced_in_evaluation_too_unless_told():
    head = UniSpeechHead(16, 8, [2, 6, 8], 12, 7).eval()
    states, feats = torch.randn(2, 40, 16), torch.randn(2, 40, 8)

    def replaced(**options):
        found = head(states, feats, **options)
        return (found.logits != head.ctc_proj(states)).any(-1).float()

    assert 0.2 < replaced().mean() < 0.8
    assert not torch.equal(replaced(), replaced())
    assert not replaced(replace_prob=0.0).any()
    assert replaced(replace_prob=1.0).all()
    one, two = (
        replaced(generator=torch.Generator().manual_seed(2)) for _ in range(2)
    )
    assert torch.equal(one, two)


def test_dropouts_are_where_the_options_say():
    states, feats = torch.randn(2, 9, 16), torch.randn(2, 9, 8)
    logits = UniSpeechHead(16, 8, [2, 6, 8], 12, 7, dropouts=[0.0, 1.0])
    expected = logits.ctc_proj.bias.expand(2, 9, 7)
    torch.testing.assert_close(logits(states, feats).logits, expected)
    dropped = UniSpeechHead(16, 8, [2, 6, 8], 12, 0, dropouts=[1.0, 0.0])
    perplexity = dropped(states, feats).quantized.code_perplexity
    assert perplexity.item() == pytest.approx(2, abs=1e-4)  # all frames alike


@pytest.mark.parametrize("project_up", [True, False])
def test_a_second_stage_has_no_phones_and_either_projection(project_up):
    head = UniSpeechHead(16, 8, [2, 6, 8], 12, 0, project_up=project_up).eval()
    assert not any("ctc_proj" in name for name in head.state_dict())
    shape = (16, 12) if project_up else (12, 16)
    assert head.project_hid.weight.shape == shape
    states, feats = torch.randn(2, 9, 16), torch.randn(2, 9, 8)
    output = head(states, feats)
    targets = head.project_q(head.quantizer(feats).codevectors)
    expected = (
        (states, head.project_hid(targets))
        if project_up
        else (head.project_hid(states), targets)
    )
    torch.testing.assert_close(output[:2], expected)
    assert output.logits is None
    with pytest.raises(
        ValueError, match="expected project_up .* num_ctc_classes 7"
    ):
        UniSpeechHead(16, 8, num_ctc_classes=7, project_up=False)


def test_padding_counts_in_no_perplexity_and_changes_no_frame():
    shares = torch.tensor([1.0, 0.6])
    states, feats = torch.randn(2, 10, 16), torch.randn(2, 10, 8)
    head = UniSpeechHead(16, 8, [2, 6, 8], 12, 7, replace_prob=0.0).eval()
    batched = head(states, feats, shares)
    padded = head(states[1:], feats[1:], shares[1:])
    alone = head(states[1:, :6], feats[1:, :6])
    torch.testing.assert_close(padded.quantized[2:], alone.quantized[2:])
    for name in (
        "projected_states",
        "projected_quantized_states",
        "logits",
    ):
        torch.testing.assert_close(
            getattr(batched, name)[1:, :6],
            getattr(alone, name),
            rtol=1e-5,
            atol=1e-5,
        )


def test_temperature_and_generator_reach_the_quantizer():
    head = UniSpeechHead(16, 8, [2, 40, 8], 12, 7)
    states, feats = torch.randn(2, 9, 16), torch.randn(2, 9, 8)
    codes, slopes = [], []
    for temperature in (2.0, 0.5):
        generator = torch.Generator().manual_seed(2)
        found = head(
            states, feats, temperature=temperature, generator=generator
        )
        found.projected_quantized_states.square().sum().backward()
        codes.append(found.quantized.codes)
        slopes.append(head.quantizer.weight_proj.bias.grad.clone())
        head.zero_grad()
    assert torch.equal(*codes)
    assert not torch.allclose(*slopes)
