"""Results of bulk jobs: their columns, and the Parquet files that have them."""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unispeech_sb.atomic import atomic, sweep
from unispeech_sb.inference.formats import (
    CLASSIFICATION_FORMATS,
    DIARIZATION_FORMATS,
    SPEAKER_FORMATS,
    TRANSCRIPT_FORMATS,
)

if TYPE_CHECKING:  # every command imports this file, and few need numpy
    import numpy as np

_TIMED = {"start": "double", "end": "double", "confidence": "double"}

COLUMNS = {
    "id": (
        "string",
        "the path as given, or Kaldi's name; of a list its id, of a tar "
        "`TAR/MEMBER`, of Parquet the column `id` or `FILE#ROW`",
    ),
    "error": ("string", "why there is no result; null where there is one"),
    "duration": ("double", "length of the recording in seconds"),
    "model": ("string", "digest of the model's files and the options"),
    "content": ("string", "digest of the recording's bytes and of `model`"),
    "stamp": ("string", "size and time of the file, by which it is skipped"),
}
"""Column of every job -> its type, and what it is."""


class Job(NamedTuple):
    """A command as a bulk job: the function that makes of the arguments what
    runs files (``module:name``), its columns, what gives them of a result, and
    seconds of a group of recordings."""

    opens: str
    columns: Mapping[str, tuple[Any, str]]
    row: Callable[[Any], dict[str, Any]]
    group_s: float = 600.0


def _row_of_json(result, form):
    """What a format says of a result."""
    return json.loads(form.write(result, ""))


def _row_of_transcript(result):
    """Text and words, and the speakers where they are known."""
    has_speakers = hasattr(result, "speakers")
    formats = SPEAKER_FORMATS if has_speakers else TRANSCRIPT_FORMATS
    return _row_of_json(result, formats["json"])


def _row_of_embedding(result):
    """The vector."""
    vector = result.vector.numpy()
    return {"duration": result.duration_s, "embedding": vector}


def _row_of_states(result):
    """States and their shape; of a stream all of them."""
    import numpy as np

    states = np.concatenate([block.numpy() for block in result.blocks], 1)
    return {
        "duration": result.duration_s,
        "frame_s": result.frame_s,
        "layers": result.layers,
        "shape": states.shape,
        "states": states.reshape(-1),
    }


JOBS = {
    "embed": Job(
        "speakers:open_embedder",
        {"embedding": (["float"], "the speaker embedding, [D]")},
        _row_of_embedding,
    ),
    "transcribe": Job(
        "transcribe:open_transcriber",
        {
            "text": ("string", "the transcript"),
            "words": (
                [{"word": "string", **_TIMED, "speaker": "string"}],
                "words; the speaker with `--speakers`",
            ),
            "slots": (
                [{"slot": "string", "value": "string"}],
                "slots, of models that fill them",
            ),
            "speakers": (["string"], "speakers, with `--speakers`"),
            "segments": (
                [
                    {
                        "start": "double",
                        "end": "double",
                        "speaker": "string",
                        "text": "string",
                    }
                ],
                "segments of a speaker, with `--speakers`",
            ),
        },
        _row_of_transcript,
    ),
    "diarize": Job(
        "diarize:open_diarizer",
        {
            "speakers": (["string"], "speakers as they begin"),
            "segments": ([{**_TIMED, "speaker": "string"}], "who speaks when"),
        },
        partial(_row_of_json, form=DIARIZATION_FORMATS["json"]),
    ),
    "classify": Job(
        "classify:open_classifier",
        {
            "label": ("string", "the most probable class"),
            "posterior": ("double", "its probability"),
            "classes": (
                [{"label": "string", "posterior": "double"}],
                "the first `--top-k` classes",
            ),
        },
        partial(_row_of_json, form=CLASSIFICATION_FORMATS["json"]),
    ),
    "features": Job(
        "features:open_extractor",
        {
            "layers": (["int32"], "numbers of the layers"),
            "frame_s": ("double", "seconds from one frame to the next"),
            "shape": (["int32"], "layers, frames, size of a state: [L, T, D]"),
            "states": (["float"], "the states, row by row"),
        },
        _row_of_states,
        120.0,
    ),
}
"""Command -> its bulk job."""


_MODELS = ("folder", "lm", "enrolled", "speakers", "speaker_model")
"""Arguments that are files or folders of what results depend on."""
_OF_NO_EFFECT = {
    *("files", "output", "output_dir", "overwrite", "format", "device"),
    *("batch_seconds", "workers", "threads", "compile", "trust"),
    *("ray_address", "actors", "gpus_per_actor", "part_seconds"),
    *("rttm_dir", "plot", "reference"),
}
"""Arguments that results do not depend on, but for rounding."""


def model_digest(command: str, arguments: argparse.Namespace) -> str:
    """What results depend on: the command, its options, and the files of its
    models, wherever they are."""
    from unispeech_sb.dataio.sources import digest_of

    found = hashlib.sha256(command.encode())
    for name, value in sorted(vars(arguments).items()):
        if name in _OF_NO_EFFECT:
            continue
        found.update(f"\n{name}=".encode())
        if name not in _MODELS or value is None:
            found.update(repr(value).encode())
            continue
        path = Path(value)
        files = [path] if path.is_file() else sorted(path.rglob("[!.]*"))
        for file in files:
            if file.is_file() and file.suffix != ".md":
                found.update(f"{file.name} ".encode() + digest_of(file))
    return found.hexdigest()[:16]


class Known(NamedTuple):
    """What is in the parts, as arrays, [N] each, sorted by the first: numbers
    of ids, stamps and contents, and of the part; 0 for what is to be done
    again."""

    ids: "np.ndarray"
    stamps: "np.ndarray"
    contents: "np.ndarray"
    parts: "np.ndarray"

    def place(self, name: str) -> int | None:
        """Where an id is; None where it is not."""
        number = _number(name)
        place = int(self.ids.searchsorted(number))
        is_there = place < len(self.ids) and self.ids[place] == number
        return place if is_there else None

    def has(self, item: Any) -> bool:
        """Whether a recording is there, and its file is as it was."""
        place = self.place(item.id)
        if place is None or not item.stamp:
            return False
        return bool(self.stamps[place] == _number(item.stamp))

    def has_content(self, name: str, content: str) -> bool:
        """Whether a recording is there with that content."""
        place = self.place(name)
        found = None if place is None else self.contents[place]
        return bool(found == _number(content))


def _number(text):
    """64 bits that stand for a text, not 0."""
    import numpy as np

    found = hashlib.blake2b(
        text.encode("utf-8", "surrogateescape"), digest_size=8
    )
    return np.uint64(int.from_bytes(found.digest(), "big") or 1)


class Parts:
    """The Parquet files of a job.

    A recording is in one of them. What failed, or has changed, is replaced: the
    old row goes before the new one is written.
    """

    def __init__(
        self, folder: Path, model: str, overwrite: bool = False
    ) -> None:
        self.folder, self.model = folder, model
        sweep(folder)
        self.files = sorted(folder.glob("part-*.parquet"))
        while overwrite and self.files:
            self.files.pop().unlink()
        self.known = self._read()
        self.num_new = self.num_failed = self.num_again = 0
        self.num_old = len(self.known.ids)
        self.num_parts = len(self.files)
        self._seen: set[int] = set()

    def add(self, table: Any) -> Any:
        """Writes rows as a part; gives them without those whose ids this run
        has had already."""
        first: dict[int, int] = {}
        for place, name in enumerate(table["id"].to_pylist()):
            first.setdefault(int(_number(name)), place)
        new = sorted(first[number] for number in first.keys() - self._seen)
        self._seen.update(first)
        self.num_again += len(table) - len(new)
        table = _rows(table, new)
        self.num_failed += len(table) - table["error"].null_count
        fresh = self._replacing(table)
        if len(fresh):
            pairs = [*zip(*(fresh[n].to_pylist() for n in ("id", "content")))]
            digest = hashlib.sha256(repr(pairs).encode()).hexdigest()[:24]
            self._write(self.folder / f"part-{digest}.parquet", fresh)
            self.num_parts += 1
            self.num_new += len(fresh)
        return table

    def _replacing(self, table):
        """Takes the rows of some ids out of the parts of earlier runs; gives
        the rows of a table but for errors that stay the same."""
        import pyarrow.parquet as pq

        names = table["id"].to_pylist()
        errors = dict(zip(names, table["error"].to_pylist()))
        places = {name: self.known.place(name) for name in names}
        stale: dict[int, set[str]] = {}
        for name, place in places.items():
            if place is not None:
                part = int(self.known.parts[place])
                stale.setdefault(part, set()).add(name)
        same: set[str] = set()
        for part, gone in stale.items():
            old = pq.read_table(self.files[part])
            rows = zip(old["id"].to_pylist(), old["error"].to_pylist())
            same |= {n for n, e in rows if n in gone and e and e == errors[n]}
            self._keep(self.files[part], old, gone - same)
        kept = [n for n, name in enumerate(names) if name not in same]
        return _rows(table, kept)

    def _keep(self, path, table, gone):
        """Writes a part again without some ids."""
        names = table["id"].to_pylist()
        kept = [n for n, name in enumerate(names) if name not in gone]
        kept = _rows(table, kept)
        self.num_old -= len(table) - len(kept)
        if not len(kept):
            path.unlink()
            self.num_parts -= 1
        elif len(kept) < len(table):
            self._write(path, kept)

    def _write(self, path, table):
        """Writes a part, whole or not at all."""
        import pyarrow.parquet as pq

        with atomic(path, mode=None) as draft:
            pq.write_table(table, draft, compression="zstd")

    def _read(self):
        """What earlier runs have done."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = ["id", "error", "model", "content", "stamp"]
        none = np.zeros(0, np.uint64)
        found = [Known(none, none, none, np.zeros(0, int))]
        for part, file in enumerate(self.files):
            try:
                table = pq.read_table(file, columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"{file}: expected a part of a job of --engine ray, got a "
                    f"file that does not read as one ({error!s:.100}): remove "
                    "it to compute its recordings again"
                ) from error
            others = set(table["model"].to_pylist()) - {self.model}
            if others:
                raise ValueError(
                    f"{self.folder}: expected results of this model and these "
                    f"options ({self.model}), to add to them; got those of "
                    f"{others.pop()}: choose another folder, or --overwrite"
                )
            ids, *rest = (
                np.array([_number(text) for text in table[name].to_pylist()])
                for name in ("id", "stamp", "content")
            )
            is_good = np.array([e is None for e in table["error"].to_pylist()])
            parts = np.full(len(ids), part)
            found.append(Known(ids, *(row * is_good for row in rest), parts))
        joined = [np.concatenate(columns) for columns in zip(*found)]
        order = joined[0].argsort()
        return Known._make(column[order] for column in joined)


def _rows(table, places):
    """Some rows of a table, which may be none."""
    import pyarrow as pa

    return table.take(pa.array(places, pa.int64()))


def schema_of(command: str) -> Any:
    """The columns of a command's parts."""
    import pyarrow as pa

    def kind(about):
        if isinstance(about, str):
            return pa.type_for_alias(about)
        if isinstance(about, dict):
            return pa.struct([(name, kind(k)) for name, k in about.items()])
        return pa.list_(kind(about[0]))

    rows = {**COLUMNS, **JOBS[command].columns}.items()
    return pa.schema([(name, kind(about)) for name, (about, _) in rows])
