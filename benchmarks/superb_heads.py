"""Time of SUPERB's keyword spotting beside the peers, in one run.

    python benchmarks/superb_heads.py [--utterances 320] [--rounds 3]

A head on a frozen backbone with random weights, clips of one second in memory,
batches of 32, Adam. Four sides take turns: this package with and without a
feature cache, whose updates are those of its whole training loop; transformers,
whose model runs at every step; and s3prl's upstream, featurizer and head where
`pip install espnet-s3prl` has put them. All start from the same weights: their
logits are compared first. Printed: medians of the seconds and of the seconds of
all processors for an update, and how many times as long 10,000 updates take as
those of the cache, with its pass over 1,800 clips, by the time of those that
were measured.
"""

import argparse
import re
import statistics
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from unispeech_sb.brains import UtteranceBrain
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.pipelines import label_pipeline
from unispeech_sb.lobes.backbone import PRESETS, Backbone
from unispeech_sb.lobes.heads import UtteranceHead

CLASSES = 12
UPDATES, CLIPS = 10_000, 1800  # of a training, counted with the pass
LR, MAX_NORM = 1e-4, 1.0
S3PRL_NAMES = (
    (r"^masked_spec_embed$", "mask_emb"),
    (r"(conv_layers\.\d+)\.conv\.", r"\1.0."),
    (r"(conv_layers\.\d+)\.layer_norm\.", r"\1.2."),
    (r"^feature_projection\.layer_norm", "layer_norm"),
    (r"^feature_projection\.projection", "post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0",
     "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1",
     "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv", "pos_conv.0"),
    (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"\.attention\.", ".self_attn."),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
)  # fmt: skip
"""Names of tensors here -> in s3prl."""


def dataset(wavs, labels):
    """Clips in memory."""
    names = [f"word{index:02}" for index in range(CLASSES)]
    rows = {
        str(number): {"place": number, "label": names[label]}
        for number, label in enumerate(labels.tolist())
    }
    data = DynamicItemDataset(rows)
    data.add_dynamic_item(
        provides("sig")(takes("place")(lambda place: wavs[place]))
    )
    encoder = LabelEncoder.from_labels(names)
    data.add_dynamic_item(label_pipeline(encoder))
    data.set_output_keys(["id", "sig", "label_encoded"])
    return data


class Ours:
    """This package's training loop, with a cache or without."""

    def __init__(self, backbone, head, data, batch, cache=None):
        self.data, self.batch = data, batch
        hparams = {
            "backbone": backbone,
            "compute_cost": torch.nn.functional.cross_entropy,
            "train_logger": None,
            "feature_cache": cache,
        }
        self.brain = UtteranceBrain(
            {"backbone": backbone, "head": head},
            partial(torch.optim.Adam, lr=LR),
            hparams,
            {"device": "cpu", "noprogressbar": True, "max_grad_norm": MAX_NORM},
        )
        self.brain.confusion = None

    def fill(self):
        """Fills the cache."""
        self.brain.cache.view(self.data)

    def logits(self, places):
        """Scores of some clips."""
        cache = self.brain.cache
        data = self.data if cache is None else cache.view(self.data)
        batch = PaddedBatch([data[place] for place in places])
        self.brain.modules.eval()
        with torch.no_grad():
            return self.brain.compute_forward(batch, Stage.VALID)

    def train(self, updates):
        """Makes so many updates."""
        done = self.brain.optimizer_step
        self.brain.optimizer_step_limit = done + updates
        self.brain.fit(
            range(1, 1 + updates),
            self.data,
            train_loader_kwargs={
                "batch_size": self.batch,
                "shuffle": True,
                "drop_last": True,
            },
        )
        assert self.brain.optimizer_step == done + updates


class Peer:
    """A loop that does no more than a peer's has to: frozen model, head, loss,
    clipping, Adam."""

    def __init__(self, forward, parameters, wavs, labels, batch):
        self.forward, self.wavs, self.labels = forward, wavs, labels
        self.parameters, self.batch = list(parameters), batch
        self.optimizer = torch.optim.Adam(self.parameters, lr=LR)

    def logits(self, places):
        """Scores of some clips."""
        with torch.no_grad():
            return self.forward(self.wavs[places])

    def train(self, updates):
        """Makes so many updates."""
        for _ in range(updates):
            places = torch.randint(len(self.wavs), (self.batch,))
            loss = torch.nn.functional.cross_entropy(
                self.forward(self.wavs[places]), self.labels[places]
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()


def of_transformers(name, backbone, head, *data):
    """transformers' model for the classification of utterances."""
    options = {**PRESETS[name], "apply_spec_augment": False}
    del options["normalize_wav"]
    config = transformers.UniSpeechSatConfig(
        **options,
        use_weighted_layer_sum=True,
        classifier_proj_size=head.config.proj_size,
        num_labels=CLASSES,
    )
    model = transformers.UniSpeechSatForSequenceClassification(config).eval()
    model.unispeech_sat.load_state_dict(backbone.state_dict(), strict=True)
    model.freeze_base_model()
    with torch.no_grad():
        model.layer_weights.copy_(head.layer_mix.weights)
    model.projector.load_state_dict(head.projector.state_dict())
    model.classifier.load_state_dict(head.classifier.state_dict())
    trained = [p for p in model.parameters() if p.requires_grad]
    return Peer(lambda wavs: model(wavs).logits, trained, *data)


def of_s3prl(backbone, head, folder, *data):
    """s3prl's upstream expert, featurizer, projector and head."""
    from s3prl.downstream.model import UtteranceLevel
    from s3prl.upstream.interfaces import Featurizer
    from s3prl.upstream.unispeech_sat.expert import UpstreamExpert
    from s3prl.upstream.wavlm.WavLM import WavLMConfig

    tensors = {}
    for name, tensor in backbone.state_dict().items():
        for ours, theirs in S3PRL_NAMES:
            name = re.sub(ours, theirs, name)
        tensors[name] = tensor
    file = folder / "upstream.pt"
    torch.save({"cfg": vars(WavLMConfig()), "model": tensors}, file)
    upstream = UpstreamExpert(str(file)).eval()
    featurizer = Featurizer(upstream, upstream_device="cpu")
    projector = torch.nn.Linear(backbone.dim, head.config.proj_size)
    projector.load_state_dict(head.projector.state_dict())
    model = UtteranceLevel(head.config.proj_size, CLASSES)
    model.post_net.linear.load_state_dict(head.classifier.state_dict())

    def forward(wavs):
        wavs = list(wavs)
        with torch.no_grad():
            features = upstream(wavs)
        features = featurizer(wavs, features)
        lengths = torch.tensor([len(feats) for feats in features])
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        return model(projector(padded), lengths)[0]

    modules = torch.nn.ModuleList([featurizer, projector, model])
    return Peer(forward, modules.parameters(), *data)


def compare(sides):
    """Prints how far the logits of the sides are apart."""
    places = list(range(8))
    logits = {name: side.logits(places) for name, side in sides.items()}
    first = next(iter(logits.values()))
    for name, found in logits.items():
        apart = (found - first).abs().max() / first.abs().max()
        print(f"logits of {name}: {apart:.1e} from the first, relatively")


def seconds(function):
    """Seconds that a call takes, and those of all processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def timed(sides, updates, rounds):
    """Side -> medians of the seconds of an update, taking turns."""
    times = {name: [] for name in sides}
    for name, side in sides.items():
        side.train(1 if updates[name] == 1 else 20)  # to warm up
    for _ in range(rounds):
        for name, side in sides.items():
            count = updates[name]
            found = seconds(partial(side.train, count))
            times[name].append([value / count for value in found])
    return {
        name: [statistics.median(kind) for kind in zip(*found, strict=True)]
        for name, found in times.items()
    }


def report(times, passed):
    """Prints the table; ratios are to this package's cached updates."""
    print("| side | s | CPU s | x | CPU x | 10,000 updates: x | CPU x |")
    print("|---|---|---|---|---|---|---|")
    cached = times["unispeech_sb, cached"]
    whole = [UPDATES * own + spent for own, spent in zip(cached, passed)]
    for name, found in times.items():
        cells = [f"{value:.4f}" for value in found]
        cells += [f"{a / b:.0f}" for a, b in zip(found, cached, strict=True)]
        cells += [
            f"{UPDATES * a / b:.0f}" if found is not cached else "1"
            for a, b in zip(found, whole, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def main():
    """Prints what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--utterances", type=int, default=320)
    parser.add_argument("--clip-s", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2000)
    given = parser.parse_args()
    torch.manual_seed(0)
    wavs = torch.randn(given.utterances, round(16000 * given.clip_s))
    labels = torch.randint(CLASSES, (given.utterances,))
    backbone = Backbone.from_preset(
        given.model, freeze=True, output_all_hiddens=True
    )
    mix = {"use_weighted_layer_sum": True, "num_states": backbone.num_states}
    heads = [UtteranceHead(backbone.dim, CLASSES, **mix) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    data = dataset(wavs, labels)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        memory = (wavs, labels, given.batch)
        live = Ours(backbone, heads[0], data, given.batch)
        cached = Ours(backbone, heads[1], data, given.batch, folder / "cache")
        sides = {
            "unispeech_sb, live": live,
            "unispeech_sb, cached": cached,
            "transformers, live": of_transformers(
                given.model, backbone, heads[0], *memory
            ),
        }
        if find_spec("s3prl") and given.model == "unispeech_sat_base":
            name = "espnet-s3prl, live"
            sides[name] = of_s3prl(backbone, heads[0], folder, *memory)
        else:
            print("s3prl: not installed, or not of this size")
        passed = seconds(cached.fill)
        print(
            f"{given.model}, {given.utterances} clips of {given.clip_s:g} s, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"transformers {transformers.__version__}; filling the cache: "
            f"{passed[0]:.1f} s, {passed[1]:.1f} CPU s"
        )
        compare(sides)
        counts = {
            name: given.updates if side is cached else 1
            for name, side in sides.items()
        }
        whole = [CLIPS * spent / given.utterances for spent in passed]
        report(timed(sides, counts, given.rounds), whole)


if __name__ == "__main__":
    main()
