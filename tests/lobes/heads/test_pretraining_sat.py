"""UniSpeech-SAT's head against transformers and the authors' records."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.huggingface import tiny_model
from unispeech_sb.lobes.heads import UniSpeechSATHead

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


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("label_dim", [8, 12])
def test_sat_head_holds_every_tensor_of_transformers(stable, label_dim):
    sizes = {**SIZES, "codevector_dim": label_dim}
    model = tiny_model(
        "unispeech-sat", "ForPreTraining", num_clusters=9,
        do_stable_layer_norm=stable, **sizes,
    )  # fmt: skip
    head = UniSpeechSATHead(
        16, 9, 12, [2, 6, label_dim], label_dim=label_dim,
        extract_norm="apply" if stable else "keep",
    ).eval()  # fmt: skip
    head.load_state_dict(tops(model))
    states = torch.randn(2, 5, 16)
    if label_dim != 12:
        with pytest.raises(ValueError, match="projected states, 12; got 8"):
            head(states, states)
        return
    output = head(states, states)
    normed = model.layer_norm_for_extract(states) if stable else states
    vectors, perplexity = model.quantizer(normed)
    for found, expected in (
        (output.projected_states, model.project_hid(states)),
        (output.speaker_states, model.speaker_proj(normed)),
        (output.projected_quantized_states, model.project_q(vectors)),
        (output.quantized.codevector_perplexity, perplexity),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("run", ["unispeech_sat_base", "unispeech_sat_large"])
def test_cluster_scores_meet_the_authors(run, authors_folder):
    tensors = load_file(authors_folder / f"{run}.safetensors")
    head = UniSpeechSATHead(32, 24, 24, codevectors=None)
    head.load_state_dict(
        {
            "project_hid.weight": tensors["state/final_proj.weight"],
            "project_hid.bias": tensors["state/final_proj.bias"],
            "label_embeddings_concat": tensors["state/label_embs_concat"],
        }
    )
    mask = tensors["draws/00.mask_indices.mask"]
    logits = head(tensors["out/x"]).logits[mask]
    targets = tensors["sample/target_list.0"][mask].long()
    theirs = tensors["out/logit_m.0"]  # the right cluster, then all others
    rows = torch.arange(len(targets))
    torch.testing.assert_close(
        logits[rows, targets], theirs[:, 0], rtol=1e-5, atol=1e-5
    )
    others = theirs[:, 1:].clone()
    assert torch.equal(others.isinf().nonzero()[:, 1], targets)
    others[rows, targets] = theirs[:, 0]
    torch.testing.assert_close(logits, others, rtol=1e-5, atol=1e-5)


def test_without_the_utterance_loss_its_parts_are_absent():
    head = UniSpeechSATHead(16, 9, 12, codevectors=None)
    assert sorted(head.state_dict()) == [
        "label_embeddings_concat", "project_hid.bias", "project_hid.weight",
    ]  # fmt: skip
    states = torch.randn(2, 5, 16)
    assert head(states)[2:] == (None, None, None)
    with pytest.raises(ValueError, match="expected no layer_state"):
        head(states, states)


def test_label_embeddings_start_where_gradients_reach_the_model():
    head, states = UniSpeechSATHead(16, 504), torch.randn(1, 3, 16)
    labels = head.label_embeddings_concat
    assert labels.min() >= 0 and labels.max() > 0.9
    states.requires_grad_()
    F.cross_entropy(head(states).logits[0], torch.tensor([5, 6, 7])).backward()
    assert states.grad.abs().max() > 1e-3
    assert labels.grad.abs().max() < 100


def test_scores_are_float32_under_autocast():
    head, states = UniSpeechSATHead(16, 9, 12).eval(), torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(states, states)
    assert output.logits.dtype == torch.float32
    cosines = F.cosine_similarity(
        output.projected_states.float()[:, :, None],
        head.label_embeddings_concat[None, None],
        dim=-1,
    )
    torch.testing.assert_close(output.logits, 10 * cosines)


def test_wrong_norms_are_refused():
    with pytest.raises(ValueError, match="apply or keep; got True"):
        UniSpeechSATHead(16, 9, extract_norm=True)


def test_padding_counts_in_no_perplexity_and_changes_no_frame():
    shares, states = torch.tensor([1.0, 0.6]), torch.randn(2, 10, 16)
    head = UniSpeechSATHead(16, 9, 12, [2, 6, 8], extract_norm="apply").eval()
    batched = head(states, states, shares)
    padded = head(states[1:], states[1:], shares[1:])
    alone = head(states[1:, :6], states[1:, :6])
    torch.testing.assert_close(padded.quantized[2:], alone.quantized[2:])
    for whole, expected in zip(batched[:4], alone[:4]):
        torch.testing.assert_close(
            whole[1:, :6], expected, rtol=1e-5, atol=1e-5
        )


def test_temperature_and_choices_reach_the_quantizer():
    head, states = UniSpeechSATHead(16, 9, 12, [2, 6, 8]), torch.randn(2, 5, 16)
    one, two = (
        head(states, states, generator=torch.Generator().manual_seed(2))
        for _ in range(2)
    )
    assert torch.equal(one.quantized.codes, two.quantized.codes)
    one_hots = F.one_hot(torch.full((2, 5, 2), 4), 6)
    slopes = []
    for temperature in (2.0, 0.5):
        found = head(states, states, temperature=temperature, one_hots=one_hots)
        assert (found.quantized.codes == 4).all()
        found.projected_quantized_states.square().sum().backward()
        slopes.append(head.quantizer.weight_proj.bias.grad.clone())
        head.zero_grad()
    assert not torch.isclose(*slopes).any()
