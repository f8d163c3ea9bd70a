"""UniSpeech and UniSpeech-SAT as a SpeechBrain plugin.

Once this package is imported, its lobes are also found as
``speechbrain.lobes.models.unispeech.<Class>``, old names of what has moved are
found, too, and a torchaudio that does not load is reported with what mends it;
neither torch nor SpeechBrain is imported for that.
"""

from unispeech_sb import environment, moved

__version__ = "0.1.0"

environment.install()
moved.install()
