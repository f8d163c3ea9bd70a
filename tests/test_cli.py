"""The command line by its old name, and from a bare clone."""

import os
import subprocess
import sys

import unispeech_sb
from unispeech_sb import cli, commands
from unispeech_sb.commands.recipe import recipe


def test_the_old_name_is_the_command_line():
    assert cli.main is commands.main
    assert cli.recipe is recipe
    assert cli.COMMANDS is commands.COMMANDS


def test_both_modules_run_from_a_bare_clone(root, tmp_path):
    def run(module, *argv):
        return subprocess.run(
            [sys.executable, "-m", module, *argv],
            env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "999"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    for module in ("unispeech_sb", "unispeech_sb.cli"):
        assert run(module, "--version").strip() == unispeech_sb.__version__
    scripts = [file.stem for file in (root / "recipes").glob("[!_]*.py")]
    listed = [
        line.split()[0]
        for line in run("unispeech_sb", "recipe").split("\n")[:-1]
    ]
    assert listed == sorted(scripts)
