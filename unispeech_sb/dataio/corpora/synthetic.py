"""The embedded corpus: keywords, sentences and overlapping speakers, spoken
by espeak-ng (see `espeak` beside this file for its licence).

It serves demos, tests and examples without a network. It is far easier than
real speech: a score on it is never reported as a result.
"""

import json
from itertools import product
from typing import NamedTuple

import torch

from unispeech_sb.dataio.corpora.cache import cache_corpus
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, draw_voices, speak
from unispeech_sb.dataio.corpora.noise import add_noise, draw_below, set_peak

SPLITS = ("train", "valid", "test")
DEFAULT_WORDS = tuple("yes no up down left right on off stop go".split())

# Counts up when the same arguments come to mean other audio.
_EDITION = 1
_NUM_BABBLE_VOICES = 6

_WHO = (
    "the old farmer",
    "my little sister",
    "a clever fox",
    "our neighbour",
    "the judge",
    "the young painter",
    "his uncle",
    "a quiet student",
)
_VERBS = tuple("finds sells hides paints washes carries forgets wants".split())
_WHAT = (
    "the blue boat",
    "seven yellow apples",
    "a heavy book",
    "the broken chair",
    "three small keys",
    "an empty jar",
    "the green shirt",
    "a loaf of bread",
)
_WHERE = (
    "near the river",
    "before breakfast",
    "in the kitchen",
    "after school",
    "under the bridge",
    "at the market",
    "on a rainy day",
    "without a word",
)


class Turns(NamedTuple):
    """How the speakers of a mixture take turns.

    Arguments
    ---------
    num_speakers : int
        Speakers in a mixture, at least 2. Each has a turn.
    num_turns : int
        Sentences in a mixture.
    gap_s : tuple of float
        Shortest and longest time from a turn's end to the next turn's start,
        in seconds; a negative one is an overlap. No speaker overlaps itself.

    Example
    -------
    >>> Turns(num_speakers=3).num_turns
    6
    """

    num_speakers: int = 2
    num_turns: int = 6
    gap_s: tuple[float, float] = (-1.0, 0.5)


def draw_sentences(num_sentences, seed=0):
    """Draws distinct sentences from a grammar of 4096 and some 60 words.

    Arguments
    ---------
    num_sentences : int
        How many.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    list of str
        Sentences in small letters, without punctuation.

    Raises
    ------
    ValueError
        If the grammar has not as many.

    Example
    -------
    >>> len(set(draw_sentences(50)))
    50
    """
    parts = list(product(_WHO, _VERBS, _WHAT, _WHERE))
    if not 0 <= num_sentences <= len(parts):
        raise ValueError(
            f"expected 0 to {len(parts)} sentences to draw, got {num_sentences}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(parts), generator=generator)
    return [" ".join(parts[i]) for i in order[:num_sentences].tolist()]


def synthetic_keywords(
    folder, words=DEFAULT_WORDS, num_voices=(60, 20, 20), seed=0, noise=None
):
    """Speaks each word with each voice; no two splits share a voice.

    Nothing is spoken when the same arguments were used on the folder before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder.
    words : iterable of str, optional
        The keywords.
    num_voices : tuple of int, optional
        Voices of train, valid and test.
    seed : int, optional
        Seed of voices and noise.
    noise : Noise, optional
        Noise to add; its babble is of voices outside the corpus. None when
        omitted.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id, label (the word), split,
        wrd (the word) and phn (its phones).

    Raises
    ------
    ValueError
        If there are no words, one comes twice or cannot be spoken.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> records = synthetic_keywords(folder, ["yes", "no"], (1, 0, 0))
    >>> [(record["label"], record["phn"]) for record in records]
    [('yes', 'j ɛ s'), ('no', 'n oː')]
    """
    words = list(words)
    if not words or len(set(words)) < len(words):
        raise ValueError(f"expected distinct keywords, got {words}")

    def clips():
        finish = _finisher(num_voices, seed, noise)
        cast = _cast(num_voices, seed)
        roles = [(split, *role) for split in SPLITS for role in cast[split]]
        for (split, spk_id, voice), word in product(roles, words):
            speech = speak(word, voice)
            record = {
                "ID": f"{split}_{spk_id}_{words.index(word):03d}",
                "split": split,
                "spk_id": spk_id,
                "label": word,
                "wrd": word,
                "phn": " ".join(phone.text for phone in speech.phones),
            }
            yield record, finish(speech.samples)

    arguments = [_EDITION, words, num_voices, seed, noise]
    return cache_corpus(folder, "keywords", arguments, clips())


def synthetic_sentences(
    folder,
    num_sentences=(200, 40, 40),
    num_voices=(20, 5, 5),
    seed=0,
    noise=None,
):
    """Speaks sentences, each by one voice; no two splits share a voice or a
    sentence, but they share words.

    Nothing is spoken when the same arguments were used on the folder before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder.
    num_sentences : tuple of int, optional
        Sentences of train, valid and test.
    num_voices : tuple of int, optional
        Voices of train, valid and test, which take turns.
    seed : int, optional
        Seed of sentences, voices and noise.
    noise : Noise, optional
        Noise to add; its babble is of voices outside the corpus. None when
        omitted.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id, label (the verb), split,
        wrd (the words) and phn (the phones, space separated).

    Raises
    ------
    ValueError
        If the grammar of `draw_sentences` has not as many sentences.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> records = synthetic_sentences(folder, (2, 0, 0), (1, 0, 0))
    >>> records[0]["label"] in records[0]["wrd"].split()
    True
    """

    def clips():
        texts = iter(draw_sentences(sum(num_sentences), seed))
        finish = _finisher(num_voices, seed, noise)
        cast = _cast(num_voices, seed)
        for split, index in _per_split(num_sentences):
            _check_cast(cast, split, 1)
            spk_id, voice = cast[split][index % len(cast[split])]
            text = next(texts)
            speech = speak(text, voice)
            record = {
                "ID": f"{split}_{spk_id}_{index:04d}",
                "split": split,
                "spk_id": spk_id,
                "label": next(verb for verb in _VERBS if verb in text.split()),
                "wrd": text,
                "phn": " ".join(phone.text for phone in speech.phones),
            }
            yield record, finish(speech.samples)

    arguments = [_EDITION, num_sentences, num_voices, seed, noise]
    return cache_corpus(folder, "sentences", arguments, clips())


def synthetic_overlaps(
    folder,
    num_mixtures=(40, 10, 10),
    num_voices=(20, 5, 5),
    seed=0,
    turns=None,
):
    """Mixes speakers who take turns and partly overlap, for diarization.

    Nothing is spoken when the same arguments were used on the folder before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder.
    num_mixtures : tuple of int, optional
        Mixtures of train, valid and test.
    num_voices : tuple of int, optional
        Voices of train, valid and test; no two splits share one.
    seed : int, optional
        Seed of everything drawn.
    turns : Turns, optional
        How many speakers, turns and overlaps a mixture has. ``Turns()`` when
        omitted.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id (all speakers, space
        separated), label (their number), split and segments: a JSON list of
        {"spk_id", "start", "stop", "wrd"}, times in seconds, sorted by start.

    Raises
    ------
    ValueError
        If a split has too few voices, or a mixture too few turns.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> records = synthetic_overlaps(folder, (1, 0, 0), (2, 0, 0))
    >>> len(json.loads(records[0]["segments"]))
    6
    """
    turns = turns or Turns()
    if not 2 <= turns.num_speakers <= turns.num_turns:
        raise ValueError(f"expected 2 to num_turns speakers, got {turns}")

    def clips():
        generator = torch.Generator().manual_seed(seed)
        cast = _cast(num_voices, seed)
        for split, index in _per_split(num_mixtures):
            _check_cast(cast, split, turns.num_speakers)
            record = {"ID": f"{split}_{index:04d}", "split": split}
            columns, samples = _mix(cast[split], turns, generator)
            yield record | columns, samples

    arguments = [_EDITION, num_mixtures, num_voices, seed, turns]
    return cache_corpus(folder, "overlaps", arguments, clips())


def _per_split(counts):
    """Yields (split, index) for each of the split's items."""
    if len(counts) != len(SPLITS):
        raise ValueError(
            f"expected a number for each of {SPLITS}, got {counts}"
        )
    for split, count in zip(SPLITS, counts, strict=True):
        yield from ((split, index) for index in range(count))


def _cast(num_voices, seed):
    """Returns the (spk_id, voice) pairs of each split."""
    cast = {split: [] for split in SPLITS}
    voices = draw_voices(sum(num_voices), seed)
    for number, (split, _) in enumerate(_per_split(num_voices)):
        cast[split].append((f"v{number:03d}", voices[number]))
    return cast


def _check_cast(cast, split, num_speakers):
    if len(cast[split]) < num_speakers:
        raise ValueError(
            f"expected at least {num_speakers} voices for {split},"
            f" got {len(cast[split])}"
        )


def _mix(speakers, turns, generator):
    """Returns the columns and the samples of one mixture."""
    low, high = turns.gap_s
    gaps_s = torch.empty(turns.num_turns, dtype=torch.float64)
    gaps_s = gaps_s.uniform_(low, high, generator=generator).tolist()
    texts = draw_sentences(turns.num_turns, draw_below(2**31, generator))
    order = _take_turns(len(speakers), turns, generator)
    segments, pieces, end_s, own_end_s = [], [], 0.0, {}
    for who, text, gap_s in zip(order, texts, gaps_s, strict=True):
        spk_id, voice = speakers[who]
        speech = speak(text, voice)
        first_s, last_s = speech.words[0].start_s, speech.words[-1].stop_s
        start_s = max(end_s + gap_s, own_end_s.get(spk_id, 0.0), first_s)
        offset = round((start_s - first_s) * SAMPLE_RATE)
        pieces.append((offset, set_peak(speech.samples)))
        stop_s = offset / SAMPLE_RATE + last_s
        times = {"start": offset / SAMPLE_RATE + first_s, "stop": stop_s}
        segments.append({"spk_id": spk_id, **times, "wrd": text})
        own_end_s[spk_id] = stop_s
        end_s = max(end_s, stop_s)
    samples = torch.zeros(max(at + len(piece) for at, piece in pieces))
    for offset, piece in pieces:
        samples[offset : offset + len(piece)] += piece
    segments.sort(key=lambda segment: segment["start"])
    columns = {
        "spk_id": " ".join(sorted(own_end_s)),
        "label": str(turns.num_speakers),
        "segments": json.dumps(segments),
    }
    return columns, set_peak(samples)


def _take_turns(num_voices, turns, generator):
    """Draws who speaks when: first each once, then anyone but the last."""
    order = torch.randperm(num_voices, generator=generator).tolist()
    present = order[: turns.num_speakers]
    order = list(present)
    while len(order) < turns.num_turns:
        others = [who for who in present if who != order[-1]]
        order.append(others[draw_below(len(others), generator)])
    return order


def _finisher(num_voices, seed, noise):
    """Returns what is done to a clip before it is written."""
    if noise is None:
        return set_peak
    generator = torch.Generator().manual_seed(seed)
    babble = None
    if "babble" in noise.kinds:
        babble = _speak_babble(sum(num_voices), seed)
    return lambda clip: set_peak(add_noise(clip, noise, generator, babble))


def _speak_babble(num_voices, seed):
    """Lets voices outside the corpus, the next to be drawn, speak at once."""
    voices = draw_voices(num_voices + _NUM_BABBLE_VOICES, seed)[num_voices:]
    texts = iter(draw_sentences(3 * len(voices), seed))
    streams = [
        torch.cat([set_peak(speak(next(texts), voice).samples) for _ in "123"])
        for voice in voices
    ]
    shortest = min(len(stream) for stream in streams)
    return torch.stack([stream[:shortest] for stream in streams]).sum(dim=0)
