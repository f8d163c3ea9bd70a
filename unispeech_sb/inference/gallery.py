"""Galleries: many voices by name, searched for the nearest, kept in a file."""

import itertools
import json
from typing import NamedTuple

import torch

from unispeech_sb.checkpoints.files import (
    check_finite,
    read_metadata,
    read_tensors,
    write_tensors,
)
from unispeech_sb.inference.voices import Voice

FORMAT = "unispeech_sb voices 1"
BLOCK = 2**22
"""Scores that are held at once, or those of one query."""
MARGIN = 1e-5
"""More than float32 rounds a cosine by."""


class Match(NamedTuple):
    """A voice that was found.

    Arguments
    ---------
    name : str
        What it is called in the gallery.
    score : float
        Its cosine with the one that was looked for.

    Example
    -------
    >>> Match("ann", 0.75).name
    'ann'
    """

    name: str
    score: float


class Gallery:
    """Voices by name, in the order in which they were added.

    Arguments
    ---------
    model : str
        What they are from: voices of different models cannot be compared.
        Empty where it is not known.

    Example
    -------
    >>> gallery = Gallery()
    >>> gallery.add("ann", Voice(torch.tensor([1.0, 0.0]), 3.0))
    >>> gallery.add("bob", Voice(torch.tensor([0.0, 2.0]), 4.0))
    >>> (matches,) = gallery.search([gallery["bob"]], top_k=1)
    >>> matches
    [Match(name='bob', score=1.0)]
    """

    def __init__(self, model=""):
        self.model = model
        self.names = []
        self._places = {}
        self._rows, self._seconds = torch.zeros(0, 0), torch.zeros(0)
        self._added = []  # joined when they are needed, as joining copies

    def __len__(self):
        return len(self.names)

    def __contains__(self, name):
        return name in self._places

    def __getitem__(self, name):
        place = self._places[name]
        return Voice(self.vectors[place], self.durations_s[place].item())

    @property
    def vectors(self):
        """Embeddings of all voices, [N, D]."""
        self._join()
        return self._rows

    @property
    def durations_s(self):
        """Seconds that each was computed from, [N]."""
        self._join()
        return self._seconds

    def add(self, name, voice):
        """Adds a voice.

        Arguments
        ---------
        name : str
            What to call it; not in the gallery yet.
        voice : Voice
            From a recording or an enrolment.

        Raises
        ------
        ValueError
            When the name is taken, or the embedding has another size than
            the others or no direction.
        """
        self._extend(
            [name], voice.vector[None], torch.tensor([voice.duration_s])
        )

    def update(self, other):
        """Adds all voices of another gallery.

        Arguments
        ---------
        other : Gallery
            Of the same model.

        Raises
        ------
        ValueError
            When it is of another model, or as ``add``.
        """
        if other.model != self.model:
            raise ValueError(
                f"gallery: expected voices of the model {self.model!r}; "
                f"got {other.model!r}"
            )
        if len(other):
            self._extend(other.names, other.vectors, other.durations_s)

    def select(self, names):
        """Makes a gallery of some of the voices.

        Arguments
        ---------
        names : iterable of str
            Which, in the order that they are to have; all in this gallery.

        Returns
        -------
        Gallery
            Theirs.
        """
        names, chosen = list(names), Gallery(self.model)
        if names:
            places = [self._places[name] for name in names]
            chosen._extend(
                names, self.vectors[places], self.durations_s[places]
            )
        return chosen

    def search(self, queries, top_k=10):
        """Finds the voices that are nearest.

        All are compared, a block of queries at a time. Of voices with one
        score, the one that was added first comes first.

        Arguments
        ---------
        queries : sequence of Voice
            What to look for.
        top_k : int
            Most voices to find for each.

        Returns
        -------
        list of list of Match
            The best ``top_k`` for each query, best first; all voices where
            the gallery has fewer.

        Raises
        ------
        ValueError
            When the gallery is empty, a query does not fit, or ``top_k`` is
            less than 1.
        """
        if not len(self) or top_k < 1:
            raise ValueError(
                "gallery: expected voices to search and top_k from 1 on; got "
                f"{len(self)} and {top_k}"
            )
        if not queries:
            return []
        vectors = torch.stack([query.vector for query in queries])
        wanted = _directions(vectors)
        if wanted.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"gallery: expected queries of size {self.vectors.shape[1]}; "
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

    def save(self, path):
        """Writes a safetensors file, whole or not at all.

        Arguments
        ---------
        path : str or pathlib.Path
            The file to write or to replace: ``vectors`` [N, D] and
            ``durations_s`` [N], and the names among its notes.
        """
        note = {"format": FORMAT, "model": self.model, "names": self.names}
        tensors = {"vectors": self.vectors, "durations_s": self.durations_s}
        write_tensors(path, tensors, {"voices": json.dumps(note)})

    @classmethod
    def load(cls, path):
        """Reads a file of ``save``.

        Arguments
        ---------
        path : str or pathlib.Path
            The file.

        Returns
        -------
        Gallery
            What was saved, to the bit.

        Raises
        ------
        ValueError
            When the file is damaged or another one.
        FileNotFoundError
            When there is none.

        Example
        -------
        >>> path = getfixture("tmp_path") / "voices.safetensors"
        >>> gallery = Gallery("model of 2024")
        >>> gallery.add("ann", Voice(torch.tensor([1.0, 0.0]), 3.0))
        >>> gallery.save(path)
        >>> Gallery.load(path).names
        ['ann']
        """
        names, model = _read_note(path)
        tensors = read_tensors(path)
        rows, seconds = (
            tensors.get(name, torch.zeros(())).float()
            for name in ("vectors", "durations_s")
        )
        if rows.dim() != 2 or not len(rows) == len(names) == seconds.numel():
            raise ValueError(
                f"{path}: expected an embedding and a length for each of "
                f"{len(names)} voices"
            )
        check_finite(tensors, path)
        gallery = cls(model)
        if names:
            try:
                gallery._extend(names, rows, seconds)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        return gallery

    def _extend(self, names, vectors, seconds):
        """Adds voices, or none of them."""
        vectors = vectors.detach().float().cpu()
        size = self._added[0][0].shape[1] if self._added else 0
        size = size or self._rows.shape[1] or vectors.shape[1]
        taken = [name for name in names if name in self._places]
        if taken or len(set(names)) < len(names):
            what = f"a second {taken[0]!r}" if taken else "a name twice"
            raise ValueError(f"gallery: expected different names; got {what}")
        if vectors.shape[1] != size:
            raise ValueError(
                f"gallery: expected embeddings of size {size}; "
                f"got {vectors.shape[1]}"
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
        places = (scores >= least - MARGIN).nonzero()[:, 0]
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


def _directions(vectors):
    """Embeddings of norm 1, [N, D]."""
    norms = vectors.norm(dim=1, keepdim=True)
    wrong = ~((norms > 0) & norms.isfinite())
    if wrong.any():
        raise ValueError(
            "gallery: expected embeddings with a direction; got one of norm "
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
            f"{path}: expected a file of voices, as unispeech-sb embed and "
            "Gallery.save write it"
        )
    return names, model
