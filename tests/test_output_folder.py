"""Whose work an output folder holds, whatever happened to an earlier run."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unispeech_sb import output_folder
from unispeech_sb.atomic import temporary_path
from unispeech_sb.fingerprint import read_settings
from unispeech_sb.output_folder import OutputFolder


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def prepare_of(names):
    """Writes a manifest and a tokenizer, as recipes do."""

    def prepare(hparams):
        rows = [f"{name},1.5,/{name}.wav" for name in names]
        path = Path(hparams["manifest_folder"], "train.csv")
        if not hparams.get("skip_prep"):
            path.write_text("\n".join(["ID,duration,wav", *rows]))
        tokenizer = Path(hparams["save_folder"], "tokenizer.ckpt")
        if not tokenizer.is_file():
            tokenizer.write_text(names)

    return prepare


def enter(folder, names="ab", lr=1, epochs=3, overwrite=False, **places):
    """One run takes its folder; what it finds, and the folder."""
    hparams = {
        "output_folder": str(folder),
        "save_folder": f"{folder}/save",
        "manifest_folder": f"{folder}/manifests",
        **places,
    }
    given = {"lr": lr, "number_of_epochs": epochs, **places}
    settings = read_settings(json.dumps(given))
    output = OutputFolder(hparams, "toy", settings, overwrite)
    output.look()
    return output.take(prepare_of(names)), output


def train(output, weights="A"):
    """Leaves a checkpoint, scores, logs and an export."""
    checkpoint = output.save / "CKPT+1"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text(weights)
    (output.folder / "scores.json").write_text('{"WER": 1.0}')
    (output.folder / "train_log.txt").write_text(weights)
    (output.folder / "export").mkdir()
    (output.folder / "export" / "weights").write_text(weights)
    (output.folder / "export" / "hyperparams.yaml").write_text("whole")


def files(folder):
    """All that is in a folder."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def done(tmp_path):
    """The folder of a finished run."""
    found, output = enter(tmp_path / "out")
    assert found is None
    train(output)
    output.finish("test")
    return tmp_path / "out"


def test_the_same_run_is_finished(done):
    before = files(done)
    found, output = enter(done)
    assert found["split"] == "test" and output.read_scores() == {"WER": 1.0}
    assert files(done) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 2}, "lr: 1 before, 2 now"),
        ({"names": "abc"}, "train: 2 utterances before, 3 now"),
        ({"names": "ax"}, "train: other recordings"),
    ],
)
def test_another_run_is_refused_and_changes_nothing(done, changes, told):
    before = files(done)
    with pytest.raises(ValueError, match="holds another experiment") as error:
        enter(done, **changes)
    assert told in str(error.value)
    for way in ("--output_folder=...", "--overwrite"):
        assert way in str(error.value)
    assert files(done) == before
    assert not list(done.glob(".*"))


def test_settings_are_compared_before_data_are_prepared(done):
    output = enter(done)[1]
    output.record["settings"] |= {"lr": 2}
    with pytest.raises(ValueError, match="lr: 1 before"):
        output.take(lambda hparams: pytest.fail("prepared"))


def test_what_was_made_is_there_or_made_again(done):
    shutil.rmtree(done / "export")
    assert enter(done)[0] is None
    assert (done / "save" / "CKPT+1").is_dir()


def test_half_an_export_makes_way_for_a_whole_one(done):
    (done / "export" / "hyperparams.yaml").unlink()
    assert enter(done, epochs=4)[0] is None
    assert not (done / "export").exists()


def test_a_run_that_left_no_work_binds_nobody(tmp_path):
    enter(tmp_path)
    (tmp_path / "train_log.txt").write_text("of the first")
    (tmp_path / "notes.txt").write_text("mine")
    found, output = enter(tmp_path, names="abc", lr=2)
    assert found is None
    assert not (tmp_path / "train_log.txt").exists()
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "save" / "tokenizer.ckpt").read_text() == "abc"


def test_a_run_that_goes_on_keeps_its_tokenizer(done):
    (done / "save" / "tokenizer.ckpt").write_text("as it began")
    enter(done, epochs=9)
    assert (done / "save" / "tokenizer.ckpt").read_text() == "as it began"


def test_overwriting_removes_what_the_run_left_and_nothing_else(done):
    (done / "notes.txt").write_text("mine")
    (done / "manifests" / "mine.csv").write_text("mine")
    found, output = enter(done, names="abc", lr=2, overwrite=True)
    assert found is None
    assert {p.relative_to(done).as_posix() for p in files(done)} == {
        *("experiment.json", "notes.txt", "manifests/mine.csv"),
        *("manifests/train.csv", "save/tokenizer.ckpt"),
    }
    assert (done / "save" / "tokenizer.ckpt").read_text() == "abc"


def test_overwriting_removes_no_folder_but_that_of_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    (tmp_path / "export").mkdir()
    with pytest.raises(ValueError, match="removes nothing else"):
        enter(tmp_path, overwrite=True)
    assert (tmp_path / "export").is_dir()
    enter(tmp_path / "new", overwrite=True)


def test_overwriting_does_not_remove_what_the_new_run_needs(done):
    before = files(done)
    with pytest.raises(ValueError, match="model: expected nothing that"):
        enter(done, overwrite=True, model=f"{done}/export")
    assert files(done) == before


def test_prepared_manifests_are_left_to_a_run_that_takes_them(done):
    found, output = enter(done, lr=2, overwrite=True, skip_prep=True)
    assert found is None and (done / "manifests" / "train.csv").is_file()
    assert output.record["data"]["train"]["utterances"] == 2


def test_a_save_folder_elsewhere_belongs_to_its_run_too(tmp_path):
    save = str(tmp_path / "save")
    output = enter(tmp_path / "one", save_folder=save)[1]
    train(output)
    with pytest.raises(ValueError, match="lr: 1 before, 2 now"):
        enter(tmp_path / "two", lr=2, save_folder=save)
    assert enter(tmp_path / "three", save_folder=save)[0] is None


def test_another_version_goes_on_with_a_warning(done, monkeypatch, caplog):
    monkeypatch.setattr(output_folder, "__version__", "9.9")
    monkeypatch.setattr(output_folder.logger.logger, "propagate", True)
    assert enter(done)[0] is not None
    assert "was begun by" in caplog.text


def test_a_record_that_is_damaged_is_named(done):
    (done / "experiment.json").write_text("{")
    with pytest.raises(ValueError, match="experiment.json: expected JSON"):
        enter(done)


def kill_at(moment, monkeypatch):
    """Dies before the so-manieth change on the disk."""
    counts = [0]

    def dying(real):
        def call(*args, **kwargs):
            if "-preparing" not in str(args[-1]):
                counts[0] += 1
                if counts[0] == moment:
                    raise Killed
            return real(*args, **kwargs)

        return call

    patch = monkeypatch.setattr
    patch(output_folder.os, "replace", dying(os.replace))
    patch(output_folder.shutil, "copyfile", dying(shutil.copyfile))
    patch(output_folder, "_remove", dying(output_folder._remove))


def test_a_run_killed_while_it_takes_the_folder_leaves_no_mix(
    tmp_path, monkeypatch
):
    """The first run's work is whole, or is no more: whichever run comes next,
    it finds nothing of the other one."""
    killed, moment = True, 0
    while killed:
        moment += 1
        folder = tmp_path / str(moment)
        train(enter(folder)[1])
        with monkeypatch.context() as patch:
            kill_at(moment, patch)
            try:
                enter(folder, names="xyz", lr=2, overwrite=True)
                killed = False
            except Killed:
                pass
        first, second = tmp_path / f"{moment}a", tmp_path / f"{moment}b"
        shutil.copytree(folder, first)
        folder.rename(second)
        enter(first)
        untouched = moment == 1
        assert_is_of(first, "ab", with_work=untouched)
        if untouched:
            with pytest.raises(ValueError, match="lr: 1 before, 2 now"):
                enter(second, names="xyz", lr=2)
        else:
            enter(second, names="xyz", lr=2)
            assert_is_of(second, "xyz", with_work=False)
    assert moment > 8


def assert_is_of(folder, names, with_work):
    """One run's data and tokens are there, and its weights or none."""
    rows = (folder / "manifests" / "train.csv").read_text().splitlines()[1:]
    assert [row[0] for row in rows] == list(names)
    assert (folder / "save" / "tokenizer.ckpt").read_text() == names
    assert (folder / "save" / "CKPT+1").is_dir() == with_work
    assert (folder / "export").is_dir() == with_work


def output_of(folder, **more):
    """An output folder, with its work in a folder elsewhere."""
    hparams = {"output_folder": str(folder), **more}
    return OutputFolder(hparams, "toy", {})


def test_one_process_is_in_a_folder(tmp_path):
    one = output_of(tmp_path / "out", save_folder=str(tmp_path / "save"))
    one.lock()
    same_save = output_of(tmp_path / "b", save_folder=str(tmp_path / "save"))
    for other in (output_of(tmp_path / "out"), same_save):
        with pytest.raises(BlockingIOError, match="being written by process"):
            other.lock()
    assert not (tmp_path / "b").exists()
    one.unlock()
    assert list(tmp_path.iterdir()) == []


def test_shards_are_made_side_by_side(tmp_path):
    shards = [output_of(tmp_path, shard=number) for number in (0, 1, 1)]
    for shard in shards[:2]:
        shard.lock()
    with pytest.raises(BlockingIOError):
        shards[2].lock()
    for shard in shards:
        shard.unlock()
    assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


def test_what_a_killed_run_was_preparing_is_removed(done, monkeypatch):
    child = subprocess.Popen(["true"])
    child.wait()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: child.pid)
        left = temporary_path(done / "preparing")
        file = temporary_path(done / "save" / "tokenizer.ckpt")
    (left / "save").mkdir(parents=True)
    file.touch()
    output = output_of(done)
    output.lock()
    assert not left.exists() and not file.exists()
    output.unlock()
    assert not list(done.glob(".*")) and (done / "save").is_dir()
