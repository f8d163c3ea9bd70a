"""Heads as s3prl's runner writes them, of random weights."""

from argparse import Namespace

import torch

from unispeech_sb.checkpoints.safety.pickles import read_objects

D, LAYERS = 16, 3
TDNN = "model.framelevel_feature_extractor.module"
UTTERANCE = "model.utterancelevel_feature_extractor"


def linear(name, inputs, outputs):
    """Weights of a linear layer."""
    return {
        f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5,
        f"{name}.bias": torch.randn(outputs),
    }


def utterance_head():
    """KS, SID, IC, ER: projector, mean, linear."""
    return {
        **linear("projector", D, 6),
        **linear("model.post_net.linear", 6, 4),
        "best_score": torch.zeros(1),
    }


def frame_head():
    """SD with rnn_layers 0."""
    return linear("model.linear", D, 2)


def speaker_head():
    """ASV: the x-vector with AM-softmax."""
    head = {"objective.W": torch.randn(5, 9), "best_score": torch.ones(1)}
    head |= linear("connector", D, 6)
    for layer, (kernel, size) in enumerate(
        ((5, 6), (3, 6), (3, 6), (1, 6), (1, 7))
    ):
        head |= linear(f"{TDNN}.{layer}.kernel", kernel * 6, size)
    head |= linear(f"{UTTERANCE}.linear1", 14, 5)
    return head | linear(f"{UTTERANCE}.linear2", 5, 5)


def recurrent_head(classes=32, layers=2, size=5):
    """ASR and SF: projector, LSTMs in both directions, linear."""
    head = linear("projector", D, 6)
    for layer in range(layers):
        inputs = 2 * size if layer else 6
        lstm = torch.nn.LSTM(inputs, size, bidirectional=True)
        head |= {
            f"model.rnns.{layer}.layer.{name}": tensor
            for name, tensor in lstm.state_dict().items()
        }
    head |= linear("model.linear", 2 * size, classes)
    return head | {"best_score": torch.ones(1)}


def phone_head(classes=74):
    """PR: two linear layers."""
    head = linear("projector", D, 6) | linear("model.linear", 6, classes)
    return head | {"best_score": torch.ones(1)}


def lstm_head(layers=1, size=7):
    """SD with rnn_layers 1, as SUPERB has it, or more."""
    lstm = torch.nn.LSTM(D, size, layers)
    head = {f"model.rnn.{k}": tensor for k, tensor in lstm.state_dict().items()}
    return head | linear("model.linear", size, 2)


def saved(head, path, args=None, **parts):
    """A file as s3prl's runner writes it, read again."""
    run = {"upstream": "unispeech_sat_base", "downstream": "voxceleb1"}
    weights = {"weights": torch.randn(LAYERS + 1)}
    torch.save(
        {
            "Optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
            "Step": 200000,
            "Epoch": 3,
            "Args": Namespace(**(run | (args or {}))),
            "Config": {"runner": {"total_steps": 200000}},
            "Downstream": head,
            "Featurizer": weights,
            **parts,
        },
        path,
    )
    return read_objects(path)
