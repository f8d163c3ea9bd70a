"""A store finds the nearest speakers and survives on disk; what was embedded
is never embedded again.
"""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.inference.speaker_models import load_model, save_model, voice, write
from unispeech_sb.atomic import temporary_path
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference import embedding_store as module
from unispeech_sb.inference.embedding_store import (
    EmbeddingStore,
    Gallery,
    ResumableExtractor,
    model_id,
)
from unispeech_sb.inference.speaker_verification import SpeakerEmbedding, cosine


def filled(count, size=16, model="test", seed=0):
    """A store of random embeddings, of any norm."""
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, size, generator=draw)
    vectors *= torch.rand(count, 1, generator=draw) + 0.1
    found = EmbeddingStore(model)
    for number, vector in enumerate(vectors):
        found.add(f"v{number}", SpeakerEmbedding(vector, 1.0 + number))
    return found


def test_what_was_added_is_there():
    store = filled(5)
    assert len(store) == 5
    assert store.names == ["v0", "v1", "v2", "v3", "v4"]
    assert "v3" in store
    assert "v5" not in store
    assert store["v3"].duration_s == 4.0
    store.add("v5", store["v3"])
    assert torch.equal(store["v5"].vector, store["v3"].vector)
    assert store.vectors.shape == (6, 16)
    with pytest.raises(KeyError):
        store["v6"]


@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_the_nearest_are_found(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    store, queries = filled(200), [filled(9, seed=1)[f"v{n}"] for n in "0458"]
    for query, matches in zip(
        queries, store.search(queries, top_k=7), strict=True
    ):
        scores = {name: cosine(query, store[name]) for name in store.names}
        best = sorted(scores, key=lambda name: -scores[name])[:7]
        assert [match.name for match in matches] == best
        assert [match.score for match in matches] == pytest.approx(
            [scores[name] for name in best], abs=1e-12
        )


def test_of_equal_embeddings_the_first_comes_first():
    draw = torch.Generator().manual_seed(1)
    for size in (7, 64, 250):
        store, vector = EmbeddingStore(), torch.randn(size, generator=draw)
        for number in range(101):
            other = torch.randn(size, generator=draw)
            chosen = vector if number % 3 else other
            store.add(f"{number}", SpeakerEmbedding(chosen, 1.0))
        query = SpeakerEmbedding(
            vector + 0.3 * torch.randn(size, generator=draw), 1.0
        )
        (matches,) = store.search([query], top_k=50)
        same = [str(number) for number in range(101) if number % 3]
        assert [match.name for match in matches] == same[:50]
        assert len({match.score for match in matches}) == 1


def test_embeddings_closer_than_float32_can_tell_are_ordered():
    draw = torch.Generator().manual_seed(2)
    mean, store = torch.randn(64, generator=draw), EmbeddingStore()
    for number in range(300):
        near = mean + 1e-6 * torch.randn(64, generator=draw)
        store.add(f"{number}", SpeakerEmbedding(near, 1.0))
    query = SpeakerEmbedding(mean + torch.randn(64, generator=draw), 1.0)
    scores = {name: cosine(query, store[name]) for name in store.names}
    best = sorted(scores, key=lambda name: -scores[name])
    (matches,) = store.search([query], top_k=20)
    assert [match.name for match in matches] == best[:20]
    assert scores[best[0]] - scores[best[99]] < 1e-5


def test_a_store_smaller_than_asked_gives_all():
    store = filled(3)
    (matches,) = store.search([store["v1"]], top_k=10)
    assert len(matches) == 3
    assert matches[0] == ("v1", 1.0)
    assert store.search([], top_k=3) == []


def test_a_hundred_thousand_speakers_are_searched():
    store = EmbeddingStore()
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(100_000, 32, generator=draw)
    names = [f"v{number}" for number in range(100_000)]
    store._extend(names, vectors, torch.ones(100_000))
    places = (0, 50_000, 99_999)
    queries = [SpeakerEmbedding(vectors[n] + 0.01, 1.0) for n in places]
    found = store.search(queries)
    assert [m[0].name for m in found] == ["v0", "v50000", "v99999"]


def test_adding_one_by_one_copies_no_others(monkeypatch):
    joined = []
    join = torch.cat
    monkeypatch.setattr(
        torch, "cat", lambda parts: joined.append(len(parts)) or join(parts)
    )
    store = filled(500)
    assert joined == []
    assert store.vectors.shape == (500, 16)
    assert joined == [500, 500]


def test_saving_and_loading_gives_the_same(tmp_path):
    store = filled(7, model="café")
    store.add("ü/\n\"'", store["v2"])
    store.save(tmp_path / "a.safetensors")
    found = EmbeddingStore.load(tmp_path / "a.safetensors")
    assert found.names == store.names
    assert found.model == "café"
    assert torch.equal(found.vectors, store.vectors)
    assert torch.equal(found.durations_s, store.durations_s)
    found.save(tmp_path / "b.safetensors")
    one, other = (
        (tmp_path / f"{name}.safetensors").read_bytes() for name in "ab"
    )
    assert one == other
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
    ]


def test_an_empty_store_is_saved_too(tmp_path):
    EmbeddingStore("m").save(tmp_path / "a.safetensors")
    assert len(EmbeddingStore.load(tmp_path / "a.safetensors")) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("vectors"),
        lambda tensors: tensors.update(vectors=torch.ones(2, 16)),
        lambda tensors: tensors.update(vectors=torch.ones(3)),
        lambda tensors: tensors.update(durations_s=torch.ones(2)),
        lambda tensors: tensors["vectors"].zero_(),
        lambda tensors: tensors["vectors"].fill_(torch.nan),
        lambda tensors: tensors["durations_s"].fill_(torch.inf),
    ],
)
def test_a_file_that_lacks_something_is_refused(change, tmp_path):
    path = tmp_path / "a.safetensors"
    filled(3).save(path)
    note, tensors = module.read_metadata(path), load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=note)
    with pytest.raises(ValueError, match=r"a\.safetensors: .*expected"):
        EmbeddingStore.load(path)


@pytest.mark.parametrize(
    "note",
    [
        None,
        {"voices": "["},
        {"voices": "[]"},
        {"voices": '{"format": "x", "model": "", "names": ["a"]}'},
        {"voices": f'{{"format": "{module.FORMAT}", "names": ["a"]}}'},
        {
            "voices": f'{{"format": "{module.FORMAT}", "model": "",'
            ' "names": [1]}'
        },
    ],
)
def test_another_file_is_refused(note, tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"vectors": torch.ones(1, 2), "durations_s": torch.ones(1)}
    save_file(tensors, path, metadata=note)
    with pytest.raises(ValueError, match="expected a file of speaker"):
        EmbeddingStore.load(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    filled(3).save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"a\.safetensors: "):
        EmbeddingStore.load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: "):
        EmbeddingStore.load(tmp_path / "none.safetensors")


def test_what_does_not_fit_is_refused():
    store = filled(3)
    one = store["v0"]
    for name, embedding, said in (
        ("v1", one, "a second 'v1'"),
        ("a", SpeakerEmbedding(torch.ones(15), 1.0), "size 16; got 15"),
        ("a", SpeakerEmbedding(torch.zeros(16), 1.0), "with a direction"),
        (
            "a",
            SpeakerEmbedding(torch.full((16,), torch.nan), 1.0),
            "with a direction",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            store.add(name, embedding)
        assert len(store) == 3
    with pytest.raises(ValueError, match="model 'test'; got 'other'"):
        store.update(filled(2, model="other"))
    with pytest.raises(ValueError, match="size 16; got 15"):
        store.search([SpeakerEmbedding(torch.ones(15), 1.0)])
    with pytest.raises(ValueError, match="top_k from 1 on; got 3 and 0"):
        store.search([one], top_k=0)
    with pytest.raises(ValueError, match="got 0 and 10"):
        EmbeddingStore().search([one])


def test_stores_are_joined_and_chosen_from():
    store, other = filled(3), EmbeddingStore("test")
    other.add("x", store["v1"])
    store.update(other)
    store.update(EmbeddingStore("test"))
    assert store.names == ["v0", "v1", "v2", "x"]
    chosen = store.select(["x", "v0"])
    assert chosen.names == ["x", "v0"]
    assert chosen.model == "test"
    assert torch.equal(chosen["x"].vector, store["v1"].vector)
    assert len(store.select([])) == 0


def test_a_search_holds_a_block_of_scores(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2000)
    store = filled(1000)
    shapes = []
    best = EmbeddingStore._best

    def watched(self, query, scores, top_k):
        shapes.append(scores._base.shape)
        return best(self, query, scores, top_k)

    monkeypatch.setattr(EmbeddingStore, "_best", watched)
    store.search([store[f"v{n}"] for n in range(10)])
    assert len(shapes) == 10
    assert max(shape.numel() for shape in shapes) <= 2000


def test_the_old_name_stays():
    assert Gallery is EmbeddingStore


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
