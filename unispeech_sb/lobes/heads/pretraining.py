"""Heads of both pre-trainings (Wang et al. 2021, section 3; Chen et al. 2021,
section 3), under the names of transformers' ``ForPreTraining``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.lobe import Lobe, constructor_arguments
from unispeech_sb.nnet.frontend import LayerNorm
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask
from unispeech_sb.nnet.quantizer import GumbelQuantizer, Quantized

_EXTRACT_NORMS = (None, "apply", "keep")


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

    def __init__(
        self,
        hidden_size: int,
        conv_size: int,
        codevectors: Sequence[int] = (2, 320, 256),
        proj_codevector_dim: int = 256,
        num_ctc_classes: int = 80,
        replace_prob: float = 0.5,
        dropouts: Sequence[float] = (0.0, 0.1),
        project_up: bool = True,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
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
        last_hidden_state: torch.Tensor,
        extract_features: torch.Tensor,
        lengths: torch.Tensor | None = None,
        replace_prob: float | torch.Tensor | None = None,
        temperature: float = 2.0,
        generator: torch.Generator | None = None,
        one_hots: torch.Tensor | None = None,
    ) -> UniSpeechHeadOutput:
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


class UniSpeechSATHeadOutput(NamedTuple):
    """What ``UniSpeechSATHead`` computes.

    Arguments
    ---------
    logits : torch.Tensor
        Scaled cosines with the label embeddings, float32, [B, T, K].
    projected_states : torch.Tensor
        Projected context vectors, [B, T, P].
    speaker_states : torch.Tensor or None
        Anchors of the utterance-wise contrastive loss, [B, T, P].
    projected_quantized_states : torch.Tensor or None
        Its candidates, [B, T, P].
    quantized : Quantized or None
        Code vectors, codes and perplexities.

    Example
    -------
    >>> UniSpeechSATHeadOutput._fields[0]
    'logits'
    """

    logits: torch.Tensor
    projected_states: torch.Tensor
    speaker_states: torch.Tensor | None
    projected_quantized_states: torch.Tensor | None
    quantized: Quantized | None


class UniSpeechSATHead(Lobe):
    """Cluster prediction and the utterance-wise contrastive projections.

    Arguments
    ---------
    hidden_size : int
        Size of the features D (``hidden_size``).
    num_clusters : int
        Number of label embeddings K (``num_clusters``): the clusters and the
        four special symbols before them.
    proj_codevector_dim : int
        Size P of what is compared (the authors' ``final_dim``).
    codevectors : list of int, optional
        Codebooks G, entries V of each, size of the code vectors
        (``num_codevector_groups``, ``num_codevectors_per_group``,
        ``codevector_dim``). None for a model without the utterance-wise
        loss, which has no quantizer and no speaker projection.
    label_dim : int, optional
        Size of the label embeddings and speaker vectors; P when omitted.
        transformers has ``codevector_dim`` here, and the clusters can only
        be scored where the two are the same.
    logit_temp : float
        Divides the cosines (``contrastive_logits_temperature``).
    extract_norm : str, optional
        ``layer_norm_for_extract``: ``apply`` for pre-norm models; ``keep``
        for post-norm ones whose file has it, where it is carried along but
        not used; None where there is none.
    layer_norm_eps : float
        Its epsilon.

    Raises
    ------
    ValueError
        On another ``extract_norm``.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import UniSpeechSATHead
    >>> head = UniSpeechSATHead(16, 9, 12, [2, 4, 6])
    >>> output = head(torch.randn(2, 10, 16), torch.randn(2, 10, 16))
    >>> output.logits.shape, output.speaker_states.shape
    (torch.Size([2, 10, 9]), torch.Size([2, 10, 12]))
    """

    def __init__(
        self,
        hidden_size: int,
        num_clusters: int,
        proj_codevector_dim: int = 256,
        codevectors: Sequence[int] = (2, 320, 256),
        label_dim: int | None = None,
        logit_temp: float = 0.1,
        extract_norm: str | None = None,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        if extract_norm not in _EXTRACT_NORMS:
            raise ValueError(
                "extract_norm: expected None, apply or keep; "
                f"got {extract_norm!r}"
            )
        size = proj_codevector_dim
        label_dim = size if label_dim is None else label_dim
        self.logit_temp = logit_temp
        self.project_hid = nn.Linear(hidden_size, size)
        # Not zeros, whose cosines send no gradient to the model
        self.label_embeddings_concat = nn.Parameter(
            torch.rand(num_clusters, label_dim)
        )
        self.quantizer = None
        if codevectors is not None:
            groups, entries, dim = codevectors
            self.quantizer = GumbelQuantizer(hidden_size, dim, groups, entries)
            self.project_q = nn.Linear(dim, size)
            self.speaker_proj = nn.Linear(hidden_size, label_dim)
        if extract_norm is not None:
            self.layer_norm_for_extract = LayerNorm(hidden_size, layer_norm_eps)

    def forward(
        self,
        last_hidden_state: torch.Tensor,
        layer_state: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        temperature: float = 2.0,
        generator: torch.Generator | None = None,
        one_hots: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> UniSpeechSATHeadOutput:
        """Computes what both losses compare.

        Arguments
        ---------
        last_hidden_state : torch.Tensor
            The backbone's output, [B, T, D].
        layer_state : torch.Tensor, optional
            Output of the contrastive layer (Base 6, Large 12), before any
            norm that follows it, [B, T, D]. Without it the utterance-wise
            part of the answer is None.
        lengths : torch.Tensor, optional
            Valid share of each row, in (0, 1], [B]: the frames that count in
            the perplexities. All of them when omitted.
        temperature : float
            Of the Gumbel softmax in training.
        generator : torch.Generator, optional
            Source of randomness, on the features' device; torch's default
            one when omitted.
        one_hots : torch.Tensor, optional
            Entries of the codebooks, instead of drawing them, [B, T, G, V].
        noise : torch.Tensor, optional
            Gumbel noise, instead of drawing it, [B, T, G, V].

        Returns
        -------
        UniSpeechSATHeadOutput
            Scores, states, perplexities.

        Raises
        ------
        ValueError
            When ``layer_state`` comes to a head without a quantizer, or the
            sizes of labels and projections differ.
        """
        states = self.project_hid(last_hidden_state)
        logits = self._score_clusters(states)
        if layer_state is None:
            return UniSpeechSATHeadOutput(logits, states, None, None, None)
        if self.quantizer is None:
            raise ValueError(
                "UniSpeechSATHead: expected no layer_state, as there is no "
                "utterance-wise loss in this model; got one"
            )
        if self.config["extract_norm"] == "apply":
            layer_state = self.layer_norm_for_extract(layer_state)
        mask = None
        if lengths is not None:
            frames = layer_state.shape[1]
            counts = absolute_lengths(lengths, frames)
            mask = length_mask(counts, frames).to(layer_state.device)
        quantized = self.quantizer(
            layer_state, mask, temperature, generator, one_hots, noise
        )
        return UniSpeechSATHeadOutput(
            logits,
            states,
            self.speaker_proj(layer_state),
            self.project_q(quantized.codevectors),
            quantized,
        )

    def _score_clusters(self, states):
        """Cosines with the label embeddings (Chen et al. 2021),
        in float32."""
        labels = self.label_embeddings_concat
        if labels.shape[1] != states.shape[2]:
            raise ValueError(
                "UniSpeechSATHead: expected label embeddings of the size of "
                f"the projected states, {states.shape[2]}; "
                f"got {labels.shape[1]}"
            )
        with torch.autocast(states.device.type, enabled=False):
            labels = F.normalize(labels.float(), dim=-1)
            cosines = F.normalize(states.float(), dim=-1) @ labels.T
        return cosines / self.logit_temp
