"""A store finds the nearest speakers and survives on disk."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from unispeech_sb.inference import embedding_store as module
from unispeech_sb.inference.embedding_store import EmbeddingStore, Gallery
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
