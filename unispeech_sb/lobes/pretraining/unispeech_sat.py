"""UniSpeech-SAT's objective (Chen et al. 2021, section 3): prediction of the
clusters of masked frames, and utterance-wise contrastive learning on a layer
in the middle.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UniSpeechSATHead
from unispeech_sb.lobes.pretraining.objective import (
    Objective,
    PretrainingOutput,
)
from unispeech_sb.nnet.contrastive import (
    NegativeSampler,
    candidate_cosines,
    diversity_loss,
    utterance_contrastive_loss,
)
from unispeech_sb.nnet.ctc import IGNORED
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.masking import SpanMasks

SAT_WEIGHTS = {
    "cluster": 1.0,
    "utterance_contrastive": 1.0,
    "diversity": 0.1,
    "feature_penalty": 10.0,
}
"""Without the utterance-wise loss only the first and the last."""

SAMPLE_RATE = 16000


class Instances(NamedTuple):
    """Where the utterance-wise loss looks, and at how many frames.

    Arguments
    ---------
    layer : int
        Block whose output is compared, from 1 (Base 6, Large 12).
    num_instances : int
        Candidates from the same utterance.
    cross_sample_instances : int
        Candidates from the whole batch, the utterance among it.

    Example
    -------
    >>> Instances(layer=12).cross_sample_instances
    100
    """

    layer: int = 6
    num_instances: int = 0
    cross_sample_instances: int = 100


class UniSpeechSATDraws(NamedTuple):
    """Random decisions to take instead of drawing; None for those to draw.

    Arguments
    ---------
    mask : torch.Tensor or None
        True at the S masked frames, bool, [B, T].
    noise : torch.Tensor or None
        Gumbel noise of the masked frames, [S, G, V].
    negatives : torch.Tensor or None
        Candidates of each masked frame, among the masked frames, [S, N].

    Example
    -------
    >>> UniSpeechSATDraws().mask is None
    True
    """

    mask: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    negatives: torch.Tensor | None = None


class UniSpeechSAT(Objective):
    """Cluster prediction and utterance-wise contrastive learning.

    Utterances are mixed before: see ``unispeech_sb.nnet.mixing``. A head
    without a quantizer has no utterance-wise loss.

    Arguments
    ---------
    backbone : Backbone
        What is pre-trained.
    head : UniSpeechSATHead
        Projections, label embeddings, quantizer.
    masks : SpanMasks, optional
        How masks are drawn; ``SpanMasks(0.8)`` when omitted.
    instances : Instances, optional
        Layer and candidates of the utterance-wise loss; ``Instances()`` when
        omitted.
    label_rate : float
        Labels of a second.
    latent_temp : tuple of float
        Temperature of the Gumbel softmax before the first update, its lowest
        value, and its factor of each update.
    feature_grad_mult : float
        Factor of the gradient that reaches the convolutions (Base, as
        HuBERT: 0.1).
    paper_code_compat : bool
        Keep the bugs of the authors' code: candidates may be the anchor
        itself, and the feature penalty counts padded frames.

    Raises
    ------
    ValueError
        When the backbone does not give the layer's output.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UniSpeechSATHead
    >>> head = UniSpeechSATHead(16, 9, 12, [2, 4, 6])
    >>> objective = UniSpeechSAT(
    ...     Backbone.from_preset("tiny"), head, instances=Instances(layer=1)
    ... )
    >>> wavs, units = torch.randn(2, 8000), torch.randint(9, (2, 25))
    >>> list(objective(wavs, targets=units).losses)
    ['cluster', 'feature_penalty', 'utterance_contrastive', 'diversity']
    """

    head: UniSpeechSATHead

    def __init__(
        self,
        backbone: Backbone,
        head: UniSpeechSATHead,
        masks: SpanMasks | None = None,
        instances: Instances | None = None,
        label_rate: float = 50,
        latent_temp: Sequence[float] = (2.0, 0.5, 0.999995),
        feature_grad_mult: float = 1.0,
        paper_code_compat: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            head,
            SpanMasks(0.8) if masks is None else masks,
            latent_temp,
            feature_grad_mult,
            paper_code_compat,
        )
        self.instances = Instances() if instances is None else instances
        self.sampler = NegativeSampler(
            self.instances.num_instances,
            self.instances.cross_sample_instances,
            paper_code_compat=paper_code_compat,
            by_sample=True,
        )
        stride = torch.tensor(backbone.feature_extractor.strides).prod().item()
        self.labels_per_frame = label_rate * stride / SAMPLE_RATE
        if head.quantizer is not None:
            self._check_layer()

    def forward(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        target_lens: torch.Tensor | None = None,
        num_updates: int = 0,
        draws: UniSpeechSATDraws | None = None,
        generator: torch.Generator | None = None,
    ) -> PretrainingOutput:
        """Computes the losses of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B]. All of it when
            omitted.
        targets : torch.Tensor
            Row of the label embeddings for each label, at ``label_rate``,
            padded, [B, U]: in the authors' models cluster k has row k + 4.
            Frames beyond the last label are cut off; frames whose label is
            -100 may be masked, but count for nothing in ``cluster``.
        target_lens : torch.Tensor, optional
            Valid share of each row of labels, in (0, 1], [B]. All of it when
            omitted.
        num_updates : int
            Number of optimizer updates so far, for the temperature.
        draws : UniSpeechSATDraws, optional
            Decisions to take instead of drawing.
        generator : torch.Generator, optional
            Source of all other random decisions but dropout and LayerDrop,
            on the waveforms' device; torch's default one when omitted.

        Returns
        -------
        PretrainingOutput
            ``cluster``, ``feature_penalty`` and, for a head with a quantizer,
            ``utterance_contrastive`` and ``diversity``.

        Raises
        ------
        ValueError
            When there are no labels for a frame, or no masked frame.
        """
        draws = UniSpeechSATDraws() if draws is None else draws
        temperature = self.temperature(num_updates)
        frames = self.encode_masked(
            wavs,
            wav_lens,
            draws.mask,
            generator,
            self._labelled(targets, target_lens),
        )
        mask, instances = frames.mask, self.instances
        states = frames.output.last_hidden_state[mask][None]
        layer_state = None
        if self.head.quantizer is not None:
            layer_state = frames.output.hidden_states[instances.layer]
            layer_state = layer_state[mask][None]
        noise = None if draws.noise is None else draws.noise[None]
        output = self.head(
            states, layer_state, None, temperature, generator, noise=noise
        )
        logits, labels = output.logits[0], self._labels(targets, mask)
        size = len(labels)
        losses = {
            "cluster": F.cross_entropy(
                logits, labels, reduction="sum", ignore_index=IGNORED
            ),
            "feature_penalty": size * self.feature_penalty(frames),
        }
        right = (logits.argmax(1) == labels).float().mean()
        diagnostics = {"cluster_accuracy": right}
        if layer_state is not None:
            indices = draws.negatives
            if indices is None:
                indices = self.sampler(mask, frames.counts, generator)
            found, accuracy = self._contrast(output, mask, indices)
            losses |= {name: size * loss for name, loss in found.items()}
            diagnostics |= accuracy | {"temperature": temperature}
        return PretrainingOutput(losses, size, diagnostics)

    def _check_layer(self):
        """Refuses a layer whose output does not come out."""
        layer, last = self.instances.layer, self.backbone.num_states - 1
        raw = self.backbone.last_state == "raw"
        normed = self.backbone.encoder.normalize_before and not raw
        if not 1 <= layer <= last or (layer == last and normed):
            raise ValueError(
                "UniSpeechSAT: expected the contrastive layer to be from 1 "
                f"to {last - normed}; got {layer}"
            )

    def _labelled(self, targets, target_lens):
        """Frames of each row that have labels, [B]."""
        if targets is None:
            raise ValueError("UniSpeechSAT: expected targets; got none")
        batch, most = targets.shape
        counts = torch.full((batch,), most, device=targets.device)
        if target_lens is not None:
            counts = absolute_lengths(target_lens, most)
        return (counts / self.labels_per_frame).long()

    def _labels(self, targets, mask):
        """The labels of the masked frames, [S]."""
        places = torch.arange(mask.shape[1], device=targets.device)
        places = (places * self.labels_per_frame).long()
        return targets[:, places].to(mask.device)[mask].long()

    def _contrast(self, output, mask, indices):
        """Utterance-wise losses, each a mean, and how often they are right."""
        rows = mask.nonzero()[:, 0]
        vectors, quantized = (
            output.projected_quantized_states[0],
            output.quantized,
        )
        cosines = candidate_cosines(
            output.speaker_states[0], vectors, vectors, indices
        )
        same = rows[indices] == rows[:, None]
        loss, accuracy = utterance_contrastive_loss(
            cosines, same, self.head.logit_temp
        )
        num_vars = self.head.quantizer.weight_proj.out_features
        losses = {
            "utterance_contrastive": loss,
            "diversity": diversity_loss(quantized.prob_perplexity, num_vars),
        }
        return losses, {
            "utterance_contrastive_accuracy": accuracy,
            "prob_perplexity": quantized.prob_perplexity.detach(),
            "code_perplexity": quantized.code_perplexity,
        }
