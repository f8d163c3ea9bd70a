"""The tokenizer of CTC models, in SpeechBrain's label format."""

import re
from numbers import Integral

from speechbrain.dataio.encoder import CategoricalEncoder, CTCTextEncoder

from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import making, pieces
from unispeech_sb.dataio.vocabularies import (
    DELIMITER,
    UNKNOWNS,
    usual_specials,
)

SETTINGS = {
    "word_delimiter": (str, type(None)),
    "delimiter_text": str,
    "separator": str,
    "lowercase": bool,
    "specials": list,
}
"""What a file holds beside SpeechBrain's own entries."""

OPTIONAL = {"ending": list, "sentencepiece": str}
"""What else it holds where there is any."""


class CTCTokenizer(LabelEncoder, CTCTextEncoder):
    """Tokens of a CTC model, for training, decoding and ``EncoderASR``.

    A text is characters with a token between words, phones with spaces
    between them, or SentencePiece's pieces. Decoding is that of transformers,
    but leaves special tokens out, after repeats are merged: transformers
    spells them, or else drops the blanks along with them, and so the second
    of two equal letters.

    Example
    -------
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> tokenizer.encode("ab b")
    [2, 3, 1, 3]
    >>> tokenizer.decode_frames([0, 2, 2, 0, 2, 1, 1, 3, 0])
    'aa b'
    """

    __module__ = "unispeech_sb.dataio.tokenizers"  # pretrained folders name it

    # each item is a token, not a row of them as in CTCTextEncoder
    update_from_iterable = CategoricalEncoder.update_from_iterable

    def __init__(self):
        super().__init__()
        self.word_delimiter = DELIMITER
        self.delimiter_text = " "
        self.separator = ""
        self.lowercase = False
        self.specials = []
        self.ending = []
        self.sentencepiece = ""

    @classmethod
    def from_tokens(
        cls,
        tokens,
        blank_index,
        word_delimiter=DELIMITER,
        separator="",
        lowercase=False,
        specials=None,
        unknown=None,
        delimiter_text=" ",
    ):
        """Makes the tokenizer of a vocabulary.

        Arguments
        ---------
        tokens : list of str
            The token of index 0, 1, ...
        blank_index : int
            Index of CTC's blank.
        word_delimiter : str or None
            Token between words. It need not be there.
        separator : str
            What stands between the tokens of a text: nothing for characters,
            a space for phones. With one, decoding leaves word delimiters out.
        lowercase : bool
            Texts are in lower case and tokens in upper case.
        specials : list of str, optional
            Tokens that decoding leaves out, beside the blank. Those of the
            usual names when omitted.
        unknown : str, optional
            Token for what has none. The usual name, if it is there, when
            omitted; without one, unknown symbols are errors.
        delimiter_text : str
            What decoding writes for a word delimiter.

        Returns
        -------
        CTCTokenizer
            With one index for each token.

        Raises
        ------
        ValueError
            When a token is there twice, or the blank or ``unknown`` is not.

        Example
        -------
        >>> phones = ["h", "aɪ", "<s>", "<pad>", "</s>", "<unk>"]
        >>> tokenizer = CTCTokenizer.from_tokens(phones, 2, separator=" ")
        >>> tokenizer.decode(tokenizer.encode("h aɪ"))
        'h aɪ'
        """
        tokens = list(tokens)
        if not 0 <= blank_index < len(tokens):
            raise ValueError(
                "tokenizer: expected a blank_index from 0 to "
                f"{len(tokens) - 1}; got {blank_index}"
            )
        tokenizer = cls.from_labels(tokens)
        tokenizer.blank_label = blank = tokens[blank_index]
        if unknown is None:
            unknown = next((name for name in UNKNOWNS if name in tokens), blank)
        elif unknown not in tokens:
            raise ValueError(
                f"tokenizer: expected {unknown!r}, for what has no token, "
                f"among its {len(tokens)} tokens"
            )
        if unknown != blank:
            tokenizer.unk_label = unknown
        if specials is None:
            specials = [*usual_specials(tokens), unknown]
        left_out = {blank, *(set(specials) - {word_delimiter})}
        tokenizer.specials = [name for name in tokens if name in left_out]
        tokenizer.word_delimiter = word_delimiter
        tokenizer.delimiter_text = delimiter_text
        tokenizer.separator = separator
        tokenizer.lowercase = lowercase
        return tokenizer

    from_huggingface = classmethod(making.from_huggingface)
    from_pieces = classmethod(making.from_pieces)
    from_texts = classmethod(making.from_texts)
    superb_letters = classmethod(making.superb_letters)

    @property
    def blank_index(self):
        """Index of CTC's blank."""
        return self.get_blank_index()

    def encode(self, text):
        """Gives a text's indices.

        As in transformers, spaces become word delimiters and what has no token
        becomes the unknown. Unlike there, a text never holds the blank, and
        spaces beside tokens of several characters are kept.

        Arguments
        ---------
        text : str
            The text.

        Returns
        -------
        list of int
            One index for each token.

        Raises
        ------
        ValueError
            When a symbol has no token, and there is none for the unknown.

        Example
        -------
        >>> CTCTokenizer.from_texts(["ab", "b a"]).encode("a bad")
        [3, 2, 4, 3, 1]
        """
        unknown = self.lab2ind.get(getattr(self, "unk_label", None))
        table = {**self.lab2ind, self.blank_label: unknown}
        indices = []
        for token in self._split(text):
            index = table.get(token, unknown)
            if index is None:
                raise ValueError(
                    "tokenizer: expected symbols that have tokens, as none is "
                    f"for the unknown; got {token!r:.60} in {text!r:.60}"
                )
            indices.append(index)
        return indices

    def targets(self, text):
        """Gives what a model is trained to write: a text and ``ending``.

        Arguments
        ---------
        text : str
            The text.

        Returns
        -------
        list of int
            ``encode(text)``, then the tokens that end every text.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_tokens(["-", "a", "</s>"], 0)
        >>> tokenizer.ending = ["</s>"]
        >>> tokenizer.targets("aa")
        [1, 1, 2]
        """
        return self.encode(text) + [self.lab2ind[t] for t in self.ending]

    def decode(self, indices, skip_specials=True):
        """Gives the text of indices that are merged already.

        Arguments
        ---------
        indices : iterable of int
            Indices of tokens.
        skip_specials : bool
            Leave special tokens out; else all but the blank are spelt, as
            transformers does.

        Returns
        -------
        str
            The text, without spaces at its ends.

        Raises
        ------
        ValueError
            When there is no token of an index.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "<unk>", "a"], 0)
        >>> tokenizer.decode([1, 3, 3, 0, 2, 1])
        'aa'
        >>> tokenizer.decode([1, 3, 3, 0, 2, 1], skip_specials=False)
        'aa<unk>'
        """
        return self._spell(indices, skip_specials).strip()

    def decode_frames(self, indices, skip_specials=True):
        """Gives the text of one index for each frame, by CTC's greedy rule.

        Arguments
        ---------
        indices : iterable of int
            The most likely token of each frame.
        skip_specials : bool
            As in ``decode``.

        Returns
        -------
        str
            The text, without spaces at its ends.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a"], 0)
        >>> tokenizer.decode_frames([2, 2, 0, 2, 1, 0, 1, 2])
        'aa  a'
        """
        merged = self.collapse_indices_ndim(_listed(indices))
        return self.decode(merged, skip_specials)

    def decode_ndim(self, x):
        """Decodes to pieces, as SpeechBrain's interfaces and recipes ask for.

        Arguments
        ---------
        x : int, iterable or torch.Tensor
            One index, merged indices, or rows of them.

        Returns
        -------
        str or list
            The text of one index; or what joins to ``decode(x)``: characters,
            or phones and separators; or a list of such lists.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
        >>> tokenizer.decode_ndim([[2, 1, 3], []])
        [['a', ' ', 'b'], []]
        """
        x = _listed(x)
        if isinstance(x, Integral):
            return self._spell([x])
        if x and not any(isinstance(_listed(item), Integral) for item in x):
            return [self.decode_ndim(item) for item in x]
        text = self.decode(x)
        if not self.separator:
            return list(text)
        pieces = re.split(f"({re.escape(self.separator)})", text)
        return [piece for piece in pieces if piece]

    def _split(self, text):
        """Tokens of a text, whether or not they are in the vocabulary."""
        if self.sentencepiece:
            return pieces.split(self.sentencepiece, text)
        if self.separator:
            text = text.upper() if self.lowercase else text
            return [t for t in text.split(self.separator) if t.strip()]
        # the longest first: one token must not hide another it begins
        long = sorted((t for t in self.lab2ind if len(t) > 1), key=len)
        names = "|".join(re.escape(token) for token in reversed(long))
        tokens = []
        for token in re.findall(f"{names}|." if names else ".", text, re.S):
            if token == " " and self.word_delimiter in self.lab2ind:
                tokens.append(self.word_delimiter)
            elif self.lowercase and token not in long:
                tokens.extend(token.upper())
            else:
                tokens.append(token)
        return tokens

    def _spell(self, indices, skip_specials=True):
        """Text of merged indices with the spaces at its ends."""
        hidden = set(self.specials if skip_specials else [self.blank_label])
        try:
            tokens = [self.ind2lab[int(index)] for index in _listed(indices)]
        except KeyError as error:
            raise ValueError(
                f"tokenizer: expected indices from 0 to {len(self) - 1}; "
                f"got {error}"
            ) from error
        delimiter, between = self.word_delimiter, self.delimiter_text
        if self.separator:
            hidden.add(delimiter)
        tokens = [token for token in tokens if token not in hidden]
        if self.sentencepiece:
            return pieces.join(self.sentencepiece, tokens)
        if not self.separator:
            tokens = [between if t == delimiter else t for t in tokens]
        text = self.separator.join(tokens)
        return text.lower() if self.lowercase else text

    def _get_extras(self):
        """Adds what a file holds beside SpeechBrain's own entries."""
        own = {name: getattr(self, name) for name in SETTINGS}
        own |= {n: getattr(self, n) for n in OPTIONAL if getattr(self, n)}
        return {**super()._get_extras(), **own}

    def _set_extras(self, extras):
        """Takes it from a file, where it must be whole."""
        super()._set_extras(extras)
        kinds = {
            **SETTINGS,
            **{n: k for n, k in OPTIONAL.items() if n in extras},
        }
        for name, kind in kinds.items():
            if not isinstance(extras[name], kind):
                raise ValueError(f"{name} is {extras[name]!r:.60}")
            setattr(self, name, extras[name])
        blank, tokens = extras["blank_label"], list(self.lab2ind)
        named = [blank, extras.get("unk_label", blank), *self.specials]
        named += self.ending
        if self.sentencepiece:
            named += pieces.read(self.sentencepiece).tokens
        texts = all(isinstance(token, str) for token in tokens)
        if not texts or not all(name in tokens for name in named):
            raise ValueError(f"not all are tokens: {named!r:.60}")


def _listed(values):
    """Plain numbers or lists of them, where a tensor or an array holds them."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return values if isinstance(values, Integral) else list(values)
