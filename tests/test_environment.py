"""A pair that does not load is reported in one sentence with its remedy."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy
import pytest
import soundfile

from unispeech_sb import commands, environment

COMMANDS = {
    "recipe": ["keyword_spotting", "--data_folder=."],
    "convert": ["folder", "new"],
    "to-hf": ["folder", "new"],
    "info": ["folder"],
    "transcribe": ["folder", "a.wav"],
    "tune-lm": ["folder", "list.csv", "--lm", "words.arpa"],
    "embed": ["folder", "a.wav", "-o", "out.safetensors"],
    "verify": ["folder", "a.wav", "a.wav"],
    "score": ["folder", "--trials", "trials.txt", "--audio-root", "."],
    "diarize": ["folder", "a.wav"],
    "classify": ["folder", "a.wav"],
    "features": ["folder", "a.wav", "-o", "states"],
    "export": ["folder", "new"],
    "align": ["folder", "a.wav", "--text", "a"],
    "data": ["check", "."],
    "layers": [
        "folder",
        "--items=list.item",
        "--audio-root=.",
        "--num-units=2",
    ],
    "serve": ["folder"],
    "similarity": ["folder", "a.wav", "a.wav"],
    "shards": ["check", "."],
    "superb": ["run", "--model=tiny", "--preset=tiny", "--data-root=."],
    "demo": [],
}
"""Command -> arguments that make sense to its parser."""

EVERYTHING = """
import contextlib, io, json, runpy, sys
from importlib import import_module
from unispeech_sb.__main__ import main
from unispeech_sb.environment import BrokenInstallation
modules, commands, recipes = json.loads(sys.argv[1])
said = {}
for name in modules:
    try:
        import_module(name)
    except BrokenInstallation as error:
        said[name] = str(error)
for file in recipes:
    try:
        runpy.run_path(file, run_name="__main__")
    except BrokenInstallation as error:
        said[file] = str(error)
for name, arguments in commands.items():
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        code = main([name, *arguments])
    assert code == 1, (name, code)
    said[name] = stderr.getvalue()
print(json.dumps(said))
"""


def put_broken(folder, name, version, load):
    """A package whose shared library is no library, and its metadata."""
    package = folder / name
    package.mkdir(parents=True)
    library = package / f"lib{name}.so"
    library.write_text("not a library")
    (package / "__init__.py").write_text(f"{load}({str(library)!r})\n")
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    return folder


@pytest.fixture(scope="module")
def broken_torchaudio(tmp_path_factory):
    """Folder with a torchaudio that loads its library as the real one does."""
    return put_broken(
        tmp_path_factory.mktemp("torchaudio"),
        "torchaudio",
        "2.11.0",
        "import torch\ntorch.ops.load_library",
    )


@pytest.fixture(scope="module")
def broken_torch(tmp_path_factory):
    """Folder with a torch for CPUs that lacks a library it needs."""
    return put_broken(
        tmp_path_factory.mktemp("torch"),
        "torch",
        "2.13.0+cpu",
        "import ctypes\nctypes.CDLL",
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder in which every file exists that ``COMMANDS`` name."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "folder").mkdir()
    for name in ("folder/hyperparams.yaml", "list.csv", "words.arpa"):
        (folder / name).touch()
    (folder / "trials.txt").write_text("1 a.wav a.wav\n")
    (folder / "list.item").write_text(
        "#file onset offset #phone prev-phone next-phone speaker\n"
        "a 0.1 0.2 a b c d\na 0.2 0.3 a b c d\n"
    )
    soundfile.write(folder / "a.wav", numpy.zeros(16000), 16000)
    return folder


def run(*arguments, stub, root, folder):
    """Runs Python with a stub in front of what is installed."""
    path = os.pathsep.join([str(stub), str(root)])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def names_of_modules(root):
    """Every module of the package but its ``__main__``."""
    files = (root / "unispeech_sb").rglob("*.py")
    return sorted(
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        for file in files
        if file.stem != "__main__"
    )


@pytest.mark.slow
def test_every_module_recipe_and_command_names_the_remedy(
    broken_torchaudio, root, inputs
):
    # A whole folder is uploaded without torch
    assert {*COMMANDS, "push-to-hub"} == set(commands.COMMANDS)
    told = dict(COMMANDS)
    if find_spec("kenlm") is None:
        del told["tune-lm"]  # names that first
    modules = names_of_modules(root)
    recipes = [str(file) for file in root.glob("recipes/[!_]*.py")]
    given = json.dumps([modules, told, recipes])
    done = run(
        *("-c", EVERYTHING, given),
        stub=broken_torchaudio,
        root=root,
        folder=inputs,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    # Those that do not need SpeechBrain work
    assert "unispeech_sb" not in said
    assert "unispeech_sb.nnet.masking" not in said
    assert {"unispeech_sb.brains", "unispeech_sb.dataio.pipelines"} < set(said)
    assert {*told, *recipes} < set(said) and len(recipes) >= 9
    library = broken_torchaudio / "torchaudio" / "libtorchaudio.so"
    torch = environment._installed("torch")
    partner = environment.TORCHAUDIO_FOR[".".join(torch.split(".")[:2])]
    sentence = (
        rf"torchaudio 2\.11\.0 does not load with torch {re.escape(torch)} "
        rf"\({re.escape(str(library))}: [\w ]+\): run "
        rf"`\S+ -m pip install --no-deps .*'torchaudio=={partner}.*'`"
    )
    for name, text in said.items():
        prefix = "unispeech-sb: " if name in COMMANDS else ""
        assert re.fullmatch(prefix + sentence + r"\n?", text), (name, text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["{root}/recipes/keyword_spotting.py", "hparams.yaml"],
        ["{root}/recipes/make_units.py", "hparams.yaml"],
        ["{root}/recipes/asr.py", "hparams.yaml"],
        ["-m", "unispeech_sb", "recipe", "asr", "--data_folder=."],
        ["-m", "unispeech_sb", "info", "folder"],
        ["-c", "import unispeech_sb.nnet.masking"],
        ["-c", "import unispeech_sb, speechbrain"],
    ],
    ids=" ".join,
)
def test_a_process_ends_with_the_sentence_alone(
    arguments, broken_torch, root, inputs
):
    arguments = [text.format(root=root) for text in arguments]
    done = run(*arguments, stub=broken_torch, root=root, folder=inputs)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    assert ": torch 2.13.0+cpu does not load (" in line
    assert line.endswith(
        "-m pip install --force-reinstall --extra-index-url "
        f"{environment.BUILDS}/cpu 'torch==2.13.0+cpu' "
        "'torchaudio==2.11.1+cpu'`"
    )


def test_importing_the_package_needs_neither(broken_torch, root, tmp_path):
    code = (
        "import sys, unispeech_sb\n"
        "print(*{'torch', 'speechbrain', 'torchaudio'} & set(sys.modules))"
    )
    done = run("-c", code, stub=broken_torch, root=root, folder=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_other_errors_keep_their_traceback(broken_torch, root, tmp_path):
    code = (
        "import unispeech_sb\n"
        "try:\n    import torch\n"
        "except ImportError:\n    pass\n"
        "1 / 0"
    )
    done = run("-c", code, stub=broken_torch, root=root, folder=tmp_path)
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("folder", ["recipes", "mine"])
def test_ctrl_c_while_a_recipe_imports_takes_one_line(folder, root, tmp_path):
    script = tmp_path / folder / "a.py"
    script.parent.mkdir()
    script.write_text("import unispeech_sb\nraise KeyboardInterrupt")
    ended = run(str(script), stub=tmp_path, root=root, folder=tmp_path)
    one_line = ended.stderr == "a.py: interrupted; nothing was begun\n"
    assert one_line == (folder == "recipes")
    assert ended.returncode in (-signal.SIGINT, 128 + signal.SIGINT)


@pytest.fixture
def pretend(monkeypatch):
    """Imports a torchaudio that fails, of versions that are not installed."""

    def pretend(torch, torchaudio):
        installed = {"torch": torch, "torchaudio": torchaudio}
        monkeypatch.setattr(environment, "_installed", installed.get)
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(environment.BrokenInstallation) as caught:
            environment._guarded(fail)(ModuleType("torchaudio"))
        return str(caught.value)

    def fail(module):
        raise OSError(f"{module.__name__}.so: undefined symbol\nand more")

    return pretend


CPU = f"--extra-index-url {environment.BUILDS}/cpu "
BOTH = "--force-reinstall 'torch==2.14.1' 'torchaudio==2.11.1'"


@pytest.mark.parametrize(
    ("torch", "torchaudio", "fault", "command"),
    [
        # A torch that is supported is kept
        ("2.10.0", None, "torchaudio is not installed beside torch 2.10.0",
         "--no-deps 'torchaudio==2.10.0'"),
        ("2.10.0", "2.11.1", "torchaudio 2.11.1 does not load with torch 2.10",
         "--no-deps 'torchaudio==2.10.0'"),
        ("2.15.0", "2.11.0", "torchaudio 2.11.0 does not load with torch 2.15",
         "--no-deps 'torchaudio==2.11.1'"),
        ("2.13.0+cpu", "2.11.1", "torchaudio 2.11.1 does not load with torch",
         f"--no-deps {CPU}'torchaudio==2.11.1+cpu'"),
        ("2.13.0+gitc0ffee", None, "torchaudio is not installed",
         "--no-deps 'torchaudio==2.11.1'"),
        # The right pair that does not load is damaged
        ("2.14.1", "2.11.1", "torchaudio 2.11.1 does not load with torch 2.14",
         BOTH),
        ("2.14.1+cpu", "2.11.1+cpu", "torchaudio 2.11.1+cpu does not load",
         f"--force-reinstall {CPU}'torch==2.14.1+cpu' "
         "'torchaudio==2.11.1+cpu'"),
        # Any other torch gives way to the tested pair
        (None, "2.11.1", "torch is not installed", BOTH),
        ("2.9.1", "2.11.0", "torchaudio 2.11.0 does not load with torch", BOTH),
        ("3.0.0", "2.11.1", "torchaudio 2.11.1 does not load with torch", BOTH),
    ],
)  # fmt: skip
def test_the_command_keeps_what_can_be_kept(
    torch, torchaudio, fault, command, pretend
):
    sentence = pretend(torch, torchaudio)
    assert sentence.startswith(fault)
    assert sentence.endswith(f"-m pip install {command}`")
    if "does not load" in fault:
        assert "(torchaudio.so: undefined symbol)" in sentence


def test_the_command_runs_in_a_folder_with_a_blank(pretend, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my venv/bin/python")
    sentence = pretend(None, None)
    assert "run `'/my venv/bin/python' -m pip install" in sentence


@pytest.mark.parametrize("missing", ["torch", "torchaudio"])
def test_what_is_missing_is_reported(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(
        environment, "_installed", {"torch": "2.14.1", missing: None}.get
    )
    with pytest.raises(ImportError, match=f"^{missing} is not installed"):
        environment.require_torchaudio()


def test_an_error_of_speechbrain_itself_is_not_blamed_on_the_pair(
    root, tmp_path
):
    (tmp_path / "speechbrain.py").write_text("import no_such_module")
    code = (
        "import unispeech_sb\n"
        "try:\n    import speechbrain\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = run("-c", code, stub=tmp_path, root=root, folder=tmp_path)
    assert done.stdout == "No module named 'no_such_module'\n"


@pytest.mark.parametrize("missing", ["torch", "torchaudio"])
def test_what_speechbrain_misses_is_reported(missing, root, tmp_path):
    (tmp_path / "speechbrain.py").write_text(
        f"raise ModuleNotFoundError('No module', name={missing!r})"
    )
    code = "import unispeech_sb, speechbrain"
    done = run("-c", code, stub=tmp_path, root=root, folder=tmp_path)
    (line,) = done.stderr.splitlines()
    assert "-m pip install" in line
