"""Log-posteriors, tokenizers and language models for the tests of decoding."""

import math
from itertools import groupby, product

import numpy as np
import torch

from benchmarks.ngrams import write_arpa
from unispeech_sb.dataio.tokenizers import CTCTokenizer

LETTERS = ["-", "|", "a", "b", "c", "<unk>"]
OPEN = {
    "beam_size": 10**6,
    "beam_threshold": math.inf,
    "token_threshold": math.inf,
    "prune_history": False,
}
"""Settings under which nothing is pruned."""


def letters(tokens=LETTERS):
    """A tokenizer of characters."""
    return CTCTokenizer.from_tokens(tokens, tokens.index("-"))


def noise(num_frames, num_tokens, seed=0, sharpness=1.0):
    """Log-posteriors at random."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_frames, num_tokens, generator=generator)
    return (logits * sharpness).log_softmax(-1)


def saying(text, tokens=LETTERS, sharpness=4.0, seed=0, gap=2):
    """Log-posteriors of a text: a token, then blanks, over some noise."""
    generator = torch.Generator().manual_seed(seed)
    path = []
    for token in text:
        path += [tokens.index(token), *[tokens.index("-")] * gap]
    logits = torch.randn(len(path), len(tokens), generator=generator)
    logits[range(len(path)), path] += sharpness
    return logits.log_softmax(-1)


def all_texts(log_probs, tokenizer, spell=None):
    """Text -> log-probability summed over every alignment there is."""
    hidden = {tokenizer.lab2ind[name] for name in tokenizer.specials}
    rows, found = log_probs.double().tolist(), {}
    for path in product(range(len(rows[0])), repeat=len(rows)):
        merged = [token for token, _ in groupby(path)]
        kept = [token for token in merged if token not in hidden]
        text = spell(kept) if spell else tokenizer.decode(kept)
        text = " ".join(text.split())
        score = sum(row[token] for row, token in zip(rows, path))
        found[text] = np.logaddexp(found.get(text, -np.inf), score)
    return found


def arpa(folder, texts=("ab c", "ab ab", "c ba ab", "b"), order=3):
    """An ARPA file of some sentences."""
    path = folder / "some.arpa"
    write_arpa(path, texts, order)
    return path
