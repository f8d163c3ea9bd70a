"""The command that writes the voices of files: ``unispeech-sb embed``."""

import argparse

from unispeech_sb.inference.collecting import VoiceStore, model_id
from unispeech_sb.inference.loading import (
    add_batches,
    add_model,
    collect_visibly,
    load_model,
)


def main(argv=None):
    """Embeds files: embed FOLDER FILES... -o embeddings.safetensors

    What was embedded before an interruption, or is in the output already, is
    not embedded again. Files that cannot be used are passed over and named at
    the end.

    Arguments
    ---------
    argv : list of str, optional
        Arguments of the command; those of the process when omitted.

    Raises
    ------
    SystemExit
        With 1 when a file could not be used, with 2 when the command line
        makes no sense.
    ValueError
        When the folder is none, a file is given twice, or the output holds
        something else.

    Example
    -------
    >>> try:
    ...     main(["no/such/folder", "a.wav", "-o", "a.safetensors"])
    ... except ValueError as error:
    ...     print(error)
    no/such/folder: expected a folder with hyperparams.yaml
    """
    arguments = _parse(argv)
    files = arguments.files
    if len(set(files)) < len(files):
        raise ValueError("files: expected each of them once")
    verification = load_model(arguments)
    store = VoiceStore(
        arguments.output, model_id(arguments.folder, arguments.window_s)
    )
    known = len(store.gallery)
    errors = collect_visibly(
        verification,
        {file: file for file in files},
        store,
        arguments.batch_seconds,
        "embed",
    )
    gallery = store.finish(files)
    if len(gallery):
        print(
            f"Wrote {arguments.output}: {len(gallery)} voices, "
            f"{known} of them from before"
        )
    if errors:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb embed")
    add_model(parser)
    parser.add_argument("files", nargs="+", help="what soundfile reads")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="safetensors file to write; voices that it holds already, by "
        "the names of their files, are kept as they are",
    )
    add_batches(parser)
    return parser.parse_args(argv)
