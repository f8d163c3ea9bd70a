"""Data of speaker identification and verification: splits of a corpus that has
none of its own, and datasets of recordings with the index of each speaker.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.audio import AudioError, bounds_of
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import (
    check_records,
    filter_by_duration,
)
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    fit_label_encoder,
    manifest_datasets,
)
from unispeech_sb.dataio.samplers import draw_by_passes, dynamic_batches
from unispeech_sb.dataio.vad import cut_silence, with_sound

__all__ = [
    "build_for_speakers",
    "check_speakers",
    "long_enough",
    "read_speakers",
    "speaker_datasets",
    "split_share",
    "split_speakers",
    "split_tails",
    "split_valid",
]

logger = get_logger(__name__)

UNKNOWN = -1
"""Index of a speaker that is not among those of the training."""
_LEAST_S = 0.025  # one frame of the backbone
_NUM_BUCKETS = 10  # ranges of lengths in the batches of evaluations
_NUM_NAMED = 5  # of what is wrong, before it is only counted


def check_speakers(
    records: Iterable[dict[str, Any]], hparams: dict[str, Any]
) -> list[dict[str, Any]]:
    """Checks that every recording can be decoded, and has a speaker.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    hparams : dict
        The recipe's yaml: ``data_folder`` and ``skip_bad_files``. With
        ``audio_root``, where trials are of files outside the corpus, those of
        test need no speaker.

    Returns
    -------
    list of dict
        The records, with durations.

    Raises
    ------
    ValueError
        When one has no speaker, or as ``check_records``.

    Example
    -------
    >>> record = {"ID": "a", "wav": "a.wav", "split": "train"}
    >>> check_speakers([record], {"data_folder": "my_speakers"})
    Traceback (most recent call last):
    ...
    ValueError: my_speakers: expected a speaker in the column speaker or ...
    """
    records = list(records)
    for record in records:
        free = record["split"] == "test" and hparams.get("audio_root")
        if not free and not record.get("spk_id", "").strip():
            raise ValueError(
                f"{hparams['data_folder']}: expected a speaker in the column "
                f"speaker or spk_id of {record['wav']}, got none"
            )
    return check_records(records, hparams["skip_bad_files"])


def split_valid(
    records: Iterable[dict[str, Any]],
    ways: Mapping[
        str,
        Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | float | None,
    ],
) -> list[dict[str, Any]]:
    """Takes the corpus's own validation set, or the one way to make one.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    ways : dict
        Name of an option -> what makes a validation set of the records; None
        where the option is not given, 0 where none is to be made.

    Returns
    -------
    list of dict
        The records, some of them in valid, unless an option was 0.

    Raises
    ------
    ValueError
        Unless there is a validation set, one way to make it, or a 0.

    Example
    -------
    >>> split_valid([{"split": "train"}], {"valid_share": None})
    Traceback (most recent call last):
    ...
    ValueError: expected a validation set: recordings of the split valid, ...
    """
    records = list(records)
    given = [name for name, way in ways.items() if way]
    found = any(record["split"] == "valid" for record in records)
    if not given and any(way == 0 for way in ways.values()):
        return records
    if found + len(given) != 1:
        options = " or ".join(f"--{name}" for name in ways)
        got = ["the split valid"] * found + [f"--{name}" for name in given]
        raise ValueError(
            "expected a validation set: recordings of the split valid, or one "
            f"way to make it ({options}); got {' and '.join(got) or 'none'}"
        )
    if found:
        return records
    (way,) = (way for way in ways.values() if callable(way))
    records = way(records)
    if not any(record["split"] == "valid" for record in records):
        raise ValueError(
            f"--{given[0]}: expected recordings to validate on, got none"
        )
    return records


def split_tails(
    records: Iterable[dict[str, Any]], tail_s: float
) -> list[dict[str, Any]]:
    """Cuts the end off each training recording, for validation.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    tail_s : float
        Seconds of an end.

    Returns
    -------
    list of dict
        The records, those of train shorter, and behind each of them its end,
        as ``<ID>_tail`` in valid.

    Raises
    ------
    ValueError
        When a recording is not longer than its end would be.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(32000)), 16000)
    >>> found = split_tails([{"ID": "a", "wav": path, "split": "train"}], 0.5)
    >>> [(record["ID"], record["duration"]) for record in found]
    [('a', 1.5), ('a_tail', 0.5)]
    """
    found = []
    for record in records:
        if record["split"] != "train":
            found.append(record)
            continue
        start, stop, rate = bounds_of(record)
        middle = stop - round(tail_s * rate)
        if not start < middle < stop:
            raise ValueError(
                f"{record['wav']}: expected more than {tail_s} s, to cut so "
                f"much off for validation; got {(stop - start) / rate:g} s"
            )
        found.append(_cut(record, start, middle, rate))
        tail = {"ID": f"{record['ID']}_tail", "split": "valid"}
        found.append(_cut(record, middle, stop, rate) | tail)
    return found


def split_share(
    records: Iterable[dict[str, Any]],
    share: float,
    seed: int = 0,
    split: str = "valid",
) -> list[dict[str, Any]]:
    """Moves a share of each speaker's training recordings to another split.

    Of two recordings or more at least one is moved and one stays; of a single
    one none is.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    share : float
        How much of them, in (0, 1).
    seed : int
        What the draw depends on, beside the records.
    split : str
        Where they go.

    Returns
    -------
    list of dict
        The records in their order.

    Raises
    ------
    ValueError
        When the share is out of range.

    Example
    -------
    >>> names = ["a1", "a2", "a3", "a4", "b1"]
    >>> records = [{"ID": n, "spk_id": n[0], "split": "train"} for n in names]
    >>> found = split_share(records, share=0.25)
    >>> sorted(record["split"] for record in found)
    ['train', 'train', 'train', 'train', 'valid']
    """
    if not 0 < share < 1:
        raise ValueError(
            f"expected a share of the recordings in (0, 1), got {share}"
        )
    records = list(records)
    places: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        if record["split"] == "train":
            places.setdefault(record["spk_id"], []).append(place)
    generator = torch.Generator().manual_seed(seed)
    moved: set[int] = set()
    for _, own in sorted(places.items()):
        order = torch.randperm(len(own), generator=generator).tolist()
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        moved.update(own[place] for place in order[:count])
    return [
        {**record, "split": split} if place in moved else record
        for place, record in enumerate(records)
    ]


def split_speakers(
    records: Iterable[dict[str, Any]],
    num_speakers: int,
    piece_s: float | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Moves all recordings of some training speakers to valid.

    A verification model is selected on speakers that it was not trained on.
    They are drawn from those with two recordings or more, as trials need them.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    num_speakers : int
        How many to move.
    piece_s : float, optional
        Cut their recordings into pieces of so many seconds, so that a speaker
        with one recording has several. Whole recordings when omitted.
    seed : int
        What the draw depends on, beside the speakers' names.

    Returns
    -------
    list of dict
        The records; pieces are ``<ID>_0``, ``<ID>_1``, ...

    Raises
    ------
    ValueError
        When there are no such speakers, or less than two would be left to
        train on.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(32000)), 16000)
    >>> records = [
    ...     {"ID": name, "spk_id": name, "wav": path, "split": "train"}
    ...     for name in "abc"
    ... ]
    >>> found = split_speakers(records, num_speakers=1, piece_s=1.0)
    >>> sorted(record["split"] for record in found)
    ['train', 'train', 'valid', 'valid']
    """
    records = list(records)
    if piece_s is not None and not piece_s >= _LEAST_S:
        raise ValueError(
            f"expected pieces of {_LEAST_S} s or more, got {piece_s}"
        )
    if piece_s is None:
        return _move_speakers(records, num_speakers, seed)
    cut: list[dict[str, Any]] = []
    for record in records:
        is_train = record["split"] == "train"
        cut += _pieces(record, piece_s) if is_train else [record]
    parted = _move_speakers(cut, num_speakers, seed)
    pieces = [
        new
        for new, old in zip(parted, cut, strict=True)
        if new["split"] != old["split"]
    ]
    held_out = {record["spk_id"] for record in pieces}
    return pieces + [
        record
        for record in records
        if record["split"] != "train" or record["spk_id"] not in held_out
    ]


def long_enough(
    records: Sequence[dict[str, Any]], hparams: dict[str, Any]
) -> list[dict[str, Any]]:
    """Leaves out training recordings with too little speech.

    Arguments
    ---------
    records : list of dict
        Utterance records with durations.
    hparams : dict
        The recipe's yaml: ``min_duration_s``, of sound with ``vad``, before
        which the level is changed by ``gain_db``.

    Returns
    -------
    list of dict
        The records, those of train first.

    Raises
    ------
    ValueError
        When none is left to train on, or when with ``vad`` there is no sound
        in a recording of another split.

    Example
    -------
    >>> records = [{"split": "train", "duration": 1.0 + n} for n in range(3)]
    >>> hparams = {"min_duration_s": 2.0, "vad": False}
    >>> [record["duration"] for record in long_enough(records, hparams)]
    [2.0, 3.0]
    """
    least = hparams["min_duration_s"]
    train = [record for record in records if record["split"] == "train"]
    others = [record for record in records if record["split"] != "train"]
    if not hparams["vad"]:
        kept, dropped = filter_by_duration(train, min_s=least)
        if train and not kept:
            raise ValueError(
                f"expected training recordings of {least} s or more; none of "
                f"{len(train)} is"
            )
        if dropped:
            logger.info(f"Left out {len(dropped)} files under {least} s")
        return kept + others
    measure = partial(with_sound, gain_db=hparams["gain_db"])
    if others:
        loud = {record["ID"] for record in measure(others, min_s=0.0)}
        silent = [r["wav"] for r in others if r["ID"] not in loud]
        if silent:
            raise ValueError(
                f"{len(silent)} recordings have no sound: "
                + "; ".join(silent[:_NUM_NAMED])
            )
    return measure(train, min_s=least) + others


def speaker_datasets(
    hparams: dict[str, Any],
    closed_set: bool = False,
    encoder: LabelEncoder | None = None,
) -> dict[str, DynamicItemDataset]:
    """Builds the datasets: id, waveform and speaker of each recording.

    Training recordings are cropped, others are whole.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``label_encoder`` is added to it, the batches of the
        evaluations, up to ``max_eval_batch_s`` long in all (null: one by one),
        and the sampler of ``draws_per_epoch``, if it has that.
    closed_set : bool
        Whether all speakers have to be among those of the training.
    encoder : LabelEncoder, optional
        Speakers in the order that trained weights have. That of their names
        when omitted.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.

    Raises
    ------
    ValueError
        When ``closed_set`` and there are other speakers, when the encoder has
        others than the training, or when there is less than one batch.

    Example
    -------
    >>> from unispeech_sb.dataio.manifest import write_manifests
    >>> folder = getfixture("tmp_path")
    >>> record = {"ID": "a1", "wav": "/a.wav", "duration": 1.0, "spk_id": "a"}
    >>> _ = write_manifests([{**record, "split": "train"}], folder, ("train",))
    >>> hparams = {"manifest_folder": folder, "sample_rate": 16000}
    >>> hparams |= {"vad": False, "gain_db": 0.0, "crop_s": 3.0}
    >>> hparams["train_dataloader_opts"] = {"batch_size": 32}
    >>> [len(found) for found in speaker_datasets(hparams).values()]
    [1]
    """
    datasets = manifest_datasets(hparams["manifest_folder"])
    fitted = fit_label_encoder(
        datasets if closed_set else {"train": datasets["train"]}, "spk_id"
    )
    hparams["label_encoder"] = _agreed(fitted, encoder)
    for split, dataset in datasets.items():
        crop_s = hparams["crop_s"] if split == "train" else None
        dataset.add_dynamic_item(speech_pipeline(hparams, crop_s))
        dataset.add_dynamic_item(speaker_pipeline(hparams["label_encoder"]))
        dataset.set_output_keys(["id", "sig", "label_encoded"])
        options = hparams[f"{split}_dataloader_opts"]
        if split == "train":
            _draw(options, len(dataset), hparams)
        elif hparams["max_eval_batch_s"] is not None:
            options["batch_sampler"] = dynamic_batches(
                dataset, hparams["max_eval_batch_s"], _NUM_BUCKETS
            )
    return datasets


def read_speakers(folder: str | Path) -> LabelEncoder:
    """Reads the speakers that a pretrained folder was trained on.

    Arguments
    ---------
    folder : str or path-like
        The folder, with ``label_encoder.ckpt``.

    Returns
    -------
    LabelEncoder
        Speaker -> index in the weights.

    Raises
    ------
    ValueError
        When the file is missing or damaged.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> encoder = LabelEncoder.from_labels(["bob", "ann"])
    >>> encoder.save(folder / "label_encoder.ckpt")
    >>> read_speakers(folder).lab2ind
    {'bob': 0, 'ann': 1}
    """
    encoder = LabelEncoder()
    encoder.load_strict(Path(folder, "label_encoder.ckpt"))
    return encoder


def build_for_speakers(name: str, hparams: dict[str, Any]) -> None:
    """Builds what has as many outputs as there are speakers.

    Arguments
    ---------
    name : str
        Key of a ``!name:`` with the argument ``num_classes``.
    hparams : dict
        The recipe's yaml, with ``label_encoder``. What was built takes the
        place of the key, and is added to the modules and the checkpoints.

    Example
    -------
    >>> from speechbrain.utils.checkpoints import Checkpointer
    >>> hparams = {"modules": {}, "label_encoder": ["ann", "bob"]}
    >>> hparams["checkpointer"] = Checkpointer(getfixture("tmpdir"))
    >>> hparams["head"] = lambda num_classes: torch.nn.Linear(4, num_classes)
    >>> build_for_speakers("head", hparams)
    >>> hparams["modules"]["head"].out_features
    2
    """
    built = hparams[name](num_classes=len(hparams["label_encoder"]))
    hparams[name] = hparams["modules"][name] = built
    hparams["checkpointer"].add_recoverable(name, built)


def speech_pipeline(hparams, crop_s=None):
    """Makes the item that reads speech: takes wav, start, stop; provides sig.

    The yaml's ``gain_db`` is applied, with ``vad`` silent gaps are cut out, and
    ``crop_s`` of what is longer then are kept, at a random place.
    """
    make = partial(
        audio_pipeline, hparams["sample_rate"], gain_db=hparams["gain_db"]
    )
    if not hparams["vad"]:
        return make(random_crop_s=crop_s)
    read, rate = make(), hparams["sample_rate"]

    def read_sound(wav, start, stop):
        try:
            sound = cut_silence(read(wav, start, stop), rate)
        except AudioError:
            raise
        except ValueError as error:
            raise ValueError(f"{wav}: {error}") from error
        if crop_s is None or len(sound) <= crop_s * rate:
            return sound
        size = round(crop_s * rate)
        first = torch.randint(len(sound) - size + 1, ()).item()
        return sound[first : first + size]

    return provides("sig")(takes("wav", "start", "stop")(read_sound))


def speaker_pipeline(label_encoder):
    """Makes the item of the speaker: takes spk_id; provides label_encoded, [1].

    It is ``UNKNOWN`` for speakers that are not among those of the training.
    """
    indices = label_encoder.lab2ind

    def encode(spk_id):
        return torch.tensor([indices.get(spk_id, UNKNOWN)])

    return provides("label_encoded")(takes("spk_id")(encode))


def _agreed(fitted, given):
    """The encoder that was given, if it has the speakers of the other."""
    if given is None:
        return fitted
    missing = sorted(set(given.lab2ind) - set(fitted.lab2ind))
    unknown = sorted(set(fitted.lab2ind) - set(given.lab2ind))
    if missing or unknown:
        named = [f"without {', '.join(missing[:_NUM_NAMED])}"] * bool(missing)
        named += [f"also {', '.join(unknown[:_NUM_NAMED])}"] * bool(unknown)
        raise ValueError(
            f"head_from: expected to train on its {len(given)} speakers; got "
            f"{len(fitted)}, {', '.join(named)}"
        )
    return given


def _draw(options, num_items, hparams):
    """Sets how training recordings are drawn."""
    draws = hparams.get("draws_per_epoch")
    if options.get("drop_last") and (draws or num_items) < options.get(
        "batch_size", 1
    ):
        raise ValueError(
            f"expected {options['batch_size']} training recordings or more, "
            f"for one batch; got {num_items}: --batch_size={num_items}"
        )
    draw_by_passes(options, num_items, hparams)


def _move_speakers(records, num_speakers, seed=0):
    """Moves all recordings of drawn training speakers to valid."""
    records = list(records)
    counts = {}
    for record in records:
        if record["split"] == "train":
            counts[record["spk_id"]] = counts.get(record["spk_id"], 0) + 1
    names = sorted(name for name, count in counts.items() if count > 1)
    if not 0 < num_speakers <= min(len(names), len(counts) - 2):
        raise ValueError(
            f"expected {num_speakers} speakers with two recordings or more to "
            f"hold out, and two others to train on; got {len(counts)} "
            f"speakers, {len(names)} of them with two recordings or more"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(names), generator=generator)[:num_speakers]
    held_out = {names[index] for index in drawn.tolist()}
    return [
        {**record, "split": "valid"}
        if record["split"] == "train" and record["spk_id"] in held_out
        else record
        for record in records
    ]


def _pieces(record, piece_s):
    """Whole pieces of a recording; all of it where it is shorter."""
    start, stop, rate = bounds_of(record)
    size = round(piece_s * rate)
    if stop - start < size:
        return [record]
    return [
        {
            **_cut(record, first, first + size, rate),
            "ID": f"{record['ID']}_{number}",
        }
        for number, first in enumerate(range(start, stop - size + 1, size))
    ]


def _cut(record, start, stop, rate):
    """A stretch of a record."""
    duration = (stop - start) / rate
    return {**record, "start": start, "stop": stop, "duration": duration}
