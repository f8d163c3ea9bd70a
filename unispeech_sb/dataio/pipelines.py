"""Dynamic items for SpeechBrain datasets, for use in a recipe's
``dataio_prep``: what they take and provide is named in each docstring.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import DynamicItem, provides, takes

from unispeech_sb.dataio.audio import bounds_of, read_audio
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import SILENCE, SPLITS, read_manifest
from unispeech_sb.dataio.shards import ShardItems, rows_in_shards
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.text import named

__all__ = [
    "audio_pipeline",
    "fit_label_encoder",
    "label_pipeline",
    "manifest_datasets",
    "text_pipeline",
]

_SILENCE_CROP_S = 1.0


def manifest_datasets(folder: str | Path) -> dict[str, DynamicItemDataset]:
    """Makes a dataset of each manifest that is there.

    Arguments
    ---------
    folder : str or path-like
        With ``train.csv``, ``valid.csv`` and ``test.csv``, or some of them.

    Returns
    -------
    dict
        Split -> ``DynamicItemDataset`` of its rows, without output keys.

    Raises
    ------
    ValueError
        As ``read_manifest``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "train.csv").write_text("ID,wav,duration\\na,/a.wav,1.5")
    >>> {s: len(found) for s, found in manifest_datasets(folder).items()}
    {'train': 1}
    """
    files = {split: Path(folder, f"{split}.csv") for split in SPLITS}
    files = {split: file for split, file in files.items() if file.is_file()}
    # Which names what is wrong, and where
    rows = {split: read_manifest(file) for split, file in files.items()}
    packed = {split: rows_in_shards(own) for split, own in rows.items()}
    return {
        split: DynamicItemDataset.from_csv(files[split])
        if own is None
        else ShardItems(own)
        for split, own in packed.items()
    }


def audio_pipeline(
    sample_rate: int = 16000,
    random_crop_s: float | None = None,
    gain_db: float = 0.0,
    random_silence: bool = False,
) -> DynamicItem:
    """Makes the item that reads audio: takes wav, start, stop; provides sig.

    Random places are drawn from torch's default generator, one draw per item
    that is longer than the crop. Silence is let through: a stretch of a sound
    recording may be silent, ``check_records`` judges whole ones.

    Arguments
    ---------
    sample_rate : int
        Rate of the waveform in Hz.
    random_crop_s : float, optional
        Keep this many seconds of longer items, at a random place.
    gain_db : float
        Gain in dB; SUPERB's keyword spotting applies -3.
    random_silence : bool
        Keep one second, at a random place, of items labelled ``_silence_``
        (SUPERB keyword spotting). The item then takes label too.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``; sig is float32, [N].

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(32000)), 16000)
    >>> audio_pipeline(random_crop_s=0.5)(path, "", "").shape
    torch.Size([8000])
    """
    read = functools.partial(
        _read_item,
        sample_rate=sample_rate,
        crop_s=random_crop_s,
        gain=10 ** (gain_db / 20),
    )
    if random_silence:
        read = functools.partial(_read_silence_or_item, read)
        return provides("sig")(takes("wav", "start", "stop", "label")(read))
    return provides("sig")(takes("wav", "start", "stop")(read))


def _read_silence_or_item(read, wav, start, stop, label):
    """Reads an item, cropping it to a second when it is labelled silence."""
    if label == SILENCE:
        return read(wav, start, stop, crop_s=_SILENCE_CROP_S)
    return read(wav, start, stop)


def _read_item(wav, start, stop, sample_rate, crop_s, gain):
    """Reads an item's stretch, or a random crop of it."""
    start, stop = _as_sample(start), _as_sample(stop)
    if crop_s is not None:
        start, stop = _crop(wav, start, stop, crop_s)
    return gain * read_audio(wav, start, stop, sample_rate, allow_silence=True)


def _as_sample(value):
    """Turns a manifest's start or stop, str or int or empty, into a sample."""
    return None if value in (None, "") else int(value)


def _crop(wav, start, stop, crop_s):
    """Chooses a random crop within a stretch, before anything is decoded."""
    record = {"wav": wav, "start": start, "stop": stop}
    start, stop, rate = bounds_of(record)
    crop = round(crop_s * rate)
    if stop - start <= crop:
        return start, stop
    start += torch.randint(stop - start - crop + 1, ()).item()
    return start, start + crop


def label_pipeline(label_encoder: CategoricalEncoder) -> DynamicItem:
    """Makes the item that encodes labels: takes label; provides label_encoded.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        A fitted encoder, see ``fit_label_encoder``.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``; label_encoded is int64, [1].

    Example
    -------
    >>> encoder = LabelEncoder.from_labels(["no", "yes"])
    >>> label_pipeline(encoder)("yes")
    tensor([1])
    """
    encode = label_encoder.encode_label_torch
    return provides("label_encoded")(takes("label")(encode))


def text_pipeline(tokenizer: CTCTokenizer, key: str = "wrd") -> DynamicItem:
    """Makes the items of a transcript: takes key; provides text and tokens.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Encodes the text.
    key : str
        The column with the transcript.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``; text is a str with single spaces, tokens are
        the tokenizer's targets, int64, [U].

    Example
    -------
    >>> item = text_pipeline(CTCTokenizer.from_texts(["so it is"]))
    >>> text, tokens = item("so  it ")
    >>> text, tokens.shape
    ('so it', torch.Size([5]))
    """

    def encode(transcript):
        text = " ".join(transcript.split())
        tokens = tokenizer.targets(text)
        return text, torch.tensor(tokens, dtype=torch.long)

    return provides("text", "tokens")(takes(key)(encode))


def fit_label_encoder(
    datasets: dict[str, Any], key: str = "label", by_appearance: bool = False
) -> LabelEncoder:
    """Builds the encoder of the training labels.

    Arguments
    ---------
    datasets : dict
        Split name -> ``DynamicItemDataset``; "train" must be one of them.
    key : str
        The item to encode.
    by_appearance : bool
        Take the labels in the order in which they first occur in train.

    Returns
    -------
    LabelEncoder
        With the labels in sorted order, or as they occur.

    Raises
    ------
    ValueError
        When an item has no label, or another split a label that train lacks.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> train = DynamicItemDataset(
    ...     {"a": {"label": "yes"}, "b": {"label": "no"}}
    ... )
    >>> fit_label_encoder({"train": train}).lab2ind
    {'no': 0, 'yes': 1}
    """
    known = _labels(datasets["train"], key)
    for split, dataset in datasets.items():
        unknown = sorted(_labels(dataset, key).keys() - known.keys())
        if unknown:
            raise ValueError(
                f"{split}: expected only the labels of train, such as "
                f"{named(sorted(known))}; got {named(unknown, 10)} too"
            )
    return LabelEncoder.from_labels(known if by_appearance else sorted(known))


def check_num_classes(
    found: int, hparams: dict[str, Any], what: str = "classes"
) -> None:
    """Refuses data that have another number of classes than the yaml says."""
    wanted = hparams["num_classes"]
    if found != wanted:
        raise ValueError(
            f"{hparams['data_folder']}: expected {wanted} {what}; it has "
            f"{found}: --num_classes={found}"
        )


def _labels(dataset, key):
    """Collects the distinct values of a key, none of which may be empty, in
    order; None of each."""
    with dataset.output_keys_as([key]):
        labels = dict.fromkeys(item[key] for item in dataset)
    if "" in labels:
        raise ValueError(f"expected every item to have a {key}, got empty ones")
    return labels
