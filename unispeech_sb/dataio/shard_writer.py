"""Writing shards of records, and checking them.

Which record is in which shard, and where, is settled by the records alone
before anything is read. So several threads write what one would, and a run that
was killed goes on with the shards that are not there: each appears whole, and
its list after it; the index comes last.
"""

import hashlib
import io
import json
import math
import os
import re
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from unispeech_sb.atomic import OneWriter, atomic, sweep, write_json
from unispeech_sb.dataio.audio import (
    AudioError,
    attempt,
    read_audio,
    read_header,
)
from unispeech_sb.dataio.containers import ENDLESS, without_length
from unispeech_sb.dataio.manifest import SILENCE, SPLITS, describe_bad
from unispeech_sb.dataio.samplers import numbered_generator
from unispeech_sb.dataio.shards import (
    ENTRY,
    FORM,
    INDEX,
    UNITS,
    ShardRows,
    checksum,
    file_sha256,
    read_index,
)
from unispeech_sb.dataio.units import ABOUT, read_about, units_of
from unispeech_sb.environment import require_extra

__all__ = ["AUDIO", "check_shards", "make_shards"]

AUDIO = ("flac", "copy")
"""Recordings as 16-bit FLAC with one channel at 16 kHz, or as they are."""
_RATE = 16000
_OURS = re.compile(r"(?:train|valid|test)(?:-\d{6}\.(?:tar|jsonl)|\.npy)")
UNITS_FOLDER = "units_folder"
"""Key of records whose units are in that folder."""
_OF_UNITS = ("units_start", "units_stop", UNITS_FOLDER)
_KEPT = "kept"  # of a recording: as it is


def make_shards(
    records: Iterable[dict[str, Any]],
    folder: str | Path,
    hours: float = 2.0,
    audio: str = "flac",
    workers: int = 1,
    seed: int = 0,
    skip_bad_files: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes shards of records, or those of them that are not there yet.

    The records of each split are shuffled by the seed, and fill shards in that
    order. Each recording is decoded once, as training would.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``split``; their IDs differ. What they carry is
        kept. Those with ``units_folder`` get their units from there.
    folder : str or path-like
        Where to.
    hours : float
        Hours of speech in a shard.
    audio : str
        "flac": 16-bit FLAC with one channel at 16 kHz, to which others are
        converted; "copy": the bytes of the files, but for stretches of a file
        and what libsndfile cannot read from memory.
    workers : int
        Threads that write.
    seed : int
        Of the order.
    skip_bad_files : bool
        Leave out recordings that cannot be used.
    overwrite : bool
        Remove shards of other data first.

    Returns
    -------
    dict
        The index, with ``left_out``, why recordings were.

    Raises
    ------
    ValueError
        When recordings cannot be used, or the folder holds anything else.

    Example
    -------
    >>> make_shards([], getfixture("tmp_path") / "shards")
    Traceback (most recent call last):
    ...
    ValueError: expected recordings for shards, got none
    """
    require_extra("webdataset", "scale", "a folder of shards")
    if audio not in AUDIO:
        raise ValueError(f"audio: expected flac or copy, got {audio!r}")
    folder = Path(folder)
    made = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with OneWriter(folder):
            sweep(folder)
            records = _measured(list(records), skip_bad_files)
            units = _units_of(records)
            plans = _plan(records, hours, audio, seed)
            _clear(folder, plans, overwrite)
            (folder / INDEX).unlink(missing_ok=True)
            parts = _write_all(folder, plans, audio, workers)
            return _finish(folder, parts, audio, units, skip_bad_files)
    finally:
        if not made and not any(folder.iterdir()):
            folder.rmdir()


def _measured(records, skip_bad_files):
    """Records that all have a duration and an ID of their own."""
    if not records:
        raise ValueError("expected recordings for shards, got none")
    found, faults, seen = [], [], set()
    for record in records:
        if record["ID"] in seen:
            raise ValueError(
                f"{record['wav']}: expected another ID for each recording of "
                f"the shards, got {record['ID']} twice"
            )
        seen.add(record["ID"])
        if record.get("split") not in SPLITS:
            raise ValueError(
                f"{record['wav']}: expected a split of {', '.join(SPLITS)}, "
                f"got {record.get('split')!r}"
            )
        if record.get("duration") is None:
            header = attempt(record["wav"], read_header, record["wav"])
            if isinstance(header, AudioError):
                faults.append(str(header))
                continue
            record = {**record, "duration": header[0] / header[1]}
        found.append(record)
    if faults and not (skip_bad_files and found):
        raise ValueError(describe_bad(faults, len(records)))
    return found


def _units_of(records):
    """What the units of all records are; None where they have none."""
    folders = {record.get(UNITS_FOLDER) for record in records}
    if folders == {None}:
        return None
    if None in folders:
        raise ValueError("expected units of all recordings, or of none")
    kinds = [read_about(folder) for folder in sorted(folders)]
    for key in ("label_rate", "num_units"):
        if len({about[key] for about in kinds}) > 1:
            raise ValueError(
                f"expected one {key} of all units, got "
                f"{sorted({about[key] for about in kinds})}"
            )
    return kinds[0]


def _plan(records, hours, audio, seed):
    """Name of each shard -> its records, and a digest of all that it holds."""
    folders = sorted({r[UNITS_FOLDER] for r in records if UNITS_FOLDER in r})
    units = [
        file_sha256(path)
        for folder in folders
        for path in sorted(Path(folder).glob("*.npy"))
    ]
    plans = {}
    for place, split in enumerate(SPLITS):
        own = [record for record in records if record["split"] == split]
        generator = numbered_generator(seed, place)
        order = torch.randperm(len(own), generator=generator).tolist()
        total, shards = 0.0, []
        for number in order:
            if not shards or total >= 3600 * hours:
                shards.append([])
                total = 0.0
            shards[-1].append(own[number])
            total += own[number]["duration"]
        for number, held in enumerate(shards):
            text = json.dumps([FORM, audio, units, held], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()
            plans[f"{split}-{number:06d}"] = held, digest
    return plans


def _clear(folder, plans, overwrite):
    """Refuses a folder with anything but some of the shards to be made."""
    wrong = [p.name for p in folder.iterdir() if not _is_ours(p.name)]
    if wrong:
        raise ValueError(
            f"{folder}: expected an empty folder, or shards; it has "
            f"{sorted(wrong)[0]}"
        )
    for path in sorted(folder.iterdir()):
        known = plans.get(path.stem, (None, None))[1]
        same = known is not None or path.suffix not in (".tar", ".jsonl")
        head = _head(path) if path.suffix == ".jsonl" else None
        if head is not None:
            same = head.get("plan") == known
        if same:
            continue
        if not overwrite:
            raise ValueError(
                f"{folder}: holds shards of other data or options ("
                f"{path.name}); choose another folder, or --overwrite"
            )
        path.unlink()


def _is_ours(name):
    """Whether a file of a folder is one of its shards'."""
    lock = name.startswith(".") and name.endswith(".lock")
    return lock or name in (INDEX, ABOUT) or bool(_OURS.fullmatch(name))


def _head(path):
    """What a list says of its shard; None of one that is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
    except ValueError:
        return None
    return head if isinstance(head, dict) and head.get("form") == FORM else None


def _write_all(folder, plans, audio, workers):
    """Writes what is not there: name of each shard -> what its list says."""
    parts, left = {}, []
    for name in plans:
        tar, path = folder / f"{name}.tar", folder / f"{name}.jsonl"
        head = _head(path) if path.is_file() else None
        whole = head is not None and tar.is_file()
        if whole and tar.stat().st_size == head["bytes"]:
            parts[name] = head
        else:
            left.append(name)
    total = sum(len(plans[name][0]) for name in left)
    bar = tqdm(total=total, desc="shards", unit="utt", disable=None)
    pool, stopped = ThreadPoolExecutor(max(1, workers)), threading.Event()

    def advance():
        bar.update()
        if stopped.is_set():
            raise InterruptedError(f"{folder}: stopped")

    try:
        jobs = {
            name: pool.submit(
                _write, folder / name, plans[name], audio, advance
            )
            for name in left
        }
        parts |= {name: job.result() for name, job in jobs.items()}
    finally:  # of Ctrl-C and of a full disk too
        stopped.set()
        pool.shutdown(cancel_futures=True)
        bar.close()
    return {name: parts[name] for name in plans}


def _write(base, plan, audio, advance):
    """Writes a shard and its list; what that says of it."""
    records, digest = plan
    with atomic(f"{base}.tar", mode=None) as draft:
        with open(draft, "wb") as file:
            rows, faults = _write_tar(file, records, audio, advance)
        head = {"form": FORM, "plan": digest, **_facts(draft, rows)}
    head["left_out"] = faults
    with atomic(f"{base}.jsonl") as file:
        for line in (head, *rows):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return head


def _facts(tar, rows):
    """Digest, size and so on of a tar; its rows get their checksums."""
    digest = hashlib.sha256()
    with open(tar, "rb") as file:
        for row in rows:
            content = file.read(row["size"])
            row["crc"] = zlib.crc32(content)
            digest.update(content)
        digest.update(file.read())
    return {
        "sha256": digest.hexdigest(),
        "bytes": os.path.getsize(tar),
        "count": len(rows),
        "seconds": math.fsum(row["seconds"] for row in rows),
        "kept": sum(row.pop(_KEPT) for row in rows),
    }


def _write_tar(file, records, audio, advance):
    """Writes the samples of a shard; where each lies, and what is wrong with
    the others."""
    from webdataset import TarWriter

    rows, faults = [], []
    with TarWriter(file, encoder=False, mtime=0, compress=False) as writer:
        for number, record in enumerate(records):
            wav = record["wav"]
            found = attempt(wav, _recording, record, audio)
            if isinstance(found, AudioError):
                faults.append(str(found))
                continue
            suffix, content, seconds, kept = found
            own = {k: v for k, v in record.items() if k not in _OF_UNITS}
            own["duration"] = seconds
            sample = {"__key__": f"{number:09d}", suffix: content}
            text = json.dumps(own, ensure_ascii=False, sort_keys=True)
            sample["json"] = text.encode()
            if UNITS_FOLDER in record:
                sample[UNITS] = _units_bytes(record)
            offset = writer.tarstream.offset
            writer.write(sample)
            row = {"offset": offset, "size": writer.tarstream.offset - offset}
            rows.append(row | {"seconds": seconds, "record": own, _KEPT: kept})
            advance()
    return rows, faults


def _units_bytes(record):
    """The units of a record, as NumPy writes them."""
    content = io.BytesIO()
    units = units_of(record[UNITS_FOLDER], record["split"], record)
    small = np.uint16 if units.max(initial=0) < 2**16 else np.int32
    np.save(content, units.astype(small))
    return content.getvalue()


def _recording(record, audio):
    """Suffix, bytes and seconds of a record, and whether they are the file's.

    It is decoded in any case, as training will.
    """
    wav, start, stop = record["wav"], record.get("start"), record.get("stop")
    silent = record.get("label") == SILENCE
    samples = read_audio(wav, start, stop, _RATE, allow_silence=silent)
    seconds = len(samples) / _RATE
    if start is None and stop is None and _may_be_kept(wav, audio):
        content = Path(wav).read_bytes()
        return Path(wav).suffix[1:].lower(), content, seconds, True
    whole = np.clip(np.rint(samples.numpy() * 2.0**15), -(2**15), 2**15 - 1)
    stream = io.BytesIO()
    soundfile.write(
        stream, whole.astype(np.int16), _RATE, "PCM_16", format="FLAC"
    )
    return "flac", stream.getvalue(), seconds, False


def _may_be_kept(wav, audio):
    """Whether the bytes of a file are what a shard shall have: it is the FLAC
    that would be written, or "copy" asks for it and its bytes can be read
    alone."""
    try:
        about = soundfile.info(os.fspath(wav))
    except (soundfile.LibsndfileError, TypeError):
        return False
    stated = about.frames < ENDLESS and without_length(wav) is None
    if audio == "copy":
        return stated and bool(re.fullmatch(r"\.\w+", Path(wav).suffix))
    kind = (about.format, about.subtype, about.samplerate, about.channels)
    is_flac = Path(wav).suffix.lower() == ".flac"
    return is_flac and kind == ("FLAC", "PCM_16", _RATE, 1)


def _finish(folder, parts, audio, units, skip_bad_files):
    """Writes the index of shards that are all there."""
    faults = [fault for head in parts.values() for fault in head["left_out"]]
    count = sum(head["count"] for head in parts.values())
    if faults and not (skip_bad_files and count):
        for name, head in parts.items():
            if head["left_out"]:  # so that it is made again
                (folder / f"{name}.jsonl").unlink()
                (folder / f"{name}.tar").unlink()
        raise ValueError(describe_bad(faults, count + len(faults)))
    splits = defaultdict(lambda: {"count": 0, "seconds": 0.0, "shards": []})
    for name, head in parts.items():
        path = folder / f"{name}.jsonl"
        own = {k: head[k] for k in ("sha256", "bytes", "count", "seconds")}
        own |= {"name": name, "records_sha256": file_sha256(path)}
        split = splits[name.rpartition("-")[0]]
        split["shards"].append(own)
        split["count"] += head["count"]
        split["seconds"] += head["seconds"]
    for split, about in splits.items():
        path = folder / f"{split}.npy"
        with atomic(path, "wb") as file:
            np.save(file, _entries(folder, about["shards"]))
        about["entries_sha256"] = file_sha256(path)
    for split in set(SPLITS) - set(splits):  # of other data
        (folder / f"{split}.npy").unlink(missing_ok=True)
    if units is None:
        (folder / ABOUT).unlink(missing_ok=True)
    else:
        write_json(folder / ABOUT, units)
    index = {"form": FORM, "audio": audio, "units": units, "splits": splits}
    index |= {
        "kept": sum(head["kept"] for head in parts.values()),
        "left_out": faults,
    }
    index = json.loads(json.dumps(index))
    write_json(folder / INDEX, {**index, "checksum": checksum(index)})
    return index


def _entries(folder, shards):
    """What the index has of each utterance of a split."""
    found = []
    for number, shard in enumerate(shards):
        lines = (folder / f"{shard['name']}.jsonl").read_text("utf-8")
        for line in lines.split("\n")[1:-1]:
            row = json.loads(line)
            found.append(
                (row["offset"], row["size"], row["crc"], number, row["seconds"])
            )
    return np.array(found, dtype=ENTRY)


def check_shards(folder: str | Path, workers: int = 1) -> list[str]:
    """Reads all shards of a folder; what is wrong with it, a sentence each.

    Arguments
    ---------
    folder : str or path-like
        A folder of shards.
    workers : int
        Threads that read.

    Returns
    -------
    list of str
        Shards that are missing or damaged, parts of the index that are, and
        files that are none of them.

    Raises
    ------
    ValueError
        When there is no index, or it is damaged.

    Example
    -------
    >>> check_shards("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere/index.json: expected the index of a folder of shards...
    """
    folder, about = Path(folder), read_index(folder)
    expected = {INDEX: None}
    if about["units"] is not None:
        expected[ABOUT] = None
    for split, own in about["splits"].items():
        expected[f"{split}.npy"] = own["entries_sha256"]
        for shard in own["shards"]:
            expected[f"{shard['name']}.jsonl"] = shard["records_sha256"]
            expected[f"{shard['name']}.tar"] = shard["sha256"]

    def look(name):
        path = folder / name
        if not path.is_file():
            return f"{name}: missing"
        wanted = expected[name]
        if wanted is None or file_sha256(path) == wanted:
            return None
        return f"{name}: damaged" + _damaged_rows(folder, name)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        bar = tqdm(
            pool.map(look, expected),
            "shards check",
            len(expected),
            unit="file",
            disable=None,
        )
        found = [sentence for sentence in bar if sentence]
    foreign = sorted({path.name for path in folder.iterdir()} - {*expected})
    return found + [f"{name}: no part of these shards" for name in foreign]


def _damaged_rows(folder, name):
    """Which utterances of a damaged tar are, where the index can say it."""
    split = name.rpartition("-")[0]
    if not name.endswith(".tar"):
        return ""
    try:
        rows = ShardRows(folder, split, skip_damaged=True)
    except ValueError:
        return ""
    (shard,) = (
        number
        for number, own in enumerate(rows.shards)
        if f"{own['name']}.tar" == name
    )
    entries = rows.entries[rows.entries["shard"] == shard]
    bad = 0
    with open(folder / name, "rb") as file:
        for entry in entries:
            file.seek(int(entry["offset"]))
            content = file.read(int(entry["size"]))
            bad += zlib.crc32(content) != entry["crc"]
    return f", {bad} of {len(entries)} utterances"
