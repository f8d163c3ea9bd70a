"""The commands on speakers, and what they leave when they are killed."""

import itertools
import json
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
from unispeech_sb import commands
from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.commands.score import score
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


@pytest.fixture(scope="module")
def ecapa(tmp_path_factory):
    """A pretrained folder."""
    return str(save_model(tmp_path_factory.mktemp("score") / "model", "ecapa"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings of five speakers, and a list of all their pairs."""
    path = tmp_path_factory.mktemp("corpus")
    names = []
    for speaker, take in itertools.product(range(5), range(2)):
        (path / f"s{speaker}").mkdir(exist_ok=True)
        name = f"s{speaker}/{take}.wav"
        # Of one noise, as random weights tell no speakers apart
        wav = voice(speaker, 2.0)[: 16000 + 16000 * take]
        write(path / name, wav, "PCM_16")
        names.append(name)
    lines = [
        f"{int(a[:2] == b[:2])} {a} {b}\n"
        for a, b in itertools.combinations(names, 2)
    ]
    (path / "trials.txt").write_text("".join(lines))
    return path


def command(folder, corpus, *options):
    """The command line."""
    trials = str(corpus / "trials.txt")
    return [folder, "--trials", trials, "--audio-root", str(corpus), *options]


def test_trials_are_scored(ecapa, corpus, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    score(command(ecapa, corpus, "-o", str(out), "--draws", "100"))
    captured = capsys.readouterr()
    found = json.loads((out / "results.json").read_text())
    assert found["num_target"] == 5
    assert found["num_nontarget"] == 40
    assert found["num_speakers"] == 5
    assert found["normalization"] == "none"
    assert {"cllr", "min_cllr", "actual_dcf"} <= found.keys()
    assert f"{found['eer']['value']:.4f}  [" in captured.out
    assert "score: 100%" not in captured.err
    written = sorted(path.name for path in out.iterdir())
    assert written == [
        "det.png",
        "embeddings.safetensors",
        "results.json",
        "scores.csv",
        "scores.png",
    ]
    model = load_model(ecapa)
    lines = (out / "scores.csv").read_text().splitlines()[1:]
    assert len(lines) == 45
    for line in lines[::9]:
        left, right, _, value = line.split(",")
        wanted = model.score(str(corpus / left), str(corpus / right))
        assert float(value) == pytest.approx(wanted, abs=1e-5)


def test_a_second_run_embeds_nothing(
    ecapa, corpus, tmp_path, capsys, monkeypatch
):
    out = ["-o", str(tmp_path / "out"), "--draws", "0"]
    score(command(ecapa, corpus, *out))
    first = capsys.readouterr().out
    monkeypatch.setattr(ResumableExtractor, "add", None)
    score(command(ecapa, corpus, *out, "--p-target", "0.01"))
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_without_a_folder_nothing_is_written(ecapa, corpus, tmp_path, capsys):
    before = sorted(tmp_path.parent.rglob("*"))
    score(command(ecapa, corpus, "--draws", "0"))
    assert "eer " in capsys.readouterr().out
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.slow
def test_a_cohort_normalises(ecapa, corpus, tmp_path, capsys):
    others = [
        write(tmp_path / f"{n}.wav", voice(100 + n, 1.0)) for n in range(6)
    ]
    cohort = str(tmp_path / "cohort.safetensors")
    embed([ecapa, *others, "-o", cohort])
    options = ["--cohort", cohort, "--draws", "0"]
    for more, said in (([], "S-norm by 6"), (["--top-n", "3"], "AS-norm by")):
        out = tmp_path / said
        score(command(ecapa, corpus, *options, *more, "-o", str(out)))
        found = json.loads((out / "results.json").read_text())
        assert found["normalization"].startswith(said)
        assert "cllr" not in found
    with pytest.raises(ValueError, match="top-n: expected 6 at most"):
        score(command(ecapa, corpus, *options, "--top-n", "7"))


def test_a_cohort_of_the_trials_is_refused(ecapa, corpus, tmp_path):
    cohort = str(tmp_path / "cohort.safetensors")
    embed([ecapa, str(corpus / "s1/0.wav"), "-o", cohort])
    with pytest.raises(ValueError, match=r"in no trial; got .*s1/0\.wav"):
        score(command(ecapa, corpus, "--cohort", cohort))
    EmbeddingStore("another").save(cohort)
    with pytest.raises(ValueError, match="embeddings of this model .* another"):
        score(command(ecapa, corpus, "--cohort", cohort))


def test_pairs_alone_are_scored(ecapa, corpus, tmp_path, capsys):
    path, out = tmp_path / "pairs", tmp_path / "out"
    path.write_text("s1/0.wav s1/1.wav\ns1/0.wav s2/1.wav\n")
    options = command(ecapa, corpus)[3:]
    pairs = [ecapa, "--trials", str(path), *options]
    score([*pairs, "-o", str(out)])
    assert "scores.csv: 2 scores; the list does not" in capsys.readouterr().out
    header, *rows = (out / "scores.csv").read_text().splitlines()
    assert header == "left,right,score" and len(rows) == 2
    for more in ([], ["-o", str(out), "--calibrate", str(tmp_path / "c")]):
        with pytest.raises(ValueError, match="pairs: expected which trials"):
            score([*pairs, *more])


def test_what_makes_no_result_is_refused_before_the_model_is_loaded(
    ecapa, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(commands.speakers, "load_folder", pytest.fail)
    two, out = tmp_path / "two", tmp_path / "out"
    two.write_text("1 s1/0.wav s1/1.wav\n0 s1/0.wav s2/0.wav\n")
    (tmp_path / "file").touch()
    whole = command(ecapa, corpus, "--draws", "0")
    few = [ecapa, "--trials", str(two), *whole[3:5]]
    for options, message in (
        (few, "two: expected at least 3 speakers, got 2; --draws 0"),
        ([*whole, "-o", str(tmp_path / "file")], "expected a folder"),
        ([*whole, "--calibrate", str(tmp_path)], "it is a folder"),
        ([*whole, "--calibrate", str(out / "c")], "there is no folder"),
        ([*few, "--calibrate", str(two)], "than the input"),
    ):
        with pytest.raises(ValueError, match=message):
            score(options)
    for options in (["--draws", "99"], ["--cohort", "x", "--top-n", "1"]):
        with pytest.raises(SystemExit) as caught:
            score([*whole, *options])
        assert caught.value.code == 2
    wav = str(corpus / "s1/0.wav")
    for path, message in ((tmp_path, "a folder"), (wav, "than the input")):
        with pytest.raises(ValueError, match=message):
            embed([ecapa, wav, "-o", str(path)])
    with pytest.raises(ValueError, match="file: "):
        verify([ecapa, wav, wav, "--calibration", str(tmp_path / "file")])


def test_a_cohort_of_the_trials_under_another_path_is_refused(
    ecapa, corpus, tmp_path, monkeypatch
):
    cohort = str(tmp_path / "cohort.safetensors")
    monkeypatch.chdir(corpus)
    embed([ecapa, "./s1/../s1/0.wav", "-o", cohort])
    with pytest.raises(ValueError, match=r"in no trial; got .*s1/0\.wav"):
        score(command(ecapa, corpus, "--cohort", cohort))


def test_a_calibration_is_made_for_verify(ecapa, corpus, tmp_path, capsys):
    path = tmp_path / "calibration.json"
    score(command(ecapa, corpus, "--calibrate", str(path), "--draws", "0"))
    made = Calibration.read(path)
    assert made.num_trials == (5, 40)
    assert made.threshold(0.5) != CALIBRATION.threshold(0.5)
    capsys.readouterr()
    pair = [str(corpus / name) for name in ("s1/0.wav", "s1/1.wav")]
    verify([ecapa, *pair, "--calibration", str(path)])
    shown = f"threshold  {made.threshold(0.5):.4f}"
    assert shown in capsys.readouterr().out


def test_bad_files_are_named_and_the_rest_is_kept(
    ecapa, corpus, tmp_path, capsys
):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.wav", voice(ord(name), 1.0))
    (tmp_path / "d.wav").write_text("no audio")
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n0 c.wav d.wav\n")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        score(command(ecapa, tmp_path, "-o", str(out)))
    assert caught.value.code == 1
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == "score: 1 of 4 files failed:"
    assert second.startswith(f"  {tmp_path / 'd.wav'}: not readable as audio")
    (part,) = (out / "embeddings.safetensors.parts").iterdir()
    store = EmbeddingStore.load(part)
    assert sorted(store.names) == ["a.wav", "b.wav", "c.wav"]
    write(tmp_path / "d.wav", voice(5, 1.0))
    score(command(ecapa, tmp_path, "-o", str(out), "--draws", "0"))
    assert "eer" in capsys.readouterr().out


def test_a_trial_of_a_missing_file_is_named(ecapa, corpus, tmp_path):
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    for name in "ab":
        write(tmp_path / f"{name}.wav", voice(1, 1.0))
    with pytest.raises(ValueError, match=r"trials\.txt, line 2: .*c\.wav"):
        score(command(ecapa, tmp_path))
    (tmp_path / "trials.txt").write_text("")
    with pytest.raises(ValueError, match=r"trials\.txt: expected target"):
        score(command(ecapa, tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--top-n 5", "give --cohort"),
        ("--calibrate a --cohort b", "give no --cohort"),
        ("--p-target 2", "between 0 and 1, got 2"),
        ("--draws x", "expected 0 or more, got x"),
    ],
)
def test_options_of_score_that_make_no_sense_are_2(
    options, said, ecapa, corpus, capsys
):
    with pytest.raises(SystemExit) as caught:
        score(command(ecapa, corpus, *options.split()))
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
