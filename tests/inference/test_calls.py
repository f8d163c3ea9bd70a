"""``load`` gives the right interface, and calling it does its task."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch

import unispeech_sb as us
from tests.huggingface import save_folder, tiny_model
from tests.inference import diarization_models, speaker_models
from tests.inference.models import TOKENS, characters, uneven_speech
from tests.inference.test_classification import save_model as save_classifier
from unispeech_sb import atomic
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.convert import pretrained
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference import loading
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead

SHOWN = {
    "asr": ("LongFormASR", "transcribe_long", "text"),
    "speaker": ("SpeakerVerification", "embed", "vector"),
    "diarization": ("SpeakerDiarization", "diarize_file", "segments"),
    "classifier": ("UtteranceClassifier", None, "label"),
    "backbone": ("SpeechFeatures", "extract", "states"),
}
"""Folder -> class, its method for one recording, what a result has."""
each = pytest.mark.parametrize("name", SHOWN)


def save_recognizer(path):
    """A recognizer whose decisions are not close calls."""
    torch.manual_seed(1)
    backbone, head = Backbone.from_preset("tiny"), FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= 20
    lobes = {"backbone": backbone, "head": head}
    write_pretrained(
        path, lobes, "EncoderASR", "A test.", characters(), blank_index=0
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One of each kind."""
    root = tmp_path_factory.mktemp("load")
    save_recognizer(root / "asr")
    speaker_models.save_model(root / "speaker")
    diarization_models.save_model(root / "diarization")
    save_classifier(root / "classifier")
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(root / "backbone", lobes, "WaveformEncoder", "A test.")
    return root


@pytest.fixture(scope="module")
def models(folders):
    """Each loaded."""
    return {name: us.load(folders / name) for name in SHOWN}


@pytest.fixture
def file(tmp_path):
    """A recording at the rate of the models."""
    path = tmp_path / "a.wav"
    soundfile.write(path, uneven_speech(1.5).numpy(), 16000, "FLOAT")
    return str(path)


def same(one, other):
    """Whether two results are equal."""
    if isinstance(one, torch.Tensor):
        return torch.allclose(one, other, rtol=1e-3, atol=1e-4)
    return one == other


@each
def test_the_folder_decides_and_nothing_trains(name, models):
    model = models[name]
    assert type(model).__name__ == SHOWN[name][0]
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


@each
def test_a_call_does_the_task_for_one_and_many(name, models, file):
    model, (_, method, field) = models[name], SHOWN[name]
    wav = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
    one = getattr(model(file), field)
    if method:
        assert same(one, getattr(getattr(model, method)(file), field))
    for form in (wav, wav.numpy(), [wav.numpy()], (os.fsencode(file),)):
        found = model(form)
        if isinstance(form, tuple):  # bytes name no file here
            assert isinstance(found[0], AudioError)
        else:
            found = found[0] if isinstance(form, list) else found
            assert same(getattr(found, field), one)
    several = model([wav[:9000], file, "no.wav", None, wav, file])
    assert [isinstance(r, AudioError) for r in several] == [
        False, False, True, True, False, False,
    ]  # fmt: skip
    for number in (1, 4, 5):
        assert same(getattr(several[number], field), one)
    assert same(getattr(several[0], field), getattr(model(wav[:9000]), field))
    assert model([]) == []
    for wrong in ("no.wav", None, wav.short(), wav * torch.nan, wav[:0]):
        with pytest.raises((AudioError, ValueError)) as caught:
            model(wrong)
        assert "\n" not in str(caught.value)


@each
def test_waveforms_of_another_rate_are_resampled(name, models, tmp_path):
    model, field = models[name], SHOWN[name][2]
    wav = uneven_speech(1.5, 44100).numpy().astype(np.float32)
    path = tmp_path / "fast.wav"
    soundfile.write(path, wav, 44100, "FLOAT")
    from_file = getattr(model(path), field)
    assert same(getattr(model(wav, sample_rate=44100), field), from_file)
    (listed,) = model([wav], sample_rate=44100)
    assert same(getattr(listed, field), from_file)
    for rate in (0, -1, 999, 16000.0, "16k", True, 10**6, float("nan")):
        with pytest.raises(ValueError, match="sample_rate: expected 1000 to"):
            model(wav, sample_rate=rate)


def test_speechbrains_batches_are_as_before(models):
    wavs, shares = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    expected = models["asr"].forward(wavs, shares)
    assert torch.equal(models["asr"](wavs, shares), expected)
    assert torch.equal(models["asr"](wavs, wav_lens=shares), expected)
    assert len(models["classifier"](wavs)) == 4
    assert models["diarization"](wavs).dim() == 3


def test_options_reach_the_method_and_the_constructor(folders, file):
    model = us.load(str(folders / "diarization"), device="cpu", chunk_s=2.0)
    assert model.chunk_s == 2.0
    found = model([file], num_speakers=1)[0]
    assert len(found.speakers) <= 1
    with pytest.raises(ValueError, match="device: expected one that this"):
        us.load(folders / "asr", device="abacus")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.mkdir(), "it is empty"),
        (lambda path: path.write_text("x"), "it is a file: unispeech-sb info"),
        (lambda path: write_yaml(path, "a: 1\n"), "use SpeechBrain's"),
        (lambda path: write_yaml(path, "output_folder: a\n"), "of a recipe's"),
    ],
)
def test_what_no_interface_loads_is_said(make, said, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=said) as caught:
        us.load(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize("source", [None, 5, b"asr", ["asr"], {}])
def test_what_names_no_folder_is_one_sentence(source):
    with pytest.raises(ValueError, match="expected a folder or the hub name"):
        us.load(source)


def test_a_device_may_be_torchs(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "check_device", asked.append)
    assert us.load(folders / "asr", device=torch.device("cpu")).device == "cpu"
    model = us.load(folders / "asr", run_opts={"device": torch.device("cpu")})
    assert model.device == "cpu" and asked == [torch.device("cpu"), None]


@pytest.mark.parametrize("name", ["asr", "speaker"])
def test_a_file_that_was_not_copied_is_named(name, folders, tmp_path):
    shutil.copytree(folders / name, tmp_path / "x")
    for path in sorted((tmp_path / "x").glob("*.ckpt")):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(OSError, match=rf"{path.name}: no such file"):
            us.load(tmp_path / "x")
        path.write_bytes(content)


@each
def test_recordings_of_datasets_have_their_own_rate(name, models):
    model, field = models[name], SHOWN[name][2]
    wav = uneven_speech(1.5, 44100).numpy()
    expected = getattr(model(wav, sample_rate=44100), field)
    audio = {"array": wav, "sampling_rate": 44100, "path": None}
    raw = {"raw": torch.from_numpy(wav), "sampling_rate": np.int64(44100)}
    for found in (model(audio), model(raw, sample_rate=8000)):
        assert same(getattr(found, field), expected)
    found = model([audio, {**audio, "array": wav.tolist()}, {"bytes": b""}])
    assert same(getattr(found[1], field), expected)
    assert "expected a dict with array and sampling_rate" in str(found[2])
    for rate, error in ((0, AudioError), (None, AudioError)):
        with pytest.raises(error, match="sampling_rate: expected 1000 to"):
            model({**audio, "sampling_rate": rate})
    assert "got one with a, b" in str(model([{"a": 1, "b": 2}])[0])


@each
def test_what_is_no_list_of_recordings_is_one_sentence(name, models, file):
    model, wav = models[name], uneven_speech(1.5).numpy()
    for wrong in ((wav, 16000), (16000, wav), wav.tolist(), [np.float32(1)]):
        with pytest.raises(ValueError, match="with the number .* sample_rate"):
            model(wrong)
    with open(file, "rb") as stream:
        with pytest.raises(ValueError, match="expected a list of files"):
            model(stream)
    with pytest.raises(AudioError, match="an array of <U"):
        model(np.array([file]))
    with pytest.raises(TypeError, match="sampling_rate: expected an option of"):
        model(wav, sampling_rate=44100)


@each
def test_samples_of_16_bits_as_floats_are_refused(name, models):
    wav = uneven_speech(1.5).numpy()
    for form in (wav * 32768, torch.from_numpy(wav * 32768).double()):
        with pytest.raises(AudioError, match="from -1 to 1; got up to .*32768"):
            models[name](form)
    models[name](wav * (1.5 / abs(wav).max()))  # loud, and clipped elsewhere


def test_a_tensor_of_two_dimensions_without_lengths(models):
    for shape in ((1, 16000), (2, 16000), (16000, 2)):
        with pytest.raises(AudioError, match=r"\[N\]; got .* wav_lens"):
            models["asr"](torch.zeros(shape))


def write_yaml(folder, text):
    """A folder with a yaml."""
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(text)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unispeech_sb" / "converted"


def save_hub(path, **options):
    """A Hugging Face folder of a classifier."""
    names = {"id2label": {0: "no", 1: "yes"}, "num_labels": 2}
    model = tiny_model(
        "unispeech-sat", "ForSequenceClassification", **names, **options
    )
    return save_folder(model, path)


def test_a_hugging_face_folder_is_converted_once(
    cache, file, tmp_path, monkeypatch, caplog
):
    hub = save_hub(tmp_path / "hub")
    model = us.load(hub)
    assert model(file).label in ("no", "yes")
    (made,) = cache.iterdir()
    assert made.name.startswith("hub-") and str(made) in caplog.text
    monkeypatch.setattr(pretrained, "convert_checkpoint", pytest.fail)
    (tmp_path / "other").mkdir()
    hub.rename(tmp_path / "other" / "hub")
    assert us.load(tmp_path / "other" / "hub")(file) == model(file)
    (tmp_path / "other" / "hub" / "README.md").write_text("new")
    assert us.load(tmp_path / "other" / "hub")(file) == model(file)


def test_another_content_is_another_folder(cache, tmp_path):
    hub = save_hub(tmp_path / "hub")
    us.load(hub)
    text = (hub / "config.json").read_text()
    assert '"yes"' in text
    (hub / "config.json").write_text(text.replace('"yes"', '"ja"'))
    assert us.load(hub).labels == ["no", "ja"]
    assert len(list(cache.glob("hub-*"))) == 2


def test_a_conversion_that_fails_leaves_nothing(cache, tmp_path):
    hub = save_hub(tmp_path / "hub")
    (hub / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        us.load(hub)
    assert not list(cache.iterdir())


def test_of_two_at_a_time_one_converts(cache, tmp_path, monkeypatch):
    hub, calls = save_hub(tmp_path / "hub"), []
    convert = pretrained.convert_checkpoint
    started, waits = threading.Event(), threading.Event()

    def slow(*arguments):
        calls.append(arguments)
        started.set()
        assert waits.wait(60)
        return convert(*arguments)

    monkeypatch.setattr(pretrained, "convert_checkpoint", slow)
    monkeypatch.setattr(atomic.time, "sleep", lambda _: waits.set())
    found = []

    def work():
        found.append(pretrained.converted_folder(hub))

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert started.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(found)) == 1 and len(found) == 2


def test_the_cache_is_where_the_standard_says(tmp_path, monkeypatch):
    hub = save_hub(tmp_path / "hub")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        made = pretrained.converted_folder(hub)
        assert made.is_relative_to(tmp_path / ".cache" / "unispeech_sb")


def test_a_hub_name_of_ours_is_loaded_as_it_is(
    cache, folders, tmp_path, monkeypatch, file
):
    monkeypatch.setattr(
        pretrained, "find_source", lambda name: folders / "classifier"
    )
    assert us.load("someone/spotter")(file).label
    assert not cache.exists()


PROGRAM = """
import sys
import unispeech_sb as us
names = dir(us)
assert {"load", "LongFormASR", "UtteranceClassifier", "Backbone"} <= {*names}
heavy = {"torch", "speechbrain", "numpy"} & {*sys.modules}
assert not heavy, heavy
assert not hasattr(us, "nothing")
"""


def test_the_import_is_light():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_all_that_is_shown_is_there():
    assert all(hasattr(us, name) for name in dir(us))


@each
def test_a_precision_is_given_or_in_the_yaml(name, folders, tmp_path):
    wav = uneven_speech(1.0)
    given = us.load(folders / name, "cpu", precision="bf16")
    for precision, expected in ((None, "bf16"), ("fp32", "fp32")):
        folder = tmp_path / str(precision)
        shutil.copytree(folders / name, folder)
        with open(folder / "hyperparams.yaml", "a") as file:
            file.write("\nprecision: bf16\n")
        model = us.load(folder, "cpu", precision=precision)
        assert model.precision == expected
        if precision is None:
            assert repr(model(wav)) == repr(given(wav))
    with pytest.raises(ValueError, match="precision: expected .* got 'fp64'"):
        us.load(folders / name, "cpu", precision="fp64")
