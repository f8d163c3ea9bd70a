"""Every recipe in two processes; what they share, and how they end."""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.forks import run_script
from tests.recipes import conftest, pretraining, speech, voices
from tests.recipes.processes import assert_same
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.dataio.units import write_units

ROWS = [
    # words, phones, slots, label, speaker, action, object
    ("yes no", "j ɛ s n oː", "O number", "yes", "ann", "on", "lamp"),
    ("go yes", "ɡ oː j ɛ s", "O number", "no", "bob", "off", "lamp"),
    ("no seven", "n oː s ɛ v n", "O number", "seven", "ann", "on", "music"),
    ("stop no", "s t ɒ p n oː", "O number", "yes", "bob", "off", "music"),
]
COLUMNS = "wrd", "phones", "slots", "label", "speaker", "action", "object"
QUICK = ["--num_workers=0", "--number_of_epochs=1"]
SCRATCH = [*speech.SCRATCH, "--number_of_epochs=1"]
RECIPES = {
    "asr": SCRATCH,
    "emotion_recognition": [*conftest.TINY, *QUICK],
    "intent_classification": [
        "--slots=[action, object]", *conftest.TINY, *QUICK, "--num_classes=4",
    ],
    "keyword_spotting": [*conftest.TINY, *QUICK],
    "phoneme_recognition": SCRATCH,
    "pretrain_unispeech": pretraining.SMALL,
    "pretrain_unispeech_sat": [*pretraining.SMALL, "--contrastive_layer=1"],
    "slot_filling": SCRATCH,
    "speaker_diarization": [
        *voices.QUICK, *QUICK, "--hidden_size=4", "--batch_size=2",
        "--chunk_s=0.3",
    ],
    "speaker_identification": [*voices.QUICK, *QUICK],
    "speaker_verification": [
        *voices.QUICK, *QUICK, *voices.SMALL_HEAD, "--batch_size=2",
        "--crop_s=0.3",
    ],
}  # fmt: skip
"""Recipe -> options of a run of one epoch."""
ALONE = ("make_units", "query_by_example")
"""Recipes that do not train; one process computes."""
UPDATES = 20
SHARDED = "--data_parallel=fsdp"


def write_noise(folder):
    """Recordings of noise: a CSV with all that recipes ask for, a folder of
    conversations and one of units."""
    random = np.random.default_rng(0)
    rows = [("id", "path", "split", *COLUMNS)]
    talks = folder / "talks"
    for split in ("train", "dev"):
        (talks / split).mkdir(parents=True)
    for number, row in enumerate(ROWS * 2):
        samples = 0.1 * random.standard_normal(6400 + 320 * number)
        for place in (folder, talks / "train", talks / "dev"):
            soundfile.write(place / f"{number}.wav", samples, 16000)
        rows += [
            (f"{split}_{number}", f"{number}.wav", split, *row)
            for split in ("train", "valid")
        ]
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    for split in ("train", "dev"):
        names = [f"{split}_{number}" for number in range(4)]
        (talks / split / "wav.scp").write_text(
            "".join(f"{name} {name[-1]}.wav\n" for name in names)
        )
        (talks / split / "rttm").write_text(
            "".join(
                f"SPEAKER {name} 1 {start} 0.2 <NA> <NA> {who} <NA> <NA>\n"
                for name in names
                for who, start in (("ann", 0.0), ("bob", 0.15))
            )
        )
    records = [
        {"ID": id_, "wav": str(folder / path), "split": split,
         "duration": len(soundfile.read(folder / path)[0]) / 16000}
        for id_, path, split, *_ in rows[1:]
    ]  # fmt: skip
    units = [random.integers(0, 8, int(100 * r["duration"])) for r in records]
    about = {"label_rate": 100, "num_units": 8}
    write_units(folder / "units", records, units, about)
    return folder


def line(root, corpus, recipe, output, *options):
    """A recipe and the command line of a run of it."""
    data = {
        "pretrain_unispeech_sat": f"--units_folder={corpus / 'units'}",
        "speaker_diarization": f"--data_folder={corpus / 'talks'}",
    }
    return recipe, [
        str(root / f"hparams/{recipe}.yaml"),
        data.get(recipe, f"--data_folder={corpus}"),
        f"--output_folder={output}",
        *RECIPES.get(recipe, ()),
        "--distributed_backend=gloo",
        *options,
    ]


def plans_of(root, corpus, folder):
    """What is run, two processes each, and one in places."""

    def plan(name, *lines, processes=2, **more):
        runs = [line(root, corpus, *own) for own in lines]
        return {"name": name, "processes": processes, "runs": runs, **more}

    def trained(name, recipe, *options):
        return recipe, folder / name, *options

    many = "--number_of_epochs=10", "--max_batch_s=0.5"
    limit = f"--optimizer_step_limit={UPDATES}"
    sat, asr = "pretrain_unispeech_sat", "asr"
    sat_options = limit, *many, "--layerdrop=0.3"
    asr_options = limit, *many, "--freeze_backbone_updates=3"
    steps, minutes = "--ckpt_interval_steps=3", "--ckpt_interval_minutes=1"
    return [
        plan("each", *((name, folder / name) for name in RECIPES)),
        plan(
            "sat", trained("sat_ddp", sat, *sat_options),
            trained("sat_fsdp", sat, *sat_options, SHARDED),
        ),
        plan(
            "asr", trained("asr_ddp", asr, *asr_options),
            trained("asr_fsdp", asr, *asr_options, SHARDED),
        ),
        plan(
            "restarted",
            trained(
                "restarted", sat, *sat_options, minutes, SHARDED,
                "--async_checkpoints", "--keep_checkpoints=3",
            ),
            faults=["minutes", "kill"], restarts=1,
        ),
        plan(
            "two end", trained("two", sat, *sat_options, steps, SHARDED),
            faults=["kill"],
        ),
        plan(
            "one goes on", trained("two", sat, *sat_options, steps),
            processes=1,
        ),
        plan(
            "one ends", trained("one", sat, *sat_options, steps),
            faults=["kill"], processes=1,
        ),
        plan("two go on", trained("one", sat, *sat_options, steps, SHARDED)),
        plan("failed", trained("failed", sat, *sat_options), faults=["fail"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(root, tmp_path_factory):
    """Folder of all runs, and name of a plan -> how its processes ended."""
    corpus = write_noise(tmp_path_factory.mktemp("noise"))
    folder = tmp_path_factory.mktemp("pairs")
    plans = json.dumps(plans_of(root, corpus, folder), default=str)
    (folder / "plans.json").write_text(plans)
    script = Path(__file__).with_name("pairs.py")
    ended = run_script(script, folder / "plans.json", folder / "found.json")
    assert ended.returncode == 0, ended.stderr
    return folder, json.loads((folder / "found.json").read_text())


def header(path):
    """What a safetensors file says of its tensors and of itself."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def losses(folder, rank=0):
    """Loss of each update of a process, and what it weighs."""
    return torch.tensor(json.loads((folder / f"losses{rank}.json").read_text()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_trains_and_exports_in_two_processes(recipe, done):
    folder, ends = done
    assert ends["each"] == [0]
    assert json.loads((folder / recipe / "scores.json").read_text())
    assert list((folder / recipe / "save").glob("CKPT*/CKPT.yaml"))
    assert (folder / recipe / "export" / "hyperparams.yaml").is_file() or (
        folder / recipe / "export" / "backbone.ckpt"
    ).is_file()


@pytest.mark.parametrize("kind", ["sat", "asr"])
def test_sharded_weights_give_the_losses_of_ddp(kind, done):
    folder, ends = done
    assert ends[kind] == [0]
    for rank in (0, 1):
        ddp = losses(folder / f"{kind}_ddp", rank)
        fsdp = losses(folder / f"{kind}_fsdp", rank)
        assert len(ddp) == UPDATES
        torch.testing.assert_close(ddp, fsdp, rtol=1e-5, atol=1e-5)
    for name in ("backbone.ckpt", "head.ckpt"):
        one, other = (
            read_tensors(folder / f"{kind}_{way}" / "export" / name)
            for way in ("ddp", "fsdp")
        )
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_checkpoints_have_the_same_files_sharded_or_not(done):
    folder, _ = done
    ddp, fsdp = (
        max((folder / f"sat_{way}" / "save").glob("CKPT*"))
        for way in ("ddp", "fsdp")
    )
    names = {path.name for path in ddp.iterdir()}
    assert names == {path.name for path in fsdp.iterdir()}
    for name in ("backbone.ckpt", "head.ckpt"):
        heads = [header(saved / name) for saved in (ddp, fsdp)]
        assert heads[0] == heads[1] and "lobe" in heads[0]["__metadata__"]
    one, other = (
        torch.load(saved / "head_optimizer.ckpt", weights_only=True)
        for saved in (ddp, fsdp)
    )
    assert one["param_groups"] == other["param_groups"]
    torch.testing.assert_close(
        one["state"], other["state"], rtol=1e-3, atol=1e-5
    )


def test_a_restarted_run_ends_with_the_weights_of_one_that_was_not(done):
    folder, ends = done
    assert ends["restarted"] == [0]
    assert_same(
        (folder / "sat_fsdp", folder / "restarted"),
        "export/backbone.ckpt", "export/head.ckpt", "scores.json",
    )  # fmt: skip
    steps = losses(folder / "restarted")[:, 2]
    assert steps[0] == 4  # of four of the first epoch
    assert len(steps) == UPDATES - 3
    assert 3 <= len(list((folder / "restarted/save").glob("CKPT*"))) <= 5


def test_a_killed_process_ends_the_others_with_its_signal(done):
    _, ends = done
    codes, reason = ends["two end"]
    assert codes["1"] == -9
    assert reason.startswith("Signal 9 (SIGKILL) received by PID")


def test_the_reason_of_one_process_is_that_of_the_run(done):
    _, ends = done
    codes, reason = ends["failed"]
    assert codes["1"] == 1
    assert reason == "pairs: recording 7: expected speech; got music"


@pytest.mark.parametrize(
    ("plan", "run", "first"),
    [("one goes on", "two", 7), ("two go on", "one", 2)],
)
def test_another_number_of_processes_goes_on(plan, run, first, done):
    """From the third of four batches, or of eight, of the first epoch."""
    folder, ends = done
    assert ends[plan] == [0]
    steps = losses(folder / run)[:, 2]
    assert steps[0] == first and len(steps) == UPDATES - 3
    assert torch.isfinite(losses(folder / run)[:, 0]).all()
    assert (folder / run / "export" / "backbone.ckpt").is_file()


@pytest.mark.parametrize("recipe", ALONE)
def test_one_process_does_what_is_no_training(
    recipe, root, tmp_path, monkeypatch
):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    main = importlib.import_module(f"recipes.{recipe}").main
    _, options = line(root, tmp_path, recipe, tmp_path / "output")
    assert not main(options)
    assert not (tmp_path / "output").exists()
