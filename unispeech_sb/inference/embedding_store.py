"""Embeddings of speakers by name: searched for the nearest, kept in a file.

``ResumableExtractor`` fills such a file from recordings. Beside the file to
come stands a folder with what was embedded so far, in parts that appear whole
or not at all; the next run goes on from there.
"""

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from unispeech_sb.atomic import OneWriter, sweep
from unispeech_sb.checkpoints.files import (
    check_finite,
    read_metadata,
    read_tensors,
    write_tensors,
)
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.speaker_verification import (
    SpeakerEmbedding,
    SpeakerVerification,
)

FORMAT = "unispeech_sb voices 1"
BLOCK = 2**22
"""Scores that are in memory at once, or those of one query."""
_MARGIN = 1e-5
"""More than float32 rounds a cosine by."""
PART_S = 5.0
"""Seconds of work between two parts: about what an interruption costs."""


class Match(NamedTuple):
    """A speaker of the store, and its cosine with the query."""

    name: str
    score: float


class EmbeddingStore:
    """Speaker embeddings by name, in the order in which they were added.

    ``model`` says what they are from, "" where it is not known: embeddings of
    different models cannot be compared.
    """

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.names: list[str] = []
        self._places: dict[str, int] = {}
        self._rows, self._seconds = torch.zeros(0, 0), torch.zeros(0)
        # Joined when they are needed, as joining copies
        self._added: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> SpeakerEmbedding:
        place = self._places[name]
        return SpeakerEmbedding(
            self.vectors[place], self.durations_s[place].item()
        )

    @property
    def vectors(self) -> torch.Tensor:
        """All embeddings, [N, D]."""
        self._join()
        return self._rows

    @property
    def durations_s(self) -> torch.Tensor:
        """Seconds that each was computed from, [N]."""
        self._join()
        return self._seconds

    def add(self, name: str, embedding: SpeakerEmbedding) -> None:
        """Adds an embedding with a new name and of the store's size."""
        self._extend(
            [name],
            embedding.vector[None],
            torch.tensor([embedding.duration_s]),
        )

    def update(self, other: "EmbeddingStore") -> None:
        """Adds all embeddings of another store, of the same model."""
        if other.model != self.model:
            raise ValueError(
                f"embeddings: expected those of the model {self.model!r}; "
                f"got {other.model!r}"
            )
        if len(other):
            self._extend(other.names, other.vectors, other.durations_s)

    def select(self, names: Iterable[str]) -> "EmbeddingStore":
        """A store of some of the embeddings, in the order of the names."""
        names, chosen = list(names), EmbeddingStore(self.model)
        if names:
            places = [self._places[name] for name in names]
            chosen._extend(
                names, self.vectors[places], self.durations_s[places]
            )
        return chosen

    def search(
        self, queries: Sequence[SpeakerEmbedding], top_k: int = 10
    ) -> list[list[Match]]:
        """The best ``top_k`` for each query, best first, by their cosines.

        All are compared, a block of queries at a time. Of equal scores, the one
        that was added first comes first.
        """
        if not len(self) or top_k < 1:
            raise ValueError(
                "search: expected embeddings and top_k from 1 on; got "
                f"{len(self)} and {top_k}"
            )
        if not queries:
            return []
        vectors = torch.stack([query.vector for query in queries])
        wanted = _directions(vectors)
        if wanted.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"search: expected queries of size {self.vectors.shape[1]}; "
                f"got {wanted.shape[1]}"
            )
        norms = self.vectors.norm(dim=1)
        most, found = max(1, BLOCK // len(self)), []
        for block, whole in zip(
            wanted.split(most), vectors.split(most), strict=True
        ):
            scores = block @ self.vectors.T / norms  # [Q, N]
            rows = zip(whole, scores, strict=True)
            found += [self._best(*row, top_k) for row in rows]
        return found

    def save(self, path: str | Path) -> None:
        """Writes safetensors: vectors [N, D], durations_s [N], names."""
        note = {"format": FORMAT, "model": self.model, "names": self.names}
        tensors = {"vectors": self.vectors, "durations_s": self.durations_s}
        write_tensors(path, tensors, {"voices": json.dumps(note)})

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingStore":
        """Reads a file of ``save``, to the bit; a ``ValueError`` for others."""
        names, model = _read_note(path)
        tensors = read_tensors(path)
        rows, seconds = (
            tensors.get(name, torch.zeros(())).float()
            for name in ("vectors", "durations_s")
        )
        if rows.dim() != 2 or not len(rows) == len(names) == seconds.numel():
            raise ValueError(
                f"{path}: expected an embedding and a length for each of "
                f"{len(names)} speakers"
            )
        check_finite(tensors, path)
        store = cls(model)
        if names:
            try:
                store._extend(names, rows, seconds)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        return store

    def _extend(self, names, vectors, seconds):
        """Adds embeddings, or none of them."""
        vectors = vectors.detach().float().cpu()
        size = self._added[0][0].shape[1] if self._added else 0
        size = size or self._rows.shape[1] or vectors.shape[1]
        taken = [name for name in names if name in self._places]
        if taken or len(set(names)) < len(names):
            what = f"a second {taken[0]!r}" if taken else "a name twice"
            raise ValueError(
                f"embeddings: expected different names; got {what}"
            )
        if vectors.shape[1] != size:
            raise ValueError(
                f"embeddings: expected size {size}; got {vectors.shape[1]}"
            )
        _directions(vectors)
        for name in names:
            self._places[name] = len(self.names)
            self.names.append(name)
        self._added.append((vectors, seconds.float()))

    def _join(self):
        """Puts what was added into one matrix."""
        if not self._added:
            return
        rows, seconds = zip(*self._added, strict=True)
        if len(self._rows):
            rows, seconds = (self._rows, *rows), (self._seconds, *seconds)
        self._rows, self._seconds = torch.cat(rows), torch.cat(seconds)
        self._added = []

    def _best(self, query, scores, top_k):
        """The best matches of one query, exactly."""
        # How a product is rounded depends on the place in the matrix, so
        # those that may be among the best are compared again, one by one
        least = scores.topk(min(top_k, len(scores))).values[-1]
        places = (scores >= least - _MARGIN).nonzero()[:, 0]
        rows = self.vectors[places].double()
        query = query.double().cpu()
        norms = rows.square().sum(1) * query.square().sum()
        exact = ((rows * query).sum(1) / norms.sqrt()).clamp(-1, 1)
        best, order = exact.sort(descending=True, stable=True)
        found = zip(places[order].tolist(), best.tolist(), strict=True)
        return [
            Match(self.names[place], score)
            for place, score in itertools.islice(found, top_k)
        ]


Gallery = EmbeddingStore
"""The name that earlier versions gave it."""


class ResumableExtractor:
    """The file of embeddings to come, and the parts of it that are there.

    Embeddings that the file has are kept, but for those of recordings that were
    modified since it was written; ``model`` is that of ``model_id``.
    Until ``finish`` or ``close``, or the end of a ``with`` block, another
    process that opens the same file is refused: see ``OneWriter``.
    """

    def __init__(self, path: str | Path, model: str) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.store, self._part = EmbeddingStore(model), EmbeddingStore(model)
        self._flushed, self._next = time.monotonic(), 0
        self._written_ns: dict[str, int] = {}
        self._writer = OneWriter(self.path, shared=True)
        if not self.path.exists() or self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer.acquire()
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ResumableExtractor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes open the file."""
        self._writer.release()

    def extract(
        self,
        verification: SpeakerVerification,
        files: Mapping[str, str | Path],
        batch_seconds: float,
        on_progress: Callable[[float], object] | None,
    ) -> dict[str, AudioError]:
        """Embeds the files, name -> path, that are missing; name -> error.

        What was embedded is written whatever happens.
        """
        errors: dict[str, AudioError] = {}
        names = self.missing(files)
        if not names:
            return errors
        try:
            for path, result in verification.embed_files(
                names, batch_seconds, on_progress
            ):
                if isinstance(result, AudioError):
                    errors[names[path]] = result
                else:
                    self.add(names[path], result)
        finally:
            self.flush()
        return errors

    def missing(self, files: Mapping[str, str | Path]) -> dict[str | Path, str]:
        """Path -> name of those files that are to be embedded: not there yet,
        or modified since, whose old embeddings are given up."""
        changed = {
            name
            for name, written_ns in self._written_ns.items()
            if name in files and _modified_ns(files[name]) > written_ns
        }
        self._drop(changed)
        return {p: name for name, p in files.items() if name not in self.store}

    def add(self, name: str, embedding: SpeakerEmbedding) -> None:
        """Adds an embedding; from time to time writes what was added."""
        self.store.add(name, embedding)
        self._part.add(name, embedding)
        if time.monotonic() - self._flushed > PART_S:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last part."""
        self._flushed = time.monotonic()
        if not len(self._part):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part.save(self.folder / f"{self._next:06d}.safetensors")
        self._next += 1
        self._part = EmbeddingStore(self.store.model)

    def finish(self, order: Iterable[str]) -> EmbeddingStore:
        """Writes the file, those of ``order`` first; removes the parts."""
        found = [name for name in order if name in self.store]
        first = set(found)
        found += [name for name in self.store.names if name not in first]
        ordered = self.store.select(found)
        if found:
            ordered.save(self.path)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()
        return ordered

    def _read(self):
        """Takes what earlier runs have written."""
        sweep(self.folder)
        files = sorted(self.folder.glob("[0-9]*.safetensors"))
        for file in [*([self.path] if self.path.is_file() else []), *files]:
            self._take(file)
        self._next = int(files[-1].stem) + 1 if files else 0

    def _take(self, file):
        """Adds the embeddings of a file, but for those that are there."""
        found = EmbeddingStore.load(file)
        if found.model != self.store.model:
            raise ValueError(
                f"{file}: expected embeddings of this model and --window-s "
                f"({self.store.model}), to add to them; got {found.model}"
            )
        # A recording may have changed since; or a run was killed while it
        # cleaned up, and left what the file has
        self._drop({name for name in found.names if name in self.store})
        self.store.update(found)
        written_ns = file.stat().st_mtime_ns
        self._written_ns |= dict.fromkeys(found.names, written_ns)

    def _drop(self, names):
        """Gives up some embeddings."""
        if names:
            kept = [name for name in self.store.names if name not in names]
            self.store = self.store.select(kept)
            for name in names:
                del self._written_ns[name]


def model_id(
    folder: str | Path, window_s: float, precision: str | None = None
) -> str:
    """Digest of what embeddings depend on: yaml, weights, longest window, and
    a precision other than the folder's or fp32."""
    folder, digest = Path(folder), hashlib.sha256()
    plain = ("calibration", "label_encoder")
    weights = sorted(
        p for p in folder.glob("[!.]*.ckpt") if p.stem not in plain
    )
    for path in (folder / "hyperparams.yaml", *weights):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    lower = "" if precision in (None, "fp32") else f"-{precision}"
    return f"{digest.hexdigest()[:16]}-{window_s:g}s{lower}"


def _modified_ns(path):
    """When a file was modified last, 0 where it is not there any more."""
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0


def _directions(vectors):
    """Embeddings of norm 1, [N, D]."""
    norms = vectors.norm(dim=1, keepdim=True)
    wrong = ~((norms > 0) & norms.isfinite())
    if wrong.any():
        raise ValueError(
            "embeddings: expected those with a direction; got one of norm "
            f"{norms[wrong][0]:g}"
        )
    return vectors.float().cpu() / norms.float().cpu()


def _read_note(path):
    """Names and model of a file."""
    try:
        note = json.loads(read_metadata(path)["voices"])
        names, model = note["names"], note["model"]
        known = note["format"] == FORMAT and isinstance(model, str)
        known = known and isinstance(names, list)
        known = known and all(isinstance(name, str) for name in names)
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError):
        known = False
    if not known:
        raise ValueError(
            f"{path}: expected a file of speaker embeddings, as unispeech-sb "
            "embed and EmbeddingStore.save write it"
        )
    return names, model
