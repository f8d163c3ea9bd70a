"""The sentences of the embedded corpus with the times of their phones, which
tell how good units are.
"""

import json

from unispeech_sb.dataio.alignments import COLUMN
from unispeech_sb.dataio.corpora.cache import cache_corpus
from unispeech_sb.dataio.corpora.espeak import draw_voices, speak
from unispeech_sb.dataio.corpora.noise import set_peak
from unispeech_sb.dataio.corpora.synthetic import SPLITS, draw_sentences

_EDITION = 1  # counts up when the same arguments come to mean other audio


def aligned_sentences(
    folder, num_sentences=(200, 40, 40), num_voices=(20, 5, 5), seed=0
):
    """Speaks sentences, as ``synthetic_sentences`` does, and keeps the times.

    Nothing is spoken when the same arguments were used on the folder before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder.
    num_sentences : tuple of int, optional
        Sentences of train, valid and test; no two splits share one.
    num_voices : tuple of int, optional
        Voices of train, valid and test, which take turns; no two splits share
        one.
    seed : int, optional
        Seed of sentences and voices.

    Returns
    -------
    list of dict
        Records with ID, wav, duration (s), spk_id, split, wrd (the words),
        phn (the phones, space separated) and phone_spans, see ``alignments``.

    Raises
    ------
    ValueError
        When a split has sentences but no voice, or there are not as many
        sentences or voices.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> record = aligned_sentences(folder, (1, 0, 0), (1, 0, 0))[0]
    >>> len(json.loads(record["phone_spans"])) == len(record["phn"].split())
    True
    """
    for split, texts, speakers in zip(SPLITS, num_sentences, num_voices):
        if texts and not speakers:
            raise ValueError(f"{split}: expected a voice for {texts} sentences")

    def clips():
        texts = iter(draw_sentences(sum(num_sentences), seed))
        voices = iter(enumerate(draw_voices(sum(num_voices), seed)))
        for split, count, size in zip(SPLITS, num_sentences, num_voices):
            cast = [next(voices) for _ in range(size)]
            for index in range(count):
                number, voice = cast[index % size]
                text = next(texts)
                record = {
                    "ID": f"{split}_v{number:03d}_{index:04d}",
                    "split": split,
                    "spk_id": f"v{number:03d}",
                    "wrd": text,
                }
                speech = speak(text, voice)
                yield record | _phones(speech.phones), set_peak(speech.samples)

    arguments = [_EDITION, num_sentences, num_voices, seed]
    return cache_corpus(folder, "aligned", arguments, clips())


def _phones(spans):
    """The columns of the phones."""
    times = [
        [span.text, round(span.start_s, 4), round(span.stop_s, 4)]
        for span in spans
    ]
    return {
        "phn": " ".join(span.text for span in spans),
        COLUMN: json.dumps(times, ensure_ascii=False),
    }
