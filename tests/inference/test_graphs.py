"""Exported graphs: every head, any batch and length, both runtimes."""

import functools
import json

import numpy as np
import pytest
import torch

from tests.inference.graph_models import KINDS, needs_export, noise, save
from unispeech_sb.inference.exporting import export_graph
from unispeech_sb.inference.graphs import open_graph
from unispeech_sb.inference.loading import load
from unispeech_sb.lobes.backbone import Backbone

pytestmark = needs_export

ENGINES = ("onnx", "openvino")
SECONDS = (0.025, 0.0401, 0.06, 0.1, 0.2, 0.31, 0.5, 0.64, 0.77, 1.0, 1.003,
           1.28, 1.5, 1.9, 2.0, 2.22, 2.5, 3.1, 4.7, 6.3)  # fmt: skip
PADDING_COUNTS = ("xvector, hf", "features, fairseq")
"""Models that are made so that padding matters."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Makes a folder, and its export, once."""

    @functools.cache
    def make(name):
        place = tmp_path_factory.mktemp("graphs")
        save(place / "model", name)
        report = export_graph(place / "model", place / "onnx")
        return load(place / "model"), place / "onnx", report

    return make


def expected(model, wav):
    """Outputs of the model for one waveform, [N]."""
    part, classifier = model.exportable, None
    wavs, outputs = wav[None], {}
    if "embeddings" in part.outputs:
        classifier = getattr(model.mods, "classifier", None)
    with torch.no_grad():
        wide = part.widen(wavs) if hasattr(part, "widen") else wavs
        found = part.compute(wide, torch.ones(1))
        outputs = dict(zip(part.outputs, found, strict=True))
        if classifier is not None:
            vectors = outputs["embeddings"][:, None]
            outputs["log_posteriors"] = classifier(vectors)[:, 0]
    return outputs


def check(found, wanted, row):
    """Compares a row of outputs with those of its waveform alone."""
    assert len(found) == len(wanted)
    for value, (name, own) in zip(found, wanted.items(), strict=True):
        if name == "num_frames":
            assert value[row] == own[0], name
            continue
        own = own[0].numpy()
        valid = value[row].numpy()[tuple(slice(n) for n in own.shape)]
        assert valid.shape == own.shape
        scale = max(1.0, np.abs(own).max())
        np.testing.assert_allclose(
            valid, own, rtol=0, atol=1e-5 * scale, err_msg=name
        )


@pytest.mark.parametrize("seconds", [2.5, 33.0])
def test_what_is_recorded_without_padding_still_masks_it(seconds):
    """Where it did not, a padded row was off by a third of its own size."""
    backbone = Backbone.from_preset("tiny", conv_bias=True).eval()
    backbone.requires_grad_(False)
    recorded = torch.jit.trace(
        lambda *given: backbone(*given),
        (torch.randn(2, 16000), torch.ones(2)),
        check_trace=False,
    )
    samples = round(16000 * seconds)
    wavs = torch.randn(3, samples)
    shares = torch.tensor([1.0, 0.6, 0.1])
    found = recorded(wavs, shares)
    for row, count in enumerate((samples * shares).round().long().tolist()):
        alone = backbone(wavs[row : row + 1, :count])[0]
        torch.testing.assert_close(
            found[row, : len(alone)], alone, rtol=1e-4, atol=2e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_twenty_lengths_alone_and_in_a_batch(name, engine, exported):
    model, folder, _ = exported(name)
    run = open_graph(folder, engine)
    least = json.loads((folder / "model.json").read_text())["min_samples"]
    rate = model.audio_normalizer.sample_rate
    counts = [max(least, round(seconds * rate)) for seconds in SECONDS]
    wavs = torch.randn(len(counts), max(counts))  # anything in the padding
    for row, count in enumerate(counts):
        wavs[row, :count] = noise(count)
    shares = torch.tensor(counts) / max(counts)
    batch = run({"wavs": wavs, "wav_lens": shares})
    for row, count in enumerate(counts):
        wanted = expected(model, wavs[row, :count])
        alone = {"wavs": wavs[row : row + 1, :count], "wav_lens": torch.ones(1)}
        check(run(alone), wanted, 0)
        if name not in PADDING_COUNTS:
            check(batch, wanted, row)
