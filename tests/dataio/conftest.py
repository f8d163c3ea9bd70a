"""Recordings for the tests of ``dataio``."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.shards import SHARD_H, write_recordings

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


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """Utterance records of short recordings; not to be changed."""
    return write_recordings(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def packed(recorded, tmp_path_factory):
    """A folder of shards of these; not to be changed."""
    pytest.importorskip("webdataset")
    from unispeech_sb.dataio.shard_writer import make_shards

    folder = tmp_path_factory.mktemp("packed") / "shards"
    make_shards(recorded, folder, SHARD_H)
    return folder
