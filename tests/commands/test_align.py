"""``unispeech-sb align``: texts from everywhere, one alignment."""

import json
import re

import pytest
import soundfile

from tests.commands.test_transcribe import save_tiny
from tests.inference.models import uneven_speech
from unispeech_sb import load
from unispeech_sb.commands import main
from unispeech_sb.commands.align import align


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recognizer of the letters a, b and c."""
    return save_tiny(tmp_path_factory.mktemp("asr") / "tiny", 20)


TEXTS = {"talks/a": "ab ba", "talks/in/b": "Cab!", "talks/c": "a\nb c"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with recordings in a tree and no text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talks" / "in").mkdir(parents=True)
    rates = (16000, 44100, 8000)
    for name, rate, seconds in zip(TEXTS, rates, (1.0, 1.5, 1.2), strict=True):
        wav = uneven_speech(seconds, rate).numpy()
        soundfile.write(tmp_path / f"{name}.wav", wav, rate)
    return tmp_path


@pytest.fixture
def expected(folder, place):
    """What the interface makes of each, alone."""
    model = load(folder)
    return {
        name: [
            (word.text, word.start_s, word.end_s)
            for word in model.align_file(f"{name}.wav", text).words
        ]
        for name, text in TEXTS.items()
    }


def found(capsys):
    """Name -> words of the JSON that was printed."""
    return {
        line["name"].removesuffix(".wav"): [
            (word["word"], word["start"], word["end"]) for word in line["words"]
        ]
        for line in map(json.loads, capsys.readouterr().out.splitlines())
    }


def beside(place, suffix=".txt"):
    """Writes a text beside each recording."""
    for name, text in TEXTS.items():
        (place / f"{name}{suffix}").write_text(text, "utf-8")
    return []


def in_a_folder(place):
    """Writes the texts in a tree of their own."""
    for name, text in TEXTS.items():
        path = place / f"{name}.txt".replace("talks", "texts")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8-sig")
    return ["--text", "texts"]


def in_a_csv(place):
    """Writes a table by path."""
    rows = [f'{name}.wav,"{text}"\n' for name, text in TEXTS.items()]
    (place / "texts.csv").write_text("path,wrd\n" + "".join(rows))
    return ["--text", "texts.csv"]


def in_a_tsv(place):
    """Writes a table by names, with other columns too."""
    rows = [f'{n.split("/")[-1]}\tx\t"{t}"\n' for n, t in TEXTS.items()]
    (place / "texts.tsv").write_text("ID\tspeaker\ttext\n" + "".join(rows))
    return ["--text", "texts.tsv"]


def in_a_table_of_excel(place):
    """Writes a table as spreadsheets do, with the names that training takes."""
    rows = [f'{n.split("/")[-1]}.wav;"{t}"\n' for n, t in TEXTS.items()]
    text = "File_Name;Transcript\n" + "".join(rows)
    (place / "texts.csv").write_text(text, "utf-8-sig")
    return ["--text", "texts.csv"]


def in_a_list(place):
    """Writes Kaldi's text."""
    rows = [
        f"{n.split('/')[-1]} {' '.join(t.split())}\n" for n, t in TEXTS.items()
    ]
    (place / "text").write_text("".join(rows))
    return ["--text", "text"]


@pytest.mark.parametrize(
    "write",
    [
        beside,
        lambda place: beside(place, ".lab"),
        in_a_folder,
        in_a_csv,
        in_a_tsv,
        in_a_table_of_excel,
        in_a_list,
    ],
)
def test_texts_are_found_wherever_they_are(
    write, folder, place, expected, capsys
):
    options = write(place)
    assert main(["align", str(folder), "talks", "-f", "json", *options]) == 0
    assert found(capsys) == expected


def test_a_batch_is_as_each_alone(folder, place, expected, capsys):
    beside(place)
    for seconds in ("1", "60"):
        options = ["-f", "json", "--batch-seconds", seconds]
        align([str(folder), "talks", *options])
        assert found(capsys) == expected


def test_names_of_kaldi_have_their_texts(folder, place, expected, capsys):
    names = {"utt1": "talks/a", "utt2": "talks/in/b"}
    (place / "wav.scp").write_text(
        "".join(f"{name} {path}.wav\n" for name, path in names.items())
    )
    texts = "".join(f"{n} {TEXTS[path]}\n" for n, path in names.items())
    (place / "trans").write_text(texts)
    line = [str(folder), "wav.scp", "--text", "trans", "-f"]
    align([*line, "json"])
    assert found(capsys) == {n: expected[path] for n, path in names.items()}
    align([*line, "ctm"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["utt1", "utt1", "utt2"]


def test_the_words_may_be_on_the_command_line(folder, place, expected, capsys):
    align([str(folder), "talks/a.wav", "--text", "ab ba", "-f", "json"])
    assert [*found(capsys).values()] == [expected["talks/a"]]
    (place / "mine.md").write_text("ab ba")
    align([str(folder), "talks/a.wav", "--text", "mine.md", "-f", "json"])
    assert [*found(capsys).values()] == [expected["talks/a"]]
    align([str(folder), "talks/a.wav", "--text", "ab ba"])
    printed = capsys.readouterr().out
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [row[2] for row in rows] == ["ab", "ba"]
    assert all(re.fullmatch(r"\d+\.\d{3}", t) for row in rows for t in row[:2])


def test_each_format_has_a_file(folder, place, capsys):
    beside(place)
    assert main(["align", str(folder), "talks", "-o", "out", "-f", "all"]) == 0
    made = sorted(p.name for p in (place / "out").rglob("*") if p.is_file())
    suffixes = ("TextGrid", "ctm", "json", "srt", "tsv", "txt", "vtt")
    assert made == [f"{n}.{s}" for n in "abc" for s in suffixes]
    srt = (place / "out/c.srt").read_text()
    assert [*srt.split("\n")[2::4]][:2] == ["a", "b c"]
    before = (place / "out/c.srt").stat().st_mtime_ns
    align([str(folder), "talks", "-o", "out", "-f", "all"])
    assert (place / "out/c.srt").stat().st_mtime_ns == before
    assert "3 of 3 are in out already" in capsys.readouterr().err


def test_what_fails_is_named_and_the_others_are_aligned(
    folder, place, expected, capsys
):
    beside(place)
    (place / "talks/in/b.txt").write_text("cab 5")
    (place / "talks/c.txt").unlink()
    (place / "talks/d.wav").write_text("no audio")
    (place / "talks/d.txt").write_text("ab")
    soundfile.write(place / "talks/e.wav", uneven_speech(0.1).numpy(), 16000)
    (place / "talks/e.txt").write_text("abba " * 9)
    (place / "talks/f.wav").write_bytes((place / "talks/a.wav").read_bytes())
    (place / "talks/f.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(SystemExit) as caught:
        main(["align", str(folder), "talks", "gone.wav", "-f", "json"])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    assert json.loads(line)["name"] == "talks/a.wav"
    *_, first, c, d, e, f, b, gone = captured.err.splitlines()
    assert first == "align: 6 of 7 files failed:"
    assert "expected its text in talks/c.txt; there is no such file" in c
    assert "d.wav: not readable as audio" in d
    assert "e.wav: text: expected at most what 4 frames can hold" in e
    assert "f.txt, line 1: expected text in UTF-8, got UTF-16" in f
    assert "in/b.wav: text, line 1:" in b and "cannot spell 5" in b
    assert gone == "  gone.wav: there is no such file"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["talks"], "expected its text in talks/a.txt; there is no such file"),
        (["talks", "--text", "ab"], "a folder with the texts of 3 recordings"),
        (["talks", "--text", "gone.txt"], "gone.txt: there is no such file"),
        (["talks/a.wav", "--text", "my a.lab"], "my a.lab: there is no such"),
        (
            ["talks/a.wav", "--text", "talks/aa.txt"],
            "talks/aa.txt: there is no such file",
        ),
        (["talks/a.wav", "--text", ""], "expected words; got ''"),
        (["talks/a.wav", "--text", "x5"], "cannot spell x5 (no token for x 5)"),
        (["talks/a.wav", "--text", "ab " * 99], "its 99 words take"),
        (["gone.wav", "--text", "ab"], "gone.wav: there is no such file"),
    ],
)
def test_mistakes_are_a_sentence(options, said, folder, place, capsys):
    try:
        code = main(["align", str(folder), *options])
    except SystemExit as end:
        code = end.code
    assert code == 1
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err
    assert "internal error" not in captured.err


def test_texts_are_never_written_over(folder, place):
    beside(place)
    with pytest.raises(ValueError, match="than the input talks/a.txt"):
        align([str(folder), "talks", "-o", "talks"])
    assert (place / "talks/a.txt").read_text() == TEXTS["talks/a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file;words\n", "line 1: expected a column of path, wav"),
        ("path,text\nother.wav,ab\n", "have no name in common"),
        ("path,text\na.wav\n", "line 2: expected a value in the column text"),
    ],
)
def test_tables_that_do_not_fit_are_refused(content, said, folder, place):
    (place / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=f"t.csv.*{said}"):
        align([str(folder), "talks", "--text", "t.csv"])


def test_words_without_letters_may_be_skipped(folder, place, capsys):
    line = [str(folder), "talks/a.wav", "--text", "ab 7 ba", "-f", "json"]
    with pytest.raises(SystemExit):
        align(line)
    assert "--skip-unknown" in capsys.readouterr().err
    align([*line, "--skip-unknown"])
    words = json.loads(capsys.readouterr().out)["words"]
    assert [word["word"] for word in words] == ["ab", "7", "ba"]
    assert words[1]["confidence"] == 0 and words[1]["letters"] == []
    assert words[0]["end"] <= words[1]["start"] <= words[1]["end"]
