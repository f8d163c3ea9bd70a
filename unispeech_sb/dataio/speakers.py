"""What the recipes of speaker identification and verification share: from
records to manifests, and datasets of voices with the index of each speaker.
"""

from functools import partial
from pathlib import Path

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import (
    SPLITS,
    check_records,
    filter_by_duration,
)
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    fit_label_encoder,
)
from unispeech_sb.dataio.samplers import PassSampler, dynamic_batches
from unispeech_sb.dataio.vad import cut_silence, with_sound

logger = get_logger(__name__)

UNKNOWN = -1
"""Index of a speaker that is not among those of the training."""

_NUM_BUCKETS = 10  # lengths that the batches of evaluations tell apart
_NUM_NAMED = 5  # of what is wrong, before it is only counted


def usable_voices(records, hparams):
    """Checks that every recording is one, and of a speaker.

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
    >>> usable_voices([record], {"data_folder": "my_voices"})
    Traceback (most recent call last):
    ...
    ValueError: my_voices: expected a speaker in the column speaker or ...
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


def long_enough(records, hparams):
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
        heard = {record["ID"] for record in measure(others, min_s=0.0)}
        silent = [r["wav"] for r in others if r["ID"] not in heard]
        if silent:
            raise ValueError(
                f"{len(silent)} recordings have no sound: "
                + "; ".join(silent[:_NUM_NAMED])
            )
    return measure(train, min_s=least) + others


def voice_pipeline(hparams, crop_s=None):
    """Make the item that reads voices: takes wav, start, stop; provides sig.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``sample_rate``, ``gain_db`` and, to cut silent gaps
        out, ``vad``.
    crop_s : float, optional
        Keep this many seconds of what is longer then, at a random place.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``; sig is float32, [N].

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.pad(np.ones(16000), 9000), 16000)
    >>> hparams = {"sample_rate": 16000, "gain_db": 0.0, "vad": True}
    >>> voice_pipeline(hparams)(path, "", "").shape
    torch.Size([16319])
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
    """Make the item of the speaker: takes spk_id; provides label_encoded.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The speakers of the training.

    Returns
    -------
    speechbrain.utils.data_pipeline.DynamicItem
        For ``add_dynamic_item``; label_encoded is int64, [1], ``UNKNOWN`` for
        other speakers.

    Example
    -------
    >>> item = speaker_pipeline(LabelEncoder.from_labels(["ann", "bob"]))
    >>> item("bob"), item("eve")
    (tensor([1]), tensor([-1]))
    """
    indices = label_encoder.lab2ind

    def encode(spk_id):
        return torch.tensor([indices.get(spk_id, UNKNOWN)])

    return provides("label_encoded")(takes("spk_id")(encode))


def speaker_datasets(hparams, closed_set=False, encoder=None):
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
    datasets = {}
    for split in SPLITS:
        manifest = Path(hparams["manifest_folder"], f"{split}.csv")
        if manifest.is_file():
            datasets[split] = DynamicItemDataset.from_csv(manifest)
    fitted = fit_label_encoder(
        datasets if closed_set else {"train": datasets["train"]}, "spk_id"
    )
    hparams["label_encoder"] = _agreed(fitted, encoder)
    for split, dataset in datasets.items():
        crop_s = hparams["crop_s"] if split == "train" else None
        dataset.add_dynamic_item(voice_pipeline(hparams, crop_s))
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


def read_speakers(folder):
    """Reads whom a pretrained folder was trained on.

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


def build_for_speakers(name, hparams):
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
    if draws:
        # Passes follow one another, as s3prl counts updates and not epochs
        options.pop("shuffle", None)
        options["sampler"] = PassSampler(
            range(num_items), draws, hparams["seed"]
        )
