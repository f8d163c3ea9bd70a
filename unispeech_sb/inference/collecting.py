"""Voices of many files, gathered in one file that survives interruptions.

Beside the file to come stands a folder with what was embedded so far, in
parts that appear whole or not at all; the next run goes on from there.
"""

import hashlib
import shutil
import time
from pathlib import Path

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.gallery import Gallery

PART_S = 5.0
"""Seconds of work between two parts: about what an interruption costs."""


def model_id(folder, window_s):
    """Tells models apart by what their embeddings depend on.

    Arguments
    ---------
    folder : str or pathlib.Path
        A pretrained folder.
    window_s : float
        Most seconds that go through the model at once.

    Returns
    -------
    str
        A digest of the yaml and of all weights, and the window.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "hyperparams.yaml").write_text("a: 1")
    >>> model_id(folder, 30.0)
    '...-30s'
    """
    folder, digest = Path(folder), hashlib.sha256()
    plain = ("calibration", "label_encoder")
    weights = sorted(p for p in folder.glob("*.ckpt") if p.stem not in plain)
    for path in (folder / "hyperparams.yaml", *weights):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return f"{digest.hexdigest()[:16]}-{window_s:g}s"


class VoiceStore:
    """The file of voices to come, and the parts of it that are there.

    Arguments
    ---------
    path : str or pathlib.Path
        The file. Voices that it holds already are kept.
    model : str
        What the voices are from, as ``model_id`` tells it.

    Raises
    ------
    ValueError
        When the file or a part is damaged or of another model.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.inference.voices import Voice
    >>> path = getfixture("tmp_path") / "voices.safetensors"
    >>> store = VoiceStore(path, "test")
    >>> store.add("a.wav", Voice(torch.ones(2), 1.0))
    >>> store.flush()
    >>> "a.wav" in VoiceStore(path, "test").gallery
    True
    """

    def __init__(self, path, model):
        self.path = Path(path)
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.gallery, self._part = Gallery(model), Gallery(model)
        self._flushed = time.monotonic()
        files = sorted(self.folder.glob("*.safetensors"))
        for file in [*([self.path] if self.path.is_file() else []), *files]:
            self._take(file)
        self._next = int(files[-1].stem) + 1 if files else 0

    def add(self, name, voice):
        """Adds a voice, and from time to time writes what was added.

        Arguments
        ---------
        name : str
            What it is called; not in the gallery yet.
        voice : Voice
            The voice.
        """
        self.gallery.add(name, voice)
        self._part.add(name, voice)
        if time.monotonic() - self._flushed > PART_S:
            self.flush()

    def flush(self):
        """Writes what was added since the last part."""
        self._flushed = time.monotonic()
        if not len(self._part):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part.save(self.folder / f"{self._next:06d}.safetensors")
        self._next += 1
        self._part = Gallery(self.gallery.model)

    def finish(self, order):
        """Writes the file, and removes the parts.

        Arguments
        ---------
        order : iterable of str
            Names in the order that the file is to have them, before all
            others; those without a voice are passed over.

        Returns
        -------
        Gallery
            What was written; nothing is where it is empty.
        """
        found = [name for name in order if name in self.gallery]
        first = set(found)
        found += [name for name in self.gallery.names if name not in first]
        ordered = self.gallery.select(found)
        if found:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ordered.save(self.path)
        shutil.rmtree(self.folder, ignore_errors=True)
        return ordered

    def _take(self, file):
        """Adds the voices of a file, but for those that are there."""
        held = Gallery.load(file)
        if held.model != self.gallery.model:
            raise ValueError(
                f"{file}: expected voices of this model and --window-s "
                f"({self.gallery.model}), to add to them; got {held.model}"
            )
        # A run that was killed while it cleaned up left what the file has
        new = [name for name in held.names if name not in self.gallery]
        self.gallery.update(held.select(new))


def collect_voices(verification, files, store, batch_seconds, on_progress):
    """Embeds the files whose voices a store lacks.

    Arguments
    ---------
    verification : SpeakerVerification
        The model.
    files : dict
        Name of each voice -> path of its file; different paths.
    store : VoiceStore
        Where the voices go, whatever happens.
    batch_seconds : float
        As for ``SpeakerVerification.embed_files``.
    on_progress : callable
        The same.

    Returns
    -------
    dict
        Name -> ``AudioError``, for files that cannot be used.

    Example
    -------
    >>> store = VoiceStore(getfixture("tmp_path") / "a.safetensors", "test")
    >>> collect_voices(None, {}, store, 60.0, print)
    {}
    """
    errors = {}
    names = {
        path: name for name, path in files.items() if name not in store.gallery
    }
    if not names:
        return errors
    try:
        for path, result in verification.embed_files(
            names, batch_seconds, on_progress
        ):
            if isinstance(result, AudioError):
                errors[names[path]] = result
            else:
                store.add(names[path], result)
    finally:
        store.flush()
    return errors
