"""Trials: lists there and back, pairs of utterances, what is refused."""

import gzip
from itertools import combinations

import numpy as np
import pytest
from speechbrain import Stage

from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.trials import (
    Trials,
    add_trials,
    pair_trials,
    read_trials,
    speakers_of,
    trial_records,
    write_trials,
)

TEXTS = {
    "voxceleb.txt": "1 a/1.wav a/2.wav\n0 b/1.wav a/1.wav\n",
    "kaldi": "a/1.wav a/2.wav target\nb/1.wav a/1.wav nontarget\n",
    "table.csv": "left,right,target\na/1.wav,a/2.wav,1\nb/1.wav,a/1.wav,0\n",
    "other.csv": "label,noise,Test,Enroll\n"
    "target,x,a/2.wav,a/1.wav\nnontarget,y,a/1.wav,b/1.wav\n",
    "last.txt": "a/1.wav a/2.wav 1\nb/1.wav a/1.wav 0\n",
    "capital": "a/1.wav a/2.wav TARGET\nb/1.wav a/1.wav Impostor\n",
    "front": "target a/1.wav a/2.wav\nnontarget b/1.wav a/1.wav\n",
    "quoted.csv": 'utt1, utt2, label\n"a/1.wav", "a/2.wav", 1\n'
    "\nb/1.wav, a/1.wav, 0\n",
    "windows.txt": "\ufeff1 a/1.wav a/2.wav\r\n\r\n0\tb/1.wav  a/1.wav\r\n",
}


def write(folder, name, text):
    """A file with a text."""
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def same(one, other):
    """Whether two lists hold the same trials in one order."""
    return one.names == other.names and all(
        np.array_equal(a, b) for a, b in zip(one[1:], other[1:], strict=True)
    )


@pytest.mark.parametrize("name", TEXTS)
def test_every_form_is_read(name, tmp_path):
    trials = read_trials(write(tmp_path, name, TEXTS[name]))
    assert trials.names == ["a/1.wav", "a/2.wav", "b/1.wav"]
    assert trials.left.tolist() == [0, 2]
    assert trials.right.tolist() == [1, 0]
    assert trials.targets.tolist() == [True, False]


def test_a_kaldi_list_may_hold_utterances_called_by_numbers(tmp_path):
    path = write(tmp_path, "trials", "1 2 target\n0 2 nontarget\n")
    assert read_trials(path).names == ["1", "2", "0"]


@pytest.mark.parametrize(
    "text", ["1 2 1\n0 7 0\n3 4 1\n5 6 0\n", "2 1 1\n7 0 0\n1 9 1\n"]
)
def test_numbers_as_names_are_told_from_the_truth_behind_them(text, tmp_path):
    trials = read_trials(write(tmp_path, "t", text))
    first, *_ = text.split("\n")
    assert trials.names[:2] == first.split()[:2]
    assert trials.targets.tolist()[:2] == [True, False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t", "a b\n\na c\n"),
        ("t.csv", "enroll,test\na,b\na,c\n"),
        ("t.csv.gz", "enroll,test\na,b\na,c\n"),
    ],
)
def test_pairs_alone_are_read_where_they_will_do(name, text, tmp_path):
    path = write(tmp_path, name, text)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match="three fields|column target or lab"):
        read_trials(path)
    trials = read_trials(path, labelled=False)
    assert trials.targets is None and trials.names == ["a", "b", "c"]
    write_trials(tmp_path / "out.csv", trials, "csv", [0.5, 0.25])
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "left,right,score", "a,b,0.5", "a,c,0.25"
    ]  # fmt: skip
    again = read_trials(tmp_path / "out.csv", labelled=False)
    assert again.right.tolist() == trials.right.tolist()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t", "a.wav\tc d.wav\nc d.wav\t e.wav\n"),
        ("t", 'a.wav "c d.wav"\n"c d.wav"  "e.wav" \n'),
        ("t", 'a.wav\t"c d.wav"\n"c d.wav"\te.wav\n'),
        ("t", '1 a.wav "c d.wav"\n1 "c d.wav" e.wav\n'),
        ("t", "a.wav\tc d.wav\ttarget\nc d.wav\te.wav\ttarget\n"),
        ("t.csv", "reference;generated\na.wav;c d.wav\nc d.wav;e.wav\n"),
        ("t.tsv", "generated\tREFERENCE\nc d.wav\ta.wav\ne.wav\tc d.wav\n"),
        ("t.tsv", "a.wav\tc d.wav\nc d.wav\te.wav\n"),
        (
            "similarity.csv",
            "reference,generated,similarity\na.wav,c d.wav,0.5\n"
            "c d.wav,e.wav,\n",
        ),
    ],
)
def test_names_with_blanks_stand_between_tabs_or_quotes(name, text, tmp_path):
    trials = read_trials(write(tmp_path, name, text), labelled=None)
    assert trials.names == ["a.wav", "c d.wav", "e.wav"]
    sides = trials.left.tolist(), trials.right.tolist()
    assert sides == ([0, 1], [1, 2]) and trials.targets is None


@pytest.mark.parametrize(
    "text", ["1 a\tb\n0 a\tc\n", "a b\t1\na c\t0\n", "1\ta\tb\n0 a\tc\n"]
)
def test_tabs_may_stand_among_blanks(text, tmp_path):
    trials = read_trials(write(tmp_path, "t", text))
    assert trials.names == ["a", "b", "c"]
    assert trials.targets.tolist() == [True, False]


def test_where_the_truth_is_of_no_use_no_trial_has_to_be_another(tmp_path):
    path = write(tmp_path, "t", "1 a b\n1 a c\n")
    assert read_trials(path, labelled=None).names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("labelled", "text", "message"),
    [
        (False, "", "expected target and non-target trials, got none"),
        (None, "\n\n", "expected pairs of recordings, got none"),
        (False, "a b\na b 1\n", "line 2: expected two fields, got 3"),
        (False, "1 a b\n1 a c\n", "2 of one kind"),
        (None, "a b c\n", "line 1: expected 1 or 0 .* got 'a'"),
        (None, "1 a b\nd e f\n", "line 2: expected 1 or 0 .* got 'd'"),
        (None, "a b target\na b 0.7\n", "line 2: expected 1 .* got '0.7'"),
        (None, "a b 1\na b\n", "line 2: expected three fields, got 2"),
    ],
)
def test_what_is_wrong_with_pairs_is_named(labelled, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_trials(write(tmp_path, "t", text), labelled=labelled)


@pytest.mark.parametrize(
    ("form", "name"),
    [("voxceleb", "t.txt"), ("kaldi", "trials"), ("csv", "t.csv")],
)
def test_what_is_written_is_read_back(form, name, tmp_path):
    generator = np.random.default_rng(0)
    left = generator.integers(0, 40, 300)
    right = left + generator.integers(1, 9, 300)
    text = "".join(
        f"{a % 3 // 2} u{a} u{b}\n" for a, b in zip(left, right, strict=True)
    )
    trials = read_trials(write(tmp_path, "source", text))
    write_trials(tmp_path / name, trials, form)
    assert same(read_trials(tmp_path / name), trials)
    assert not list(tmp_path.glob("*.partial"))


def test_scores_go_into_a_csv(tmp_path):
    trials = read_trials(write(tmp_path, "t", TEXTS["kaldi"]))
    write_trials(tmp_path / "t.csv", trials, "csv", np.float32([0.1, -2]))
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "left,right,target,score",
        "a/1.wav,a/2.wav,1,0.10000000149011612",
        "b/1.wav,a/1.wav,0,-2.0",
    ]
    assert same(read_trials(tmp_path / "t.csv"), trials)


def test_names_of_a_csv_may_hold_blanks_and_commas(tmp_path):
    sides = np.array([[0, 0], [1, 2]], np.int32)
    trials = Trials(["my, own", "b c", 'd"e'], *sides, np.array([True, False]))
    write_trials(tmp_path / "t.csv", trials, "csv")
    assert same(read_trials(tmp_path / "t.csv"), trials)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t", "", "expected target and non-target trials, got none"),
        ("t", "\n \n", "expected target and non-target trials, got none"),
        ("t", "1 a b\n1 a c\n", "expected target .* got 2 of one kind"),
        ("t", "1 a b\n0 a\n", "line 2: expected three fields, got 2"),
        ("t", "1 a b\n\n0 a b c\n", "line 3: expected three fields, got 4"),
        ("t", "1 a b\n2 a c\n", "line 2: expected 1 or 0 .* got '2'"),
        ("t", "a b target\na c no\n", "line 2: expected 1 or 0 .* got 'no'"),
        ("t", "1 a b\n0 b c\n1 c c\n", "line 3: c is compared with itself"),
        ("t", "1 a b\n0 a c\n0 b a\n", "line 3: the same pair has another"),
        ("t.csv", "", "expected one column left or enroll .* got none"),
        ("t.csv", "a,b\n", "expected one column left or .* got a, b"),
        ("t.csv", "left,right,label,target\n", "expected one column target"),
        ("t.csv", "left,right,target\na,b\n", "line 2: expected 3 values"),
        ("t.csv", "left,right,target\na,,1\n", "line 2: expected two names"),
        ("t.csv", "left,right,target\na,b,yes\n", "line 2: .* got 'yes'"),
        ("t.csv", 'left,right,target\na,"b,1\n', "line 2: unexpected end"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(name, text, message, tmp_path):
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError, match=message) as error:
        read_trials(path)
    assert str(error.value).startswith(str(path))


def test_a_pair_may_occur_again(tmp_path):
    path = write(tmp_path, "t", "1 a b\n1 b a\n0 a c\n0 a c\n")
    assert len(read_trials(path).left) == 4


def test_utterances_that_are_not_known_are_refused(tmp_path):
    text = "1 a b\n0 a c\n" + "".join(f"0 a x{n}\n" for n in range(7))
    path = write(tmp_path, "t", text)
    message = (
        "line 3: no such utterance: x0, x1, x2, x3, x4 and 2 more; there are"
    )
    with pytest.raises(ValueError, match=message):
        read_trials(path, known={"a", "b", "c"})
    known = {"a", "b", "c", *(f"x{n}" for n in range(7))}
    assert len(read_trials(path, known).left) == 9


def test_files_that_are_not_there_are_refused(tmp_path):
    path = write(tmp_path, "t", TEXTS["kaldi"])
    for name in ("a/1.wav", "a/2.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"line 2: no such file in .*: b/1.wav"
    ):
        read_trials(path, root=tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.wav").touch()
    assert len(read_trials(path, root=tmp_path).names) == 3


def test_a_missing_list_and_other_bytes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none: there is no such file"):
        read_trials(tmp_path / "none")
    (tmp_path / "t").write_bytes(b"1 a b\n1 a \xff\xfe\n")
    with pytest.raises(ValueError, match="t, line 2: expected text in UTF-8"):
        read_trials(tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "form", "scores", "message"),
    [
        ("t", "nist", None, "expected a form of voxceleb, kaldi, csv"),
        ("t.txt", "csv", None, "only CSVs to end in .csv"),
        ("t.csv", "kaldi", None, "only CSVs to end in .csv"),
        ("t", "kaldi", [0.1, 0.2], "expected scores for a CSV"),
        ("t.csv", "csv", [0.1], "one for each of 2 trials"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    name, form, scores, message, tmp_path
):
    trials = read_trials(write(tmp_path, "source", TEXTS["kaldi"]))
    with pytest.raises(ValueError, match=message):
        write_trials(tmp_path / name, trials, form, scores)
    blank = trials._replace(names=["a b", "c", "d"])
    with pytest.raises(ValueError, match="names without blanks, got 'a b'"):
        write_trials(tmp_path / "t", blank, "kaldi")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_chains_of_target_trials_are_one_speaker(tmp_path):
    text = "1 a b\n1 c b\n0 a d\n1 e f\n0 g e\n"
    trials = read_trials(write(tmp_path, "t", text))
    speakers = dict(
        zip(trials.names, speakers_of(trials).tolist(), strict=True)
    )
    assert speakers["a"] == speakers["b"] == speakers["c"]
    assert speakers["e"] == speakers["f"]
    assert len(set(speakers.values())) == 4


def test_a_chain_that_contradicts_itself_is_refused(tmp_path):
    path = write(tmp_path, "t", "1 a b\n1 b c\n0 c a\n")
    with pytest.raises(ValueError, match="non-target trial c a contradicts"):
        speakers_of(read_trials(path))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_trials"),
    [
        ("trials_librispeech_test_other.txt", 625),
        ("trials_libri248_segments.txt", 560),
    ],
)
def test_real_lists_are_read(name, num_trials, data_folder):
    root = data_folder if "librispeech" in name else None
    trials = read_trials(data_folder / "sv" / name, root=root)
    assert len(trials.left) == num_trials
    owners = [name.rpartition("/")[2].split("-")[0] for name in trials.names]
    speakers = speakers_of(trials)
    # What target trials connect is never of two readers.
    assert len(set(zip(owners, speakers, strict=True))) == len(set(speakers))


def records_of(root, *names, split="train"):
    """Records whose speaker is the first letter of the ID."""
    return [
        {"ID": name, "wav": str(root / f"{name}.wav"), "spk_id": name[0],
         "split": split, "duration": 1.0}
        for name in names
    ]  # fmt: skip


def trial_list(folder, *lines):
    """A trial list."""
    path = folder / "trials.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def splits(records):
    """ID -> split."""
    return {record["ID"]: record["split"] for record in records}


def test_speakers_of_the_trials_leave_train_and_valid(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "a3", "b1", "c1")
    records += records_of(tmp_path, "b2", "c2", split="valid")
    records += records_of(tmp_path, "d1", split="test")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 b1")
    found = trial_records(records, path)
    assert splits(found) == {
        "c1": "train", "c2": "valid", "a1": "test", "a2": "test", "b1": "test"
    }  # fmt: skip


def test_files_of_trials_are_found_below_their_root(tmp_path):
    root = tmp_path / "audio"
    (root / "b").mkdir(parents=True)
    for name in ("a1.wav", "x.wav", "b/1.wav"):
        (root / name).touch()
    records = records_of(root, "a1", "c1")
    records += records_of(root, "a2", split="valid")
    path = trial_list(tmp_path, "1 a1.wav x.wav", "0 x.wav b/../b/1.wav")
    found = trial_records(records, path, root)
    assert splits(found) == {
        "c1": "train", "a1.wav": "test", "x.wav": "test", "b/../b/1.wav": "test"
    }  # fmt: skip
    assert [r["spk_id"] for r in found] == ["c", "a", "", ""]
    assert found[-1]["wav"] == str(root / "b" / "1.wav")


def test_what_is_not_there_is_named_by_file_and_line(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "c1")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 z9")
    with pytest.raises(ValueError, match=f"{path}, line 2: no such .* z9"):
        trial_records(records, path)
    with pytest.raises(ValueError, match=f"{path}, line 1: no such file in"):
        trial_records(records, path, tmp_path)


def test_somebody_has_to_be_left_to_train_on(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1")
    path = trial_list(tmp_path, "1 a1 a2", "0 a1 b1")
    with pytest.raises(ValueError, match=f"{path}: expected speakers beside"):
        trial_records(records, path)


def hparams_for(folder, records, trials=None):
    """A yaml, with manifests."""
    write_manifests(records, folder / "manifests", required_splits=())
    return {
        "manifest_folder": folder / "manifests",
        "trials": trials,
        "num_valid_trials": 4,
        "num_test_trials": None,
        "seed": 1,
    }


def test_without_a_list_pairs_are_compared(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "b2", split="valid")
    records += records_of(tmp_path, "c1", "c2", "d1", split="test")
    hparams = hparams_for(tmp_path, records)
    add_trials(hparams)
    valid, test = (hparams["trials"][s] for s in (Stage.VALID, Stage.TEST))
    assert valid.names == ["a1", "a2", "b1", "b2"]
    assert sorted(valid.targets) == [False, False, True, True]
    assert test.names == ["c1", "c2", "d1"]
    left, right = hparams["trial_speakers"][Stage.TEST]
    assert ((left == right) == test.targets).all()


def test_without_a_test_set_the_test_is_that_of_the_validation(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", "b2", split="valid")
    hparams = hparams_for(tmp_path, records)
    add_trials(hparams)
    assert hparams["trials"][Stage.TEST] is hparams["trials"][Stage.VALID]
    assert Stage.TEST in hparams["trial_speakers"]


def test_unknown_speakers_are_told_apart_by_the_trials(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", split="valid")
    for name in ("x", "y", "z"):
        records += records_of(tmp_path, name, split="test")
        records[-1]["spk_id"] = ""
    path = trial_list(tmp_path, "1 x y", "0 y z", "0 z x")
    hparams = hparams_for(tmp_path, records, path)
    add_trials(hparams)
    left, right = hparams["trial_speakers"][Stage.TEST]
    assert left.tolist() == [0, 0, 1]
    assert right.tolist() == [0, 1, 0]


def test_a_list_that_contradicts_the_corpus_is_refused(tmp_path):
    records = records_of(tmp_path, "a1", "a2", "b1", split="valid")
    records += records_of(tmp_path, "c1", "c2", "d1", split="test")
    path = trial_list(tmp_path, "1 c1 d1", "0 c1 c2")
    with pytest.raises(ValueError, match="c1 d1 is a target .* of c and d"):
        add_trials(hparams_for(tmp_path, records, path))


def test_one_utterance_per_speaker_is_no_validation(tmp_path):
    records = records_of(tmp_path, "a1", "b1", "c1", split="valid")
    with pytest.raises(ValueError, match="split valid: expected two speakers"):
        add_trials(hparams_for(tmp_path, records))


NAMES = [f"{speaker}{number}" for number in range(7) for speaker in "cabd"]
SPEAKERS = [name[0] for name in NAMES]


def pairs(trials):
    """Name, name, truth of each trial."""
    sides = zip(trials.left, trials.right, trials.targets, strict=True)
    return [(trials.names[a], trials.names[b], bool(t)) for a, b, t in sides]


@pytest.mark.parametrize("max_trials", [None, 10**6])
def test_all_pairs_are_compared_once(max_trials):
    found = pairs(pair_trials(NAMES, SPEAKERS, max_trials))
    assert found == [(a, b, a[0] == b[0]) for a, b in combinations(NAMES, 2)]


@pytest.mark.parametrize("max_trials", [2, 40, 100, 300])
def test_a_sample_has_both_kinds_and_no_pair_twice(max_trials):
    trials = pair_trials(NAMES, SPEAKERS, max_trials)
    found = pairs(trials)
    every = {(a, b): a[0] == b[0] for a, b in combinations(NAMES, 2)}
    assert len(set(found)) == len(found) == max_trials
    assert all(every[a, b] == truth for a, b, truth in found)
    num_targets = 4 * 21
    assert trials.targets.sum() == min(max_trials // 2, num_targets)


def test_rare_pairs_of_two_speakers_are_found_once_each():
    trials = pair_trials(range(100), 99 * "a" + "b", 180)
    assert (~trials.targets).sum() == 90
    assert len(set(zip(trials.left, trials.right, strict=True))) == 180


def test_the_sample_is_drawn_from_the_seed():
    one, same, other = (
        pairs(pair_trials(NAMES, SPEAKERS, 40, seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_every_pair_may_be_drawn():
    seen = set()
    for seed in range(200):
        seen.update(pairs(pair_trials(NAMES, SPEAKERS, 60, seed)))
    assert len(seen) == len(NAMES) * (len(NAMES) - 1) // 2


def test_a_sample_of_a_hundred_thousand_utterances_is_exact():
    owners = np.arange(100_000) % 5000
    trials = pair_trials(range(100_000), owners, 20_000)
    assert len(set(zip(trials.left, trials.right, strict=True))) == 20_000
    assert (trials.left < trials.right).all()
    truth = owners[trials.left] == owners[trials.right]
    assert (truth == trials.targets).all()
    assert truth.sum() == 10_000


@pytest.mark.parametrize("names", ["", "a", "abc", "aaa"])
def test_one_utterance_per_speaker_or_one_speaker_cannot_be_paired(names):
    with pytest.raises(ValueError, match="one of them with two utterances"):
        pair_trials(range(len(names)), names)


def test_one_trial_is_not_enough():
    with pytest.raises(ValueError, match="expected 2 trials or more, got 1"):
        pair_trials(NAMES, SPEAKERS, max_trials=1)
