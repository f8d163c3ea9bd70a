"""A small n-gram language model of some texts, as an ARPA file.

    python benchmarks/ngrams.py out.arpa corpus.txt --order 3

Interpolated Witten-Bell smoothing: with T(h) different words after h,

    P(w | h) = (count(h w) + T(h) P(w | h')) / (count(h) + T(h))

where h' is h without its first word, and words are uniform below unigrams. It
serves benchmarks and tests; KenLM's lmplz makes better models of much text.
"""

import argparse
import math
from collections import Counter, defaultdict
from pathlib import Path

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


def write_arpa(path, texts, order=3):
    """Estimates a model and writes it.

    Arguments
    ---------
    path : str or path-like
        The ARPA file.
    texts : iterable of str
        Sentences, words with spaces between.
    order : int
        Longest n-gram, from 2 on.
    """
    counts = _count(texts, order)
    after = _after(counts)
    probabilities = _probabilities(counts, after)
    lines = ["\\data\\"]
    sizes = [
        len([g for g in probabilities if len(g) == n + 1]) for n in range(order)
    ]
    lines += [f"ngram {n}={size}" for n, size in enumerate(sizes, 1)]
    for n in range(1, order + 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(g for g in probabilities if len(g) == n):
            lines.append(_line(gram, probabilities[gram], after, n < order))
    Path(path).write_text("\n".join([*lines, "", "\\end\\", ""]), "utf-8")


def _count(texts, order):
    """N-gram -> how often it is there."""
    counts = Counter()
    for text in texts:
        words = [BEGIN, *text.split(), END]
        for n in range(1, order + 1):
            for begin in range(len(words) - n + 1):
                counts[tuple(words[begin : begin + n])] += 1
    del counts[(BEGIN,)]  # it begins a text, and is never the next word
    return counts


def _after(counts):
    """Words before -> counts of the next word."""
    after = defaultdict(Counter)
    for gram, count in counts.items():
        after[gram[:-1]][gram[-1]] = count
    return after


def _probabilities(counts, after):
    """N-gram -> probability of its last word after the others."""
    made = {}
    uniform = 1 / (len(after[()]) + 1)
    for gram in sorted([*counts, (UNKNOWN,)], key=len):
        words = after[gram[:-1]]
        total, kinds = sum(words.values()), len(words)
        lower = made[gram[1:]] if len(gram) > 1 else uniform
        made[gram] = (counts[gram] + kinds * lower) / (total + kinds)
    made[(BEGIN,)] = 1e-99
    return made


def _line(gram, probability, after, may_go_on):
    """One line of the file."""
    text = f"{math.log10(probability):.6f}\t{' '.join(gram)}"
    words = after.get(gram)
    if may_go_on and words:
        share = len(words) / (sum(words.values()) + len(words))
        text += f"\t{math.log10(share):.6f}"
    return text


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arpa")
    parser.add_argument("texts", help="one sentence on each line")
    parser.add_argument("--order", type=int, default=3)
    arguments = parser.parse_args()
    lines = Path(arguments.texts).read_text("utf-8").splitlines()
    write_arpa(arguments.arpa, lines, arguments.order)


if __name__ == "__main__":
    main()
