"""The table of corpora: a folder is known by its layout, or named."""

import re
from itertools import chain

import pytest

from unispeech_sb.dataio.corpora import CORPORA, find_corpus, read_corpus
from unispeech_sb.errors import explain

TASKS = {task for corpus in CORPORA.values() for task in corpus.readers}


def read(folder, **options):
    """IDs of the corpus of a folder, for speech recognition."""
    hparams = {"data_folder": folder, "synthetic": False, "subsets": None}
    return [r["ID"] for r in read_corpus("asr", {**hparams, **options})]


@pytest.fixture
def tree(tmp_path):
    """A LibriSpeech tree of one recording, with a table beside it."""
    chapter = tmp_path / "libri" / "train-mini" / "19" / "1"
    chapter.mkdir(parents=True)
    (chapter / "19-1-0000.flac").touch()
    (chapter / "19-1.trans.txt").write_text("19-1-0000 SO\n")
    (tmp_path / "libri" / "manifest.csv").write_text("id,path,split\n")
    return tmp_path / "libri"


def test_a_librispeech_tree_is_read_even_beside_a_manifest(tree):
    assert read(tree) == read(tree, corpus="auto") == ["19-1-0000"]
    assert read(tree / "manifest.csv") == []
    with pytest.raises(ValueError, match="train-other"):
        read(tree, subsets=["train-other"])


def test_a_named_corpus_is_read_whatever_else_is_there(tree):
    assert read(tree, corpus="csv") == []
    with pytest.raises(ValueError, match="manifest.csv: there is no such tab"):
        read(tree / "train-mini", corpus="csv")
    message = "corpus: expected auto, .*librispeech.*; got 'timit'"
    with pytest.raises(ValueError, match=message):
        read(tree, corpus="timit")
    with pytest.raises(ValueError, match="got 'voxceleb'"):
        read(tree, corpus="voxceleb")


def test_a_language_of_common_voice_is_read(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").touch()
    for subset in ("train", "dev", "test"):
        text = "client_id\tpath\tsentence\nann\ta.mp3\tSo.\n"
        (tmp_path / f"{subset}.tsv").write_text(text)
    assert read(tmp_path, subsets=["dev"]) == ["a"]


def test_a_table_is_read(tmp_path):
    (tmp_path / "a.wav").touch()
    text = "id,path,split,wrd\nu1,a.wav,train,so\n"
    (tmp_path / "manifest.csv").write_text(text)
    assert read(tmp_path) == ["u1"]


def test_sentences_are_spoken_into_the_folder(tmp_path):
    options = {"synthetic": True, "synthetic_sentences": (1, 0, 0)}
    options |= {"synthetic_voices": (1, 0, 0), "seed": 0}
    assert read(tmp_path, **options) == ["train_v000_0000"]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_is_no_corpus_is_told_all_layouts_of_the_task(task, tmp_path):
    known = [n for n, corpus in CORPORA.items() if task in corpus.readers]
    with pytest.raises(ValueError, match="nowhere: expected .*nothing\n") as e:
        read_corpus(task, {}, tmp_path / "nowhere")
    for name in set(known) - {"synthetic"}:
        assert f"\n  - {CORPORA[name].layout} ({name})" in str(e.value)
    assert max(map(len, explain(e.value).splitlines())) < 200
    if not {"recordings", "rttm"} & set(known):  # which take any folder
        with pytest.raises(ValueError, match="expected .*it is none of them\n"):
            read_corpus(task, {}, tmp_path)
        assert find_corpus(task, {}, tmp_path) is None


def test_every_row_has_a_reader_that_someone_asks_for(root):
    assert all(corpus.readers for corpus in CORPORA.values())
    places = [
        (root / part).rglob("*.py") for part in ("recipes", "unispeech_sb")
    ]
    texts = [path.read_text() for path in chain.from_iterable(places)]
    asked = re.findall(r'\b(?:read|find)_corpus\(\s*"(\w+)"', "".join(texts))
    assert TASKS == set(asked) and len(TASKS) >= 8


def test_a_name_that_is_none_shows_the_names():
    with pytest.raises(ValueError, match="librispeech, common_voice, .*'list'"):
        find_corpus("asr", {"corpus": "list"})


def test_keywords_are_a_table_where_there_is_one(tmp_path):
    for word in ("yes", "_background_noise_"):
        (tmp_path / word).mkdir()
    assert find_corpus("keyword_spotting", {}, tmp_path) == "speech_commands"
    (tmp_path / "manifest.csv").touch()
    assert find_corpus("keyword_spotting", {}, tmp_path) == "csv"


def test_voxceleb_is_read_for_the_task(tmp_path):
    video = tmp_path / "id10270" / "video"
    video.mkdir(parents=True)
    (video / "00001.wav").touch()
    assert find_corpus("speaker_verification", {}, tmp_path) == "voxceleb"
    (record,) = read_corpus("single_speaker", {}, tmp_path)
    assert record["spk_id"] == "id10270"
    with pytest.raises(ValueError, match="iden_split.txt"):
        list(read_corpus("speaker_identification", {}, tmp_path))


@pytest.mark.real_data
def test_real_single_speakers_are_read(data_folder):
    found = list(read_corpus("single_speaker", {}, data_folder / "libri248"))
    assert len(found) == len({record["spk_id"] for record in found}) == 200
