"""What makes two runs one experiment."""

import re
import shutil

import pytest
from hyperpyyaml import resolve_references
from speechbrain.utils.run_opts import RunOptions

from tests.conftest import ROOT
from unispeech_sb.fingerprint import (
    FREE,
    MAY_DIFFER,
    MORE,
    TEST,
    asks_for_more,
    describe_data,
    differences,
    read_settings,
)
from unispeech_sb.recipe_options import OWN_OPTIONS

YAMLS = sorted((ROOT / "hparams").glob("*.yaml"))
GIVEN = {"output_folder": "results/a", "seed": 5}
LOADER = {"prefetch_factor", "pin_memory", "persistent_workers"}


def settings(text, **overrides):
    """Of a yaml with overrides."""
    return read_settings(resolve_references(text, overrides).getvalue())


def record(text, **overrides):
    """A record of such settings."""
    return {"settings": settings(text, **overrides)}


def filled(path, **overrides):
    """A yaml of ours, in which all that must be given is."""
    lines = path.read_text().splitlines()
    must = [line.split(":")[0] for line in lines if "!PLACEHOLDER" in line]
    return path.read_text(), {**dict.fromkeys(must, "x"), **GIVEN, **overrides}


@pytest.mark.slow
def test_all_that_may_differ_is_known_and_has_a_reason():
    keys = {key for path in YAMLS for key in settings(*_args(path))}
    options = set(RunOptions().as_dict()) | set(OWN_OPTIONS)
    known = keys | options | LOADER
    assert len(YAMLS) >= 29
    for key, (kind, reason) in MAY_DIFFER.items():
        assert key in known, f"{key} is neither a key nor an option"
        assert kind in (FREE, TEST, MORE) and reason


def _args(path):
    text, overrides = filled(path)
    return (resolve_references(text, overrides).getvalue(),)


def test_keys_that_decide_are_not_among_them():
    decide = ("lr", "lr_backbone", "seed", "batch_size", "num_classes")
    decide += ("model", "freeze", "precision", "grad_accumulation_factor")
    decide += ("max_grad_norm", "warmup_updates", "debug_batches", "shards")
    assert not set(decide) & set(MAY_DIFFER)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_another_seed_is_another_experiment_and_another_place_is_not(path):
    text, overrides = filled(path)
    one = record(text, **overrides)
    moved = record(text, **overrides | {"output_folder": "/elsewhere/b"})
    assert differences(one, moved) == []
    other = record(text, **overrides | {"seed": 6})
    assert differences(one, other) == ["seed: 5 before, 6 now"]


TEXT = """
seed: 1
__set_seed: !apply:random.seed [!ref <seed>]
output_folder: !ref results/<seed>
data_folder: corpus
lr: 1e-3
model: small
number_of_epochs: 3
words: [yes, no]
optimizer: !name:torch.optim.Adam
    lr: !ref <lr>
    betas: [0.9, 0.98]
backbone: !new:collections.Counter
    name: !ref <model>
    table: !ref <data_folder>/table.csv
modules:
    backbone: !ref <backbone>
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: !ref <number_of_epochs>
augmentation: !new:collections.Counter
    prob: 0.5
"""


def test_settings_are_resolved_and_numbers_are_numbers():
    found = settings(TEXT.replace("1e-3", "1.0e-2"))
    assert found["lr"] == found["optimizer.lr"] == 0.01
    assert found == settings(TEXT, lr=0.01)
    assert found["output_folder"] == "results/1"
    assert found["optimizer"] == "!name:torch.optim.Adam"
    assert found["words"] == ["yes", "no"]
    assert found["backbone.name"] == "<model>"
    assert found["backbone.table"] == "<data_folder>/table.csv"
    assert found["modules.backbone"] == "<backbone>"
    assert "__set_seed" not in found


def test_what_follows_from_a_difference_is_left_out_in_any_order():
    # the yaml may have the nested key before the one that it refers to
    nested = {"optimizer.lr": 0.1, "lr": 0.1, "a.b.lr": 0.1}
    one = {"settings": nested}
    two = {"settings": dict.fromkeys(nested, 0.2)}
    assert differences(one, two) == ["lr: 0.1 before, 0.2 now"]
    del two["settings"]["lr"], one["settings"]["lr"]
    assert differences(one, two) == ["optimizer.lr: 0.1 before, 0.2 now"]


def test_a_difference_is_told_once_with_old_and_new_value():
    one = record(TEXT)
    told = differences(one, record(TEXT, lr=0.01, words=["go"]))
    assert told == [
        "lr: 0.001 before, 0.01 now",
        'words: ["yes", "no"] before, ["go"] now',
    ]
    told = differences(one, record(TEXT, augmentation=None))
    assert told == ["augmentation: !new:collections.Counter before, null now"]
    told = differences(one, record(TEXT, seed=2, data_folder="other"))
    assert told == [
        "seed: 1 before, 2 now",
        "data_folder: corpus before, other now",
    ]


def test_the_number_of_epochs_may_grow_only():
    three, four = record(TEXT), record(TEXT, number_of_epochs=4)
    assert differences(three, four) == []
    assert asks_for_more(three, four)
    assert differences(four, three) == ["number_of_epochs: 4 before, 3 now"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_key_that_only_lengthens_training_may_grow(path):
    text, given = filled(path)
    keys = re.findall(
        r"^(number_of_epochs|\w+_limit|total_\w+|\w*max_updates): (\d+)",
        text,
        re.M,
    )
    trains = path.stem.split("_")[0] not in ("make", "query")
    assert ("number_of_epochs" in dict(keys)) == trains
    one = record(text, **given)
    for key, value in keys:
        more = record(text, **given, **{key: int(value) + 1})
        assert differences(one, more) == [] and asks_for_more(one, more)
        assert differences(more, one)


def test_options_of_the_command_line_count_before_the_yaml():
    defaults = RunOptions().as_dict()
    plain = read_settings("lr: 1\nprecision: fp32", {}, defaults)
    half, single, same = (
        read_settings("lr: 1\nprecision: fp32", options, defaults)
        for options in (
            {"precision": "bf16"},
            {"precision": "fp32"},
            {"max_grad_norm": 5.0, "device": "cuda:1"},
        )
    )
    assert differences({"settings": plain}, {"settings": half}) == [
        "precision: fp32 before, bf16 now"
    ]
    for other in (single, same):
        assert differences({"settings": plain}, {"settings": other}) == []
    limits = [
        {"settings": read_settings("lr: 1", {"optimizer_step_limit": n})}
        for n in ("4", "10", None)
    ]
    assert differences(limits[0], limits[1]) == []
    assert differences(limits[1], limits[2]) == []
    assert differences(limits[2], limits[0])


def test_keys_of_one_version_only_are_no_difference():
    old = {"settings": settings(TEXT), "version": "0.0.9"}
    new = {"settings": settings(TEXT + "dropout: 0.1"), "version": "0.1.0"}
    assert differences(old, new) == []
    assert differences({**old, "version": "0.1.0"}, new) == [
        "dropout: not given before, 0.1 now"
    ]


def test_a_class_that_has_moved_is_the_same(monkeypatch):
    moved = {"old.place": {"Adam": "torch.optim:Adam"}, "a.b": "torch.optim"}
    monkeypatch.setattr("unispeech_sb.moved.MOVED", moved)
    for name in ("old.place.Adam", "a.b.Adam"):
        before = settings(TEXT.replace("torch.optim.Adam", name))
        assert before == settings(TEXT)


def test_a_model_counts_by_its_content_wherever_it_lies(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "backbone.ckpt").write_bytes(b"weights")
    (first / "README.md").write_text("of the first")
    shutil.copytree(first, second)
    (second / "README.md").write_text("of the second")
    (second / "SHA256SUMS").write_text("of the second")
    one, moved = (record(TEXT, model=str(f)) for f in (first, second))
    assert differences(one, moved) == []
    (second / "backbone.ckpt").write_bytes(b"Weights")
    other = record(TEXT, model=str(second))
    assert differences(one, other) == [f"model: {first} before, {second} now"]
    assert differences(moved, other) == [
        f"model: {second} has another content now"
    ]


def write_corpus(folder, names=("a", "b"), content=b"speech", label="yes"):
    """Recordings and their manifest."""
    folder.mkdir()
    rows = ["ID,duration,wav,label,rttm"]
    for name in names:
        (folder / f"{name}.wav").write_bytes(content)
        (folder / f"{name}.rttm").write_text(label)
        rows.append(f"{name},1.5,{folder}/{name}.wav,{label},{folder}/a.rttm")
    (folder / "train.csv").write_text("\n".join(rows))
    return describe_data({"manifest_folder": folder})


def data_differences(old, new):
    """Of two descriptions alone."""
    return differences(
        {"settings": {}, "data": old}, {"settings": {}, "data": new}
    )


def test_data_count_by_their_content_wherever_they_lie(tmp_path):
    data = write_corpus(tmp_path / "one")
    assert data["train"]["utterances"] == 2
    assert data["train"]["label"] == 1
    moved = write_corpus(tmp_path / "moved")
    assert data_differences(data, moved) == []
    words = {
        "more": ("train: 2 utterances before, 3 now", {"names": "abc"}),
        "other": ("train: other recordings", {"names": "ac"}),
        "loud": ("train: other recordings", {"content": b"SPEECH"}),
        "labels": ("train: other values of label, rttm", {"label": "no"}),
    }
    for name, (told, changes) in words.items():
        other = write_corpus(tmp_path / name, **changes)
        assert data_differences(data, other) == [told]
    (tmp_path / "labels" / "a.rttm").write_text("another talk")
    again = describe_data({"manifest_folder": tmp_path / "labels"})
    assert data_differences(other, again) == ["train: other values of rttm"]


def test_data_that_are_gone_are_compared_by_their_manifest(tmp_path):
    data = write_corpus(tmp_path / "one")
    for path in (tmp_path / "one").glob("*.wav"):
        path.unlink()
    (tmp_path / "one" / "a.rttm").unlink()
    gone = describe_data({"manifest_folder": tmp_path / "one"})
    assert gone["train"]["audio"] is None
    assert gone["train"]["columns"]["rttm"] is None
    assert data_differences(gone, data) == []
    other = write_corpus(tmp_path / "other", names="ac")
    assert data_differences(gone, other) == ["train: other recordings"]


def test_a_column_of_one_version_only_is_no_difference(tmp_path):
    old = write_corpus(tmp_path / "old")
    new = write_corpus(tmp_path / "new")
    new["train"]["columns"]["language"] = "of a newer version"
    assert data_differences(old, new) == ["train: other values of language"]
    records = [
        {"settings": {}, "data": data, "version": version}
        for data, version in ((old, "0.0.9"), (new, "0.1.0"))
    ]
    assert differences(*records) == []


def test_units_count_by_their_numbers(tmp_path):
    write_corpus(tmp_path / "units")
    (tmp_path / "units" / "train.npy").write_bytes(b"1 2 3")
    old = describe_data({"units_folder": tmp_path / "units"})
    (tmp_path / "units" / "train.npy").write_bytes(b"1 2 4")
    new = describe_data({"units_folder": tmp_path / "units"})
    assert data_differences(old, new) == ["units: other ones than before"]
