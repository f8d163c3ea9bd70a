"""Data of diarization: chunks of recorded conversations and simulated mixtures,
with who is active in each frame.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchaudio
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.logger import get_logger
from torch.utils.data import Dataset

from unispeech_sb.dataio.audio import read_audio, read_header
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import SPLITS, check_records, read_manifest
from unispeech_sb.dataio.rttm import (
    Segment,
    kaldi_segment_lines,
    read_annotations,
    read_uem,
)
from unispeech_sb.dataio.samplers import (
    SEED_STEP,
    PassSampler,
    dynamic_batches,
    numbered_generator,
)
from unispeech_sb.dataio.simulation import MixtureSimulator

__all__ = ["diarization_datasets", "mixture_recordings"]

logger = get_logger(__name__)

HOP_SAMPLES, WINDOW_SAMPLES = 320, 400
"""Of the frames of every published backbone, at 16 kHz."""

NOBODY = -1
"""Label of a column without a speaker, or with one that is not known."""

_SAMPLE_RATE, _NARROW_RATE = 16000, 8000
_LEAST_S = 0.025  # one frame of the backbone
_DIGITS = 6  # of frame numbers: times in seconds are not exact
_NUM_BUCKETS = 10  # ranges of lengths in the batches of evaluations
_STAGES = {"valid": Stage.VALID, "test": Stage.TEST}
_READ = ("id", "wav", "start_s", "end_s", "whole_s", "stated_s", "labels")
"""What of a row a chunk is read by."""


def mixture_recordings(
    conversations: Iterable[dict[str, Any]], hparams: dict[str, Any]
) -> list[dict[str, Any]]:
    """Chooses the recordings that simulated mixtures are made of.

    Speakers of the validation and test sets are left out: these are of unseen
    speakers.

    Arguments
    ---------
    conversations : iterable of dict
        Records of the recorded conversations of all splits.
    hparams : dict
        The recipe's yaml: ``simulated_folder`` with recordings of single
        speakers, ``simulated_corpus``, which is "auto" when it is missing,
        ``skip_bad_files`` and ``merge_segments``.

    Returns
    -------
    list of dict
        The records to use, all of train, with durations.

    Raises
    ------
    ValueError
        When none is left, or as ``read_corpus`` and ``check_records``.

    Example
    -------
    >>> mixture_recordings([], {"simulated_folder": "nowhere"})
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected data of one of these forms; ...
    """
    folder = hparams["simulated_folder"]
    options = {"corpus": hparams.get("simulated_corpus")}
    records = [
        {**record, "split": "train"}
        for record in read_corpus("single_speaker", options, folder)
    ]
    unseen = {
        segment.speaker
        for row in _annotated(conversations, hparams)
        if row["split"] != "train"
        for segment in row["segments"]
    }
    kept = [record for record in records if record["spk_id"] not in unseen]
    if not kept:
        raise ValueError(
            f"{folder}: expected recordings of speakers that are not in the "
            f"validation or test set; got none among {len(records)}"
        )
    if len(kept) < len(records):
        logger.info(
            f"Left out {len(records) - len(kept)} recordings of speakers of "
            "the validation and test sets"
        )
    return check_records(kept, hparams["skip_bad_files"])


def diarization_datasets(
    hparams: dict[str, Any],
) -> dict[str, Dataset[dict[str, Any]]]:
    """Builds the datasets: waveform, activity and speakers of each chunk.

    Training chunks are at random places, but for SUPERB's. With ``simulated``
    mixtures of the recordings in ``manifest_folder/voices`` are among them, as
    long as the chunks.

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
        When there is nothing to train on, less than one batch, or a split to
        evaluate on without a segment.

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
    singles = _mixture_records(hparams)
    names = {record["spk_id"] for record in singles}
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
    datasets = {"train": _training(rows["train"], singles, reader, hparams)}
    hparams["references"], hparams["uems"] = {}, {}
    for split, stage in _STAGES.items():
        if rows[split]:
            if not any(row["segments"] for row in rows[split]):
                raise ValueError(
                    f"{split}: expected segments to evaluate on; its "
                    f"{len(rows[split])} recordings have none, such as "
                    f"{rows[split][0]['wav']}"
                )
            datasets[split] = _evaluation(rows[split], reader, split, hparams)
            hparams["references"][stage] = {
                row["id"]: row["segments"] for row in rows[split]
            }
            hparams["uems"][stage] = {
                row["id"]: row["uem"] for row in rows[split] if row["uem"]
            }
    return datasets


def _rows(hparams, split):
    """Recordings of a split, each with its annotation."""
    path = Path(hparams["manifest_folder"], f"{split}.csv")
    if not path.is_file():
        return []
    return _annotated(read_manifest(path), hparams)


def _annotated(records, hparams):
    """Rows of recordings with their segments, and stretches to score; with
    ``labels``, the segments that are trained on, where SUPERB's are others."""
    read = {
        "rttm": partial(
            read_annotations, merge=bool(hparams.get("merge_segments"))
        ),
        "uem": read_uem,
    }
    if hparams.get("superb_labels"):
        read["kaldi_segments"] = _segment_lines
    rows, files = [], {}
    for record in records:
        own = {}
        for kind, read_file in read.items():
            file, own[kind] = record.get(kind), []
            if file and file not in files:
                files[file] = read_file(file)
            if file:
                name = record.get(f"{kind}_name") or record["ID"]
                own[kind] = files[file].get(name, [])
        rows.append(
            {
                "id": record["ID"],
                "wav": record["wav"],
                "duration": record["duration"],
                "split": record.get("split"),
                "segments": own["rttm"],
                "labels": own.get("kaldi_segments") or own["rttm"],
                "stated_s": float(record.get("stated_s") or 0.0),
                "uem": own["uem"],
            }
        )
    return rows


def _segment_lines(path):
    """The lines of a file ``segments``."""
    return kaldi_segment_lines(Path(path).parent)


def _mixture_records(hparams):
    """The recordings that mixtures are made of."""
    if not hparams["simulated"]:
        return []
    return read_manifest(Path(hparams["manifest_folder"], "voices/train.csv"))


def _training(rows, singles, reader, hparams):
    """The dataset that is trained on, and its sampler."""
    chunk_s, simulate = hparams["chunk_s"], None
    chunks = chunk_rows(rows, chunk_s)
    _log_crowds(chunks, "train", reader.num_speakers)
    if singles:
        mixtures = MixtureSimulator(
            singles, hparams["mixture_options"], chunk_s, hparams["seed"]
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

    @takes(*_READ)
    @provides("sig", "activity", "speaker_labels")
    def read(*values):
        item = reader.read(dict(zip(_READ, values, strict=True)))
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
    """Logs in how many chunks there are more speakers than columns."""
    crowds = 0
    for row in chunks:
        inside = clipped(row["segments"], row["start_s"], row["end_s"])
        crowds += len({segment.speaker for segment in inside}) > num_speakers
    if crowds:
        logger.info(
            f"{split}: {crowds} of {len(chunks)} chunks have more than "
            f"{num_speakers} speakers; those who speak least are not labelled"
        )


def chunk_rows(rows, chunk_s=None):
    """Cuts recordings into chunks of ``chunk_s`` that follow one another.

    The last of a recording is shorter, and left out if no frame is in it.
    Without ``chunk_s`` recordings are whole. Each chunk has its recording's
    row, with the chunk's own ``id`` and ``duration``, ``recording``,
    ``start_s``, ``end_s``, and ``whole_s``, the length of the recording.
    """
    chunks = []
    for row in rows:
        whole = row["duration"]
        size = whole if chunk_s is None else chunk_s
        count = max(1, math.ceil((whole - _LEAST_S) / size))
        for number in range(count):
            start, end = number * size, min((number + 1) * size, whole)
            named = row["id"] if chunk_s is None else f"{row['id']}_{number:05}"
            place = {"id": named, "recording": row["id"]}
            place |= {"start_s": start, "end_s": end, "whole_s": whole}
            chunks.append({**row, **place, "duration": end - start})
    return chunks


class TrainingChunks(Dataset[dict[str, Any]]):
    """What is trained on: chunks of recordings, and simulated mixtures.

    An item's number says which pass it is of too: ``number // len(self)``.
    So a random place, or a mixture, is the same in a run that was stopped and
    resumed, with any number of workers.

    ``read`` gives the item of a row, from ``start_s`` to ``end_s``. With
    ``chunk_s`` so much of a recording is taken at a random place, for each of
    its chunks. ``simulate`` gives the mixture of a number; a pass has
    ``num_simulated``.
    """

    def __init__(
        self,
        rows,
        read,
        chunk_s=None,
        simulate=None,
        num_simulated=0,
        seed=0,
    ):
        self.rows = rows
        self.read = read
        self.chunk_s = chunk_s
        self.simulate = simulate
        self.num_simulated = num_simulated
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows) + self.num_simulated

    def __getitem__(self, number):
        """Reads the item of a number: pass times length, plus place."""
        passed, place = divmod(number, len(self))
        if place >= len(self.rows):
            mixture = place - len(self.rows) + passed * self.num_simulated
            return self.simulate(mixture)
        row = self.rows[place]
        if self.chunk_s is not None:
            row = self._moved(row, number)
        return self.read(row)

    def is_drawn(self, place):
        """Whether an item is another one in each pass."""
        if place >= len(self.rows):
            return True
        row = self.rows[place]
        return self.chunk_s is not None and self.chunk_s < row["whole_s"]

    def _moved(self, row, number):
        """A row of a random stretch of the same recording."""
        whole = row["whole_s"]
        size = min(self.chunk_s, whole)
        generator = numbered_generator(self.seed, number)
        draw = torch.rand((), generator=generator, dtype=torch.double).item()
        start = draw * (whole - size)
        return {**row, "start_s": start, "end_s": start + size}


@dataclass(frozen=True)
class ChunkReader:
    """Reads a chunk of a conversation and labels it.

    Of more than ``num_speakers`` speakers, columns S, those are labelled that
    are active longest in the chunk. Frames last ``frame_s``, see
    ``count_frames``. With ``superb`` a chunk is labelled as s3prl does, cut to
    whole 20 ms, of which each has a label. With ``narrow_band`` speech goes
    through 8 kHz, as the authors' diarization has it.
    """

    label_encoder: LabelEncoder
    num_speakers: int
    frame_s: float = 0.02
    superb: bool = False
    narrow_band: bool = False

    def read(self, row):
        """Reads and labels a chunk: a row of ``chunk_rows`` with labels."""
        num_samples, rate = read_header(row["wav"])
        start = round(row["start_s"] * rate)
        stop = min(round(row["end_s"] * rate), num_samples)
        read_rate = _NARROW_RATE if self.narrow_band else _SAMPLE_RATE
        wav = read_audio(
            row["wav"],
            start,
            stop,
            read_rate,
            min_samples=read_rate // 40,
            allow_silence=True,
        )
        if self.narrow_band:
            wav = _resampled(wav, _NARROW_RATE, _SAMPLE_RATE)
        frames = None
        if row.get("stated_s") and row["end_s"] >= row["whole_s"]:
            frames = superb_frames(row["stated_s"])
            frames -= superb_frames(row["start_s"])
        item = self.labelled(wav, row["labels"], row["start_s"], frames)
        return {"id": row["id"], **item}

    def simulate(self, mixtures, number):
        """Makes and labels the simulated mixture of a number."""
        wav, segments = mixtures[number]
        if self.narrow_band:
            wav = _resampled(wav, _SAMPLE_RATE, _NARROW_RATE)
            wav = _resampled(wav, _NARROW_RATE, _SAMPLE_RATE)
        return {"id": f"mixture_{number}", **self.labelled(wav, segments)}

    def labelled(self, wav, segments, start_s=0.0, num_frames=None):
        """Labels a waveform at 16 kHz, [N], that begins at ``start_s``, in
        ``num_frames`` frames where SUPERB counts them otherwise.

        Gives sig, [N], activity, [T, S], and speaker_labels: the index of each
        column's speaker, ``NOBODY`` where nobody is labelled, int64, [S].
        """
        inside = clipped(segments, start_s, start_s + len(wav) / _SAMPLE_RATE)
        speakers = longest_speakers(inside, self.num_speakers)
        if self.superb:
            frames = num_frames or len(wav) // HOP_SAMPLES
            wav = wav[: frames * HOP_SAMPLES]
            first = round(start_s * _SAMPLE_RATE / HOP_SAMPLES)
            labels = superb_labels(segments, speakers, first, frames)
        else:
            frames = count_frames(len(wav), self.frame_s)
            labels = frame_labels(inside, speakers, frames, self.frame_s)
        activity = torch.zeros(frames, self.num_speakers)
        activity[:, : len(speakers)] = labels
        indices = torch.full((self.num_speakers,), NOBODY)
        for column, speaker in enumerate(speakers):
            if labels[:, column].any():
                indices[column] = self.label_encoder.lab2ind.get(
                    speaker, NOBODY
                )
        return {"sig": wav, "activity": activity, "speaker_labels": indices}


def _resampled(wav, rate, wanted):
    """A waveform at another rate, by torchaudio's filter."""
    return torchaudio.functional.resample(wav, rate, wanted)


def count_frames(num_samples, frame_s=0.02):
    """Counts the frames of a waveform at 16 kHz, as the backbone has them.

    ``frame_s`` is 0.02 of the backbone itself, or 0.04 of ``EENDVCHead``.
    """
    frames = (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    if frame_s == 0.02:
        return frames
    if frame_s == 0.04:
        return (frames + 1) // 2
    raise ValueError(f"expected frame_s 0.02 or 0.04, got {frame_s}")


def clipped(segments, start_s, end_s):
    """Segments cut to a chunk, in seconds from its beginning."""
    return [
        Segment(
            max(start, start_s) - start_s, min(end, end_s) - start_s, speaker
        )
        for start, end, speaker in segments
        if start < end_s and end > start_s
    ]


def longest_speakers(segments, num_speakers):
    """The speakers that are active longest in a chunk, sorted by name."""
    lengths = {}
    for start, end, speaker in segments:
        lengths[speaker] = lengths.get(speaker, 0.0) + end - start
    order = sorted(lengths, key=lambda speaker: (-lengths[speaker], speaker))
    return sorted(order[:num_speakers])


def frame_labels(segments, speakers, num_frames, frame_s=0.02):
    """1 where a speaker is active in the centre of a frame, else 0, [T, S].

    The centre of frame i is at ``(i + 0.5) frame_s``. Segments of speakers
    without a column are passed over.
    """
    labels = torch.zeros(num_frames, len(speakers))
    for start, end, speaker in segments:
        if speaker in speakers:
            first, last = (
                max(0, math.ceil(round(time / frame_s - 0.5, _DIGITS)))
                for time in (start, end)
            )
            labels[first:last, speakers.index(speaker)] = 1.0
    return labels


def superb_frames(seconds):
    """Number of 20 ms that s3prl counts in a stated duration, by floating
    point: now and then one less than there are."""
    return int(seconds * _SAMPLE_RATE / HOP_SAMPLES)


def superb_labels(segments, speakers, first_frame, num_frames):
    """1 where a speaker is active for s3prl's SUPERB, else 0, [T, S].

    Times are rounded to frames of 20 ms, halves to the even one. A segment is
    labelled if it begins or ends in the chunk: one that covers the whole
    chunk, and more, is not.
    """
    labels = torch.zeros(num_frames, len(speakers))
    for start, end, speaker in segments:
        # In double precision; Python rounds halves to the even one, as NumPy
        begin, finish = (
            round(time * _SAMPLE_RATE / HOP_SAMPLES) - first_frame
            for time in (start, end)
        )
        begins, ends = 0 <= begin < num_frames, 0 < finish <= num_frames
        if speaker in speakers and (begins or ends):
            column = speakers.index(speaker)
            labels[
                begin if begins else 0 : finish if ends else num_frames, column
            ] = 1.0
    return labels
