"""What both pre-trainings share: masked frames, the sum of their losses, and
the head of an earlier one.
"""

import operator
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import torch

from unispeech_sb.checkpoints.files import load_strict, read_tensors
from unispeech_sb.lobes.backbone import Backbone, BackboneOutput
from unispeech_sb.lobes.lobe import Lobe, LobeGroup
from unispeech_sb.nnet.contrastive import feature_penalty
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask
from unispeech_sb.nnet.masking import SpanMasks
from unispeech_sb.nnet.quantizer import gumbel_temperature

_CLASSIFIERS = ("ctc_proj.weight", "ctc_proj.bias", "label_embeddings_concat")
"""What depends on the phones or units that a head classifies."""


class PretrainingOutput(NamedTuple):
    """What a pre-training makes of a batch.

    Arguments
    ---------
    losses : dict
        Name -> scalar, each a sum: over masked frames, or over utterances
        for ``ctc``. What is a mean by nature (diversity, feature penalty,
        the utterance-wise loss) is multiplied by ``sample_size``.
    sample_size : int
        Number of target frames, the masked ones: what the authors' trainer
        divides the gradients of all losses by, ``ctc`` too.
    diagnostics : dict
        Name -> scalar without a gradient: accuracies, perplexities and the
        temperature.

    Example
    -------
    >>> PretrainingOutput({"ctc": torch.tensor(3.0)}, 2, {}).sample_size
    2
    """

    losses: dict[str, torch.Tensor]
    sample_size: int
    diagnostics: dict[str, torch.Tensor | float]


def weighted_loss(
    output: PretrainingOutput, weights: Mapping[str, float]
) -> torch.Tensor:
    """Sums the losses of a batch as the authors' criteria do.

    The result is a sum over ``sample_size`` frames. Before an update the
    gradients are divided by the sum of the sample sizes of all its batches,
    on all machines, and not by the number of batches or machines.

    Arguments
    ---------
    output : PretrainingOutput
        Of one batch.
    weights : dict
        Name of each loss -> factor, such as ``UNISPEECH_WEIGHTS``.

    Returns
    -------
    torch.Tensor
        A scalar.

    Raises
    ------
    ValueError
        When a loss has no weight or a weight no loss.

    Example
    -------
    >>> losses = {"ctc": torch.tensor(3.0), "contrastive": torch.tensor(8.0)}
    >>> output = PretrainingOutput(losses, 2, {})
    >>> weighted_loss(output, {"ctc": 0.5, "contrastive": 0.25})
    tensor(3.5000)
    """
    if set(weights) != set(output.losses):
        raise ValueError(
            f"loss weights: expected {', '.join(sorted(output.losses))}; "
            f"got {', '.join(sorted(weights))}"
        )
    # A weight of 0 keeps its loss: distributed training waits for gradients
    terms = (weights[name] * loss for name, loss in output.losses.items())
    return reduce(operator.add, terms)


class MaskedFrames(NamedTuple):
    """A masked batch after the backbone: its output, the convolutional
    features before LayerNorm [B, T, C], the valid frames of each row [B], and
    the target frames, bool, [B, T]: the masked ones, or all of a batch that is
    evaluated without a mask."""

    output: BackboneOutput
    conv_features: torch.Tensor
    counts: torch.Tensor
    mask: torch.Tensor


class Objective(LobeGroup):
    """A backbone and a head that are pre-trained together.

    Masks are drawn in evaluation too, as in the authors' wav2vec 2.0 and
    UniSpeech-SAT, but for a model with ``masks_evaluation`` False. Arguments
    are those of ``UniSpeech`` and ``UniSpeechSAT``.
    """

    masks_evaluation = True

    def __init__(
        self,
        backbone: Backbone,
        head: Lobe,
        masks: SpanMasks,
        latent_temp: Sequence[float],
        feature_grad_mult: float = 1.0,
        paper_code_compat: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.masks = masks
        self.latent_temp = tuple(latent_temp)
        self.feature_grad_mult = feature_grad_mult
        self.paper_code_compat = paper_code_compat

    def temperature(self, num_updates: int) -> float:
        """Temperature of the Gumbel softmax.

        Arguments
        ---------
        num_updates : int
            Number of optimizer updates so far: the count that a Brain keeps
            in its checkpoints, so that a resumed run goes on where it was.

        Returns
        -------
        float
            The temperature.
        """
        return gumbel_temperature(num_updates, *self.latent_temp)

    def encode_masked(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        labelled: torch.Tensor | None = None,
    ) -> MaskedFrames:
        """Runs the backbone over masked frames.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].
        mask : torch.Tensor, optional
            True at frames to mask, bool, [B, T], instead of drawn ones.
        generator : torch.Generator, optional
            Source of the masks; torch's default one when omitted.
        labelled : torch.Tensor, optional
            Frames of each row that have labels, [B]. All when omitted.
            Frames after the most of them are cut off.

        Returns
        -------
        MaskedFrames
            Features, and which of them are targets.

        Raises
        ------
        ValueError
            When no frame is masked.
        """
        frames = self.backbone.output_lengths(wavs.shape[1])
        counts = torch.full((len(wavs),), frames, device=wavs.device)
        if wav_lens is not None:
            shares = self.backbone.frame_lens(wavs.shape[1], wav_lens)
            counts = absolute_lengths(shares.to(wavs.device), frames)
        if labelled is not None:
            counts = counts.minimum(labelled.to(wavs.device))
            frames = min(frames, int(labelled.max()))
        hidden = mask
        if mask is None and (self.training or self.masks_evaluation):
            hidden = mask = self.masks(counts, frames, generator)
        elif mask is None:  # padded frames too, in the authors' code
            every = torch.full_like(counts, frames)
            mask = length_mask(
                every if self.paper_code_compat else counts, frames
            )
        if not mask.any():
            raise ValueError(
                "pre-training: expected at least one masked frame; got none "
                f"in {len(wavs)} utterances of {counts.tolist()} frames"
            )
        extractor = self.backbone.feature_extractor
        with _tapped(extractor, frames, self.feature_grad_mult) as kept:
            output = self.backbone.encode(
                wavs, wav_lens, hidden, output_hidden_states=True
            )
        return MaskedFrames(output, kept[0], counts, mask)

    def feature_penalty(self, frames: MaskedFrames) -> torch.Tensor:
        """Mean square of the convolutional features of valid frames.

        Arguments
        ---------
        frames : MaskedFrames
            Of ``encode_masked``.

        Returns
        -------
        torch.Tensor
            A scalar; that of all frames with ``paper_code_compat``.
        """
        feats = frames.conv_features
        if self.paper_code_compat:
            return feature_penalty(feats)
        return feature_penalty(
            feats, length_mask(frames.counts, feats.shape[1])
        )


@contextmanager
def _tapped(extractor, num_frames, grad_mult):
    """Keeps what the convolutions give, cut and with its gradient scaled."""
    kept = []

    def tap(module, args, feats):
        feats = feats[:, :num_frames]
        if feats.requires_grad and grad_mult != 1.0:
            feats.register_hook(lambda gradient: grad_mult * gradient)
        kept.append(feats)
        return feats

    handle = extractor.register_forward_hook(tap)
    try:
        yield kept
    finally:
        handle.remove()


def load_head(head: Lobe, source: str | Path) -> None:
    """Gives a head the weights of a trained one.

    Its classifier keeps its own where the other one has none, or one of
    another number of phones or units: so the authors' second stage goes on
    without the phones of the first.

    Arguments
    ---------
    head : Lobe
        Whose weights to replace.
    source : str or pathlib.Path
        A folder that a pre-training exported.

    Raises
    ------
    ValueError
        When the folder has no head, or anything else does not fit.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import UniSpeechHead
    >>> first = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=5)
    >>> first.save(getfixture("tmp_path") / "head.ckpt")
    >>> second = UniSpeechHead(16, 8, [2, 4, 6], 12, num_ctc_classes=0)
    >>> load_head(second, getfixture("tmp_path"))
    >>> bool((first.project_q.weight == second.project_q.weight).all())
    True
    """
    path = Path(source, "head.ckpt")
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file; expected the folder of a "
            "pre-trained model with its head"
        )
    tensors, own = read_tensors(path), head.state_dict()
    for name in _CLASSIFIERS:
        found, wanted = tensors.pop(name, None), own.get(name)
        if wanted is not None:
            if found is None or found.shape != wanted.shape:
                found = wanted
            tensors[name] = found
    load_strict(head, tensors, path)
