"""What runs have left becomes scores, layers and files of the leaderboard."""

import io
import json

import pytest
import torch
from speechbrain.utils.metric_stats import ErrorRateStats

from unispeech_sb.checkpoints.files import write_tensors
from unispeech_sb.superb.collect import (
    describe_run,
    hypotheses,
    read_json,
    read_layers,
    write_predictions,
)
from unispeech_sb.superb.kinds import FINISHED, Plan
from unispeech_sb.superb.results import own_scores
from unispeech_sb.superb.tasks import TASKS


def plan_of(name, own=True):
    """A task on its own corpus, or on the last other one."""
    task = TASKS[name]
    return Plan(name, task, task.corpora[0 if own else -1], {})


def write_run(folder, scores, **settings):
    """The files of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"state": "finished", "split": "test", "settings": settings}
    (folder / "experiment.json").write_text(json.dumps(record))
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def write_mix(folder, *weights, name="layer_mix.weights"):
    """An exported head with a mix of layers."""
    (folder / "export").mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.tensor(weights), "linear.weight": torch.ones(2)}
    write_tensors(folder / "export" / "head.ckpt", tensors)


def predictions(name, folder, to):
    """Path -> text of the files of a task's predictions."""
    write_predictions(plan_of(name), folder, to)
    return {
        file.relative_to(to).as_posix(): file.read_text()
        for file in sorted(to.rglob("*"))
        if file.is_file()
    }


def test_scores_are_in_the_units_of_the_published_table(tmp_path):
    for name, scores, wanted in (
        ("ks", {"accuracy": 0.5, "loss": 1}, {"KS": 50.0}),
        ("asr", {"WER": 12.5}, {"ASR": 12.5}),
        ("qbe", {"MTWV": 0.0736}, {"QbE": 7.36}),
        (
            "sf",
            {"slot_type_f1": 0.8333, "slot_value_cer": 0.5556},
            {"SF-F1": 83.33, "SF-CER": 55.56},
        ),
    ):
        folder = write_run(tmp_path / name, scores, lr=0.1, seed=7)
        found = describe_run(plan_of(name), folder)
        assert found["scores"] == pytest.approx(wanted)
        assert (found["lr"], found["seed"]) == (0.1, 7)
        assert found["scored_on"] == "test"


def test_scores_of_another_corpus_have_its_name(tmp_path):
    folder = write_run(tmp_path, {"accuracy": 0.5})
    found = describe_run(plan_of("sid", own=False), folder)
    assert found["scores"] == {"SID on embedded synthetic speech": 50.0}


def test_a_score_that_was_chosen_on_test_stands_beside(tmp_path):
    scores = {"EER": 5.0, "EER chosen on test, as s3prl does": 4.0}
    folder = write_run(tmp_path, {**scores, "EER after epoch 1": 6.0})
    found = describe_run(plan_of("asv"), folder)["scores"]
    assert found == {"ASV": 5.0, "ASV chosen on test, as s3prl does": 4.0}
    record = {"state": FINISHED, "own_corpus": True, "scores": found}
    assert own_scores({"tasks": {"asv": record}}) == {"ASV": 5.0}


@pytest.mark.parametrize("scores", [{}, {"accuracy": None}, {"WER": 1}])
def test_a_run_without_its_score_is_refused(scores, tmp_path):
    folder = write_run(tmp_path, scores)
    with pytest.raises(ValueError, match="expected the score accuracy, got"):
        describe_run(plan_of("ks"), folder)


def test_a_searched_learning_rate_is_that_of_the_result(tmp_path):
    rows = [{"learning_rate": 0.1, "accuracy": 0.5}]
    scores = {"accuracy": 0.5, "learning_rate": 0.1}
    folder = write_run(
        tmp_path, {**scores, "learning_rate_search": rows}, lr=0.0001
    )
    found = describe_run(plan_of("ks"), folder)
    assert found["lr"] == 0.1
    assert found["searched"] == rows


def test_the_facts_of_the_export_are_taken(tmp_path):
    folder = write_run(tmp_path, {"accuracy": 0.5})
    (folder / "export").mkdir()
    facts = {"training": {"optimizer updates": 12, "best epoch": 3}}
    (folder / "export" / "training.json").write_text(json.dumps(facts))
    found = describe_run(plan_of("ks"), folder)
    assert (found["updates"], found["best_epoch"]) == (12, 3)


def test_weights_of_layers_are_those_of_the_mix(tmp_path):
    assert read_layers(tmp_path) == []
    write_mix(tmp_path, 0.0, 0.0, name="other")
    assert read_layers(tmp_path) == []
    for name in ("layer_mix.weights", "0.layer_mix.weights"):
        write_mix(tmp_path, 0.0, 1.0, -1.0, name=name)
        wanted = torch.softmax(torch.tensor([0.0, 1.0, -1.0]), 0).tolist()
        assert read_layers(tmp_path) == pytest.approx(wanted, abs=1e-6)


def test_weights_of_folds_are_averaged(tmp_path):
    write_run(tmp_path, {"accuracy": 0.6})
    for fold in range(1, 6):
        folder = write_run(tmp_path / f"fold{fold}", {"accuracy": 0.1}, seed=0)
        write_mix(folder, 0.0, 20.0 if fold == 1 else -20.0)
    found = describe_run(plan_of("er"), tmp_path)
    assert found["scores"] == {"ER": 60.0}
    assert found["layers"] == pytest.approx([0.8, 0.2], abs=1e-5)
    assert found["seed"] == 0


def test_what_differs_between_folds_is_that_of_each(tmp_path):
    write_run(tmp_path, {"accuracy": 0.6})
    rates = [0.1, 0.01, 0.1, 0.1, 0.001]
    for fold, rate in enumerate(rates, 1):
        rows = [{"learning_rate": rate, "accuracy": fold / 10}]
        found = {"learning_rate": rate, "learning_rate_search": rows}
        write_run(tmp_path / f"fold{fold}", {"accuracy": 0.1, **found}, seed=0)
    found = describe_run(plan_of("er"), tmp_path)
    assert (found["lr"], found["seed"]) == (rates, 0)
    accuracies = [rows[0]["accuracy"] for rows in found["searched"]]
    assert accuracies == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_scores_of_layers_stand_for_weights_where_one_is_chosen(tmp_path):
    (tmp_path / "layers.json").write_text('{"0": 0.1, "1": 0.3}')
    assert read_layers(tmp_path) == [0.1, 0.3]


def test_hypotheses_are_read_as_speechbrain_writes_them(tmp_path):
    texts = {
        "a, %WER 1": ("the cat sat", "a cat sat down"),
        "b": ("go", ""),
        "c": ("x", "the ; end"),
    }
    stats = ErrorRateStats()
    stats.append(
        list(texts),
        [found.replace(";", "").split() for _, found in texts.values()],
        [true.split() for true, _ in texts.values()],
    )
    stream = io.StringIO()
    stats.write_stats(stream)
    path = tmp_path / "wer.txt"
    path.write_text(stream.getvalue())
    assert dict(hypotheses(path)) == {
        "a, %WER 1": "a cat sat down",
        "b": "",
        "c": "the end",
    }


def test_labels_are_filed_by_the_names_of_s3prl(tmp_path):
    for name, wav, wanted in (
        (
            "ks",
            "/d/yes/ab_nohash_0.wav",
            {"ks_public/predict.txt": "yes-ab_nohash_0.wav no\n"},
        ),
        (
            "sid",
            "/v/wav/id10003/na8/00003.wav",
            {"sid_public/predict.txt": "id10003-na8-00003 no\n"},
        ),
    ):
        folder = write_run(tmp_path / name, {})
        (folder / "manifests").mkdir()
        (folder / "manifests" / "test.csv").write_text(f"ID,wav\nu 1,{wav}\n")
        (folder / "test_predict.txt").write_text("u 1 no\n")
        assert predictions(name, folder, tmp_path / f"{name}_to") == wanted


def test_trials_are_filed_by_the_names_of_s3prl(tmp_path):
    (tmp_path / "trials.csv").write_text(
        "left,right,target,score\n"
        "id10270/5r0d/00001.wav,id10300/ize_/00002.wav,1,0.25\n"
    )
    assert predictions("asv", tmp_path, tmp_path / "to") == {
        "sv_public/predict.txt": "id10270-5r0d-00001_id10300-ize_-00002 0.25\n"
    }


def test_files_in_the_leaderboards_form_are_copied(tmp_path):
    for fold in range(1, 6):
        folder = tmp_path / f"fold{fold}"
        folder.mkdir()
        text = f"Ses0{fold} neu\n"
        (folder / f"test_fold{fold}_predict.txt").write_text(text)
    assert predictions("er", tmp_path, tmp_path / "to") == {
        f"er_fold{fold}_public/predict.txt": f"Ses0{fold} neu\n"
        for fold in range(1, 6)
    }


def test_diarizations_are_hdf5_of_one_shift(tmp_path):
    h5py = pytest.importorskip("h5py")
    found = torch.rand(7, 2)
    write_tensors(tmp_path / "activities.safetensors", {"mix": found})
    to = tmp_path / "to"
    write_predictions(plan_of("sd"), tmp_path, to)
    place = to / "sd_public" / "scoring" / "predictions"
    with h5py.File(place / "mix.h5") as file:
        assert torch.equal(torch.from_numpy(file["T_hat"][:]), found)
    assert (to / "sd_public" / "frame_shift").read_text() == "320\n"


def test_every_task_has_files_of_its_own():
    from unispeech_sb.superb.collect import _FILES

    places = [place for files in _FILES.values() for place in files]
    assert set(_FILES) == set(TASKS)
    assert len(places) == len(set(places)) == 14


def test_what_is_no_json_is_a_sentence(tmp_path):
    for text in ("{", "[]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"a\.json: expected"):
            read_json(tmp_path / "a.json")
