"""One worker for each model: jobs run one at a time, in a thread of their own.

A recording is alone in the model, as in a command, so that no answer depends
on who else asks. A job that nobody waits for is dropped: from the queue at
once, from the model after the batch, window or block that it is in.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from unispeech_sb.dataio.audio import Resampler
from unispeech_sb.inference.loading import CheckedFolder
from unispeech_sb.serve.answers import ApiError

_STEP_S = 0.5
"""Least seconds of a stream that go through a model at a time."""
MOST_WAITING_S = 10.0
"""Seconds of a stream that may wait for the model, and go through it at a time;
what follows waits in the network."""
_LONGEST_WAIT_S = 60


class Limits(NamedTuple):
    """What a request may take.

    Arguments
    ---------
    upload_bytes : int
        Most bytes of a request.
    audio_s : float
        Most seconds of a recording, or of a stream.
    request_s : float
        Most seconds from the first byte of a request to its answer.
    queue : int
        Most requests that a model has, waiting or running.
    streams : int
        Most WebSockets at a time.
    """

    upload_bytes: int = 100 * 2**20
    audio_s: float = 3600.0
    request_s: float = 600.0
    queue: int = 64
    streams: int = 4


class Dropped(Exception):
    """Nobody waits for the result any more. Of no class that stands for a
    fault of a recording."""


class FairLock:
    """A lock that who gives it back cannot have again before one who waits, so
    that a stream holds up nobody, however fast its samples come."""

    def __init__(self) -> None:
        self._lock, self._next = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._next:  # the one who waits has it
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it, or is about to have it."""
        return self._next.locked()

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Without it for a while."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


class ModelWorker:
    """A model and its queue.

    Arguments
    ---------
    name : str
        What clients call the model.
    model : CheckedFolder
        An interface, as ``unispeech_sb.load`` gives it.
    queue_size : int
        Most jobs, waiting or running.
    """

    def __init__(
        self, name: str, model: CheckedFolder, queue_size: int
    ) -> None:
        self.name, self.model = name, model
        self.task = model.files_method.removesuffix("_files")
        self.lock = FairLock()
        self._language: str | None = None
        self.jobs, self.busy_s = 0, 0.0
        self._size, self._done = queue_size, 0
        self._counting = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(1, f"model {name}")

    async def run(
        self, work: Callable[[Callable[..., None]], Any], seconds: float
    ) -> Any:
        """Gives what ``work`` gives, which is called with a function that
        raises where nobody waits any more.

        Raises
        ------
        ApiError
            503 where the queue is full, 504 where it takes too many seconds.
        """
        with self._counting:
            if self.jobs >= self._size:
                raise self._full()
            self.jobs += 1
        gone = threading.Event()
        job = self._pool.submit(self._alone, work, gone)
        job.add_done_callback(self._count)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), seconds)
        except asyncio.TimeoutError:
            raise ApiError(
                504,
                f"{self.name}: no answer within the time that a request may "
                "take; give less, or ask later",
                code="timeout",
            ) from None
        finally:
            gone.set()

    def set_language(self, language: str | None) -> None:
        """Switches a model of several languages, in a job."""
        if language != self._language and getattr(self.model, "languages", []):
            self.model.set_language(language)
            self._language = language

    def stop(self) -> None:
        """Drops all jobs."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _alone(self, work, gone):
        """Runs a job while nothing else is in the model."""

        def check(*_: object) -> None:
            if gone.is_set() or self._stopped.is_set():
                raise Dropped

        check()
        with self.lock:
            check()
            start = time.monotonic()
            try:
                return work(check)
            finally:
                self.busy_s += time.monotonic() - start
                self._done += 1

    def _count(self, _):
        """A job has ended."""
        with self._counting:
            self.jobs -= 1

    def _full(self):
        """The error of a full queue."""
        mean_s = self.busy_s / self._done if self._done else 1.0
        wait_s = math.ceil(min(max(self.jobs * mean_s, 1), _LONGEST_WAIT_S))
        return ApiError(
            503,
            f"{self.name}: {self.jobs} requests are waiting already; try again "
            f"in {wait_s} s",
            code="queue_full",
            retry_after=wait_s,
        )


class LiveAudio:
    """Samples that a client sends while a model runs in another thread.

    The thread that iterates has the lock of the model, and gives it back while
    it waits for samples, so that a stream holds up nobody.

    Arguments
    ---------
    lock : FairLock
        Of the model.
    rate : int
        Sampling rate of what comes, in Hz.
    model_rate : int
        Sampling rate of the blocks, in Hz.
    """

    def __init__(self, lock: FairLock, rate: int, model_rate: int) -> None:
        self.rate, self.num_samples = rate, 0
        self._lock, self._model_rate = lock, model_rate
        self._queue: queue.SimpleQueue[torch.Tensor | None] = (
            queue.SimpleQueue()
        )
        self._dropped, self._num_taken = False, 0

    @property
    def duration_s(self) -> float:
        """Seconds that have come."""
        return self.num_samples / self.rate

    @property
    def waiting_s(self) -> float:
        """Seconds that the model has not got to."""
        return (self.num_samples - self._num_taken) / self.rate

    def put(self, content: bytes) -> None:
        """Takes samples: 16-bit integers, little-endian."""
        samples = np.frombuffer(content, "<i2").astype(np.float32) / 2**15
        self.num_samples += len(samples)
        self._queue.put(torch.from_numpy(samples))

    def end(self) -> None:
        """The recording is over."""
        self._queue.put(None)

    def drop(self) -> None:
        """The client is gone."""
        self._dropped = True
        self._queue.put(None)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yields the samples at the model's rate, in blocks."""
        resampler, is_over = Resampler(self.rate, self._model_rate), False
        while not is_over:
            blocks, is_over = self._taken()
            parts = [resampler.push(block) for block in blocks]
            if is_over:
                parts.append(resampler.finish())
            found = torch.cat(parts)
            if len(found):
                yield found

    def _taken(self):
        """What has come, half a second at least; whether that is the end."""
        blocks, count = [], 0
        with self._lock.given_back():
            while count < _STEP_S * self.rate or (
                count < MOST_WAITING_S * self.rate and not self._queue.empty()
            ):
                block = self._queue.get()
                if self._dropped:
                    raise Dropped
                if block is None:
                    return blocks, True
                blocks.append(block)
                count += len(block)
                self._num_taken += len(block)
        return blocks, False
