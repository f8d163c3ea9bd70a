"""Slot filling as SUPERB scores it (Yang et al. 2021): which slots were found,
and how well their values.

Texts have tags, as in ``PLAY B-artist QUEEN E-artist``; ``text.find_slots``
says what a slot is.
"""

from collections import defaultdict
from collections.abc import Sequence

from speechbrain.utils.edit_distance import count_ops, op_table

from unispeech_sb.text import find_slots


def slot_type_f1(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Mean F1 score between the sets of slots of each pair of texts, 0 to 1.

    It is 1 where both have no slot and 0 where one has none. Values and how
    often a slot occurs do not matter.
    """
    pairs = zip(references, hypotheses, strict=True)
    scores = [_f1(*map(_names, pair)) for pair in pairs]
    if not scores:
        raise ValueError("slot_type_f1: expected texts; got none")
    return sum(scores) / len(scores)


def slot_value_cer(
    references: Sequence[str], hypotheses: Sequence[str]
) -> float:
    """Character errors of the values of true slots over their characters.

    A true value is compared with the nearest value that was found of its
    slot, nothing where there is none. A found value may serve several true
    ones, and what is left over costs nothing.
    """
    num_errors = num_characters = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        found = defaultdict(list)
        for name, value in find_slots(hypothesis):
            found[name].append(value)
        for name, value in find_slots(reference, keep_tags=True):
            distances = [_distance(value, other) for other in found[name]]
            num_errors += min(distances, default=len(value))
            num_characters += len(value)
    if not num_characters:
        raise ValueError(
            "slot_value_cer: expected references with slots; got none"
        )
    return num_errors / num_characters


def _names(text):
    """Names of the slots of a text."""
    return {name for name, _ in find_slots(text)}


def _f1(true, found):
    """F1 score between two sets."""
    if not true and not found:
        return 1.0
    return 2 * len(true & found) / (len(true) + len(found))


def _distance(text, other):
    """Least number of characters to insert, delete or replace."""
    return sum(count_ops(op_table(text, other)).values())
