"""Data sets of Hugging Face give the records of lists, whoever wrote them."""

import json
import shutil

import pytest

from tests.dataio.corpora.test_list_forms import ROWS, TASKS, audio  # noqa: F401
from unispeech_sb import load
from unispeech_sb.commands.data import data
from unispeech_sb.commands.recipe import recipe
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.manifest import check_records

pa = pytest.importorskip("pyarrow", reason="needs unispeech_sb[parquet]")
parquet = pytest.importorskip("pyarrow.parquet")

WORDS = ["no", "yes"]
FEATURES = {
    "audio": {"_type": "Audio"},
    "label": {"names": WORDS, "_type": "ClassLabel"},
}
HUB = {"train": "train", "valid": "validation", "test": "test"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where recordings are unpacked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unispeech_sb" / "recordings"


@pytest.fixture
def corpus(audio, tmp_path):  # noqa: F811
    """A folder with the recordings; the tables come beside them."""
    return shutil.copytree(audio, tmp_path / "corpus")


def struct(corpus, name, inside=True):
    """A recording as `datasets` has it."""
    path = f"{name}.wav"
    if not inside:
        return {"bytes": None, "path": path}
    return {"bytes": (corpus / path).read_bytes(), "path": path}


def table_of(corpus, split, recording=struct, stated=True, **columns):
    """The table of a split."""
    rows = [row for row in ROWS if row[0] == split]
    labels = [WORDS.index(row[3]) if stated else row[3] for row in rows]
    table = pa.table({
        "id": [row[1] for row in rows],
        "path": ["/somewhere/else.mp3"] * len(rows),
        "audio": [recording(corpus, row[1]) for row in rows],
        "speaker_id": [row[2] for row in rows],
        "label": labels,
        "sentence": [row[4] for row in rows],
        "nested": [[1, 2]] * len(rows),
        **{name: [value] * len(rows) for name, value in columns.items()},
    })  # fmt: skip
    if not stated:
        return table
    info = json.dumps({"info": {"features": FEATURES}})
    return table.replace_schema_metadata({"huggingface": info})


def hub(corpus):
    """As on the hub."""
    (corpus / "data").mkdir()
    for split in HUB:
        place = corpus / "data" / f"{HUB[split]}-00000-of-00001.parquet"
        parquet.write_table(table_of(corpus, split), place)
    for file in corpus.glob("*.wav"):
        file.unlink()


def converted(corpus):
    """As the hub converts other data sets: a folder for each split."""
    for split in HUB:
        folder = corpus / "default" / HUB[split]
        folder.mkdir(parents=True)
        table = table_of(corpus, split, stated=False)
        parquet.write_table(table, folder / "0000.parquet", row_group_size=2)


def beside(corpus):
    """Files that are named, not inside."""
    for split in HUB:
        table = table_of(corpus, split, lambda c, n: struct(c, n, False))
        parquet.write_table(table, corpus / f"{split}.parquet")


def named(corpus):
    """The same by a column of texts."""
    for split in HUB:
        table = table_of(corpus, split, lambda _, name: f"{name}.wav", False)
        table = table.drop_columns("path")
        parquet.write_table(table, corpus / f"{split}.parquet")


def plain_bytes(corpus):
    """Recordings without names."""
    for split in HUB:
        table = table_of(corpus, split, lambda c, n: struct(c, n)["bytes"])
        parquet.write_table(table, corpus / f"{split}.parquet")


def saved(corpus):
    """Arrow, as `save_to_disk` writes it."""
    for split in HUB:
        folder = corpus / HUB[split]
        folder.mkdir()
        table = table_of(corpus, split)
        place = str(folder / "data-00000-of-00001.arrow")
        with pa.ipc.new_stream(place, table.schema) as file:
            file.write_table(table, max_chunksize=1)


FORMS = pytest.mark.parametrize(
    "form", [hub, converted, beside, named, plain_bytes, saved]
)


def assert_same(folder, ids=True):
    """Compares what a folder gives with the corpus."""
    keys = {"asr": "wrd", "keyword_spotting": "label"}
    for task in TASKS:
        assert find_corpus(task, {}, folder) == "parquet"
        records = check_records(read_corpus(task, {}, folder))
        key = keys.get(task, "spk_id")
        place = {"wrd": 4, "label": 3, "spk_id": 2}[key]
        found = sorted((r["split"], r["spk_id"], r[key]) for r in records)
        assert found == sorted((r[0], r[2], r[place]) for r in ROWS)
        if ids:
            assert {r["ID"] for r in records} == {row[1] for row in ROWS}
        assert len({r["ID"] for r in records}) == len(ROWS)
        assert {r["duration"] for r in records} == {1.0}


@FORMS
def test_every_form_gives_the_same_records(form, corpus, cache):
    form(corpus)
    assert_same(corpus)
    assert cache.exists() == (form not in (beside, named))


def test_recordings_are_unpacked_once_for_each_content(corpus, cache):
    hub(corpus)
    records = list(read_corpus("asr", {}, corpus))
    times = {r["wav"]: cache.joinpath(r["wav"]).stat().st_ino for r in records}
    again = list(read_corpus("asr", {}, corpus))
    assert {
        r["wav"]: cache.joinpath(r["wav"]).stat().st_ino for r in again
    } == (times)
    assert len([*cache.iterdir()]) == 3
    parquet.write_table(
        table_of(corpus, "valid", lambda *_: {"bytes": b"RIFF", "path": None}),
        corpus / "data" / "train-00000-of-00001.parquet",
    )
    changed = {r["wav"] for r in read_corpus("asr", {}, corpus)}
    assert len([*cache.iterdir()]) == 4 and not changed <= set(times)


@pytest.mark.parametrize("way", ["to_parquet", "save_to_disk"])
def test_what_datasets_writes_is_read(way, corpus):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    kinds = {  # by cast: to encode takes torchcodec
        "audio": datasets.Audio(decode=False),
        "label": datasets.ClassLabel(names=WORDS),
    }
    both = datasets.DatasetDict()
    for split in HUB:
        rows = [row for row in ROWS if row[0] == split]
        found = datasets.Dataset.from_dict({
            "audio": [struct(corpus, row[1]) for row in rows],
            "text": [row[4] for row in rows], "speaker": [r[2] for r in rows],
            "label": [WORDS.index(row[3]) for row in rows],
        })  # fmt: skip
        for column, kind in kinds.items():
            found = found.cast_column(column, kind)
        both[HUB[split]] = found
        if way == "to_parquet":
            place = corpus / "data" / f"{HUB[split]}-00000-of-00001.parquet"
            found.to_parquet(place)
    if way == "save_to_disk":
        both.save_to_disk(corpus / "saved")
        corpus = corpus / "saved"
    assert_same(corpus, ids=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "place"), [(hub, "data/train-00000-of-00001.parquet"), (saved, "")]
)
def test_a_recipe_trains_on_it_to_its_end(
    form, place, corpus, tmp_path, monkeypatch
):
    form(corpus)
    monkeypatch.chdir(tmp_path)
    line = f"""keyword_spotting --data_folder={corpus} --model=tiny
        --num_classes=2 --number_of_epochs=2 --batch_size=2 --device=cpu
        --noprogressbar --output_folder=results"""
    scores = recipe(line.split())
    assert 0 <= scores["accuracy"] <= 1
    model = load("results/export")
    assert sorted(model.labels) == WORDS
    if place:  # recordings inside of the table are enough
        (row,) = parquet.read_table(corpus / place).slice(0, 1).to_pylist()
        path = tmp_path / "a.wav"
        path.write_bytes(row["audio"]["bytes"])
        assert model(path).label in WORDS


def test_data_check_counts_and_leads_to_the_recipe(corpus, capsys):
    hub(corpus)
    data(["check", str(corpus), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["form"] == "parquet" and not found["problems"]
    train = found["splits"]["train"]
    assert (train["utterances"], train["files"]) == (6, 6)
    assert train["labels"] == {"yes": 3, "no": 3}


def test_a_file_alone_has_its_splits_drawn(corpus):
    table = table_of(corpus, "train")
    parquet.write_table(table, corpus / "speech.parquet")
    records = read_corpus("asr", {"seed": 1}, corpus / "speech.parquet")
    assert {r["split"] for r in records} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audio": {"bytes": b"", "path": ""}}, "0000.parquet, row 1: no such"),
        ({"audio": {"bytes": None, "path": "gone.wav"}}, "'gone.wav'"),
        ({"audio": [0.1, 0.2]}, "expected recordings in the column audio as"),
        ({"sentence": None, "audio": {"path": "a.wav"}}, "no such file"),
    ],
)
def test_what_does_not_fit_is_named(change, said, corpus):
    table = table_of(corpus, "train", **change)
    if isinstance(change["audio"], list):
        table = table.drop_columns("path")
    parquet.write_table(table, corpus / "0000.parquet")
    with pytest.raises(ValueError) as caught:
        list(read_corpus("asr", {"seed": 1}, corpus))
    text = str(caught.value)
    assert said in text and text.isprintable() and len(text) < 400


@pytest.mark.parametrize("name", ["a.parquet", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1 no table PAR1", bytes(999)])
def test_a_file_that_is_no_table_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        list(read_corpus("asr", {"seed": 1}, tmp_path))
    text = str(caught.value)
    assert f"{name}: expected a table of Parquet" in text and "\n" not in text


def test_without_pyarrow_it_says_what_to_install(corpus, monkeypatch):
    hub(corpus)
    monkeypatch.setattr("unispeech_sb.environment.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"pip install 'unispeech_sb\[parquet"
    ):
        list(read_corpus("asr", {}, corpus))
