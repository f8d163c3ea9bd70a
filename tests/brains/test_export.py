"""Exported speaker models load with SpeechBrain's classes and with ours."""

import json
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import soundfile
import torch
import transformers
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from tests.huggingface import FAMILIES, save_folder, tiny_model
from unispeech_sb.brains.export import (
    export_asr,
    export_classifier,
    export_speakers,
)
from unispeech_sb.checkpoints.sharing import split_card
from unispeech_sb.convert import to_huggingface
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.inference.speaker_verification import (
    SpeakerVerification,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AAMSoftmax,
    AMSoftmax,
    ECAPAHead,
    FrameHead,
    SpeakerHead,
    UtteranceHead,
)
from unispeech_sb.metrics.calibration import Calibration

SPEAKERS = ["ann", "bob", "cleo"]
CALIBRATION = Calibration(12.0, -7.0, num_trials=(40, 60))
MODELS = {
    "x-vector, AM": lambda: (
        SpeakerHead(16, [8, 8], [3, 1], [1, 1], xvector_output_dim=6),
        AMSoftmax(6, len(SPEAKERS)),
    ),
    "ECAPA, AAM": lambda: (
        ECAPAHead(16, 3, channels=16, pooled_channels=24, embedding_size=6),
        AAMSoftmax(6, len(SPEAKERS), sub_centers=3),
    ),
}


@pytest.fixture(params=MODELS)
def hparams(request):
    """What a recipe has after its training."""
    head, objective = MODELS[request.param]()
    return SimpleNamespace(
        backbone=Backbone.from_preset("tiny"),
        head=head,
        objective=objective,
        label_encoder=LabelEncoder.from_labels(SPEAKERS),
        lr=0.25,
        data_name="my_voices",
    )


def export(hparams, folder, calibration=CALIBRATION):
    """Exports as a recipe does."""
    path = folder / "run" / "export"
    export_speakers(
        path, hparams, calibration, {"EER": 3.5}, "test", {"fact": "told"}
    )
    return path


def test_speechbrain_verifies_and_classifies_with_one_folder(hparams, tmp_path):
    path = export(hparams, tmp_path)
    path = path.rename(tmp_path / "elsewhere")
    recognizer = SpeakerRecognition.from_hparams(str(path))
    classifier = EncoderClassifier.from_hparams(str(path))
    wavs = 0.1 * torch.randn(2, 9000)
    files = [str(tmp_path / f"{name}.wav") for name in "ab"]
    for file, wav in zip(files, wavs, strict=True):
        soundfile.write(file, wav.numpy(), 16000, "FLOAT")
    for module in (hparams.backbone, hparams.head):
        module.eval()
    with torch.no_grad():
        states = torch.stack(list(hparams.backbone.iter_states(wavs)))
        feats = states if hparams.head.layer_mix is not None else states[-1]
        vectors = hparams.head.embed(feats)
        scores = hparams.objective(hparams.head.project(vectors))
    found = recognizer.encode_batch(wavs)[:, 0]
    torch.testing.assert_close(found, vectors, rtol=1e-5, atol=1e-5)
    cosine, _ = recognizer.verify_files(*files)
    wanted = torch.cosine_similarity(*vectors, dim=0)
    assert cosine.item() == pytest.approx(wanted.item(), abs=1e-5)
    posteriors, _, index, names = classifier.classify_batch(wavs)
    torch.testing.assert_close(
        posteriors, scores.log_softmax(-1), rtol=1e-4, atol=1e-4
    )
    assert names == [SPEAKERS[number] for number in scores.argmax(1)]
    alone, _, _, (name,) = classifier.classify_file(files[1])
    torch.testing.assert_close(alone, posteriors[1:], rtol=1e-4, atol=1e-4)
    assert name == names[1]


def test_the_calibration_goes_along(hparams, tmp_path):
    path = export(hparams, tmp_path)
    assert Calibration.read(path / "calibration.ckpt").scale == 12.0
    wav = torch.randn(9000)
    found = SpeakerVerification.from_hparams(str(path)).verify(wav, wav)
    assert found.llr == pytest.approx(5.0)
    assert found.threshold == pytest.approx(7 / 12)
    readme = (path / "README.md").read_text()
    assert "always decides at a cosine of 0.25" in readme
    assert "on 40 target and 60" in readme
    for prior in (0.5, 0.1, 0.01):
        row = f"| {prior:g} | {CALIBRATION.threshold(prior):.4f} |"
        assert row in readme


@pytest.mark.parametrize("calibration", [None, Calibration()])
def test_one_that_was_fitted_to_nothing_does_not(
    calibration, hparams, tmp_path
):
    path = export(hparams, tmp_path, calibration)
    assert not (path / "calibration.ckpt").exists()
    assert "## Thresholds" not in (path / "README.md").read_text()
    model = SpeakerVerification.from_hparams(str(path))
    assert model.calibration is None


def test_the_readme_tells_what_was_done(hparams, tmp_path):
    readme = (export(hparams, tmp_path) / "README.md").read_text()
    front, text = split_card(readme)
    assert text.startswith("# run\n")
    assert front["pipeline_tag"] == "audio-classification"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == "my_voices"
    assert [m["value"] for m in result["metrics"]] == [3.5]
    assert "trained on 3 speakers" in readme
    rows = [
        f"| {name} | {version(name)} |" for name in ("torch", "speechbrain")
    ]
    for row in (*rows, "| EER | 3.5 |", "| fact | told |", "| lr | 0.25 |"):
        assert row in readme
    assert str(tmp_path) not in readme


@pytest.mark.parametrize("eps", [1e-7, 1e-5])
def test_the_epsilon_of_waveforms_is_what_the_model_came_with(
    eps, hparams, tmp_path
):
    hparams.backbone = Backbone.from_preset("tiny", normalize_eps=eps)
    path = export(hparams, tmp_path)
    assert Backbone.from_pretrained(path).normalize_eps == eps
    model = SpeakerVerification.from_hparams(str(path))
    assert model.mods.embedding_model.backbone.normalize_eps == eps


@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("task", ["ForCTC", "ForSequenceClassification"])
def test_transformers_gets_the_family_of_the_model(family, task, tmp_path):
    theirs = save_folder(tiny_model(family), tmp_path / "theirs")
    backbone = Backbone.from_preset(str(theirs))
    parts = {"backbone": backbone, "model": str(theirs)}
    path, results = tmp_path / "run" / "export", ({}, "test", {})
    if task == "ForCTC":
        tokens = CTCTokenizer.from_texts(["so it is"])
        parts |= {"head": FrameHead(16, len(tokens)), "tokenizer": tokens}
        export_asr(path, SimpleNamespace(**parts), *results)
    else:
        labels = LabelEncoder.from_labels(SPEAKERS)
        parts |= {"head": UtteranceHead(16, 3, 8), "label_encoder": labels}
        export_classifier(path, SimpleNamespace(**parts), *results, "table")
    assert Backbone.from_pretrained(path).family == family  # of the next run
    name = FAMILIES[family] + task
    report = to_huggingface(path, tmp_path / "back")
    assert f"for transformers.{name}\n" in report
    model, info = getattr(transformers, name).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values()), info
    wav = torch.randn(1, 4000)
    states = [x.eval()(wav) for x in (backbone, getattr(model, family))]
    torch.testing.assert_close(states[0], states[1][0], rtol=1e-4, atol=1e-5)


def test_a_family_without_the_class_is_noted(hparams, tmp_path):
    theirs = save_folder(tiny_model("hubert"), tmp_path / "theirs")
    hparams.backbone = Backbone.from_preset(str(theirs))
    path = export(hparams, tmp_path)
    record = json.loads((path / "training.json").read_text())
    assert record["family"] == "hubert"
    if isinstance(hparams.head, ECAPAHead):
        report = to_huggingface(path, tmp_path / "back", backbone_only=True)
        assert "for transformers.HubertModel\n" in report
        return
    report = to_huggingface(path, tmp_path / "back")
    assert "for transformers.UniSpeechSatForXVector\n" in report
    assert "a model of 'hubert', of which transformers has no ForX" in report


def test_an_export_takes_the_place_of_an_older_one(hparams, tmp_path):
    export(hparams, tmp_path)
    path = export(hparams, tmp_path, None)
    assert not (path / "calibration.ckpt").exists()
