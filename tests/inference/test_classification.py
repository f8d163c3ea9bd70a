"""Classes of utterances, against SpeechBrain's own interface."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.inference.classification import (
    Classification,
    LabelScore,
    UtteranceClassifier,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UtteranceHead

LABELS = ["yes", "no", "turn on|lights|kitchen"]


def save_model(path, labels=LABELS, kind="single_label_classification"):
    """Writes a pretrained folder whose posteriors differ by recording."""
    torch.manual_seed(1)
    head = UtteranceHead(16, 3)
    head.classifier.weight.data *= 20
    lobes = {"backbone": Backbone.from_preset("tiny"), "head": head}
    encoder = LabelEncoder.from_labels(labels) if labels else None
    write_pretrained(
        path, lobes, "EncoderClassifier", "A test.", encoder, problem_type=kind
    )
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder."""
    return save_model(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture(scope="module")
def model(folder):
    """The interface."""
    return UtteranceClassifier.from_hparams(folder)


@pytest.fixture
def files(tmp_path):
    """Recordings of different lengths and loudness, the longest first."""
    paths = []
    for number, seconds in enumerate((2.0, 0.7, 1.1)):
        samples = np.random.default_rng(number).normal(
            size=round(16000 * seconds)
        )
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], 0.1 * (number + 1) * samples, 16000, "FLOAT")
    return paths


@pytest.mark.parametrize("batch_seconds", [0.5, 60.0])
def test_a_batch_gives_what_speechbrain_gives_alone(
    batch_seconds, folder, model, files
):
    found = dict(model.classify_files(files, batch_seconds=batch_seconds))
    assert set(found) == set(files)
    theirs = EncoderClassifier.from_hparams(folder)
    for path in files:
        scores, score, _, label = theirs.classify_file(path)
        own = found[path]
        assert own.label == label[0]
        assert own.posterior == pytest.approx(score.exp().item(), abs=1e-5)
        expected = dict(zip(LABELS, scores[0].exp().tolist()))
        assert dict(own.classes) == pytest.approx(expected, abs=1e-5)
    assert found[files[0]].duration_s == 2.0
    assert found[files[0]].posterior != found[files[1]].posterior


def test_one_bad_file_does_not_end_the_batch(model, files, tmp_path):
    bad = tmp_path / "text.wav"
    bad.write_text("no audio")
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(8000), 16000)
    short = tmp_path / "short.wav"
    soundfile.write(short, np.full(9, 0.1), 16000)
    given = [files[0], str(bad), str(silent), str(short), "no.wav", files[1]]
    found = dict(model.classify_files(given))
    failed = {p for p, r in found.items() if isinstance(r, AudioError)}
    assert failed == set(given[1:5])
    assert all(str(found[path]).startswith(f"{path}: ") for path in failed)
    assert found[files[1]] == model(files[1])


def test_the_first_classes_are_given(model, files):
    assert len(model(files[0]).classes) == 3
    found = model(files[0], top_k=2)
    assert found.classes == model(files[0]).classes[:2]
    assert found.classes[0].posterior >= found.classes[1].posterior
    for wrong in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="top_k: expected 1 or more"):
            model(files[0], top_k=wrong)


def test_a_long_recording_is_refused(folder, files):
    model = UtteranceClassifier.from_hparams(folder, max_s=1.0)
    with pytest.raises(AudioError, match=r"at most 1 s; got 2\.0 s"):
        model(files[0])
    assert model(files[1]).label
    with pytest.raises(ValueError, match="max_s: expected more than 0"):
        UtteranceClassifier.from_hparams(folder, max_s=0)


def test_classes_without_names_are_numbers(files, tmp_path):
    model = UtteranceClassifier.from_hparams(save_model(tmp_path / "m", None))
    assert model.labels is None
    assert model(files[0]).label in ("0", "1", "2")


def test_several_labels_have_a_probability_each(files, tmp_path):
    folder = save_model(tmp_path / "m", kind="multi_label_classification")
    scores = dict(UtteranceClassifier.from_hparams(folder)(files[0]).classes)
    logs = EncoderClassifier.from_hparams(folder).classify_file(files[0])[0]
    expected = dict(zip(LABELS, logs[0].exp().tolist()))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert sum(scores.values()) != pytest.approx(1.0, abs=1e-3)


def test_values_are_no_classes(tmp_path):
    folder = save_model(tmp_path / "m", kind="regression")
    with pytest.raises(ValueError, match="expected classes; got regression"):
        UtteranceClassifier.from_hparams(folder)


def test_a_notebook_shows_bars_of_escaped_labels():
    many = [LabelScore(f"<b>{n}</b>", 0.5 / (n + 1)) for n in range(1000)]
    shown = Classification(tuple(many), 1.0)._repr_html_()
    assert "<b>" not in shown and "&lt;b&gt;0" in shown
    assert "50.0%" in shown and 'width="80"' in shown
    assert len(shown) < 4000 and "990 more classes" in shown
    assert "more" not in Classification(tuple(many[:10]), 1.0)._repr_html_()
