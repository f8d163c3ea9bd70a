"""Makes the toy experiment importable, here and in child processes; clips."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import toy  # noqa: E402

from tests.brains.clips import CLASSES, write_wav  # noqa: E402
from unispeech_sb.brains import UtteranceBrain  # noqa: E402
from unispeech_sb.dataio.manifest import (  # noqa: E402
    read_manifest,
    write_manifests,
)
from unispeech_sb.lobes.backbone import Backbone  # noqa: E402


@pytest.fixture
def make_brain():
    """Toy brain without a checkpointer; keywords replace its hparams."""

    def make(run_opts=None, brain_class=UtteranceBrain, **changes):
        torch.manual_seed(0)
        modules = {"backbone": toy.Backbone(), "head": toy.Head()}
        for module in modules.values():
            module.dropout.p = 0.0
        hparams = {
            "backbone": modules["backbone"],
            "backbone_opt_class": partial(torch.optim.SGD, lr=1.0),
            "compute_cost": torch.nn.functional.cross_entropy,
            "label_encoder": toy.encoder(),
            "train_logger": None,
            **changes,
        }
        return brain_class(
            modules,
            partial(torch.optim.SGD, lr=1.0),
            hparams,
            {"device": "cpu", "noprogressbar": True, **(run_opts or {})},
            hparams.get("checkpointer"),
        )

    return make


@pytest.fixture
def fit():
    """Train a brain on a few toy utterances, in order."""

    def train(brain, epochs=1, size=6, batch_size=2):
        data = toy.dataset(size, toy.encoder())
        kwargs = {"batch_size": batch_size}
        counter = brain.hparams.__dict__.get("epoch_counter")
        brain.fit(
            counter or range(1, epochs + 1),
            data,
            data,
            train_loader_kwargs=kwargs,
            valid_loader_kwargs=kwargs,
        )

    return train


@pytest.fixture(scope="session")
def manifests(tmp_path_factory):
    """Clips of 0.2 to 0.3 s with three words, each of another speaker, and
    long ones of silence; not to be changed."""
    folder = tmp_path_factory.mktemp("clips")
    records = []
    for number in range(24):
        path = folder / f"{number}.wav"
        samples = 3200 + 160 * (number % 11)
        write_wav(path, samples, 200 * (1 + number % 3))
        label = CLASSES[number % 3]
        records.append(
            {
                "ID": path.stem,
                "wav": str(path),
                "duration": samples / 16000,
                "split": "train" if number < 18 else "valid",
                "label": label,
                "spk_id": label,
                "wrd": label,
            }
        )
    write_manifests(records, folder)
    return folder


@pytest.fixture
def backbone():
    """A frozen one that gives all layers."""
    torch.manual_seed(0)
    return Backbone.from_preset("tiny", freeze=True, output_all_hiddens=True)


@pytest.fixture
def with_silence(manifests, tmp_path):
    """The clips, and two noises of which seconds are drawn."""
    folder, rows = tmp_path / "silence", []
    folder.mkdir()
    for split in ("train", "valid"):
        rows += [
            {**row, "split": split}
            for row in read_manifest(manifests / f"{split}.csv")
        ]
        for number in range(2):
            path = folder / f"noise{number}.wav"
            write_wav(path, 40000, 50)
            silence = {"ID": f"{split}_{number}", "wav": str(path)}
            silence |= {"duration": 2.5, "label": "_silence_"}
            rows.append({**rows[0], **silence, "split": split})
    write_manifests(rows, folder)
    return folder
