"""Counts, ratios, table and picture, against numbers worked by hand."""

import csv
import math
import re

import pytest
import torch
from matplotlib.image import imread

from unispeech_sb.metrics.classification import ConfusionMatrix

# truth a: 3 right, 1 as b; b: 2 right, 2 as c; c: 1 as a, 1 right; d: unseen
TARGETS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
PREDICTIONS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 2])


@pytest.fixture
def matrix():
    """Four classes, of which ``d`` neither occurs nor is predicted."""
    matrix = ConfusionMatrix(["a", "b", "c", "d"])
    matrix.append(PREDICTIONS, TARGETS)
    return matrix


def test_rows_are_the_truth(matrix):
    assert matrix.counts.tolist() == [
        [3, 1, 0, 0],
        [0, 2, 2, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    assert matrix.accuracy == pytest.approx(0.6)


def test_batches_add_up(matrix):
    split = ConfusionMatrix(["a", "b", "c", "d"])
    for part in (slice(0, 3), slice(3, 10)):
        split.append(PREDICTIONS[part].to(torch.int32), TARGETS[part])
    assert torch.equal(split.counts, matrix.counts)


def test_accuracy_of_nothing_is_nan():
    assert math.isnan(ConfusionMatrix(["a"]).accuracy)


def test_table_holds_the_ratios_worked_by_hand(matrix):
    lines = [line.split() for line in matrix.table().splitlines()[1:]]
    # F1 = 2 hits / (support + predicted); d is not part of the average:
    # F1 (3/4 + 4/7 + 2/5) / 3 = 0.574, recall (3/4 + 1/2 + 1/2) / 3 = 0.583
    assert lines == [
        ["a", "4", "0.750", "0.750", "0.750", "b", "(1)"],
        ["b", "4", "0.667", "0.500", "0.571", "c", "(2)"],
        ["c", "2", "0.333", "0.500", "0.400", "a", "(1)"],
        ["d", "0", "0.000", "0.000", "0.000"],
        ["macro", "average", "10", "0.583", "0.583", "0.574"],
    ]


def test_table_and_terminal_are_aligned():
    matrix = ConfusionMatrix(["_unknown_", "go", "a rather long label"])
    matrix.append(torch.tensor([0, 1, 2] * 400), torch.tensor([0, 1, 1] * 400))
    header, *rows = matrix.table().splitlines()
    end = header.index("clips") + len("clips")
    clips = [row[:end].split()[-1] for row in rows]
    assert clips == ["400", "800", "0", "1200"]
    assert {len(line) for line in matrix.terminal().splitlines()} == {34}


def test_terminal_shows_counts_under_the_numbers_of_classes():
    matrix = ConfusionMatrix(["no", "yes"])
    matrix.append(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    assert matrix.terminal().splitlines() == [
        "        0  1",
        " 0 no   1  1",
        " 1 yes  .  1",
    ]


def test_fifteen_classes_fit_a_terminal():
    labels = [f"keyword{i:02d}" for i in range(15)]
    matrix = ConfusionMatrix(labels)
    matrix.append(torch.arange(15).repeat(999), torch.arange(15).repeat(999))
    assert max(map(len, matrix.terminal().splitlines())) <= 80


def test_csv_gives_the_counts_back(matrix, tmp_path):
    matrix.write(tmp_path, stem="test")
    with open(tmp_path / "test.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["truth", "a", "b", "c", "d"]
    assert [row[0] for row in rows] == ["a", "b", "c", "d"]
    counts = [[int(count) for count in row[1:]] for row in rows]
    assert counts == matrix.counts.tolist()
    assert (tmp_path / "test.txt").read_text() == matrix.table() + "\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "test.csv",
        "test.png",
        "test.txt",
    ]


def test_picture_is_darker_where_counts_are_higher(tmp_path):
    matrix = ConfusionMatrix(["right", r"$\wrong$"])
    matrix.append(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
    matrix.write(tmp_path)
    pixels = imread(tmp_path / "confusion.png")[..., :3].mean(-1)
    left, right = (half.mean() for half in torch.tensor(pixels).chunk(2, 1))
    assert left < right


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([[0], [0]], [0, 0], r"\[2, 1\] and \[2\]"),
        ([0, 0, 0], [0, 0], r"\[3\] and \[2\]"),
        ([0.0, 0.0], [0, 0], "predictions .*float32"),
        ([0, 2], [0, 0], r"predictions in 0\.\.\.1, got 2"),
        ([0, 0], [0, -1], r"targets in 0\.\.\.1, got -1"),
    ],
)
def test_bad_batches_are_refused_whole(predictions, targets, message):
    matrix = ConfusionMatrix(["no", "yes"])
    with pytest.raises(ValueError, match=message):
        matrix.append(torch.tensor(predictions), torch.tensor(targets))
    assert matrix.counts.sum() == 0


@pytest.mark.parametrize("labels", [[], ["yes", "yes"]])
def test_labels_have_to_differ(labels):
    with pytest.raises(ValueError, match="labels that differ"):
        ConfusionMatrix(labels)


def test_counts_are_read_as_they_were_written(tmp_path):
    matrix = ConfusionMatrix(["no, thanks", 'a "b"', "١"])
    matrix.append(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 2]))
    matrix.write(tmp_path)
    found = ConfusionMatrix.read(tmp_path / "confusion.csv")
    assert found.labels == matrix.labels
    assert torch.equal(found.counts, matrix.counts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "truth\n",
        "truth,a,b\na,1,0\n",
        "truth,a,b\nb,1,0\na,0,1\n",
        "truth,a,b\na,1,0\nb,0,-1\n",
        "truth,a,b\na,1\nb,0,1\n",
        "id,path\n1,a.wav\n",
    ],
)
def test_what_is_no_matrix_is_refused(text, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="other.csv: expected counts of"):
        ConfusionMatrix.read(path)


def test_a_notebook_shows_escaped_counts(matrix):
    matrix.labels[1] = "<script>"
    shown = matrix._repr_html_()
    assert "<script>" not in shown and shown.count("&lt;script&gt;") == 2
    assert re.findall(r"<td[^>]*>(\d*)", shown) == [
        *("3", "1", "", "", "", "2", "2", ""),
        *("1", "", "1", "", "", "", "", ""),
    ]
    assert "accuracy 60.0% of 10" in shown
    assert "nothing is counted" in ConfusionMatrix(["a"])._repr_html_()


def test_a_notebook_shows_the_classes_with_most_errors():
    matrix = ConfusionMatrix([f"w{n}" for n in range(1000)])
    truth = torch.arange(1000)
    predicted = torch.where(truth == 999, 500, truth)
    matrix.append(predicted, truth)
    shown = matrix._repr_html_()
    assert "<th dir" in shown and ">w999<" in shown and ">w500<" in shown
    assert shown.count("<tr>") == 25 and "976 more classes" in shown
    assert len(shown) < 60_000
