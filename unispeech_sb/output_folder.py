"""The experiment that an output folder belongs to.

A run keeps ``experiment.json`` in its output folder: the data that it was
prepared on, its settings, and how far it has come. The same experiment goes on
there, or is found finished; another one is refused before anything in the
folder has changed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.logger import get_logger

from unispeech_sb import __version__
from unispeech_sb.atomic import OneWriter, atomic, sweep, temporary_folder
from unispeech_sb.fingerprint import (
    INPUTS,
    MANIFESTS,
    PLACES,
    SPLITS,
    asks_for_more,
    describe_data,
    differences,
    read_settings,
)

logger = get_logger(__name__)

_FILE = "experiment.json"
_LEFT = (
    *("hyperparams.yaml", "env.log", "log.txt", "train_log.txt", "debug"),
    *("tensorboard", "scores.json", "export", "units", "confusion.*"),
    *("speakers.txt", "[wcp]er.txt", "trials.csv", "det.png", "histogram.png"),
    *("curves*.csv", "curves*.png", "hypotheses.rttm"),
    "activities.safetensors",
    *("test_predict.*", "test_fold?_predict.txt", "test-???.ark"),
    *("benchmark.stdlist.xml", "layers.json"),
)
"""What runs leave in the output folder, beside copies of scripts, ..."""

_DRAFTS = (".preparing-*", ".export-*")
_CHECKPOINTS, _COMPUTED = (
    ("CKPT*", "learning_rates"),
    ("*.f32", "*.npz", "states"),
)
_SETTINGS = "settings.json"  # of make_units, before there was _FILE
_SAVED = (*_CHECKPOINTS, *_COMPUTED, "partial", "tokenizer.ckpt", _SETTINGS)
_PREPARED = (*SPLITS, "splits.json", "voices", "documents", "noises", "rirs")
"""... in ``save_folder``, and in ``manifest_folder``."""

_NUM_NAMED = 10  # differences that an error names before it only counts


class OutputFolder:
    """The output folder of a run; the main process alone calls its methods.

    With ``overwrite`` a run starts afresh, and removes what an earlier one
    left. Between ``lock`` and ``unlock`` other processes are refused, but for
    those that make other shards.
    """

    def __init__(
        self,
        hparams: dict[str, Any],
        recipe: str,
        settings: dict[str, Any],
        overwrite: bool = False,
    ) -> None:
        self.hparams = hparams
        self.folder = Path(hparams["output_folder"])
        self.save = Path(hparams.get("save_folder", self.folder / "save"))
        self.record: dict[str, Any] = {
            "state": "running",
            "recipe": recipe,
            "version": __version__,
            "settings": settings,
        }
        self.overwrite = overwrite
        self.scripts: list[str] = []
        self.old: dict[str, Any] | None = None
        self.others: list[dict[str, Any]] = []
        self._made: set[Path] = set()
        shard = hparams.get("shard")
        name = ".lock" if shard is None else f".shard-{shard}.lock"
        self._writers = [
            OneWriter(self.folder, file.parent / name) for file in self._files()
        ]

    def lock(self) -> None:
        """Keeps other processes out of the folder, and of a ``save_folder``
        that is elsewhere; a ``BlockingIOError`` where one is in it. What killed
        runs left half written is removed."""
        try:
            for writer in self._writers:
                folder = writer.path.parent
                self._made |= set() if folder.exists() else {folder}
                folder.mkdir(parents=True, exist_ok=True)
                writer.acquire()
                for place, _, _ in os.walk(folder):
                    sweep(place)
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Lets other processes in; a folder that was made for nothing goes."""
        for writer in self._writers:
            writer.release()
        for folder in self._made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()

    def look(self) -> bool:
        """Reads the record of an earlier run; whether there was one."""
        found = [_read_json(f) for f in self._files() if f.is_file()]
        self.old, *self.others = found or [self._legacy()]
        begun = (self.folder / "hyperparams.yaml").is_file()
        if self.overwrite and self.old is None and not begun:
            here = self.folder.iterdir() if self.folder.is_dir() else ()
            own = {self.save, *(writer.path for writer in self._writers)}
            if self._has_work() or set(here) - own:
                raise ValueError(
                    f"{self.folder}: expected the folder of an earlier run, "
                    f"with {_FILE}; --overwrite removes nothing else"
                )
        return self.old is not None

    def _files(self):
        """The record, and its copy in a ``save_folder`` that is elsewhere."""
        inside = self.folder.resolve() in self.save.resolve().parents
        return [f / _FILE for f in (self.folder, self.save)[: 2 - inside]]

    def _has_work(self):
        """Whether there is anything that must not pass for another's."""
        saved = any(any(self.save.glob(p)) for p in (*_CHECKPOINTS, *_COMPUTED))
        return saved or any(
            (self.folder / name).is_dir() for name in ("export", "units")
        )

    def _legacy(self):
        """The record of a run of a version that kept none."""
        path = self.folder / "hyperparams.yaml"
        if not (path.is_file() and self._has_work()):
            return None
        settings = read_settings(path.read_text(encoding="utf-8"))
        data = describe_data(self.hparams)
        if (self.save / _SETTINGS).is_file():
            kept = _read_json(self.save / _SETTINGS)
            if kept["manifests"] != _checksums(self.hparams["manifest_folder"]):
                data = {}
            settings |= {k: v for k, v in kept.items() if k in settings}
        return {"state": "running", "settings": settings, "data": data}

    def is_prepared(self) -> bool:
        """Whether an unfinished run's manifests are there, of the same data."""
        if self.old is None or self.old["state"] != "running":
            return False
        old, new = (r["settings"] for r in (self.old, self.record))
        if any(old.get(key) != new.get(key) for key in PLACES):
            return False
        return describe_data(self.hparams) == self.old["data"]

    def take(
        self, prepare: Callable[[dict[str, Any]], object] | None = None
    ) -> dict[str, Any] | None:
        """Prepares the data beside the folder, and takes both if they fit.

        ``prepare`` is given hparams with other folders to write to. Gives the
        record of a finished run, None where there is something to do; raises
        where the folder holds another experiment.
        """
        self._refuse_others()
        self.folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self.folder / "preparing") as draft:
            places = self._prepare(prepare, draft)
            self.record["data"] = describe_data({**self.hparams, **places})
            self._refuse_others()
            if self._is_finished():
                return self.old
            self._begin()
            for key, place in places.items():
                _move(Path(place), Path(self.hparams[key]))
        return None

    def _prepare(self, prepare, draft):
        """Calls ``prepare`` with folders of its own; the keys of these."""
        if prepare is None:
            return {}
        keys = ["save_folder", "manifest_folder"]
        if self.hparams.get("skip_prep"):
            keys.remove("manifest_folder")
        places = {key: str(draft / key) for key in keys if key in self.hparams}
        for place in places.values():
            os.mkdir(place)
        given, tokenizer = {**self.hparams, **places}, "tokenizer.ckpt"
        if not self._is_bound():  # so that nothing is gone on with
            given["checkpointer"] = Checkpointer(draft / "none")
        elif (self.save / tokenizer).is_file():  # the run keeps its own
            shutil.copy(self.save / tokenizer, places["save_folder"])
        prepare(given)
        return places

    def _is_bound(self):
        """Whether an earlier run left work, and this one is not to drop it."""
        if self.old is None or self.overwrite:
            return False
        state = self.old["state"]
        return state == "finished" or state == "running" and self._has_work()

    def _refuse_others(self):
        """Raises where the folder holds the work of another experiment."""
        if not self._is_bound():
            return
        olds = [self.old, *self.others]
        differ = [d for old in olds for d in differences(old, self.record)]
        if differ:
            more = len(differ) - _NUM_NAMED
            raise ValueError(
                f"{self.folder} holds another experiment: "
                + "; ".join(differ[:_NUM_NAMED])
                + (f"; and {more} more" if more > 0 else "")
                + "; choose another folder by --output_folder=..., or start "
                "afresh in this one by --overwrite"
            )

    def _is_finished(self):
        """Whether all of this experiment is done."""
        if not self._is_bound():
            return False
        if self.old.get("version") != __version__:
            logger.warning(
                f"{self.folder} was begun by "
                f"{self.old.get('version', 'an older version')} of this "
                f"package and goes on with {__version__}"
            )
        if self.old["state"] != "finished" or asks_for_more(
            self.old, self.record
        ):
            return False
        return all((self.folder / name).exists() for name in self.old["made"])

    def _begin(self):
        """Notes that this run is at work; first drops what is to go."""
        dropped = self.old is not None and not self._is_bound()
        if dropped and (
            self.overwrite
            or self.old["state"] != "running"
            or differences(self.old, self.record)
        ):
            left = self._left()
            self._write({**self.record, "state": "starting"})
            for path in left:
                _remove(path)
        export = self.folder / "export"
        if self._is_bound() and not (export / "hyperparams.yaml").is_file():
            _remove(export)  # a process was killed while it replaced this
        self.save.mkdir(parents=True, exist_ok=True)
        self.record["scripts"] = [os.path.basename(s) for s in self.scripts]
        self._write(self.record)

    def _left(self):
        """What an earlier run left, which must be nothing that is needed."""
        scripts = self.old.get("scripts", ())
        places = {self.folder: (*_LEFT, *scripts), self.save: _SAVED}
        if not self.hparams.get("skip_prep"):
            manifests = self.hparams.get("manifest_folder", self.folder)
            places[Path(manifests)] = _PREPARED
        left = [
            path
            for place, names in places.items()
            for name in names
            for path in place.glob(name)
        ]
        for key, value in self.record["settings"].items():
            if key not in INPUTS or key not in self.hparams:
                continue
            value = value["path"] if isinstance(value, dict) else str(value)
            needed = Path(value).resolve()
            for path in left:
                if path.resolve() in (needed, *needed.parents):
                    raise ValueError(
                        f"{key}: expected nothing that --overwrite removes, "
                        f"got {value}; choose another --output_folder"
                    )
        return left

    def finish(self, split: str, export: str | Path = "export") -> None:
        """Records that all is done, the scored split and the export."""
        made = [self.folder / name for name in ("scores.json", export)]
        self.record["made"] = [
            os.path.relpath(path, self.folder) for path in made if path.exists()
        ]
        self.record |= {"state": "finished", "split": split}
        for name in _DRAFTS:  # of killed processes
            for path in self.folder.glob(name):
                _remove(path)
        self._write(self.record)

    def keep_scripts(self) -> None:
        """Copies ``scripts``, files of the run, to the folder."""
        for script in self.scripts:
            shutil.copy(script, self.folder)

    def read_scores(self) -> dict[str, Any]:
        """Reads the scores of a finished run."""
        return _read_json(self.folder / "scores.json")

    def _write(self, record):
        """Replaces the record, whole or not at all."""
        if record["settings"].get("test_only"):
            return  # what was trained is as it was
        for file in self._files():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic(file) as stream:
                stream.write(json.dumps(record, indent=2) + "\n")


def _read_json(path):
    """Reads a file of ours."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected JSON, as a run writes it ({error}); choose "
            "another --output_folder"
        ) from error


def _remove(path):
    """Removes a file, a link, or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move(draft, place):
    """Puts prepared files where they belong, in place of earlier ones."""
    files = [p.relative_to(draft) for p in draft.rglob("*") if p.is_file()]
    for name in files:
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target, mode=None) as whole:
            shutil.copyfile(draft / name, whole)
    if any(name.name in SPLITS for name in files):
        for name in map(Path, MANIFESTS):
            if name not in files:  # of an earlier corpus
                (place / name).unlink(missing_ok=True)


def _checksums(folder):
    """As earlier versions of make_units kept them."""
    files = [Path(folder, name) for name in SPLITS]
    return [
        hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    ]
