"""The last hidden state of pre-norm models: transformers 4, 5, and here.

    python benchmarks/last_state.py
    python benchmarks/last_state.py --record   # under transformers 4, see below

transformers 4 ends the hidden states after the final LayerNorm, transformers
5 before it, which changes every head on a weighted sum of layers. The first
command compares both and this package with recorded outputs of 4.57.6. The
second one records them, with transformers 4 beside the installed one:

    pip install --target transformers4 --no-deps 'transformers==4.57.6' \\
        'huggingface_hub<1' 'tokenizers>=0.22,<0.23'
    PYTHONPATH=transformers4 python benchmarks/last_state.py --record
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
import transformers
from hyperpyyaml import load_hyperpyyaml
from safetensors import safe_open
from safetensors.torch import save_file

RECORD = Path(__file__).parents[1] / "tests/fixtures/transformers4.safetensors"
CLASSES = (
    "UniSpeechForSequenceClassification",
    "UniSpeechSatForSequenceClassification",
    "UniSpeechSatForAudioFrameClassification",
    "UniSpeechSatForXVector",
)
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [4, 4, 4, 4, 4, 4, 4],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "use_weighted_layer_sum": True,
    "classifier_proj_size": 8,
    "num_labels": 3,
    "tdnn_dim": [8, 8, 8],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 6,
    "initializer_range": 0.2,
    "apply_spec_augment": False,
}
SAMPLES = 2400


def build(name, config):
    """A model of an installed transformers."""
    cls = getattr(transformers, name)
    return cls(cls.config_class(**config)).eval()


def outputs_of(model, wavs):
    """The last hidden state and what the head makes of all of them."""
    with torch.no_grad():
        found = model(wavs, output_hidden_states=True)
    outputs = {"last_state": found.hidden_states[-1], "logits": found.logits}
    if "embeddings" in found:
        outputs["embeddings"] = found.embeddings
    return outputs


def record(path):
    """Writes weights, inputs and outputs of tiny random models."""
    if not transformers.__version__.startswith("4."):
        raise ValueError(
            "last_state --record: expected transformers 4; got "
            f"{transformers.__version__}"
        )
    torch.manual_seed(0)
    wavs = torch.randn(2, SAMPLES)
    tensors = {"wavs": wavs}
    for name in CLASSES:
        model = build(name, SIZES)
        for parameter in model.parameters():
            if parameter.dim() < 2:  # norms, biases, the layer mix
                parameter.data += 0.3 * torch.randn_like(parameter)
        for kind, values in (
            ("state", model.state_dict()),
            ("outputs", outputs_of(model, wavs)),
        ):
            tensors |= {f"{name}/{kind}/{k}": v for k, v in values.items()}
    note = {"version": transformers.__version__, "config": SIZES}
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, {"record": json.dumps(note)})
    path.chmod(0o644)  # safetensors would let only us read it


def read_record(name, path=RECORD):
    """What was recorded of a class.

    Arguments
    ---------
    name : str
        One of ``CLASSES``.
    path : pathlib.Path
        The file.

    Returns
    -------
    dict
        ``version`` of transformers, ``config``, ``wavs``, ``state`` and
        ``outputs`` by name.
    """
    with safe_open(path, framework="pt") as tensors:
        found = json.loads(tensors.metadata()["record"])
        found["wavs"] = tensors.get_tensor("wavs")
        for kind in ("state", "outputs"):
            prefix = f"{name}/{kind}/"
            found[kind] = {
                key.removeprefix(prefix): tensors.get_tensor(key)
                for key in tensors.keys()
                if key.startswith(prefix)
            }
    return found


def rebuild(name, recorded, folder):
    """Writes the Hugging Face folder that the recorded model was.

    Arguments
    ---------
    name : str
        Its class.
    recorded : dict
        Of ``read_record``.
    folder : pathlib.Path
        The folder to make.
    """
    family = "unispeech-sat" if "Sat" in name else "unispeech"
    config = {
        "model_type": family,
        "architectures": [name],
        "transformers_version": recorded["version"],
        **recorded["config"],
    }
    config["id2label"] = {
        str(index): f"LABEL_{index}" for index in range(config["num_labels"])
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": False, "sampling_rate": 16000})
    )
    save_file(recorded["state"], folder / "model.safetensors")


def converted_outputs(folder, wavs):
    """What the modules of a pretrained folder give.

    Arguments
    ---------
    folder : pathlib.Path
        Of ``convert_checkpoint``.
    wavs : torch.Tensor
        Waveforms, [B, N].

    Returns
    -------
    dict
        As ``outputs_of``.
    """
    hparams = load_hyperpyyaml((folder / "hyperparams.yaml").read_text())
    hparams["pretrainer"].set_collect_in(str(folder))
    hparams["pretrainer"].collect_files(default_source=str(folder))
    hparams["pretrainer"].load_collected()
    backbone, head = (hparams[key].eval() for key in ("backbone", "head"))
    with torch.no_grad():
        states = backbone.encode(wavs, output_hidden_states=True).hidden_states
        outputs = {"last_state": states[-1], "logits": head(states)}
        if "objective" in hparams:
            outputs["embeddings"] = head.embed(states)
    return outputs


def compare():
    """Prints the largest differences from what was recorded."""
    from unispeech_sb.convert import convert_checkpoint

    version = read_record(CLASSES[0])["version"]
    print(f"largest difference from transformers {version}\n")
    print(f"| class | output | unispeech_sb | transformers "
          f"{transformers.__version__} |\n|---|---|---|---|")  # fmt: skip
    for name in CLASSES:
        recorded = read_record(name)
        with tempfile.TemporaryDirectory() as place:
            source, target = Path(place) / "source", Path(place) / "target"
            rebuild(name, recorded, source)
            convert_checkpoint(source, target)
            ours = converted_outputs(target, recorded["wavs"])
        model = build(name, recorded["config"])
        model.load_state_dict(recorded["state"])
        theirs = outputs_of(model, recorded["wavs"])
        for key, expected in recorded["outputs"].items():
            mine, other = (
                float(
                    (found[key].reshape(expected.shape) - expected).abs().max()
                )
                for found in (ours, theirs)
            )
            print(f"| {name} | {key} | {mine:.1e} | {other:.1e} |")


def main():
    """Records, or compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        record(RECORD)
    else:
        compare()


if __name__ == "__main__":
    main()
