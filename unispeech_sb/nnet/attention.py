"""Multi-head self-attention of whole batches and of packed rows."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.frontend import FUSED, Activation, plain_on_cpu
from unispeech_sb.nnet.lengths import makes_graph

_CPU_BIASES, _GPU_BIASES = 2**20, 2**26
"""Entries of an attention map whose biases are in memory at once."""
_SCORES = 2**20
"""Entries of an attention map that are computed at once in bfloat16."""

_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
)
"""Whether oneDNN is there, and was seen to be faster on such CPUs."""


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
            context = _attend(query, key, value, mask, dropout)
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
        return linear(self.out_proj, context), attention_map

    def _projected(self, feats):
        """Queries, keys and values, [B, T, D] each."""
        if self.qkv_proj is not None:
            return self.qkv_proj(feats).chunk(3, -1)
        projections = self.q_proj, self.k_proj, self.v_proj
        return [linear(layer, feats) for layer in projections]

    def _gates(self, feats):
        """What each frame multiplies its biases by, [B, H, T, 1], from the
        block's input by heads, [B, T, H, D/H]."""
        sums = self.gru_rel_pos_linear(feats.transpose(1, 2))
        sums = sums.unflatten(-1, (2, 4)).sum(-1)
        update, reset = sums.sigmoid().chunk(2, -1)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0


def linear(
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


def _attend(query, key, value, mask, dropout):
    """Attention, [B, H, T, D/H] each, with a mask or biases, [B, H, T, T]; of
    inference in bfloat16 on a CPU by oneDNN, faster than torch's own."""
    has_map = mask is not None and mask.dtype == torch.bool
    if (
        _HAS_ONEDNN
        and query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and not (has_map or dropout or torch.is_grad_enabled())
        and not makes_graph()
    ):
        return _attend_in_blocks(query, key, value, mask)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout)


def _attend_in_blocks(query, key, value, biases):
    """Attention of some heads and frames at a time, whose scores stay in the
    processor's cache."""
    shape = query.shape
    query = (query / math.sqrt(shape[-1])).flatten(0, 1).contiguous()
    key, value = (x.flatten(0, 1).contiguous() for x in (key, value))
    key, frames = key.transpose(1, 2), key.shape[1]
    if biases is not None:
        biases = biases.expand(*shape[:3], frames).flatten(0, 1)
    context = torch.empty_like(query)
    near = max(1, _SCORES // (shape[2] * frames))
    step = max(1, 2 * _SCORES // (min(near, len(query)) * frames))
    for head in range(0, len(query), near):
        heads = slice(head, head + near)
        for start in range(0, shape[2], step):
            own = heads, slice(start, start + step)
            scores = torch.bmm(query[own], key[heads])
            if biases is not None:
                scores += biases[own]
            context[own] = torch.bmm(scores.softmax(-1), value[heads])
    return context.view(shape)


def _attend_apart(query, key, value, counts, gates, biases, dropout=0.0):
    """Attention of each utterance of a packed row to itself, [1, H, P, D/H]."""
    sizes = counts.tolist()
    parts = zip(*[x.split(sizes, 2) for x in (query, key, value)])
    if gates is None:
        contexts = [_attend(*part, None, dropout) for part in parts]
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
        contexts.append(_attend(q, key, value, bias, dropout))
        start = stop
    return torch.cat(contexts, 2) if len(contexts) > 1 else contexts[0]
