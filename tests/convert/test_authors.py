"""The authors' own files, all the way: a folder, and transformers' format."""

import argparse
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from speechbrain.inference.encoders import WaveformEncoder
from speechbrain.inference.speaker import SpeakerRecognition
from torchaudio.functional import resample

from tests.huggingface import tiny_model
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.convert import convert_checkpoint, to_huggingface
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.backbone import Backbone

FILES = {
    "fairseq_unispeech_pretrain.pt": ("UniSpeechForPreTraining", 76, 80),
    "fairseq_unispeech_ctc.pt": ("UniSpeechForCTC", 41, 45),
    "fairseq_unispeech_sat_pretrain.pt": (
        "UniSpeechSatForPreTraining",
        None,
        None,
    ),
}


def state_of(path, folder):
    """A recorded model as the authors save it, and the whole recording."""
    recorded = load_file(path)
    state = {
        key.removeprefix("state/"): tensor
        for key, tensor in recorded.items()
        if key.startswith("state/")
    }
    torch.save({"model": state}, folder / "model.pth")
    return folder / "model.pth", recorded


@pytest.mark.parametrize("file", FILES)
def test_fairseq_files_reach_transformers(file, authors_folder, tmp_path):
    name, blank, size = FILES[file]
    report = convert_checkpoint(authors_folder / file, tmp_path / "sb")
    assert report.dropped == {}
    to_huggingface(tmp_path / "sb", tmp_path / "hf")
    model, info = getattr(transformers, name).from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info.values()), info
    backbone = Backbone.from_pretrained(tmp_path / "sb", mask_rule="hf").eval()
    wavs = torch.randn(2, 5000)
    lengths = torch.tensor([1.0, 0.8])
    normed = wavs
    if backbone.normalize_wav:
        normed = torch.zeros_like(wavs)
        for row, count in enumerate((5000, 4000)):
            part = wavs[row, :count]
            centred = part - part.mean()
            spread = torch.sqrt(part.var(correction=0) + 1e-5)
            normed[row, :count] = centred / spread
    mask = (torch.arange(5000) < 5000 * lengths[:, None]).long()
    inner = getattr(model, model.base_model_prefix).eval()
    expected = inner(normed, attention_mask=mask).last_hidden_state
    found = backbone(wavs, lengths)
    frames = backbone.output_lengths(4000)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found[1, :frames], expected[1, :frames], rtol=1e-5, atol=1e-5
    )
    origin = json.loads((tmp_path / "sb" / "origin.json").read_text())
    assert origin["blank_index"] == blank
    if size:
        asr = name.endswith("ForCTC")
        label_file = "tokenizer.ckpt" if asr else "label_encoder.ckpt"
        labels = LabelEncoder.read_labels(tmp_path / "sb" / label_file)
        assert len(labels) == size
        assert labels[blank] == "<s>"


def test_a_ctc_vocabulary_reaches_transformers(authors_folder, tmp_path):
    file = authors_folder / "fairseq_unispeech_ctc.pt"
    convert_checkpoint(file, tmp_path / "sb")
    to_huggingface(tmp_path / "sb", tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.pad_token_id == 41  # CTC's blank
    assert tokenizer.bos_token_id == 42
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    assert (config.pad_token_id, config.vocab_size) == (41, 45)
    assert config.ctc_zero_infinity
    # t, blank, e, e (one unit), blank, n
    assert tokenizer.decode([0, 41, 1, 1, 41, 2]) == "t e n"
    back = convert_checkpoint(tmp_path / "hf", tmp_path / "again")
    assert back.used == {"backbone": 63, "head": 2}


def test_a_ctc_model_without_its_dictionary_stays_here(
    authors_folder, tmp_path
):
    content = read_objects(authors_folder / "fairseq_unispeech_ctc.pt")
    content["task_state"] = {}
    torch.save(content, tmp_path / "bare.pt")
    report = convert_checkpoint(tmp_path / "bare.pt", tmp_path / "sb")
    assert any("blank" in note for note in report.notes)
    with pytest.raises(ValueError, match="--set dictionary=PATH"):
        to_huggingface(tmp_path / "sb", tmp_path / "hf")


def test_a_tokenizer_alone_tells_the_blank(authors_folder, tmp_path):
    convert_checkpoint(authors_folder / "fairseq_unispeech_ctc.pt",
                       tmp_path / "sb")  # fmt: skip
    (tmp_path / "sb" / "origin.json").unlink()  # as of a folder trained here
    to_huggingface(tmp_path / "sb", tmp_path / "hf", family="unispeech")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    assert config.architectures == ["UniSpeechForCTC"]
    assert (config.pad_token_id, config.vocab_size) == (41, 45)


def test_speaker_verification_gives_the_recorded_embeddings(
    authors_folder, tmp_path
):
    path, recorded = state_of(authors_folder / "sv_ecapa.safetensors", tmp_path)
    report = convert_checkpoint(path, tmp_path / "sb")
    assert report.interface == "SpeakerRecognition"
    recognizer = SpeakerRecognition.from_hparams(source=str(tmp_path / "sb"))
    found = recognizer.encode_batch(recorded["in/wavs"])[:, 0]
    torch.testing.assert_close(
        found, recorded["out/embedding"], rtol=1e-5, atol=1e-5
    )


def test_a_batch_of_speakers_equals_its_utterances(authors_folder, tmp_path):
    path, _ = state_of(authors_folder / "sv_ecapa.safetensors", tmp_path)
    convert_checkpoint(path, tmp_path / "sb")
    recognizer = SpeakerRecognition.from_hparams(source=str(tmp_path / "sb"))
    wavs, lengths = torch.randn(3, 8000), torch.tensor([0.7, 1.0, 0.52])
    batch = recognizer.encode_batch(wavs, lengths)
    for row, length in enumerate((5600, 8000, 4160)):
        alone = recognizer.encode_batch(wavs[row : row + 1, :length])
        torch.testing.assert_close(batch[row], alone[0], rtol=1e-5, atol=1e-5)


def test_diarization_gives_the_recorded_activities(authors_folder, tmp_path):
    path, recorded = state_of(
        authors_folder / "sd_eend_vc.safetensors", tmp_path
    )
    report = convert_checkpoint(path, tmp_path / "sb", num_heads=4)
    assert report.interface == "SpeakerDiarization"
    text = (tmp_path / "sb" / "hyperparams.yaml").read_text()
    for line in ("threshold: 0.4 ", "median_filter: 25 ", "frame_s: 0.04\n",
                 "chunk_s: 30.0\n", "narrow_band: True "):  # fmt: skip
        assert f"\n{line}" in text
    mods = WaveformEncoder.from_hparams(source=str(tmp_path / "sb")).mods
    wavs = resample(recorded["in/wavs_8k"], 8000, 16000)
    states = torch.stack(list(mods.encoder.iter_states(wavs)))
    frames = torch.tensor([recorded["in/wavs_8k"].shape[1] // 320])
    logits, vectors = mods.head(states, num_frames=frames)
    torch.testing.assert_close(
        logits, recorded["out/activity_logits"], rtol=1e-5, atol=1e-5
    )
    for speaker in range(3):
        torch.testing.assert_close(
            vectors[:, :, speaker],
            recorded[f"out/speaker_vectors.{speaker}"],
            rtol=1e-5,
            atol=1e-5,
        )


def test_an_s3prl_head_joins_its_backbone(authors_folder, tmp_path):
    model = tiny_model(
        "unispeech-sat", "ForSequenceClassification", num_labels=4,
        hidden_size=32, num_hidden_layers=2, use_weighted_layer_sum=True,
    )  # fmt: skip
    tensors = model.state_dict()
    torch.save(
        {
            "Downstream": {
                "projector.weight": tensors["projector.weight"],
                "projector.bias": tensors["projector.bias"],
                "model.post_net.linear.weight": tensors["classifier.weight"],
                "model.post_net.linear.bias": tensors["classifier.bias"],
            },
            "Featurizer": {"weights": tensors["layer_weights"]},
            "Args": argparse.Namespace(downstream="speech_commands"),
            "Step": 10,
        },
        tmp_path / "dev-best.ckpt",
    )
    with pytest.raises(ValueError, match="--backbone"):
        convert_checkpoint(tmp_path / "dev-best.ckpt", tmp_path / "sb")
    assert not (tmp_path / "sb").exists()
    report = convert_checkpoint(
        tmp_path / "dev-best.ckpt",
        tmp_path / "sb",
        backbone=authors_folder / "fairseq_unispeech_sat_pretrain.pt",
    )
    assert report.interface == "EncoderClassifier"
    assert any("backbone: from" in note for note in report.notes)
    to_huggingface(tmp_path / "sb", tmp_path / "hf")
    again = transformers.UniSpeechSatForSequenceClassification.from_pretrained(
        tmp_path / "hf"
    )
    for name in ("projector.weight", "classifier.bias", "layer_weights"):
        assert torch.equal(again.state_dict()[name], tensors[name])


def test_a_backbone_is_loaded_from_the_file_itself(authors_folder, tmp_path):
    file = authors_folder / "fairseq_unispeech_ctc.pt"
    convert_checkpoint(file, tmp_path / "sb")
    direct = Backbone.from_pretrained(file).eval()
    folder = Backbone.from_pretrained(tmp_path / "sb").eval()
    assert direct.mask_rule == folder.mask_rule == "fairseq"
    wavs = torch.randn(1, 3000)
    assert torch.equal(direct(wavs), folder(wavs))
