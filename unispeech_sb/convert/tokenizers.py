"""Tokenizers of vocabulary files, the one that a recipe asks for, labels of
SpeechBrain's recipes, and the files that transformers reads.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from speechbrain.utils.logger import get_logger

from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.fairseq.options import read_vocabulary
from unispeech_sb.checkpoints.options import shown
from unispeech_sb.checkpoints.pretrained_folder import TOKENIZER_FILE
from unispeech_sb.checkpoints.special_tokens import (
    SETTINGS_FILES,
    find_blank,
    special_tokens,
)
from unispeech_sb.checkpoints.texts import (
    order_tokens,
    read_json,
    read_tokens,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import CTCTokenizer, sentencepiece

PADS = ("<pad>", "[PAD]")
"""Usual names of CTC's blank in transformers' vocabularies."""

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")

VOCABULARIES = {
    "superb_letters": CTCTokenizer.superb_letters,
    "superb_phones": CTCTokenizer.superb_phones,
}
"""Vocabulary that a file names, and does not hold -> its tokenizer."""

TEXTS = ("EncoderASR", "EncoderDecoderASR")
"""SpeechBrain's interfaces that write texts."""

logger = get_logger(__name__)


def take_tokens(checkpoint: Checkpoint) -> None:
    """Gives a checkpoint the tokens of the vocabulary that it names."""
    if checkpoint.vocabulary is not None:
        tokenizer = VOCABULARIES[checkpoint.vocabulary]()
        size = range(len(tokenizer))
        checkpoint.tokens = [tokenizer.ind2lab[index] for index in size]


def make_tokenizer(
    texts: Iterable[str],
    separator: str = "",
    num_pieces: int | None = None,
    vocabulary: str | Path | None = None,
) -> CTCTokenizer:
    """Makes the tokenizer of a training set.

    Arguments
    ---------
    texts : iterable of str
        The training texts.
    separator : str
        Nothing to take characters, a space to take phones.
    num_pieces : int, optional
        Take so many of SentencePiece's pieces instead.
    vocabulary : str or pathlib.Path, optional
        Take the tokens of a file or folder instead, see ``read_tokenizer``.

    Returns
    -------
    CTCTokenizer
        Of the texts, or of the file.

    Raises
    ------
    ValueError
        When both or what cannot be is asked for.

    Example
    -------
    >>> len(make_tokenizer(["so it is", "so is it"], num_pieces=8))
    9
    """
    if num_pieces is not None and (separator or vocabulary is not None):
        raise ValueError(
            "tokenizer: expected pieces, a separator or a vocabulary; "
            "got two of them"
        )
    if vocabulary is not None:
        return read_tokenizer(vocabulary, separator)
    if num_pieces is not None:
        return CTCTokenizer.from_pieces(sentencepiece.train(texts, num_pieces))
    return CTCTokenizer.from_texts(texts, separator)


def read_tokenizer(source: str | Path, separator: str = "") -> CTCTokenizer:
    """Reads the vocabulary of a CTC model.

    Arguments
    ---------
    source : str or pathlib.Path
        A pretrained folder (with ``tokenizer.ckpt``), a Hugging Face folder
        (with ``vocab.json``), or a file: ``vocab.json`` of transformers or of
        the authors, fairseq's ``dict.txt``, or SentencePiece's ``.model``.
    separator : str
        What stands between the tokens of a text, for files that do not say
        it: those of fairseq and of the authors.

    Returns
    -------
    CTCTokenizer
        With an index for each output of the model.

    Raises
    ------
    ValueError
        When it is damaged, or none of these.

    Example
    -------
    >>> path = getfixture("tmp_path") / "dict.ltr.txt"
    >>> _ = path.write_text("| 94802\\nE 51860\\n")
    >>> read_tokenizer(path).encode("E E")
    [5, 4, 5]
    """
    source = Path(source)
    own, theirs = source / TOKENIZER_FILE, source / "vocab.json"
    if own.is_file():
        tokenizer = CTCTokenizer()
        tokenizer.load_strict(own)
        return tokenizer
    path = theirs if theirs.is_file() else source
    if not path.is_file():
        raise ValueError(
            f"{source}: expected a vocabulary, as a file or a folder with "
            f"{TOKENIZER_FILE} or vocab.json; there is none"
        )
    try:
        if path.suffix == ".model":
            return CTCTokenizer.from_pieces(path.read_bytes())
        if path.suffix == ".json" and _is_huggingface(path):
            return _read_huggingface(path)
        tokens, blank_index, _ = read_vocabulary(path)
        return CTCTokenizer.from_tokens(
            tokens, blank_index, separator=separator
        )
    except ValueError as error:
        if str(path.parent) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def _is_huggingface(path):
    """Whether special tokens are there: the authors' vocabularies lack them."""
    beside = any((path.parent / name).is_file() for name in SETTINGS_FILES)
    return beside or any(pad in read_json(path) for pad in PADS)


def _read_huggingface(path):
    """The tokenizer of a Hugging Face folder, or of its vocabulary alone."""
    vocabulary, folder = read_json(path), path.parent
    if any(isinstance(value, dict) for value in vocabulary.values()):
        raise ValueError(
            f"{path}: expected the vocabulary of one language; got those of "
            f"{shown(', '.join(vocabulary))}"
        )
    files = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in SETTINGS_FILES
        if (folder / name).is_file()
    }
    config = folder / "config.json"
    config = read_json(config) if config.is_file() else {}
    size = config.get("vocab_size", len(vocabulary))
    if path.name == "vocab.json":
        tokens = read_tokens(folder, size)
    else:
        tokens = order_tokens(vocabulary, size, path)
    said = Fact(config.get("pad_token_id"), "config.json: pad_token_id")
    theirs = special_tokens(folder, tokens)["pad"]
    blank, warning = find_blank(said, theirs, tokens)
    if warning:
        logger.warning(f"{folder}: {warning}")
    found = [tokens.index(pad) for pad in PADS if pad in tokens]
    if blank is None and not found:
        raise ValueError(
            f"{path}: expected CTC's blank, as {' or '.join(PADS)} or as "
            "pad_token_id of a config.json beside it"
        )
    index = found[0] if blank is None else blank.value
    return CTCTokenizer.from_huggingface(files, tokens, index)


def tokenizer_files(tokens: Sequence[str], blank_index: int) -> dict[str, str]:
    """Name -> text of the files of a transformers tokenizer, for tokens by
    index.

    fairseq calls CTC's blank ``<s>``; transformers takes ``pad_token`` for
    it. So where the blank is ``<s>`` it changes names with ``<pad>``.
    """
    names = list(tokens)
    if names[blank_index] == "<s>" and "<pad>" in names:
        names[names.index("<pad>")] = "<s>"
        names[blank_index] = "<pad>"
    units = [name for name in names if name not in SPECIALS]
    phones = any(len(name) > 1 and name[:1] + name[-1:] != "<>" and name != "|"
                 for name in units)  # fmt: skip
    settings = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": names[blank_index],
        "word_delimiter_token": "|",
        "do_lower_case": False,
    }
    if phones:
        settings["tokenizer_class"] = "Wav2Vec2PhonemeCTCTokenizer"
        settings["phone_delimiter_token"] = " "
        settings["do_phonemize"] = False
        settings["word_delimiter_token"] = "|" if "|" in names else None
    return {
        "vocab.json": json.dumps(
            {name: index for index, name in enumerate(names)},
            ensure_ascii=False,
        ),
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }


def has_labels(path: Path) -> bool:
    """Whether a file is SpeechBrain's of labels, with any in it."""
    with open(path, "rb") as file:
        start = b"\n" + file.read(4096)
    return b"' => " in start.partition(b"\n====")[0]


def labels_of(
    path: Path, interface: str, blank: int | None
) -> LabelEncoder | CTCTokenizer | Path:
    """What a file of labels holds: classes, or tokens by which texts are made;
    the file itself, where it is a model of SentencePiece."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of labels; there is none")
    if has_labels(path):
        labels = LabelEncoder.read_labels(path)
        if interface not in TEXTS:
            return LabelEncoder.from_labels(labels)
        phones = any(len(n) > 1 and not n.startswith("<") for n in labels)
        tokenizer = CTCTokenizer.from_tokens(
            labels, blank or 0, " ", " " if phones else "", specials=()
        )
        if interface == "EncoderDecoderASR":
            tokenizer.specials = []  # what a decoder writes is not blank
        return tokenizer
    if interface not in TEXTS or path.suffix not in (".model", ".ckpt"):
        raise ValueError(
            f"{path}: expected labels as SpeechBrain's encoders save them"
        )
    from sentencepiece import SentencePieceProcessor

    try:
        SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected a model of SentencePiece"
        ) from error
    return path
