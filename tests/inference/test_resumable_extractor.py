"""What was embedded is never embedded again, however a run ended."""

import os
import subprocess
import sys

import pytest
import torch

from tests.inference.speaker_models import load_model, save_model, voice, write
from unispeech_sb.atomic import temporary_path
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference import embedding_store as module
from unispeech_sb.inference.embedding_store import (
    EmbeddingStore,
    ResumableExtractor,
    model_id,
)
from unispeech_sb.inference.speaker_verification import SpeakerEmbedding


class Counting:
    """Stands for a model: an embedding is a letter's place in the alphabet."""

    def __init__(self, stop_at=None):
        self.stop_at, self.seen = stop_at, []

    def embed_files(self, paths, batch_seconds, on_progress):
        """Embeds, or dies on the way."""
        for path in paths:
            if path == self.stop_at:
                raise KeyboardInterrupt
            self.seen.append(path)
            on_progress(1.0)
            if path == "bad":
                yield path, AudioError("bad: no good")
            else:
                yield (
                    path,
                    SpeakerEmbedding(torch.tensor([1.0, ord(path[0])]), 2.0),
                )


def files(letters):
    """Names and paths of one letter."""
    return {letter.upper(): letter for letter in letters}


def test_all_files_are_embedded_once_and_written_in_order(tmp_path):
    path, model = tmp_path / "new" / "a.safetensors", Counting()
    extractor = ResumableExtractor(path, "m")
    assert extractor.extract(model, files("cab"), 9.0, id) == {}
    assert extractor.finish("ABC").names == ["A", "B", "C"]
    found = EmbeddingStore.load(path)
    assert found.names == ["A", "B", "C"]
    assert found["B"].vector.tolist() == [1.0, 98.0]
    assert model.seen == ["c", "a", "b"]
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("part_s", [-1.0, 1e9])
def test_an_interrupted_run_goes_on(part_s, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_S", part_s)
    path = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ResumableExtractor(path, "m").extract(
            Counting("d"), files("abcdef"), 9.0, id
        )
    assert not path.exists()
    model, extractor = Counting(), ResumableExtractor(path, "m")
    assert sorted(extractor.store.names) == ["A", "B", "C"]
    extractor.extract(model, files("abcdef"), 9.0, id)
    assert model.seen == ["d", "e", "f"]
    extractor.finish("ABCDEF")
    assert EmbeddingStore.load(path).names == list("ABCDEF")
    assert not extractor.folder.exists()


def test_a_killed_run_loses_what_is_in_no_part(tmp_path, monkeypatch):
    path, part = (
        tmp_path / "a.safetensors",
        SpeakerEmbedding(torch.ones(2), 1.0),
    )
    extractor = ResumableExtractor(path, "m")
    extractor.add("A", part)
    extractor.flush()
    extractor.add("B", part)  # never flushed
    half = extractor.folder / "000001.safetensors.tmp"
    half.write_bytes(b"half a par")
    assert ResumableExtractor(path, "m").store.names == ["A"]


def test_parts_of_several_runs_add_up(tmp_path):
    path, one = tmp_path / "a.safetensors", SpeakerEmbedding(torch.ones(2), 1.0)
    for name in "ABC":
        extractor = ResumableExtractor(path, "m")
        extractor.add(name, one)
        extractor.flush()
    (extractor.folder / "._000000.safetensors").write_bytes(b"of macOS")
    assert ResumableExtractor(path, "m").store.names == ["A", "B", "C"]


def test_a_run_that_was_killed_while_cleaning_up_is_no_trouble(tmp_path):
    path, one = tmp_path / "a.safetensors", SpeakerEmbedding(torch.ones(2), 1.0)
    extractor = ResumableExtractor(path, "m")
    extractor.add("A", one)
    extractor.flush()
    extractor.store.save(path)
    again = ResumableExtractor(path, "m")
    assert again.finish("A").names == ["A"]
    assert not again.folder.exists()


def test_embeddings_of_the_file_are_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    extractor = ResumableExtractor(path, "m")
    extractor.extract(Counting(), files("xy"), 9.0, id)
    extractor.finish("XY")
    model, extractor = Counting(), ResumableExtractor(path, "m")
    extractor.extract(model, files("axb"), 9.0, id)
    assert model.seen == ["a", "b"]
    assert extractor.finish("AXB").names == ["A", "X", "B", "Y"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_recording_that_was_modified_is_embedded_again(
    whole, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.safetensors"
    for name in "xy":
        (tmp_path / name).write_bytes(b"old")
        os.utime(tmp_path / name, (1, 1))
    extractor = ResumableExtractor(path, "m")
    extractor.extract(Counting(), files("xy"), 9.0, id)
    extractor.finish("XY") if whole else extractor.close()
    os.utime(tmp_path / "y", (2**31, 2**31))
    (tmp_path / "x").unlink()  # and what is gone is kept
    model, extractor = Counting(), ResumableExtractor(path, "m")
    assert extractor.missing(files("xy")) == {"y": "Y"}
    extractor.extract(model, files("xy"), 9.0, id)
    extractor.close()  # as if killed: the new one is in a part of its own
    extractor = ResumableExtractor(path, "m")
    assert model.seen == ["y"] and extractor.store.names == ["X", "Y"]


def test_errors_are_given_back_and_tried_again(tmp_path):
    path, model = tmp_path / "a.safetensors", Counting()
    for _ in range(2):
        extractor = ResumableExtractor(path, "m")
        errors = extractor.extract(model, {"Bad": "bad", "A": "a"}, 9.0, id)
        assert str(errors.pop("Bad")) == "bad: no good"
        assert not errors
        extractor.finish(["Bad", "A"])
    assert model.seen == ["bad", "a", "bad"]
    assert EmbeddingStore.load(path).names == ["A"]


def test_nothing_is_written_where_there_is_nothing(tmp_path):
    extractor = ResumableExtractor(tmp_path / "a.safetensors", "m")
    errors = extractor.extract(Counting(), {"Bad": "bad"}, 9.0, id)
    assert list(errors) == ["Bad"]
    assert len(extractor.finish(["Bad"])) == 0
    assert list(tmp_path.iterdir()) == []


def test_models_are_not_mixed(tmp_path):
    path = tmp_path / "a.safetensors"
    extractor = ResumableExtractor(path, "one")
    extractor.extract(Counting(), files("a"), 9.0, id)
    with pytest.raises(ValueError, match=r"000000\.safetensors: .*got one"):
        ResumableExtractor(path, "other")
    extractor.finish("A")
    with pytest.raises(ValueError, match=r"\(other\), to add .* got one"):
        ResumableExtractor(path, "other")
    path.write_bytes(b"no file of embeddings")
    with pytest.raises(ValueError, match=r"a\.safetensors: expected"):
        ResumableExtractor(path, "one")


def test_a_model_is_what_its_embeddings_depend_on(tmp_path):
    path = save_model(tmp_path / "m")
    known = model_id(path, 30.0)
    (path / "README.md").write_text("Another text.")
    (path / "._head.ckpt").write_bytes(b"of macOS")
    (path / "calibration.ckpt").unlink()
    assert model_id(path, 30.0) == known
    assert model_id(path.rename(tmp_path / "moved"), 30.0) == known
    path = tmp_path / "moved"
    assert model_id(path, 20.0) != known
    content = (path / "head.ckpt").read_bytes()
    (path / "head.ckpt").write_bytes(content[:-1] + b"x")
    assert model_id(path, 30.0) != known
    (path / "head.ckpt").write_bytes(content)
    assert model_id(path, 30.0) == known
    with open(path / "hyperparams.yaml", "a") as file:
        file.write("# changed\n")
    assert model_id(path, 30.0) != known


def test_a_real_model_gives_what_embed_gives(tmp_path):
    path = save_model(tmp_path / "m")
    model = load_model(path, window_s=2.0)
    paths = {
        f"{n}": write(tmp_path / f"{n}.wav", voice(n, 1.0 + n))
        for n in range(3)
    }
    extractor, progress = (
        ResumableExtractor(tmp_path / "v.safetensors", "m"),
        [],
    )
    extractor.extract(model, paths, 60.0, progress.append)
    found = extractor.finish(paths)
    for name, file in paths.items():
        torch.testing.assert_close(
            found[name].vector, model.embed(file).vector, rtol=1e-5, atol=1e-5
        )
    assert sum(progress) == pytest.approx(6.0)


def test_a_second_process_is_refused_and_nothing_is_lost(tmp_path):
    path, one = tmp_path / "a.safetensors", SpeakerEmbedding(torch.ones(2), 1.0)
    script = (  # without torch, to be quick
        "import sys\n"
        "from unispeech_sb.atomic import OneWriter\n"
        "OneWriter(sys.argv[1]).acquire()\n"
    )
    command = [sys.executable, "-c", script, path]
    with ResumableExtractor(path, "m") as extractor:
        extractor.add("A", one)
        second = subprocess.run(command, capture_output=True, text=True)
        assert f"{path}: being written by process {os.getpid()}" in (
            second.stderr
        )
        extractor.finish("A")
        assert not list(tmp_path.glob(".*"))
    subprocess.run(command, check=True)


def test_a_part_that_was_not_finished_is_removed(tmp_path):
    path = tmp_path / "a.safetensors"
    extractor = ResumableExtractor(path, "m")
    extractor.add("A", SpeakerEmbedding(torch.ones(2), 1.0))
    extractor.flush()
    (half,) = extractor.folder.iterdir()
    child = subprocess.Popen(["true"])
    child.wait()
    left = temporary_path(half).name.replace(
        f".{os.getpid()}.", f".{child.pid}."
    )
    elsewhere = extractor.folder / f".00000000{left[9:]}"  # another machine's
    for file in (extractor.folder / left, elsewhere):
        file.write_bytes(b"half a par")
    assert ResumableExtractor(path, "m").store.names == ["A"]
    assert set(extractor.folder.iterdir()) == {half, elsewhere}
