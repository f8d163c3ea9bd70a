"""What was embedded is never embedded again."""

import pytest
import torch

from tests.inference.speaker_models import load_model, save_model, voice, write
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference import collecting
from unispeech_sb.inference.collecting import (
    VoiceStore,
    collect_voices,
    model_id,
)
from unispeech_sb.inference.gallery import Gallery
from unispeech_sb.inference.voices import Voice


class Counting:
    """Stands for a model: a file's voice is its place in the alphabet."""

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
                yield path, Voice(torch.tensor([1.0, ord(path[0])]), 2.0)


def files(letters):
    """Names and paths of one letter."""
    return {letter.upper(): letter for letter in letters}


def test_all_files_are_embedded_once_and_written_in_order(tmp_path):
    path, model = tmp_path / "new" / "a.safetensors", Counting()
    store = VoiceStore(path, "m")
    assert collect_voices(model, files("cab"), store, 9.0, id) == {}
    assert store.finish("ABC").names == ["A", "B", "C"]
    found = Gallery.load(path)
    assert found.names == ["A", "B", "C"]
    assert found["B"].vector.tolist() == [1.0, 98.0]
    assert model.seen == ["c", "a", "b"]
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("part_s", [-1.0, 1e9])
def test_an_interrupted_run_goes_on(part_s, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "PART_S", part_s)
    path = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        collect_voices(
            Counting("d"), files("abcdef"), VoiceStore(path, "m"), 9.0, id
        )
    assert not path.exists()
    model, store = Counting(), VoiceStore(path, "m")
    assert sorted(store.gallery.names) == ["A", "B", "C"]
    collect_voices(model, files("abcdef"), store, 9.0, id)
    assert model.seen == ["d", "e", "f"]
    store.finish("ABCDEF")
    assert Gallery.load(path).names == list("ABCDEF")
    assert not store.folder.exists()


def test_a_killed_run_loses_what_is_in_no_part(tmp_path, monkeypatch):
    path, part = tmp_path / "a.safetensors", Voice(torch.ones(2), 1.0)
    store = VoiceStore(path, "m")
    store.add("A", part)
    store.flush()
    store.add("B", part)  # never flushed
    half = store.folder / "000001.safetensors.tmp"
    half.write_bytes(b"half a par")
    assert VoiceStore(path, "m").gallery.names == ["A"]


def test_parts_of_several_runs_add_up(tmp_path):
    path, one = tmp_path / "a.safetensors", Voice(torch.ones(2), 1.0)
    for name in "ABC":
        store = VoiceStore(path, "m")
        store.add(name, one)
        store.flush()
    assert VoiceStore(path, "m").gallery.names == ["A", "B", "C"]


def test_a_run_that_was_killed_while_cleaning_up_is_no_trouble(tmp_path):
    path, one = tmp_path / "a.safetensors", Voice(torch.ones(2), 1.0)
    store = VoiceStore(path, "m")
    store.add("A", one)
    store.flush()
    store.gallery.save(path)
    again = VoiceStore(path, "m")
    assert again.finish("A").names == ["A"]
    assert not again.folder.exists()


def test_voices_of_the_file_are_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    store = VoiceStore(path, "m")
    collect_voices(Counting(), files("xy"), store, 9.0, id)
    store.finish("XY")
    model, store = Counting(), VoiceStore(path, "m")
    collect_voices(model, files("axb"), store, 9.0, id)
    assert model.seen == ["a", "b"]
    assert store.finish("AXB").names == ["A", "X", "B", "Y"]


def test_errors_are_given_back_and_tried_again(tmp_path):
    path, model = tmp_path / "a.safetensors", Counting()
    for _ in range(2):
        store = VoiceStore(path, "m")
        errors = collect_voices(model, {"Bad": "bad", "A": "a"}, store, 9.0, id)
        assert str(errors.pop("Bad")) == "bad: no good"
        assert not errors
        store.finish(["Bad", "A"])
    assert model.seen == ["bad", "a", "bad"]
    assert Gallery.load(path).names == ["A"]


def test_nothing_is_written_where_there_is_nothing(tmp_path):
    store = VoiceStore(tmp_path / "a.safetensors", "m")
    errors = collect_voices(Counting(), {"Bad": "bad"}, store, 9.0, id)
    assert list(errors) == ["Bad"]
    assert len(store.finish(["Bad"])) == 0
    assert list(tmp_path.iterdir()) == []


def test_models_are_not_mixed(tmp_path):
    path = tmp_path / "a.safetensors"
    store = VoiceStore(path, "one")
    collect_voices(Counting(), files("a"), store, 9.0, id)
    with pytest.raises(ValueError, match=r"000000\.safetensors: .*got one"):
        VoiceStore(path, "other")
    store.finish("A")
    with pytest.raises(ValueError, match=r"\(other\), to add .* got one"):
        VoiceStore(path, "other")
    path.write_bytes(b"no file of voices")
    with pytest.raises(ValueError, match=r"a\.safetensors: expected"):
        VoiceStore(path, "one")


def test_a_model_is_what_its_embeddings_depend_on(tmp_path):
    path = save_model(tmp_path / "m")
    known = model_id(path, 30.0)
    (path / "README.md").write_text("Another text.")
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
    store, heard = VoiceStore(tmp_path / "v.safetensors", "m"), []
    collect_voices(model, paths, store, 60.0, heard.append)
    found = store.finish(paths)
    for name, file in paths.items():
        torch.testing.assert_close(
            found[name].vector, model.embed(file).vector, rtol=1e-5, atol=1e-5
        )
    assert sum(heard) == pytest.approx(6.0)
