"""Trial lists of speaker verification: which two recordings to compare, and
whether one speaker is heard in both. Files as VoxCeleb has them (``1 a b``), as
Kaldi has them (``a b target``), or CSV.
"""

import csv
import os
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FORMS = ("voxceleb", "kaldi", "csv")

_TRUTH = {"1": True, "0": False, "target": True, "nontarget": False}
_COLUMNS = {
    "left": ("left", "enroll", "enrol", "utt1", "file1"),
    "right": ("right", "test", "utt2", "file2"),
    "target": ("target", "label"),
}
_NUM_NAMED = 5  # of what is missing, before it is only counted


class Trials(NamedTuple):
    """Trials by number, so that ten million of them take 90 MB.

    Arguments
    ---------
    names : list of str
        Each recording once, in the order of the list, [U].
    left : numpy.ndarray
        Index of the one side in ``names``, int32, [N].
    right : numpy.ndarray
        Index of the other side, int32, [N].
    targets : numpy.ndarray
        True where both sides are one speaker, [N].

    Example
    -------
    >>> Trials(["a", "b"], *np.array([[0, 0], [1, 1]]), np.array([1, 0]) > 0)[0]
    ['a', 'b']
    """

    names: list
    left: np.ndarray
    right: np.ndarray
    targets: np.ndarray


def read_trials(path, known=None, root=None):
    """Reads a trial list of any of the three forms.

    Lines are ``1 a b`` or ``0 a b``, or ``a b target`` or ``a b nontarget``;
    the first one tells which. A file that ends in ``.csv`` has a column each
    for ``left`` (or ``enroll``, ``utt1``, ``file1``), ``right`` (or ``test``,
    ``utt2``, ``file2``) and ``target`` (or ``label``), in any order. A pair may
    occur again, but not with another truth.

    Arguments
    ---------
    path : str or path-like
        The file.
    known : container of str, optional
        Names that a trial may have; any when omitted.
    root : str or path-like, optional
        Folder where each name has to be a file; not looked at when omitted.

    Returns
    -------
    Trials
        At least one target trial and one non-target trial.

    Raises
    ------
    ValueError
        When the file is missing or empty, a line has another form or an
        unknown truth, a recording is compared with itself, a pair is said to
        be both, a name is not known or no file, or when all trials are of one
        kind; the message names the file and, where there is one, the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials.txt"
    >>> _ = path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.names, trials.right.tolist(), trials.targets.tolist()
    (['a/1.wav', 'a/2.wav', 'b/1.wav'], [1, 2], [True, False])
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such trial list")
    places = {}
    left, right, truth, lines = (array(kind) for kind in "iibi")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for line, one, other, word in _rows(file, path):
                left.append(places.setdefault(one, len(places)))
                right.append(places.setdefault(other, len(places)))
                truth.append(_truth_of(word, path, line))
                lines.append(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error
    trials = Trials(
        list(places),
        np.frombuffer(left, np.int32),
        np.frombuffer(right, np.int32),
        np.frombuffer(truth, bool),
    )
    _check_trials(trials, path, lines)
    _check_names(trials, path, lines, known, root)
    return trials


def write_trials(path, trials, form="voxceleb", scores=None):
    """Writes a trial list, whole or not at all.

    Arguments
    ---------
    path : str or path-like
        The file to write or to replace.
    trials : Trials
        What to write.
    form : str
        "voxceleb" (``1 a b``), "kaldi" (``a b target``) or "csv" (columns
        ``left``, ``right`` and ``target``; the name has to end in ``.csv``).
    scores : sequence of float, optional
        One per trial, as a further column ``score`` of a CSV.

    Raises
    ------
    ValueError
        When there is no such form, the file could not be read back, or
        scores do not fit.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials"
    >>> sides = np.array([[0, 0], [1, 2]], np.int32)
    >>> trials = Trials(["a", "b", "c"], *sides, np.array([True, False]))
    >>> write_trials(path, trials, form="kaldi")
    >>> print(path.read_text(), end="")
    a b target
    a c nontarget
    """
    path = Path(path)
    if form not in FORMS or (form == "csv") != (path.suffix == ".csv"):
        raise ValueError(
            f"{path}: expected a form of {', '.join(FORMS)}, and only CSVs to "
            f"end in .csv, got {form!r}"
        )
    if scores is not None and (
        form != "csv" or len(scores) != len(trials.left)
    ):
        raise ValueError(
            f"{path}: expected scores for a CSV, one for each of "
            f"{len(trials.left)} trials"
        )
    for name in trials.names:
        words = [name.strip()] if form == "csv" else name.split()
        if not name or words != [name]:
            raise ValueError(
                f"{path}: expected names without blanks, got {name!r}"
            )
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        rows = _table(trials, form, scores)
        if form == "csv":
            csv.writer(file, lineterminator="\n").writerows(rows)
        else:
            file.writelines(" ".join(row) + "\n" for row in rows)
    os.replace(partial, path)


def speakers_of(trials):
    """Tells from the truth alone which recordings are of one speaker.

    Those of a target trial are, and so are all that a chain of target trials
    connects; a recording in no target trial counts as a speaker by itself.

    Arguments
    ---------
    trials : Trials
        The list.

    Returns
    -------
    numpy.ndarray
        Number of each recording's speaker, [U].

    Raises
    ------
    ValueError
        When recordings of one speaker are also in a non-target trial.

    Example
    -------
    >>> sides = np.array([[0, 1, 0], [1, 2, 3]], np.int32)
    >>> trials = Trials(list("abcd"), *sides, np.array([True, True, False]))
    >>> speakers_of(trials).tolist()
    [0, 0, 0, 1]
    """
    size = len(trials.names)
    left, right = trials.left[trials.targets], trials.right[trials.targets]
    links = coo_array((np.ones(len(left), bool), (left, right)), (size, size))
    _, speakers = connected_components(links, directed=False)
    same = speakers[trials.left] == speakers[trials.right]
    wrong = np.flatnonzero(same & ~trials.targets)
    if len(wrong):
        one, other = (
            trials.names[side[wrong[0]]] for side in (trials.left, trials.right)
        )
        raise ValueError(
            f"the non-target trial {one} {other} contradicts the target "
            "trials, which say that these are one speaker"
        )
    return speakers


def _rows(file, path):
    """Line number, both sides and the word for the truth of each trial."""
    if Path(path).suffix == ".csv":
        yield from _csv_rows(file, path)
        return
    kaldi = None
    for number, line in enumerate(file, 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3:
            raise ValueError(
                f"{path}, line {number}: expected three fields, "
                f"got {len(fields)}"
            )
        if kaldi is None:
            kaldi = fields[2] in ("target", "nontarget")
        left, right, truth = fields if kaldi else (*fields[1:], fields[0])
        yield number, left, right, truth


def _csv_rows(file, path):
    """The same of a CSV."""
    rows = csv.reader(file, skipinitialspace=True, strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        columns = [_find_column(header, key, path) for key in _COLUMNS]
        for row in filter(None, rows):
            if len(row) != len(header):
                raise csv.Error(f"expected {len(header)} values")
            fields = [row[column] for column in columns]
            if "" in fields:
                raise csv.Error("expected two names and the truth")
            yield rows.line_num, *fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def _find_column(header, key, path):
    """Place of the one column that may be meant."""
    found = [
        place for place, name in enumerate(header) if name in _COLUMNS[key]
    ]
    if len(found) != 1:
        raise ValueError(
            f"{path}: expected one column {' or '.join(_COLUMNS[key])}, "
            f"got {', '.join(header) or 'none'}"
        )
    return found[0]


def _truth_of(word, path, line):
    """What a word says of a trial."""
    if word not in _TRUTH:
        raise ValueError(
            f"{path}, line {line}: expected 1 or 0 before, or target or "
            f"nontarget behind two names, got {word!r}"
        )
    return _TRUTH[word]


def _check_trials(trials, path, lines):
    """Raises on what no comparison could make right."""
    if len(set(trials.targets.tolist())) < 2:
        kinds = "none" if not len(lines) else f"{len(lines)} of one kind"
        raise ValueError(
            f"{path}: expected target and non-target trials, got {kinds}"
        )
    itself = np.flatnonzero(trials.left == trials.right)
    if len(itself):
        raise ValueError(
            f"{path}, line {lines[itself[0]]}: "
            f"{trials.names[trials.left[itself[0]]]} is compared with itself"
        )
    # One number per unordered pair; equal ones have to have one truth.
    low = np.minimum(trials.left, trials.right).astype(np.int64)
    pairs = low * len(trials.names) + np.maximum(trials.left, trials.right)
    order = np.argsort(pairs, kind="stable")
    again = pairs[order][1:] == pairs[order][:-1]
    truth = trials.targets[order]
    wrong = order[1:][again & (truth[1:] != truth[:-1])]
    if len(wrong):
        raise ValueError(
            f"{path}, line {lines[wrong.min()]}: the same pair has another "
            "truth before"
        )


def _check_names(trials, path, lines, known, root):
    """Raises where a trial names what is not there."""
    what = "utterance" if root is None else f"file in {root}"
    missing = [
        place
        for place, name in enumerate(trials.names)
        if not (known is None or name in known)
        or not (root is None or os.path.isfile(os.path.join(root, name)))
    ]
    if missing:
        named = ", ".join(trials.names[n] for n in missing[:_NUM_NAMED])
        more = len(missing) - _NUM_NAMED
        # Names are numbered as they come, so the first one is met first.
        first = (trials.left == missing[0]) | (trials.right == missing[0])
        raise ValueError(
            f"{path}, line {lines[first.argmax()]}: no such {what}: {named}"
            + (f" and {more} more" if more > 0 else "")
        )


def _table(trials, form, scores):
    """Rows of a trial list, as text."""
    names = trials.names
    if form == "csv":
        yield [
            "left",
            "right",
            "target",
            *([] if scores is None else ["score"]),
        ]
    sides = zip(trials.left, trials.right, trials.targets, strict=True)
    for number, (left, right, target) in enumerate(sides):
        pair = names[left], names[right]
        if form == "kaldi":
            yield *pair, "target" if target else "nontarget"
        elif form == "voxceleb":
            yield str(int(target)), *pair
        elif scores is None:
            yield *pair, str(int(target))
        else:
            yield *pair, str(int(target)), repr(float(scores[number]))
