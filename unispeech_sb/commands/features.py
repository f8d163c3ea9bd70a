"""Hidden states of layers: ``unispeech-sb features``."""

import argparse
import itertools
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial

from unispeech_sb.atomic import atomic
from unispeech_sb.checkpoints.interfaces import INTERFACES
from unispeech_sb.commands.bulk import add_bulk, run_bulk, take_ray
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    load_folder,
    new_parser,
    positive,
    print_results,
    progress_bar,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    add_files,
    add_output_folder,
    take_outputs,
)
from unispeech_sb.inference.formats import Format, describe


def features(argv: Sequence[str]) -> None:
    """Extracts hidden states, a file for each recording; recordings that fail
    are named at the end.

    Exits with 1 when a recording could not be used, with 2 when the command
    line makes no sense.
    """
    arguments = _parse(argv)
    is_bulk = take_ray(arguments)
    arguments.folder = take_folder(arguments.folder, *INTERFACES)
    if is_bulk:
        return run_bulk("features", arguments)
    outputs = take_outputs(arguments, FEATURE_FORMATS, save=_save)
    files = outputs.left("features", arguments.overwrite)
    if not files:
        return
    run = open_extractor(arguments)
    with progress_bar(files, "features") as bar:
        results = run(files, on_progress=advance(bar))
        print_results("features", files, results, outputs.write, bar)


def open_extractor(arguments):
    """Loads the model; gives what runs files."""
    from unispeech_sb.inference import SpeechFeatures

    extractor = load_folder(
        SpeechFeatures, arguments, window_s=arguments.window_s
    )
    layers = arguments.layers
    if layers == "all":
        layers = range(extractor.num_layers + 1)
    return partial(
        extractor.extract_files,
        layers=layers,
        batch_seconds=arguments.batch_seconds,
        streams=True,
    )


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "features",
        "Extract hidden states of layers of a model of any kind.",
    )
    add_folder(parser, "any model")
    add_files(parser)
    add_output_folder(parser, required=True)
    parser.add_argument(
        "--layers",
        type=numbers,
        metavar="9,12|all",
        help="layers: 0 is the encoder's input, 1 the output of the first "
        "block; the last one when omitted",
    )
    parser.add_argument(
        *("-f", "--format", "--output_format"),
        choices=FEATURE_FORMATS,
        metavar="F",
        default="npy",
        help=f"{describe(FEATURE_FORMATS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--window-s",
        type=positive,
        default=60.0,
        metavar="S",
        help="longest window in seconds; a longer recording goes through the "
        "model window by window (default: %(default)g)",
    )
    add_batch_seconds(parser, 60.0)
    add_device(parser, ray=True)
    add_bulk(parser)
    return parser.parse_args(argv)


def numbers(text):
    """Numbers between commas, or all."""
    parts = text.split(",")
    if text == "all":
        return text
    if not all(part.isdecimal() for part in parts) or len({*parts}) < len(
        parts
    ):
        raise argparse.ArgumentTypeError(
            f"expected different numbers between commas, or all; got {text!r}"
        )
    return [int(part) for part in parts]


def _save(form, target, found, name):
    """Writes a file."""
    with atomic(target, mode=None) as draft:
        form.write(found, draft)


def _to_npy(found, path):
    """One layer as [T, D], several as [L, T, D]."""
    first, blocks = _begun(found)
    layers, _, dim = first.shape
    shape = (layers, found.num_frames, dim)[layers == 1 :]
    with open(path, "wb") as file:
        _write_header(file, shape)
        _fill(file, found, blocks)


def _to_npz(found, path):
    """An array for each layer.

    The archive takes one after the other: until all are there, they lie in a
    file without a name beside it.
    """
    first, blocks = _begun(found)
    shape = found.num_frames, first.shape[2]
    with (
        tempfile.TemporaryFile(dir=os.path.dirname(path)) as states,
        zipfile.ZipFile(path, "w") as archive,
    ):
        _fill(states, found, blocks)
        states.seek(0)
        for number in found.layers:
            name = f"layer{number}.npy"
            with archive.open(name, "w", force_zip64=True) as file:
                _write_header(file, shape)
                _copy(states, file, 4 * math.prod(shape))


def _to_safetensors(found, path):
    """An array for each layer, and what is known of the recording."""
    first, blocks = _begun(found)
    shape = [found.num_frames, first.shape[2]]
    size = shape[0] * shape[1] * 4
    about = {"frame_s": str(found.frame_s), "duration": str(found.duration_s)}
    header = {"__metadata__": about} | {
        f"layer{number}": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [place * size, (place + 1) * size],
        }
        for place, number in enumerate(found.layers)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        _fill(file, found, blocks)


def _copy(source, target, size):
    """Copies so many bytes, a megabyte at a time."""
    while size > 0:
        target.write(source.read(min(size, 2**20)))
        size -= 2**20


def _begun(found):
    """The first states of a recording, and all of them, [L, t, D] each."""
    blocks = iter(found.blocks)
    first = next(blocks)
    return first, itertools.chain([first], blocks)


def _write_header(file, shape):
    """What stands before an array of float32 in NumPy's format."""
    from numpy.lib import format as numpy_format

    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    numpy_format.write_array_header_1_0(file, about)


def _fill(file, found, blocks):
    """Writes states as they come, layer after layer in the end, [L, T, D]."""
    begin, count = file.tell(), 0
    for block in blocks:
        layers, frames, dim = block.shape
        for layer, rows in enumerate(block.numpy()):
            place = layer * found.num_frames + count
            file.seek(begin + place * dim * 4)
            file.write(rows.astype("<f4").tobytes())
        count += frames
    if count != found.num_frames:
        raise ValueError(
            f"states: expected {found.num_frames} frames; got {count}"
        )


def _to_h5(found, path):
    """A data set for each layer, and what is known of the recording."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 needs the package h5py: pip install 'unispeech_sb[superb]'"
        ) from error
    first, blocks = _begun(found)
    shape, count = (found.num_frames, first.shape[2]), 0
    with h5py.File(path, "w") as file:
        sets = [
            file.create_dataset(f"layer{number}", shape, "<f4")
            for number in found.layers
        ]
        for block in blocks:
            for one, states in zip(sets, block.numpy()):
                one[count : count + len(states)] = states
            count += block.shape[1]
        file.attrs.update(frame_s=found.frame_s, duration=found.duration_s)


FEATURE_FORMATS = {
    "npy": Format("npy", _to_npy, "an array [T, D], or [L, T, D] of several"),
    "npz": Format("npz", _to_npz, "arrays layer9, ... [T, D]"),
    "safetensors": Format(
        "safetensors", _to_safetensors, "tensors layer9, ... [T, D]"
    ),
    "h5": Format("h5", _to_h5, "HDF5, data sets layer9, ... [T, D]"),
}
"""Name -> how ``HiddenStates`` are written to a path."""
