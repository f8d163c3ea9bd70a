"""Shards and items of bulk jobs, from each kind of input."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unispeech_sb.dataio import sources
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.sources import (
    Item,
    LocalFiles,
    Shard,
    container_of,
    fetch,
    groups_of,
    places_at,
    read_shard,
    shards_of,
)


def wav_bytes(seed=0, seconds=1.0, rate=16000):
    """A recording of noise."""
    samples = np.random.default_rng(seed).normal(size=int(seconds * rate))
    content = io.BytesIO()
    soundfile.write(content, 0.1 * samples, rate, format="WAV")
    return content.getvalue()


def write_tar(path, members, mode="w"):
    """A tar with files, name -> bytes."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_lines(path, entries):
    """An object of JSON on each line."""
    text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    packed = str(path).endswith(".gz")
    Path(path).write_bytes(gzip.compress(text) if packed else text)


def lhotse_recording(path, seconds=1.0, **more):
    """As Lhotse's ``Recording.to_dict`` gives it."""
    source = {"type": "file", "channels": [0], "source": str(path)}
    return {
        "id": "rec",
        "sources": [source],
        "sampling_rate": 16000,
        "num_samples": int(16000 * seconds),
        "duration": seconds,
        "channel_ids": [0],
        **more,
    }


def samples_of(item, folder):
    """The samples that a model is given."""
    (Path(folder) / "own").mkdir(exist_ok=True)
    path = LocalFiles(Path(folder) / "own").place(0, item)
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("a.wav", None),
        ("a.tar", "tar"),
        ("s3://b/A.TAR.GZ", "tar"),
        ("a.tgz", "tar"),
        ("a.parquet", "parquet"),
        ("a.jsonl.gz", "lines"),
        ("a.json", "lines"),
        ("tar", None),
    ],
)
def test_names_say_what_a_file_is(place, kind):
    assert container_of(place) == kind


def test_files_are_grouped_in_shards():
    places = [(f"id{n}", f"{n}.wav") for n in range(5)]
    shards = [*shards_of([*places, ("x", "x.tar")], 2)]
    assert [shard.kind for shard in shards] == ["files"] * 2 + ["tar", "files"]
    items = [item for shard in shards[:2] for item in read_shard(shard)]
    assert [(item.id, item.path) for item in items] == places[:4]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_a_tar_gives_its_recordings_front_to_back(name, tmp_path):
    path = str(tmp_path / name)
    first, second = wav_bytes(1), wav_bytes(2)
    write_tar(
        path,
        {
            "utt2.wav": first,
            "utt2.json": b"{}",
            "sub/utt1.wav": second,
            "sub/._utt1.wav": b"of macOS",
        },
        "w" if name == "a.tar" else "w:gz",
    )
    items = [*read_shard(Shard("tar", path))]
    assert [item.id for item in items] == [
        f"{path}/utt2.wav",
        f"{path}/sub/utt1.wav",
    ]
    assert [item.content for item in items] == [first, second]
    assert len({item.stamp for item in items}) == 2
    wav, _ = soundfile.read(io.BytesIO(second), dtype="float32")
    assert np.array_equal(samples_of(items[1], tmp_path), wav)


@pytest.mark.parametrize("end", [1500, 45_000])
def test_a_cut_tar_gives_what_is_whole_and_its_error(end, tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, {f"{n}.wav": wav_bytes(n) for n in range(3)})
    path.write_bytes(path.read_bytes()[:end])
    *good, last = read_shard(Shard("tar", str(path)))
    assert len(good) == end // 33_000
    assert last.id == str(path) and last.error.startswith(f"{path}: ")
    with pytest.raises(AudioError, match="a.tar: "):
        samples_of(last, tmp_path)


@pytest.mark.parametrize("kind", ["tar", "parquet", "lines"])
def test_what_is_not_there_or_no_archive_is_an_item(kind, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    place = str(tmp_path / f"a.{kind}")
    (item,) = read_shard(Shard(kind, place))
    assert item.error == f"{place}: there is no such file"
    Path(place).write_text("no such thing\n")
    (item,) = read_shard(Shard(kind, place))
    assert item.error.startswith(place)


def test_parquet_has_bytes_or_paths(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    content = wav_bytes()
    (tmp_path / "b.wav").write_bytes(content)
    audio = [
        {"bytes": content, "path": "a.wav"},
        {"bytes": None, "path": "b.wav"},
        {"bytes": None, "path": None},
    ]
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"audio": audio, "id": ["x", "y", "z"]}), path)
    one, two, three = read_shard(Shard("parquet", path))
    assert (one.id, one.content) == ("x", content)
    assert (two.path, two.content) == (str(tmp_path / "b.wav"), None)
    assert three.error == "z: expected bytes or a path; got none"
    for column, value in (("audio", content), ("path", "b.wav")):
        pq.write_table(pa.table({column: [value]}), path)
        (item,) = read_shard(Shard("parquet", path))
        assert item.id == f"{path}#0"
        assert len(samples_of(item, tmp_path)) == 16000
    pq.write_table(pa.table({"text": ["a"]}), path)
    (item,) = read_shard(Shard("parquet", path))
    assert item.error == (f"{path}: expected a column audio or path; got text")


def test_nemos_entries_are_files_and_stretches(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(seconds=2))
    path = str(tmp_path / "a.json")
    write_lines(
        path,
        [
            {"audio_filepath": "a.wav", "duration": 2.0, "text": "x"},
            {"audio_filepath": "a.wav", "duration": 0.5, "offset": 1.25},
        ],
    )
    whole, part = read_shard(Shard("lines", path))
    wav = str(tmp_path / "a.wav")
    assert (whole.id, whole.path, whole.duration_s) == (wav, wav, None)
    assert part.id == f"{wav}@1.25+0.5"
    samples = samples_of(whole, tmp_path)
    assert np.array_equal(samples_of(part, tmp_path), samples[20000:28000])


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_lhotses_cuts_and_recordings(name, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes())
    recording = lhotse_recording("a.wav")
    cut = {"start": 0.0, "duration": 1.0, "supervisions": [], "channel": 0}
    part = {**cut, "start": 0.5, "duration": 0.50004}  # lists are rounded
    path = str(tmp_path / name)
    write_lines(
        path,
        [
            {"id": "whole", **cut, "recording": recording},
            {"id": "part", **part, "recording": recording},
            recording,
        ],
    )
    whole, end, plain = read_shard(Shard("lines", path))
    assert [whole.id, end.id, plain.id] == ["whole", "part", "rec"]
    assert whole.path == plain.path == str(tmp_path / "a.wav")
    assert whole.duration_s is None
    samples = samples_of(plain, tmp_path)
    assert np.array_equal(samples_of(end, tmp_path), samples[8000:])


def test_lhotse_itself_writes_what_is_read(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    (tmp_path / "a.wav").write_bytes(wav_bytes(seconds=2))
    recording = lhotse.Recording.from_file(tmp_path / "a.wav")
    cut = recording.to_cut()
    cuts = lhotse.CutSet.from_cuts([cut, cut.truncate(offset=0.5, duration=1)])
    path = str(tmp_path / "cuts.jsonl.gz")
    cuts.to_file(path)
    whole, part = read_shard(Shard("lines", path))
    assert whole.duration_s is None and part.start_s == 0.5
    expected = cuts[part.id].load_audio()[0]
    assert np.array_equal(samples_of(part, tmp_path), expected)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "a"},
        {"audio_filepath": 3},
        {"audio_filepath": "a.wav", "offset": "x", "duration": 1},
        {"id": "a", "sources": [{"type": "command", "source": "rm x"}]},
        {"id": "a", "start": 0, "duration": 1, "recording": None},
        {
            "id": "a",
            "start": 0,
            "duration": 1,
            "recording": lhotse_recording("a", channel_ids=[0, 1]),
        },
        [],
    ],
)
def test_a_line_without_a_recording_is_an_item(entry, tmp_path):
    path = str(tmp_path / "a.jsonl")
    write_lines(path, [entry, {"audio_filepath": "/a.wav"}])
    bad, good = read_shard(Shard("lines", path))
    assert bad.error.startswith(f"{path}, line 1: expected ") or bad.error
    assert bad.id == f"{path}, line 1" and not good.error


def test_a_stretch_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes())
    path = str(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="expected a stretch of its 16000"):
        samples_of(Item("x", path, None, 3.0, 1.0), tmp_path)


def test_groups_are_about_so_long(tmp_path):
    files = []
    for n in range(6):
        path = tmp_path / f"{n}.wav"
        path.write_bytes(wav_bytes(n))
        files.append((str(n), str(path)))
    shard = Shard("files", files=tuple(files))
    groups = [*groups_of(read_shard(shard), 2.0, lambda item: item.id == "1")]
    assert [[i.id for i in g] for g in groups] == [
        ["0", "2"],
        ["3", "4"],
        ["5"],
    ]
    assert all(item.stamp for group in groups for item in group)


def test_a_group_has_so_many_recordings_and_bytes_at_most(monkeypatch):
    items = [Item(str(n), f"{n}.wav", b"1234") for n in range(5)]
    monkeypatch.setattr(sources, "_MOST_BYTES", 8)
    sizes = [len(g) for g in groups_of(items, 99.0, lambda item: False)]
    assert sizes == [2, 2, 1]
    monkeypatch.setattr(sources, "_MOST_BYTES", 99)
    monkeypatch.setattr(sources, "_MOST_ITEMS", 4)
    sizes = [len(g) for g in groups_of(items, 99.0, lambda item: False)]
    assert sizes == [4, 1]


@pytest.mark.parametrize("workers", [2, 5])
def test_groups_shrink_where_workers_share_the_last_ones(workers):
    items = [Item(str(n), "x", b"", duration_s=1.0) for n in range(997)]
    none_is = lambda item: False  # noqa: E731
    groups = [*groups_of(items, 40.0, none_is, workers)]
    assert [item for group in groups for item in group] == items
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    first = sizes.count(40)
    assert 997 - 2 * workers * 40 <= 40 * first <= 997
    assert min(sizes[:-1]) == 5 and sizes[-1] <= 5
    ends = [0.0] * workers  # of the workers, who take the next when idle
    for size in sizes:
        ends[ends.index(min(ends))] += size
    assert max(ends) - min(ends) <= 5
    alone = [len(group) for group in groups_of(items, 40.0, none_is)]
    assert alone == 24 * [40] + [37]


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_urls_are_listed_and_fetched(scheme, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    content = wav_bytes()
    root = f"{scheme}://{tmp_path}/in"
    archive = tmp_path / "a.tar"
    write_tar(archive, {"u.wav": content})
    files = {"a.wav": content, "sub/b.wav": content, "notes.txt": b"x"}
    files |= {"s.tar": archive.read_bytes(), ".c.wav": content}
    system = fsspec.filesystem(scheme)
    for name, data in files.items():
        with fsspec.open(f"{root}/{name}", "wb", auto_mkdir=True) as file:
            file.write(data)
    assert places_at(root) == [
        f"{root}/a.wav",
        f"{root}/s.tar",
        f"{root}/sub/b.wav",
    ]
    assert places_at(f"{root}/*.wav")[-1] == f"{root}/a.wav"
    places = places_at(root)
    items = [
        item
        for shard in shards_of(zip(places, places), 9)
        for group in groups_of(read_shard(shard), 99.0, lambda item: False)
        for item in fetch(group)
    ]
    assert {item.id for item in items} == {
        f"{root}/a.wav",
        f"{root}/sub/b.wav",
        f"{root}/s.tar/u.wav",
    }
    assert all(item.content == content and item.stamp for item in items)
    (missing,) = fetch([Item("x", f"{root}/no.wav")])
    assert missing.error == f"{root}/no.wav: there is no such file"
    with pytest.raises(ValueError, match="there are none"):
        places_at(f"{root}/*.flac")
    system.rm(root, recursive=True)


def test_a_digest_is_of_bytes_and_stretch(tmp_path):
    content = wav_bytes()
    (tmp_path / "a.wav").write_bytes(content)
    path = str(tmp_path / "a.wav")
    files = LocalFiles(tmp_path)
    here, there = Item("a", path), Item("b", "b.wav", content)
    assert files.digest(here) == files.digest(there)
    assert files.digest(here) != files.digest(here._replace(duration_s=1.0))
    assert files.digest(here) != files.digest(Item("c", "c.wav", b"other"))
