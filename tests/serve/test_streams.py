"""Recordings that go on, by WebSocket."""

import threading

import numpy as np
import pytest
import torch

from tests.inference.models import recognizer, uneven_speech
from unispeech_sb.serve.app import create_app
from unispeech_sb.serve.streams import live_words
from unispeech_sb.serve.workers import FairLock, Limits

testclient = pytest.importorskip("fastapi.testclient")
websockets = pytest.importorskip("starlette.websockets")


def samples_of(wav):
    """16-bit samples, and what the model makes of them."""
    integers = (wav * 32767).round().clamp(-32768, 32767).short()
    return integers.numpy().tobytes(), integers.float() / 2**15


def converse(client, task, content, size, **start):
    """Sends a recording in messages of ``size`` bytes; gives all answers."""
    with client.websocket_connect(f"/stream/{task}") as socket:
        socket.send_json({"rate": 16000, **start})
        answers = [socket.receive_json()]
        for place in range(0, len(content), size):
            socket.send_bytes(content[place : place + size])
        socket.send_json({"type": "end"})
        while answers[-1]["type"] not in ("final", "error"):
            answers.append(socket.receive_json())
        with pytest.raises(websockets.WebSocketDisconnect) as caught:
            socket.receive_json()
    return answers, caught.value.code


@pytest.fixture(scope="module")
def speech():
    """A recording of three seconds."""
    return uneven_speech(3.0).clamp(-1, 1)


@pytest.mark.parametrize("size", [3200, 12346, 96000])
def test_words_are_those_of_the_interface(size, client, models, speech):
    content, wav = samples_of(speech)
    answers, code = converse(client, "transcribe", content, size)
    expected = models["asr"](wav)
    assert answers[0] == {"type": "ready", "model": "asr"} and code == 1000
    words = [answer for answer in answers if answer["type"] == "word"]
    assert [word["word"] for word in words] == [
        word.text for word in expected.words
    ]
    assert [word["start"] for word in words] == [
        word.start_s for word in expected.words
    ]
    assert answers[-1] == {
        "type": "final", "text": expected.text, "duration": 3.0,
    }  # fmt: skip


def test_segments_are_those_of_the_interface(client, models, speech):
    content, wav = samples_of(speech)
    answers, code = converse(client, "diarize", content, 4000, delay_s=2)
    expected = list(models["diarization"].diarize_stream(wav, delay_s=2))
    found = [a for a in answers if a["type"] == "segment"]
    assert [{**turn._asdict(), "type": "segment"} for turn in expected] == found
    assert found and answers[-1]["duration"] == 3.0 and code == 1000


def test_other_rates_are_resampled(client, models, speech):
    wav = torch.nn.functional.interpolate(speech[None, None], scale_factor=0.5)[
        0, 0
    ]
    content, half = samples_of(wav)
    answers, _ = converse(client, "transcribe", content, 4000, rate=8000)
    expected = models["asr"](half, sample_rate=8000)
    assert answers[-1]["text"] == expected.text
    assert answers[-1]["duration"] == 3.0


def test_long_recordings_give_the_words_of_the_interface():
    asr, wav = recognizer(window_s=4.0, context_s=0.5), uneven_speech(11.0)
    expected = list(asr.transcribe_stream(wav.split(8000)))
    for size in (1600, 7001, len(wav)):
        found = []
        live_words(asr, wav.split(size), found.append)
        words = [event for event in found if event["type"] == "word"]
        assert [word["word"] for word in words] == [w.text for w in expected]
        assert [word["start"] for word in words] == [
            word.start_s for word in expected
        ]
        assert found[-1] == {
            "type": "final",
            "text": " ".join(word.text for word in expected),
            "duration": 11.0,
        }


def test_partial_text_comes_with_each_block():
    asr, wav, events = recognizer(), uneven_speech(3.0), []

    def coming():
        for number, block in enumerate(wav.split(16000)):
            assert len(events) == number
            yield block

    live_words(asr, coming(), events.append)
    assert [event["type"] for event in events[:3]] == ["partial"] * 3
    assert events[1] == {
        "type": "partial", "text": asr(wav[:32000]).text,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "start", "said"),
    [
        ("transcribe", {"rate": 5}, "rate: expected 1000 to 384000 Hz; got 5"),
        ("transcribe", {"rate": "fast"}, "rate: got 'fast'"),
        ("transcribe", {"rate": True}, "rate: got True"),
        ("transcribe", {"model": "gpt"}, "can transcribe: asr; got 'gpt'"),
        ("transcribe", {"delay_s": 2}, "expected key, model, rate or language"),
        ("diarize", {"delay_s": 0}, "delay_s: expected at least"),
        ("diarize", {"max_speakers": 0}, "speakers"),
        ("classify", {}, "expected transcribe or diarize; got 'classify'"),
    ],
)
def test_a_start_that_does_not_fit_is_named(task, start, said, client):
    with client.websocket_connect(f"/stream/{task}") as socket:
        socket.send_json({"rate": 16000, **start})
        answers = [socket.receive_json()]
        if answers[0]["type"] == "ready":
            socket.send_bytes(bytes(64000))
            socket.send_json({"type": "end"})
            answers.append(socket.receive_json())
        assert answers[-1]["type"] == "error"
        assert said in answers[-1]["message"]
        with pytest.raises(websockets.WebSocketDisconnect) as caught:
            socket.receive_json()
        assert caught.value.code == 1003


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([b"\0"], "before any samples"),
        (["no json"], "before any samples"),
        (["[]"], "before any samples"),
        (['{"rate": 16000}', b"\0\0\0"], "half a one"),
        (['{"rate": 16000}', "{}"], "too short"),
        (['{"rate": 16000}', bytes(3200 * 30)], "at most 2 s"),
    ],
)
def test_messages_that_do_not_fit_are_named(sent, said, models):
    app = create_app(models, Limits(audio_s=2))
    with (
        testclient.TestClient(app) as client,
        client.websocket_connect("/stream/transcribe") as socket,
    ):
        for message in sent:
            if isinstance(message, bytes):
                socket.send_bytes(message)
            else:
                socket.send_text(message)
        answer = socket.receive_json()
        while answer["type"] != "error":
            answer = socket.receive_json()
        assert said in answer["message"]


def test_the_key_is_asked_for(models, speech):
    content, _ = samples_of(speech)
    app = create_app(models, key="secret")
    with testclient.TestClient(app) as client:
        for start in ({}, {"key": "wrong"}):
            answers, code = converse(client, "transcribe", b"", 1, **start)
            assert answers[0]["code"] == "invalid_api_key" and code == 1008
        answers, _ = converse(client, "transcribe", content, 9600, key="secret")
        assert answers[-1]["type"] == "final"


def test_pages_of_other_sites_get_no_socket(client):
    origin = {"origin": "http://evil.example"}
    with (
        pytest.raises(websockets.WebSocketDisconnect),
        client.websocket_connect("/stream/transcribe", headers=origin),
    ):
        pass


def test_a_fast_stream_lets_others_into_the_model():
    lock, order = FairLock(), []
    waits = threading.Event()

    def other():
        waits.set()
        with lock:
            order.append("other")

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(60)
        while not lock.is_awaited:
            pass
        with lock.given_back():
            order.append("stream gives back")
        order.append("stream goes on")
    thread.join()
    assert order[-2:] == ["other", "stream goes on"]


def test_streams_have_a_limit_and_hold_up_nobody(models, recording):
    app = create_app(models, Limits(streams=1))
    with testclient.TestClient(app) as client:
        with client.websocket_connect("/stream/transcribe") as first:
            first.send_json({"rate": 16000})
            assert first.receive_json()["type"] == "ready"
            with client.websocket_connect("/stream/transcribe") as second:
                second.send_json({"rate": 16000})
                assert second.receive_json()["code"] == "busy"
            files = {"file": ("talk.wav", recording.read_bytes())}
            answer = client.post(
                "/v1/audio/transcriptions", files=files, data={"model": "asr"}
            )
            assert answer.json()["text"] == models["asr"](recording).text
            first.send_bytes(np.zeros(8000, np.int16).tobytes())
        # A client that leaves gives its place back, if not at once
        content = np.ones(16000, np.int16).tobytes()
        for _ in range(100):
            answers, _ = converse(client, "transcribe", content, len(content))
            if answers[-1]["type"] == "final":
                break
        assert answers[-1]["type"] == "final"
