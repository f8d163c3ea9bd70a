"""fairseq's tables with labels: phones and units."""

import json
import re

import numpy as np
import pytest

from unispeech_sb.convert.tokenizers import make_tokenizer
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.fairseq import (
    fairseq_manifests,
    fairseq_texts,
    find_vocabulary,
    is_fairseq_manifests,
    read_fairseq_units,
    write_fairseq_units,
)
from unispeech_sb.dataio.manifest import filter_by_duration
from unispeech_sb.dataio.units import check_units, write_units
from unispeech_sb.lobes.heads import FrameHead

STEMS = {
    "train": "trainSeqs_1.0_uniform_new_version",
    "valid": "valSeqs_1.0_uniform_new_version",
    "test": "testSeqs_uniform_new_version",
}
HEADS = {
    "en": (76, 80),
    "es": (41, 45),
    "fr": (42, 46),
    "it": (61, 65),
    "ky": (39, 43),
    "nl": (53, 57),
    "ru": (50, 54),
    "sv": (41, 45),
    "sep": (527, 531),
    "share": (172, 176),
}
"""The authors' vocabularies: number of symbols, and size of the head."""

SYMBOLS = ["h", "aɪ", "", "ɔː", "|"]
IDS = {"train": ["0 1 ", "3 3 0 ", "1 2 4 3"], "valid": ["0"], "test": ["3 "]}
PHONES = {
    "train": ["h aɪ", "ɔː ɔː h", "aɪ ɔː"],
    "valid": ["h"],
    "test": ["ɔː"],
}


@pytest.fixture
def folder(tmp_path):
    """``es`` as the authors ship it, beside ``mtl``, and the recordings."""
    folder, wavs = tmp_path / "es", tmp_path / "wavs"
    for place in (folder, tmp_path / "mtl", wavs):
        place.mkdir()
    for split, stem in STEMS.items():
        names = [f"{split}_{number}" for number in range(len(IDS[split]))]
        rows = [f"{name}.wav\t16000\t16000" for name in names]
        for name in names:
            (wavs / f"{name}.wav").touch()
        write(folder / f"{stem}_16k.tsv", ["WAV_PATH", *rows])
        write(folder / f"{stem}_16k.id", IDS[split])
        shifted = [" ".join(str(int(i) + 2) for i in line.split())
                   for line in IDS[split]]  # fmt: skip
        write(folder / f"{stem}_sep.id", shifted)
        spelt = [f"{phones} | " for phones in PHONES[split]]
        write(folder / f"{stem}.phone", spelt)
    write(folder / "pretrain_168_16k.tsv", ["WAV_PATH", "other.wav\t9"])
    vocabularies = {
        folder / "phonesMatches_reduced.json": SYMBOLS,
        tmp_path / "mtl" / "vocab_sep.json": ["(en)z", "(en)s", *SYMBOLS],
    }
    for path, symbols in vocabularies.items():
        indices = {symbol: index for index, symbol in enumerate(symbols)}
        path.write_text(json.dumps(indices))
    return folder


def write(path, lines):
    """Writes lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(folder, **options):
    """Split -> phones of its records."""
    found = {}
    for record in fairseq_manifests(folder, folder.parent / "wavs", **options):
        found.setdefault(record["split"], []).append(record["phones"])
    return found


@pytest.mark.parametrize("labels", ["id", "sep", "phone"])
def test_each_recording_has_its_phones(folder, labels):
    assert is_fairseq_manifests(folder)
    assert read(folder, labels=labels) == PHONES


def test_a_record_names_its_file(folder):
    wavs = folder.parent / "wavs"
    (wavs / "train_1.wav").rename(wavs / "train_1.mp3")
    found = {r["ID"]: r for r in fairseq_manifests(folder, wav_root=wavs)}
    assert found["train_0"] == {
        "ID": "train_0",
        "wav": str(wavs / "train_0.wav"),
        "split": "train",
        "phones": "h aɪ",
        "duration": 1.0,
    }
    assert found["train_1"]["wav"] == str(wavs / "train_1.mp3")


def test_the_root_of_the_table_counts_where_no_other_is_given(folder):
    with pytest.raises(ValueError, match="expected wav_root, the folder of"):
        list(fairseq_manifests(folder))
    for table in folder.glob("*_16k.tsv"):
        text = table.read_text()
        table.write_text(text.replace("WAV_PATH", str(folder.parent / "wavs")))
    assert len(list(fairseq_manifests(folder))) == 5


def test_a_recording_left_out_takes_its_label_with_it(folder):
    records = list(fairseq_manifests(folder, folder.parent / "wavs"))
    durations = {"train_1": 99.0}
    timed = [{**r, "duration": durations.get(r["ID"], 1.0)} for r in records]
    kept, _ = filter_by_duration(timed, max_s=10.0)
    said = {record["ID"]: record["phones"] for record in kept}
    assert said["train_0"] == "h aɪ"
    assert said["train_2"] == "aɪ ɔː"


def test_tables_named_after_the_labels_are_taken(folder):
    mtl = folder.parent / "mtl"
    for labels in ("sep", "share"):
        for split in ("train", "val"):
            name = f"{split}_{labels}"
            write(mtl / f"{name}.tsv", ["WAV_PATH", "train_0.wav\t9"])
            write(mtl / f"{name}.id", ["2 5"])
    assert read(mtl, labels="sep") == {"train": ["h ɔː"], "valid": ["h ɔː"]}
    with pytest.raises(ValueError, match="expected one table of the split 'tr"):
        read(mtl, vocabulary=mtl / "vocab_sep.json")


def test_vocabularies_are_found_where_the_authors_put_them(folder):
    assert find_vocabulary(folder).name == "phonesMatches_reduced.json"
    assert find_vocabulary(folder, "sep") == folder.parent.joinpath(
        "mtl", "vocab_sep.json"
    )
    assert find_vocabulary(folder, "phone") is None
    with pytest.raises(FileNotFoundError, match="mtl/vocab_share.json; there"):
        find_vocabulary(folder, "share")


def test_tables_with_columns_are_no_manifests(tmp_path):
    write(tmp_path / "train.tsv", ["client_id\tpath\tsentence"])
    assert not is_fairseq_manifests(tmp_path)


@pytest.mark.parametrize(("symbols", "classes"), HEADS.values(), ids=HEADS)
def test_the_authors_vocabularies_give_their_heads(tmp_path, symbols, classes):
    path = tmp_path / "phonesMatches_reduced.json"
    names = [f"p{index}" for index in range(symbols)]
    path.write_text(json.dumps({n: i for i, n in enumerate(names)}))
    tokenizer = make_tokenizer((), separator=" ", vocabulary=path)
    head = FrameHead(16, num_classes=len(tokenizer))
    assert head.classifier.out_features == classes
    assert tokenizer.blank_index == symbols
    assert tokenizer.targets("p1 p0") == [1, 0]
    assert tokenizer.decode(range(len(tokenizer))) == " ".join(names)


@pytest.mark.parametrize(
    "content",
    [[], {"a": 1}, {"a": 0, "b": 0}, {"a": "0"}, {"a": False}],
    ids=str,
)
def test_what_is_no_vocabulary_of_theirs_is_named(folder, content):
    path = folder / "phonesMatches_reduced.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{path}: expected symbols with"):
        read(folder)
    path.write_text("a 1")
    with pytest.raises(ValueError, match=f"{path}: expected JSON"):
        read(folder)


@pytest.mark.parametrize(
    ("suffix", "lines", "message"),
    [
        (".id", ["0", "1"], "expected a line for each of the 3 recordings"),
        (".id", ["0", "1", "2", "3"], "of the 3 recordings .*, got 4"),
        (".id", ["0", "0 5", "1"], "_16k.id, line 2: expected indices from 0"),
        (".id", ["0", "-1", "1"], "_16k.id, line 2: expected indices from 0"),
        (".id", ["0", "h", "1"], "_16k.id, line 2: expected indices from 0"),
        (
            ".tsv",
            ["WAV_PATH", "train_0.wav\t9", "b.wav\t9", "c.wav\t9"],
            "_16k.tsv, line 3: no such file: .*wavs/b.wav",
        ),
        (
            ".tsv",
            ["WAV_PATH", "a.zip:12:99\t9", "b.wav\t9", "c.wav\t9"],
            "_16k.tsv, line 2: expected a file, got the slice",
        ),
    ],
)
def test_a_bad_line_is_named(folder, suffix, lines, message):
    write(folder / f"{STEMS['train']}_16k{suffix}", lines)
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_missing_labels_are_named(folder):
    (folder / f"{STEMS['train']}_16k.id").unlink()
    with pytest.raises(FileNotFoundError, match="expected labels in .*_16k.id"):
        read(folder)


@pytest.fixture
def units_folder(tmp_path, write_noise):
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


def test_the_files_are_fairseqs(units_folder, tmp_path):
    assert (units_folder / "train.tsv").read_text() == (
        f"{tmp_path / 'deep'}\na.wav\t1600\nc.wav\t1600\n"
    )
    assert (units_folder / "train.km").read_text() == "0 3 3 1 2\n2 2 2 2 2\n"
    assert (units_folder / "valid.km").read_text() == "4 4 4 4 4\n"
    assert (units_folder / "dict.km.txt").read_text().split("\n")[:2] == [
        *("0 1", "1 1"),
    ]
    assert len(list(units_folder.iterdir())) == 5


def test_they_are_read_as_they_were_written(units_folder, tmp_path):
    records, units, num_units = read_fairseq_units(units_folder)
    assert num_units == 5
    assert [(r["ID"], r["split"]) for r in records] == [
        *(("a", "train"), ("c", "train"), ("b", "valid")),
    ]
    assert records[0]["duration"] == 0.1
    assert [own.tolist() for own in units][1:] == [[2] * 5, [4] * 5]
    about = {"label_rate": 50, "num_units": num_units}
    write_units(tmp_path / "units", records, units, about)
    assert set(check_units(tmp_path / "units")) == {"train", "valid"}


def test_another_root_takes_the_tables_place(units_folder, tmp_path):
    (tmp_path / "deep").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="train.tsv, line 2: no such file"):
        read_fairseq_units(units_folder)
    records, _, _ = read_fairseq_units(units_folder, tmp_path / "moved")
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
def test_what_is_wrong_is_named_with_file_and_line(
    units_folder, name, text, message
):
    path = units_folder / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")):
        read_fairseq_units(units_folder)


def test_a_stretch_of_a_file_is_refused(tmp_path, write_noise):
    record = {"wav": write_noise(tmp_path / "a.wav"), "split": "train"}
    with pytest.raises(ValueError, match="expected a whole file"):
        write_fairseq_units(
            tmp_path / "km", [{**record, "start": 0}], [np.zeros(1)], 1
        )
    assert not list((tmp_path / "km").iterdir())


TEXTS = {"train": ["SO IT IS", "YES"], "dev_other": ["NO"]}
LETTERS = "".join(f"{letter} 9\n" for letter in "|SOITYEN")


@pytest.fixture
def libri(tmp_path):
    """LibriSpeech as fairseq's libri_labels.py writes it."""
    for stem, texts in TEXTS.items():
        rows = []
        for number, _ in enumerate(texts):
            name = f"{stem}/{number}.flac"
            (tmp_path / stem).mkdir(exist_ok=True)
            (tmp_path / name).touch()
            rows.append(f"{name}\t{16000 * (number + 1)}")
        write(tmp_path / f"{stem}.tsv", [tmp_path, *rows])
        spelt = [" ".join(text.replace(" ", "|")) + " |" for text in texts]
        write(tmp_path / f"{stem}.ltr", spelt)
        write(tmp_path / f"{stem}.wrd", texts)
    (tmp_path / "dict.ltr.txt").write_text(LETTERS)
    return tmp_path


@pytest.mark.parametrize("kind", ["ltr", "wrd"])
def test_texts_are_words_or_letters(libri, kind, caplog):
    other = {"ltr": "wrd", "wrd": "ltr"}[kind]
    for path in libri.glob(f"*.{other}"):
        path.unlink()
    assert find_corpus("asr", {}, libri) == "fairseq"
    found = list(read_corpus("asr", {}, libri))
    assert [(r["split"], r["wrd"]) for r in found] == [
        ("valid", "NO"), ("train", "SO IT IS"), ("train", "YES")
    ]  # fmt: skip
    assert found[-1]["duration"] == 2.0
    assert found[-1]["ID"] == "train_1"
    assert not caplog.records


def test_subsets_choose_tables(libri):
    write(libri / "dev_clean.tsv", [libri])
    write(libri / "dev_clean.wrd", [])
    found = list(fairseq_texts(libri, subsets=["train"]))
    assert {r["split"] for r in found} == {"train"}
    with pytest.raises(ValueError, match="subsets of dev_clean, dev_other, tr"):
        list(fairseq_texts(libri, subsets=["dev"]))


def test_letters_that_the_dictionary_lacks_are_counted(libri, caplog):
    write(libri / "train.wrd", ["SO IT IS", "YÉS 5"])
    list(fairseq_texts(libri))
    assert "2 letters of the texts are not in" in caplog.text
    assert "5, É" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.wrd", "ONE\n", "train.wrd: expected a line for each of the 2"),
        ("train.tsv", "{}\ntrain/0.flac\t-5\nx\n", "samples from 1 on"),
        ("train.tsv", "{}\ntrain/0.flac\t1e300\nx\n", "samples at most"),
        ("train.tsv", "{}\ntrain/9.flac\t1\nx\n", "train.tsv, line 2: no su"),
        ("train.tsv", "WAV_PATH\ntrain/0.flac\t1\nx\n", "expected wav_root"),
    ],
)
def test_texts_that_do_not_fit_are_named(libri, name, text, message):
    (libri / name).write_text(text.format(libri))
    with pytest.raises(ValueError, match=message):
        list(fairseq_texts(libri))


def test_a_line_of_text_may_hold_what_python_takes_for_a_line_end(libri):
    write(libri / "train.wrd", ["SO\u2028IT", "YES"])
    found = [r["wrd"] for r in fairseq_texts(libri, subsets=["train"])]
    assert found == ["SO IT", "YES"]


def test_missing_texts_and_other_encodings_are_named(libri):
    (libri / "train.wrd").write_bytes("ÉTÉ\nSO\n".encode("latin-1"))
    with pytest.raises(ValueError, match="train.wrd, line 1: expected text in"):
        list(fairseq_texts(libri))
    for kind in ("wrd", "ltr"):
        (libri / f"train.{kind}").unlink()
    with pytest.raises(FileNotFoundError, match="texts in .*wrd or .*ltr"):
        list(fairseq_texts(libri))
