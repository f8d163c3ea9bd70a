"""cpWER of ``transcribe --speakers`` on conversations of the embedded corpus.

Two voices of espeak-ng take turns at sentences that no recognizer was trained
on. Recognised words, and the true ones as ``align`` times them, are given to
the true turns, which measures the assignment, and to those of a diarization
model, if one is given. Error rates are the concatenated minimum-permutation
word error rate (compared with MeetEval's where that is installed), and that of
all words whoever speaks.
"""

import argparse
from importlib.util import find_spec

import torch
from scipy.optimize import linear_sum_assignment
from torchaudio.functional import edit_distance

from unispeech_sb import load
from unispeech_sb.dataio.corpora import synthetic
from unispeech_sb.dataio.corpora.espeak import speak
from unispeech_sb.inference.attribution import attribute_words
from unispeech_sb.inference.segments import Diarization, Turn

RATE = 16000
SEED = 1986
"""Of the recipe, whose test set begins with the same sentences and voices."""


def main():
    """Prints a row for each way of finding the turns."""
    parser = argparse.ArgumentParser("who_said_what.py", description=__doc__)
    parser.add_argument(
        "model",
        metavar="FOLDER",
        help="recognizer of letters: the export of `unispeech-sb recipe asr "
        "--synthetic=True`",
    )
    parser.add_argument(
        "--diarization", metavar="FOLDER", help="a diarization model"
    )
    parser.add_argument("--conversations", type=int, default=20)
    parser.add_argument("--turns", type=int, default=6)
    arguments = parser.parse_args()
    asr = load(arguments.model)
    diarization = arguments.diarization and load(arguments.diarization)
    errors = {}
    for number in range(arguments.conversations):
        wav, turns, sentences = conversation(number, arguments.turns)
        texts = {}
        for turn, sentence in zip(turns, sentences, strict=True):
            texts.setdefault(turn.speaker, []).append(sentence)
        texts = {name: " ".join(own) for name, own in texts.items()}
        words = {"": " ".join(sentences)}
        recognised = asr.transcribe_long(wav)
        sources = {
            "recognised words": recognised,
            "true words": asr.align_file(wav, words[""]),
        }
        seconds = len(wav) / RATE
        ways = {"true turns": Diarization("talk", seconds, turns)}
        if diarization:
            ways["the model's turns"] = diarization.diarize_file(
                wav, num_speakers=2, exclusive=True
            )
        for way, found in ways.items():
            for source, transcript in sources.items():
                spoken = texts_of(attribute_words(transcript, found))
                add(errors, f"{source}, {way}", cp_errors(texts, spoken))
        alone = cp_errors(words, {"": recognised.text})
        add(errors, "recognised words, whoever speaks", alone)
    print(f"{arguments.conversations} conversations, two voices each\n")
    print("| words by | errors | words | cpWER |\n|---|---|---|---|")
    for way, (wrong, length) in errors.items():
        rate = 100 * wrong / length
        print(f"| {way} | {wrong} | {length} | {rate:.2f} % |")


def conversation(number, num_turns):
    """Waveform, turns, and what is said in each."""
    draw = torch.Generator().manual_seed(number)
    voices = synthetic.draw_voices(30, SEED)[25:]
    pair = torch.randperm(len(voices), generator=draw)[:2].tolist()
    first = 240 + number * num_turns
    sentences = synthetic.draw_sentences(first + num_turns, SEED)[first:]
    wav, turns, now = torch.zeros(0), [], 0.3
    for place, sentence in enumerate(sentences):
        speech = speak(sentence, voices[pair[place % 2]])
        samples = synthetic.set_peak(speech.samples)
        begin = round(now * RATE)
        missing = begin + len(samples) - len(wav)
        wav = torch.cat([wav, torch.zeros(max(missing, 0))])
        wav[begin : begin + len(samples)] += samples
        end = now + speech.words[-1].stop_s
        turns.append(Turn(now, end, f"voice{place % 2}", 1.0))
        now = end + float(torch.rand((), generator=draw)) * 0.6
    return wav, tuple(turns), sentences


def texts_of(transcript):
    """Speaker -> all words."""
    texts = {}
    for segment in transcript.segments:
        texts.setdefault(segment.speaker, []).append(segment.text)
    return {name: " ".join(parts) for name, parts in texts.items()}


def add(errors, way, counts):
    """Counts errors and words."""
    wrong, length = errors.get(way, (0, 0))
    errors[way] = wrong + counts[0], length + counts[1]


def cp_errors(reference, hypothesis):
    """Errors under the best pairing of speakers, and words of the reference.

    A speaker without a partner is paired with silence.
    """
    size = max(len(reference), len(hypothesis))
    rows, columns = (
        [texts.split() for texts in side.values()] + [[]] * (size - len(side))
        for side in (reference, hypothesis)
    )
    costs = [[edit_distance(row, column) for column in columns] for row in rows]
    pairs = zip(*linear_sum_assignment(costs), strict=True)
    errors = sum(costs[row][column] for row, column in pairs)
    if find_spec("meeteval"):
        from meeteval.wer import cp_word_error_rate

        assert cp_word_error_rate(reference, hypothesis).errors == errors
    return errors, sum(map(len, rows))


if __name__ == "__main__":
    main()
