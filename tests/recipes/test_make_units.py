"""Units of spoken sentences, from recordings to a folder of units."""

import hashlib
import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from recipes import make_units
from tests.commands.test_bulk_ray import ray_folder
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.processes import run_killed
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio import unit_clustering
from unispeech_sb.dataio.corpora.fairseq import read_fairseq_units
from unispeech_sb.dataio.corpora.synthetic import aligned_sentences
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.unit_clustering import nearest_centres
from unispeech_sb.dataio.units import check_units, read_about
from unispeech_sb.experiment import read_command
from unispeech_sb.lobes.backbone import Backbone

YAML = "hparams/make_units.yaml"
SPOKEN = [
    "--synthetic=True",
    "--synthetic_sentences=[12, 4, 0]",
    "--synthetic_voices=[4, 2, 0]",
    "--num_units=40",
    "--kmeans={n_init: 2, batch_size: 2000}",
    "--device=cpu",
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder in which the sentences have been spoken."""
    folder = tmp_path_factory.mktemp("speech")
    aligned_sentences(folder, [12, 4, 0], [4, 2, 0], seed=1337)
    return folder


def arguments(root, speech, output, *options):
    """The command line of a run."""
    return [
        str(root / YAML), f"--data_folder={speech}",
        f"--output_folder={output}", *SPOKEN, *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(root, speech, tmp_path_factory):
    """The folder of a finished run on MFCCs, and its scores."""
    output = tmp_path_factory.mktemp("made")
    return output, make_units.main(arguments(root, speech, output))


def same_units(first, second):
    """Whether two runs have found the same."""
    for name in ("train.npy", "valid.npy", "train.km", "centres.npz"):
        one, other = (run / "units" / name for run in (first, second))
        assert one.read_bytes() == other.read_bytes(), name


def test_overwrite_would_remove_all_that_the_run_left(made):
    assert kept_by_overwrite(made[0]) == {made[0] / "experiment.json"}


def test_units_of_mfccs_tell_phones(made):
    output, scores = made
    assert json.loads((output / "scores.json").read_text()) == scores
    for split in ("train", "valid"):
        assert scores[split]["pnmi"] > 0.35
        assert scores[split]["phone_purity"] > 0.3
    assert scores["train"]["used_units"] == 40


def test_each_unit_is_the_nearest_centre_of_its_frame(made):
    import torch

    from unispeech_sb.dataio.audio import read_audio
    from unispeech_sb.dataio.unit_clustering import MFCCs

    folder = made[0] / "units"
    centres = torch.from_numpy(np.load(folder / "centres.npz")["centres"])
    for split in ("train", "valid"):
        units = np.load(folder / f"{split}.npy")
        record = read_manifest(folder / f"{split}.csv")[2]
        (frames,) = MFCCs()([read_audio(record["wav"])])
        own = units[int(record["units_start"]) : int(record["units_stop"])]
        assert np.array_equal(own, nearest_centres(frames, centres).numpy())


def test_the_folder_of_units_is_whole_and_fairseqs_too(made):
    folder = made[0] / "units"
    assert set(check_units(folder, 40)) == {"train", "valid"}
    assert read_about(folder)["label_rate"] == 100
    _, units, num_units = read_fairseq_units(folder)
    assert num_units == 40
    ours = [np.load(folder / f"{split}.npy") for split in ("train", "valid")]
    assert np.array_equal(np.concatenate(units), np.concatenate(ours))
    assert not list((made[0] / "save").glob("*.f32"))


def test_shards_change_nothing(made, root, speech, tmp_path):
    make_units.main(arguments(root, speech, tmp_path, "--shards=5"))
    same_units(made[0], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ray"), reason="needs the extra scale")
def test_processes_of_ray_make_the_same(root, speech, tmp_path):
    folders = [tmp_path / name for name in ("here", "ray")]
    options = ["--model=tiny", "--layer=1", "--shards=3"]
    here, by_ray = (arguments(root, speech, f, *options) for f in folders)
    scores = make_units.main(here)
    with ray_folder():
        assert make_units.main([*by_ray, "--engine=ray"]) == scores
    same_units(*folders)
    assert make_units.main(by_ray) == scores, "no other experiment"


def test_several_machines_make_the_same(made, root, speech, tmp_path):
    def run(shard):
        return make_units.main(
            arguments(root, speech, tmp_path, "--shards=3", f"--shard={shard}")
        )

    rounds = [(0, 2, 1), (0, 1, 2), (0,)]
    found = [run(shard) for order in rounds for shard in order]
    assert found[:-1] == [None] * 6
    assert found[-1] == made[1]
    same_units(made[0], tmp_path)


@pytest.mark.parametrize("dump", ["dump_frames", "dump_units"])
def test_a_run_goes_on_with_the_shard_that_was_not_done(
    made, root, speech, tmp_path, monkeypatch, dump
):
    real, calls = getattr(unit_clustering, dump), []

    def count(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(unit_clustering, dump, count)
    command = arguments(root, speech, tmp_path, "--shards=4")
    with pytest.raises(KeyboardInterrupt):
        make_units.main(command)
    assert not (tmp_path / "units").exists()
    make_units.main(command)
    assert len(calls) == 5  # the third twice
    same_units(made[0], tmp_path)


def test_a_killed_run_ends_with_the_same_units(made, root, speech, tmp_path):
    _, killed = run_killed(
        "make_units", arguments(root, speech, tmp_path, "--shards=4"), 3,
        where="unispeech_sb.dataio.unit_clustering:dump_frames",
    )  # fmt: skip
    same_units(made[0], killed)


def test_drawn_training_recordings_are_clustered_and_all_labelled(
    root, speech, tmp_path, monkeypatch
):
    seen = {}
    for name in ("dump_frames", "dump_units"):
        real = getattr(unit_clustering, name)

        def keep(records, *args, name=name, real=real):
            seen[name] = seen.get(name, []) + [r["ID"] for r in records]
            real(records, *args)

        monkeypatch.setattr(unit_clustering, name, keep)
    options = ["--kmeans_share=0.25", "--num_units=9", "--shards=3"]
    make_units.main(arguments(root, speech, tmp_path, *options))
    assert len(seen["dump_frames"]) == 3
    assert all(name.startswith("train_") for name in seen["dump_frames"])
    assert len(set(seen["dump_units"])) == len(seen["dump_units"]) == 16


def test_units_of_hidden_states_of_a_folder(root, speech, tmp_path):
    backbone = tmp_path / "model"
    backbone.mkdir()
    Backbone.from_preset("tiny").save(backbone / "backbone.ckpt")
    options = [f"--model={backbone}", "--layer=1", "--kmeans_share=0.5",
               "--max_batch_s=5"]  # fmt: skip
    command = arguments(root, speech, tmp_path / "out", *options)
    scores = make_units.main(command)
    assert scores["train"]["used_units"] > 20
    about = read_about(tmp_path / "out" / "units")
    assert (about["label_rate"], about["layer"]) == (50, 1)
    check_units(tmp_path / "out" / "units")
    make_units.main(arguments(root, speech, tmp_path / "again", *options))
    same_units(tmp_path / "out", tmp_path / "again")


MISTAKES = {
    "--num_units=100000": "num_units: expected at most the ",
    "--kmeans_share=0": "kmeans_share: expected a share in (0, 1], got 0",
    "--engine=spark": "engine: expected null or ray; got 'spark'",
    "--shard=1": "expected shards of at least 1 and shard from 0 to 0",
    "--data_folder=nowhere --synthetic=False": "nowhere: expected a Libri",
    "--model=tiny --layer=7": "layer: expected 0 to 2, the layers of the model",
    "--model=bass": "expected a preset (unispeech_large, ",
    "--skip_prep=True": "manifests: expected train.csv in it, got none",
    "--num_clusters=5": "has no key 'num_clusters'",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(root, speech, tmp_path, capsys, mistake):
    command = arguments(root, speech, tmp_path, *mistake.split())
    assert command_line(["recipe", "make_units", *command]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unispeech-sb: ")
    assert MISTAKES[mistake] in error


def made_files(output):
    """Path -> content of all that a run has left."""
    return {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


def test_a_second_run_is_finished_or_refused(
    made, root, speech, tmp_path, monkeypatch
):
    output, scores = made
    before = made_files(output)
    monkeypatch.setattr(
        make_units, "make_features", None
    )  # nothing is computed
    assert make_units.main(arguments(root, speech, output)) == scores
    with pytest.raises(ValueError, match="another experiment") as error:
        make_units.main(
            arguments(root, speech, output, "--num_units=41", "--seed=1")
        )
    for difference in ("num_units: 40 before, 41 now", "seed: 1986 before"):
        assert difference in str(error.value)
    others = arguments(root, tmp_path, output)
    aligned_sentences(tmp_path, [12, 3, 0], [4, 2, 0], seed=1337)
    others = [o.replace("[12, 4, 0]", "[12, 3, 0]") for o in others]
    with pytest.raises(ValueError, match="synthetic_sentences: .* before"):
        make_units.main(others)
    assert made_files(output) == before


def test_a_run_of_an_older_version_goes_on_or_is_refused(
    made, root, speech, tmp_path
):
    """It kept settings.json in its save folder, and no experiment.json."""
    output = tmp_path / "old"
    shutil.copytree(made[0], output)
    (output / "experiment.json").unlink()
    shutil.rmtree(output / "units")
    keys = ("data_folder", "num_units", "seed", "shards", "layer", "model")
    command = read_command(arguments(root, speech, output))
    settings = {key: command.settings[key] for key in keys}
    settings["manifests"] = [
        hashlib.sha256((output / "manifests" / name).read_bytes()).hexdigest()
        for name in ("train.csv", "valid.csv")
    ]
    kept = output / "save" / "settings.json"
    kept.write_text(json.dumps({**settings, "num_units": 41}))
    with pytest.raises(ValueError, match="num_units: 41 before, 40 now"):
        make_units.main(arguments(root, speech, output))
    kept.write_text(json.dumps(settings))
    centres = (output / "save" / "centres.npz").stat().st_mtime_ns
    make_units.main(arguments(root, speech, output))
    assert (output / "save" / "centres.npz").stat().st_mtime_ns == centres
    same_units(made[0], output)


def test_stretches_of_files_have_units_but_no_files_for_fairseq(
    root, speech, tmp_path
):
    wav = aligned_sentences(speech, [12, 4, 0], [4, 2, 0], seed=1337)[0]["wav"]
    rows = [f"{n},{wav},train,{n * 0.4},{n * 0.4 + 0.4}" for n in range(3)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["id,path,split,start,stop", *rows]))
    output = tmp_path / "out"
    scores = make_units.main(
        arguments(
            root,
            table,
            output,
            "--synthetic=False",
            "--num_units=9",
            "--valid_share=0.4",
        )  # fmt: skip
    )
    assert "pnmi" not in scores["train"]
    assert scores["train"]["used_units"] == 9
    assert sorted(path.name for path in (output / "units").iterdir()) == [
        *("centres.npz", "train.csv", "train.npy", "units.json", "valid.csv"),
        "valid.npy",
    ]


@pytest.mark.real_data
def test_real_speech_has_units(root, data_folder, tmp_path):
    scores = make_units.main(
        [
            str(root / YAML), f"--data_folder={data_folder / 'asr_misc'}",
            f"--output_folder={tmp_path}", "--device=cpu", SPOKEN[-2],
        ]
    )  # fmt: skip
    assert scores["train"]["used_units"] > 90
    check_units(tmp_path / "units", 100)
