"""Heads that go on with the weights of another pre-training."""

import pytest
import torch

from unispeech_sb.lobes.heads import UniSpeechHead, UniSpeechSATHead
from unispeech_sb.lobes.pretraining import load_head


def phone_head(num_ctc_classes, seed=0):
    """A head of its own weights."""
    torch.manual_seed(seed)
    return UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes)


@pytest.mark.parametrize("phones", [0, 5, 7])
def test_a_head_goes_on_but_for_other_phones(tmp_path, phones):
    first = phone_head(5, seed=1)
    first.save(tmp_path / "head.ckpt")
    head, before = phone_head(phones), phone_head(phones)
    load_head(head, tmp_path)
    assert torch.equal(head.project_q.weight, first.project_q.weight)
    if phones:
        kept = first if phones == 5 else before
        assert torch.equal(head.ctc_proj.weight, kept.ctc_proj.weight)


def test_a_head_of_another_size_is_refused(tmp_path):
    phone_head(5).save(tmp_path / "head.ckpt")
    other = UniSpeechHead(16, 8, [2, 8, 6], 12, 5)
    with pytest.raises(ValueError, match="head.ckpt does not fit"):
        load_head(other, tmp_path)
    with pytest.raises(ValueError, match="there is no such file"):
        load_head(other, tmp_path / "nowhere")


def test_other_units_get_new_embeddings(tmp_path):
    first, head = (UniSpeechSATHead(16, n, 12, [2, 4, 6]) for n in (9, 11))
    first.save(tmp_path / "head.ckpt")
    before = head.label_embeddings_concat.clone()
    load_head(head, tmp_path)
    assert torch.equal(head.label_embeddings_concat, before)
    assert torch.equal(head.speaker_proj.weight, first.speaker_proj.weight)
