"""The command that scores a trial list."""

import itertools
import json

import pytest

from tests.inference.speaker_models import (
    CALIBRATION,
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb.inference.collecting import VoiceStore
from unispeech_sb.inference.embed import main as embed
from unispeech_sb.inference.gallery import Gallery
from unispeech_sb.inference.score import main
from unispeech_sb.inference.verify import main as verify
from unispeech_sb.metrics.calibration import Calibration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
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


def test_trials_are_scored(folder, corpus, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    main(command(folder, corpus, "-o", str(out), "--draws", "100"))
    captured = capsys.readouterr()
    found = json.loads((out / "results.json").read_text())
    assert found["num_target"] == 5
    assert found["num_nontarget"] == 40
    assert found["num_speakers"] == 5
    assert found["normalization"] == "none"
    assert {"cllr", "min_cllr", "actual_dcf"} <= found.keys()
    assert f"{found['eer']['value']:.4f}  [" in captured.out
    assert "score: 100%" in captured.err
    written = sorted(path.name for path in out.iterdir())
    assert written == [
        "det.png",
        "embeddings.safetensors",
        "results.json",
        "scores.csv",
        "scores.png",
    ]
    model = load_model(folder)
    lines = (out / "scores.csv").read_text().splitlines()[1:]
    assert len(lines) == 45
    for line in lines[::9]:
        left, right, _, value = line.split(",")
        wanted = model.score(str(corpus / left), str(corpus / right))
        assert float(value) == pytest.approx(wanted, abs=1e-5)


def test_a_second_run_embeds_nothing(
    folder, corpus, tmp_path, capsys, monkeypatch
):
    out = ["-o", str(tmp_path / "out"), "--draws", "0"]
    main(command(folder, corpus, *out))
    first = capsys.readouterr().out
    monkeypatch.setattr(VoiceStore, "add", None)
    main(command(folder, corpus, *out, "--p-target", "0.01"))
    assert capsys.readouterr().out == first


def test_without_a_folder_nothing_is_written(folder, corpus, tmp_path, capsys):
    before = sorted(tmp_path.parent.rglob("*"))
    main(command(folder, corpus, "--draws", "0"))
    assert "eer " in capsys.readouterr().out
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_cohort_normalises(folder, corpus, tmp_path, capsys):
    others = [
        write(tmp_path / f"{n}.wav", voice(100 + n, 1.0)) for n in range(6)
    ]
    cohort = str(tmp_path / "cohort.safetensors")
    embed([folder, *others, "-o", cohort])
    options = ["--cohort", cohort, "--draws", "0"]
    for more, said in (([], "S-norm by 6"), (["--top-n", "3"], "AS-norm by")):
        out = tmp_path / said
        main(command(folder, corpus, *options, *more, "-o", str(out)))
        found = json.loads((out / "results.json").read_text())
        assert found["normalization"].startswith(said)
        assert "cllr" not in found
    with pytest.raises(ValueError, match=r"top_n in 2\.\.\.6, .* got 7"):
        main(command(folder, corpus, *options, "--top-n", "7"))


def test_a_cohort_of_the_trials_is_refused(folder, corpus, tmp_path):
    cohort = str(tmp_path / "cohort.safetensors")
    embed([folder, str(corpus / "s1/0.wav"), "-o", cohort])
    with pytest.raises(ValueError, match=r"in no trial; got .*s1/0\.wav"):
        main(command(folder, corpus, "--cohort", cohort))
    gallery = Gallery("another")
    gallery.save(cohort)
    with pytest.raises(ValueError, match="voices of this model .* another"):
        main(command(folder, corpus, "--cohort", cohort))


def test_a_calibration_is_made_for_verify(folder, corpus, tmp_path, capsys):
    path = tmp_path / "calibration.json"
    main(command(folder, corpus, "--calibrate", str(path), "--draws", "0"))
    made = Calibration.read(path)
    assert made.num_trials == (5, 40)
    assert made.threshold(0.5) != CALIBRATION.threshold(0.5)
    capsys.readouterr()
    pair = [str(corpus / name) for name in ("s1/0.wav", "s1/1.wav")]
    verify([folder, *pair, "--calibration", str(path)])
    shown = f"threshold  {made.threshold(0.5):.4f}"
    assert shown in capsys.readouterr().out


def test_bad_files_are_named_and_the_rest_is_kept(
    folder, corpus, tmp_path, capsys
):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.wav", voice(ord(name), 1.0))
    (tmp_path / "d.wav").write_text("no audio")
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n0 c.wav d.wav\n")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        main(command(folder, tmp_path, "-o", str(out)))
    assert caught.value.code == 1
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == "score: 1 of 4 files failed:"
    assert second.startswith(f"  {tmp_path / 'd.wav'}: not readable as audio")
    store = Gallery.load(next((out / "embeddings.safetensors.parts").iterdir()))
    assert sorted(store.names) == ["a.wav", "b.wav", "c.wav"]
    write(tmp_path / "d.wav", voice(5, 1.0))
    main(command(folder, tmp_path, "-o", str(out), "--draws", "0"))
    assert "eer" in capsys.readouterr().out


def test_a_trial_of_a_missing_file_is_named(folder, corpus, tmp_path):
    (tmp_path / "trials.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    for name in "ab":
        write(tmp_path / f"{name}.wav", voice(1, 1.0))
    with pytest.raises(ValueError, match=r"trials\.txt, line 2: .*c\.wav"):
        main(command(folder, tmp_path))
    (tmp_path / "trials.txt").write_text("")
    with pytest.raises(ValueError, match=r"trials\.txt: expected target"):
        main(command(folder, tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--top-n 5", "give --cohort"),
        ("--calibrate a --cohort b", "give no --cohort"),
        ("--p-target 2", "between 0 and 1, got 2"),
        ("--draws x", "expected 0 or more, got x"),
    ],
)
def test_options_that_make_no_sense_are_2(
    options, said, folder, corpus, capsys
):
    with pytest.raises(SystemExit) as caught:
        main(command(folder, corpus, *options.split()))
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
