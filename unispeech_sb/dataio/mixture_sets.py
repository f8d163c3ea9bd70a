"""Artificial conversations to keep: a Kaldi folder of them."""

from pathlib import Path

import soundfile
from tqdm import tqdm

from unispeech_sb.dataio.rttm import (
    write_files,
    write_kaldi_segments,
    write_rttm,
)

_SAMPLE_RATE = 16000


def write_mixtures(mixtures, count, folder, prefix="mixture"):
    """Writes conversations as recordings with their annotations.

    ``wav.scp``, with paths relative to the folder, is written last: a folder
    with one is whole.

    Arguments
    ---------
    mixtures : MixtureSimulator
        Makes them; those with the numbers from 0 on are written.
    count : int
        How many.
    folder : str or path-like
        Where they go; made if needed.
    prefix : str
        How the names of the recordings begin.

    Raises
    ------
    ValueError
        When there are conversations in the folder already.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.dataio.mixtures import Mixture
    >>> made = [Mixture(torch.zeros(16000), [(0.25, 0.5, "anna")])]
    >>> folder = getfixture("tmp_path")
    >>> write_mixtures(made, 1, folder)
    >>> print((folder / "segments").read_text(), end="")
    anna_mixture_00000_000250_000500 mixture_00000 0.250 0.500
    """
    folder = Path(folder)
    if (folder / "wav.scp").exists():
        raise ValueError(
            f"{folder}: expected a folder without conversations; it has a "
            "wav.scp"
        )
    folder.mkdir(parents=True, exist_ok=True)
    annotations, files, durations = {}, [], []
    for number in tqdm(range(count), desc="Mixing", unit="file", disable=None):
        name = f"{prefix}_{number:05d}"
        wav, annotations[name] = mixtures[number]
        soundfile.write(
            folder / f"{name}.flac", wav.numpy(), _SAMPLE_RATE, "PCM_16"
        )
        files.append(f"{name} {name}.flac")
        durations.append(f"{name} {len(wav) / _SAMPLE_RATE:.6f}")
    write_rttm(folder / "rttm", annotations)
    write_kaldi_segments(folder, annotations)
    write_files({folder / "reco2dur": durations})
    write_files({folder / "wav.scp": files})
