"""What every test shares: data folders, seeds, no network."""

import os
import secrets
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

for _name in ("MAKEFLAGS", "MAKEOVERRIDES", "CONSTRAINTS", "CPU", "PYTHON"):
    os.environ.pop(_name, None)  # of `make test CONSTRAINTS=`, not of ours

torch.set_num_threads(1)  # else forked processes wait for OpenMP for ever

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "UNISPEECH_SB_DATA": ROOT.parent / "shared" / "data",
    "UNISPEECH_SB_AUTHORS": ROOT.parent / "shared" / "authors",
}


EXTRAS = {
    "unispeech_sb.decoding.scoring.LanguageModel": "kenlm",
    "unispeech_sb.dataio.shards.read_index": "webdataset",
    "unispeech_sb.dataio.shard_writer.make_shards": "webdataset",
}
"""Examples that need a package of an extra -> that package."""
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_worker_niceness": "0",
}
"""Settings of Ray, which a process reads once: all its clusters have one token,
which would else be written into the home folder, and end without a wait."""


def empty_picture(path, epochs, title=""):
    """In the place of learning curves."""
    Path(path).write_bytes(b"")


QUICK = {
    "speechbrain.utils.logger.get_environment_description": str,
    "unispeech_sb.brains.pretraining.matrix_product_rate": lambda *_: 1e9,
    "unispeech_sb.plots.write_curves": empty_picture,
}
"""Function -> what runs of recipes call in its place."""


def be_quick(patch):
    """Puts those in place."""
    for name, quick in QUICK.items():
        patch.setattr(name, quick)


def folder_of(variable):
    """Folder that an environment variable names, or its default."""
    return Path(os.environ.get(variable, FOLDERS[variable])).resolve()


def pytest_configure(config):
    """Keeps the hub's client off the network, before anything imports it; the
    examples of the service are left out where its packages are missing."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # as in the background of a shell; processes that tests start inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if find_spec("absl") is not None:
        # tensorboard brings it; its handler closes the stream of its import
        # once another one is standard error, and pytest's is the stream then
        handler = import_module("absl.logging").get_absl_handler()
        handler.python_handler.stream = sys.__stderr__
    if find_spec("fastapi") is None:
        service = str(ROOT / "unispeech_sb" / "serve")
        config.option.ignore = [*(config.option.ignore or []), service]
    if "network" not in config.option.markexpr:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.update(RAY, RAY_AUTH_TOKEN=secrets.token_hex(32))


def pytest_collection_modifyitems(config, items):
    """Skips, with the reason, what this machine or command line lacks; the
    tests of recipes train, so they are slow. Files with slow tests are first,
    so that no process is left with a long one at the end."""
    data = folder_of("UNISPEECH_SB_DATA")
    absent = pytest.mark.skip(reason=f"no folder {data}; set UNISPEECH_SB_DATA")
    offline = pytest.mark.skip(reason="needs the internet; ask by -m network")
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "recipes"):
            item.add_marker("slow")
        if item.get_closest_marker("real_data") and not data.is_dir():
            item.add_marker(absent)
        asked = "network" in config.option.markexpr
        if item.get_closest_marker("network") and not asked:
            item.add_marker(offline)
        package = EXTRAS.get(item.name)
        if package is not None and find_spec(package) is None:
            item.add_marker(pytest.mark.skip(reason=f"needs {package}"))
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def seed():
    """Gives every test the same random numbers, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def quick_runs():
    """Runs of recipes do without what is slow and has tests of its own: a list
    of what pip has installed, a picture of the learning curves, and the speed
    of matrix products. Where no test has imported SpeechBrain, none trains."""
    with pytest.MonkeyPatch.context() as patch:
        if "speechbrain" in sys.modules:
            be_quick(patch)
        yield


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder():
    """Real speech, as its README there describes it."""
    folder = folder_of("UNISPEECH_SB_DATA")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set UNISPEECH_SB_DATA")
    return folder


@pytest.fixture(scope="session")
def authors_folder():
    """Recorded runs of the authors' code."""
    folder = folder_of("UNISPEECH_SB_AUTHORS")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set UNISPEECH_SB_AUTHORS")
    return folder
