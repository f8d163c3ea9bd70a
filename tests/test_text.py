"""Text files of every kind are read or refused in one line with a reason."""

import bz2
import gzip
import lzma
import os
import time
import tracemalloc

import pytest

from unispeech_sb.text import (
    absent,
    compare_names,
    composed,
    lines_of,
    lower,
    named,
    plain_words,
    read_number,
    read_text,
    upper,
)

TEXT = "zürich 1\nsão paulo 2\n\nend"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        gzip.compress(TEXT.encode(), mtime=0),
        bz2.compress(TEXT.encode()),
        lzma.compress(TEXT.encode()),
        gzip.compress(b"\xef\xbb\xbf" + TEXT.encode() + b"\r\n", mtime=0),
    ],
)
def test_every_way_to_write_a_text_gives_the_same_lines(tmp_path, content):
    path = tmp_path / "list"
    path.write_bytes(content)
    assert list(lines_of(path)) == list(enumerate(TEXT.split("\n"), 1))
    assert read_text(path) == TEXT


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_whole_and_counted_however_long_the_file(tmp_path, end):
    path = tmp_path / "list"
    wanted = [f"ü{number} {'x' * (number % 97)}" for number in range(60000)]
    path.write_bytes(end.join(wanted).encode())
    assert list(lines_of(path)) == list(enumerate(wanted, 1))
    wanted[54321] = "\0"
    path.write_bytes(end.join(wanted).encode() + b"\xe9")
    with pytest.raises(ValueError, match="line 54322: .*NUL"):
        list(lines_of(path))
    wanted[54321] = "é"
    path.write_bytes(end.join(wanted).encode("latin-1", "replace"))
    with pytest.raises(ValueError, match="line 1: .*0xfc at byte 1"):
        list(lines_of(path))


def test_lines_before_a_fault_are_given(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"one\ntwo\nth\xe9\n")
    lines = lines_of(path)
    assert [next(lines), next(lines)] == [(1, "one"), (2, "two")]
    with pytest.raises(ValueError, match="line 3: .* 0xe9 at byte 3"):
        next(lines)


def test_only_line_ends_end_lines(tmp_path):
    path = tmp_path / "list"
    odd = "one\u2028two\x0bthree\x0cfour\x85five"
    path.write_text(f"{odd}\nsix\n", encoding="utf-8")
    assert [line for _, line in lines_of(path)] == [odd, "six"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nzürich\n".encode("latin-1"), "line 2: .* byte 0xfc at byte 2"),
        ("zürich\n".encode("utf-16"), "line 1: .*got UTF-16"),
        ("zürich\n".encode("utf-32"), "line 1: .*got UTF-32"),
        ("a\n".encode("utf-16-le"), "line 1: .*NUL byte"),
        (b"a\nb\nc\0d\n", "line 3: .*NUL byte"),
        (gzip.compress(bytes(range(256)) * 9, mtime=0)[:-9], "line .: .*"),
        (
            gzip.compress(b"ab\n" * 9999, mtime=0)[:-12],
            "line .*: the packed file is cut",
        ),
        (bz2.compress(b"ab\n" * 9999)[:-12], "line .*: the packed file is cut"),
        (lzma.compress(b"ab\n")[:-9], "line .*: the packed file is cut"),
        (
            b"\x1f\x8bno gzip at all",
            "line 1: the packed file is cut or damaged",
        ),
        (b"a\n" + b"x" * (2**24 + 9), "line 2: .*more than 16777216 bytes"),
        (b"\xed\xa0\x80\n", "line 1: .*0xed"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"list.txt, {message}") as error:
        read_text(path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_packed_file_that_unpacks_to_a_giant_line_is_refused(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(200):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="line 1: .*more than"):
        read_text(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.slow
def test_a_packed_file_of_nothing_but_line_ends_is_refused(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\n" * 2**25))
    began = time.process_time()
    message = "line .*: .* got a packed file of more than"
    with pytest.raises(ValueError, match=message):
        read_text(path)
    assert time.process_time() - began < 20
    path.write_bytes(gzip.compress(b"1 a b\n" * 10**5))
    assert sum(1 for _ in lines_of(path)) == 10**5


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: there is no such file"):
        read_text(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a text file; it is a fold"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    "field", ["", "x", "nan", "inf", "-inf", "-1", "1e300", "1e12", "1_0"]
)
def test_numbers_out_of_range_are_refused(field):
    assert read_number("0.25") == 0.25
    with pytest.raises(ValueError, match="^a, line 3: expected seconds .*got"):
        read_number(field, "a, line 3")


def test_lists_without_a_common_name_are_refused_with_both_sides():
    with pytest.raises(ValueError) as error:
        compare_names(["a", "b"], {"x": 1, "y": 2}, "wav.scp", "text")
    assert str(error.value) == (
        "wav.scp and text have no name in common: a, b against x, y"
    )
    assert compare_names([], ["x"], "wav.scp", "text") == []


def test_lists_that_meet_in_part_are_a_warning(caplog):
    wanted = [f"n{number}" for number in range(9)]
    assert len(compare_names(wanted, wanted[:3], "wav.scp", "text")) == 6
    assert "6 of 9 names of wav.scp are not in text: n3, n4, n5 and 3 more" in (
        caplog.text
    )
    assert named([]) == "none"
    assert named(["\x1b[31m", "é", 900 * "a"]) == (
        f"\\x1b[31m, é, {100 * 'a'}...{100 * 'a'}"
    )


@pytest.mark.parametrize("language", ["tr", "az", "tr-TR", "az_AZ", "crh"])
def test_turkish_letters_keep_their_dots(language):
    assert lower("İSTANBUL IŞIK", language) == "istanbul ışık"
    assert lower("DIŞARI I\u0307yi", language) == "dışarı iyi"
    assert upper("ılık istanbul", language) == "ILIK İSTANBUL"


def test_other_languages_have_one_i():
    assert lower("İstanbul IS") == "istanbul is"
    assert lower("ISTANBUL", "de") == "istanbul"
    assert upper("istanbul", "de") == "ISTANBUL"
    assert lower("ΟΔΟΣ") == "οδος"
    assert lower("I\u0307\u0301", "lt") == "í"


@pytest.mark.parametrize(
    ("sentence", "language", "words"),
    [
        ("Wort\u00adtrennung \ufeffund\u2060 \u200eso\u200f", "de",
         "worttrennung und so"),
        ("می\u200cخواهم", "fa", "میخواهم"),
        ("khm\u200bword", "km", "khm word"),
        ("Paral·lel, COL·LECCIÓ! Col•legi ŀl", "ca",
         "paral·lel col·lecció col·legi l·l"),
        ("in·hèrn · punt·", "oc", "in·hèrn punt"),
        ("étudiant·e", "fr", "étudiant e"),
        ("e\u0301te\u0301 n\u0303", "es", "été ñ"),
        ("g\u0303uarani", "gn", "g\u0303uarani"),
        ("\u0301a \u0303 b", None, "a b"),
        ("за́мок й", "ru", "замок й"),
        ("l‘eau l’eau lʼeau l`eau l′eau 'dit'", "fr",
         "l'eau l'eau l'eau l'eau l'eau dit"),
        ("Tog‘ o'zbek 'bu'", "uz", "togʻ oʻzbek bu"),
        ("ﬁn ĳs ｆｕｌｌ", "nl", "fin ijs full"),
        ("مـــرحبا ﻼ", "ar", "مرحبا لا"),
        ("น้ำ", "th", "น้ำ"),
        ("한국어 ㄱ", "ko", "한국어 ㄱ"),
        ("हिन्दी क्‍ष", "hi", "हिन्दी क्ष"),
        ("a❤️b", None, "a b"),
    ],
)  # fmt: skip
def test_words_of_a_language_are_its_letters(sentence, language, words):
    assert plain_words(sentence, language) == words


def test_composing_leaves_what_is_written():
    assert composed("So\u00ad\u200d E\u0301!") == "So É!"


def test_what_is_not_there_may_have_a_similar_name(tmp_path):
    (tmp_path / "my_words").mkdir()
    said = absent(tmp_path / "mywords")
    assert said == (
        f"there is no such file or folder; did you mean {tmp_path}/my_words?"
    )
    assert absent(tmp_path / "talks", "folder") == "there is no such folder"
    assert absent(tmp_path / "none" / "a") == "there is no such file or folder"
    assert absent(tmp_path / ("a" * 300), "file") == "there is no such file"
    os.mkfifo(tmp_path / "pipe")
    found = absent(tmp_path / "pipe", "text file")
    assert found.startswith("expected a text file; it is a pipe")


def test_what_is_there_but_of_another_kind_is_said(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path, what, said in (
        (tmp_path / "loop", "file", "no such file; it is a link to loop"),
        (tmp_path / "link", "file", "file; it is a link to nowhere.wav"),
        (tmp_path / "pipe", "file", "expected a file; it is a pipe, a s"),
        ("/dev/null", "recording", "a recording; it is a pipe, a socket"),
        (tmp_path, "file", "expected a file; it is a folder"),
        (tmp_path / "file", "folder", "expected a folder; it is a file"),
        ("-", "file", "no such file; the standard input is not read"),
        ("", "file", "expected the name of a file; got an empty one"),
    ):
        assert said in absent(path, what)
        assert "did you mean" not in absent(path, what)
