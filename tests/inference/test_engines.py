"""Interfaces by another engine give what they give by torch."""

import pytest
import torch

from tests.inference.graph_models import needs_export, noise, save
from tests.inference.models import uneven_speech
from unispeech_sb.inference import graphs
from unispeech_sb.inference.loading import load
from unispeech_sb.lobes.backbone import Backbone

pytestmark = needs_export

ENGINES = ("onnx", "openvino")
WAVS = [0.3 * noise(count) for count in (20000, 9000, 24000)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of graphs of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place / "unispeech_sb" / "graphs"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Loads a folder of some kind."""

    def make(name, **options):
        place = tmp_path_factory.mktemp("engines") / "model"
        return load(save(place, name), **options)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_transcripts_and_windows_of_long_recordings(engine, model, cache):
    """The waveform and the first layer are normalised over the whole."""
    asr = model("frames", window_s=1.0, context_s=0.2)
    long, short = uneven_speech(4.0), WAVS
    wanted = asr.log_probs(long), [found.text for found in asr(short)]
    asr.use_engine(engine)
    torch.testing.assert_close(
        asr.log_probs(long), wanted[0], rtol=0, atol=2e-5
    )
    assert [found.text for found in asr(short)] == wanted[1]
    assert len(list(cache.glob("fp32-*"))) == 1  # both engines read it
    asr.use_engine("torch")
    assert torch.equal(asr.log_probs(long), wanted[0])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_embeddings_and_what_is_refused(engine, model):
    speakers = model("xvector, hf")
    wanted = speakers(WAVS)
    too_short = torch.ones(1500) * torch.linspace(-1, 1, 1500)
    with pytest.raises(ValueError) as by_torch:
        speakers(too_short)
    speakers.use_engine(engine)
    for found, expected in zip(speakers(WAVS), wanted, strict=True):
        torch.testing.assert_close(
            found.vector, expected.vector, rtol=1e-5, atol=1e-5
        )
    with pytest.raises(ValueError) as by_engine:
        speakers(too_short)
    assert str(by_engine.value) == str(by_torch.value)


@pytest.mark.slow
def test_diarization_with_vectors(model):
    diarization = model("vectors, 8 kHz")
    wanted = diarization.diarize_batch(torch.stack([noise(9000)] * 2))
    turns = diarization(noise(20000))
    diarization.use_engine("onnx")
    found = diarization.diarize_batch(torch.stack([noise(9000)] * 2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert diarization(noise(20000)) == turns


@pytest.mark.slow
def test_layers_of_features(model):
    extractor = model("features, Large")
    wanted = extractor(WAVS, layers=[1, 0])
    extractor.use_engine("onnx")
    for found, expected in zip(extractor(WAVS, layers=[1, 0]), wanted):
        torch.testing.assert_close(
            found.states, expected.states, rtol=1e-5, atol=1e-5
        )


def test_another_engine_is_refused_before_anything_is_exported(model, cache):
    asr, before = model("frames"), set(cache.glob("*"))
    for engine, precision, sentence in (
        ("tensorrt", "fp32", "engine: expected one of torch, onnx, openvino"),
        ("onnx", "bf16", "precision: expected one of fp32, int8 with onnx"),
    ):
        with pytest.raises(ValueError, match=sentence):
            asr.use_engine(engine, precision)
    assert asr.engine == "torch"
    backbone = asr.mods.encoder.backbone
    windowed = Backbone(**{**backbone.config, "window_s": 5.0})
    asr.mods.encoder.backbone = windowed
    with pytest.raises(ValueError, match="window_s: a graph has no windows"):
        asr.use_engine("onnx")
    assert set(cache.glob("*")) == before


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_a_damaged_graph_is_one_sentence(name, tmp_path):
    engine = "onnx" if name == "model.onnx" else "openvino"
    with pytest.raises(ValueError, match="expected model.onnx|expected model"):
        graphs.open_graph(tmp_path, engine)
    for content in (b"", b"no graph", bytes(range(256)) * 50):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: expected a whole gra"):
            graphs.open_graph(tmp_path, engine)
