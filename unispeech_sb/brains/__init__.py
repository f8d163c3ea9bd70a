"""Training loops: the base of all tasks, and one Brain per kind of task."""

from unispeech_sb.environment import require_torchaudio

require_torchaudio()

from unispeech_sb.brains.base import SSLBrain  # noqa: E402
from unispeech_sb.brains.ctc import CTCBrain  # noqa: E402
from unispeech_sb.brains.diarization import DiarizationBrain  # noqa: E402
from unispeech_sb.brains.pretraining import PretrainBrain  # noqa: E402
from unispeech_sb.brains.schedules import polynomial, tri_stage  # noqa: E402
from unispeech_sb.brains.speaker import SpeakerBrain  # noqa: E402
from unispeech_sb.brains.utterance import UtteranceBrain  # noqa: E402

__all__ = [
    "CTCBrain",
    "DiarizationBrain",
    "PretrainBrain",
    "SSLBrain",
    "SpeakerBrain",
    "UtteranceBrain",
    "polynomial",
    "tri_stage",
]
