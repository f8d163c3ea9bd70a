"""A converted folder computes what transformers does, and its gradients."""

import pytest
import torch
from speechbrain.inference.encoders import WaveformEncoder
from torch.nn import functional as F

from tests.convert.folders import STYLES, all_classes, make, wavs_of
from unispeech_sb.checkpoints.huggingface import CLASSES, FAMILIES, join_heads
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.nnet.losses import classification_loss


def reference(name, model, wavs):
    """What transformers computes, by the names used here."""
    hidden = getattr(model, model.base_model_prefix, model)(wavs)
    torch.manual_seed(5)
    outputs = model(wavs)
    task = CLASSES[name][1]
    if task == "Model":
        return {"features": hidden.last_hidden_state}
    if task == "ForXVector":
        return {"embeddings": outputs.embeddings, "logits": outputs.logits}
    if task == "ForPreTraining" and name.startswith("UniSpeechSat"):
        return {"logits": outputs.logits}
    if task == "ForPreTraining" and name.startswith("Wav2Vec2"):
        projected = outputs.projected_quantized_states
        return {"states": outputs.projected_states, "projected": projected}
    if task == "ForPreTraining":
        return {"projected": outputs.projected_quantized_states}
    return {"logits": outputs.logits}


def ours(name, mods, wavs):
    """The same from the modules of a pretrained folder."""
    backbone = mods.encoder
    out = backbone.encode(wavs, output_hidden_states=True)
    task = CLASSES[name][1]
    feats = out.last_hidden_state
    if getattr(mods, "head", None) is not None:
        mix = getattr(mods.head, "layer_mix", None)
        feats = feats if mix is None else out.hidden_states
    if task == "Model":
        return {"features": feats}
    if task == "ForXVector":
        return {
            "embeddings": mods.head.embed(feats),
            "logits": mods.head(feats),
        }
    if task == "ForPreTraining" and name.startswith("UniSpeechSat"):
        return {"logits": out.extract_features}
    if task == "ForPreTraining":
        found = mods.head(feats, out.extract_features)
        states = {"states": found.projected_states}
        states = states if name.startswith("Wav2Vec2") else {}
        return {**states, "projected": found.projected_quantized_states}
    return {"logits": mods.head(feats)}


def modules_of(folder):
    """Every module of a pretrained folder, whatever its interface."""
    text = (folder / "hyperparams.yaml").read_text()
    if " encoder: !ref <backbone>" in text:
        return WaveformEncoder.from_hparams(source=str(folder)).mods
    from hyperpyyaml import load_hyperpyyaml

    hparams = load_hyperpyyaml(text)
    hparams["pretrainer"].set_collect_in(str(folder))
    hparams["pretrainer"].collect_files(default_source=str(folder))
    hparams["pretrainer"].load_collected()
    found = {"encoder": hparams["backbone"], "head": hparams["head"]}
    if "objective" in hparams:
        found["objective"] = hparams["objective"]
    return torch.nn.ModuleDict(found).eval()


def projected(outputs):
    """A random projection of all outputs to one number."""
    generator = torch.Generator().manual_seed(3)
    total = 0.0
    for key in sorted(outputs):
        weights = torch.randn(outputs[key].numel(), generator=generator)
        total = total + (outputs[key].flatten() * weights).sum()
    return total


def parameters_of(name, mods):
    """Parameters of a folder's modules under transformers' names."""
    family, task = CLASSES[name]
    prefix = "" if task == "Model" else FAMILIES[family]
    found = {
        prefix + key: value for key, value in mods.encoder.named_parameters()
    }
    heads = {
        lobe: dict(getattr(mods, lobe).named_parameters())
        for lobe in ("head", "objective")
        if hasattr(mods, lobe)
    }
    return found | join_heads(heads, task)


def compare_gradients(name, mods, model):
    """Every parameter's gradient is that of transformers, relative to 1 or
    to the largest entry of all.
    """
    found = {
        key: parameter.grad
        for key, parameter in parameters_of(name, mods).items()
        if parameter.grad is not None
    }
    expected = {
        key: parameter.grad
        for key, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert expected.keys() <= found.keys()
    largest = max(1.0, *(float(g.abs().max()) for g in expected.values()))
    for key, value in found.items():
        wanted = expected.get(key, torch.zeros(()))
        error = float((value - wanted).abs().max())
        assert error <= 1e-5 * largest, key


@all_classes
@pytest.mark.parametrize("style", STYLES)
def test_a_folder_gives_what_transformers_gives(name, style, tmp_path):
    model, hf = make(name, style, tmp_path / "hf")
    convert_checkpoint(hf, tmp_path / "sb")
    mods = modules_of(tmp_path / "sb").requires_grad_(True)
    wavs, normed = wavs_of(style)
    expected = reference(name, model, normed)
    found = ours(name, mods, wavs)
    for key, value in expected.items():
        found[key] = found[key].reshape(value.shape)
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)
    projected(found).backward()
    projected(expected).backward()
    compare_gradients(name, mods, model)


def ctc_loss(mods, logits, labels):
    """Sum over the batch."""
    return F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), labels,
        torch.full((2,), logits.shape[1]), torch.full((2,), 2),
        blank=0, reduction="sum",
    )  # fmt: skip


LOSSES = {
    "ForCTC": (torch.tensor([[1, 2], [3, 4]]), ctc_loss),
    "ForSequenceClassification": (
        torch.tensor([0, 3]),
        lambda mods, logits, labels: classification_loss(logits, labels),
    ),
    "ForAudioFrameClassification": (
        F.one_hot(torch.arange(42) % 5, 5).view(2, 21, 5),
        lambda mods, logits, labels: F.cross_entropy(
            logits.transpose(1, 2), labels.argmax(-1)
        ),
    ),
    "ForXVector": (
        torch.tensor([0, 3]),
        lambda mods, logits, labels: mods.objective(logits, labels),
    ),
}
"""Task -> labels, and the loss as this package computes it."""


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "name", [name for name, known in CLASSES.items() if known[1] in LOSSES]
)
def test_losses_and_their_gradients_are_transformers(name, style, tmp_path):
    model, hf = make(name, style, tmp_path / "hf", ctc_loss_reduction="sum")
    convert_checkpoint(hf, tmp_path / "sb")
    mods = modules_of(tmp_path / "sb").requires_grad_(True)
    wavs, normed = wavs_of(style)
    labels, loss = LOSSES[CLASSES[name][1]]
    expected = model(normed, labels=labels).loss
    found = loss(mods, ours(name, mods, wavs)["logits"], labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.backward()
    expected.backward()
    compare_gradients(name, mods, model)
