"""Datasets of diarization: chunks of recorded and of artificial conversations
with who is active in each frame, and what a recipe prepares for them.
"""

from functools import partial
from pathlib import Path

from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.activity import clipped
from unispeech_sb.dataio.chunks import (
    ChunkReader,
    TrainingChunks,
    chunk_rows,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import SPLITS, check_records, read_manifest
from unispeech_sb.dataio.rttm import read_annotations, read_uem
from unispeech_sb.dataio.samplers import (
    SEED_STEP,
    PassSampler,
    dynamic_batches,
)
from unispeech_sb.dataio.simulation import MixtureSimulator

logger = get_logger(__name__)

_NUM_BUCKETS = 10  # lengths that the batches of evaluations tell apart
_STAGES = {"valid": Stage.VALID, "test": Stage.TEST}


def usable_conversations(records, hparams):
    """Checks that every recording can be decoded.

    Arguments
    ---------
    records : iterable of dict
        Records of conversations.
    hparams : dict
        The recipe's yaml: ``skip_bad_files``.

    Returns
    -------
    list of dict
        The records.

    Raises
    ------
    ValueError
        As ``check_records``.

    Example
    -------
    >>> usable_conversations([], {"skip_bad_files": False})
    []
    """
    return check_records(records, hparams["skip_bad_files"])


def mixture_voices(records, conversations, hparams):
    """Chooses the recordings that conversations are made of.

    Speakers of the validation and test sets are left out: nothing that is
    trained on may have been heard in them.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    conversations : iterable of dict
        Records of the recorded conversations of all splits.
    hparams : dict
        The recipe's yaml: ``simulated_folder`` and ``skip_bad_files``.

    Returns
    -------
    list of dict
        The records to use, with durations.

    Raises
    ------
    ValueError
        When none is left, or as ``check_records``.

    Example
    -------
    >>> hparams = {"simulated_folder": "my_voices", "skip_bad_files": False}
    >>> mixture_voices([], [], hparams)
    Traceback (most recent call last):
    ...
    ValueError: my_voices: expected recordings of speakers that are not in ...
    """
    held_out = {
        segment.speaker
        for record in conversations
        if record["split"] != "train"
        for segment in read_annotations(record["rttm"]).get(record["ID"], [])
    }
    records = list(records)
    kept = [record for record in records if record["spk_id"] not in held_out]
    if not kept:
        raise ValueError(
            f"{hparams['simulated_folder']}: expected recordings of speakers "
            "that are not in the validation or test set; got none among "
            f"{len(records)}"
        )
    if len(kept) < len(records):
        logger.info(
            f"Left out {len(records) - len(kept)} recordings of speakers of "
            "the validation and test sets"
        )
    return check_records(kept, hparams["skip_bad_files"])


def diarization_datasets(hparams):
    """Builds the datasets: waveform, activity and speakers of each chunk.

    Training chunks are at random places, but for SUPERB's. With ``simulated``
    artificial conversations of the voices in ``manifest_folder/voices`` are
    among them, as long as the chunks.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. Added to it are ``label_encoder``, the speakers of
        the training: two recordings with one name in them have one speaker;
        their number ``num_known_speakers``; ``references``, stage ->
        recording -> annotation, and ``uems``, stage -> recording -> scored
        stretches; the sampler of the training, and the batches of the
        evaluations, up to ``max_eval_batch_s`` long in all (null: one by one).

    Returns
    -------
    dict
        ``train``, a map-style dataset, with id, sig, activity and
        speaker_labels; ``valid`` and, if there is one, ``test``, which have
        recording and start_s too.

    Raises
    ------
    ValueError
        When there is nothing to train on, or less than one batch.

    Example
    -------
    >>> from unispeech_sb.dataio.manifest import write_manifests
    >>> folder = getfixture("tmp_path")
    >>> line = "SPEAKER a 1 0.5 1.25 <NA> <NA> anna <NA> <NA>"
    >>> _ = (folder / "a.rttm").write_text(line)
    >>> record = {"ID": "a", "wav": "/a.wav", "duration": 2.0, "uem": ""}
    >>> record |= {"rttm": str(folder / "a.rttm"), "split": "train"}
    >>> _ = write_manifests([record], folder, ("train",))
    >>> hparams = {"manifest_folder": folder, "simulated": 0, "seed": 1}
    >>> hparams |= {"num_speakers": 2, "frame_s": 0.02, "chunk_s": 1.0}
    >>> hparams |= {"superb_labels": False, "narrow_band": False}
    >>> hparams["train_dataloader_opts"] = {"batch_size": 2}
    >>> [len(found) for found in diarization_datasets(hparams).values()]
    [2]
    """
    rows = {split: _rows(hparams, split) for split in SPLITS}
    voices = _voices(hparams)
    names = {voice["spk_id"] for voice in voices}
    names |= {s.speaker for row in rows["train"] for s in row["segments"]}
    if not names:
        raise ValueError(
            f"{hparams['manifest_folder']}: expected conversations to train "
            "on, recorded or simulated, with speakers in them; got none"
        )
    hparams["label_encoder"] = LabelEncoder.from_labels(sorted(names))
    hparams["num_known_speakers"] = len(names)
    reader = ChunkReader(
        hparams["label_encoder"],
        hparams["num_speakers"],
        hparams["frame_s"],
        hparams["superb_labels"],
        hparams["narrow_band"],
    )
    datasets = {"train": _training(rows["train"], voices, reader, hparams)}
    hparams["references"], hparams["uems"] = {}, {}
    for split, stage in _STAGES.items():
        if rows[split]:
            datasets[split] = _evaluation(rows[split], reader, split, hparams)
            hparams["references"][stage] = {
                row["id"]: row["segments"] for row in rows[split]
            }
            hparams["uems"][stage] = {
                row["id"]: read_uem(row["uem"])[row["id"]]
                for row in rows[split]
                if row["uem"]
            }
    return datasets


def _rows(hparams, split):
    """Recordings of a split, each with its annotation."""
    path = Path(hparams["manifest_folder"], f"{split}.csv")
    if not path.is_file():
        return []
    records, annotations = read_manifest(path), {}
    for file in {record["rttm"] for record in records}:
        annotations[file] = read_annotations(file)
    return [
        {
            "id": record["ID"],
            "wav": record["wav"],
            "duration": record["duration"],
            "segments": annotations[record["rttm"]].get(record["ID"], []),
            "uem": record.get("uem"),
        }
        for record in records
    ]


def _voices(hparams):
    """Recordings that conversations are made of."""
    if not hparams["simulated"]:
        return []
    return read_manifest(Path(hparams["manifest_folder"], "voices/train.csv"))


def _training(rows, voices, reader, hparams):
    """The dataset that is trained on, and its sampler."""
    chunk_s, simulate = hparams["chunk_s"], None
    chunks = chunk_rows(rows, chunk_s)
    _log_crowds(chunks, "train", reader.num_speakers)
    if voices:
        mixtures = MixtureSimulator(
            voices, hparams["mixture_options"], chunk_s, hparams["seed"]
        )
        simulate = partial(reader.simulate, mixtures)
    dataset = TrainingChunks(
        chunks,
        reader.read,
        None if reader.superb else chunk_s,
        simulate,
        hparams["simulated"],
        hparams["seed"],
    )
    options = hparams["train_dataloader_opts"]
    draws = hparams.get("draws_per_epoch") or len(dataset)
    if options.get("drop_last") and draws < options.get("batch_size", 1):
        raise ValueError(
            f"expected {options['batch_size']} training chunks or more, for "
            f"one batch; got {draws}: --batch_size={draws}"
        )
    options.pop("shuffle", None)
    options["sampler"] = PassSampler(
        range(len(dataset)),
        draws,
        hparams["seed"] * SEED_STEP,
        pass_size=len(dataset),
    )
    options["collate_fn"] = PaddedBatch
    return dataset


def _evaluation(rows, reader, split, hparams):
    """A dataset that is evaluated on, and its batches."""
    chunks = chunk_rows(rows, hparams["eval_chunk_s"])
    _log_crowds(chunks, split, reader.num_speakers)

    @takes("id", "wav", "start_s", "end_s", "segments")
    @provides("sig", "activity", "speaker_labels")
    def read(name, wav, start_s, end_s, segments):
        row = {"id": name, "wav": wav, "start_s": start_s, "end_s": end_s}
        item = reader.read({**row, "segments": segments})
        return item["sig"], item["activity"], item["speaker_labels"]

    dataset = DynamicItemDataset({row.pop("id"): row for row in chunks})
    dataset.add_dynamic_item(read)
    dataset.set_output_keys(
        ["id", "recording", "start_s", "sig", "activity", "speaker_labels"]
    )
    if hparams["max_eval_batch_s"] is not None:
        hparams[f"{split}_dataloader_opts"]["batch_sampler"] = dynamic_batches(
            dataset, hparams["max_eval_batch_s"], _NUM_BUCKETS
        )
    return dataset


def _log_crowds(chunks, split, num_speakers):
    """Says in how many chunks there are more speakers than columns."""
    crowds = 0
    for row in chunks:
        inside = clipped(row["segments"], row["start_s"], row["end_s"])
        crowds += len({segment.speaker for segment in inside}) > num_speakers
    if crowds:
        logger.info(
            f"{split}: {crowds} of {len(chunks)} chunks have more than "
            f"{num_speakers} speakers; those who speak least are not labelled"
        )
