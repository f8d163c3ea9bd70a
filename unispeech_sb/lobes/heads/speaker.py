"""Speaker vectors: the x-vector head (Snyder et al. 2018, section 2) and
AM-softmax (Wang et al. 2018), as transformers' ``ForXVector`` has them.
"""

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.losses import am_softmax_loss
from unispeech_sb.nnet.pooling import LayerMix, masked_statistics

LENGTH_RULES = ("exact", "hf")


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

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        input_size,
        tdnn_dim=(512, 512, 512, 512, 1500),
        tdnn_kernel=(5, 3, 3, 1, 1),
        tdnn_dilation=(1, 2, 3, 1, 1),
        xvector_output_dim=512,
        num_states=None,
        tdnn_lengths=LENGTH_RULES[0],
        relu=False,
    ):
        super().__init__(
            {
                "input_size": input_size,
                "tdnn_dim": list(tdnn_dim),
                "tdnn_kernel": list(tdnn_kernel),
                "tdnn_dilation": list(tdnn_dilation),
                "xvector_output_dim": xvector_output_dim,
                "num_states": num_states,
                "tdnn_lengths": tdnn_lengths,
                "relu": relu,
            }
        )
        if tdnn_lengths not in LENGTH_RULES:
            raise ValueError(
                f"tdnn_lengths: expected one of {', '.join(LENGTH_RULES)}; "
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
            TDNNLayer(*layer)
            for layer in zip(sizes, tdnn_dim, tdnn_kernel, tdnn_dilation)
        )
        self.embedding = nn.Linear(2 * tdnn_dim[-1], xvector_output_dim)
        self.classifier = nn.Linear(xvector_output_dim, xvector_output_dim)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, feats, lengths=None):
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

    def project(self, embeddings):
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

    def embed(self, feats, lengths=None):
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
        if self.layer_mix is not None:
            feats = self.layer_mix(feats)
        pooled = self._pooled_frames(feats, lengths)
        hidden = self.projector(feats).transpose(1, 2)
        for layer in self.tdnn:
            hidden = layer(hidden)
        statistics = masked_statistics(hidden.transpose(1, 2), pooled)
        return self.activation(self.embedding(statistics))

    def _pooled_frames(self, feats, lengths):
        """Counts the outputs of the time-delay layers to pool, [B]."""
        batch, frames = feats.shape[:2]
        counts = torch.full((batch,), frames)
        if lengths is not None:
            counts = absolute_lengths(lengths, frames)
        kernels = self.config["tdnn_kernel"]
        dilations = self.config["tdnn_dilation"]
        context = sum((k - 1) * d for k, d in zip(kernels, dilations))
        lost = context
        if self.config["tdnn_lengths"] == "hf" and lengths is not None:
            lost = sum(k - 1 for k in kernels)
        shortest, row = counts.min(0)
        if min(shortest - lost, frames - context) < 2:
            least = (lost if frames - context >= 2 else context) + 2
            raise ValueError(
                f"SpeakerHead: row {int(row)} of the batch: expected at least "
                f"{least} frames, for a standard deviation after the "
                f"time-delay layers; got {int(shortest)}"
            )
        return (counts - lost).clamp(max=frames - context).to(feats.device)


class TDNNLayer(nn.Module):
    """Time-delay layer: ReLU of an affine map of several frames.

    Arguments
    ---------
    input_size : int
        Size of the features.
    output_size : int
        Size of the result.
    kernel_size : int
        Number of frames K it sees.
    dilation : int
        Distance between them.

    Example
    -------
    >>> TDNNLayer(4, 6, kernel_size=3, dilation=2)(torch.ones(1, 4, 10)).shape
    torch.Size([1, 6, 6])
    """

    def __init__(self, input_size, output_size, kernel_size, dilation):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        # Affine as in transformers' files: a row is K frames, one by one
        self.kernel = nn.Linear(kernel_size * input_size, output_size)

    def forward(self, feats):
        """Applies the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, time last, [B, input_size, T].

        Returns
        -------
        torch.Tensor
            Result, [B, output_size, T - (K - 1) * dilation].
        """
        weight = self.kernel.weight.unflatten(1, (self.kernel_size, -1))
        return F.conv1d(
            feats,
            weight.transpose(1, 2),
            self.kernel.bias,
            dilation=self.dilation,
        ).relu()


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

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(self, input_size, num_classes, scale=30.0, margin=0.4):
        super().__init__(
            {
                "input_size": input_size,
                "num_classes": num_classes,
                "scale": scale,
                "margin": margin,
            }
        )
        self.scale = scale
        self.margin = margin
        self.margin_share = 1.0
        # As in s3prl; transformers' longer vectors would turn slowly
        self.weight = nn.Parameter(torch.empty(input_size, num_classes))
        nn.init.xavier_normal_(self.weight)

    def forward(self, vectors, labels=None):
        """Scores speakers, or says how far the right ones are from winning.

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
