"""Which recordings a command takes, and where the results go.

Recordings are named by files, folders, patterns that the shell left, and lists;
results are printed, or written below an output folder in the tree of the
inputs. Nothing here imports torch, but for folders.
"""

import argparse
import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.atomic import atomic
from unispeech_sb.commands.options import (
    check_files,
    check_names,
    check_output_folder,
)
from unispeech_sb.dataio.rttm import kaldi_files
from unispeech_sb.errors import print_escaped
from unispeech_sb.inference.formats import (
    Format,
    RecordingId,
    describe,
    recording_name,
)
from unispeech_sb.text import absent, lines_of

RECORDING = (
    "recording in a format that soundfile reads: WAV, FLAC, MP3, ...; m4a, "
    "webm, ... where PyAV or ffmpeg is installed"
)
ALL = "all"


class Recording(NamedTuple):
    """A file to read, what outputs call it, and its place in their folder,
    without suffix."""

    path: str
    name: str
    place: str


def add_files(parser):
    """Adds the recordings."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"{RECORDING}; a folder of them, a pattern such as '*.wav', "
        "@LIST with a path on each line, or a wav.scp of Kaldi",
    )


def add_outputs(parser, formats, others=None, when=""):
    """Adds format and folder of the results, under whisper's names, too.

    ``others`` are formats that take another option, ``when``.
    """
    others = others or {}
    choices, more = [*formats, *others, ALL], ""
    if others:
        more = f"; {when}, {describe(others)}"
    parser.add_argument(
        "--format",
        type=_ours,
        choices=choices,
        metavar=f"{{{','.join([*formats, ALL])}}}",
        default="text",
        help=f"{describe(formats)}; all: each of them{more} "
        "(default: %(default)s)",
    )
    parser.add_argument(
        *("-f", "--output_format"),
        dest="format",
        type=_ours,
        choices=choices,
        metavar="F",
        default=argparse.SUPPRESS,
        help="the same as --format, as whisper calls it",
    )
    add_output_folder(parser)


def add_output_folder(parser, required=False):
    """Adds the folder of the results, and whether to make them again."""
    parser.add_argument(
        *("-o", "--output-dir", "--output_dir", "--output"),
        type=Path,
        metavar="DIR",
        required=required,
        help="write a file for each recording into DIR, nothing to the "
        "standard output; folders that are given keep their tree",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="do again what is in DIR already; it is skipped otherwise",
    )


def chosen(formats: Mapping[str, Format], name: str) -> list[Format]:
    """The formats that an option names."""
    if name == ALL:
        return [*formats.values()]
    return [formats[name]]


def _ours(name):
    """Our name of a format that may be called as whisper calls it."""
    return {"txt": "text"}.get(name, name)


def find_recordings(words: Sequence[str]) -> dict[str, Recording]:
    """Path -> recording, of all that some words name, in their order.

    What is not there, a folder without recordings too, stays, to be named
    among the files that fail.
    """
    found: dict[str, Recording] = {}
    for word in words:
        if not word:
            raise ValueError(f"files: {absent(word, 'recording')}")
        for recording in _distinct([*_named_by(word)]):
            before = found.setdefault(recording.path, recording)
            if before.name != recording.name:
                raise ValueError(
                    f"files: expected one name for each recording; "
                    f"{recording.path} is {before.name} and {recording.name}"
                )
    return found


def _distinct(recordings):
    """Recordings of one word; those that would share a place, as a.wav and
    a.flac in a folder, keep their suffixes in it."""
    counts = Counter(recording.place for recording in recordings)
    return [
        recording._replace(place=recording.place + Path(recording.path).suffix)
        if counts[recording.place] > 1
        else recording
        for recording in recordings
    ]


def _named_by(word):
    """Yields the recordings that a word names."""
    if os.path.isfile(word) and word.lower().endswith(".scp"):
        yield from _listed(word)
    elif os.path.isdir(word):
        yield from _below(word, word)
    elif os.path.lexists(word):
        yield _recording(word, os.path.dirname(word))
    elif word.startswith("@") and os.path.isfile(word[1:]):
        yield from _listed(word[1:])
    elif matches := sorted(glob.glob(word, recursive=True)):
        plain = re.split(r"[*?\[]", word)[0]
        root = os.path.dirname(plain)
        for path in matches:
            if os.path.isdir(path):
                yield from _below(path, root, may_be_empty=True)
            else:
                yield _recording(path, root)
    else:
        yield _recording(word, os.path.dirname(word))


def _recording(path, root):
    """A recording whose place is below a folder."""
    place = os.path.splitext(os.path.relpath(path, root or "."))[0]
    return Recording(str(path), str(path), place)


def _below(folder, root, may_be_empty=False):
    """Recordings of a folder and those in it; itself, where there are none."""
    from unispeech_sb.dataio.containers import (
        OTHER_SUFFIXES,
        SUFFIXES,
        recordings_below,
    )

    paths = recordings_below(folder, SUFFIXES + OTHER_SUFFIXES)
    if not paths and not may_be_empty:
        paths = [folder]
    for path in paths:
        yield _recording(path, root)


def _listed(path):
    """Recordings of a list. Relative paths start at the current folder or,
    where nothing is there, at that of the list."""
    home = os.path.dirname(path)
    if path.lower().endswith(".scp"):
        for name, (_, file) in kaldi_files(path).items():
            place = name.replace("/", "_")
            yield Recording(_from(home, file), RecordingId(name), place)
        return
    lines = [line.strip() for _, line in lines_of(path)]
    files = [_from(home, line) for line in lines if line]
    if not files:
        raise ValueError(f"{path}: expected paths of recordings; got none")
    parents = [os.path.dirname(os.path.abspath(file)) for file in files]
    root = os.path.commonpath(parents)
    for file in files:
        yield _recording(file, root)


def _from(home, path):
    """A path of a list in a folder."""
    beside = os.path.join(home, path)
    return beside if not os.path.exists(path) and home else path


class Outputs:
    """Where the results of a command go: printed, or a file for each format
    and recording below a folder.

    Wrong ones are refused by ``check``, before any work. ``save`` writes a
    file, of a format for a result and the recording's name; text by default.
    """

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        formats: Sequence[Format],
        folder: Path | None,
        save: Callable[[Format, Path, Any, str], object] | None = None,
    ) -> None:
        self.recordings, self.formats = recordings, formats
        self.folder, self.save = folder, save or _save_text

    def check(self, inputs: Iterable[str | None] = ()) -> None:
        """Refuses outputs that would get into each other's way, or that are
        inputs."""
        several, option = len(self.recordings) > 1, "give --output-dir"
        form = self.formats[0]
        if self.folder is None:
            if len(self.formats) > 1:
                raise ValueError(
                    f"--format {ALL}: expected an output folder; {option}"
                )
            if several and form.one_recording:
                raise ValueError(
                    f"--format: expected one recording for {form.about} on the "
                    f"standard output, got {len(self.recordings)}; {option}"
                )
            if form.by_stem:
                self._check_distinct(lambda r: recording_name(r.name))
            return
        self._check_distinct(lambda r: r.place)
        check_output_folder(self.folder)
        known = {_identity(path): path for path in self.recordings}
        known |= {_identity(path): path for path in inputs if path}
        for path in self.recordings:
            for target in self.targets(path):
                found = os.path.exists(target) and known.get(_identity(target))
                if found:
                    raise ValueError(
                        f"{target}: expected another file to write than the "
                        f"input {found}"
                    )

    def _check_distinct(self, name_of):
        """Refuses recordings whose outputs would have the same name."""
        check_names(self.recordings.values(), name_of)

    def targets(self, path: str) -> list[Path]:
        """The files of a recording."""
        assert self.folder is not None
        place = self.recordings[path].place
        return [self.folder / f"{place}.{f.suffix}" for f in self.formats]

    def left(self, command: str, overwrite: bool) -> list[str]:
        """Paths whose results are not there yet; says how many are, and which
        are missing."""
        paths = list(self.recordings)
        if self.folder is not None and not overwrite:
            paths = [
                path
                for path in paths
                if not all(map(os.path.isfile, self.targets(path)))
            ]
        done = len(self.recordings) - len(paths)
        if done:
            print_escaped(
                f"{command}: {done} of {len(self.recordings)} are in "
                f"{self.folder} already and skipped; --overwrite does them "
                "again",
                sys.stderr,
            )
        if paths:
            check_files(command, paths)
        return paths

    def print_header(self) -> None:
        """Prints what stands above all results."""
        if self.folder is None:
            sys.stdout.write(self.formats[0].header)

    def write(self, path: str, result: Any) -> str:
        """Writes a result; gives what is to be printed of it."""
        name, several = self.recordings[path].name, len(self.recordings) > 1
        if self.folder is None:
            return self.formats[0].on_stream(result, name, several)
        for form, target in zip(self.formats, self.targets(path), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.save(form, target, result, name)
        return ""


def _save_text(form, target, result, name):
    """Writes a result as a text."""
    with atomic(target) as file:
        file.write(form.header + form.write(result, name))


def check_once(words):
    """Refuses a recording that is given twice."""
    if len(set(words)) < len(words):
        raise ValueError("files: expected each of them once")


def take_outputs(arguments, formats, inputs=(), save=None):
    """The checked ``Outputs`` of a command line; ``inputs`` are files that it
    reads beside the recordings."""
    check_once(arguments.files)
    outputs = Outputs(
        find_recordings(arguments.files),
        chosen(formats, arguments.format),
        arguments.output_dir,
        save,
    )
    outputs.check(inputs)
    return outputs


def _identity(path):
    """What tells files apart, whatever their names; the path of none."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino
