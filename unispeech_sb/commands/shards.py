"""Shards of training data: ``unispeech-sb shards make`` and ``check``."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unispeech_sb.commands.data import TASKS, published, settings
from unispeech_sb.commands.options import at_least, new_parser, positive
from unispeech_sb.environment import require_extra
from unispeech_sb.errors import print_escaped


def shards(argv: Sequence[str]) -> None:
    """Makes shards, or says what is wrong with some.

    ``check`` exits with 1 where anything is; the command with 2 when the
    command line makes no sense.
    """
    arguments, keys = _parse(argv)
    require_extra("webdataset", "scale", "shards")
    if arguments.action == "check":
        _check(arguments)
    else:
        _make(arguments, keys)


def _parse(argv):
    """Reads the command line, and checks it."""
    parser = _parser()
    arguments, keys = parser.parse_known_args(argv)
    if keys and not arguments.task:
        parser.error(f"{keys[0]}: keys of a recipe need --task")
    if arguments.action == "make" and arguments.output is None:
        parser.error("make: expected -o FOLDER, where the shards go")
    if arguments.action == "check" and len(arguments.data) > 1:
        parser.error(f"check: expected one folder, got {len(arguments.data)}")
    if not 0 <= arguments.valid_share < 1:
        parser.error("--valid-share: expected a share from 0 to 1")
    for path in arguments.data:
        if not Path(path).exists():
            raise ValueError(f"{path}: there is no such file or folder")
    return arguments, keys


def _parser():
    """The options."""
    parser = new_parser(
        "shards",
        "Make shards of training data, WebDataset's tar files that are read "
        "from front to back, or check some.",
    )
    parser.usage = (
        "%(prog)s make DATA... -o FOLDER [--task T --key=value ...]\n"
        "       %(prog)s check FOLDER [--workers N]"
    )
    parser.add_argument("action", choices=["make", "check"], metavar="action")
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="make: a recipe's folder of manifests or of units, a CSV of "
        "these, or what would be the data_folder of a recipe; several too. "
        "check: a folder of shards",
    )
    parser.add_argument(
        *("-o", "--output", "--output-dir"),
        metavar="FOLDER",
        help="where the shards go; what is there is not made again",
    )
    parser.add_argument(
        "--audio",
        choices=("flac", "copy"),
        default="flac",
        help="flac: 16-bit FLAC, one channel, 16 kHz; copy: the files as they "
        "are (default: %(default)s)",
    )
    for option, kind, default, what in (
        ("--hours-per-shard", positive, 2.0, "hours of speech in a shard"),
        ("--workers", at_least(1), 1, "threads"),
        ("--seed", at_least(0), 0, "of the order of utterances"),
        (
            *("--valid-share", float, 0.01),
            "share that is moved to validation where nothing is for it",
        ),
    ):
        parser.add_argument(
            option,
            type=kind,
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument(
        "--task",
        choices=TASKS,
        metavar="T",
        help="the recipe that is to be trained, whose keys may follow: "
        f"{', '.join(TASKS)}",
    )
    for flag, what in (
        ("--skip-bad-files", "leave out recordings that cannot be used"),
        ("--overwrite", "remove shards of other data from the folder"),
    ):
        parser.add_argument(flag, action="store_true", help=what)
    return parser


def _make(arguments, keys):
    """Makes shards, and says what they hold."""
    from unispeech_sb.dataio.pretraining import split_valid
    from unispeech_sb.dataio.shard_writer import make_shards

    records = []
    for path in arguments.data:
        records += _records(path, arguments.task, keys)
    if not any(record.get("split") == "valid" for record in records):
        share, seed = arguments.valid_share, arguments.seed
        records = split_valid(records, share, seed) if share else records
    index = make_shards(
        records,
        arguments.output,
        arguments.hours_per_shard,
        arguments.audio,
        arguments.workers,
        arguments.seed,
        arguments.skip_bad_files,
        arguments.overwrite,
    )
    for reason in index["left_out"]:
        print_escaped(f"shards: left out: {reason}", sys.stderr)
    for split, own in index["splits"].items():
        size = sum(shard["bytes"] for shard in own["shards"])
        print(
            f"{split:<6}{len(own['shards']):>6} shards {own['count']:>10,} "
            f"utterances {own['seconds'] / 3600:>9.2f} h {size / 1e6:>9.1f} MB"
        )
    count = sum(own["count"] for own in index["splits"].values())
    print(f"Audio: {index['kept']} of {count} recordings as they were, others "
          "as FLAC at 16 kHz")  # fmt: skip
    place = shlex.quote(arguments.output)
    if index["units"] is None:
        print(f"Next: unispeech-sb recipe asr --data_folder={place}")
    else:
        command = "recipe pretrain_unispeech_sat"
        print(f"Next: unispeech-sb {command} --units_folder={place}")


def _records(path, recipe, keys):
    """The records of a folder of manifests or units, or of other data."""
    from unispeech_sb.dataio.corpora import find_corpus, read_corpus
    from unispeech_sb.dataio.manifest import SPLITS, read_manifest, read_splits
    from unispeech_sb.dataio.shard_writer import UNITS_FOLDER
    from unispeech_sb.dataio.shards import is_shards, refuse_shards
    from unispeech_sb.dataio.units import ABOUT, check_units

    place = Path(path)
    if is_shards(place):
        refuse_shards(path, {})
    if (place / ABOUT).is_file():
        check_units(place)
        folder = str(place.absolute())
        return [{**r, UNITS_FOLDER: folder} for r in read_splits(place)]
    if recipe is None and _is_manifest(place / "train.csv"):
        return read_splits(place)
    if recipe is None and _is_manifest(place) and place.stem in SPLITS:
        return [{**r, "split": place.stem} for r in read_manifest(place)]
    if recipe is None:
        recipe, hparams = published(path)
    else:
        hparams = settings(recipe, [f"--data_folder={path}", *keys])
    task = TASKS.get(recipe, "anything")
    if find_corpus(task, hparams, path) in (None, "class_folders"):
        task = "pretraining"  # no recipe for classes takes shards
    with tempfile.TemporaryDirectory() as manifests:
        options = {**hparams, "manifest_folder": manifests}
        options["data_folder"] = path
        return list(read_corpus(task, options, path))


def _is_manifest(path):
    """Whether a file is a manifest that a recipe wrote."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        header = file.readline().replace('"', "").strip().split(",")
    return header[:5] == ["ID", "duration", "wav", "start", "stop"]


def _check(arguments):
    """Names what is wrong with shards; exits with 1 where anything is."""
    from unispeech_sb.dataio.shard_writer import check_shards
    from unispeech_sb.dataio.shards import read_index

    (folder,) = arguments.data
    found = check_shards(folder, arguments.workers)
    for sentence in found:
        print_escaped(f"{folder}/{sentence}")
    splits = read_index(folder)["splits"]
    count = sum(own["count"] for own in splits.values())
    number = sum(len(own["shards"]) for own in splits.values())
    if found:
        print(
            f"{len(found)} files are wrong; remove damaged ones, and the "
            "`shards make` that made them makes them again"
        )
        raise SystemExit(1)
    print(f"{folder}: {number} shards with {count:,} utterances are whole")
