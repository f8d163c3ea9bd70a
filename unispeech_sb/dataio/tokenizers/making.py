"""Tokenizers of a corpus, of SentencePiece and of a Hugging Face folder.

The functions here are class methods of ``CTCTokenizer``.
"""

import base64

from unispeech_sb.dataio.tokenizers import pieces
from unispeech_sb.dataio.vocabularies import (
    BLANK,
    DELIMITER,
    LIBRISPEECH_LETTERS,
    UNKNOWN,
    huggingface_options,
)


def from_huggingface(cls, texts, tokens, blank_index):
    """Makes the tokenizer that a Hugging Face folder describes.

    Arguments
    ---------
    texts : dict
        Name of a file -> text: ``tokenizer_config.json`` and
        ``special_tokens_map.json``, where they are there.
    tokens : list of str
        The vocabulary by index.
    blank_index : int
        Index of CTC's blank: ``pad_token_id`` of the model.

    Returns
    -------
    CTCTokenizer
        Of characters or of phones.

    Raises
    ------
    ValueError
        When a file is damaged, or is of another kind of tokenizer.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> texts = {"tokenizer_config.json": '{"do_lower_case": true}'}
    >>> tokens = ["<pad>", "|", "A"]
    >>> tokenizer = CTCTokenizer.from_huggingface(texts, tokens, 0)
    >>> tokenizer.decode_frames([2, 2, 1, 0, 2])
    'a a'
    """
    options = huggingface_options(texts, tokens)
    return cls.from_tokens(tokens, blank_index, **options)


def from_texts(cls, texts, separator=""):
    """Makes the tokenizer of a corpus.

    Arguments
    ---------
    texts : iterable of str
        The training texts.
    separator : str
        Nothing to take characters, a space to take phones.

    Returns
    -------
    CTCTokenizer
        Of the blank, the unknown, a token between words where there are
        several, and the symbols in order.

    Raises
    ------
    ValueError
        When there is no text.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_texts(["so it is"])
    >>> [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
    ['<pad>', '<unk>', '|', 'i', 'o', 's', 't']
    """
    symbols = set()
    for text in texts:
        symbols.update(text.split(separator) if separator else text)
    between = [DELIMITER] if {" ", DELIMITER} & symbols else []
    symbols -= {"", " ", DELIMITER, BLANK, UNKNOWN}
    if not symbols:
        raise ValueError("tokenizer: expected texts; got none with symbols")
    tokens = [BLANK, UNKNOWN, *between, *sorted(symbols)]
    return cls.from_tokens(tokens, 0, separator=separator)


def from_pieces(cls, model):
    """Makes the tokenizer of a SentencePiece model: the blank, its pieces.

    Arguments
    ---------
    model : str or bytes
        Of ``pieces.train``, or the content of a ``.model`` file.

    Returns
    -------
    CTCTokenizer
        With one token more than the model has.

    Raises
    ------
    ValueError
        When it is no model.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> model = pieces.train(["so it is", "so is it"], num_pieces=8)
    >>> tokenizer = CTCTokenizer.from_pieces(model)
    >>> len(tokenizer), tokenizer.decode(tokenizer.encode("it is so"))
    (9, 'it is so')
    """
    if isinstance(model, bytes):
        model = base64.b64encode(model).decode()
    tokens, specials, unknown = pieces.read(model)
    blank = "<blank>" if BLANK in tokens else BLANK
    tokenizer = cls.from_tokens(
        [blank, *tokens],
        0,
        word_delimiter=None,
        specials=specials,
        unknown=unknown,
    )
    tokenizer.sentencepiece = model
    return tokenizer


def superb_letters(cls, texts=()):
    """Makes the tokenizer of SUPERB's speech recognition.

    It is fairseq's of LibriSpeech: four special tokens, ``<s>`` the blank,
    and 28 letters by their frequency. Targets end in ``| </s>``.

    Arguments
    ---------
    texts : iterable of str
        Not used: the letters are given.

    Returns
    -------
    CTCTokenizer
        Of 32 tokens.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.superb_letters()
    >>> [tokenizer.ind2lab[i] for i in tokenizer.targets("IT IS")]
    ['I', 'T', '|', 'I', 'S', '|', '</s>']
    """
    tokens = ["<s>", BLANK, "</s>", UNKNOWN, *LIBRISPEECH_LETTERS]
    tokenizer = cls.from_tokens(tokens, 0)
    tokenizer.ending = [DELIMITER, "</s>"]
    return tokenizer
