"""Recurrent layers over padded batches."""

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_padded(
    layer: torch.nn.LSTM, feats: torch.Tensor, frames: torch.Tensor | None
) -> torch.Tensor:
    """Runs an LSTM over a padded batch, its way back from each row's end.

    Arguments
    ---------
    layer : torch.nn.LSTM
        With ``batch_first`` and biases.
    feats : torch.Tensor
        Features, [B, T, D].
    frames : torch.Tensor or None
        Number of valid frames of each row, on the CPU, [B]; None for all.

    Returns
    -------
    torch.Tensor
        Hidden states, [B, T, H]. Frames in the padding hold anything.

    Example
    -------
    >>> layer = torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    >>> run_padded(layer, torch.ones(2, 5, 4), torch.tensor([5, 3])).shape
    torch.Size([2, 5, 6])
    """
    exports = torch.compiler.is_exporting()
    if not exports and (frames is None or not layer.bidirectional):
        return layer(feats)[0]
    if feats.is_cuda and not exports:
        return _run_packed(layer, feats, frames)
    if frames is None:
        frames = torch.full((feats.shape[0],), feats.shape[1])
    # The gradient of packed sequences on a CPU takes time as T squared, and
    # OpenVINO's way back does not begin at the end of each row
    for number in range(layer.num_layers):
        if number:
            feats = F.dropout(feats, layer.dropout, layer.training)
        ahead = _run_one_way(layer, feats, number, "")
        if layer.bidirectional:
            turned = _turned(feats, frames)
            back = _run_one_way(layer, turned, number, "_reverse")
            ahead = torch.cat([ahead, _turned(back, frames)], 2)
        feats = ahead
    return feats


def _run_packed(layer, feats, frames):
    """The same by cuDNN, which knows packed sequences."""
    packed = pack_padded_sequence(
        feats, frames, batch_first=True, enforce_sorted=False
    )
    hidden, _ = pad_packed_sequence(
        layer(packed)[0], batch_first=True, total_length=feats.shape[1]
    )
    return hidden


def _run_one_way(layer, feats, number, direction):
    """One direction of one layer, [B, T, H]."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [getattr(layer, f"{name}_l{number}{direction}") for name in names]
    if torch.compiler.is_exporting():
        return _run_exported(layer, feats, weights)
    start = feats.new_zeros(1, len(feats), layer.hidden_size)
    options = True, 1, 0.0, layer.training, False, True
    return torch.lstm(feats, (start, start), weights, *options)[0]


def _run_exported(layer, feats, weights):
    """The same by ONNX's operator, as torch's would become a step for each
    frame of the example."""
    batch, frames, _ = feats.shape  # len() would be the example's
    gates = [weight.chunk(4) for weight in weights]
    # Input, output, forget, cell, where torch has input, forget, cell, output
    w, r, *biases = [torch.cat([i, o, f, c])[None] for i, f, c, o in gates]
    hidden = torch.onnx.ops.symbolic(
        "LSTM",
        [feats.transpose(0, 1), w, r, torch.cat(biases, 1)],
        {"hidden_size": layer.hidden_size},
        dtype=feats.dtype,
        shape=(frames, 1, batch, layer.hidden_size),
    )
    return hidden[:, 0].transpose(0, 1)


def _turned(feats, frames):
    """The valid frames of each row from last to first, [B, T, D]."""
    places = torch.arange(feats.shape[1])
    last = frames[:, None] - 1
    places = torch.where(places <= last, last - places, places)
    return feats.gather(1, places[..., None].expand_as(feats))
