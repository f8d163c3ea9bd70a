"""Speech with its phones, of one language or several: from the authors'
manifests, or spelt by a lexicon, a table or espeak-ng.
"""

from pathlib import Path

from unispeech_sb.dataio.corpora.fairseq_manifests import (
    fairseq_manifests,
    find_vocabulary,
    is_fairseq_manifests,
)
from unispeech_sb.dataio.corpora.lexicon import (
    espeak_phones,
    lexicon_phones,
    read_lexicons,
    table_phones,
)
from unispeech_sb.dataio.corpora.transcribed import transcribed_speech

OWN_KEYS = ("data_folder", "wav_root", "lexicon", "phones_table", "espeak")
"""What may differ between languages."""


def phone_vocabulary(hparams):
    """Finds the authors' vocabulary, which may lie beside their manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``vocabulary``, ``data_folder``, ``labels``, and
        ``languages``, as for ``phonetic_speech``.

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
    if alone and is_fairseq_manifests(folder):
        return find_vocabulary(folder, hparams["labels"])
    return given


def phonetic_speech(hparams):
    """Reads the records, and finds their phones where only words are known.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. ``languages``, if there is such a key, is name of
        a language -> the values that ``OWN_KEYS`` have for it. Its folder is
        that of its name in ``data_folder``, when omitted. Without
        ``shared_phones`` each language has phones of its own, "(en)s" for
        "s", as in the authors' ``sep`` labels.

    Returns
    -------
    iterable of dict
        Utterance records with ``phones``.

    Raises
    ------
    ValueError
        When a language has a value for another key.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "en"
    >>> folder.mkdir()
    >>> _ = (folder / "a.wav").write_text("")
    >>> table = "id,path,split,phones\\na,a.wav,train,s oː"
    >>> _ = (folder / "manifest.csv").write_text(table, encoding="utf-8")
    >>> hparams = dict.fromkeys([*OWN_KEYS, "vocabulary", "synthetic"])
    >>> hparams |= {"data_folder": folder.parent, "languages": {"en": {}}}
    >>> hparams["shared_phones"] = False
    >>> record = next(phonetic_speech(hparams))
    >>> record["ID"], record["phones"]
    ('en_a', '(en)s (en)oː')
    """
    languages = hparams.get("languages") or {}
    for language, values in languages.items():
        others = set(values or ()) - set(OWN_KEYS)
        if others:
            raise ValueError(
                f"languages: expected only {', '.join(OWN_KEYS)} of "
                f"{language}; got {', '.join(sorted(others))}"
            )
    return _of_languages(hparams) if languages else _of_folder(hparams)


def _of_languages(hparams):
    """Yields the records of each language."""
    for language, values in hparams["languages"].items():
        own = {**hparams, "languages": None, "vocabulary": None}
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
    """The records of one folder."""
    folder = hparams["data_folder"]
    if is_fairseq_manifests(folder):
        return fairseq_manifests(
            folder,
            hparams["wav_root"],
            hparams["labels"],
            phone_vocabulary(hparams),
        )
    records = transcribed_speech(hparams)
    if hparams["lexicon"]:
        lexicon = read_lexicons(hparams["lexicon"])
        return lexicon_phones(records, lexicon, hparams["skip_bad_files"])
    if hparams["phones_table"]:
        return table_phones(records, hparams["phones_table"])
    if hparams["espeak"]:
        return espeak_phones(records, hparams["espeak"])
    if hparams["synthetic"]:
        return [{**record, "phones": record["phn"]} for record in records]
    return records
