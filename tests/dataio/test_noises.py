"""Noises are copied for SpeechBrain's augmentations, not changed."""

import pytest
import soundfile
import torch
from speechbrain.augment.time_domain import AddNoise, AddReverb

from unispeech_sb.atomic import OneWriter
from unispeech_sb.dataio.noises import prepare_noises


def test_noise_of_any_form_is_added(tmp_path, write_noise):
    folder = tmp_path / "noises"
    paths = [
        write_noise(folder / "a.1.wav", 20000, channels=2),
        write_noise(folder / "deep" / "b.flac", 16000, rate=8000),
        write_noise(folder / "deep" / "short.WAV", 4000),
    ]
    for name in ("._a.1.wav", ".DS_Store", "deep/._b.flac", ".trash/a.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "folder.wav").mkdir()
    before = [open(path, "rb").read() for path in paths]
    path = prepare_noises(folder, tmp_path / "copies", piece_s=1.0)
    assert [open(path, "rb").read() for path in paths] == before
    rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
    assert [float(row[1]) for row in rows] == [1.0, 1.0, 1.0, 0.25]
    assert {soundfile.info(row[2]).samplerate for row in rows} == {16000}
    add = AddNoise(str(path), snr_low=0, snr_high=10, pad_noise=True)
    clean = torch.randn(3, 24000)
    noisy = add(clean, torch.ones(3))
    assert noisy.shape == clean.shape
    assert not torch.allclose(noisy, clean)


def test_reverberation_is_of_a_whole_response(tmp_path, write_noise):
    write_noise(tmp_path / "rirs" / "room.wav", 8000)
    path = prepare_noises(tmp_path / "rirs", tmp_path / "copies")
    clean = torch.randn(2, 16000)
    assert AddReverb(str(path))(clean).shape == clean.shape


def test_a_list_that_is_there_is_kept(tmp_path, write_noise):
    write_noise(tmp_path / "noises" / "a.wav")
    path = prepare_noises(tmp_path / "noises", tmp_path / "copies")
    text = path.read_text()
    write_noise(tmp_path / "noises" / "b.wav")
    assert prepare_noises(tmp_path / "noises", tmp_path / "copies") == path
    assert path.read_text() == text


def test_a_folder_without_recordings_and_a_bad_one_are_named(
    tmp_path, write_noise
):
    with pytest.raises(ValueError, match=f"{tmp_path}: expected recordings"):
        prepare_noises(tmp_path, tmp_path / "copies")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="bad.wav: not readable as audio"):
        prepare_noises(tmp_path, tmp_path / "copies")
    assert not (tmp_path / "copies" / "list.csv").exists()


def test_one_process_copies_noises(tmp_path, write_noise):
    (tmp_path / "rain").mkdir()
    write_noise(tmp_path / "rain" / "a.wav")
    (tmp_path / "list").mkdir()
    with OneWriter(tmp_path / "list" / "list.csv"):
        with pytest.raises(BlockingIOError):
            prepare_noises(tmp_path / "rain", tmp_path / "list")
    assert not list((tmp_path / "list").glob("*.wav"))
