"""The x-vector head and AM-softmax against transformers' ForXVector."""

import pytest
import torch
from torch.nn import functional as F

from tests.huggingface import attention_mask, tiny_model
from unispeech_sb.lobes.heads import AMSoftmax, SpeakerHead

TDNN = {
    "tdnn_dim": [12, 10, 10, 10, 14],
    "tdnn_kernel": [5, 3, 3, 1, 1],
    "tdnn_dilation": [1, 2, 3, 1, 1],
    "xvector_output_dim": 6,
}
CONTEXT = 4 + 4 + 6  # frames that the layers take away
NAMES = {"layer_weights": "layer_mix.weights", "feature_extractor": "embedding"}


def tiny_head(**options):
    """A random head of the published shape."""
    return SpeakerHead(16, **{**TDNN, **options}).eval()


def tops(model):
    """Parameters of the head and of the objective, by our names."""
    found = {}
    for name, parameter in model.named_parameters():
        first, dot, rest = name.partition(".")
        if first != model.base_model_prefix:
            found[NAMES.get(first, first) + dot + rest] = parameter
    weight = found.pop("objective.weight")
    return found, {"weight": weight}


def xvector(weighted, lengths):
    """transformers' model, its states, and what it makes of a batch."""
    model = tiny_model(
        "unispeech-sat", "ForXVector", feat_extract_norm="layer",
        use_weighted_layer_sum=weighted, **TDNN,
    )  # fmt: skip
    if weighted:
        model.layer_weights.data = torch.randn(4)
    mask = attention_mask(lengths)
    wavs = torch.randn(len(lengths), int(max(lengths))) * mask
    if min(lengths) == max(lengths):
        mask = None
    theirs = model(
        wavs,
        attention_mask=mask,
        labels=torch.tensor([4, 0, 2]),
        output_hidden_states=True,
    )
    base = model.base_model(
        wavs, attention_mask=mask, output_hidden_states=True
    )
    feats = (
        torch.stack(base.hidden_states) if weighted else base.last_hidden_state
    )
    frames = model._get_feat_extract_output_lengths(torch.tensor(lengths))
    return model, feats.detach(), frames / frames.max(), theirs


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lengths", [[9000] * 3, [12000, 6900, 5700]])
def test_vectors_loss_and_gradients_equal_transformers(weighted, lengths):
    model, feats, shares, theirs = xvector(weighted, lengths)
    padded = min(lengths) < max(lengths)
    head = tiny_head(tdnn_lengths="hf", num_states=4 if weighted else None)
    objective = AMSoftmax(6, 5)
    for lobe, parameters in zip((head, objective), tops(model)):
        lobe.load_state_dict(parameters)
    shares = shares if padded else None
    embeddings, logits = head.embed(feats, shares), head(feats, shares)
    loss = objective(logits, torch.tensor([4, 0, 2]))
    for ours, reference in (
        (embeddings, theirs.embeddings),
        (logits, theirs.logits),
        (loss, theirs.loss),
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    loss.backward()
    theirs.loss.backward()
    for lobe, parameters in zip((head, objective), tops(model)):
        assert dict(lobe.named_parameters()).keys() == parameters.keys()
        for name, parameter in lobe.named_parameters():
            reference = parameters[name].grad
            assert reference.abs().max() > 1e-4, name
            torch.testing.assert_close(
                parameter.grad, reference, rtol=1e-5, atol=1e-5
            )
    exact = tiny_head(num_states=4 if weighted else None)
    exact.load_state_dict(head.state_dict())
    same = torch.isclose(exact(feats, shares), logits).all(1)
    assert same.tolist() == [True, not padded, not padded]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_speaker_vector_is_the_same_alone_and_in_a_batch(weighted):
    frames = torch.tensor([40, 29, CONTEXT + 2])
    states = torch.randn(4 if weighted else 1, 3, 40, 16)
    for row, count in enumerate(frames):
        states[:, row, count:] *= 100
    head = tiny_head(num_states=4 if weighted else None)
    feats = states if weighted else states[0]
    for run in (head, head.embed):
        batched = run(feats, frames / 40)
        for row, count in enumerate(frames):
            alone = run(feats[..., row : row + 1, :count, :])
            torch.testing.assert_close(
                batched[row], alone[0], rtol=1e-5, atol=1e-5
            )


def test_layers_see_dilated_frames_in_order():
    head = SpeakerHead(1, [1], [3], [2], xvector_output_dim=2)
    layer = head.tdnn[0]
    with torch.no_grad():
        layer.kernel.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        layer.kernel.bias.fill_(0.5)
    feats = torch.arange(6.0)[None, None]
    expected = torch.tensor([0 + 20 + 400, 1 + 30 + 500]) + 0.5
    torch.testing.assert_close(layer(feats)[0, 0], expected)
    assert (layer(-feats) <= 0.5).all()
    assert (layer(-feats) >= 0).all()


def test_relu_follows_either_affine_layer():
    plain, rectified = tiny_head(), tiny_head(relu=True)
    rectified.load_state_dict(plain.state_dict())
    feats = torch.randn(4, 20, 16)
    embedded = plain.embed(feats).relu()
    torch.testing.assert_close(rectified.embed(feats), embedded)
    expected = plain.classifier(embedded).relu()
    torch.testing.assert_close(rectified(feats), expected)
    assert (plain.embed(feats) < 0).any()


def test_a_row_that_is_too_short_gets_one_clear_error():
    head, least = tiny_head(), CONTEXT + 2
    assert head(torch.randn(1, least, 16)).isfinite().all()
    message = f"row 0 .* at least {least} frames.* got {least - 1}"
    with pytest.raises(ValueError, match=message):
        head(torch.randn(1, least - 1, 16))
    with pytest.raises(ValueError, match="row 1 .* got 15"):
        head(torch.randn(2, 30, 16), torch.tensor([1.0, 0.5]))
    forgiving = tiny_head(tdnn_lengths="hf")  # counts 8 frames less, not 14
    assert (
        forgiving(torch.randn(2, 30, 16), torch.tensor([1.0, 1 / 3]))
        .isfinite()
        .all()
    )
    with pytest.raises(ValueError, match="row 1 .* at least 10 .* got 9"):
        forgiving(torch.randn(2, 30, 16), torch.tensor([1.0, 0.3]))
    for shares in (None, torch.ones(1)):
        with pytest.raises(ValueError, match="at least 16 .* got 15"):
            forgiving(torch.randn(1, 15, 16), shares)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="exact, hf; got 'floor'"):
        SpeakerHead(16, tdnn_lengths="floor")
    with pytest.raises(ValueError, match="got 2, 1 and 2"):
        SpeakerHead(16, [8, 8], [3], [1, 1])


def test_scores_are_scaled_cosines_in_float32():
    objective, vectors = AMSoftmax(6, 4, scale=20.0), torch.randn(3, 6)
    cosines = F.cosine_similarity(
        vectors[:, None], objective.weight.T[None], dim=-1
    )
    torch.testing.assert_close(objective(vectors), 20 * cosines)
    labels = torch.tensor([0, 3, 1])
    loss = objective(vectors, labels)
    with torch.autocast("cpu", torch.bfloat16):
        scores, cast = objective(vectors), objective(vectors, labels)
    torch.testing.assert_close(scores, 20 * cosines)
    torch.testing.assert_close(cast, loss)


def test_the_share_of_the_margin_is_what_the_loss_has():
    objective = AMSoftmax(6, 3, scale=10.0, margin=0.4)
    vectors, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])
    objective.margin_share = 0.25
    less = AMSoftmax(6, 3, scale=10.0, margin=0.1)
    less.load_state_dict(objective.state_dict())
    assert objective(vectors, labels) == less(vectors, labels)
    objective.margin_share = 0.0
    wanted = F.cross_entropy(objective(vectors), labels)
    torch.testing.assert_close(objective(vectors, labels), wanted)
