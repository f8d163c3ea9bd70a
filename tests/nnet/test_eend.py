"""Parts of EEND with vector clustering: time grid, vectors, losses."""

import torch
from torch.nn import functional as F

from unispeech_sb.nnet.eend import (
    EENDLayer,
    interpolate_frames,
    speaker_loss,
    speaker_means,
)


def test_the_residual_starts_after_the_norm():
    layer = EENDLayer(8, 2, inner_size=16, dropout=0.0)
    torch.nn.init.zeros_(layer.attention.out_proj.weight)
    torch.nn.init.zeros_(layer.attention.out_proj.bias)
    torch.nn.init.zeros_(layer.feed_forward.output_dense.weight)
    torch.nn.init.zeros_(layer.feed_forward.output_dense.bias)
    feats = 3 + 5 * torch.randn(2, 6, 8)
    twice = F.layer_norm(F.layer_norm(feats, (8,)), (8,))
    torch.testing.assert_close(layer(feats), twice)


def test_interpolation_stops_at_each_row_s_own_last_frame():
    feats = torch.randn(2, 9, 3)
    counts, wanted = torch.tensor([9, 6]), torch.tensor([5, 3])
    found = interpolate_frames(feats, counts, wanted)
    assert found.shape == (2, 5, 3)
    for row, count, size in ((0, 9, 5), (1, 6, 3)):
        expected = F.interpolate(
            feats[row : row + 1, :count].transpose(1, 2), size, mode="linear"
        )
        torch.testing.assert_close(found[row, :size], expected[0].T)
    assert (found[1, 3:] == 0).all()


def test_long_chunks_are_interpolated_as_torch_rounds():
    feats = torch.randn(1, 1499, 2)
    for size in (750, 749, 1020):
        found = interpolate_frames(
            feats, torch.tensor([1499]), torch.tensor([size])
        )
        expected = F.interpolate(feats.transpose(1, 2), size, mode="linear")
        torch.testing.assert_close(
            found, expected.transpose(1, 2), rtol=0, atol=1e-6
        )


def test_silent_and_padded_frames_have_no_say_in_a_speaker_s_vector():
    vectors = torch.randn(1, 3, 2, 4)
    logits = torch.tensor([[[9.0, 9.0], [-99.0, 9.0], [9.0, 9.0]]])
    found = speaker_means(logits, vectors, torch.tensor([2]))
    units = F.normalize(vectors, dim=-1)[0]
    torch.testing.assert_close(found[0, 0], units[0, 0])
    both = F.normalize(units[0, 1] + units[1, 1], dim=0)
    torch.testing.assert_close(found[0, 1], both)


def test_speaker_loss_is_cross_entropy_over_distances():
    speakers = F.normalize(torch.randn(2, 3, 4), dim=-1)
    known = 5 * torch.randn(6, 4)
    targets = torch.tensor([[0, 5, -1], [2, -1, -1]])
    loss = speaker_loss(
        speakers, targets, known, torch.tensor(0.7), torch.tensor(0.3)
    )
    units = F.normalize(known, dim=-1)
    expected = []
    for row, slot, target in ((0, 0, 0), (0, 1, 5), (1, 0, 2)):
        distance = (speakers[row, slot] - units).square().sum(1)
        expected.append(-F.log_softmax(-0.7 * distance - 0.3, 0)[target])
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_a_silent_batch_has_no_speaker_loss_and_a_gradient_of_zero():
    known = torch.randn(6, 4, requires_grad=True)
    speakers = F.normalize(torch.randn(2, 3, 4), dim=-1)
    loss = speaker_loss(speakers, torch.full((2, 3), -1), known, 1.0, 0.0)
    loss.backward()
    assert loss == 0 and (known.grad == 0).all()
