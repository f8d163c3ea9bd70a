"""A folder of recordings of which nothing but the sound is known."""

from pathlib import Path

from unispeech_sb.dataio.noises import find_recordings
from unispeech_sb.text import lines_of


def is_recordings(path):
    """Whether a path is a folder without a ``manifest.csv`` that has splits."""
    manifest = Path(path, "manifest.csv")
    if not manifest.is_file():
        return Path(path).is_dir()
    _, header = next(lines_of(manifest), (1, ""))
    return "split" not in header.lower().strip().split(",")


def recordings(folder):
    """Yields all recordings below a folder, for training, named by paths."""
    root = Path(folder).absolute()
    for path in find_recordings(root):
        name = path.relative_to(root).with_suffix("").as_posix()
        yield {
            "ID": name.replace("/", "_"),
            "wav": str(path),
            "split": "train",
        }
