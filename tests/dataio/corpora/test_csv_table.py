"""Tests of ``unispeech_sb.dataio.corpora.csv_table``."""

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from unispeech_sb.dataio.corpora.csv_table import (
    csv_table,
    find_file,
    single_speakers,
)
from unispeech_sb.dataio.manifest import check_records, write_manifests
from unispeech_sb.dataio.pipelines import audio_pipeline, fit_label_encoder


@pytest.fixture
def corpus(tmp_path, write_noise):
    """A function that writes a table beside ``a.wav`` (2 s at 8 kHz)."""
    write_noise(tmp_path / "corpus" / "a.wav", 16000, rate=8000)

    def write(text):
        (tmp_path / "corpus" / "manifest.csv").write_text(text)
        return tmp_path / "corpus"

    return write


def test_columns_become_a_record(corpus):
    folder = corpus(
        "id,split,path,duration,speaker,label,text\n"
        'u1,train,a.wav,2.000,ann,yes,"a, b"\n'
    )
    assert list(csv_table(folder)) == [
        {
            "ID": "u1",
            "split": "train",
            "wav": str(folder / "a.wav"),
            "duration": 2.0,
            "spk_id": "ann",
            "label": "yes",
            "text": "a, b",
        }
    ]


@pytest.mark.parametrize("header", ["ID,wav,Split", "id,file,split"])
def test_columns_have_other_names_too(corpus, header):
    folder = corpus(f"{header},label\nu1,a.wav,train,yes\n")
    (record,) = csv_table(folder / "manifest.csv")
    assert set(record) == {"ID", "wav", "split", "label"}
    assert record["ID"] == "u1"


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_name(corpus):
    folder = corpus("\ufeffid,path,split,label\nu1,a.wav,train,yes\n")
    assert next(csv_table(folder))["ID"] == "u1"


def test_paths_start_at_the_table_or_above_it(corpus, tmp_path):
    folder = corpus(
        "id,path,split,label\n"
        "1,a.wav,train,yes\n"
        "2,corpus/a.wav,train,yes\n"
        f"3,{tmp_path}/corpus/a.wav,train,yes\n"
    )
    wavs = {record["wav"] for record in csv_table(folder)}
    assert wavs == {str(folder / "a.wav")}


def test_paths_are_absolute_though_the_table_is_not(corpus, monkeypatch):
    folder = corpus("id,path,split,label\n1,a.wav,train,yes\n")
    monkeypatch.chdir(folder)
    assert next(csv_table("manifest.csv"))["wav"] == str(folder / "a.wav")


def test_start_and_stop_are_seconds_and_become_samples(corpus):
    folder = corpus(
        "path,split,start,stop\n"
        "a.wav,train,0.1,0.3504\n"
        "a.wav,train,1.5,\n"
        "a.wav,train,,\n"
        "a.wav,train,0,2.001\n"
    )
    records = list(csv_table(folder, label_column=None))
    stretches = [(r.get("start"), r.get("stop")) for r in records]
    assert stretches == [(800, 2803), (12000, 16000), (None, None), (0, 16000)]
    assert records[0]["duration"] == 2003 / 8000
    assert records[0]["ID"] == "a_800_2803"
    assert "duration" not in records[2]


def test_an_empty_cell_says_nothing(corpus):
    folder = corpus(
        "id,path,split,duration,speaker,start,stop,label\n,a.wav,train,,,,,\n"
    )
    (record,) = check_records(csv_table(folder, label_column=None))
    assert record == {
        "ID": "a",
        "wav": str(folder / "a.wav"),
        "split": "train",
        "spk_id": "",
        "label": "",
        "duration": 2.0,
    }


def test_split_names_are_translated(corpus):
    folder = corpus(
        "id,path,split,label\n1,a.wav,dev,yes\n2,a.wav,validation,yes\n"
        "3,a.wav,train-100,yes\n"
    )
    records = csv_table(folder, split_names={"train-100": "train"})
    assert [r["split"] for r in records] == ["valid", "valid", "train"]


def test_any_column_can_be_the_label(corpus):
    folder = corpus("path,split,speaker,mood\na.wav,train,ann,merry\n")
    assert next(csv_table(folder, label_column="mood"))["label"] == "merry"
    record = next(csv_table(folder, label_column="speaker"))
    assert (record["label"], record["spk_id"]) == ("ann", "ann")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 0: expected a column path or wav or file, got none"),
        ("id,split,label\n", "line 1: expected a column path or wav or file"),
        ("id,path,label\n", "line 1: expected a column split, got id, path"),
        ("id,path,split\n", "line 1: expected a column label with the label"),
        ("path,wav,split,label\n", "one column for wav, got path and wav"),
        ("path,split,label\na.wav,train,y\na.wav,eval,y\n", "line 3: .*'eval'"),
        ("path,split,label\na.wav,train,\n", "line 2: .*'label' is empty"),
        ("path,split,label\nb.wav,train,y\n", "line 2: no such file, .*b.wav"),
        ("path,split,label\n,train,y\n", "line 2: no such file"),
        ("path,split,label\na.wav,train\n", "line 2: expected one value"),
        (
            "path,split,label\na.wav,train,y,z\n",
            "line 2: expected 3 values, got",
        ),
        (
            "path,split,label,duration\na.wav,train,y,long\n",
            "line 2: expected seconds in 'duration' from 0 on, got 'long'",
        ),
        (
            "path,split,label,start\na.wav,train,y,-1\n",
            "line 2: expected seconds in 'start' from 0 on, got '-1'",
        ),
        (
            "path,split,label,stop\na.wav,train,y,1e12\n",
            "line 2: expected seconds in 'stop' at most 1e.07, got '1e12'",
        ),
        (
            "path,split,label,duration\na.wav,train,y,inf\n",
            "line 2: expected seconds in 'duration' from 0 on, got 'inf'",
        ),
        (
            "path,split,label,stop\na.wav,train,y,16000\n",
            "line 2: expected start and stop, in seconds, within the 2 s",
        ),
    ],
)
def test_bad_tables_are_told_by_line(corpus, text, message):
    folder = corpus(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(csv_table(folder))
    assert str(caught.value).startswith(str(folder / "manifest.csv"))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.csv: there is no such"):
        next(csv_table(tmp_path))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "counts", "num_labels"),
    [
        ("digits", {"train": 1600, "valid": 200}, 10),
        ("wakewords", {"train": 308, "valid": 96}, 9),
    ],
)
def test_real_tables_become_datasets(
    shared_data, tmp_path, name, counts, num_labels
):
    records = check_records(csv_table(shared_data / name))
    paths = write_manifests(records, tmp_path)
    datasets = {s: DynamicItemDataset.from_csv(paths[s]) for s in paths}
    assert {s: len(dataset) for s, dataset in datasets.items()} == counts
    assert len(fit_label_encoder(datasets)) == num_labels
    train = datasets["train"]
    train.add_dynamic_item(audio_pipeline())
    train.set_output_keys(["sig", "duration"])
    for i in range(0, len(train), 50):
        item = train[i]
        assert abs(len(item["sig"]) / 16000 - item["duration"]) < 1e-3


@pytest.mark.slow
@pytest.mark.real_data
def test_real_stretches_lie_within_their_files(shared_data):
    path = shared_data / "libri248" / "sid_segments.csv"
    records = check_records(csv_table(path, label_column="speaker"))
    assert len(records) == 372
    assert len({record["label"] for record in records}) == 186
    assert all(record["stop"] <= 8 * 16000 for record in records)


def test_the_nearest_file_is_taken(tmp_path):
    inner = tmp_path / "data" / "lists"
    (inner / "audio").mkdir(parents=True)
    (tmp_path / "audio").mkdir()
    far, near = tmp_path / "audio/a.wav", inner / "audio/a.wav"
    far.touch()
    assert find_file("audio/a.wav", inner) == far
    near.touch()
    assert find_file("audio/a.wav", inner) == near
    assert find_file(str(far), inner) == far


@pytest.mark.parametrize("name", ["", "b.wav", "audio"])
def test_what_is_no_file_is_named(tmp_path, name):
    (tmp_path / "audio").mkdir()
    with pytest.raises(ValueError, match=f"no such file, .*{name!r}"):
        find_file(name, tmp_path)


def test_single_speakers_need_no_split(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 8000)
    table = tmp_path / "lists" / "speakers.csv"
    table.parent.mkdir()
    table.write_text(
        "id,path,speaker,start,stop\n"
        "whole,a.wav,anna,,\n"
        "part,a.wav,anna,0.5,1.25\n"
        "rest,a.wav,ben,1.5,\n"
    )
    whole, part, rest = single_speakers(table)
    assert "start" not in whole and whole["wav"] == str(tmp_path / "a.wav")
    assert (part["start"], part["stop"]) == (4000, 10000)
    assert (rest["start"], rest["stop"], rest["spk_id"]) == (
        12000,
        16000,
        "ben",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav,,", "line 2: the column 'speaker' is empty"),
        ("b.wav,anna,", r"line 2: no such file, .*'b\.wav'"),
        (
            "a.wav,anna,soon",
            "line 2: expected seconds in 'start' from 0 on, got 'soon'",
        ),
    ],
)
def test_a_bad_row_of_a_single_speaker_is_named(tmp_path, row, message):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 8000)
    (tmp_path / "manifest.csv").write_text(f"path,speaker,start\n{row}\n")
    with pytest.raises(ValueError, match=message):
        list(single_speakers(tmp_path))
