"""Galleries find the nearest voices, and survive on disk."""

import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from unispeech_sb.inference import gallery as module
from unispeech_sb.inference.gallery import Gallery
from unispeech_sb.inference.voices import Voice, cosine


def filled(count, size=16, model="test", seed=0):
    """A gallery of random voices, of any norm."""
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, size, generator=draw)
    vectors *= torch.rand(count, 1, generator=draw) + 0.1
    found = Gallery(model)
    for number, vector in enumerate(vectors):
        found.add(f"v{number}", Voice(vector, 1.0 + number))
    return found


def test_what_was_added_is_there():
    gallery = filled(5)
    assert len(gallery) == 5
    assert gallery.names == ["v0", "v1", "v2", "v3", "v4"]
    assert "v3" in gallery
    assert "v5" not in gallery
    assert gallery["v3"].duration_s == 4.0
    gallery.add("v5", gallery["v3"])
    assert torch.equal(gallery["v5"].vector, gallery["v3"].vector)
    assert gallery.vectors.shape == (6, 16)
    with pytest.raises(KeyError):
        gallery["v6"]


@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_the_nearest_are_found(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    gallery, queries = filled(200), [filled(9, seed=1)[f"v{n}"] for n in "0458"]
    for query, matches in zip(
        queries, gallery.search(queries, top_k=7), strict=True
    ):
        scores = {name: cosine(query, gallery[name]) for name in gallery.names}
        best = sorted(scores, key=lambda name: -scores[name])[:7]
        assert [match.name for match in matches] == best
        assert [match.score for match in matches] == pytest.approx(
            [scores[name] for name in best], abs=1e-12
        )


def test_of_equal_voices_the_first_comes_first():
    draw = torch.Generator().manual_seed(1)
    for size in (7, 64, 250):
        gallery, vector = Gallery(), torch.randn(size, generator=draw)
        for number in range(101):
            other = torch.randn(size, generator=draw)
            chosen = vector if number % 3 else other
            gallery.add(f"{number}", Voice(chosen, 1.0))
        query = Voice(vector + 0.3 * torch.randn(size, generator=draw), 1.0)
        (matches,) = gallery.search([query], top_k=50)
        same = [str(number) for number in range(101) if number % 3]
        assert [match.name for match in matches] == same[:50]
        assert len({match.score for match in matches}) == 1


def test_voices_closer_than_float32_can_tell_are_ordered():
    draw = torch.Generator().manual_seed(2)
    mean, gallery = torch.randn(64, generator=draw), Gallery()
    for number in range(300):
        near = mean + 1e-6 * torch.randn(64, generator=draw)
        gallery.add(f"{number}", Voice(near, 1.0))
    query = Voice(mean + torch.randn(64, generator=draw), 1.0)
    scores = {name: cosine(query, gallery[name]) for name in gallery.names}
    best = sorted(scores, key=lambda name: -scores[name])
    (matches,) = gallery.search([query], top_k=20)
    assert [match.name for match in matches] == best[:20]
    assert scores[best[0]] - scores[best[99]] < 1e-5


def test_a_gallery_smaller_than_asked_gives_all():
    gallery = filled(3)
    (matches,) = gallery.search([gallery["v1"]], top_k=10)
    assert len(matches) == 3
    assert matches[0] == ("v1", 1.0)
    assert gallery.search([], top_k=3) == []


def test_a_hundred_thousand_voices_are_searched_quickly():
    gallery = Gallery()
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(100_000, 256, generator=draw)
    names = [f"v{number}" for number in range(100_000)]
    gallery._extend(names, vectors, torch.ones(100_000))
    queries = [Voice(vectors[n] + 0.1, 1.0) for n in (0, 50_000, 99_999)]
    gallery.search(queries[:1])
    start = time.perf_counter()
    found = gallery.search(queries)
    assert time.perf_counter() - start < 3
    assert [m[0].name for m in found] == ["v0", "v50000", "v99999"]


def test_adding_one_by_one_copies_no_others(monkeypatch):
    joined = []
    join = torch.cat
    monkeypatch.setattr(
        torch, "cat", lambda parts: joined.append(len(parts)) or join(parts)
    )
    gallery = filled(500)
    assert joined == []
    assert gallery.vectors.shape == (500, 16)
    assert joined == [500, 500]


def test_saving_and_loading_gives_the_same(tmp_path):
    gallery = filled(7, model="café")
    gallery.add("ü/\n\"'", gallery["v2"])
    gallery.save(tmp_path / "a.safetensors")
    found = Gallery.load(tmp_path / "a.safetensors")
    assert found.names == gallery.names
    assert found.model == "café"
    assert torch.equal(found.vectors, gallery.vectors)
    assert torch.equal(found.durations_s, gallery.durations_s)
    found.save(tmp_path / "b.safetensors")
    one, other = (
        (tmp_path / f"{name}.safetensors").read_bytes() for name in "ab"
    )
    assert one == other
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
    ]


def test_an_empty_gallery_is_saved_too(tmp_path):
    Gallery("m").save(tmp_path / "a.safetensors")
    assert len(Gallery.load(tmp_path / "a.safetensors")) == 0


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
        Gallery.load(path)


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
    with pytest.raises(ValueError, match="expected a file of voices"):
        Gallery.load(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    filled(3).save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"a\.safetensors: "):
        Gallery.load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: "):
        Gallery.load(tmp_path / "none.safetensors")


def test_what_does_not_fit_is_refused():
    gallery = filled(3)
    one = gallery["v0"]
    for name, voice, said in (
        ("v1", one, "a second 'v1'"),
        ("a", Voice(torch.ones(15), 1.0), "size 16; got 15"),
        ("a", Voice(torch.zeros(16), 1.0), "with a direction"),
        ("a", Voice(torch.full((16,), torch.nan), 1.0), "with a direction"),
    ):
        with pytest.raises(ValueError, match=said):
            gallery.add(name, voice)
        assert len(gallery) == 3
    with pytest.raises(ValueError, match="model 'test'; got 'other'"):
        gallery.update(filled(2, model="other"))
    with pytest.raises(ValueError, match="size 16; got 15"):
        gallery.search([Voice(torch.ones(15), 1.0)])
    with pytest.raises(ValueError, match="top_k from 1 on; got 3 and 0"):
        gallery.search([one], top_k=0)
    with pytest.raises(ValueError, match="got 0 and 10"):
        Gallery().search([one])


def test_galleries_are_joined_and_chosen_from():
    gallery, other = filled(3), Gallery("test")
    other.add("x", gallery["v1"])
    gallery.update(other)
    gallery.update(Gallery("test"))
    assert gallery.names == ["v0", "v1", "v2", "x"]
    chosen = gallery.select(["x", "v0"])
    assert chosen.names == ["x", "v0"]
    assert chosen.model == "test"
    assert torch.equal(chosen["x"].vector, gallery["v1"].vector)
    assert len(gallery.select([])) == 0


def test_a_search_holds_a_block_of_scores(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2000)
    gallery = filled(1000)
    shapes = []
    best = Gallery._best

    def watched(self, query, scores, top_k):
        shapes.append(scores._base.shape)
        return best(self, query, scores, top_k)

    monkeypatch.setattr(Gallery, "_best", watched)
    gallery.search([gallery[f"v{n}"] for n in range(10)])
    assert len(shapes) == 10
    assert max(shape.numel() for shape in shapes) <= 2000
