"""What scores come to: against the metrics, and by the command."""

import itertools
import json

import numpy as np
import pytest
import torch

from tests.inference.speaker_models import (
    CALIBRATION,
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb import commands
from unispeech_sb.commands.score import (
    fit_calibration,
    score,
    score_trials,
    summarize,
    summary_table,
    write_results,
)
from unispeech_sb.commands.speakers import embed, verify
from unispeech_sb.dataio.trials import Trials, read_trials
from unispeech_sb.inference.embedding_store import (
    EmbeddingStore,
    ResumableExtractor,
)
from unispeech_sb.inference.speaker_verification import SpeakerEmbedding, cosine
from unispeech_sb.metrics.calibration import Calibration
from unispeech_sb.metrics.verification import eer, min_dcf


def draw_store(num_speakers, num_takes, spread=0.9, seed=0, model="m"):
    """Embeddings of recordings of several speakers."""
    draw = torch.Generator().manual_seed(seed)
    store = EmbeddingStore(model)
    for speaker in range(num_speakers):
        mean = torch.randn(8, generator=draw)
        for take in range(num_takes):
            noise = torch.randn(8, generator=draw)
            vector = (1.0 + take) * (mean + spread * noise)
            store.add(
                f"{seed}-{speaker}-{take}", SpeakerEmbedding(vector, 1.0 + take)
            )
    return store


def all_pairs(store):
    """Every pair of a store's recordings."""
    left, right = np.triu_indices(len(store), 1)
    speakers = [name.rpartition("-")[0] for name in store.names]
    same = [speakers[a] == speakers[b] for a, b in zip(left, right)]
    return Trials(list(store.names), left, right, np.array(same))


@pytest.fixture(scope="module")
def store():
    """Three recordings each of ten speakers."""
    return draw_store(10, 3)


@pytest.fixture(scope="module")
def trials(store):
    """All of their pairs."""
    return all_pairs(store)


def test_scores_are_cosines_in_the_order_of_the_list(store, trials):
    turned = store.select(reversed(store.names))
    found = score_trials(turned, trials)
    for left, right, value in zip(trials.left, trials.right, found.values):
        pair = store[trials.names[left]], store[trials.names[right]]
        assert value == pytest.approx(cosine(*pair), abs=1e-9)
    assert found.normalization == "none"
    assert found.embeddings.names == trials.names


def test_a_cohort_normalises(store, trials):
    cohort = draw_store(20, 1, seed=1)
    plain = score_trials(store, trials)
    for top_n, said in (
        (None, "S-norm by 20"),
        (5, "AS-norm by the"),
    ):
        found = score_trials(store, trials, cohort, top_n)
        assert found.normalization.startswith(said)
        row = 17
        left, right = (
            [
                cosine(store[trials.names[side[row]]], cohort[name])
                for name in cohort.names
            ]
            for side in (trials.left, trials.right)
        )
        terms = []
        for side in (left, right):
            best = np.sort(side)[-top_n:] if top_n else side
            terms.append(
                (plain.values[row] - np.mean(best)) / np.std(best, ddof=1)
            )
        assert found.values[row] == pytest.approx(np.mean(terms), abs=1e-6)


def test_the_summary_holds_the_metrics(store, trials):
    scores = score_trials(store, trials)
    found = summarize(scores, p_target=0.05, draws=200)
    sides = scores.values[trials.targets], scores.values[~trials.targets]
    assert found["num_target"] == 30
    assert found["num_nontarget"] == 405
    assert found["num_speakers"] == 10
    for name, (value, threshold) in (
        ("eer", eer(*sides)),
        ("min_dcf", min_dcf(*sides, p_target=0.05)),
    ):
        assert found[name]["value"] == value
        assert found[name]["threshold"] == threshold
        low, high = found[name]["interval"]
        assert low < value < high
    assert summarize(scores, p_target=0.05, draws=200) == found
    usual = summarize(scores, p_target=0.05)
    assert usual == summarize(scores, p_target=0.05, draws=1000) != found
    bare = summarize(scores, draws=0)
    assert "interval" not in bare["eer"]
    assert "cllr" not in bare
    table = summary_table(found)
    assert f"eer            {found['eer']['value']:.4f}  [" in table


def test_a_models_calibration_is_measured(store, trials):
    scores = score_trials(store, trials)
    good = summarize(scores, fit_calibration(scores), 0.5, draws=0)
    bad = summarize(scores, Calibration(20.0, 5.0), 0.5, draws=0)
    assert good["min_cllr"] == bad["min_cllr"]
    assert good["min_cllr"] <= good["cllr"] < bad["cllr"]
    assert good["min_dcf"]["value"] <= good["actual_dcf"] < bad["actual_dcf"]
    quality = {"log_duration_min": 0.1, "magnitude_max": -0.1}
    weighed = Calibration(20.0, 5.0, quality)
    found = summarize(scores, weighed, 0.5, draws=0)
    assert found["cllr"] != bad["cllr"]


def test_results_are_written_and_can_be_read(store, trials, tmp_path):
    scores = score_trials(store, trials)
    summary = summarize(scores, draws=0)
    write_results(tmp_path, scores, summary, "model $x$")
    assert json.loads((tmp_path / "results.json").read_text()) == summary
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["det.png", "results.json", "scores.csv", "scores.png"]
    again = read_trials(tmp_path / "scores.csv", known=store.names)
    assert again.targets.tolist() == trials.targets.tolist()
    column = [
        float(line.rpartition(",")[2])
        for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]
    ]
    assert column == scores.values.tolist()


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
def test_a_cohort_of_recordings_normalises(ecapa, corpus, tmp_path, capsys):
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
