"""SpeechBrain's options of a run with our lobes: they work or are refused."""

from functools import partial

import pytest
import speechbrain as sb
import torch
from speechbrain.inference.ASR import EncoderASR
from torch._dynamo.testing import CompileCounter

from tests.inference.models import recognizer
from unispeech_sb.inference import SpeakerVerification, loading
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
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0.02)


def diarization(**run_opts):
    """A diarizer."""
    torch.manual_seed(0)
    modules = {"backbone": Backbone.from_preset("tiny")}
    modules["head"] = DiarizationHead(16, 2, 4)
    rule = {"threshold": 0.5, "median_filter": 1, "chunk_s": 1.0}
    return SpeakerDiarization(modules, rule, {"device": "cpu", **run_opts})


def test_diarization_refuses_wrapped_modules(without_inductor):
    with pytest.raises(ValueError, match="not compiled and not data"):
        diarization(data_parallel_backend=True)
    keys = {"compile": True, "compile_module_keys": ["head"]}
    with pytest.raises(ValueError, match="not compiled and not data"):
        diarization(**keys)


VARIANTS = {
    "base": {},
    "large": {
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "adapter_attn_dim": 4,
    },
    "fairseq": {"mask_rule": "fairseq", "output_norm": True},
    "states": {"output_all_hiddens": True, "conv_bias": True},
    "wavlm": {"num_buckets": 32, "max_bucket_distance": 80},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def batch_of(*lengths):
    """A padded batch."""
    wavs = torch.nn.utils.rnn.pad_sequence(
        [torch.randn(n) for n in lengths], batch_first=True
    )
    return wavs, torch.tensor(lengths) / max(lengths)


@variants
def test_a_backbone_is_one_graph(variant):
    model = Backbone.from_preset("tiny", freeze=True, **VARIANTS[variant])
    for lens in ([None], batch_of(7000, 4321)[1:]):
        torch._dynamo.reset()
        found = torch._dynamo.explain(model)(batch_of(7000, 4321)[0], *lens)
        assert (found.graph_count, found.graph_break_count) == (1, 0)


@variants
def test_one_graph_serves_all_lengths(variant):
    model = Backbone.from_preset("tiny", freeze=True, **VARIANTS[variant])
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(
        model, backend=counter, fullgraph=True, dynamic=True
    )
    for lengths in ((7000, 4321), (9100, 500, 7777), (3000, 2999)):
        wavs, lens = batch_of(*lengths)
        found, expected = compiled(wavs, lens), model(wavs, lens)
        frames = model.output_lengths(torch.tensor(lengths)).tolist()
        for row, n in enumerate(frames):
            torch.testing.assert_close(
                found[..., row, :n, :], expected[..., row, :n, :],
                rtol=1e-5, atol=1e-5,
            )  # fmt: skip
    assert counter.frame_count == 1


@pytest.mark.parametrize("make", [asr, speakers, diarization])
def test_blocks_of_interfaces_compile_once(make, monkeypatch):
    counter = CompileCounter()
    compiled = partial(torch.compile, backend=counter)
    monkeypatch.setattr(torch, "compile", compiled)
    torch._dynamo.reset()
    plain, model = make(), make(compile=True)
    assert model.compile
    method = {asr: "encode_batch", speakers: "encode_batch"}.get(
        make, "diarize_batch"
    )
    counts = []
    for lengths in (
        *((8000, 4321), (9100, 5000, 7777), (6000, 2999, 2999, 5555)),
        *((7000,), (5000,), (4444, 4444, 4444, 4444, 4321, 4000)),
    ):
        wavs, lens = batch_of(*lengths)
        found = getattr(model, method)(wavs, lens)
        expected = getattr(plain, method)(wavs, lens)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        counts.append(counter.frame_count)
    # One graph for whole batches, one or two for rows of several utterances
    assert 0 < counts[-1] <= 3


def test_a_missing_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ValueError, match="compile: expected a C\\+\\+ compiler"
    ):
        asr(compile=True)


@pytest.mark.slow
@variants
def test_compiled_blocks_give_the_same(variant):
    """By inductor, which writes C++; layers in one file of it."""
    torch._dynamo.reset()
    options = {**VARIANTS[variant], "freeze": True}
    torch.manual_seed(0)
    model = Backbone.from_preset("tiny", **options)
    wavs, lens = batch_of(7000, 4321, 5000)
    expected = model(wavs, lens)
    for layer in model.encoder.layers:
        layer.compile(fullgraph=True, dynamic=True)
    found = model(wavs, lens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@variants
def test_a_compiled_backbone_gives_the_same(variant):
    torch._dynamo.reset()
    model = Backbone.from_preset("tiny", freeze=True, **VARIANTS[variant])
    wavs, lens = batch_of(7000, 4321, 5000)
    expected = model(wavs, lens)
    found = torch.compile(model, fullgraph=True, dynamic=True)(wavs, lens)
    frames = model.output_lengths(torch.tensor([7000, 4321, 5000])).tolist()
    for row, n in enumerate(frames):
        torch.testing.assert_close(
            found[..., row, :n, :], expected[..., row, :n, :],
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


PRECISIONS = {"bf16": 0.03, "int8": 0.1}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [asr, speakers, diarization])
def test_interfaces_in_lower_precisions(make, precision):
    wavs, lens = batch_of(8000, 5000)
    method = {asr: "encode_batch", speakers: "encode_batch"}.get(
        make, "diarize_batch"
    )
    exact, found = (
        getattr(make(precision=name), method)(wavs, lens)
        for name in ("fp32", precision)
    )
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    share = (found - exact).norm() / exact.norm()
    assert share < PRECISIONS[precision]


def test_weights_of_a_lower_precision_are_not_written(tmp_path):
    """Their file would lack those that were converted."""
    model = asr(precision="int8")
    (backbone,) = (m for m in model.mods.modules() if isinstance(m, Backbone))
    lobe_file = tmp_path / "backbone.ckpt"
    for use in (lambda: backbone.save(lobe_file), model.mods.state_dict):
        with pytest.raises(ValueError, match="precision: expected fp32"):
            use()
    assert not lobe_file.exists()
    Backbone(**backbone.config).save(lobe_file)
    with pytest.raises(ValueError, match="precision: expected fp32"):
        backbone.load(lobe_file)


def test_a_precision_is_chosen(monkeypatch, caplog):
    for units, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(loading, "has_bf16_units", lambda kind, u=units: u)
        with caplog.at_level("INFO"):
            assert asr(precision="auto").precision == expected
        assert f"precision: {expected}, as this cpu has" in caplog.text
        caplog.clear()
    assert asr().precision == "fp32"


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("fp8", "cpu", "fp32, bf16, int8 or auto on the device cpu; got 'fp8'"),
        ("fp16", "cpu", "fp32, bf16, int8 or auto on the device cpu; got 'fp"),
        ("int8", "cuda", "fp32, bf16, fp16 or auto on the device cuda; got"),
        (16, "cpu", "got 16"),
        (["bf16"], "cpu", r"got \['bf16'\]"),
    ],
)
def test_other_precisions_are_refused(name, device, expected):
    with pytest.raises(ValueError, match=f"precision: expected .*{expected}"):
        loading.choose_precision(name, device)


def test_lower_precisions_need_a_backbone():
    made = asr()
    hparams = vars(made.hparams)
    modules = {"encoder": torch.nn.Linear(2, 2)}
    with pytest.raises(ValueError, match="without a Backbone; got bf16"):
        LongFormASR(modules, hparams, {"device": "cpu"}, precision="bf16")
    with pytest.raises(ValueError, match="expected the precision fp32"):
        asr(compile=True, precision="int8")
