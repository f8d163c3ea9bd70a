"""Short clips, and caches of their features, for the tests of these."""

import numpy as np
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from unispeech_sb.brains.feature_cache import FeatureCache
from unispeech_sb.dataio.pipelines import audio_pipeline

CLASSES = ("go", "no", "yes")


def write_wav(path, samples, pitch):
    """A tone in noise, the same whenever it is written."""
    noise = np.random.default_rng(samples + pitch).normal(0, 0.1, samples)
    tone = np.sin(2 * np.pi * pitch * np.arange(samples) / 16000)
    soundfile.write(path, 0.3 * tone + noise, 16000)


def clips(manifests, gain_db=0.0, split="train"):
    """The clips as a dataset of waveforms."""
    data = DynamicItemDataset.from_csv(str(manifests / f"{split}.csv"))
    data.add_dynamic_item(audio_pipeline(gain_db=gain_db))
    data.set_output_keys(["id", "sig"])
    return data


def stand(folder, backbone, **options):
    """A cache of means in a folder."""
    return FeatureCache(folder, backbone, pooled=True, **options)


def num_computed(cache, data, capsys, num_workers=0):
    """How many waveforms a cache computes for a dataset."""
    capsys.readouterr()
    cache.view(data, num_workers)
    printed = capsys.readouterr().out
    if not printed:
        return 0
    return int(printed.partition("computing ")[2].split()[0])
