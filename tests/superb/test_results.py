"""Both overall scores against what was published; merging; damaged files."""

import json

import pytest

from tests.superb.conftest import made_up, partly
from unispeech_sb.superb.results import (
    SCORES,
    leaderboard_score,
    mean_score,
    merge_rows,
    own_scores,
    published_rows,
    read_results,
    task_points,
)
from unispeech_sb.superb.tasks import TASKS


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row["model"])
def test_the_mean_of_a_published_row_is_its_printed_overall(row):
    assert mean_score(row["scores"]) == pytest.approx(
        float(row["overall"]), abs=0.06
    )


def test_published_rows_are_of_the_four_families():
    names = [row["model"] for row in published_rows()]
    assert len(names) == len(set(names)) == 11
    for family in ("wav2vec 2.0", "HuBERT", "UniSpeech-SAT", "WavLM"):
        assert any(name.startswith(family) for name in names)
    assert all("arXiv:" in row["source"] for row in published_rows())


def test_a_published_row_as_the_paper_prints_it():
    (row,) = (
        r for r in published_rows() if r["model"] == "UniSpeech-SAT Base+"
    )
    assert row["scores"]["SID"] == 87.59
    assert row["scores"]["QbE"] == pytest.approx(11.25)
    assert row["scores"]["SF-CER"] == 21.75


def test_the_leaderboards_ends_are_0_and_1000_points():
    for end, points in (("baseline", 0.0), ("topline", 1000.0)):
        scores = {c: getattr(s, end) for c, (_, s) in SCORES.items()}
        assert leaderboard_score(scores) == pytest.approx(points)


def test_points_by_hand():
    # PR: 1000 (5 - 82.01) / (3.53 - 82.01); slot filling is a mean of two
    points = task_points({"PR": 5.0, "SF-F1": 89.81, "SF-CER": 37.35})
    assert points["pr"] == pytest.approx(1000 * 77.01 / 78.48)
    assert points["sf"] == pytest.approx((1000 + 500) / 2)
    assert set(points) == {"pr", "sf"}


def test_a_mean_needs_all_numbers():
    scores = dict(published_rows()[1]["scores"])
    del scores["KS"]
    assert mean_score(scores) is None
    assert leaderboard_score(scores) is None


def test_numbers_of_other_corpora_are_in_no_mean():
    row = partly()
    assert "KS" not in own_scores(row)
    assert not any(" on " in column for column in own_scores(row))
    assert mean_score(own_scores(row)) is None
    assert mean_score(own_scores(made_up())) is not None


def part_of(row, *names):
    """Results of some tasks only."""
    return {**row, "tasks": {name: row["tasks"][name] for name in names}}


def test_runs_of_one_model_become_one_row():
    row = made_up()
    parts = [part_of(row, *names) for names in (("ks", "pr"), ("sid",))]
    (merged,) = merge_rows(parts)
    assert list(merged["tasks"]) == ["pr", "ks", "sid"]
    assert [list(part["tasks"]) for part in parts] == [["ks", "pr"], ["sid"]]


def test_a_finished_task_takes_the_place_of_a_failed_one():
    row, other = made_up(), partly("models/my-sat-base")
    other = {**part_of(other, "sd"), "preset": "superb"}
    (merged,) = merge_rows([other, part_of(row, "sd")])
    assert merged["tasks"]["sd"]["state"] == "finished"
    (merged,) = merge_rows([part_of(row, "sd"), other])
    assert merged["tasks"]["sd"]["state"] == "finished"


def test_other_models_presets_and_repeated_tasks_stay_rows_of_their_own():
    row = made_up()
    assert len(merge_rows([row, made_up("another")])) == 2
    assert len(merge_rows([row, {**row, "preset": "tiny"}])) == 2
    assert len(merge_rows([row, part_of(row, "ks")])) == 2


DAMAGE = (
    lambda row: row.pop("model"),
    lambda row: row.update(tasks=[]),
    lambda row: row["tasks"].update(other={}),
    lambda row: row["tasks"]["ks"].pop("title"),
    lambda row: row["tasks"]["ks"].update(state="over"),
    lambda row: row["tasks"]["ks"].update(scores={"KS": "high"}),
    lambda row: row["tasks"]["ks"].update(layers=[None]),
    lambda row: row["tasks"]["ks"].pop("own_corpus"),
)


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_results_are_refused(damage, tmp_path):
    row = made_up()
    damage(row)
    (tmp_path / "results.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="expected what superb run writes"):
        read_results(tmp_path)


def test_results_are_read_as_they_are(tmp_path):
    row = partly()
    (tmp_path / "results.json").write_text(json.dumps(row))
    assert read_results(tmp_path) == row
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results.json: expected JSON"):
        read_results(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(ValueError, match="expected a folder of results"):
        read_results(tmp_path)


def test_all_tasks_have_a_score():
    assert {name for name, _ in SCORES.values()} == set(TASKS)
