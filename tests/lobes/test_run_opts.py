"""SpeechBrain's options of a run with our lobes: they work or are refused."""

from functools import partial

import pytest
import speechbrain as sb
import torch
from speechbrain.inference.ASR import EncoderASR

from tests.inference.models import recognizer
from unispeech_sb.inference import SpeakerVerification
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.diarization import SpeakerDiarization
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    DiarizationHead,
    PassThrough,
    SpeakerHead,
    UtteranceEncoder,
)

SIZES = (4000, 5000)


class Recipe(sb.Brain):
    """A recipe's Brain: lobe, linear layer, loss."""

    def compute_forward(self, batch, stage):
        """Means of the outputs."""
        wavs, wav_lens = batch
        feats = self.modules.wav2vec2(wavs, wav_lens)
        return self.modules.linear(feats).mean((1, 2))

    def compute_objectives(self, predictions, batch, stage):
        """They should be ones."""
        return (predictions.float() - 1).square().mean()


def train(run_opts, **options):
    """Trains a recipe of two batches for two epochs; the lobe's weights."""
    torch.manual_seed(0)
    given = {"apply_spec_augment": True, "mask_time_length": 2}
    lobe = Backbone.from_preset("tiny", **(given | options))
    modules = {"wav2vec2": lobe, "linear": torch.nn.Linear(16, 1)}
    optimizer = partial(torch.optim.SGD, lr=0.1)
    run_opts = {"device": "cpu", "noprogressbar": True} | run_opts
    brain = Recipe(modules, optimizer, {}, run_opts)
    lens = torch.tensor([1.0, 0.6])
    batches = [(torch.randn(2, size), lens) for size in SIZES]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    brain.fit(range(1, 3), loader, loader)
    return lobe.feature_projection.projection.weight.detach()


@pytest.fixture
def without_inductor(monkeypatch):
    """Compiles without C++, which takes minutes and is PyTorch's own."""
    compiled = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run_opts", [{}, {"compile_using_dynamic_shape_tracing": True}]
)
def test_compiled_lobes_train_as_others(run_opts, without_inductor):
    # A graph computes on padding, too, for which dropout draws numbers
    names = ("hidden_dropout", "attention_dropout", "activation_dropout")
    certain = dict.fromkeys((*names, "feat_proj_dropout", "layerdrop"), 0.0)
    expected = train({}, **certain)
    compiled = train({"compile": True, **run_opts}, **certain)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"feat_extract_norm": "layer", "layerdrop": 0.5}]
)
def test_half_precision_trains(options):
    half = {"precision": "bf16", "eval_precision": "bf16"}
    expected, found = train({}, **options), train(half, **options)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.01)


def test_torchscript_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="got Backbone: .* jit_module_keys"):
        train({"jit": True})
    train({"jit": True, "jit_module_keys": ["linear"]})


def asr(cls=LongFormASR, **run_opts):
    """A recogniser by a class, with options of a run."""
    made = recognizer()
    hparams = vars(made.hparams)
    return cls(dict(made.mods), hparams, {"device": "cpu", **run_opts})


@pytest.mark.parametrize("cls", [EncoderASR, LongFormASR])
def test_interfaces_refuse_torchscript(cls):
    with pytest.raises(ValueError, match="Backbone: .* jit_module_keys"):
        asr(cls, jit=True)


def test_recognition_in_half_precision():
    wavs, lens = torch.randn(2, 8000), torch.tensor([1.0, 0.5])
    exact, half = (
        asr(precision=precision).encode_batch(wavs, lens)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    valid = exact[0] - half[0]
    assert valid.abs().mean() < 1


def speakers(**run_opts):
    """A verifier of speakers."""
    torch.manual_seed(0)
    head = SpeakerHead(16, [8], [1], [1], xvector_output_dim=4)
    modules = dict.fromkeys(("compute_features", "mean_var_norm"))
    modules = {name: PassThrough() for name in modules}
    encoder = UtteranceEncoder(Backbone.from_preset("tiny"), head)
    modules["embedding_model"] = encoder
    return SpeakerVerification(modules, {}, {"device": "cpu", **run_opts})


def test_verification_in_half_precision():
    wavs = torch.randn(2, 8000)
    exact, half = (
        speakers(precision=precision).encode_batch(wavs)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("option", ["compile", "data_parallel_backend"])
def test_diarization_refuses_wrapped_modules(option, without_inductor):
    modules = {"backbone": Backbone.from_preset("tiny")}
    modules["head"] = DiarizationHead(16, 2, 4)
    rule = {"threshold": 0.5, "median_filter": 1, "chunk_s": 1.0}
    with pytest.raises(ValueError, match="not compiled and not data"):
        SpeakerDiarization(modules, rule, {"device": "cpu", option: True})
