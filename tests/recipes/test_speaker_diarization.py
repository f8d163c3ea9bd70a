"""Speaker diarization from recordings to a folder that the interface loads."""

import json

import pytest

from recipes import speaker_diarization
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.talks import YAML, talk_run, write_talks
from tests.recipes.voices import VOICES, read_rows, write_table, write_voices
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.inference.diarization import SpeakerDiarization
from unispeech_sb.metrics.diarization import diarization_error

OVERFIT = [
    "--model=small",
    "--number_of_epochs=20",
    "--batch_size=4",
    "--chunk_s=3.0",
    "--lr=0.003",
    "--lr_backbone=0.003",
    "--warmup_updates=4",
    "--hold_updates=12",
    "--decay_updates=4",
    "--hidden_size=32",
    "--num_layers=1",
    "--dropout=0",
]
SMALL = ["--hidden_size=4", "--batch_size=2", "--chunk_s=1.0"]
SMALL_VC = [
    "--model_size=8",
    "--num_layers=1",
    "--num_heads=2",
    "--speaker_size=4",
    "--number_of_epochs=1",
]


def run(root, corpus, output, *options, yaml=YAML):
    """One run of the recipe in this process."""
    return speaker_diarization.main(
        talk_run(root, corpus, output, *options, yaml=yaml)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Kaldi folders train and dev; not to be changed."""
    return write_talks(tmp_path_factory.mktemp("talks"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A list of recordings of one speaker each, none of them in the corpus."""
    folder = write_voices(tmp_path_factory.mktemp("voices"))
    rows = read_rows(folder / "manifest.csv")
    rows = [{**r, "speaker": f"{r['speaker']} alone"} for r in rows]
    return write_table(
        folder / "manifest.csv", [list(rows[0]), *(r.values() for r in rows)]
    )


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    return output, run(root, corpus, output, *OVERFIT)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_recipe_tells_who_speaks_in_what_it_has_heard(trained, corpus):
    output, scores = trained
    assert scores["DER"] < 10 and scores["JER"] < 10
    assert scores["speakers off"] == 0.0 and scores["accuracy"] > 0.9
    assert json.loads((output / "scores.json").read_text()) == scores
    found = read_rttm(output / "hypotheses.rttm")
    references = read_rttm(corpus / "dev" / "rttm")
    assert set(found) == set(references)
    errors = [diarization_error(references[n], found[n]) for n in found]
    error_s = sum(sum(times[:3]) for times in errors)
    # Segments in milliseconds, and scored to the end of the last frame
    rate = 100 * error_s / sum(times.total_s for times in errors)
    assert rate == pytest.approx(scores["DER"], abs=0.5)


def test_the_export_says_the_same_of_a_file(trained, corpus):
    output, scores = trained
    diarization = SpeakerDiarization.from_hparams(str(output / "export"))
    references = read_rttm(corpus / "dev" / "rttm")
    for name, reference in references.items():
        path = str(corpus / "dev" / f"{name}.wav")
        segments = diarization.diarize_file(path).segments
        found = [tuple(segment[:3]) for segment in segments]
        assert diarization_error(reference, found).rate < 0.15
    readme = (output / "export" / "README.md").read_text()
    assert "up to 2 speakers in 10 s" in readme
    assert "| recordings scored | 4 |" in readme
    text = (output / "export" / "hyperparams.yaml").read_text()
    assert f"\nthreshold: {scores['threshold']}" in text
    assert f"\nmedian_filter: {scores['median_filter']:.0f} " in text


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    root, corpus, alone, tmp_path
):
    simulated = ["--simulated=3", f"--simulated_folder={alone}"]
    for name, epochs in (("whole", 3), ("parts", 1), ("parts", 3)):
        run(
            root, corpus, tmp_path / name, *SMALL, *simulated,
            f"--number_of_epochs={epochs}",
        )  # fmt: skip
    for name in ("backbone", "head"):
        whole, parts = (
            (tmp_path / run / "export" / f"{name}.ckpt").read_bytes()
            for run in ("whole", "parts")
        )
        assert whole == parts
    for name in ("hyperparams.yaml", "README.md"):
        whole, parts = (
            (tmp_path / run / "export" / name).read_text()
            for run in ("whole", "parts")
        )
        assert whole.replace("whole", "parts") == parts
    rows = read_rows(tmp_path / "whole/manifests/voices/train.csv")
    assert {row["spk_id"] for row in rows} == {f"{n} alone" for n in VOICES}


def test_artificial_conversations_alone_are_enough_to_train_on(
    root, corpus, alone, tmp_path
):
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "dev").symlink_to(corpus / "dev")
    scores = run(
        root, tmp_path / "talks", tmp_path / "out", *SMALL, "--simulated=4",
        f"--simulated_folder={alone}", "--number_of_epochs=1",
    )  # fmt: skip
    assert 0 <= scores["accuracy"] <= 1


def test_superb_reports_the_lowest_of_ten_decisions(root, corpus, tmp_path):
    scores = run(
        root, corpus, tmp_path, "--hidden_size=4", "--number_of_epochs=1",
        "--draws_per_epoch=8",
        yaml="hparams/speaker_diarization_superb.yaml",
    )  # fmt: skip
    listed = [s for name, s in scores.items() if name.startswith("DER at")]
    assert len(listed) == 10 and min(listed) == scores["DER"]
    assert scores["threshold"] in (0.3, 0.4, 0.5, 0.6, 0.7)


def test_voices_are_learnt_with_vector_clustering(
    root, corpus, alone, tmp_path
):
    run(
        root, corpus, tmp_path, *SMALL_VC, "--batch_size=2", "--simulated=2",
        f"--simulated_folder={alone}", "--chunk_s=2.56",
        yaml="hparams/speaker_diarization_vc.yaml",
    )  # fmt: skip
    text = (tmp_path / "export" / "hyperparams.yaml").read_text()
    for line in (
        "head: !new:unispeech_sb.lobes.heads.EENDVCHead",
        "    num_known_speakers: 8",
        "num_local_speakers: 3 ",
        "frame_s: 0.04",
        "narrow_band: True ",
        "threshold: 0.4 ",
        "median_filter: 25 ",
    ):
        assert f"\n{line}" in text
    model = SpeakerDiarization.from_hparams(str(tmp_path / "export"))
    path = str(corpus / "dev" / "dev_0.wav")
    assert isinstance(model.diarize_file(path).segments, (list, tuple))


def broken(corpus, folder, line):
    """A copy of the corpus whose second line of RTTM is another one."""
    for split in ("train", "dev"):
        (folder / split).mkdir(parents=True)
        for file in (corpus / split).iterdir():
            (folder / split / file.name).symlink_to(file)
    rttm = folder / "train" / "rttm"
    lines = rttm.read_text().splitlines()
    rttm.unlink()
    lines[1] = line
    rttm.write_text("\n".join(lines) + "\n")
    return folder


def test_a_mistake_is_one_line(root, corpus, tmp_path, capsys):
    form = "SPEAKER train_0 1 {} {} <NA> <NA> {} <NA> <NA>"
    twice = broken(corpus, tmp_path / "a", form.format("0.300", "0.500", "ann"))
    past = broken(corpus, tmp_path / "b", form.format("0.300", "99.0", "bob"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train").symlink_to(corpus / "train")
    mistakes = {
        "--data_folder=nowhere": "nowhere",
        f"--data_folder={twice}": f"{twice}/train/rttm",
        f"--data_folder={past}": f"{past}/train/rttm",
        f"--data_folder={tmp_path / 'c'}": "valid",
        "--num_speakers=0": "expected one speaker or more; got 0",
        "--simulated=5": "expected a simulated_folder to make 5",
        "--median_filters=[2]": "median_filter: expected an odd number",
        "--overlap=0.2": "has no key 'overlap'",
    }
    for number, (mistake, message) in enumerate(mistakes.items()):
        options = talk_run(
            root, corpus, tmp_path / str(number), *SMALL, mistake,
            "--number_of_epochs=1",
        )  # fmt: skip
        assert command_line(["recipe", "speaker_diarization", *options]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


@pytest.mark.real_data
def test_mix2_and_libri248_run_through_the_recipe(root, data_folder, tmp_path):
    scores = run(
        root, data_folder / "diarization" / "mix2", tmp_path, *SMALL,
        "--batch_size=32", "--simulated=8", "--number_of_epochs=1",
        f"--simulated_folder={data_folder / 'libri248'}",
    )  # fmt: skip
    assert 0 < scores["DER"] < 200
    assert len(read_rttm(tmp_path / "hypotheses.rttm")) <= 16
    rows = read_rows(tmp_path / "manifests" / "valid.csv")
    assert len(rows) == 16
