"""Scripts in processes that are forked from one that has imported what they
need, once: imports take longer than the runs of most tests.

``python -m tests.forks`` is that process; each line that it reads is a request
as JSON.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent
IMPORTED = ("torch._dynamo", "recipes.asr", "tests.recipes.ordered_pretraining")
MOST_S = 900


def run_script(script, *arguments, processes=1, **variables):
    """Runs a script, in as many processes of one group, as torchrun does; its
    exit code, output and errors. Keywords are more environment variables."""
    with TemporaryDirectory() as folder:
        request = {
            "script": str(script),
            "arguments": list(map(str, arguments)),
            "processes": processes,
            "variables": {**os.environ, "OMP_NUM_THREADS": "1", **variables},
            "here": os.getcwd(),
            "folder": folder,
        }
        server = _server()
        print(json.dumps(request), file=server.stdin, flush=True)
        codes = json.loads(server.stdout.readline())
        texts = [Path(folder, name).read_text() for name in ("out", "err")]
    return subprocess.CompletedProcess(arguments, max(codes), *texts)


@cache
def _server():
    """The process that forks; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forks"], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    atexit.register(server.stdin.close)
    return server


def serve():
    """Answers each request by the exit codes of its processes."""
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        pids = [
            _fork(request, rank, port) for rank in range(request["processes"])
        ]
        print(json.dumps(_wait(pids)), flush=True)


def _wait(pids):
    """Exit codes; once one has failed, the others are ended."""
    codes, left = [], {*pids}
    while left:
        pid, status = os.wait()
        left.remove(pid)
        codes.append(abs(os.waitstatus_to_exitcode(status)))
        if codes[-1]:
            for other in left:
                os.kill(other, signal.SIGTERM)
    return codes


def _fork(request, rank, port):
    """Starts a process of a request; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _become(request, rank, port)
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(request, rank, port):
    """Makes this process what one of its own would be."""
    signal.alarm(MOST_S)  # which ends it
    for number, name in enumerate((os.devnull, "out", "err")):
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(Path(request["folder"], name), flags), number)
    os.chdir(request["here"])
    os.environ.clear()
    os.environ.update(request["variables"])
    if request["processes"] > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank),
            WORLD_SIZE=str(request["processes"]),
            LOCAL_WORLD_SIZE=str(request["processes"]),
            MASTER_ADDR="localhost", MASTER_PORT=str(port),
        )  # fmt: skip
    sys.argv = [request["script"], *request["arguments"]]
    sys.path.insert(0, str(Path(request["script"]).parent))


if __name__ == "__main__":
    from tests.conftest import be_quick

    be_quick(pytest.MonkeyPatch())
    serve()
