"""The transformer encoder of all families.

Convolutional positions, then post-norm blocks (the Base models) or pre-norm
blocks with a final LayerNorm (``do_stable_layer_norm``, the Large models).
Parameter names are those of transformers, so that conversion needs no table.
"""

import math
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

from unispeech_sb.nnet.frontend import (
    FUSED,
    Activation,
    activation,
    plain_on_cpu,
)
from unispeech_sb.nnet.lengths import length_mask, makes_graph
from unispeech_sb.nnet.packing import CPU_ROW_FRAMES, Packing

CPU_PIECE_FRAMES = 1000
"""Frames that keep two cores busy while the inner layer fits their cache."""
_CPU_BIASES, _GPU_BIASES = 2**20, 2**26
"""Entries of an attention map whose biases are in memory at once."""

_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
)
"""Whether oneDNN is there, and was seen to be faster on such CPUs."""


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


class Attention(nn.Module):
    """Multi-head self-attention, with WavLM's biases where asked for.

    WavLM (Chen et al. 2022, section III-B) adds to the score of frame i for
    frame j a bias of the bucket of their distance j - i, times a gate that
    frame i computes. Buckets are one frame wide near by, and grow
    logarithmically from a quarter of ``num_buckets`` on, up to
    ``max_distance`` frames. All blocks share the biases of the first one.

    Arguments
    ---------
    dim : int
        Model size D.
    num_heads : int
        Number of heads H; divides D.
    dropout : float
        Dropout on the attention map.
    num_buckets : int, optional
        Buckets of distances, half of them for either direction; no biases
        when omitted.
    max_distance : int
        Frames from which on all distances are in the last bucket.
    has_biases : bool
        Whether the biases are here: in the first block of an encoder.

    Example
    -------
    >>> context, attention_map = Attention(8, 2)(torch.randn(2, 10, 8))
    >>> context.shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dropout: float = 0.0,
        num_buckets: int | None = None,
        max_distance: int = 800,
        has_biases: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                "attention: expected hidden_size divisible by "
                f"num_attention_heads; got {dim} and {num_heads}"
            )
        if num_buckets is not None and max_distance <= num_buckets // 4:
            raise ValueError(
                "attention: expected max_bucket_distance above a quarter of "
                f"num_buckets; got {max_distance} and {num_buckets}"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.qkv_proj: nn.Module | None = None
        """Takes the place of the three where it is set."""
        self.num_buckets, self.max_distance = num_buckets, max_distance
        if num_buckets is not None:
            self.gru_rel_pos_const = nn.Parameter(
                torch.ones(1, num_heads, 1, 1)
            )
            self.gru_rel_pos_linear = nn.Linear(dim // num_heads, 8)
            if has_biases:
                self.rel_attn_embed = nn.Embedding(num_buckets, num_heads)

    def biases(self, frames: int) -> torch.Tensor | None:
        """The biases of all distances within so many frames, from 1 - T to
        T - 1, [H, 2T-1]; None where there are none."""
        if self.num_buckets is None:
            return None
        table = self.rel_attn_embed.weight
        distances = torch.arange(1 - frames, frames, device=table.device)
        half = self.num_buckets // 2
        exact, far = half // 2, distances.abs()
        share = torch.log(far / exact) / math.log(self.max_distance / exact)
        grown = (exact + share * (half - exact)).long().clamp(max=half - 1)
        buckets = torch.where(far < exact, far, grown) + half * (distances > 0)
        return F.embedding(buckets, table).T

    def forward(
        self,
        feats: torch.Tensor,
        mask: torch.Tensor | None = None,
        need_map: bool = False,
        counts: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends over the valid frames.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].
        mask : torch.Tensor, optional
            Bool, True at frames that may be attended to, [B, 1, 1, T].
        need_map : bool
            Compute the attention map explicitly, and return it.
        counts : torch.Tensor, optional
            Frames of each utterance of a packed row, [1, P, D], which attends
            to itself; int64, on the CPU. Not with the other two.
        biases : torch.Tensor, optional
            Those of the first block's ``biases`` for as many frames as the
            longest utterance has, or more.

        Returns
        -------
        context : torch.Tensor
            [B, T, D].
        attention_map : torch.Tensor or None
            After softmax and dropout, [B, H, T, T].
        """
        batch, frames, dim = feats.shape
        heads = (batch, frames, self.num_heads, dim // self.num_heads)
        query, key, value = (
            projected.view(heads).transpose(1, 2)  # [B, H, T, D/H]
            for projected in self._projected(feats)
        )
        dropout = self.dropout if self.training else 0.0
        attention_map = None
        gates = None if biases is None else self._gates(feats.view(heads))
        if need_map:
            scores = query @ key.transpose(2, 3) / math.sqrt(heads[-1])
            if gates is not None:
                scores = scores + gates * _by_pair(biases, 0, frames, frames)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            attention_map = F.dropout(scores.softmax(-1), dropout)
            context = attention_map @ value
        elif counts is None and gates is None:
            context = F.scaled_dot_product_attention(
                query, key, value, mask, dropout
            )
        elif counts is None:
            context = _attend_biased(
                query, key, value, gates, mask, dropout, biases
            )
        elif makes_graph():
            context = _attend_apart_in_graph(
                query, key, value, counts, gates, biases
            )
        else:
            context = _attend_apart(
                query, key, value, counts, gates, biases, dropout
            )
        context = context.transpose(1, 2).reshape(batch, frames, dim)
        return _linear(self.out_proj, context), attention_map

    def _projected(self, feats):
        """Queries, keys and values, [B, T, D] each."""
        if self.qkv_proj is not None:
            return self.qkv_proj(feats).chunk(3, -1)
        projections = self.q_proj, self.k_proj, self.v_proj
        return [_linear(layer, feats) for layer in projections]

    def _gates(self, feats):
        """What each frame multiplies its biases by, [B, H, T, 1], from the
        block's input by heads, [B, T, H, D/H]."""
        sums = self.gru_rel_pos_linear(feats.transpose(1, 2))
        sums = sums.unflatten(-1, (2, 4)).sum(-1)
        update, reset = sums.sigmoid().chunk(2, -1)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0


def _linear(
    layer: nn.Module, feats: torch.Tensor, act: Activation | None = None
) -> torch.Tensor:
    """A linear layer and an activation; of inference on a CPU as one step of
    oneDNN, where that is faster than torch's own two."""
    if (
        type(layer) is nn.Linear
        and act in FUSED
        and layer.weight.dtype == torch.float32
        and plain_on_cpu(feats)
        and not torch.is_grad_enabled()
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and _HAS_ONEDNN
    ):
        return torch.ops.mkldnn._linear_pointwise(
            feats, layer.weight, layer.bias, *FUSED[act]
        )
    feats = layer(feats)
    return feats if act is None else act(feats)


def _attend_apart(query, key, value, counts, gates, biases, dropout=0.0):
    """Attention of each utterance of a packed row to itself, [1, H, P, D/H]."""
    sizes = counts.tolist()
    parts = zip(*[x.split(sizes, 2) for x in (query, key, value)])
    if gates is None:
        contexts = [
            F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
            for q, k, v in parts
        ]
    else:
        contexts = [
            _attend_biased(*part, gate, None, dropout, biases)
            for part, gate in zip(parts, gates.split(sizes, 2))
        ]
    return torch.cat(contexts, 2) if len(contexts) > 1 else contexts[0]


@torch.library.custom_op("unispeech_sb::attend_apart", mutates_args=())
def _attend_apart_in_graph(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    counts: torch.Tensor,
    gates: torch.Tensor | None,
    biases: torch.Tensor | None,
) -> torch.Tensor:
    """The same as one step of a graph, which then serves any utterances."""
    context = _attend_apart(query, key, value, counts, gates, biases)
    return context.contiguous().clone()


@_attend_apart_in_graph.register_fake
def _(query, key, value, counts, gates, biases):
    """Its shape."""
    return query.new_empty(query.shape)


def _by_pair(biases, start, stop, frames):
    """Biases of the pairs of frames ``start`` to ``stop`` with all, [H, b, T],
    out of those by distance."""
    nearest = biases.shape[1] // 2  # the place of distance 0
    if makes_graph():
        numbers = torch.arange(frames, device=biases.device)
        return biases[:, numbers + nearest - numbers[start:stop, None]]
    rows = biases.unfold(1, frames, 1)  # each begins one distance further
    return rows[:, nearest - stop + 1 : nearest - start + 1].flip(1)


def _attend_biased(query, key, value, gates, mask, dropout, biases):
    """Attention with gated biases, [B, H, T, D/H] each: so many queries at a
    time that their biases take little memory."""
    batch, heads, frames, _ = query.shape
    sizes, contexts, start = [frames], [], 0
    if not makes_graph():
        most = _CPU_BIASES if query.device.type == "cpu" else _GPU_BIASES
        step = max(1, most // (batch * heads * frames))
        sizes = [min(step, frames - i) for i in range(0, frames, step)]
    for q, gate in zip(query.split(sizes, 2), gates.split(sizes, 2)):
        stop = start + q.shape[2]
        bias = gate * _by_pair(biases, start, stop, frames)
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf)
        bias = bias.to(query.dtype)
        contexts.append(
            F.scaled_dot_product_attention(q, key, value, bias, dropout)
        )
        start = stop
    return torch.cat(contexts, 2) if len(contexts) > 1 else contexts[0]


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
        inner = _linear(self.intermediate_dense, feats, self.activation)
        inner = self.intermediate_dropout(inner)
        return self.output_dropout(_linear(self.output_dense, inner))


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
        self.norm = nn.LayerNorm(dim)
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
        self.layer_norm = nn.LayerNorm(dim, eps=eps)
        self.feed_forward = feed_forward
        self.final_layer_norm = nn.LayerNorm(dim, eps=eps)
        self.normalize_before = normalize_before
        self.adapter_layer = adapter

    def forward(
        self,
        feats: torch.Tensor,
        mask: torch.Tensor | None = None,
        need_map: bool = False,
        counts: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
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

        Returns
        -------
        feats : torch.Tensor
            [B, T, D].
        attention_map : torch.Tensor or None
            [B, H, T, T].
        """
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
        self.layer_norm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        self.layerdrop = layerdrop
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
        longest = max(max(own or [feats.shape[1]]) for own in counts)
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
                rows[0] = keep_in_graph(rows[0], layer.parameters())
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
