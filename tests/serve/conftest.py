"""Tiny models behind the service, in-process and over a socket."""

import contextlib
import socket
import threading
from importlib.util import find_spec

import pytest
import soundfile

from tests.commands.test_transcribe import save_tiny
from tests.inference.diarization_models import save_model as save_diarization
from tests.inference.models import uneven_speech
from tests.inference.speaker_models import save_model as save_speakers
from tests.inference.test_classification import save_model as save_classifier
from unispeech_sb.inference import load

if not find_spec("fastapi") or not find_spec("uvicorn"):
    collect_ignore_glob = ["test_*.py"]  # they need unispeech_sb[serve]


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """Name -> folder of a model."""
    folder = tmp_path_factory.mktemp("served")
    save_tiny(folder / "asr", 20)
    save_classifier(folder / "keywords")
    save_speakers(folder / "speakers")
    save_diarization(folder / "diarization")
    return {path.name: str(path) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def models(model_folders):
    """Name -> interface."""
    return {name: load(folder) for name, folder in model_folders.items()}


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """A recording of two seconds."""
    path = tmp_path_factory.mktemp("recording") / "talk.wav"
    soundfile.write(path, uneven_speech(2.0).numpy(), 16000)
    return path


@contextlib.contextmanager
def running(app):
    """The address of a server that runs in a thread."""
    import uvicorn

    class Server(uvicorn.Server):
        """Says when it answers."""

        async def startup(self, sockets=None):
            await super().startup(sockets)
            ready.set()

    ready = threading.Event()
    server = Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert ready.wait(60)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def address(models):
    """Where the models are served."""
    from unispeech_sb.serve.app import create_app

    with running(create_app(models)) as found:
        yield found


@pytest.fixture(scope="session")
def client(models):
    """The models without a socket."""
    from fastapi.testclient import TestClient

    from unispeech_sb.serve.app import create_app

    with TestClient(create_app(models)) as found:
        yield found
