"""Speaker embeddings and the objectives that train them.

Heads: x-vector (Snyder et al. 2018, section 2; transformers' ``ForXVector``),
ECAPA-TDNN (Desplanques et al. 2020; the authors'), and statistics pooling for
models trained from scratch. Objectives: AM-softmax (Wang et al. 2018), and
AAM-softmax with sub-centres and the inter-top-k penalty (the authors').
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.lobe import Lobe, constructor_arguments
from unispeech_sb.nnet.ecapa import (
    AttentiveStatistics,
    ConvReluNorm,
    SERes2Block,
)
from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    is_exported,
    length_mask,
)
from unispeech_sb.nnet.losses import aam_softmax_loss, am_softmax_loss
from unispeech_sb.nnet.pooling import (
    LayerMix,
    States,
    batch_normalized,
    instance_norm,
    masked_statistics,
    mix_states,
)

_LENGTH_RULES = ("exact", "hf")
_DILATIONS = (2, 3, 4)
"""Of the three blocks (Desplanques et al. 2020, table 1)."""


class SpeakerHead(Lobe):
    """Layer mix (optional), projector, time-delay layers, mean and standard
    deviation over time, two affine layers.

    Arguments
    ---------
    input_size : int
        Size of the features D (``hidden_size``).
    tdnn_dim : list of int
        Output size of each time-delay layer; the first is also the
        projector's.
    tdnn_kernel : list of int
        Frames that each layer sees.
    tdnn_dilation : list of int
        Distance between them.
    xvector_output_dim : int
        Size X of the speaker vectors.
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.
    tdnn_lengths : str
        Frames that are pooled in a padded batch. ``exact``: those that saw
        no padding, so that an utterance gives the same vector alone and in
        any batch. ``hf``: as many as transformers counts, which forgets the
        dilations and so pools a little padding.
    relu : bool
        ReLU after either affine layer (s3prl).

    Raises
    ------
    ValueError
        On another ``tdnn_lengths``, or layers whose lists differ in length.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import SpeakerHead
    >>> head = SpeakerHead(16, [8, 8], [5, 3], [1, 2], xvector_output_dim=4)
    >>> head.embed(torch.randn(2, 20, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        input_size: int,
        tdnn_dim: Sequence[int] = (512, 512, 512, 512, 1500),
        tdnn_kernel: Sequence[int] = (5, 3, 3, 1, 1),
        tdnn_dilation: Sequence[int] = (1, 2, 3, 1, 1),
        xvector_output_dim: int = 512,
        num_states: int | None = None,
        tdnn_lengths: str = _LENGTH_RULES[0],
        relu: bool = False,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        if tdnn_lengths not in _LENGTH_RULES:
            raise ValueError(
                f"tdnn_lengths: expected one of {', '.join(_LENGTH_RULES)}; "
                f"got {tdnn_lengths!r}"
            )
        sizes = [tdnn_dim[0], *tdnn_dim]
        if not len(tdnn_dim) == len(tdnn_kernel) == len(tdnn_dilation):
            raise ValueError(
                "SpeakerHead: expected one size, kernel and dilation for each "
                f"layer; got {len(tdnn_dim)}, {len(tdnn_kernel)} and "
                f"{len(tdnn_dilation)}"
            )
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.projector = nn.Linear(input_size, tdnn_dim[0])
        self.tdnn = nn.ModuleList(
            _TDNNLayer(*layer)
            for layer in zip(sizes, tdnn_dim, tdnn_kernel, tdnn_dilation)
        )
        self.embedding = nn.Linear(2 * tdnn_dim[-1], xvector_output_dim)
        self.classifier = nn.Linear(xvector_output_dim, xvector_output_dim)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes what the training objective takes.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            As in ``embed``.
        lengths : torch.Tensor, optional
            As in ``embed``.

        Returns
        -------
        torch.Tensor
            Input of ``AMSoftmax``, transformers' ``logits``, [B, X]; not
            negative with ``relu``.
        """
        return self.project(self.embed(feats, lengths))

    def project(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Goes from the vectors that are compared to those that train.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``embed``, [B, X].

        Returns
        -------
        torch.Tensor
            As from ``forward``, [B, X].
        """
        return self.activation(self.classifier(embeddings))

    def embed(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes the speaker vectors that are compared.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            Features, [B, T, D]; with the layer mix all hidden states,
            [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Vectors, transformers' ``embeddings``, [B, X]; not negative with
            ``relu``.

        Raises
        ------
        ValueError
            When a row is too short for the time-delay layers.
        """
        feats = mix_states(feats, self.layer_mix)
        batch, frames, _ = feats.shape
        pooled = self.pooled_frames(batch, frames, lengths).to(feats.device)
        hidden = self.projector(feats).transpose(1, 2)
        for layer in self.tdnn:
            hidden = layer(hidden)
        statistics = masked_statistics(hidden.transpose(1, 2), pooled)
        return self.activation(self.embedding(statistics))

    @property
    def least_frames(self) -> int:
        """Fewest frames of an utterance: two after the time-delay layers, for
        a standard deviation."""
        return self._context + 2

    @property
    def _context(self):
        """Frames that the time-delay layers take off."""
        kernels = self.config["tdnn_kernel"]
        dilations = self.config["tdnn_dilation"]
        return sum((k - 1) * d for k, d in zip(kernels, dilations))

    def pooled_frames(
        self, batch: int, frames: int, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Counts the outputs of the time-delay layers to pool.

        Arguments
        ---------
        batch : int
            Number of rows B.
        frames : int
            Padded length T.
        lengths : torch.Tensor, optional
            As in ``embed``.

        Returns
        -------
        torch.Tensor
            Number of frames of each row, [B].

        Raises
        ------
        ValueError
            When a row is too short for the time-delay layers.
        """
        counts = torch.full((batch,), frames)
        if lengths is not None:
            counts = absolute_lengths(lengths, frames)
        lost = context = self._context
        if self.config["tdnn_lengths"] == "hf" and lengths is not None:
            lost = sum(k - 1 for k in self.config["tdnn_kernel"])
        if is_exported():
            return (counts - lost).clamp(max=frames - context)
        shortest, row = counts.min(0)
        if min(shortest - lost, frames - context) < 2:
            least = (lost if frames - context >= 2 else context) + 2
            raise ValueError(
                f"SpeakerHead: row {int(row)} of the batch: expected at least "
                f"{least} frames, for a standard deviation after the "
                f"time-delay layers; got {int(shortest)}"
            )
        return (counts - lost).clamp(max=frames - context)


class _TDNNLayer(nn.Module):
    """Time-delay layer: ReLU of an affine map of several frames."""

    def __init__(self, input_size, output_size, kernel_size, dilation):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        # Affine as in transformers' files: a row is K frames, one by one
        self.kernel = nn.Linear(kernel_size * input_size, output_size)

    def forward(self, feats):
        """From [B, input_size, T] to [B, output_size, T'], fewer frames."""
        weight = self.kernel.weight.unflatten(1, (self.kernel_size, -1))
        return F.conv1d(
            feats,
            weight.transpose(1, 2),
            self.kernel.bias,
            dilation=self.dilation,
        ).relu()


class ECAPAHead(Lobe):
    """Hidden states in, a speaker embedding out.

    Layer mix, normalisation over time, ECAPA-TDNN (the authors'
    ``ECAPA_TDNN_SMALL``). Two utterances are compared by the cosine of
    their embeddings.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_states : int
        Number of hidden states: one more than the backbone has blocks.
    channels : int
        Channels of the convolutions.
    embedding_size : int
        Size of the embedding E.
    pooled_channels : int
        Channels before the pooling.
    scale : int
        Groups of channels in each block.
    se_channels : int
        Size of the channel gates' inner layer.
    attention_channels : int
        Size of the inner layer of the pooling's attention.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import ECAPAHead
    >>> head = ECAPAHead(16, num_states=4, channels=32, pooled_channels=48)
    >>> head(torch.randn(4, 2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        input_size: int,
        num_states: int,
        channels: int = 512,
        embedding_size: int = 256,
        pooled_channels: int = 1536,
        scale: int = 8,
        se_channels: int = 128,
        attention_channels: int = 128,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = LayerMix(num_states)
        self.layer1 = ConvReluNorm(input_size, channels, kernel=5)
        self.layer2, self.layer3, self.layer4 = (
            SERes2Block(channels, dilation, scale, se_channels)
            for dilation in _DILATIONS
        )
        self.conv = nn.Conv1d(
            len(_DILATIONS) * channels, pooled_channels, kernel_size=1
        )
        self.pooling = AttentiveStatistics(pooled_channels, attention_channels)
        self.bn = nn.BatchNorm1d(2 * pooled_channels)
        self.linear = nn.Linear(2 * pooled_channels, embedding_size)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds each utterance.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            All hidden states, [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Embeddings, [B, E].
        """
        return self.project(self.embed(feats, lengths))

    def project(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Returns its input: what is compared is what trains.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``embed``, [B, E].

        Returns
        -------
        torch.Tensor
            The embeddings, [B, E].
        """
        return embeddings

    def embed(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds each utterance: the same as ``forward``.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            As in ``forward``.
        lengths : torch.Tensor, optional
            As in ``forward``.

        Returns
        -------
        torch.Tensor
            Embeddings, [B, E].
        """
        # The authors add 1e-6 to every feature; the norm takes it off again.
        feats = instance_norm(self.layer_mix(feats), lengths).transpose(1, 2)
        mask = None
        if lengths is not None:
            frames = feats.shape[2]
            counts = absolute_lengths(lengths, frames)
            mask = length_mask(counts, frames)[:, None]  # [B, 1, T]
        outputs = [self.layer1(feats, mask)]
        for block in (self.layer2, self.layer3, self.layer4):
            outputs.append(block(outputs[-1], mask))
        joined = self.conv(torch.cat(outputs[1:], 1)).relu()
        pooled = self.pooling(joined, mask)
        return self.linear(batch_normalized(self.bn, pooled))


class StatisticsHead(Lobe):
    """Layer mix, projector, mean and deviation over time, embedding, and a
    classifier (after the statistics pooling of Snyder et al. 2018).

    For models that are trained from scratch: deviations separate speakers
    that means do not, and batch normalisation of both makes training fast
    where the backbone is untrained. transformers has no such head.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_states : int
        Number of hidden states to mix.
    num_classes : int, optional
        Number of classes C. Without it the head gives the embedding, for
        ``AMSoftmax`` or ``AAMSoftmax``.
    proj_size : int
        Size of the projected features.
    embedding_size : int
        Size of the embedding E.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import StatisticsHead
    >>> head = StatisticsHead(input_size=16, num_states=3, num_classes=4)
    >>> head(torch.randn(3, 2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        input_size: int,
        num_states: int,
        num_classes: int | None = None,
        proj_size: int = 384,
        embedding_size: int = 192,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = LayerMix(num_states)
        self.projector = nn.Linear(input_size, proj_size)
        self.norm = nn.BatchNorm1d(2 * proj_size)
        self.embedding = nn.Linear(2 * proj_size, embedding_size)
        self.classifier = None
        if num_classes is not None:
            self.classifier = nn.Linear(embedding_size, num_classes)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores each utterance.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            All hidden states, [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Logits, [B, C]; embeddings, [B, E], where there are no classes.
        """
        return self.project(self.embed(feats, lengths))

    def embed(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pools each utterance to one vector.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            As in ``forward``.
        lengths : torch.Tensor, optional
            As in ``forward``.

        Returns
        -------
        torch.Tensor
            Embeddings, [B, E].
        """
        feats = F.relu(self.projector(self.layer_mix(feats)))
        counts = None
        if lengths is not None:
            counts = absolute_lengths(lengths, feats.shape[1])
        pooled = masked_statistics(feats, counts)
        return self.embedding(batch_normalized(self.norm, pooled))

    def project(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings to what trains.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``embed``, [B, E].

        Returns
        -------
        torch.Tensor
            As from ``forward``.
        """
        if self.classifier is None:
            return embeddings
        return self.classifier(embeddings)


class AMSoftmax(Lobe):
    """Cosines with one vector per speaker, trained with an additive margin.

    ``margin_share``, 1 at first and no part of the weights, multiplies the
    margin: training may set it, as for ``AAMSoftmax``.

    Arguments
    ---------
    input_size : int
        Size of the vectors X (``xvector_output_dim``).
    num_classes : int
        Number of speakers C (``num_labels``).
    scale : float
        Factor of the cosines.
    margin : float
        Subtracted from the right speaker's cosine in training.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import AMSoftmax
    >>> objective = AMSoftmax(input_size=8, num_classes=3)
    >>> objective(torch.randn(2, 8)).shape
    torch.Size([2, 3])
    >>> objective(torch.randn(2, 8), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        scale: float = 30.0,
        margin: float = 0.4,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.scale = scale
        self.margin = margin
        self.margin_share = 1.0
        # As in s3prl; transformers' longer vectors would turn slowly
        self.weight = nn.Parameter(torch.empty(input_size, num_classes))
        nn.init.xavier_normal_(self.weight)

    def forward(
        self, vectors: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores speakers, or computes the loss of the right ones.

        Arguments
        ---------
        vectors : torch.Tensor
            From ``SpeakerHead``, [B, X].
        labels : torch.Tensor, optional
            Index of each row's speaker, [B].

        Returns
        -------
        torch.Tensor
            With labels the loss, a scalar; without them the scaled cosines,
            [B, C]. In float32.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = F.normalize(vectors.float(), dim=1)
            cosines = vectors @ F.normalize(self.weight.float(), dim=0)
        if labels is None:
            return self.scale * cosines
        margin = self.margin_share * self.margin
        return am_softmax_loss(cosines, labels, self.scale, margin)


class AAMSoftmax(Lobe):
    """Cosines with the vectors of each speaker, trained with an angular
    margin.

    A speaker may have several vectors, the sub-centres (Deng et al. 2020), of
    which the nearest counts. The nearest wrong speakers are pushed away
    further (inter-top-k, Zhao et al. 2022). With one sub-centre the weights
    have the form of ``AMSoftmax``'s.

    ``margin_share``, 1 at first and no part of the weights, multiplies both
    margins: training may set it by ``margin_ramp``.

    Arguments
    ---------
    input_size : int
        Size of the vectors X.
    num_classes : int
        Number of speakers C.
    scale : float
        Factor of the cosines.
    margin : float
        Radians added to the right speaker's angle in training.
    sub_centers : int
        Vectors K per speaker.
    top_k : int
        How many of the nearest wrong speakers are made harder, 0 for none.
    top_k_margin : float
        Radians taken off the angles of those in training.

    Raises
    ------
    ValueError
        On less than one sub-centre, a negative ``top_k``, or a margin that is
        not from 0 to a right angle.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import AAMSoftmax
    >>> objective = AAMSoftmax(input_size=8, num_classes=9, sub_centers=3)
    >>> objective(torch.randn(2, 8)).shape
    torch.Size([2, 9])
    >>> objective(torch.randn(2, 8), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        scale: float = 32.0,
        margin: float = 0.2,
        sub_centers: int = 1,
        top_k: int = 5,
        top_k_margin: float = 0.1,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        if sub_centers < 1 or top_k < 0:
            raise ValueError(
                "AAMSoftmax: expected sub_centers of at least 1 and top_k of "
                f"at least 0; got {sub_centers} and {top_k}"
            )
        if not (0 <= margin < math.pi / 2 and 0 <= top_k_margin < math.pi / 2):
            raise ValueError(
                "AAMSoftmax: expected margin and top_k_margin in radians, "
                f"from 0 to pi / 2; got {margin} and {top_k_margin}"
            )
        self.margin_share = 1.0
        # The K vectors of a speaker stand side by side
        self.weight = nn.Parameter(
            torch.empty(input_size, num_classes * sub_centers)
        )
        nn.init.xavier_normal_(self.weight)

    def forward(
        self, vectors: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores speakers, or computes the loss of the right ones.

        Arguments
        ---------
        vectors : torch.Tensor
            Speaker vectors, [B, X].
        labels : torch.Tensor, optional
            Index of each row's speaker, [B].

        Returns
        -------
        torch.Tensor
            With labels the loss, a scalar; without them the scaled cosines,
            [B, C]. In float32.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = F.normalize(vectors.float(), dim=1)
            cosines = vectors @ F.normalize(self.weight.float(), dim=0)
        # [B, C * K] -> [B, C]
        cosines = cosines.unflatten(1, (self.config["num_classes"], -1)).amax(2)
        if labels is None:
            return self.config["scale"] * cosines
        return aam_softmax_loss(
            cosines,
            labels,
            self.config["scale"],
            self.margin_share * self.config["margin"],
            self.config["top_k"],
            self.margin_share * self.config["top_k_margin"],
        )


def margin_ramp(epochs: float, start: float = 2.0, stop: float = 2.0) -> float:
    """Share of the margins in force at a point of the training.

    None up to ``start``, all of it from ``stop`` on, and a straight line
    between them. The authors' models had two epochs without, then all at once.

    Arguments
    ---------
    epochs : float
        Epochs already trained, fractions of one included.
    start : float
        Where the rise begins, in epochs.
    stop : float
        Where it ends.

    Returns
    -------
    float
        Value for ``AAMSoftmax.margin_share``, from 0 to 1.

    Raises
    ------
    ValueError
        When the rise ends before it begins.

    Example
    -------
    >>> [margin_ramp(epochs, 1, 3) for epochs in range(5)]
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if stop < start:
        raise ValueError(
            f"margin_ramp: expected start <= stop; got {start} and {stop}"
        )
    if start < epochs < stop:
        return (epochs - start) / (stop - start)
    return float(epochs >= stop)
