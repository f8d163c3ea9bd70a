"""Runs of recipes on two processes that are forked.

``python pairs.py PLANS.json RESULTS.json``: PLANS is a list of dicts with
``name``, ``processes``, ``runs`` (recipe and command line of each, one after
another in the same processes) and optionally ``fault``, one of ``FAULTS``, and
``restarts``, as of torchrun, whose agent starts the processes. RESULTS has the
exit codes of each plan by its name. Losses of all updates, of process 0,
go to ``losses0.json`` of the run's output folder.
"""

import json
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unispeech_sb.atomic import write_json
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.errors import run_guarded

LOSSES = []


def is_last():
    """Whether this is the last process, and has not been restarted."""
    last = int(os.environ.get("WORLD_SIZE", 1)) - 1
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return restarts == "0" and os.environ.get("RANK", "0") == str(last)


def kill(brain):
    """The last process gets SIGKILL after three updates, once."""
    if brain.optimizer_step == 3 and is_last():
        os.kill(os.getpid(), signal.SIGKILL)


def fail(brain):
    """The last process raises in its second update."""
    if brain.optimizer_step == 1 and is_last():
        raise ValueError("recording 7: expected speech; got music")


def minutes(brain):
    """Every update takes longer than the minutes between checkpoints."""
    brain.ckpt_interval_minutes = 1e-9


FAULTS = {"kill": kill, "fail": fail, "minutes": minutes, None: id}
FIT_BATCH = SSLBrain.fit_batch


def work(runs, faults):
    """One process: the runs, one after another."""

    def fit_batch(brain, batch):
        for fault in faults:
            FAULTS[fault](brain)
        loss = FIT_BATCH(brain, batch)
        LOSSES.append([float(loss), brain.batch_weight, brain.step])
        return loss

    SSLBrain.fit_batch = fit_batch

    def all_of_them():
        for recipe, line in runs:
            LOSSES.clear()
            import_module(f"recipes.{recipe}").main(line)
            output = next(a for a in line if a.startswith("--output_folder="))
            rank = os.environ.get("RANK", "0")
            write_json(Path(output[16:], f"losses{rank}.json"), LOSSES)

    code = run_guarded(all_of_them, "pairs")
    if code:
        sys.exit(code)


def launch(plan):
    """Runs a plan; the exit codes of its processes, 0 where all went well."""
    runs, faults = plan["runs"], plan.get("faults", [])
    if plan["processes"] == 1:
        pid = os.fork()
        if not pid:
            try:
                work(runs, faults)
            finally:
                os._exit(sys.exc_info()[0] is not None)
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
    with socket.socket() as server:  # else plans would share a store
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    config = LaunchConfig(
        1, 1, plan["processes"], run_id=plan["name"], rdzv_backend="c10d",
        rdzv_endpoint=f"localhost:{port}", max_restarts=plan.get("restarts", 0),
        monitor_interval=0.1, start_method="fork",
    )  # fmt: skip
    try:
        elastic_launch(config, work)(runs, faults)
    except ChildFailedError as error:
        codes = {r: f.exitcode for r, f in error.failures.items()}
        reason = error.get_first_failure()[1].message
        if isinstance(reason, dict):  # not of a signal
            reason = reason["message"]
        return [codes, reason]
    return [0]


def main(plans, results):
    """Runs all plans."""
    found = {}
    for plan in json.loads(Path(plans).read_text()):
        found[plan["name"]] = launch(plan)
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
