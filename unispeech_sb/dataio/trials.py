"""Trials of speaker verification: which two recordings to compare, and whether
they are of one speaker. Lists as VoxCeleb has them (``1 a b``), as Kaldi has
them (``a b target``), CSV, or pairs alone; pairs of utterances whose speakers
are known.
"""

import csv
import os
from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from speechbrain import Stage
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.text import lines_of, named, split_pair

__all__ = [
    "Trials",
    "add_trials",
    "read_trials",
    "trial_records",
    "write_trials",
]

logger = get_logger(__name__)

_FORMS = ("voxceleb", "kaldi", "csv")
_TRUTH = {
    **dict.fromkeys(("1", "target", "tgt", "same", "true"), True),
    **dict.fromkeys(("0", "nontarget", "non-target", "nontgt"), False),
    **dict.fromkeys(("impostor", "imposter", "different", "false"), False),
}
_NUM_LOOKED_AT = 1000  # lines that decide where the truth stands
_COLUMNS = {
    "left": ("left", "enroll", "enrol", "utt1", "file1", "reference"),
    "right": ("right", "test", "utt2", "file2", "generated"),
    "target": ("target", "label"),
}


_BOTH = "target and non-target trials"


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
    targets : numpy.ndarray or None
        True where both sides are one speaker, [N]; None where a list does not
        say it.

    Example
    -------
    >>> Trials(["a", "b"], *np.array([[0, 0], [1, 1]]), np.array([1, 0]) > 0)[0]
    ['a', 'b']
    """

    names: list[str]
    left: np.ndarray
    right: np.ndarray
    targets: np.ndarray | None


def read_trials(
    path: str | Path,
    known: Collection[str] | None = None,
    root: str | Path | None = None,
    labelled: bool | None = True,
) -> Trials:
    """Reads a trial list of any of the four forms.

    Lines are ``1 a b`` or ``0 a b``, or ``a b 1``, ``a b target`` and ``a b
    nontarget`` and so on; the first lines tell which, or ``a b`` alone. Names
    with blanks stand in double quotes, or between tabs. A file that ends in
    ``.csv`` has a column each for ``left`` (or ``enroll``, ``utt1``,
    ``file1``, ``reference``), ``right`` (or ``test``, ``utt2``, ``file2``,
    ``generated``) and ``target`` (or ``label``), in any order, between commas,
    semicolons or tabs; so may a ``.tsv``. A pair may occur again, but not with
    another truth.

    Arguments
    ---------
    path : str or path-like
        The file.
    known : collection of str, optional
        Names that a trial may have; any when omitted.
    root : str or path-like, optional
        Folder where each name has to be a file; not looked at when omitted.
    labelled : bool or None
        Whether the list has to say which trials are target trials; None where
        that is of no use, and passed over.

    Returns
    -------
    Trials
        At least one target trial and one non-target trial; one trial where
        ``targets`` is None.

    Raises
    ------
    ValueError
        When the file is missing or empty, a line has another form or an
        unknown truth, a recording is compared with itself, a pair has both
        truths, a name is not known or no file, or when all trials are of one
        kind; the message names the file and, where there is one, the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials.txt"
    >>> _ = path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.names, trials.right.tolist(), trials.targets.tolist()
    (['a/1.wav', 'a/2.wav', 'b/1.wav'], [1, 2], [True, False])
    """
    places: dict[str, int] = {}
    left, right, truth, lines = (array(kind) for kind in "iibi")
    for line, one, other, word in _rows(path, labelled):
        left.append(places.setdefault(one, len(places)))
        right.append(places.setdefault(other, len(places)))
        lines.append(line)
        if word is not None and labelled is not None:
            truth.append(_truth_of(word, path, line))
    trials = Trials(
        list(places),
        np.frombuffer(left, np.int32),
        np.frombuffer(right, np.int32),
        np.frombuffer(truth, bool) if truth or labelled else None,
    )
    if not lines:
        what = "pairs of recordings" if labelled is None else _BOTH
        raise ValueError(f"{path}: expected {what}, got none")
    _check_trials(trials, path, lines)
    _check_names(trials, path, lines, known, root)
    return trials


def write_trials(
    path: str | Path,
    trials: Trials,
    form: str = "voxceleb",
    scores: Sequence[float] | np.ndarray | None = None,
) -> None:
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
    if form not in _FORMS or (form == "csv") != (path.suffix == ".csv"):
        raise ValueError(
            f"{path}: expected a form of {', '.join(_FORMS)}, and only CSVs to "
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
    with atomic(path) as file:
        rows = _text_rows(trials, form, scores)
        if form == "csv":
            csv.writer(file, lineterminator="\n").writerows(rows)
        else:
            file.writelines(" ".join(row) + "\n" for row in rows)


def pair_trials(
    names: Sequence[str],
    speakers: Sequence[str],
    max_trials: int | None = None,
    seed: int = 0,
) -> Trials:
    """Pairs utterances: all, or at most ``max_trials`` drawn by the seed.

    The drawn ones are as many target as non-target trials, as far as there are.
    Each pair is there once, in the order of the utterances.
    """
    if max_trials is not None and max_trials < 2:
        raise ValueError(f"expected 2 trials or more, got {max_trials}")
    names = list(names)
    counts: dict[str, int] = {}
    for speaker in speakers:
        counts[speaker] = counts.get(speaker, 0) + 1
    if len(counts) < 2 or max(counts.values()) < 2:
        alone = ", ".join(map(repr, list(counts)[:3])) or "none"
        raise ValueError(
            "expected two speakers or more, one of them with two utterances, "
            f"to compare; got {len(names)} utterances of {len(counts)} "
            f"speakers, such as {alone}"
        )
    owners = np.unique(list(speakers), return_inverse=True)[1]
    total = len(names) * (len(names) - 1) // 2
    if max_trials is None or total <= max_trials:
        left, right = _pair_of(np.arange(total))
    else:
        generator = torch.Generator().manual_seed(seed)
        left, right = _sample(owners, max_trials, generator)
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    return Trials(
        names,
        left.astype(np.int32),
        right.astype(np.int32),
        owners[left] == owners[right],
    )


def trial_records(
    records: Iterable[dict[str, Any]],
    path: str | Path,
    audio_root: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Makes the recordings of a trial list the test set.

    The speakers of the list, as far as the corpus knows them, are left out of
    the other splits: verification is of unseen speakers.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    path : str or path-like
        The trial list.
    audio_root : str or path-like, optional
        Folder of the files that it names. Without one it names IDs of the
        records.

    Returns
    -------
    list of dict
        Records of train and valid, then those of the list, whose IDs are its
        names. Their ``spk_id`` is empty where it is not known.

    Raises
    ------
    ValueError
        As ``read_trials``, or when no other speaker is left to train on.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials.txt"
    >>> _ = path.write_text("1 a1 a2\\n0 a1 b1\\n")
    >>> records = [
    ...     {"ID": name, "wav": name, "spk_id": name[0], "split": "train"}
    ...     for name in ("a1", "a2", "b1", "c1")
    ... ]
    >>> found = trial_records(records, path)
    >>> [(record["ID"], record["split"]) for record in found]
    [('c1', 'train'), ('a1', 'test'), ('a2', 'test'), ('b1', 'test')]
    """
    records = list(records)
    if audio_root is None:
        known = {record["ID"]: record for record in records}
        names = read_trials(path, known=known).names
        test = [{"spk_id": "", **known[n], "split": "test"} for n in names]
    else:
        known = {record["wav"]: record for record in records}
        names = read_trials(path, root=audio_root).names
        test = []
        for name in names:
            wav = os.path.abspath(os.path.join(audio_root, name))
            speaker = known.get(wav, {}).get("spk_id", "")
            record = {"ID": name, "wav": wav, "split": "test"}
            test.append({**record, "spk_id": speaker})
    tested = {record["spk_id"] for record in test} - {""}
    others = [record for record in records if record["split"] != "test"]
    kept = [r for r in others if r.get("spk_id", "") not in tested]
    if not kept:
        raise ValueError(
            f"{path}: expected speakers beside those of the trials, to train "
            "on; there are none"
        )
    if len(kept) < len(others):
        logger.info(
            f"Left out {len(others) - len(kept)} recordings of speakers of "
            f"{path}"
        )
    return kept + test


def add_trials(hparams: dict[str, Any]) -> None:
    """Reads or makes the trials of validation and test.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. In place of the file ``trials`` come the ``Trials``
        of each stage, and ``trial_speakers`` is added, stage -> the speakers
        of both sides. Without a file, pairs of the test set are compared, at
        most ``num_test_trials``; without a test set, those of valid, at most
        ``num_valid_trials``.

    Raises
    ------
    ValueError
        As ``read_trials`` and ``pair_trials``, or when the list and the
        corpus disagree on speakers.

    Example
    -------
    >>> from unispeech_sb.dataio.manifest import write_manifests
    >>> folder = getfixture("tmp_path")
    >>> record = {"wav": "/a.wav", "duration": 1.0, "split": "valid"}
    >>> records = [{**record, "ID": n, "spk_id": n[0]} for n in ("a1", "a2")]
    >>> records += [{**record, "ID": "b1", "spk_id": "b"}]
    >>> _ = write_manifests(records, folder, required_splits=())
    >>> hparams = {"manifest_folder": folder, "trials": None, "seed": 1}
    >>> add_trials({**hparams, "num_valid_trials": 1})
    Traceback (most recent call last):
    ...
    ValueError: trials of the split valid: expected 2 trials or more, got 1
    >>> hparams["num_valid_trials"] = 10
    >>> add_trials(hparams)
    >>> hparams["trials"][Stage.TEST].targets.tolist()
    [True, False, False]
    """
    path = hparams["trials"]
    found: dict[Stage, Trials] = {}
    owners: dict[Stage, Any] = {}
    for stage, split in ((Stage.VALID, "valid"), (Stage.TEST, "test")):
        manifest = Path(hparams["manifest_folder"], f"{split}.csv")
        if not manifest.is_file():
            continue
        speakers = {r["ID"]: r["spk_id"] for r in read_manifest(manifest)}
        if path is not None and stage == Stage.TEST:
            trials = read_trials(path, known=speakers)
        else:
            trials = _split_trials(speakers, split, hparams)
        found[stage] = trials
        owners[stage] = _owners(trials, speakers, path)
    if Stage.VALID in found:  # a run without a test set evaluates on it
        found.setdefault(Stage.TEST, found[Stage.VALID])
        owners.setdefault(Stage.TEST, owners[Stage.VALID])
    hparams["trials"], hparams["trial_speakers"] = found, owners


def speakers_of(trials):
    """Number of each recording's speaker, by the truth of trials alone, [U].

    Recordings of a target trial are of one speaker, and so are all that a chain
    of target trials connects; a recording in no target trial has a speaker of
    its own. A non-target trial of one speaker is an error.
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


def _rows(path, labelled):
    """Line number, both sides and the word for the truth of each trial."""
    lines = iter(lines_of(path))
    top = next(lines, (0, ""))
    header, lines = top[1], chain([top], lines)
    name = Path(path).name.removesuffix(".gz")
    titled = {*header.lower().split("\t")} & {*_COLUMNS["left"]}
    if name.endswith(".csv") or (name.endswith(".tsv") and titled):
        separator = max(",;\t", key=header.count)
        yield from _csv_rows(lines, path, labelled, separator)
        return
    rows = ((number, split_pair(line, _TRUTH)) for number, line in lines)
    rows = (row for row in rows if row[1])
    first = list(islice(rows, _NUM_LOOKED_AT))
    place = _truth_place([fields for _, fields in first])
    count = 2 if place is None else 3
    for number, fields in chain(first, rows):
        if len(fields) != count:
            words = "two fields" if place is None else "three fields"
            raise ValueError(
                f"{path}, line {number}: expected {words}, got {len(fields)}"
            )
        if place is None and labelled:
            raise ValueError(
                f"{path}, line {number}: expected three fields, two names and "
                "whether they are one speaker, got two"
            )
        word = None if place is None else fields.pop(place)
        if word and labelled is None:  # it may be one of three names
            _truth_of(word, path, number)
        yield number, *fields, word


def _truth_place(rows):
    """Where lines have their truth: 0, 2, or None where they have none."""
    if not rows or len(rows[0]) == 2:
        return None if rows else 0
    front, behind = (
        [len(row) > place and row[place].lower() in _TRUTH for row in rows]
        for place in (0, 2)
    )
    # Names may be numbers, so that both may look like the truth; words less so
    spelt = not rows[0][-1].isdecimal() and rows[0][0].isdecimal()
    return 2 if behind[0] and (spelt or not all(front)) else 0


def _csv_rows(lines, path, labelled, separator):
    """The same of a CSV."""
    text = (f"{line}\n" for _, line in lines)
    form = {"delimiter": separator, "skipinitialspace": True, "strict": True}
    rows = csv.reader(text, **form)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        columns = [
            _find_column(header, key, path, key != "target" or labelled)
            for key in _COLUMNS
        ]
        for row in filter(None, rows):
            if len(row) != len(header):
                raise csv.Error(f"expected {len(header)} values")
            fields = [None if c is None else row[c] for c in columns]
            if "" in fields:
                raise csv.Error("expected two names and the truth")
            yield rows.line_num, *fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def _find_column(header, key, path, is_needed):
    """Place of the one column that may be meant."""
    found = [
        place for place, name in enumerate(header) if name in _COLUMNS[key]
    ]
    if not found and not is_needed:
        return None
    if len(found) != 1:
        raise ValueError(
            f"{path}: expected one column {' or '.join(_COLUMNS[key])}, "
            f"got {', '.join(header) or 'none'}"
        )
    return found[0]


def _truth_of(word, path, line):
    """What a word says of a trial."""
    truth = _TRUTH.get(word.strip().lower())
    if truth is None:
        raise ValueError(
            f"{path}, line {line}: expected 1 or 0 before two names, or 1, 0, "
            f"target or nontarget behind them, got {word!r:.60}"
        )
    return truth


def _check_trials(trials, path, lines):
    """Raises on what no comparison could make right."""
    if trials.targets is not None and len(np.unique(trials.targets)) < 2:
        raise ValueError(
            f"{path}: expected {_BOTH}, got {len(lines)} of one kind"
        )
    itself = np.flatnonzero(trials.left == trials.right)
    if len(itself):
        raise ValueError(
            f"{path}, line {lines[itself[0]]}: "
            f"{trials.names[trials.left[itself[0]]]} is compared with itself"
        )
    if trials.targets is None:
        return
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
        names = named((trials.names[n] for n in missing), 5)
        there = known if root is None else sorted(os.listdir(root))
        # Names are numbered as they come, so the first one is met first.
        first = (trials.left == missing[0]) | (trials.right == missing[0])
        raise ValueError(
            f"{path}, line {lines[first.argmax()]}: no such {what}: {names}; "
            f"there are {named(there, 3)}"
        )


def _text_rows(trials, form, scores):
    """Rows of a trial list, as text."""
    names, targets = trials.names, trials.targets
    if form == "csv":
        columns = {"target": targets, "score": scores}
        known = [name for name, of in columns.items() if of is not None]
        yield ["left", "right", *known]
    for number, sides in enumerate(zip(trials.left, trials.right, strict=True)):
        pair = [names[side] for side in sides]
        if targets is not None and form == "kaldi":
            pair.append("target" if targets[number] else "nontarget")
        elif targets is not None:
            truth = str(int(targets[number]))
            pair.insert(0 if form == "voxceleb" else 2, truth)
        if scores is not None:
            pair.append(repr(float(scores[number])))
        yield pair


def _pair_of(numbers):
    """Numbers 0, 1, 2, ... -> the pairs (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    right = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(
        np.int64
    )
    # The root is rounded, so that its integer may be one off
    right -= right * (right - 1) // 2 > numbers
    right += right * (right + 1) // 2 <= numbers
    return numbers - right * (right - 1) // 2, right


def _sample(owners, max_trials, generator):
    """Both sides of drawn pairs, of one speaker and of two."""
    targets = _draw_targets(owners, max_trials // 2, generator)
    total = len(owners) * (len(owners) - 1) // 2
    num_targets = sum(n * (n - 1) // 2 for n in np.bincount(owners).tolist())
    wanted = min(max_trials - targets.shape[1], total - num_targets)
    found = np.empty(0, np.int64)
    while len(found) < wanted:
        # As many again as are missing, for those of one speaker and doubles
        drawn = _draw_numbers(total, 2 * (wanted - len(found)) + 16, generator)
        left, right = _pair_of(drawn)
        drawn = drawn[owners[left] != owners[right]]
        fresh = drawn[~np.isin(drawn, found)]
        found = np.concatenate([found, fresh])[:wanted]
    return np.concatenate([targets, np.stack(_pair_of(found))], axis=1)


def _draw_targets(owners, wanted, generator):
    """Distinct pairs of one speaker, smaller side first, [2, N]."""
    by_speaker = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners).astype(np.int64)
    firsts = np.cumsum(sizes) - sizes
    ends = np.cumsum(sizes * (sizes - 1) // 2)
    drawn = _draw_numbers(int(ends[-1]), wanted, generator)
    # Number of a pair -> its speaker, then its number among those of that one
    speaker = np.searchsorted(ends, drawn, side="right")
    local = drawn - np.append(0, ends)[speaker]
    return np.stack(
        [by_speaker[firsts[speaker] + side] for side in _pair_of(local)]
    )


def _draw_numbers(total, wanted, generator):
    """Distinct numbers below a total, as many as wanted or there are."""
    if total <= 8 * wanted:
        return torch.randperm(total, generator=generator)[:wanted].numpy()
    drawn = torch.randint(total, (2 * wanted,), generator=generator).numpy()
    _, firsts = np.unique(drawn, return_index=True)
    return drawn[np.sort(firsts)][:wanted]


def _split_trials(speakers, split, hparams):
    """Trials of a split's utterances."""
    try:
        return pair_trials(
            list(speakers),
            list(speakers.values()),
            hparams[f"num_{split}_trials"],
            hparams["seed"],
        )
    except ValueError as error:
        raise ValueError(f"trials of the split {split}: {error}") from error


def _owners(trials, speakers, path):
    """Speakers of both sides of each trial, by number."""
    names = [speakers[name] for name in trials.names]
    if "" in names:
        owners = speakers_of(trials)
    else:
        owners = np.unique(names, return_inverse=True)[1]
    left, right = owners[trials.left], owners[trials.right]
    wrong = np.flatnonzero((left == right) != trials.targets)
    if len(wrong):
        one, other = (
            trials.names[side[wrong[0]]] for side in (trials.left, trials.right)
        )
        kind = "target" if trials.targets[wrong[0]] else "non-target"
        raise ValueError(
            f"{path}: {one} {other} is a {kind} trial, but by the corpus "
            f"these are of {speakers[one]} and {speakers[other]}"
        )
    return left, right
