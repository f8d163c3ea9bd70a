"""Phones for recordings whose words are known: from pronouncing lexicons, from
espeak-ng, or from a table.
"""

import csv
from pathlib import Path

from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.corpora.espeak import Voice, speak

logger = get_logger(__name__)

_NUM_NAMED = 10  # words that an error names before it only counts


def read_lexicons(files):
    """Reads pronouncing lexicons: a word and its phones on each line.

    Of a word with several pronunciations the first is taken, and that of an
    earlier file before that of a later one, as in SUPERB.

    Arguments
    ---------
    files : str, path-like, or list of them
        The files, such as LibriSpeech's ``librispeech-lexicon.txt``.

    Returns
    -------
    dict
        Word -> phones with spaces between them.

    Raises
    ------
    ValueError
        When a line has no phones; names file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "lexicon.txt"
    >>> _ = path.write_text("A\\tAH0\\nA\\tEY1\\nSO\\tS OW1\\n")
    >>> read_lexicons(path)
    {'A': 'AH0', 'SO': 'S OW1'}
    """
    if isinstance(files, (str, Path)):
        files = [files]
    lexicon = {}
    for path in map(Path, files):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such lexicon")
        with open(path, encoding="utf-8") as lines:
            _read_lines(path, lines, lexicon)
    return lexicon


def _read_lines(path, lines, lexicon):
    """Adds the words of a file that are not there yet."""
    try:
        for number, line in enumerate(lines, start=1):
            word, *phones = line.split() or [""]
            if not phones:
                raise ValueError(
                    f"{path}, line {number}: expected a word and its phones, "
                    f"got {line.strip()!r:.60}"
                )
            lexicon.setdefault(word, " ".join(phones))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error


def lexicon_phones(records, lexicon, skip_unknown=False):
    """Spells the words of records with a lexicon.

    Arguments
    ---------
    records : iterable of dict
        With ``wrd``.
    lexicon : dict
        Word -> phones, from ``read_lexicons``.
    skip_unknown : bool
        Leave records with unknown words out, saying how many, instead of
        raising.

    Returns
    -------
    list of dict
        The records with ``phones``, nothing between the words.

    Raises
    ------
    ValueError
        When words are not in the lexicon; names the first ten. Also when a
        record has none.

    Example
    -------
    >>> lexicon = {"SO": "S OW1", "IT": "IH1 T"}
    >>> lexicon_phones([{"wrd": "SO IT"}], lexicon)[0]["phones"]
    'S OW1 IH1 T'
    """
    known, unknown, num_left_out = [], {}, 0
    for record in records:
        words = _words(record)
        missing = [word for word in words if word not in lexicon]
        if missing:
            unknown.update(dict.fromkeys(missing))
            num_left_out += 1
        else:
            phones = " ".join(lexicon[word] for word in words)
            known.append({**record, "phones": phones})
    if unknown and not skip_unknown:
        more = f" and {len(unknown) - _NUM_NAMED} more"
        raise ValueError(
            f"{len(unknown)} words of {num_left_out} recordings are in no "
            f"lexicon: {', '.join(list(unknown)[:_NUM_NAMED])}"
            + (more if len(unknown) > _NUM_NAMED else "")
        )
    if num_left_out:
        logger.warning(
            f"Left out {num_left_out} recordings with words that are in no "
            "lexicon"
        )
    return known


def _words(record):
    """Words of a record, which have to be there."""
    words = record.get("wrd", "").split()
    if not words:
        raise ValueError(
            f"expected words in the column 'wrd' of {record['wav']}, got none"
        )
    return words


def espeak_phones(records, language):
    """Lets espeak-ng say how the words of records are spoken.

    Arguments
    ---------
    records : iterable of dict
        With ``wrd``.
    language : str
        espeak-ng's name of the language, such as "es" or "ky".

    Yields
    ------
    dict
        The record with ``phones``, in IPA without stress.

    Raises
    ------
    ImportError
        If the package espeakng-loader is not installed.
    ValueError
        If espeak-ng has no such language, or nothing in a text can be spoken;
        also when a record has no words.

    Example
    -------
    >>> next(espeak_phones([{"wrd": "no tenemos"}], "es"))["phones"]
    'n o t e n e m o s'
    """
    voice = Voice(language)
    for record in records:
        phones = speak(" ".join(_words(record)), voice).phones
        yield {**record, "phones": " ".join(phone.text for phone in phones)}


def table_phones(records, path):
    """Takes the phones of records from a CSV.

    Arguments
    ---------
    records : iterable of dict
        With ``ID``.
    path : str or path-like
        The CSV, with the columns ``id`` and ``phones``. Rows that name words
        without a pronunciation in a column ``oov`` are not used.

    Returns
    -------
    list of dict
        The records that the table has phones for, with ``phones``; how many
        others there are is logged.

    Raises
    ------
    ValueError
        When the table lacks a column, or has phones for no record.

    Example
    -------
    >>> path = getfixture("tmp_path") / "phones.csv"
    >>> _ = path.write_text("id,phones,oov\\na,S OW,\\nb,IH,IT\\n")
    >>> table_phones([{"ID": "a"}, {"ID": "b"}], path)
    [{'ID': 'a', 'phones': 'S OW'}]
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        for column in ("id", "phones"):
            if column not in (rows.fieldnames or ()):
                raise ValueError(f"{path}: expected a column {column!r}")
        phones = {r["id"]: r["phones"] for r in rows if not r.get("oov")}
    records = list(records)
    known = [
        {**record, "phones": phones[record["ID"]]}
        for record in records
        if phones.get(record["ID"])
    ]
    if not known:
        raise ValueError(
            f"{path}: expected phones for {len(records)} recordings, got none"
        )
    if len(known) < len(records):
        logger.warning(
            f"Left out {len(records) - len(known)} recordings without phones "
            f"in {path}"
        )
    return known
