"""Kept features are those of the model and the audio; none is stale."""

import os
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset

from tests.brains.clips import clips, num_computed, stand
from unispeech_sb.brains import SSLBrain, feature_cache
from unispeech_sb.brains.feature_cache import open_cache
from unispeech_sb.brains.saving import random_states
from unispeech_sb.dataio.cached_items import LIVE
from unispeech_sb.dataio.pipelines import audio_pipeline
from unispeech_sb.lobes.backbone import Backbone


def frame_batches(manifests, folder, dtype="float32"):
    """A Brain with a cache of frames, a cached batch and a live one."""
    hparams = {
        "backbone": Backbone.from_preset(
            "tiny", freeze=True, output_all_hiddens=True
        ),
        "feature_cache": str(folder / "cache"),
        "cache_dtype": dtype,
        "train_logger": None,
    }
    brain = SSLBrain(
        {"backbone": hparams["backbone"]},
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
    )
    data = clips(manifests)
    loaders = [
        next(iter(brain.make_dataloader(data, Stage.VALID, batch_size=5))),
        PaddedBatch([data[place] for place in range(5)]),
    ]
    return brain, *loaders


@pytest.mark.parametrize(
    ("dtype", "most"), [("float32", 1e-5), ("bfloat16", 0.05)]
)
def test_frames_from_the_cache_are_those_of_each_utterance_alone(
    manifests, tmp_path, dtype, most
):
    brain, cached, live = frame_batches(manifests, tmp_path, dtype)
    assert not hasattr(cached, "sig")  # whose waveforms nobody has read
    feats, lens = brain.compute_features(cached, Stage.VALID)
    brain.cache = None
    expected, expected_lens = brain.compute_features(live, Stage.VALID)
    assert torch.equal(lens, expected_lens) and feats.dtype == torch.float32
    for row, share in enumerate(lens):
        count = round(float(share) * feats.shape[2])
        own = feats[:, row, :count]
        torch.testing.assert_close(
            own, expected[:, row, :count], rtol=most, atol=most
        )
    kept = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(kept) == 1


def test_entries_are_found_by_the_content_of_model_and_audio(
    backbone, manifests, tmp_path, capsys
):
    def computed(model=backbone, data=None, **options):
        cache = stand(tmp_path / "cache", model, **options)
        return num_computed(cache, data or clips(manifests), capsys)

    assert computed() == 18
    assert computed() == 0
    other = Backbone.from_preset("tiny", freeze=True, output_all_hiddens=True)
    assert computed(other) == 18
    assert computed(data=clips(manifests, gain_db=-3.0)) == 18
    assert computed(dtype=torch.bfloat16) == 18
    last = Backbone.from_preset("tiny", freeze=True)
    last.load_state_dict(backbone.state_dict())
    assert computed(last) == 18
    with torch.no_grad():
        next(backbone.parameters()).flatten()[0] += 1e-6
    assert computed() == 18


def test_a_recording_that_was_replaced_is_computed_again(
    backbone, manifests, tmp_path, capsys
):
    copied = tmp_path / "clips"
    shutil.copytree(manifests, copied)
    table = (copied / "train.csv").read_text()
    (copied / "train.csv").write_text(
        table.replace(str(manifests), str(copied))
    )
    cache = tmp_path / "cache"
    assert num_computed(stand(cache, backbone), clips(manifests), capsys) == 18
    # The same audio elsewhere is the same
    assert num_computed(stand(cache, backbone), clips(copied), capsys) == 0
    path, times = copied / "3.wav", (copied / "3.wav").stat()
    samples, _ = soundfile.read(path)
    samples[100] += 0.01
    soundfile.write(path, samples, 16000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert num_computed(stand(cache, backbone), clips(copied), capsys) == 1


def test_the_version_of_the_code_counts(
    backbone, manifests, tmp_path, capsys, monkeypatch
):
    data = clips(manifests)
    assert num_computed(stand(tmp_path, backbone), data, capsys) == 18
    version = feature_cache.FEATURE_VERSION
    monkeypatch.setattr(feature_cache, "FEATURE_VERSION", version + 1)
    assert num_computed(stand(tmp_path, backbone), data, capsys) == 18


REFUSED = {
    "expected a frozen backbone": {"freeze": False},
    "expected no augmentation": {"augmentation": torch.nn.Identity()},
    "expected mask_rule hf": {"mask_rule": "fairseq"},
    "got float8": {"cache_dtype": "float8"},
    "cache_crops of 0 or more; got float32 and -1": {"cache_crops": -1},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_not_exact_is_refused_in_a_sentence(sentence, tmp_path):
    given = {"freeze": True, "mask_rule": "hf", **REFUSED[sentence]}
    options = {name: given.pop(name) for name in ("freeze", "mask_rule")}
    hparams = {"feature_cache": str(tmp_path), **given}
    hparams["backbone"] = Backbone.from_preset("tiny", **options)
    with pytest.raises(ValueError, match=sentence) as caught:
        open_cache(SimpleNamespace(**hparams), None, "cpu")
    assert "\n" not in str(caught.value)


def test_a_head_that_is_not_affine_before_its_mean_gets_frames(tmp_path):
    backbone = Backbone.from_preset("tiny", freeze=True)
    hparams = SimpleNamespace(feature_cache=str(tmp_path), backbone=backbone)
    hparams.cache_dtype = "float32"
    cache = open_cache(hparams, torch.nn.Linear(2, 2), "cpu")
    assert not cache.pooled and cache.folder.name.endswith("frames-float32")


def test_crops_in_advance_are_the_same_in_the_next_run(
    with_silence, backbone, tmp_path, capsys
):
    data = DynamicItemDataset.from_csv(str(with_silence / "train.csv"))
    data.add_dynamic_item(audio_pipeline(random_silence=True))
    data.set_output_keys(["id", "sig"])

    def computed(seed, num_workers=0):
        torch.seed()
        cache = stand(tmp_path, backbone, num_crops=2, seed=seed)
        return num_computed(cache, data, capsys, num_workers)

    assert computed(5, num_workers=2) == 18 + 4
    assert computed(5) == computed(5, num_workers=1) == 0
    assert computed(6) == 4


def drawn_by(kind):
    """A place within 0.1 s, by one of the generators."""
    if kind == "torch":
        return int(torch.randint(1600, ()))
    return (
        random.randrange(1600) if kind == "python" else np.random.choice(1600)
    )


@pytest.mark.parametrize("kind", ["torch", "python", "numpy"])
def test_any_generator_makes_an_item_a_drawn_one(backbone, tmp_path, kind):
    """Under any name of the waveform."""
    data = DynamicItemDataset({name: {"size": 3200} for name in "ab"})
    data.add_dynamic_item(
        lambda size: torch.sin(torch.arange(size) + drawn_by(kind)),
        takes="size",
        provides="crop",
    )
    data.set_output_keys({"id": "id", "sig": "crop", "size": "size"})
    live = stand(tmp_path, backbone).view(data)
    ahead = stand(tmp_path, backbone, num_crops=2).view(data)
    assert live.entries == [[], []] and live[0]["entry"] == LIVE
    assert [len(set(own)) for own in ahead.entries] == [2, 2]
    assert "sig" not in ahead[0] and ahead[0]["size"] == 3200


def test_a_view_draws_no_random_numbers(with_silence, backbone, tmp_path):
    data = DynamicItemDataset.from_csv(str(with_silence / "train.csv"))
    data.add_dynamic_item(audio_pipeline(random_silence=True))
    data.set_output_keys(["id", "sig"])
    (before,) = random_states()
    stand(tmp_path, backbone, num_crops=2).view(data)
    (after,) = random_states()
    assert torch.equal(after.pop("torch"), before.pop("torch"))
    assert after == before


def test_the_cache_is_no_part_of_the_experiment():
    from unispeech_sb.fingerprint import differences

    old, new = (
        {"settings": {"feature_cache": place}} for place in (None, "cache")
    )
    assert differences(old, new) == []
    assert differences(
        {"settings": {"cache_dtype": "float32"}},
        {"settings": {"cache_dtype": "bfloat16"}},
    )
