"""All tasks of SUPERB, one after the other: each is a recipe in a process of
its own, so that what ends one leaves the others unharmed, and memory is free
after each. The same command goes on where it stopped.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import unispeech_sb
from unispeech_sb import __version__
from unispeech_sb.atomic import OneWriter, atomic, remove, write_json
from unispeech_sb.errors import print_escaped
from unispeech_sb.recipe_options import keys_of
from unispeech_sb.superb.collect import (
    describe_run,
    read_json,
    remove_predictions,
    write_predictions,
)
from unispeech_sb.superb.kinds import (
    FAILED,
    FINISHED,
    GRID,
    MISSING,
    RUNNING,
    Plan,
    as_option,
    plan_task,
)
from unispeech_sb.superb.report import (
    REPORT,
    duration_text,
    score_text,
    summary_text,
    write_report,
)
from unispeech_sb.superb.results import RESULTS
from unispeech_sb.superb.tasks import TASKS

_SAME = ("model", "preset", "seed")
"""What all results in one folder are of."""

_POLL_S = 0.2
_GRACE_S = 15.0
"""For a process to end by itself after another one of its group has failed."""

_TAIL = 65536  # bytes of a log that the reason of a failure is looked for in
_PROGRAM = "unispeech-sb: "


class Request(NamedTuple):
    """What ``superb run`` is asked for.

    ``model`` is a folder, preset or hub name, ``root`` the folder of corpora,
    ``seed`` None for those of the yamls, ``cache`` and ``search`` are of
    ``SUITS``, ``options`` run options of the recipes, such as ``--device=cpu``,
    and ``changed`` is task -> keys of its yaml that have another value.
    """

    model: str
    tasks: tuple[str, ...]
    root: Path
    output: Path
    preset: str
    seed: int | None = None
    cache: str = "means"
    search: str = "means"
    options: tuple[str, ...] = ()
    changed: Mapping[str, Mapping[str, Any]] = {}

    def folder(self, plan: Plan) -> Path:
        """Output folder of a task's recipe."""
        return self.output / "tasks" / plan.name

    def linked(self, plan: Plan) -> Path:
        """The folder of a corpus that is linked together."""
        return self.output / "corpora" / plan.name

    def keys(self, plan: Plan) -> dict[str, Any]:
        """Values of a recipe's keys, the more particular ones last."""
        task, folder = plan.task, self.folder(plan)
        keys = {} if plan.corpus.yaml else task.keys(self.preset)
        keys |= plan.keys
        suits = ("all", "means") if task.pooled else ("all",)
        known = keys_of(plan.yaml)
        if self.cache in suits and "feature_cache" in known:
            keys["feature_cache"] = str(self.output / "cache")
        if self.search in suits and "learning_rate_search" in known:
            rates = GRID[1:4] if self.preset == "tiny" else GRID
            keys["learning_rate_search"] = rates
        if plan.corpus.links:
            keys["data_folder"] = str(self.linked(plan))
        if self.seed is not None:
            keys["seed"] = self.seed
        keys |= {"model": self.model, **self.changed.get(plan.name, {})}
        keys["output_folder"] = str(folder)
        return {
            key: value.replace("{output}", str(folder))
            if isinstance(value, str)
            else value
            for key, value in keys.items()
        }


def run_tasks(request: Request) -> int:
    """Runs the tasks, and writes results, predictions and report; the exit
    status, 1 if a task has failed or has no corpus.

    A ``ValueError`` where the folder holds other results, a
    ``BlockingIOError`` where another process is writing there.
    """
    ranks = _Ranks(request.output)
    plans, missing = _check_corpora(request)
    if not ranks.is_main:
        for plan in plans:
            _run_task(request, plan, ranks)
        return 0
    request.output.mkdir(parents=True, exist_ok=True)
    with OneWriter(request.output, request.output / ".lock"):
        results = _open_results(request)
        _say(_opening(request, plans, missing))
        for name, faults in missing.items():
            results["tasks"][name] = {
                "title": TASKS[name].title,
                "state": MISSING,
                "reason": "; ".join(faults),
            }
        for number, plan in enumerate(plans, 1):
            _say(f"[{number}/{len(plans)}] {_about(plan)}")
            _run_and_record(request, plan, ranks, results)
        _write(request, results)
        _pack(request.output)
        _say(_closing(request, results))
        ranks.close()
    states = [results["tasks"][name]["state"] for name in request.tasks]
    return int(any(state != FINISHED for state in states))


def _check_corpora(request):
    """The tasks that have a corpus; what the others lack."""
    if not request.root.is_dir():
        raise ValueError(
            f"{request.root}: expected a folder of corpora, as --data-root; "
            "there is no such folder"
        )
    plans, missing = [], {}
    for name in request.tasks:
        plan, faults = plan_task(
            name, TASKS[name], request.preset, request.root
        )
        if plan is None:
            missing[name] = faults
        else:
            plans.append(plan)
    return plans, missing


def _open_results(request):
    """The results so far; refused where they are of something else."""
    wanted = {key: getattr(request, key) for key in _SAME}
    path = request.output / RESULTS
    if not path.is_file():
        return {"version": __version__, **wanted, "tasks": {}}
    results = read_json(path)
    differ = [
        f"{key}: {results.get(key)} before, {value} now"
        for key, value in wanted.items()
        if results.get(key) != value
    ]
    if differ:
        raise ValueError(
            f"{request.output} holds other results: {'; '.join(differ)}; "
            "choose another --output"
        )
    return {**results, "version": __version__}


def _run_and_record(request, plan, ranks, results):
    """Runs a task; its record goes into the results, however it ends."""
    old = results["tasks"].get(plan.name, {})
    record = results["tasks"][plan.name] = {
        "title": plan.task.title,
        "state": RUNNING,
        "corpus": plan.corpus.name,
        "own_corpus": plan.own,
        "yaml": plan.yaml,
        "changed": dict(request.changed.get(plan.name, {})),
        "seconds": old.get("seconds", 0.0),
    }
    _write(request, results)
    # Those of an earlier run are not to be submitted if this one fails
    remove_predictions(plan.name, _predictions(request, plan))
    before, start = _finished(request, plan), time.monotonic()
    reason = _run_task(request, plan, ranks)
    if not before or before != _finished(request, plan):
        record["seconds"] = round(
            record["seconds"] + time.monotonic() - start, 1
        )
    reason = reason or _collect(request, plan, record)
    record["state"] = FAILED if reason else FINISHED
    if reason:
        record["reason"] = reason
    _write(request, results)
    time_text = duration_text(record["seconds"])
    _say(f"      {reason or f'{score_text(record)}, {time_text}'}")
    if record.get("no_predictions"):
        _say(f"      no predictions: {record['no_predictions']}")


def _finished(request, plan):
    """What a task's recipe has noted of its runs; empty before any."""
    files = sorted(request.folder(plan).glob("**/experiment.json"))
    return [file.read_bytes() for file in files]


def _collect(request, plan, record):
    """Adds to a record what the runs have left; a sentence where that cannot be
    read or written."""
    folder = request.folder(plan)
    place = _predictions(request, plan)
    try:
        record |= describe_run(plan, folder)
        write_predictions(plan, folder, place)
        record["predictions"] = place.name
    except ImportError as error:
        record["no_predictions"] = str(error)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _predictions(request, plan):
    """Where predictions go: those on other corpora are kept apart."""
    name = plan.corpus.name.replace(" ", "_")
    return request.output / ("predict" if plan.own else f"predict_on_{name}")


def _run_task(request, plan, ranks):
    """Runs the recipe of a task; a sentence if it fails."""
    options = [as_option(k, v) for k, v in request.keys(plan).items()]
    line = ["recipe", plan.task.recipe, plan.yaml, *options]
    log = request.output / "logs" / ranks.own_name(f"{plan.name}.log")
    ranks.begin(plan.name)
    try:
        if ranks.is_main:
            _await_writer(request.folder(plan))
        if plan.corpus.links and ranks.is_main:
            _link(plan.corpus, request.root, request.linked(plan))
        log.parent.mkdir(parents=True, exist_ok=True)
        status = ranks.run(
            [*line, *request.options, "--noprogressbar"], log, plan.task.alone
        )
    except OSError as error:
        ranks.end(1)
        return str(error)
    return _reason(status, log) if status else ""


def _await_writer(folder):
    """Waits for the recipe of a killed run, which ends with it but not at
    once; another one that writes there says so itself."""
    deadline = time.monotonic() + _GRACE_S
    while folder.is_dir() and time.monotonic() < deadline:
        try:
            with OneWriter(folder, folder / ".lock"):
                return
        except BlockingIOError:
            time.sleep(_POLL_S)


def _link(corpus, root, folder):
    """Links together what a corpus consists of."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pattern in corpus.links.items():
        for number, path in enumerate(sorted(root.glob(pattern))):
            link = folder / name.replace("*", str(number))
            link.unlink(missing_ok=True)
            link.symlink_to(path.absolute(), target_is_directory=True)


def _reason(status, log):
    """Why a recipe has failed: its last line."""
    if status < 0:
        return (
            f"ended by the signal {signal.Signals(-status).name}, as by want "
            f"of memory; see {log}"
        )
    with open(log, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(_PROGRAM)]
    last = (ours or lines or [f"ended with status {status}; see {log}"])[-1]
    return last.removeprefix(_PROGRAM)


class _Ranks:
    """The processes of torchrun, each of which runs every task in a process;
    or one, without torchrun.

    Each process says in a folder how its part of a task has ended, so that the
    others do not wait for one that has failed.
    """

    def __init__(self, output):
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        if int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) != self.size:
            raise ValueError(
                "superb run: expected torchrun on one machine; got processes "
                "on others, too"
            )
        self.is_main, self.task = self.rank == 0, ""
        self.folder = output / f".ranks-{os.getppid()}"
        if self.size > 1:
            self.folder.mkdir(parents=True, exist_ok=True)

    def own_name(self, name):
        """A file's name that no other process has."""
        return name if self.is_main else f"{self.rank}-{name}"

    def begin(self, task):
        """Takes up a task."""
        self.task = task

    def end(self, status):
        """Says how this process's part of the task has ended."""
        if self.size > 1:
            with suppress(FileNotFoundError):  # the first process has ended
                self._write(f"{self.task}.{self.rank}", status)

    def run(self, line, log, alone):
        """Runs a command, its output added to a log; its status, or that of
        another process that failed. With ``alone`` the first process does it,
        and the others wait."""
        if self.size == 1:
            return _watch(line, log, {}, lambda: 0)
        if alone and not self.is_main:
            while not (ended := self._ended()).get(0, ""):
                time.sleep(_POLL_S)
            return int(ended[0])
        variables = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if not alone:
            # torchrun's own meeting place would still have the last task's
            port = self._meeting_port()
            if port is None:
                return self._failure()
            variables = {
                "MASTER_PORT": port,
                "TORCHELASTIC_USE_AGENT_STORE": "False",
            }
        status = _watch(line, log, variables, self._failure)
        self.end(status)
        return status

    def _meeting_port(self):
        """Port at which the processes of a task meet, that the first one
        chooses; None if it has failed."""
        file = self.folder / f"port-{self.task}"
        if self.is_main:
            with socket.socket() as found:
                found.bind(("", 0))
                self._write(file.name, found.getsockname()[1])
        while not file.exists():
            if self._failure():
                return None
            time.sleep(_POLL_S)
        return file.read_text()

    def _write(self, name, content):
        """Writes a file that appears with its content."""
        draft = self.folder / f".{name}-{self.rank}"
        draft.write_text(str(content))
        draft.replace(self.folder / name)

    def _ended(self):
        """Process -> how its part of this task has ended."""
        return {
            int(file.suffix[1:]): file.read_text()
            for file in self.folder.glob(f"{self.task}.*")
        }

    def _failure(self):
        """Status of a process that has failed; 0 where none has."""
        statuses = [int(text) for text in self._ended().values() if text]
        return next((status for status in statuses if status), 0)

    def close(self):
        """Removes what the processes have said."""
        if self.size > 1:
            remove(self.folder)


def _watch(line, log, variables, failure):
    """Runs a command to its end, or a while after another process's failure;
    its status. It ends with this process."""
    env = {**os.environ, "PYTHONPATH": _python_path(), **variables}
    env = {name: value for name, value in env.items() if value is not None}
    with open(log, "ab") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "unispeech_sb", *line],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=env,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        while not (failed := failure()):
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_POLL_S)
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_GRACE_S) or failed
        return failed
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _python_path():
    """Where a process finds this package and its recipes."""
    here = str(Path(unispeech_sb.__file__).parents[1])
    rest = os.environ.get("PYTHONPATH")
    return os.pathsep.join([here, rest] if rest else [here])


def _end_with_parent():
    """Has the kernel end this process when its parent ends, as by kill -9."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _write(request, results):
    """Writes results and report, whole or not at all."""
    names = [name for name in TASKS if name in results["tasks"]]
    results["tasks"] = {name: results["tasks"][name] for name in names}
    write_json(request.output / RESULTS, results)
    write_report(request.output, [results])


def _pack(output):
    """Packs the predictions as they are submitted."""
    if not any((output / "predict").glob("*")):
        remove(output / "predict.zip")
    else:
        with atomic(output / "predict.zip", mode=None) as draft:
            name = str(draft).removesuffix(".zip")
            shutil.make_archive(name, "zip", output, "predict")


def _opening(request, plans, missing):
    """What is there, and what is not."""
    lines = [
        f"SUPERB, preset {request.preset}: {request.model}",
        f"Corpora in {request.root}:",
    ]
    lines += [f"  {_about(plan)}: found" for plan in plans]
    for name, faults in missing.items():
        lines.append(f"  {name:<4}{TASKS[name].title}: missing")
        lines += [f"        {fault}" for fault in faults]
    return "\n".join(lines)


def _about(plan):
    """A task and its corpus, as a line."""
    corpus = f"on {plan.corpus.name}"
    if not plan.own:
        corpus += f", not {plan.task.corpora[0].name}"
    return f"{plan.name:<4}{plan.task.title} {corpus}"


def _closing(request, results):
    """The scores, and where all is."""
    places = {
        "results": RESULTS,
        "report": REPORT,
        "predictions": "predict.zip",
    }
    lines = ["", summary_text(results)]
    for what, name in places.items():
        if (request.output / name).exists():
            lines.append(f"{what:<12}{request.output / name}")
    return "\n".join(lines)


def _say(text):
    """Prints at once, also into a pipe."""
    print_escaped(text)
    sys.stdout.flush()
