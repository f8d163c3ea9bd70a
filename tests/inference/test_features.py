"""Hidden states, against those of the backbone itself."""

import numpy as np
import pytest
import soundfile
import torch

from tests.huggingface import save_folder, tiny_model
from tests.inference import diarization_models, speaker_models
from tests.inference.models import uneven_speech
from unispeech_sb.dataio.audio import AudioError, read_audio
from unispeech_sb.inference.features import (
    HiddenStates,
    SpeechFeatures,
    StateStream,
)
from unispeech_sb.inference.loading import load
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.packing import plan_windows


def extractor(backbone_options=None, **options):
    """The interface around a tiny backbone."""
    torch.manual_seed(1)
    backbone = Backbone.from_preset("tiny", **(backbone_options or {}))
    return SpeechFeatures({"encoder": backbone}, {}, **options)


@pytest.fixture
def files(tmp_path):
    """Recordings of different lengths and rates, the longest first."""
    paths = []
    for number, (seconds, rate) in enumerate(((1.7, 16000), (0.6, 8000))):
        samples = uneven_speech(seconds, rate).numpy()
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], samples, rate, "FLOAT")
    return paths


@pytest.mark.parametrize("batch_seconds", [0.5, 60.0])
def test_states_are_those_of_the_backbone(batch_seconds, files):
    model = extractor()
    found = dict(
        model.extract_files(files, [2, 0], batch_seconds=batch_seconds)
    )
    for path in files:
        with torch.no_grad():
            wav = read_audio(path)
            states = torch.stack([*model.backbone.iter_states(wav[None])])
        own = found[path]
        assert own.layers == (2, 0)
        torch.testing.assert_close(
            own.states, states[[2, 0], 0], rtol=1e-3, atol=1e-4
        )
        assert own.duration_s == len(wav) / 16000 and own.frame_s == 0.02


@pytest.mark.parametrize("stable", [False, True])
def test_layers_are_counted_as_transformers_counts_them(
    stable, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    norm = "layer" if stable else "group"
    theirs = tiny_model(
        "unispeech-sat", do_stable_layer_norm=stable, feat_extract_norm=norm
    )
    model = load(save_folder(theirs, tmp_path / "hub"))
    wav = uneven_speech(1.0)
    with torch.no_grad():
        expected = theirs(wav[None], output_hidden_states=True).hidden_states
        last = theirs(wav[None]).last_hidden_state
    found = model(wav, layers=range(len(expected)))
    expected = torch.cat([*expected[:-1], last])  # after the last norm
    torch.testing.assert_close(found.states, expected, rtol=1e-3, atol=1e-3)


def test_the_last_layer_is_the_default(files):
    model = extractor()
    assert model(files[0]).layers == (model.num_layers,)
    whole = model(torch.randn(2, 4000))
    assert whole.shape[:2] == (model.num_layers + 1, 2)


@pytest.mark.parametrize(
    ("layers", "same"), [([-1], [2]), ([-3, 1], [0, 1]), ("all", [0, 1, 2])]
)
def test_negative_layers_count_from_the_last(layers, same, files):
    model = extractor()
    found = model.extract(files[0], layers)
    assert found.layers == tuple(same)
    assert torch.equal(found.states, model.extract(files[0], same).states)


def test_a_layer_is_given_once(files):
    with pytest.raises(ValueError, match="different ones; got 2 and -1"):
        extractor().extract(files[0], [2, -1])


@pytest.mark.parametrize("layers", [[-4], [99], [], ["x"], [0, -99]])
def test_layers_that_are_not_there_are_refused(layers, files):
    model = extractor()
    for call in (model.extract, lambda f, n: model.extract_files([f], n)):
        with pytest.raises(
            ValueError, match="numbers from 0 to 2, or .* to -3; got"
        ):
            call(files[0], layers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("context_s", [0.5, 0.0])
@pytest.mark.parametrize(
    ("norm", "num_buckets"), [("group", None), ("layer", None), ("layer", 12)]
)
def test_windows_of_a_long_recording_join(
    norm, num_buckets, context_s, workers
):
    wav, seconds = uneven_speech(5.0), []
    options = {"feat_extract_norm": norm, "num_conv_pos_embeddings": 128}
    options["num_buckets"] = num_buckets  # WavLM's, by distance in a window
    cut = extractor(options, window_s=1.5, context_s=context_s)
    cut.num_workers = workers
    found = cut.extract(wav, [0, 2, 1], on_progress=seconds.append)
    whole = extractor(options).extract(wav, [0, 2, 1])
    assert found.states.shape == whole.states.shape
    # Convolutions, their norms and positions are those of the whole
    torch.testing.assert_close(
        found.states[0], whole.states[0], rtol=1e-3, atol=1e-3
    )
    assert len(seconds) > 3 and sum(seconds) == pytest.approx(5.0, abs=0.1)
    # and the blocks those of each window
    blocks, first = cut.backbone.encoder.layers, found.states[0]
    size = cut._windows([0]).num_frames(24000)
    for window in plan_windows(249, size, round(context_s * 50), 1, 1):
        own = first[None, window.start : window.stop]
        biases = blocks[0].attention.biases(own.shape[1])
        for layer, states in zip(blocks, (found.states[2], found.states[1])):
            own = layer(own, biases=biases)[0]
            torch.testing.assert_close(
                own[0, window.kept], states[window.first : window.last],
                rtol=1e-3, atol=1e-3,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "options"),
    [(2, {"last_state": "raw"}), (1, {"output_norm": True})],
)
def test_windows_are_as_the_folder_says(layer, options):
    wav, plain = uneven_speech(4.0), {"do_stable_layer_norm": True}
    options = {**plain, **options}
    whole = extractor(options).extract(wav, [layer]).states
    other = extractor(plain).extract(wav, [layer]).states
    cut = extractor(options, window_s=1.9, context_s=0.9)
    found = cut.extract(wav, [layer]).states
    assert (found - whole).norm() < 0.1 * (other - whole).norm()


@pytest.mark.parametrize("seconds", [0.5, 7.0])
def test_a_stream_holds_one_window_at_a_time(seconds, tmp_path, monkeypatch):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, uneven_speech(seconds).numpy(), 16000, "FLOAT")
    model = extractor(window_s=2.0)
    whole, stream = model.extract(path), model.stream(path, on_progress=None)
    frames = []
    encoder = model.backbone.encoder
    encoder.layers[0].register_forward_hook(
        lambda layer, args, out: frames.append(args[0].shape[1])
    )
    blocks = iter(stream.blocks)
    first = next(blocks)
    assert len(frames) == 1 and max(frames) <= 99
    states = torch.cat([first, *blocks], 1)
    assert torch.equal(states, whole.states)
    assert stream.num_frames == whole.num_frames == states.shape[1]
    assert stream[0] == whole[0] and stream[2:4] == whole[2:]
    assert max(frames) <= 99 and len(frames) == (1 if seconds < 1 else 12)


def test_files_that_need_windows_come_as_streams_on_request(files):
    found = dict(
        extractor(window_s=1.6).extract_files(files, [1], streams=True)
    )
    assert isinstance(found[files[1]], HiddenStates)
    assert isinstance(found[files[0]], StateStream)


def test_a_file_that_breaks_in_a_stream_is_named(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, uneven_speech(5.0).numpy(), 16000, "FLOAT")
    stream = extractor(window_s=2.0).stream(path)
    with open(path, "rb+") as file:
        file.truncate(160_000)
    with pytest.raises(AudioError, match="a.wav: truncated"):
        list(stream.blocks)


def test_any_folder_has_features(files, tmp_path):
    for save in (speaker_models.save_model, diarization_models.save_model):
        folder = save(tmp_path / save.__module__)
        model = SpeechFeatures.from_hparams(str(folder))
        assert model(files[0]).states.shape[0] == 1


def test_one_bad_file_does_not_end_the_batch(files, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(9, 0.1), 16000)
    bad = [str(tmp_path / "short.wav"), "no.wav"]
    found = dict(extractor().extract_files([bad[0], files[0], bad[1]]))
    assert {p for p, r in found.items() if isinstance(r, AudioError)} == {*bad}
