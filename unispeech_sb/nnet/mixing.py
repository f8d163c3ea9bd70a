"""Utterance mixing: parts of one utterance over another, so that a model
learns to follow the main speaker (Chen et al. 2021, section 3).
"""

from typing import Any, NamedTuple

import torch

from unispeech_sb.nnet.lengths import absolute_lengths

LARGE = 2**62
"""Far above any number of samples: what is left of it by a modulus is
uniform."""


class MixingDraws(NamedTuple):
    """Random decisions of one batch, for K parts in each row.

    Arguments
    ---------
    chosen : torch.Tensor
        True for rows that are mixed, bool, [B].
    sources : torch.Tensor
        Row that each part is from, [B, K].
    lengths : torch.Tensor
        Samples of each part, [B, K].
    source_starts : torch.Tensor
        Where it starts in its own row, [B, K].
    starts : torch.Tensor
        Where it is put, [B, K].
    ratios : torch.Tensor
        Power of the row over that of the part's row, in dB, [B, K].

    Example
    -------
    >>> lengths = torch.tensor([100, 80])
    >>> UtteranceMixing().draw(lengths).sources
    tensor([[1],
            [0]])
    """

    chosen: torch.Tensor
    sources: torch.Tensor
    lengths: torch.Tensor
    source_starts: torch.Tensor
    starts: torch.Tensor
    ratios: torch.Tensor


class UtteranceMixing(NamedTuple):
    """Mixes the utterances of a batch with each other.

    Units and lengths stay those of the main utterance. A backbone with
    ``normalize_wav`` normalises what comes out, as the authors do.

    Arguments
    ---------
    prob : float
        Share of the utterances that are mixed.
    num_parts : int
        Parts K that are added to each of them.
    longest : float
        Longest part, as a share of the shorter of its two utterances; the
        length is uniform from 0 on.
    ratios : tuple of float
        Least and most power of the main utterance over the other one, in dB:
        of the whole utterances, wherever the part is from.
    paper_code_compat : bool
        As in the authors' code, row after row: an utterance may be mixed
        with itself, and with one that was mixed before.

    Example
    -------
    >>> wavs = torch.randn(4, 1000)
    >>> UtteranceMixing()(wavs).shape
    torch.Size([4, 1000])
    """

    prob: float = 0.5
    num_parts: int = 1
    longest: float = 0.5
    ratios: tuple[float, float] = (-5.0, 5.0)
    paper_code_compat: bool = False

    def __call__(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        draws: MixingDraws | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Mixes a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, zero in the padding, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each, in (0, 1], [B]. All of it when omitted.
        draws : MixingDraws, optional
            Decisions to take instead of drawing.
        generator : torch.Generator, optional
            Source of randomness, on the waveforms' device; torch's default
            one when omitted.

        Returns
        -------
        torch.Tensor
            Mixed waveforms, [B, N]. A batch of one stays as it is, unless
            ``paper_code_compat``.
        """
        batch, samples = wavs.shape
        lengths = torch.full((batch,), samples, device=wavs.device)
        if wav_lens is not None:
            lengths = absolute_lengths(wav_lens, samples).to(wavs.device)
        if draws is None:
            draws = self.draw(lengths, generator)
        rows = torch.arange(batch, device=wavs.device)
        if not self.paper_code_compat:
            parts = (_part(wavs, lengths, draws, rows, k) for k in self._ks)
            return wavs + sum(parts)
        mixed = wavs.clone()
        for row in rows.split(1):
            for k in self._ks:
                mixed[row] += _part(mixed, lengths, draws, row, k)
        return mixed

    def draw(
        self, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> MixingDraws:
        """Draws what to mix with what.

        Arguments
        ---------
        lengths : torch.Tensor
            Samples of each row, [B].
        generator : torch.Generator, optional
            Source of randomness; torch's default one when omitted.

        Returns
        -------
        MixingDraws
            For ``__call__``.
        """
        shape = len(lengths), self.num_parts
        draw: dict[str, Any] = {
            "generator": generator,
            "device": lengths.device,
        }

        def up_to(most):
            """Uniform from 0 to each number, that included."""
            return torch.randint(LARGE, shape, **draw) % (most + 1)

        chosen = torch.rand(len(lengths), **draw) < self.prob
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        if self.paper_code_compat:
            sources = up_to(rows.new_tensor(len(rows) - 1))
        elif len(rows) == 1:
            chosen, sources = chosen & False, rows.expand(shape)
        else:
            sources = up_to(rows.new_tensor(len(rows) - 2))
            sources = sources + (sources >= rows)  # never the row itself
        shorter = lengths[sources].minimum(lengths[:, None])
        parts = up_to((self.longest * shorter).long())
        low, high = self.ratios
        return MixingDraws(
            chosen,
            sources,
            parts,
            up_to(lengths[sources] - parts),
            up_to(lengths[:, None] - parts),
            low + (high - low) * torch.rand(shape, **draw),
        )

    @property
    def _ks(self):
        """Numbers of the parts."""
        return range(self.num_parts)


def _part(wavs, lengths, draws, rows, k):
    """What is added to some rows, zero around it, [rows, N]."""
    sources, ratios = draws.sources[rows, k], draws.ratios[rows, k]
    powers = wavs.square().sum(1) / lengths
    wanted = powers[rows] / 10 ** (ratios / 10)
    # A silent source stays silent, without a division by zero
    gains = (wanted / powers[sources].clamp(min=1e-20)).sqrt()
    gains = gains * draws.chosen[rows]
    starts = draws.starts[rows, k, None]
    ends = starts + draws.lengths[rows, k, None]
    places = torch.arange(wavs.shape[1], device=wavs.device)
    inside = (places >= starts) & (places < ends)
    moved = places - starts + draws.source_starts[rows, k, None]
    moved = wavs[sources].gather(1, moved.clamp(0, wavs.shape[1] - 1))
    return (gains[:, None] * moved).masked_fill(~inside, 0.0)
