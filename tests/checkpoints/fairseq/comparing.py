"""The authors' files by name, and how two readings are compared."""

import torch

from unispeech_sb.lobes.backbone import Backbone

STAGE1 = "fairseq_unispeech_pretrain.pt"
CTC = "fairseq_unispeech_ctc.pt"
SAT = "fairseq_unispeech_sat_pretrain.pt"


def backbone_of(checkpoint):
    """Our backbone with a checkpoint's weights, strictly."""
    config = checkpoint.config
    own = Backbone.from_preset("tiny").config.keys()
    backbone = Backbone(**{k: v for k, v in config.items() if k in own})
    backbone.load_state_dict(checkpoint.backbone, strict=True)
    return backbone.float().eval()


def same_states(checkpoint, other):
    """Whether two checkpoints give the same hidden states."""
    wavs = torch.randn(1, 3000)
    ours, theirs = (backbone_of(c)(wavs) for c in (checkpoint, other))
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def restored(content):
    """Drops what only fairseq can pickle."""
    content["task_state"] = {}
