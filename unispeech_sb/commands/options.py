"""What the commands share: readers of arguments, checks of files, progress.

Nothing here imports torch or SpeechBrain before a model is to be loaded, so
that help and errors of a command line come at once.
"""

import argparse
import os
import sys
from pathlib import Path

from unispeech_sb.checkpoints.interfaces import (
    FOREIGN,
    PRECISIONS,
    expect_folder,
    folder_kind,
    may_be_converted,
    purpose,
)
from unispeech_sb.environment import ENGINES, require_engine, require_extra
from unispeech_sb.errors import check_compiler, check_device, print_escaped
from unispeech_sb.text import absent

_LISTS = (".txt", ".lst", ".list", ".csv", ".tsv")
"""Endings of what may be meant for a list of recordings."""


def new_parser(command, description):
    """A parser that is called as its command is."""
    return argparse.ArgumentParser(
        f"unispeech-sb {command}", description=description
    )


def positive(text):
    """Reads a number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, got {text}"
        )
    return number


def probability(text):
    """Reads a number between 0 and 1."""
    number = positive(text)
    if not number < 1:
        raise argparse.ArgumentTypeError(
            f"expected a number between 0 and 1, got {text}"
        )
    return number


def finite(text):
    """Reads a number."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number, got {text}")
    return number


def at_least(least):
    """Makes a reader of whole numbers from ``least``, 0 or more, upwards."""

    def read(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected {least} or more, got {text}"
            )
        return int(text)

    return read


def add_folder(parser, kind):
    """Adds the pretrained folder, which is for a kind of model, and whether
    code in it may run."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help=f"pretrained folder of {kind}: the export/ of a recipe, or what "
        "unispeech-sb convert wrote; a Hugging Face folder or the hub name of "
        "a model, which is converted into ~/.cache/unispeech_sb once",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a hyperparams.yaml that names other classes and functions "
        "than this package writes, which runs code: only from people whom you "
        "trust",
    )


RAY_ENGINES = ("ray", "ray+onnx", "ray+openvino")
"""What runs many recordings: Ray, with an engine in it, torch by default."""


def add_device(parser, ray=False):
    """Adds where the model runs, on many machines too with ``ray``."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="where the model runs: cpu, cuda, cuda:1, ...; cpu when omitted",
    )
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        help="most processor cores that it uses; those of torch when omitted",
    )
    parser.add_argument(
        "--engine",
        type=_engine,
        choices=[*ENGINES, *RAY_ENGINES[: 3 * ray]],
        metavar="ENGINE",
        default="torch",
        help="what runs the model on the CPU: %(choices)s; onnx (ONNX Runtime) "
        "and openvino need the extra export, and export it into "
        "~/.cache/unispeech_sb once"
        + ray
        * "; ray (the extra scale) runs bulk jobs on processes and "
        "machines of Ray's, ray+onnx with that engine in each"
        + " (default: %(default)s)",
    )
    shown = "; ".join(f"{name}: {what}" for name, what in PRECISIONS.items())
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        metavar="P",
        help=f"what the model computes in: {shown}. That of the folder's yaml "
        "when omitted, else fp32",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's blocks by torch.compile first, which takes a "
        "minute and a C++ compiler",
    )


def _engine(name):
    """Reads the name of an engine, whose packages have to be there."""
    inner = name.removeprefix("ray+")
    if inner in ENGINES:
        require_engine(inner, f"--engine {name}")
    if name in RAY_ENGINES:
        require_extra("ray", "scale", f"--engine {name}")
    return name


def add_batch_seconds(parser, default):
    """Adds how much audio goes through the model at once."""
    parser.add_argument(
        "--batch-seconds",
        type=positive,
        default=default,
        metavar="S",
        help="most seconds of audio in a batch (default: %(default)g)",
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="threads that read recordings while the model runs; when omitted "
        "none on a CPU, whose cores the model has, else 4",
    )


def check_file(path, kind):
    """Refuses a path, None excepted, where there is no file of that kind."""
    if path is not None and not os.path.isfile(path):
        raise ValueError(f"{path}: {absent(path, kind)}")


def check_files(command, files):
    """Stops where there is none of the files; names those that are missing."""
    missing = [file for file in files if not os.path.isfile(file)]
    if not missing:
        return
    if len(missing) == len(files):
        errors = {file: f"{file}: {_why_none(file, files)}" for file in files}
        report_failures(command, files, errors)
        raise SystemExit(1)
    print_escaped(
        f"{command}: {len(missing)} of {len(files)} files do not exist, the "
        f"others are processed; missing: {', '.join(missing)}",
        sys.stderr,
    )


def _why_none(file, files):
    """Why there is no recording at a path, one of some."""
    if os.path.isdir(file):
        return "expected recordings in the folder; there are none"
    if len(files) == 1 or os.path.lexists(file):
        return absent(file, "file")
    return "there is no such file"


def check_names(items, name_of):
    """Refuses recordings whose outputs would have the same name."""
    seen = {}
    for item in items:
        name = name_of(item)
        if name in seen:
            pair = [getattr(one, "path", one) for one in (seen[name], item)]
            raise ValueError(
                "files: expected different names for outputs; "
                f"{pair[0]} and {pair[1]} would both be {name}"
            )
        seen[name] = item


def check_output(path, inputs=(), makes_folder=False):
    """Refuses a file to write, None excepted, that could not be written, or
    that is one of the inputs."""
    if path is None:
        return
    path = Path(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: expected a file to write; it is a folder")
    if not makes_folder and not os.path.exists(path.parent):
        raise ValueError(f"{path}: there is no folder {path.parent}")
    check_output_folder(path.parent)
    check_no_input(path, inputs)


def check_no_input(path, inputs):
    """Refuses a file to write that is one of the inputs, None excepted."""
    for file in filter(None, inputs):
        there = os.path.exists(path) and os.path.exists(file)
        if there and os.path.samefile(path, file):
            raise ValueError(
                f"{path}: expected another file to write than the input {file}"
            )


def check_output_folder(path):
    """Refuses a folder, None excepted, that cannot be made or written to."""
    if path is None:
        return
    place = Path(path).absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):
        raise ValueError(f"{path}: expected a folder; {place} is none")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: expected a folder that may be written to")


def take_folder(path, *kinds):
    """The pretrained folder that an argument means, for one of some kinds:
    itself, or what a Hugging Face folder or hub name is converted to."""
    if not may_be_converted(path):
        expect_folder(path, *kinds)
        return path

    from unispeech_sb.convert import converted_folder

    folder = str(converted_folder(path))
    kind = folder_kind(folder)
    if kind not in (*kinds, FOREIGN):
        what = purpose(path, kind).removeprefix("it is ")
        raise ValueError(
            f"{path}: expected a folder for {kinds[0]}; it is a Hugging Face "
            f"model {what}"
        )
    return folder


def load_folder(interface, arguments, **options):
    """Loads a ``Pretrained`` class from the folder, without the hub."""
    from speechbrain.utils.fetching import FetchConfig

    device, engine = arguments.device, arguments.engine
    if engine != "torch" and device not in (None, "cpu"):
        raise ValueError(
            f"--engine {engine}: expected --device cpu; got {device}"
        )
    check_device(device)
    if arguments.compile:
        check_compiler()
    run_opts = {
        name: getattr(arguments, name)
        for name in ("device", "precision", "compile")
        if getattr(arguments, name)
    }
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    model = interface.from_hparams(
        arguments.folder,
        fetch_config=FetchConfig(allow_network=False),
        run_opts=run_opts,
        trust=arguments.trust,
        engine=engine,
        **options,
    )
    model.num_workers = getattr(arguments, "workers", None)
    return model


def progress_bar(files, title):
    """A progress bar over the seconds of recordings, on the standard error; a
    file that cannot be read adds nothing."""
    from tqdm import tqdm

    from unispeech_sb.dataio.audio import AudioError
    from unispeech_sb.inference.audio_blocks import duration_s

    def seconds(path):
        try:
            return duration_s(path)
        except AudioError:
            return 0.0

    return tqdm(
        total=round(sum(map(seconds, files)), 1),
        unit="s",
        unit_scale=True,
        desc=title,
        disable=None,  # where no terminal shows it
    )


def advance(bar):
    """What moves a bar by seconds: tqdm warns of what rounding has too many."""
    return lambda seconds: bar.update(min(seconds, bar.total - bar.n))


def print_results(command, files, results, write, bar):
    """Prints what ``write`` (path, result) gives for each result, in the order
    of the files; exits with 1, those that failed named, where any did.

    A result may be an ``AudioError``; what ``write`` raises is one, too.
    """
    from unispeech_sb.dataio.audio import AudioError, attempt

    errors, texts, waiting = {}, {}, list(files)
    for path, result in results:
        if not isinstance(result, AudioError):
            result = attempt(path, write, path, result)
        if isinstance(result, AudioError):
            errors[path], result = result, ""
        texts[path] = result
        while waiting and waiting[0] in texts:
            with bar.external_write_mode(sys.stdout):
                sys.stdout.write(texts.pop(waiting.pop(0)))
    bar.close()
    report_failures(command, files, errors)
    if errors:
        raise SystemExit(1)


def report_failures(command, files, errors):
    """Names the files that could not be used, on the standard error."""
    if not errors:
        return
    counts = f"{len(errors)} of {len(files)} files failed:"
    sys.stderr.write(f"{command}: {counts}\n")
    for name in files:
        if name in errors:
            print_escaped(f"  {errors[name]}", sys.stderr)
    lists = [n for n in errors if str(n).lower().endswith(_LISTS)]
    if lists and os.path.isfile(lists[0]):
        print_escaped(
            f"  (a list of recordings is given as @{lists[0]})", sys.stderr
        )
