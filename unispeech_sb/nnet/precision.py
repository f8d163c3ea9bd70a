"""Inference of a backbone on a CPU in bfloat16 or in 8-bit integers.

The convolutions and the linear layers of the blocks take nearly all of the
time. They are replaced by layers whose weights are converted once, and laid
out as the processor's units read them: torch's own do both at every call.
Activations are computed on the way out of a product. Norms, softmax, the sum
that goes from block to block, and all that follows the backbone stay in
float32.

Of 8-bit layers both sides of a product are integers: each row of weights has
a scale, and so has each frame, by its largest value, so that a frame gives the
same in any batch. Positions are in bfloat16 then.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unispeech_sb.nnet.frontend import (
    FUSED,
    Activation,
    ConvLayer,
    FeatureExtractor,
)
from unispeech_sb.nnet.transformer import Encoder, PositionalConv

_MOST, _MOST_SEEN, _LEAST = 127, 126.5, 1e-12
"""Largest 8-bit value of weights; of frames, which bfloat16 may round up to it;
what stands for a largest value of 0."""


def has_bf16_units(device_type: str) -> bool:
    """Whether a CPU (AVX512-BF16, AMX) or GPU multiplies bfloat16 faster than
    float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))


def can_lower(precision: str) -> bool:
    """Whether this CPU and this torch have the layers of a precision."""
    if precision == "int8":
        return "onednn" in torch.backends.quantized.supported_engines
    is_there = torch.backends.mkldnn.is_available()
    return is_there and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def lower_precision(
    extractor: FeatureExtractor, encoder: Encoder, precision: str
) -> None:
    """Replaces layers of a backbone in place, for inference on this CPU.

    Arguments
    ---------
    extractor : FeatureExtractor
        Its convolutions are replaced; the first one stays in float32.
    encoder : Encoder
        The positional convolution and the linear layers of its blocks are
        replaced, adapters excepted.
    precision : str
        bf16 or int8.
    """
    make: Any = _Bf16Linear
    make_conv: Any = _Bf16Conv
    if precision == "int8":
        make, make_conv = _Int8Linear, _Int8Conv
    convs: Any = extractor.conv_layers
    convs[0] = _FirstConv(convs[0])
    for number in range(1, len(convs)):
        convs[number] = make_conv(convs[number], number == len(convs) - 1)
    parts: Any = encoder
    parts.pos_conv_embed = _Bf16Positions(encoder.pos_conv_embed)
    for layer in parts.layers:
        own, feed = layer.attention, layer.feed_forward
        own.qkv_proj = make([own.q_proj, own.k_proj, own.v_proj])
        del own.q_proj, own.k_proj, own.v_proj
        own.out_proj = make([own.out_proj])
        feed.intermediate_dense = make(
            [feed.intermediate_dense], feed.activation
        )
        feed.activation = nn.Identity()
        feed.output_dense = make([feed.output_dense])


class _Bf16Linear(nn.Module):
    """Linear layers side by side, and an activation, in bfloat16."""

    def __init__(
        self, layers: Sequence[nn.Linear], act: Activation | None = None
    ) -> None:
        super().__init__()
        weight = torch.cat([layer.weight for layer in layers])
        packed = weight.to(torch.bfloat16)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(packed)
        bias = torch.cat([layer.bias for layer in layers])
        self.bias = bias.to(torch.bfloat16)
        self.post, self.activation = _split(act)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Features [..., D] to [..., D'], bfloat16."""
        feats = feats.to(torch.bfloat16)
        found = torch.ops.mkldnn._linear_pointwise(
            feats, self.weight, self.bias, *self.post
        )
        return self.activation(found)


class _Int8Product(nn.Module):
    """Products of 8-bit integers with a weight, [D', D], and an activation."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        act: Activation | None,
    ) -> None:
        super().__init__()
        self.scale = weight.abs().amax(1).clamp_(min=_LEAST) / _MOST
        rows = (weight / self.scale[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rows, None)
        self.zeros = torch.zeros(len(rows), dtype=torch.int32)
        self.bias = torch.zeros(1) if bias is None else bias
        self.activation = act or nn.Identity()

    def multiply(self, rows: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
        """Rows [..., D], and the largest value of each, [..., 1], to bfloat16
        [..., D']."""
        steps = (_MOST_SEEN / most.clamp(min=_LEAST)).to(rows.dtype)
        whole = (rows * steps).round_().to(torch.int8).flatten(0, -2)
        # oneDNN has fast products of values from 0 on: 128 stands for 0
        sums = torch.ops.onednn.qlinear_pointwise(
            whole.view(torch.uint8).bitwise_xor_(128), 1.0, 128,
            self.weight, self.scale, self.zeros, None,
            1.0, 0, torch.float32, *FUSED[None],
        )  # fmt: skip
        scale = steps.float().reciprocal_().flatten(0, -2)
        found = torch.addcmul(self.bias, sums, scale, out=sums)
        found = found.to(torch.bfloat16)
        return self.activation(found).unflatten(0, rows.shape[:-1])


class _Int8Linear(_Int8Product):
    """Linear layers side by side, and an activation."""

    def __init__(
        self, layers: Sequence[nn.Linear], act: Activation | None = None
    ) -> None:
        weight = torch.cat([layer.weight for layer in layers])
        super().__init__(
            weight, torch.cat([layer.bias for layer in layers]), act
        )

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Features [..., D] to [..., D'], bfloat16."""
        return self.multiply(feats, _largest(feats)[..., None])


def _largest(rows):
    """The largest magnitude of each row, [..., D] to [...], by its bits: those
    of positive numbers are in the numbers' order."""
    whole = torch.int16 if rows.dtype == torch.bfloat16 else torch.int32
    bits = rows.view(whole) & torch.iinfo(whole).max
    return bits.amax(-1).view(rows.dtype)


class _Int8Conv(_Int8Product):
    """A convolution, its norm and its activation, by a product with what each
    frame sees."""

    def __init__(self, layer: ConvLayer, is_last: bool) -> None:
        conv, norm = layer.conv, layer.layer_norm
        self.field = conv.kernel_size[0], conv.stride[0]
        weight = conv.weight.transpose(1, 2).flatten(1)  # [C', K C]
        act = layer.activation if norm is None else None
        super().__init__(weight, conv.bias, act)
        self.layer_norm, self.act = norm, layer.activation
        self.is_last = is_last

    def forward(self, feats: torch.Tensor, moments: None) -> torch.Tensor:
        """Features [B, C, T] to [B, C', T'], float32 after the last one."""
        feats = feats.transpose(1, 2)
        most = _largest(feats).unfold(1, *self.field)  # [B, T', K]
        seen = feats.unfold(1, *self.field).transpose(2, 3).flatten(2)
        feats = self.multiply(seen, most.amax(2, keepdim=True))
        if self.layer_norm is not None:
            feats = self.layer_norm(feats.transpose(1, 2)).transpose(1, 2)
            feats = self.act(feats)
        feats = feats.float() if self.is_last else feats
        return feats.transpose(1, 2)


class _FirstConv(ConvLayer):
    """The first convolution as a product of matrices, with the norm over time
    in its weights, frames before channels as the next one takes them."""

    def __init__(self, layer: ConvLayer) -> None:
        nn.Module.__init__(self)
        self.conv, self.layer_norm = layer.conv, layer.layer_norm
        self.activation = layer.activation

    def forward(
        self,
        feats: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Waveforms [B, 1, N] to bfloat16 features [B, C, T]."""
        feats = self.as_product(feats, moments, frames_first=True)
        if moments is None and self.layer_norm is not None:
            feats = self.layer_norm(feats)
        return self.activation(feats.to(torch.bfloat16))


class _Bf16Conv(nn.Module):
    """A convolution, its norm and its activation."""

    def __init__(self, layer: ConvLayer, is_last: bool) -> None:
        super().__init__()
        conv = layer.conv
        self.geometry = [0, 0], [1, conv.stride[0]], [1, 1], 1
        self.weight = _packed(conv.weight, *self.geometry)
        self.bias = None
        if conv.bias is not None:
            self.bias = conv.bias.to(torch.bfloat16)
        self.layer_norm = layer.layer_norm
        self.post, self.activation = FUSED[None], layer.activation
        if self.layer_norm is None:
            self.post, self.activation = _split(layer.activation)
        self.is_last = is_last

    def forward(self, feats: torch.Tensor, moments: None) -> torch.Tensor:
        """Features [B, C, T] to [B, C', T'], float32 after the last one."""
        feats = feats.to(torch.bfloat16)
        feats = torch.ops.mkldnn._convolution_pointwise(
            feats[:, :, None], self.weight, self.bias, *self.geometry,
            *self.post,
        )[:, :, 0]  # fmt: skip
        if self.layer_norm is not None:
            feats = self.layer_norm(feats)
        feats = self.activation(feats)
        return feats.float() if self.is_last else feats


class _Bf16Positions(nn.Module):
    """The positional convolution, the norm of its weight taken once."""

    def __init__(self, layer: PositionalConv) -> None:
        super().__init__()
        conv = layer.conv
        self.geometry = [0, conv.padding[0]], [1, 1], [1, 1], conv.groups
        self.weight = _packed(conv.weight, *self.geometry)
        assert conv.bias is not None  # as in every encoder of the families
        self.bias = conv.bias.to(torch.bfloat16)
        self.post, self.activation = _split(layer.activation)
        self.reach = conv.kernel_size[0] // 2

    def forward(
        self, feats: torch.Tensor, counts: Sequence[int] | None = None
    ) -> torch.Tensor:
        """As ``PositionalConv``, bfloat16."""
        feats = feats.to(torch.bfloat16).transpose(1, 2)[:, :, None]
        parts = [
            torch.ops.mkldnn._convolution_pointwise(
                part, self.weight, self.bias, *self.geometry, *self.post
            )[:, :, 0, : part.shape[3]]
            for part in (feats.split(counts, 3) if counts else [feats])
        ]
        return self.activation(torch.cat(parts, 2)).transpose(1, 2)


def _packed(weight, padding, stride, dilation, groups):
    """The weight of a convolution in bfloat16, laid out for oneDNN."""
    weight = weight[:, :, None].to(torch.bfloat16)
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, dilation, groups
    )


def _split(act):
    """What oneDNN computes with a product, and what is left."""
    if act in FUSED:
        return FUSED[act], nn.Identity()
    return FUSED[None], act
