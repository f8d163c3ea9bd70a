"""The lobes of unispeech_sb, under the name of SpeechBrain's own lobes.

The wheel puts this file into SpeechBrain's folder of models, so that a yaml
finds ``!new:speechbrain.lobes.models.unispeech.Backbone`` with nothing imported
before it.
"""

from unispeech_sb.lobes.unispeech import *  # noqa: F403
