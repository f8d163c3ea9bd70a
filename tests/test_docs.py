"""Documents say what is there: links, paths, and the generated picture."""

import importlib.util
import json
import pydoc
import re
import shlex
import shutil
import zlib

import numpy as np
import pytest
import soundfile
import transformers

from benchmarks.ngrams import write_arpa
from tests.commands.test_transcribe import save_tiny
from tests.conftest import ROOT
from tests.inference.diarization_models import save_model
from tests.inference.models import uneven_speech
from tests.inference.speaker_models import save_model as save_speakers
from tests.inference.test_classification import save_model as save_classifier
from tests.test_layout import MAY_IMPORT
from unispeech_sb.commands import COMMANDS, main
from unispeech_sb.dataio.corpora import CORPORA, find_corpus, read_corpus
from unispeech_sb.dataio.manifest import check_records
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.dataio.trials import read_trials

SMALL = {"__init__", "__main__", "cli", "moved", "hparams"}
"""Parts that the picture leaves out."""


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_paths_in_backquotes_exist(name):
    text = re.sub(
        r"```.*?```", "", (ROOT / name).read_text("utf-8"), flags=re.S
    )
    found = re.findall(r"`([\w/]+(?:/|\.py|\.yaml|\.md|\.txt))`", text)
    paths = [path for path in found if "my_" not in path and "/T." not in path]
    assert len(paths) > 10
    places = [ROOT, ROOT / "unispeech_sb", ROOT / "hparams"]
    places += [p for p in (ROOT / "unispeech_sb").rglob("*") if p.is_dir()]
    missing = [
        path
        for path in paths
        if not any((place / path).exists() for place in places)
    ]
    assert not missing


@pytest.mark.slow
def test_the_picture_shows_the_imports_of_today():
    place = ROOT / "docs" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", place)
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    assert set(architecture.ABOUT) == set(MAY_IMPORT) - SMALL | {"plots"}
    drawn = architecture.draw(architecture.read_imports())
    assert architecture.PICTURE.read_text("utf-8") == drawn, "draw it again"


COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```(\w*)\n(.*?)^```", COMMANDS_PAGE, re.M | re.S)
LINES = [
    line for kind, text in EXAMPLES if kind == "" for line in text.splitlines()
]
ELSEWHERE = [
    line
    for page in ("data", "speed")
    for kind, text in re.findall(
        r"^```(\w*)\n(.*?)^```",
        (ROOT / "docs" / f"{page}.md").read_text("utf-8"),
        re.M | re.S,
    )
    for line in text.splitlines()
    if kind == "" and " recipe " not in line  # tests/test_site.py: their keys
]
"""Commands of other pages that need no more than the folders below."""


DATA_PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
FORMS = {
    title[1]: re.findall(r"^`(\S+)`\n\n```\w+\n(.*?)^```", section, re.M | re.S)
    for section in DATA_PAGE.split("\n## ")
    if (title := re.search(r"`(\w+)`$", section.splitlines()[0]))
}
"""Form of a list -> name and content of the files that its section shows."""


def write_recording(path):
    """A second of noise, another for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(zlib.crc32(bytes(path)))
    soundfile.write(path, 0.1 * draw.normal(size=16000), 16000)


@pytest.mark.parametrize("form", [name for name in FORMS if FORMS[name]])
def test_the_lists_of_the_page_are_read(form, tmp_path):
    files = dict(FORMS[form])
    for name, text in FORMS[form]:  # lists of validation, as those of training
        files.setdefault(name.replace("train", "valid"), text)
    for name, text in files.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name != "files":
            place.write_text(text, "utf-8")
        for wav in re.findall(r"[\w/]+\.wav", text):
            wav = wav.removeprefix("data_root").lstrip("/")
            write_recording(place.parent / wav)
    for task, key in (("asr", "wrd"), ("keyword_spotting", "label")):
        if task == "asr" and form in ("class_folders", "table"):
            continue
        assert find_corpus(task, {}, tmp_path) == form
        found = check_records(read_corpus(task, {}, tmp_path))
        assert len(found) >= 2 and all(record[key] for record in found)


def test_a_conversation_and_trials_are_as_the_page_shows(tmp_path):
    shown = dict(
        re.findall(
            r"^`(train_talks/\S+)`\n\n```text\n(.*?)^```",
            DATA_PAGE,
            re.M | re.S,
        )
    )
    assert len(shown) == 2
    for name, text in shown.items():
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    write_recording(tmp_path / "train_talks" / "talk1.wav")
    task = "speaker_diarization"
    assert find_corpus(task, {}, tmp_path) == "kaldi"
    (record,) = read_corpus(task, {}, tmp_path)
    (segments,) = read_rttm(record["rttm"]).values()
    assert {segment.speaker for segment in segments} == {"ann", "bob"}
    section = DATA_PAGE.partition("## Trials")[2]
    (tmp_path / "trials.txt").write_text(
        re.search(r"^```text\n(.*?)^```", section, re.M | re.S)[1]
    )
    assert read_trials(tmp_path / "trials.txt").targets.tolist() == [1, 0]


def test_the_page_has_every_corpus():
    table = DATA_PAGE.partition("## Corpora with")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", table, re.M)
    assert {name for name, _ in rows} == {
        name for name, corpus in CORPORA.items() if corpus.kind == "corpus"
    }
    for name, recipes in rows:
        tasks = {task.replace("phoneme", "phoneme_recognition")
                 for task in CORPORA[name].readers}  # fmt: skip
        tasks -= {"pretraining", "single_speaker"}
        named = {*re.findall(r"`(\w+)`", recipes)}
        assert named == tasks or name == "synthetic"
        assert ("pre-training" in recipes) == (
            "pretraining" in CORPORA[name].readers
        ) or name == "synthetic"


def test_the_page_has_every_form():
    own = {n for n, c in CORPORA.items() if c.kind != "corpus" and n != "rttm"}
    assert set(FORMS) | {"csv"} == own | {"fairseq"}


def test_the_fields_of_data_check_are_those_of_the_page(
    workplace, monkeypatch, capsys
):
    monkeypatch.chdir(workplace)
    main(["data", "check", "my_words", "--json"])
    table = DATA_PAGE.partition("## What `data check --json` gives")[2]
    fields = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert fields == [*json.loads(capsys.readouterr().out)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the examples of the commands name."""
    folder = tmp_path_factory.mktemp("commands")
    save_tiny(folder / "asr", 3)
    save_model(folder / "diarization")
    save_classifier(folder / "keywords")
    save_speakers(folder / "speakers")
    (folder / "talks").mkdir()
    for name, seconds in (
        ("talk", 2.0),
        ("talks/a", 1.0),
        ("talks/b", 1.2),
        ("talks/c", 0.8),
    ):
        wav = uneven_speech(seconds).numpy()
        soundfile.write(folder / f"{name}.wav", wav, 16000)
    for name in "abc":
        (folder / "talks" / f"{name}.txt").write_text("ab ba\n")
    rows = "".join(f"{name}.wav,ba ab\n" for name in "abc")
    (folder / "texts.csv").write_text(f"path,text\n{rows}")
    (folder / "trials.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    (folder / "pairs.csv").write_text("left,right\na.wav,b.wav\n")
    shutil.copytree(folder / "talks", folder / "made")
    phones = [
        f"{n} {i / 8:.3f} {i / 8 + 0.1:.3f} {'AB'[i % 2]} X Y {n}"
        for n in "abc"
        for i in range(6)
    ]
    columns = "#file onset offset #phone prev-phone next-phone speaker"
    (folder / "phones.item").write_text("\n".join([columns, *phones]) + "\n")
    (folder / "my_speech").mkdir()
    shutil.copy(folder / "talk.wav", folder / "my_speech")
    (folder / "my_speech" / "manifest.csv").write_text(
        "id,path,split,wrd\na,talk.wav,valid,ab ba\n"
    )
    for place in FORMS["class_folders"][0][1].split():
        write_recording(folder / "my_words" / place)
    write_arpa(folder / "words.arpa", ["ab ba", "ba ab"])
    return folder


def test_every_command_has_an_example():
    named = {line.split()[1] for line in LINES}
    elsewhere = {"superb", "export", "serve"}  # pages of their own
    assert named == set(COMMANDS) - elsewhere and len(LINES) > 20
    assert [kind for kind, _ in EXAMPLES if kind] == ["python"]
    titles = " ".join(re.findall(r"^### (.*)$", COMMANDS_PAGE, re.M))
    assert set(COMMANDS) == {*re.findall(r"[\w-]+", titles)} & {*COMMANDS}


@pytest.mark.parametrize("line", [*LINES, *ELSEWHERE])
def test_an_example_of_a_command_runs(line, workplace, monkeypatch, capsys):
    program, name, *words = shlex.split(line)
    assert program == "unispeech-sb"
    if name == "demo":
        pytest.skip("tests/test_readme.py runs it")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(workplace)
    if "--enrolled" in words and not (workplace / words[-1]).exists():
        assert main(["embed", "speakers", "talks/a.wav", "-o", words[-1]]) == 0
    if name == "convert" and not (workplace / "for-transformers").exists():
        assert main(["to-hf", "asr", "for-transformers"]) == 0
    assert main([name, *words]) in (0, None)
    if name == "transcribe" and "all" in words:
        made = sorted(p.name for p in (workplace / "transcripts").iterdir())
        assert len(made) == 18 and "a.srt" in made
    if name in FIELDS:
        (shown,) = capsys.readouterr().out.splitlines()
        assert set(json.loads(shown)) == FIELDS[name]


NEEDS = {"tune-lm": "kenlm", "layers": "sklearn", "shards": "webdataset"}
"""Command -> the package of an extra that its example needs."""
FIELDS = {
    "diarize": {"name", "duration", "speakers", "segments"},
}
"""Command whose example prints JSON -> its fields."""


def test_the_fields_of_json_are_those_of_the_page(
    workplace, monkeypatch, capsys
):
    monkeypatch.chdir(workplace)
    table = COMMANDS_PAGE.partition("## JSON")[2]
    documented, name = {}, ""
    for row in re.findall(r"^\|(.*?)\| `(\w+)` \| .* \| (.*) \|", table, re.M):
        name = row[0].strip(" `") or name
        documented.setdefault(name, {})[row[1]] = row[2]
    for name, model, *options in (
        ("transcribe", "asr"),
        ("transcribe --speakers", "asr", "diarization"),
        ("align", "asr", "--text", "ab"),
        ("diarize", "diarization"),
        ("classify", "keywords"),
    ):
        command, *flags = name.split()
        line = [command, model, "talk.wav", "-f", "json", *flags, *options]
        assert main(line) == 0
        found = json.loads(capsys.readouterr().out)
        wanted = {**documented["all"], **documented[name]}
        assert set(found) == set(wanted)
        for field, value in found.items():
            if isinstance(value, list) and isinstance(value[0], dict):
                inner = re.findall(r"`(\w+)`", wanted[field])
                assert inner[: len(value[0])] == [*value[0]], field


def test_the_python_example_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    (example,) = (text for kind, text in EXAMPLES if kind == "python")
    exec(compile(example, "docs/commands.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


MIGRATION = (ROOT / "docs" / "migration.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!-)(.*?) \| (.*) \|$", MIGRATION, re.M)
ANSWERS = [
    span
    for theirs, ours in ROWS
    for span in re.findall(r"`([^`]+)`", ours)
    if theirs not in ("SpeechBrain", "transformers", "s3prl")
]
NOT_HERE = ("recipe", "superb", "serve", "export", "convert dev-best")
"""Commands that train or serve, that other tests run, or whose files are not
there: tests/test_site.py compares them with what there is."""
RUN = [
    answer
    for answer in ANSWERS
    if answer.startswith("unispeech-sb ")
    and not answer.removeprefix("unispeech-sb ").startswith(NOT_HERE)
    and "checkpoint_best" not in answer
    and answer not in LINES
]
CODE = [text for text in ANSWERS if text.startswith(("us.", "Backbone."))]


def test_every_row_of_the_migration_has_an_answer():
    assert len(ROWS) > 55 and len(RUN) > 3 and len(CODE) > 15
    starts = ("unispeech-sb ", "us.", "Backbone.", "unispeech_sb.")
    for _, ours in ROWS:
        spans = re.findall(r"`([^`]+)`", ours)
        found = [span for span in spans if span.startswith((*starts, "!new:"))]
        is_head = ours == "here"
        assert found or is_head or ours.startswith(("nothing", "`torchrun"))


def test_names_of_the_migration_are_there():
    names = re.findall(
        r"(?:!new:|`)((?:unispeech_sb|speechbrain)(?:\.\w+)+)", MIGRATION
    )
    assert len(names) > 12
    assert [name for name in names if pydoc.locate(name) is None] == []
    theirs = re.findall(r"`(UniSpeechSat\w+|Wav2Vec2\w+)\b", MIGRATION)
    assert len(theirs) > 4
    assert all(hasattr(transformers, name) for name in theirs)


@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_migration_runs(line, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    words = shlex.split(line)[1:]
    if words[0] == "tune-lm" or "--lm" in words:
        pytest.importorskip("kenlm", reason="needs kenlm")
    assert main(words) in (0, None)


@pytest.fixture(scope="module")
def session(workplace):
    """Names that lines of Python of the migration go on from."""
    if not (workplace / "for-transformers").exists():
        folders = [str(workplace / n) for n in ("asr", "for-transformers")]
        main(["to-hf", *folders])
    (code,) = re.findall(r"^```python\n(.*?)^```", MIGRATION, re.M | re.S)
    names = {}
    exec(compile(code, "docs/migration.md", "exec"), names)
    return names


@pytest.mark.parametrize("code", CODE)
def test_python_of_the_migration_runs(code, session, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    for file in ("FILE.pt", "checkpoint_best.pt"):
        code = code.replace(file, "asr")  # any checkpoint will do
    assert eval(code, session) is not None
