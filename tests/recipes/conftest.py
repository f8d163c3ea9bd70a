"""Small spoken corpora, shared by the tests."""

import csv
import json

import pytest
import soundfile

from tests.huggingface import save_folder, tiny_model
from tests.recipes.phones import spoken_texts, write_librispeech
from unispeech_sb import output_folder
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

WORDS = ("yes", "no", "seven")
TINY = [
    "--model=tiny",
    "--num_classes=3",
    "--noprogressbar",
    "--device=cpu",
]


def write_corpus(folder):
    """Speaks each word six times; the validation clips are among them."""
    rows = []
    for index in range(6):
        voice = Voice(variant=f"m{index + 1}", pitch=40 + 5 * index)
        for word in WORDS:
            path = folder / f"{word}_{index}.wav"
            speech = speak(word, voice)
            soundfile.write(path, speech.samples.numpy(), SAMPLE_RATE)
            splits = ("train", "valid") if index < 3 else ("train",)
            rows += [(f"{s}_{path.stem}", path.name, s, word) for s in splits]
    with open(folder / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("id", "path", "split", "label"), *rows])
    return folder


def assert_refused_run_stays(folder, refused):
    """A run that is refused, ``--overwrite`` or not, leaves an earlier one."""

    def times():
        files = [p for p in folder.rglob("*.*") if p.name != "log.txt"]
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    with pytest.raises(ValueError, match="--num_classes="):
        refused()
    assert before == times()


def kept_by_overwrite(output):
    """What a run has left that --overwrite would not remove."""
    record = json.loads((output / "experiment.json").read_text())
    removed = {
        path
        for folder, names in (
            (output, (*output_folder._LEFT, *record["scripts"])),
            (output / "save", output_folder._SAVED),
            (output / "manifests", output_folder._PREPARED),
        )
        for name in names
        for path in folder.glob(name)
    }
    places = {output / name for name in ("save", "manifests")}
    found = {path for place in places for path in place.glob("*")}
    return {*output.iterdir(), *found} - removed - places


@pytest.fixture(params=["tiny", "wav2vec2", "hubert", "wavlm"])
def any_family(request, tmp_path):
    """A value of ``--model``: a preset, and a folder of each neighbour."""
    if request.param == "tiny":
        return request.param
    return str(save_folder(tiny_model(request.param), tmp_path / "hf"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def waves():
    """Texts whose phones are known, spoken."""
    return spoken_texts()


@pytest.fixture(scope="session")
def librispeech(waves, tmp_path_factory):
    """The same as a LibriSpeech tree with a lexicon; not to be changed."""
    return write_librispeech(tmp_path_factory.mktemp("LibriSpeech"), waves)
