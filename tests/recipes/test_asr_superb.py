"""SUPERB's speech recognition."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.ASR import EncoderASR

from recipes import asr
from tests.recipes.speech import write_speech
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.dataio.labels import LabelEncoder

SMALL = [
    "--model=small",
    "--proj_size=64",
    "--hidden_size=64",
    "--batch_size=4",
    "--batches_per_epoch=30",
    "--number_of_epochs=2",
    "--num_workers=0",
    "--noprogressbar",
    "--device=cpu",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("superb")
    yaml = str(root / "hparams/asr_superb.yaml")
    options = [
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        "--lr=0.01",
    ]
    return output, asr.main([yaml, *options, *SMALL])


def test_the_protocol_is_superbs(root):
    hparams = load_hyperpyyaml(
        (root / "hparams/asr_superb.yaml").read_text(),
        {"data_folder": "x", "model": "tiny"},
    )
    assert hparams["number_of_epochs"] * hparams["batches_per_epoch"] == 200_000
    assert hparams["batches_per_epoch"] == 2000
    assert hparams["make_batches"].keywords["batch_size"] // 2 == 16
    assert (hparams["max_grad_norm"], hparams["seed"]) == (1.0, 1337)
    assert "lr_scheduler" not in hparams and "augmentation" not in hparams
    head = hparams["head"](num_classes=32)
    (optimizer,) = [hparams["opt_class"](head.parameters())]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-4
    assert optimizer.defaults["weight_decay"] == 0
    assert head.layer_mix.weights.requires_grad
    assert head.projector.out_features == head.layers[0].hidden_size == 1024
    assert not any(p.requires_grad for p in hparams["backbone"].parameters())


def test_the_backbone_stays_and_the_head_learns(trained):
    output, scores = trained
    log = (output / "train_log.txt").read_text().splitlines()
    losses = [
        float(row.split("valid loss: ")[1].split(",")[0]) for row in log[:2]
    ]
    assert losses[1] < losses[0] < 10
    assert scores["WER"] <= 100.0
    assert all("lr: 0.01" in row for row in log[:2])


def test_batches_are_halves_and_evaluations_single(root, corpus, tmp_path):
    seen = []
    yaml = str(root / "hparams/asr_superb.yaml")

    class Watching(asr.CTCBrain):
        def compute_forward(self, batch, stage):
            seen.append((stage.name, len(batch.id)))
            return super().compute_forward(batch, stage)

    asr.run(
        Watching, asr.dataio_prep, asr.prepare,
        [yaml, f"--data_folder={corpus}", f"--output_folder={tmp_path}",
         *SMALL, "--model=tiny", "--number_of_epochs=1",
         "--batches_per_epoch=3"],
    )  # fmt: skip
    # Five utterances: two batches of two, and a last one that is left out
    assert seen[:3] == [("TRAIN", 2)] * 3
    assert seen[3:] == [("VALID", 1)] * 5 + [("TEST", 1)] * 5


def test_the_export_transcribes(trained, corpus):
    export = trained[0] / "export"
    tokens = LabelEncoder.read_labels(export / "tokenizer.ckpt")
    assert len(tokens) == 32 and tokens[0] == "<s>"
    assert (
        read_tensors(export / "head.ckpt")["classifier.weight"].shape[0] == 32
    )
    model = EncoderASR.from_hparams(source=str(export))
    text = model.transcribe_file(str(corpus / "0.wav"))
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


@pytest.mark.real_data
def test_librispeech_runs_through_the_protocol(root, data_folder, tmp_path):
    scores = asr.main(
        [
            str(root / "hparams/asr_superb.yaml"),
            f"--data_folder={data_folder / 'LibriSpeech'}",
            f"--output_folder={tmp_path}", *SMALL, "--model=tiny",
            "--subsets=[dev-mini, train-mini]", "--number_of_epochs=1",
            "--batches_per_epoch=2",
        ]
    )  # fmt: skip
    assert set(scores) == {"loss", "WER", "CER", "blanks"}
    log = (tmp_path / "log.txt").read_text()
    assert "have no token" not in log
