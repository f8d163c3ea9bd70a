"""Pictures: what is in them, and that they are written whole."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from scipy.special import ndtr

from unispeech_sb.metrics.det import (
    system_name,
    write_det,
    write_histogram,
)


@pytest.fixture
def drawn(monkeypatch):
    """Every line that is drawn: its two arrays and its options."""
    lines = []
    plot = Axes.plot

    def spy(axes, across, up, *rest, **options):
        lines.append((np.asarray(across), np.asarray(up), rest, options, axes))
        return plot(axes, across, up, *rest, **options)

    monkeypatch.setattr(Axes, "plot", spy)
    return lines


def normal(num_trials=20_000, seed=0):
    """Scores of two normal distributions, two deviations apart."""
    generator = np.random.default_rng(seed)
    return generator.normal(1, 1, num_trials), generator.normal(
        -1, 1, num_trials
    )


def test_normal_scores_make_a_straight_line(drawn, tmp_path):
    write_det(tmp_path / "det.png", {"normal": normal()})
    across, up, *_ = drawn[0]
    seen = (abs(across) < 2) & (abs(up) < 2)
    assert seen.sum() > 100
    # probit(miss) = threshold - 1 and probit(fa) = -1 - threshold
    assert abs(across + up + 2)[seen].max() < 0.1


def test_eer_and_min_dcf_are_marked(drawn, tmp_path):
    write_det(tmp_path / "det.png", {"normal": normal()}, p_target=0.5)
    (x, y, marker, *_), (*best, diamond, _, _) = drawn[1:3]
    assert (marker, diamond) == (("o",), ("D",))
    assert x == y == pytest.approx(-1, abs=0.05)
    assert ndtr(best).mean() == pytest.approx(ndtr(-1), abs=0.01)
    label = drawn[0][3]["label"]
    assert "EER 15." in label or "EER 16." in label
    assert "minDCF(0.5) 0.3" in label


@pytest.mark.slow
def test_long_curves_are_thinned(drawn, tmp_path):
    write_det(tmp_path / "det.png", {"normal": normal(200_000)})
    across, up, *_ = drawn[0]
    assert 100 < len(across) < 6000
    assert np.isfinite(across).all() and np.isfinite(up).all()


@pytest.mark.parametrize(
    "scores",
    [([3.0, 4.0], [1.0, 2.0]), ([1.0], [3.0]), ([1.0, 1.0], [1.0])],
    ids=["perfect", "reversed", "constant"],
)
def test_extreme_scores_are_drawn_within_the_axes(drawn, tmp_path, scores):
    write_det(tmp_path / "det.png", {r"$\odd_name$": scores})
    axes = drawn[0][-1]
    low, high = axes.get_xlim()
    assert low < high and np.isfinite([low, high]).all()
    for across, up, marker, *_ in drawn:
        if marker:
            assert low <= across <= high and low <= up <= high


def test_systems_share_a_picture(drawn, tmp_path):
    systems = {"a": normal(500), "b": normal(500, seed=1)}
    write_det(tmp_path / "det.png", systems)
    colours = {line[3]["color"] for line in drawn}
    assert {"C0", "C1"} <= colours
    assert imread(tmp_path / "det.png").shape[0] > 500
    assert [path.name for path in tmp_path.iterdir()] == ["det.png"]


def test_histogram_is_higher_where_scores_are(tmp_path, monkeypatch):
    stairs = []
    monkeypatch.setattr(Axes, "legend", lambda axes, **_: None)
    monkeypatch.setattr(
        Axes,
        "stairs",
        lambda axes, values, edges, **_: stairs.append((values, edges)),
    )
    positive, negative = normal()
    write_histogram(tmp_path / "h.png", positive, negative)
    for (shares, edges), mean in zip(stairs[::2], (-1, 1), strict=True):
        assert shares.sum() == pytest.approx(100)
        assert edges[shares.argmax()] == pytest.approx(mean, abs=0.4)


def test_histogram_has_a_line_per_threshold(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(Axes, "axvline", lambda axes, x, **_: places.append(x))
    write_histogram(tmp_path / "h.png", [1.0], [1.0], {"a": 0.2, "b": 0.3})
    assert places == [0.2, 0.3]
    assert [path.name for path in tmp_path.iterdir()] == ["h.png"]


def test_a_picture_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scores of a system, got none"):
        write_det(tmp_path / "det.png", {})
    with pytest.raises(ValueError, match="N > 0"):
        write_histogram(tmp_path / "h.png", [], [1.0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [30, 3000])
def test_the_axes_cover_the_curve_and_its_marks(drawn, tmp_path, count):
    scores = normal(count)
    write_det(tmp_path / "det.png", {"a": scores}, p_target=0.001)
    low, high = drawn[0][-1].get_xlim()
    _, up, *_ = drawn[0]
    across, *_ = drawn[0]
    seen = (across > low) & (up > low)  # but for rates of 0
    assert seen.sum() > 3
    assert (across[seen] <= high).all() and (up[seen] <= high).all()
    for x, y, *_ in drawn[1:3]:  # not pushed to a corner
        assert x < high and y < high


@pytest.mark.parametrize("folder, name", [
    ("/a/results/speaker_verification/my_voices/1986/export", "my_voices/1986"),
    ("/a/my_voices/1986", "my_voices/1986"), ("/a/ecapa", "ecapa"),
])  # fmt: skip
def test_a_system_is_called_as_its_folder(folder, name):
    assert system_name(folder) == name
