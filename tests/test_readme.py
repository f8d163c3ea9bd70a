"""Every command and example of the README, of docs/index.md and docs/tasks.md
runs."""

import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
import torch
import transformers
from hyperpyyaml import load_hyperpyyaml

from benchmarks.ngrams import write_arpa
from tests.conftest import ROOT
from tests.dataio.corpora.test_speech_commands import COMMANDS as TASK_WORDS
from tests.dataio.corpora.test_speech_commands import (
    UNKNOWN,
    build_tree,
    write_clip,
)
from tests.forks import run_script
from tests.huggingface import save_folder, tiny_model
from tests.recipes import pretraining, speech, talks, voices
from tests.recipes.conftest import TINY, WORDS, write_corpus
from unispeech_sb import cli

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS, STEPS, START = (
    BLOCK.findall((ROOT / page).read_text())
    for page in ("README.md", "docs/tasks.md", "docs/index.md")
)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
YAMLS = [text for kind, text in BLOCKS if kind == "yaml"]
COMMANDS, TASKS, FIRST = (
    [line for kind, text in blocks if not kind for line in text.splitlines()]
    for blocks in (BLOCKS, STEPS, START)
)
TRAINING = [
    "unispeech-sb recipe keyword_spotting --data_folder=speech_commands_v0.02",
    "python recipes/keyword_spotting.py hparams/keyword_spotting.yaml "
    "--data_folder=my_clips --num_classes=10",
]
CONVERSION = [
    "unispeech-sb convert microsoft/unispeech-sat-base unispeech-sat-base",
    "unispeech-sb info unispeech-sat-base",
    "unispeech-sb to-hf results/demo/export for-transformers",
]
ASR, VOICES = (
    "results/asr/my_speech/1986/export",
    "results/speaker_verification/my_voices/1986",
)
RECOGNITION = [
    "python recipes/asr.py hparams/asr.yaml --data_folder=my_speech",
    f"unispeech-sb transcribe {ASR} talk.wav --format=srt",
    f"unispeech-sb tune-lm {ASR} my_speech/manifest.csv --lm=words.arpa "
    "--to=with-lm",
    "unispeech-sb transcribe with-lm talk.wav --hot-words=seven",
    "unispeech-sb recipe phoneme_recognition --data_folder=my_speech",
]
SPEAKERS = [
    "unispeech-sb recipe speaker_verification --data_folder=my_voices",
    f"unispeech-sb verify {VOICES}/export a.wav b.wav --threshold=0.5",
    f"unispeech-sb embed {VOICES}/export a.wav b.wav -o voices.safetensors",
    f"unispeech-sb score {VOICES}/export --trials=trials.txt "
    "--audio-root=my_voices",
]
TALKS = "results/speaker_diarization/my_talks/1986"
TURNS = [
    "unispeech-sb recipe speaker_diarization --data_folder=my_talks",
    f"unispeech-sb diarize {TALKS}/export talk.wav --rttm-dir=turns --plot",
]
CACHED = [
    "python recipes/keyword_spotting.py hparams/keyword_spotting_superb.yaml "
    "--data_folder=speech_commands_v0.01 "
    "--test_folder=speech_commands_test_set_v0.01 --feature_cache=features "
    "--learning_rate_search=[0.1,0.01,0.001,0.0001]",
]
PRETRAINING = [
    "unispeech-sb recipe make_units --data_folder=my_speech",
    "unispeech-sb recipe pretrain_unispeech_sat "
    "--units_folder=results/make_units/my_speech/1986/units",
    "unispeech-sb recipe pretrain_unispeech --data_folder=my_speech",
    "unispeech-sb recipe keyword_spotting --data_folder=my_clips "
    "--num_classes=10 --model=results/pretrain_unispeech_sat/"
    "my_speech-1986-units/1986/export",
]
SHORT = [
    *TINY[2:], "--model=tiny", "--number_of_epochs=1", "--augmentation=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """A folder in which the demo ran, in short."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["demo", *SHORT]) == 0
    return folder


def test_the_pages_hold_what_is_tested_here():
    assert len(PYTHON) == 2
    assert len(YAMLS) == 1
    # The last block is run by tests/commands/test_bulk_ray.py
    assert COMMANDS[:-5] == [
        "make demo",
        "make test",
        "unispeech-sb recipe",
        TRAINING[0],
        *CONVERSION,
    ]
    assert TASKS == [
        *TRAINING,
        *RECOGNITION,
        *SPEAKERS,
        *TURNS,
        *CACHED,
        *PRETRAINING,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", PYTHON)
def test_the_python_examples_run(example, demonstrated, monkeypatch):
    monkeypatch.chdir(demonstrated)
    exec(compile(example, "README.md", "exec"), {})


def test_the_yaml_example_builds_a_frozen_backbone(tmp_path):
    hub = save_folder(tiny_model("unispeech-sat"), tmp_path / "hub")
    text = YAMLS[0].replace("microsoft/unispeech-sat-base-plus", str(hub))
    backbone = load_hyperpyyaml(text)["wav2vec2"]
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbone(torch.randn(1, 4000)).shape == (4, 1, 12, 16)


@pytest.mark.slow
def test_the_start_runs(demonstrated, monkeypatch, capsys):
    monkeypatch.chdir(demonstrated)
    monkeypatch.setenv("XDG_CACHE_HOME", str(demonstrated / "cache"))
    hub = demonstrated / "microsoft" / "unispeech-sat-base-100h-libri-ft"
    letters = {"<pad>": 0, "|": 1, "a": 2, "b": 3, "c": 4}
    model = tiny_model(
        "unispeech-sat", "ForCTC", vocab_size=len(letters), pad_token_id=0
    )
    save_folder(model, hub, vocabulary=letters)
    shutil.copy("results/demo/example.wav", "talk.wav")
    for seed, name in enumerate(
        ("yes/ann", "yes/bob", "yes/eve", "no/ann", "no/bob", "no/eve")
    ):
        path = demonstrated / "my_words" / f"{name}_nohash_0.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).normal(size=16000)
        soundfile.write(path, 0.1 * noise, 16000)
    install, demo, *lines = FIRST
    assert install == "pip install -c constraints.txt '.[demo]'"
    assert demo == "unispeech-sb demo"  # the fixture has run it
    trained = [line for line in lines if " recipe " in line]
    assert len(lines) == 6 and len(trained) == 1  # test_the_training_commands
    for line in lines:
        if line not in trained:
            assert cli.main(shlex.split(line)[1:]) in (0, None), line
    assert (demonstrated / "subtitles" / "talk.srt").is_file()
    (code,) = (text for kind, text in START if kind == "python")
    capsys.readouterr()
    exec(compile(code, "docs/index.md", "exec"), {})
    label, posterior = capsys.readouterr().out.split()
    assert 0 < float(posterior) <= 1


@pytest.mark.slow
def test_make_demo_runs_the_demo_and_make_test_the_suite():
    for target, ran in (
        ("demo", "python -m unispeech_sb demo"),
        ("test", "python -m pytest"),
        ("docs", "python -m mkdocs build --strict"),
    ):
        dry = ["make", "--dry-run", "--always-make", target]
        done = subprocess.run(
            dry, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ran in done.stdout
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_the_demo_says_what_was_done_and_what_to_type_next(
    demonstrated, monkeypatch, capsys
):
    monkeypatch.chdir(demonstrated)
    cli.main(["demo", *SHORT])  # a second time: nothing is left to train
    said = capsys.readouterr().out.rstrip().splitlines()
    assert any("What was done" in line for line in said[-14:])
    for command in ("recipe keyword_spotting", "make test"):
        assert any(command in line for line in said[-7:])
    steps = [line for line in said if line.startswith("  ") and "demo/" in line]
    assert len({line.index("results/demo/") for line in steps[-5:]}) == 1
    for folder in ("corpus", "export", "confusion.png", "example.wav"):
        assert (demonstrated / "results" / "demo" / folder).exists()


def test_the_listing_command_runs(capsys):
    assert cli.main(["recipe"]) == 0
    assert "keyword_spotting" in capsys.readouterr().out


@pytest.mark.slow
def test_the_training_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clips").mkdir()
    write_corpus(tmp_path / "my_clips")
    build_tree(tmp_path / "speech_commands_v0.02", "v0.02")
    command, script = (line.split() for line in TRAINING)
    first, second = "--output_folder=first", "--output_folder=second"
    assert cli.main([*command[1:], *SHORT, first]) == 0
    words = [re.sub("^(recipes|hparams)/", rf"{ROOT}/\1/", w) for w in script]
    words = [word.replace("=10", f"={len(WORDS)}") for word in words]
    done = run_script(*words[1:], *SHORT, second)
    assert done.returncode == 0, done.stderr
    for folder in ("first", "second"):
        assert (tmp_path / folder / "export" / "hyperparams.yaml").is_file()


@pytest.mark.slow
def test_the_conversion_commands_run(
    tmp_path, monkeypatch, capsys, demonstrated
):
    monkeypatch.chdir(tmp_path)
    model = tiny_model("unispeech-sat", "ForPreTraining")
    save_folder(model, tmp_path / "microsoft" / "unispeech-sat-base")
    convert, info, to_hf = (line.split()[1:] for line in CONVERSION)
    assert cli.main(convert) == 0
    assert "Wrote unispeech-sat-base" in capsys.readouterr().out
    assert (tmp_path / "unispeech-sat-base" / "backbone.ckpt").is_file()
    assert cli.main(info) == 0
    assert "ForPreTraining" in capsys.readouterr().out
    (tmp_path / "results").symlink_to(demonstrated / "results")
    assert cli.main(to_hf) == 0
    name = "UniSpeechSatForSequenceClassification"
    assert f"transformers.{name}" in capsys.readouterr().out
    assert getattr(transformers, name).from_pretrained("for-transformers")


def run_all(lines, options):
    """Runs commands; a recipe with what makes it small."""
    for line in lines:
        words = line.replace("python recipes/", "unispeech-sb recipe ")
        words = words.replace(".py hparams/", f" {ROOT}/hparams/").split()[1:]
        extra = options if words[0] == "recipe" else []
        assert cli.main([*words, *extra]) in (0, None), line


@pytest.mark.slow
def test_the_recognition_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_speech").mkdir()
    speech.write_speech(tmp_path / "my_speech")
    shutil.copy("my_speech/0.wav", "talk.wav")
    write_arpa("words.arpa", speech.TEXTS)
    has_kenlm = find_spec("kenlm") is not None
    lines = [n for n in RECOGNITION if has_kenlm or "with-lm" not in n]
    run_all(lines, [*speech.SCRATCH, "--number_of_epochs=1"])
    if has_kenlm:
        assert "language model, tuned" in capsys.readouterr().out
        assert (tmp_path / "with-lm" / "language_model.ckpt").is_file()
    assert list(tmp_path.glob("results/phoneme_recognition/*/*/export/*.ckpt"))


@pytest.mark.slow
def test_the_speaker_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_voices").mkdir()
    voices.write_voices(tmp_path / "my_voices")
    for name, source in (("a", "ann0"), ("b", "bob0")):
        shutil.copy(f"my_voices/{source}.wav", f"{name}.wav")
    (tmp_path / "trials.txt").write_text(
        "1 ann0.wav ann1.wav\n1 bob0.wav bob1.wav\n1 eve0.wav eve1.wav\n"
        "0 ann0.wav bob0.wav\n0 bob0.wav eve0.wav\n"
    )
    short = [*voices.QUICK, *voices.SMALL_HEAD, "--number_of_epochs=1"]
    run_all(SPEAKERS, short)
    assert "EER" in capsys.readouterr().out
    assert (tmp_path / "voices.safetensors").is_file()


@pytest.mark.slow
def test_the_diarization_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talks.write_talks(tmp_path / "my_talks")
    shutil.copy("my_talks/dev/dev_0.wav", "talk.wav")
    run_all(TURNS, [*voices.QUICK, "--number_of_epochs=1", "--hidden_size=4"])
    assert (tmp_path / "turns" / "talk.rttm").is_file()
    assert list(tmp_path.glob("**/talk*.png"))


@pytest.mark.slow
def test_the_command_on_kept_features_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_tree(tmp_path / "speech_commands_v0.01", "v0.01")
    test_set = tmp_path / "speech_commands_test_set_v0.01"
    test_set.mkdir()
    for label in (*TASK_WORDS, UNKNOWN, "_silence_"):
        write_clip(test_set / label / "speaker1_nohash_0.wav")
    short = ["--number_of_epochs=1", "--draws_per_epoch=64", *TINY[2:]]
    run_all(CACHED, [*short, "--model=tiny"])
    assert list(tmp_path.glob("features/*/*.safetensors"))
    (record,) = tmp_path.glob("results/keyword_spotting*/*/*/scores.json")
    assert "learning_rate" in record.read_text()


@pytest.mark.slow
def test_the_pretraining_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("speech", speech.write_speech),
        ("clips", write_corpus),
    ):
        (tmp_path / f"my_{name}").mkdir()
        write(tmp_path / f"my_{name}")
    options = {
        "make_units": ["--num_units=4", "--device=cpu"],
        "pretrain_unispeech_sat": [*pretraining.SMALL, "--contrastive_layer=1"],
        "pretrain_unispeech": pretraining.SMALL,
        "keyword_spotting": [
            "--number_of_epochs=1", f"--num_classes={len(WORDS)}", *TINY[2:],
        ],
    }  # fmt: skip
    for line in PRETRAINING:
        run_all([line], options[line.split()[2]])
    export = tmp_path / "results/keyword_spotting/my_clips/1986/export"
    taken = (export / "hyperparams.yaml").read_text()
    assert "hidden_size: 16" in taken
