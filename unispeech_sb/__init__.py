"""UniSpeech and UniSpeech-SAT as a SpeechBrain plugin.

Once this package is imported, its lobes are also found as
``speechbrain.lobes.models.unispeech.<Class>``; neither torch nor SpeechBrain
is imported for that.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

__version__ = "0.1.0"


class _LobesFinder(MetaPathFinder):
    """Finds SpeechBrain's name for the lobes in ``lobes/unispeech.py``."""

    name = "speechbrain.lobes.models.unispeech"
    file = Path(__file__).parent / "lobes" / "unispeech.py"

    def find_spec(self, fullname, path=None, target=None):
        """Answers for one name and leaves every other to the next finder."""
        if fullname == self.name:
            return spec_from_file_location(fullname, self.file)
        return None


sys.meta_path.append(_LobesFinder())
