"""Units in fairseq's files."""

import re

import numpy as np
import pytest

from unispeech_sb.dataio.corpora.fairseq_units import (
    read_fairseq_units,
    write_fairseq_units,
)
from unispeech_sb.dataio.units import check_units, write_units


@pytest.fixture
def folder(tmp_path, write_noise):
    """Two recordings to train, one to validate."""
    records = [
        {
            "ID": f"deep_{name}",
            "wav": write_noise(tmp_path / "deep" / f"{name}.wav", 1600),
            "split": split,
        }
        for name, split in (("a", "train"), ("b", "valid"), ("c", "train"))
    ]
    units = [np.array([0, 3, 3, 1, 2]), np.array([4] * 5), np.array([2] * 5)]
    write_fairseq_units(tmp_path / "km", records, units, 5)
    return tmp_path / "km"


def test_the_files_are_fairseqs(folder, tmp_path):
    assert (folder / "train.tsv").read_text() == (
        f"{tmp_path / 'deep'}\na.wav\t1600\nc.wav\t1600\n"
    )
    assert (folder / "train.km").read_text() == "0 3 3 1 2\n2 2 2 2 2\n"
    assert (folder / "valid.km").read_text() == "4 4 4 4 4\n"
    assert (folder / "dict.km.txt").read_text().split("\n")[:2] == [
        *("0 1", "1 1"),
    ]
    assert len(list(folder.iterdir())) == 5


def test_they_are_read_as_they_were_written(folder, tmp_path):
    records, units, num_units = read_fairseq_units(folder)
    assert num_units == 5
    assert [(r["ID"], r["split"]) for r in records] == [
        *(("a", "train"), ("c", "train"), ("b", "valid")),
    ]
    assert records[0]["duration"] == 0.1
    assert [own.tolist() for own in units][1:] == [[2] * 5, [4] * 5]
    about = {"label_rate": 50, "num_units": num_units}
    write_units(tmp_path / "units", records, units, about)
    assert set(check_units(tmp_path / "units")) == {"train", "valid"}


def test_another_root_takes_the_tables_place(folder, tmp_path):
    (tmp_path / "deep").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="train.tsv, line 2: no such file"):
        read_fairseq_units(folder)
    records, _, _ = read_fairseq_units(folder, tmp_path / "moved")
    assert records[0]["wav"] == str(tmp_path / "moved" / "a.wav")


FAULTS = {
    "train.km": {
        "0 3\n2 5\n": ", line 2: expected units from 0 to 4, got '5'",
        "0 3\n\n": ", line 2: expected units from 0 to 4, got ''",
        "0 -1\n2\n": ", line 1: expected units from 0 to 4, got '-1'",
        "0 3\n": ": expected a line for each of the 2 recordings of train.tsv",
        None: ": there is no such file",
    },
    "dict.km.txt": {
        "0 1\n2 1\n": ": expected a line for each of the units 0, 1, ...",
        None: ": there is no such file",
    },
}


@pytest.mark.parametrize(
    "name, text, message",
    [(n, t, m) for n, faults in FAULTS.items() for t, m in faults.items()],
)
def test_what_is_wrong_is_named_with_file_and_line(folder, name, text, message):
    path = folder / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")):
        read_fairseq_units(folder)


def test_a_stretch_of_a_file_is_refused(tmp_path, write_noise):
    record = {"wav": write_noise(tmp_path / "a.wav"), "split": "train"}
    with pytest.raises(ValueError, match="expected a whole file"):
        write_fairseq_units(
            tmp_path / "km", [{**record, "start": 0}], [np.zeros(1)], 1
        )
    assert not list((tmp_path / "km").iterdir())
