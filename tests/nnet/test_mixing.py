"""Utterance mixing: energies, lengths, sources, and the authors' order."""

import pytest
import torch

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.mixing import MixingDraws, UtteranceMixing

ALWAYS = UtteranceMixing(prob=1.0)


def speech_like(batch=64, samples=4000):
    """Noise whose level differs from row to row."""
    levels = torch.logspace(-2, 0, batch)[:, None]
    return levels * torch.randn(batch, samples)


def decibels(power):
    """A ratio of powers in dB."""
    return 10 * torch.log10(power)


def one_part(sources, lengths, source_starts, starts, ratios):
    """Decisions for one part in each row, all rows chosen."""
    columns = [sources, lengths, source_starts, starts, ratios]
    columns = [torch.tensor(column)[:, None] for column in columns]
    return MixingDraws(torch.ones(len(sources)).bool(), *columns)


def test_powers_have_the_drawn_ratio_within_a_tenth_of_a_decibel():
    wavs = speech_like()
    draws = ALWAYS.draw(torch.full((64,), 4000))
    draws = draws._replace(
        lengths=torch.full((64, 1), 4000),
        starts=torch.zeros(64, 1).long(),
        source_starts=torch.zeros(64, 1).long(),
    )
    added = ALWAYS(wavs, draws=draws) - wavs
    found = decibels(wavs.square().mean(1) / added.square().mean(1))
    assert (found - draws.ratios[:, 0]).abs().max() < 0.1
    # What is added is the other row as it is, only louder
    others = wavs[draws.sources[:, 0]]
    cosines = torch.cosine_similarity(added, others, dim=1)
    torch.testing.assert_close(cosines, torch.ones(64), rtol=0, atol=1e-4)


def test_parts_are_cut_and_put_where_the_draws_say():
    wavs = torch.tensor([[1.0, 1, 1, 1, 1, 1], [0, 2, 4, 2, 0, 0]])
    draws = one_part([1, 0], [2, 0], [1, 0], [3, 0], [0.0, 0.0])
    gain = (1 / (24 / 6)) ** 0.5
    expected = wavs.clone()
    expected[0, 3:5] += gain * torch.tensor([2.0, 4.0])
    torch.testing.assert_close(ALWAYS(wavs, draws=draws), expected)


def test_draws_follow_their_distributions_and_stay_inside_the_utterances():
    lengths = torch.tensor([4000, 4000, 1000, 2500] * 500)
    mixing = UtteranceMixing(num_parts=2)
    draws = mixing.draw(lengths)
    assert draws.chosen.float().mean().item() == pytest.approx(0.5, abs=0.05)
    rows = torch.arange(2000)[:, None]
    assert not (draws.sources == rows).any()
    assert draws.sources.min() == 0 and draws.sources.max() == 1999
    shorter = lengths[draws.sources].minimum(lengths[:, None])
    shares = draws.lengths / shorter
    assert shares.max() <= 0.5 and shares.min() < 0.01
    assert shares.mean().item() == pytest.approx(0.25, abs=0.01)
    assert (draws.starts + draws.lengths <= lengths[:, None]).all()
    ends = draws.source_starts + draws.lengths
    assert (ends <= lengths[draws.sources]).all()
    places = draws.starts / (lengths[:, None] - draws.lengths)
    assert places.mean().item() == pytest.approx(0.5, abs=0.02)
    assert -5 <= draws.ratios.min() < -4.9 and 4.9 < draws.ratios.max() <= 5
    assert draws.ratios.mean().item() == pytest.approx(0.0, abs=0.2)


def test_only_the_chosen_rows_change_and_never_their_padding():
    wavs, shares = speech_like(8), torch.linspace(0.3, 1, 8)
    counts = (shares * 4000).round().long()
    wavs = wavs.masked_fill(torch.arange(4000) >= counts[:, None], 0.0)
    mixing = UtteranceMixing()
    draws = mixing.draw(counts)
    draws = draws._replace(lengths=draws.lengths.clamp(min=50))
    draws = draws._replace(starts=draws.starts.minimum(counts[:, None] - 50))
    mixed = mixing(wavs, shares, draws)
    changed = (mixed != wavs).any(1)
    assert torch.equal(changed, draws.chosen) and 0 < changed.sum() < 8
    for row, count in zip(mixed, counts):
        assert not row[count:].any()


def test_sources_are_taken_before_they_are_mixed_unless_compat():
    wavs = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    draws = one_part([1, 0, 1], [2, 2, 2], [0] * 3, [0] * 3, [0.0] * 3)
    doubled = 2 * wavs  # equal powers: each row gets a copy as loud as it is
    torch.testing.assert_close(ALWAYS(wavs, draws=draws), doubled)
    flipped = wavs * torch.tensor([[1.0], [-1.0], [1.0]])
    compat = ALWAYS._replace(paper_code_compat=True)
    # Row 0 becomes 1 - 1 = 0; row 1 then adds silence; row 2 adds -4 to 4
    expected = torch.tensor([[0.0, 0.0], [-2.0, -2.0], [0.0, 0.0]])
    torch.testing.assert_close(compat(flipped, draws=draws), expected)


def test_the_authors_may_mix_an_utterance_with_itself():
    lengths = torch.full((4,), 100)
    compat = UtteranceMixing(paper_code_compat=True, num_parts=400)
    rows = torch.arange(4)[:, None]
    itself = (compat.draw(lengths).sources == rows).float().mean()
    assert itself.item() == pytest.approx(0.25, abs=0.05)


def test_a_batch_of_one_has_nothing_to_be_mixed_with():
    wavs = torch.randn(1, 500)
    assert torch.equal(ALWAYS(wavs), wavs)


def test_silence_adds_and_gets_nothing():
    wavs = torch.stack([torch.zeros(500), torch.randn(500)])
    assert torch.equal(ALWAYS(wavs), wavs)


def test_a_generator_repeats_the_mixture():
    wavs = speech_like(8)
    one, two, other = (
        ALWAYS(wavs, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_the_backbone_normalises_mixtures():
    backbone, seen = Backbone.from_preset("tiny", normalize_wav=True), []
    backbone.feature_extractor.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    backbone(ALWAYS(10 * speech_like(4)))
    powers = seen[0].square().mean(1)
    torch.testing.assert_close(powers, torch.ones(4), rtol=1e-2, atol=0)
