"""Recipes in processes of their own: two that share the work, or killed ones.

``python processes.py RECIPE WHERE COUNTS YAML ...`` runs a recipe to its end
in FOLDER/whole, where FOLDER is its output folder, and once more in
FOLDER/killed, which gets SIGKILL as often as there are COUNTS: before the call
of that number of the function WHERE. Each attempt is a process that is forked.
"""

import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from tests.forks import run_script

TRAINING = "unispeech_sb.brains.core:SSLBrain.fit_batch"
OUTPUT = "--output_folder="


def environment(root, **variables):
    """Of a process that finds the package and the tests."""
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def run_on_two(script, *arguments):
    """Runs a script, of this folder or by its whole path, on two processes, two
    utterances each."""
    script = Path(__file__).parent / script
    done = run_script(script, *arguments, processes=2, BATCH_SIZE="2")
    assert done.returncode == 0, done.stderr


def run_killed(recipe, arguments, *counts, where=TRAINING):
    """Output folders of a run as a whole, and of one that was killed."""
    times = ",".join(map(str, counts))
    done = run_script(__file__, recipe, where, times, *arguments)
    assert done.returncode == 0, done.stderr
    folder = Path(output_of(arguments).removeprefix(OUTPUT))
    return folder / "whole", folder / "killed"


def assert_same(folders, *names):
    """That files of two folders have the same bytes."""
    for name in names:
        one, other = (folder / name for folder in folders)
        assert one.read_bytes() == other.read_bytes(), name


def output_of(arguments):
    """The option of the output folder."""
    return next(a for a in arguments if a.startswith(OUTPUT))


def attempt(recipe, arguments, where, count=None):
    """One process, killed before a call or run to its end; its status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    try:
        if count:
            die_before(where, count)
        recipe.main(arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def die_before(where, count):
    """Has a function end this process when it is called that often."""
    module, names = where.split(":")
    *owners, name = names.split(".")
    owner = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []

    def mortal(*args, **kwargs):
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, mortal)


def main(recipe, where, counts, *arguments):
    """Runs all attempts; a kill of a training is inside an epoch."""
    recipe = import_module(f"recipes.{recipe}")
    output = output_of(arguments)
    kept = [a for a in arguments if a != output]
    whole, killed = ([*kept, f"{output}/{n}"] for n in ("whole", "killed"))
    assert attempt(recipe, whole, where) == 0
    for count in counts.split(","):
        status = attempt(recipe, killed, where, int(count))
        assert status == signal.SIGKILL, status
        saved = Path(output.removeprefix(OUTPUT), "killed", "save")
        texts = [p.read_text() for p in saved.glob("CKPT*/CKPT.yaml")]
        assert where != TRAINING or "end-of-epoch: false" in "".join(texts)
    assert attempt(recipe, killed, where) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
