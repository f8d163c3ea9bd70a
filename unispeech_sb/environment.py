"""Checks that the installed torchaudio loads with the installed torch."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

FIRST, LAST = 7, 11
"""Supported releases of torch 2, and of torchaudio with the same number."""


def require_torchaudio():
    """Loads torchaudio, or says how to mend the installation.

    SpeechBrain cannot be imported without a torchaudio that loads, and fails
    there with a message that names neither the cause nor the remedy.

    Raises
    ------
    ImportError
        One sentence with the command that mends it, when torch or torchaudio
        is missing, when they are of two releases, or when torchaudio fails to
        load.

    Example
    -------
    >>> require_torchaudio()
    """
    torch, torchaudio = _installed("torch"), _installed("torchaudio")
    mend = _command(torch)
    if torch is None or torchaudio is None:
        missing = "torch" if torch is None else "torchaudio"
        raise ImportError(f"{missing} is not installed: run `{mend}`")
    pair = f"torchaudio {torchaudio} does not load with torch {torch}"
    if _release(torch) != _release(torchaudio):
        raise ImportError(f"{pair}: run `{mend}`")
    try:
        import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(
            f"{pair} ({cause}): run `{mend} --force-reinstall`"
        ) from error


def _installed(name):
    """Version of a distribution as its metadata says, None without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _release(text):
    """Major and minor number: (2, 11) of ``2.11.0+cu130``."""
    return tuple(int(number) for number in text.split(".")[:2])


def _command(torch):
    """Pip's command for a pair that loads; a supported torch is kept."""
    supported = torch is not None and (2, FIRST) <= _release(torch) <= (2, LAST)
    release = f"2.{_release(torch)[1] if supported else LAST}.*"
    return f"pip install 'torch=={release}' 'torchaudio=={release}'"
