"""What the tests of commands share."""

import logging

import numpy as np
import pytest
import soundfile


@pytest.fixture(autouse=True)
def silent_handlers(monkeypatch):
    """As under ``main``: a log that cannot be written, such as one that an
    earlier test has left on a closed stream, prints no traceback."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Name -> folder of a tiny model."""
    from tests.commands.test_transcribe import save_tiny
    from tests.inference import diarization_models, speaker_models
    from tests.inference.test_classification import save_model

    root = tmp_path_factory.mktemp("models")
    return {
        "asr": str(save_tiny(root / "asr", 20)),
        "diarization": str(diarization_models.save_model(root / "diarization")),
        "keywords": save_model(root / "keywords"),
        "speakers": str(speaker_models.save_model(root / "speakers")),
    }


@pytest.fixture
def files(tmp_path):
    """Recordings of several lengths and rates, the longest first."""
    from tests.inference.diarization_models import babble

    (tmp_path / "in").mkdir()
    found = []
    for number, (seconds, rate) in enumerate(
        ((2.5, 16000), (0.6, 8000), (1.0, 44100), (0.6, 16000))
    ):
        path = str(tmp_path / "in" / f"{number}.wav")
        wav = babble(seconds, number).numpy()[::2]
        soundfile.write(path, np.tile(wav, 2), rate)
        found.append(path)
    return found


@pytest.fixture
def here(monkeypatch):
    """Bulk jobs run in this process."""
    from tests.commands.bulk_jobs import run_here

    run_here(monkeypatch)
