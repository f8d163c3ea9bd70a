"""Splits of data that have none: groups of recordings, such as those of one
speaker, are drawn for validation and test, and none is in two splits.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import write_json
from unispeech_sb.dataio.manifest import SPLITS

logger = get_logger(__name__)

SHARES = (0.8, 0.1, 0.1)
"""Of the recordings, that are for training, validation and test."""
SPLITS_FILE = "splits.json"
"""What says, beside the manifests, how the data were split."""

VALID_WAYS = ("valid_share", "valid_tail_s", "valid_speakers")
"""Keys of yamls that make a validation set in another way."""
_RECORDING = "recording"


def with_splits(
    records: Iterable[dict[str, Any]],
    task: str | None,
    hparams: Mapping[str, Any],
    may_lack_valid: bool = False,
) -> list[dict[str, Any]]:
    """Makes splits where the data have none, and says how.

    Kept together are recordings with the same value in the column
    ``split_by``; where that is null, in a column ``group``, else those of a
    speaker, else all that is of one file; in speaker identification, where
    each speaker has to be in every split, those of one file. As far as can be,
    every label of validation and test is in training too.

    ``hparams`` are the yaml's: ``split_by``, ``split_shares``, ``seed``,
    ``manifest_folder``, where ``splits.json`` is written, and the columns of
    labels. With ``may_lack_valid``, data with a split for training but none for
    validation are complemented.
    """
    records = list(records)
    named = Counter(record.get("split") or "" for record in records)
    if named[""] and len(named) > 1:
        raise ValueError(
            f"expected a split of every recording or of none; {named['']} of "
            f"{len(records)} have none"
        )
    shares = _shares(hparams)
    other_way = any(hparams.get(key) for key in VALID_WAYS)
    lacks = may_lack_valid and bool(named["train"]) and not named["valid"]
    if not records or not (named[""] or lacks):
        return records
    if other_way or named["train"] and task and task.startswith("speaker_"):
        return [{**r, "split": r.get("split") or "train"} for r in records]
    if lacks:
        shares = (shares[0], shares[1], 0.0)
    fixed = [r for r in records if r.get("split") not in ("", None, "train")]
    drawn = [r for r in records if r.get("split") in ("", None, "train")]
    by, groups = _groups(drawn, task, hparams)
    plan = _Plan(drawn, groups, _classes(task, hparams), task)
    splits = plan.draw(shares, hparams.get("seed") or 0)
    drawn = [{**r, "split": s} for r, s in zip(drawn, splits, strict=True)]
    found = [*drawn, *fixed]
    what = "validation set" if lacks else "splits of their own"
    _report(found, what, by, shares, hparams)
    return found


def _shares(hparams):
    """The shares of the three splits."""
    given = hparams.get("split_shares") or SHARES
    fits = isinstance(given, Sequence) and len(given) == len(SPLITS)
    numbers = fits and all(isinstance(s, int | float) for s in given)
    if not numbers or min(given) < 0 or not abs(sum(given) - 1) < 1e-6:
        raise ValueError(
            "split_shares: expected shares of train, valid and test that add "
            f"up to 1, such as [0.8, 0.1, 0.1]; got {given}"
        )
    if not given[0] or not given[1]:
        raise ValueError(
            f"split_shares: expected some to train and to validate; got {given}"
        )
    return tuple(given)


def _classes(task, hparams):
    """Keys of records whose values all have to be trained."""
    if task == "speaker_identification":
        return ("spk_id",)
    if task == "intent_classification":
        return tuple(hparams.get("slots") or ())
    if task in ("keyword_spotting", "emotion_recognition", None):
        return ("label",)
    return ()


def _groups(records, task, hparams):
    """What keeps recordings together, and the group of each."""
    by = hparams.get("split_by")
    if by and not all(record.get(by) for record in records):
        raise ValueError(
            f"split_by: expected a column with a value in each row; got {by!r}"
        )
    if not by and task != "speaker_identification":
        if all(record.get("group") for record in records):
            by = "group"
        elif any(record.get("spk_id") for record in records):
            by = "spk_id"
    groups = _joined(records, by)
    if by and task != "speaker_verification" and len(set(groups)) == 1:
        logger.warning(
            f"All recordings belong together by their {_word(by)}: they are "
            f"split by file, and the scores are not those of an unseen "
            f"{_word(by)}"
        )
        by, groups = None, _joined(records, None)
    return by or _RECORDING, groups


def _word(by):
    """What people call a column."""
    return {"spk_id": "speaker"}.get(by, by)


def _joined(records, by):
    """A group for each record: records of one file, or with the same value, are
    in the same one, and so are all that are linked by others."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key):
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for record in records:
        if by and record.get(by):
            parent[root(("wav", record["wav"]))] = root((by, record[by]))
    return [root(("wav", record["wav"])) for record in records]


class _Plan:
    """Groups of recordings, and the splits that they are drawn for."""

    def __init__(self, records, groups, classes, task):
        self.members = defaultdict(list)
        for place, group in enumerate(groups):
            self.members[group].append(place)
        self.labels = [
            [(key, record.get(key)) for key in classes] for record in records
        ]
        self.left = Counter(label for own in self.labels for label in own)
        self.split_of = dict.fromkeys(self.members, "train")
        self.count = Counter(train=len(self.members))
        # Trials need two speakers of two recordings each, in every split
        self.least = 2 if task == "speaker_verification" else 1

    def draw(self, shares, seed):
        """The split of each record."""
        parts = [*zip(("valid", "test"), shares[1:], strict=True)]
        owed = dict.fromkeys(("valid", "test"), 0.0)
        orders = self._orders(seed)
        for order in orders:
            total = sum(len(self.members[group]) for group in order)
            for split, share in parts:
                owed[split] += share * total
                owed[split] -= self._fill(split, order, owed[split])
        everyone = [group for order in orders for group in order]
        everyone.sort(key=lambda group: len(self.members[group]))
        for split, share in parts:
            for group in everyone:
                if share and self.count[split] < self.least:
                    self._move(group, split)
        if self.count["valid"] < self.least:
            raise ValueError(
                f"expected recordings to split; got {len(self.labels)} in "
                f"{len(self.members)} groups, of which none can be spared"
            )
        kept = self.count["test"] >= self.least
        splits = [""] * len(self.labels)
        for group, places in self.members.items():
            split = self.split_of[group]
            for place in places:
                splits[place] = split if kept or split != "test" else "train"
        return splits

    def _orders(self, seed):
        """Groups in the order in which they are drawn; those with one label
        alone by label, so that each split has its share of them."""
        generator = torch.Generator().manual_seed(seed)
        strata = defaultdict(list)
        for group in sorted(self.members):
            labels = {x for n in self.members[group] for x in self.labels[n]}
            own = str(sorted(labels)) if len(labels) == 1 else ""
            strata[own].append(group)
        orders = []
        for _, groups in sorted(strata.items()):
            order = torch.randperm(len(groups), generator=generator).tolist()
            orders.append([groups[place] for place in order])
        return orders

    def _fill(self, split, order, owed):
        """Moves groups to a split, about as many recordings as are owed; how
        many were."""
        moved = 0
        for group in order:
            size = len(self.members[group])
            if owed - moved >= size / 2 and self._move(group, split):
                moved += size
        return moved

    def _move(self, group, split):
        """Takes a group out of training, if it can be spared there."""
        places = self.members[group]
        own = Counter(label for place in places for label in self.labels[place])
        if (
            self.split_of[group] != "train"
            or self.count["train"] <= self.least
            or len(places) < self.least
            or any(self.left[label] <= count for label, count in own.items())
        ):
            return False
        self.left -= own
        self.split_of[group] = split
        self.count += Counter({split: 1})
        self.count["train"] -= 1
        return True


def _report(records, what, by, shares, hparams):
    """Says how data were split, in the log and beside the manifests."""
    found: dict[str, Any] = {
        "kept together": _word(by),
        "shares": list(shares),
        "seed": hparams.get("seed") or 0,
    }
    texts = []
    for split in SPLITS:
        own = [record for record in records if record["split"] == split]
        groups = {record.get(by) for record in own} - {"", None}
        found[split] = {"recordings": len(own)}
        text = f"{split} {len(own)}"
        if groups:
            found[split][f"values of {_word(by)}"] = sorted(map(str, groups))
            text += f" (of {len(groups)} {_word(by)}s)"
        texts.append(text)
    logger.info(
        f"The data have no {what}: drawn by seed "
        f"{found['seed']}, each {_word(by)} in one split only: "
        f"{', '.join(texts)}"
    )
    folder = hparams.get("manifest_folder")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder, SPLITS_FILE), found, indent=1)
