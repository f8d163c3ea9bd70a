"""The models behind the service, and how an upload becomes a result."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, UploadFile
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from unispeech_sb.atomic import remove, temporary_folder, temporary_path
from unispeech_sb.dataio.audio import AudioError, decode, naming
from unispeech_sb.inference.loading import CheckedFolder
from unispeech_sb.serve.answers import ApiError, not_stored
from unispeech_sb.serve.guard import Metrics
from unispeech_sb.serve.workers import Limits, ModelWorker

TASKS = ("transcribe", "diarize", "classify", "embed")
"""What models are served for: the first part of ``files_method``."""
_OPENAI_MODEL = "whisper-1"
"""What clients of OpenAI ask for by default: here the first recognizer."""
_READERS = 2
"""Uploads that are checked at a time."""
_LONGEST_NAME = 100


class Service:
    """The models, and what all requests share."""

    def __init__(
        self,
        models: Mapping[str, CheckedFolder],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.limits, self.metrics = limits, metrics
        self.created = int(time.time())
        self.workers = {
            name: ModelWorker(name, model, limits.queue)
            for name, model in models.items()
        }
        for worker in self.workers.values():
            if worker.task not in TASKS:
                raise ValueError(
                    f"{worker.name}: expected a model that can "
                    f"{', '.join(TASKS)}; it can {worker.task}"
                )
        self.readers = ThreadPoolExecutor(_READERS, "reader")
        self.streamers = ThreadPoolExecutor(limits.streams, "stream")
        self.streams = 0
        metrics.registry.register(self)
        self.folder = Path(tempfile.gettempdir())

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The time in which the service answers; then nothing of it is left."""
        place = Path(tempfile.gettempdir(), "unispeech-sb-serve")
        with temporary_folder(place) as self.folder:
            try:
                yield
            finally:
                for worker in self.workers.values():
                    worker.stop()
                self.readers.shutdown(wait=False, cancel_futures=True)
                self.streamers.shutdown(wait=False, cancel_futures=True)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads of the models."""
        jobs = GaugeMetricFamily(
            "unispeech_sb_jobs", "Waiting or running", labels=["model"]
        )
        busy = CounterMetricFamily(
            "unispeech_sb_model_seconds", "Seconds of work", labels=["model"]
        )
        for worker in self.workers.values():
            jobs.add_metric([worker.name], worker.jobs)
            busy.add_metric([worker.name], worker.busy_s)
        streams = "unispeech_sb_streams"
        yield from (
            jobs, busy, GaugeMetricFamily(streams, "WebSockets", self.streams)
        )  # fmt: skip

    def worker(self, name: str | None, task: str) -> ModelWorker:
        """The model of a name, or the first one for a task."""
        fitting = [w for w in self.workers.values() if w.task == task]
        found = self.workers.get(name or "")
        if found in fitting:
            return found
        any_fits = not name or (name == _OPENAI_MODEL and task == "transcribe")
        if any_fits and fitting:
            return fitting[0]
        there = ", ".join(w.name for w in fitting) or "(none)"
        got = f"{name!r:.60}" if name else "none"
        raise ApiError(
            404,
            f"model: expected one that can {task}: {there}; got {got}",
            "model",
            "model_not_found",
        )

    def entry(self, worker: ModelWorker) -> dict[str, Any]:
        """A model as OpenAI's list has it, and what the page needs."""
        calibration = getattr(worker.model, "calibration", None)
        return {
            "id": worker.name,
            "object": "model",
            "created": self.created,
            "owned_by": "unispeech_sb",
            "task": worker.task,
            "languages": getattr(worker.model, "languages", []),
            "calibrated": calibration is not None,
        }

    async def answer(
        self,
        request: Request,
        uploads: list[UploadFile],
        worker: ModelWorker,
        work: Callable[..., Any],
    ) -> Any:
        """Gives ``work(check, *paths)`` of a model's worker; it is dropped
        when the client goes away."""
        task = asyncio.ensure_future(
            self._run(request.scope["deadline"], uploads, worker, work)
        )
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                (task, gone), return_when=asyncio.FIRST_COMPLETED
            )
            if not task.done():
                raise ApiError(499, "the client is gone")
            return task.result()
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _run(self, deadline, uploads, worker, work):
        """Runs a job on uploads, which are files as long as it does."""
        loop, names = asyncio.get_running_loop(), {}
        try:
            for upload in uploads:
                path = temporary_path(self.folder / "upload")
                names[path] = name_of(upload)
                # Made here, as a thread may do so after it was removed
                path.touch()
                seconds = await loop.run_in_executor(
                    self.readers, _keep, upload, path, self.limits.audio_s
                )
                self.metrics.audio.labels(worker.name).inc(seconds)
            return await worker.run(
                lambda check: work(check, *names), deadline - time.monotonic()
            )
        except (AudioError, ValueError) as error:
            text = str(error)
            for path, name in names.items():
                text = text.replace(str(path), name)
            param = "file" if isinstance(error, AudioError) else None
            raise ApiError(400, text, param) from None
        except OSError as error:
            raise not_stored() from error
        finally:
            for path in names:
                remove(path)


def _keep(upload, path, most_s):
    """Writes an upload to a file; gives its seconds, and raises where it is no
    recording or has too many."""
    with open(path, "r+b") as file:
        shutil.copyfileobj(upload.file, file)
    upload.file.close()
    with naming(path):
        count, (rate, blocks) = 0, decode(path)
        for block in blocks:
            count += len(block)
            if count > most_s * rate:
                raise AudioError(
                    f"{path}: expected a recording of at most {most_s:g} s; "
                    "it is longer"
                )
    return count / rate


async def _disconnected(request):
    """Returns when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def name_of(upload: UploadFile) -> str:
    """What a client calls a file, without folders and control characters."""
    name = (upload.filename or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(char for char in name if char.isprintable())
    return shown[-_LONGEST_NAME:] or "upload"


def only(results: Any) -> Any:
    """The result of the one file of a method for many; raises its error."""
    ((_, found),) = results
    if isinstance(found, AudioError):
        raise found
    return found
