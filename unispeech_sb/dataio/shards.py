"""Shards: WebDataset's tar files of recordings with all that is known of them,
read from front to back, and the index that says what is in them.

A folder of shards has, for each shard, ``train-000000.tar`` and
``train-000000.jsonl``: what the tar holds, and the records of its utterances, a
line each. ``train.npy`` has of each utterance where it lies, its seconds and
its CRC-32, and can be mapped: opening it costs nothing, whatever its size.
``index.json``, written last, has of each shard its SHA-256, utterances, seconds
and bytes.

An utterance is a sample of WebDataset: ``000000000.flac``, ``.json`` (the
record) and, where it has units, ``.units.npy``. It is checked when it is read.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.audio import AudioBytes
from unispeech_sb.environment import require_extra
from unispeech_sb.text import named

__all__ = ["DamagedShardError", "ShardItems", "ShardRows", "read_index"]

logger = get_logger(__name__)

INDEX = "index.json"
FORM = "unispeech_sb shards 1"
NUMBER = "shard_number"
"""Column of a manifest: the number of the utterance in the shards of its
split."""
ENTRY = np.dtype(
    [
        ("offset", "<i8"),
        ("size", "<i4"),
        ("crc", "<u4"),
        ("shard", "<i4"),
        ("seconds", "<f8"),
    ]
)
"""What the index has of an utterance."""
UNITS = "units.npy"
_READ_BYTES = 2**22  # most that is asked for at once
_BLOCK = 2**20
_TO_CHECK = "`unispeech-sb shards check` names all that is wrong"


class DamagedShardError(ValueError):
    """A shard that is missing, or not as its index says; the message names it.

    Example
    -------
    >>> str(DamagedShardError("train-000000.tar: this shard is missing"))
    'train-000000.tar: this shard is missing'
    """


def is_shards(path: Any) -> bool:
    """Whether a value of ``data_folder`` is a folder of shards."""
    if isinstance(path, list):
        return False
    try:
        with open(Path(path, INDEX), encoding="utf-8") as file:
            return FORM in file.read(200)
    except (OSError, ValueError):
        return False


def read_index(folder: str | Path) -> dict[str, Any]:
    """Reads the index of a folder of shards.

    Arguments
    ---------
    folder : str or path-like
        A folder that ``unispeech-sb shards make`` wrote.

    Returns
    -------
    dict
        ``splits``: name -> ``count``, ``seconds`` and ``shards``, a list of
        ``name``, ``sha256``, ``bytes``, ``count`` and ``seconds``; ``audio``,
        how recordings are kept.

    Raises
    ------
    ValueError
        When there is none, or a damaged one.

    Example
    -------
    >>> from unispeech_sb.dataio.shard_writer import make_shards
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> path = str(folder / "a.wav")
    >>> soundfile.write(path, np.sin(np.arange(16000)), 16000)
    >>> record = {"ID": "a", "wav": path, "duration": 1.0, "split": "train"}
    >>> _ = make_shards([record], folder / "shards")
    >>> read_index(folder / "shards")["splits"]["train"]["count"]
    1
    """
    path = Path(folder, INDEX)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        whole = about.pop("checksum") == checksum(about)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        whole = False
    if not whole:
        wrong = "a damaged one" if path.is_file() else "none"
        raise ValueError(
            f"{path}: expected the index of a folder of shards, as "
            f"`unispeech-sb shards make` writes it; got {wrong}"
        )
    return about


def checksum(about):
    """Digest of an index without its own."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Digest of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def unusable_shards(folder, about, split):
    """Shards of a split that are not there, or not as long as they should be:
    number -> what is wrong, without reading any."""
    found = {}
    for number, shard in enumerate(about["splits"][split]["shards"]):
        try:
            size = Path(folder, f"{shard['name']}.tar").stat().st_size
        except FileNotFoundError:
            found[number] = f"{shard['name']}.tar is missing"
            continue
        if size != shard["bytes"]:
            found[number] = (
                f"{shard['name']}.tar has {size} bytes instead of "
                f"{shard['bytes']}"
            )
    return found


def shard_records(
    folder: str | Path, skip_damaged: bool | None = False
) -> Iterator[dict[str, Any]]:
    """Yields the records in shards, for ``read_corpus``; a
    ``DamagedShardError`` where a shard is missing, or without it with
    ``skip_damaged``. ``wav`` is the shard."""
    about = read_index(folder)
    for split, found in about["splits"].items():
        left_out = _usable(folder, about, split, skip_damaged)
        number = 0
        for place, shard in enumerate(found["shards"]):
            rows = () if place in left_out else _rows_of(folder, shard)
            tar = Path(folder, f"{shard['name']}.tar").absolute()
            for own, row in enumerate(rows):
                where = {"wav": str(tar), "start": None, "stop": None}
                where |= {"split": split, "duration": row["seconds"]}
                yield {**row["record"], **where, NUMBER: number + own}
            number += shard["count"]


def _usable(folder, about, split, skip_damaged):
    """Numbers of the shards to leave out, which are logged."""
    wrong = unusable_shards(folder, about, split)
    if wrong and not skip_damaged:
        raise DamagedShardError(
            f"{folder}: {named(wrong.values())}; {_TO_CHECK}, "
            "and skip_damaged: True goes on without them"
        )
    if wrong:
        shards = about["splits"][split]["shards"]
        count = sum(shards[number]["count"] for number in wrong)
        logger.warning(
            f"{folder}: left out {count} utterances of {split}: "
            f"{named(wrong.values())}"
        )
    return wrong


def _rows_of(folder, shard):
    """What the list beside a shard has of each utterance."""
    path = Path(folder, f"{shard['name']}.jsonl")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedShardError(
            f"{path}: this list of a shard's records is missing; {_TO_CHECK}"
        ) from error
    if hashlib.sha256(content).hexdigest() != shard["records_sha256"]:
        raise DamagedShardError(
            f"{path}: this list of a shard's records is damaged; {_TO_CHECK}"
        )
    return [json.loads(line) for line in content.splitlines()[1:]]


class ShardRows(Sequence[dict[str, Any]]):
    """The utterances of a split in shards, as rows of a manifest whose ``wav``
    is the recording itself, in memory.

    A ``ShardBatch`` says which utterances to read before it; what is read waits
    for its batch. What no batch has announced is read alone, from its place.

    Arguments
    ---------
    folder : str or path-like
        A folder of shards.
    split : str
        "train", "valid" or "test".
    numbers : list of int, optional
        The utterances to take, in order; all of them when omitted.
    rows : list of dict, optional
        What is known of these, in place of the records in the shards.
    skip_damaged : bool
        Leave out utterances that cannot be read, each with a warning.

    Example
    -------
    >>> ShardRows("nowhere", "train")
    Traceback (most recent call last):
    ...
    ValueError: nowhere/index.json: expected the index of a folder of shards...
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        numbers: Sequence[int] | np.ndarray | None = None,
        rows: Sequence[dict[str, Any]] | None = None,
        skip_damaged: bool = False,
    ) -> None:
        self.folder, self.split = Path(folder), split
        self.rows, self.skip_damaged = rows, skip_damaged
        self.about = read_index(folder)
        if split not in self.about["splits"]:
            raise ValueError(f"{folder}: expected shards of {split}, got none")
        own = self.about["splits"][split]
        self.shards, count = own["shards"], own["count"]
        if len(self.entries) != count:
            raise DamagedShardError(
                f"{self.folder / split}.npy: expected {count} utterances, as "
                f"the index says, got {len(self.entries)}; {_TO_CHECK}"
            )
        self.numbers = np.arange(count) if numbers is None else numbers
        self.numbers = np.asarray(self.numbers, dtype=np.int64)
        self.num_damaged = self.num_alone = 0
        self._held: dict[int, bytes] = {}
        self._file: BinaryIO | None = None
        self._place = (-1, 0)  # shard and byte
        self._stream: object = None
        self._last: tuple[int, dict[str, Any]] | None = None

    @cached_property
    def entries(self) -> np.ndarray:
        """What the index has of each utterance of the split."""
        path = self.folder / f"{self.split}.npy"
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if found.dtype == ENTRY and found.ndim == 1:
                return found
        except FileNotFoundError as error:
            raise DamagedShardError(
                f"{path}: this part of the index is missing; {_TO_CHECK}"
            ) from error
        except (ValueError, EOFError, OSError):
            pass
        raise DamagedShardError(
            f"{path}: this part of the index is damaged; {_TO_CHECK}"
        )

    @property
    def seconds(self) -> np.ndarray:
        """Seconds of each row."""
        return self.entries["seconds"][self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        """Reads a row."""
        return self._row(int(place))

    def take(
        self, batch: Sequence[int]
    ) -> tuple[list[int], list[dict[str, Any]]]:
        """Reads the rows of a batch: the numbers of those that are sound, which
        may be places of later passes, and the rows.

        Of a batch without a sound one the last row before it takes the place,
        or the first that is sound, as all processes need one.
        """
        stream = getattr(batch, "stream", self._stream)
        if stream != self._stream:
            self._stream = stream
            self._held.clear()
        for first, stop in getattr(batch, "reads", ()):
            self._read_ahead(first, stop)
        found = []
        for number in batch:
            try:
                found.append((number, self._row(number % len(self))))
            except DamagedShardError as error:
                if not self.skip_damaged:
                    raise
                self.num_damaged += 1
                logger.warning(
                    f"Left out, {self.num_damaged} so far by this reader: "
                    f"{error}",
                    main_process_only=False,
                )
        if not found:
            found = [self._last or self._first_sound()]
        self._last = found[-1]
        numbers, rows = zip(*found, strict=True)
        return list(numbers), list(rows)

    def _first_sound(self):
        """Number and row of the first utterance that can be read."""
        for place in range(len(self)):
            try:
                return place, self._row(place)
            except DamagedShardError as error:
                fault = error
        raise fault

    def _read_ahead(self, first, stop):
        """Reads the utterances of some numbers, as they lie in their shards."""
        offsets, sizes = self.entries["offset"], self.entries["size"]
        shards = self.entries["shard"][first:stop].tolist()
        begins = offsets[first:stop].tolist()
        ends = (offsets[first:stop] + sizes[first:stop]).tolist()
        place = 0
        while place < len(shards):
            last = place + 1
            while (
                last < len(shards)
                and shards[last] == shards[place]
                and ends[last] - begins[place] <= _READ_BYTES
            ):
                last += 1
            try:
                size = ends[last - 1] - begins[place]
                content = self._read(shards[place], begins[place], size)
            except DamagedShardError:
                content = b""  # each utterance of it says so
            for own in range(place, last if content else place):
                begin = begins[own] - begins[place]
                end = ends[own] - begins[place]
                self._held[first + own] = content[begin:end]
            place = last

    def _read(self, shard, offset, size):
        """Reads so many bytes of a shard, seeking only where they do not follow
        those read before."""
        if self._place[0] != shard:
            if self._file is not None:
                self._file.close()
            self._file, self._place = self._open(shard), (shard, 0)
        if self._place[1] != offset:
            self._file.seek(offset)
        content = _exactly(self._file, size)
        self._place = (shard, offset + len(content))
        return content

    def _open(self, shard):
        """Opens a shard without a buffer of its own."""
        path = self._path(shard)
        try:
            return open(path, "rb", buffering=0)
        except FileNotFoundError as error:
            raise DamagedShardError(
                f"{path}: this shard is missing; {_TO_CHECK}"
            ) from error

    def _path(self, shard):
        """Where a shard lies."""
        return self.folder / f"{self.shards[shard]['name']}.tar"

    def _row(self, place):
        """The row of a place, of bytes that are as the index says."""
        number = int(self.numbers[place])
        content = self._held.pop(number, None)
        entry = self.entries[number]
        shard, size = int(entry["shard"]), int(entry["size"])
        if content is None:
            self.num_alone += 1
            with self._open(shard) as file:
                file.seek(int(entry["offset"]))
                content = _exactly(file, size)
        if len(content) != size or zlib.crc32(content) != entry["crc"]:
            raise DamagedShardError(
                f"{self._path(shard)}: this shard is damaged: utterance "
                f"{number - self._first(shard)} of it is not as the index "
                f"says; {_TO_CHECK}"
            )
        return self._row_of(content, place, shard)

    def _first(self, shard):
        """Number of the first utterance of a shard."""
        return sum(other["count"] for other in self.shards[:shard])

    def _row_of(self, content, place, shard):
        """A row of the sample of an utterance."""
        sample = unpack(content)
        record = json.loads(sample.pop("json"))
        row = record if self.rows is None else dict(self.rows[place])
        if UNITS in sample:
            row["units"] = np.load(io.BytesIO(sample.pop(UNITS)))
        (audio,) = sample.values()
        name = f"{self._path(shard)}, {record['ID']}"
        return row | {
            "wav": AudioBytes(name, audio),
            "start": None,
            "stop": None,
        }


def _exactly(file, size):
    """Reads so many bytes, fewer at the end of the file."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unpack(content: bytes) -> dict[str, bytes]:
    """Suffix -> content of the files of one sample, by WebDataset."""
    require_extra("webdataset", "scale", "a folder of shards")
    from webdataset.tariterators import group_by_keys, tar_file_expander

    source = {"url": "", "stream": io.BytesIO(content)}
    (sample,) = group_by_keys(tar_file_expander([source]))
    return {k: v for k, v in sample.items() if not k.startswith("__")}


def rows_in_shards(
    rows: Sequence[dict[str, Any]], hparams: dict[str, Any] | None = None
) -> ShardRows | None:
    """The rows of a manifest whose recordings are in shards; None of one whose
    are not."""
    if not rows or not rows[0].get(NUMBER):
        return None
    tar = Path(rows[0]["wav"])
    split = tar.name.rpartition("-")[0]
    numbers = [int(row[NUMBER]) for row in rows]
    skip = (hparams or {}).get("skip_damaged", False)
    return ShardRows(tar.parent, split, numbers, rows, skip)


def all_rows(folder: str | Path, split: str, hparams: Any) -> ShardRows:
    """The utterances of shards that are as long as ``min_duration_s`` and
    ``max_duration_s`` say; a ``ValueError`` where there are none."""
    skip = hparams.get("skip_damaged", False)
    rows = ShardRows(folder, split, skip_damaged=skip)
    left_out = _usable(folder, rows.about, split, skip)
    least, most = hparams["min_duration_s"], hparams["max_duration_s"]
    most = float("inf") if most is None else most
    seconds = rows.entries["seconds"]
    kept = (seconds >= least) & (seconds <= most)
    dropped = len(kept) - int(kept.sum())
    if left_out:
        kept &= ~np.isin(rows.entries["shard"], [*left_out])
    rows.numbers = np.flatnonzero(kept)
    if not len(rows):
        raise ValueError(
            f"{folder}: expected utterances of {least} to {most} s of {split}, "
            "got none"
        )
    if dropped:
        logger.info(
            f"{folder}: left out {dropped} of {len(kept)} utterances of "
            f"{split}, which are not of {least} to {most} s"
        )
    return rows


class ShardItems(DynamicItemDataset):
    """A SpeechBrain dataset of a manifest whose recordings are in shards.

    Arguments
    ---------
    rows : ShardRows
        With the rows of the manifest.

    Example
    -------
    >>> rows = getfixture("tmp_path")
    >>> ShardItems(ShardRows(rows, "train"))
    Traceback (most recent call last):
    ...
    ValueError: ...index.json: expected the index of a folder of shards...
    """

    def __init__(self, rows: ShardRows) -> None:
        assert rows.rows is not None
        self.rows = rows
        super().__init__({row["ID"]: {**row} for row in rows.rows})

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Computes an item."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Computes the items of a batch, as torch's loader asks for it."""
        _, rows = self.rows.take(places)
        return [
            self.pipeline.compute_outputs({"id": row["ID"], **row})
            for row in rows
        ]


def refuse_shards(folder: str | Path, hparams: dict[str, Any]) -> Any:
    """For what reads single recordings."""
    raise ValueError(
        f"{folder}: expected recordings, got a folder of shards; units are "
        "made of the recordings, then shards of the folder of units, and a "
        "pre-training takes one folder of shards alone"
    )
