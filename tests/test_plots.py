"""The picture of who speaks when."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from unispeech_sb import plots
from unispeech_sb.plots import (
    break_into_lines,
    match_speakers,
    overlaps,
    timeline_svg,
    write_curves,
    write_timeline,
)


def talk(num_speakers, seconds):
    """Everyone in turn, each one a second into the next, in long recordings
    with pauses."""
    step = max(3.0, seconds / 1200)
    return [
        (start, min(start + 4.0, seconds), f"speaker{n % num_speakers + 1}")
        for n, start in enumerate(np.arange(0.5, seconds - 1, step))
    ]


def drawn(monkeypatch, *arguments):
    """The figure that would be written."""
    found = []
    monkeypatch.setattr(
        plots, "write_figure", lambda figure, _: found.append(figure)
    )
    write_timeline("a.png", *arguments)
    return found[0]


def labels_of(figure):
    """Names of the rows of each line."""
    return [
        [label.get_text() for label in axes.get_yticklabels()]
        for axes in figure.axes
    ]


@pytest.mark.slow
@pytest.mark.parametrize("num_speakers, seconds, lines", [
    (2, 30.0, 1), (6, 300.0, 5), (6, 3600.0, 6), (3, 36000.0, 6),
])  # fmt: skip
def test_each_speaker_has_a_row_on_each_line(
    num_speakers, seconds, lines, monkeypatch
):
    figure = drawn(monkeypatch, talk(num_speakers, seconds), seconds)
    names = [f"speaker{n + 1}" for n in range(num_speakers)]
    assert labels_of(figure) == [names] * lines
    ends = [axes.get_xlim() for axes in figure.axes]
    assert ends[0][0] == 0 and ends[-1][0] < seconds <= ends[-1][1]
    for before, after in zip(ends, ends[1:]):
        assert before[1] == after[0]


@pytest.mark.slow
def test_rows_and_labels_do_not_touch(monkeypatch):
    reference = [(a, b, f"R{name}") for a, b, name in talk(6, 300.0)]
    figure = drawn(monkeypatch, talk(6, 300.0), 300.0, reference)
    figure.savefig(io.BytesIO(), format="png")
    for axes in figure.axes:
        for texts in (axes.get_yticklabels(), axes.get_xticklabels()):
            boxes = [text.get_window_extent() for text in texts]
            for n, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:n])


def test_the_reference_is_above_in_the_colours_of_its_speakers(monkeypatch):
    found = [(0.0, 4.0, "x"), (4.0, 9.0, "y")]
    reference = [(0.0, 3.0, "ben"), (4.0, 8.0, "anna"), (9.0, 9.5, "eve")]
    figure = drawn(monkeypatch, found, 10.0, reference)
    (axes,) = figure.axes
    assert labels_of(figure) == [["ben", "anna", "eve", "x", "y"]]
    assert axes.yaxis_inverted()
    bars = [c for c in axes.collections if len(c.get_paths())]
    colours = [tuple(bar.get_facecolor()[0][:3]) for bar in bars]
    ben, anna, eve, x, y = colours
    assert (ben, anna) == (x, y)
    assert len({x, y, eve}) == 3


def test_overlap_shows_in_the_picture(tmp_path):
    for name, end in (("apart", 5.0), ("over", 7.0)):
        write_timeline(
            tmp_path / f"{name}.png", [(0, end, "a"), (5, 10, "b")], 10.0
        )
    apart, over = (
        imread(tmp_path / f"{name}.png")[..., :3] for name in ("apart", "over")
    )
    grey = np.isclose(over, 0.82, atol=0.01).all(-1).sum()
    assert grey > 10 * np.isclose(apart, 0.82, atol=0.01).all(-1).sum() > 0


@pytest.mark.parametrize("segments", [[], [(0.0, 0.001, "a$b_c")]])
def test_little_to_draw_is_no_trouble(segments, tmp_path):
    path = tmp_path / "a.png"
    write_timeline(path, segments, 0.02, segments, "100$ %s")
    assert path.read_bytes()[1:4] == b"PNG"


def test_a_picture_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_timeline(path, talk(2, 10.0), 10.0)
    before = path.read_bytes()
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_timeline(path, talk(3, 10.0), 10.0)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_overlaps_are_where_two_or_more_speak():
    draw = np.random.default_rng(0)
    for _ in range(50):
        rows = {
            name: [(a, a + draw.integers(1, 4)) for a in (0, 5, 10, 15)]
            for name in "abc"[: draw.integers(1, 4)]
        }
        grid = np.arange(0, 20) + 0.5
        counts = sum(
            (grid > a) & (grid < b) for turns in rows.values() for a, b in turns
        )
        inside = sum((grid > a) & (grid < b) for a, b in overlaps(rows))
        np.testing.assert_array_equal(inside, counts >= 2)


def test_speakers_are_matched_by_the_time_they_share():
    found = {"x": [(0, 10)], "y": [(2, 9)]}
    assert match_speakers({"a": [(0, 9)], "b": [(0, 10)]}, found) == [
        ("a", "y"), ("b", "x"),
    ]  # fmt: skip
    assert match_speakers({"a": [(20, 21)]}, found) == [("a", None)]
    assert match_speakers({"a": [(0, 1)]}, {}) == [("a", None)]
    assert match_speakers({}, found) == []


@pytest.mark.parametrize("seconds", [0.02, 59, 61, 299, 3605, 7300, 1e5])
def test_lines_cover_the_recording(seconds):
    line_s, step_s, count = break_into_lines(seconds)
    assert (count - 1) * line_s < seconds <= count * line_s + 1e-6
    assert 1 <= count <= 6
    if seconds < 7 * 3600:
        assert line_s / step_s <= 13


def test_a_page_shows_the_timeline_small_and_escaped():
    turns = [(n / 10, n / 10 + 0.05, f"<s{n % 20}>") for n in range(36000)]
    shown = timeline_svg(turns, 3600.0)
    assert len(shown) < 60_000
    assert shown.count("<path") == 12 and "and 8 more speakers" in shown
    assert "<s0>" not in shown and "&lt;s0&gt;" in shown
    root = ElementTree.fromstring(f"<div>{shown}</div>")
    assert root[0].tag == "svg" and "1:00:00" in shown
    one = timeline_svg([(0.0, 1.0, "a"), (3.0, 4.0, "a")], 4.0)
    assert 'd="M0 2h150v14h-150zM450 2h150v14h-150z"' in one
    assert "a: 2.0 s" in one
    assert "<path" not in timeline_svg([], 0.0)


def test_curves_have_a_panel_for_each_unit(monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr(
        plots, "write_figure", lambda figure, _: found.append(figure)
    )
    rows = [
        {
            "epoch": n, "lr": 1e-3, "lr_backbone": 1e-5, "train loss": 5 / n,
            "valid loss": 4 / n, "valid WER": 90 / n, "valid accuracy": 0.5,
            "valid minDCF": 0.9,
        }
        for n in range(1, 6)
    ]  # fmt: skip
    rows[2]["train loss"] = float("inf")
    write_curves("a.png", rows, "a_b$")
    lines = {
        axes.get_ylabel(): {line.get_label(): line for line in axes.lines}
        for axes in found[0].axes
    }
    assert [*lines] == ["loss", "%", "minDCF", "learning rate"]
    assert [*lines["%"]] == ["valid WER", "valid accuracy"]
    assert list(lines["%"]["valid accuracy"].get_ydata()) == [50.0] * 5
    assert list(lines["loss"]["train loss"].get_xdata()) == [1, 2, 4, 5]
    styles = {line.get_linestyle() for line in lines["%"].values()}
    assert len(styles) == 2  # which differ in print


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "train loss": 2.0}]])
def test_few_epochs_are_drawn(rows, tmp_path):
    write_curves(tmp_path / "a.png", rows)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
