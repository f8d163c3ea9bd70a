"""Runs the toy experiment again and again, killing it at stated moments.

``python killing.py FOLDER WORKERS MOMENT...`` prints, as JSON, what each run
has come to in the end. A moment is ``where:count``: SIGKILL when ``where`` is
reached for the ``count``-th time; ``where:count+where:count`` kills twice. The
environment variable OPTIONS has more of the command line.
Each attempt is a process of its own, forked.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import toy

from unispeech_sb.metrics.classification import ConfusionMatrix


class MortalBrain(toy.ToyBrain):
    """A Brain that is killed at a stated moment."""

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        reached("batch")

    def on_stage_start(self, stage, epoch=None):
        reached(f"{stage.name}_start")
        super().on_stage_start(stage, epoch)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        reached(f"{stage.name}_end")
        super().on_stage_end(stage, stage_loss, epoch)
        reached(f"{stage.name}_done")


def reached(where):
    """Die if this is the moment."""
    COUNTS[where] = COUNTS.get(where, 0) + 1
    if f"{where}:{COUNTS[where]}" == MOMENT:
        os.kill(os.getpid(), signal.SIGKILL)


def dying_save(obj, path):
    """Write half a file, then perhaps die."""
    REAL["save"](obj, path)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    reached("saving")
    Path(path).write_bytes(whole)


def dying_replace(source, target):
    """Die before or after a move, of a checkpoint, the run's record or its
    curves."""
    names = {"experiment.json": "record", "curves.csv": "curves"}
    what = names.get(Path(target).name, "move")
    reached(f"before_{what}")
    REAL["replace"](source, target)
    reached(f"after_{what}")


def dying_rmtree(folder, **options):
    """Delete half of the files, then perhaps die."""
    if Path(folder).name != "partial":
        REAL["rmtree"](folder, **options)
        return
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    for path in files[: len(files) // 2]:
        path.unlink()
    reached("deleting")
    REAL["rmtree"](folder)


def attempt(moment, folder, workers):
    """One process, killed at ``moment`` or run to its end; its status."""
    global MOMENT
    MOMENT = moment
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    log = os.open(folder / "console.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    argv = [str(toy.YAML), f"--output_folder={folder}", "--device=cpu"]
    argv += ["--grad_accumulation_factor=3", "--ckpt_interval_steps=1"]
    options = os.environ.get("OPTIONS", "").split()
    toy.main([*argv, f"--num_workers={workers}", *options], MortalBrain)
    os._exit(0)


def outcome(folder):
    """What a finished run has come to."""
    found = {}
    for path in sorted((folder / "save").glob("CKPT*/*.ckpt")):
        if path.stem not in ("brain", "dataloader-TRAIN"):
            epoch = (path.parent / "epoch_counter.ckpt").read_text()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[f"epoch {epoch} {path.name}"] = digest
    # A line may be there twice, when the kill fell between it and the save
    lines = (folder / "train_log.txt").read_text().splitlines()
    found["log"] = list(dict.fromkeys(lines))
    found["scores"] = json.loads((folder / "scores.json").read_text())
    found["left"] = [p.name for p in (folder / "save").glob("partial")]
    return found


def main(folder, workers, *plans):
    """Run every plan and print the outcomes."""
    outcomes = {}
    for plan in plans:
        out = Path(folder) / plan.replace(":", "_")
        out.mkdir()
        moments = [] if plan == "none" else plan.split("+")
        killed = [attempt(m, out, workers) == signal.SIGKILL for m in moments]
        status = attempt(None, out, workers)
        outcomes[plan] = {"killed": killed, "status": status, **outcome(out)}
    print(json.dumps(outcomes))


COUNTS, MOMENT = {}, None
REAL = {"save": torch.save, "replace": os.replace, "rmtree": shutil.rmtree}

if __name__ == "__main__":
    torch.save = dying_save
    os.replace = dying_replace
    shutil.rmtree = dying_rmtree
    # Slow, and no part of what is tested
    ConfusionMatrix.write = lambda *_: None
    main(*sys.argv[1:])
