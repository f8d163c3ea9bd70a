"""UniSpeech and UniSpeech-SAT as a SpeechBrain plugin.

Once this package is imported, its lobes are also found as
``speechbrain.lobes.models.unispeech.<Class>``, old names of what has moved are
found, too, and a torchaudio that does not load is reported with what mends it;
neither torch nor SpeechBrain is imported for that.

``load`` gives the interface for any folder; ``dir(unispeech_sb)`` lists what
else there is, which is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

from unispeech_sb import environment, inference, moved

__version__ = "0.1.0"

_PUBLIC = {
    **dict.fromkeys(inference.INTERFACES, "unispeech_sb.inference"),
    "Backbone": "unispeech_sb.lobes.backbone",
    "ConfusionMatrix": "unispeech_sb.metrics.classification",
    "convert_checkpoint": "unispeech_sb.convert",
    "to_huggingface": "unispeech_sb.convert",
    "describe": "unispeech_sb.convert",
}
"""Name -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Imports what is asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """What there is for users."""
    return sorted([*_PUBLIC, "__version__", "__doc__"])


environment.install()
moved.install()
