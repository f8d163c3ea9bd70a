"""Units beside a manifest."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader

from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.pretraining import SpeechCrops
from unispeech_sb.dataio.units import (
    NO_PHONE,
    check_units,
    cut_units,
    phone_frames,
    read_about,
    read_spans,
    units_of,
    write_units,
)

SECONDS = 3


def ramp(path, rate=16000, seconds=SECONDS):
    """A recording whose samples tell their place, in seconds / 4."""
    samples = np.arange(round(seconds * rate)) / rate / 4
    soundfile.write(path, samples, rate, "FLOAT")
    return str(path)


@pytest.fixture(params=[50, 100])
def folder(request, tmp_path):
    """Units that tell their place too, of two recordings and a stretch."""
    label_rate = request.param
    wav = ramp(tmp_path / "a.wav")
    own = {"wav": wav, "duration": float(SECONDS), "split": "train"}
    records = [
        {**own, "ID": "first"},
        {**own, "ID": "valid", "split": "valid"},
        {**own, "ID": "part", "start": 16000, "stop": 32000, "duration": 1.0},
    ]
    units = [np.arange(record["duration"] * label_rate) for record in records]
    about = {"label_rate": label_rate, "num_units": SECONDS * label_rate}
    write_units(tmp_path / "units", records, units, about)
    return tmp_path / "units"


def dataset(folder, split="train", **options):
    """What a recipe builds of it."""

    def own(row):
        return torch.from_numpy(units_of(folder, split, row))

    rows = read_manifest(folder / f"{split}.csv")
    return SpeechCrops(rows, own, read_about(folder)["label_rate"], **options)


def passes(items, count=1):
    """The items of each of several passes."""
    for number in range(count):
        first = number * len(items)
        yield [items[first + place] for place in range(len(items))]


def places(item):
    """Seconds at which the waveform and the units of an item begin."""
    return item["sig"][0].item() * 4, item["targets"][0].item()


def test_each_recording_has_its_own_units(folder):
    label_rate = read_about(folder)["label_rate"]
    ((first, part),) = passes(dataset(folder))
    assert first["targets"].tolist() == list(range(3 * label_rate))
    assert part["targets"].tolist() == list(range(label_rate))
    assert part["sig"].shape == (16000,)
    ((valid,),) = passes(dataset(folder, "valid"))
    assert torch.equal(valid["targets"], first["targets"])
    assert set(check_units(folder)) == {"train", "valid"}


def test_crops_of_units_and_waveform_begin_together(folder):
    label_rate = read_about(folder)["label_rate"]
    items = dataset(folder, crop_s=0.7)
    seen = set()
    for first, part in passes(items, 30):
        for item, begin in ((first, 0.0), (part, 1.0)):
            at_s, unit = places(item)
            assert at_s == pytest.approx(begin + unit / label_rate, abs=1e-6)
            assert item["sig"].shape == (11200,)
            steps = item["targets"].diff()
            assert len(steps) == round(0.7 * label_rate) - 1
            assert bool((steps == 1).all())
        seen.add(places(first)[1])
    assert len(seen) > 10


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_crops_are_in_step_at_other_rates(tmp_path, rate):
    wav = ramp(tmp_path / "a.wav", rate)
    record = {"ID": "a", "wav": wav, "duration": 3.0, "split": "train"}
    about = {"label_rate": 100, "num_units": 300}
    write_units(tmp_path, [record], [np.arange(300)], about)
    items = dataset(tmp_path, crop_s=1.0)
    for (item,) in passes(items, 10):
        # Resampling rings at the edges, and changes the level a little
        middle = item["sig"][8000].item() * 4
        assert middle - 0.5 == pytest.approx(places(item)[1] / 100, abs=3e-3)
        assert len(item["targets"]) == 100


def test_crops_reach_both_ends_and_shorter_recordings_stay_whole(folder):
    label_rate = read_about(folder)["label_rate"]
    crop_s = 3.0 - 2 / label_rate
    items = dataset(folder, crop_s=crop_s)
    firsts = {places(first)[1] for first, _ in passes(items, 40)}
    assert firsts == {0, 1, 2}
    assert len(items[1]["targets"]) == label_rate


def test_units_that_end_before_the_waveform_bound_the_crop(tmp_path):
    wav = ramp(tmp_path / "a.wav")
    record = {"ID": "a", "wav": wav, "duration": 3.0, "split": "train"}
    about = {"label_rate": 50, "num_units": 149}
    write_units(tmp_path, [record], [np.arange(146)], about)
    items = dataset(tmp_path, crop_s=2.9)
    found = [item["targets"] for (item,) in passes(items, 20)]
    assert {len(units) for units in found} == {145}
    assert {units[0].item() for units in found} == {0, 1}


def test_workers_read_units(folder):
    items = dataset(folder)
    fork = {"multiprocessing_context": "fork"}  # as a Brain has it
    loader = SaveableDataLoader(items, num_workers=2, batch_size=None, **fork)
    (wanted,) = passes(items)
    for found, expected in zip(loader, wanted, strict=True):
        assert torch.equal(found["targets"], expected["targets"])


def test_units_are_cut_by_the_authors_rule():
    # round(start * rate / 16000) and round(size * rate / 16000)
    units = torch.arange(100)
    assert cut_units(units, 170, 1600, 50).tolist() == [1, 2, 3, 4, 5]
    assert cut_units(units, 150, 1600, 50).tolist() == [0, 1, 2, 3, 4]
    assert len(cut_units(units, 31000, 16000, 50)) == 3


def edit(folder, line, **columns):
    """Changes columns of a line of the training manifest."""
    path = folder / "train.csv"
    lines = path.read_text().splitlines()
    names = [name.strip('"') for name in lines[0].split(",")]
    values = lines[line - 1].split(",")
    for name, value in columns.items():
        values[names.index(name)] = value
    lines[line - 1] = ",".join(values)
    path.write_text("\n".join(lines) + "\n")
    return f"{path}, line {line}"


def refused(folder, where, what, **options):
    """Whether the check names the place and says what is wrong."""
    with pytest.raises(ValueError, match=re.escape(f"{where}: ") + what):
        check_units(folder, **options)


def test_a_length_that_is_off_is_named_with_its_line(folder):
    refused(folder, edit(folder, 3, duration="1.2"), "expected units of 1.2 s")
    edit(folder, 3, duration="1.09")
    check_units(folder)
    refused(folder, edit(folder, 3), "expected units of", tolerance_s=0.05)


def test_a_place_outside_the_file_is_named_with_its_line(folder):
    refused(folder, edit(folder, 3, units_stop="9999"), "expected a stretch")
    refused(folder, edit(folder, 3, units_stop="many"), "expected numbers")


def test_a_unit_out_of_range_is_named_with_its_line(folder):
    about = read_about(folder)
    about["num_units"] = 2 * about["label_rate"]
    (folder / "units.json").write_text(json.dumps(about))
    refused(folder, f"{folder / 'train.csv'}, line 2",
            f"expected units from 0 to {about['num_units'] - 1}, "
            f"got {about['num_units']}")  # fmt: skip


def test_a_missing_or_damaged_file_is_named(folder):
    array = folder / "train.npy"
    array.write_bytes(array.read_bytes()[:150])
    refused(folder, array, "expected an array of units; it is damaged")
    np.save(array, np.zeros((2, 2)))
    refused(folder, array, "expected whole numbers in a row, got float64")
    array.unlink()
    refused(folder, array, "there is no such file, expected units")
    with pytest.raises(ValueError, match="there is no such file"):
        dataset(folder)[0]
    for path in folder.glob("*.csv"):
        path.unlink()
    refused(folder, folder, "expected train.csv, got no manifest")
    (folder / "units.json").write_text('{"label_rate": 50}')
    refused(folder, folder / "units.json", "expected JSON with label_rate")


def test_a_model_for_other_units_is_refused(folder):
    num_units = read_about(folder)["num_units"]
    check_units(folder, num_units)
    refused(folder, folder / "units.json", "expected 504 units", num_units=504)


def test_a_failed_write_leaves_what_was_there(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    record = {"ID": "a", "wav": "/a.wav", "duration": 0.1, "split": "train"}
    about = {"label_rate": 50, "num_units": 4}
    with pytest.raises(ValueError, match="/a.wav: expected units from 0 to 3"):
        write_units(folder, [record], [np.array([1, 4])], about)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_a_split_that_is_no_more_goes(folder):
    record = {"ID": "a", "wav": "/a.wav", "duration": 0.1, "split": "train"}
    about = {"label_rate": 50, "num_units": 70000}
    write_units(folder, [record], [np.array([1, 69999])], about)
    assert {path.name for path in folder.iterdir()} == {
        *("train.csv", "train.npy", "units.json"),
    }
    assert np.load(folder / "train.npy").tolist() == [1, 69999]


def test_spans_of_a_manifest_are_read():
    record = {"ID": "a", "phone_spans": '[["h", 0, 0.1], ["aɪ", 0.1, 0.25]]'}
    assert read_spans(record) == [("h", 0.0, 0.1), ("aɪ", 0.1, 0.25)]
    assert read_spans({"ID": "a"}) is None
    assert read_spans({"ID": "a", "phone_spans": ""}) is None


@pytest.mark.parametrize(
    "text", ["h 0 1", "[1]", '[["h", 0.2, 0.1]]', '[["h", -1, 0]]', '{"h": 1}']
)
def test_a_damaged_column_is_named(text):
    with pytest.raises(ValueError, match=r"utt7: expected a list of \[phone"):
        read_spans({"ID": "utt7", "phone_spans": text})


@pytest.mark.parametrize("rate", [50, 100])
def test_a_frame_has_the_phone_at_its_centre(rate):
    spans = [("a", 0.1, 0.3), ("b", 0.3, 0.5), ("a", 0.6, 0.7)]
    found = phone_frames(spans, rate, rate, 0.025, {"a": 4, "b": 2})
    for index, phone in enumerate(found):
        at_s = index / rate + 0.0125
        expected = [{"a": 4, "b": 2}[p] for p, s, e in spans if s <= at_s < e]
        assert [phone] == (expected or [NO_PHONE])


def test_phones_beyond_the_last_frame_are_cut():
    found = phone_frames([("a", 0.0, 9.0)], 3, 50, 0.025, {"a": 0})
    assert np.array_equal(found, [0, 0, 0])


@pytest.mark.parametrize("number", ["0", "1000000000000", "1e3", "true"])
def test_a_number_of_units_out_of_range_is_refused(tmp_path, number):
    text = f'{{"label_rate": 50, "num_units": {number}}}'
    (tmp_path / "units.json").write_text(text)
    with pytest.raises(ValueError, match="whole numbers from 1 to 1000000"):
        read_about(tmp_path)


def test_a_byte_order_mark_changes_nothing(tmp_path):
    text = '\ufeff{"label_rate": 50, "num_units": 9}'
    (tmp_path / "units.json").write_text(text, encoding="utf-8")
    assert read_about(tmp_path)["num_units"] == 9
