"""Speaker similarity (SIM) of speech synthesis: ``unispeech-sb similarity``."""

import csv
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from unispeech_sb.atomic import OneWriter, atomic, write_json
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    at_least,
    check_file,
    check_output_folder,
    new_parser,
    positive,
    take_folder,
)
from unispeech_sb.commands.recordings import RECORDING
from unispeech_sb.commands.score import EMBEDDINGS, LEAST_DRAWS, summary_table
from unispeech_sb.commands.speakers import (
    extract_with_progress,
    load_model,
    model_digest,
    open_extractor,
)
from unispeech_sb.errors import print_escaped
from unispeech_sb.text import absent, named

_TABLE, _RESULTS = "similarity.csv", "similarity.json"


class _Pairs(NamedTuple):
    """Recordings, and pairs of them: a reference and what was generated."""

    names: list[str]
    paths: list[str]
    left: Sequence[int]
    right: Sequence[int]


def similarity(argv: Sequence[str]) -> None:
    """Compares the speakers of pairs of recordings.

    With ``-o``, what was embedded before an interruption is not embedded
    again. Exits with 1 when a recording could not be used, with 2 when the
    command line makes no sense.
    """
    arguments = _parse(argv)
    given = arguments.output
    check_output_folder(given)
    arguments.folder = _model(arguments.folder)
    pairs = _pairs(arguments)
    files = dict(zip(pairs.names, pairs.paths, strict=True))
    model = f"{model_digest(arguments)}-level as it is"
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as path:
        Path(path).mkdir(parents=True, exist_ok=True)
        extractor = open_extractor(Path(path) / EMBEDDINGS, model)
        with OneWriter(Path(path) / _RESULTS), extractor:
            errors = extract_with_progress(
                load_model(arguments, rms=None),
                files,
                extractor,
                arguments.batch_seconds,
                "similarity",
            )
            store = extractor.finish(pairs.names)
            rows, summary = _compare(store, pairs, arguments.draws)
            _write(Path(path), rows, summary)
    _print(rows, summary, arguments.format)
    if errors:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "similarity",
        "Compare the speakers of recordings by the cosine of their "
        "embeddings: of two, of a list of pairs, or of what a speech "
        "synthesizer generated with its references (SIM). Recordings go "
        "through the model whole and at the level that they have, as in the "
        "authors' verification.py.",
    )
    add_folder(
        parser,
        "a speaker model (SpeakerRecognition), or the authors' file of one",
    )
    _add_pairs(parser)
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="DIR",
        help=f"folder for {_TABLE}, {_RESULTS} and {EMBEDDINGS}; the same "
        "command goes on after an interruption",
    )
    parser.add_argument(
        *("-f", "--format"),
        choices=("text", "csv", "json"),
        default="text",
        help="what is printed: text, the cosine of two recordings, or the mean "
        "of many; csv and json, all pairs (default: %(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="bootstrap draws of the reference recordings for the interval of "
        "the mean, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--window-s",
        type=positive,
        default=float("inf"),
        metavar="S",
        help="embed a recording of more seconds window by window; whole "
        "when omitted",
    )
    add_batch_seconds(parser, 60.0)
    add_device(parser)
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _add_pairs(parser):
    """Adds the three ways to name pairs."""
    parser.add_argument(
        "recordings", nargs="*", metavar="A B", help=f"two times a {RECORDING}"
    )
    parser.add_argument(
        "--pairs",
        metavar="LIST",
        help='lines "a b" with the paths of two recordings, or a CSV with the '
        "columns left and right, or reference and generated; any trial list",
    )
    parser.add_argument(
        "--audio-root",
        default=".",
        metavar="DIR",
        help="folder where the relative paths of LIST start (default: the "
        "current one)",
    )
    for side in ("reference", "generated"):
        parser.add_argument(
            f"--{side}-dir",
            metavar="DIR",
            help=f"folder of the {side} recordings; those of the same name, "
            "whatever their suffix, are pairs",
        )


def _check(parser, arguments):
    """Refuses options that do not go together."""
    folders = [arguments.reference_dir, arguments.generated_dir]
    ways = [arguments.recordings, arguments.pairs, any(folders)]
    if sum(map(bool, ways)) != 1:
        parser.error(
            "expected two recordings, --pairs, or --reference-dir and "
            "--generated-dir; got "
            + ("several of them" if any(ways) else "none of them")
        )
    if arguments.recordings and len(arguments.recordings) != 2:
        parser.error(
            f"expected two recordings; got {len(arguments.recordings)}: a "
            "list of more goes to --pairs"
        )
    if any(folders) and not all(folders):
        parser.error("--reference-dir and --generated-dir go together")
    if 0 < arguments.draws < LEAST_DRAWS:
        parser.error(
            f"--draws: expected 0, or {LEAST_DRAWS} or more for an interval"
        )


def _model(path):
    """The pretrained folder that an argument means: a file is converted."""
    if os.path.isfile(path):
        from unispeech_sb.convert import converted_folder

        path = str(converted_folder(path))
    return take_folder(path, "SpeakerRecognition")


def _pairs(arguments):
    """The pairs that a command line names."""
    if arguments.recordings:
        for path in arguments.recordings:
            check_file(path, "file")
        names = list(dict.fromkeys(arguments.recordings))
        return _Pairs(names, names, [0], [len(names) - 1])
    if arguments.pairs:
        return _listed(arguments.pairs, arguments.audio_root)
    return _matched(arguments.reference_dir, arguments.generated_dir)


def _listed(path, root):
    """The pairs of a list."""
    check_file(path, "list of pairs")
    if not os.path.isdir(root):
        raise ValueError(f"{root}: {absent(root, 'folder')}")

    from unispeech_sb.dataio.trials import read_trials

    trials = read_trials(path, root=root, labelled=None)
    paths = [os.path.join(root, name) for name in trials.names]
    return _Pairs(
        trials.names, paths, trials.left.tolist(), trials.right.tolist()
    )


def _matched(reference_dir, generated_dir):
    """Each recording of a folder with that of the same name in another."""
    by_stem = [_by_name(folder) for folder in (reference_dir, generated_dir)]
    if os.path.samefile(reference_dir, generated_dir):
        raise ValueError(
            "--generated-dir: expected another folder than --reference-dir; "
            f"got {generated_dir} for both"
        )
    if any(len(stems) < len(whole) for stems, whole in by_stem):
        found = [whole for _, whole in by_stem]  # a stem occurs twice
    else:
        found = [stems for stems, _ in by_stem]
    references, generated = found
    lost = [name for name in generated if name not in references]
    if lost:
        raise ValueError(
            f"{generated_dir}: expected a recording of the same name in "
            f"{reference_dir} for each; {len(lost)} have none: {named(lost)}"
        )
    left = len(references) - len(generated)
    if left:
        print_escaped(
            f"similarity: {left} of {len(references)} recordings in "
            f"{reference_dir} have no pair and are left out",
            sys.stderr,
        )
    paths = [path for n in generated for path in (references[n], generated[n])]
    numbers = range(0, len(paths), 2)
    return _Pairs(paths, paths, numbers, [n + 1 for n in numbers])


def _by_name(folder):
    """Recordings of a folder by their stems, the last of each, and by their
    paths in the folder without suffix."""
    from unispeech_sb.dataio.containers import (
        OTHER_SUFFIXES,
        SUFFIXES,
        recordings_below,
    )

    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: {absent(folder, 'folder')}")
    files = recordings_below(folder, SUFFIXES + OTHER_SUFFIXES)
    if not files:
        raise ValueError(
            f"{folder}: expected recordings in the folder; there are none"
        )
    places = [str(file.relative_to(folder).with_suffix("")) for file in files]
    twice = [place for place, n in Counter(places).items() if n > 1]
    if twice:
        raise ValueError(
            f"{folder}: expected one recording of each name; got several "
            f"called {twice[0]}"
        )
    stems = {file.stem: str(file) for file in files}
    return stems, dict(zip(places, map(str, files), strict=True))


def _compare(store, pairs, draws):
    """Rows (reference, generated, cosine or None), and what they come to."""
    from unispeech_sb.metrics.verification import cosine_scores, mean_interval

    there = [
        number
        for number, both in enumerate(zip(pairs.left, pairs.right))
        if all(pairs.names[side] in store for side in both)
    ]
    used = store.select(
        dict.fromkeys(
            pairs.names[side[n]]
            for n in there
            for side in (pairs.left, pairs.right)
        )
    )
    places = {name: n for n, name in enumerate(used.names)}
    sides = [
        [places[pairs.names[side[n]]] for n in there]
        for side in (pairs.left, pairs.right)
    ]
    values = cosine_scores(used.vectors, *sides).tolist() if there else []
    found = dict(zip(there, values, strict=True))
    rows = [
        (pairs.paths[one], pairs.paths[other], found.get(number))
        for number, (one, other) in enumerate(zip(pairs.left, pairs.right))
    ]
    summary = {"pairs": len(values), "failed": len(rows) - len(values)}
    if values:
        mean = mean_interval(values, sides[0], draws)
        summary["mean"] = {"value": mean.value}
        if draws and len(set(sides[0])) > 1:
            summary["mean"]["interval"] = [mean.low, mean.high]
    return rows, summary


def _report(rows, summary):
    """All of it, for JSON."""
    keys = ("reference", "generated", "similarity")
    return {**summary, "list": [dict(zip(keys, row)) for row in rows]}


def _csv(rows):
    """A line for each pair."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("reference", "generated", "similarity"))
    table.writerows(
        (one, other, "" if value is None else f"{value:.6f}")
        for one, other, value in rows
    )
    return text.getvalue()


def _write(folder, rows, summary):
    """Writes the table and the report."""
    with atomic(folder / _TABLE) as file:
        file.write(_csv(rows))
    write_json(folder / _RESULTS, _report(rows, summary), indent=1)


def _print(rows, summary, form):
    """Prints what was found."""
    if form == "csv":
        sys.stdout.write(_csv(rows))
    elif form == "json":
        print(json.dumps(_report(rows, summary), indent=1))
    elif len(rows) > 1:
        print(summary_table(summary))
    elif rows[0][2] is not None:
        print(f"{rows[0][2]:.4f}")
