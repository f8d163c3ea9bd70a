"""A recipe in small: noise of three pitches, a tiny backbone, a tiny head."""

from pathlib import Path

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import provides, takes

from unispeech_sb import experiment
from unispeech_sb.brains import UtteranceBrain

LABELS = ("low", "middle", "high")
YAML = Path(__file__).with_name("toy.yaml")


class Backbone(torch.nn.Module):
    """One convolution, with the contract of the real backbone."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 8, 10, 5)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, wav, wav_lens=None):
        return self.dropout(self.conv(wav[:, None]).relu()).transpose(1, 2)

    def frame_lens(self, num_samples, wav_lens):
        frames = (torch.round(wav_lens * num_samples) - 10) // 5 + 1
        return frames / ((num_samples - 10) // 5 + 1)


class Head(torch.nn.Module):
    """Mean over valid frames, then a classifier."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.2)
        self.classifier = torch.nn.Linear(8, len(LABELS))

    def forward(self, feats, lengths):
        frames = (
            torch.arange(feats.size(1))
            < (lengths[:, None] * feats.size(1)).round()
        )
        pooled = (feats * frames[:, :, None]).sum(1) / frames.sum(1)[:, None]
        return self.classifier(self.dropout(pooled))


def dataset(size, encoder):
    """Utterances of different lengths, each the same whenever it is read."""

    @takes("id", "label")
    @provides("sig")
    def sig(uid, label):
        generator = torch.Generator().manual_seed(int(uid))
        samples = torch.arange(100 + 10 * (int(uid) % 7))
        period = (3, 7, 15)[LABELS.index(label)]
        noise = torch.randn(len(samples), generator=generator)
        return torch.sin(2 * torch.pi * samples / period) + 0.5 * noise

    @takes("label")
    @provides("label_encoded")
    def label_encoded(label):
        return encoder.encode_label_torch(label)

    return DynamicItemDataset(
        {str(i): {"label": LABELS[i % 3]} for i in range(size)},
        dynamic_items=[sig, label_encoded],
        output_keys=["id", "sig", "label_encoded"],
    )


def encoder():
    """The encoder of the three labels."""
    made = CategoricalEncoder()
    made.update_from_iterable(LABELS)
    made.expect_len(len(LABELS))
    return made


def dataio_prep(hparams):
    """Train and validation set; the test set is left to the caller."""
    return {
        "train": dataset(22, hparams["label_encoder"]),
        "valid": dataset(7, hparams["label_encoder"]),
    }


class ToyBrain(UtteranceBrain):
    """Exports nothing: the toy's modules are no lobes."""

    def on_evaluate_start(self, max_key=None, min_key=None):
        if torch.distributed.is_initialized():
            parameters = list(self.modules.parameters())
            mine = torch.cat([p.detach().flatten() for p in parameters])
            all_of_them = [torch.empty_like(mine) for _ in range(2)]
            torch.distributed.all_gather(all_of_them, mine)
            assert torch.equal(*all_of_them), "the processes trained apart"
        super().on_evaluate_start(max_key, min_key)

    def export(self, folder, scores, scored_on):
        pass


def main(argv=None, brain_class=ToyBrain):
    """The toy experiment."""
    return experiment.run(brain_class, dataio_prep, argv=argv)


if __name__ == "__main__":
    experiment.main(main)
