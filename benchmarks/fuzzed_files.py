"""Small valid files of every kind that is read, for ``fuzzing.py``.

Models of some thousand random weights in the layouts of Hugging Face,
fairseq, the authors' downstream tasks, s3prl, and this package.
"""

import argparse
import json
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from fairseq_names import as_fairseq
from safetensors.torch import save_file

from unispeech_sb.checkpoints.authors import VERIFICATION_PARTS
from unispeech_sb.checkpoints.huggingface import CLASSES, FAMILIES, join_heads
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.adapters import save_adapter
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AMSoftmax,
    ECAPAHead,
    EENDVCHead,
    FrameHead,
    SpeakerHead,
    UniSpeechHead,
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
HEADS = {
    "UniSpeechForCTC": (
        lambda: {"head": FrameHead(8, len(TOKENS))},
        {"vocab_size": len(TOKENS), "pad_token_id": 0},
    ),
    "UniSpeechForPreTraining": (
        lambda: {"head": UniSpeechHead(8, 4, (2, 3, 4), 4, 5)},
        {
            "num_codevector_groups": 2,
            "num_codevectors_per_group": 3,
            "codevector_dim": 4,
            "proj_codevector_dim": 4,
            "num_ctc_classes": 5,
        },
    ),
    "UniSpeechSatForPreTraining": (
        lambda: {
            "head": UniSpeechSATHead(8, 6, 4, (2, 3, 4), extract_norm="apply")
        },
        {
            "num_codevector_groups": 2,
            "num_codevectors_per_group": 3,
            "codevector_dim": 4,
            "proj_codevector_dim": 4,
            "num_clusters": 6,
        },
    ),
    "UniSpeechSatForSequenceClassification": (
        lambda: {"head": UtteranceHead(8, 2, 4, True, 3)},
        {"classifier_proj_size": 4, "use_weighted_layer_sum": True},
    ),
    "UniSpeechSatForXVector": (
        lambda: {
            "head": SpeakerHead(8, [6, 6], [3, 1], [2, 1], 4, 3),
            "objective": AMSoftmax(4, 2),
        },
        {
            "tdnn_dim": [6, 6],
            "tdnn_kernel": [3, 1],
            "tdnn_dilation": [2, 1],
            "xvector_output_dim": 4,
            "use_weighted_layer_sum": True,
        },
    ),
}
"""Class of transformers -> what makes its heads, their options."""


def backbone(**options):
    """A random backbone."""
    return Backbone(**{**SIZES, **LAYER, **options})


def huggingface(name, weights="model.safetensors"):
    """A function that writes a folder of a class of transformers."""

    def write(folder):
        family, task = CLASSES[name]
        make, options = HEADS[name]
        body = backbone()
        tensors = {
            FAMILIES[family] + key: tensor
            for key, tensor in body.state_dict().items()
        }
        heads = {key: lobe.state_dict() for key, lobe in make().items()}
        tensors |= join_heads(heads, task)
        _write_weights(folder, weights, tensors)
        config = {"model_type": family, "architectures": [name]}
        config |= {
            "transformers_version": "4.57.6",
            **SIZES,
            **LAYER,
            **options,
        }
        if task in ("ForSequenceClassification", "ForXVector"):
            config["id2label"] = {"0": "no", "1": "yes"}
            config["label2id"] = {"no": 0, "yes": 1}
        _write_json(folder / "config.json", config)
        _write_json(
            folder / "preprocessor_config.json",
            {
                "do_normalize": True,
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "feature_size": 1,
                "padding_value": 0.0,
                "return_attention_mask": True,
                "sampling_rate": 16000,
            },
        )
        if task == "ForCTC":
            _write_vocabulary(folder)

    return write


def _write_weights(folder, name, tensors):
    """Tensors as safetensors, in shards, or in either format of torch."""
    if name == "model.safetensors":
        save_file(tensors, folder / name, {"format": "pt"})
    elif name == "model.safetensors.index.json":
        names = sorted(tensors)
        shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for shard, keys in shards.items():
            save_file({key: tensors[key] for key in keys}, folder / shard)
        places = {key: s for s, keys in shards.items() for key in keys}
        size = sum(tensor.nbytes for tensor in tensors.values())
        content = {"metadata": {"total_size": size}, "weight_map": places}
        _write_json(folder / name, content)
    else:
        torch.save(
            tensors,
            folder / "pytorch_model.bin",
            _use_new_zipfile_serialization=name == "pytorch_model.bin",
        )


def _write_vocabulary(folder):
    """Files of a CTC tokenizer."""
    _write_json(
        folder / "vocab.json",
        {token: i for i, token in enumerate(TOKENS[:-1])},
    )
    _write_json(folder / "added_tokens.json", {TOKENS[-1]: len(TOKENS) - 1})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": "<pad>",
            "word_delimiter_token": "|",
            "added_tokens_decoder": {
                "0": {"content": "<pad>", "special": True},
            },
        },
    )


def _write_json(path, content):
    """A JSON file."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


@contextmanager
def _planted(full_name):
    """A class that pickles under a name of fairseq's, while it is needed."""
    module, _, name = full_name.rpartition(".")
    parts = module.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    sys.modules.update({name: ModuleType(name) for name in names})
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    try:
        yield made
    finally:
        for key in names:
            del sys.modules[key]


def fairseq(folder):
    """A CTC model of the released code: ``cfg``, a dictionary, zip."""
    prefix = "w2v_encoder.w2v_model."
    model = as_fairseq(backbone().state_dict(), prefix)
    model["w2v_encoder.proj.weight"] = torch.randn(len(TOKENS), 8)
    model["w2v_encoder.proj.bias"] = torch.randn(len(TOKENS))
    with _planted("fairseq.data.dictionary.Dictionary") as dictionary:
        symbols = dictionary()
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
    make, _ = HEADS["UniSpeechSatForPreTraining"]
    tensors = {**backbone().state_dict(), **make()["head"].state_dict()}
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
    make, _ = HEADS["UniSpeechSatForSequenceClassification"]
    tensors = join_heads(
        {"head": make()["head"].state_dict()}, "ForSequenceClassification"
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
