"""The speakers of a window and their embeddings, and the authors' inference."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.cluster import AgglomerativeClustering
from torchaudio.transforms import Resample

from tests.inference.diarization_models import babble
from tests.inference.speaker_models import load_model as load_speaker_model
from tests.inference.speaker_models import save_model as save_speaker_model
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.inference.diarization import (
    LocalSegmentationModel,
    SpeakerDiarization,
    modules_of,
)
from unispeech_sb.inference.speaker_verification import SpeakerEmbedding
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import EENDVCHead, FrameHead, UtteranceHead
from unispeech_sb.nnet.binarize import smoothed

FRAMES = 750
"""Of a chunk of 30 s in the authors' code."""


class Recorder:
    """Stands for a speaker model: keeps what it is given."""

    def __init__(self):
        self.wavs = []

    def embed(self, wav):
        """An embedding."""
        self.wavs.append(wav)
        return SpeakerEmbedding(torch.ones(4), len(wav) / 16000)


class Known:
    """Stands for a head whose activities are known."""

    layer_mix = None

    def __init__(self, activities):
        self.logits = torch.as_tensor(activities)[None].float().logit(1e-6)

    def __call__(self, feats, lengths=None):
        """Gives them."""
        assert feats.shape[1] == self.logits.shape[1]
        return self.logits


@pytest.fixture(scope="module")
def authors(authors_folder, tmp_path_factory):
    """The converted folder of the authors' model, and what it recorded."""
    folder = tmp_path_factory.mktemp("authors")
    recorded = load_file(authors_folder / "sd_eend_vc.safetensors")
    state = {
        key.removeprefix("state/"): tensor
        for key, tensor in recorded.items()
        if key.startswith("state/")
    }
    torch.save({"model": state}, folder / "model.pth")
    convert_checkpoint(folder / "model.pth", folder / "sb", num_heads=4)
    return SpeakerDiarization.from_hparams(str(folder / "sb")), recorded


def test_the_authors_model_gives_what_it_recorded(authors):
    model, recorded = authors
    wavs, logits = recorded["in/wavs_8k"], recorded["out/activity_logits"]
    assert model.audio_normalizer.sample_rate == 8000
    found = model.diarize_batch(wavs)
    torch.testing.assert_close(found, logits.sigmoid(), rtol=1e-5, atol=1e-5)
    local = model.model.segment([wavs[0]])[0]
    directions = torch.stack(
        [recorded[f"out/speaker_vectors.{n}"][0] for n in range(3)], 1
    )
    directions = torch.nn.functional.normalize(directions, dim=-1)
    means = torch.einsum("ts,tse->se", logits[0].sigmoid(), directions)
    means = torch.nn.functional.normalize(means, dim=-1).numpy()
    assert len(local.active)
    np.testing.assert_allclose(
        local.embeddings, means[local.active], rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_frames, distance",
    [(400, 1.0), (1000, None), (1500, 1.0), (2100, None)],
)
def test_the_authors_inference_comes_out(num_frames, distance, authors):
    model, _ = authors
    wav = babble(num_frames * 0.04 / 2)[: num_frames * 320]
    expected, distances = authors_inference(model, wav, distance)
    model.cluster_threshold = distance or float(np.median(distances)) or 1.0
    found = model.diarize_file(wav).segments
    model.cluster_threshold = 1.0
    wanted = [
        (edges[n] * 0.04, edges[n + 1] * 0.04)
        for column in expected.T
        for edges in [np.flatnonzero(np.diff(np.pad(column, 1)))]
        for n in range(0, len(edges), 2)
    ]
    assert wanted
    np.testing.assert_allclose(
        sorted(segment[:2] for segment in found), sorted(wanted), atol=1e-6
    )


def authors_inference(model, wav, distance):
    """Their steps one by one, with scikit-learn as they have it."""
    total = len(wav) // 320
    starts = list(range(0, total, FRAMES))
    activities, vectors, owners, places = [], [], [], []
    for number, start in enumerate(starts):
        begin = max(0, min(start, total - FRAMES))
        chunk = wav[begin * 320 : (begin + FRAMES) * 320]
        wide = Resample(8000, 16000)(chunk)[None]
        states = torch.stack(list(model.mods.encoder.iter_states(wide)))
        frames = torch.tensor([len(chunk) // 320])
        found, speakers = model.mods.head.estimate(states, num_frames=frames)
        found = found[0].numpy()
        for speaker in range(3):
            if found[:, speaker].mean() > 0.05:
                vectors.append(speakers[0, speaker].numpy())
                owners.append((number, speaker))
                places.append(number)
        activities.append(found[start - begin :])
    vectors = np.stack(vectors)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    same = np.equal.outer(places, places)
    free = distances[~same]
    distances[same] = 1e4
    np.fill_diagonal(distances, 0)
    limit = distance or (float(np.median(free)) if len(free) else 1.0)
    groups = AgglomerativeClustering(
        n_clusters=None,
        metric="precomputed",
        linkage="average",
        distance_threshold=limit,
    ).fit_predict(distances)
    whole = np.zeros((total, groups.max() + 1))
    for (number, speaker), group in zip(owners, groups):
        part = activities[number][:, speaker]
        rows = whole[starts[number] : starts[number] + len(part), group]
        np.maximum(rows, part, out=rows)
    return smoothed(whole > 0.4, 25), free if len(free) else [1.0]


def test_frames_fill_the_window():
    backbone = Backbone.from_preset("tiny").eval()
    model = LocalSegmentationModel(backbone, FrameHead(16, 2))
    with torch.no_grad():
        (found,) = model.segment([babble(1.0)])
        feats = backbone(babble(1.0)[None])
        known = model.head(feats).sigmoid()[0].numpy()
    assert found.activities.shape == (50, 2)
    np.testing.assert_allclose(found.activities[:49], known, atol=1e-5)
    np.testing.assert_allclose(found.activities[49], known[48], atol=1e-5)


def test_embeddings_are_of_what_a_speaker_says_alone():
    activities = np.full((99, 3), 0.01)
    activities[:60, 0] = activities[30:99, 1] = 0.9
    activities[30:50, 2] = 0.9  # never alone
    model = LocalSegmentationModel(
        Backbone.from_preset("tiny").eval(), Known(activities),
        speaker_model=Recorder(),
    )  # fmt: skip
    wav = torch.arange(100 * 320) / 1e5
    with torch.no_grad():
        (found,) = model.segment([wav])
    assert found.active.tolist() == [0, 1, 2]
    assert found.embeddings.shape == (3, 4)
    first, second, third = model.speaker_model.wavs
    assert torch.equal(first, wav[: 30 * 320])
    assert torch.equal(second, wav[60 * 320 :])  # the last frame lasts on
    assert torch.equal(third, wav)  # 0.4 s is too little


def test_a_speaker_model_takes_the_place_of_the_head(tmp_path):
    modules = {
        "backbone": Backbone.from_preset("tiny"),
        "head": FrameHead(16, 2),
    }
    rule = {"threshold": 0.3, "median_filter": 1, "chunk_s": 1.0}
    folder = save_speaker_model(tmp_path / "speakers")
    model = SpeakerDiarization(modules, rule, speaker_model=folder)
    calibration = load_speaker_model(folder).calibration
    cosine = calibration.threshold(0.5)
    assert model.cluster_threshold == pytest.approx((2 - 2 * cosine) ** 0.5)
    assert model.diarize_file(babble(3.3), num_speakers=3).segments
    assert list(model.diarize_stream(babble(3.3), 1.0))
    given = SpeakerDiarization(
        modules,
        rule,
        speaker_model=load_speaker_model(folder),
        cluster_threshold=0.7,
    )
    assert given.cluster_threshold == 0.7


def test_a_folder_of_another_task_is_refused():
    backbone = Backbone.from_preset("tiny")
    for modules in (
        {"backbone": backbone},
        {"head": FrameHead(16, 2)},
        {"encoder": backbone, "head": UtteranceHead(16, 2)},
    ):
        with pytest.raises(ValueError, match="expected backbone .* frames"):
            modules_of(modules)
    head = EENDVCHead(16, 3, model_size=16, num_layers=1)
    assert modules_of({"encoder": backbone, "head": head}) == (backbone, head)
