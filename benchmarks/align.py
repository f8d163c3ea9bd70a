"""Errors of word boundaries, and time, beside torchaudio's forced_align.

Sentences of the embedded corpus, whose words espeak-ng times, are aligned by a
recognizer and compared with the true times. Both sides get the same
log-posteriors; torchaudio keeps a byte for each frame and state.
"""

import argparse
import resource
import time

import numpy as np
import torch
from torchaudio.functional import forced_align, merge_tokens

from unispeech_sb import load
from unispeech_sb.dataio.corpora import synthetic
from unispeech_sb.dataio.corpora.espeak import speak
from unispeech_sb.decoding.forced_alignment import ForcedAligner, align_tokens

SEED = 1986
"""Of the recipe, whose test set begins with the same sentences and voices."""


def main():
    """Prints the two tables."""
    parser = argparse.ArgumentParser("align.py", description=__doc__)
    parser.add_argument(
        "model",
        metavar="FOLDER",
        help="recognizer of letters: the export of `unispeech-sb recipe asr "
        "--synthetic=True`",
    )
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument(
        "--hour",
        type=float,
        default=1.0,
        metavar="H",
        help="hours of made-up log-posteriors whose alignment is timed",
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    accuracy(load(arguments.model), arguments.sentences)
    for hours in (arguments.hour / 60, arguments.hour / 6, arguments.hour):
        speed(hours)


def accuracy(model, num_sentences):
    """Compares spans with torchaudio's, and boundaries with the truth."""
    same, scores = 0, []
    errors = {"start": [], "end": [], "end by torchaudio": []}
    for text, speech in sentences(num_sentences):
        found = model.align_file(speech.samples, text)
        theirs = peer(model, speech.samples, text)
        own = [(w.start_s, w.end_s) for w in found.words]
        same += theirs == [
            (row[0].start_s, row[-1].end_s) for row in found.letters
        ]
        scores.append(np.mean([word.confidence for word in found.words]))
        for (start, end), (_, peers), word in zip(
            merged(own, speech.words),
            merged(theirs, speech.words),
            speech.words,
            strict=True,
        ):
            errors["start"].append(1000 * (start - word.start_s))
            errors["end"].append(1000 * (end - word.stop_s))
            errors["end by torchaudio"].append(1000 * (peers - word.stop_s))
    print(f"{num_sentences} sentences, {len(errors['start'])} words; mean ")
    print(f"confidence {np.mean(scores):.3f}; letters on the same frames as ")
    print(f"by torchaudio in {same} sentences\n")
    print("| boundary | median | median of abs | mean of abs (ms) | in 50 ms |")
    print("|---|---|---|---|---|")
    for name, values in errors.items():
        size = np.abs(values)
        print(
            f"| {name} | {np.median(values):.1f} | {np.median(size):.1f} | "
            f"{size.mean():.1f} | {100 * (size <= 50).mean():.1f} % |"
        )


def sentences(count):
    """Yields test sentences with their speech, by voices of the test split."""
    texts = synthetic.draw_sentences(240 + count, SEED)[240:]
    voices = synthetic.draw_voices(30, SEED)[25:]
    for number, text in enumerate(texts):
        speech = speak(text, voices[number % len(voices)])
        yield text, speech._replace(samples=synthetic.set_peak(speech.samples))


def merged(times, spans):
    """Times of spans, of which some are several words ("of the")."""
    left, found = iter(times), []
    for span in spans:
        own = [next(left) for _ in span.text.split()]
        found.append((own[0][0], own[-1][1]))
    return found


def peer(model, wav, text):
    """Times of the words by torchaudio."""
    aligner = ForcedAligner(model.tokenizer, 0.02, text)
    aligner.push(model.log_probs(wav))
    rows = torch.tensor(aligner._frames.all())
    tokens = torch.tensor(aligner._tokens)[None].int()
    path, scores = forced_align(rows[None], tokens, blank=aligner._blank)
    spans = merge_tokens(path[0], scores[0], blank=aligner._blank)
    times = [[] for _ in text.split()]
    for owner, span in zip(aligner._owners, spans, strict=True):
        if owner is not None:
            times[owner] += [round(t * 0.02, 6) for t in (span.start, span.end)]
    return [(min(own), max(own)) for own in times]


def speed(hours):
    """Times both on made-up log-posteriors of 14 letters a second."""
    frames = round(hours * 180_000)
    tokens = torch.randint(1, 28, (round(hours * 50_000),))
    rows = torch.randn(frames, 28)
    places = torch.linspace(0, frames - 1, len(tokens)).long()
    rows[:, 0] += 4
    rows[places, tokens] += 10
    rows = rows.log_softmax(-1)
    begin = time.process_time()
    own = align_tokens(rows.numpy(), tokens.numpy(), 0)
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = f"{hours:.3f} h, {len(tokens)} letters: {seconds:.1f} CPU s, peak "
    line += f"{peak:.0f} MB"
    if frames * len(tokens) < 2**31:
        begin = time.process_time()
        path, _ = forced_align(rows[None], tokens[None].int(), blank=0)
        seconds = time.process_time() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        spans = merge_tokens(path[0], torch.zeros(frames), blank=0)
        equal = own.tolist() == [[s.start, s.end] for s in spans]
        line += f"; torchaudio {seconds:.1f} CPU s, peak {peak:.0f} MB, "
        line += "the same spans" if equal else "OTHER spans"
    print(line, flush=True)


if __name__ == "__main__":
    main()
