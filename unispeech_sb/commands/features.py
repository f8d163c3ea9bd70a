"""Hidden states of layers: ``unispeech-sb features``."""

import argparse
from collections.abc import Sequence

from unispeech_sb.atomic import atomic
from unispeech_sb.checkpoints.interfaces import INTERFACES
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
    arguments.folder = take_folder(arguments.folder, *INTERFACES)
    outputs = take_outputs(arguments, FEATURE_FORMATS, save=_save)
    files = outputs.left("features", arguments.overwrite)
    if not files:
        return

    from unispeech_sb.inference import SpeechFeatures

    extractor = load_folder(
        SpeechFeatures, arguments, window_s=arguments.window_s
    )
    layers = arguments.layers
    if layers == "all":
        layers = range(extractor.num_layers + 1)
    with progress_bar(files, "features") as bar:
        results = extractor.extract_files(
            files, layers, arguments.batch_seconds, advance(bar)
        )
        print_results("features", files, results, outputs.write, bar)


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
        type=_numbers,
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
    add_device(parser)
    return parser.parse_args(argv)


def _numbers(text):
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
    import numpy as np

    states = found.states.numpy()
    with open(path, "wb") as file:
        np.save(file, states[0] if len(states) == 1 else states)


def _to_npz(found, path):
    """An array for each layer."""
    import numpy as np

    with open(path, "wb") as file:
        np.savez(file, **_by_name(found))


def _to_safetensors(found, path):
    """An array for each layer, and what is known of the recording."""
    from safetensors.numpy import save_file

    about = {"frame_s": str(found.frame_s), "duration": str(found.duration_s)}
    save_file(_by_name(found), path, about)


def _by_name(found):
    """Name -> states of a layer, [T, D]."""
    states = found.states.numpy()
    return {f"layer{n}": row for n, row in zip(found.layers, states)}


FEATURE_FORMATS = {
    "npy": Format("npy", _to_npy, "an array [T, D], or [L, T, D] of several"),
    "npz": Format("npz", _to_npz, "arrays layer9, ... [T, D]"),
    "safetensors": Format(
        "safetensors", _to_safetensors, "tensors layer9, ... [T, D]"
    ),
}
"""Name -> how ``HiddenStates`` are written to a path."""
