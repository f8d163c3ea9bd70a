"""Recipes train on shards: stopped, on two processes, and damaged."""

import os
import shutil
import signal
import socket
import traceback

import pytest

from recipes import asr, pretrain_unispeech, pretrain_unispeech_sat
from tests.recipes.pretraining import (
    losses,
    phones_arguments,
    units_arguments,
    write_loudness_units,
)
from tests.recipes.processes import assert_same
from tests.recipes.speech import arguments, write_speech
from unispeech_sb.brains import CTCBrain
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.commands import main as command_line
from unispeech_sb.dataio.shards import DamagedShardError

pytest.importorskip("webdataset")

SHARD_H = "--hours-per-shard=0.0005"  # two sentences


class StoppedError(Exception):
    """What stops a run here."""


def make(data, output):
    """Shards of a folder."""
    line = ["shards", "make", str(data), "-o", str(output), SHARD_H]
    assert command_line(line) == 0
    return output


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Shards with units; not to be changed."""
    folder = write_loudness_units(tmp_path_factory.mktemp("units"))
    return make(folder, folder.parent / "shards")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Shards of sentences with words and phones; not to be changed."""
    folder = tmp_path_factory.mktemp("speech")
    return make(write_speech(folder), folder / "shards")


@pytest.fixture
def stop(monkeypatch):
    """A function that has training stop before a batch, counted over epochs."""

    def before(count):
        real, calls = SSLBrain.fit_batch, []

        def fit_batch(self, batch):
            calls.append(batch)
            if len(calls) == count:
                raise StoppedError
            return real(self, batch)

        monkeypatch.setattr(SSLBrain, "fit_batch", fit_batch)

    yield before
    monkeypatch.undo()


def test_a_stopped_pretraining_on_units_in_shards_ends_the_same(
    root, units, tmp_path, stop, monkeypatch
):
    folders = [tmp_path / name for name in ("whole", "stopped")]
    whole, stopped = (
        units_arguments(
            root, units, folder, "--number_of_epochs=2", "--lr=0.01",
            "--ckpt_interval_steps=1", "--num_workers=2", "--max_batch_s=1.5",
            "--shuffle_buffer_s=2.0", "--crop_s=0.5",
        )
        for folder in folders
    )  # fmt: skip
    pretrain_unispeech_sat.main(whole)
    stop(3)
    with pytest.raises(StoppedError):
        pretrain_unispeech_sat.main(stopped)
    monkeypatch.undo()
    texts = [p.read_text() for p in (folders[1] / "save").glob("CK*/*.yaml")]
    assert "end-of-epoch: false" in "".join(texts)
    pretrain_unispeech_sat.main(stopped)
    assert_same(
        folders, "export/backbone.ckpt", "export/head.ckpt", "scores.json"
    )


def test_phones_in_shards_and_then_speech_alone(root, speech, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    options = phones_arguments(root, speech, first, "--lr=0.01")
    assert "ctc" in pretrain_unispeech.main(options)
    options = phones_arguments(
        root, speech, second, f"--model={first / 'export'}",
        f"--head_from={first / 'export'}",
    )  # fmt: skip
    options[0] = str(root / "hparams/pretrain_unispeech_continued.yaml")
    options.remove("--model=tiny")
    scores = pretrain_unispeech.main(options)
    assert scores["contrastive"] > 0 and len(losses(second)) == 1
    assert not list((second / "manifests").glob("*.csv")), "none are needed"
    assert pretrain_unispeech.main(options) == scores, "finished"


def run_as(environment, function, *arguments):
    """Calls a function in a process of its own; its number. The status is 9
    of a run that was stopped, and 1 of any error."""
    child = os.fork()
    if child:
        return child
    os.environ.update(environment)
    try:
        function(*arguments)
    except StoppedError:
        os._exit(9)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_forked(function, *arguments):
    """Calls a function in two processes of a group; their statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = "2"
    children = [
        run_as(
            {**variables, "RANK": rank, "LOCAL_RANK": rank},
            function,
            *arguments,
        )
        for rank in ("0", "1")
    ]
    statuses = []
    for _ in children:
        child, status = os.wait()
        statuses.append(os.waitstatus_to_exitcode(status))
        if statuses[-1] == 1:  # the other one would wait for it
            for other in set(children) - {child}:
                os.kill(other, signal.SIGKILL)
    return statuses


def test_one_process_goes_on_with_what_two_have_left(root, speech, tmp_path):
    options = arguments(
        root, speech, tmp_path, "--number_of_epochs=3", "--max_batch_s=0.5",
        "--ckpt_interval_steps=1", "--distributed_backend=gloo",
    )  # fmt: skip
    log = tmp_path / "names.txt"

    class Noting(CTCBrain):
        stops = True

        def fit_batch(self, batch):
            found = super().fit_batch(batch)
            with open(log, "a") as file:
                for name in batch.id:
                    print(self.hparams.epoch_counter.current, name, file=file)
            return found

        def _save_intra_epoch_ckpt(self):
            super()._save_intra_epoch_ckpt()
            if self.stops and self.hparams.epoch_counter.current == 2:
                raise StoppedError

    def train():
        asr.run(Noting, asr.dataio_prep, asr.prepare, options)

    assert run_forked(train) == [9, 9]
    # Five batches of one: one is in both processes, and 2 of the next epoch
    assert len(log.read_text().splitlines()) == 6 + 2
    Noting.stops = False
    train()
    lines = log.read_text().split("\n")[6:-1]
    assert sorted(lines) == sorted(
        f"{epoch} train_{number}" for epoch in (2, 3) for number in range(5)
    )
    said = (tmp_path / "log.txt").read_text()
    assert "goes on with 1 processes of 1 readers where it had 2 of 1" in said
    assert "2 of 5 utterances were read" in said


def test_a_damaged_shard_ends_the_training_unless_it_may_be_skipped(
    root, speech, tmp_path
):
    damaged = shutil.copytree(speech, tmp_path / "damaged")
    tar = damaged / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[2000] ^= 8
    tar.write_bytes(content)
    output = tmp_path / "run"
    options = arguments(root, damaged, output, "--number_of_epochs=1")
    with pytest.raises(DamagedShardError, match="train-000001.tar: this shard"):
        asr.main(options)
    asr.main([*options, "--skip_damaged=True"])
    said = (output / "log.txt").read_text()
    assert "Left out, 1 so far by this reader" in said
    assert "train-000001.tar: this shard is damaged: utterance" in said


def test_shards_without_units_are_none_of_units(root, speech, units, tmp_path):
    with pytest.raises(ValueError, match="expected a folder of units"):
        pretrain_unispeech_sat.main(units_arguments(root, speech, tmp_path))
    options = [
        str(root / "hparams/make_units.yaml"), f"--data_folder={speech}",
        f"--output_folder={tmp_path}",
    ]  # fmt: skip
    from recipes import make_units

    with pytest.raises(ValueError, match="recordings, got a folder of shards"):
        make_units.main(options)
