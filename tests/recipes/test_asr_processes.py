"""Speech recognition killed, on two processes, and in half precision."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from recipes import asr
from tests.recipes.speech import arguments, write_speech
from unispeech_sb.checkpoints.files import read_tensors

KEPT = ("backbone.ckpt", "head.ckpt")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_speech(tmp_path_factory.mktemp("speech"))


def environment(root, **variables):
    """Of a process that finds the package and the tests."""
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def test_a_killed_run_ends_with_the_same_weights(root, corpus, tmp_path):
    def start(name):
        options = arguments(
            root, corpus, tmp_path / name, "--number_of_epochs=4",
            "--augment_prob=0.5", "--dropout=0.1", "--layerdrop=0.1",
            "--lr=0.01", "--warmup_updates=0", "--ckpt_interval_steps=1",
            "--max_batch_s=1.0",
        )  # fmt: skip
        return subprocess.Popen(
            [sys.executable, str(root / "recipes/asr.py"), *options],
            env=environment(root), stdout=subprocess.DEVNULL,
        )  # fmt: skip

    whole = start("whole")
    saves = tmp_path / "killed" / "save"
    for epoch in (1, 3):  # each time inside an epoch
        run = start("killed")
        while run.poll() is None and not begun(saves, epoch):
            time.sleep(0.01)
        run.kill()
        assert run.wait() == -signal.SIGKILL
    assert start("killed").wait() == 0
    assert whole.wait() == 0
    for name in KEPT:
        first, second = (
            tmp_path / run / "export" / name for run in ("whole", "killed")
        )
        assert first.read_bytes() == second.read_bytes()
    scores = [
        (tmp_path / run / "scores.json").read_text()
        for run in ("whole", "killed")
    ]
    assert scores[0] == scores[1]


def begun(saves, epoch):
    """Whether there is a checkpoint inside this epoch."""
    for checkpoint in saves.glob("CKPT*/CKPT.yaml"):
        counter = checkpoint.with_name("epoch_counter.ckpt")
        try:
            inside = "end-of-epoch: false" in checkpoint.read_text()
            if inside and int(counter.read_text()) == epoch:
                return True
        except FileNotFoundError:
            pass  # dropped meanwhile
    return False


def test_two_processes_are_one_with_the_double_batch(root, corpus, tmp_path):
    script = str(root / "tests" / "recipes" / "ordered.py")
    one = [sys.executable, script]
    two = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
        "--standalone", script,
    ]  # fmt: skip
    for name, command, size in (("one", one, "4"), ("two", two, "2")):
        options = arguments(
            root, corpus, tmp_path / name, "--number_of_epochs=3",
            "--warmup_updates=0", "--distributed_backend=gloo",
        )  # fmt: skip
        subprocess.run(
            [*command, *options], check=True, stdout=subprocess.DEVNULL,
            env=environment(root, BATCH_SIZE=size), timeout=300,
        )  # fmt: skip
    for name in KEPT:
        one, two = (
            read_tensors(tmp_path / run / "export" / name)
            for run in ("one", "two")
        )
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["asr", "asr_superb"])
def test_half_precision_trains_with_a_loss_in_single(
    recipe, root, corpus, tmp_path
):
    seen = set()

    class Watching(asr.CTCBrain):
        def compute_objectives(self, predictions, batch, stage):
            loss = super().compute_objectives(predictions, batch, stage)
            seen.add((stage.name, predictions[0].dtype, loss.dtype))
            assert loss.isfinite()
            return loss

    options = arguments(
        root, corpus, tmp_path, "--number_of_epochs=1", "--precision=bf16",
        "--eval_precision=bf16",
    )  # fmt: skip
    if recipe == "asr_superb":
        options = [
            str(root / "hparams/asr_superb.yaml"), *options[1:3],
            "--model=tiny", "--proj_size=16", "--hidden_size=8",
            "--batch_size=2", "--batches_per_epoch=3", "--num_workers=0",
            "--noprogressbar", "--device=cpu", *options[-2:],
        ]  # fmt: skip
    asr.run(Watching, asr.dataio_prep, asr.prepare, options)
    assert seen == {
        (stage, torch.bfloat16, torch.float32)
        for stage in ("TRAIN", "VALID", "TEST")
    }
    weights = read_tensors(tmp_path / "export" / "head.ckpt").values()
    assert {tensor.dtype for tensor in weights} == {torch.float32}
