"""Recordings that go on, by WebSocket.

The client sends a text message with JSON: ``rate`` (Hz) and, where they apply,
``key``, ``model``, ``language``, ``delay_s`` and ``max_speakers``; then binary
messages of 16-bit samples, one channel, little-endian; then the text message
``{"type": "end"}``. It gets JSON: ``ready``; ``partial``, ``word`` or
``segment`` as they are known; ``final``, or ``error``.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from fastapi import WebSocket, WebSocketDisconnect

from unispeech_sb.dataio.audio import RATES, AudioError
from unispeech_sb.decoding.words import TokenToWordMapping
from unispeech_sb.inference import LongFormASR, SpeakerDiarization
from unispeech_sb.serve.answers import (
    ApiError,
    check_language,
    expect_one_of,
    word_entry,
)
from unispeech_sb.serve.guard import bearer, check_key
from unispeech_sb.serve.service import Service
from unispeech_sb.serve.workers import MOST_WAITING_S, Dropped, LiveAudio

_IDLE_S = 60.0
"""Seconds without a message after which a client counts as gone."""
_PAUSE_S = 0.02
_CLOSED = {401: 1008, 503: 1013}
"""Status of HTTP -> code of a WebSocket; 1003 for others, of data that do not
fit."""
_OPTIONS = {
    "key": str,
    "model": str,
    "rate": int,
    "language": str,
    "delay_s": (int, float),
    "max_speakers": int,
}
"""What a first message may have, and of which type."""
_STARTS = {
    "transcribe": ("key", "model", "rate", "language"),
    "diarize": ("key", "model", "rate", "delay_s", "max_speakers"),
}
"""Task -> options."""


Emit = Callable[[dict[str, Any]], object]
"""What takes the messages for a client."""


def live_words(
    asr: LongFormASR,
    blocks: Iterable[torch.Tensor],
    emit: Emit,
    prepare: Callable[[], object] = bool,
) -> None:
    """Emits what ``transcribe_stream`` finds while a recording goes on.

    ``prepare`` is called each time before the model is used.
    """
    texts: list[str] = []
    num_samples = 0

    def coming():
        nonlocal num_samples
        for block in blocks:
            prepare()
            num_samples += len(block)
            yield block
        prepare()

    def on_partial(text):
        emit({"type": "partial", "text": text})

    prepare()
    between = TokenToWordMapping(asr.tokenizer).separator
    for word in asr.transcribe_stream(coming(), on_partial):
        texts.append(word.text)
        emit({"type": "word", **word_entry(word)})
    seconds = round(num_samples / asr.audio_normalizer.sample_rate, 6)
    emit({"type": "final", "text": between.join(texts), "duration": seconds})


def live_segments(
    diarization: SpeakerDiarization,
    audio: LiveAudio,
    emit: Emit,
    **options: Any,
) -> None:
    """Emits who speaks when while a recording goes on."""
    for turn in diarization.diarize_stream(audio, **options):
        emit({"type": "segment", **turn._asdict()})
    emit({"type": "final", "duration": round(audio.duration_s, 6)})


async def answer_stream(
    socket: WebSocket, task: str, service: Service, key: str | None
) -> None:
    """Answers a client until its recording is over, or it is gone."""
    await socket.accept()
    try:
        await _converse(socket, task, service, key)
        await socket.close()
        return
    except WebSocketDisconnect:
        return
    except ApiError as caught:
        error = caught
    except (AudioError, ValueError) as caught:
        error = ApiError(400, str(caught))
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({**error.content, "type": "error"})
        await socket.close(_CLOSED.get(error.status_code, 1003))


async def _converse(socket, task, service, key):
    """Takes samples and sends what is found in them."""
    start = await _first_message(socket, task)
    given = start.pop("key", None) or bearer(socket.headers)
    check_key(given, key)
    worker = service.worker(start.pop("model", None), task)
    audio, work = _begin(worker, start)
    if service.streams >= service.limits.streams:
        raise ApiError(
            503, "too many streams at a time; try again later", code="busy"
        )
    loop, found = asyncio.get_running_loop(), asyncio.Queue()
    emit = partial(loop.call_soon_threadsafe, found.put_nowait)
    service.streams += 1
    job = loop.run_in_executor(
        service.streamers, _produce, worker.lock, work, emit
    )

    def ended(job):
        service.streams -= 1
        found.put_nowait(None)
        job.cancelled() or job.exception()

    job.add_done_callback(ended)
    await socket.send_json({"type": "ready", "model": worker.name})
    reader = asyncio.ensure_future(_read(socket, audio, service.limits))
    sender = asyncio.ensure_future(_send(socket, found))
    try:
        await asyncio.wait(
            (reader, sender), return_when=asyncio.FIRST_COMPLETED
        )
        if not sender.done():
            reader.result()
            await asyncio.wait_for(sender, service.limits.request_s)
        sender.result()
        await job
    except asyncio.TimeoutError:
        raise ApiError(504, "no answer in time", code="timeout") from None
    finally:
        audio.drop()
        reader.cancel()
        sender.cancel()
        await asyncio.gather(reader, sender, return_exceptions=True)


async def _first_message(socket, task):
    """What the client asks for."""
    if task not in _STARTS:
        raise ApiError(404, f"expected transcribe or diarize; got {task!r:.60}")
    message = await _receive(socket)
    try:
        start = json.loads(message.get("text") or "")
    except ValueError:
        start = None
    if not isinstance(start, dict):
        raise ApiError(400, "expected a text message with JSON, such as "
                       '{"rate": 16000}, before any samples')  # fmt: skip
    for name, value in start.items():
        expect_one_of("message", name, _STARTS[task])
        if not isinstance(value, _OPTIONS[name]) or isinstance(value, bool):
            raise ApiError(400, f"{name}: got {value!r:.60}", name)
    return start


def _begin(worker, start):
    """Samples to come, and what looks for something in them and emits it."""
    rate, (least, most) = start.pop("rate", 0), RATES
    if not least <= rate <= most:
        raise ApiError(
            400, f"rate: expected {least} to {most} Hz; got {rate}", "rate"
        )
    model = worker.model
    audio = LiveAudio(worker.lock, rate, model.audio_normalizer.sample_rate)
    if worker.task == "diarize":
        return audio, partial(live_segments, model, audio, **start)
    language = start.get("language")
    check_language(language, model.languages)
    prepare = partial(worker.set_language, language)
    return audio, partial(live_words, model, audio, prepare=prepare)


def _produce(lock, work, emit):
    """Runs in a thread, with the model for itself but for the time in which
    ``LiveAudio`` waits."""
    with lock, contextlib.suppress(Dropped):
        work(emit=emit)


async def _receive(socket):
    """The next message; raises where the client is gone."""
    try:
        message = await asyncio.wait_for(socket.receive(), _IDLE_S)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"no message within {_IDLE_S:g} s", code="timeout"
        ) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    return message


async def _read(socket, audio, limits):
    """Takes samples up to the end of the recording."""
    while True:
        message = await _receive(socket)
        content = message.get("bytes")
        if content is None:
            audio.end()
            return
        if len(content) % 2:
            raise ApiError(400, "expected samples of 16 bits; got half a one")
        audio.put(content)
        if audio.duration_s > limits.audio_s:
            raise ApiError(
                400,
                f"expected a recording of at most {limits.audio_s:g} s",
                code="too_long",
            )
        while audio.waiting_s > MOST_WAITING_S:
            await asyncio.sleep(_PAUSE_S)


async def _send(socket, found):
    """Sends what is found."""
    while (event := await found.get()) is not None:
        await socket.send_json(event)
