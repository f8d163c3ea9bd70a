"""Small valid files of every kind that is read, for ``fuzzing.py``.

Models of some thousand random weights in the layouts of Hugging Face,
fairseq, the authors' downstream tasks, s3prl, and this package.
"""

import argparse
import re
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.loading import as_fairseq
from tests.checkpoints.safety.planted import foreign_class
from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.authors import VERIFICATION_PARTS
from unispeech_sb.checkpoints.huggingface import CLASSES, join_heads
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.adapters import save_adapter
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    ECAPAHead,
    EENDVCHead,
    FrameHead,
    UniSpeechSATHead,
    UtteranceHead,
)

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [4, 4],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
LAYER = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", "a", "b"]
VOCABULARY = {token: index for index, token in enumerate(TOKENS)}
LABELS = {"id2label": {0: "no", 1: "yes"}, "num_labels": 2}
CODEBOOKS = {
    "num_codevectors_per_group": 3,
    "codevector_dim": 4,
    "proj_codevector_dim": 4,
}
HEADS = {
    "UniSpeechForCTC": {"vocab_size": len(TOKENS), "pad_token_id": 0},
    "UniSpeechForPreTraining": {"num_ctc_classes": 5, **CODEBOOKS},
    "UniSpeechSatForPreTraining": {"num_clusters": 6, **CODEBOOKS},
    "UniSpeechSatForSequenceClassification": {
        "classifier_proj_size": 4,
        "use_weighted_layer_sum": True,
        **LABELS,
    },
    "UniSpeechSatForXVector": {
        "tdnn_dim": [6, 6],
        "tdnn_kernel": [3, 1],
        "tdnn_dilation": [2, 1],
        "xvector_output_dim": 4,
        "use_weighted_layer_sum": True,
        **LABELS,
    },
}
"""Class of transformers -> options of its head."""
INDEX = "model.safetensors.index.json"


def backbone(**options):
    """A random backbone."""
    return Backbone(**{**SIZES, **LAYER, **options})


def huggingface(name, weights="model.safetensors"):
    """A function that has a class of transformers write its folder."""

    def write(folder):
        family, task = CLASSES[name]
        model = tiny_model(family, task, **SIZES, **LAYER, **HEADS[name])
        vocabulary = VOCABULARY if task == "ForCTC" else None
        save_folder(model, folder, True, vocabulary=vocabulary)
        path = folder / "model.safetensors"
        if weights == path.name:
            return
        if weights == INDEX:
            model.save_pretrained(folder, max_shard_size="5KB")
        else:
            torch.save(
                load_file(path),
                folder / "pytorch_model.bin",
                _use_new_zipfile_serialization=weights == "pytorch_model.bin",
            )
        path.unlink()

    return write


def fairseq(folder):
    """A CTC model of the released code: ``cfg``, a dictionary, zip."""
    prefix = "w2v_encoder.w2v_model."
    model = as_fairseq(backbone().state_dict(), prefix)
    model["w2v_encoder.proj.weight"] = torch.randn(len(TOKENS), 8)
    model["w2v_encoder.proj.bias"] = torch.randn(len(TOKENS))
    with pytest.MonkeyPatch.context() as patch:
        name = "fairseq.data.dictionary.Dictionary"
        symbols = foreign_class(patch, name)()
        order = ["|", "a", "b", "<s>", "<pad>", "</s>", "<unk>"]
        symbols.__dict__.update(
            symbols=order,
            count=[1] * len(order),
            indices={token: index for index, token in enumerate(order)},
            bos_word="<s>", bos_index=3, pad_word="<pad>", pad_index=4,
        )  # fmt: skip
        torch.save(
            {
                "args": None,
                "cfg": {
                    "common": {"seed": 1, "log_format": "json"},
                    "model": {
                        "_name": "wav2vec_ctc",
                        "w2v_args": None,
                        "normalize": True,
                        "mask_prob": 0.65,
                        "layerdrop": 0.1,
                    },
                    "task": {
                        "_name": "audio_pretraining",
                        "sample_rate": 16000,
                        "normalize": True,
                    },
                },
                "model": model,
                "criterion": {},
                "optimizer_history": [
                    {"num_updates": 5, "optimizer_name": "A"}
                ],
                "task_state": {"target_dictionary": symbols},
                "extra_state": {"epoch": 1, "metrics": [("default", [])]},
                "last_optimizer_state": {"state": {0: torch.zeros(4)}},
            },
            folder / "checkpoint.pt",
        )


def fairseq_2021(folder):
    """UniSpeech-SAT as in 2021: ``args``, the format before torch 1.6."""
    head = UniSpeechSATHead(8, 6, 4, (2, 3, 4), extract_norm="apply")
    tensors = {**backbone().state_dict(), **head.state_dict()}
    args = argparse.Namespace(
        arch="bc_m_hubert",
        task="hubert_pretraining",
        normalize=True,
        sample_rate=16000,
        encoder_layers=2,
        encoder_embed_dim=8,
        encoder_ffn_embed_dim=8,
        encoder_attention_heads=2,
        extractor_mode="layer_norm",
        layer_norm_first=True,
        conv_feature_layers="[(4, 10, 5)] + [(4, 3, 2)]",
        conv_bias=True,
        conv_pos=4,
        conv_pos_groups=2,
        latent_temp=(2, 0.5, 0.999995),
        mask_prob=0.8,
    )
    content = {
        "args": args,
        "model": as_fairseq(tensors),
        "optimizer_history": [{"num_updates": 5}],
        "task_state": {},
        "extra_state": {"epoch": 1},
    }
    torch.save(
        content, folder / "checkpoint.pt", _use_new_zipfile_serialization=False
    )


def speaker_verification(folder):
    """The authors' speaker verification model."""
    back = {new: old for old, new in VERIFICATION_PARTS.items()}
    head = ECAPAHead(8, 3, 8, 4, 6, 2, 2, 2)
    model = {
        "feature_weight" if name.startswith("layer_mix") else
        ".".join(back.get(part, part) for part in name.split(".")): tensor
        for name, tensor in head.state_dict().items()
    }  # fmt: skip
    model |= as_fairseq(backbone().state_dict(), "feature_extract.model.")
    torch.save({"model": model}, folder / "model.th")


DIARIZATION = (
    (r"layer_mix\.weights", "feature_weight"),
    (r"projection\.", "enc.linear_in."),
    (r"norm\.", "enc.lnorm_out."),
    (r"layers\.(\d+)\.norm([12])\.", r"enc.lnorm\2_\1."),
    (r"layers\.(\d+)\.attention\.(\w)\w*_proj\.", r"enc.self_att_\1.linear\2."),
    (r"layers\.(\d+)\.feed_forward\.inter\w+\.", r"enc.ff_\1.linear1."),
    (r"layers\.(\d+)\.feed_forward\.out\w+\.", r"enc.ff_\1.linear2."),
    (r"activities\.", "linear."),
    (r"voices\.(\d)\.", r"linear\1."),
)
"""Start of a name in ``EENDVCHead`` -> in the authors' model."""


def _diarization_name(name):
    """The authors' name of a tensor."""
    for pattern, new in DIARIZATION:
        match = re.match(pattern, name)
        if match:
            name = match.expand(new) + name[match.end() :]
            break
    return re.sub(r"(?<=linear)[qkvo]\.", lambda m: m.group().upper(), name)


def diarization(folder):
    """The authors' diarization model."""
    head = EENDVCHead(8, 3, 2, 3, 8, 1, speaker_size=4)
    model = {_diarization_name(n): t for n, t in head.state_dict().items()}
    model |= as_fairseq(backbone().state_dict(), "feature_extract.model.")
    torch.save({"model": model}, folder / "model.th")


def s3prl(folder):
    """An utterance head of s3prl, with the backbone that it trained."""
    head = UtteranceHead(8, 2, 4, True, 3)
    tensors = join_heads(
        {"head": head.state_dict()}, "ForSequenceClassification"
    )
    weights = tensors.pop("layer_weights")
    content = {
        "Downstream": {
            name.replace("classifier", "model.post_net.linear"): tensor
            for name, tensor in tensors.items()
        },
        "Featurizer": {"weights": weights},
        "Upstream": as_fairseq(backbone().state_dict(), "model."),
        "Args": argparse.Namespace(
            upstream="unispeech_sat_large", downstream="speech_commands"
        ),
        "Config": {"runner": {"total_steps": 10}},
        "Optimizer": {"state": {0: torch.zeros(4)}},
        "Epoch": 1,
        "Step": 10,
    }
    torch.save(content, folder / "states.ckpt")


def adapter(folder):
    """The file of a language, beside the modules that it is for."""
    body, head = adapted()
    save_adapter(folder, "eng", body, head, "unispeech")


def adapted():
    """Modules that an adapter file is for."""
    return backbone(adapter_attn_dim=2), FrameHead(8, len(TOKENS))


def own(name):
    """A function that writes a folder of this package by converting one."""

    def write(folder):
        with tempfile.TemporaryDirectory() as source:
            huggingface(name)(Path(source))
            convert_checkpoint(source, folder)

    return write


def own_backbone(folder):
    """A pretrained folder with a backbone alone."""
    lobes = {"backbone": backbone()}
    write_pretrained(folder, lobes, "WaveformEncoder", "A test.")
