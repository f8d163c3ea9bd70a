"""The examples of docs/serve.md run."""

import json
import re
import shutil
import subprocess

import pytest
import soundfile

from tests.conftest import ROOT
from tests.inference.models import uneven_speech
from unispeech_sb.inference.formats import (
    CLASSIFICATION_FORMATS,
    DIARIZATION_FORMATS,
)
from unispeech_sb.serve.workers import Limits

PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
LINES = [
    line
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
PLACE = "127.0.0.1:8000"


@pytest.fixture
def workplace(tmp_path, monkeypatch, recording, model_folders):
    """A folder with what the examples name, in which they run."""
    shutil.copy(recording, tmp_path / "talk.wav")
    soundfile.write(tmp_path / "other.wav", uneven_speech(1.0).numpy(), 16000)
    (tmp_path / "asr").symlink_to(model_folders["asr"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_as_many_examples_as_expected():
    assert len(LINES) == 5 and len(PYTHON) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("line", LINES)
def test_a_request_by_curl_is_answered(line, workplace, address):
    line = line.replace(f"http://{PLACE}", address)
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout
    if done.stdout.startswith("{"):
        assert "error" not in json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_an_example_in_python_runs(number, workplace, address, capsys):
    code = PYTHON[number].replace(PLACE, address.removeprefix("http://"))
    if "openai" in code:
        pytest.importorskip("openai", reason="needs openai")
    exec(compile(code, "docs/serve.md", "exec"), {})
    if number < 2:
        assert len(capsys.readouterr().out.splitlines()) > 2


def test_the_tables_name_what_there_is(client):
    routes = set(client.get("/openapi.json").json()["paths"])
    table = set(re.findall(r"^\| `(?:GET|POST) ([^`]+)`", PAGE, re.M))
    assert routes - {"/v1/models/{name}"} == table - {"/openapi.json"}
    for path, formats in (
        ("/classify", CLASSIFICATION_FORMATS),
        ("/diarize", DIARIZATION_FORMATS),
    ):
        (row,) = re.findall(rf"^\| `POST {path}` .*$", PAGE, re.M)
        listed = re.findall(r"`(\w+)`", row.partition("`response_format`")[2])
        assert sorted(listed[: len(formats)]) == sorted(formats)
    shown = re.findall(r"^\| `(--[\w-]+)`(?:, `--\w+`)? \| (\S+)", PAGE, re.M)
    defaults = Limits()
    values = {
        "--max-upload-mb": defaults.upload_bytes / 2**20,
        "--max-audio-s": defaults.audio_s,
        "--max-request-s": defaults.request_s,
        "--queue": defaults.queue,
        "--streams": defaults.streams,
    }
    assert {k: float(v) for k, v in shown if k in values} == values
