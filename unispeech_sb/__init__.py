"""UniSpeech and UniSpeech-SAT as a SpeechBrain plugin.

Once this package is imported, its lobes are also found as
``speechbrain.lobes.models.unispeech.<Class>``, and old names of what has moved
are found, too; neither torch nor SpeechBrain is imported for that.
"""

from unispeech_sb import moved

__version__ = "0.1.0"

moved.install()
