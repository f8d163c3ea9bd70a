"""The command that compares two recordings: ``unispeech-sb verify``."""

import argparse

from unispeech_sb.inference.commands import probability
from unispeech_sb.inference.loading import add_model, load_model
from unispeech_sb.metrics.calibration import Calibration


def main(argv=None):
    """Compares two recordings: verify FOLDER A B [--p-target P]

    Arguments
    ---------
    argv : list of str, optional
        Arguments of the command; those of the process when omitted.

    Raises
    ------
    SystemExit
        With 2 when the command line makes no sense.
    ValueError
        When the folder is none, a file cannot be used, or there is neither a
        calibration nor a threshold.

    Example
    -------
    >>> try:
    ...     main(["no/such/folder", "a.wav", "b.wav"])
    ... except ValueError as error:
    ...     print(error)
    no/such/folder: expected a folder with hyperparams.yaml
    """
    arguments = _parse(argv)
    verification = load_model(arguments)
    if arguments.calibration:
        verification.calibration = Calibration.read(arguments.calibration)
    if arguments.threshold is None and verification.calibration is None:
        raise ValueError(
            f"{arguments.folder}: expected calibration.ckpt, or --calibration "
            "from unispeech-sb score, or --threshold"
        )
    found = verification.verify(
        arguments.left,
        arguments.right,
        p_target=arguments.p_target,
        threshold=arguments.threshold,
    )
    print("same speaker" if found.same else "different speakers")
    print(f"cosine     {found.score:.4f}")
    print(f"threshold  {found.threshold:.4f}")
    if found.llr is not None:
        print(f"llr        {found.llr:.2f}")


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb verify")
    add_model(parser)
    parser.add_argument("left", metavar="A", help="what soundfile reads")
    parser.add_argument("right", metavar="B", help="the same")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--p-target",
        type=probability,
        metavar="P",
        help="how probable one speaker is before listening; 0.5 when omitted",
    )
    choice.add_argument(
        "--threshold",
        type=_number,
        metavar="T",
        help="least cosine of one speaker, in place of the calibration's",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="in place of the folder's: what unispeech-sb score --calibrate "
        "wrote",
    )
    return parser.parse_args(argv)


def _number(text):
    """A finite number."""
    number = float(text)
    if not abs(number) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number, got {text}")
    return number
