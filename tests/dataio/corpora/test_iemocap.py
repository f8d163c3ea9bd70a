"""IEMOCAP in a miniature of its layout, and SUPERB's folds."""

import json
from collections import Counter

import pytest

from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.iemocap import iemocap, split_fold

LABELS = ["neu", "hap", "ang", "sad", "exc", "fru", "xxx", "sur"]
EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

{lines}
"""
LINE = """\
[6.2901 - 8.2357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()
"""


def write_iemocap(folder, make, labels=LABELS, dialogs=("impro01",)):
    """Each label once in each dialog, spoken by women and men in turn."""
    for session in range(1, 6):
        root = folder / f"Session{session}"
        (root / "dialog" / "EmoEvaluation").mkdir(parents=True)
        for dialog in (f"Ses0{session}F_{name}" for name in dialogs):
            wavs = root / "sentences" / "wav" / dialog
            wavs.mkdir(parents=True)
            names = [
                f"{dialog}_{'FM'[number % 2]}{number:03d}"
                for number in range(len(labels))
            ]
            for name in names:
                make(wavs / f"{name}.wav")
            lines = "".join(
                LINE.format(name=name, label=label)
                for name, label in zip(names, labels, strict=True)
            )
            text = EVALUATION.format(lines=lines)
            (root / "dialog" / "EmoEvaluation" / f"{dialog}.txt").write_text(
                text
            )
            # As macOS packs archives
            (root / "dialog" / "EmoEvaluation" / f"._{dialog}.txt").write_text(
                "\0"
            )
    return folder


def write_lists(folder, fold, train, test):
    """s3prl's lists of a fold, of paths and labels."""
    place = folder / f"Session{fold}"
    place.mkdir(parents=True)
    classes = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
    for part, rows in (("train", train), ("test", test)):
        rows = [
            {"path": path, "label": label, "speaker": "Ses01F"}
            for path, label in rows
        ]
        text = json.dumps({"labels": classes, "meta_data": rows})
        (place / f"{part}_meta_data.json").write_text(text)
    return folder


@pytest.fixture
def corpus(tmp_path):
    return write_iemocap(tmp_path / "IEMOCAP", lambda wav: wav.touch())


def path_of(session, number):
    """Path of an utterance of the miniature."""
    dialog = f"Ses0{session}F_impro01"
    name = f"{dialog}_{'FM'[number % 2]}{number:03d}"
    return f"Session{session}/sentences/wav/{dialog}/{name}.wav"


def test_four_emotions_are_read_and_excited_is_happy(corpus):
    hparams = {"fold": 3, "protocol": "superb", "fold_lists": None}
    assert find_corpus("emotion_recognition", {}, corpus) == "iemocap"
    records = list(read_corpus("emotion_recognition", hparams, corpus))
    assert Counter(r["label"] for r in records) == {
        "neu": 5, "hap": 10, "ang": 5, "sad": 5,
    }  # fmt: skip
    test = [r for r in records if r["split"] == "test"]
    assert test[0] == {
        "ID": "Ses03F_impro01_F000",
        "wav": str(corpus / path_of(3, 0)),
        "spk_id": "Ses03_F",
        "session": "3",
        "label": "neu",
        "split": "test",
    }
    assert [r["label"] for r in test] == ["neu", "ang", "hap", "hap", "sad"]


def test_a_random_fifth_validates_as_in_superb():
    # Numbers of torch.randperm with seed 0, as the specification has them
    sessions = ["2"] * 4446 + ["1"] * 1085
    records = [{"ID": i, "session": s} for i, s in enumerate(sessions)]
    found = split_fold(records, 1, "superb")
    ids = {
        split: [r["ID"] for r in found if r["split"] == split]
        for split in ("train", "valid", "test")
    }
    assert {split: len(rows) for split, rows in ids.items()} == {
        "train": 3556, "valid": 890, "test": 1085,
    }  # fmt: skip
    assert ids["train"][:5] == [224, 1110, 4359, 1515, 2505]
    assert ids["valid"][:5] == [158, 1584, 1948, 31, 3810]
    assert ids["test"] == list(range(4446, 5531))


@pytest.mark.parametrize(
    ("listed", "train", "valid"),
    [(4446, 3556, 890), (4508, 3606, 902), (4380, 3504, 876),
     (4500, 3600, 900), (4290, 3432, 858)],
)  # fmt: skip
def test_folds_have_superbs_sizes(listed, train, valid):
    records = [{"session": "5"}] * listed + [{"session": "4"}]
    found = split_fold(records, 4, "superb")
    counts = Counter(r["split"] for r in found)
    assert counts == {"train": train, "valid": valid, "test": 1}


def test_the_clean_protocol_validates_on_other_speakers(corpus):
    for fold, following in ((1, "2"), (5, "1")):
        sessions = {"train": set(), "valid": set(), "test": set()}
        for record in iemocap(corpus, fold, "clean"):
            sessions[record["split"]].add(record["session"])
        assert sessions["test"] == {str(fold)}
        assert sessions["valid"] == {following}
        assert len(sessions["train"]) == 3


def test_paths_are_in_order_and_lists_keep_theirs(corpus, tmp_path):
    def order(lists):
        records = list(iemocap(corpus, 1, "clean", lists))
        return [r["ID"][-4:] for r in records if r["session"] == "2"]

    assert order(None) == ["F000", "F002", "F004", "M001", "M003"]
    rows = [(path_of(2, n), "neu") for n in (3, 0, 2)]
    others = [(path_of(n, 0), "neu") for n in (3, 4, 5)]
    test = [(path_of(1, 0), "sad")]
    lists = write_lists(tmp_path / "meta_data", 1, rows + others, test)
    assert order(lists) == ["M003", "F000", "F002"]


def test_lists_of_another_fold_or_with_other_labels_are_refused(
    corpus, tmp_path
):
    right, wrong = [(path_of(2, 0), "neu")], [(path_of(1, 0), "neu")]
    for number, (train, test) in enumerate(
        [(wrong, wrong), (right, right), ([(path_of(2, 0), "exc")], wrong)]
    ):
        lists = write_lists(tmp_path / str(number), 1, train, test)
        with pytest.raises(ValueError, match="meta_data.json: expected paths"):
            list(iemocap(corpus, 1, lists=lists))
    file = tmp_path / "0" / "Session1" / "train_meta_data.json"
    for text in ("[", "{}", '{"meta_data": [1]}', "3"):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"{file}: expected JSON with"):
            list(iemocap(corpus, 1, lists=tmp_path / "0"))


def test_what_is_missing_is_named(corpus):
    wav = corpus / path_of(4, 0)
    wav.unlink()
    with pytest.raises(ValueError, match="no such file: Session4/sentences"):
        list(iemocap(corpus, 1))
    for fold in (0, 6, None, True, "1"):
        with pytest.raises(ValueError, match="fold: expected 1 to 5; got"):
            list(iemocap(corpus, fold))
    with pytest.raises(ValueError, match="protocol: expected superb or clean"):
        split_fold([], 4, "other")


def test_a_line_of_another_form_is_named(corpus):
    place = corpus / "Session1" / "dialog" / "EmoEvaluation"
    (place / "Ses01F_impro01.txt").write_text("[1 - 2] name neu\n")
    with pytest.raises(ValueError, match="impro01.txt, line 1: expected time"):
        list(iemocap(corpus, 1))
