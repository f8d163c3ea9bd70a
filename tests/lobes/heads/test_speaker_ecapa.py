"""The speaker verification head: batches, gradients, files."""

import pytest
import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import ECAPAHead

SIZES = {
    "channels": 16,
    "embedding_size": 5,
    "pooled_channels": 24,
    "scale": 4,
    "se_channels": 6,
    "attention_channels": 7,
}


def tiny_head():
    """A small head with statistics that are not the initial ones."""
    head = ECAPAHead(16, num_states=3, **SIZES)
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return head


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_utterance_embeds_the_same_alone_and_in_a_batch(norm):
    backbone = Backbone.from_preset(
        "tiny", feat_extract_norm=norm, output_all_hiddens=True
    ).eval()
    head = tiny_head().eval()
    lengths = torch.tensor([9000, 5170, 1501, 400])
    wavs = torch.randn(4, 9000)
    wav_lens = lengths / 9000
    frame_lens = backbone.frame_lens(9000, wav_lens)
    batched = head(backbone(wavs, wav_lens), frame_lens)
    assert batched.shape == (4, 5)
    for row, samples in enumerate(lengths):
        alone = head(backbone(wavs[row : row + 1, :samples]))
        torch.testing.assert_close(batched[row], alone[0], rtol=1e-5, atol=1e-5)


def test_hidden_states_may_come_one_by_one():
    head, states = tiny_head().eval(), torch.randn(3, 2, 10, 16)
    torch.testing.assert_close(head(iter(states)), head.embed(states))


def test_training_on_a_padded_batch_reaches_every_parameter():
    head = tiny_head().train()
    states = torch.randn(3, 3, 20, 16)
    states[:, 1, 10:] = 1e4
    head(states, torch.tensor([1.0, 0.5, 0.75])).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if name != "pooling.linear2.bias":  # a softmax takes no notice of it
            assert parameter.grad.abs().max() > 1e-7, name


def test_a_batch_of_one_trains():
    head = tiny_head().train()
    head(torch.randn(3, 1, 20, 16)).square().sum().backward()
    assert head.linear.weight.grad.abs().max() > 0


def test_a_saved_head_comes_back_and_another_size_is_refused(tmp_path):
    head = tiny_head().eval()
    head.save(tmp_path / "head.ckpt")
    again = ECAPAHead(**head.config).eval()
    again.load(tmp_path / "head.ckpt")
    states = torch.randn(3, 2, 10, 16)
    assert torch.equal(head(states), again(states))
    with pytest.raises(ValueError, match="misshapen linear.bias"):
        other = {**head.config, "embedding_size": 6}
        ECAPAHead(**other).load(tmp_path / "head.ckpt")
