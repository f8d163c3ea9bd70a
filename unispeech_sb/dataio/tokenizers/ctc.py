"""The tokenizer of CTC models, in SpeechBrain's label format, and those of
SUPERB (Yang et al. 2021).
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder, CTCTextEncoder

from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import sentencepiece
from unispeech_sb.text import (
    find_slots,
    is_tag,
    lines_of,
    named,
    without_tags,
)

DELIMITER = "|"
BLANK, UNKNOWN = "<pad>", "<unk>"
UNKNOWNS = (UNKNOWN, "[UNK]", "<UNK>")
_SPECIALS = (
    *("<s>", "</s>", BLANK, "<blank>", "<bos>", "<eos>"),
    *("[PAD]", "[CLS]", "[SEP]", "<PAD>", *UNKNOWNS),
)
"""Names of tokens that no text holds."""

SUPERB_LETTERS = "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"
"""s3prl's letters of LibriSpeech, the most frequent first. fairseq's own
dictionary has W before C."""

_UNUSED = re.compile(r"<unused \d+>")
"""Name of an output that a vocabulary leaves out."""

_CHARACTERS = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
_PHONES = ("Wav2Vec2PhonemeCTCTokenizer",)
"""transformers' classes by what their tokens are."""

_NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": UNKNOWN,
    "pad_token": BLANK,
}
"""transformers' special tokens and their defaults."""

_EXTRA = (
    "additional_special_tokens",
    "extra_special_tokens",
    "added_tokens_decoder",
)
"""Where further ones are; the last has ordinary tokens too."""

_SETTINGS = {
    "word_delimiter": (str, type(None)),
    "delimiter_text": str,
    "separator": str,
    "lowercase": bool,
    "specials": list,
}
"""What a file holds beside SpeechBrain's own entries."""

_OPTIONAL = {"ending": list, "sentencepiece": str}
"""What else it holds where there is any."""

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
_STRESSES = ("0", "1", "2")  # none, primary, secondary
SUPERB_PHONES = (
    "SIL",
    "SPN",
    *sorted(
        [vowel + stress for vowel in _VOWELS for stress in _STRESSES]
        + _CONSONANTS
    ),
)
"""Silence, spoken noise, and ARPAbet with stress, in s3prl's order."""
_END = "<eos>"  # what SUPERB puts after the phones or letters of an utterance
NO_SLOT = "O"  # tag of a word that is in no slot


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

    def __init__(self) -> None:
        super().__init__()
        self.word_delimiter = DELIMITER
        self.delimiter_text = " "
        self.separator = ""
        self.lowercase = False
        self.specials: list[str] = []
        self.ending: list[str] = []
        self.sentencepiece = ""

    @classmethod
    def from_tokens(
        cls,
        tokens: Sequence[str],
        blank_index: int,
        word_delimiter: str | None = DELIMITER,
        separator: str = "",
        lowercase: bool = False,
        specials: Sequence[str] | None = None,
        unknown: str | None = None,
        delimiter_text: str = " ",
    ) -> "CTCTokenizer":
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

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], separator: str = ""
    ) -> "CTCTokenizer":
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
        >>> tokenizer = CTCTokenizer.from_texts(["so it is"])
        >>> [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
        ['<pad>', '<unk>', '|', 'i', 'o', 's', 't']
        """
        symbols: set[str] = set()
        for text in texts:
            symbols.update(text.split(separator) if separator else text)
        between = [DELIMITER] if {" ", DELIMITER} & symbols else []
        symbols -= {"", " ", DELIMITER, BLANK, UNKNOWN}
        if not symbols:
            raise ValueError("tokenizer: expected texts; got none with symbols")
        tokens = [BLANK, UNKNOWN, *between, *sorted(symbols)]
        return cls.from_tokens(tokens, 0, separator=separator)

    @classmethod
    def from_pieces(cls, model: str | bytes) -> "CTCTokenizer":
        """Makes the tokenizer of a SentencePiece model: the blank, its pieces.

        Arguments
        ---------
        model : str or bytes
            Of ``sentencepiece.train``, or the content of a ``.model`` file.

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
        >>> model = sentencepiece.train(["so it is", "so is it"], num_pieces=8)
        >>> tokenizer = CTCTokenizer.from_pieces(model)
        >>> len(tokenizer), tokenizer.decode(tokenizer.encode("it is so"))
        (9, 'it is so')
        """
        if isinstance(model, bytes):
            model = base64.b64encode(model).decode()
        tokens, specials, unknown = sentencepiece.read(model)
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

    @classmethod
    def from_huggingface(
        cls, texts: Mapping[str, str], tokens: Sequence[str], blank_index: int
    ) -> "CTCTokenizer":
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
        >>> texts = {"tokenizer_config.json": '{"do_lower_case": true}'}
        >>> tokens = ["<pad>", "|", "A"]
        >>> tokenizer = CTCTokenizer.from_huggingface(texts, tokens, 0)
        >>> tokenizer.decode_frames([2, 2, 1, 0, 2])
        'a a'
        """
        options = huggingface_options(texts, tokens)
        return cls.from_tokens(tokens, blank_index, **options)

    @classmethod
    def superb_letters(cls, texts: Iterable[str] = ()) -> "CTCTokenizer":
        """Makes the tokenizer of SUPERB's speech recognition.

        Four special tokens of fairseq, ``<s>`` the blank, and 28 letters of
        LibriSpeech by their frequency, in s3prl's order: C before W. Targets
        end in ``| </s>``. Decoding leaves ``<s>`` and ``</s>`` out, and spells
        the other two.

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
        >>> tokenizer = CTCTokenizer.superb_letters()
        >>> [tokenizer.ind2lab[i] for i in tokenizer.targets("IT IS")]
        ['I', 'T', '|', 'I', 'S', '|', '</s>']
        """
        blank, end = "<s>", "</s>"
        tokens = [blank, BLANK, end, UNKNOWN, *SUPERB_LETTERS]
        tokenizer = cls.from_tokens(tokens, 0, specials=[blank, end])
        tokenizer.ending = [DELIMITER, end]
        return tokenizer

    @classmethod
    def superb_phones(cls, texts: Iterable[str] = ()) -> "CTCTokenizer":
        """Makes the tokenizer of SUPERB's phoneme recognition (section 3).

        Arguments
        ---------
        texts : iterable of str
            The training texts; the vocabulary does not depend on them.

        Returns
        -------
        CTCTokenizer
            Of 74 tokens: the blank, the end, the unknown, and
            ``SUPERB_PHONES``. Decoding leaves blanks and ends out, and spells
            the unknown.

        Example
        -------
        >>> tokenizer = CTCTokenizer.superb_phones()
        >>> tokenizer.targets("SIL AA0 ZH"), len(tokenizer)
        ([3, 5, 73, 1], 74)
        """
        tokenizer = cls.from_tokens(
            [BLANK, _END, UNKNOWN, *SUPERB_PHONES],
            0,
            word_delimiter=None,
            separator=" ",
            specials=[BLANK, _END],
        )
        tokenizer.ending = [_END]
        return tokenizer

    @classmethod
    def from_slots(
        cls,
        texts: Iterable[str],
        vocabulary: str | Path | None = None,
        letters: str | None = None,
    ) -> "CTCTokenizer":
        """Makes the tokenizer of slot filling: letters, and tags of slots.

        A tag is one token, with the space between it and its slot's value:
        "B-artist " and " E-artist". Targets end in ``<eos>``, but for texts
        that end in a space. Decoding spells the unknown.

        Arguments
        ---------
        texts : iterable of str
            The training texts, such as "PLAY B-artist QUEEN E-artist".
        vocabulary : str or path-like, optional
            File with a slot in each line, after a first one with "O" for none;
            when omitted, the slots are those of the texts, in order.
        letters : str, optional
            All characters, a space among them; those of the texts, a space
            before the others, when omitted.

        Returns
        -------
        CTCTokenizer
            Of the blank, the end, the unknown, the letters, and two tags for
            each slot.

        Raises
        ------
        ValueError
            When there is no slot, or the file begins with another line.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_slots(["PLAY B-artist ABBA E-artist"])
        >>> tokenizer.decode(tokenizer.targets("AB B-artist LA E-artist"))
        'AB B-artist LA E-artist'
        >>> len(tokenizer.targets("AB B-artist LA E-artist")), len(tokenizer)
        (8, 12)
        """
        texts = list(texts)
        if vocabulary is not None:
            slots = _read_slots(vocabulary)
        else:
            slots = sorted({n for text in texts for n, _ in find_slots(text)})
        if not slots:
            raise ValueError(
                "tokenizer: expected texts with slots, such as 'B-artist ABBA "
                f"E-artist'; got {named(texts)}"
            )
        if letters is None:
            found = set("".join(map(without_tags, texts)))
            letters = " " + "".join(sorted(found - {" "}))
        tags = (tag for slot in slots for tag in (f"B-{slot} ", f" E-{slot}"))
        tokenizer = cls.from_tokens(
            [BLANK, _END, UNKNOWN, *letters, *tags],
            0,
            word_delimiter=" ",
            specials=[BLANK, _END],
        )
        tokenizer.ending = [_END]
        return tokenizer

    @property
    def has_tags(self) -> bool:
        """Whether there are tags of slots among the tokens."""
        return any(is_tag(name) for name in self.lab2ind)

    @property
    def blank_index(self) -> int:
        """Index of CTC's blank."""
        return self.get_blank_index()

    def encode(self, text: str) -> list[int]:
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

    def targets(self, text: str) -> list[int]:
        """Gives what a model is trained to write: a text and ``ending``.

        Arguments
        ---------
        text : str
            The text.

        Returns
        -------
        list of int
            ``encode(text)``, then the tokens that end every text; a text of
            letters and tags of slots that is empty or ends in a space goes
            without.

        Example
        -------
        >>> tokenizer = CTCTokenizer.from_tokens(["-", "a", "</s>"], 0)
        >>> tokenizer.ending = ["</s>"]
        >>> tokenizer.targets("aa")
        [1, 1, 2]
        """
        open_ended = self.word_delimiter == " " and text[-1:] in ("", " ")
        ending = [] if open_ended else self.ending
        return self.encode(text) + [self.lab2ind[t] for t in ending]

    def decode(self, indices: Iterable[int], skip_specials: bool = True) -> str:
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

    def decode_ids(self, indices: Iterable[int]) -> str:
        """Gives a text as ``decode`` does, by the name that SentencePiece has
        for it and SpeechBrain's ``EncoderDecoderASR`` calls.

        Arguments
        ---------
        indices : iterable of int
            Indices of tokens.

        Returns
        -------
        str
            The text, without spaces at its ends.

        Example
        -------
        >>> CTCTokenizer.from_tokens(["-", "|", "a"], 0).decode_ids([2, 1, 2])
        'a a'
        """
        return self.decode(indices)

    def decode_frames(
        self, indices: Iterable[int], skip_specials: bool = True
    ) -> str:
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

    def decode_ndim(
        self, x: int | Iterable[Any] | torch.Tensor
    ) -> str | list[Any]:
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
        values = _listed(x)
        if isinstance(values, Integral):
            return self._spell([values])
        if values and not any(isinstance(_listed(v), Integral) for v in values):
            return [self.decode_ndim(value) for value in values]
        text = self.decode(values)
        if not self.separator:
            return list(text)
        pieces = re.split(f"({re.escape(self.separator)})", text)
        return [piece for piece in pieces if piece]

    def _split(self, text):
        """Tokens of a text, whether or not they are in the vocabulary."""
        if self.sentencepiece:
            return sentencepiece.split(self.sentencepiece, text)
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
            return sentencepiece.join(self.sentencepiece, tokens)
        if not self.separator:
            tokens = [between if t == delimiter else t for t in tokens]
        text = self.separator.join(tokens)
        return text.lower() if self.lowercase else text

    def _get_extras(self):
        """Adds what a file holds beside SpeechBrain's own entries."""
        own = {name: getattr(self, name) for name in _SETTINGS}
        own |= {n: getattr(self, n) for n in _OPTIONAL if getattr(self, n)}
        return {**super()._get_extras(), **own}

    def _set_extras(self, extras):
        """Takes it from a file, where it must be whole."""
        super()._set_extras(extras)
        kinds = {
            **_SETTINGS,
            **{n: k for n, k in _OPTIONAL.items() if n in extras},
        }
        for name, kind in kinds.items():
            if not isinstance(extras[name], kind):
                raise ValueError(f"{name} is {extras[name]!r:.60}")
            setattr(self, name, extras[name])
        blank, tokens = extras["blank_label"], list(self.lab2ind)
        named = [blank, extras.get("unk_label", blank), *self.specials]
        named += self.ending
        if self.sentencepiece:
            named += sentencepiece.read(self.sentencepiece).tokens
        texts = all(isinstance(token, str) for token in tokens)
        if not texts or not all(name in tokens for name in named):
            raise ValueError(f"not all are tokens: {named!r:.60}")


def _listed(values):
    """Plain numbers or lists of them, where a tensor or an array holds them."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return values if isinstance(values, Integral) else list(values)


def _read_slots(path):
    """Names of slots in a file, the first of which stands for none."""
    first, *slots = [line.strip() for _, line in lines_of(path)] or [""]
    if first != NO_SLOT:
        raise ValueError(
            f"{path}, line 1: expected {NO_SLOT}, then a slot in each line; "
            f"got {first!r:.60}"
        )
    return [slot for slot in slots if slot]


def usual_specials(tokens):
    """Tokens of usual special names, and names of outputs without a token."""
    return [t for t in tokens if t in _SPECIALS or _UNUSED.fullmatch(t)]


def huggingface_options(texts, tokens):
    """Arguments of ``CTCTokenizer.from_tokens``, by a Hugging Face folder.

    ``texts`` is name of a file -> text: ``tokenizer_config.json`` and
    ``special_tokens_map.json``, where they are there. One that is damaged, or
    of another kind of tokenizer, is an error.
    """
    settings = _settings(texts)
    kind = settings.get("tokenizer_class") or _CHARACTERS[0]
    if kind not in _CHARACTERS + _PHONES:
        raise ValueError(
            "tokenizer_config.json: expected a tokenizer_class of "
            f"{', '.join(_CHARACTERS + _PHONES)}; got {kind!r:.60}"
        )
    named = {
        key: _content(settings, key, default) for key, default in _NAMED.items()
    }
    unknown = named["unk_token"]
    options = {
        "specials": [
            *usual_specials(tokens),
            *(name for name in named.values() if name),
            *_extra_specials(settings),
        ],
        "unknown": unknown if unknown in tokens else None,
    }
    if kind in _PHONES:
        options["separator"] = " "
        delimiter = _content(settings, "word_delimiter_token", None)
    else:
        delimiter = _content(settings, "word_delimiter_token", DELIMITER)
        options["lowercase"] = bool(settings.get("do_lower_case"))
        options["delimiter_text"] = (
            _content(settings, "replace_word_delimiter_char", " ") or ""
        )
    return {"word_delimiter": delimiter, **options}


def _settings(texts):
    """Options of a Hugging Face tokenizer."""
    found = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            content = json.loads(texts.get(name, "{}"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{name}: expected JSON ({error!s:.60})"
            ) from error
        if not isinstance(content, dict):
            raise ValueError(f"{name}: expected a JSON object")
        # as in transformers, whose later files have all in the first
        if "added_tokens_decoder" not in found:
            found |= content
    return found


def _content(settings, key, default):
    """An option that is a text, None, or a token with a text."""
    value = settings.get(key, default)
    text = value.get("content") if isinstance(value, dict) else value
    if text is None or isinstance(text, str):
        return text
    raise ValueError(
        f"tokenizer_config.json: expected {key} to be a text; got {value!r:.60}"
    )


def _extra_specials(settings):
    """Special tokens beyond the named ones."""
    found = []
    for key in _EXTRA:
        given = settings.get(key) or []
        if not isinstance(given, (list, dict)):
            raise ValueError(
                f"tokenizer_config.json: expected tokens in {key}; "
                f"got {given!r:.60}"
            )
        entries = given.values() if isinstance(given, dict) else given
        if key == _EXTRA[-1]:
            entries = [entry for entry in entries if _is_special(entry)]
        found += [_content({key: entry}, key, None) for entry in entries]
    return [name for name in found if name]


def _is_special(entry):
    """Whether an added token is no part of a text."""
    return isinstance(entry, dict) and entry.get("special") is True
