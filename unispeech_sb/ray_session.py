"""Ray, of a cluster or of this machine, for as long as a job takes."""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SETTINGS = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
"""Ray's own messages stay in its logs, nothing is sent to anyone, and processes
here have the priority of this one."""
_SETTINGS_HERE = {
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_io_context_event_loop_lag_collection_interval_ms": "0",
    "RAY_task_events_report_interval_ms": "0",
}
"""A Ray that is started here gathers no figures, which nobody would read and
which take processor time while its processes wait."""
_PR_SET_PDEATHSIG = 1
_STARTS = 3
"""Times that Ray is started which gets no processor for half a minute."""


@contextmanager
def ray_session(address: str | None, num_cpus: int = 1) -> Iterator[None]:
    """Connects to a cluster, or starts Ray here and ends it afterwards.

    Ray here has the processors of this machine, ``num_cpus`` at least. One that
    this process is connected to already is used as it is. What a task of Ray's
    raises inside is raised as it was raised there.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.exceptions import RayTaskError

    is_new = not ray.is_initialized()
    if is_new:
        _connect(address, max(os.cpu_count() or 1, num_cpus))
    try:
        with _quiet_data():
            yield
    except RayTaskError as error:
        raise _cause_of(error) from None
    finally:
        if is_new:
            ray.shutdown()


def _connect(address, num_cpus):
    """Connects to Ray, which starts it here without an address."""
    import ray

    import unispeech_sb

    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address is not None:
        package = str(Path(unispeech_sb.__file__).parent)
        sent = {"py_modules": [package]}
        ray.init(address, runtime_env=sent, **quiet)
        return
    for name, value in _SETTINGS_HERE.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"num_cpus": num_cpus, **quiet}
    for _ in range(_STARTS):
        try:
            ray.init("local", include_dashboard=False, **options)
        except Exception as error:
            # Ray raises the bare class when its processes do not answer
            if type(error) is not Exception:
                raise
            ray.shutdown()
        else:
            return
    raise TimeoutError(
        f"expected Ray to start on this machine, tried {_STARTS} times; its "
        "processes did not answer, for want of processor time or memory "
        "perhaps: try again when the machine is less busy"
    )


def end_with_parent() -> None:
    """Has the system end this process of Ray's when the raylet ends that began
    it: Ray's own shutdown may wait for ever, with the model in memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _quiet_data():
    """Sets Ray Data so that a row is a block, and each group of recordings a
    task of its own, and that it prints nothing."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    own = {
        "target_max_block_size": 1,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    before = {name: getattr(context, name) for name in own}
    for name, value in own.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _cause_of(error):
    """What went wrong in another process."""
    cause = error
    while getattr(cause, "cause", None) or cause.__cause__:
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause
