"""What trials name is tested on and never trained on."""

import pytest
from speechbrain import Stage

from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.trial_sets import add_trials, trial_records


def records_of(root, *names, split="train"):
    """Records whose speaker is the first letter of the ID."""
    return [
        {"ID": name, "wav": str(root / f"{name}.wav"), "spk_id": name[0],
         "split": split, "duration": 1.0}
        for name in names
    ]  # fmt: skip


def trial_list(folder, *lines):
    """A trial list."""
    path = folder / "trials.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def splits(records):
    """ID -> split."""
    return {record["ID"]: record["split"] for record in records}


def test_speakers_of_the_trials_leave_train_and_valid(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "a3", "b1", "c1")
    records += records_of(tmp_path, "b2", "c2", split="valid")
    records += records_of(tmp_path, "d1", split="test")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 b1")
    found = trial_records(records, path)
    assert splits(found) == {
        "c1": "train", "c2": "valid", "a1": "test", "a2": "test", "b1": "test"
    }  # fmt: skip


def test_files_of_trials_are_found_below_their_root(tmp_path):
    root = tmp_path / "audio"
    (root / "b").mkdir(parents=True)
    for name in ("a1.wav", "x.wav", "b/1.wav"):
        (root / name).touch()
    records = records_of(root, "a1", "c1")
    records += records_of(root, "a2", split="valid")
    path = trial_list(tmp_path, "1 a1.wav x.wav", "0 x.wav b/../b/1.wav")
    found = trial_records(records, path, root)
    assert splits(found) == {
        "c1": "train", "a1.wav": "test", "x.wav": "test", "b/../b/1.wav": "test"
    }  # fmt: skip
    assert [r["spk_id"] for r in found] == ["c", "a", "", ""]
    assert found[-1]["wav"] == str(root / "b" / "1.wav")


def test_what_is_not_there_is_named_by_file_and_line(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "c1")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 z9")
    with pytest.raises(ValueError, match=f"{path}, line 2: no such .* z9"):
        trial_records(records, path)
    with pytest.raises(ValueError, match=f"{path}, line 1: no such file in"):
        trial_records(records, path, tmp_path)


def test_somebody_has_to_be_left_to_train_on(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 b1")
    with pytest.raises(ValueError, match=f"{path}: expected speakers beside"):
        trial_records(records, path)


def hparams_for(folder, records, trials=None):
    """A yaml, with manifests."""
    write_manifests(records, folder / "manifests", required_splits=())
    return {
        "manifest_folder": folder / "manifests",
        "trials": trials,
        "num_valid_trials": 4,
        "num_test_trials": None,
        "seed": 1,
    }


def test_without_a_list_pairs_are_compared(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "b2", split="valid")
    records += records_of(tmp_path, "c1", "c2", "d1", split="test")
    hparams = hparams_for(tmp_path, records)
    add_trials(hparams)
    valid, test = (hparams["trials"][s] for s in (Stage.VALID, Stage.TEST))
    assert valid.names == ["a1", "a2", "b1", "b2"]
    assert sorted(valid.targets) == [False, False, True, True]
    assert test.names == ["c1", "c2", "d1"]
    left, right = hparams["trial_speakers"][Stage.TEST]
    assert ((left == right) == test.targets).all()


def test_without_a_test_set_the_test_is_that_of_the_validation(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "b2", split="valid")
    hparams = hparams_for(tmp_path, records)
    add_trials(hparams)
    assert hparams["trials"][Stage.TEST] is hparams["trials"][Stage.VALID]
    assert Stage.TEST in hparams["trial_speakers"]


def test_unknown_speakers_are_told_apart_by_the_trials(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", split="valid")
    for name in ("x", "y", "z"):
        records += records_of(tmp_path, name, split="test")
        records[-1]["spk_id"] = ""
    path = trial_list(tmp_path, "1 x y", "0 y z", "0 z x")
    hparams = hparams_for(tmp_path, records, path)
    add_trials(hparams)
    left, right = hparams["trial_speakers"][Stage.TEST]
    assert left.tolist() == [0, 0, 1]
    assert right.tolist() == [0, 1, 0]


def test_a_list_that_contradicts_the_corpus_is_refused(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", split="valid")
    records += records_of(tmp_path, "c1", "c2", "d1", split="test")
    path = trial_list(tmp_path, "1 c1 d1", "0 c1 c2")
    with pytest.raises(ValueError, match="c1 d1 is a target .* of c and d"):
        add_trials(hparams_for(tmp_path, records, path))


def test_one_utterance_per_speaker_is_no_validation(tmp_path):
    records = records_of(tmp_path, "a1", "b1", "c1", split="valid")
    with pytest.raises(ValueError, match="split valid: expected two speakers"):
        add_trials(hparams_for(tmp_path, records))
