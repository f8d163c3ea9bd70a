"""What stands on UniSpeech's backbone in pre-training (Wang et al. 2021,
section 3), under the names of transformers' ``ForPreTraining``.
"""

from typing import NamedTuple

import torch
from torch import nn

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask
from unispeech_sb.nnet.quantizer import GumbelQuantizer, Quantized


class UniSpeechHeadOutput(NamedTuple):
    """What ``UniSpeechHead`` computes.

    Arguments
    ---------
    projected_states : torch.Tensor
        Context vectors as the contrastive loss compares them, [B, T, P].
    projected_quantized_states : torch.Tensor
        Quantized features as it compares them, [B, T, P].
    codevector_perplexity : torch.Tensor
        transformers' figure; the losses take those in ``quantized``.
    logits : torch.Tensor or None
        Scores of the phones, [B, T, C]; None without ``ctc_proj``.
    quantized : Quantized
        Code vectors, codes and perplexities.

    Example
    -------
    >>> UniSpeechHeadOutput._fields[0]
    'projected_states'
    """

    projected_states: torch.Tensor
    projected_quantized_states: torch.Tensor
    codevector_perplexity: torch.Tensor
    logits: torch.Tensor | None
    quantized: Quantized


class UniSpeechHead(Lobe):
    """Quantizer, contrastive projections and the phone classifier.

    The classifier sees the context vectors, a random part of which is
    replaced by quantized features.

    Arguments
    ---------
    hidden_size : int
        Size of the context vectors D (``hidden_size``).
    conv_size : int
        Size of the convolutional features (last of ``conv_dim``).
    codevectors : list of int
        Codebooks G, entries V of each, size of the code vectors
        (``num_codevector_groups``, ``num_codevectors_per_group``,
        ``codevector_dim``).
    proj_codevector_dim : int
        Size of the projected code vectors.
    num_ctc_classes : int
        Number of phones C; 0 for none, as in the authors' second stage.
    replace_prob : float
        Share of the frames to replace.
    dropouts : list of float
        On the convolutional features and before the classifier
        (``feat_quantizer_dropout``, ``final_dropout``).
    project_up : bool
        Code vectors are projected to D (transformers; the authors'
        ``transpose``). Otherwise context vectors are projected to
        ``proj_codevector_dim``, as in wav2vec 2.0.

    Raises
    ------
    ValueError
        When phones are asked for without ``project_up``: only projected
        code vectors can replace context vectors.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import UniSpeechHead
    >>> head = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=5)
    >>> output = head(torch.randn(2, 10, 16), torch.randn(2, 10, 8))
    >>> output.projected_quantized_states.shape, output.logits.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10, 5]))
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        hidden_size,
        conv_size,
        codevectors=(2, 320, 256),
        proj_codevector_dim=256,
        num_ctc_classes=80,
        replace_prob=0.5,
        dropouts=(0.0, 0.1),
        project_up=True,
    ):
        super().__init__(
            {
                "hidden_size": hidden_size,
                "conv_size": conv_size,
                "codevectors": list(codevectors),
                "proj_codevector_dim": proj_codevector_dim,
                "num_ctc_classes": num_ctc_classes,
                "replace_prob": replace_prob,
                "dropouts": list(dropouts),
                "project_up": project_up,
            }
        )
        if num_ctc_classes and not project_up:
            raise ValueError(
                "UniSpeechHead: expected project_up where there are phones; "
                f"got num_ctc_classes {num_ctc_classes} without it"
            )
        groups, entries, dim = codevectors
        self.replace_prob = replace_prob
        self.project_up = project_up
        self.dropout_features = nn.Dropout(dropouts[0])
        self.quantizer = GumbelQuantizer(conv_size, dim, groups, entries)
        self.project_q = nn.Linear(dim, proj_codevector_dim)
        ends = (proj_codevector_dim, hidden_size)
        self.project_hid = nn.Linear(*(ends if project_up else ends[::-1]))
        self.dropout = nn.Dropout(dropouts[1])
        self.ctc_proj = None
        if num_ctc_classes:
            self.ctc_proj = nn.Linear(hidden_size, num_ctc_classes)

    def forward(
        self,
        last_hidden_state,
        extract_features,
        lengths=None,
        replace_prob=None,
        temperature=2.0,
        generator=None,
        one_hots=None,
    ):
        """Computes what both losses compare.

        As in the authors' code, frames are replaced in evaluation too, padded
        ones like the others; pass ``replace_prob`` for an answer that does
        not change from call to call.

        Arguments
        ---------
        last_hidden_state : torch.Tensor
            The backbone's output, [B, T, D].
        extract_features : torch.Tensor
            Its convolutional features after LayerNorm, [B, T, conv_size].
        lengths : torch.Tensor, optional
            Valid share of each row, in (0, 1], [B]: the frames that count in
            the perplexities. All of them when omitted.
        replace_prob : float or torch.Tensor, optional
            Share of the frames to replace, or the probability of each frame,
            [B, T]: zeros and ones choose the frames. The constructor's share
            when omitted.
        temperature : float
            Of the Gumbel softmax in training.
        generator : torch.Generator, optional
            Source of randomness, on the features' device; torch's default
            one when omitted.
        one_hots : torch.Tensor, optional
            Entries of the codebooks, instead of drawing them, [B, T, G, V].

        Returns
        -------
        UniSpeechHeadOutput
            States, perplexities, scores.
        """
        mask = None
        if lengths is not None:
            frames = extract_features.shape[1]
            counts = absolute_lengths(lengths, frames)
            mask = length_mask(counts, frames).to(extract_features.device)
        quantized = self.quantizer(
            self.dropout_features(extract_features),
            mask,
            temperature,
            generator,
            one_hots,
        )
        targets = self.project_q(quantized.codevectors)
        states, logits = last_hidden_state, None
        if self.project_up:
            targets = self.project_hid(targets)
        else:
            states = self.project_hid(states)
        if self.ctc_proj is not None:
            mixed = self._replace(states, targets, replace_prob, generator)
            logits = self.ctc_proj(self.dropout(mixed))
        perplexity = quantized.codevector_perplexity
        return UniSpeechHeadOutput(
            states, targets, perplexity, logits, quantized
        )

    def _replace(self, states, targets, replace_prob, generator):
        """Puts quantized features in the place of some context vectors."""
        if replace_prob is None:
            replace_prob = self.replace_prob
        probs = torch.as_tensor(
            replace_prob, dtype=torch.float32, device=states.device
        ).expand(states.shape[:2])
        chosen = torch.bernoulli(probs, generator=generator).bool()
        return torch.where(chosen[..., None], targets.to(states.dtype), states)
