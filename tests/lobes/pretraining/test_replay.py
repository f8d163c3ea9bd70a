"""Both objectives against every recorded run of the authors' code."""

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import folder_of
from tests.lobes.pretraining.recorded import (
    build,
    find_noise,
    find_runs,
    phones,
    recorded_gradients,
    replay,
)
from unispeech_sb.lobes.pretraining import weighted_loss

TOLERANCE = 1e-5
FLOOR = 1e-5
"""Gradients below this share of the whole gradient are compared as if they
were that large: those of the keys' biases are zero but for rounding."""

RUNS = find_runs(folder_of("UNISPEECH_SB_AUTHORS"))
each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.path.stem)


@pytest.fixture(scope="module")
def noises():
    """Noise of the runs that were looked at, since it takes a search."""
    return {}


def noise_of(run, noises):
    """The run's noise."""
    if run.path not in noises:
        noises[run.path] = find_noise(run)
    return noises[run.path]


def logged_losses(run, size):
    """Name -> what the run says of a loss, and of its weighted share."""
    log, out = run.log, run.part("out")
    if run.name == "unispeech_sat":
        shares = {
            "feature_penalty": log.get("loss_features_pen", 0.0),
            "utterance_contrastive": log.get("loss_loss_spk_m", 0.0),
            "diversity": log.get("loss_prob_perplexity", 0.0),
        }
        values = {"cluster": log["loss_m_0"]}
        if "loss_spk_m" in out:
            values["utterance_contrastive"] = size * out["loss_spk_m"].item()
    else:
        shares = {
            "diversity": log.get("loss_1", 0.0),
            "feature_penalty": log.get("loss_2", 0.0),
        }
        values = {"contrastive": log.get("loss_0", log["loss"])}
        if "ctc" in out:
            values["ctc"] = out["ctc"].item()
    values["feature_penalty"] = size * out["features_pen"].item()
    if "prob_perplexity" in log:
        entries = run.cfg["latent_vars"] * run.cfg["latent_groups"]
        unused = 1 - log["prob_perplexity"] / entries
        values["diversity"] = size * unused
    return values, shares


def infer_weights(run, values, shares):
    """The criterion's weights, which are round numbers and not recorded."""
    weights = {
        name: round(shares[name] / value, 4)
        for name, value in values.items()
        if name in shares
    }
    if run.name == "unispeech_sat":
        return {"cluster": 1.0, **weights}
    alpha = 0.0
    if "ctc" in values:
        others = run.log["loss"]
        total = run.part("out")["loss"].item()
        alpha = round((total - others) / (values["ctc"] - others), 4)
    weights = {name: (1 - alpha) * each for name, each in weights.items()}
    weights["contrastive"] = 1 - alpha
    return {**weights, **({"ctc": alpha} if "ctc" in values else {})}


def accuracies(run):
    """Name -> what the run logged of diagnostics."""
    log = run.log
    found = {
        "temperature": log.get("temp"),
        "prob_perplexity": log.get("prob_perplexity"),
        "code_perplexity": log.get("code_perplexity"),
        "utterance_contrastive_accuracy": log.get("contrastive_acc"),
    }
    for name, count in (("contrastive", ""), ("cluster", "_m_0")):
        if "correct" + count in log:
            share = log["correct" + count] / log["count" + count]
            found[name + "_accuracy"] = share
    return {key: value for key, value in found.items() if value is not None}


def test_there_are_runs_to_replay(authors_folder):
    assert RUNS, f"no runs in {authors_folder}"


@each_run
def test_losses_and_diagnostics_equal_the_recorded_run(run, noises):
    objective = build(run)
    with torch.no_grad():
        output = replay(run, objective, noise_of(run, noises)[0])
    values, shares = logged_losses(run, output.sample_size)
    weights = infer_weights(run, values, shares)
    assert output.sample_size == run.log["sample_size"]
    assert output.losses.keys() == values.keys() == weights.keys()
    for name, value in values.items():
        found = output.losses[name].item()
        assert found == pytest.approx(value, rel=TOLERANCE), name
        if shares.get(name):
            share = weights[name] * found
            if run.name != "unispeech_sat":
                share /= weights["contrastive"]
            assert share == pytest.approx(shares[name], rel=TOLERANCE), name
    total = weighted_loss(output, weights).item()
    expected = run.part("out")["loss"].item()
    assert total == pytest.approx(expected, rel=TOLERANCE)
    for name, value in accuracies(run).items():
        found = float(output.diagnostics[name])
        assert found == pytest.approx(value, rel=TOLERANCE), name


@each_run
def test_all_gradients_equal_the_recorded_run(run, noises):
    noise, certain = noise_of(run, noises)
    if not certain and not torch.backends.mkl.is_available():
        pytest.skip("without MKL, torch draws other noise from a seed")
    assert certain, f"{run.path}: no seed draws its choices"
    objective = build(run)
    tolerance = TOLERANCE
    if "out/ctc" in run.tensors:
        tolerance = max(tolerance, ctc_rounding(run, objective))
        take_recorded_logits(run, objective)
    output = replay(run, objective, noise)
    weights = infer_weights(run, *logged_losses(run, output.sample_size))
    weighted_loss(output, weights).backward()
    expected = recorded_gradients(run)
    whole = torch.stack([each.norm() for each in expected.values()]).norm()
    errors = {}
    for name, parameter in objective.named_parameters():
        reference = expected.pop(name, torch.zeros(()))
        scale = reference.norm().maximum(FLOOR * whole)
        found = torch.zeros(()) if parameter.grad is None else parameter.grad
        errors[name] = ((found - reference).norm() / scale).item()
    assert not expected
    worst = max(errors, key=errors.get)
    assert errors[worst] <= tolerance, worst


def ctc_rounding(run, objective):
    """Relative error of a float32 CTC's gradient at the recorded scores.

    It sums log-probabilities of hundreds of nats, so that a record cannot
    be more exact.
    """
    logits = run.tensors["out/encoder_out"]
    targets = phones(run, objective)
    kept, frames = targets >= 0, torch.full((len(targets),), len(logits))
    if "out/padding_mask" in run.tensors:
        frames = (~run.tensors["out/padding_mask"]).sum(1)
    slopes = []
    for scores in (logits.clone(), logits.double()):
        scores.requires_grad_()
        F.ctc_loss(
            scores.log_softmax(-1), targets[kept], frames, kept.sum(1),
            objective.blank_index, "sum",
        ).backward()  # fmt: skip
        slopes.append(scores.grad)
    return ((slopes[0] - slopes[1]).norm() / slopes[1].norm()).item()


def take_recorded_logits(run, objective):
    """Gives CTC the recorded scores, to the bit, with our gradients.

    Its rounding then is the record's.
    """
    recorded = run.tensors["out/encoder_out"].transpose(0, 1)

    def take(module, args, logits):
        torch.testing.assert_close(logits, recorded, rtol=1e-5, atol=1e-5)
        return recorded + (logits - logits.detach())

    objective.head.ctc_proj.register_forward_hook(take)
