"""Tests of ``unispeech_sb.dataio.pipelines``."""

import copy
import pickle

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset, add_dynamic_item

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    fit_label_encoder,
    label_pipeline,
    text_pipeline,
)
from unispeech_sb.dataio.tokenizers import CTCTokenizer


def labelled(*labels):
    """A dataset of nothing but labels."""
    items = {str(i): {"label": label} for i, label in enumerate(labels)}
    return DynamicItemDataset(items)


@pytest.fixture
def datasets(tmp_path, write_noise):
    """Train: a whole second and a stretch of it; valid: three seconds."""
    short = write_noise(tmp_path / "short.wav")
    long = write_noise(tmp_path / "long.wav", 48000)
    defaults = {"duration": 1.0, "split": "train", "label": "yes"}
    records = [
        {**defaults, "ID": "whole", "wav": short},
        {**defaults, "ID": "part", "wav": short, "start": 100, "stop": 900},
        {**defaults, "ID": "long", "wav": long, "split": "valid"},
    ]
    paths = write_manifests(records, tmp_path)
    return {s: DynamicItemDataset.from_csv(paths[s]) for s in paths}


def test_a_recipe_gets_waveforms_and_labels(tmp_path, datasets):
    encoder = fit_label_encoder(datasets)
    add_dynamic_item(datasets.values(), audio_pipeline())
    add_dynamic_item(datasets.values(), label_pipeline(encoder))
    datasets["train"].set_output_keys(["id", "sig", "label_encoded"])
    whole, part = datasets["train"]
    expected = read_audio(tmp_path / "short.wav")
    assert torch.equal(whole["sig"], expected)
    assert torch.equal(part["sig"], expected[100:900])
    assert torch.equal(part["label_encoded"], torch.tensor([0]))


def test_start_and_stop_may_be_text_numbers_or_nothing(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav")
    read = audio_pipeline()
    assert torch.equal(read(wav, "100", "900"), read(wav, 100, 900))
    assert torch.equal(read(wav, "", ""), read(wav, None, None))


def test_gain_scales_the_waveform(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav")
    soft = audio_pipeline(gain_db=-3.0)(wav, "", "")
    torch.testing.assert_close(soft, read_audio(wav) * 0.70794578)


def test_crops_are_random_stretches_of_longer_items(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", 4800, rate=8000)
    read = audio_pipeline(sample_rate=8000, random_crop_s=0.1)
    whole = read_audio(wav, sample_rate=8000)
    windows = whole.unfold(0, 800, 1)
    torch.manual_seed(0)
    places = set()
    for _ in range(5):
        crop = read(wav, 800, 3200)
        (place,) = (windows == crop).all(dim=1).nonzero()[:, 0].tolist()
        assert 800 <= place <= 2400
        places.add(place)
    assert len(places) > 1
    assert len(read(wav, 0, 600)) == 600


def test_crops_reach_both_ends(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", 802)
    whole = read_audio(wav)
    read = audio_pipeline(random_crop_s=0.05)
    torch.manual_seed(0)
    firsts = {read(wav, "", "")[0].item() for _ in range(40)}
    assert firsts == set(whole[:3].tolist())


def test_crops_follow_torchs_default_generator(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", 48000)
    read = audio_pipeline(random_crop_s=1.0)
    torch.manual_seed(7)
    first = [read(wav, "", "") for _ in range(3)]
    state = torch.manual_seed(7).get_state()
    again = [read(wav, "", "") for _ in range(3)]
    assert all(map(torch.equal, first, again))
    torch.random.set_rng_state(state)
    # An item that is not cropped draws nothing.
    read(wav, 0, 8000)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_silence_crops_only_the_silence_class(datasets):
    dataset = datasets["valid"]
    silent = copy.deepcopy(dataset.data)
    silent["long"]["label"] = "_silence_"
    shapes = []
    for data in (dataset.data, silent):
        items = DynamicItemDataset(data)
        items.add_dynamic_item(audio_pipeline(random_silence=True))
        items.set_output_keys(["sig"])
        crops = [items[0]["sig"] for _ in range(2)]
        shapes.append(tuple(crops[0].shape))
    assert shapes == [(48000,), (16000,)]
    assert not torch.equal(*crops)


def test_audio_items_can_be_sent_to_workers(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav")
    item = pickle.loads(pickle.dumps(audio_pipeline(random_silence=True)))
    assert item(wav, "", "", "yes").shape == (16000,)


def test_labels_are_numbered_in_sorted_order():
    train, valid = labelled("yes", "go", "no", "go"), labelled("no")
    encoder = fit_label_encoder({"train": train, "valid": valid})
    assert encoder.lab2ind == {"go": 0, "no": 1, "yes": 2}


def test_labels_may_keep_the_order_of_training():
    datasets = {
        "train": labelled("yes", "go", "no", "go"),
        "valid": labelled("no"),
    }
    encoder = fit_label_encoder(datasets, by_appearance=True)
    assert encoder.lab2ind == {"yes": 0, "go": 1, "no": 2}


def test_the_label_encoder_prints_no_warning(caplog):
    encoder = fit_label_encoder({"train": labelled("yes", "no")})
    label_pipeline(encoder)("yes")
    assert not caplog.records


def test_a_label_that_train_lacks_is_named():
    datasets = {"train": labelled("yes"), "test": labelled("yes", "maybe")}
    with pytest.raises(ValueError, match="test: .* got maybe too"):
        fit_label_encoder(datasets)


def test_items_without_a_label_are_an_error():
    with pytest.raises(ValueError, match="expected every item to have a label"):
        fit_label_encoder({"train": labelled("yes", "")})


def test_other_keys_than_label_can_be_encoded():
    data = {"a": {"spk_id": "ann"}, "b": {"spk_id": "bob"}}
    encoder = fit_label_encoder({"train": DynamicItemDataset(data)}, "spk_id")
    assert encoder.lab2ind == {"ann": 0, "bob": 1}


def test_text_is_tidied_and_encoded():
    tokenizer = CTCTokenizer.from_texts(["so it is"])
    text, tokens = text_pipeline(tokenizer, "words")("  so  it ")
    assert text == "so it"
    assert tokens.tolist() == tokenizer.encode("so it")
