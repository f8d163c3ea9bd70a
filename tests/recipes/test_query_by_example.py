"""Query by example from recordings to the list of the corpus' scorer."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from recipes import query_by_example
from tests.dataio.corpora.quesst import write_quesst
from tests.recipes.conftest import kept_by_overwrite
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora.synthetic import synthetic_sentences
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.lobes.backbone import Backbone

SUPERB = "hparams/query_by_example_superb.yaml"


def run(root, data, output, *options, yaml="hparams/query_by_example.yaml"):
    """One run of the recipe in this process: its scores."""
    return query_by_example.main(
        [
            str(root / yaml), f"--data_folder={data}", "--model=tiny",
            f"--output_folder={output}", "--device=cpu", *options,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Lists of sentences, and of queries that are pieces of them: a random
    model finds what is the same."""
    folder = tmp_path_factory.mktemp("spoken")
    sentences = synthetic_sentences(folder, (8, 0, 0), (8, 0, 0))
    queries, truth = ["id,path,split,start,stop"], ["query,document"]
    documents = ["id,path"]
    for number, record in enumerate(sentences):
        split = ("valid", "test")[number % 2]
        wav, name = record["wav"], f"q{number}"
        documents.append(f"d{number},{wav}")
        queries.append(f"{name},{wav},{split},0.4,0.9")
        truth.append(f"{name},d{number}")
    for name, lines in (
        ("queries", queries), ("documents", documents), ("truth", truth)
    ):  # fmt: skip
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def found(root, spoken, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("found")
    return output, run(root, spoken, output)


def test_overwrite_would_remove_all_that_the_run_left(found):
    assert kept_by_overwrite(found[0]) == {found[0] / "experiment.json"}


def test_what_is_a_piece_of_a_recording_is_found_there(found):
    """By chance it is in one of eight recordings, and MTWV is 0."""
    output, scores = found
    assert scores["MTWV"] > 0.7
    assert json.loads((output / "scores.json").read_text()) == scores
    layers = json.loads((output / "layers.json").read_text())
    assert layers.keys() == {"0", "1", "2"}
    best = max(layers.values())
    first = next(n for n, value in layers.items() if value == best)
    assert scores["layer"] == int(first)


def test_the_list_has_every_trial_of_the_test(found):
    root = ElementTree.parse(found[0] / "benchmark.stdlist.xml").getroot()
    assert [q.get("termid") for q in root] == ["q1", "q3", "q5", "q7"]
    for query in root:
        scores = {t.get("file"): float(t.get("score")) for t in query}
        assert len(scores) == 8
        assert sum(scores.values()) == pytest.approx(0, abs=1e-3)
        assert max(scores, key=scores.get) == f"d{query.get('termid')[1:]}"


def test_a_finished_run_is_not_done_again(root, spoken, found, monkeypatch):
    monkeypatch.delattr(query_by_example, "run")
    assert run(root, spoken, found[0]) == found[1]
    assert not (found[0] / "save/states").exists()


def test_a_killed_run_computes_nothing_twice(
    root, spoken, found, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(query_by_example, "BLOCK_FRAMES", 200)
        patch.delattr(query_by_example, "normalized_scores")
        with pytest.raises(NameError):
            run(root, spoken, tmp_path)
    done = {p.name for p in (tmp_path / "save/states/valid").iterdir()}
    assert done == {f"{n:06d}.npy" for n in range(4)}
    left = tmp_path / "save/states/documents/000003.npy"
    left.unlink()
    computed = []
    states = query_by_example.StateFiles._states

    def count(self, wavs):
        computed.append(len(wavs))
        return states(self, wavs)

    monkeypatch.setattr(query_by_example.StateFiles, "_states", count)
    assert run(root, spoken, tmp_path) == pytest.approx(found[1], abs=1e-3)
    assert sum(computed) == 1 + 4  # a document, the queries of the test


def test_states_in_a_batch_are_those_of_recordings_alone(
    root, spoken, tmp_path
):
    folder = tmp_path / "one"
    run(
        root, spoken, folder, "--keep_states=True", "--layer=2", "--seed=3",
        "--gain_db=-6.0", "--num_workers=0",
    )  # fmt: skip
    files = folder / "save/states/documents"
    records = read_manifest(folder / "manifests/documents/test.csv")
    torch.manual_seed(3)
    backbone = Backbone.from_preset("tiny", freeze=True).eval()
    shapes = set()
    for number, record in enumerate(records):
        (kept,) = np.load(files / f"{number:06d}.npy")
        wav = 10 ** (-6 / 20) * read_audio(record["wav"])
        with torch.no_grad():
            state = list(backbone.iter_states(wav[None]))[2][0]
        np.testing.assert_allclose(kept, state, rtol=1e-4, atol=1e-5)
        shapes.add(kept.shape)
    assert len(shapes) > 4
    assert not (folder / "layers.json").exists()


def test_superb_runs_on_quesst(root, tmp_path):
    """All languages count: of four queries two are English, so 1/2 is most."""
    random = np.random.default_rng(5)
    documents = 0.1 * random.standard_normal((4, 24000)).cumsum(1) / 40
    queries = documents[:, 8000:12000]
    data = write_quesst(tmp_path / "quesst14Database", documents, queries)
    output = tmp_path / "out"
    scores = run(root, data, output, yaml=SUPERB)
    assert 0.0 <= scores["MTWV"] <= 0.5
    root = ElementTree.parse(output / "benchmark.stdlist.xml").getroot()
    assert [[t.get("file") for t in query] for query in root] == [
        ["quesst14_00002", "quesst14_00004"]
    ] * 2


def test_a_query_under_5_frames_scores_0(root, spoken, tmp_path):
    for name in ("documents", "truth"):
        text = (spoken / f"{name}.csv").read_text()
        (tmp_path / f"{name}.csv").write_text(text)
    text = (spoken / "queries.csv").read_text()
    (tmp_path / "queries.csv").write_text(text.replace("0.4,0.9", "0.4,0.5", 1))
    run(root, tmp_path, tmp_path / "out", "--keep_states=True")
    with np.load(tmp_path / "out/save/scores_valid_00.npz") as arrays:
        rows = arrays["scores"].any(1)
    assert rows.tolist() == [False, True, True, True]


def test_wrong_requests_take_one_sentence(root, spoken, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="layer: expected 0 to 2, .* got 3"):
        run(root, spoken, tmp_path / "a", "--layer=3")
    monkeypatch.setattr(
        query_by_example.shutil,
        "disk_usage",
        lambda _: type("", (), {"free": 9}),
    )
    with pytest.raises(ValueError, match="GB of free disk for hidden states"):
        run(root, spoken, tmp_path / "b")
    (tmp_path / "queries.csv").write_text(
        (spoken / "queries.csv").read_text().replace(",test,", ",train,")
    )
    (tmp_path / "documents.csv").write_text(
        (spoken / "documents.csv").read_text()
    )
    with pytest.raises(ValueError, match="expected queries of valid and test"):
        run(root, tmp_path, tmp_path / "c")
