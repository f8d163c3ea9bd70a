"""Google Speech Commands v0.01 and v0.02 (Warden, arXiv:1804.03209), with
SUPERB's keyword spotting split (Yang et al., arXiv:2105.01051) or a leak-free
one.
"""

import collections
import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.manifest import SILENCE, SPLITS
from unispeech_sb.text import read_text

__all__ = ["class_balanced_weights", "speech_commands"]

COMMANDS = tuple("yes no up down left right on off stop go".split())
UNKNOWN = "_unknown_"
WORDS = {
    "v0.01": (
        *COMMANDS,
        *"zero one two three four five six seven eight nine".split(),
        *"bed bird cat dog happy house marvin sheila tree wow".split(),
    )
}
WORDS["v0.02"] = (
    *WORDS["v0.01"],
    *"backward follow forward learn visual".split(),
)

_BACKGROUND = "_background_noise_"
_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
_HASH_MODULUS = 2**27  # of the split function that Warden publishes
_HELD_OUT = 0.1  # share of each noise recording for valid, and for test


def speech_commands(
    data_folder: str | Path,
    version: str = "v0.01",
    num_classes: int = 12,
    preset: str = "superb",
    test_folder: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Reads the records of a Speech Commands folder.

    Preset "superb" is what the published numbers are made of: v0.01, 12
    classes, train and valid by a hash of the speaker, its share of 10 to 20 %
    discarded, the test archive as test. ``_silence_`` are the whole noise
    recordings, the same ones in train and valid: the recipe crops them
    (``audio_pipeline(random_silence=True, gain_db=-3)``) and samples by
    ``class_balanced_weights``.

    Preset "clean" follows the official lists and discards nothing.
    ``_silence_`` are 1 s stretches of the noise recordings, as many as an
    average command has. Each split has its own part of every recording; where
    that is shorter than the stretches together, these overlap within the split,
    never across. With a test archive the clips of ``testing_list.txt`` are not
    used, and the archive's own ``_silence_`` may stem from any part.

    With 12 classes, every clip of the words that are no command (20 words in
    v0.01, 25 in v0.02) is ``_unknown_``: more than half of all clips, hence
    the weights. With 30 (v0.01) or 35 (v0.02), each word is a class and there
    is no ``_unknown_`` and no ``_silence_``.

    Arguments
    ---------
    data_folder : str or path-like
        The unpacked ``speech_commands_<version>.tar.gz``.
    version : str
        "v0.01" or "v0.02".
    num_classes : int
        12; or 30 for v0.01, 35 for v0.02.
    preset : str
        "superb" or "clean".
    test_folder : str or path-like, optional
        The unpacked ``speech_commands_test_set_<version>.tar.gz``: needed for
        "superb", possible for "clean" with 12 classes.

    Returns
    -------
    iterator of dict
        Records without ``duration`` (``check_records`` fills it in), with the
        spoken ``word`` beside the label.

    Raises
    ------
    ValueError
        When the choices do not go together, or the folders lack something.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> for word in WORDS["v0.01"]:
    ...     clip = folder.mkdir(word).join("ab12_nohash_0.wav")
    ...     clip.write("")
    >>> for name in ("validation_list.txt", "testing_list.txt"):
    ...     folder.join(name).write("")
    >>> records = list(speech_commands(folder, "v0.01", 30, preset="clean"))
    >>> len(records), records[0]["label"], records[0]["spk_id"]
    (30, 'yes', 'ab12')
    """
    _check_choices(version, num_classes, preset, test_folder)
    data_folder = os.path.abspath(data_folder)
    _check_folder(data_folder, version, WORDS[version])
    if preset == "superb":
        clips = _superb_clips(data_folder)
        silence = _whole_recordings(data_folder)
    else:
        clips = list(_clean_clips(data_folder, version))
        silence = _stretches(data_folder, _clips_per_command(clips))
    if num_classes > 12:
        return iter(clips)
    records = chain(map(_as_unknown, clips), silence)
    if test_folder is None:
        return records
    return chain(
        (record for record in records if record["split"] != "test"),
        _test_archive(os.path.abspath(test_folder), version),
    )


def is_speech_commands(path):
    """Whether a folder has those of most words, and no table that says more;
    some folders of words are of other classes."""
    words = sum(Path(path, word).is_dir() for word in WORDS["v0.02"])
    own = any(Path(path, n).exists() for n in (_BACKGROUND, *_LISTS.values()))
    most = words > len(WORDS["v0.01"]) / 2 or words and own
    return bool(most) and not Path(path, "manifest.csv").is_file()


def class_balanced_weights(records: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Weighs records so that every class is drawn equally often.

    Arguments
    ---------
    records : list of dict
        Records with a ``label``.

    Returns
    -------
    torch.Tensor
        Number of records / number of records of its label, float64, [N]: the
        weights of ``torch.utils.data.WeightedRandomSampler``.

    Example
    -------
    >>> labels = ["yes", "no", "no", "no"]
    >>> class_balanced_weights([{"label": label} for label in labels])
    tensor([4.0000, 1.3333, 1.3333, 1.3333], dtype=torch.float64)
    """
    counts = collections.Counter(record["label"] for record in records)
    return torch.tensor(
        [len(records) / counts[record["label"]] for record in records],
        dtype=torch.float64,
    )


def _check_choices(version, num_classes, preset, test_folder):
    """Raises on choices that do not exist or do not go together."""
    if version not in WORDS:
        raise ValueError(f"expected version v0.01 or v0.02, got {version!r}")
    if preset not in ("superb", "clean"):
        raise ValueError(f"expected preset superb or clean, got {preset!r}")
    possible = (12, len(WORDS[version]))
    if num_classes not in possible:
        raise ValueError(
            f"expected {possible[0]} or {possible[1]} classes for {version}, "
            f"got {num_classes}"
        )
    if preset == "superb" and (version, num_classes) != ("v0.01", 12):
        raise ValueError(
            "expected v0.01 with 12 classes for the preset superb, "
            f"got {version} with {num_classes}"
        )
    if preset == "superb" and test_folder is None:
        raise ValueError(
            "expected a test_folder for the preset superb: unpack "
            "speech_commands_test_set_v0.01.tar.gz"
        )
    if num_classes != 12 and test_folder is not None:
        raise ValueError(
            "expected no test_folder: the test archives have 12 classes, "
            f"got {num_classes}"
        )


def _check_folder(folder, archive, labels):
    """Raises unless a folder has one sub-folder with clips per label."""
    archive = f"speech_commands_{archive}.tar.gz"
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder, unpack {archive} there")
    found = {
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and entry.name[0] != "."
    }
    missing = [label for label in labels if label not in found]
    extra = sorted(found - set(labels) - {_BACKGROUND})
    if missing or extra:
        raise ValueError(
            f"{folder}: expected the folders of {archive}, "
            f"missing {', '.join(missing) or 'none'}, "
            f"not expected {', '.join(extra) or 'none'}"
        )
    for label in labels:
        if not _wavs(os.path.join(folder, label)):
            raise ValueError(
                f"{folder}: no .wav in {label}, unpack {archive} anew"
            )


def _wavs(folder):
    """Lists the recordings of a folder, sorted."""
    return sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(".wav") and name[0] != "."
    )


def _clip(folder, word, name, split):
    """Makes the record of one clip; its label is the word."""
    speaker, mark, _ = name.partition("_nohash_")
    return {
        "ID": f"{word}_{os.path.splitext(name)[0]}",
        "wav": os.path.join(folder, word, name),
        "split": split,
        "spk_id": speaker if mark else "",
        "label": word,
        "word": word,
    }


def _as_unknown(record):
    """Relabels the clip of a word that is no command."""
    known = record["label"] in COMMANDS
    return record if known else {**record, "label": UNKNOWN}


def _superb_clips(folder):
    """Reads all clips but those of the speakers that SUPERB discards."""
    for word in WORDS["v0.01"]:
        for name in _wavs(os.path.join(folder, word)):
            percent = _hash_percent(name)
            if not 10 <= percent < 20:
                split = "valid" if percent < 10 else "train"
                yield _clip(folder, word, name, split)


def _hash_percent(name):
    """Places a speaker between 0 and 100, as Warden's split does."""
    speaker = name.partition("_nohash_")[0]
    digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    return digest % _HASH_MODULUS * (100.0 / (_HASH_MODULUS - 1))


def _clean_clips(folder, version):
    """Reads all clips, split by the official lists."""
    split_of = _read_lists(folder, version)
    for word in WORDS[version]:
        for name in _wavs(os.path.join(folder, word)):
            split = split_of.pop(f"{word}/{name}", "train")
            yield _clip(folder, word, name, split)
    if split_of:
        raise ValueError(
            f"{folder}: {len(split_of)} clips of the split lists are missing, "
            f"such as {min(split_of)}, unpack "
            f"speech_commands_{version}.tar.gz anew"
        )


def _read_lists(folder, version):
    """Reads which clips are valid and which are test."""
    split_of = {}
    for split, name in _LISTS.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise ValueError(
                f"{folder}: no {name}, which is part of "
                f"speech_commands_{version}.tar.gz"
            )
        split_of |= dict.fromkeys(read_text(path).split(), split)
    return split_of


def _clips_per_command(clips):
    """Averages how many clips of a split one command has."""
    splits = (c["split"] for c in clips if c["label"] in COMMANDS)
    counts = collections.Counter(splits)
    return {split: round(counts[split] / len(COMMANDS)) for split in SPLITS}


def _noise_recordings(folder):
    """Lists name and path of the noise recordings."""
    folder = os.path.join(folder, _BACKGROUND)
    names = _wavs(folder) if os.path.isdir(folder) else []
    if not names:
        raise ValueError(
            f"{folder}: no .wav, but _silence_ is cut from the noise "
            "recordings of the archive"
        )
    return [(os.path.splitext(n)[0], os.path.join(folder, n)) for n in names]


def _silence(name, wav, split):
    """Makes the record of a noise recording."""
    return {
        "ID": f"{split}{SILENCE}{name}",
        "wav": wav,
        "split": split,
        "spk_id": "",
        "label": SILENCE,
        "word": "",
    }


def _whole_recordings(folder):
    """Gives every noise recording to train and to valid, as SUPERB does."""
    for split in ("train", "valid"):
        for name, wav in _noise_recordings(folder):
            yield _silence(name, wav, split)


def _stretches(folder, counts):
    """Cuts 1 s stretches; no sample of a recording is in two splits."""
    parts = {split: [] for split in SPLITS}
    for name, wav in _noise_recordings(folder):
        num_samples, rate = read_header(wav)
        seconds = num_samples // rate
        held_out = max(1, round(_HELD_OUT * seconds))
        train_end, valid_end = seconds - 2 * held_out, seconds - held_out
        if train_end < 1:
            raise ValueError(f"{wav}: expected 3 s of noise, got {seconds} s")
        bounds = (0, train_end, valid_end, seconds)
        for split, start, stop in zip(
            SPLITS, bounds[:-1], bounds[1:], strict=True
        ):
            parts[split].append((name, wav, rate, start, stop))
    for split in SPLITS:
        yield from _spread(split, parts[split], counts[split])


def _spread(split, parts, count):
    """Spreads stretches evenly over a split's parts of the recordings."""
    total = sum(stop - start for *_, start, stop in parts)
    before = 0
    for name, wav, rate, start, stop in parts:
        after = before + stop - start
        share = count * after // total - count * before // total
        before = after
        places = torch.linspace(start, stop - 1, share, dtype=torch.float64)
        for first in dict.fromkeys((places * rate).round().long().tolist()):
            record = _silence(f"{name}_{first:08d}", wav, split)
            yield {**record, "start": first, "stop": first + rate}


def _test_archive(folder, version):
    """Reads the separate test archive, whose folders are the 12 classes."""
    labels = (*COMMANDS, UNKNOWN, SILENCE)
    _check_folder(folder, f"test_set_{version}", labels)
    for label in labels:
        for name in _wavs(os.path.join(folder, label)):
            record = _clip(folder, label, name, "test")
            word = label if label in COMMANDS else ""
            yield {**record, "ID": f"test_{record['ID']}", "word": word}
