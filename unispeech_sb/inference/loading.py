"""What the commands on speakers share: options, and the model."""

import argparse
import sys
from pathlib import Path

from speechbrain.utils.fetching import FetchConfig
from tqdm import tqdm

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.collecting import collect_voices
from unispeech_sb.inference.recordings import duration_s
from unispeech_sb.inference.speakers import SpeakerVerification


def add_model(parser):
    """Adds the folder and how recordings go through its model.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of a command.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_model(parser)
    >>> parser.parse_args(["a"]).window_s
    30.0
    """
    parser.add_argument(
        "folder", help="what convert or a recipe wrote for SpeakerRecognition"
    )
    parser.add_argument(
        "--window-s",
        type=positive,
        default=30.0,
        metavar="S",
        help="most seconds of a recording that are heard at once; a longer "
        "one is heard in parts",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")


def add_batches(parser):
    """Adds how much goes through the model together.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of a command.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_batches(parser)
    >>> parser.parse_args([]).batch_seconds
    60.0
    """
    parser.add_argument(
        "--batch-seconds",
        type=positive,
        default=60.0,
        metavar="S",
        help="most seconds of audio that go through the model together",
    )


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


def load_model(arguments):
    """Loads the folder of a command line, and nothing from elsewhere.

    Arguments
    ---------
    arguments : argparse.Namespace
        With what ``add_model`` adds.

    Returns
    -------
    SpeakerVerification
        The model.

    Raises
    ------
    ValueError
        When the folder is none of a speaker model.

    Example
    -------
    >>> load_model(argparse.Namespace(folder="no/such/folder"))
    Traceback (most recent call last):
    ...
    ValueError: no/such/folder: expected a folder with hyperparams.yaml
    """
    folder = arguments.folder
    if not (Path(folder) / "hyperparams.yaml").is_file():
        raise ValueError(f"{folder}: expected a folder with hyperparams.yaml")
    found = SpeakerVerification.from_hparams(
        folder,
        window_s=arguments.window_s,
        fetch_config=FetchConfig(allow_network=False),
        run_opts={"device": arguments.device} if arguments.device else None,
    )
    if "embedding_model" not in found.mods:
        raise ValueError(
            f"{folder}: expected a folder for SpeakerRecognition, with the "
            f"module embedding_model; got {', '.join(found.mods)}"
        )
    return found


def collect_visibly(verification, files, store, batch_seconds, title):
    """Embeds what a store lacks, under a progress bar.

    Arguments
    ---------
    verification : SpeakerVerification
        The model.
    files : dict
        As for ``collect_voices``.
    store : VoiceStore
        The same.
    batch_seconds : float
        The same.
    title : str
        What the bar is called, and the list of files that cannot be used.

    Returns
    -------
    dict
        As from ``collect_voices``. The files have been named on the standard
        error.

    Example
    -------
    >>> from unispeech_sb.inference.collecting import VoiceStore
    >>> store = VoiceStore(getfixture("tmp_path") / "a.safetensors", "test")
    >>> collect_visibly(None, {}, store, 60.0, "embed")
    {}
    """
    missing = [p for name, p in files.items() if name not in store.gallery]
    with tqdm(
        total=round(sum(map(_seconds, missing)), 1),
        unit="s",
        unit_scale=True,
        desc=title,
        file=sys.stderr,
    ) as bar:
        errors = collect_voices(
            verification,
            files,
            store,
            batch_seconds,
            # tqdm warns of what rounding puts over the total
            lambda seconds: bar.update(min(seconds, bar.total - bar.n)),
        )
    if errors:
        sys.stderr.write(
            f"{title}: {len(errors)} of {len(files)} files failed:\n"
        )
        for name in files:
            if name in errors:
                sys.stderr.write(f"  {errors[name]}\n")
    return errors


def _seconds(path):
    """Length for the progress bar; what has none shown is told later."""
    try:
        return duration_s(path)
    except AudioError:
        return 0.0
