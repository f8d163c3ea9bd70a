"""Training on kept features is training on live ones, and none is stale."""

import json
import multiprocessing
import os
import random
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset

from recipes import (
    emotion_recognition,
    intent_classification,
    keyword_spotting,
    speaker_diarization,
    speaker_identification,
)
from tests.conftest import ROOT
from unispeech_sb.atomic import temporary_path
from unispeech_sb.brains import (
    IntentBrain,
    SSLBrain,
    UtteranceBrain,
    feature_cache,
)
from unispeech_sb.brains.feature_cache import FeatureCache, open_cache
from unispeech_sb.brains.saving import random_states
from unispeech_sb.dataio import cached_items
from unispeech_sb.dataio.cached_items import LIVE
from unispeech_sb.dataio.manifest import read_manifest, write_manifests
from unispeech_sb.dataio.pipelines import audio_pipeline
from unispeech_sb.lobes.backbone import Backbone

CLASSES = ("go", "no", "yes")


def write_wav(path, samples, pitch):
    """A tone in noise, the same whenever it is written."""
    noise = np.random.default_rng(samples + pitch).normal(0, 0.1, samples)
    tone = np.sin(2 * np.pi * pitch * np.arange(samples) / 16000)
    soundfile.write(path, 0.3 * tone + noise, 16000)


@pytest.fixture(scope="session")
def manifests(tmp_path_factory):
    """Clips of 0.2 to 0.3 s with three words, each of another speaker, and
    long ones of silence; not to be changed."""
    folder = tmp_path_factory.mktemp("clips")
    records = []
    for number in range(24):
        path = folder / f"{number}.wav"
        samples = 3200 + 160 * (number % 11)
        write_wav(path, samples, 200 * (1 + number % 3))
        label = CLASSES[number % 3]
        records.append(
            {
                "ID": path.stem,
                "wav": str(path),
                "duration": samples / 16000,
                "split": "train" if number < 18 else "valid",
                "label": label,
                "spk_id": label,
                "wrd": label,
            }
        )
    write_manifests(records, folder)
    return folder


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


def clips(manifests, gain_db=0.0, split="train"):
    """The clips as a dataset of waveforms."""
    data = DynamicItemDataset.from_csv(str(manifests / f"{split}.csv"))
    data.add_dynamic_item(audio_pipeline(gain_db=gain_db))
    data.set_output_keys(["id", "sig"])
    return data


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


def stand(folder, backbone, **options):
    """A cache of means in a folder."""
    return FeatureCache(folder, backbone, pooled=True, **options)


def num_computed(cache, data, capsys, num_workers=0):
    """How many waveforms a cache computes for a dataset."""
    capsys.readouterr()
    cache.view(data, num_workers)
    printed = capsys.readouterr().out
    if not printed:
        return 0
    return int(printed.partition("computing ")[2].split()[0])


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone.from_preset("tiny", freeze=True, output_all_hiddens=True)


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


@pytest.fixture
def with_silence(manifests, tmp_path):
    """The clips, and two noises of which seconds are drawn."""
    folder, rows = tmp_path / "silence", []
    folder.mkdir()
    for split in ("train", "valid"):
        rows += [
            {**row, "split": split}
            for row in read_manifest(manifests / f"{split}.csv")
        ]
        for number in range(2):
            path = folder / f"noise{number}.wav"
            write_wav(path, 40000, 50)
            silence = {"ID": f"{split}_{number}", "wav": str(path)}
            silence |= {"duration": 2.5, "label": "_silence_"}
            rows.append({**rows[0], **silence, "split": split})
    write_manifests(rows, folder)
    return folder


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


def test_the_size_is_printed_before_anything_is_written(
    backbone, manifests, tmp_path, capsys, monkeypatch
):
    written = []
    write = feature_cache.write_tensors
    monkeypatch.setattr(
        feature_cache,
        "write_tensors",
        lambda path, tensors, notes: (
            written.append(capsys.readouterr().out),
            write(path, tensors, notes),
        ),
    )
    cache = FeatureCache(tmp_path / "cache", backbone)
    cache.view(clips(manifests))
    (printed,) = written
    size = sum(p.stat().st_size for p in cache.folder.iterdir())
    shown = float(printed.partition("(")[2].split()[0])
    assert "computing 18 of 18 waveforms" in printed and " MB;" in printed
    assert shown == pytest.approx(size / 1e6, abs=0.06)


def test_what_does_not_fit_on_the_disk_is_refused(
    backbone, manifests, tmp_path, monkeypatch
):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    cache = FeatureCache(tmp_path / "cache", backbone)
    with pytest.raises(OSError, match=r"expected .* of free disk .* got 0.0"):
        cache.view(clips(manifests))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_disk_that_fills_up_takes_one_sentence(backbone, manifests, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = FeatureCache(tmp_path / "cache", backbone)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="safetensors") as caught:
            cache.view(clips(manifests))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert not list(cache.folder.iterdir())
    cache.view(clips(manifests))  # once there is space


def compute_until_killed(folder, manifests, backbone):
    """Is killed while it writes the third chunk."""
    write, left = feature_cache.write_tensors, [2]

    def dying(path, tensors, notes):
        if not left[0]:
            temporary_path(path).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        write(path, tensors, notes)

    feature_cache.write_tensors = dying
    stand(folder, backbone).view(clips(manifests))


def test_a_killed_pass_goes_on(
    backbone, manifests, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cached_items, "_BATCH_SAMPLES", 5 * 4800)
    monkeypatch.setattr(feature_cache, "_CHUNK_BYTES", 1)
    context = multiprocessing.get_context("fork")
    given = (tmp_path, manifests, backbone)
    process = context.Process(target=compute_until_killed, args=given)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = stand(tmp_path, backbone)
    left = [path.name[0] for path in cache.folder.iterdir()]
    assert len(left) == 3 and left.count(".") == 1
    assert 0 < num_computed(cache, clips(manifests), capsys) < 18
    assert not list(tmp_path.rglob(".*"))
    whole = stand(tmp_path / "other", backbone)
    whole.view(clips(manifests))
    data = clips(manifests)
    for place in range(18):
        own, other = (
            c.features(PaddedBatch([c.view(data)[place]]))[0]
            for c in (cache, whole)
        )
        torch.testing.assert_close(own, other)


def test_a_damaged_chunk_is_named(backbone, manifests, tmp_path):
    cache = stand(tmp_path, backbone)
    cache.view(clips(manifests))
    (path,) = cache.folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=path.name):
        stand(tmp_path, backbone)


def compute_beside(folder, manifests, backbone, counted):
    """A process that needs the same features; how many it computed."""
    compute = FeatureCache._named

    def counting(self, wavs):
        with counted.get_lock():
            counted.value += len(wavs)
        return compute(self, wavs)

    FeatureCache._named = counting
    feature_cache._WAIT_S = 0.01
    stand(folder, backbone).view(clips(manifests))


def test_processes_share_a_folder(backbone, manifests, tmp_path):
    context = multiprocessing.get_context("fork")
    counted = context.Value("i", 0)
    given = (tmp_path, manifests, backbone, counted)
    both = [
        context.Process(target=compute_beside, args=given) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert counted.value == 18
    cache = stand(tmp_path, backbone)
    assert len(cache._entries) == 18
    assert not list(tmp_path.glob(".*.lock"))


def compute_share(rank, folder, manifests, backbone, counted):
    """One of the two processes of a run."""
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=2
    )
    compute_beside(folder / "cache", manifests, backbone, counted[rank])
    data = clips(manifests)
    cache = stand(folder / "cache", backbone)
    assert len(cache.view(data).entries) == len(data)
    torch.distributed.destroy_process_group()


def test_processes_of_a_run_share_the_work(
    backbone, manifests, tmp_path, monkeypatch
):
    monkeypatch.setattr(cached_items, "_BATCH_SAMPLES", 4800)
    context = multiprocessing.get_context("fork")
    counted = [context.Value("i", 0) for _ in range(2)]
    given = (tmp_path, manifests, backbone, counted)
    both = [
        context.Process(target=compute_share, args=(rank, *given))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert [count.value for count in counted] == [9, 9]


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


def test_the_note_of_a_chunk_is_plain(backbone, manifests, tmp_path):
    """Chunks are safetensors that anything reads: frames and their counts."""
    from safetensors import safe_open

    cache = FeatureCache(tmp_path, backbone)
    cache.view(clips(manifests))
    (path,) = cache.folder.glob("*.safetensors")
    with safe_open(path, framework="np") as chunk:
        digests = json.loads(chunk.metadata()["digests"])
        counts, feats = (chunk.get_tensor(n) for n in ("counts", "features"))
    assert len(digests) == len(counts) == 18
    assert feats.shape == (counts.sum(), 3, 16)
