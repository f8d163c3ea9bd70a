"""The ten tasks of SUPERB (Yang et al. 2021): one table, from which all else
derives. A row says by which recipe a task is run, which corpora it may have and
what these must hold, and what its score is.

Nothing here imports torch: missing corpora are named at once.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

PRESETS = {
    "superb": "the tasks as published: days on one GPU",
    "mini": "MiniSUPERB's smoke test, of which ASR and SID have recipes here",
    "tiny": "a few updates of each task, on whatever corpus there is: minutes",
}

FINISHED, FAILED, MISSING, RUNNING = "finished", "failed", "missing", "running"
TROUBLES = {
    FAILED: "failed",
    MISSING: "no corpus",
    RUNNING: "not finished",
}
STATES = (FINISHED, *TROUBLES)
"""Of a task in the results."""


class Score(NamedTuple):
    """A score: its column in the published table and key in ``scores.json``.

    ``scale`` takes it to the column's unit, all in percent. ``baseline`` and
    ``topline`` are the leaderboard's 0 and 1000 points.
    """

    column: str
    key: str
    name: str
    higher: bool
    scale: float
    baseline: float
    topline: float

    @property
    def heading(self) -> str:
        """Task, measure, and which way is better."""
        return f"{self.name} {'↑' if self.higher else '↓'}"


class Part(NamedTuple):
    """A file or folder of a corpus: where it may lie under the data root, and
    the patterns that it has to hold, of alternatives by ``|``."""

    places: tuple[str, ...]
    holds: tuple[str, ...] = ()

    def find(self, root: Path) -> tuple[Path | None, str]:
        """Its place; what is missing, empty where nothing is."""
        found = [root / place for place in self.places]
        place = next((path for path in found if path.exists()), None)
        if place is None:
            return None, f"there is no {' or '.join(self.places)}"
        lacks = [
            held
            for held in self.holds
            if not any(
                next(place.glob(pattern), None) is not None
                for pattern in held.split("|")
            )
        ]
        if not lacks:
            return place, ""
        named = ", ".join(held.replace("|", " or ") for held in lacks)
        return None, f"{place} lacks {named}"


class Corpus(NamedTuple):
    """A corpus of a task, for some presets.

    ``parts`` are key of the yaml -> what it names; several parts make a list.
    ``keys`` are further values, of which "{output}" is the task's folder, and
    ``links`` name -> pattern under the data root of what is linked together in
    one folder, the ``data_folder``. The first one of a task for the preset
    "superb" is the task's own.
    """

    name: str
    presets: tuple[str, ...]
    parts: Mapping[str, Part | tuple[Part, ...]] = {}
    keys: Mapping[str, Any] = {}
    links: Mapping[str, str] = {}
    yaml: str | None = None

    def find(self, root: Path) -> tuple[dict[str, Any], list[str]]:
        """Keys of the yaml with their places; what is missing."""
        keys: dict[str, Any] = {}
        missing = []
        for key, parts in self.parts.items():
            several = not isinstance(parts, Part)
            places = [
                part.find(root) for part in (parts if several else [parts])
            ]
            missing += [fault for _, fault in places if fault]
            paths = [str(path) for path, _ in places]
            keys[key] = paths if several else paths[0]
        for pattern in self.links.values():
            if next(root.glob(pattern), None) is None:
                missing.append(f"there is no {pattern}")
        if self.keys.get("synthetic") and find_spec("espeakng_loader") is None:
            missing.append("synthetic speech needs the extra [demo]")
        return {**self.keys, **keys}, missing


class Task(NamedTuple):
    """A row of ``TASKS``."""

    title: str
    recipe: str
    scores: tuple[Score, ...]
    corpora: tuple[Corpus, ...]
    tiny: Mapping[str, Any] = {}
    mini: Mapping[str, Any] = {}
    pooled: bool = False
    """Whether the head takes means over time: they are cached and learning
    rates searched in minutes."""
    alone: bool = False
    """Whether one process does it, of those of torchrun."""

    def keys(self, preset: str) -> dict[str, Any]:
        """Keys of a preset."""
        return dict({"tiny": self.tiny, "mini": self.mini}.get(preset, {}))


_OWN, _TINY, _MINI = ("superb", "tiny"), ("tiny",), ("mini",)
_FEW = {"num_workers": 0, "number_of_epochs": 1}
_EMBEDDED = "embedded synthetic speech"
_SYNTHETIC = {"synthetic": True, "data_folder": "{output}/spoken"}
_SENTENCES = {
    **_SYNTHETIC,
    "synthetic_sentences": [40, 10, 10],
    "synthetic_voices": [8, 4, 4],
}
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
_MINI_SUBSETS = ("train-mini", "dev-mini", "test-other-mini")
_SHORT = {"subsets": _MINI_SUBSETS, "max_duration_s": 8.0}
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
        {**_FEW, "batches_per_epoch": 6, "batch_size": 8},
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
        (_accuracy("QbE", "MTWV ×100", 0.58, 7.36, "MTWV"),),
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
            _embedded(),
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
            _embedded({**_SYNTHETIC, "trials": None, "valid_speakers": None}),
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
                _folder(
                    ("IEMOCAP_full_release", "IEMOCAP", "iemocap"),
                    *(
                        f"Session{number}/{held}"
                        for number in range(1, 6)
                        for held in (
                            "sentences/wav",
                            "dialog/EmoEvaluation/*.txt",
                        )
                    ),
                ),
            ),
            _embedded(),
        ),
        _FEW,
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
            Corpus("intent", _TINY, _folder(("intent",), "manifest.csv")),
            _embedded(),
        ),
        _FEW,
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
            _embedded(),
        ),
        _FEW,
    ),
}
"""Short name -> task, in the order of the benchmark's tables."""


class Plan(NamedTuple):
    """What is to be run of a task."""

    name: str
    task: Task
    corpus: Corpus
    keys: dict[str, Any]
    own: bool


def plan_task(
    name: str, preset: str, root: Path
) -> tuple[Plan | None, list[str]]:
    """The first corpus of a task, of those for a preset, that is complete; if
    none is, what is missing of the first."""
    task = TASKS[name]
    faults: list[str] = []
    for corpus in task.corpora:
        if preset not in corpus.presets:
            continue
        keys, missing = corpus.find(root)
        if not missing:
            own = corpus is task.corpora[0]
            return Plan(name, task, corpus, keys, own), []
        faults = faults or [f"{corpus.name}: {fault}" for fault in missing]
    return None, faults


SUITS = ("means", "all", "none")
"""Of which tasks features are cached, or learning rates searched: those whose
heads take means over time, all, none."""

GRID = tuple(10.0**-power for power in range(1, 8))
"""Learning rates that SUPERB's rules search."""


def as_option(key: str, value: Any) -> str:
    """A key of a yaml on a recipe's command line."""
    return f"--{key}={json.dumps(value, ensure_ascii=False)}"
