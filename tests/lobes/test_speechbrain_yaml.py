"""A SpeechBrain yaml trains after only its ``!new:`` line is swapped."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.core import Brain

from tests.huggingface import save_folder, tiny_model

THEIRS = "!new:speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2"
OURS = "!apply:unispeech_sb.lobes.backbone.Backbone.from_pretrained"
YAML = f"""
wav2vec2: {THEIRS}
    source: !ref <wav2vec2_hub>
    output_norm: True
    freeze: False
    freeze_feature_extractor: True
    save_path: !ref <wav2vec2_folder>

wav2vec2_hub: !PLACEHOLDER
wav2vec2_folder: !PLACEHOLDER

avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False

output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 4
    bias: False

modules:
    wav2vec2: !ref <wav2vec2>
    output_mlp: !ref <output_mlp>

opt_class: !name:torch.optim.Adam
    lr: 0.003
"""


class EmotionBrain(Brain):
    """The Brain of SpeechBrain's IEMOCAP recipe, in short."""

    def compute_forward(self, batch, stage):
        """Waveforms to logits."""
        wavs, lens, _ = batch
        outputs = self.modules.wav2vec2(wavs, lens)
        outputs = self.hparams.avg_pool(outputs, lens)
        return self.modules.output_mlp(outputs.view(outputs.shape[0], -1))

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy."""
        loss = torch.nn.functional.cross_entropy(predictions, batch[2])
        self.losses.append(loss.item())
        return loss


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hugging Face folder in place of a model on the hub."""
    torch.manual_seed(0)  # some models learn more slowly
    model = tiny_model("unispeech-sat", feat_extract_norm="layer")
    return save_folder(model, tmp_path_factory.mktemp("hub"), True)


def load(text, hub, tmp_path):
    """Builds a yaml, with the same random head each time."""
    torch.manual_seed(0)
    folders = {"wav2vec2_hub": str(hub), "wav2vec2_folder": str(tmp_path)}
    return load_hyperpyyaml(text, folders)


@pytest.mark.slow
def test_the_swapped_yaml_trains(hub, tmp_path):
    swapped = YAML.replace(THEIRS, OURS)
    changed = [
        pair
        for pair in zip(YAML.splitlines(), swapped.splitlines(), strict=True)
        if pair[0] != pair[1]
    ]
    assert len(changed) == 1
    hparams = load(swapped, hub, tmp_path)
    brain = EmotionBrain(
        hparams["modules"], hparams["opt_class"], hparams, {"device": "cpu"}
    )
    brain.losses = []
    wavs, lens = torch.randn(4, 8000), torch.tensor([1.0, 0.9, 0.5, 0.4])
    batch = (wavs, lens, torch.arange(4))
    before = {n: p.clone() for n, p in brain.modules.named_parameters()}
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    brain.fit(range(1, 31), loader, progressbar=False)
    assert brain.losses[-1] < 0.5 * brain.losses[0], brain.losses
    for name, parameter in brain.modules.named_parameters():
        kept = torch.equal(parameter, before[name])
        frozen = "feature_extractor" in name or "masked_spec" in name
        assert kept == frozen, name


def test_both_lobes_give_the_same_features_without_padding(hub, tmp_path):
    theirs, ours = (
        load(text, hub, tmp_path)["wav2vec2"].eval()
        for text in (YAML, YAML.replace(THEIRS, OURS))
    )
    wavs = torch.randn(2, 8000)
    torch.testing.assert_close(ours(wavs), theirs(wavs), rtol=1e-4, atol=1e-4)
