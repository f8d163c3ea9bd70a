"""Simulates a loader of shards: how fast it is, and how long training waits.

    python benchmarks/loader_simulator.py [--ranks 1 8 32] [--readers 1 2 4]

Events in their order, nothing drawn. A reader (a worker process) reads the
bytes of a batch in requests, one after the other; each waits for the latency
and for its turn at the storage, which serves requests as they come, at a rate
for all and one for each. Then it decodes, and hands over; up to ``prefetch``
batches of each reader wait. A rank takes batches from its readers in turn; all
ranks begin a step together, when each has its batch, and end it together.
``buffer_s`` are read, but not decoded, before the first batch.

The table says what limits a setting: the readers' processors, the storage, or
training, which then does not wait.
"""

import argparse
import heapq
import itertools
from typing import NamedTuple


class Setting(NamedTuple):
    """A loader, its storage, and the training that it is for."""

    ranks: int = 1
    readers: int = 2
    """Of each rank."""
    batches: int = 100
    """Of each reader."""
    batch_s: float = 87.5
    bytes_per_s: float = 16000.0
    """Of a second of audio: 16 kHz speech as FLAC has about 16 kB."""
    decode_rate: float = 1000.0
    """Seconds of audio that a reader decodes in a second."""
    step_s: float = 0.5
    bandwidth: float = 1e9
    """Bytes a second of the storage."""
    stream_bandwidth: float = 2e8
    """Of one reader."""
    latency_s: float = 0.001
    request_bytes: float = 2**22
    prefetch: int = 2
    buffer_s: float = 3600.0


class Prediction(NamedTuple):
    """What comes of a setting."""

    seconds: float
    first_batch_s: float
    """Until the first step begins."""
    stall_s: float
    """For which all ranks wait between steps."""
    audio_per_s: float
    """Seconds of audio in a second, of all ranks, after the first batch."""
    storage_share: float
    """Of the time for which the storage is busy."""
    limit: str


class _Loader:
    """The state of all readers, ranks and the storage."""

    def __init__(self, setting):
        self.setting = setting
        count = setting.ranks * setting.readers
        self.events, self.order = [], itertools.count()
        self.storage_free = self.storage_busy = 0.0
        self.begun, self.taken = [0] * count, [0] * count
        self.idle = [True] * count
        self.ready = [[] for _ in range(count)]
        self.step, self.free = 0, 0.0
        self.starts, self.ends = [], []
        self.took = [0] * setting.ranks  # batches of each rank

    def at(self, time, function, *arguments):
        """Has a function called at a time."""
        event = (time, next(self.order), function, arguments)
        heapq.heappush(self.events, event)

    def run(self):
        """Works until nothing is left to do."""
        for reader in range(len(self.begun)):
            self.begin(0.0, reader)
        while self.events:
            time, _, function, arguments = heapq.heappop(self.events)
            function(time, *arguments)

    def begin(self, time, reader):
        """A reader begins its next batch, if it may."""
        setting = self.setting
        waiting = self.begun[reader] - self.taken[reader]
        self.idle[reader] = (
            waiting >= setting.prefetch or self.begun[reader] >= setting.batches
        )
        if self.idle[reader]:
            return
        # At the end of what there is, everything is in the buffer
        total = setting.batches * setting.batch_s
        read = self.begun[reader] * setting.batch_s
        read += setting.buffer_s if read else 0.0
        wanted = setting.batch_s + (0.0 if read else setting.buffer_s)
        seconds = max(0.0, min(wanted, total - read))
        self.begun[reader] += 1
        self.request(time, reader, seconds * setting.bytes_per_s)

    def request(self, time, reader, left):
        """A reader asks for the next bytes, or has them all and decodes."""
        setting = self.setting
        if left <= 0:
            done = time + setting.batch_s / setting.decode_rate
            self.at(done, self.finish, reader)
            return
        self.at(time + setting.latency_s, self.serve, reader, left)

    def serve(self, time, reader, left):
        """The storage serves a request when it is through with others."""
        setting = self.setting
        size = min(left, setting.request_bytes)
        start = max(time, self.storage_free)
        self.storage_free = start + size / setting.bandwidth
        self.storage_busy += size / setting.bandwidth
        end = max(self.storage_free, start + size / setting.stream_bandwidth)
        self.at(end, self.request, reader, left - size)

    def finish(self, time, reader):
        """A batch is ready."""
        self.ready[reader].append(time)
        self.advance(time)
        self.begin(time, reader)

    def advance(self, time):
        """Ranks take batches that are ready; a step begins where all have."""
        setting = self.setting
        for rank in range(setting.ranks):
            reader = rank * setting.readers + self.step % setting.readers
            if self.took[rank] > self.step or not self.ready[reader]:
                continue
            if time < self.free:
                continue
            self.ready[reader].pop(0)
            self.took[rank] += 1
            self.taken[reader] += 1
            if self.idle[reader]:
                self.begin(time, reader)
        if min(self.took) > self.step:
            self.starts.append(time)
            self.step += 1
            self.free = time + setting.step_s
            self.ends.append(self.free)
            self.at(self.free, self.advance)


def predict(setting: Setting) -> Prediction:
    """Simulates a setting."""
    loader = _Loader(setting)
    loader.run()
    starts, ends = loader.starts, loader.ends
    steps = setting.batches * setting.readers
    assert len(starts) == steps, "every batch has a step"
    stalls = sum(b - a for a, b in zip(ends, starts[1:]))
    rest = ends[-1] - starts[0]
    audio = steps * setting.ranks * setting.batch_s
    share = loader.storage_busy / ends[-1]
    if stalls < 0.02 * rest:
        limit = "training"
    else:
        limit = "storage" if share > 0.9 else "reader"
    return Prediction(ends[-1], starts[0], stalls, audio / rest, share, limit)


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4])
    for name, default in Setting._field_defaults.items():
        if name not in ("ranks", "readers"):
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, type=type(default), default=default)
    options = vars(parser.parse_args())
    ranks, readers = options.pop("ranks"), options.pop("readers")
    print("| ranks | readers | audio s per s | first batch (s) | stalls | "
          "storage busy | limit |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for number, count in itertools.product(ranks, readers):
        found = predict(Setting(ranks=number, readers=count, **options))
        rest = found.seconds - found.first_batch_s
        print(
            f"| {number} | {count} | {found.audio_per_s:.0f} | "
            f"{found.first_batch_s:.2f} | {found.stall_s / rest:.1%} | "
            f"{found.storage_share:.0%} | {found.limit} |"
        )


if __name__ == "__main__":
    main()
