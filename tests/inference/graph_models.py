"""Tiny folders with every kind of head, for the tests of other runtimes."""

import functools
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from tests.inference.models import characters
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AMSoftmax,
    DiarizationHead,
    ECAPAHead,
    EENDVCHead,
    FrameHead,
    ProjectedFrameHead,
    RecurrentHead,
    SpeakerHead,
    StatisticsHead,
    UniSpeechHead,
    UtteranceHead,
)

needs_export = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime", "openvino"))),
    reason="needs the extra export",
)
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
WAVLM = {"num_buckets": 32, "max_bucket_distance": 80}
BASE = {"normalize_wav": False, "conv_bias": True}
SMALL = {
    "num_hidden_layers": 1, "conv_dim": [8, 8, 8], "conv_kernel": [20, 8, 4],
    "conv_stride": [10, 8, 4],
}  # fmt: skip
"""As recording a graph takes seconds; a frame is 20 ms."""
CHUNKS = {
    "threshold": 0.5, "median_filter": 5, "min_speech_s": 0.0,
    "min_pause_s": 0.0, "chunk_s": 1.0, "narrow_band": False,
    "num_local_speakers": 3, "frame_s": 0.02,
}  # fmt: skip
XVECTOR = ([12, 14], [3, 3], [1, 2])


def _vectors():
    """EEND with vector clustering."""
    sizes = {"model_size": 16, "num_layers": 1, "num_heads": 2}
    return EENDVCHead(16, 2, speaker_size=8, **sizes)


KINDS = {
    "frames": ("EncoderASR", lambda: FrameHead(16, 6), {}),
    "frames, Large": ("EncoderASR", lambda: FrameHead(16, 6, num_states=2),
                      {**LARGE, "adapter_attn_dim": 4}),
    "LSTMs": ("EncoderASR", lambda: RecurrentHead(16, 6, 8, 5, num_states=2),
              BASE),
    "frames, WavLM": ("EncoderASR", lambda: FrameHead(16, 6), WAVLM),
    "projected": ("EncoderASR", lambda: ProjectedFrameHead(16, 6, 8), BASE),
    "utterance": ("EncoderClassifier", lambda: UtteranceHead(16, 3), {}),
    "intent": ("EncoderClassifier", lambda: UtteranceHead(
        16, 5, use_weighted_layer_sum=True, num_states=2), {"intent": [2, 3]}),
    "statistics": ("EncoderClassifier", lambda: StatisticsHead(16, 2, 3, 8, 6),
                   LARGE),
    "xvector": ("SpeakerRecognition", lambda: SpeakerHead(
        16, *XVECTOR, xvector_output_dim=10, num_states=2), {}),
    "xvector, hf": ("SpeakerRecognition", lambda: SpeakerHead(
        16, *XVECTOR, xvector_output_dim=10, tdnn_lengths="hf", relu=True),
        BASE),
    "ecapa": ("SpeakerRecognition", lambda: ECAPAHead(
        16, 2, channels=16, pooled_channels=24), LARGE),
    "speakers": ("SpeakerRecognition", lambda: StatisticsHead(
        16, 2, None, 8, 10), {"objective": 3}),
    "diarization": ("SpeakerDiarization", lambda: FrameHead(16, 2), {}),
    "diarization, LSTM": ("SpeakerDiarization", lambda: DiarizationHead(
        16, 2, 6, num_states=2), BASE),
    "diarization, LSTMs": ("SpeakerDiarization", lambda: DiarizationHead(
        16, 2, 6, 2, True, context=5), {}),
    "vectors": ("SpeakerDiarization", _vectors, {}),
    "vectors, 8 kHz": ("SpeakerDiarization", _vectors,
                       {"narrow_band": True, **BASE}),
    "features": ("WaveformEncoder", None, {"output_norm": True}),
    "features, Large": ("WaveformEncoder", None, LARGE),
    "features, WavLM Large": ("WaveformEncoder", None, {**LARGE, **WAVLM}),
    "features, fairseq": ("WaveformEncoder", None,
                          {"mask_rule": "fairseq", "normalize_eps": 1e-7}),
    "pre-training": ("WaveformEncoder", lambda: UniSpeechHead(
        16, 8, [2, 4, 6], 8, 5, 0.5, [0.0, 0.0]), BASE),
}  # fmt: skip
"""Name -> interface, head, options."""


@torch.no_grad()
def save(path, name):
    """Writes a pretrained folder, no parameter or statistic of which is what
    it was initialised with."""
    torch.manual_seed(1)
    interface, make, options = KINDS[name]
    options, given = dict(options), {}
    slots, speakers = options.pop("intent", None), options.pop("objective", 0)
    narrow = options.pop("narrow_band", False)
    lobes = {"backbone": Backbone.from_preset("tiny", **SMALL, **options)}
    if make is not None:
        lobes["head"] = make()
    if speakers:
        lobes["objective"] = AMSoftmax(10, speakers)
    for lobe in lobes.values():
        for module in lobe.modules():
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d)):
                module.weight += 0.3 * torch.randn_like(module.weight)
                module.bias += 0.3 * torch.randn_like(module.bias)
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean += torch.randn_like(module.running_mean)
        if getattr(lobe, "layer_mix", None) is not None:
            nn.init.normal_(lobe.layer_mix.weights)
    labels = None
    if interface == "EncoderASR":
        labels, given = characters(), {"blank_index": 0}
    elif interface == "EncoderClassifier":
        names = ["yes", "no", "on"] if slots is None else [*"abcdef"]
        labels = LabelEncoder.from_labels(names)
        given = {"problem_type": "single_label_classification"}
        given |= {} if slots is None else {"slot_sizes": slots}
    elif interface == "SpeakerDiarization":
        given = {**CHUNKS, "narrow_band": narrow}
    elif speakers:
        labels = LabelEncoder.from_labels(["s1", "s2", "s3"])
    write_pretrained(path, lobes, interface, "A test.", labels, **given)
    return path


@functools.lru_cache
def noise(samples):
    """Noise that grows, with an offset: statistics of a part differ."""
    draw = torch.Generator().manual_seed(samples)
    loudness = torch.linspace(0.02, 0.3, samples)
    return torch.randn(samples, generator=draw) * loudness + 0.02
