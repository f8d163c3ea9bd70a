"""The commands on speakers, and what they leave when they are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.inference.hostile import check_report, hostile_files
from tests.inference.speaker_models import (
    CALIBRATION,
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.commands.speakers import embed, verify
from unispeech_sb.inference.embedding_store import (
    EmbeddingStore,
    ResumableExtractor,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.metrics.calibration import Calibration

SLOW = """
import sys, time
from unispeech_sb.commands.speakers import embed
from unispeech_sb.inference import embedding_store
from unispeech_sb.inference import SpeakerVerification
embedding_store.PART_S = 0.0
whole = SpeakerVerification.embed_files
def slowly(self, paths, batch_seconds, on_progress):
    for result in whole(self, paths, 0.1, on_progress):
        yield result
        time.sleep(0.3)
SpeakerVerification.embed_files = slowly
embed(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder."""
    return str(save_model(tmp_path_factory.mktemp("embed") / "model"))


@pytest.fixture
def recordings(tmp_path):
    """Files of several lengths, the longest first."""
    return [
        write(tmp_path / f"{n}.wav", voice(n, 3.0 - 0.3 * n)) for n in range(8)
    ]


def test_files_become_a_gallery_in_their_order(
    folder, recordings, tmp_path, capsys
):
    out = tmp_path / "new" / "out.safetensors"
    embed([folder, *recordings, "-o", str(out), "--window-s", "2"])
    captured = capsys.readouterr()
    assert captured.out == f"Wrote {out}: 8 embeddings, 0 of them from before\n"
    assert "embed: 100%" not in captured.err
    found, model = EmbeddingStore.load(out), load_model(folder, window_s=2.0)
    assert found.names == recordings
    for path in recordings:
        torch.testing.assert_close(
            found[path].vector, model.embed(path).vector, rtol=1e-5, atol=1e-5
        )


def test_a_second_run_adds_what_is_missing(
    folder, recordings, tmp_path, capsys, monkeypatch
):
    out = str(tmp_path / "out.safetensors")
    embed([folder, *recordings[:3], "-o", out])
    seen, add = [], ResumableExtractor.add
    monkeypatch.setattr(
        ResumableExtractor,
        "add",
        lambda store, name, voice: seen.append(name) or add(store, name, voice),
    )
    embed([folder, *recordings[2:6], "-o", out])
    assert sorted(seen) == recordings[3:6]
    assert "6 embeddings, 3 of them from" in capsys.readouterr().out
    assert EmbeddingStore.load(out).names == [*recordings[2:6], *recordings[:2]]


def test_bad_files_are_named_at_the_end(folder, recordings, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    bad = [str(tmp_path / "no.wav"), str(tmp_path / "text.wav")]
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as caught:
        embed([folder, bad[0], *recordings[:2], bad[1], "-o", str(out)])
    assert caught.value.code == 1
    *_, first, second, third = capsys.readouterr().err.splitlines()
    assert first == "embed: 2 of 4 files failed:"
    assert second == f"  {bad[0]}: there is no such file"
    assert third.startswith(f"  {bad[1]}: not readable as audio")
    assert EmbeddingStore.load(out).names == recordings[:2]


def test_no_file_ends_a_batch(folder, tmp_path, capsys):
    files = hostile_files(tmp_path)
    silent = str(tmp_path / "silent.wav")
    write(Path(silent), torch.zeros(16000))
    files[silent] = "all silent"
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as caught:
        embed([folder, *files, "-o", str(out)])
    assert caught.value.code == 1
    check_report(files, capsys.readouterr().err, "embed")
    good = [name for name, said in files.items() if not said]
    assert EmbeddingStore.load(out).names == good


@pytest.mark.slow
def test_what_was_embedded_survives_a_kill(folder, recordings, tmp_path):
    out = tmp_path / "out.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, folder, *recordings, "-o", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    parts, deadline = out.with_name(f"{out.name}.parts"), time.time() + 120
    while len(list(parts.glob("[!.]*.safetensors"))) < 3:
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    first = min(parts.glob("[!.]*.safetensors"))
    store = ResumableExtractor(out, EmbeddingStore.load(first).model).store
    assert 3 <= len(store) < 8
    kept = {name: store[name].vector for name in store.names}
    embed([folder, *recordings, "-o", str(out)])
    found = EmbeddingStore.load(out)
    assert found.names == recordings
    for name, vector in kept.items():
        assert torch.equal(found[name].vector, vector)
    assert not parts.exists()


def test_what_makes_no_sense_is_refused(folder, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out.safetensors")]
    with pytest.raises(ValueError, match="each of them once"):
        embed([folder, "a.wav", "a.wav", *out])
    with pytest.raises(ValueError, match="folder with hyperparams.yaml"):
        embed([str(tmp_path / "none"), "a.wav", *out])
    for end in ("npz", "csv", "JSON", "pt"):
        with pytest.raises(ValueError, match="expected OUT.safetensors"):
            embed([folder, "a.wav", "-o", str(tmp_path / f"out.{end}")])
    for options in (["-o"], ["--batch-seconds", "0", *out], []):
        with pytest.raises(SystemExit) as caught:
            embed([folder, "a.wav", *options])
        assert caught.value.code == 2
    assert "required: -o" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_another_model_does_not_add_to_the_file(folder, recordings, tmp_path):
    out = str(tmp_path / "out.safetensors")
    embed([folder, recordings[0], "-o", out])
    other = str(save_model(tmp_path / "other", "ecapa"))
    with pytest.raises(ValueError, match="expected embeddings of this model"):
        embed([other, recordings[1], "-o", out])
    with pytest.raises(ValueError, match="expected embeddings of this model"):
        embed([folder, recordings[1], "-o", out, "--window-s", "1"])
    assert EmbeddingStore.load(out).names == recordings[:1]


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
    verify([folder, *pair])
    said, numbers = printed(capsys)
    assert said == ("same speaker" if found.same else "different speakers")
    assert list(numbers) == ["cosine", "threshold", "llr"]
    assert numbers["cosine"] == pytest.approx(found.score, abs=1e-4)
    assert numbers["threshold"] == 0.5
    verify([folder, pair[0], pair[0]])
    said, numbers = printed(capsys)
    assert said == "same speaker"
    assert numbers == {"cosine": 1.0, "threshold": 0.5, "llr": 10.0}


def test_the_threshold_is_chosen(folder, pair, tmp_path, capsys):
    verify([folder, pair[0], pair[0], "--p-target", "0.01"])
    wanted = CALIBRATION.threshold(0.01)
    assert printed(capsys)[1]["threshold"] == pytest.approx(wanted, abs=1e-4)
    verify([folder, pair[0], pair[0], "--threshold", "1.01"])
    said, numbers = printed(capsys)
    assert said == "different speakers"
    assert numbers["threshold"] == 1.01
    Calibration(10.0, -8.0, num_trials=(1, 1)).save(tmp_path / "c.json")
    options = ["--calibration", str(tmp_path / "c.json")]
    verify([folder, pair[0], pair[0], *options])
    assert printed(capsys)[1] == {"cosine": 1.0, "threshold": 0.8, "llr": 2.0}


def test_without_calibration_it_asks_for_a_threshold(pair, tmp_path, capsys):
    folder = str(save_model(tmp_path / "m", calibration=None))
    with pytest.raises(ValueError, match=r"m: expected calibration\.ckpt, or"):
        verify([folder, *pair])
    verify([folder, pair[0], pair[0], "--threshold", "0.5"])
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
def test_options_of_verify_that_make_no_sense_are_2(options, folder, pair):
    with pytest.raises(SystemExit) as caught:
        verify([folder, *pair, *options.split()])
    assert caught.value.code == 2


def test_a_folder_of_another_kind_is_refused(pair, tmp_path):
    path = tmp_path / "features"
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(path, lobes, "WaveformEncoder", "")
    with pytest.raises(ValueError, match="for SpeakerRecognition; it is for"):
        verify([str(path), *pair])


def test_a_file_that_is_none_is_named(folder, pair):
    with pytest.raises(ValueError, match="no.wav: there is no such file"):
        verify([folder, pair[0], "no.wav"])
