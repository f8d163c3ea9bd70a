"""QUESST 2014 in its layout, lists of one's own, and the scorer's files."""

from xml.etree import ElementTree

import numpy as np
import pytest

from tests.dataio.corpora.quesst import write_quesst
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.quesst14 import (
    NOT_REPORTED,
    Truth,
    read_truth,
    write_stdlist,
)
from unispeech_sb.metrics.term_detection import max_term_weighted_value

ENGLISH = {"language": "nnenglish"}


@pytest.fixture
def root(tmp_path):
    return write_quesst(tmp_path / "quesst14Database")


def read(folder, **options):
    """Records of queries, by their split, and of documents, at None."""
    hparams = {"data_folder": folder, **options}
    found = {}
    for record in read_corpus("query_by_example", hparams):
        found.setdefault(record.get("split"), []).append(record)
    return found


def names(records):
    return [record["ID"] for record in records]


def test_the_english_part_is_read(root):
    assert find_corpus("query_by_example", {"data_folder": root}) == "quesst14"
    found = read(root, **ENGLISH)
    assert names(found["valid"]) == ["quesst14_dev_0002", "quesst14_dev_0004"]
    assert names(found["test"]) == ["quesst14_eval_0002", "quesst14_eval_0004"]
    assert names(found[None]) == ["quesst14_00002", "quesst14_00004"]
    assert found[None][0]["wav"] == str(root / "Audio/quesst14_00002.wav")
    assert len(read(root)[None]) == 4


def test_the_truth_is_of_all_languages_where_superb_asks_for_it(root):
    found = read(root, **ENGLISH)
    own = read_truth(found["valid"], found[None])
    assert own.held == {
        ("quesst14_dev_0002", "quesst14_00002"),
        ("quesst14_dev_0004", "quesst14_00004"),
    }
    assert own.table().tolist() == [[True, False], [False, True]]
    every = read_truth(found["valid"], found[None], full_lists=True)
    assert every.table().tolist() == np.eye(4, dtype=bool).tolist()


def test_what_was_not_searched_scores_minus_10_and_halves_the_value(root):
    """Two of four queries are English: found without a fault they give 1 of
    English alone, 1/2 of all, for the others are missed."""
    found = read(root, **ENGLISH)
    reported = np.array([[2.5, -1.0], [0.0, 2.25]])
    values = []
    for full_lists in (False, True):
        truth = read_truth(found["test"], found[None], full_lists)
        scores = truth.scores(
            names(found["test"]), names(found[None]), reported
        )
        values.append(max_term_weighted_value(scores, truth.table()))
    assert values == [(1.0, 2.25), (0.5, 2.25)]
    assert scores.tolist() == [
        [NOT_REPORTED] * 4,
        [NOT_REPORTED, 2.5, NOT_REPORTED, -1.0],
        [NOT_REPORTED] * 4,
        [NOT_REPORTED, 0.0, NOT_REPORTED, 2.25],
    ]


def test_names_that_are_not_scored_are_left_out():
    truth = Truth(["q"], ["b", "a"], {("q", "a")})
    found = truth.scores(["x", "q"], ["a", "c"], np.array([[1, 2], [3, 4.0]]))
    assert found.tolist() == [[NOT_REPORTED, 3.0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("language_key_dev.lst", "a/b.wav\n", "line 1: expected a path and a"),
        ("language_key_dev.lst", "a/b.wav nnenglish\n", "line 1: no such file"),
        ("language_key_dev.lst", "a/b.wav czech\n", "nnenglish, got none"),
    ],
)
def test_a_wrong_list_is_named(root, name, text, message):
    (root / "scoring" / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read(root, **ENGLISH)


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".rttm", "LEXEME other 1 0 1 quesst14_dev_0001\n", "got other 1 0 1"),
        (".rttm", "LEXEME quesst14_00001 1 0 1 x\n", "line 1: expected a docu"),
        (".tlist.xml", "<termlist", "expected XML"),
        (".ecf.xml", "<ecf></ecf>", "expected elements excerpt"),
    ],
)
def test_a_wrong_truth_is_named(root, suffix, text, message):
    found = read(root, **ENGLISH)
    folder = root / "scoring/groundtruth_quesst14_dev"
    (folder / f"quesst14_dev{suffix}").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_truth(found["valid"], found[None])
    (folder / "more.rttm").touch()
    with pytest.raises(ValueError, match=r"one file \*.rttm.*; got 2"):
        read(root, **ENGLISH)


@pytest.fixture
def lists(root):
    """One's own lists, of the recordings of the miniature."""
    (root / "scoring").rename(root / "unused")
    (root / "queries.csv").write_text(
        "id,path,split,wrd\n"
        "q1,dev_queries/quesst14_dev_0001.wav,dev,blue boat\n"
        "q2,eval_queries/quesst14_eval_0001.wav,eval,boat\n"
    )
    (root / "documents.csv").write_text(
        "id,path,split,wrd\n"
        "d1,Audio/quesst14_00001.wav,x,a blue boat\n"
        "d2,Audio/quesst14_00002.wav,y,blue boats\n"
        "d3,Audio/quesst14_00003.wav,z,boat in blue\n"
    )
    return root


def test_ones_own_lists_say_it_by_words(lists):
    found = read(lists)
    assert names(found["valid"] + found["test"]) == ["q1", "q2"]
    assert read_truth(found["valid"], found[None]).held == {("q1", "d1")}
    held = read_truth(found["test"], found[None]).held
    assert held == {("q2", "d1"), ("q2", "d3")}
    del found["test"][0]["wrd"]
    with pytest.raises(ValueError, match="expected its words in the column"):
        read_truth(found["test"], found[None])


def test_ones_own_lists_say_it_by_a_third_one(lists):
    (lists / "truth.csv").write_text("query,document\nq1,d3\nq2,d2\nq1,d2\n")
    found = read(lists)
    held = read_truth(found["valid"], found[None], full_lists=True).held
    assert held == {("q1", "d3"), ("q1", "d2")}
    (lists / "truth.csv").write_text("query,document\nq1,d9\n")
    with pytest.raises(ValueError, match="line 2: expected a document .* 'd9'"):
        read_truth(found["valid"], found[None])
    (lists / "truth.csv").write_text("query,document\nq7,d1\n")
    with pytest.raises(ValueError, match="the queries"):
        read_truth(found["valid"], found[None])


def test_the_list_is_as_the_scorer_reads_it(tmp_path):
    path = tmp_path / "benchmark.stdlist.xml"
    scores = np.array([[2.0, 2.00001], [-1.23456, 3.0]])
    write_stdlist(path, ["q1", "q&2"], ["d1", "d2"], scores, 2.0)
    root = ElementTree.parse(path).getroot()
    assert root.tag == "stdlist"
    assert root.attrib == {
        "termlist_filename": "benchmark.stdlist.xml",
        "indexing_time": "1.00",
        "language": "english",
        "index_size": "1",
        "system_id": "benchmark",
    }
    first, second = root
    assert second.attrib == {
        "termid": "q&2",
        "term_search_time": "1.0",
        "oov_term_count": "1",
    }
    assert [term.attrib for term in first] == [
        {
            "file": name,
            "channel": "1",
            "tbeg": "0.000",
            "dur": "0.00",
            "score": score,
            "decision": decision,
        }
        for name, score, decision in (
            ("d1", "2.0000", "NO"),
            ("d2", "2.0000", "YES"),  # decided before it is rounded
        )
    ]
    assert [term.get("score") for term in second] == ["-1.2346", "3.0000"]
