"""What is built from the clone carries all of it and works away from it."""

import configparser
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import numpy
import pytest
import soundfile

from unispeech_sb import __version__
from unispeech_sb.commands import main

SITE_PACKAGES = Path(numpy.__file__).parent.parent
LEFT_OUT = (
    *(".git", ".venv", ".mypy_cache", "build", "dist", "results"),
    "*.egg-info",
)


def run(*command, folder):
    """Runs a command with nothing of the clone on Python's path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["COLUMNS"] = "999"
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """A wheel built from a source archive that was built from the clone."""
    sources = tmp_path_factory.mktemp("clone") / "sources"
    shutil.copytree(root, sources, ignore=shutil.ignore_patterns(*LEFT_OUT))
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist]
    done = run(*build, sources, folder=dist)
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder ``bin`` of an environment that holds the wheel, not the clone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (own,) = folder.glob("lib/python*/site-packages")
    copied = SITE_PACKAGES / "speechbrain"  # a lobe of ours joins its own
    shutil.copytree(copied, own / "speechbrain")
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "--no-deps", "--no-index", wheel]
    done = run(*install, folder=folder)
    assert done.returncode == 0, done.stderr
    # Only now, for pip would look there too. A folder that is added by a
    # .pth file comes last, and its own .pth files, such as an editable
    # installation's, are not read.
    (own / "dependencies.pth").write_text(f"{SITE_PACKAGES}\n")
    return folder / "bin"


def test_setup_cfg_lists_every_package(root):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = {
        ".".join(file.parent.relative_to(root).parts)
        for file in (root / "unispeech_sb").rglob("__init__.py")
    }
    mapped = {"unispeech_sb.hparams", "unispeech_sb.recipes"}
    assert set(listed) == folders | mapped
    assert listed == sorted(listed)


@pytest.mark.slow
def test_wheel_carries_recipes_yamls_and_licence(root, wheel):
    names = ZipFile(wheel).namelist()
    expected = [
        f"unispeech_sb/{file.relative_to(root)}"
        for pattern in ("recipes/*.py", "hparams/*.py", "hparams/*.yaml")
        for file in root.glob(pattern)
    ] + [
        str(file.relative_to(root))
        for pattern in (
            *("*.py", "py.typed", "*.css", "*.csv", "*.html", "*.js", "*.svg"),
        )
        for file in (root / "unispeech_sb").rglob(pattern)
    ]
    expected += ["speechbrain/lobes/models/unispeech.py"]
    assert len(expected) > 20
    carried = [name for name in names if ".dist-info/" not in name]
    assert sorted(carried) == sorted(expected)
    assert "unispeech_sb/py.typed" in carried
    assert f"unispeech_sb-{__version__}.dist-info/licenses/LICENSE" in names


@pytest.mark.slow
def test_installed_files_are_the_wheels(installed, tmp_path):
    code = (
        "import unispeech_sb, unispeech_sb.recipes, unispeech_sb.hparams\n"
        "for module in (unispeech_sb, unispeech_sb.recipes, "
        "unispeech_sb.hparams): print(module.__file__)"
    )
    done = run(installed / "python", "-c", code, folder=tmp_path)
    files = done.stdout.split()
    assert len(files) == 3, done.stderr
    assert all(Path(file).is_relative_to(installed.parent) for file in files)


@pytest.mark.slow
def test_a_yaml_finds_the_lobes_in_a_fresh_process(installed, tmp_path):
    name = "speechbrain.lobes.models.unispeech"
    (tmp_path / "lobe.yaml").write_text(
        f"head: !new:{name}.UtteranceHead\n"
        "    input_size: 4\n    num_classes: 3\n"
    )
    code = (
        "import sys, hyperpyyaml\n"
        "assert not any('unispeech' in name for name in sys.modules)\n"
        "head = hyperpyyaml.load_hyperpyyaml(open('lobe.yaml'))['head']\n"
        f"print(type(head).__module__, sys.modules['{name}'].__file__)"
    )
    done = run(installed / "python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    module, file = done.stdout.split()
    assert module.startswith("unispeech_sb.lobes.heads")
    assert Path(file).is_relative_to(installed.parent)


@pytest.mark.slow
def test_installed_command_lists_the_recipes(root, installed, tmp_path):
    done = run(installed / "unispeech-sb", "recipe", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    scripts = [file.stem for file in (root / "recipes").glob("[!_]*.py")]
    assert listed == sorted(scripts)


@pytest.mark.slow
def test_installed_recipe_reads_its_packaged_yaml(installed, tmp_path):
    done = run(
        installed / "unispeech-sb",
        "recipe",
        "keyword_spotting",
        "--no_such_key=1",
        folder=tmp_path,
    )
    yaml = "site-packages/unispeech_sb/hparams/keyword_spotting.yaml"
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("unispeech-sb: ")
    assert f"{yaml} has no key 'no_such_key'; it has: seed, " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_installed_command_does_what_that_of_the_clone_does(
    root, installed, tmp_path, monkeypatch
):
    generator = numpy.random.default_rng(0)
    rows = ["id,path,split,label"]
    for index in range(8):
        path = tmp_path / f"{index}.wav"
        noise = 0.1 * generator.standard_normal(4000)
        soundfile.write(path, noise, 16000)
        split, label = ("train", "valid")[index // 4], "ab"[index % 2]
        rows.append(f"{index},{path.name},{split},{label}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    options = [
        f"--data_folder={tmp_path}", "--num_classes=2", "--model=tiny",
        "--number_of_epochs=1", "--device=cpu", "--noprogressbar",
    ]  # fmt: skip
    command = ["recipe", "keyword_spotting", *options]
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    done = run(installed / "unispeech-sb", *command, folder=there)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(here)
    assert main(command) == 0
    scores = []
    for folder in (there, here):
        (output,) = folder.glob("results/keyword_spotting/*/*")
        scores.append((output / "scores.json").read_text())
        assert (output / "export" / "backbone.ckpt").is_file()
    assert scores[0] == scores[1]
