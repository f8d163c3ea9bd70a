"""QUESST 2014, spoken queries in spoken documents, lists of one's own in its
place, and the files of its scorer.

A record is of a query, in valid (QUESST's dev) or test (its eval), or of a
document, which has no split: all documents are searched for all queries.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.corpora.csv_table import csv_table
from unispeech_sb.dataio.manifest import has_columns, read_rows
from unispeech_sb.text import compare_names, fields_of

_DOCUMENTS = "language_key_utterances.lst"
_QUERIES = {"valid": "dev", "test": "eval"}
"""Split -> its name in QUESST."""

_LISTS = ("queries.csv", "documents.csv", "truth.csv")
NOT_REPORTED = -10.0
"""Score that the scorer gives to a trial that a list does not have."""


class Truth(NamedTuple):
    """Which documents hold which queries.

    ``queries`` and ``documents`` are the names of all that is scored,
    ``held`` has a pair of names where the document holds the query.
    """

    queries: list[str]
    documents: list[str]
    held: set[tuple[str, str]]

    def table(self) -> np.ndarray:
        """Whether each document holds each query, bool, [Q, M]."""
        rows, columns = _places(self.queries), _places(self.documents)
        table = np.zeros((len(rows), len(columns)), bool)
        for query, document in self.held:
            table[rows[query], columns[document]] = True
        return table

    def scores(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        reported: np.ndarray,
    ) -> np.ndarray:
        """Scores of all trials, [Q, M], of those that were reported, by their
        names; others get ``NOT_REPORTED``, and names that are not scored are
        left out."""
        found = np.full((len(self.queries), len(self.documents)), NOT_REPORTED)
        (ours, rows), (own, columns) = (
            _shared(names, known)
            for names, known in (
                (queries, self.queries),
                (documents, self.documents),
            )
        )
        found[np.ix_(rows, columns)] = reported[np.ix_(ours, own)]
        return found


def _places(names):
    """Name -> its place."""
    return {name: place for place, name in enumerate(names)}


def _shared(names, known):
    """Places of the names that both lists have, in either."""
    there = _places(known)
    both = [(i, there[n]) for i, n in enumerate(names) if n in there]
    return tuple(np.array(places, int) for places in zip(*both))


def is_quesst14(path):
    """Whether a folder has QUESST's list of documents."""
    return Path(path, "scoring", _DOCUMENTS).is_file()


def is_query_lists(path):
    """Whether a folder has lists of queries and documents."""
    return all(Path(path, name).is_file() for name in _LISTS[:2])


def quesst14(
    path: str | Path, language: str | None = None
) -> Iterator[dict[str, Any]]:
    """Reads the records of QUESST 2014: queries, then documents.

    Its lists in ``scoring`` have a path, whose first folder is not there, and
    a language, all of which are taken when it is omitted. Queries have the
    column ``truth``, the RTTM file of their split.
    """
    root = Path(path).absolute()
    for split, name in _QUERIES.items():
        own = root / "scoring" / f"language_key_{name}.lst"
        folder = root / "scoring" / f"groundtruth_quesst14_{name}"
        truth = str(_only(folder, "*.rttm"))
        for record in _listed(own, root, language):
            yield {**record, "split": split, "truth": truth}
    yield from _listed(root / "scoring" / _DOCUMENTS, root, language)


def _listed(path, root, language):
    """Records of a list of paths and languages."""
    found = []
    for where, fields in fields_of(path):
        if len(fields) != 2:
            raise ValueError(
                f"{where}: expected a path and a language, got {len(fields)} "
                "fields"
            )
        wav = root / re.sub("^[^/]*/", "", fields[0])
        if language not in (None, fields[1]):
            continue
        if not wav.is_file():
            raise ValueError(f"{where}: no such file: {wav}")
        found.append({"ID": wav.stem, "wav": str(wav)})
    if not found:
        raise ValueError(
            f"{path}: expected recordings of the language {language}, got none"
        )
    return found


def query_lists(path: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of one's own lists: queries, then documents.

    ``queries.csv`` has the columns id, path and split, ``documents.csv`` id and
    path. Which holds which is in ``truth.csv``, with the columns query and
    document, names of each; without that file, by the column wrd of both: a
    document holds a query where it has its words, one after the other.
    """
    queries, documents, truth = (Path(path, name).absolute() for name in _LISTS)
    given = {"truth": str(truth)} if truth.is_file() else {}
    for record in csv_table(queries, None, {"eval": "test"}):
        yield {**record, **given}
    for record in csv_table(documents, None, needed=("wav",)):
        record.pop("split", None)
        yield record


def read_truth(
    queries: Sequence[dict[str, Any]],
    documents: Sequence[dict[str, Any]],
    full_lists: bool = False,
) -> Truth:
    """Reads which documents hold the queries of a split.

    Scored are the queries and documents of the records; with ``full_lists``
    those of the scorer's own files beside an RTTM, which for QUESST are of all
    languages, whatever was searched.
    """
    terms, files = (
        [r["ID"] for r in records] for records in (queries, documents)
    )
    path = queries[0].get("truth")
    if not path:
        held = _by_words(queries, documents)
        return Truth(terms, files, held)
    if path.endswith(".csv"):
        held = _from_table(Path(path), terms, files)
        return Truth(terms, files, held)
    folder = Path(path).parent
    every_term = _attributes(_only(folder, "*.tlist.xml"), "term", "termid")
    excerpts = _attributes(
        _only(folder, "*.ecf.xml"), "excerpt", "audio_filename"
    )
    every_file = [Path(name).stem for name in excerpts]
    held = _from_rttm(path, set(every_term), set(every_file))
    for own, listed in ((terms, every_term), (files, every_file)):
        compare_names(own, set(listed), "the recordings", str(folder))
    if full_lists:
        return Truth(every_term, every_file, held)
    searched = {(term, file) for term in terms for file in files}
    return Truth(terms, files, held & searched)


def _only(folder, pattern):
    """The one file of a folder that fits a pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(
            f"{folder}: expected one file {pattern}, as the scorer takes it; "
            f"got {len(found)}"
        )
    return found[0]


def _attributes(path, element, attribute):
    """An attribute of all elements of a name, each value once."""
    try:
        tree = ElementTree.parse(path)
    except (ElementTree.ParseError, OSError) as error:
        raise ValueError(f"{path}: expected XML ({error})") from error
    found = dict.fromkeys(
        node.get(attribute, "") for node in tree.iter(element)
    )
    if not found or "" in found:
        raise ValueError(
            f"{path}: expected elements {element} with {attribute}; got "
            f"{len(found)}"
        )
    return list(found)


def _from_rttm(path, queries, documents):
    """The pairs of the lines LEXEME: a document, and a query further on."""
    held = set()
    for where, (kind, *fields) in fields_of(path):
        if kind != "LEXEME":
            continue
        terms = [field for field in fields[1:] if field in queries]
        if not fields or fields[0] not in documents or len(terms) != 1:
            raise ValueError(
                f"{where}: expected a document and a query that the lists "
                f"beside it name; got {' '.join(fields)}"
            )
        held.add((terms[0], fields[0]))
    return held


def _from_table(path, queries, documents):
    """The pairs of a CSV."""
    known, held = (set(queries), set(documents)), set()
    rows = read_rows(path, has_columns("query", "document"))
    everywhere = []
    for where, row in rows:
        pair = row["query"], row["document"]
        everywhere.append(pair)
        if pair[1] not in known[1]:
            raise ValueError(
                f"{where}: expected a document of the list, got {pair[1]!r}"
            )
        if pair[0] in known[0]:  # others are of another split
            held.add(pair)
    compare_names(queries, {q for q, _ in everywhere}, "the queries", str(path))
    return held


def _by_words(queries, documents):
    """The pairs by what is said."""
    for record in (*queries, *documents):
        if not record.get("wrd", "").strip():
            raise ValueError(
                f"{record['wav']}: expected its words in the column wrd, or "
                "truth.csv, which says which document holds which query"
            )
    texts = [(d["ID"], f" {' '.join(d['wrd'].split())} ") for d in documents]
    return {
        (query["ID"], name)
        for query in queries
        for name, text in texts
        if f" {' '.join(query['wrd'].split())} " in text
    }


def write_stdlist(
    path: str | Path,
    queries: Sequence[str],
    documents: Sequence[str],
    scores: np.ndarray,
    threshold: float,
) -> None:
    """Writes the scores of queries and documents, [Q, M], with four decimals
    and whether each is above a threshold, as the scorer reads them."""
    named = [quoteattr(name) for name in documents]
    with atomic(path) as file:
        file.write(
            "<?xml version='1.0' encoding='UTF-8'?>\n"
            f'<stdlist termlist_filename="{Path(path).name}" '
            'indexing_time="1.00" language="english" index_size="1" '
            'system_id="benchmark">\n'
        )
        for query, row in zip(queries, scores, strict=True):
            file.write(
                f"  <detected_termlist termid={quoteattr(query)} "
                'term_search_time="1.0" oov_term_count="1">\n'
            )
            file.writelines(
                f'    <term file={name} channel="1" tbeg="0.000" dur="0.00" '
                f'score="{score:.4f}" '
                f'decision="{"YES" if score > threshold else "NO"}"/>\n'
                for name, score in zip(named, row, strict=True)
            )
            file.write("  </detected_termlist>\n")
        file.write("</stdlist>\n")
