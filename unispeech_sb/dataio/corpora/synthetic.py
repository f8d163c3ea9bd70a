"""The embedded corpus: keywords and sentences, spoken by espeak-ng (see
``espeak`` beside this file for its licence).

It serves demos, tests and examples without a network. It is far easier than
real speech: a score on it is never reported as a result.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from unispeech_sb.atomic import OneWriter, temporary_folder
from unispeech_sb.dataio.audio import write_audio
from unispeech_sb.dataio.corpora.espeak import draw_voices, speak
from unispeech_sb.dataio.corpora.iemocap import FOLDS, split_fold
from unispeech_sb.dataio.manifest import SPLITS
from unispeech_sb.dataio.speakers import split_share
from unispeech_sb.dataio.units import SPANS

__all__ = ["synthetic_keywords", "synthetic_sentences"]

_KEYWORDS = tuple("yes no up down left right on off stop go".split())
# Counts up when the same arguments come to mean other audio.
_EDITION = 1
_CLEAN = None  # without noise, in the arguments of a corpus
_TESTED = 0.2  # share of a speaker's sentences; of the others, to validate on
_SUBJECTS = (
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
_OBJECTS = (
    "the blue boat",
    "seven yellow apples",
    "a heavy book",
    "the broken chair",
    "three small keys",
    "an empty jar",
    "the green shirt",
    "a loaf of bread",
)
_PLACES = (
    "near the river",
    "before breakfast",
    "in the kitchen",
    "after school",
    "under the bridge",
    "at the market",
    "on a rainy day",
    "without a word",
)
_GRAMMAR = {
    "subject": _SUBJECTS,
    "action": _VERBS,
    "object": _OBJECTS,
    "location": _PLACES,
}
"""Part of a sentence -> what may stand there, in order."""
_PROSODIES = {
    "neu": {"pitch": 45, "pitch_range": 40, "speed": 150},
    "hap": {"pitch": 75, "pitch_range": 95, "speed": 170},
    "ang": {"pitch": 40, "pitch_range": 70, "speed": 230},
    "sad": {"pitch": 25, "pitch_range": 10, "speed": 110},
}
"""Emotion -> how it sounds here."""
_VOICES_PER_SESSION = 2


def synthetic_keywords(
    folder: str | Path,
    words: Iterable[str] = _KEYWORDS,
    num_voices: Sequence[int] = (60, 20, 20),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Speaks each word with each voice; no two splits share a voice.

    Nothing is spoken when the same arguments were used on the folder before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder.
    words : iterable of str, optional
        What is spoken: words or phrases, which differ.
    num_voices : sequence of int, optional
        Voices of train, valid and test.
    seed : int, optional
        Seed of the voices.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id, label (the word), split,
        wrd (the word) and phn (its phones, space separated).

    Raises
    ------
    ValueError
        When a word is there twice, or there are not as many voices.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> records = synthetic_keywords(folder, ["yes", "go on"], (1, 0, 0))
    >>> [record["wrd"] for record in records]
    ['yes', 'go on']
    """
    words = list(words)
    if not words or len(set(words)) < len(words):
        raise ValueError(f"expected distinct keywords, got {words}")

    def clips():
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
            yield record, set_peak(speech.samples)

    arguments = [_EDITION, words, num_voices, seed, _CLEAN]
    return cache_corpus(folder, "keywords", arguments, clips())


def synthetic_sentences(
    folder: str | Path,
    num_sentences: Sequence[int] = (200, 40, 40),
    num_voices: Sequence[int] = (20, 5, 5),
    seed: int = 0,
) -> list[dict[str, Any]]:
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
        Seed of sentences and voices.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id, label (the verb), split,
        wrd (the words) and phn (the phones, space separated).

    Raises
    ------
    ValueError
        When a split has sentences but no voice, or there are not as many
        sentences or voices.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> records = synthetic_sentences(folder, (2, 0, 0), (1, 0, 0))
    >>> records[0]["label"] in records[0]["wrd"].split()
    True
    """

    def clips():
        for record, text, speech in _sentences(num_sentences, num_voices, seed):
            record["label"] = next(v for v in _VERBS if v in text.split())
            record["wrd"] = text
            record["phn"] = " ".join(phone.text for phone in speech.phones)
            yield record, set_peak(speech.samples)

    arguments = [_EDITION, num_sentences, num_voices, seed, _CLEAN]
    return cache_corpus(folder, "sentences", arguments, clips())


def aligned_sentences(
    folder: str | Path,
    num_sentences: Sequence[int] = (200, 40, 40),
    num_voices: Sequence[int] = (20, 5, 5),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Speaks sentences as ``synthetic_sentences`` does, and keeps the times.

    The records have no label, but the column phone_spans, see ``read_spans``.
    """

    def clips():
        for record, text, speech in _sentences(num_sentences, num_voices, seed):
            record |= {"wrd": text, **_phones(speech.phones)}
            yield record, set_peak(speech.samples)

    arguments = [_EDITION, num_sentences, num_voices, seed]
    return cache_corpus(folder, "aligned", arguments, clips())


def _sentences(num_sentences, num_voices, seed):
    """Yields the record of each sentence, its text and its speech."""
    texts = iter(draw_sentences(sum(num_sentences), seed))
    cast = _cast(num_voices, seed)
    for split, count in zip(SPLITS, num_sentences):
        if count and not cast[split]:
            raise ValueError(f"{split}: expected a voice for {count} sentences")
    for split, index in _per_split(num_sentences):
        spk_id, voice = cast[split][index % len(cast[split])]
        text = next(texts)
        name = f"{split}_{spk_id}_{index:04d}"
        record = {"ID": name, "split": split, "spk_id": spk_id}
        yield record, text, speak(text, voice)


def synthetic_emotions(
    folder: str | Path, num_sentences: int = 4, seed: int = 0
) -> list[dict[str, Any]]:
    """Speaks sentences in four ways, which stand for emotions; five sessions of
    two voices, as IEMOCAP has them.

    Each voice speaks so many sentences of its own in each of the ways. Records
    have ID, wav, duration (s), spk_id, session, label and wrd.
    """

    def clips():
        voices = draw_voices(len(FOLDS) * _VOICES_PER_SESSION, seed)
        texts = draw_sentences(len(voices) * num_sentences, seed)
        for place, text in enumerate(texts):
            number = place // num_sentences
            session = number // _VOICES_PER_SESSION + 1
            for label, prosody in _PROSODIES.items():
                record = {
                    "ID": f"ses{session}_v{number}_{label}_{place}",
                    "spk_id": f"v{number}",
                    "session": str(session),
                    "label": label,
                    "wrd": text,
                }
                voice = voices[number]._replace(**prosody)
                yield record, set_peak(speak(text, voice).samples)

    arguments = [_EDITION, num_sentences, seed]
    return cache_corpus(folder, "emotions", arguments, clips())


def draw_sentences(num_sentences, seed=0):
    """Draws distinct sentences from a grammar of 4096 and some 60 words."""
    parts = list(product(*_GRAMMAR.values()))
    if not 0 <= num_sentences <= len(parts):
        raise ValueError(
            f"expected 0 to {len(parts)} sentences to draw, got {num_sentences}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(parts), generator=generator)
    return [" ".join(parts[i]) for i in order[:num_sentences].tolist()]


def _phones(spans):
    """The columns of phones and their times."""
    times = [
        [span.text, round(span.start_s, 4), round(span.stop_s, 4)]
        for span in spans
    ]
    return {
        "phn": " ".join(span.text for span in spans),
        SPANS: json.dumps(times, ensure_ascii=False),
    }


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


def set_peak(samples, peak=0.7):
    """Scales a waveform that is not silent to a peak."""
    return samples * (peak / samples.abs().max())


def cache_corpus(folder, name, arguments, clips, sample_rate=16000):
    """Writes a generated corpus, or finds the one written before.

    Each set of arguments, as JSON can hold them, has its own sub-folder, which
    appears when it is complete; a second process that would write the same one
    at the same time is refused. ``clips`` are pairs of a record
    with an ID and samples, [N], in [-1, 1]; they are not touched where the
    corpus is there. The records get wav (absolute path of a 16-bit file) and
    duration (in seconds).
    """
    key = json.dumps(arguments).encode()
    digest = hashlib.sha256(key).hexdigest()[:12]
    final = Path(folder).resolve() / f"{name}-{digest}"
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        with OneWriter(final):
            _write(final, clips, sample_rate)
    records = json.loads((final / "records.json").read_text("utf-8"))
    return [record | {"wav": str(final / record["wav"])} for record in records]


def _write(final, clips, sample_rate):
    """Writes the clips and their records into a folder that appears whole."""
    if final.is_dir():
        return  # another process has just done so
    with temporary_folder(final) as partial:
        records = []
        for record, samples in clips:
            name = f"{record['ID']}.wav"
            pcm = (samples * 32767).round().to(torch.int16).numpy()
            write_audio(partial / name, pcm, sample_rate)
            added = {"wav": name, "duration": len(pcm) / sample_rate}
            records.append(record | added)
        text = json.dumps(records, ensure_ascii=False, indent=0)
        (partial / "records.json").write_text(text, "utf-8")
        partial.rename(final)


def _by_counts(make):
    """A reader of as many sentences and voices as the yaml says."""

    def read(folder, hparams):
        counts = hparams["synthetic_sentences"], hparams["synthetic_voices"]
        return make(folder, *counts, hparams["seed"])

    return read


def _speakers(folder, hparams):
    """Sentences of other speakers in each split."""
    counts = hparams["synthetic_sentences"]
    return synthetic_sentences(folder, counts, seed=hparams["seed"])


def _known_speakers(folder, hparams):
    """Sentences of the same speakers in each split."""
    spoken = _speakers(folder, hparams)
    records = [{**record, "split": "train"} for record in spoken]
    for split in ("test", "valid"):
        records = split_share(records, _TESTED, hparams["seed"], split)
    return records


def _keywords(folder, hparams):
    """Keywords of other speakers in each split."""
    return synthetic_keywords(folder, seed=hparams["seed"])


def _intents(folder, hparams):
    """Sentences with an action, an object and a location."""
    records = _by_counts(synthetic_sentences)(folder, hparams)
    return [{**record, **_parts(record["wrd"])} for record in records]


def _slots(folder, hparams):
    """Sentences in capital letters with a tag for each word; that of the
    action is none."""
    for record in _by_counts(synthetic_sentences)(folder, hparams):
        tags = [
            "O" if part == "action" else part
            for part, words in _parts(record["wrd"]).items()
            for _ in words.split()
        ]
        text = record["wrd"].upper()
        yield {**record, "wrd": text, "slots": " ".join(tags)}


def _parts(sentence):
    """Part of a drawn sentence -> its words."""
    found, rest = {}, f"{sentence} "
    for part, choices in _GRAMMAR.items():
        found[part] = next(c for c in choices if rest.startswith(f"{c} "))
        rest = rest.removeprefix(f"{found[part]} ")
    return found


def _emotions(folder, hparams):
    """Sentences in several emotions, split as a fold of IEMOCAP."""
    count, seed = hparams["synthetic_sentences"], hparams["seed"]
    records = synthetic_emotions(folder, count, seed)
    return split_fold(records, hparams["fold"], hparams["protocol"])


def _spoken_terms(folder, hparams):
    """Words as queries, and sentences of other voices as documents."""
    words = [*_VERBS, *(text.split()[-1] for text in (*_OBJECTS, *_PLACES))]
    voices, seed = hparams["synthetic_voices"], hparams["seed"]
    count = hparams["synthetic_documents"]
    yield from synthetic_keywords(
        folder, words[:-1], (0, *voices[1:]), seed + 1
    )
    for record in synthetic_sentences(
        folder, (count, 0, 0), (voices[0], 0, 0), seed
    ):
        del record["split"]
        yield record


READERS = {
    "asr": _by_counts(synthetic_sentences),
    "phoneme": _by_counts(synthetic_sentences),
    "pretraining": _by_counts(aligned_sentences),
    "keyword_spotting": _keywords,
    "intent_classification": _intents,
    "emotion_recognition": _emotions,
    "slot_filling": _slots,
    "speaker_identification": _known_speakers,
    "speaker_verification": _speakers,
    "query_by_example": _spoken_terms,
}
"""Task -> its reader, of folder and yaml."""
