"""A torchaudio that cannot load is told in one sentence with its remedy."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from unispeech_sb import environment


@pytest.fixture
def install(monkeypatch):
    """Makes the metadata say what is installed; None is not installed."""

    def pretend(**versions):
        def version(name):
            if versions[name] is None:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(environment, "version", version)

    return pretend


@pytest.mark.parametrize(
    ("torch", "torchaudio", "release"),
    [
        ("2.13.0", "2.11.0", "2.11"),
        ("2.9.1+cu128", "2.11.0", "2.9"),
        ("2.5.0", "2.11.0+cpu", "2.11"),
    ],
)
def test_two_releases_are_told_with_the_command(
    install, torch, torchaudio, release
):
    install(torch=torch, torchaudio=torchaudio)
    with pytest.raises(ImportError) as caught:
        environment.require_torchaudio()
    assert str(caught.value) == (
        f"torchaudio {torchaudio} does not load with torch {torch}: run "
        f"`pip install 'torch=={release}.*' 'torchaudio=={release}.*'`"
    )


@pytest.mark.parametrize(
    ("torch", "torchaudio", "message"),
    [
        (None, "2.11.0", "torch is not installed: run .*torch==2.11"),
        ("2.10.0", None, "torchaudio is not installed: run .*torchaudio==2.10"),
    ],
)
def test_a_missing_half_is_told(install, torch, torchaudio, message):
    install(torch=torch, torchaudio=torchaudio)
    with pytest.raises(ImportError, match=message):
        environment.require_torchaudio()


def test_patch_releases_and_builds_may_differ(install):
    install(torch="2.11.0+cu130", torchaudio="2.11.1")
    environment.require_torchaudio()


@pytest.mark.parametrize(
    "fault",
    [
        "raise OSError('libtorchaudio.so: undefined symbol')",
        "raise RuntimeError('operator torchaudio::x does not exist')",
        "import torch; torch.no_such_name",
        "import torchaudio_without_such_a_part",
        "raise OSError",
    ],
)
def test_a_torchaudio_that_fails_to_load_is_told(fault, root, tmp_path):
    (tmp_path / "torch.py").touch()
    (tmp_path / "torchaudio.py").write_text(fault)
    code = (
        "from unispeech_sb.environment import require_torchaudio\n"
        "try: require_torchaudio()\n"
        "except ImportError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path), str(root)])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    (sentence,) = run.stdout.splitlines()
    assert sentence.startswith("torchaudio 2.")
    assert "--force-reinstall`" in sentence


def test_importing_the_package_imports_no_torch(root):
    code = (
        "import sys, unispeech_sb; "
        "print(*{'torch', 'speechbrain'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == ""
