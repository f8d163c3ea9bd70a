"""Damages tables, lists and annotations, and reads them.

    python -m tests.fuzz.texts --count 5000 --seed 1

A damaged text is read, or refused by a ``ValueError`` of one line that names a
file. Anything else is a failure.
"""

import argparse
import gzip
import logging
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.corpora.phones import read_lexicons
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.rttm import read_audacity
from unispeech_sb.dataio.trials import read_trials

MOST_S = 2.0
RTTM = "SPEAKER a 1 0 0.5 <NA> <NA> ann <NA> <NA>\n"
TEXTS = {
    "trials/list": "1 a b\n0 a c\n",
    "trials/list.csv": "left,right,target\na,b,1\na,c,0\n",
    "manifest/train.csv": "ID,duration,wav,start,stop\na,1.5,/a.wav,0,5\n",
    "lexicon/words": "so S OW\nit IH T\n",
    "audacity/labels": "0.0\t1.0\tann\n",
    "libri/train-a/19/1/19-1.trans.txt": "a SO IT IS\n",
    "cv/train.tsv": 'client_id\tpath\tsentence\tlocale\nann\ta.wav\t"İ\ttr\n',
    "fairseq/train.tsv": "{}\na.wav\t8000\t8000\n",
    "fairseq/train.ltr": "S O | I T |\n",
    "fairseq/dict.ltr.txt": "S 1\nO 1\n",
    "fairseq/train.id": "0 1\n",
    "fairseq/vocab.json": '{{"a": 0, "b": 1}}',
    "kaldi/train/wav.scp": "a a.wav\n",
    "kaldi/train/text": "u so it\n",
    "kaldi/train/utt2spk": "u ann\n",
    "kaldi/train/segments": "u a 0 0.5\n",
    "kaldi/train/reco2dur": "a 1.0\n",
    "kaldi/train/rttm": RTTM,
    "kaldi/train/uem": "a 1 0 1\n",
    "beside/dev/a.rttm": RTTM,
    "table/manifest.csv": "id,path,split,wrd,label,speaker,start,stop\n"
    "u,a.wav,train,so it,x,ann,0,0.5\n",
}
AUDIO = (
    *("libri/train-a/19/1", "cv/clips", "fairseq", "kaldi/train"),
    *("beside/dev", "table"),
)
ODD = [
    *("1e300", "nan", "inf", "-1", "9" * 20, "1_0", "0", "", "\0", "\r"),
    *('"', "'", "\t", ",", ";", "\\", "..", "/", "\u2028", "\x85", "$a"),
    *("{", "[", "%s", "٣", "a" * 300, " ", "\n", "|", "\x1b[31m", "\ufeff"),
]


def corpus(task, place):
    """A reader of the corpus that a text is part of."""
    options = {"subsets": None, "labels": "id", "label_column": "label"}

    def read(path):
        root = next(p for p in path.parents if p.name == place)
        list(read_corpus(task, options, root))

    return read


READERS = {
    "trials": [read_trials, lambda path: read_trials(path, labelled=False)],
    "manifest": [read_manifest],
    "lexicon": [lambda path: read_lexicons([path])],
    "audacity": [read_audacity],
    "libri": [corpus("asr", "libri")],
    "cv": [corpus("asr", "cv")],
    "fairseq": [corpus("asr", "fairseq"), corpus("phoneme", "fairseq")],
    "kaldi": [corpus("asr", "kaldi"), corpus("speaker_diarization", "kaldi")],
    "beside": [corpus("speaker_diarization", "dev")],
    "table": [
        corpus(task, "table")
        for task in ("asr", "keyword_spotting", "single_speaker")
    ],
}


def write_texts(folder):
    """Writes whole files of every kind."""
    noise = 0.1 * np.random.default_rng(0).normal(size=8000)
    for place in AUDIO:
        (folder / place).mkdir(parents=True, exist_ok=True)
        name = "a.flac" if place.startswith("libri") else "a.wav"
        soundfile.write(folder / place / name, noise, 8000)
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.format(path.parent)
        path.write_text(text, encoding="utf-8")
    for subset in ("dev", "test"):
        text = (folder / "cv/train.tsv").read_bytes()
        (folder / f"cv/{subset}.tsv").write_bytes(text)


def damaged(text, draw):
    """A text with one fault."""
    lines = text.split(b"\n")
    kind, place = draw.randrange(7), draw.randrange(len(text) + 1)
    if kind == 0:
        return text[:place] + bytes([draw.randrange(256)]) + text[place + 1 :]
    if kind == 1:
        return text[:place]
    if kind == 2:
        return text[:place] + draw.choice(ODD).encode() + text[place:]
    if kind == 3:
        between = b" " if b" " in text else b","
        fields = text.split(between)
        fields[draw.randrange(len(fields))] = draw.choice(ODD).encode()
        return between.join(fields)
    if kind == 4:
        lines.insert(draw.randrange(len(lines)), draw.choice(lines))
        return b"\n".join(lines)
    if kind == 5:
        encoding = draw.choice(["latin-1", "utf-16", "utf-32", "utf-8-sig"])
        return text.decode("utf-8", "ignore").encode(encoding, "replace")
    packed = gzip.compress(text, mtime=0)
    return packed[: draw.randrange(4, 2 * len(packed))]


def fuzz(count, seed, folder):
    """Reads so many damaged texts: number of those read, and failures."""
    write_texts(folder)
    draw, num_read, failures = random.Random(seed), 0, []
    for case in range(count):
        path = folder / draw.choice(list(TEXTS))
        kind = path.relative_to(folder).parts[0]
        read, whole = draw.choice(READERS[kind]), path.read_bytes()
        content = whole
        for _ in range(draw.randrange(1, 4)):
            content = damaged(content, draw)
        path.write_bytes(content)
        began, fault = time.process_time(), None
        try:
            read(path)
            num_read += 1
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            if "\n" in text or str(folder) not in text:
                fault = f"{type(error).__name__}: {text}"
        except Exception as error:  # what this looks for
            fault = f"{type(error).__name__}: {error}"
        if time.process_time() - began > MOST_S:
            fault = "slow"
        if fault:
            failures.append(f"case {case}, {path}: {fault}\n{content!r}")
        path.write_bytes(whole)
    return num_read, failures


def main():
    """Runs the cases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(arguments.count, arguments.seed, Path(folder))
    num_read, failures = found
    refused = arguments.count - num_read - len(failures)
    print(f"{num_read} read, {refused} refused, {len(failures)} failed")
    for failure in failures[:20]:
        print(failure)
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
