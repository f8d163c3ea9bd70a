"""A killed run ends as an uninterrupted one, bit for bit."""

import json
from pathlib import Path

import pytest
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from toy import dataset, encoder

from tests.forks import run_script
from unispeech_sb.brains import UtteranceBrain

# 8 batches an epoch in groups of 3, so updates (and checkpoints) after batches
# 3, 6 and 8, and a checkpoint of 5 torch files after each validation
MOMENTS = [
    "batch:1",  # before any checkpoint
    "batch:5",  # with gradients accumulated
    "batch:8",  # after the last update, before its checkpoint
    "TRAIN_end:2",  # between the last batch and the validation
    "VALID_end:1",  # before the first checkpoint of an epoch
    "VALID_done:1",  # between epochs
    "saving:3",  # half a file of the first checkpoint written
    "saving:18",  # half a file of an epoch's checkpoint written
    "before_move:1",  # written but not in place
    "after_move:6",  # in place, the old ones not yet deleted
    "deleting:5",  # old ones half deleted
    "before_curves:2",  # logged, not in the learning curves
    "after_curves:2",  # in the learning curves, before the checkpoint
    "before_record:1",  # nothing noted yet
    "after_record:1",  # noted, nothing done
    "before_record:2",  # all done, not noted
    "batch:5+batch:7+VALID_end:1",
]
WITH_WORKERS = ["batch:5", "VALID_end:1"]
IN_BACKGROUND = [
    "saving:3",  # half a file of the first checkpoint written, by the thread
    "saving:18",
    "before_move:2",
    "after_move:6",
    "VALID_done:1",  # the thread may write
]


def run_killed(folder, workers, plans, options=""):
    """Moment -> outcome."""
    script = Path(__file__).with_name("killing.py")
    done = run_script(script, folder, workers, *plans, OPTIONS=options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Moment -> outcome, for runs without and with worker processes."""
    return {
        0: run_killed(tmp_path_factory.mktemp("zero"), 0, ["none", *MOMENTS]),
        2: run_killed(tmp_path_factory.mktemp("two"), 2, WITH_WORKERS),
        "thread": run_killed(
            tmp_path_factory.mktemp("thread"),
            0,
            IN_BACKGROUND,
            "--async_checkpoints",
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "moment"),
    [(0, m) for m in MOMENTS]
    + [(2, m) for m in WITH_WORKERS]
    + [("thread", m) for m in IN_BACKGROUND],
)
def test_killed_run_ends_with_the_same_bits(outcomes, workers, moment):
    outcome = dict(outcomes[workers][moment])
    killed = outcome.pop("killed")
    assert killed == [True] * (moment.count("+") + 1)
    whole = {k: v for k, v in outcomes[0]["none"].items() if k != "killed"}
    assert outcome == whole
    assert whole["status"] == 0 and "epoch 3 backbone.ckpt" in whole


class EpochSampler(ReproducibleRandomSampler):
    """A batch sampler that notes its epochs."""

    epochs = ()
    batch_size = None
    drop_last = False

    def set_epoch(self, epoch):
        self.epochs = (*self.epochs, epoch)
        super().set_epoch(epoch)

    def __iter__(self):
        return ([i] for i in super().__iter__())


def test_batch_sampler_learns_of_each_epoch_in_one_process(make_brain):
    brain = make_brain()
    data = dataset(4, encoder())
    sampler = EpochSampler(data)
    brain.fit(range(1, 4), data, train_loader_kwargs={"batch_sampler": sampler})
    assert sampler.epochs == (1, 2, 3)


def test_command_line_limit_of_updates_is_a_number(make_brain, fit):
    brain = make_brain({"optimizer_step_limit": "4"})
    fit(brain, epochs=5)
    assert brain.optimizer_step == 4


def test_run_that_reached_its_limit_does_nothing_more(make_brain, fit):
    class Counting(UtteranceBrain):
        stages = 0

        def on_stage_end(self, *args):
            self.stages += 1
            super().on_stage_end(*args)

    brain = make_brain({"optimizer_step_limit": 3}, Counting)
    fit(brain)
    fit(brain)
    assert brain.stages == 2  # one training, one validation
