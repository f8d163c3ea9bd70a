"""Inference beyond SpeechBrain's interfaces: long recordings, many files.

``load`` gives the interface for a folder. The interfaces are imported when
they are first asked for.
"""

from importlib import import_module
from typing import Any

INTERFACES = {
    "load": "loading",
    "LongFormASR": "asr",
    "SpeakerDiarization": "diarization",
    "SpeakerVerification": "speaker_verification",
    "SpeechFeatures": "features",
    "UtteranceClassifier": "classification",
}
"""Name of an interface, or of what loads one -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Imports an interface."""
    if name not in INTERFACES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{INTERFACES[name]}"), name)
