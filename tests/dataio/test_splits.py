"""Validation sets out of training sets: nothing is lost, nothing is twice."""

from functools import partial

import pytest

from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.splits import (
    hold_out,
    hold_out_speakers,
    take_share,
    take_tails,
    with_valid,
)


def record(name, split="train", **others):
    """A record; the speaker is the first letter of its ID."""
    return {"ID": name, "spk_id": name[0], "split": split, **others}


def covered(records):
    """Samples of files that records cover, in order."""
    return sorted((r["wav"], r["start"], r["stop"]) for r in records)


def test_tails_and_what_is_left_are_all_of_the_training_set(
    tmp_path, write_noise
):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000, rate=8000)
    records = [
        record("a", wav=wav, duration=1.0, start=None, stop=None),
        record("b", wav=wav, duration=0.5, start=2000, stop=6000),
        record("c", "test", wav=wav, duration=1.0),
    ]
    found = take_tails(records, tail_s=0.2)
    assert found[-1] == records[-1]
    assert [(r["ID"], r["split"]) for r in found[:-1]] == [
        ("a", "train"), ("a_tail", "valid"), ("b", "train"), ("b_tail", "valid")
    ]  # fmt: skip
    assert covered(found[:-1]) == [
        (wav, 0, 6400), (wav, 2000, 4400), (wav, 4400, 6000), (wav, 6400, 8000)
    ]  # fmt: skip
    assert [r["duration"] for r in found[:-1]] == [0.8, 0.2, 0.3, 0.2]
    write_manifests(found, tmp_path / "manifests")


def test_a_recording_that_is_all_tail_is_named(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000)
    with pytest.raises(ValueError, match=f"{wav}: expected more than 0.5 s"):
        take_tails([record("a", wav=wav)], tail_s=0.5)


def test_each_speaker_gives_its_share_and_keeps_something():
    names = [f"a{n}" for n in range(10)] + ["b0", "b1", "c0"]
    records = [record(name) for name in names]
    records.append(record("d", "test"))
    found = take_share(records, share=0.2)
    assert [r["ID"] for r in found] == [r["ID"] for r in records]
    moved = [r["spk_id"] for r in found if r["split"] == "valid"]
    assert sorted(moved) == ["a", "a", "b"]
    assert found[-1]["split"] == "test"
    most = take_share(records, share=0.99)
    kept = {r["spk_id"] for r in most if r["split"] == "train"}
    assert kept == {"a", "b", "c"}


def test_shares_are_drawn_from_the_seed():
    records = [record(f"a{n}") for n in range(20)]
    draw = partial(take_share, records, 0.5)
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_has_to_be_one(share):
    with pytest.raises(ValueError, match="share of the recordings in .0, 1."):
        take_share([], share)


def test_held_out_speakers_are_cut_into_pieces_and_others_are_not(
    tmp_path, write_noise
):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000, rate=8000)
    records = [record(name, wav=wav, duration=1.0) for name in "abcd"]
    found = hold_out(records, num_speakers=2, piece_s=0.4)
    valid = [r for r in found if r["split"] == "valid"]
    train = [r for r in found if r["split"] == "train"]
    speakers = sorted({r["spk_id"] for r in valid})
    assert len(speakers) == 2
    assert sorted(r["ID"] for r in valid) == [
        f"{speaker}_{number}" for speaker in speakers for number in (0, 1)
    ]
    assert covered(valid) == sorted(2 * [(wav, 0, 3200), (wav, 3200, 6400)])
    assert train == [r for r in records if r["spk_id"] not in speakers]


def test_without_pieces_a_single_recording_cannot_be_held_out(tmp_path):
    with pytest.raises(ValueError, match="0 of them with two recordings"):
        hold_out([record(name) for name in "abcd"], num_speakers=1)


def test_a_validation_set_comes_from_one_place_only():
    train, valid = record("a"), record("b", "valid")
    move = partial(take_share, share=0.5)
    assert with_valid([train, valid], {"x": None}) == [train, valid]
    made = with_valid([train, record("a2")], {"x": None, "y": move})
    assert {r["split"] for r in made} == {"train", "valid"}
    for records, ways, got in (
        ([train], {"x": None, "y": None}, "--x or --y.; got none"),
        ([train, valid], {"x": move}, "got the split valid and --x"),
        ([train], {"x": move, "y": move}, "got --x and --y"),
    ):
        with pytest.raises(ValueError, match=got):
            with_valid(records, ways)


def spoken(counts, split="train"):
    """Records of speakers with so many recordings each."""
    return [
        {"spk_id": name, "split": split, "ID": f"{name}{number}"}
        for name, count in counts.items()
        for number in range(count)
    ]


def held_out(records):
    """Speakers of valid."""
    return {r["spk_id"] for r in records if r["split"] == "valid"}


def test_held_out_speakers_leave_train_with_all_they_say():
    records = spoken({"a": 2, "b": 3, "c": 2, "d": 2, "e": 1})
    records += spoken({"x": 2}, "test")
    found = hold_out_speakers(records, 3)
    assert [r["ID"] for r in found] == [r["ID"] for r in records]
    valid = held_out(found)
    assert len(valid) == 3
    assert valid <= set("abcd")  # not e: it has no second recording
    train = {r["spk_id"] for r in found if r["split"] == "train"}
    assert train == set("abcde") - valid
    assert records[0]["split"] == "train"  # the input is as it was


def test_held_out_speakers_depend_on_the_seed_and_the_names_only():
    records = spoken(dict.fromkeys("abcdefgh", 2))
    valid = held_out(hold_out_speakers(records, 3, seed=1))
    assert valid == held_out(hold_out_speakers(records[::-1], 3, seed=1))
    others = [held_out(hold_out_speakers(records, 3, s)) for s in range(2, 6)]
    assert any(other != valid for other in others)


@pytest.mark.parametrize(
    "counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2, "b": 1, "c": 1, "d": 1}]
)
def test_too_few_speakers_to_hold_out_are_refused(counts):
    with pytest.raises(ValueError, match="expected 2 speakers with two"):
        hold_out_speakers(spoken(counts), 2)
