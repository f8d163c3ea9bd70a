"""Which waveforms a dataset's items have, by their content, and the dataset
without them: what a cache of features needs to know.

An item is drawn if reading it draws random numbers, as a random crop does, or
if its dataset says so by ``is_drawn``, and then gives another one for each
pass, ``number // len(dataset)``.
"""

import copy
import hashlib
import random
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader, Dataset

from unispeech_sb.dataio.samplers import SEED_STEP

LIVE = -1
"""In place of an entry: the item is computed at each visit."""

_BATCH_SAMPLES = 32 * 16000  # that are read at a time, with padding


class Wanted(NamedTuple):
    """A waveform: the digest of its samples, their number, the item's place in
    the dataset, and which of its crops it is, None where it is not cropped."""

    digest: str
    num_samples: int
    place: int
    draw: int | None


class CachedDataset(Dataset[dict[str, Any]]):
    """A dataset whose items have ``entry``, the number of their features.

    ``LIVE`` stands where features are computed at each visit, by ``sig``; no
    other item has its waveform read. ``entries`` has those of each item, none
    of a live one, and several of one of which crops were drawn. What a pipeline
    computes of an item without drawing random numbers is computed once.
    """

    def __init__(self, dataset: Any, entries: list[list[int]]) -> None:
        self.dataset, self.entries = dataset, entries
        self.has_live = not all(entries)
        self._known: dict[int, dict[str, Any]] = {}
        self.pipeline = None
        if not hasattr(dataset, "is_drawn"):
            self.pipeline = copy.copy(dataset.pipeline)
            keys = dict(dataset.pipeline.output_mapping)
            del keys["sig"]
            self.pipeline.set_output_keys(keys)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: int) -> dict[str, Any]:
        passed, place = divmod(number, len(self.entries))
        entries = self.entries[place]
        if not entries:
            return {**self.dataset[number], "entry": LIVE}
        if self.pipeline is None:  # it draws by the number of the pass
            item = dict(self.dataset[number])
            del item["sig"]
        else:
            item = dict(self._known.get(place) or self._computed(place))
            if len(entries) > 1:
                passed = int(torch.randint(len(entries), ()))
        item["entry"] = entries[passed % len(entries)]
        # Of a batch all items have the same keys
        return {**item, "sig": torch.zeros(1)} if self.has_live else item

    def _computed(self, place):
        """What the pipeline gives of an item, but for the waveform."""
        uid, before = self.dataset.data_ids[place], _generators()
        item = self.pipeline.compute_outputs(
            {"id": uid, **self.dataset.data[uid]}
        )
        if before == _generators():
            self._known[place] = item
        return item


class Waveforms(Dataset[torch.Tensor]):
    """The waveforms of a dataset's items, by place and number of the crop.

    Of a drawn item there are ``num_crops``, drawn by ``seed``. ``survey`` and
    ``batches`` read in ``num_workers`` processes.
    """

    def __init__(
        self, dataset: Any, num_crops: int, seed: int, num_workers: int = 0
    ) -> None:
        if not hasattr(dataset, "is_drawn") and not isinstance(
            dataset, DynamicItemDataset
        ):
            raise ValueError(
                "feature_cache: expected a DynamicItemDataset; got a "
                f"{type(dataset).__name__}"
            )
        self.dataset, self.num_crops, self.seed = dataset, num_crops, seed
        self.num_workers = num_workers

    def __getitem__(self, key: tuple[int, int | None]) -> torch.Tensor:
        place, draw = key
        if hasattr(self.dataset, "is_drawn"):
            number = place + (draw or 0) * len(self.dataset)
            return self.dataset[number]["sig"]
        if draw is not None:
            seed = self.seed * SEED_STEP + place * self.num_crops + draw
            torch.default_generator.manual_seed(seed % 2**32)
            random.seed(seed % 2**32)
            np.random.seed(seed % 2**32)
        uid = self.dataset.data_ids[place]
        item = {"id": uid, **self.dataset.data[uid]}
        pipeline = self.dataset.pipeline
        key = pipeline.output_mapping["sig"]
        return pipeline.compute_specific([key], item)[key]

    def survey(self, places: Sequence[int]) -> Iterable[list[Wanted]]:
        """What is wanted of each item: one waveform, or crops, or none where
        it is computed at each visit."""
        return self._loader(_Probes(self), batch_size=None, sampler=places)

    def batches(self, wanted: Sequence[Wanted]) -> Iterable[list[torch.Tensor]]:
        """The waveforms of a list by falling length, some at a time."""
        keys = [[(w.place, w.draw) for w in some] for some in _grouped(wanted)]
        return self._loader(self, batch_sampler=keys)

    def _loader(self, items, **kwargs):
        """A loader that collates nothing and draws no random numbers."""
        if self.num_workers and sys.platform == "linux":  # as Brains do
            kwargs["multiprocessing_context"] = "fork"
        return DataLoader(
            items,
            num_workers=self.num_workers,
            collate_fn=_as_they_are,
            generator=torch.Generator(),
            **kwargs,
        )

    def wanted(self, place: int) -> list[Wanted]:
        """What is wanted of one item."""
        draws = range(self.num_crops)
        if hasattr(self.dataset, "is_drawn"):
            is_drawn = self.dataset.is_drawn(place)
        else:
            before = _generators()
            wav = self[place, None]
            is_drawn = before != _generators()
            if not is_drawn:
                return [Wanted(wav_digest(wav), len(wav), place, None)]
        found = [(d, self[place, d]) for d in (draws if is_drawn else [None])]
        return [Wanted(wav_digest(w), len(w), place, d) for d, w in found]


class _Probes(Dataset[list[Wanted]]):
    """What is wanted of each item."""

    def __init__(self, wavs):
        self.wavs = wavs

    def __getitem__(self, place: int) -> list[Wanted]:
        return self.wavs.wanted(place)


def _generators():
    """States of all generators that a pipeline may draw from."""
    kind, keys, *rest = np.random.get_state()
    own = torch.get_rng_state().numpy().tobytes()
    return own, random.getstate(), kind, keys.tobytes(), rest


def wav_digest(wav: torch.Tensor) -> str:
    """Digest of a waveform."""
    plain = wav.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(plain.tobytes(), digest_size=16).hexdigest()


def _grouped(wanted):
    """Waveforms to compute at a time, from a list by falling length."""
    batch: list[Wanted] = []
    for wav in wanted:
        if batch and (len(batch) + 1) * batch[0].num_samples > _BATCH_SAMPLES:
            yield batch
            batch = []
        batch.append(wav)
    if batch:
        yield batch


def _as_they_are(items):
    """Collates nothing."""
    return items
