"""Whether torch and torchaudio load together, and what mends it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

TESTED = {"torch": "2.14.1", "torchaudio": "2.11.1"}
"""The pair of ``constraints.txt``."""


def require_torchaudio():
    """Loads torchaudio, or says how to mend the installation.

    SpeechBrain cannot be imported without a torchaudio that loads, and fails
    there with a message that names neither the cause nor the remedy. The import
    decides: numbers alone do not tell which pairs load.

    Raises
    ------
    ImportError
        One sentence with both versions, the cause and the command that mends
        it, when torch or torchaudio is missing or fails to load.

    Example
    -------
    >>> require_torchaudio()
    """
    mend = "pip install --force-reinstall " + " ".join(
        f"{name}=={number}" for name, number in TESTED.items()
    )
    torch, torchaudio = _installed("torch"), _installed("torchaudio")
    if torch is None or torchaudio is None:
        missing = "torch" if torch is None else "torchaudio"
        raise ImportError(f"{missing} is not installed: run `{mend}`")
    try:
        import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(
            f"torchaudio {torchaudio} does not load with torch {torch} "
            f"({cause}): run `{mend}`"
        ) from error


def _installed(name):
    """Version of a distribution as its metadata says, None without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def require_extra(package, extra, purpose):
    """Refuses a purpose whose package is not installed, by the pip command."""
    if find_spec(package) is None:
        raise ImportError(
            f"{purpose} needs the package {package}: run "
            f"`pip install 'unispeech_sb[{extra}]'`"
        )
