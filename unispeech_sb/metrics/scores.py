"""Names of scores, their units, and how they are shown."""

import re
from collections.abc import Mapping
from typing import Any

_SHARES = (
    *("accuracy", "blanks", "blank_share", "contrastive_accuracy"),
    *("phone_purity", "cluster_purity", "slot_type_f1", "slot_value_cer"),
)
"""Scores from 0 to 1 that are shown in percent."""

_PERCENTAGES = (
    *("WER", "CER", "PER", "EER", "DER", "JER"),
    *("miss", "false alarm", "confusion"),
)
"""Scores that are in percent."""


def percent(name: str, value: float) -> float | None:
    """A score in percent; None where its name is of another unit.

    "EER low" and "EER high", the ends of an interval, are as "EER".
    """
    kind = re.split(" (?:low|high|at|of|after|chosen)\\b", name)[0]
    if kind in _SHARES:
        return 100 * value
    return value if kind in _PERCENTAGES else None


def format_score(name: str, value: Any) -> str:
    """Formats a score with its unit."""
    if value is None:  # of a file: there was no finite number
        return "undefined"
    number = percent(name, value) if type(value) in (int, float) else None
    if number is None:
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    digits = ".1f" if number == 0 or abs(number) >= 1 else ".1g"
    return f"{number:{digits}} %"


def format_scores(scores: Mapping[str, Any]) -> str:
    """Formats scores as a line, the loss last.

    "EER low" and "EER high" are the interval of "EER". Lists are left out.
    """
    texts = {}
    for name, value in scores.items():
        low, high = (scores.get(f"{name} {end}") for end in ("low", "high"))
        text = f"{name.replace('_', ' ')} {format_score(name, value)}"
        if low is not None and high is not None:
            low = format_score(name, low).removesuffix(" %")
            text += f" ({low} to {format_score(name, high)})"
        if not name.endswith((" low", " high")) and type(value) is not list:
            texts[name] = text
    last = texts.pop("loss", None)
    return ", ".join([*texts.values(), *([last] if last else [])])
