"""Keeps generated corpora on disk: made once, then found by arguments."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import soundfile
import torch


def cache_corpus(folder, name, arguments, clips, sample_rate=16000):
    """Writes a generated corpus, or finds the one written before.

    Arguments
    ---------
    folder : str or Path
        Where to keep corpora. Each set of arguments has its own sub-folder,
        which appears when it is complete: a killed call leaves a hidden one,
        named ``*.partial``, that no later call reads.
    name : str
        First part of the sub-folder's name.
    arguments : list
        All that the corpus depends on, as JSON can hold it.
    clips : iterable of tuple
        Pairs of a record (a dict with an ID) and samples, [N], in [-1, 1]. Not
        touched where the corpus is there.
    sample_rate : int, optional
        Rate of the samples, in Hz.

    Returns
    -------
    list of dict
        The records, with wav (absolute path of a 16-bit file) and duration
        (in seconds) added.

    Example
    -------
    >>> clips = [({"ID": "a"}, torch.zeros(8000))]
    >>> records = cache_corpus(getfixture("tmpdir"), "zeros", [8000], clips)
    >>> records[0]["duration"]
    0.5
    """
    key = json.dumps(arguments).encode()
    digest = hashlib.sha256(key).hexdigest()[:12]
    final = Path(folder).resolve() / f"{name}-{digest}"
    if not final.is_dir():
        _write(final, clips, sample_rate)
    records = json.loads((final / "records.json").read_text("utf-8"))
    return [record | {"wav": str(final / record["wav"])} for record in records]


def _write(final, clips, sample_rate):
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        records = []
        for record, samples in clips:
            name = f"{record['ID']}.wav"
            pcm = (samples * 32767).round().to(torch.int16).numpy()
            soundfile.write(partial / name, pcm, sample_rate)
            added = {"wav": name, "duration": len(pcm) / sample_rate}
            records.append(record | added)
        text = json.dumps(records, ensure_ascii=False, indent=0)
        (partial / "records.json").write_text(text, "utf-8")
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
