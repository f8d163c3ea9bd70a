"""Heads that classify utterances and frames: transformers' and SUPERB's."""

from typing import cast

import torch
from torch import nn

from unispeech_sb.lobes.lobe import Lobe, constructor_arguments
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.masking import SpecAugment
from unispeech_sb.nnet.pooling import (
    LayerMix,
    States,
    masked_mean,
    mix_states,
)
from unispeech_sb.nnet.recurrence import run_padded


class UtteranceHead(Lobe):
    """Layer mix (optional), projector, mean over frames, classifier.

    That is transformers' ``ForSequenceClassification`` and SUPERB's head for
    keyword spotting, intents, speakers and emotions.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_classes : int
        Number of classes C.
    proj_size : int
        Size of the projected features.
    use_weighted_layer_sum : bool
        Take all hidden states and learn how to mix them.
    num_states : int, optional
        Number of hidden states; needed for the layer mix only.

    Example
    -------
    >>> import torch
    >>> head = UtteranceHead(input_size=16, num_classes=4)
    >>> head(torch.randn(2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    takes_means = True
    """A mean over time in place of the frames gives the same: all before the
    mean is affine."""

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        proj_size: int = 256,
        use_weighted_layer_sum: bool = False,
        num_states: int | None = None,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = None
        if use_weighted_layer_sum:
            if num_states is None:
                raise ValueError(
                    "UtteranceHead: expected num_states, which "
                    "use_weighted_layer_sum needs; got None"
                )
            self.layer_mix = LayerMix(num_states)
        self.projector = nn.Linear(input_size, proj_size)
        self.classifier = nn.Linear(proj_size, num_classes)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores each utterance.

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
            Logits, [B, C].
        """
        return self.classifier(self.embed(feats, lengths))

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
            Embeddings, [B, proj_size].
        """
        feats = mix_states(feats, self.layer_mix)
        # The projector is affine, so it may follow the mean: T times cheaper.
        return self.projector(masked_mean(feats, lengths))


class FrameHead(Lobe):
    """Layer mix (optional), dropout, classifier.

    That is transformers' ``ForCTC``, where the classifier is called
    ``lm_head``, and ``ForAudioFrameClassification``.

    Arguments
    ---------
    input_size : int
        Size of the features D (``hidden_size``).
    num_classes : int
        Number of classes C (``vocab_size``, ``num_labels``).
    dropout : float
        Dropout on the features (``final_dropout``; frame classification has
        none).
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> import torch
    >>> head = FrameHead(input_size=16, num_classes=4)
    >>> head(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 4])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        dropout: float = 0.0,
        num_states: int | None = None,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(input_size, num_classes)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores each frame.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            Features, [B, T, D]; with the layer mix all hidden states,
            [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Not used: frames are scored one by one, padding like the others.

        Returns
        -------
        torch.Tensor
            Logits, [B, T, C].
        """
        feats = mix_states(feats, self.layer_mix)
        return self.classifier(self.dropout(feats))


class RecurrentHead(Lobe):
    """Layer mix (optional), projector, bidirectional LSTMs, classifier.

    That is SUPERB's head for speech recognition (Yang et al. 2021, section
    3), whose scores are for CTC with index 0 the blank; a dropout follows each
    LSTM. An utterance scores the same alone and in any batch.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_classes : int
        Number of classes C: entries of the vocabulary.
    proj_size : int
        Size of the projected features.
    hidden_size : int
        Size of an LSTM in each direction.
    num_layers : int
        Number of LSTMs.
    dropout : float
        Dropout on the output of each.
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.
    spec_augment : SpecAugment, optional
        Masks the features, or their mix, in training. It has no weights and
        is no part of what is saved.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import RecurrentHead
    >>> import torch
    >>> head = RecurrentHead(16, 4, proj_size=8, hidden_size=6)
    >>> head(torch.randn(2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 10, 4])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        proj_size: int = 1024,
        hidden_size: int = 1024,
        num_layers: int = 2,
        dropout: float = 0.2,
        num_states: int | None = None,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__(constructor_arguments(locals(), "spec_augment"))
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.spec_augment = spec_augment
        self.projector = nn.Linear(input_size, proj_size)
        # One by one, for torch's stack has no dropout after its last layer
        sizes = [proj_size] + [2 * hidden_size] * num_layers
        self.layers = nn.ModuleList(
            nn.LSTM(size, hidden_size, batch_first=True, bidirectional=True)
            for size in sizes[:-1]
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sizes[-1], num_classes)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores each frame.

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
            Logits, [B, T, C]. Frames in the padding hold anything.
        """
        mixed, frames = mix_states(feats, self.layer_mix), None
        if lengths is not None:
            frames = absolute_lengths(lengths, mixed.shape[1]).cpu()
        if self.spec_augment is not None:
            mixed = self.spec_augment(mixed, frames)
        hidden = self.projector(mixed)
        for layer in self.layers:
            lstm = cast(nn.LSTM, layer)
            hidden = self.dropout(run_padded(lstm, hidden, frames))
        return self.classifier(hidden)


class ProjectedFrameHead(Lobe):
    """Layer mix (optional), projector, classifier; both are affine.

    That is SUPERB's head for phoneme recognition.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_classes : int
        Number of classes C: entries of the vocabulary.
    proj_size : int
        Size of the projected features.
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import ProjectedFrameHead
    >>> import torch
    >>> head = ProjectedFrameHead(input_size=16, num_classes=74)
    >>> head(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 74])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        proj_size: int = 256,
        num_states: int | None = None,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.projector = nn.Linear(input_size, proj_size)
        self.classifier = nn.Linear(proj_size, num_classes)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores each frame.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            Features, [B, T, D]; with the layer mix all hidden states,
            [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Not used: frames are scored one by one, padding like the others.

        Returns
        -------
        torch.Tensor
            Logits, [B, T, C].
        """
        feats = mix_states(feats, self.layer_mix)
        return self.classifier(self.projector(feats))
