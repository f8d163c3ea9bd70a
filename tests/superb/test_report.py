"""The report: one file without a network, which names other corpora."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.superb.conftest import layers, made_up, partly
from unispeech_sb.superb.report import (
    duration_text,
    model_name,
    summary_text,
    write_report,
)

EMPTY = {"meta", "br", "wbr", "path", "rect"}


class Reader(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag


@pytest.fixture
def page(rows, tmp_path):
    """Text of a report of two models."""
    write_report(tmp_path, rows)
    return (tmp_path / "report.html").read_text("utf-8")


def read(page):
    """What a parser finds in a page."""
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_the_report_needs_no_network(page):
    names = {name for name, _ in read(page).attributes}
    assert not names & {"src", "href", "srcset", "data", "action", "onload"}
    assert not {"script", "link", "img", "iframe"} & set(read(page).seen)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page)


def test_the_report_is_light_and_dark_for_telephones_and_paper(page):
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page
    style = page[page.index("<style>") : page.index("</style>")]
    used = set(re.findall(r"var\((--\w+)\)", style))
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        assert used <= set(re.findall(r"(--\w+):", block))


def test_pictures_are_whole_and_have_a_bar_for_each_layer(page, rows):
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    finished = [
        record
        for row in rows
        for record in row["tasks"].values()
        if record["state"] == "finished"
    ]
    assert len(pictures) == len(finished)
    for text, record in zip(pictures, finished, strict=True):
        bars = ElementTree.fromstring(text).findall("rect")
        assert len(bars) == len(record["layers"])
        heights = [float(bar.get("height")) for bar in bars]
        (peak,) = (n for n, b in enumerate(bars) if b.get("class") == "peak")
        assert heights[peak] == max(heights)


def test_labels_of_a_picture_stay_in_it_and_apart(tmp_path):
    row = made_up()
    tasks = row["tasks"]
    tasks["pr"]["layers"] = [1.0, *[0.0] * 24]
    tasks["asr"]["layers"] = [*[0.0] * 24, 1.0]
    tasks["ks"]["layers"] = [1.0]
    tasks["sid"]["layers"] = layers("x", 49)
    write_report(tmp_path, [row])
    page = (tmp_path / "report.html").read_text("utf-8")
    for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        spans = {}
        for label in ElementTree.fromstring(text).findall("text"):
            width = 7 * len(label.text)
            x = float(label.get("x"))
            left = x - (
                width if label.get("text-anchor") == "end" else width / 2
            )
            assert left >= 0 and left + width <= 320 + 3
            spans.setdefault(label.get("y"), []).append((left, left + width))
        for own in spans.values():
            own.sort()
            assert all(a[1] <= b[0] for a, b in zip(own, own[1:]))


def test_another_corpus_is_named_beside_its_number(page):
    assert '43.21<span class="on">on digits</span>' in page
    for number in re.finditer(r"43\.21", page):
        around = page[max(0, number.start() - 60) : number.end() + 60]
        assert "digits" in around
    assert "digits (not Speech Commands v0.01)" in page
    assert "is in no mean" in page


def test_without_another_corpus_there_is_no_note_of_it(tmp_path):
    write_report(tmp_path, [made_up()])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "is in no mean" not in page
    assert "80.8" in page
    assert "941" in page


def test_what_went_wrong_is_said(page):
    assert "failed: out/tasks/sd/save: No space left on device" in page
    assert "no corpus: IEMOCAP: there is no" in page
    assert "1 failed" in page and "1 not finished" in page
    assert "changed: lr=0.01, batch_size=8" in page
    assert page.count("0.001 (best of 2)") == 1


def test_learning_rates_of_folds_are_all_there(tmp_path):
    row = made_up()
    rows = [[{"learning_rate": r} for r in (0.1, 0.01, 0.001)]] * 5
    row["tasks"]["er"] |= {"lr": [0.1, 0.1, 0.01, 0.1, 0.1], "searched": rows}
    row["tasks"]["sd"]["no_predictions"] = "the leaderboard's form needs h5py"
    write_report(tmp_path, [row])
    text = (tmp_path / "report.html").read_text()
    assert ">0.1, 0.1, 0.01, 0.1, 0.1 (best of 3)<" in text
    assert "no predictions: the leaderboard&#x27;s form needs h5py" in text


def test_names_are_no_markup(tmp_path):
    row = partly("a/<script>alert(1)</script>&amp;")
    row["tasks"]["ks"]["corpus"] = '"><b>x'
    row["tasks"]["ks"]["scores"] = {'KS on "><b>x': 1.0}
    row["tasks"]["sd"]["reason"] = "</table><script>"
    write_report(tmp_path, [row])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "script" not in read(page).seen
    assert "<b>x" not in page


def test_the_terminal_names_other_corpora_too():
    text = summary_text(partly())
    assert "ks  KS on digits 43.21" in text
    assert "sd  failed: out/tasks/sd/save" in text
    assert "mean: needs all 11 on the tasks' own corpora, has 5" in text
    assert "mean: 80.8" in summary_text(made_up())
    assert "leaderboard points: 941.0" in summary_text(made_up())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (90, "90 s"), (3000, "50 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("tiny", "tiny"),
        ("microsoft/unispeech-sat-base", "unispeech-sat-base"),
        ("/data/models/mine/", "mine"),
        ("results/asr/my_speech/1986/export", "asr/my_speech/1986"),
        ("export", "export"),
    ],
)
def test_names_of_models(model, name):
    assert model_name(model) == name
