"""The quantizer against transformers' and the authors' recorded runs."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers.models.unispeech import modeling_unispeech as reference

from tests.huggingface import tiny_config
from unispeech_sb.nnet.quantizer import (
    GumbelQuantizer,
    codebook_perplexity,
    gumbel_noise,
    gumbel_temperature,
)


def pair(training):
    """transformers' quantizer and ours with its random weights."""
    config = tiny_config("unispeech", num_codevectors_per_group=6)
    theirs = reference.UniSpeechGumbelVectorQuantizer(config)
    with torch.no_grad():
        theirs.codevectors.uniform_()
        theirs.weight_proj.weight.normal_()
        theirs.weight_proj.bias.normal_()
    ours = GumbelQuantizer(8, 8, num_groups=2, num_entries=6)
    ours.load_state_dict(theirs.state_dict())
    return ours.train(training), theirs.train(training)


def by_name(*modules):
    """Gradients of each module, by parameter."""
    return [{n: p.grad for n, p in m.named_parameters()} for m in modules]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("temperature", [2.0, 0.3])
def test_vectors_perplexity_and_gradients_equal_transformers(
    training, temperature
):
    ours, theirs = pair(training)
    theirs.temperature = temperature
    feats = torch.randn(3, 7, 8)
    torch.manual_seed(5)
    vectors, perplexity = theirs(feats)
    torch.manual_seed(5)
    found = ours(feats, temperature=temperature)
    torch.testing.assert_close(found.codevectors, vectors)
    torch.testing.assert_close(found.codevector_perplexity, perplexity)
    weights = torch.randn_like(vectors)
    (vectors * weights).sum().add(perplexity).backward()
    (found.codevectors * weights).sum().add(
        found.codevector_perplexity
    ).backward()
    gradients, expected = by_name(ours, theirs)
    for name, gradient in expected.items():
        if training or name == "codevectors":
            assert gradient.abs().max() > 1e-3, name
            torch.testing.assert_close(gradients[name], gradient)
        else:
            assert gradients[name] is None


@pytest.mark.parametrize(
    "run", ["unispeech_train", "unispeech_train_padded", "unispeech_sat_base"]
)
def test_authors_perplexities_are_met(run, authors_folder):
    tensors = load_file(authors_folder / f"{run}.safetensors")
    logits = tensors["draws/01.gumbel.logits"]  # one row for each codebook
    one_hots = tensors["draws/01.gumbel.onehot"]
    (books,) = (v for k, v in tensors.items() if k.endswith("quantizer.vars")
                and k.startswith("state/"))  # fmt: skip
    quantizer = GumbelQuantizer(16, 24, num_groups=2, num_entries=8)
    with torch.no_grad():
        quantizer.weight_proj.weight.copy_(torch.eye(16))
        quantizer.codevectors.copy_(books)
    found = quantizer(
        logits.view(1, -1, 16), one_hots=one_hots.view(1, -1, 2, 8)
    )
    log = load_log(authors_folder / f"{run}.json")
    for name in ("prob_perplexity", "code_perplexity"):
        assert getattr(found, name).item() == pytest.approx(log[name], rel=1e-6)
    codes = one_hots.argmax(-1).view(1, -1, 2)
    assert torch.equal(found.codes, codes)
    expected = [books[0, 8 * g + codes[..., g]] for g in range(2)]
    torch.testing.assert_close(found.codevectors, torch.cat(expected, -1))


def load_log(path):
    """What the authors' criterion printed."""
    return json.loads(path.read_text())["log"]


def test_a_generator_draws_the_choices():
    quantizer, feats = (
        GumbelQuantizer(8, 6, num_entries=40),
        torch.zeros(2, 9, 8),
    )
    first, again, other = (
        quantizer(feats, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.codevectors, again.codevectors)
    assert not torch.equal(first.codes, other.codes)
    state = torch.get_rng_state()
    quantizer(feats, generator=torch.Generator())
    assert torch.equal(state, torch.get_rng_state())
    quantizer.eval()
    assert torch.equal(quantizer(feats).codes, quantizer(feats).codes)


def test_choices_follow_the_probabilities():
    quantizer = GumbelQuantizer(1, 2, num_groups=1, num_entries=2)
    with torch.no_grad():
        quantizer.weight_proj.weight.zero_()
        quantizer.weight_proj.bias.copy_(torch.tensor([math.log(3.0), 0.0]))
    codes = quantizer(torch.zeros(1, 20000, 1)).codes
    assert codes.float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_gradients_pass_straight_through_given_choices():
    quantizer = GumbelQuantizer(8, 4, num_groups=1, num_entries=5)
    feats, weights = torch.randn(1, 1, 8), torch.randn(4)
    one_hots = F.one_hot(torch.tensor([3]), 5).view(1, 1, 1, 5)
    found = quantizer(feats, temperature=0.5, one_hots=one_hots)
    book = quantizer.codevectors[0].detach()
    torch.testing.assert_close(found.codevectors[0, 0], book[3])
    (found.codevectors @ weights).sum().backward()
    logits = quantizer.weight_proj(feats)[0, 0].detach().requires_grad_()
    ((logits / 0.5).softmax(-1) @ book @ weights).backward()
    torch.testing.assert_close(quantizer.weight_proj.bias.grad, logits.grad)
    assert quantizer.codevectors.grad[0].abs().sum(-1).nonzero().tolist() == [
        [3]
    ]


def test_given_noise_is_what_torch_would_have_drawn():
    quantizer, feats = (
        GumbelQuantizer(8, 6, num_entries=5),
        torch.randn(2, 4, 8),
    )
    logits = quantizer.weight_proj(feats).unflatten(-1, (2, 5))
    noise = gumbel_noise(logits, torch.Generator().manual_seed(3))
    weights = torch.randn(2, 4, 6)
    torch.manual_seed(3)
    picked = F.gumbel_softmax(logits, tau=0.7, hard=True)
    books = quantizer.codevectors.view(2, 5, 3)
    plain = torch.einsum("btgv,gvd->btgd", picked, books).flatten(2)
    for mode in (True, False):
        found = quantizer.train(mode)(feats, temperature=0.7, noise=noise)
        torch.testing.assert_close(found.codevectors, plain)
        slopes = [
            torch.autograd.grad(
                (each * weights).sum(),
                quantizer.weight_proj.weight,
                retain_graph=True,
            )[0]
            for each in (found.codevectors, plain)
        ]
        torch.testing.assert_close(*slopes)
        assert slopes[0].any()


def test_perplexity_by_hand_and_over_masked_frames_only():
    one_hots = F.one_hot(torch.tensor([[[0, 1], [1, 1], [2, 2]]]), 4).float()
    mask = torch.tensor([[True, True, False]])
    assert codebook_perplexity(one_hots, mask).item() == pytest.approx(2 + 1)
    assert codebook_perplexity(one_hots).item() == pytest.approx(
        3 + 3 / 2 ** (2 / 3)
    )
    uniform = torch.full((1, 1, 1, 320), 1 / 320)
    assert codebook_perplexity(uniform).item() == pytest.approx(320)
    expected = 1 / (1 / 320 + 1e-7)
    found = codebook_perplexity(uniform, eps=1e-7).item()
    assert found == pytest.approx(expected, rel=1e-6)
    large = GumbelQuantizer(8, 4)
    perplexities = large(torch.zeros(1, 3, 8))  # no bias: uniform
    assert perplexities.prob_perplexity.item() == pytest.approx(2 * expected)
    assert perplexities.codevector_perplexity.item() == pytest.approx(640)
    quantizer = GumbelQuantizer(8, 4, num_entries=5)
    feats = torch.randn(1, 3, 8)
    masked, alone = quantizer(feats, mask), quantizer(feats[:, :2])
    for name in ("prob_perplexity", "code_perplexity", "codevector_perplexity"):
        torch.testing.assert_close(getattr(masked, name), getattr(alone, name))


def test_temperature_falls_by_the_update_to_its_floor():
    assert gumbel_temperature(0, 2.0, 0.1, 0.999995) == 2.0
    assert gumbel_temperature(1, 2.0, 0.1, 0.5) == 1.0
    halved = gumbel_temperature(138629, 2.0, 0.1, 0.999995)
    assert halved == pytest.approx(1.0, abs=1e-4)
    assert gumbel_temperature(10**6, 2.0, 0.1, 0.999995) == 0.1


def test_weights_start_as_the_authors_do():
    quantizer = GumbelQuantizer(64, 64)
    books, weight = quantizer.codevectors, quantizer.weight_proj.weight
    assert books.shape == (1, 640, 32)
    assert 0 <= books.min() and books.max() < 1 and books.max() > 0.9
    assert weight.std().item() == pytest.approx(1.0, abs=0.05)
    assert not quantizer.weight_proj.bias.any()


def test_probabilities_are_float32_under_autocast():
    quantizer = GumbelQuantizer(8, 6).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(torch.randn(2, 5, 8))
    assert found.prob_perplexity.dtype == torch.float32


def test_codebooks_share_the_vector_evenly():
    with pytest.raises(ValueError, match="multiple of the 3 codebooks; got 8"):
        GumbelQuantizer(8, 8, num_groups=3)
