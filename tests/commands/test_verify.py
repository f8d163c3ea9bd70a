"""The command that compares two recordings."""

import pytest

from tests.inference.speaker_models import (
    CALIBRATION,
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb.checkpoints.folder import write_pretrained
from unispeech_sb.inference.verify import main
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.metrics.calibration import Calibration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder with a calibration."""
    return str(save_model(tmp_path_factory.mktemp("verify") / "model"))


@pytest.fixture
def pair(tmp_path):
    """Recordings of two speakers."""
    return [write(tmp_path / f"{n}.wav", voice(n, 1.0)) for n in (1, 2)]


def printed(capsys):
    """The decision and the numbers under it."""
    first, *lines = capsys.readouterr().out.splitlines()
    return first, {k: float(v) for k, v in (line.split() for line in lines)}


def test_it_says_what_the_model_says(folder, pair, capsys):
    found = load_model(folder).verify(*pair)
    main([folder, *pair])
    said, numbers = printed(capsys)
    assert said == ("same speaker" if found.same else "different speakers")
    assert list(numbers) == ["cosine", "threshold", "llr"]
    assert numbers["cosine"] == pytest.approx(found.score, abs=1e-4)
    assert numbers["threshold"] == 0.5
    main([folder, pair[0], pair[0]])
    said, numbers = printed(capsys)
    assert said == "same speaker"
    assert numbers == {"cosine": 1.0, "threshold": 0.5, "llr": 10.0}


def test_the_threshold_is_chosen(folder, pair, tmp_path, capsys):
    main([folder, pair[0], pair[0], "--p-target", "0.01"])
    wanted = CALIBRATION.threshold(0.01)
    assert printed(capsys)[1]["threshold"] == pytest.approx(wanted, abs=1e-4)
    main([folder, pair[0], pair[0], "--threshold", "1.01"])
    said, numbers = printed(capsys)
    assert said == "different speakers"
    assert numbers["threshold"] == 1.01
    Calibration(10.0, -8.0, num_trials=(1, 1)).save(tmp_path / "c.json")
    options = ["--calibration", str(tmp_path / "c.json")]
    main([folder, pair[0], pair[0], *options])
    assert printed(capsys)[1] == {"cosine": 1.0, "threshold": 0.8, "llr": 2.0}


def test_without_calibration_it_asks_for_a_threshold(pair, tmp_path, capsys):
    folder = str(save_model(tmp_path / "m", calibration=None))
    with pytest.raises(ValueError, match=r"m: expected calibration\.ckpt, or"):
        main([folder, *pair])
    main([folder, pair[0], pair[0], "--threshold", "0.5"])
    said, numbers = printed(capsys)
    assert said == "same speaker"
    assert list(numbers) == ["cosine", "threshold"]


@pytest.mark.parametrize(
    "options",
    [
        "--p-target 0",
        "--p-target 1",
        "--p-target x",
        "--p-target 0.5 --threshold 0.5",
        "--threshold nan",
        "--window-s -1",
    ],
)
def test_options_that_make_no_sense_are_2(options, folder, pair):
    with pytest.raises(SystemExit) as caught:
        main([folder, *pair, *options.split()])
    assert caught.value.code == 2


def test_a_folder_of_another_kind_is_refused(pair, tmp_path):
    path = tmp_path / "features"
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(path, lobes, "WaveformEncoder", "")
    with pytest.raises(ValueError, match="for SpeakerRecognition; it is for"):
        main([str(path), *pair])


def test_a_file_that_is_none_is_named(folder, pair):
    with pytest.raises(ValueError, match="no.wav: there is no such file"):
        main([folder, pair[0], "no.wav"])
