"""Tests of ``unispeech_sb.dataio.corpora.speech_commands``."""

import collections
import hashlib
import itertools
import shutil

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.corpora.speech_commands import (
    COMMANDS,
    UNKNOWN,
    WORDS,
    class_balanced_weights,
    speech_commands,
)
from unispeech_sb.dataio.manifest import check_records, write_manifests

# Where the published split function puts these made-up speakers.
SPEAKERS = {"speaker15": "valid", "speaker1": "train", "speaker7": None}
NOISES = {"tap": 20, "miaowing": 35}  # seconds


def write_clip(path, num_samples=800):
    """Write a short recording."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).normal(size=num_samples)
    soundfile.write(path, 0.1 * noise, 16000)


def build_tree(folder, version):
    """Write a tree as the archive has it: one clip per word and speaker."""
    folder.mkdir()
    names = [f"{speaker}_nohash_0.wav" for speaker in SPEAKERS]
    for word in WORDS[version]:
        for name in names:
            write_clip(folder / word / name)
    for noise, seconds in NOISES.items():
        write_clip(folder / f"_background_noise_/{noise}.wav", seconds * 16000)
    (folder / "_background_noise_" / "README.md").touch()
    for stem, name in zip(["validation", "testing"], names[:2], strict=True):
        lines = [f"{word}/{name}\n" for word in WORDS[version]]
        (folder / f"{stem}_list.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Both versions and the test archive; not to be changed."""
    folder = tmp_path_factory.mktemp("trees")
    for version in WORDS:
        build_tree(folder / version, version)
    (folder / "test").mkdir()
    for label in (*COMMANDS, UNKNOWN, "_silence_"):
        write_clip(folder / "test" / label / "speaker1_nohash_0.wav")
    return folder


@pytest.fixture
def tree(tmp_path, trees):
    """A v0.01 tree to break."""
    return shutil.copytree(trees / "v0.01", tmp_path / "v0.01")


def count(records, *keys):
    """Count records by the values of some keys."""
    return collections.Counter(tuple(r[k] for k in keys) for r in records)


def superb(trees):
    """The records of the preset superb."""
    return list(speech_commands(trees / "v0.01", test_folder=trees / "test"))


def test_superb_splits_by_the_hash_of_the_speaker(trees):
    clips = [
        r
        for r in superb(trees)
        if r["split"] != "test" and r["label"] != "_silence_"
    ]
    assert count(clips, "spk_id", "split") == {
        ("speaker15", "valid"): 30,
        ("speaker1", "train"): 30,
    }
    for speaker, split in SPEAKERS.items():
        digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
        percent = (digest % 2**27) * (100.0 / (2**27 - 1))
        kept = "valid" if percent < 10 else "train" if percent >= 20 else None
        assert kept == split


def test_superb_labels_every_other_word_unknown(trees):
    counts = count(superb(trees), "split", "label")
    for split in ("train", "valid"):
        assert all(counts[split, command] == 1 for command in COMMANDS)
        assert counts[split, UNKNOWN] == 20
    assert {label for _, label in counts} == {*COMMANDS, UNKNOWN, "_silence_"}


def test_superb_silence_is_the_whole_noise_in_train_and_valid(trees):
    silence = [
        r
        for r in superb(trees)
        if r["label"] == "_silence_" and r["split"] != "test"
    ]
    assert count(silence, "split") == {("train",): 2, ("valid",): 2}
    wavs = {s: set() for s in ("train", "valid")}
    for record in silence:
        wavs[record["split"]].add(record["wav"])
        assert "start" not in record
    assert wavs["train"] == wavs["valid"]


def test_superb_tests_on_the_separate_archive(trees):
    test = [r for r in superb(trees) if r["split"] == "test"]
    assert count(test, "label") == {
        (label,): 1 for label in (*COMMANDS, UNKNOWN, "_silence_")
    }
    assert all(str(trees / "test") in r["wav"] for r in test)


@pytest.mark.parametrize("preset", ["superb", "clean"])
def test_records_pass_the_check_and_become_manifests(trees, tmp_path, preset):
    records = speech_commands(
        trees / "v0.01", preset=preset, test_folder=trees / "test"
    )
    paths = write_manifests(check_records(records), tmp_path)
    assert list(paths) == ["train", "valid", "test"]


@pytest.mark.parametrize("version", ["v0.01", "v0.02"])
def test_clean_follows_the_official_lists_and_discards_nothing(trees, version):
    num_words = len(WORDS[version])
    records = list(
        speech_commands(trees / version, version, num_words, preset="clean")
    )
    assert count(records, "spk_id", "split") == {
        ("speaker15", "valid"): num_words,
        ("speaker1", "test"): num_words,
        ("speaker7", "train"): num_words,
    }
    assert {r["label"] for r in records} == set(WORDS[version])


@pytest.mark.parametrize(("version", "others"), [("v0.01", 20), ("v0.02", 25)])
def test_clean_with_twelve_classes(trees, version, others):
    records = list(speech_commands(trees / version, version, preset="clean"))
    counts = count(records, "split", "label")
    for split in ("train", "valid", "test"):
        assert all(counts[split, command] == 1 for command in COMMANDS)
        assert counts[split, UNKNOWN] == others
        assert counts[split, "_silence_"] == 1


def add_speakers(tree, num_speakers):
    """Give every command more clips, the same number in each split."""
    for stem in ("validation", "testing", "training"):
        names = [
            f"{command}/{stem}{i}_nohash_0.wav"
            for i, command in itertools.product(range(num_speakers), COMMANDS)
        ]
        for name in names:
            write_clip(tree / name, 401)
        if stem != "training":
            with open(tree / f"{stem}_list.txt", "a") as file:
                file.writelines(f"{name}\n" for name in names)


def test_clean_silence_shares_no_sample_between_splits(tree):
    add_speakers(tree, 7)
    records = list(speech_commands(tree, preset="clean"))
    silence = [r for r in records if r["label"] == "_silence_"]
    used = {}
    for record in silence:
        assert record["stop"] - record["start"] == 16000
        seconds = NOISES[record["wav"].split("/")[-1].removesuffix(".wav")]
        assert record["stop"] <= 16000 * seconds
        held = used.setdefault((record["wav"], record["split"]), np.zeros(0))
        samples = np.arange(record["start"], record["stop"])
        used[record["wav"], record["split"]] = np.union1d(held, samples)
    assert len(used) == 6
    for (a, first), (b, second) in itertools.combinations(used.items(), 2):
        assert a[0] != b[0] or not len(np.intersect1d(first, second))


def test_clean_silence_is_as_frequent_as_a_command_and_repeats(tree):
    add_speakers(tree, 7)
    records = list(speech_commands(tree, preset="clean"))
    counts = count(records, "split", "label")
    for split in ("train", "valid", "test"):
        assert counts[split, "_silence_"] == counts[split, "yes"] == 8
    assert records == list(speech_commands(tree, preset="clean"))
    assert len({r["ID"] for r in records}) == len(records)


def test_train_stretches_do_not_overlap_where_there_is_room(tree):
    add_speakers(tree, 7)
    starts = collections.defaultdict(list)
    for record in speech_commands(tree, preset="clean"):
        if record["split"] == "train" and record["label"] == "_silence_":
            starts[record["wav"]].append(record["start"])
    assert sum(map(len, starts.values())) == 8
    for places in starts.values():
        assert np.diff(sorted(places)).min() >= 16000


def test_clean_can_test_on_the_separate_archive(trees):
    records = list(
        speech_commands(
            trees / "v0.02", "v0.02", preset="clean", test_folder=trees / "test"
        )
    )
    test = [r for r in records if r["split"] == "test"]
    assert len(test) == 12
    assert all(str(trees / "test") in r["wav"] for r in test)
    assert count(records, "split")["train",] == 36


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"version": "v0.03"}, "expected version v0.01 or v0.02"),
        ({"preset": "best"}, "expected preset superb or clean"),
        ({"num_classes": 35}, "expected 12 or 30 classes for v0.01, got 35"),
        ({"version": "v0.02", "num_classes": 30}, "12 or 35 classes"),
        ({"version": "v0.02"}, "v0.01 with 12 classes for the preset superb"),
        ({"num_classes": 30}, "got v0.01 with 30"),
        ({}, "unpack speech_commands_test_set_v0.01.tar.gz"),
        (
            {"preset": "clean", "num_classes": 30, "test_folder": "x"},
            "the test archives have 12 classes, got 30",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_errors(trees, choices, message):
    with pytest.raises(ValueError, match=message):
        speech_commands(trees / "v0.01", **choices)


def test_what_a_folder_lacks_is_said(tree, tmp_path):
    def complaint(match, folder=tree):
        with pytest.raises(ValueError, match=match):
            list(speech_commands(folder, preset="clean"))

    complaint("unpack speech_commands_v0.01.tar.gz there", tmp_path / "no")
    (tree / "validation_list.txt").rename(tree / "elsewhere.txt")
    complaint("no validation_list.txt, which is part of speech_commands_v0.01")
    (tree / "elsewhere.txt").rename(tree / "validation_list.txt")
    (tree / "bed" / "speaker15_nohash_0.wav").unlink()
    complaint("1 clips of the split lists are missing, such as bed/speaker15")
    shutil.rmtree(tree / "bed")
    complaint("missing bed, not expected none")
    (tree / "bed").mkdir()
    complaint("no .wav in bed")


def test_missing_noise_is_said(tree):
    shutil.rmtree(tree / "_background_noise_")
    with pytest.raises(ValueError, match="_background_noise_: no .wav"):
        list(speech_commands(tree, preset="clean"))
    list(speech_commands(tree, num_classes=30, preset="clean"))


def test_noise_too_short_to_part_is_an_error(tree):
    write_clip(tree / "_background_noise_" / "tap.wav", 2 * 16000)
    with pytest.raises(ValueError, match=r"tap\.wav: expected 3 s of noise"):
        list(speech_commands(tree, preset="clean"))


def test_the_other_version_is_recognised(trees):
    with pytest.raises(ValueError, match="not expected backward, follow"):
        speech_commands(trees / "v0.02", "v0.01", preset="clean")
    with pytest.raises(ValueError, match="missing backward, follow"):
        speech_commands(trees / "v0.01", "v0.02", preset="clean")


def test_an_incomplete_test_archive_is_an_error(trees, tmp_path):
    shutil.copytree(trees / "test", tmp_path / "test")
    shutil.rmtree(tmp_path / "test" / "_silence_")
    with pytest.raises(ValueError, match="test_set_v0.01.*missing _silence_"):
        list(speech_commands(trees / "v0.01", test_folder=tmp_path / "test"))


def test_weights_give_every_class_the_same_share(trees):
    train = [r for r in superb(trees) if r["split"] == "train"]
    shares = collections.defaultdict(float)
    weights = class_balanced_weights(train)
    for record, weight in zip(train, weights.tolist(), strict=True):
        shares[record["label"]] += weight
    assert len(shares) == 12
    shares = torch.tensor(list(shares.values()))
    torch.testing.assert_close(shares, torch.full((12,), float(len(train))))
