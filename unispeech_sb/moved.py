"""Old names that keep working: modules and classes that have moved.

Exported folders, yamls and scripts of earlier versions name what they use by
its full path. ``MOVED`` is the one list of paths that have changed; importing
an old module gives a stand-in that finds each name where it is now.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MOVED = {
    "speechbrain.lobes.models.unispeech": "unispeech_sb.lobes.unispeech",
    "unispeech_sb.dataio.annotation_files": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.annotation_lines": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.annotations": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.batches": "unispeech_sb.dataio.samplers",
    "unispeech_sb.dataio.mixture_sets": "unispeech_sb.dataio.simulation",
    "unispeech_sb.dataio.mixtures": "unispeech_sb.dataio.simulation",
}
"""Old module -> the module that has its names now; or, where its names went
different ways or have changed, a dict of old name -> ``module:name``."""

QUIET = {"speechbrain.lobes.models.unispeech"}
"""Modules that are not deprecated: a second name of what is there."""


class _MovedFinder(MetaPathFinder, Loader):
    """Finds the modules of ``MOVED``, after all other finders."""

    def find_spec(self, fullname, path=None, target=None):
        """Answers for old names only."""
        if fullname in MOVED:
            return ModuleSpec(fullname, self, is_package=_has_below(fullname))
        return None

    def exec_module(self, module):
        """Gives the stand-in its one function."""
        module.__getattr__ = _forward(module.__name__)


def install():
    """Makes the old names importable; a second call changes nothing.

    Example
    -------
    >>> install()
    >>> from speechbrain.lobes.models.unispeech import UtteranceHead
    >>> UtteranceHead.__module__.startswith("unispeech_sb.lobes")
    True
    """
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())


def _has_below(name):
    """Whether other old modules are below this one."""
    return any(other.startswith(f"{name}.") for other in MOVED)


def _forward(old):
    """``__getattr__`` of an old module."""

    def find(name):
        new = MOVED.get(old, {})
        if isinstance(new, str):
            new = {name: f"{new}:{name}"}
        if name not in new or name.startswith("__"):
            raise AttributeError(f"module {old} has no attribute {name!r}")
        module, _, new_name = new[name].partition(":")
        found = getattr(import_module(module), new_name)
        if old not in QUIET:
            warnings.warn(
                f"{old}.{name} is now {module}.{new_name}; the old name goes "
                "with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
        return found

    return find
