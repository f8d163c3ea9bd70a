"""Small folders of shards."""

import numpy as np
import soundfile

SHARD_H = 2.0 / 3600
"""Hours in a shard of these tests: two seconds."""


def write_recordings(folder, num_train=40, num_valid=4):
    """Records of noise of 0.1 to 0.5 s, with words and a speaker each."""
    draw, records = np.random.default_rng(0), []
    for number in range(num_train + num_valid):
        count = int(draw.integers(1600, 8000))
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * draw.normal(size=count), 16000)
        records.append(
            {
                "ID": f"utt.{number}",
                "wav": str(path),
                "duration": count / 16000,
                "split": "train" if number < num_train else "valid",
                "spk_id": f"s{number % 3}",
                "wrd": f"word {number}",
            }
        )
    return records


def contents(folder):
    """Name -> bytes of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
