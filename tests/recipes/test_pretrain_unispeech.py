"""UniSpeech's pre-training on a few sentences: both stages, languages, what it
exports, and what is wrong with manifests."""

import csv
import json

import pytest
import torch

from recipes import keyword_spotting, pretrain_unispeech
from tests.recipes import ordered_pretraining
from tests.recipes.conftest import TINY, kept_by_overwrite
from tests.recipes.pretraining import losses, phones_arguments
from tests.recipes.processes import run_on_two
from tests.recipes.speech import PHONES, write_speech
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line
from unispeech_sb.convert.to_huggingface import to_huggingface
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.backbone import Backbone


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(root, speech, tmp_path_factory):
    """The folder of a finished first stage, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    options = ["--number_of_epochs=12", "--lr=0.01"]
    return output, pretrain_unispeech.main(
        phones_arguments(root, speech, output, *options)
    )


def tokens(output):
    """The phones of a run."""
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(output / "save" / "tokenizer.ckpt")
    return set(tokenizer.lab2ind) - set(tokenizer.specials)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_losses_fall(trained):
    output, scores = trained
    for name in ("loss", "ctc"):
        found = losses(output, name)
        assert found[-1] < 0.75 * found[0]
    assert losses(output, "temperature")[-1] < losses(output, "temperature")[0]
    assert json.loads((output / "scores.json").read_text()) == scores
    parts = {"ctc", "contrastive", "diversity", "feature_penalty"}
    told = {"contrastive_accuracy", "prob_perplexity", "code_perplexity"}
    assert set(scores) == parts | told | {"loss", "temperature", "blank_share"}
    weighed = scores["ctc"] + scores["contrastive"] + scores["diversity"]
    weighed *= 0.5
    assert scores["loss"] == pytest.approx(weighed, rel=1e-4)


def test_every_recipe_takes_the_export(trained, root, corpus, tmp_path):
    export = trained[0] / "export"
    backbone = Backbone.from_pretrained(export)
    assert backbone(torch.randn(2, 8000)).shape == (2, 24, 16)
    keyword_spotting.main(
        [
            str(root / "hparams/keyword_spotting.yaml"), f"--model={export}",
            f"--data_folder={corpus}", f"--output_folder={tmp_path}",
            "--number_of_epochs=1", "--draws_per_epoch=16", *TINY[1:],
        ]
    )  # fmt: skip
    assert (tmp_path / "export" / "backbone.ckpt").is_file()


def test_the_export_is_a_model_of_transformers(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    to_huggingface(trained[0] / "export", tmp_path / "hf", "unispeech")
    model = transformers.UniSpeechForPreTraining.from_pretrained(
        tmp_path / "hf"
    ).eval()
    wavs = torch.randn(1, 8000)
    ours = Backbone.from_pretrained(tmp_path / "hf").eval()
    normal = (wavs - wavs.mean()) / wavs.var(unbiased=False).add(1e-7).sqrt()
    theirs = model(normal).projected_states
    torch.testing.assert_close(ours(wavs), theirs, rtol=1e-4, atol=1e-4)


def test_the_second_stage_goes_on_without_phones(
    trained, root, speech, tmp_path
):
    first = trained[0] / "export"
    options = phones_arguments(
        root, speech, tmp_path, f"--model={first}", f"--head_from={first}",
        "--crop_s=0.7", "--lr=0", "--dropout=0.0", "--layerdrop=0.1",
    )  # fmt: skip
    options[0] = str(root / "hparams/pretrain_unispeech_continued.yaml")
    options.remove("--model=tiny")
    scores = pretrain_unispeech.main(options)
    assert "ctc" not in scores and scores["contrastive"] > 0
    before, after = (
        read_tensors(output / "export" / "head.ckpt")
        for output in (trained[0], tmp_path)
    )
    lost = {name for name in before if name.startswith("ctc_proj.")}
    assert set(before) - set(after) == lost != set()
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("shared", [False, True])
def test_languages_share_phones_or_have_their_own(
    root, speech, tmp_path, shared
):
    (tmp_path / "en").symlink_to(speech)
    languages = f"{{en: {{}}, nl: {{data_folder: {speech}}}}}"
    pretrain_unispeech.main(
        phones_arguments(
            root, tmp_path, tmp_path, f"--shared_phones={shared}",
            f"--languages={languages}",
        )
    )  # fmt: skip
    plain = set(" ".join(PHONES).split())
    tagged = {f"({name}){p}" for name in ("en", "nl") for p in plain}
    assert tokens(tmp_path) == (plain if shared else tagged)
    with open(tmp_path / "manifests" / "train.csv", newline="") as file:
        ids = {row["ID"] for row in csv.DictReader(file)}
    assert {"en_train_0", "nl_train_0"} < ids and len(ids) == 10


def test_an_interrupted_run_ends_with_the_same_weights(
    root, speech, tmp_path, monkeypatch
):
    options = [
        "--number_of_epochs=3", "--ckpt_interval_steps=1", "--lr=0.01",
        "--dropout=0.1", "--layerdrop=0.2", "--grad_accumulation_factor=2",
        "--max_batch_s=1.5",
    ]  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pretrain_unispeech.main(phones_arguments(root, speech, whole, *options))
    real, calls = pretrain_unispeech.PretrainBrain.fit_batch, []

    def fit_batch(self, batch):
        calls.append(self.optimizer_step)
        if len(calls) == 7:  # of five in an epoch
            raise KeyboardInterrupt
        return real(self, batch)

    command = phones_arguments(root, speech, stopped, *options)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_unispeech.PretrainBrain, "fit_batch", fit_batch)
        with pytest.raises(KeyboardInterrupt):
            pretrain_unispeech.main(command)
    pretrain_unispeech.main(command)
    for name in ("export/backbone.ckpt", "export/head.ckpt", "train_log.txt"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()


def test_two_processes_are_one_with_the_double_batch(
    root, speech, tmp_path, monkeypatch
):
    monkeypatch.setenv("BATCH_SIZE", "4")
    found = []
    for name in ("one", "two"):
        # A batch's perplexity and penalty are no sums over its frames
        options = phones_arguments(
            root, speech, tmp_path / name, "--distributed_backend=gloo",
            "--feature_dropout=0.0", "--final_dropout=0.0",
            "--loss_weights={diversity: 0.0, feature_penalty: 0.0}",
            "--max_grad_norm=0.0", "--warmup_updates=0",
        )  # fmt: skip
        if name == "one":
            ordered_pretraining.main("pretrain_unispeech", *options)
        else:
            script = "ordered_pretraining.py"
            run_on_two(script, "pretrain_unispeech", *options)
        found.append(torch.load(tmp_path / name / "gradients.pt"))
    one, two = found
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        most = max(gradient.abs().max() for gradient in first)
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5 * most)


def test_half_precision_has_losses_in_single(root, speech, tmp_path):
    seen = []

    class Watching(pretrain_unispeech.PretrainBrain):
        def compute_objectives(self, predictions, batch, stage):
            loss = super().compute_objectives(predictions, batch, stage)
            seen.append(loss.dtype)
            assert loss.isfinite()
            return loss

    pretrain_unispeech.run(
        Watching, pretrain_unispeech.dataio_prep, pretrain_unispeech.prepare,
        phones_arguments(root, speech, tmp_path, "--precision=bf16"),
    )  # fmt: skip
    assert set(seen) == {torch.float32}


MISTAKES = {
    "--vocabulary={folder}/vocab.json": "train.csv, line 2: expected phones of "
    "{folder}/vocab.json, got 'oː' in {folder}/0.wav",
    "--head_from=nowhere": "nowhere/tokenizer.ckpt",
    "--text_column=spelling": "expected a text in the column 'spelling'",
    "--min_duration_s=9": "train.csv: expected utterances of 9 to 20.0 s",
    "--loss_weights={{cluster: 1}}": "loss weights: expected contrastive, ctc",
    "--languages={{en: {{tongue: x}}}}": "languages: expected only data_folder",
    "--total_updates=4": "expected fewer updates of warmup than in total",
    "--model=bass": "expected a preset (unispeech_large, ",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(root, tmp_path, capsys, mistake):
    folder = tmp_path / "speech"
    folder.mkdir()
    write_speech(folder)
    names = {name: index for index, name in enumerate("jɛsnvɡtɒp")}
    (folder / "vocab.json").write_text(json.dumps(names))
    given = mistake.format(folder=folder)
    output = tmp_path / "output"
    command = phones_arguments(root, folder, output, given)
    assert command_line(["recipe", "pretrain_unispeech", *command]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unispeech-sb: ")
    assert MISTAKES[mistake].format(folder=folder) in error
