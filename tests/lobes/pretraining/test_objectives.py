"""Both objectives: gradients, padding, options, bad input."""

import pytest
import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UniSpeechHead, UniSpeechSATHead
from unispeech_sb.lobes.pretraining import (
    SAT_WEIGHTS,
    UNISPEECH_WEIGHTS,
    Instances,
    Negatives,
    PretrainingOutput,
    UniSpeech,
    UniSpeechDraws,
    UniSpeechSAT,
    UniSpeechSATDraws,
    weighted_loss,
)
from unispeech_sb.nnet.masking import SpanMasks

PRE_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
OFF = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout"), 0.0
)
MASKS = SpanMasks(0.5, 3)
STAGE2 = {"contrastive": 1.0, "diversity": 0.1, "feature_penalty": 0.0}
PHONES = torch.tensor([[1, 2, 3], [4, 1, -100]])
UNITS = torch.randint(9, (2, 25), generator=torch.Generator().manual_seed(1))


def unispeech(classes=9, project_up=True, negatives=None, **options):
    """A tiny model that draws no dropout."""
    head = UniSpeechHead(
        16, 8, [2, 4, 6], 12, classes, dropouts=[0, 0], project_up=project_up
    )
    backbone = Backbone.from_preset("tiny", **{**PRE_NORM, **OFF})
    return UniSpeech(
        backbone, head, MASKS, negatives or Negatives(10), **options
    )


def sat(codevectors=(2, 4, 6), extract_norm="apply", **options):
    """A tiny model that draws no dropout."""
    head = UniSpeechSATHead(16, 9, 12, codevectors, extract_norm=extract_norm)
    backbone = Backbone.from_preset("tiny", **{**PRE_NORM, **OFF})
    options = {"instances": Instances(1, 5, 10), **options}
    return UniSpeechSAT(backbone, head, MASKS, **options)


def waves(samples=8000, batch=2):
    """The same noise in every test."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, samples, generator=generator)


def without_gradient(objective):
    """Parameters that no loss reached, or where nothing arrived."""
    return {
        name
        for name, parameter in objective.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }


@pytest.mark.parametrize(
    ("classes", "project_up"), [(9, True), (0, True), (0, False)]
)
def test_every_parameter_of_unispeech_learns(classes, project_up):
    objective = unispeech(classes, project_up)
    stage1 = classes > 0
    output = objective(waves(), targets=PHONES if stage1 else None)
    weights = UNISPEECH_WEIGHTS if stage1 else STAGE2
    weighted_loss(output, weights).backward()
    assert without_gradient(objective) == set()


def test_every_parameter_of_sat_learns():
    objective = sat()
    weighted_loss(objective(waves(), targets=UNITS), SAT_WEIGHTS).backward()
    assert without_gradient(objective) == set()
    plain = sat(codevectors=None, extract_norm=None)
    output = plain(waves(), targets=UNITS)
    weights = {"cluster": 1.0, "feature_penalty": 10.0}
    weighted_loss(output, weights).backward()
    assert without_gradient(plain) == set()
    assert output.diagnostics.keys() == {"cluster_accuracy"}


def mask_for(counts, frames):
    """Every third valid frame."""
    places = torch.arange(frames)
    return (places < counts[:, None]) & (places % 3 == 0)


def noise_for(*shape):
    """Gumbel noise of one seed."""
    uniform = torch.rand(*shape, generator=torch.Generator().manual_seed(4))
    return -uniform.log().neg().log()


def test_padding_changes_no_loss_of_an_utterance_of_unispeech():
    objective = unispeech().eval()
    wavs, shares = waves(), torch.tensor([1.0, 0.6])
    counts = torch.tensor([24, objective.backbone.output_lengths(4800)])
    mask, noise = mask_for(counts, 24), noise_for(2, 24, 2, 4)
    replaced = torch.arange(48).view(2, 24) % 2 == 0
    rows, places = mask.nonzero(as_tuple=True)
    chosen = torch.stack([(places + 1) % 9, (places + 2) % 9], 1)

    def losses(kept):
        """Those of some of the rows, as a batch."""
        frames = int(counts[kept].max())
        places = 24 if len(kept) == 2 else 0
        draws = UniSpeechDraws(
            mask[kept, :frames],
            noise[kept][mask[kept]],
            noise[kept, :frames],
            chosen[torch.isin(rows, kept)]
            + rows[torch.isin(rows, kept)][:, None] * places,
            replaced[kept, :frames],
        )
        samples = 8000 if frames == 24 else 4800
        lens = shares[kept] / shares[kept].max()
        return objective(wavs[kept, :samples], lens, PHONES[kept], draws=draws)

    both = losses(torch.tensor([0, 1]))
    alone = [losses(torch.tensor([row])) for row in (0, 1)]
    for name in ("ctc", "contrastive"):
        found = sum(each.losses[name] for each in alone)
        torch.testing.assert_close(both.losses[name], found)
    assert both.sample_size == sum(each.sample_size for each in alone)


@pytest.mark.parametrize("make", [unispeech, sat])
def test_what_stands_in_the_padding_does_not_matter_unless_compat(make):
    shares = torch.tensor([1.0, 0.6])
    other = waves()
    other[1, 4800:] = 5.0
    targets = PHONES if make is unispeech else UNITS
    for compat in (False, True):
        torch.manual_seed(0)
        objective = make(paper_code_compat=compat)
        found = [
            objective(
                wavs, shares, targets,
                generator=torch.Generator().manual_seed(5),
            )
            for wavs in (waves(), other)
        ]  # fmt: skip
        for name, loss in found[0].losses.items():
            torch.testing.assert_close(loss, found[1].losses[name])
        mean = found[0].losses["feature_penalty"] / found[0].sample_size
        frames = objective.encode_masked(waves(), shares)
        squares = frames.conv_features.square()
        valid = torch.cat([squares[0], squares[1, :14]]).mean()
        expected = squares.mean() if compat else valid
        torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("make", [unispeech, sat])
def test_a_generator_decides_everything(make):
    objective = make()
    targets = PHONES if make is unispeech else UNITS
    state = torch.get_rng_state()
    one, two, other = (
        objective(
            waves(), targets=targets,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    )  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    for name, loss in one.losses.items():
        assert torch.equal(loss, two.losses[name])
    assert one.losses["diversity"] != other.losses["diversity"]


@pytest.mark.parametrize("make", [unispeech, sat])
def test_temperature_follows_the_updates(make):
    objective = make(latent_temp=(2.0, 0.5, 0.5))
    targets = PHONES if make is unispeech else UNITS
    found = [
        objective(waves(), targets=targets, num_updates=updates)
        for updates in (0, 1, 9)
    ]
    temperatures = [each.diagnostics["temperature"] for each in found]
    assert temperatures == [2.0, 1.0, 0.5]


def test_temperature_changes_gradients():
    slopes = []
    for updates in (0, 1):
        torch.manual_seed(0)
        objective = unispeech(latent_temp=(2.0, 0.1, 0.2))
        output = objective(
            waves(), targets=PHONES, num_updates=updates,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        output.losses["contrastive"].backward()
        slopes.append(objective.head.quantizer.weight_proj.weight.grad)
    assert not torch.allclose(*slopes)


@pytest.mark.parametrize("make", [unispeech, sat])
def test_the_convolutions_get_a_share_of_their_gradient(make):
    found = []
    targets = PHONES if make is unispeech else UNITS
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        objective = make(feature_grad_mult=factor)
        output = objective(
            waves(), targets=targets,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        sum(output.losses.values()).backward()
        found.append(dict(objective.named_parameters()))
    for name, parameter in found[0].items():
        factor = 0.1 if "feature_extractor" in name else 1.0
        torch.testing.assert_close(
            found[1][name].grad, factor * parameter.grad, rtol=1e-4, atol=1e-5
        )
    extractor = objective.backbone.feature_extractor
    assert not extractor._forward_hooks  # nothing is left behind


def test_labels_at_twice_the_rate_are_those_of_every_other_place():
    wavs, doubled = waves(), UNITS[:, :24].repeat_interleave(2, 1)
    doubled[:, 1::2] = 8 - doubled[:, 1::2]
    found = []
    for rate, targets in ((50, UNITS), (100, doubled)):
        torch.manual_seed(0)
        objective = sat(label_rate=rate)
        generator = torch.Generator().manual_seed(1)
        found.append(objective(wavs, targets=targets, generator=generator))
    assert torch.equal(found[0].losses["cluster"], found[1].losses["cluster"])


def test_frames_without_labels_are_cut_off():
    objective = sat()
    mask = mask_for(torch.tensor([20, 20]), 20)
    draws = UniSpeechSATDraws(mask)
    shorter = objective(waves(), targets=UNITS[:, :20], draws=draws)
    frames = objective.encode_masked(
        waves(), labelled=torch.tensor([20, 12]), generator=None
    )
    assert shorter.sample_size == 14 and frames.mask.shape == (2, 20)
    assert frames.conv_features.shape[1] == 20
    assert not frames.mask[1, 12:].any()
    for _ in range(5):
        lens = torch.tensor([1.0, 0.48])
        output = objective(waves(), targets=UNITS, target_lens=lens)
        assert output.sample_size <= 24  # twice the row of 12


def test_ignored_labels_count_for_nothing():
    objective, units = sat().eval(), UNITS.clone()
    mask = mask_for(torch.tensor([24, 24]), 24)
    units[:, ::2] = -100
    found = objective(waves(), targets=units, draws=UniSpeechSATDraws(mask))
    kept = UniSpeechSATDraws(mask)
    scores = objective(waves(), targets=UNITS, draws=kept)
    assert 0 < found.losses["cluster"] < scores.losses["cluster"]
    assert found.sample_size == scores.sample_size


def test_losses_stay_float32_under_autocast():
    for objective, targets in ((unispeech(), PHONES), (sat(), UNITS)):
        with torch.autocast("cpu", torch.bfloat16):
            output = objective(waves(), targets=targets)
        for name, loss in output.losses.items():
            assert loss.dtype == torch.float32, name
            assert loss.isfinite(), name


@pytest.mark.parametrize("make", [unispeech, sat])
def test_a_few_steps_learn_one_batch(make):
    objective = make(latent_temp=(2.0, 0.5, 1.0))
    targets = PHONES if make is unispeech else UNITS
    weights = UNISPEECH_WEIGHTS if make is unispeech else SAT_WEIGHTS
    adam, values = torch.optim.Adam(objective.parameters(), 1e-2), []
    for _ in range(12):
        output = objective(
            waves(), targets=targets,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        loss = weighted_loss(output, weights) / output.sample_size
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_weights_and_losses_must_agree():
    output = PretrainingOutput({"ctc": torch.tensor(2.0)}, 1, {})
    assert weighted_loss(output, {"ctc": 0.5}) == 1
    with pytest.raises(ValueError, match="expected ctc; got contrastive"):
        weighted_loss(output, {"contrastive": 1.0})


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="classes 9 and no targets"):
        unispeech()(waves())
    with pytest.raises(ValueError, match="classes 0 and targets"):
        unispeech(0)(waves(), targets=PHONES)
    with pytest.raises(ValueError, match="expected targets; got none"):
        sat()(waves())
    with pytest.raises(ValueError, match="from 1 to 1; got 2"):
        sat(instances=Instances(2))
    empty = UniSpeechSATDraws(torch.zeros(2, 24, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"none in 2 .* \[24, 24\] frames"):
        sat()(waves(), targets=UNITS, draws=empty)


def test_the_last_layer_can_be_compared_where_it_comes_out_raw():
    backbone = Backbone.from_preset(
        "tiny", last_state="raw", **{**PRE_NORM, **OFF}
    )
    head = UniSpeechSATHead(16, 9, 12, [2, 4, 6], extract_norm="apply")
    objective = UniSpeechSAT(backbone, head, MASKS, Instances(2))
    assert objective(waves(), targets=UNITS).losses["diversity"] > 0


def test_the_blank_is_where_the_authors_have_it_unless_told():
    assert unispeech().blank_index == 5
    assert unispeech(blank_index=0).blank_index == 0
    assert unispeech(0).blank_index is None


def test_candidates_are_as_many_as_the_authors_draw_and_from_where():
    mask = torch.ones(2, 24, dtype=torch.bool)
    rows = torch.arange(48)[:, None] // 24
    plain = sat(instances=Instances(layer=1))
    across = plain.sampler(mask, mask.sum(1))
    assert across.shape == (48, 100)
    assert len((across // 24 - rows).unique()) == 3  # from the whole batch
    within = unispeech(negatives=Negatives()).sampler(mask, mask.sum(1))
    assert within.shape == (48, 100)
    assert (within // 24 == rows).all()


def test_layers_and_masks_are_the_authors_unless_given():
    assert Instances().layer == 6 and UniSpeechSATDraws() == (None,) * 3
    assert UniSpeechDraws() == (None,) * 5
    backbone = Backbone.from_preset("tiny", **PRE_NORM)
    head = UniSpeechHead(16, 8, [2, 4, 6], 12, 9)
    objective = UniSpeech(backbone, head)
    assert objective.masks == (0.5, 10, 2, True)
    assert [objective.temperature(n) for n in (0, 10**9)] == [2.0, 0.1]
    head = UniSpeechSATHead(16, 9, 12, [2, 4, 6])
    objective = UniSpeechSAT(backbone, head, instances=Instances(1))
    assert objective.masks == (0.8, 10, 2, True)
    assert [objective.temperature(n) for n in (0, 10**9)] == [2.0, 0.5]
    assert objective.labels_per_frame == 1.0
