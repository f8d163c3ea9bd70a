"""Data before training: ``unispeech-sb data check``."""

import hashlib
import json
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from unispeech_sb.commands.options import new_parser
from unispeech_sb.recipe_options import (
    home_of,
    plain_values,
    read_command_line,
)
from unispeech_sb.text import absent

TASKS = {
    "asr": "asr",
    "phoneme_recognition": "phoneme",
    "keyword_spotting": "keyword_spotting",
    "emotion_recognition": "emotion_recognition",
    "intent_classification": "intent_classification",
    "slot_filling": "slot_filling",
    "speaker_identification": "speaker_identification",
    "speaker_verification": "speaker_verification",
    "speaker_diarization": "speaker_diarization",
    "make_units": "pretraining",
}
"""Recipe -> what ``read_corpus`` calls its task."""

_SPLITS = ("train", "valid", "test")
_NUM_LABELS = 30  # that are printed
_NUM_NAMED = 5  # of each problem
_LEAST_CLIPS = 5  # of each word, on average, for keyword spotting
_SILENCE = "_silence_"
_BLOCK = 2**20


def data(argv: Sequence[str]) -> None:
    """Says what data are, per split, and what is wrong with them.

    Exits with 1 where something is, with 2 when the command line makes no
    sense.
    """
    arguments, keys = _parse(argv)
    folder = arguments.folder
    if not Path(folder).exists():
        raise ValueError(f"{folder}: {absent(folder)}")
    hparams: dict[str, Any] = {"data_folder": folder}
    if arguments.task:
        hparams = settings(arguments.task, [f"--data_folder={folder}", *keys])
    report = _check(folder, arguments.task, hparams, arguments.quick)
    if report["next"] and keys:
        report["next"] += f" {shlex.join(keys)}"
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(_as_text(report))
    if report["problems"]:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "data", "Check data before training: what is there, and what is wrong."
    )
    parser.usage = "%(prog)s check FOLDER [--task T] [--json] [--key=value ...]"
    parser.add_argument("action", choices=["check"], metavar="check")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="what would be the data_folder of a recipe: a folder or a list",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        metavar="T",
        help="the recipe that is to be trained, whose keys may follow: "
        f"{', '.join(TASKS)}; whatever is there is shown when omitted",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="read the headers of recordings alone: finds no silence, no "
        "damage and no copies",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON"
    )
    arguments, keys = parser.parse_known_args(argv)
    if keys and not arguments.task:
        parser.error(f"{keys[0]}: keys of a recipe need --task")
    return arguments, keys


def settings(recipe, keys):
    """The yaml of a recipe, with what the command line changes."""
    path = files(home_of("hparams")) / f"{recipe}.yaml"
    return plain_values(read_command_line([str(path), *keys], "data check"))


def _check(folder, recipe, hparams, quick):
    """All that is found out about data, as it is printed as JSON."""
    from unispeech_sb.dataio.corpora import CORPORA, find_corpus, read_corpus
    from unispeech_sb.dataio.splits import SPLITS_FILE

    if recipe is None:
        recipe, own = published(folder)
        hparams |= own
    task = TASKS.get(recipe, "anything")
    name = find_corpus(task, hparams, folder)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as manifests:
        options = {**hparams, "faults": faults, "manifest_folder": manifests}
        records, error = [], None
        try:
            if recipe is None:
                records = list(read_corpus("anything", options, folder))
            else:
                records = list(read_corpus(task, options, folder))
        except ValueError as problem:
            if name is None:
                raise
            error = str(problem)
        made = Path(manifests, SPLITS_FILE)
        made = json.loads(made.read_text("utf-8")) if made.is_file() else None
    audio = _Audio(records, quick)
    problems: dict[str, dict[str, None]] = defaultdict(dict)
    for fault in [*faults, *([error] if error else [])]:
        missing = "no such file" in fault
        problems["missing files" if missing else "rows"][fault] = None
    if records:
        _find_problems(records, audio, recipe, hparams, problems)
    return {
        "folder": str(folder),
        "form": name,
        "layout": CORPORA[name].layout,
        "task": recipe,
        "splits": _count(records, audio),
        "splits_made": made,
        "problems": [
            {
                "kind": kind,
                "count": len(found),
                "examples": [*found][:_NUM_NAMED],
            }
            for kind, found in problems.items()
        ],
        "next": _next(folder, recipe, records, hparams),
    }


def published(folder):
    """Recipe and settings of a corpus that has a reader of its own."""
    from unispeech_sb.dataio.corpora import CORPORA

    kinds = [name for name, c in CORPORA.items() if c.kind == "corpus"]
    known = [n for n in kinds if CORPORA[n].recognises(Path(folder))]
    for recipe, task in TASKS.items():
        readers = [n for n in known if task in CORPORA[n].readers]
        if task != "pretraining" and readers:
            return recipe, settings(recipe, [f"--data_folder={folder}"])
    return None, {}


class _Audio:
    """What is found in the recordings of records: seconds, rate, faults."""

    def __init__(self, records, quick):
        from tqdm import tqdm

        from unispeech_sb.dataio.audio import (
            AudioError,
            attempt,
            check_audio,
            read_header,
        )

        self.seconds: dict[int, float] = {}
        self.rates: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        self.contents: dict[str, str] = {}
        found_s: dict[str, float] = {}
        bar = tqdm(records, "data check", unit="file", disable=None)
        for place, record in enumerate(bar):
            wav, times = (
                record["wav"],
                (record.get("start"), record.get("stop")),
            )
            if wav in self.faults:
                continue
            if wav not in self.rates:
                found = attempt(wav, read_header, wav)
                if isinstance(found, AudioError):
                    self.faults[wav] = str(found)
                    continue
                self.rates[wav] = found[1]
                found_s[wav] = found[0] / found[1]
            if quick:
                self.seconds[place] = record.get("duration", found_s[wav])
                continue
            silent = record.get("label") == _SILENCE
            limits = (16000, 400, silent)
            checked = attempt(wav, check_audio, wav, *times, *limits)
            if isinstance(checked, AudioError):
                self.faults[wav] = str(checked)
            else:
                self.seconds[place] = checked
        if not quick:
            self.contents = _same_contents(self.rates)


def _same_contents(paths: Iterable[str]) -> dict[str, str]:
    """Digests of files that are as long as another one."""
    sizes = defaultdict(list)
    for path in paths:
        sizes[Path(path).stat().st_size].append(path)
    found = {}
    for path in (p for own in sizes.values() if len(own) > 1 for p in own):
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        found[path] = digest.hexdigest()
    return found


def _find_problems(records, audio, recipe, hparams, problems):
    """Adds what is wrong with records: kind -> names, in order."""
    for fault in audio.faults.values():
        kind = "unreadable recordings"
        if "no such file" in fault:
            kind = "missing files"
        elif "all silent" in fault:
            kind = "silent recordings"
        problems[kind][fault] = None
    by_split = {
        split: [r for r in records if r.get("split") == split]
        for split in _SPLITS
    }
    for split in _needed(hparams):
        if not by_split[split]:
            problems[f"no recordings of the split {split}"][split] = None
    for name, count in Counter(r["ID"] for r in records).items():
        if count > 1:
            problems["names that occur twice"][name] = None
    _find_texts(records, recipe, hparams, problems)
    _find_copies(records, audio, problems)
    by_speaker = recipe in ("speaker_identification", "speaker_verification")
    for record in records if by_speaker else ():
        if not record.get("spk_id", "").strip():
            problems["recordings without a speaker"][record["ID"]] = None
    if recipe != "speaker_identification":
        for name, splits in _splits_of(records, "spk_id").items():
            if len(splits) > 1:
                text = f"{name} ({', '.join(splits)})"
                problems["speakers in two splits"][text] = None
    for key in _label_keys(recipe, hparams):
        for name, splits in _splits_of(records, key).items():
            if by_split["train"] and "train" not in splits:
                text = f"{name} ({', '.join(splits)})"
                problems["labels that are not in train"][text] = None


def _needed(hparams):
    """Splits that there have to be: those that the recipe does not make."""
    from unispeech_sb.dataio.splits import VALID_WAYS

    if not hparams.get("simulated"):
        yield "train"
    if not any(hparams.get(key) for key in VALID_WAYS):
        yield "valid"


def _label_keys(recipe, hparams):
    """Columns whose values are classes."""
    if recipe == "speaker_identification":
        return ("spk_id",)
    if recipe == "intent_classification":
        return tuple(hparams["slots"])
    return ("label",)


def _splits_of(records, key):
    """Value of a column -> the splits that it is in, in their order."""
    found = defaultdict(dict)
    for record in records:
        if record.get(key):
            found[record[key]][record.get("split")] = None
    return {
        name: [split for split in _SPLITS if split in splits]
        for name, splits in found.items()
    }


def _text_key(recipe, hparams):
    """The column of texts."""
    return hparams.get("text_column", "wrd") if recipe == "asr" else "wrd"


def _find_texts(records, recipe, hparams, problems):
    """Adds empty texts, and letters that occur once."""
    key = _text_key(recipe, hparams)
    if recipe != "asr" and not any(key in record for record in records):
        return
    letters: Counter[str] = Counter()
    for record in records:
        text = record.get(key) or ""
        letters.update(text)
        if not text.strip():
            problems["empty texts"][record["ID"]] = None
    for letter, count in sorted(letters.items()):
        if count == 1 and letter.strip():
            problems["letters that occur once"][letter] = None


def _find_copies(records, audio, problems):
    """Adds recordings that are there twice, and those in two splits."""
    order = {split: number for number, split in enumerate(_SPLITS)}
    places = defaultdict(list)
    for record in records:
        wav = record["wav"]
        start, stop = record.get("start"), record.get("stop")
        span = (start or 0, float("inf") if stop is None else stop)
        known = audio.contents.get(wav, wav)
        places[known].append((span, record.get("split") or "", record))
    for found in places.values():
        found.sort(key=lambda entry: (entry[0], order.get(entry[1], 0)))
        for (one, split, first), (two, other, second) in pairwise(found):
            if two[0] >= one[1] or first.get("label") == _SILENCE:
                continue
            text = f"{first['wav']} and {second['wav']}"
            if first["wav"] == second["wav"]:
                text = f"{first['ID']} and {second['ID']} of {first['wav']}"
            if split != other:
                text = f"{text} ({split}, {other})"
                problems["recordings in two splits"][text] = None
            elif one == two:
                problems["recordings that are there twice"][text] = None


def _count(records, audio):
    """What there is of each split."""
    found = {}
    for split in _SPLITS:
        places = [n for n, r in enumerate(records) if r.get("split") == split]
        if not places:
            continue
        own = [records[place] for place in places]
        seconds = [audio.seconds[n] for n in places if n in audio.seconds]
        wavs = {record["wav"] for record in own}
        rates = Counter(audio.rates[w] for w in wavs if w in audio.rates)
        labels = Counter(r["label"] for r in own if r.get("label"))
        found[split] = {
            "utterances": len(own),
            "files": len(wavs),
            "hours": round(sum(seconds) / 3600, 4),
            "shortest_s": round(min(seconds, default=0.0), 3),
            "longest_s": round(max(seconds, default=0.0), 3),
            "speakers": len(_speakers(own)),
            "labels": dict(sorted(labels.items())),
            "sample_rates": {str(k): n for k, n in sorted(rates.items())},
        }
    return found


def _are_keywords(texts):
    """Whether texts are single words, each of which many recordings have."""
    words = set(texts)
    are_single = all(word and len(word.split()) == 1 for word in words)
    return 1 < len(words) <= len(texts) / _LEAST_CLIPS and are_single


def _column_of_texts(records):
    """What a list calls the column of its texts."""
    from unispeech_sb.dataio.corpora.csv_table import ALIASES

    names = {name for group in ALIASES["wrd"] for name in group}
    return next((name for name in records[0] if name in names), "wrd")


def _speakers(records):
    """Names of the speakers, of recordings and of the turns in them."""
    from unispeech_sb.dataio.rttm import read_annotations

    paths = dict.fromkeys(r["rttm"] for r in records if r.get("rttm"))
    turns = {path: read_annotations(path, merge=True) for path in paths}
    found = {record.get("spk_id") for record in records}
    for record in records:
        own = turns.get(record.get("rttm"), {})
        name = record.get("rttm_name", record.get("ID"))
        found.update(turn.speaker for turn in own.get(name, ()))
    return found - {None, ""}


def _next(folder, recipe, records, hparams):
    """The command that trains on the data."""
    column = None
    if recipe is None:
        marks = {"wrd": "asr", "label": "keyword_spotting"}
        marks["spk_id"] = "speaker_identification"
        found = [t for k, t in marks.items() if any(r.get(k) for r in records)]
        recipe = found[0] if found else None
        if recipe == "asr" and _are_keywords([r.get("wrd") for r in records]):
            recipe, column = "keyword_spotting", _column_of_texts(records)
    if recipe is None:
        return None
    command = (
        f"unispeech-sb recipe {recipe} --data_folder={shlex.quote(str(folder))}"
    )
    if recipe in ("keyword_spotting", "emotion_recognition"):
        labels = {r["label"] for r in records if r.get("label")}
        if column and not labels:
            labels = {record["wrd"] for record in records}
            command += f" --label_column={column}"
        if len(labels) != hparams.get("num_classes"):
            command += f" --num_classes={len(labels)}"
    return command


def _as_text(report):
    """The report as people read it."""
    made, splits = report["splits_made"], report["splits"]
    lines = [f"{report['folder']}: {report['layout']} ({report['form']})"]
    if made:
        lines.append(
            f"splits: none in the data; drawn by seed {made['seed']}, each "
            f"{made['kept together']} in one split only"
        )
    lines.append(" " * 14 + "".join(f"{split:>12}" for split in splits))
    rows = ("utterances", "files", "hours", "shortest_s", "longest_s")
    for row in (*rows, "speakers"):
        numbers = (f"{own[row]:>12,}" for own in splits.values())
        lines.append(f"{row.replace('_', ' '):<14}" + "".join(numbers))
    for title, key in (("labels", "labels"), ("Hz", "sample_rates")):
        names = dict.fromkeys(n for own in splits.values() for n in own[key])
        for name in [*names][:_NUM_LABELS]:
            counts = (own[key].get(name, 0) for own in splits.values())
            numbers = "".join(f"{count:>12,}" for count in counts)
            label = f"{name} Hz" if title == "Hz" else f"= {name}"
            lines.append(f"{label:<14}{numbers}")
        if len(names) > _NUM_LABELS:
            lines.append(f"and {len(names) - _NUM_LABELS} more {title}")
    lines.append("problems: none" if not report["problems"] else "problems:")
    for problem in report["problems"]:
        lines.append(f"  {problem['kind']} ({problem['count']}):")
        lines += [f"    {example}" for example in problem["examples"]]
        more = problem["count"] - len(problem["examples"])
        lines += [f"    and {more} more"] if more else []
    if report["next"]:
        lines.append(f"next: {report['next']}")
    return "\n".join(lines)
