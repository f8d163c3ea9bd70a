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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fastapi import WebSocket, WebSocketDisconnect

from unispeech_sb.dataio.audio import RATES, AudioError
from unispeech_sb.decoding import Word
from unispeech_sb.inference import LongFormASR, SpeakerDiarization
from unispeech_sb.serve.answers import (
    ApiError,
    check_language,
    expect_one_of,
    word_entry,
)
from unispeech_sb.serve.guard import bearer, check_key
from unispeech_sb.serve.service import Service
from unispeech_sb.serve.workers import Dropped, LiveAudio

_WINDOW_S = 15.0
"""Most seconds that words are looked for in at a time."""
_IDLE_S = 60.0
"""Seconds without a message after which a client counts as gone."""
_MOST_WAITING = 50
"""Messages that may wait for the model; the next ones wait in the network."""
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


def live_words(
    asr: LongFormASR,
    blocks: Iterable[torch.Tensor],
    window_s: float = _WINDOW_S,
    prepare: Callable[[], object] = bool,
) -> Iterator[dict[str, Any]]:
    """Yields what is known of the words of a recording while it goes on.

    A recording up to ``window_s`` gives the words of ``transcribe_long``. A
    longer one is cut between words, each part with ``asr.context_s`` of the one
    before, and normalised by itself; where it is cut does not depend on the
    blocks. ``prepare`` is called each time before the model is used.
    """
    rate = asr.audio_normalizer.sample_rate
    size = round(min(window_s, asr.window_s) * rate)
    context = min(round(asr.context_s * rate), size // 4)
    held, begin, first = torch.zeros(0), 0, 0  # begin of held, first new sample
    texts: list[str] = []

    def words_of(wav):
        """New words, their times in the whole; and what is between words."""
        prepare()
        found, start_s = asr.transcribe_long(wav), begin / rate
        words = [
            replace(
                word,
                start_s=round(start_s + word.start_s, 6),
                end_s=round(start_s + word.end_s, 6),
            )
            for word in found.words
        ]
        return [w for w in words if _middle(w, rate) >= first], found.separator

    def known(words):
        """Events of words that do not change any more."""
        texts.extend(word.text for word in words)
        return [{"type": "word", **word_entry(word)} for word in words]

    for block in blocks:
        held = torch.cat([held, block])
        while len(held) >= size:
            words, _ = words_of(held[:size])
            cut = _cut(words, begin + size // 2, begin + size - context, rate)
            yield from known([w for w in words if _middle(w, rate) < cut])
            held, begin = held[cut - context - begin :], cut - context
            first = cut
        if begin + len(held) - first >= context:
            words, between = words_of(held)
            text = between.join(word.text for word in words)
            yield {"type": "partial", "text": text}
    words, between = words_of(held)
    yield from known(words)
    seconds = round((begin + len(held)) / rate, 6)
    yield {"type": "final", "text": between.join(texts), "duration": seconds}


def _middle(word, rate):
    """The sample in the middle of a word."""
    return (word.start_s + word.end_s) / 2 * rate


def _cut(words: Sequence[Word], least: int, most: int, rate: int) -> int:
    """The sample between the last two words up to ``most``, that where there
    are none after ``least``."""
    count = sum(word.end_s * rate <= most for word in words)
    if not 0 < count < len(words):
        return most
    cut = round((words[count - 1].end_s + words[count].start_s) / 2 * rate)
    return cut if least < cut < most else most


def live_segments(
    diarization: SpeakerDiarization, audio: LiveAudio, **options: Any
) -> Iterator[dict[str, Any]]:
    """Yields who speaks when while a recording goes on."""
    for turn in diarization.diarize_stream(audio, **options):
        yield {"type": "segment", **turn._asdict()}
    yield {"type": "final", "duration": round(audio.duration_s, 6)}


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
    audio, events = _begin(worker, start)
    if service.streams >= service.limits.streams:
        raise ApiError(
            503, "too many streams at a time; try again later", code="busy"
        )
    loop, found = asyncio.get_running_loop(), asyncio.Queue()
    emit = partial(loop.call_soon_threadsafe, found.put_nowait)
    service.streams += 1
    job = loop.run_in_executor(
        service.streamers, _produce, worker.lock, events, emit
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
    """Samples to come, and what will be found in them."""
    rate, (least, most) = start.pop("rate", 0), RATES
    if not least <= rate <= most:
        raise ApiError(
            400, f"rate: expected {least} to {most} Hz; got {rate}", "rate"
        )
    model = worker.model
    audio = LiveAudio(worker.lock, rate, model.audio_normalizer.sample_rate)
    if worker.task == "diarize":
        return audio, live_segments(model, audio, **start)
    language = start.get("language")
    check_language(language, model.languages)
    prepare = partial(worker.set_language, language)
    return audio, live_words(model, audio, prepare=prepare)


def _produce(lock, events, emit):
    """Runs in a thread: emits events, with the model for itself but for the
    time in which ``LiveAudio`` waits."""
    with lock, contextlib.suppress(Dropped):
        for event in events:
            emit(event)


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
        while audio.waiting > _MOST_WAITING:
            await asyncio.sleep(_PAUSE_S)


async def _send(socket, found):
    """Sends what is found."""
    while (event := await found.get()) is not None:
        await socket.send_json(event)
