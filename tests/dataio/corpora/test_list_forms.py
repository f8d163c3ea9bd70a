"""One small corpus in every form of a list: all give the same records."""

import csv
import gzip
import json
import shutil

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from unispeech_sb.dataio.corpora import CORPORA, find_corpus, read_corpus
from unispeech_sb.dataio.manifest import check_records

RATE = 8000
ROWS = [
    (split, f"{speaker}{number}", speaker, word, text)
    for split, speakers in (("train", "abc"), ("valid", "d"), ("test", "e"))
    for speaker in speakers
    for number, (word, text) in enumerate((("yes", "so it is"), ("no", "né")))
]
"""Split, name, speaker, label, text."""
TASKS = ("asr", "keyword_spotting", "speaker_identification")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A folder with the recordings, of a second each."""
    folder = tmp_path_factory.mktemp("audio")
    draw = np.random.default_rng(0)
    for _, name, *_ in ROWS:
        noise = 0.1 * draw.normal(size=RATE)
        soundfile.write(folder / f"{name}.wav", noise, RATE)
    return folder


def write_table(path, header, rows, delimiter=","):
    """A CSV, or TSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header, *rows])


def write_lines(path, rows):
    """A JSON with an object on each line, packed where the name says so."""
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)


def by_split():
    """Split -> rows."""
    return {s: [r for r in ROWS if r[0] == s] for s, *_ in ROWS}


def manifest(folder):
    """Our own: a CSV with a column for the split."""
    rows = [(n, f"{n}.wav", s, p, w, t) for s, n, p, w, t in ROWS]
    header = ["id", "path", "split", "speaker", "label", "wrd"]
    write_table(folder / "manifest.csv", header, rows)


def table(folder):
    """The same as a TSV of another name, with other usual columns."""
    rows = [(n, f"{n}.wav", s, p, w, t) for s, n, p, w, t in ROWS]
    header = ["id", "file_name", "split", "speaker_id", "command", "text"]
    write_table(folder / "words.tsv", header, rows, "\t")


def speechbrain_csv(folder):
    """As SpeechBrain's recipes prepare them."""
    header = ["ID", "duration", "wav", "spk_id", "label", "wrd"]
    for split, rows in by_split().items():
        rows = [
            (n, 1.0, f"$data_root/{n}.wav", p, w, t) for _, n, p, w, t in rows
        ]
        write_table(folder / f"{split}.csv", header, rows)


def speechbrain_json(folder):
    """The same as JSON, with samples of whole files."""
    for split, rows in by_split().items():
        found = {
            n: {
                "wav": {"file": f"{{data_root}}/{n}.wav", "stop": RATE},
                "duration": 1.0, "spk_id": p, "label": w, "words": t,
            }
            for _, n, p, w, t in rows
        }  # fmt: skip
        text = json.dumps(found, indent=2)
        (folder / f"{split}.json").write_text(text, encoding="utf-8")


def nemo(folder):
    """NeMo's manifests."""
    for split, rows in by_split().items():
        write_lines(folder / f"{split}_manifest.json", [
            {"audio_filepath": f"{n}.wav", "duration": 1.0, "text": t,
             "speaker": p, "command": w, "id": n} for _, n, p, w, t in rows
        ])  # fmt: skip


def recording(folder, name):
    """A recording as Lhotse's ``Recording.from_file(...).to_dict()``."""
    source = {"type": "file", "channels": [0], "source": f"{name}.wav"}
    return {
        "id": f"r-{name}", "sources": [source], "sampling_rate": RATE,
        "num_samples": RATE, "duration": 1.0, "channel_ids": [0],
    }  # fmt: skip


def supervision(name, speaker, word, text, **own):
    """One as Lhotse's ``SupervisionSegment.to_dict()``."""
    return {
        "id": name, "recording_id": f"r-{name}", "start": 0.0, "duration": 1.0,
        "channel": 0, "text": text, "speaker": speaker,
        "custom": {"label": word}, **own,
    }  # fmt: skip


def lhotse(folder):
    """Lhotse's recordings and supervisions."""
    for split, rows in by_split().items():
        write_lines(
            folder / f"my_recordings_{split}.jsonl.gz",
            [recording(folder, n) for _, n, *_ in rows],
        )
        write_lines(
            folder / f"my_supervisions_{split}.jsonl.gz",
            [supervision(n, p, w, t) for _, n, p, w, t in rows],
        )


def lhotse_cuts(folder):
    """Lhotse's cuts."""
    for split, rows in by_split().items():
        write_lines(folder / f"cuts_{split}.jsonl.gz", [
            {"id": f"c-{n}", "start": 0.0, "duration": 1.0, "channel": 0,
             "supervisions": [supervision(n, p, w, t)],
             "recording": recording(folder, n), "type": "MonoCut"}
            for _, n, p, w, t in rows
        ])  # fmt: skip


def audiofolder(folder):
    """Hugging Face's audiofolder: a folder and its metadata for each split."""
    names = {"train": "train", "valid": "validation", "test": "test"}
    header = ["id", "file_name", "speaker", "label", "transcription"]
    for split, rows in by_split().items():
        inner = folder / "data" / names[split]
        inner.mkdir(parents=True)
        for _, name, *_ in rows:
            shutil.move(folder / f"{name}.wav", inner)
        rows = [(n, f"{n}.wav", p, w, t) for _, n, p, w, t in rows]
        write_table(inner / "metadata.csv", header, rows)


def audiofolder_jsonl(folder):
    """The same with one list above the splits."""
    for split, name, *_ in ROWS:
        (folder / split).mkdir(exist_ok=True)
        shutil.move(folder / f"{name}.wav", folder / split)
    write_lines(folder / "metadata.jsonl", [
        {"id": n, "file_name": f"{s}/{n}.wav", "speaker": p, "label": w,
         "text": t, "nested": {"a": 1}} for s, n, p, w, t in ROWS
    ])  # fmt: skip


def kaldi(folder):
    """Kaldi folders, with another for the labels."""
    for split, rows in by_split().items():
        inner = folder / f"{split}_words"
        inner.mkdir()
        for name, lines in {
            "wav.scp": [f"{n} ../{n}.wav" for _, n, *_ in rows],
            "text": [f"{n} {t}" for _, n, _, _, t in rows],
            "utt2spk": [f"{n} {p}" for _, n, p, *_ in rows],
            "utt2label": [f"{n} {w}" for _, n, _, w, _ in rows],
        }.items():
            (inner / name).write_text("\n".join(lines) + "\n", "utf-8")


FORMS = {
    manifest: "csv", table: "table", speechbrain_csv: "speechbrain",
    speechbrain_json: "speechbrain", nemo: "nemo", lhotse: "lhotse",
    lhotse_cuts: "lhotse", audiofolder: "audiofolder",
    audiofolder_jsonl: "audiofolder", kaldi: "kaldi",
}  # fmt: skip


@pytest.fixture
def build(audio, tmp_path):
    """A function that writes the corpus in a form; its folder."""

    def write(form):
        shutil.copytree(audio, tmp_path / "corpus")
        form(tmp_path / "corpus")
        return tmp_path / "corpus"

    return write


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_records(build, form):
    folder = build(form)
    keys = {"asr": "wrd", "keyword_spotting": "label"}
    for task in TASKS:
        assert find_corpus(task, {}, folder) == FORMS[form]
        records = check_records(read_corpus(task, {}, folder))
        key = keys.get(task, "spk_id")
        place = {"wrd": 4, "label": 3, "spk_id": 2}[key]
        found = {r["ID"]: (r["split"], r["spk_id"], r[key]) for r in records}
        assert found == {row[1]: (row[0], row[2], row[place]) for row in ROWS}
        assert {r["duration"] for r in records} == {1.0}


@pytest.mark.parametrize("form", [speechbrain_csv, speechbrain_json])
def test_speechbrain_reads_the_same_files(build, form):
    folder = build(form)
    kind = "csv" if form is speechbrain_csv else "json"
    read = getattr(DynamicItemDataset, f"from_{kind}")
    theirs = read(folder / f"train.{kind}", {"data_root": str(folder)})
    ours = [r for r in read_corpus("asr", {}, folder) if r["split"] == "train"]
    assert set(theirs.data) == {record["ID"] for record in ours}
    for record in ours:
        row = theirs.data[record["ID"]]
        wav = row["wav"] if kind == "csv" else row["wav"]["file"]
        assert record["wav"] == wav
        assert record["wrd"] == row["wrd" if kind == "csv" else "words"]


@pytest.mark.parametrize("name", ["alice", "yes"])
def test_folders_are_classes_or_speakers(audio, tmp_path, name):
    for folder in (name, "bob"):
        for row in range(4):
            place = tmp_path / folder / "deep" / f"{row}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(audio / "a0.wav", place)
    (tmp_path / "_background_noise_").mkdir()
    shutil.copy(audio / "a0.wav", tmp_path / "_background_noise_")
    if name == "yes":  # the noise alone makes it Speech Commands
        shutil.rmtree(tmp_path / "_background_noise_")
    for task, key in (
        ("keyword_spotting", "label"), ("speaker_identification", "spk_id"),
    ):  # fmt: skip
        assert find_corpus(task, {}, tmp_path) == "class_folders"
        records = read_corpus(task, {}, tmp_path)
        assert {r[key] for r in records} == {name, "bob"}
        assert len({r["ID"] for r in records}) == 8


def test_classes_may_be_in_folders_of_splits(audio, tmp_path):
    for split in ("train-small", "dev", "test"):
        for word in ("yes", "no"):
            place = tmp_path / split / word
            place.mkdir(parents=True)
            shutil.copy(audio / "a0.wav", place / "ann_nohash_0.wav")
            shutil.copy(audio / "a0.wav", place / "ann_nohash_0.WAV")
    records = read_corpus("emotion_recognition", {}, tmp_path)
    assert {(r["split"], r["label"]) for r in records} == {
        (split, word) for split in ("train", "valid", "test")
        for word in ("yes", "no")
    }  # fmt: skip
    assert {r["spk_id"] for r in records} == {"ann"}
    assert len({r["ID"] for r in records}) == len(records) == 12


def test_lists_of_two_forms_are_a_question(build):
    folder = build(speechbrain_csv)
    nemo(folder)
    with pytest.raises(ValueError) as error:
        find_corpus("asr", {}, folder)
    said = str(error.value)
    for name in ("speechbrain", "nemo"):
        assert f"{CORPORA[name].layout} ({name})" in said
    assert "choose by --corpus=speechbrain or another" in said
    records = read_corpus("asr", {"corpus": "nemo"}, folder)
    assert len(records) == len(ROWS)


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_of_nothing_names_the_forms(task, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="none of them") as error:
        read_corpus(task, {}, tmp_path)
    for name in {*FORMS.values()}:
        assert CORPORA[name].layout in str(error.value)


def test_text_of_windows_is_read(build):
    folder = build(lambda _: None)
    lines = ["\ufeffpath;text;speaker", "sub\\a0.wav;né;a", "b0.wav;so;b"]
    (folder / "sub").mkdir()
    shutil.move(folder / "a0.wav", folder / "sub")
    (folder / "list.csv").write_bytes("\r\n".join(lines).encode())
    found = {r["wav"]: r["wrd"] for r in read_corpus("asr", {}, folder)}
    assert found == {
        str(folder / "sub" / "a0.wav"): "né", str(folder / "b0.wav"): "so",
    }  # fmt: skip
    (folder / "list.csv").write_bytes(
        "path,text\na0.wav,né\n".encode("latin-1")
    )
    with pytest.raises(
        ValueError, match="list.csv, line 2: expected text in U"
    ):
        read_corpus("asr", {}, folder)


def test_paths_may_begin_elsewhere(build, tmp_path):
    folder = build(speechbrain_csv)
    lists = tmp_path / "elsewhere" / "lists"
    lists.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        shutil.move(folder / f"{split}.csv", lists)
    with pytest.raises(ValueError, match="train.csv, line 2: no such file"):
        list(read_corpus("asr", {}, lists))
    records = read_corpus("asr", {"wav_root": folder}, lists)
    assert {r["wav"] for r in records} == {
        str(folder / f"{n}.wav") for _, n, *_ in ROWS
    }


@pytest.mark.parametrize(
    ("name", "row", "stretch"),
    [
        ("train.csv", "u,1,a0.wav,400,800", (400, 800)),
        (
            "train.jsonl",
            {"wav": "a0.wav", "start": 0.05, "stop": 0.1},
            (400, 800),
        ),
        (
            "train_manifest.json",
            {"audio_filepath": "a0.wav", "offset": 0.05, "duration": 0.05},
            (400, 800),
        ),
    ],
)
def test_a_stretch_is_in_the_unit_of_its_form(build, name, row, stretch):
    folder = build(lambda _: None)
    if isinstance(row, str):
        text = f"ID,duration,wav,start,stop\n{row}\nv,1,b0.wav,,\n"
        (folder / name).write_text(text)
    else:
        other = {k: v for k, v in row.items() if k[0] in "wa"}
        other = dict.fromkeys(other, "b0.wav")
        write_lines(folder / name, [row, other])
    records = {r["wav"]: r for r in read_corpus("asr", {}, folder)}
    first = records[str(folder / "a0.wav")]
    assert (first["start"], first["stop"]) == stretch
    assert "start" not in records[str(folder / "b0.wav")]


def test_a_cut_is_a_stretch_of_its_recording(build):
    folder = build(lambda _: None)
    two = [
        supervision("u1", "a", "yes", "so", start=-0.25, duration=0.5),
        supervision("u2", "b", "no", "is", start=0.25, duration=0.25),
    ]
    write_lines(folder / "cuts.jsonl.gz", [
        {"id": "c", "start": 0.5, "duration": 0.5, "supervisions": two,
         "recording": recording(folder, "a0"), "type": "MonoCut"},
        {"id": "whole", "start": 0.0, "duration": 1.0, "supervisions": [],
         "recording": recording(folder, "b0"), "type": "MonoCut"},
    ])  # fmt: skip
    records = {r["ID"]: r for r in read_corpus("anything", {}, folder)}
    found = [(records[n]["start"], records[n]["stop"]) for n in ("u1", "u2")]
    assert found == [(2000, 6000), (6000, 8000)]
    assert records["whole"]["stop"] == RATE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": [{"type": "command", "source": "cat a |"}]}, "'command'"),
        ({"sources": [{"type": "url", "source": "http://a"}]}, "type 'url'"),
        ({"transforms": [{"name": "Speed"}]}, "without transforms"),
        ({"channel_ids": [0, 1]}, "of one channel"),
        ({"sources": "a.wav"}, "that is one file"),
    ],
)
def test_what_lhotse_can_and_we_cannot_is_refused(build, change, message):
    folder = build(lambda _: None)
    cut = {"id": "c", "start": 0.0, "duration": 1.0, "type": "MonoCut",
           "supervisions": [supervision("a0", "a", "yes", "so")],
           "recording": recording(folder, "a0") | change}  # fmt: skip
    write_lines(folder / "cuts.jsonl", [cut])
    with pytest.raises(ValueError, match=f"cuts.jsonl, line 1: .*{message}"):
        list(read_corpus("asr", {}, folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.json", "{", "train.json: expected JSON"),
        ("train.json", "[1]", "expected JSON of names and what they have"),
        ("train.json", '{"a": 1}', "'a': expected an object, got 1"),
        ("train.json", '{"a": {}, "a": {}}', "the name a occurs twice"),
        ("train.json", '{"a": {"words": "x"}}', "expected a column path or"),
        ("m.json", '{"audio_filepath": "a0.wav"}\n[]', "m.json, line 2: exp"),
        ("m.json", '{"audio_filepath": "no.wav"}', "line 1: no such file"),
        (
            "m.json", '{"audio_filepath": "a0.wav", "offset": "x"}',
            "line 1: expected seconds, got 'x'",
        ),
        ("train.csv", "ID,duration,wav,start\na,1,a0.wav,0.5\n", "of samples"),
        ("x.csv", "path,text,transcript,split\na0.wav,a,b,eval\n", "'eval'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_list_is_named(build, name, text, message):
    folder = build(lambda _: None)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_corpus("asr", {}, folder))


def test_texts_are_kept_as_they_are_called(build):
    folder = build(lambda _: None)
    write_table(
        folder / "x.csv", ["path", "text", "sentence", "intent", "emotion"],
        [("a0.wav", "A", "b", "go", "sad"), ("b0.wav", "C", "d", "no", "sad")],
    )  # fmt: skip
    (first, _) = read_corpus("asr", {"text_column": "text"}, folder)
    assert first["text"] == "A" and "wrd" not in first
    (first, _) = read_corpus("intent_classification", {}, folder)
    assert (first["intent"], first["emotion"]) == ("go", "sad")
    with pytest.raises(
        ValueError, match="one column for label, got intent and"
    ):
        list(read_corpus("keyword_spotting", {}, folder))
