"""Data sets of Hugging Face as files of tables: Parquet, as on the hub, and
Arrow, as ``save_to_disk`` writes it.

Recordings inside of them are unpacked once, into a cache; files that are named
stay where they are. Splits are by the names of files or folders.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from unispeech_sb.atomic import cached_folder, temporary_folder
from unispeech_sb.dataio.audio import OTHER_SUFFIXES, SUFFIXES
from unispeech_sb.dataio.corpora.csv_table import COLUMNS, Row, Wanted
from unispeech_sb.dataio.corpora.kaldi import SPLIT_WORDS, words_of
from unispeech_sb.environment import require_extra

_PATTERNS = ("*.parquet", "data-*.arrow")
_BATCH_ROWS = 64  # whose recordings are in memory
_MAGIC = {
    b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3",
    b"\xff\xfb": ".mp3", b"\xff\xf3": ".mp3", b"FORM": ".aiff",
}  # fmt: skip
"""How a recording begins -> suffix, where its name has none."""
_WAV = {name for group in COLUMNS["wav"] for name in group}


def is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet or Arrow file, or a folder with some in it or
    up to two folders deeper."""
    return bool(_files(Path(path)))


def parquet_rows(path: Path, wanted: Wanted) -> Iterator[Row]:
    """Rows of all files; of labels that are numbers, the names."""
    files = _files(path)
    require_extra("pyarrow", "parquet", f"{files[0]}: a table of Hugging Face")
    from pyarrow import ArrowException

    for file in files:
        try:
            yield from _rows(file, path)
        except ArrowException as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{file}: expected a table of Parquet or Arrow ({reason:.100})"
            ) from error


def _files(path):
    """The files at a path, or of the highest folders with any, sorted."""
    if path.is_file():
        return [path] if any(path.match(name) for name in _PATTERNS) else []
    for depth in ("", "*/", "*/*/"):
        found = [f for n in _PATTERNS for f in path.glob(f"{depth}{n}")]
        found = [f for f in found if not f.name.startswith(".")]
        if found:
            return sorted(found)
    return []


def _split_of(file, path):
    """The split in the name of a file, else in that of a folder above it."""
    inner = file.relative_to(path) if file != path else Path(file.name)
    for name in reversed(inner.parts):
        for word in words_of(name.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return ""


def _rows(file, path):
    """Yields the rows of a file."""
    schema = _schema(file)
    audio, names = _audio_column(schema, file), _class_names(schema)
    unpacked = _unpacked(file, audio) if audio else {}
    home, split = file.absolute().parent, _split_of(file, path)
    stem = "_".join(file.relative_to(path).parts) if file != path else file.name
    for number, entry in enumerate(_entries(file, schema, audio)):
        place = entry.pop(audio, None)
        fields = _texts(entry, names)
        if audio:
            fields = {k: v for k, v in fields.items() if k.lower() not in _WAV}
            fields["wav"] = unpacked.get(number) or place or ""
        if "id" not in map(str.lower, fields):
            fields["ID"] = f"{stem.rpartition('.')[0]}_{number}"
        yield Row(f"{file}, row {number + 1}", fields, home, split)


def _schema(file):
    """Columns and their types."""
    import pyarrow as pa
    from pyarrow import parquet

    if file.suffix == ".parquet":
        return parquet.read_schema(file)
    with (
        pa.memory_map(str(file)) as mapped,
        pa.ipc.open_stream(mapped) as table,
    ):
        return table.schema


def _batches(file, columns=None):
    """Yields some columns of a few rows at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    if file.suffix == ".parquet":
        with parquet.ParquetFile(file) as table:
            yield from table.iter_batches(_BATCH_ROWS, columns=columns)
        return
    with (
        pa.memory_map(str(file)) as mapped,
        pa.ipc.open_stream(mapped) as table,
    ):
        for batch in table:
            for start in range(0, len(batch), _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)


def _entries(file, schema, audio):
    """Yields the rows of a file, without the content of recordings."""
    columns = [name for name in schema.names if name != audio]
    inner = audio and _fields_of(schema.field(audio).type)
    paths = [f"{audio}.path"] if inner and "path" in inner else []
    for batch in _batches(file, columns + paths):
        lists = {name: batch.column(name).to_pylist() for name in columns}
        if paths:
            lists[audio] = _paths(batch, audio)
        for place in range(len(batch)):
            yield {name: values[place] for name, values in lists.items()}


def _fields_of(kind):
    """The names in a type, if it is one of several."""
    from pyarrow import types

    if not types.is_struct(kind):
        return []
    return [kind.field(place).name for place in range(kind.num_fields)]


def _audio_column(schema, file):
    """The column with recordings; None where files are named instead."""
    from pyarrow import types

    stated = _features(schema)
    kinds = {name: schema.field(name).type for name in schema.names}
    inside = {
        name
        for name, kind in kinds.items()
        if types.is_binary(kind)
        or types.is_large_binary(kind)
        or not {"bytes", "path"}.isdisjoint(_fields_of(kind))
    }
    known = {n for n in kinds if stated.get(n, {}).get("_type") == "Audio"}
    found = sorted(known or inside)
    if len(found) > 1 and "audio" not in found:
        raise ValueError(
            f"{file}: expected one column of recordings, or one that is called "
            f"audio; got {' and '.join(found)}"
        )
    name = "audio" if "audio" in found else next(iter(found), None)
    if name in inside:
        return name
    if name and not types.is_string(kinds[name]):
        raise ValueError(
            f"{file}: expected recordings in the column {name} as bytes or "
            f"paths; got {kinds[name]!s:.60}"
        )
    return None


def _features(schema):
    """Column -> what the library ``datasets`` states of it."""
    try:
        stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        found = stated["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)}


def _class_names(schema):
    """Column -> names of its numbers."""
    return {
        column: stated["names"]
        for column, stated in _features(schema).items()
        if stated.get("_type") == "ClassLabel"
    }


def _texts(entry, names):
    """What of a row is text or number, as text."""
    found = {}
    for key, value in entry.items():
        if key in names and value is not None:
            is_one = 0 <= value < len(names[key])  # -1 is none, in tests
            value = names[key][value] if is_one else None
        if value is None or isinstance(value, str | int | float):
            found[key] = "" if value is None else str(value)
    return found


def _unpacked(file, audio):
    """Row -> path of its recording, where the file has some inside of it."""
    first = next(_batches(file, [audio]), None)
    if first is None or not any(_contents(first, audio)):
        return {}
    state = file.resolve().stat()
    key = f"{file.resolve()} {audio} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    name = f"{file.stem[:80]}-{digest}"
    make = partial(_unpack, file, audio)
    folder = cached_folder("recordings", name, make, f"{file}: unpacked to")
    return {int(found.stem): str(found) for found in folder.iterdir()}


def _unpack(file, audio, folder):
    """Writes the recordings of a file as files of a folder."""
    rows = chain.from_iterable(
        zip(_contents(batch, audio), _paths(batch, audio))
        for batch in _batches(file, [audio])
    )
    with temporary_folder(folder) as draft:
        for number, (content, place) in enumerate(rows):
            if content:
                name = f"{number:07d}{_suffix_of(content, place or '')}"
                (draft / name).write_bytes(content)
        draft.rename(folder)


def _paths(batch, audio):
    """The names of the recordings of some rows, where there are some."""
    if "path" not in _fields_of(batch.column(audio).type):
        return [None] * len(batch)
    return batch.column(audio).field("path").to_pylist()


def _contents(batch, audio):
    """The recordings of some rows, as bytes or None."""
    column = batch.column(audio)
    names = _fields_of(column.type)
    if names:
        column = column.field("bytes") if "bytes" in names else None
    return [None] * len(batch) if column is None else column.to_pylist()


def _suffix_of(content, name):
    """The suffix of a recording: of its name, else by how it begins."""
    suffix = Path(name).suffix.lower()
    if suffix in SUFFIXES + OTHER_SUFFIXES:
        return suffix
    if content[4:8] == b"ftyp":
        return ".m4a"
    return next(
        (s for begin, s in _MAGIC.items() if content.startswith(begin)), ".wav"
    )
