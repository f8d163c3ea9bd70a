"""The table of tasks: recipes and yamls that are there, corpora in their true
layouts, and what is missing."""

from importlib.resources import files

import pytest

from unispeech_sb.recipe_options import home_of, keys_of
from unispeech_sb.superb.kinds import PRESETS, Part, as_option, plan_task
from unispeech_sb.superb.results import SCORES, published_rows
from unispeech_sb.superb.tasks import TASKS

LAYOUTS = {
    "pr": (
        "LibriSpeech/train-clean-100/19/198/19-198.trans.txt",
        "LibriSpeech/dev-clean/1/2/1-2.trans.txt",
        "LibriSpeech/test-clean/3/4/3-4.trans.txt",
        "librispeech-lexicon-200k-g2p.txt",
        "LibriSpeech/librispeech-lexicon-allothers-g2p.txt",
    ),
    "asr": (
        "LibriSpeech/train-clean-100/19/198/19-198.trans.txt",
        "LibriSpeech/dev-clean/1/2/1-2.trans.txt",
        "LibriSpeech/test-clean/3/4/3-4.trans.txt",
    ),
    "ks": (
        "speech_commands_v0.01/yes/a_nohash_0.wav",
        "speech_commands_v0.01/wow/a_nohash_0.wav",
        "speech_commands_v0.01/_background_noise_/pink_noise.wav",
        "speech_commands_test_set_v0.01/yes/a_nohash_0.wav",
        "speech_commands_test_set_v0.01/_unknown_/a_nohash_0.wav",
        "speech_commands_test_set_v0.01/_silence_/0.wav",
    ),
    "qbe": (
        "quesst14Database/Audio/a.wav",
        "quesst14Database/dev_queries/a.wav",
        "quesst14Database/eval_queries/a.wav",
        "quesst14Database/scoring/language_key_utterances.lst",
        "quesst14Database/scoring/language_key_dev.lst",
        "quesst14Database/scoring/language_key_eval.lst",
        *(
            f"quesst14Database/scoring/groundtruth_quesst14_{split}/"
            f"quesst14_{split}.{kind}"
            for split in ("dev", "eval")
            for kind in ("rttm", "ecf.xml", "tlist.xml")
        ),
    ),
    "sid": (
        "VoxCeleb1/dev/wav/id10001/video/00001.wav",
        "VoxCeleb1/test/wav/id10270/video/00001.wav",
        "VoxCeleb1/veri_test_class.txt",
    ),
    "asv": (
        "VoxCeleb1/wav/id10001/video/00001.wav",
        "VoxCeleb1/wav/id10270/video/00001.wav",
        "voxceleb1_test_v2.txt",
    ),
    "sd": tuple(
        f"Libri2Mix/kaldi/{split}/{name}"
        for split in ("train", "dev", "test")
        for name in ("wav.scp", "utt2spk", "segments")
    ),
    "er": (
        *(
            f"IEMOCAP_full_release/Session{k}/{name}"
            for k in range(1, 6)
            for name in (
                "sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
                "dialog/EmoEvaluation/Ses01F_impro01.txt",
            )
        ),
    ),
    "ic": (
        "fluent_speech_commands_dataset/data/train_data.csv",
        "fluent_speech_commands_dataset/data/valid_data.csv",
        "fluent_speech_commands_dataset/data/test_data.csv",
        "fluent_speech_commands_dataset/wavs/speakers/a/b.wav",
    ),
    "sf": (
        "SNIPS/train/Ivy-snips-train-0.wav",
        "SNIPS/valid/Amy-snips-valid-0.wav",
        "SNIPS/test/Emma-snips-test-0.wav",
        "SNIPS/all.iob.snips.txt",
        "SNIPS/slots.txt",
    ),
}
"""Task -> files of its corpus where s3prl's documentation has them."""


def build(root, names):
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def find(name, preset, root):
    """The plan of a task, or what it lacks."""
    return plan_task(name, TASKS[name], preset, root)


def test_every_task_of_superb_is_there_with_its_published_column():
    assert list(TASKS) == [
        *("pr", "asr", "ks", "qbe", "sid", "asv", "sd", "er", "ic", "sf")
    ]
    assert set(LAYOUTS) == set(TASKS)
    assert len(SCORES) == 11
    assert all(set(row["scores"]) == set(SCORES) for row in published_rows())


@pytest.mark.parametrize("name", TASKS)
def test_recipe_and_yamls_are_there_and_have_the_keys(name):
    task = TASKS[name]
    assert (files(home_of("recipes")) / f"{task.recipe}.py").is_file()
    own = f"{task.recipe}_superb.yaml"
    known = set(keys_of(own))
    for preset in PRESETS:
        assert set(task.keys(preset)) <= known
    for corpus in task.corpora:
        given = {*corpus.keys, *corpus.parts}
        given |= {"data_folder"} if corpus.links else set()
        assert given <= set(keys_of(corpus.yaml or own)), corpus.name
        assert "data_folder" in given


@pytest.mark.parametrize("name", TASKS)
def test_the_true_corpus_is_found_in_its_layout(name, tmp_path):
    build(tmp_path, LAYOUTS[name])
    plan, missing = find(name, "superb", tmp_path)
    assert not missing
    assert plan.own
    assert plan.yaml == f"{TASKS[name].recipe}_superb.yaml"


@pytest.mark.parametrize(
    ("name", "left_out"),
    [(name, file) for name, names in LAYOUTS.items() for file in names],
)
def test_what_a_corpus_lacks_is_named(name, left_out, tmp_path):
    build(tmp_path, [file for file in LAYOUTS[name] if file != left_out])
    plan, missing = find(name, "superb", tmp_path)
    assert plan is None
    assert len(missing) == 1
    assert missing[0].startswith(f"{TASKS[name].corpora[0].name.split()[0]}")
    assert "there is no " in missing[0] or " lacks " in missing[0]


def test_an_empty_root_is_told_where_each_corpus_would_be(tmp_path):
    for name in TASKS:
        plan, missing = find(name, "superb", tmp_path)
        assert plan is None
        assert any("there is no " in fault for fault in missing)


def test_lists_of_emotion_recognition_are_taken_where_they_are(tmp_path):
    build(tmp_path, LAYOUTS["er"])
    plan, _ = find("er", "superb", tmp_path)
    assert plan.corpus.name == "IEMOCAP in the order of its paths"
    lists = [
        f"IEMOCAP/meta_data/Session{number}/{part}_meta_data.json"
        for number in range(1, 6)
        for part in ("train", "test")
    ]
    build(tmp_path, lists[:-1])  # one of the ten lacks
    plan, _ = find("er", "superb", tmp_path)
    assert plan.corpus.name == "IEMOCAP in the order of its paths"
    build(tmp_path, lists)
    plan, _ = find("er", "superb", tmp_path)
    assert plan.corpus.name == "IEMOCAP"
    assert plan.keys["fold_lists"] == str(tmp_path / "IEMOCAP/meta_data")


def test_another_corpus_is_for_the_tiny_preset_only(tmp_path):
    build(tmp_path, ["digits/manifest.csv"])
    assert find("ks", "superb", tmp_path)[0] is None
    plan, _ = find("ks", "tiny", tmp_path)
    assert plan.corpus.name == "digits"
    assert not plan.own


def test_the_true_corpus_comes_before_another_one(tmp_path):
    build(tmp_path, ["digits/manifest.csv", *LAYOUTS["ks"]])
    plan, _ = find("ks", "tiny", tmp_path)
    assert plan.own


def test_without_any_corpus_tiny_speaks_itself(tmp_path):
    for name in TASKS:
        plan, missing = find(name, "tiny", tmp_path)
        if name == "sd":  # nobody speaks conversations
            assert plan is None
            assert missing
        else:
            assert plan.corpus.name == "embedded synthetic speech"
            assert not plan.own


def test_mini_takes_the_lists_of_minisuperb(tmp_path):
    build(tmp_path, [*LAYOUTS["sid"], "VoxCeleb1/mini_veri_test_class.txt"])
    plan, _ = find("sid", "mini", tmp_path)
    assert not plan.own
    assert plan.keys["split_file"].endswith("mini_veri_test_class.txt")


def test_a_part_is_found_by_any_of_its_alternatives(tmp_path):
    part = Part(("a", "b"), ("x/*.wav|y", "z"))
    assert part.find(tmp_path) == (None, "there is no a or b")
    build(tmp_path, ["b/y", "b/z"])
    assert part.find(tmp_path) == (tmp_path / "b", "")
    (tmp_path / "b" / "y").unlink()
    assert part.find(tmp_path) == (
        None,
        f"{tmp_path / 'b'} lacks x/*.wav or y",
    )


def test_options_are_yaml():
    assert as_option("synthetic", True) == "--synthetic=true"
    assert as_option("trials", None) == "--trials=null"
    assert as_option("data_folder", "/a b/#é") == '--data_folder="/a b/#é"'
    assert as_option("lexicon", ["a", "b"]) == '--lexicon=["a", "b"]'
