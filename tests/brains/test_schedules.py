"""Learning-rate factors."""

import pytest

from unispeech_sb.brains import tri_stage


def test_three_stages_follow_fairseq():
    factors = [tri_stage(u, 10, 5, 20, 0.01, 0.05) for u in range(50)]
    assert factors[0] == 0.01
    assert factors[5] == pytest.approx(0.01 + 0.99 / 2)
    assert factors[10:16] == [1.0] * 6
    assert factors[25] == pytest.approx(0.05**0.5)
    assert factors[35:] == pytest.approx([0.05] * 15)


def test_no_stage_is_a_constant_rate():
    assert [tri_stage(u) for u in (0, 1, 1000)] == [1.0, 1.0, 1.0]
