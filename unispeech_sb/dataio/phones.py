"""The phones of SUPERB's phoneme recognition (Yang et al. 2021, section 3)."""

from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.dataio.vocabularies import BLANK, UNKNOWN

END = "<eos>"
"""What SUPERB puts after the phones of each utterance."""

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


def superb_tokenizer(texts=()):
    """Makes the tokenizer of SUPERB's phoneme recognition.

    Arguments
    ---------
    texts : iterable of str
        The training texts; the vocabulary does not depend on them.

    Returns
    -------
    CTCTokenizer
        Of 74 tokens: the blank, the end, the unknown, and ``SUPERB_PHONES``.
        Decoding leaves blanks and ends out, and spells the unknown.

    Example
    -------
    >>> tokenizer = superb_tokenizer()
    >>> tokenizer.targets("SIL AA0 ZH"), len(tokenizer)
    ([3, 5, 73, 1], 74)
    """
    tokenizer = CTCTokenizer.from_tokens(
        [BLANK, END, UNKNOWN, *SUPERB_PHONES],
        0,
        word_delimiter=None,
        separator=" ",
        specials=[BLANK, END],
    )
    tokenizer.ending = [END]
    return tokenizer
