"""Speech recognition killed, on two processes, and in half precision."""

import pytest
import torch

from recipes import asr
from tests.recipes.ordered import ordered_datasets
from tests.recipes.processes import assert_same, run_killed, run_on_two
from tests.recipes.speech import arguments, write_speech
from unispeech_sb.checkpoints.files import read_tensors


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_speech(tmp_path_factory.mktemp("speech"))


def test_a_killed_run_ends_with_the_same_weights(root, corpus, tmp_path):
    options = arguments(
        root, corpus, tmp_path, "--number_of_epochs=4",
        "--augment_prob=0.5", "--dropout=0.1", "--layerdrop=0.1",
        "--lr=0.01", "--warmup_updates=0", "--ckpt_interval_steps=1",
        "--max_batch_s=1.0",
    )  # fmt: skip
    folders = run_killed("asr", options, 3, 11)
    assert_same(
        folders, "export/backbone.ckpt", "export/head.ckpt", "scores.json"
    )


def test_two_processes_are_one_with_the_double_batch(
    root, corpus, tmp_path, monkeypatch
):
    one, two = (
        arguments(
            root, corpus, tmp_path / name, "--number_of_epochs=3",
            "--warmup_updates=0", "--distributed_backend=gloo",
        )
        for name in ("one", "two")
    )  # fmt: skip
    monkeypatch.setenv("BATCH_SIZE", "4")
    asr.run(asr.CTCBrain, ordered_datasets, asr.prepare, one)
    run_on_two("ordered.py", *two)
    for name in ("backbone.ckpt", "head.ckpt"):
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
