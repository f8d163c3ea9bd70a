"""Lists of recordings as other toolkits and people have them: SpeechBrain's CSV
and JSON, NeMo's and Lhotse's JSON lines, Hugging Face's audiofolder, one CSV or
TSV, a folder for each class.

A form gives ``Row``s. Splits are by the names of files and folders; without
any, ``dataio.splits`` makes them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.containers import (
    OTHER_SUFFIXES,
    SUFFIXES,
    is_recording,
    recordings_below,
)
from unispeech_sb.dataio.corpora.csv_table import (
    COLUMNS,
    Row,
    Wanted,
    csv_rows,
    find_table,
    header_of,
    records_of,
)
from unispeech_sb.dataio.corpora.kaldi import SPLIT_WORDS, words_of
from unispeech_sb.dataio.manifest import SPLITS
from unispeech_sb.text import lines_of, named, read_text

_TABLES, _JSON = (".csv", ".tsv"), (".json", ".jsonl")
_SPEECHBRAIN = {"ID", "duration", "wav"}
"""Columns of SpeechBrain's CSVs, whose start and stop are samples."""
_NO_CLASS = "_background_noise_"
_AUDIO = SUFFIXES + OTHER_SUFFIXES

LABELLED = ("keyword_spotting", "emotion_recognition")
"""Tasks that need the column ``label_column``."""
SPEAKERS = ("speaker_identification", "speaker_verification")
ANYTHING = "anything"
"""The task that takes what there is, to look at it."""

Rows = Callable[[Path, Wanted], Iterable[Row]]


def form_readers(rows: Rows) -> dict[str, Any]:
    """Task -> what reads the records of a form, of a path and the yaml."""

    def reader(*needed, label=False, text=False, speaker=False):
        def read_records(path, hparams):
            column = hparams.get("label_column") or "label"
            wanted = Wanted(
                ("wav", *needed),
                column if label else None,
                text,
                speaker,
                hparams.get("wav_root"),
                faults=hparams.get("faults"),
            )
            return records_of(rows(Path(path), wanted), wanted)

        return read_records

    texts, labels = reader(text=True), reader("label", label=True)
    return {
        **dict.fromkeys(("asr", "phoneme", "slot_filling"), texts),
        **dict.fromkeys(LABELLED, labels),
        **dict.fromkeys(SPEAKERS, reader(speaker=True)),
        "intent_classification": reader(),
        ANYTHING: reader(label=True, text=True),
    }


def split_in(names: Iterable[str]) -> str:
    """The split that the first of some names stands for, or empty."""
    return next((SPLIT_WORDS[n] for n in names if n in SPLIT_WORDS), "")


def is_csv(path):
    """Whether a path is a file, of no other form, or has ``manifest.csv``."""
    path = Path(path)
    if path.is_file():
        return not (is_split_tables(path) or is_nemo(path) or is_lhotse(path))
    return (path / "manifest.csv").is_file()


def is_split_tables(path):
    """Whether a folder has train.csv, or .json, ..., or a file is SpeechBrain's
    own: a JSON, or a CSV with its columns and no splits."""
    path = Path(path)
    if path.is_file():
        return _kind(path) == "json" or _is_speechbrain_csv(path)
    return "train" in {s for _, s in _split_files(path, "table", "json")}


def is_table(path):
    """Whether a folder has one CSV or TSV, and nothing that says more."""
    return Path(path).is_dir() and _only_table(Path(path)) is not None


def is_nemo(path):
    """Whether a path is a manifest of NeMo's, or a folder with one."""
    return bool(_split_files(Path(path), "nemo"))


def is_lhotse(path):
    """Whether a path is a list of Lhotse's cuts, or a folder with cuts, or with
    recordings and supervisions."""
    kinds = {_kind(f) for f, _ in _split_files(Path(path), *_LHOTSE)}
    return "cuts" in kinds or {"recordings", "supervisions"} <= kinds


def is_audiofolder(path):
    """Whether a folder has Hugging Face's ``metadata.csv`` or ``.jsonl``."""
    return Path(path).is_dir() and bool(_metadata(Path(path)))


def is_class_folders(path):
    """Whether a folder has two folders or more with recordings in them, which
    are classes, or such folders in folders that are splits."""
    path = Path(path)
    if not path.is_dir() or _has_recordings(path, deep=False):
        return False
    return len({name for name, *_ in _classes(path)}) > 1


def split_table_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of SpeechBrain's CSVs and JSONs, or of any tables that are splits.

    Start and stop are samples in SpeechBrain's, seconds in others.
    """
    for file, split in _split_files(path, "table", "json"):
        if _kind(file) == "table":
            samples = _is_speechbrain_csv(file)
            yield from csv_rows(file, wanted, split, samples)
        else:
            yield from _json_rows(file, split)


def table_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of one CSV or TSV, or of a JSON with an object on each line."""
    file = (path.is_dir() and _only_table(path)) or Path(find_table(path))
    if _kind(file) == "json":
        yield from _json_rows(file)
    else:
        yield from csv_rows(file, wanted)


def nemo_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of NeMo's manifests: audio_filepath, offset, duration, text."""
    for file, split in _split_files(path, "nemo"):
        for where, entry in _objects(file):
            fields = _texts(entry)
            begin = fields.pop("offset", "")
            if begin:
                fields |= _stretch(begin, fields.get("duration"), where)
            yield Row(where, fields, file.absolute().parent, split)


def lhotse_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of Lhotse's supervisions, in cuts or beside recordings."""
    files = _split_files(path, *_LHOTSE)
    cuts = [(file, split) for file, split in files if _kind(file) == "cuts"]
    if cuts:
        for file, split in cuts:
            for where, cut in _objects(file):
                yield from _of_cut(cut, where, file, split)
        return
    for file, split in files:
        if _kind(file) != "supervisions":
            continue
        beside = file.with_name(file.name.replace("supervisions", "recordings"))
        if beside not in {f for f, _ in files}:
            raise ValueError(
                f"{file}: expected {beside.name} beside it, with its recordings"
            )
        known = {r.get("id"): r for _, r in _objects(beside)}
        for where, entry in _objects(file):
            recording = known.get(entry.get("recording_id"))
            if recording is None:
                raise ValueError(
                    f"{where}: expected a recording of {beside}, got "
                    f"{entry.get('recording_id')!r:.60}"
                )
            yield _of_supervision(entry, recording, 0.0, where, file, split)


def audiofolder_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of Hugging Face's metadata; splits are folders."""
    for file in _metadata(path):
        if _kind(file) == "table":
            rows = csv_rows(file, wanted)
        else:
            rows = _json_rows(file)
        for row in rows:
            name = row.fields.get("file_name") or ""
            inner = file.parent.relative_to(path) / name
            yield row._replace(split=split_in(inner.parts[:-1]))


def class_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of a folder for each class; ``<speaker>_nohash_<n>`` names the
    speaker, as in Speech Commands."""
    path = path.absolute()
    for name, folder, split in _classes(path):
        files = recordings_below(folder, _AUDIO)
        stems = Counter(file.with_suffix("") for file in files)
        for file in files:
            inner = file.relative_to(path)
            if stems[file.with_suffix("")] == 1:
                inner = inner.with_suffix("")
            speaker, mark, _ = file.stem.partition("_nohash_")
            fields = {
                "ID": inner.as_posix().replace("/", "_"),
                "wav": str(file),
                "label": name,
            }
            fields |= {"spk_id": speaker} if mark else {}
            yield Row(str(file), fields, path, split)


def _kind(path):
    """What a list is, by its suffix and, of JSON, by its first line."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (*_TABLES, *_JSON) or not path.is_file():
        return None
    if suffix in _TABLES:
        return "table"
    for kind, keys in _MARKS.items():
        if keys <= _first_object(path).keys():
            return kind
    return "json"


_LHOTSE = ("cuts", "recordings", "supervisions")
_MARKS = {
    "nemo": {"audio_filepath"},
    "cuts": {"id", "start", "duration", "supervisions"},
    "recordings": {"id", "sources", "sampling_rate"},
    "supervisions": {"id", "recording_id", "start", "duration"},
}
"""Kind of a JSON with an object on each line -> keys of an object."""


def _first_object(path):
    """The object on the first line of a file; empty where there is none."""
    line = next((line for _, line in lines_of(path) if line.strip()), "")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _split_files(path, *kinds):
    """The lists of some kinds at a path, and their splits, sorted.

    A name that is that of a split goes before those that only contain one, as
    train.csv before train-clean-100.csv; names without one count where none
    has one.
    """
    if path.is_file():
        return [(path, "")] if _kind(path) in kinds else []
    found: dict[str, list[Path]] = {}
    for file in sorted(path.glob("[!.]*")) if path.is_dir() else ():
        if _kind(file) in kinds and not _is_metadata(file):
            split = split_in(words_of(file.name.lower()))
            found.setdefault(split, []).append(file)
    if kinds[0] == "table" or len(found) > 1:
        found.pop("", None)
    return [
        (file, split)
        for split in ("", *SPLITS)
        for file in _exact(found.get(split, ()), split) or found.get(split, ())
    ]


def _exact(files, split):
    """Those of some files that are called as a split is."""
    names = {file: file.name.lower().partition(".")[0] for file in files}
    return [f for f, name in names.items() if split and name in SPLIT_WORDS]


def _only_table(folder):
    """``manifest.csv``, or the one CSV or TSV of a folder with recordings."""
    if (folder / "manifest.csv").is_file():
        return None
    files = [
        file
        for file in folder.glob("[!.]*")
        if _kind(file) == "table" and not _is_metadata(file)
    ]
    if len(files) != 1 or _split_files(folder, "table"):
        return None
    names = {name.lower() for name in header_of(files[0])}
    has_paths = any(names & set(group) for group in COLUMNS["wav"])
    return files[0] if has_paths else None


def _is_speechbrain_csv(path):
    """Whether a file is a CSV with SpeechBrain's columns, and no splits."""
    if _kind(path) != "table":
        return False
    names = set(header_of(path))
    return names >= _SPEECHBRAIN and "split" not in names


def _is_metadata(path):
    """Whether a file is Hugging Face's metadata, which name files."""
    if path.name == "metadata.csv":
        return "file_name" in header_of(path)
    return path.name == "metadata.jsonl" and "file_name" in _first_object(path)


def _metadata(folder):
    """The metadata of a folder, or those of the folders in it."""
    for pattern in ("metadata.*", "*/metadata.*", "*/*/metadata.*"):
        found = [f for f in sorted(folder.glob(pattern)) if _is_metadata(f)]
        if found:
            return found
    return []


def _classes(path):
    """Yields class, its folder and its split."""
    folders = [f for f in sorted(path.glob("[!.]*")) if f.is_dir()]
    splits = [(f, split_in(words_of(f.name.lower())[:1])) for f in folders]
    if folders and all(split for _, split in splits):
        for folder, split in splits:
            for name, inner, _ in _classes(folder):
                yield name, inner, split
        return
    for folder in folders:
        if folder.name != _NO_CLASS and _has_recordings(folder):
            yield folder.name, folder, ""


def _has_recordings(folder, deep=True):
    """Whether there is a recording in a folder, or deeper in it."""
    files = folder.rglob("*") if deep else folder.glob("*")
    return any(is_recording(f.relative_to(folder), _AUDIO) for f in files)


def _json_rows(path, split=""):
    """Yields the rows of a JSON: an object on each line, or SpeechBrain's ID ->
    object."""
    home = path.absolute().parent
    if any(name in _first_object(path) for g in COLUMNS["wav"] for name in g):
        for where, entry in _objects(path):
            yield Row(where, _texts(entry), home, split)
        return
    try:
        found = json.loads(read_text(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error!s:.100})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected JSON of names and what they have")
    for name, entry in found.items():
        where = f"{path}, {name!r:.60}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object, got {entry!r:.60}")
        fields = {"ID": name, **_texts(entry)}
        wav = entry.get("wav")
        if isinstance(wav, dict):  # a file with start and stop
            inner = {("wav" if k == "file" else k): v for k, v in wav.items()}
            fields |= _texts(inner)
        yield Row(where, fields, home, split, in_samples=True)


def _objects(path):
    """Yields place and object of each line of a file."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: expected an object of JSON ({error!s:.100})"
            ) from error
        if not isinstance(found, dict):
            raise ValueError(f"{where}: expected an object of JSON")
        yield where, found


def _unique(pairs):
    """A dict of JSON, whose keys have to differ."""
    names = Counter(name for name, _ in pairs)
    again = [name for name, count in names.items() if count > 1]
    if again:
        raise ValueError(f"the name {named(again)} occurs twice")
    return dict(pairs)


def _texts(entry):
    """The entries of an object that are texts or numbers, as texts."""
    found = {}
    for key, value in entry.items():
        if value is None:
            found[key] = ""
        elif isinstance(value, str | int | float):
            found[key] = str(value)
    return found


def _stretch(begin, duration, where):
    """Start and stop, by a start and a duration in seconds."""
    try:
        start = float(begin)
        times = {"start": str(start)}
        if duration not in (None, ""):
            times["stop"] = str(start + float(duration))
    except ValueError as error:
        raise ValueError(
            f"{where}: expected seconds, got {begin!r:.60} and {duration!r:.60}"
        ) from error
    return {**times, "duration": ""}


def _of_cut(cut, where, file, split):
    """Yields the rows of one of Lhotse's cuts, a supervision each; one without
    any is a row, too."""
    recording = cut.get("recording")
    if not isinstance(recording, dict):
        raise ValueError(
            f"{where}: expected a cut with its recording, got "
            f"{cut.get('type', 'none')!r:.60}"
        )
    begin, known = _number(cut, "start", where), cut.get("supervisions") or []
    whole = {"id": cut.get("id"), "start": 0.0, "duration": cut["duration"]}
    for entry in known or [whole]:
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected supervisions to be objects")
        yield _of_supervision(entry, recording, begin, where, file, split)


def _of_supervision(entry, recording, begin, where, file, split):
    """The row of a stretch of a recording of Lhotse's."""
    sources = recording.get("sources")
    source: Any = sources[0] if isinstance(sources, list) and sources else {}
    kind = source.get("type") if isinstance(source, dict) else None
    if kind != "file" or len(sources) > 1 or recording.get("transforms"):
        raise ValueError(
            f"{where}: expected a recording that is one file, without "
            f"transforms; got a source of type {kind!r:.60}"
        )
    if len(recording.get("channel_ids") or source.get("channels") or [0]) > 1:
        raise ValueError(
            f"{where}: expected a recording of one channel; supervisions of "
            "several are not told apart"
        )
    start = begin + _number(entry, "start", where)
    custom = entry.get("custom")
    fields = _texts(custom if isinstance(custom, dict) else {}) | _texts(entry)
    fields |= {"wav": str(source.get("source")), "start": str(max(start, 0.0))}
    fields["stop"] = str(start + _number(entry, "duration", where))
    fields["duration"] = ""
    return Row(where, fields, file.absolute().parent, split)


def _number(entry, key, where):
    """A number of an object."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(
            f"{where}: expected seconds in {key!r}, got {value!r:.60}"
        )
    return value
