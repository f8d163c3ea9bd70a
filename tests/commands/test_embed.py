"""The command, and what it leaves when it is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.inference.speaker_models import load_model, save_model, voice, write
from unispeech_sb.inference.collecting import VoiceStore
from unispeech_sb.inference.embed import main
from unispeech_sb.inference.gallery import Gallery

SLOW = """
import sys, time
from unispeech_sb.inference import collecting, embed
from unispeech_sb.inference.speakers import SpeakerVerification
collecting.PART_S = 0.0
whole = SpeakerVerification.embed_files
def slowly(self, paths, batch_seconds, on_progress):
    for result in whole(self, paths, 0.1, on_progress):
        yield result
        time.sleep(0.3)
SpeakerVerification.embed_files = slowly
embed.main(sys.argv[1:])
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
    main([folder, *recordings, "-o", str(out), "--window-s", "2"])
    captured = capsys.readouterr()
    assert captured.out == f"Wrote {out}: 8 voices, 0 of them from before\n"
    assert "embed: 100%" in captured.err
    found, model = Gallery.load(out), load_model(folder, window_s=2.0)
    assert found.names == recordings
    for path in recordings:
        torch.testing.assert_close(
            found[path].vector, model.embed(path).vector, rtol=1e-5, atol=1e-5
        )


def test_a_second_run_adds_what_is_missing(
    folder, recordings, tmp_path, capsys, monkeypatch
):
    out = str(tmp_path / "out.safetensors")
    main([folder, *recordings[:3], "-o", out])
    seen, add = [], VoiceStore.add
    monkeypatch.setattr(
        VoiceStore,
        "add",
        lambda store, name, voice: seen.append(name) or add(store, name, voice),
    )
    main([folder, *recordings[2:6], "-o", out])
    assert sorted(seen) == recordings[3:6]
    assert capsys.readouterr().out.endswith("6 voices, 3 of them from before\n")
    assert Gallery.load(out).names == [*recordings[2:6], *recordings[:2]]


def test_bad_files_are_named_at_the_end(folder, recordings, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    bad = [str(tmp_path / "no.wav"), str(tmp_path / "text.wav")]
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as caught:
        main([folder, bad[0], *recordings[:2], bad[1], "-o", str(out)])
    assert caught.value.code == 1
    *_, first, second, third = capsys.readouterr().err.splitlines()
    assert first == "embed: 2 of 4 files failed:"
    assert second == f"  {bad[0]}: there is no such file"
    assert third.startswith(f"  {bad[1]}: not readable as audio")
    assert Gallery.load(out).names == recordings[:2]


def test_what_was_embedded_survives_a_kill(folder, recordings, tmp_path):
    out = tmp_path / "out.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, folder, *recordings, "-o", str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    parts, deadline = out.with_name(f"{out.name}.parts"), time.time() + 120
    while len(list(parts.glob("*.safetensors"))) < 3:
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    store = VoiceStore(out, Gallery.load(min(before)).model)
    assert 3 <= len(store.gallery) < 8
    kept = {name: store.gallery[name].vector for name in store.gallery.names}
    main([folder, *recordings, "-o", str(out)])
    found = Gallery.load(out)
    assert found.names == recordings
    for name, vector in kept.items():
        assert torch.equal(found[name].vector, vector)
    assert not parts.exists()


def test_what_makes_no_sense_is_refused(folder, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out.safetensors")]
    with pytest.raises(ValueError, match="each of them once"):
        main([folder, "a.wav", "a.wav", *out])
    with pytest.raises(ValueError, match="folder with hyperparams.yaml"):
        main([str(tmp_path / "none"), "a.wav", *out])
    for options in (["-o"], ["--batch-seconds", "0", *out], []):
        with pytest.raises(SystemExit) as caught:
            main([folder, "a.wav", *options])
        assert caught.value.code == 2
    assert "required: -o" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_another_model_does_not_add_to_the_file(folder, recordings, tmp_path):
    out = str(tmp_path / "out.safetensors")
    main([folder, recordings[0], "-o", out])
    other = str(save_model(tmp_path / "other", "ecapa"))
    with pytest.raises(ValueError, match="expected voices of this model"):
        main([other, recordings[1], "-o", out])
    with pytest.raises(ValueError, match="expected voices of this model"):
        main([folder, recordings[1], "-o", out, "--window-s", "1"])
    assert Gallery.load(out).names == recordings[:1]
