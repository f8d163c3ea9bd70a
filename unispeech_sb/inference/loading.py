"""What the commands on speakers share: options, and the model."""

from unispeech_sb.inference.collecting import collect_voices
from unispeech_sb.inference.commands import (
    add_device,
    load_folder,
    positive,
    progress_bar,
    tell_failures,
)
from unispeech_sb.inference.speakers import SpeakerVerification


def add_model(parser):
    """Adds the folder and how recordings go through its model.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of a command.

    Example
    -------
    >>> import argparse
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
    add_device(parser)


def add_batches(parser):
    """Adds how much goes through the model together.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of a command.

    Example
    -------
    >>> import argparse
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
    >>> import argparse
    >>> load_model(argparse.Namespace(folder="no/such/folder", window_s=1.0))
    Traceback (most recent call last):
    ...
    ValueError: no/such/folder: expected a folder with hyperparams.yaml
    """
    found = load_folder(
        SpeakerVerification, arguments, window_s=arguments.window_s
    )
    if "embedding_model" not in found.mods:
        raise ValueError(
            f"{arguments.folder}: expected a folder for SpeakerRecognition, "
            f"with the module embedding_model; got {', '.join(found.mods)}"
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
    with progress_bar(missing, title) as bar:
        errors = collect_voices(
            verification,
            files,
            store,
            batch_seconds,
            # tqdm warns of what rounding puts over the total
            lambda seconds: bar.update(min(seconds, bar.total - bar.n)),
        )
    tell_failures(title, files, errors)
    return errors
