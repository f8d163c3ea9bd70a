"""Recordings of bulk jobs: files, lists, archives and tables, here or at URLs.

A ``Shard`` names recordings without listing them: a group of files, a manifest
of NeMo's or Lhotse's, a WebDataset tar, a Parquet file. It is listed where it
is worked on, one ``Item`` after the other, and what cannot be read is an item
with its error. Places are paths, or URLs that fsspec opens. Torch is imported
by ``LocalFiles`` alone, as lists need none.
"""

import gzip
import hashlib
import json
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from unispeech_sb.dataio.containers import (
    OTHER_SUFFIXES,
    SUFFIXES,
    is_recording,
)

_AUDIO = SUFFIXES + OTHER_SUFFIXES
_ENDINGS = {
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".parquet": "parquet",
    ".json": "lines",
    ".jsonl": "lines",
    ".json.gz": "lines",
    ".jsonl.gz": "lines",
}
"""Ending of a name -> what the file is; others are recordings."""

_BYTES_PER_S = 32_000
"""Of 16-bit samples at 16 kHz, by which lengths are guessed."""
_MOST_ITEMS, _MOST_BYTES = 1000, 2**26
"""Recordings and bytes of a group at most."""
_LEAST_SHARE = 8
"""Part of a group that the groups at the end are at least."""
_NUM_REQUESTS = 16
"""Files at URLs that are asked for at once."""
_SAME_S = 1e-3
"""Seconds by which a cut may differ from its recording and still be all of
it."""


class Item(NamedTuple):
    """A recording, or a stretch of one: all of it without ``duration_s``.

    ``path`` is where it is; where ``content`` has its bytes, only the suffix
    counts. ``stamp`` changes when the file does; empty where that is not known.
    """

    id: str
    path: str
    content: bytes | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    num_bytes: int = 0
    stamp: str = ""
    error: str = ""


class Shard(NamedTuple):
    """Recordings: ids and paths of "files", or the place of a "tar", of a
    "parquet" or of "lines" of JSON."""

    kind: str
    place: str = ""
    files: tuple[tuple[str, str], ...] = ()


def is_url(place: str) -> bool:
    """Whether fsspec has to open a place."""
    return "://" in place


def container_of(place: str) -> str | None:
    """What kind of shard a file is by its name; None of a recording."""
    name = place.lower()
    return next((k for end, k in _ENDINGS.items() if name.endswith(end)), None)


def shards_of(places: Iterable[tuple[str, str]], most: int) -> Iterator[Shard]:
    """Yields the shards of ids and places, up to ``most`` files in each."""
    files: list[tuple[str, str]] = []
    for name, place in places:
        kind = container_of(place)
        if kind is not None:
            yield Shard(kind, place)
            continue
        files.append((name, place))
        if len(files) == most:
            yield Shard("files", files=tuple(files))
            files = []
    if files:
        yield Shard("files", files=tuple(files))


def places_at(url: str) -> list[str]:
    """What a URL names: a pattern's matches, a folder's recordings and
    archives, or itself."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    if any(char in path for char in "*?["):
        found = system.glob(path)
    elif system.isdir(path):
        found = [
            name
            for name in system.find(path)
            if is_input(PurePosixPath(name).relative_to(path.rstrip("/")))
        ]
    else:
        return [url]
    if not found:
        raise ValueError(f"{url}: expected recordings; there are none")
    return [system.unstrip_protocol(name) for name in sorted(found)]


def is_input(path: str | PurePosixPath) -> bool:
    """Whether a path below a folder is taken: a recording, a tar, a Parquet
    file; not lists, of which a folder may have several of the same."""
    archive = container_of(str(path)) in ("tar", "parquet")
    return is_recording(Path(path), _AUDIO) or (
        archive
        and not any(part[0] == "." for part in PurePosixPath(path).parts)
    )


def read_shard(shard: Shard) -> Iterator[Item]:
    """Yields the recordings of a shard, those of archives with their bytes."""
    if shard.kind == "files":
        for name, path in shard.files:
            yield Item(name, path)
        return
    try:
        yield from _READERS[shard.kind](shard.place)
    except FileNotFoundError:
        error = "there is no such file"
    except _damages() as found:
        error = _said(found)
    else:
        return
    yield Item(shard.place, shard.place, error=f"{shard.place}: {error}")


def groups_of(
    items: Iterable[Item],
    seconds: float,
    is_done: Callable[[Item], bool],
    num_workers: int = 1,
) -> Iterator[list[Item]]:
    """Groups the items that are not done, of up to about so many seconds.

    Where several workers share them, the groups at the end are smaller, each
    half of what a worker has still to do, so that all end at about the same
    time (guided self-scheduling). Lengths are those of lists, or are guessed
    from sizes.
    """
    ahead = 2 * num_workers if num_workers > 1 else 1
    waiting: deque[Item] = deque()
    length = num_bytes = 0.0
    for item in _stamped(items):
        if is_done(item):
            continue
        waiting.append(item)
        length += _seconds_of(item)
        num_bytes += _bytes_of(item)
        full = len(waiting) >= ahead * _MOST_ITEMS or num_bytes >= _MOST_BYTES
        if full or length >= ahead * seconds:
            yield _first_of(waiting, seconds)
            length = sum(map(_seconds_of, waiting))
            num_bytes = sum(map(_bytes_of, waiting))
    while waiting:
        share = sum(map(_seconds_of, waiting)) / ahead
        small = max(share, seconds / _LEAST_SHARE)
        yield _first_of(waiting, min(seconds, small) if ahead > 1 else seconds)


def _first_of(waiting, seconds):
    """Takes a group of up to about so many seconds off a queue."""
    group: list[Item] = []
    length = num_bytes = 0.0
    while waiting and length < seconds and num_bytes < _MOST_BYTES:
        if len(group) == _MOST_ITEMS:
            break
        group.append(waiting.popleft())
        length += _seconds_of(group[-1])
        num_bytes += _bytes_of(group[-1])
    return group


def _seconds_of(item):
    """The length of a recording, as far as it is known."""
    guessed = item.num_bytes / _BYTES_PER_S
    return guessed if item.duration_s is None else item.duration_s


def _bytes_of(item):
    """What a recording takes of memory."""
    return 0 if item.content is None else len(item.content)


def fetch(items: list[Item]) -> list[Item]:
    """Reads what is at URLs, several at once."""
    if not any(_is_remote(item) for item in items):
        return items
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        return list(pool.map(_fetched, items))


class LocalFiles:
    """Files in a folder, of their own or as they are, that have the samples of
    items."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder
        self._digests: dict[str, bytes] = {}

    def place(self, number: int, item: Item) -> str:
        """The path of a file with an item's samples; raises an
        ``AudioError`` where there is none."""
        from unispeech_sb.dataio.audio import AudioError, naming

        if item.error:
            raise AudioError(item.error)
        path, suffix = item.path, PurePosixPath(item.path).suffix
        own = os.path.join(self.folder, f"{number:06d}")
        if item.content is not None:
            path = f"{own}{suffix}"
            Path(path).write_bytes(item.content)
        if item.duration_s is None:
            return path
        with naming(path):
            return _cut(path, item.start_s, item.duration_s, f"{own}-cut.wav")

    def digest(self, item: Item) -> bytes:
        """SHA-256 of an item's bytes and its stretch."""
        stretch = f" {item.start_s!r} {item.duration_s!r}".encode()
        return hashlib.sha256(self._of_bytes(item) + stretch).digest()

    def _of_bytes(self, item):
        """SHA-256 of the bytes of all of a recording; empty without any."""
        if item.content is not None:
            return hashlib.sha256(item.content).digest()
        if item.path not in self._digests:
            self._digests[item.path] = digest_of(item.path)
        return self._digests[item.path]


def digest_of(path):
    """SHA-256 of a file; empty where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except (OSError, ValueError):  # a NUL in the name
        return b""
    return digest.digest()


def _cut(path, start_s, duration_s, target):
    """Writes a stretch as a file, its channels averaged."""
    import soundfile
    import torch

    from unispeech_sb.dataio.audio import decode, read_header

    count, rate = read_header(path)
    start = round(start_s * rate)
    # Lists round their seconds
    stop = min(start + round(duration_s * rate), max(count, start + 1))
    _, blocks = decode(path, start, stop)
    samples = torch.cat(list(blocks)).numpy()
    soundfile.write(target, samples, rate, "FLOAT")
    return target


def _is_remote(item):
    """Whether an item's bytes are to be asked for."""
    return item.content is None and not item.error and is_url(item.path)


def _fetched(item):
    """An item with its bytes."""
    if not _is_remote(item):
        return item
    try:
        with _open(item.path) as file:
            return item._replace(content=file.read())
    except FileNotFoundError:
        error = f"{item.path}: there is no such file"
    except _damages() as found:
        error = f"{item.path}: {_said(found)}"
    return item._replace(error=error)


def _stamped(items):
    """Yields items with their sizes and stamps; URLs are asked in groups."""
    waiting: list[Item] = []
    for item in items:
        if not _is_remote(item) or item.stamp:
            yield item if item.stamp else _with_stamp(item)
            continue
        waiting.append(item)
        if len(waiting) == 4 * _NUM_REQUESTS:
            yield from _asked(waiting)
            waiting = []
    yield from _asked(waiting)


def _asked(items):
    """Items at URLs with their stamps."""
    if not items:
        return []
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        return list(pool.map(_with_stamp, items))


def _with_stamp(item):
    """An item with the size and the stamp of its file."""
    if item.content is not None or item.error:
        return item
    num_bytes, stamp = _stamp(item.path)
    return item._replace(num_bytes=num_bytes, stamp=stamp)


def _stamp(place):
    """Bytes of a file, and what changes with it; 0 and empty of none."""
    if not is_url(place):
        try:
            found = os.stat(place)
        except (OSError, ValueError):
            return 0, ""
        return found.st_size, f"{found.st_size}-{found.st_mtime_ns}"
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(place)
        about = system.info(path)
    except _damages():
        return 0, ""
    return about.get("size") or 0, hashlib.sha256(
        repr(sorted(about.items(), key=str)).encode()
    ).hexdigest()[:16]


def _open(place):
    """Opens a file to read its bytes."""
    if not is_url(place):
        return open(place, "rb")
    import fsspec

    return fsspec.open(place, "rb").open()


def _said(error):
    """What an error of reading says, on one line."""
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split())[:300] or "it ends too early"


def _damages():
    """What reading a file that is damaged or out of reach raises."""
    kinds = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)
    try:
        import aiohttp
    except ImportError:  # fsspec's http
        return kinds
    return (*kinds, aiohttp.ClientError)


def _tar(place):
    """Yields the recordings in a tar, front to back."""
    _, stamp = _stamp(place)
    with (
        _open(place) as file,
        tarfile.open(fileobj=file, mode="r|*") as archive,
    ):
        for member in archive:
            if not member.isfile() or not is_recording(member.name, _AUDIO):
                continue
            content = archive.extractfile(member).read()
            name = member.name.encode("utf-8", "backslashreplace").decode()
            name = f"{place}/{name}"
            yield Item(
                name,
                member.name,
                content,
                num_bytes=len(content),
                stamp=stamp and f"{stamp}-{member.offset}",
            )


def _parquet(place):
    """Yields the rows of a Parquet file: ``audio`` (bytes, or bytes and path,
    as of datasets) or ``path``; ``id`` where there is one."""
    import pyarrow.parquet

    _, stamp = _stamp(place)
    with _open(place) as file, pyarrow.parquet.ParquetFile(file) as table:
        names = table.schema_arrow.names
        if not {"audio", "path"} & set(names):
            raise ValueError(
                "expected a column audio or path; got "
                f"{', '.join(map(str, names))}"
            )
        key = "audio" if "audio" in names else "path"
        columns = [name for name in ("id", key) if name in names]
        number = 0
        for batch in table.iter_batches(16, columns=columns):
            for row in batch.to_pylist():
                name = f"{place}#{number}"
                own = Item(
                    name if row.get("id") is None else str(row["id"]), ""
                )
                own = own._replace(stamp=stamp and f"{stamp}-{number}")
                yield _of_cell(own, row[key], place)
                number += 1


def _of_cell(item, cell, place):
    """An item with the recording of a cell."""
    found = cell if isinstance(cell, dict) else {}
    content = cell if isinstance(cell, bytes) else found.get("bytes")
    path = cell if isinstance(cell, str) else found.get("path")
    if content is not None:
        return item._replace(
            path=path or "", content=content, num_bytes=len(content)
        )
    if not path:
        return item._replace(
            error=f"{item.id}: expected bytes or a path; got none"
        )
    return item._replace(path=_beside(place, path), stamp="")


def _lines(place):
    """Yields what the lines of a manifest name: entries of NeMo's, or
    recordings or cuts of Lhotse's."""
    with _open(place) as raw:
        packed = place.lower().endswith(".gz")
        for number, line in enumerate(gzip.open(raw) if packed else raw, 1):
            if not line.strip():
                continue
            where = f"{place}, line {number}"
            try:
                yield _of_entry(json.loads(line), place)
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                said = str(error) if type(error) is ValueError else ""
                yield Item(where, place, error=f"{where}: {said or _NO_ENTRY}")


_NO_ENTRY = (
    "expected JSON with audio_filepath (NeMo), or with id, start, duration and "
    "recording, or id and sources (Lhotse)"
)


def _of_entry(entry: dict[str, Any], place: str) -> Item:
    """The item of an object of a manifest."""
    if "audio_filepath" in entry:
        path = _beside(place, entry["audio_filepath"])
        if entry.get("offset") is None or entry.get("duration") is None:
            return Item(path, path)
        start_s, seconds = float(entry["offset"]), float(entry["duration"])
        name = f"{path}@{start_s:g}+{seconds:g}"
        return Item(name, path, None, start_s, seconds)
    if "sources" in entry:
        return Item(str(entry["id"]), _source(entry, place))
    recording = entry["recording"]
    path, name = _source(recording, place), str(entry["id"])
    channels = recording.get("channel_ids") or recording["sources"][0].get(
        "channels", [0]
    )
    if len(channels) > 1:
        raise ValueError(
            "expected a cut of a recording of one channel; got one of "
            f"{len(channels)}"
        )
    start_s, seconds = float(entry["start"]), float(entry["duration"])
    whole = float(recording.get("duration", np.nan))
    if start_s == 0 and abs(seconds - whole) <= _SAME_S:
        return Item(name, path)
    return Item(name, path, None, start_s, seconds)


def _source(recording, place):
    """The place of a recording of Lhotse's."""
    sources = recording["sources"]
    kinds = [source.get("type") for source in sources]
    if kinds not in (["file"], ["url"]) or recording.get("transforms"):
        raise ValueError(
            "expected a recording that is one file or URL, without transforms; "
            f"got sources of type {', '.join(map(str, kinds)) or 'none'}"
        )
    return _beside(place, sources[0]["source"])


def _beside(place, path):
    """A path of a list, which starts at the current folder or, where nothing
    is there, at that of the list."""
    if not isinstance(path, str):
        raise ValueError(f"expected a path; got {path!r:.60}")
    if is_url(path) or os.path.isabs(path):
        return path
    if not is_url(place) and os.path.exists(path):
        return path
    return f"{place.rpartition('/')[0] or '.'}/{path}"


_READERS: dict[str, Callable[[str], Iterator[Item]]] = {
    "tar": _tar,
    "parquet": _parquet,
    "lines": _lines,
}
"""Kind of a shard -> what yields its items."""
