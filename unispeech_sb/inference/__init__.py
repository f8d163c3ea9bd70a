"""Inference beyond SpeechBrain's interfaces: long recordings, many files.

``LongFormASR``, ``SpeakerDiarization`` and ``SpeakerVerification`` are loaded
when they are first asked for.
"""

from importlib import import_module
from typing import Any

INTERFACES = {
    "LongFormASR": "asr",
    "SpeakerDiarization": "diarization",
    "SpeakerVerification": "speaker_verification",
}
"""Name of an interface -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Imports an interface."""
    if name not in INTERFACES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{INTERFACES[name]}"), name)
