"""fairseq's manifests of labelled speech, as UniSpeech's authors ship them for
Common Voice: X.tsv lists recordings, X.id has their phones as indices, and a
JSON file says what the indices mean (Wang et al. 2021, section 4.1).
"""

import json
from itertools import zip_longest
from pathlib import Path

_PREFIXES = {"train": "train", "val": "valid", "dev": "valid", "test": "test"}
_UNSET_ROOT = "WAV_PATH"  # what the authors wrote where a folder belongs
_SUFFIXES = (".flac", ".mp3")  # of recordings that were not made wav files
_RATE = "_16k"  # in names of tables, but not in those of all labels
_UNHEARD = ("|", "")  # between words; and a symbol that no label has

PHONES = "phone"
"""The labels that are spelt, not indices."""


def is_fairseq_manifests(folder):
    """Tells whether a folder holds fairseq's tables of recordings.

    Arguments
    ---------
    folder : str or path-like
        Any path.

    Returns
    -------
    bool
        Whether there is a table of a split that begins with a root folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "trainSeqs_16k.tsv").write_text("WAV_PATH\\na.wav\\t9\\n")
    >>> is_fairseq_manifests(folder)
    True
    """
    return any(_is_manifest(path) for path, _ in _tables(Path(folder)))


def _tables(folder):
    """Yields the tables whose names begin with that of a split."""
    for path in sorted(folder.glob("*.tsv")):
        for prefix, split in _PREFIXES.items():
            if path.name.startswith(prefix):
                yield path, split


def _is_manifest(path):
    """Whether the first line of a table is one name, not columns."""
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return bool(first.strip()) and "\t" not in first


def find_vocabulary(folder, labels="id"):
    """Finds the vocabulary that the authors ship with their labels.

    Arguments
    ---------
    folder : str or path-like
        The folder of a language, or ``mtl``.
    labels : str
        As for ``fairseq_manifests``.

    Returns
    -------
    pathlib.Path or None
        The JSON file; None for labels that are spelt.

    Raises
    ------
    FileNotFoundError
        When it is not where the authors put it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "phonesMatches_reduced.json").touch()
    >>> find_vocabulary(folder).name
    'phonesMatches_reduced.json'
    """
    folder = Path(folder)
    if labels == PHONES:
        return None
    if labels == "id":
        places = [folder / "phonesMatches_reduced.json", folder / "vocab.json"]
    else:
        name = f"vocab_{labels}.json"
        places = [folder / name, folder.parent / "mtl" / name]
    return _first_file(places, "its vocabulary")


def _first_file(places, what):
    """The first of some paths where there is a file."""
    for path in places:
        if path.is_file():
            return path
    names = " or ".join(map(str, places))
    raise FileNotFoundError(f"expected {what} in {names}; there is none")


def fairseq_manifests(folder, wav_root=None, labels="id", vocabulary=None):
    """Reads the records of fairseq's manifests.

    Each line of labels goes with the line of the table that it stands for,
    whichever recordings are left out later. (The authors' reader counts those
    from 1 and labels from 0, so that there each one that is left out gives
    its label to the recording before.)

    Arguments
    ---------
    folder : str or path-like
        With ``train*.tsv``, ``val*.tsv`` or ``dev*.tsv``, and ``test*.tsv``.
    wav_root : str or path-like, optional
        The folder that the tables' paths start at; the one that their first
        lines name when omitted. Where there is no such ``.wav``, a ``.flac``
        or ``.mp3`` is taken, as of Common Voice's ``clips``.
    labels : str
        Which labels: ``id``; ``sep`` or ``share``, of all languages'
        vocabularies; or ``phone``, spelt ones.
    vocabulary : str or path-like, optional
        What the indices mean; by ``find_vocabulary`` when omitted.

    Yields
    ------
    dict
        Record with ID, wav, split and phones, a space between phones and
        nothing more between words, in the order of the tables.

    Raises
    ------
    ValueError
        When a line is no recording or has no label of its own, an index is
        not in the vocabulary, or there are two tables of a split; the
        message names file and line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.wav").touch()
    >>> _ = (folder / "train_16k.tsv").write_text("WAV_PATH\\na.wav\\t9\\n")
    >>> _ = (folder / "train_16k.id").write_text("1 0 \\n")
    >>> _ = (folder / "vocab.json").write_text('{"aɪ": 0, "h": 1}')
    >>> [r["phones"] for r in fairseq_manifests(folder, wav_root=folder)]
    ['h aɪ']
    """
    folder = Path(folder).absolute()
    path = vocabulary or find_vocabulary(folder, labels)
    symbols = None if path is None else _read_symbols(path)
    for split, table in _choose_tables(folder, labels).items():
        label_file = _first_file(_label_places(table, labels), "labels")
        root, paths = _read_table(table, wav_root)
        lines = label_file.read_text(encoding="utf-8").splitlines()
        pairs = zip_longest(paths, lines)
        for number, (name, line) in enumerate(pairs, start=1):
            if name is None or line is None:
                raise ValueError(
                    f"{label_file}: expected a line for each of the "
                    f"{len(paths)} recordings of {table.name}, "
                    f"got {len(lines)}"
                )
            wav = _find_wav(root, name, f"{table}, line {number + 1}")
            phones = _phones(line, symbols, f"{label_file}, line {number}")
            yield {
                "ID": wav.stem,
                "wav": str(wav),
                "split": split,
                "phones": phones,
            }


def _read_symbols(path):
    """The symbols of a vocabulary by index."""
    try:
        indices = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error!s:.60})") from error
    whole = isinstance(indices, dict) and all(
        type(index) is int for index in indices.values()
    )
    if not whole or sorted(indices.values()) != list(range(len(indices))):
        raise ValueError(
            f"{path}: expected symbols with the indices 0, 1, ..., each once"
        )
    return sorted(indices, key=indices.get)


def _choose_tables(folder, labels):
    """Split -> its table; those named after the labels, where there are."""
    found = [pair for pair in _tables(folder) if _is_manifest(pair[0])]
    named = [pair for pair in found if pair[0].stem.endswith(f"_{labels}")]
    chosen = {}
    for path, split in named or found:
        if split in chosen:
            raise ValueError(
                f"{folder}: expected one table of the split {split!r}, got "
                f"{chosen[split].name} and {path.name}"
            )
        chosen[split] = path
    return chosen


def _label_places(table, labels):
    """Where the labels of a table may be, fairseq's names first."""
    short = table.stem.removesuffix(_RATE)
    names = [f"{table.stem}.{labels}", f"{short}.{labels}"]
    if labels not in ("id", PHONES):
        names = [f"{short}_{labels}.id"]
        if short.endswith(f"_{labels}"):
            names = [f"{table.stem}.id"]
    return [table.with_name(name) for name in names]


def _read_table(table, wav_root):
    """The root folder of a table, and its paths."""
    first, *lines = table.read_text(encoding="utf-8").splitlines()
    root = wav_root or first.strip()
    if root == _UNSET_ROOT:
        raise ValueError(
            f"{table}: expected wav_root, the folder of its recordings, as "
            f"its first line says {_UNSET_ROOT}"
        )
    return Path(root).absolute(), [line.split("\t")[0] for line in lines]


def _find_wav(root, name, where):
    """The recording of a line."""
    if ":" in name:
        raise ValueError(
            f"{where}: expected a file, got the slice {name!r} of an archive"
        )
    wav = root / name
    places = [wav, *(wav.with_suffix(suffix) for suffix in _SUFFIXES)]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise ValueError(f"{where}: no such file: {wav}")
    return path


def _phones(line, symbols, where):
    """Phones of a line of labels, a space between them."""
    labels = line.split()
    if symbols is not None:
        try:
            labels = [symbols[_index(label)] for label in labels]
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"{where}: expected indices from 0 to {len(symbols) - 1}, got "
                f"{line.strip()!r:.60}"
            ) from error
    return " ".join(label for label in labels if label not in _UNHEARD)


def _index(label):
    """A label as an index; a negative one would count from the end."""
    if not label.isdecimal():
        raise ValueError(label)
    return int(label)
