"""UniSpeech's objective (Wang et al. 2021, section 3): phonetic CTC, with
quantized features in the place of some context vectors, and contrastive
learning.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UniSpeechHead
from unispeech_sb.lobes.pretraining.objective import (
    MaskedFrames,
    Objective,
    PretrainingOutput,
)
from unispeech_sb.nnet.contrastive import (
    NegativeSampler,
    candidate_cosines,
    contrastive_loss,
    diversity_loss,
)
from unispeech_sb.nnet.ctc import blank_share, ctc_loss
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.masking import SpanMasks

UNISPEECH_WEIGHTS = {
    "ctc": 0.5,
    "contrastive": 0.5,
    "diversity": 0.05,
    "feature_penalty": 0.0,
}
"""The first stage's: ``mtlalpha`` 0.5, and ``loss_weights`` 0.1 and 0 within
the other half. The second stage has no ``ctc``, and twice the others."""

SPECIALS = 4
"""Symbols at the end of the authors' vocabularies; the first is the blank."""


class Negatives(NamedTuple):
    """How candidates of the contrastive loss are drawn and scored.

    Arguments
    ---------
    num_negatives : int
        Candidates from the same utterance.
    cross_sample_negatives : int
        Candidates from the whole batch.
    from_everywhere : bool
        From all frames, as in the first stage; otherwise from masked ones,
        as in the second.
    logit_temp : float
        Divides the cosines.

    Example
    -------
    >>> Negatives(from_everywhere=False).num_negatives
    100
    """

    num_negatives: int = 100
    cross_sample_negatives: int = 0
    from_everywhere: bool = True
    logit_temp: float = 0.1


class UniSpeechDraws(NamedTuple):
    """Random decisions to take instead of drawing; None for those to draw.

    Arguments
    ---------
    mask : torch.Tensor or None
        True at the S masked frames, bool, [B, T], in any mode.
    masked_noise : torch.Tensor or None
        Gumbel noise of the masked frames as positives, [S, G, V].
    noise : torch.Tensor or None
        That of all frames, as candidates and as what replaces context
        vectors, [B, T, G, V].
    negatives : torch.Tensor or None
        Candidates of each masked frame, [S, N]: see ``NegativeSampler``.
    replaced : torch.Tensor or None
        True at frames whose context vectors are replaced, bool, [B, T].

    Example
    -------
    >>> UniSpeechDraws().mask is None
    True
    """

    mask: torch.Tensor | None = None
    masked_noise: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    negatives: torch.Tensor | None = None
    replaced: torch.Tensor | None = None


class UniSpeech(Objective):
    """Phonetic CTC and contrastive learning on one backbone.

    The defaults are those of the authors' first stage. With a head without
    phones it is the second: pass ``SpanMasks(0.65)`` and
    ``Negatives(from_everywhere=False)``.

    In evaluation the first stage masks nothing, as in the authors' code: all
    valid frames are targets, and codes are the likeliest ones. Context vectors
    are replaced as in training. The second stage masks as in training.

    Arguments
    ---------
    backbone : Backbone
        What is pre-trained.
    head : UniSpeechHead
        Quantizer, projections and phones.
    masks : SpanMasks, optional
        How masks are drawn; ``SpanMasks(0.5)`` when omitted.
    negatives : Negatives, optional
        How candidates are drawn; ``Negatives()`` when omitted.
    latent_temp : tuple of float
        Temperature of the Gumbel softmax before the first update, its lowest
        value, and its factor of each update.
    feature_grad_mult : float
        Factor of the gradient that reaches the convolutions (second stage:
        0.1).
    blank_index : int, optional
        Index of the blank; the last but three when omitted, as in the
        authors' vocabularies.
    paper_code_compat : bool
        Keep the bugs of the authors' code: candidates may be padded frames
        or the anchor's own, the feature penalty counts padded frames, and in
        evaluation they are targets too.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UniSpeechHead
    >>> head = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=9)
    >>> objective = UniSpeech(Backbone.from_preset("tiny"), head)
    >>> wavs, phones = torch.randn(2, 8000), torch.tensor([[1, 2], [3, 1]])
    >>> sorted(objective(wavs, targets=phones).losses)
    ['contrastive', 'ctc', 'diversity', 'feature_penalty']
    """

    head: UniSpeechHead

    def __init__(
        self,
        backbone: Backbone,
        head: UniSpeechHead,
        masks: SpanMasks | None = None,
        negatives: Negatives | None = None,
        latent_temp: Sequence[float] = (2.0, 0.1, 0.999995),
        feature_grad_mult: float = 1.0,
        blank_index: int | None = None,
        paper_code_compat: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            head,
            SpanMasks(0.5) if masks is None else masks,
            latent_temp,
            feature_grad_mult,
            paper_code_compat,
        )
        self.negatives = Negatives() if negatives is None else negatives
        self.sampler = NegativeSampler(
            self.negatives.num_negatives,
            self.negatives.cross_sample_negatives,
            self.negatives.from_everywhere,
            paper_code_compat,
        )
        self.masks_evaluation = head.ctc_proj is None
        self.blank_index = blank_index
        if blank_index is None and head.ctc_proj is not None:
            self.blank_index = head.ctc_proj.out_features - SPECIALS

    def forward(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        target_lens: torch.Tensor | None = None,
        num_updates: int = 0,
        draws: UniSpeechDraws | None = None,
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
        targets : torch.Tensor, optional
            Phones, padded, [B, U]; only for a head that has them. Labels of
            -100 count for nothing.
        target_lens : torch.Tensor, optional
            Valid share of each row of phones, in (0, 1], [B].
        num_updates : int
            Number of optimizer updates so far, for the temperature.
        draws : UniSpeechDraws, optional
            Decisions to take instead of drawing.
        generator : torch.Generator, optional
            Source of all other random decisions but dropout and LayerDrop,
            on the waveforms' device; torch's default one when omitted.

        Returns
        -------
        PretrainingOutput
            ``ctc`` (for a head with phones), ``contrastive``, ``diversity``,
            ``feature_penalty``.

        Raises
        ------
        ValueError
            When there are phones without scores or the other way round, too
            few frames for them, or no masked frame.
        """
        self._check_targets(targets)
        draws = UniSpeechDraws() if draws is None else draws
        temperature = self.temperature(num_updates)
        frames = self.encode_masked(wavs, wav_lens, draws.mask, generator)
        output, vectors = self.compare(
            frames, temperature, draws, generator, targets is not None
        )
        losses, diagnostics = output.losses, output.diagnostics
        if targets is not None:
            assert self.blank_index is not None  # of a head with phones
            states = frames.output.last_hidden_state
            replaced = draws.replaced
            if replaced is None:
                replaced = self._draw_replaced(states, generator)
            logits = self._score_phones(states, vectors, replaced)
            losses["ctc"] = self._ctc(
                logits, targets, frames.counts, target_lens
            )
            diagnostics["blank_share"] = blank_share(
                logits.detach(), frames.counts, self.blank_index
            )
        return output

    def compare(
        self,
        frames: MaskedFrames,
        temperature: float,
        draws: UniSpeechDraws,
        generator: torch.Generator | None = None,
        all_frames: bool = True,
    ) -> tuple[PretrainingOutput, torch.Tensor]:
        """Computes the losses that need no phones.

        Arguments
        ---------
        frames : MaskedFrames
            Of ``encode_masked``.
        temperature : float
            Of the Gumbel softmax.
        draws : UniSpeechDraws
            Decisions to take instead of drawing.
        generator : torch.Generator, optional
            Source of the others; torch's default one when omitted.
        all_frames : bool
            Quantize all frames even where candidates are masked ones.

        Returns
        -------
        output : PretrainingOutput
            ``contrastive``, ``diversity``, ``feature_penalty``.
        vectors : torch.Tensor
            Quantized features as the losses compare them, [B, T, P]; those of
            the S masked frames alone, [1, S, P], without ``all_frames``.
        """
        states = frames.output.last_hidden_state
        feats = self.head.dropout_features(frames.output.extract_features)
        quantized, positives = self._quantize(
            feats[frames.mask][None], temperature, draws.masked_noise, generator
        )
        everything = quantized, positives
        if all_frames or self.negatives.from_everywhere:
            everything = self._quantize(
                feats, temperature, draws.noise, generator
            )
        indices = draws.negatives
        if indices is None:
            indices = self.sampler(frames.mask, frames.counts, generator)
        contrastive, accuracy = self._contrast(
            states[frames.mask], quantized, positives, everything, indices
        )
        size, perplexity = len(indices), quantized.prob_perplexity
        num_vars = self.head.quantizer.weight_proj.out_features
        losses = {
            "contrastive": contrastive,
            "diversity": size * diversity_loss(perplexity, num_vars),
            "feature_penalty": size * self.feature_penalty(frames),
        }
        diagnostics = {
            "contrastive_accuracy": accuracy,
            "prob_perplexity": perplexity.detach(),
            "code_perplexity": quantized.code_perplexity,
            "temperature": temperature,
        }
        return PretrainingOutput(losses, size, diagnostics), everything[1]

    def _check_targets(self, targets):
        """Refuses phones without scores, and scores without phones."""
        classes = self.head.config["num_ctc_classes"]
        if bool(classes) != (targets is not None):
            raise ValueError(
                "UniSpeech: expected targets where the head has phones, and "
                f"only there; got num_ctc_classes {classes} and "
                f"{'no targets' if targets is None else 'targets'}"
            )

    def _quantize(self, feats, temperature, noise, generator):
        """Codes of frames, and what the losses compare, [B, T, P]."""
        if noise is not None:
            noise = noise.view(*feats.shape[:2], *noise.shape[-2:])
        quantized = self.head.quantizer(
            feats, None, temperature, generator, noise=noise
        )
        vectors = self.head.project_q(quantized.codevectors)
        if self.head.project_up:
            vectors = self.head.project_hid(vectors)
        return quantized, vectors

    def _contrast(self, anchors, quantized, positives, everything, indices):
        """The contrastive loss, and how often it is right."""
        if not self.head.project_up:
            anchors = self.head.project_hid(anchors)
        pool, vectors = everything
        # Equal codes have equal vectors, but for rounding
        codes = pool.codes.flatten(0, 1)[indices]  # [S, N, G]
        equal = (codes == quantized.codes[0, :, None]).all(-1)
        cosines = candidate_cosines(
            anchors, positives[0], vectors.flatten(0, 1), indices
        )
        return contrastive_loss(cosines, equal, self.negatives.logit_temp)

    def _draw_replaced(self, states, generator):
        """Chooses the frames to replace, padded ones like the others."""
        draw = {"generator": generator, "device": states.device}
        return torch.rand(states.shape[:2], **draw) < self.head.replace_prob

    def _score_phones(self, states, vectors, replaced):
        """Scores of context vectors, some of them quantized, [B, T, C]."""
        mixed = torch.where(
            replaced[..., None], vectors.to(states.dtype), states
        )
        return self.head.ctc_proj(self.head.dropout(mixed))

    def _ctc(self, logits, targets, counts, target_lens):
        """The phones' loss, summed over the utterances."""
        lengths = None
        if target_lens is not None:
            lengths = absolute_lengths(target_lens, targets.shape[1])
        return ctc_loss(
            logits, targets, counts, lengths, self.blank_index, "sum"
        )
