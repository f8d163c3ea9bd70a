"""Speech with its phones, of one language or several: from the corpus itself,
or spelt by pronouncing lexicons, a CSV or espeak-ng.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.espeak import Voice, speak
from unispeech_sb.dataio.corpora.fairseq import find_vocabulary
from unispeech_sb.dataio.manifest import has_columns, read_rows
from unispeech_sb.text import compare_names, lines_of

__all__ = ["phone_records", "phone_vocabulary"]

logger = get_logger(__name__)

_OWN_KEYS = (
    *("data_folder", "corpus", "wav_root"),
    *("lexicon", "phones_table", "espeak"),
)
"""What may differ between languages."""
_NUM_NAMED = 10  # words that an error names before it only counts


def phone_vocabulary(hparams: dict[str, Any]) -> str | Path | None:
    """Finds the authors' vocabulary, which may lie beside their manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``vocabulary``, ``data_folder``, ``labels``, and
        ``languages``, as for ``phone_records``.

    Returns
    -------
    path-like or None
        The file; None where the phones of the training texts are it.

    Example
    -------
    >>> phone_vocabulary({"vocabulary": "phones.json", "data_folder": "en"})
    'phones.json'
    """
    folder, given = hparams["data_folder"], hparams["vocabulary"]
    alone = given is None and not hparams.get("languages")
    if alone and find_corpus("phoneme", hparams) == "fairseq":
        return find_vocabulary(folder, hparams["labels"])
    return given


def phone_records(hparams: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Reads the records, and finds their phones where only words are known.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: as for ``read_corpus``; where the corpus has no
        phones, one of ``lexicon``, ``phones_table`` and ``espeak``. With
        ``languages``, name of a language -> the values that it has of its own
        for these keys and ``wav_root``. Its folder is that of its name in
        ``data_folder``, when omitted. Without ``shared_phones`` each language
        has phones of its own, "(en)s" for "s", as in the authors' ``sep``
        labels.

    Returns
    -------
    iterable of dict
        Utterance records with ``phones``.

    Raises
    ------
    ValueError
        When a language has a value for another key, or there is no corpus.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "en"
    >>> folder.mkdir()
    >>> _ = (folder / "a.wav").write_text("")
    >>> table = "id,path,split,phones\\na,a.wav,train,s oː"
    >>> _ = (folder / "manifest.csv").write_text(table, encoding="utf-8")
    >>> hparams = dict.fromkeys(["lexicon", "phones_table", "espeak"])
    >>> hparams |= {"data_folder": folder.parent, "languages": {"en": {}}}
    >>> hparams |= {"shared_phones": False, "synthetic": False}
    >>> record = next(phone_records(hparams))
    >>> record["ID"], record["phones"]
    ('en_a', '(en)s (en)oː')
    """
    languages = hparams.get("languages") or {}
    for language, values in languages.items():
        others = set(values or ()) - set(_OWN_KEYS)
        if others:
            raise ValueError(
                f"languages: expected only {', '.join(_OWN_KEYS)} of "
                f"{language}; got {', '.join(sorted(others))}"
            )
    return _of_languages(hparams) if languages else _of_folder(hparams)


def _of_languages(hparams):
    """Yields the records of each language."""
    for language, values in hparams["languages"].items():
        own = {**hparams, "languages": None, "vocabulary": None}
        own["language"] = language
        own["data_folder"] = Path(hparams["data_folder"], language)
        tag = "" if hparams["shared_phones"] else f"({language})"
        for record in _of_folder({**own, **(values or {})}):
            phones = record.get("phones", "").split()
            yield {
                **record,
                "ID": f"{language}_{record['ID']}",
                "phones": " ".join(tag + phone for phone in phones),
                "language": language,
            }


def _of_folder(hparams):
    """Records of one folder, with phones of the corpus or as the yaml says."""
    name = find_corpus("phoneme", hparams)
    records = read_corpus("phoneme", hparams)
    if name == "fairseq":
        return records
    if hparams["lexicon"]:
        lexicon = read_lexicons(hparams["lexicon"])
        return lexicon_phones(records, lexicon, hparams["skip_bad_files"])
    if hparams["phones_table"]:
        return table_phones(records, hparams["phones_table"])
    if hparams["espeak"]:
        return espeak_phones(records, hparams["espeak"])
    if name == "synthetic":
        return [{**record, "phones": record["phn"]} for record in records]
    return records


def read_lexicons(files):
    """Word -> phones with spaces between, of one or several lexicons.

    Of a word with several pronunciations the first is taken, and that of an
    earlier file before that of a later one, as in SUPERB.
    """
    if isinstance(files, (str, Path)):
        files = [files]
    lexicon = {}
    for path in map(Path, files):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such lexicon")
        for number, line in lines_of(path):
            # Comments of CMU's dictionary begin so
            if line.startswith(";;;") or not line.strip():
                continue
            word, *phones = line.split()
            if not phones:
                raise ValueError(
                    f"{path}, line {number}: expected a word and its phones, "
                    f"got {line.strip()!r:.60}"
                )
            lexicon.setdefault(word, " ".join(phones))
    return lexicon


def lexicon_phones(records, lexicon, skip_unknown=False):
    """Spells the words of records with a lexicon, nothing between the words.

    Records with unknown words are left out, and counted in the log, with
    ``skip_unknown``; else they are an error that names the first ten words.
    """
    records, known, unknown, num_left_out = list(records), [], {}, 0
    words = dict.fromkeys(w for record in records for w in _words(record))
    meeting = [
        fold
        for fold in (str, str.upper, str.lower)
        if not lexicon.keys().isdisjoint(map(fold, words))
    ]
    if not meeting:
        compare_names(words, lexicon, "the texts", "the lexicon")
    fold = meeting[0] if meeting else str
    if fold is not str:
        logger.warning(f"Words are looked up in {fold.__name__} case")
    for record in records:
        words = [fold(word) for word in _words(record)]
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
    """Lets espeak-ng give the phones of records, in IPA without stress."""
    voice = Voice(language)
    for record in records:
        phones = speak(" ".join(_words(record)), voice).phones
        yield {**record, "phones": " ".join(phone.text for phone in phones)}


def table_phones(records, path):
    """Takes the phones of records from columns ``id`` and ``phones`` of a CSV.

    Rows that name words without a pronunciation in a column ``oov`` are not
    used. How many records have no phones is logged.
    """
    rows = read_rows(path, has_columns("id", "phones"))
    phones = {row["id"]: row["phones"] for _, row in rows if not row.get("oov")}
    records = list(records)
    spelt = {name: own for name, own in phones.items() if own}
    names = [record["ID"] for record in records]
    compare_names(names, spelt, "the recordings", path)
    return [
        {**record, "phones": spelt[record["ID"]]}
        for record in records
        if record["ID"] in spelt
    ]
