"""Languages of a converted folder: adapter files and their vocabularies."""

from pathlib import Path

from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.pretrained import TEXTS_FOLDER
from unispeech_sb.checkpoints.texts import read_json, read_tokens
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.adapters import (
    CLASSIFIER,
    SUFFIXES,
    adapter_languages,
)

VOCABULARY = "vocab.json"


def folder_languages(folder):
    """Lists the languages that a folder can be switched to.

    Arguments
    ---------
    folder : str or path-like
        A pretrained folder.

    Returns
    -------
    list of str
        Those with an adapter file and a vocabulary, in alphabetical order.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "adapter.eng.safetensors").touch()
    >>> (folder / "transformers").mkdir()
    >>> nested = '{"eng": {"<pad>": 0}, "fra": {"<pad>": 0}}'
    >>> _ = (folder / "transformers" / "vocab.json").write_text(nested)
    >>> folder_languages(folder)
    ['eng']
    """
    path = Path(folder) / TEXTS_FOLDER / VOCABULARY
    if not path.is_file():
        return []
    vocabulary = read_json(path)
    return [
        lang
        for lang in adapter_languages(folder)
        if isinstance(vocabulary.get(lang), dict)
    ]


def language_tokenizer(folder, lang, tokenizer):
    """Makes the tokenizer of a language.

    Arguments
    ---------
    folder : str or path-like
        A pretrained folder.
    lang : str
        One of ``folder_languages``.
    tokenizer : CTCTokenizer
        That of the language before: the blank is the same in all.

    Returns
    -------
    CTCTokenizer
        As conversion to that language makes it.

    Raises
    ------
    ValueError
        When there is no such language, or its files do not fit.

    Example
    -------
    >>> language_tokenizer(getfixture("tmp_path"), "eng", None)
    Traceback (most recent call last):
    ...
    ValueError: ...: expected one of the languages (none there); got 'eng'
    """
    languages = folder_languages(folder)
    if lang not in languages:
        raise ValueError(
            f"{folder}: expected one of the languages "
            f"{', '.join(languages) or '(none there)'}; got {lang!r}"
        )
    size = _num_outputs(folder, lang)
    texts = Path(folder) / TEXTS_FOLDER
    tokens = read_tokens(texts, size, lang)
    index, blank = tokenizer.blank_index, tokenizer.blank_label
    if tokens[index : index + 1] != [blank]:
        raise ValueError(
            f"{texts / VOCABULARY}: expected {blank!r}, the blank, at index "
            f"{index} of {lang!r}; got {tokens[index : index + 1]}"
        )
    files = {
        path.name: path.read_text(encoding="utf-8")
        for path in texts.glob("*.json")
    }
    return CTCTokenizer.from_huggingface(files, tokens, index)


def _num_outputs(folder, lang):
    """Size of the classifier in a language's file."""
    paths = [Path(folder) / f"adapter.{lang}{suffix}" for suffix in SUFFIXES]
    path = next(path for path in paths if path.is_file())
    weight = read_tensors(path).get(CLASSIFIER + "weight")
    if weight is None or weight.dim() != 2:
        raise ValueError(f"{path}: expected {CLASSIFIER}weight, [V, D]")
    return len(weight)
