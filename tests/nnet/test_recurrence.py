"""An LSTM over a padded batch is the LSTM over each row."""

import pytest
import torch

from unispeech_sb.nnet.recurrence import _run_packed, run_padded


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_no_valid_frame(bidirectional):
    layer = torch.nn.LSTM(4, 3, batch_first=True, bidirectional=bidirectional)
    feats, counts = torch.randn(3, 9, 4), torch.tensor([9, 2, 6])
    feats[1, 2:] = 1e3
    found = run_padded(layer, feats, counts)
    assert found.shape[:2] == (3, 9)
    for row, count in enumerate(counts):
        alone, _ = layer(feats[row : row + 1, :count])
        torch.testing.assert_close(found[row, :count], alone[0])
    torch.testing.assert_close(run_padded(layer, feats, None), layer(feats)[0])


def test_states_and_gradients_are_those_of_packed_sequences():
    layer = torch.nn.LSTM(
        4, 3, num_layers=2, batch_first=True, bidirectional=True
    )
    counts = torch.tensor([9, 2, 6])
    mask = torch.arange(9) < counts[:, None]
    gradients = []
    for run in (run_padded, _run_packed):
        torch.manual_seed(0)
        feats = torch.randn(3, 9, 4, requires_grad=True)
        hidden = run(layer, feats, counts)[mask]
        inputs = [feats, *layer.parameters()]
        gradients.append(
            [hidden, *torch.autograd.grad(hidden.square().sum(), inputs)]
        )
    torch.testing.assert_close(*gradients)
