"""``unispeech-sb data check``: what there is, and what is wrong."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from unispeech_sb.commands import main


@pytest.fixture
def folder(tmp_path):
    """Twelve clips of two words by six speakers, in a CSV without splits."""
    draw = np.random.default_rng(0)
    lines = ["path,label,text,speaker"]
    for number in range(12):
        rate = 8000 if number == 0 else 16000
        wav = 0.1 * draw.normal(size=(rate, 1 + number % 2))
        soundfile.write(tmp_path / f"{number}.wav", wav, rate)
        word = ("yes", "no")[number // 6]
        lines.append(f"{number}.wav,{word},{word},s{number % 6}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def check(capsys, *words):
    """Exit status, and what was found, as JSON."""
    status = 0
    try:
        status = main(["data", "check", *map(str, words), "--json"])
    except SystemExit as stop:
        status = stop.code
    return status, json.loads(capsys.readouterr().out)


def kinds(report):
    """Kind of a problem -> its examples."""
    return {p["kind"]: p["examples"] for p in report["problems"]}


def add(folder, text):
    """Adds lines to the list."""
    with open(folder / "list.csv", "a", encoding="utf-8") as file:
        file.write(text)


def test_what_is_there_is_counted(folder, capsys):
    status, report = check(capsys, folder)
    assert status == 0 and not report["problems"]
    assert (report["form"], report["task"]) == ("table", None)
    own = report["splits"]
    assert set(own) == {"train", "valid", "test"}
    assert sum(split["utterances"] for split in own.values()) == 12
    assert sum(split["speakers"] for split in own.values()) == 6
    assert own["train"]["labels"] == {"no": 4, "yes": 4}
    rates = [split["sample_rates"].get("8000", 0) for split in own.values()]
    assert sum(rates) == 1
    assert own["valid"]["hours"] == round(2 / 3600, 4)
    assert report["splits_made"]["kept together"] == "speaker"
    assert report["next"].startswith("unispeech-sb recipe keyword_spotting ")
    assert "--label_column" not in report["next"]


def test_people_read_a_table(folder, capsys):
    words = ["data", "check", str(folder), "--task", "keyword_spotting"]
    assert main(words) in (0, None)
    out = capsys.readouterr().out
    assert "a folder with one CSV or TSV (table)" in out
    assert "each speaker in one split only" in out
    assert "problems: none" in out and "--num_classes=2" in out
    assert max(map(len, out.splitlines()[1:-1])) <= 80


def test_problems_are_named_and_are_the_exit_status(folder, capsys):
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    (folder / "text.wav").write_text("no audio at all")
    shutil.copy(folder / "3.wav", folder / "copy.wav")
    add(
        folder,
        "gone.wav,yes,yes,s1\nsilent.wav,no,no,s1\ntext.wav,no,no,s1\n"
        "copy.wav,yes,zebra,s3\n5.wav,yes,,s5\n",
    )
    status, report = check(capsys, folder)
    found = kinds(report)
    assert status == 1
    assert "list.csv, line 14: no such file" in found["missing files"][0]
    assert "silent.wav: all silent" in found["silent recordings"][0]
    assert "text.wav" in found["unreadable recordings"][0]
    assert found["empty texts"] == found["names that occur twice"] == ["5"]
    assert found["letters that occur once"] == ["a", "b", "r", "z"]
    twice = found["recordings that are there twice"]
    assert len(twice) == 2 and any("copy.wav" in text for text in twice)


def test_what_is_in_two_splits_is_named(folder, capsys):
    lines = (folder / "list.csv").read_text().splitlines()
    splits = ["train"] * 8 + ["valid"] * 2 + ["test"] * 2
    rows = [f"{line},{split}" for line, split in zip(lines[1:], splits)]
    rows += ["copy.wav,new,no,x,test"]
    shutil.copy(folder / "3.wav", folder / "copy.wav")
    header = f"{lines[0]},split"
    (folder / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    status, report = check(capsys, folder)
    found = kinds(report)
    assert status == 1
    assert "s2 (train, valid)" in found["speakers in two splits"]
    assert found["labels that are not in train"] == ["new (test)"]
    (both,) = found["recordings in two splits"]
    assert "3.wav" in both and both.endswith("(train, test)")
    status, report = check(capsys, folder, "--task", "speaker_identification")
    assert "speakers in two splits" not in kinds(report)
    assert kinds(report)["labels that are not in train"] == ["x (test)"]
    _, report = check(capsys, folder, "--quick")
    assert "recordings in two splits" not in kinds(report)


@pytest.mark.parametrize("column", ["wrd", "text", "sentence"])
def test_single_words_are_keywords(folder, capsys, column):
    path = folder / "list.csv"
    path.write_text(
        path.read_text()
        .replace("label,text", f"mood,{column}")
        .replace("yes,yes", "x,yes")
    )
    _, report = check(capsys, folder)
    assert report["next"].endswith(f"--label_column={column} --num_classes=2")
    assert "recipe keyword_spotting" in report["next"]
    path.write_text(path.read_text().replace(",yes,", ",yes it is,"))
    _, report = check(capsys, folder)
    assert "recipe asr " in report["next"]


def test_keys_of_the_recipe_are_taken(folder, capsys):
    (folder / "list.csv").write_text(
        (folder / "list.csv").read_text().replace("label", "mood")
    )
    words = [folder, "--task", "keyword_spotting"]
    status, report = check(capsys, *words)
    assert status == 1 and "expected a column label" in kinds(report)["rows"][0]
    status, report = check(capsys, *words, "--label_column=mood")
    assert status == 0 and report["next"].endswith(" --label_column=mood")
    assert main(["data", "check", str(folder), "--task", "asr", "--x=1"]) == 1
    assert "has no key 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["."], ".: expected data of one of these forms; it is none of them"),
    ],
)
def test_wrong_folders_are_one_sentence(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *words]) == 1
    error = capsys.readouterr().err.strip()
    sentence, *forms = error.splitlines()
    assert sentence.endswith(message)
    assert all(form.startswith("  - ") for form in forms)


@pytest.mark.parametrize(
    "words", [["check"], ["look", "."], ["check", ".", "--task", "singing"],
              ["check", ".", "--seed=1"]],
)  # fmt: skip
def test_a_command_line_without_sense_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", *words])
    assert stop.value.code == 2
    assert "usage: unispeech-sb data check FOLDER" in capsys.readouterr().err


@pytest.mark.real_data
def test_published_corpora_have_their_own_reader(data_folder, capsys):
    status, report = check(capsys, data_folder / "LibriSpeech", "--quick")
    assert (report["form"], report["task"]) == ("librispeech", "asr")
    assert report["splits"]["train"]["utterances"] == 132
    assert status == 1 and "speakers in two splits" in kinds(report)
