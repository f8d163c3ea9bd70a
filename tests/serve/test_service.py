"""The service: tasks, limits, the queue, clients that go, who may ask."""

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile
import torch

from tests.inference.hostile import hostile_files
from tests.inference.models import uneven_speech
from tests.serve.conftest import running
from unispeech_sb.inference.classification import Classification, LabelScore
from unispeech_sb.serve.app import create_app
from unispeech_sb.serve.workers import Limits

testclient = pytest.importorskip("fastapi.testclient")


@pytest.fixture
def sent(recording):
    """The file of a request."""
    return {"file": ("talk.wav", recording.read_bytes())}


@pytest.fixture
def folder(client):
    """Where uploads are, which has to be empty after a test."""
    found = client.app.state.service.folder
    yield found
    assert list(found.iterdir()) == []


def error_of(answer):
    """The sentence of an error."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return error["message"]


class Gate:
    """A classifier that waits until it may go on."""

    files_method = "classify_files"

    def __init__(self):
        self.started, self.release = threading.Event(), threading.Event()
        self.ended = threading.Event()
        self.count = 0

    def classify_files(self, paths, top_k=None, on_progress=None):
        """As ``UtteranceClassifier``."""
        self.count += 1
        self.started.set()
        try:
            assert self.release.wait(60)
            on_progress(1.0)
            yield paths[0], Classification((LabelScore("yes", 1.0),), 1.0)
        finally:
            self.ended.set()


def test_classes_are_those_of_the_interface(
    client, models, recording, sent, folder
):
    found = client.post("/classify", files=sent).json()
    expected = models["keywords"](recording)
    assert found["name"] == "talk.wav"
    assert found["classes"] == [one._asdict() for one in expected.classes]
    answer = client.post(
        "/classify", files=sent, data={"top_k": 1, "response_format": "csv"}
    )
    header, row = answer.text.splitlines()
    assert header == "name,rank,label,posterior"
    assert row.startswith(f"talk.wav,1,{expected.label},")


def test_segments_are_those_of_the_interface(
    client, models, recording, sent, folder
):
    for options in ({}, {"exclusive": "true"}, {"num_speakers": 2}):
        found = client.post("/diarize", files=sent, data=options).json()
        given = {k: v if k[0] == "n" else True for k, v in options.items()}
        expected = models["diarization"](recording, **given)
        assert found == json.loads(expected.to_json())
        assert found["segments"]
    rttm = client.post(
        "/diarize", files=sent, data={"response_format": "rttm"}
    ).text
    assert rttm == models["diarization"](recording).to_rttm()


def test_speakers_are_those_of_the_interface(
    client, models, recording, tmp_path, folder
):
    other = tmp_path / "other.wav"
    soundfile.write(other, torch.randn(16000).numpy() / 10, 16000)
    files = [
        ("file", (path.name, path.read_bytes())) for path in (recording, other)
    ]
    found = client.post("/embed", files=files[:1]).json()
    vector = models["speakers"](recording).vector
    assert torch.equal(torch.tensor(found["embedding"]), vector)
    found = client.post("/verify", files=files).json()
    expected = models["speakers"].verify(recording, other)
    assert found == expected._asdict()
    found = client.post("/verify", files=files, data={"threshold": -1}).json()
    assert found["same"] is True and found["threshold"] == -1
    answer = client.post("/verify", files=files[:1])
    assert "expected two recordings; got 1" in error_of(answer)
    answer = client.post(
        "/verify", files=files, data={"threshold": 0, "p_target": 0.5}
    )
    assert answer.status_code == 400
    assert "p_target or threshold" in error_of(answer)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/classify", {}), ("/diarize", {}), ("/embed", {}),
        ("/v1/audio/transcriptions", {"model": "asr"}),
    ],
)  # fmt: skip
def test_no_recording_is_more_than_an_error(
    path, data, client, tmp_path, folder
):
    there = {
        name: said
        for name, said in hostile_files(tmp_path).items()
        if said != "there is no such file"
    }
    assert len(there) > 10
    for name, said in there.items():
        with open(name, "rb") as file:
            upload = {"file": ("../a/b\\c\x1bd.wav", file.read())}
        answer = client.post(path, files=upload, data=data)
        if said:
            assert answer.status_code == 400, name
            assert error_of(answer).startswith("cd.wav: ")
            assert said in error_of(answer)
            assert answer.json()["error"]["param"] == "file"
        else:
            assert answer.status_code == 200, (name, answer.text)


@pytest.mark.parametrize(
    ("path", "data", "param"),
    [
        ("/classify", {"top_k": "0"}, "top_k"),
        ("/classify", {"response_format": "srt"}, "response_format"),
        ("/classify", {"model": "asr"}, "model"),
        ("/diarize", {"num_speakers": "many"}, "num_speakers"),
        ("/verify", {"p_target": "1"}, "p_target"),
    ],
)
def test_options_that_do_not_fit_are_named(path, data, param, client, sent):
    answer = client.post(path, files=sent, data=data)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert error_of(answer).startswith(f"{param}: ")


def test_numbers_of_speakers_that_make_no_sense(client, sent):
    given = {"num_speakers": 3, "max_speakers": 2}
    answer = client.post("/diarize", files=sent, data=given)
    assert answer.status_code == 400
    assert error_of(answer) == "max_speakers: expected 3 at least; got 2"


def test_paths_and_methods_that_are_not_there(client):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/classify", 404),
        ("GET", "/../app.py", 404),
        ("POST", "/v1/audio/translations", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code in (status, 404, 405)
        assert error_of(answer)


@pytest.fixture
def small(models):
    """A service with narrow limits."""
    limits = Limits(upload_bytes=100_000, audio_s=1.5, request_s=60, queue=2)
    with testclient.TestClient(create_app(models, limits)) as found:
        yield found


def test_an_upload_that_is_too_large_is_refused(small, tmp_path):
    content = bytes(200_000)
    sizes = [("file", ("a.wav", content))]
    answer = small.post("/classify", files=sizes)
    assert answer.status_code == 413
    assert "at most 0.0953674 MB" in error_of(answer)

    def parts():  # a length that nobody states
        yield b'--x\r\nContent-Disposition: form-data; name="file"; '
        yield b'filename="a.wav"\r\n\r\n'
        for _ in range(20):
            yield content

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = small.post("/classify", content=parts(), headers=kind)
    assert answer.status_code == 413
    assert not list(small.app.state.service.folder.iterdir())


def test_a_recording_that_is_too_long_is_refused(small, sent):
    answer = small.post("/classify", files=sent)
    assert answer.status_code == 400
    assert error_of(answer) == (
        "talk.wav: expected a recording of at most 1.5 s; it is longer"
    )


def test_a_body_that_does_not_arrive_is_408(models):
    app = create_app(models, Limits(request_s=0.05))
    messages = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        messages.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/classify",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
        "query_string": b"", "http_version": "1.1", "scheme": "http",
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        "root_path": "", "raw_path": b"/classify",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert messages[0]["status"] == 408
    assert b"took too long to arrive" in messages[1]["body"]


def test_a_slow_model_is_504_and_its_job_is_dropped(sent):
    gate = Gate()
    app = create_app({"slow": gate}, Limits(request_s=0.5))
    with testclient.TestClient(app) as client:
        answer = client.post("/classify", files=sent)
        assert answer.status_code == 504
        assert "no answer within the time" in error_of(answer)
        gate.release.set()
        assert gate.ended.wait(60)
        assert not list(app.state.service.folder.iterdir())


def test_a_full_queue_is_503_and_says_when_to_come_again(sent):
    gate = Gate()
    app = create_app({"slow": gate}, Limits(queue=1))
    with testclient.TestClient(app) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/classify", files=sent)
        assert gate.started.wait(60)
        answer = client.post("/classify", files=sent)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "1 requests are waiting already" in error_of(answer)
        assert client.get("/health").json()["jobs"] == {"slow": 1}
        gate.release.set()
        assert first.result().json()["label"] == "yes"
        assert client.post("/classify", files=sent).status_code == 200


def test_what_a_client_has_left_is_dropped(sent):
    """The first job ends at its next check, the second never begins."""
    gate = Gate()
    app = create_app({"slow": gate})
    service = app.state.service
    with running(app) as address:
        clients = [_half_request(address, sent["file"][1]) for _ in range(2)]
        assert gate.started.wait(60)
        wait_for(lambda: service.workers["slow"].jobs == 2)
        for client in clients:
            client.close()
        wait_for(lambda: service.workers["slow"].jobs == 1)
        gate.release.set()
        assert gate.ended.wait(60)
        wait_for(lambda: service.workers["slow"].jobs == 0)
        assert gate.count == 1
        assert not list(service.folder.iterdir())


def wait_for(condition):
    """Waits for another thread; fails after a minute."""
    tick = threading.Event()
    for _ in range(6000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never came")


def _half_request(address, content):
    """A client that has sent a recording and waits."""
    import socket

    host, port = address.removeprefix("http://").split(":")
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"'
        b"\r\n\r\n" + content + b"\r\n--x--\r\n"
    )
    head = (
        f"POST /classify HTTP/1.1\r\nHost: {host}:{port}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    client = socket.create_connection((host, int(port)))
    client.sendall(head.encode() + body)
    return client


def test_fifty_uploads_at_a_time_get_their_own_answers(
    address, models, tmp_path
):
    httpx = pytest.importorskip("httpx2")
    paths = []
    for number in range(50):
        paths.append(tmp_path / f"{number}.wav")
        wav = uneven_speech(0.5 + number / 50).numpy()
        soundfile.write(paths[-1], wav, 16000)
    tasks = {
        "/v1/audio/transcriptions": {"model": "asr"}, "/classify": {},
        "/embed": {},
    }  # fmt: skip

    def ask(number):
        path = paths[number]
        url, data = list(tasks.items())[number % len(tasks)]
        files = {"file": (path.name, path.read_bytes())}
        answer = httpx.post(address + url, files=files, data=data, timeout=120)
        return answer.json()

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert answer["text"] == models["asr"](paths[number]).text
        elif number % 3 == 1:
            label = models["keywords"](paths[number]).label
            assert (answer["name"], answer["label"]) == (
                f"{number}.wav", label,
            )  # fmt: skip
        else:
            vector = models["speakers"](paths[number]).vector
            assert torch.equal(torch.tensor(answer["embedding"]), vector)


@pytest.fixture
def locked(models):
    """A service with a key."""
    with testclient.TestClient(create_app(models, key="secret")) as found:
        yield found


def test_without_the_key_there_is_nothing(locked, sent):
    for header in (None, "Bearer", "Bearer secreta", "Basic secret", "secret"):
        headers = {"authorization": header} if header else {}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            answer = locked.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = locked.post("/classify", files=sent, headers=headers)
        assert answer.status_code == 401
    right = {"authorization": "Bearer secret"}
    assert locked.get("/v1/models", headers=right).status_code == 200
    answer = locked.post("/classify", files=sent, headers=right)
    assert answer.status_code == 200


def test_the_page_and_health_need_no_key(locked):
    page = locked.get("/")
    assert page.status_code == 200 and "<title>" in page.text
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert locked.get(f"/{name}").status_code == 200
    assert locked.get("/health").json()["needs_key"] is True


def test_pages_of_other_sites_are_refused(client, sent):
    for origin in ("http://evil.example", "null"):
        answer = client.post(
            "/classify", files=sent, headers={"origin": origin}
        )
        assert answer.status_code == 403
    own = {"origin": "http://testserver"}
    answer = client.post("/classify", files=sent, headers=own)
    assert answer.status_code == 200
    assert not [n for n in answer.headers if n.startswith("access-control")]


def test_a_local_service_answers_to_local_names_only(models):
    app = create_app(models, hosts=["localhost", "::1", "speech.example"])
    with testclient.TestClient(app) as client:
        for host, status in (
            ("localhost:8000", 200),
            ("[::1]:8000", 200),
            ("speech.example", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
        ):
            answer = client.get("/v1/models", headers={"host": host})
            assert answer.status_code == status, host


def test_every_answer_has_headers_of_security(client):
    for path in ("/", "/page.js", "/v1/models", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_prometheus_reads_what_was_done(models, sent):
    with testclient.TestClient(create_app(models)) as client:
        client.post("/classify", files=sent)
        client.post("/classify", data={})
        client.get("/nothing")
        text = client.get("/metrics").text
    for line in (
        'unispeech_sb_requests_total{path="/classify",status="200"} 1.0',
        'unispeech_sb_requests_total{path="/classify",status="400"} 1.0',
        'unispeech_sb_requests_total{path="other",status="404"} 1.0',
        'unispeech_sb_audio_seconds_total{model="keywords"} 2.0',
        'unispeech_sb_request_seconds_count{path="/classify"} 2.0',
        'unispeech_sb_jobs{model="keywords"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert 'unispeech_sb_model_seconds_total{model="keywords"}' in text


def test_a_fault_of_the_program_tells_nothing(models, sent):
    class Faulty(Gate):
        def classify_files(self, paths, top_k=None, on_progress=None):
            raise KeyError("a secret path")

    app = create_app({"faulty": Faulty()})
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/classify", files=sent)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"
        assert not list(app.state.service.folder.iterdir())


def test_a_full_disk_is_503(client, sent, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unispeech_sb.serve.service.shutil.copyfileobj", fail)
    answer = client.post("/classify", files=sent)
    assert answer.status_code == 503
    assert "could not be stored" in error_of(answer)


def test_nothing_is_left_when_the_service_ends(models, sent):
    app = create_app(models)
    with testclient.TestClient(app) as client:
        client.post("/classify", files=sent)
        folder = app.state.service.folder
        assert folder.is_dir()
    assert not folder.exists()
