"""The transformer encoder of all families.

Convolutional positions, then post-norm blocks (the Base models) or pre-norm
blocks with a final LayerNorm (``do_stable_layer_norm``, the Large models).
Parameter names are those of transformers, so that conversion needs no table.
"""

import math
import sys
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from unispeech_sb.nnet.attention import Attention, linear
from unispeech_sb.nnet.frontend import LayerNorm, activation
from unispeech_sb.nnet.lengths import length_mask, makes_graph
from unispeech_sb.nnet.packing import CPU_ROW_FRAMES, Packing

CPU_PIECE_FRAMES = 1000
"""Frames that keep two cores busy while the inner layer fits their cache."""


def keep_in_graph(
    tensor: torch.Tensor, parameters: Iterable[nn.Parameter]
) -> torch.Tensor:
    """Keeps unused parameters in the graph, with a gradient of zero.

    Distributed training waits for a gradient of every trainable parameter;
    one that this step does not use would block it.

    Arguments
    ---------
    tensor : torch.Tensor
        Any tensor that the loss depends on.
    parameters : iterable of torch.nn.Parameter
        Those without a part in this step.

    Returns
    -------
    torch.Tensor
        The same values, which depend on the parameters.

    Example
    -------
    >>> unused = torch.nn.Parameter(torch.ones(3))
    >>> feats = torch.ones(2, requires_grad=True)
    >>> keep_in_graph(feats, [unused]).sum().backward()
    >>> unused.grad
    tensor([0., 0., 0.])
    """
    firsts = [p.view(-1)[0] for p in parameters if p.requires_grad]
    return tensor + 0.0 * torch.stack(firsts).sum() if firsts else tensor


class PositionalConv(nn.Module):
    """Relative positions by a grouped convolution (wav2vec 2.0, section 2).

    Arguments
    ---------
    dim : int
        Model size D.
    kernel : int
        Kernel size, in frames.
    groups : int
        Number of groups.
    act : str
        Name of the activation.
    use_weight_norm : bool
        Weight normalisation over all but the kernel axis.

    Example
    -------
    >>> PositionalConv(8, kernel=4, groups=2)(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        dim: int,
        kernel: int,
        groups: int,
        act: str = "gelu",
        use_weight_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            dim, dim, kernel, padding=kernel // 2, groups=groups
        )
        std = 2 * math.sqrt(1 / (kernel * dim))
        nn.init.normal_(self.conv.weight, std=std)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        if use_weight_norm:
            weight_norm(self.conv, dim=2)
        self.activation = activation(act)

    @property
    def reach(self) -> int:
        """Frames on either side of one that its position depends on."""
        return self.conv.kernel_size[0] // 2

    def forward(
        self, feats: torch.Tensor, counts: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Computes the position features.

        Arguments
        ---------
        feats : torch.Tensor
            Features, zero in the padding, [B, T, D].
        counts : list of int, optional
            Frames of each utterance of a packed row, [1, P, D].

        Returns
        -------
        torch.Tensor
            Position features to add, [B, T, D].
        """
        conv, weight = self.conv, self.conv.weight  # its norm is taken once
        parts = [
            # An even kernel yields one frame too many: the last is dropped.
            F.conv1d(
                part.transpose(1, 2), weight, conv.bias,
                padding=conv.padding, groups=conv.groups,
            )[..., : part.shape[1]]
            for part in (feats.split(counts, 1) if counts else [feats])
        ]  # fmt: skip
        return self.activation(torch.cat(parts, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with an activation between.

    Arguments
    ---------
    dim : int
        Model size D.
    inner_dim : int
        Size of the inner layer.
    act : str
        Name of the activation.
    activation_dropout : float
        Dropout after the activation.
    dropout : float
        Dropout on the output.

    Example
    -------
    >>> FeedForward(8, 32)(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        dim: int,
        inner_dim: int,
        act: str = "gelu",
        activation_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(dim, inner_dim)
        self.activation = activation(act)
        self.intermediate_dropout = nn.Dropout(activation_dropout)
        self.output_dense = nn.Linear(inner_dim, dim)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Runs the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].

        Returns
        -------
        torch.Tensor
            Features, [B, T, D].
        """
        if feats.device.type != "cpu" or makes_graph():
            return self._run(feats)
        pieces = feats.split(CPU_PIECE_FRAMES, dim=1)
        outputs = [self._run(piece) for piece in pieces]
        return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]

    def _run(self, feats):
        """Runs the layer on some frames."""
        inner = linear(self.intermediate_dense, feats, self.activation)
        inner = self.intermediate_dropout(inner)
        return self.output_dropout(linear(self.output_dense, inner))


class AttentionAdapter(nn.Module):
    """Norm, down-projection, ReLU, up-projection: what a block adds to its
    output for one language.

    Arguments
    ---------
    dim : int
        Model size D.
    inner_dim : int
        Size of the inner layer.

    Example
    -------
    >>> AttentionAdapter(8, 4)(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        # transformers keeps torch's epsilon here, whatever layer_norm_eps is.
        self.norm = LayerNorm(dim)
        self.linear_1 = nn.Linear(dim, inner_dim)
        self.linear_2 = nn.Linear(inner_dim, dim)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Computes what is added.

        Arguments
        ---------
        feats : torch.Tensor
            Output of a block, [B, T, D].

        Returns
        -------
        torch.Tensor
            [B, T, D].
        """
        return self.linear_2(self.linear_1(self.norm(feats)).relu())


class EncoderLayer(nn.Module):
    """One block, with its norms before or after the two sub-layers.

    Arguments
    ---------
    attention : Attention
        The first sub-layer.
    feed_forward : FeedForward
        The second one.
    dim : int
        Model size D.
    dropout : float
        Dropout on the attention's output.
    eps : float
        Epsilon of the norms.
    normalize_before : bool
        Pre-norm if True.
    adapter : AttentionAdapter, optional
        Added to the block's output.

    Example
    -------
    >>> layer = EncoderLayer(Attention(8, 2), FeedForward(8, 32), dim=8)
    >>> layer(torch.randn(2, 10, 8))[0].shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        dim: int,
        dropout: float = 0.0,
        eps: float = 1e-5,
        normalize_before: bool = False,
        adapter: AttentionAdapter | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = LayerNorm(dim, eps=eps)
        self.feed_forward = feed_forward
        self.final_layer_norm = LayerNorm(dim, eps=eps)
        self.normalize_before = normalize_before
        self.adapter_layer = adapter

    def forward(
        self,
        feats: torch.Tensor,
        mask: torch.Tensor | None = None,
        need_map: bool = False,
        counts: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
        skipped: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Runs the block.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].
        mask : torch.Tensor, optional
            Bool, True at valid frames, [B, 1, 1, T].
        need_map : bool
            Return the attention map too.
        counts : torch.Tensor, optional
            Frames of each utterance of a packed row, [1, P, D].
        biases : torch.Tensor, optional
            Of distances, as ``Attention`` takes them.
        skipped : bool
            Give the features as they are, with the parameters in the graph.

        Returns
        -------
        feats : torch.Tensor
            [B, T, D].
        attention_map : torch.Tensor or None
            [B, H, T, T].
        """
        if skipped:
            return keep_in_graph(feats, self.parameters()), None
        before = self.normalize_before
        context, attention_map = self.attention(
            self.layer_norm(feats) if before else feats,
            mask, need_map, counts, biases,
        )  # fmt: skip
        feats = feats + self.dropout(context)
        if before:
            feats = feats + self.feed_forward(self.final_layer_norm(feats))
        else:
            feats = self.layer_norm(feats)
            feats = self.final_layer_norm(feats + self.feed_forward(feats))
        if self.adapter_layer is not None:
            feats = feats + self.adapter_layer(feats)
        return feats, attention_map


def draw_weights(blocks: Sequence[nn.Module], std: float) -> None:
    """Draws initial weights from a normal distribution; biases are zero."""
    for layer in nn.ModuleList(blocks).modules():
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)


def _without_padding(valid, rows):
    """The only row, [B, T, D], with zeros where not ``valid``, [B, T, 1]."""
    return rows[0].masked_fill(~valid, 0.0)


class Encoder(nn.Module):
    """Positions and a stack of blocks.

    Arguments
    ---------
    pos_conv_embed : PositionalConv
        The positions.
    layers : list of EncoderLayer
        The blocks, all of one kind.
    dim : int
        Model size D.
    dropout : float
        Dropout on the blocks' input.
    eps : float
        Epsilon of the norm.
    layerdrop : float
        Probability of skipping a block in training.
    window, context : int
        Utterances of more frames go through the blocks in windows of so many,
        with ``context`` on both sides of what each one gives. None: never.

    Example
    -------
    >>> block = EncoderLayer(Attention(8, 2), FeedForward(8, 32), dim=8)
    >>> encoder = Encoder(PositionalConv(8, 4, 2), [block], dim=8)
    >>> [list(state.shape) for state, _ in encoder(torch.randn(2, 10, 8))]
    [[2, 10, 8], [2, 10, 8]]
    """

    def __init__(
        self,
        pos_conv_embed: PositionalConv,
        layers: Sequence[EncoderLayer],
        dim: int,
        dropout: float = 0.0,
        eps: float = 1e-5,
        layerdrop: float = 0.0,
        window: int | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.window, self.context = window, context
        self.pos_conv_embed = pos_conv_embed
        self.layer_norm = LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        self.layerdrop = layerdrop
        # Where blocks are sharded, all processes call each of them as often
        self.in_one_row = False
        self.normalize_before = self.layers[0].normalize_before

    def forward(
        self,
        feats: torch.Tensor,
        lengths: torch.Tensor | None = None,
        on_padding: bool = False,
        need_maps: bool = False,
        checkpointing: bool = False,
        raw_last: bool = False,
        wanted: Collection[int] | None = None,
        sides: tuple[int, int] = (0, 0),
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yields the hidden states one by one, as they are computed.

        Arguments
        ---------
        feats : torch.Tensor
            Projected features, [B, T, D].
        lengths : torch.Tensor, optional
            Valid frames of each row, [B]. All when omitted.
        on_padding : bool
            Compute on padded frames, too, which nothing attends to. So does a
            pass that yields attention maps, or is recorded as a graph.
        need_maps : bool
            Yield attention maps too.
        checkpointing : bool
            Recompute activations in the backward pass to save memory.
        raw_last : bool
            Yield the last state before ``final_norm`` instead of after it.
        wanted : collection of int, optional
            Yield these states only, and compute no block above the last.
        sides : tuple of int
            Frames before and behind the T of one utterance, which only the
            positions see.

        Yields
        ------
        state : torch.Tensor
            The blocks' input, then the output of each block, the last one
            after ``final_norm``, [B, T, D]; zeros in the padding unless
            ``on_padding``.
        attention_map : torch.Tensor or None
            That of the block, [B, H, T, T]; None for the input, and for a
            block that LayerDrop skips.
        """
        wanted = range(len(self.layers) + 1) if wanted is None else wanted
        rows, counts, mask = [feats], [None], None
        beside = [[sides] if any(sides) else None]
        sizes: list[torch.Tensor | None] = [None]
        joined: Callable[..., torch.Tensor] = itemgetter(0)
        if on_padding or need_maps or makes_graph():
            if lengths is not None:
                valid = length_mask(lengths, feats.shape[1])
                without_padding = partial(_without_padding, valid[..., None])
                rows, mask = [without_padding([feats])], valid[:, None, None]
                joined = joined if on_padding else without_padding
        elif lengths is not None or self.window and not any(sides):
            packing, reach = self._packing(feats, lengths), 0
            if self.window is not None:
                reach = self.pos_conv_embed.reach
            rows, counts = packing.pack(feats, reach), packing.counts
            sizes = [torch.tensor(own) for own in counts]
            beside, joined = packing.sides(reach), packing.unpack
        longest = feats.shape[1]  # no closure may hold what is freed below
        longest = max([max(own) if own else longest for own in counts])
        first: Any = self.layers[0]
        biases = first.attention.biases(longest)
        del feats  # that of an hour is large
        for i, own in enumerate(counts):
            rows[i] = self._located(rows[i], own, beside[i])
        if 0 in wanted:
            yield joined(rows), None
        end = self._left_raw if raw_last else self.final_norm
        for number, layer in enumerate(self.layers[: max(wanted)], 1):
            attention_map = None
            if self._drops_a_layer():
                # By its forward: where blocks are sharded, all processes call
                # it, and its parameters are there only within
                rows[0], _ = layer(rows[0], skipped=True)
            else:
                run: Callable[..., Any] = layer
                if checkpointing:
                    run = partial(checkpoint, layer, use_reentrant=False)
                for i, own in enumerate(sizes):
                    rows[i], attention_map = run(
                        rows[i], mask, need_maps, own, biases
                    )
            if number == len(self.layers):
                rows = [end(row) for row in rows]
            if number in wanted:
                yield joined(rows), attention_map

    def _packing(self, feats, lengths):
        """Where the valid frames are."""
        batch, frames, _ = feats.shape
        counts = [frames] * batch if lengths is None else lengths.tolist()
        on_cpu = feats.device.type == "cpu"
        most = CPU_ROW_FRAMES if on_cpu else sum(counts)
        if self.in_one_row:
            most = sys.maxsize
        return Packing(counts, frames, most, self.window, self.context)

    def _located(self, feats, counts, sides):
        """The blocks' input: features with their positions, without the frames
        beside each part."""
        if sides is None or not any(map(any, sides)):
            feats = feats + self.pos_conv_embed(feats, counts)
        else:
            counts = counts or [feats.shape[1] - sum(sides[0])]
            wide = [n + sum(own) for n, own in zip(counts, sides)]
            located = feats + self.pos_conv_embed(feats, wide)
            feats = torch.cat(
                [
                    part[:, before : before + count]
                    for part, count, (before, _) in zip(
                        located.split(wide, 1), counts, sides
                    )
                ],
                1,
            )
        if not self.normalize_before:
            feats = self.layer_norm(feats)
        return self.dropout(feats)

    def final_norm(self, feats: torch.Tensor) -> torch.Tensor:
        """Normalises the last block's output, where the blocks are pre-norm.

        Arguments
        ---------
        feats : torch.Tensor
            Output of the last block, [B, T, D].

        Returns
        -------
        torch.Tensor
            The encoder's output, [B, T, D].
        """
        return self.layer_norm(feats) if self.normalize_before else feats

    def _left_raw(self, feats):
        """The last block's output, with the final norm kept in the graph."""
        if self.normalize_before and self.training and torch.is_grad_enabled():
            feats = keep_in_graph(feats, self.layer_norm.parameters())
        return feats

    def _drops_a_layer(self):
        """Draws LayerDrop's coin, in training only."""
        if not self.training or self.layerdrop == 0:
            return False
        return torch.rand(()).item() < self.layerdrop
