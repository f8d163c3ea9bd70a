"""In which order shards are read, and in which batches, for any number of
processes and readers.

Shards follow one another in an order that is drawn for each epoch: the tape. It
is cut into as many pieces of equal length as there are readers (worker
processes of a loader, or the process itself) in all processes of a run, and
each reader goes through its own from front to back:

    shards     | 3      | 0      | 4      | 1      | 2      |
    readers    |1          |2          |3          |4       |

What it has read waits in a shuffle buffer of so many seconds; one utterance is
drawn of it at a time, and joins the batch of its length, of the same limits as
those of SpeechBrain's ``DynamicBatchSampler``. A batch that is full is next.

All this is computed from the index before anything is read. So a run that was
stopped goes on with the same batches; one of another number of readers knows
which utterances are left, and cuts these into pieces.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.logger import get_logger
from torch.utils.data import Sampler

from unispeech_sb.dataio.samplers import length_limits, numbered_generator
from unispeech_sb.dataio.shards import ShardRows

logger = get_logger(__name__)

BUFFER_S = 3600.0
"""Seconds in the shuffle buffer of each reader, where a yaml does not say."""


class ShardBatch(list[int]):
    """The numbers of a batch, with what to read before it.

    ``reads`` are first and last but one numbers of utterances in their shards;
    ``stream`` names the epoch: what was read of another is not needed.
    """

    reads: tuple[tuple[int, int], ...] = ()
    stream: tuple[int, ...] = ()


class ShardBatches(Sampler[ShardBatch]):
    """The batches of a split in shards, of the readers of this process.

    In each epoch every utterance is in one batch of one process, and all
    processes have the same number of batches: where one would have fewer,
    some of its batches are halved. Only where there are fewer utterances than
    batches needed, some are in two.

    Arguments
    ---------
    rows : ShardRows
        The utterances.
    limits : tuple
        ``max_batch_s`` and ``num_buckets``, as of ``dynamic_batches``.
    buffer_s : float
        Seconds in the shuffle buffer of each reader.
    seed : int
        Of shards and buffers.
    most_s : float
        Seconds that longer utterances are cut to.
    pass_size : int
        Added to the numbers for each epoch before, as by ``PassSampler``.
    """

    def __init__(
        self, rows, limits, buffer_s=BUFFER_S, seed=0,
        most_s=float("inf"), pass_size=0,
    ):  # fmt: skip
        if not buffer_s > 0:
            raise ValueError(
                f"shuffle_buffer_s: expected seconds above 0, got {buffer_s}"
            )
        self.rows, self.buffer_s, self.seed = rows, buffer_s, seed
        self.pass_size = pass_size
        self.seconds = rows.seconds
        bounds, self.sizes = length_limits(*limits)
        cut = np.minimum(self.seconds, most_s)
        self.buckets = np.searchsorted(bounds, cut).astype(np.int32)
        self.shards = rows.entries["shard"][rows.numbers]
        self.readers = 0  # of this process; ShardLoader sets it
        self.epoch, self.history = 0, []
        self._planned = None

    def __len__(self) -> int:
        plan = self._plan()
        return plan.before + plan.per_reader * max(1, self.readers)

    def __iter__(self):
        plan = self._plan()
        for _ in range(plan.before):  # of earlier processes, not to be read
            yield ShardBatch()
        own = [lane.batches() for lane in plan.lanes]
        for _ in range(plan.per_reader):
            for lane in own:
                yield self._with_reads(*next(lane))

    def set_epoch(self, epoch):
        """Chooses the epoch, as SpeechBrain does at its start."""
        if self.history and self.history[0] != epoch:
            self.history = []
        self.epoch = epoch

    def state(self, num_batches):
        """What a checkpoint needs to know: who has read how much of the epoch,
        after so many batches of this process."""
        ranks, _ = _processes()
        parts = [list(part) for part in self.history[1:]]
        done = num_batches - sum(count for *_, count in parts)
        if num_batches:
            parts.append([ranks, max(1, self.readers), done])
        return {"epoch": self.epoch, "of": len(self.rows), "parts": parts}

    def resume(self, state):
        """Goes on from a ``state``, perhaps of other processes; gives the
        number of batches to skip."""
        parts, (ranks, _) = state["parts"], _processes()
        if state["of"] != len(self.rows):
            raise ValueError(
                f"{self.rows.folder}: expected the {state['of']} utterances "
                f"of the checkpoint, got {len(self.rows)}"
            )
        now = [ranks, max(1, self.readers)]
        total = sum(count for *_, count in parts)
        if parts and parts[-1][:2] == now:
            parts = parts[:-1]
        self.history = [state["epoch"], *parts] if parts else []
        self.epoch, self._planned = state["epoch"], None
        if parts and state["parts"][-1][:2] != now:
            self._report(parts[-1][:2], now)
        return total

    def _report(self, before, now):
        """Logs what another number of readers changes."""
        plan = self._plan()
        logger.info(
            "The epoch goes on with {} processes of {} readers where it had "
            "{} of {}: {} of {} utterances were read, the others follow in "
            "another order; left out are 0, read twice {}".format(
                *now, *before, plan.num_read, len(self.rows), plan.repeated
            )
        )

    def _plan(self):
        """The plan of the epoch, made once."""
        ranks, rank = _processes()
        key = (self.epoch, ranks, self.readers, len(self.history))
        if self._planned is None or self._planned.key != key:
            self._planned = _Plan(self, key, ranks, rank)
        return self._planned

    def tape(self):
        """Rows in the order in which an epoch reads them."""
        count = len(self.rows.shards)
        generator = numbered_generator(self.seed, self.epoch)
        order = torch.randperm(count, generator=generator).numpy()
        rank_of_shard = np.empty(count, np.int64)
        rank_of_shard[order] = np.arange(count)
        return np.argsort(rank_of_shard[self.shards], kind="stable")

    def _with_reads(self, places, new):
        """A batch of rows, and the new rows of its reader's buffer."""
        first = self.epoch * self.pass_size
        batch = ShardBatch(first + place for place in places.tolist())
        numbers = self.rows.numbers[new]
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        batch.reads = tuple(
            (int(run[0]), int(run[-1]) + 1)
            for run in np.split(numbers, breaks)
            if len(run)
        )
        batch.stream = (self.epoch, len(self.history))
        return batch


class _Plan:
    """What each reader of this process does in an epoch.

    ``before`` batches were read by earlier processes; after these there are
    ``per_reader`` of each of ``lanes``.
    """

    def __init__(self, sampler, key, ranks, rank):
        self.key = key
        self.before = self.num_read = 0
        tape, parts = sampler.tape(), [*sampler.history[1:]]
        for part, (then, readers, count) in enumerate(parts):
            lanes = _lanes(sampler, tape, part, then * readers)
            left = np.ones(len(sampler.rows), bool)
            for number, lane in enumerate(_filled(lanes)):
                done = (count + readers - 1 - number % readers) // readers
                left[lane.places[: lane.ends[done - 1] if done else 0]] = False
            tape, self.before = tape[left[tape]], self.before + count
        self.num_read = len(sampler.rows) - len(tape)
        readers = max(1, sampler.readers)
        lanes = _lanes(sampler, tape, len(parts), ranks * readers)
        lanes = list(_filled(lanes)) if len(tape) else lanes
        self.repeated = sum(len(lane.places) for lane in lanes) - len(tape)
        self.per_reader = len(lanes[0].ends)
        self.lanes = lanes[rank * readers : (rank + 1) * readers]


class _Lane:
    """What one reader does: ``places`` of its batches, one after the other,
    where each of them ``ends``, and how much of its ``tape`` is read before."""

    def __init__(self, tape, places, ends, reads):
        self.tape, self.places = tape, np.asarray(places, np.int64)
        self.ends, self.reads = list(ends), list(reads)

    def batches(self):
        """Yields the rows of each batch, and those to read before it."""
        first = read = 0
        for end, until in zip(self.ends, self.reads, strict=True):
            yield self.places[first:end], self.tape[read:until]
            first, read = end, until

    def fill(self, count):
        """Halves the largest batches until there are so many."""
        sizes = np.diff([0, *self.ends])
        while len(self.ends) < count:
            place = int(sizes.argmax())
            half = int(sizes[place]) // 2
            self.ends.insert(place, self.ends[place] - int(sizes[place]) + half)
            self.reads.insert(place, self.reads[place])
            sizes = np.diff([0, *self.ends])
        return self


def _filled(lanes):
    """Lanes with the same number of batches each."""
    count = max(len(lane.ends) for lane in lanes)
    if min(len(lane.places) for lane in lanes) >= count:
        return [lane.fill(count) for lane in lanes]
    return _dealt_out(lanes)


def _dealt_out(lanes):
    """The same of few utterances, of which readers give one another some; they
    are read alone."""
    held = [
        [batch for batch in np.split(lane.places, lane.ends) if len(batch)]
        for lane in lanes
    ]
    while len(max(held, key=len)) - len(min(held, key=len)) > 1:
        min(held, key=len).append(max(held, key=len).pop())
    count = len(max(held, key=len))
    for own in held:
        if len(own) == count:
            continue
        largest = max((b for other in held for b in other), key=len)
        donor = next(o for o in held if any(batch is largest for batch in o))
        place = next(n for n, batch in enumerate(donor) if batch is largest)
        own.append(largest[:1])
        donor[place] = largest[1:] if len(largest) > 1 else largest
    return [
        _Lane(
            lane.tape[:0],
            np.concatenate(own),
            np.cumsum([len(batch) for batch in own]).tolist(),
            [0] * count,
        )
        for lane, own in zip(lanes, held, strict=True)
    ]


def _lanes(sampler, tape, part, count):
    """The lanes of so many readers, by the seconds of what is read."""
    total = np.cumsum(sampler.seconds[tape])
    wanted = np.arange(1, count) * (total[-1] if len(total) else 0.0) / count
    cuts = [0, *np.searchsorted(total, wanted).tolist(), len(tape)]
    lanes = []
    for number in range(count):
        number_of_draw = (sampler.epoch << 20) + (part << 12) + number
        generator = numbered_generator(sampler.seed + 1, number_of_draw)
        own = tape[cuts[number] : cuts[number + 1]]
        lanes.append(_lane(sampler, own, generator))
    return lanes


def _lane(sampler, tape, generator):
    """Draws the batches of one reader."""
    seconds = sampler.seconds[tape].tolist()
    buckets, rows = sampler.buckets[tape].tolist(), tape.tolist()
    draws = torch.rand(
        len(rows), generator=generator, dtype=torch.double
    ).tolist()
    filling = [[] for _ in sampler.sizes]
    places, ends, reads, buffer, held, read = [], [], [], [], 0.0, 0
    for draw in draws:
        while read < len(rows) and (not buffer or held < sampler.buffer_s):
            buffer.append(read)
            held += seconds[read]
            read += 1
        chosen = int(draw * len(buffer))
        own, buffer[chosen] = buffer[chosen], buffer[-1]
        buffer.pop()
        held -= seconds[own]
        batch = filling[buckets[own]]
        batch.append(rows[own])
        if len(batch) >= sampler.sizes[buckets[own]]:
            places += batch
            ends.append(len(places))
            reads.append(read)
            batch.clear()
    left = [batch for batch in filling if batch]
    for number in torch.randperm(len(left), generator=generator).tolist():
        places += left[number]
        ends.append(len(places))
        reads.append(read)
    return _Lane(tape, places, ends, reads)


def _processes():
    """Processes of this run, and the number of this one."""
    if not torch.distributed.is_available():
        return 1, 0
    if not torch.distributed.is_initialized():
        return 1, 0
    return torch.distributed.get_world_size(), torch.distributed.get_rank()


@register_checkpoint_hooks
class ShardLoader(SaveableDataLoader):
    """A loader of ``ShardBatches``, whose checkpoints say which processes have
    read how much of the epoch."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.batch_sampler.readers = self.num_workers

    @classmethod
    def of_stage(cls, dataset, stage, ckpt_prefix=None, **options):
        """The loader of a training, as ``Brain.make_dataloader`` makes it."""
        return cls(dataset, **{"collate_fn": PaddedBatch, **options})

    @mark_as_saver
    def _save(self, path):
        """Writes how far the epoch is."""
        iterator = self._speechbrain_iterator
        count = 0 if iterator is None else iterator._num_yielded
        Path(path).write_text(json.dumps(self.batch_sampler.state(count)))

    @mark_as_loader
    def _load(self, path, end_of_epoch):
        """Reads it, unless the epoch is over or the best checkpoint is loaded
        to be scored."""
        if end_of_epoch or self._speechbrain_iterator is not None:
            return
        state = json.loads(Path(path).read_text())
        self._speechbrain_recovery_skip_to = self.batch_sampler.resume(state)


def add_shard_batches(
    rows: ShardRows, hparams: dict[str, Any], passes: bool = False
) -> None:
    """Adds the batches of a training in shards to its loader's options.

    ``hparams`` are the recipe's: ``max_batch_s``, ``num_buckets``, ``seed``,
    ``crop_s`` and ``shuffle_buffer_s``. With ``passes`` the numbers of batches
    say which epoch they are of.
    """
    hparams["train_dataloader_opts"]["batch_sampler"] = ShardBatches(
        rows,
        (hparams["max_batch_s"], hparams["num_buckets"]),
        hparams.get("shuffle_buffer_s") or BUFFER_S,
        hparams["seed"],
        hparams.get("crop_s") or float("inf"),
        len(rows) if passes else 0,
    )
