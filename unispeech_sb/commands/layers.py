"""Which layer is for what: ``unispeech-sb layers``."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unispeech_sb.atomic import OneWriter, atomic, write_json
from unispeech_sb.checkpoints.interfaces import INTERFACES
from unispeech_sb.commands.features import numbers, with_layers
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    at_least,
    check_file,
    check_output_folder,
    load_folder,
    new_parser,
    progress_bar,
    report_failures,
    take_folder,
)
from unispeech_sb.text import absent, lines_of, named, read_number

_TABLE, _RESULTS, _PICTURE = "layers.csv", "layers.json", "layers.png"
_COLUMNS = ("#file", "onset", "offset", "#phone", "prev-phone", "next-phone",
            "speaker")  # fmt: skip
_SCORES = {
    "pnmi": "PNMI",
    "phone_purity": "phone purity",
    "abx_within": "ABX error, within speakers",
    "abx_across": "ABX error, across speakers",
    "speaker_probe": "accuracy of a speaker probe",
}
"""What is measured of a layer, and its name in the picture."""


class _Item(NamedTuple):
    """A phone in a recording, from ``start`` to ``stop`` in seconds."""

    file: str
    start: float
    stop: float
    phone: str
    context: tuple[str, str]
    speaker: str


def layers(argv: Sequence[str]) -> None:
    """Measures what each layer of a model tells of phones and of speakers.

    Exits with 1 when a recording could not be used, with 2 when the command
    line makes no sense.
    """
    arguments = _parse(argv)
    check_file(arguments.items, "item file")
    check_output_folder(arguments.output)
    arguments.folder = take_folder(arguments.folder, *INTERFACES)
    items = _drawn(read_items(arguments.items), arguments)
    files = _find(items, arguments.audio_root)
    if len(items) < arguments.num_units:
        raise ValueError(
            f"--num-units: expected at most the {len(items)} items; got "
            f"{arguments.num_units}"
        )

    from unispeech_sb.inference import SpeechFeatures

    extractor = load_folder(SpeechFeatures, arguments)
    chosen = extractor.checked_layers(arguments.layers)
    with progress_bar([*files.values()], "layers") as bar:
        cut, errors = _cut(extractor, items, files, chosen, arguments, bar)
    rows = [
        _measure(cut, place, n, arguments) for place, n in enumerate(chosen)
    ]
    if arguments.output:
        _write(arguments.output, rows)
    sys.stdout.write(_shown(rows, arguments.format))
    report_failures("layers", [*files.values()], errors)
    if errors:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "layers",
        "Measure what each layer of a model tells of phones (PNMI and purity "
        "of clusters, ABX) and of speakers (a linear probe), to choose the one "
        "for units or for a task.",
    )
    add_folder(parser, "any model")
    parser.add_argument(
        "--items",
        required=True,
        metavar="FILE",
        help="item file of ZeroSpeech: a line with the columns "
        f"{' '.join(_COLUMNS)}, then one for each phone, times in seconds",
    )
    parser.add_argument(
        "--audio-root",
        required=True,
        metavar="DIR",
        help="folder with the recordings, at any depth, by their names without "
        "suffix",
    )
    parser.add_argument(
        "--layers",
        type=numbers,
        default="all",
        metavar="9,12|all",
        help="layers: 0 is the encoder's input, -1 the last one (default: "
        "%(default)s)",
    )
    for name, default, what in (
        ("max-items", 2000, "most items, drawn at random"),
        ("num-units", 100, "clusters of the frames at the items' centres"),
        ("seed", 0, "of what is drawn"),
    ):
        parser.add_argument(
            f"--{name}",
            type=at_least(0 if name == "seed" else 2),
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="DIR",
        help=f"folder for {_TABLE}, {_RESULTS} and the picture {_PICTURE}",
    )
    parser.add_argument(
        *("-f", "--format"),
        choices=("text", "csv", "json"),
        default="text",
        help="of what is printed (default: %(default)s)",
    )
    add_batch_seconds(parser, 60.0)
    add_device(parser)
    return parser.parse_args(with_layers(argv))


def read_items(path: str | Path) -> list[_Item]:
    """The items of a file of ZeroSpeech."""
    lines = ((n, line.split()) for n, line in lines_of(path))
    rows = [(number, fields) for number, fields in lines if fields]
    if not rows or not set(_COLUMNS) <= set(rows[0][1]):
        raise ValueError(
            f"{path}: expected a first line with {' '.join(_COLUMNS)}; got "
            f"{' '.join(rows[0][1])[:60] if rows else 'none'}"
        )
    places = [rows[0][1].index(name) for name in _COLUMNS]
    items = []
    for number, fields in rows[1:]:
        if len(fields) != len(rows[0][1]):
            raise ValueError(
                f"{path}, line {number}: expected {len(rows[0][1])} fields; "
                f"got {len(fields)}"
            )
        name, start, stop, phone, before, after, speaker = (
            fields[place] for place in places
        )
        where = f"{path}, line {number}"
        span = read_number(start, where), read_number(stop, where)
        if not 0 <= span[0] < span[1]:
            raise ValueError(
                f"{where}: expected an onset before its offset; got {start} "
                f"and {stop}"
            )
        items.append(_Item(name, *span, phone, (before, after), speaker))
    if not items:
        raise ValueError(f"{path}: expected items; got none")
    return items


def _drawn(items, arguments):
    """So many of the items, in their order."""
    import random

    if len(items) <= arguments.max_items:
        return items
    draw = random.Random(arguments.seed)
    kept = sorted(draw.sample(range(len(items)), arguments.max_items))
    return [items[place] for place in kept]


def _find(items, root):
    """Name of each recording that items are of -> its path."""
    from unispeech_sb.dataio.containers import (
        OTHER_SUFFIXES,
        SUFFIXES,
        recordings_below,
    )

    if not os.path.isdir(root):
        raise ValueError(f"{root}: {absent(root, 'folder')}")
    found = {}
    for path in recordings_below(root, SUFFIXES + OTHER_SUFFIXES):
        found[str(path.relative_to(root).with_suffix(""))] = str(path)
        found[path.stem] = str(path)
    wanted = dict.fromkeys(item.file for item in items)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{root}: expected the recordings of all items; {len(missing)} of "
            f"{len(wanted)} are not there: {named(missing)}"
        )
    return {name: found[name] for name in wanted}


def _cut(extractor, items, files, chosen, arguments, bar):
    """Each item with its frames, float16 [L, t, D], and path -> error. An item
    that has no frame is left out."""
    from unispeech_sb.dataio.audio import AudioError

    by_path: dict = {path: [] for path in files.values()}
    for item in items:
        by_path[files[item.file]].append(item)
    cut, errors = [], {}
    for path, found in extractor.extract_files(
        [*by_path], chosen, arguments.batch_seconds, advance(bar)
    ):
        if isinstance(found, AudioError):
            errors[path] = found
            continue
        for item in by_path[path]:
            # Frame i is at (i + 1/2) frames; both ends belong to the item
            span = (item.start, item.stop)
            start, stop = (round(t / found.frame_s - 0.5, 6) for t in span)
            first, last = math.ceil(start), math.floor(stop)
            states = found.states[:, max(0, first) : last + 1]
            if states.shape[1]:
                cut.append((item, states.half().numpy()))
    if not cut:
        report_failures("layers", [*by_path], errors)
        raise ValueError("items: expected frames in some of them; got none")
    return cut, errors


def _measure(cut, place, number, arguments):
    """What is measured of a layer."""
    import numpy as np

    from unispeech_sb.metrics.phones import abx_error

    items = [item for item, _ in cut]
    feats = [states[place].astype(np.float32) for _, states in cut]
    about = (
        [item.phone for item in items],
        [item.context for item in items],
        [item.speaker for item in items],
    )
    return {
        "layer": number,
        **_clusters(feats, about[0], arguments),
        "abx_within": abx_error(feats, *about),
        "abx_across": abx_error(feats, *about, across=True),
        "speaker_probe": _probe(feats, items, arguments.seed),
    }


def _clusters(feats, phones, arguments):
    """How well clusters of the frames at the centres fit the phones."""
    import numpy as np
    import torch

    from unispeech_sb.dataio.unit_clustering import (
        fit_clusters,
        nearest_centres,
    )
    from unispeech_sb.metrics.phones import count_pairs, unit_quality

    frames = np.stack([one[len(one) // 2] for one in feats])
    centres, _ = fit_clusters(frames, arguments.num_units, arguments.seed)
    units = nearest_centres(torch.tensor(frames), torch.tensor(centres))
    names = sorted(set(phones))
    numbers = [names.index(phone) for phone in phones]
    sizes = arguments.num_units, len(names)
    found = unit_quality(count_pairs(units.numpy(), numbers, *sizes))
    return {name: found[name] for name in ("pnmi", "phone_purity")}


def _probe(feats, items, seed):
    """Accuracy of a linear classifier of speakers on the mean frame of each
    recording's items, trained on half of each speaker's recordings; None where
    no two speakers have two."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frames: dict = {}
    for item, one in zip(items, feats):
        frames.setdefault((item.speaker, item.file), []).append(one)
    by_speaker: dict = {}
    for (speaker, _), parts in frames.items():
        mean = np.concatenate(parts).mean(0)
        by_speaker.setdefault(speaker, []).append(mean)
    sets: tuple = ([], []), ([], [])
    for speaker, means in by_speaker.items():
        if len(means) > 1:
            for place, mean in enumerate(means):
                sets[place % 2][0].append(mean)
                sets[place % 2][1].append(speaker)
    if len(set(sets[0][1])) < 2:
        return None
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed)
    )
    return float(probe.fit(*sets[0]).score(*sets[1]))


def _write(folder, rows):
    """Writes the table, the report and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with OneWriter(folder / _RESULTS):
        with atomic(folder / _TABLE) as file:
            file.write(_shown(rows, "csv"))
        write_json(folder / _RESULTS, {"layers": rows}, indent=1)
        _draw(folder / _PICTURE, rows)


def _draw(path, rows):
    """Draws a curve of each score over the layers."""
    from matplotlib.figure import Figure

    figure = Figure((7, 4), 130, layout="constrained")
    axes = figure.add_subplot()
    for key, name in _SCORES.items():
        points = [(r["layer"], r[key]) for r in rows if r[key] is not None]
        if points:
            axes.plot(*zip(*points), marker="o", markersize=3, label=name)
    axes.set(xlabel="layer", ylim=(0, None))
    axes.grid(color="0.9", linewidth=0.6)
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    with atomic(path, mode=None) as draft:
        figure.savefig(draft, format="png")


def _shown(rows, form):
    """The rows as text, CSV or JSON."""
    if form == "json":
        return json.dumps({"layers": rows}, indent=1) + "\n"
    header = ["layer", *_SCORES]
    table = [
        ["" if row[k] is None else _number(row[k]) for k in header]
        for row in rows
    ]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *table])
        return text.getvalue()
    widths = [max(len(name), 6) for name in header]
    lines = [
        "  ".join(f"{cell or '-':>{w}}" for cell, w in zip(line, widths))
        for line in [header, *table]
    ]
    return "\n".join(lines) + "\n"


def _number(value):
    """A number of a table."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
