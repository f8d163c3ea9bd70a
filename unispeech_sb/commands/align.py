"""Forced alignment: ``unispeech-sb align``."""

import csv
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    load_folder,
    new_parser,
    print_results,
    progress_bar,
    report_failures,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    add_files,
    add_outputs,
    take_outputs,
)
from unispeech_sb.inference.formats import ALIGNMENT_FORMATS, RecordingId
from unispeech_sb.text import (
    absent,
    compare_names,
    lines_of,
    named,
    read_text,
    separator_of,
)

_BESIDE = (".txt", ".lab")
"""Endings of the text of a recording of the same name."""
_TABLES = (".csv", ".tsv")
"""Endings of a table with a header."""
_NAMES = (
    *("path", "wav", "file", "file_name", "audio", "audio_filepath"),
    *("ID", "id", "name"),
)
_TEXTS = ("wrd", "text", "transcript", "transcription", "sentence")
"""Columns of a table, in any case; the first that is there counts."""
_SUFFIXES = (*_BESIDE, *_TABLES, ".srt", ".vtt", ".json", ".gz", ".md")
"""Endings of what is meant for a file."""


def align(argv: Sequence[str]) -> None:
    """Aligns recordings with their texts; those that fail are named at the end.

    Exits with 1 when a recording could not be aligned, with 2 when the
    command line makes no sense.
    """
    arguments = _parse(argv)
    arguments.folder = take_folder(arguments.folder, "EncoderASR")
    outputs = take_outputs(arguments, ALIGNMENT_FORMATS)
    sources = _find_texts(outputs.recordings, arguments.text)
    outputs.check(sources.files)
    files = outputs.left("align", arguments.overwrite)
    texts, errors = sources.read(files)
    if files and not texts:
        report_failures("align", files, errors)
        raise SystemExit(1)
    if not files:
        return

    from unispeech_sb.dataio.audio import AudioError
    from unispeech_sb.inference.asr import LongFormASR

    asr = load_folder(LongFormASR, arguments)
    if arguments.language:
        asr.set_language(arguments.language)
    outputs.print_header()
    with progress_bar(texts, "align") as bar:
        results = asr.align_files(
            texts,
            arguments.batch_seconds,
            advance(bar),
            arguments.skip_unknown,
        )
        missing = ((path, AudioError(why)) for path, why in errors.items())
        results = chain(missing, results)
        print_results("align", files, results, outputs.write, bar)


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "align",
        "Find when each word of a known text is spoken, by a CTC model.",
    )
    add_folder(parser, "a speech recognizer (EncoderASR)")
    add_files(parser)
    parser.add_argument(
        "--text",
        metavar="TEXT",
        help="what is spoken: a file, or the words themselves, of one "
        "recording; a folder of .txt files in the tree of the recordings; a "
        "CSV or TSV with the columns path (or ID) and text, or Kaldi's text, "
        "a name and the words on each line. When omitted: the .txt or .lab "
        "file beside each recording",
    )
    parser.add_argument(
        "--skip-unknown",
        action="store_true",
        help="give words that the model has no letters for, such as numbers, "
        "what is between their neighbours; refused otherwise",
    )
    add_outputs(parser, ALIGNMENT_FORMATS)
    parser.add_argument(
        "--language",
        metavar="L",
        help="language, for a model with adapters of several languages",
    )
    add_batch_seconds(parser, 30.0)
    add_device(parser)
    return parser.parse_args(argv)


class _Sources:
    """Where the texts of recordings are: path -> text, or the file of it."""

    def __init__(self, texts=None, files=None, read=()):
        self.texts, self.beside = texts or {}, files or {}
        self.files = [*read, *map(str, self.beside.values())]

    def read(self, paths):
        """Path -> text, and path -> why there is none."""
        texts, errors = {}, {}
        for path in paths:
            if not os.path.isfile(path):
                errors[path] = f"{path}: {absent(path, 'file')}"
            elif path in self.texts:
                texts[path] = self.texts[path]
            elif path not in self.beside:
                errors[path] = f"{path}: expected its text; there is none"
            elif not os.path.isfile(self.beside[path]):
                errors[path] = (
                    f"{path}: expected its text in {self.beside[path]}; there "
                    "is no such file"
                )
            else:
                texts[path] = self._read(path, errors)
        return {p: t for p, t in texts.items() if p not in errors}, errors

    def _read(self, path, errors):
        """The text in a file of its own."""
        try:
            return read_text(self.beside[path])
        except ValueError as error:
            errors[path] = f"{path}: {error}"
            return ""


def _find_texts(recordings, text):
    """The ``_Sources`` of recordings by the option ``--text``."""
    if text is None:
        return _Sources(files={path: _beside(path) for path in recordings})
    if os.path.isdir(text):
        return _Sources(
            files={
                path: _below(Path(text), recording)
                for path, recording in recordings.items()
            }
        )
    if not os.path.isfile(text):
        _check_words(text)
        if len(recordings) > 1:
            raise ValueError(
                f"--text: expected a file or a folder with the texts of "
                f"{len(recordings)} recordings; got {text!r:.60}"
            )
        return _Sources(dict.fromkeys(recordings, text))
    kaldi = len(recordings) > 1 or os.path.basename(text) == "text"
    kaldi |= any(isinstance(r.name, RecordingId) for r in recordings.values())
    suffix = Path(text).suffix.lower()
    if suffix in _TABLES:
        table = _columns(text)
    elif kaldi:
        table = _lines(text)
    else:
        return _Sources(dict.fromkeys(recordings, read_text(text)), read=[text])
    return _Sources(_matched(table, recordings, text), read=[text])


def _beside(path):
    """The file of a recording's text, whether or not it is there."""
    found = [Path(path).with_suffix(suffix) for suffix in _BESIDE]
    return next((file for file in found if file.is_file()), found[0])


def _below(folder, recording):
    """The file of a recording's text in a folder."""
    stems = (recording.place, Path(recording.path).stem, str(recording.name))
    found = [folder / f"{stem}{suffix}" for stem in stems for suffix in _BESIDE]
    return next((file for file in found if file.is_file()), found[0])


def _check_words(text):
    """Refuses the name of a file that is not there."""
    is_path = os.sep in text and not any(map(str.isspace, text))
    if is_path or text.lower().endswith(_SUFFIXES):
        raise ValueError(f"--text: {text}: {absent(text, 'file')}")


def _columns(path):
    """Name -> text of a table with a header."""
    lines = (f"{line}\n" for _, line in lines_of(path))
    rows = csv.DictReader(lines, delimiter=separator_of(path))
    header = {name.lower(): name for name in reversed(rows.fieldnames or ())}
    name, text = (
        next((header[c.lower()] for c in known if c.lower() in header), None)
        for known in (_NAMES, _TEXTS)
    )
    if name is None or text is None:
        raise ValueError(
            f"{path}, line 1: expected a column of {', '.join(_NAMES)} and one "
            f"of {', '.join(_TEXTS)}; got {named(rows.fieldnames or (), 10)}"
        )
    found = {}
    for row in rows:
        if row[text] is None:
            raise ValueError(
                f"{path}, line {rows.line_num}: expected a value in the column "
                f"{text}"
            )
        found[row[name]] = row[text]
    return found


def _lines(path):
    """Name -> text of Kaldi's list."""
    lines = [line.strip().split(None, 1) for _, line in lines_of(path)]
    return {line[0]: line[-1] for line in lines if len(line) > 1}


def _matched(table, recordings, path):
    """Path -> text, by what a table may call a recording."""
    home, found = os.path.dirname(path), {}
    for file, recording in recordings.items():
        base = os.path.basename(file)
        names = (
            *(recording.name, file, os.path.relpath(file, home or ".")),
            *(recording.place, base, os.path.splitext(base)[0]),
        )
        text = next((table[name] for name in names if name in table), None)
        if text is not None:
            found[file] = text
    if not found:
        stems = [Path(file).stem for file in recordings]
        compare_names(stems, table, "the recordings", path)
    return found
