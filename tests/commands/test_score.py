"""What scores come to, against the metrics themselves."""

import json

import numpy as np
import pytest
import torch

from unispeech_sb.commands.score import (
    fit_calibration,
    score_trials,
    summarize,
    summary_table,
    write_results,
)
from unispeech_sb.dataio.trials import Trials, read_trials
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.speaker_verification import (
    SpeakerEmbedding,
    cosine,
)
from unispeech_sb.metrics.calibration import Calibration
from unispeech_sb.metrics.verification import eer, min_dcf


def draw_store(num_speakers, num_takes, spread=0.9, seed=0, model="m"):
    """Embeddings of recordings of several speakers."""
    draw = torch.Generator().manual_seed(seed)
    store = EmbeddingStore(model)
    for speaker in range(num_speakers):
        mean = torch.randn(8, generator=draw)
        for take in range(num_takes):
            noise = torch.randn(8, generator=draw)
            vector = (1.0 + take) * (mean + spread * noise)
            store.add(
                f"{seed}-{speaker}-{take}", SpeakerEmbedding(vector, 1.0 + take)
            )
    return store


def all_pairs(store):
    """Every pair of a store's recordings."""
    left, right = np.triu_indices(len(store), 1)
    speakers = [name.rpartition("-")[0] for name in store.names]
    same = [speakers[a] == speakers[b] for a, b in zip(left, right)]
    return Trials(list(store.names), left, right, np.array(same))


@pytest.fixture(scope="module")
def store():
    """Three recordings each of ten speakers."""
    return draw_store(10, 3)


@pytest.fixture(scope="module")
def trials(store):
    """All of their pairs."""
    return all_pairs(store)


def test_scores_are_cosines_in_the_order_of_the_list(store, trials):
    turned = store.select(reversed(store.names))
    found = score_trials(turned, trials)
    for left, right, value in zip(trials.left, trials.right, found.values):
        pair = store[trials.names[left]], store[trials.names[right]]
        assert value == pytest.approx(cosine(*pair), abs=1e-9)
    assert found.normalization == "none"
    assert found.embeddings.names == trials.names


def test_a_cohort_normalises(store, trials):
    cohort = draw_store(20, 1, seed=1)
    plain = score_trials(store, trials)
    for top_n, said in (
        (None, "S-norm by 20"),
        (5, "AS-norm by the"),
    ):
        found = score_trials(store, trials, cohort, top_n)
        assert found.normalization.startswith(said)
        row = 17
        left, right = (
            [
                cosine(store[trials.names[side[row]]], cohort[name])
                for name in cohort.names
            ]
            for side in (trials.left, trials.right)
        )
        terms = []
        for side in (left, right):
            best = np.sort(side)[-top_n:] if top_n else side
            terms.append(
                (plain.values[row] - np.mean(best)) / np.std(best, ddof=1)
            )
        assert found.values[row] == pytest.approx(np.mean(terms), abs=1e-6)


def test_the_summary_holds_the_metrics(store, trials):
    scores = score_trials(store, trials)
    found = summarize(scores, p_target=0.05, draws=200)
    sides = scores.values[trials.targets], scores.values[~trials.targets]
    assert found["num_target"] == 30
    assert found["num_nontarget"] == 405
    assert found["num_speakers"] == 10
    for name, (value, threshold) in (
        ("eer", eer(*sides)),
        ("min_dcf", min_dcf(*sides, p_target=0.05)),
    ):
        assert found[name]["value"] == value
        assert found[name]["threshold"] == threshold
        low, high = found[name]["interval"]
        assert low < value < high
    assert summarize(scores, p_target=0.05, draws=200) == found
    usual = summarize(scores, p_target=0.05)
    assert usual == summarize(scores, p_target=0.05, draws=1000) != found
    bare = summarize(scores, draws=0)
    assert "interval" not in bare["eer"]
    assert "cllr" not in bare
    table = summary_table(found)
    assert f"eer            {found['eer']['value']:.4f}  [" in table


def test_a_models_calibration_is_measured(store, trials):
    scores = score_trials(store, trials)
    good = summarize(scores, fit_calibration(scores), 0.5, draws=0)
    bad = summarize(scores, Calibration(20.0, 5.0), 0.5, draws=0)
    assert good["min_cllr"] == bad["min_cllr"]
    assert good["min_cllr"] <= good["cllr"] < bad["cllr"]
    assert good["min_dcf"]["value"] <= good["actual_dcf"] < bad["actual_dcf"]
    quality = {"log_duration_min": 0.1, "magnitude_max": -0.1}
    weighed = Calibration(20.0, 5.0, quality)
    found = summarize(scores, weighed, 0.5, draws=0)
    assert found["cllr"] != bad["cllr"]


def test_results_are_written_and_can_be_read(store, trials, tmp_path):
    scores = score_trials(store, trials)
    summary = summarize(scores, draws=0)
    write_results(tmp_path, scores, summary, "model $x$")
    assert json.loads((tmp_path / "results.json").read_text()) == summary
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["det.png", "results.json", "scores.csv", "scores.png"]
    again = read_trials(tmp_path / "scores.csv", known=store.names)
    assert again.targets.tolist() == trials.targets.tolist()
    column = [
        float(line.rpartition(",")[2])
        for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]
    ]
    assert column == scores.values.tolist()
