"""What all commands that read recordings share: options, folder, progress."""

import argparse
import sys
from pathlib import Path

from speechbrain.utils.fetching import FetchConfig
from tqdm import tqdm

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.recordings import duration_s


def positive(text):
    """Reads a number above zero from the command line.

    Arguments
    ---------
    text : str
        What was typed.

    Returns
    -------
    float
        The number.

    Raises
    ------
    argparse.ArgumentTypeError
        When it is none.

    Example
    -------
    >>> positive("1.5")
    1.5
    """
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
    """Reads a probability from the command line.

    Arguments
    ---------
    text : str
        What was typed.

    Returns
    -------
    float
        A number between 0 and 1.

    Raises
    ------
    argparse.ArgumentTypeError
        When it is none.

    Example
    -------
    >>> probability("0.01")
    0.01
    """
    number = positive(text)
    if not number < 1:
        raise argparse.ArgumentTypeError(
            f"expected a number between 0 and 1, got {text}"
        )
    return number


def at_least(least):
    """Makes a reader of whole numbers from the command line.

    Arguments
    ---------
    least : int
        The lowest number that it takes, 0 or more.

    Returns
    -------
    callable
        Text -> int; raises ``argparse.ArgumentTypeError`` on anything else.

    Example
    -------
    >>> at_least(1)("3")
    3
    """

    def read(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected {least} or more, got {text}"
            )
        return int(text)

    return read


def add_device(parser):
    """Adds where the model runs.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of a command.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_device(parser)
    >>> parser.parse_args(["--device", "cpu"]).device
    'cpu'
    """
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")


def load_folder(interface, arguments, **options):
    """Loads the folder of a command line, and nothing from elsewhere.

    Arguments
    ---------
    interface : type
        A ``Pretrained`` class.
    arguments : argparse.Namespace
        With ``folder`` and ``device``.
    **options
        Passed on to ``from_hparams``.

    Returns
    -------
    Pretrained
        The model.

    Raises
    ------
    ValueError
        When the folder is none.

    Example
    -------
    >>> load_folder(None, argparse.Namespace(folder="no/such/folder"))
    Traceback (most recent call last):
    ...
    ValueError: no/such/folder: expected a folder with hyperparams.yaml
    """
    folder = arguments.folder
    if not (Path(folder) / "hyperparams.yaml").is_file():
        raise ValueError(f"{folder}: expected a folder with hyperparams.yaml")
    device = arguments.device
    return interface.from_hparams(
        folder,
        fetch_config=FetchConfig(allow_network=False),
        run_opts={"device": device} if device else None,
        **options,
    )


def progress_bar(files, title):
    """A progress bar over the seconds of recordings, on the standard error.

    Arguments
    ---------
    files : iterable of str
        Paths. One that cannot be read adds nothing: its error is told by
        what uses it.
    title : str
        What the bar is called.

    Returns
    -------
    tqdm.tqdm
        The bar; update it with seconds.

    Example
    -------
    >>> progress_bar(["no/such/file.wav"], "embed").total
    0.0
    """
    return tqdm(
        total=round(sum(map(_seconds, files)), 1),
        unit="s",
        unit_scale=True,
        desc=title,
        file=sys.stderr,
    )


def tell_failures(title, files, errors):
    """Names the files that could not be used, on the standard error.

    Arguments
    ---------
    title : str
        The command.
    files : iterable of str
        All files, in the order to tell.
    errors : dict
        File -> what was wrong with it.

    Example
    -------
    >>> tell_failures("embed", ["a.wav"], {})
    """
    if not errors:
        return
    sys.stderr.write(f"{title}: {len(errors)} of {len(files)} files failed:\n")
    for name in files:
        if name in errors:
            sys.stderr.write(f"  {errors[name]}\n")


def _seconds(path):
    """Length for the progress bar; what has none shown is told later."""
    try:
        return duration_s(path)
    except AudioError:
        return 0.0
