"""Hugging Face checkpoints to pretrained folders, and what is refused."""

import json

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from speechbrain.inference.ASR import EncoderASR
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.encoders import WaveformEncoder
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from transformers import UniSpeechForCTC

from tests.huggingface import (
    FAMILIES,
    attention_mask,
    feature_extractor,
    save_folder,
    tiny_model,
)
from unispeech_sb.convert import convert_checkpoint, describe
from unispeech_sb.lobes.adapters import adapter_languages, load_adapter
from unispeech_sb.lobes.backbone import Backbone

HEAD = "ForSequenceClassification"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight_norm", ["old", "new"])
@pytest.mark.parametrize("weighted", [False, True])
def test_classifier_gives_transformers_posteriors(
    family, weight_norm, weighted, tmp_path
):
    labels = {0: "no", 1: "yes", 2: "up", 3: "down", 4: "maybe so"}
    model = tiny_model(
        family, HEAD, feat_extract_norm="layer", do_stable_layer_norm=False,
        use_weighted_layer_sum=weighted, id2label=labels,
    )  # fmt: skip
    hf = save_folder(model, tmp_path / "hf", weight_norm=weight_norm)
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert report.interface == "EncoderClassifier"
    assert report.dropped == {}
    assert sum(report.used.values()) == len(model.state_dict())
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "sb"))
    lengths = torch.tensor([7000, 4444])
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 7000) * mask
    expected = model(wavs, attention_mask=mask).logits.log_softmax(-1)
    found, _, index, names = classifier.classify_batch(wavs, lengths / 7000)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert names == [labels[i] for i in index.tolist()]


def test_waveforms_are_normalised_as_the_preprocessor_says(tmp_path):
    model = tiny_model("unispeech")
    # Quiet, so that epsilon matters; in float32 the offset rounds it away
    wavs = 0.3 + 0.002 * torch.randn(1, 4000, dtype=torch.float64)
    normed = (wavs - wavs.mean()) / torch.sqrt(wavs.var(correction=0) + 1e-7)
    for normalize, given in ((False, wavs), (True, normed)):
        folder = save_folder(model, tmp_path / str(normalize), normalize)
        found = Backbone.from_pretrained(folder).eval().double()(wavs)
        expected = model.double()(given).last_hidden_state
        model.float()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def write_bin(folder, kind):
    """PyTorch files, which transformers 5 no longer writes, in place of the
    shards of a folder: as many, or one."""
    index = folder / "model.safetensors.index.json"
    text = index.read_text()
    index.unlink()
    whole = {}
    for shard in folder.glob("model-*.safetensors"):
        tensors = load_file(shard)
        whole |= tensors
        shard.unlink()
        if kind == "sharded bin":
            torch.save(tensors, folder / f"pytorch_{shard.stem}.bin")
    if kind == "sharded bin":
        names = text.replace('"model-', '"pytorch_model-')
        names = names.replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(names)
    else:
        torch.save(whole, folder / "pytorch_model.bin")


@pytest.mark.parametrize("kind", ["bin", "sharded safetensors", "sharded bin"])
def test_every_kind_of_weight_file_gives_the_same_backbone(kind, tmp_path):
    model = tiny_model("unispeech-sat", HEAD)
    reference = save_folder(model, tmp_path / "reference")
    folder = tmp_path / "other"
    model.save_pretrained(folder, max_shard_size="20KB")
    feature_extractor(False).save_pretrained(folder)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    if kind != "sharded safetensors":
        write_bin(folder, kind)
    expected = Backbone.from_pretrained(reference).state_dict()
    found = Backbone.from_pretrained(folder).state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_a_missing_shard_or_a_path_in_the_index_is_refused(tmp_path):
    model = tiny_model("unispeech")
    folder = save_folder(model, tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for shard, error in (
        ("a.safetensors", FileNotFoundError),
        ("../a.safetensors", ValueError),
    ):
        index.write_text(json.dumps({"weight_map": {"x": shard}}))
        with pytest.raises(error, match=r"a\.safetensors"):
            Backbone.from_pretrained(folder)


def test_a_refused_checkpoint_writes_nothing(tmp_path):
    model = tiny_model("unispeech", HEAD)
    hf = save_folder(model, tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    extra = {**tensors, "intruder.weight": torch.zeros(1)}
    save_file(extra, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"unexpected intruder\.weight"):
        convert_checkpoint(hf, tmp_path / "sb")
    del tensors["classifier.bias"]
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing classifier\.bias"):
        convert_checkpoint(hf, tmp_path / "sb")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_an_unknown_tensor_on_another_class_is_refused(tmp_path):
    hf = save_folder(tiny_model("unispeech", "ForCTC"), tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["intruder.weight"] = torch.zeros(1)
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match="unexpected intruder.weight"):
        convert_checkpoint(hf, tmp_path / "sb")


def test_an_existing_destination_is_kept(tmp_path):
    hf = save_folder(tiny_model("unispeech"), tmp_path / "hf")
    (tmp_path / "sb").mkdir()
    (tmp_path / "sb" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="expected a new folder"):
        convert_checkpoint(hf, tmp_path / "sb")
    assert [p.name for p in (tmp_path / "sb").iterdir()] == ["thesis.txt"]


@pytest.fixture
def many_languages(tmp_path):
    """A CTC model with adapters for two languages, in transformers' layout."""
    model = tiny_model(
        "unispeech", "ForCTC", feat_extract_norm="layer", vocab_size=4,
        do_stable_layer_norm=True, adapter_attn_dim=4,
    )  # fmt: skip
    with torch.no_grad():  # letters, so that there is text
        model.lm_head.bias[[0, 3]] -= 10.0
    vocabulary = {
        "eng": {"<pad>": 0, "a": 1, "b": 2, "|": 3},
        "fra": {"<pad>": 0, "a": 1, "é": 2, "b": 3, "|": 4},
    }
    folder = save_folder(model, tmp_path / "hf", vocabulary=vocabulary)
    adapters = {
        name: torch.randn_like(tensor)
        for name, tensor in model.state_dict().items()
        if ".adapter_layer." in name
    }
    heads = {
        "lm_head.weight": torch.randn(5, 16),
        "lm_head.bias": torch.ones(5),
    }
    save_file({**adapters, **heads}, folder / "adapter.fra.safetensors")
    return folder, adapters | heads


def test_a_language_is_chosen_at_conversion(many_languages, tmp_path):
    folder, adapters = many_languages
    convert_checkpoint(folder, tmp_path / "eng")
    report = convert_checkpoint(folder, tmp_path / "fra", target_lang="fra")
    assert "language: fra" in report.notes
    eng = EncoderASR.from_hparams(source=str(tmp_path / "eng"))
    fra = EncoderASR.from_hparams(source=str(tmp_path / "fra"))
    assert len(eng.tokenizer) == 4
    assert fra.tokenizer.decode([2, 4, 3]) == "é b"
    assert torch.equal(
        fra.mods.encoder.head.classifier.weight, adapters["lm_head.weight"]
    )
    key = "encoder.layers.1.adapter_layer.norm.weight"
    found = fra.mods.encoder.backbone.state_dict()[key]
    assert torch.equal(found, adapters["unispeech." + key])
    assert not torch.equal(found, eng.mods.encoder.backbone.state_dict()[key])
    # the file that was read stays as it was
    before = load_file(folder / "model.safetensors")["unispeech." + key]
    assert not torch.equal(before, found)


def test_languages_can_be_switched_after_conversion(many_languages, tmp_path):
    folder, adapters = many_languages
    convert_checkpoint(folder, tmp_path / "sb")
    asr = EncoderASR.from_hparams(source=str(tmp_path / "sb"))
    assert adapter_languages(tmp_path / "sb") == ["fra"]
    model = asr.mods.encoder
    load_adapter(tmp_path / "sb", "fra", model.backbone, model.head)
    assert asr.encode_batch(torch.randn(1, 4000), torch.ones(1)).shape[-1] == 5
    with pytest.raises(ValueError, match="one of the languages .*; got 'xx'"):
        convert_checkpoint(folder, tmp_path / "other", target_lang="xx")
    assert not (tmp_path / "other").exists()
    text = str(describe(tmp_path / "hf" / "adapter.fra.safetensors"))
    assert "adapters of one language" in text and "fra" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(bad, tmp_path):
    hf = save_folder(tiny_model("unispeech", HEAD), tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["projector.weight"][0, 0] = bad
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"projector\.weight"):
        convert_checkpoint(hf, tmp_path / "sb")
    assert not (tmp_path / "sb").exists()


def test_what_a_constructor_refuses_is_told_with_the_file(tmp_path):
    hf = save_folder(tiny_model("unispeech", "ForPreTraining"), tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["project_hid.weight"] = tensors["project_hid.weight"].T.contiguous()
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match="hf: UniSpeechHead: expected"):
        convert_checkpoint(hf, tmp_path / "sb")


def test_speaker_recognition_gives_transformers_embeddings(tmp_path):
    model = tiny_model(
        "unispeech-sat", "ForXVector", use_weighted_layer_sum=True,
        tdnn_dim=[12, 14], tdnn_kernel=[3, 1], tdnn_dilation=[1, 1],
        xvector_output_dim=10,
    )  # fmt: skip
    hf = save_folder(model, tmp_path / "hf")
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert report.interface == "SpeakerRecognition"
    recognizer = SpeakerRecognition.from_hparams(source=str(tmp_path / "sb"))
    wavs = torch.randn(2, 7000)
    expected = model(wavs).embeddings
    found = recognizer.encode_batch(wavs)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(
        recognizer.encode_batch(wavs, normalize=True)[:, 0], found
    )
    for name, wav in zip("ab", 0.1 * wavs):
        soundfile.write(tmp_path / f"{name}.wav", wav.numpy(), 16000, "FLOAT")
    cosine, _ = recognizer.verify_files(
        str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    )
    one, other = model(0.1 * wavs).embeddings.detach()
    wanted = torch.cosine_similarity(one, other, dim=0)
    assert abs(float(cosine) - float(wanted)) < 1e-4


def test_converted_speakers_are_classified(tmp_path):
    model = tiny_model(
        "unispeech-sat", "ForXVector", use_weighted_layer_sum=True,
        tdnn_dim=[12, 14], tdnn_kernel=[3, 1], tdnn_dilation=[1, 1],
        xvector_output_dim=10,
    )  # fmt: skip
    convert_checkpoint(save_folder(model, tmp_path / "hf"), tmp_path / "sb")
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "sb"))
    wavs = torch.randn(2, 7000)
    logits = model(wavs).logits
    cosines = torch.cosine_similarity(
        logits[:, None], model.objective.weight.T[None], dim=-1
    )
    found, _, _, names = classifier.classify_batch(wavs)
    expected = (model.objective.scale * cosines).log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert names == [f"LABEL_{row.argmax()}" for row in cosines]


@pytest.mark.parametrize("theirs", [False, True])
def test_a_file_is_encoded_as_a_batch(theirs, tmp_path):
    """SpeechBrain's ``encode_file`` expects a dict, which its own lobe does
    not give either: what docs/speechbrain.md has in its place."""
    model = tiny_model("unispeech-sat", feat_extract_norm="layer")
    hf = save_folder(model, tmp_path / "hf")
    convert_checkpoint(hf, tmp_path / "sb")
    encoder = WaveformEncoder.from_hparams(source=str(tmp_path / "sb"))
    if theirs:
        lobe = Wav2Vec2(str(hf), str(tmp_path))
        encoder.mods["encoder"] = lobe.eval()
    file = tmp_path / "a.wav"
    soundfile.write(file, 0.1 * torch.randn(4000).numpy(), 16000)
    wav = encoder.load_audio(str(file))
    found = encoder.encode_batch(wav[None], torch.ones(1))
    expected = model(wav[None]).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError):
        encoder.encode_file(str(file))


def test_classes_have_no_statistics_of_embeddings(tmp_path):
    model = tiny_model("unispeech-sat", HEAD)
    convert_checkpoint(save_folder(model, tmp_path / "hf"), tmp_path / "sb")
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "sb"))
    wavs = torch.randn(2, 4000)
    assert classifier.encode_batch(wavs).shape == (2, 1, 12)
    with pytest.raises(AttributeError, match="mean_var_norm_emb"):
        classifier.encode_batch(wavs, normalize=True)


def test_speech_recognition_gives_transformers_text(many_languages, tmp_path):
    folder, _ = many_languages
    convert_checkpoint(folder, tmp_path / "sb")
    asr = EncoderASR.from_hparams(source=str(tmp_path / "sb"))
    model = UniSpeechForCTC.from_pretrained(folder).eval()
    wavs = torch.randn(2, 20000)
    expected = model(wavs).logits.log_softmax(-1)
    lengths = torch.tensor([1.0, 1.0])
    torch.testing.assert_close(
        asr.encode_batch(wavs, lengths), expected, rtol=1e-5, atol=1e-5
    )
    texts, _ = asr.transcribe_batch(wavs, lengths)
    indices = expected.argmax(-1).tolist()
    assert texts == [asr.tokenizer.decode_frames(row) for row in indices]
    assert all(set(text) & set("ab") for text in texts)
    alone, _ = asr.transcribe_batch(wavs[1:, :9000], torch.ones(1))
    batch, _ = asr.transcribe_batch(wavs, torch.tensor([1.0, 0.45]))
    assert batch == [texts[0], alone[0]]
