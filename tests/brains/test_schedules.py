"""Learning-rate factors."""

import pytest

from unispeech_sb.brains.schedules import polynomial, tri_stage


def test_three_stages_follow_fairseq():
    factors = [tri_stage(u, 10, 5, 20, 0.01, 0.05) for u in range(50)]
    assert factors[0] == 0.01
    assert factors[5] == pytest.approx(0.01 + 0.99 / 2)
    assert factors[10:16] == [1.0] * 6
    assert factors[25] == pytest.approx(0.05**0.5)
    assert factors[35:] == pytest.approx([0.05] * 15)


def test_the_ends_are_fairseqs_unless_given():
    factors = [tri_stage(u, warmup=10, decay=10) for u in (0, 20)]
    assert factors == pytest.approx([0.01, 0.05])
    assert [polynomial(u, total=10) for u in (0, 5, 10)] == [1.0, 0.5, 0.0]


def test_no_stage_is_a_constant_rate():
    assert [tri_stage(u) for u in (0, 1, 1000)] == [1.0, 1.0, 1.0]


def test_polynomial_decay_follows_fairseq():
    factors = [polynomial(u, warmup=10, total=110) for u in range(200)]
    assert factors[:3] == pytest.approx([0.0, 0.1, 0.2])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[110:] == [0.0] * 90
    assert polynomial(60, 10, 110, power=2.0, final_scale=0.2) == (
        pytest.approx(0.2 + 0.8 / 4)
    )


def test_a_polynomial_without_a_fall_is_refused():
    with pytest.raises(ValueError, match="got 5 of 5"):
        polynomial(0, warmup=5, total=5)
