"""Heads of speaker diarization: SUPERB's, for few speakers and short
recordings, and that of the authors' EEND with vector clustering.
"""

from typing import cast

import torch
from torch import nn

from unispeech_sb.lobes.lobe import Lobe, constructor_arguments
from unispeech_sb.nnet.eend import (
    EENDLayer,
    interpolate_frames,
    speaker_means,
)
from unispeech_sb.nnet.frontend import LayerNorm
from unispeech_sb.nnet.lengths import Lengths, absolute_lengths, length_mask
from unispeech_sb.nnet.pooling import (
    LayerMix,
    States,
    WindowStatistics,
    instance_norm,
    mix_states,
)
from unispeech_sb.nnet.recurrence import run_padded

_INNER_SIZE, _DROPOUT = 2048, 0.1
"""Of every EEND model that the authors published."""


class DiarizationHead(Lobe):
    """Layer mix (optional), LSTM, one activity for each speaker.

    With the defaults that is SUPERB's head (Yang et al. 2021, section 3). A
    chunk scores the same alone and in any batch. With ``context`` the LSTM also
    gets the statistics around each frame, by which speakers are learned faster.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_speakers : int
        Number of speakers S at most; the outputs are in no order.
    hidden_size : int
        Size of the LSTM in each direction.
    num_layers : int
        Number of LSTMs.
    bidirectional : bool
        Whether an LSTM runs backwards, too.
    dropout : float
        Dropout on the output of each LSTM.
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.
    context : int
        Frames of the window of ``WindowStatistics``, odd; 0 for none.

    Raises
    ------
    ValueError
        When there is no speaker, or the window has an even number of frames.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import DiarizationHead
    >>> head = DiarizationHead(16, hidden_size=8, num_states=3)
    >>> head(torch.randn(3, 2, 9, 16)).shape
    torch.Size([2, 9, 2])
    """

    def __init__(
        self,
        input_size: int,
        num_speakers: int = 2,
        hidden_size: int = 512,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_states: int | None = None,
        context: int = 0,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        if num_speakers < 1:
            raise ValueError(
                "num_speakers: expected one speaker or more; got "
                f"{num_speakers}"
            )
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.window = None
        if context:
            self.window = WindowStatistics(input_size, 2 * hidden_size, context)
            input_size = 6 * hidden_size
        width = hidden_size * (2 if bidirectional else 1)
        # One by one, for torch's stack has no dropout after its last layer
        self.layers = nn.ModuleList(
            nn.LSTM(
                width if layer else input_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
            )
            for layer in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.activities = nn.Linear(width, num_speakers)

    def forward(
        self, feats: States, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores the activity of each speaker in each frame.

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
            Activities before the sigmoid, [B, T, S]. Frames in the padding
            hold anything.
        """
        hidden, frames = mix_states(feats, self.layer_mix), None
        if lengths is not None:
            frames = absolute_lengths(lengths, hidden.shape[1]).cpu()
        if self.window is not None:
            hidden = self.window(hidden, frames)
        for layer in self.layers:
            lstm = cast(nn.LSTM, layer)
            hidden = self.dropout(run_padded(lstm, hidden, frames))
        return self.activities(hidden)

    def output_lengths(self, frames: Lengths) -> Lengths:
        """Counts frames of the output: as many as of the features.

        Arguments
        ---------
        frames : torch.Tensor or int
            Number of 20 ms frames, [B] or a single one.

        Returns
        -------
        torch.Tensor or int
            The same.

        Example
        -------
        >>> from unispeech_sb.lobes.heads import DiarizationHead
        >>> DiarizationHead(4, hidden_size=2).output_lengths(1499)
        1499
        """
        return frames


class EENDVCHead(Lobe):
    """Hidden states in; activities and embeddings of local speakers out.

    Layer mix, normalisation over time, a frame every 40 ms, transformer, one
    layer for the activities of the local speakers and one for the vector of
    each (Kinoshita et al. 2021, section 3). The authors feed chunks of 30 s
    of 8 kHz speech through ``torchaudio.transforms.Resample(8000, 16000)``.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_states : int
        Number of hidden states: one more than the backbone has blocks.
    num_speakers : int
        Number of local speakers S: those of one chunk.
    num_known_speakers : int
        Number of speakers of the training corpus, for the speaker loss.
    model_size : int
        Size of the encoder.
    num_layers : int
        Number of its blocks.
    num_heads : int
        Number of its attention heads; divides the model size.
    speaker_size : int
        Size of the speaker vectors E.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import EENDVCHead
    >>> head = EENDVCHead(16, 4, model_size=32, num_layers=1)
    >>> logits, vectors = head(torch.randn(4, 2, 9, 16))
    >>> logits.shape, vectors.shape
    (torch.Size([2, 5, 3]), torch.Size([2, 5, 3, 256]))
    """

    def __init__(
        self,
        input_size: int,
        num_states: int,
        num_speakers: int = 3,
        num_known_speakers: int = 1,
        model_size: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        speaker_size: int = 256,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        self.layer_mix = LayerMix(num_states)
        self.projection = nn.Linear(input_size, model_size)
        self.layers = nn.ModuleList(
            EENDLayer(model_size, num_heads, _INNER_SIZE, _DROPOUT)
            for _ in range(num_layers)
        )
        self.norm = LayerNorm(model_size)
        self.activities = nn.Linear(model_size, num_speakers)
        self.voices = nn.ModuleList(
            nn.Linear(model_size, speaker_size) for _ in range(num_speakers)
        )
        self.embed = nn.Embedding(num_known_speakers, speaker_size)
        self.alpha = nn.Parameter(torch.rand(()) + 0.5)
        self.beta = nn.Parameter(torch.rand(()) + 0.5)

    def forward(
        self,
        feats: States,
        lengths: torch.Tensor | None = None,
        num_frames: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the local speakers of each chunk.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            All hidden states, [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.
        num_frames : torch.Tensor, optional
            Number of 40 ms frames of each chunk, [B]: the authors' is one
            for every whole 640 samples at 16 kHz. ``output_lengths`` when
            omitted.

        Returns
        -------
        logits : torch.Tensor
            Activities before the sigmoid, [B, T', S].
        vectors : torch.Tensor
            Speaker vectors, [B, T', S, E]. Frames in the padding hold
            anything, in both.
        """
        encoded, _ = self._encoded(feats, lengths, num_frames)
        return self._outputs(encoded)

    def estimate(
        self,
        feats: States,
        lengths: torch.Tensor | None = None,
        num_frames: torch.Tensor | None = None,
        most: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives what clustering over a recording needs of each chunk.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            As in ``forward``.
        lengths : torch.Tensor, optional
            As in ``forward``.
        num_frames : torch.Tensor, optional
            As in ``forward``.
        most : int, optional
            Padded length T'; the most of ``num_frames`` when omitted.

        Returns
        -------
        activities : torch.Tensor
            Probability that a local speaker is active, [B, T', S].
        speakers : torch.Tensor
            A unit vector for each local speaker, [B, S, E].
        """
        encoded, num_frames = self._encoded(feats, lengths, num_frames, most)
        logits, vectors = self._outputs(encoded)
        return logits.sigmoid(), speaker_means(logits, vectors, num_frames)

    def output_lengths(self, frames: Lengths) -> Lengths:
        """Counts 40 ms frames.

        Exact for whole chunks: a waveform of ``640 n`` samples has
        ``2n - 1`` frames of 20 ms.

        Arguments
        ---------
        frames : torch.Tensor or int
            Number of 20 ms frames, [B] or a single one.

        Returns
        -------
        torch.Tensor or int
            Number of 40 ms frames.

        Example
        -------
        >>> from unispeech_sb.lobes.heads import EENDVCHead
        >>> EENDVCHead(4, 2, model_size=8, num_layers=1).output_lengths(1499)
        750
        """
        return (frames + 1) // 2

    def _encoded(self, feats, lengths, num_frames, most=None):
        """The encoder's output, and the number of its valid frames."""
        feats = instance_norm(self.layer_mix(feats), lengths)
        batch, frames, _ = feats.shape
        counts = torch.full((batch,), frames, device=feats.device)
        if lengths is not None:
            counts = absolute_lengths(lengths, frames)
        if num_frames is None:
            num_frames = self.output_lengths(counts)
        feats = interpolate_frames(feats, counts, num_frames, most)
        mask = length_mask(num_frames, feats.shape[1])[:, None, None]
        feats = self.projection(feats)
        for layer in self.layers:
            feats = layer(feats, mask)
        return self.norm(feats), num_frames

    def _outputs(self, encoded):
        """Activities and speaker vectors of each frame."""
        vectors = torch.stack([voice(encoded) for voice in self.voices], 2)
        return self.activities(encoded), vectors
