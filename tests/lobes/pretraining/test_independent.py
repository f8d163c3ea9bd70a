"""What no recorded run has, padded batches of Base models and evaluations,
against transformers' modules and the authors' losses written out.

transformers' group norm counts padding as the authors' does, so that it only
needs their valid frames. In evaluation UniSpeech masks nothing, all frames are
targets, and context vectors are still replaced.
"""

import pytest
import torch
from torch.nn import functional as F

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.huggingface import read_huggingface
from unispeech_sb.convert.lobes import build_lobes
from unispeech_sb.lobes.pretraining import (
    Instances,
    Negatives,
    UniSpeech,
    UniSpeechDraws,
    UniSpeechSAT,
    UniSpeechSATDraws,
)
from unispeech_sb.nnet.masking import SpanMasks

SAMPLES = [6400, 5000, 3300]
TOTAL = 19  # frames of the longest
CHUNK = 336  # samples of a frame by the authors' rule: 6400 // 19
VALID = torch.tensor([[i * CHUNK < n for i in range(TOTAL)] for n in SAMPLES])
PHONES = torch.tensor([[1, 2, 3], [4, 1, -100], [2, -100, -100]])
TAU = 2.0


def draw(*shape, seed=3):
    """The same normal numbers in every test."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(high, *shape):
    """The same integers in every test."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(high, shape, generator=generator)


def gumbel(*shape, seed):
    """Gumbel noise."""
    uniform = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return -(-uniform.log()).log()


def wave_batch():
    """Padded waveforms, [B, N], and their valid shares."""
    lengths = torch.tensor(SAMPLES)
    wavs = draw(len(SAMPLES), SAMPLES[0])
    wavs[torch.arange(SAMPLES[0]) >= lengths[:, None]] = 0.0
    return wavs, lengths / SAMPLES[0]


def pretrained(family, tmp_path, **options):
    """A model of transformers for pre-training, and its lobes."""
    model = tiny_model(
        family, "ForPreTraining", num_codevector_groups=2, num_clusters=9,
        num_codevectors_per_group=4, num_ctc_classes=9,
        contrastive_logits_temperature=0.1, feat_quantizer_dropout=0.0,
        **options,
    )  # fmt: skip
    if family == "unispeech-sat":  # transformers leaves zeros there
        with torch.no_grad():
            model.label_embeddings_concat.copy_(draw(9, 8, seed=8))
    found = read_huggingface(
        save_folder(model, tmp_path / "hf"), {"mask_rule": "fairseq"}
    )
    lobes = build_lobes(found, tmp_path)
    return model, (lobes["backbone"], lobes["head"])


def states_of(model, name, wavs, mask):
    """transformers' hidden states of a padded batch, and the convolutions'
    features before and after their norm."""
    backbone = getattr(model, name)
    backbone._get_feature_vector_attention_mask = lambda *args, **kw: VALID
    kept = []
    handle = backbone.feature_extractor.register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    if mask is not None:  # theirs is written where SpecAugment is on
        backbone.config.apply_spec_augment = True
    out = backbone(
        wavs, attention_mask=torch.ones_like(wavs).long(),
        mask_time_indices=mask, output_hidden_states=True,
    )  # fmt: skip
    handle.remove()
    return out, kept[0]


def quantize(model, feats, noise):
    """Code vectors of frames, [S, G V/G], by drawn or likeliest entries, and
    the perplexity of the mean probabilities."""
    quantizer = model.quantizer
    logits = quantizer.weight_proj(feats).view(-1, 2, 4)
    probs = logits.softmax(-1).mean(0)
    perplexity = (-(probs * (probs + 1e-7).log()).sum(-1)).exp().sum()
    choices = logits if noise is None else (logits + noise) / TAU
    hard = F.one_hot(choices.argmax(-1), 4).float()
    if noise is not None:
        soft = choices.softmax(-1)
        hard = hard - soft.detach() + soft
    entries = quantizer.codevectors.view(2, 4, -1)
    vectors = torch.einsum("sgv,gvd->sgd", hard, entries)
    return vectors.flatten(1), hard.argmax(-1), perplexity


def expected_unispeech(model, draws):
    """The authors' losses of a batch, written out frame by frame."""
    out, conv = states_of(model, "unispeech", wave_batch()[0], draws.mask)
    states, feats = out.last_hidden_state, out.extract_features
    targets = torch.ones_like(VALID) if draws.mask is None else draws.mask

    def compared(vectors):
        return model.project_hid(model.project_q(vectors))

    positives, codes, perplexity = quantize(
        model, feats[targets], draws.masked_noise
    )
    noise = None if draws.noise is None else draws.noise.flatten(0, 1)
    every, all_codes, _ = quantize(model, feats.flatten(0, 1), noise)
    right, pool = compared(positives), compared(every)
    contrastive = 0.0
    for number, anchor in enumerate(states[targets]):
        scores = [F.cosine_similarity(anchor, right[number], dim=0) / 0.1]
        for place in draws.negatives[number]:
            if (all_codes[place] == codes[number]).all():
                continue  # equals the positive: minus infinity
            cosine = F.cosine_similarity(anchor, pool[place], dim=0)
            scores.append(cosine / 0.1)
        contrastive = contrastive - torch.stack(scores).log_softmax(0)[0]
    size = int(targets.sum())
    mixed = torch.where(draws.replaced[..., None], pool.view_as(states), states)
    log_probs = model.ctc_proj(mixed).log_softmax(-1)
    ctc = F.ctc_loss(
        log_probs.transpose(0, 1), PHONES[PHONES >= 0], VALID.sum(1),
        (PHONES >= 0).sum(1), blank=5, reduction="sum",
    )  # fmt: skip
    return size, {
        "ctc": ctc,
        "contrastive": contrastive,
        "diversity": size * (8 - perplexity) / 8,
        "feature_penalty": size * conv.square().mean(),
    }


def unispeech_draws(evaluation):
    """Decisions for the batch: masked frames, noise, candidates, replaced."""
    mask = VALID & (torch.arange(TOTAL) % 3 == 0)
    mask &= mask.cumsum(1) <= mask.sum(1).min()  # as many in every row
    size = VALID.numel() if evaluation else int(mask.sum())
    replaced = draw(*VALID.shape, seed=6) > 0
    negatives = integers(VALID.numel(), size, 5)
    if evaluation:
        return UniSpeechDraws(negatives=negatives, replaced=replaced)
    return UniSpeechDraws(
        mask, gumbel(size, 2, 4, seed=1), gumbel(*VALID.shape, 2, 4, seed=2),
        negatives, replaced,
    )  # fmt: skip


def check(objective, model, output, size, losses, names):
    """Losses and gradients of all parameters equal the expected ones."""
    assert output.sample_size == size
    assert output.losses.keys() == losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(output.losses[name], loss, msg=name)
    sum(output.losses.values()).backward()
    sum(losses.values()).backward()
    found = dict(objective.named_parameters())
    compared = 0
    for ours, theirs in names.items():
        expected = dict(model.get_submodule(theirs).named_parameters())
        for name, parameter in expected.items():
            if parameter.grad is None:
                continue
            torch.testing.assert_close(
                found[f"{ours}.{name}"].grad, parameter.grad,
                rtol=1e-4, atol=1e-4 * float(parameter.grad.abs().max()) + 1e-6,
                msg=lambda text, name=name: f"{name}: {text}",
            )  # fmt: skip
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_unispeech_equals_the_losses_written_out(norm, evaluation, tmp_path):
    stable = norm == "layer"
    model, parts = pretrained(
        "unispeech", tmp_path, feat_extract_norm=norm,
        do_stable_layer_norm=stable,
    )  # fmt: skip
    objective = UniSpeech(
        *parts, negatives=Negatives(5), paper_code_compat=True
    ).train(not evaluation)
    model.train(not evaluation)
    draws = unispeech_draws(evaluation)
    output = objective(*wave_batch(), targets=PHONES, draws=draws)
    size, losses = expected_unispeech(model, draws)
    assert size == (VALID.numel() if evaluation else 12)
    check(
        objective, model, output, size, losses,
        {
            "backbone": "unispeech",
            **{f"head.{n}": n for n in ("quantizer", "project_q", "ctc_proj")},
        },
    )  # fmt: skip


def expected_sat(model, draws, units):
    """As ``expected_unispeech``, for UniSpeech-SAT without its layer norm."""
    out, conv = states_of(model, "unispeech_sat", wave_batch()[0], draws.mask)
    rows = draws.mask.nonzero()[:, 0]
    scores = F.cosine_similarity(
        model.project_hid(out.last_hidden_state[draws.mask])[:, None],
        model.label_embeddings_concat[None], dim=-1,
    )  # fmt: skip
    layer = out.hidden_states[1][draws.mask]
    vectors, _, perplexity = quantize(model, layer, draws.noise)
    anchors, right = model.speaker_proj(layer), model.project_q(vectors)
    terms = []
    for number, anchor in enumerate(anchors):
        for place in [number, *draws.negatives[number].tolist()]:
            logit = F.cosine_similarity(anchor, right[place], dim=0) / 0.1
            same = rows[place] == rows[number]
            terms.append(F.softplus(-logit if same else logit))
    size = len(rows)
    return size, {
        "cluster": F.cross_entropy(
            scores / 0.1, units[draws.mask], reduction="sum"
        ),
        "feature_penalty": size * conv.square().mean(),
        "utterance_contrastive": size * torch.stack(terms).mean(),
        "diversity": size * (8 - perplexity) / 8,
    }


@pytest.mark.parametrize("evaluation", [False, True])
def test_sat_base_equals_the_losses_written_out(evaluation, tmp_path):
    model, parts = pretrained("unispeech-sat", tmp_path)
    objective = UniSpeechSAT(
        *parts, instances=Instances(1, 0, 4), paper_code_compat=True
    ).train(not evaluation)
    model.train(not evaluation)
    mask, units = unispeech_draws(False).mask, integers(9, *VALID.shape)
    noise = None if evaluation else gumbel(12, 2, 4, seed=1)
    draws = UniSpeechSATDraws(mask, noise, integers(12, 12, 4))
    output = objective(*wave_batch(), targets=units, draws=draws)
    size, losses = expected_sat(model, draws, units)
    heads = "quantizer", "project_q", "project_hid", "speaker_proj"
    check(
        objective, model, output, size, losses,
        {"backbone": "unispeech_sat", **{f"head.{n}": n for n in heads}},
    )  # fmt: skip


def evaluate(objective, targets, seed=1, **options):
    """The objective's answer in evaluation, by one seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return objective.eval()(
            *wave_batch(), targets, generator=generator, **options
        )


def test_first_stage_evaluates_all_valid_frames_and_goes_on_replacing(tmp_path):
    _, parts = pretrained("unispeech", tmp_path)
    objective = UniSpeech(*parts, SpanMasks(0.5, 3), Negatives(5))
    one, other = evaluate(objective, PHONES, 1), evaluate(objective, PHONES, 2)
    assert one.sample_size == other.sample_size == VALID.sum()
    assert one.losses["ctc"] != other.losses["ctc"]  # other frames replaced
    assert one.losses["diversity"] == other.losses["diversity"]  # no noise
    none = torch.zeros_like(VALID)
    kept = evaluate(objective, PHONES, draws=UniSpeechDraws(replaced=none))
    log_probs = objective.head.ctc_proj(
        objective.backbone(*wave_batch())
    ).log_softmax(-1)
    expected = F.ctc_loss(
        log_probs.transpose(0, 1), PHONES[PHONES >= 0], VALID.sum(1),
        (PHONES >= 0).sum(1), blank=5, reduction="sum",
    )  # fmt: skip
    torch.testing.assert_close(kept.losses["ctc"], expected)
    objective.paper_code_compat = True
    assert evaluate(objective, PHONES).sample_size == VALID.numel()
    drawn = objective.train()(*wave_batch(), PHONES)
    assert drawn.sample_size < VALID.sum()


def test_second_stage_and_sat_mask_in_evaluation_as_in_training(tmp_path):
    _, (backbone, head) = pretrained("unispeech", tmp_path)
    head.ctc_proj, head.config["num_ctc_classes"] = None, 0
    stage2 = UniSpeech(
        backbone, head, SpanMasks(0.5, 3), Negatives(5, 0, False)
    )
    _, parts = pretrained("unispeech-sat", tmp_path / "sat")
    sat = UniSpeechSAT(*parts, SpanMasks(0.5, 3), Instances(1, 0, 4))
    units = integers(9, *VALID.shape)
    for objective, targets in ((stage2, None), (sat, units)):
        sizes = {
            evaluate(objective, targets, seed).sample_size for seed in range(9)
        }
        assert len(sizes) > 1 and max(sizes) < VALID.sum()
