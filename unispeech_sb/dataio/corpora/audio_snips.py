"""Audio SNIPS, the corpus of SUPERB's slot filling (Lai et al. 2021): requests
to an assistant, spoken by synthetic voices, with a tag for each word; and texts
with tags of any corpus.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.tokenizers.ctc import NO_SLOT
from unispeech_sb.text import lines_of, named

__all__ = ["audio_snips"]

logger = get_logger(__name__)

_VOICES = {
    "train": (
        *("Ivy", "Joanna", "Joey", "Justin"),
        *("Kendra", "Kimberly", "Matthew", "Salli"),
    ),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
SLOTS_FILE = "slots.txt"
_TEXTS = "all.iob.snips.txt"
_PUNCTUATION = "?!.,;-"


def is_audio_snips(folder):
    """Whether a folder is the corpus."""
    return Path(folder, _TEXTS).is_file()


def audio_snips(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the recordings of SUPERB's voices: eight to train, four to
    validate and four to test, each with the texts of its split.

    Recordings without a text are left out, and the log counts them.

    Arguments
    ---------
    folder : str or path-like
        With ``train``, ``valid``, ``test``, ``all.iob.snips.txt`` and
        ``slots.txt``.

    Yields
    ------
    dict
        Record with ID, wav, split, spk_id, wrd (the words) and slots (a tag for
        each word: the name of a slot, or O), in the order of the paths.

    Raises
    ------
    ValueError
        When a line of the texts is not as expected; the message names it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> line = "Ivy-snips-train-0 BOS PLAY ABBA EOS\\tO O artist PlayMusic"
    >>> _ = (folder / "all.iob.snips.txt").write_text(line)
    >>> (folder / "train").mkdir()
    >>> _ = (folder / "train" / "Ivy-snips-train-0.wav").write_text("")
    >>> record = next(audio_snips(folder))
    >>> record["wrd"], record["slots"]
    ('PLAY ABBA', 'O artist')
    """
    folder, missing = Path(folder).absolute(), []
    texts = dict(_read_texts(folder / _TEXTS))
    for split, voices in _VOICES.items():
        for path in sorted((folder / split).rglob("*.wav")):
            voice = next((v for v in voices if path.name.startswith(v)), None)
            if voice is None:
                continue
            if path.stem not in texts:
                missing.append(path.stem)
                continue
            words, tags = texts[path.stem]
            yield {
                "ID": path.stem,
                "wav": str(path),
                "split": split,
                "spk_id": voice,
                "wrd": " ".join(words),
                "slots": " ".join(tags),
            }
    if missing:
        logger.warning(
            f"Left out {len(missing)} recordings without a text: "
            f"{named(missing)}"
        )


def _read_texts(path):
    """Yields name, words and tags of each line."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        words, tab, tags = rest.partition("\t")
        # BOS and EOS; O and the intent
        words, tags = words.split(" ")[1:-1], tags.split(" ")[1:-1]
        if not tab or not words or len(words) > len(tags):
            raise ValueError(
                f"{path}, line {number}: expected a name, BOS, words, EOS, a "
                "tab, O, a tag for each word and an intent; got "
                f"{line.strip()!r:.60}"
            )
        yield name, (words, tags[: len(words)])


def tagged_text(words: Sequence[str], tags: Sequence[str]) -> str:
    """A text with tags around its slots, to the letter of SUPERB:
    ``PLAY B-artist QUEEN E-artist``.

    A slot is a run of words with the same tag, be they several. Punctuation
    that stands alone is left out, and with it the tag of a slot that it begins
    or ends; after one that ends the text there is a space. ``&`` is AND.
    """
    pieces, last = [], len(words) - 1
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        if word in _PUNCTUATION:  # also several, such as ?!
            continue
        begins = tag != NO_SLOT and (place == 0 or tags[place - 1] != tag)
        ends = tag != NO_SLOT and (place == last or tags[place + 1] != tag)
        pieces += [f"B-{tag} "] * begins
        pieces += ["AND" if word == "&" else word]
        pieces += [f" E-{tag}"] * ends + [" "] * (place < last)
    return "".join(pieces)


def with_tagged_texts(
    records: Iterator[dict[str, Any]], protocol: str
) -> Iterator[dict[str, Any]]:
    """Records with a column ``tagged``, of their words, ``wrd``, and tags,
    ``slots``. Protocol "clean" takes punctuation out before slots are sought,
    so that none loses its tags; tags may begin with B- and I-."""
    if protocol not in ("superb", "clean"):
        raise ValueError(
            f"protocol: expected superb or clean; got {protocol!r}"
        )
    for record in records:
        words, tags = (
            record.get(key, "").split(" ") for key in ("wrd", "slots")
        )
        if not any(words) or len(words) != len(tags):
            raise ValueError(
                f"{record['wav']}: expected words in the column 'wrd' and as "
                f"many tags in 'slots'; got {record.get('wrd')!r:.60} and "
                f"{record.get('slots')!r:.60}"
            )
        if protocol == "clean":
            tags = [t.removeprefix("B-").removeprefix("I-") for t in tags]
            pairs = zip(words, tags, strict=True)
            kept = [(w, t) for w, t in pairs if w not in _PUNCTUATION]
            words, tags = zip(*kept) if kept else ((), ())
        yield {**record, "tagged": tagged_text(words, tags)}
