"""The head of statistics: batches, one frame, one row, gradients, files."""

import pytest
import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import StatisticsHead


def tiny_head(num_classes=5):
    """A small head with statistics that are not the initial ones."""
    head = StatisticsHead(16, 3, num_classes, proj_size=6, embedding_size=4)
    torch.nn.init.normal_(head.norm.running_mean)
    torch.nn.init.uniform_(head.norm.running_var, 0.5, 2.0)
    return head


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_utterance_scores_the_same_alone_and_in_a_batch(norm):
    backbone = Backbone.from_preset(
        "tiny", feat_extract_norm=norm, output_all_hiddens=True
    ).eval()
    head = tiny_head().eval()
    lengths = torch.tensor([9000, 5170, 1501, 400])  # the last: one frame
    wavs, wav_lens = torch.randn(4, 9000), lengths / 9000
    batched = head(
        backbone(wavs, wav_lens), backbone.frame_lens(9000, wav_lens)
    )
    assert batched.shape == (4, 5)
    for row, samples in enumerate(lengths):
        alone = head(backbone(wavs[row : row + 1, :samples]))
        assert alone.isfinite().all()
        torch.testing.assert_close(batched[row], alone[0], rtol=1e-5, atol=1e-5)


def test_the_embedding_is_of_means_and_deviations():
    head, states = tiny_head().eval(), torch.randn(3, 2, 10, 16)
    feats = head.projector(states.mean(0)).relu()
    pooled = torch.cat([feats.mean(1), feats.std(1)], 1)
    wanted = head.embedding(head.norm(pooled))
    torch.testing.assert_close(head.embed(iter(states)), wanted)
    torch.testing.assert_close(head(states), head.classifier(wanted))


def test_without_classes_the_embedding_is_what_trains():
    head, states = tiny_head(None).eval(), torch.randn(3, 2, 10, 16)
    assert torch.equal(head(states), head.embed(states))


@pytest.mark.parametrize("rows", [1, 3])
def test_training_reaches_every_parameter(rows):
    head = tiny_head().train()
    head(torch.randn(3, rows, 20, 16)).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-7, name


def test_a_saved_head_comes_back_and_another_size_is_refused(tmp_path):
    head = tiny_head().eval()
    head.save(tmp_path / "head.ckpt")
    again = StatisticsHead(**head.config).eval()
    again.load(tmp_path / "head.ckpt")
    states = torch.randn(3, 2, 10, 16)
    assert torch.equal(head(states), again(states))
    with pytest.raises(ValueError, match="misshapen classifier.bias"):
        StatisticsHead(**{**head.config, "num_classes": 6}).load(
            tmp_path / "head.ckpt"
        )
