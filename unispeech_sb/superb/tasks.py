"""The ten tasks of SUPERB (Yang et al. 2021): one table, from which all else
derives. A row says by which recipe a task is run, which corpora it may have and
what these must hold, and what its score is.
"""

from unispeech_sb.superb.kinds import Corpus, Part, Score, Task

_OWN, _TINY, _MINI = ("superb", "tiny"), ("tiny",), ("mini",)
_FEW = {"num_workers": 0, "number_of_epochs": 1}
_EMBEDDED = "embedded synthetic speech"
_SYNTHETIC = {"synthetic": True, "data_folder": "{output}/spoken"}
_SENTENCES = {
    **_SYNTHETIC,
    "synthetic_sentences": [40, 10, 10],
    "synthetic_voices": [8, 4, 4],
}
_TALKING = {**_SYNTHETIC, "synthetic_sentences": [60, 10, 20]}
_VOXCELEB = ("VoxCeleb1", "voxceleb1", "VoxCeleb", "voxceleb")
_LIBRISPEECH = ("LibriSpeech", "librispeech")


def _accuracy(column, name, baseline, topline, key="accuracy"):
    """An accuracy, which the recipes give as a share."""
    return Score(column, key, name, True, 100.0, baseline, topline)


def _rate(column, key, baseline, topline):
    """An error rate, which the recipes give in percent."""
    return Score(column, key, key, False, 1.0, baseline, topline)


def _folder(places, *holds):
    """A corpus in one folder."""
    return {"data_folder": Part(places, holds)}


def _anywhere(folders, *names):
    """A file in one of some folders, or at the root."""
    inside = tuple(f"{folder}/{name}" for folder in folders for name in names)
    return Part((*inside, *names))


def _texts(*splits):
    """Transcripts in a folder of LibriSpeech's form."""
    held = (f"{split}/*/*/*.trans.txt" for split in splits)
    return _folder(_LIBRISPEECH, *held)


def _embedded(keys=_SYNTHETIC, yaml=None):
    """The corpus that espeak-ng speaks."""
    return Corpus(_EMBEDDED, _TINY, {}, keys, yaml=yaml)


_CLEAN = _texts("train-clean-100", "dev-clean", "test-clean")
_SMALL = {"proj_size": 64, "hidden_size": 64}
_MINI_SUBSETS = ("train-mini", "dev-mini", "test-other-mini")
_SHORT = {"subsets": _MINI_SUBSETS, "max_duration_s": 6.0}
_FEW_PHONES = {
    "freeze": True,
    "num_workers": 0,
    "max_batch_s": 20.0,
    "grad_accumulation_factor": 1,
    "optimizer_step_limit": 6,
}
_SPEAKERS = _folder(
    _VOXCELEB,
    "dev/wav/id10001|dev/id10001|wav/id10001|id10001",
    "test/wav/id10270|test/id10270|wav/id10270|id10270",
)
_IEMOCAP = ("IEMOCAP_full_release", "IEMOCAP", "iemocap")
_SESSIONS = _folder(
    _IEMOCAP,
    *(f"Session{number}/sentences/wav" for number in range(1, 6)),
    *(f"Session{number}/dialog/EmoEvaluation/*.txt" for number in range(1, 6)),
)
_LISTS = tuple(
    f"Session{number}/{part}_meta_data.json"
    for number in range(1, 6)
    for part in ("train", "test")
)
_TRUTH = tuple(
    f"scoring/groundtruth_quesst14_{split}/*.{kind}"
    for split in ("dev", "eval")
    for kind in ("rttm", "ecf.xml", "tlist.xml")
)
_SEGMENTS = _folder(("libri248/sid_segments.csv",))

TASKS = {
    "pr": Task(
        "Phoneme recognition",
        "phoneme_recognition",
        (_rate("PR", "PER", 82.01, 3.53),),
        (
            Corpus(
                "LibriSpeech",
                _OWN,
                {
                    **_CLEAN,
                    "lexicon": (
                        _anywhere(
                            (*_LIBRISPEECH, "lexicon"),
                            "librispeech-lexicon-200k-g2p.txt",
                        ),
                        _anywhere(
                            (*_LIBRISPEECH, "lexicon"),
                            "librispeech-lexicon-allothers-g2p.txt",
                        ),
                    ),
                },
            ),
            Corpus(
                "LibriSpeech mini",
                _TINY,
                {
                    **_texts(*_MINI_SUBSETS),
                    "phones_table": _anywhere(_LIBRISPEECH, "manifest.csv"),
                },
                {**_SHORT, **_FEW_PHONES},
                yaml="phoneme_recognition.yaml",
            ),
            _embedded(
                {**_SENTENCES, **_FEW_PHONES}, "phoneme_recognition.yaml"
            ),
        ),
        {**_FEW, "batches_per_epoch": 8, "batch_size": 4},
    ),
    "asr": Task(
        "Speech recognition",
        "asr",
        (_rate("ASR", "WER", 23.18, 3.62),),
        (
            Corpus("LibriSpeech", _OWN, _CLEAN),
            Corpus(
                "Libri-light 10 h",
                _MINI,
                keys={"subsets": None},
                links={
                    "train-9h-clean": "librispeech_finetuning/9h/clean",
                    "train-9h-other": "librispeech_finetuning/9h/other",
                    "train-1h-*-clean": "librispeech_finetuning/1h/*/clean",
                    "train-1h-*-other": "librispeech_finetuning/1h/*/other",
                    "dev-clean": "[Ll]ibri[Ss]peech/dev-clean",
                    "test-clean": "[Ll]ibri[Ss]peech/test-clean",
                },
            ),
            Corpus("LibriSpeech mini", _TINY, _texts(*_MINI_SUBSETS), _SHORT),
            _embedded(_SENTENCES),
        ),
        {**_FEW, **_SMALL, "batches_per_epoch": 8, "batch_size": 8},
        {  # three BiLSTMs of 256, 20 000 updates
            "number_of_epochs": 10,
            "proj_size": 256,
            "hidden_size": 256,
            "head": {"num_layers": 3},
        },
    ),
    "ks": Task(
        "Keyword spotting",
        "keyword_spotting",
        (_accuracy("KS", "accuracy", 41.38, 96.66),),
        (
            Corpus(
                "Speech Commands v0.01",
                _OWN,
                {
                    **_folder(
                        ("speech_commands_v0.01",),
                        *("yes", "wow", "_background_noise_/*.wav"),
                    ),
                    "test_folder": Part(
                        ("speech_commands_test_set_v0.01",),
                        ("yes", "_unknown_", "_silence_"),
                    ),
                },
            ),
            Corpus(
                "digits",
                _TINY,
                {
                    **_folder(("digits",), "manifest.csv"),
                    "test_folder": Part(("digits",)),
                },
                {"num_classes": 10},
            ),
            _embedded({**_SYNTHETIC, "test_folder": None, "num_classes": 10}),
        ),
        {**_FEW, "draws_per_epoch": 256, "batch_size": 16},
        pooled=True,
    ),
    "qbe": Task(
        "Query by example",
        "query_by_example",
        (_accuracy("QbE", "MTWV", 0.58, 7.36, "MTWV"),),
        (
            Corpus(
                "QUESST 2014",
                _OWN,
                _folder(
                    ("quesst14Database", "QUESST2014", "quesst2014"),
                    *("Audio", "dev_queries", "eval_queries"),
                    "scoring/language_key_utterances.lst",
                    "scoring/language_key_dev.lst",
                    "scoring/language_key_eval.lst",
                    *_TRUTH,
                ),
            ),
            _embedded(yaml="query_by_example.yaml"),
        ),
        alone=True,
    ),
    "sid": Task(
        "Speaker identification",
        "speaker_identification",
        (_accuracy("SID", "accuracy", 20.06, 90.3),),
        (
            Corpus(
                "VoxCeleb1",
                _OWN,
                {
                    **_SPEAKERS,
                    "split_file": _anywhere(
                        _VOXCELEB, "iden_split.txt", "veri_test_class.txt"
                    ),
                },
            ),
            Corpus(
                "VoxCeleb1 by MiniSUPERB's list",
                _MINI,
                {
                    **_SPEAKERS,
                    "split_file": _anywhere(
                        _VOXCELEB, "mini_veri_test_class.txt"
                    ),
                },
            ),
            Corpus("libri248", _TINY, _SEGMENTS, {"valid_tail_s": 0.7}),
            _embedded(_TALKING),
        ),
        {**_FEW, "draws_per_epoch": 256},
        {"number_of_epochs": 4, "lr": 0.001},  # 20 000 updates
        pooled=True,
    ),
    "asv": Task(
        "Speaker verification",
        "speaker_verification",
        (_rate("ASV", "EER", 9.56, 5.11),),
        (
            Corpus(
                "VoxCeleb1",
                _OWN,
                {
                    **_SPEAKERS,
                    "trials": _anywhere(
                        _VOXCELEB, "voxceleb1_test_v2.txt", "veri_test.txt"
                    ),
                },
            ),
            Corpus(
                "libri248",
                _TINY,
                {
                    **_SEGMENTS,
                    "trials": Part(("sv/trials_libri248_segments.txt",)),
                },
                {
                    "valid_speakers": 10,
                    "valid_piece_s": 1.9,
                    "min_duration_s": 0.5,
                },
            ),
            _embedded(
                {
                    **_TALKING,
                    **_FEW,
                    "freeze": True,
                    "trials": None,
                    "valid_speakers": None,
                },
                "speaker_verification.yaml",
            ),
        ),
        {**_FEW, "draws_per_epoch": 200},
    ),
    "sd": Task(
        "Speaker diarization",
        "speaker_diarization",
        (_rate("SD", "DER", 10.05, 5.62),),
        (
            Corpus(
                "Libri2Mix",
                _OWN,
                _folder(
                    ("Libri2Mix/kaldi", "LibriMix/kaldi", "Libri2Mix"),
                    *(
                        f"{split}/{name}"
                        for split in ("train", "dev", "test")
                        for name in ("wav.scp", "utt2spk", "segments")
                    ),
                ),
            ),
            Corpus(
                "mix2",
                _TINY,
                _folder(
                    ("diarization/mix2", "mix2"),
                    *("train/wav.scp", "dev/wav.scp"),
                ),
            ),
        ),
        {**_FEW, "draws_per_epoch": 64},
    ),
    "er": Task(
        "Emotion recognition",
        "emotion_recognition",
        (_accuracy("ER", "accuracy", 48.24, 67.62),),
        (
            Corpus(
                "IEMOCAP",
                _OWN,
                {
                    **_SESSIONS,
                    "fold_lists": Part(
                        tuple(
                            f"{place}/meta_data"
                            for place in (*_IEMOCAP, "s3prl", "emotion")
                        ),
                        _LISTS,
                    ),
                },
            ),
            Corpus("IEMOCAP in the order of its paths", _OWN, _SESSIONS),
            _embedded(),
        ),
        {**_FEW, "draws_per_epoch": 64},
        pooled=True,
    ),
    "ic": Task(
        "Intent classification",
        "intent_classification",
        (_accuracy("IC", "accuracy", 9.65, 98.76),),
        (
            Corpus(
                "Fluent Speech Commands",
                _OWN,
                _folder(
                    ("fluent_speech_commands_dataset", "FluentSpeechCommands"),
                    *("data/train_data.csv", "data/valid_data.csv"),
                    *("data/test_data.csv", "wavs/speakers"),
                ),
            ),
            Corpus(
                "intent",
                _TINY,
                _folder(("intent",), "manifest.csv"),
                {
                    "slots": [
                        *("coffeeDrink", "roast", "size", "numberOfShots"),
                        *("milkAmount", "sugarAmount"),
                    ],
                    "num_classes": 37,
                },
            ),
            _embedded({**_SENTENCES, "synthetic_sentences": [100, 20, 20]}),
        ),
        {**_FEW, "draws_per_epoch": 128, "batch_size": 16},
        pooled=True,
    ),
    "sf": Task(
        "Slot filling",
        "slot_filling",
        (
            _accuracy("SF-F1", "slot F1", 69.64, 89.81, "slot_type_f1"),
            Score("SF-CER", "slot_value_cer", "CER", False, 100, 52.94, 21.76),
        ),
        (
            Corpus(
                "Audio SNIPS",
                _OWN,
                _folder(
                    ("SNIPS", "snips", "audio_snips"),
                    *("train", "valid", "test"),
                    *("all.iob.snips.txt", "slots.txt"),
                ),
            ),
            _embedded(_SENTENCES),
        ),
        {**_FEW, **_SMALL, "batches_per_epoch": 8, "batch_size": 8},
    ),
}
"""Short name -> task, in the order of the benchmark's tables."""
