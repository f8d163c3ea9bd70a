"""Recordings for the tests of ``dataio``."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

_DEFAULT_DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def shared_data():
    """The folder of real speech; the test is skipped where it is absent."""
    folder = Path(os.environ.get("UNISPEECH_SB_DATA", _DEFAULT_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}, set UNISPEECH_SB_DATA")
    return folder


@pytest.fixture
def write_noise():
    """A function that writes seeded noise and returns the path as a str."""

    def write(path, num_samples=16000, rate=16000, channels=1, **kwargs):
        noise = np.random.default_rng(0).normal(size=(num_samples, channels))
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * noise, rate, **kwargs)
        return str(path)

    return write
