"""The command serve: its arguments, and a process from start to Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.commands.test_transcribe import save_tiny
from tests.inference.test_classification import save_model
from unispeech_sb.commands import main, serve

uvicorn = pytest.importorskip("uvicorn", reason="needs unispeech_sb[serve]")
testclient = pytest.importorskip("fastapi.testclient")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models."""
    folder = tmp_path_factory.mktemp("serve")
    save_tiny(folder / "asr", 20)
    save_model(folder / "keywords")
    return folder


@pytest.fixture
def served(monkeypatch):
    """What uvicorn would run, once a command has come so far."""
    found = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, _: found.append(self.config.app)
    )
    monkeypatch.delenv(serve.KEY, raising=False)
    return found


def test_models_are_called_as_their_folders_or_as_asked(folder, served, capsys):
    words = [f"{folder}/asr/", f"words={folder}/keywords", "--port", "0"]
    assert main(["serve", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" serves asr, words")
    assert [line.split() for line in lines[1:]] == [
        ["asr", "transcribe", f"{folder}/asr/"],
        ["words", "classify", f"{folder}/keywords"],
    ]
    with testclient.TestClient(served[0], "http://localhost") as client:
        entries = client.get("/v1/models").json()["data"]
        assert [entry["id"] for entry in entries] == ["asr", "words"]
        assert entries[0]["task"] == "transcribe"
        for host, status in (("evil.example", 403), ("127.0.0.1:1", 200)):
            answer = client.get("/health", headers={"host": host})
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        ("A/export B/export", "A B"),
        ("export", "TOP"),
        ("asr/x/1986/export kws/x/1986/export", "asr-x-1986 kws-x-1986"),
        ("asr/x/1986/export kws/y/1986/export", "x-1986 y-1986"),
        ("a/model b/model c/other", "a-model b-model other"),
        ("model=a a/model ./c/model", "model a-model c-model"),
        ("a/export a", None),
        ("a ./a", None),
        ("n=a n=b", None),
    ],
)
def test_names_are_as_short_as_tell_folders_apart(
    folders, names, tmp_path, monkeypatch
):
    (tmp_path / "TOP").mkdir()
    monkeypatch.chdir(tmp_path / "TOP")
    if names is None:
        with pytest.raises(ValueError, match="would both be .*NAME=FOLDER"):
            serve._named(folders.split())
        return
    found = serve._named(folders.split())
    assert [*found] == names.split()
    assert [*found.values()] == [f.split("=")[-1] for f in folders.split()]


def test_limits_and_the_key_reach_the_service(folder, served, monkeypatch):
    monkeypatch.setenv(serve.KEY, " secret ")
    options = {
        "--max-upload-mb": "1", "--max-audio-s": "2", "--max-request-s": "3",
        "--queue": "4", "--streams": "5", "--port": "0",
    }  # fmt: skip
    line = [word for pair in options.items() for word in pair]
    assert main(["serve", f"{folder}/asr", *line]) == 0
    assert served[0].state.key == "secret"
    assert served[0].state.service.limits == (2**20, 2, 3, 4, 5)


def test_another_address_is_told_that_there_is_no_key(folder, served, capsys):
    line = ["serve", f"{folder}/asr", "--host", "0.0.0.0", "--port", "0"]
    assert main(line) == 0
    assert "without a key: whoever" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "none: expected a folder with hyperparams.yaml"),
        (["asr", "--device", "abacus"], "device: expected one that"),
        (["asr", "--host", "256.1.1.1"], "256.1.1.1:8000: "),
        (["=asr"], "=asr: expected NAME=FOLDER with a name"),
    ],
)
def test_mistakes_are_one_line(
    words, said, folder, served, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    assert main(["serve", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unispeech-sb: {said}")
    assert not served


def test_an_empty_key_is_refused(folder, served, monkeypatch, capsys):
    monkeypatch.setenv(serve.KEY, " ")
    assert main(["serve", f"{folder}/asr"]) == 1
    assert "expected a key; it is empty" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(folder, served, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", f"{folder}/asr", "--port", port]) == 1
    sentence = f"unispeech-sb: 127.0.0.1:{port}: Address already in use"
    assert capsys.readouterr().err.startswith(sentence)


def test_a_missing_package_names_the_extra(folder, monkeypatch, capsys):
    monkeypatch.setattr(serve, "_PACKAGES", ("no_such_package",))
    assert main(["serve", f"{folder}/asr"]) == 1
    assert "pip install 'unispeech_sb[serve]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_by_a_signal_and_leaves_nothing(
    number, folder, root, tmp_path
):
    line = [sys.executable, "-m", "unispeech_sb", "serve"]
    process = subprocess.Popen(
        [*line, f"{folder}/asr", "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert answer.status == 200
        left = [p for p in Path(tmp_path).iterdir() if "unispeech" in p.name]
        assert len(left) == 1
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert said == f"unispeech-sb: {word}; nothing of the uploads is left\n"
    assert not [p for p in Path(tmp_path).iterdir() if "unispeech" in p.name]
