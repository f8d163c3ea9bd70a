"""MiniSUPERB's smoke test, run to its end on corpora in their true layouts:
Libri-light's ten hours between LibriSpeech's sets, and VoxCeleb1 by its list.
"""

import csv
import json

import pytest
import soundfile

from tests.recipes.phones import TEXTS, spoken_texts
from tests.recipes.voices import TEXTS as TALKS
from tests.recipes.voices import VOICES
from tests.superb.conftest import run_in_process
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.commands import main
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, speak

CHAPTERS = {
    # One chapter is in several parts, with other utterances in each
    "librispeech_finetuning/9h/clean/1034/121119": (0, 1),
    "librispeech_finetuning/1h/0/clean/1034/121119": (2,),
    "librispeech_finetuning/1h/5/clean/1034/121119": (3,),
    "librispeech_finetuning/9h/other/1018/133447": (4, 0),
    "librispeech_finetuning/1h/3/other/1018/133447": (1,),
    "LibriSpeech/dev-clean/84/121123": (0, 3),
    "LibriSpeech/test-clean/61/70968": (1, 4),
}
"""Folder of Libri-light and LibriSpeech -> texts that are read there."""

SPEAKERS = ("id10001", "id10002", "id10270", "id10271")
VIDEOS = ("1zcIwhmdeo4", "7gWzIy6yIIk", "J9lHsKG98U8")
"""Of each speaker: one to train on, one to validate, one to test."""

SET = [
    *("--set=asr.number_of_epochs=2", "--set=asr.batches_per_epoch=3"),
    *("--set=asr.batch_size=4", "--set=asr.num_workers=0"),
    *("--set=sid.number_of_epochs=2", "--set=sid.draws_per_epoch=16"),
    "--set=sid.num_workers=0",
]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A data root; not to be changed."""
    root = tmp_path_factory.mktemp("corpora")
    waves, numbers = spoken_texts(), {}
    for place, texts in CHAPTERS.items():
        folder = root / place
        folder.mkdir(parents=True)
        chapter = "-".join(folder.parts[-2:])
        lines = []
        for text in texts:
            number = numbers[chapter] = numbers.get(chapter, -1) + 1
            name = f"{chapter}-{number:04d}"
            path = folder / f"{name}.flac"
            soundfile.write(path, waves[text], SAMPLE_RATE)
            lines.append(f"{name} {TEXTS[text].upper()}\n")
        (folder / f"{chapter}.trans.txt").write_text("".join(lines))
    write_voxceleb(root / "VoxCeleb1")
    return root


def write_voxceleb(folder):
    """VoxCeleb1 as its two archives unpack, and MiniSUPERB's list."""
    lines = []
    for speaker, voice in zip(SPEAKERS, VOICES.values(), strict=True):
        part = "test" if speaker >= "id10270" else "dev"
        for number, video in enumerate(VIDEOS):
            path = folder / part / "wav" / speaker / video / "00001.wav"
            path.parent.mkdir(parents=True)
            samples = speak(TALKS[number], voice).samples.numpy()
            soundfile.write(path, samples, SAMPLE_RATE)
            lines.append(f"{number + 1} {speaker}/{video}/00001.wav\n")
    (folder / "mini_veri_test_class.txt").write_text("".join(sorted(lines)))


@pytest.fixture(scope="module")
def finished(corpora, tmp_path_factory):
    """Output of a run, and its status."""
    output = tmp_path_factory.mktemp("superb") / "out"
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        status = main(
            ["superb", "run", "--model=tiny", "--preset=mini", "--device=cpu",
             f"--data-root={corpora}", f"--output={output}", *SET]
        )  # fmt: skip
    return output, status


def ids(folder, split):
    """The recordings of a split of a run."""
    with open(folder / "manifests" / f"{split}.csv", newline="") as file:
        return {row["ID"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_both_tasks_are_finished_under_their_corpus_name(finished):
    output, status = finished
    assert status == 0
    tasks = json.loads((output / "results.json").read_text())["tasks"]
    assert {name: record["state"] for name, record in tasks.items()} == {
        "asr": "finished",
        "sid": "finished",
    }
    names = [*tasks["asr"]["scores"], *tasks["sid"]["scores"]]
    assert names == [
        "ASR on Libri-light 10 h",
        "SID on VoxCeleb1 by MiniSUPERB's list",
    ]
    report = (output / "report.html").read_text()
    assert "Libri-light 10 h" in report and "list" in report


@pytest.mark.slow
def test_recognition_trains_on_the_ten_hours_with_the_smaller_head(finished):
    folder = finished[0] / "tasks" / "asr"
    assert ids(folder, "train") == {
        *(f"1034-121119-{number:04d}" for number in range(4)),
        *(f"1018-133447-{number:04d}" for number in range(3)),
    }
    assert ids(folder, "valid") == {"84-121123-0000", "84-121123-0001"}
    assert ids(folder, "test") == {"61-70968-0000", "61-70968-0001"}
    head = read_tensors(folder / "export" / "head.ckpt")
    assert head["projector.weight"].shape == (256, 16)
    recurrent = [n for n in head if n.endswith("weight_hh_l0")]
    assert len(recurrent) == 3
    assert {head[name].shape for name in recurrent} == {(4 * 256, 256)}


@pytest.mark.slow
def test_speakers_are_learned_from_one_recording_each(finished):
    folder = finished[0] / "tasks" / "sid"
    for split, video in zip(("train", "valid", "test"), VIDEOS, strict=True):
        assert ids(folder, split) == {
            f"{speaker}/{video}/00001.wav" for speaker in SPEAKERS
        }
    lines = (
        finished[0]
        / "predict_on_VoxCeleb1_by_MiniSUPERB's_list/sid_public/predict.txt"
    ).read_text()
    assert len(lines.splitlines()) == len(SPEAKERS)
