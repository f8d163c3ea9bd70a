"""What mends an installation in which torch and torchaudio do not load.

SpeechBrain cannot be imported without a torchaudio that loads, and its error
names neither the cause nor the remedy. Numbers alone do not decide which pairs
load, the import does: once this package is imported, a failing import of torch,
torchaudio or SpeechBrain raises ``BrokenInstallation``, whoever asked for it.
"""

import os
import re
import shlex
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.util import find_spec

TESTED = {"torch": "2.14.1", "torchaudio": "2.11.1"}
"""The pair of ``constraints.txt``."""

TORCHAUDIO_FOR = {
    "2.10": "2.10.0",
    "2.11": "2.11.0",
    "2.12": "2.11.0",
    "2.13": "2.11.1",
    "2.14": "2.11.1",
    "2.15": "2.11.1",
}
"""Release of torch -> the torchaudio that loads with it, as tried in
``docs/installation.md``."""

BUILDS = "https://download.pytorch.org/whl"
"""Where PyTorch keeps its builds for one kind of device, such as ``+cpu``."""

_BUILD = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")
_FAILURES = (ImportError, OSError, RuntimeError, AttributeError)


class BrokenInstallation(ImportError):
    """torch or torchaudio is missing or does not load.

    Its message is one sentence with the two versions, the cause and the command
    that mends it; uncaught, it ends a script with that sentence alone.
    """


def install() -> None:
    """Makes failing imports name their remedy; a second call changes nothing.

    Imports take seconds: a script of a folder ``recipes`` that Ctrl-C ends in
    the meantime says so in one line, too.

    Example
    -------
    >>> install()
    """
    if not any(isinstance(finder, _GuardedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GuardedFinder())
    if _runs_recipe():
        _end_in_one_line()


def require_torchaudio() -> None:
    """Imports torchaudio, and with it torch.

    Raises
    ------
    BrokenInstallation
        When torch or torchaudio is missing or does not load.

    Example
    -------
    >>> require_torchaudio()
    """
    try:
        import torchaudio  # noqa: F401
    except ModuleNotFoundError as error:
        raise _broken(error, "torchaudio") from error


def require_extra(package: str, extra: str, purpose: str) -> None:
    """Refuses a purpose whose package is not installed, by the pip command."""
    if find_spec(package) is None:
        raise ImportError(
            f"{purpose} needs the package {package}: run "
            f"`pip install 'unispeech_sb[{extra}]'`"
        )


ENGINES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""What runs a model -> packages of the extra ``export`` that it needs."""


def require_engine(engine: str, purpose: str) -> None:
    """Refuses an engine whose packages are not installed."""
    for package in ENGINES[engine]:
        require_extra(package, "export", purpose)


class _GuardedFinder(MetaPathFinder):
    """Finds what may fail for want of a pair that loads, and guards it."""

    def find_spec(self, fullname, path=None, target=None):
        """Finds these three as Python itself does; their loader is guarded."""
        if fullname not in ("torch", "torchaudio", "speechbrain"):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _guarded(spec.loader.exec_module)
        return spec


def _guarded(exec_module):
    """``exec_module`` that raises BrokenInstallation where it fails."""

    def execute(module):
        try:
            exec_module(module)
        except BrokenInstallation:
            raise
        except _FAILURES as error:
            missing = getattr(error, "name", None)
            if module.__name__ == "speechbrain" and missing not in TESTED:
                raise
            raise _broken(error, module.__name__) from error

    return execute


def _broken(error, name):
    """The exception for an import of ``name`` that ended with ``error``."""
    _end_in_one_line()
    torch, torchaudio = _installed("torch"), _installed("torchaudio")
    if torch is None:
        fault = "torch is not installed"
    elif name == "torch":
        fault = f"torch {torch} does not load ({_cause(error)})"
    elif torchaudio is None:
        fault = f"torchaudio is not installed beside torch {torch}"
    else:
        fault = (
            f"torchaudio {torchaudio} does not load with torch {torch} "
            f"({_cause(error)})"
        )
    command = _remedy(torch, torchaudio, keep=name != "torch")
    return BrokenInstallation(f"{fault}: run `{command}`")


def _installed(name):
    """Version of a distribution as its metadata says, None without one."""
    from importlib.metadata import PackageNotFoundError, version  # slow

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cause(error):
    """First line of what an error comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _remedy(torch, torchaudio, keep=True):
    """Command that installs a pair that loads.

    An installed torch of the table is kept, its build too: the torchaudio of
    the index does not load beside a torch without CUDA. Where torch itself or
    the right torchaudio fails, ``keep=False``, files are damaged or missing.
    """
    number, _, build = (torch or "").partition("+")
    partner = TORCHAUDIO_FOR.get(".".join(number.split(".")[:2]))
    options = []
    if partner is not None and _BUILD.fullmatch(build):
        partner = f"{partner}+{build}"
        options = ["--extra-index-url", f"{BUILDS}/{build}"]
    if partner is None:
        pair = [f"{name}=={release}" for name, release in TESTED.items()]
        options = ["--force-reinstall", *pair]
    elif keep and torchaudio != partner:
        options = ["--no-deps", *options, f"torchaudio=={partner}"]
    else:
        pair = [f"torch=={torch}", f"torchaudio=={partner}"]
        options = ["--force-reinstall", *options, *pair]
    quoted = [f"'{o}'" if "==" in o else o for o in options]
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    return " ".join([pip, *quoted])


def _runs_recipe():
    """Whether the process runs a script of a folder ``recipes``."""
    folder, name = os.path.split(os.path.abspath((sys.argv or [""])[0]))
    return name.endswith(".py") and os.path.basename(folder) == "recipes"


def _end_in_one_line():
    """Makes what ends the process one line."""
    if not isinstance(sys.excepthook, _OneLine):
        sys.excepthook = _OneLine(sys.excepthook)


class _OneLine:
    """An excepthook under which BrokenInstallation takes one line, and in a
    recipe Ctrl-C."""

    def __init__(self, usual):
        self.usual = usual

    def __call__(self, kind, error, trace):
        """Prints what ends the process."""
        program = os.path.basename(sys.argv[0])
        if isinstance(error, BrokenInstallation):
            print(f"{program}: error: {error}", file=sys.stderr)
        elif kind is KeyboardInterrupt and _runs_recipe():
            print(f"{program}: interrupted; nothing was begun", file=sys.stderr)
        else:
            self.usual(kind, error, trace)
