"""The identity of an experiment: settings, data, and what may differ.

Two runs are of one experiment when their settings are the same, but for
``MAY_DIFFER``, and their data have the same content, wherever they lie.
"""

import csv
import hashlib
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from unispeech_sb.moved import current_name

FREE, TEST, MORE = "free", "test", "more"
PLACES = (
    *("output_folder", "save_folder", "manifest_folder", "units_folder"),
    *("data_folder", "test_folder", "wav_root", "audio_root"),
    *("simulated_folder", "split_file", "lexicon", "phones_table"),
    "fold_lists",
)
"""Keys that say where something lies; what is found there counts instead."""

MAY_DIFFER = {
    key: (kind, reason)
    for kind, reason, keys in (
        (
            MORE,
            "more of them train on from the last checkpoint",
            "number_of_epochs epoch_counter.limit optimizer_step_limit",
        ),
        (
            MORE,
            "more of them train on, at the learning rates of the longer "
            "schedule from there on",
            "total_updates lr_scheduler.total",
        ),
        (
            TEST,
            "only the test depends on it",
            "beam_search beam_size test_searcher num_test_trials",
        ),
        (TEST, "whom the training leaves out is in the manifests", "trials"),
        (TEST, "only the export depends on it", "window_s"),
        (FREE, "asks for another evaluation, always", "test_only"),
        (
            FREE,
            "where, or by how many, the same is computed",
            "device feature_cache num_workers prefetch_factor pin_memory "
            "persistent_workers data_parallel_backend data_parallel_count "
            "distributed_backend distributed_launch find_unused_parameters "
            "data_parallel distributed_timeout shard engine ray_address",
        ),
        (
            FREE,
            "how fast the same is computed, and in how much memory",
            "jit jit_module_keys compile compile_module_keys compile_mode "
            "compile_using_fullgraph compile_using_dynamic_shape_tracing "
            "gradient_checkpointing activation_checkpointing "
            "max_eval_batch_s",
        ),
        (
            FREE,
            "what is shown and logged",
            "noprogressbar tqdm_colored_bar tqdm_barcolor tensorboard "
            "tensorboard_logger train_logger log_config profile_training "
            "profile_warmup profile_steps",
        ),
        (
            FREE,
            "how often is saved: a run resumes to the same weights",
            "ckpt_interval_minutes ckpt_interval_steps async_checkpoints "
            "keep_checkpoints",
        ),
        (FREE, "when to give up", "nonfinite_patience"),
        (
            FREE,
            "what it leads to is in the manifests",
            "skip_prep skip_bad_files skip_damaged corpus simulated_corpus "
            "split_by split_shares",
        ),
        (
            FREE,
            "how the command is written",
            "param_file overridden_args overwrite traceback",
        ),
        (
            FREE,
            "a place: what is found there counts",
            " ".join((*PLACES, "data_name")),
        ),
    )
    for key in keys.split()
}
"""Key of a yaml, or option -> kind and reason, of all that may differ between
two runs of one experiment. ``MORE`` may grow, and the run trains on; after a
change of ``TEST`` a finished run is tested and exported again; ``FREE`` changes
nothing. A key inside another one counts as one of the same name."""

_CONTENT = (
    *("model", "head_from", "vocabulary", "trials"),
    *("noise_folder", "rir_folder", "noise_list", "rir_list"),
)
"""Keys that may name a file or a folder, which then counts by its content."""

INPUTS = (*PLACES[3:], *_CONTENT)

_READ = {
    *(".ckpt", ".bin", ".pt", ".pth", ".safetensors", ".model", ".json"),
    *(".yaml", ".txt", ".npy", ""),
}
"""Suffixes of what is read of a folder; other files count by name and size."""

_RECORDING = ("ID", "duration", "start", "stop", "wav")
_NUM_SAMPLED, _SAMPLE_BYTES = 16, 2**16  # recordings that are looked into
_NOTHING = "not given"
_SHARDS = b"unispeech_sb shards"  # in the index of a folder of them
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
SPLITS = ("train.csv", "valid.csv", "test.csv")
MANIFESTS = (
    *SPLITS,
    *(f"voices/{name}" for name in SPLITS),
    "documents/test.csv",
)


def read_settings(
    text: str,
    options: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Key, or ``key.inner key``, -> value of a yaml with resolved references.

    ``options`` count before it, and are left out at their ``defaults``. Values
    that begin with a place say so: they are the same when it moves. What is
    read from stands with the digest of its content.
    """
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    top = [(key.value, node) for key, node in yaml.compose(text).value]
    for key, node in top:
        if isinstance(node, yaml.CollectionNode):
            names[id(node)] = key
    for key, node in top:
        if not key.startswith("__"):
            _flatten(node, key, found, names)
    for key, value in (options or {}).items():
        if key in found or value != (defaults or {}).get(key):
            found[key] = _number(value) if isinstance(value, str) else value
    places = {k: found[k] for k in (*PLACES, *_CONTENT) if _is_path(found, k)}
    longest_first = sorted(places, key=lambda key: -len(places[key]))
    own = [key for key in longest_first if key in PLACES[:3]]
    for key, value in found.items():
        if isinstance(value, str) and key not in PLACES:
            known = own if key in _CONTENT else longest_first
            found[key] = _placed(key, value, known, places)
    for key in found:
        if _names_of(key)[-1] in _CONTENT and _is_path(found, key):
            content = _digest(found[key])
            if content is not None:
                found[key] = {"path": found[key], "content": content}
    return found


def _is_path(found, key):
    """Whether a key has a text that may be a path."""
    value = found.get(key)
    return isinstance(value, str) and value not in ("", ".", "/")


def _placed(key, value, names, places):
    """A value, with the place that it begins with by name."""
    for name in names:
        place = places[name]
        if value.startswith(f"{place}/") or (value == place and "." in key):
            return f"<{name}>{value[len(place) :]}"
    return value


def _flatten(node, path, found, names):
    """Adds the values of a node; what stands elsewhere too is named."""
    if isinstance(node, yaml.ScalarNode):
        found[path] = _plain(node)
        return
    if names.setdefault(id(node), path) != path:
        found[path] = f"<{names[id(node)]}>"
        return
    if not node.tag.startswith("tag:yaml.org"):
        kind, _, name = node.tag.partition(":")
        found[path] = f"{kind}:{current_name(name)}"
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _flatten(value, f"{path}.{key.value}", found, names)
    elif all(isinstance(item, yaml.ScalarNode) for item in node.value):
        key = path if path not in found else f"{path}.arguments"
        found[key] = [_plain(item) for item in node.value]
    else:
        for index, item in enumerate(node.value):
            _flatten(item, f"{path}[{index}]", found, names)


def _plain(node):
    """A scalar as JSON has it."""
    text = node.value
    if node.style in ("'", '"'):
        return text
    return _WORDS.get(text.lower(), _number(text))


def _number(text):
    """A number in any spelling as one; another text as it is."""
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        return value if abs(value) < float("inf") else text
    return text


def _new_digest():
    """What digests are made by."""
    return hashlib.blake2b(digest_size=16)


def _digest(path: str | Path) -> str | None:
    """Digest of a file or folder; None where there is nothing.

    Of a folder, weights and texts count by content, other files by name and
    size.
    """
    path = Path(path)
    if path.is_file():
        return _digest_files([("", path)])
    if not path.is_dir():
        return None
    files = [p for p in sorted(path.rglob("[!.]*")) if p.is_file()]
    return _digest_files([(p.relative_to(path).as_posix(), p) for p in files])


def _digest_files(files):
    """Of names and files."""
    found = _new_digest()
    for name, path in files:
        if name.endswith((".md", "SHA256SUMS")):  # which has the README's
            continue
        found.update(f"{name}\0{path.stat().st_size}\0".encode())
        if not name or path.suffix.lower() in _READ:
            _add_file(found, path)
    return found.hexdigest()


def _add_file(found, path):
    """Adds all of a file to a digest."""
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)


def describe_data(hparams: dict[str, Any]) -> dict[str, Any]:
    """Describes manifests, and units, by numbers to read and digests.

    Of each split: the recordings (IDs, lengths, names), the beginnings of a
    few files, and each other column.
    """
    found = {}
    for key in ("manifest_folder", "units_folder", "data_folder"):
        folder = Path(str(hparams.get(key) or os.devnull))
        index = folder / "index.json"
        if index.is_file() and _SHARDS in index.read_bytes()[:200]:
            found["shards"] = {"recordings": _digest(index)}
            continue
        for name in MANIFESTS if key != "data_folder" else ():
            if (folder / name).is_file():
                split = name.removesuffix(".csv")
                found[split] = _describe_manifest(folder / name)
        if key == "units_folder" and folder.is_dir():
            files = [folder / "units.json", *sorted(folder.glob("*.npy"))]
            named = [(file.name, file) for file in files if file.is_file()]
            found["units"] = {"content": _digest_files(named)}
    return found


def _describe_manifest(path):
    """Counts and digests of a manifest."""
    recordings, columns = _new_digest(), defaultdict(_new_digest)
    wavs, known = [], {"label": set(), "spk_id": set()}
    contents, unknown = {}, {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, restkey="", skipinitialspace=True):
            own = {key: row.pop(key, None) or "" for key in _RECORDING}
            wavs.append(own["wav"])
            own["wav"] = os.path.basename(own["wav"])
            recordings.update(json.dumps(own).encode())
            for key in known.keys() & row.keys():
                known[key].add(row[key])
            for key, value in row.items():
                content = _read(value, contents)
                columns[key].update(json.dumps(content).encode())
                unknown |= {key: None} if content is None else {}
    digests = {key: column.hexdigest() for key, column in columns.items()}
    return {
        "utterances": len(wavs),
        **{key: len(values) for key, values in known.items() if values},
        "recordings": recordings.hexdigest(),
        "audio": _digest_audio(wavs),
        "columns": digests | unknown,
    }


def _read(value, contents):
    """A value of a manifest; of a file, what is in it, None if it is gone."""
    if not isinstance(value, str) or not os.path.isabs(value):
        return value or ""
    if value not in contents:
        contents[value] = _digest(value)
    return contents[value]


def _digest_audio(wavs):
    """Of the beginnings of some files; None where one is not there."""
    found = _new_digest()
    for number in range(min(_NUM_SAMPLED, len(wavs))):
        path = wavs[number * len(wavs) // min(_NUM_SAMPLED, len(wavs))]
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In what two experiments differ that may not, a text for each.

    Where there are any, the places of other data too. Keys that only one of two
    versions has are no difference.
    """
    found = []
    if old.get("recipe", new.get("recipe")) != new.get("recipe"):
        found.append(f"recipe: {old['recipe']} before, {new['recipe']} now")
    same_version = old.get("version") == new.get("version")
    one, other = old["settings"], new["settings"]
    named: dict[str, Any] = {}
    keys = dict.fromkeys([*other, *one])
    for key in sorted(keys, key=lambda key: len(_names_of(key)) > 1):
        pair = one.get(key, _NOTHING), other.get(key, _NOTHING)
        if _may_differ(key, *pair) or _follows(key, pair, named):
            continue
        if same_version or _NOTHING not in pair:
            named[key] = pair
            found.append(f"{key}: {_difference(*pair)}")
    if "data" in old and "data" in new:
        found += _data_differences(old["data"], new["data"], same_version)
    for key in PLACES[3:] if found else ():
        pair = one.get(key, _NOTHING), other.get(key, _NOTHING)
        if key != "units_folder" and not _same(*pair):
            found.append(f"{key}: {_difference(*pair)}")
    return found


def _follows(key, pair, named):
    """Whether a difference inside another key follows from one named."""
    if any(key.startswith((f"{name}.", f"{name}[")) for name in named):
        return True
    return len(_names_of(key)) > 1 and pair in named.values()


def asks_for_more(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a finished experiment is to train on, or to be tested again."""
    one, other = old["settings"], new["settings"]
    return bool(other.get("test_only")) or any(
        _kind(key) in (MORE, TEST)
        and not _same(one.get(key, _NOTHING), other.get(key, _NOTHING))
        for key in {*one, *other}
    )


def _names_of(key):
    """The names on the way to a value."""
    return [name for name in re.split(r"[.\[\]]+", key) if name]


def _kind(key):
    """In what way a key may differ; None where it may not."""
    for name in (key, *_names_of(key)):
        if name in MAY_DIFFER:
            return MAY_DIFFER[name][0]
    return None


def _may_differ(key, old, new):
    """Whether two values of a key may be of one experiment."""
    kind = _kind(key)
    if kind == MORE and not _same(old, new):
        return _limit(new) >= _limit(old)
    return kind is not None or _same(old, new)


def _limit(value):
    """A limit as a number; what is none compares with nothing."""
    if value in (None, _NOTHING):
        return float("inf")
    return value if isinstance(value, (int, float)) else float("nan")


def _same(old, new):
    """Whether two values are the same: of files, whether their contents are."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old["content"] == new["content"]
    return _shown(old) == _shown(new)


def _difference(old, new):
    """How two values differ, in words."""
    old, new = _shown(old), _shown(new)
    if old == new:
        return f"{new} has another content now"
    return f"{old} before, {new} now"


def _shown(value):
    """A value as a yaml has it."""
    if isinstance(value, dict):
        value = value["path"]
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value)


def _data_differences(old, new, same_version):
    """How two descriptions of data differ, in words."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name, {}), new.get(name, {})
        counts = [side.get("utterances", 0) for side in (one, other)]
        columns = [side.get("columns", {}) for side in (one, other)]
        if not same_version:
            both = columns[0].keys() & columns[1].keys()
            columns = [{key: side[key] for key in both} for side in columns]
        if name == "units" and one != other:
            found.append("units: other ones than before")
        elif counts[0] != counts[1]:
            found.append(
                "{}: {} utterances before, {} now".format(name, *counts)
            )
        elif _unequal(one, other, ("recordings", "audio")):
            found.append(f"{name}: other recordings")
        elif changed := _unequal(
            *columns, dict.fromkeys([*columns[1], *columns[0]])
        ):
            found.append(f"{name}: other values of {', '.join(changed)}")
    return found


def _unequal(one, other, keys):
    """Keys whose digests differ; those that are not known do not."""
    return [
        key
        for key in keys
        if one.get(key, "") != other.get(key, "")
        and None not in (one.get(key, ""), other.get(key, ""))
    ]
