"""Training on kept features is training on live ones."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.batch import PaddedBatch

from recipes import (
    emotion_recognition,
    intent_classification,
    keyword_spotting,
    speaker_diarization,
    speaker_identification,
)
from tests.brains.clips import write_wav
from tests.conftest import ROOT
from unispeech_sb.brains import IntentBrain, UtteranceBrain
from unispeech_sb.brains.feature_cache import FeatureCache
from unispeech_sb.dataio.cached_items import LIVE
from unispeech_sb.dataio.manifest import write_manifests


def prepared(recipe, yaml, manifests, folder, **changes):
    """Hparams of a recipe's own yaml, and its datasets."""
    path = ROOT / "hparams" / yaml
    text = path.read_text()
    given = {
        "data_folder": "x",
        "model": "tiny",
        "manifest_folder": str(manifests),
        "output_folder": str(folder / "out"),
        "batch_size": 4,
        "num_workers": 0,
        **changes,
    }
    if "test_folder" in text:
        given["test_folder"] = "x"
    torch.manual_seed(0)
    hparams = load_hyperpyyaml(text, given)
    return hparams, recipe.dataio_prep(hparams)


def trained(brain_class, hparams, datasets, updates=200, dtype=torch.float32):
    """The Brain of a training of so many updates, without checkpoints."""
    for module in hparams["modules"].values():
        module.to(dtype)
    hparams["backbone"].register_forward_pre_hook(
        lambda _, given: (given[0].to(dtype), *given[1:])
    )
    brain = brain_class(
        hparams["modules"],
        hparams["opt_class"],
        {**hparams, "train_logger": None},
        {
            "device": "cpu",
            "noprogressbar": True,
            "optimizer_step_limit": updates,
            "max_grad_norm": hparams["max_grad_norm"],
        },
    )
    torch.manual_seed(1)
    brain.fit(
        range(1, 3),
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=hparams["train_dataloader_opts"],
        valid_loader_kwargs=hparams["valid_dataloader_opts"],
    )
    assert brain.optimizer_step == updates
    return brain


WORDS = {
    "recipe": keyword_spotting,
    "yaml": "keyword_spotting_superb.yaml",
    "num_classes": 3,
    "draws_per_epoch": 400,
}
SPEAKERS = {
    "recipe": speaker_identification,
    "yaml": "speaker_identification_superb.yaml",
    "draws_per_epoch": 400,
    "batch_size": 1,  # of which four make an update
}
CROPPED = {**SPEAKERS, "crop_s": 0.25}
INTENTS = {
    "recipe": intent_classification,
    "yaml": "intent_classification_superb.yaml",
    "slots": ["label", "spk_id"],
    "num_classes": 6,
    "draws_per_epoch": 400,
}
EMOTIONS = {
    "recipe": emotion_recognition,
    "yaml": "emotion_recognition_superb.yaml",
    "num_classes": 3,
    "draws_per_epoch": 800,
    "batch_size": 1,  # of which eight make an update
}


@pytest.mark.slow
@pytest.mark.parametrize("task", [WORDS, SPEAKERS, CROPPED, INTENTS, EMOTIONS])
@pytest.mark.parametrize(
    ("dtype", "most"), [("float64", 1e-9), ("float32", 1e-5)]
)
def test_training_with_a_cache_ends_in_the_same_weights(
    task, dtype, most, manifests, tmp_path
):
    heads = []
    for cache in (None, str(tmp_path / "cache")):
        hparams, datasets = prepared(
            **task,
            manifests=manifests,
            folder=tmp_path,
            feature_cache=cache,
            cache_dtype=dtype,
            lr=0.001,
        )
        start = torch.nn.utils.parameters_to_vector(
            hparams["head"].parameters()
        ).detach()
        kind = getattr(torch, dtype)
        brain_class = IntentBrain if task is INTENTS else UtteranceBrain
        brain = trained(brain_class, hparams, datasets, dtype=kind)
        heads.append(
            torch.nn.utils.parameters_to_vector(brain.modules.head.parameters())
        )
    assert brain.cache.pooled
    live, cached = heads
    assert (live - start).norm() > 0.1
    assert (live - cached).abs().max() < most
    view = brain.cache.view(datasets["train"])
    assert ([] in view.entries) == (task is CROPPED)
    assert all(map(len, brain.cache.view(datasets["valid"]).entries))


def test_a_few_updates_end_in_the_same_weights(manifests, tmp_path):
    ends = []
    for cache in (None, str(tmp_path / "cache")):
        hparams, datasets = prepared(
            **INTENTS, manifests=manifests, folder=tmp_path, feature_cache=cache
        )
        brain = trained(IntentBrain, hparams, datasets, updates=30)
        ends.append(brain.modules.head.classifier.weight)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)


def test_a_changed_backbone_is_refused_while_a_run_goes_on(manifests, tmp_path):
    hparams, datasets = prepared(
        **WORDS,
        manifests=manifests,
        folder=tmp_path,
        feature_cache=str(tmp_path / "cache"),
    )
    brain = trained(UtteranceBrain, hparams, datasets, updates=2)
    with torch.no_grad():
        next(hparams["backbone"].parameters()).mul_(2.0)
    with pytest.raises(ValueError, match="expected the backbone that the run"):
        brain.on_fit_start()


@pytest.mark.parametrize("crops", [0, 3])
def test_silence_is_drawn_live_or_in_advance(with_silence, tmp_path, crops):
    task = {**WORDS, "num_classes": 4}
    ends = []
    for cache in (None, str(tmp_path / "cache")):
        hparams, datasets = prepared(
            **task,
            manifests=with_silence,
            folder=tmp_path,
            feature_cache=cache,
            cache_crops=crops,
        )
        brain = trained(UtteranceBrain, hparams, datasets, updates=40)
        ends.append(brain.modules.head.classifier.weight)
    view = brain.cache.view(datasets["train"])
    assert [len(own) for own in view.entries] == [1] * 18 + [crops] * 2
    place = 19
    found = {view[place]["entry"] for _ in range(40)}
    assert found == (set(view.entries[place]) if crops else {LIVE})
    assert len(found) == max(crops, 1)
    # The draws are the same; crops in advance are others
    assert torch.allclose(*ends, rtol=0, atol=1e-5) == (crops == 0)


def test_chunks_of_conversations_come_from_the_cache(tmp_path, backbone):
    """At their own places; at random ones they are live, or drawn ahead."""
    folder = tmp_path / "mix"
    folder.mkdir()
    write_wav(folder / "a.wav", 24000, 300)
    turns = ("train 1 0.1 0.5 {} x", "train 1 0.7 0.5 {} y")
    turns += (turns[0].replace("train", "valid"),)
    lines = [f"SPEAKER {t.format('<NA> <NA>')} <NA> <NA>\n" for t in turns]
    (folder / "a.rttm").write_text("".join(lines))
    record = {"wav": str(folder / "a.wav"), "duration": 1.5, "uem": ""}
    record["rttm"] = str(folder / "a.rttm")
    splits = ("train", "valid")
    write_manifests([{**record, "ID": s, "split": s} for s in splits], folder)
    for yaml, crops, entries in (
        ("speaker_diarization_superb.yaml", 0, 1),
        ("speaker_diarization.yaml", 0, 0),
        ("speaker_diarization.yaml", 3, 3),
    ):
        _, datasets = prepared(
            speaker_diarization, yaml, folder, tmp_path, chunk_s=1.0
        )
        cache = FeatureCache(tmp_path / "cache", backbone, num_crops=crops)
        view = cache.view(datasets["train"])
        assert [len(own) for own in view.entries] == [entries] * 2
        for number in (0, 3, 5):
            item, live = view[number], datasets["train"][number]
            assert torch.equal(item["activity"], live["activity"])
            if entries:
                feats, _ = cache.features(PaddedBatch([item]))
                expected = backbone(live["sig"][None])
                torch.testing.assert_close(feats, expected, rtol=0, atol=1e-5)
