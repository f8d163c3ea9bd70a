"""The diarization heads: batches, gradients, number of frames, files."""

import pytest
import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import DiarizationHead, EENDVCHead
from unispeech_sb.nnet.eend import speaker_loss
from unispeech_sb.nnet.permutation import pit_loss


def tiny_head():
    """A small head."""
    return EENDVCHead(
        16, num_states=3, num_speakers=2, num_known_speakers=6, model_size=8,
        num_layers=2, num_heads=2, speaker_size=5,
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_chunk_gives_the_same_alone_and_in_a_batch(norm):
    backbone = Backbone.from_preset(
        "tiny", feat_extract_norm=norm, output_all_hiddens=True
    ).eval()
    head = tiny_head().eval()
    lengths = torch.tensor([9000, 5170, 1501, 700])
    wavs, frames = torch.randn(4, 9000), lengths // 640
    frame_lens = backbone.frame_lens(9000, lengths / 9000)
    states = backbone(wavs, lengths / 9000)
    logits, vectors = head(states, frame_lens, frames)
    activities, speakers = head.estimate(states, frame_lens, frames)
    assert logits.shape == (4, 14, 2) and vectors.shape == (4, 14, 2, 5)
    for row, samples in enumerate(lengths):
        states = backbone(wavs[row : row + 1, :samples])
        count = samples[None] // 640
        for batched, alone in (
            (logits, head(states, None, count)[0]),
            (vectors, head(states, None, count)[1]),
            (activities, head.estimate(states, None, count)[0]),
        ):
            torch.testing.assert_close(
                batched[row, :count], alone[0], rtol=1e-5, atol=1e-5
            )
        torch.testing.assert_close(
            speakers[row], head.estimate(states, None, count)[1][0],
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


def test_whole_chunks_have_one_frame_for_each_640_samples():
    backbone, head = Backbone.from_preset("tiny"), tiny_head()
    samples = 640 * torch.arange(1, 1000)
    frames = backbone.output_lengths(samples)
    assert torch.equal(head.output_lengths(frames), samples // 640)


def test_frames_are_counted_from_lengths_where_not_given():
    head = tiny_head().eval()
    states, lengths = torch.randn(3, 2, 9, 16), torch.tensor([1.0, 6 / 9])
    default, _ = head(states, lengths)
    given, _ = head(states, lengths, torch.tensor([5, 3]))
    torch.testing.assert_close(default, given)


def test_both_losses_reach_every_parameter():
    head = tiny_head().train()
    states = torch.randn(3, 2, 9, 16)
    labels = (torch.rand(2, 5, 2) < 0.5).float()
    logits, _ = head(states)
    loss, order = pit_loss(logits, labels)
    _, speakers = head.estimate(states)
    targets = torch.tensor([[0, 5], [3, -1]]).gather(1, order)
    loss = loss + speaker_loss(
        speakers, targets, head.embed.weight, head.alpha, head.beta
    )
    loss.backward()
    for name, parameter in head.named_parameters():
        # Softmax: one number added to all keys, or distances, changes nothing
        if not name.endswith("k_proj.bias") and name != "beta":
            assert parameter.grad.abs().max() > 1e-7, name
        assert parameter.grad is not None, name


def test_a_saved_head_comes_back_and_another_size_is_refused(tmp_path):
    head = tiny_head().eval()
    head.save(tmp_path / "head.ckpt")
    again = EENDVCHead(**head.config).eval()
    again.load(tmp_path / "head.ckpt")
    states = torch.randn(3, 2, 10, 16)
    assert torch.equal(head(states)[0], again(states)[0])
    with pytest.raises(ValueError, match="misshapen embed.weight"):
        other = {**head.config, "num_known_speakers": 7}
        EENDVCHead(**other).load(tmp_path / "head.ckpt")


each_way = pytest.mark.parametrize("bidirectional", [False, True])


@pytest.mark.parametrize(("size", "millions"), [(768, "2.63"), (1024, "3.15")])
def test_default_sizes_are_those_of_superb(size, millions):
    with torch.device("meta"):
        head = DiarizationHead(size)
    count = sum(parameter.numel() for parameter in head.parameters())
    # One tensor of biases more than s3prl counts: torch's LSTM has two
    assert f"{count / 1e6:.2f}" == millions


def test_superb_s_head_is_one_lstm_that_is_causal():
    head = DiarizationHead(8, hidden_size=5).eval()
    feats = torch.randn(2, 9, 8)
    (layer,) = head.layers
    assert not layer.bidirectional
    wanted = head.activities(layer(feats)[0])
    torch.testing.assert_close(head(feats), wanted)
    cut = head(feats[:, :4])
    torch.testing.assert_close(head(feats)[:, :4], cut)


@each_way
@pytest.mark.parametrize("num_states", [None, 3])
@pytest.mark.parametrize("context", [0, 3])
def test_a_chunk_s_activities_are_the_same_in_any_batch(
    bidirectional, num_states, context
):
    head = DiarizationHead(
        8, 3, 5, num_layers=2, bidirectional=bidirectional,
        num_states=num_states, context=context,
    ).eval()  # fmt: skip
    feats = torch.randn((3, 2, 10, 8) if num_states else (2, 10, 8))
    for shares in ([1.0, 0.6], [0.6, 0.4]):
        lengths = torch.tensor(shares)
        batched = head(feats, lengths)
        assert batched.shape == (2, 10, 3)
        for row, count in enumerate((10 * lengths).round().int()):
            alone = head(feats[..., row : row + 1, :count, :])
            torch.testing.assert_close(
                batched[row, :count], alone[0], rtol=1e-5, atol=1e-5
            )


@each_way
@pytest.mark.parametrize("context", [0, 3])
def test_the_loss_reaches_every_parameter_of_the_lstm_head(
    bidirectional, context
):
    head = DiarizationHead(
        8, hidden_size=5, bidirectional=bidirectional, num_states=3,
        context=context,
    )  # fmt: skip
    labels = (torch.rand(2, 10, 2) < 0.5).float()
    logits = head(torch.randn(3, 2, 10, 8), torch.tensor([1.0, 0.6]))
    pit_loss(logits, labels, torch.tensor([10, 6]))[0].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_dropout_follows_every_lstm_and_in_training_only():
    head = DiarizationHead(8, hidden_size=5, num_layers=2, dropout=1.0)
    feats = torch.randn(2, 9, 8)
    nothing = head.activities.bias.expand(2, 9, 2)
    torch.testing.assert_close(head(feats), nothing)
    assert (head.eval()(feats) - nothing).abs().max() > 1e-3


def test_a_saved_lstm_head_comes_back_and_zero_speakers_are_refused(tmp_path):
    head = DiarizationHead(8, 3, 5, bidirectional=True, num_states=2).eval()
    head.save(tmp_path / "head.ckpt")
    again = DiarizationHead(**head.config).eval()
    again.load(tmp_path / "head.ckpt")
    states = torch.randn(2, 1, 7, 8)
    assert torch.equal(head(states), again(states))
    with pytest.raises(ValueError, match="one speaker or more; got 0"):
        DiarizationHead(8, num_speakers=0)


def test_one_speaker_is_speech_detection():
    head = DiarizationHead(8, num_speakers=1, hidden_size=5)
    assert head(torch.randn(2, 7, 8)).shape == (2, 7, 1)
