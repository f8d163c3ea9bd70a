"""Noises and room impulse responses as SpeechBrain's ``AddNoise`` and
``AddReverb`` read them.
"""

import csv
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from unispeech_sb.atomic import OneWriter, atomic
from unispeech_sb.dataio.audio import read_audio, write_audio
from unispeech_sb.dataio.containers import SUFFIXES, recordings_below

__all__ = ["prepare_noises"]

logger = get_logger(__name__)

_SAMPLE_RATE = 16000


def find_recordings(folder):
    """Lists the recordings in a folder, at any depth; there has to be one."""
    files = recordings_below(folder)
    if not files:
        raise ValueError(
            f"{folder}: expected recordings ({', '.join(SUFFIXES)}) "
            "in it; there are none"
        )
    return files


def prepare_noises(
    folder: str | Path, output_folder: str | Path, piece_s: float | None = None
) -> Path:
    """Copies recordings as 16 kHz mono and lists them, once.

    SpeechBrain's own ``prepare_csv`` makes such a list too, but writes the
    first channel over recordings with several, and deletes long ones.

    Arguments
    ---------
    folder : str or path-like
        Where the recordings are, at any depth: MUSAN, simulated RIRs, ...
    output_folder : str or path-like
        Where the copies and ``list.csv`` go. With a list that is there,
        nothing is done.
    piece_s : float, optional
        Cut recordings into pieces of so many seconds; the rest of each is
        left out unless it is all. Whole recordings when omitted.

    Returns
    -------
    pathlib.Path
        The list: the ``csv_file`` of ``AddNoise`` or ``AddReverb``.

    Raises
    ------
    ValueError
        When the folder has no recordings, or one cannot be read.
    BlockingIOError
        When another process is writing the same list.

    Example
    -------
    >>> import numpy as np
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> (folder / "rain").mkdir()
    >>> rain = np.random.default_rng(0).uniform(-0.1, 0.1, (16000, 2))
    >>> soundfile.write(folder / "rain" / "1.wav", rain, 8000)
    >>> path = prepare_noises(folder / "rain", folder / "list", piece_s=0.5)
    >>> print(path.read_text().splitlines()[0])
    ID,duration,wav,wav_format,wav_opts
    >>> len(path.read_text().splitlines())
    5
    """
    folder, output_folder = Path(folder), Path(output_folder).absolute()
    path = output_folder / "list.csv"
    if path.is_file():
        return path
    files = find_recordings(folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    with OneWriter(path):
        rows = _copy(files, output_folder, piece_s)
        with atomic(path) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["ID", "duration", "wav", "wav_format", "wav_opts"])
            writer.writerows(rows)
    logger.info(f"{folder}: {len(rows)} stretches of {len(files)} recordings")
    return path


def _copy(files, folder, piece_s):
    """Writes the pieces of recordings, and gives the list's rows."""
    rows = []
    for number, file in enumerate(
        tqdm(files, desc="Copying noises", unit="file", disable=None)
    ):
        for place, piece in enumerate(_pieces(read_audio(file), piece_s)):
            name = f"{number:06d}_{place:03d}"
            copy = folder / f"{name}.wav"
            write_audio(copy, piece.numpy(), _SAMPLE_RATE)
            rows.append([name, len(piece) / _SAMPLE_RATE, copy, "wav", ""])
    return rows


def _pieces(wav, piece_s):
    """A waveform, or its whole pieces."""
    size = len(wav) if piece_s is None else round(piece_s * _SAMPLE_RATE)
    if size >= len(wav):
        return [wav]
    return wav[: len(wav) // size * size].split(size)
