"""From folders of recordings to records: one table of corpora, a file for each.

A new corpus is a file and a row of ``CORPORA``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.corpora import synthetic
from unispeech_sb.dataio.corpora.audio_snips import audio_snips, is_audio_snips
from unispeech_sb.dataio.corpora.common_voice import (
    common_voice,
    is_common_voice,
)
from unispeech_sb.dataio.corpora.conversations import (
    kaldi_folders,
    rttm_beside,
    rttm_table,
)
from unispeech_sb.dataio.corpora.csv_table import csv_table, single_speakers
from unispeech_sb.dataio.corpora.fairseq import (
    fairseq_manifests,
    fairseq_texts,
    is_fairseq_manifests,
)
from unispeech_sb.dataio.corpora.fluent_speech_commands import (
    fluent_speech_commands,
    is_fluent_speech_commands,
)
from unispeech_sb.dataio.corpora.iemocap import iemocap, is_iemocap
from unispeech_sb.dataio.corpora.kaldi import (
    is_kaldi,
    kaldi_anything,
    kaldi_labels,
    kaldi_speakers,
    kaldi_texts,
)
from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech
from unispeech_sb.dataio.corpora.list_forms import (
    ANYTHING,
    LABELLED,
    SPEAKERS,
    audiofolder_rows,
    class_rows,
    form_readers,
    is_audiofolder,
    is_class_folders,
    is_csv,
    is_lhotse,
    is_nemo,
    is_split_tables,
    is_table,
    lhotse_rows,
    nemo_rows,
    split_table_rows,
    table_rows,
)
from unispeech_sb.dataio.corpora.parquet import is_parquet, parquet_rows
from unispeech_sb.dataio.corpora.quesst14 import (
    is_query_lists,
    is_quesst14,
    query_lists,
    quesst14,
)
from unispeech_sb.dataio.corpora.recordings import is_recordings, recordings
from unispeech_sb.dataio.corpora.speech_commands import (
    is_speech_commands,
    speech_commands,
)
from unispeech_sb.dataio.corpora.voxceleb import (
    is_voxceleb,
    voxceleb,
    voxceleb_identification,
)
from unispeech_sb.dataio.shards import is_shards, refuse_shards, shard_records
from unispeech_sb.dataio.splits import with_splits
from unispeech_sb.errors import ITEM

__all__ = ["CORPORA", "Corpus", "read_corpus"]


@dataclass(frozen=True)
class Corpus:
    """A row of ``CORPORA``.

    ``layout`` is what messages call it, ``recognises`` tells of a path whether
    the corpus is there, and ``readers`` are task -> what reads the records, of
    the path and the recipe's yaml.
    """

    layout: str
    recognises: Callable[[Path], bool]
    readers: Mapping[str, Callable[..., Iterable[dict[str, Any]]]]
    kind: str = "corpus"
    """"corpus": the first that recognises a folder is it; "table" or "list": a
    form, of which a folder may have one, and of which data may have no splits,
    of "list" no validation set either; "last": as "list", where nothing else
    is."""


def _by(read, *keys):
    """A reader that takes further arguments from the yaml, if it has them."""

    def read_records(path, hparams):
        return read(path, *(hparams.get(key) for key in keys))

    return read_records


def _unlabelled(path, hparams):
    """A reader of tables without labels."""
    return csv_table(path, label_column=None)


CORPORA = {
    "synthetic": Corpus(
        "sentences spoken by espeak-ng", lambda path: False, synthetic.READERS
    ),
    "fairseq": Corpus(
        "a folder of fairseq's manifests, train.tsv with labels",
        is_fairseq_manifests,
        {
            "asr": _by(fairseq_texts, "wav_root", "subsets"),
            "phoneme": _by(
                fairseq_manifests, "wav_root", "labels", "vocabulary"
            ),
        },
    ),
    "librispeech": Corpus(
        "a LibriSpeech folder",
        is_librispeech,
        dict.fromkeys(
            ("asr", "phoneme", "pretraining", "single_speaker"),
            _by(librispeech, "subsets"),
        ),
    ),
    "common_voice": Corpus(
        "a language of Common Voice",
        is_common_voice,
        dict.fromkeys(
            ("asr", "phoneme"), _by(common_voice, "subsets", "language")
        ),
    ),
    "voxceleb": Corpus(
        "a VoxCeleb folder",
        is_voxceleb,
        {
            "speaker_identification": _by(
                voxceleb_identification, "split_file"
            ),
            "speaker_verification": _by(voxceleb),
            "single_speaker": _by(voxceleb),
        },
    ),
    "speech_commands": Corpus(
        "a Speech Commands folder",
        is_speech_commands,
        {
            "keyword_spotting": _by(
                speech_commands,
                *("corpus_version", "num_classes", "protocol", "test_folder"),
            )
        },
    ),
    "fluent_speech_commands": Corpus(
        "the folder of Fluent Speech Commands",
        is_fluent_speech_commands,
        {"intent_classification": _by(fluent_speech_commands)},
    ),
    "iemocap": Corpus(
        "an IEMOCAP folder",
        is_iemocap,
        {"emotion_recognition": _by(iemocap, "fold", "protocol", "fold_lists")},
    ),
    "audio_snips": Corpus(
        "an Audio SNIPS folder",
        is_audio_snips,
        {"slot_filling": _by(audio_snips)},
    ),
    "quesst14": Corpus(
        "a QUESST 2014 folder",
        is_quesst14,
        {"query_by_example": _by(quesst14, "language")},
    ),
    "query_lists": Corpus(
        "a folder with queries.csv and documents.csv",
        is_query_lists,
        {"query_by_example": _by(query_lists)},
    ),
    "shards": Corpus(
        "a folder of shards",
        is_shards,
        {
            **dict.fromkeys(
                ("asr", "phoneme"), _by(shard_records, "skip_damaged")
            ),
            "pretraining": refuse_shards,
        },
    ),
    "recordings": Corpus(
        "a folder of recordings",
        is_recordings,
        {"pretraining": _by(recordings)},
    ),
    "kaldi": Corpus(
        "a Kaldi folder with wav.scp, or a folder of some",
        is_kaldi,
        {
            **dict.fromkeys(("asr", "phoneme"), _by(kaldi_texts)),
            **dict.fromkeys(
                LABELLED,
                _by(kaldi_labels, "label_column"),
            ),
            **dict.fromkeys(
                SPEAKERS,
                _by(kaldi_speakers),
            ),
            "speaker_diarization": _by(kaldi_folders, "merge_segments"),
            ANYTHING: _by(kaldi_anything),
        },
        "table",
    ),
    "csv": Corpus(
        "a CSV or TSV, or a folder with manifest.csv",
        is_csv,
        {
            **form_readers(table_rows),
            "pretraining": _unlabelled,
            "single_speaker": _by(single_speakers),
            "speaker_diarization": _by(rttm_table, "merge_segments"),
        },
        "table",
    ),
    "table": Corpus(
        "a folder with one CSV or TSV",
        is_table,
        form_readers(table_rows),
        "table",
    ),
    "speechbrain": Corpus(
        "a folder with train.csv or train.json, valid and test, as SpeechBrain",
        is_split_tables,
        form_readers(split_table_rows),
        "list",
    ),
    "nemo": Corpus(
        "a manifest of NeMo, or a folder of some",
        is_nemo,
        form_readers(nemo_rows),
        "list",
    ),
    "lhotse": Corpus(
        "a folder with Lhotse's cuts, or its recordings and supervisions",
        is_lhotse,
        form_readers(lhotse_rows),
        "list",
    ),
    "audiofolder": Corpus(
        "Hugging Face's audiofolder with metadata.csv or .jsonl",
        is_audiofolder,
        form_readers(audiofolder_rows),
        "list",
    ),
    "parquet": Corpus(
        "Hugging Face's tables: Parquet, or what save_to_disk writes",
        is_parquet,
        form_readers(parquet_rows),
        "list",
    ),
    "class_folders": Corpus(
        "a folder with a folder of recordings for each class or speaker",
        is_class_folders,
        {
            task: reader
            for task, reader in form_readers(class_rows).items()
            if task in (*LABELLED, *SPEAKERS, ANYTHING)
        },
        "last",
    ),
    "rttm": Corpus(
        "a folder of recordings with RTTM files beside them",
        lambda path: path.is_dir(),
        {"speaker_diarization": _by(rttm_beside, "merge_segments")},
        "last",
    ),
}
"""Name of a corpus -> how it is known and read. ``corpus: auto`` takes the
first one that recognises the data folder; of forms of lists, the only one."""


def find_corpus(
    task: str, hparams: dict[str, Any], folder: str | Path | None = None
) -> str | None:
    """Finds the corpus of a folder: its name, or None where none is recognised.

    The yaml's ``corpus`` is a name of ``CORPORA`` or "auto", as when it is
    missing; ``synthetic`` stands for the name "synthetic". A name that the task
    has no corpus of is an error, and so is a folder with lists of several
    forms. Task and folder are as for ``read_corpus``.
    """
    name = "synthetic" if hparams.get("synthetic") else hparams.get("corpus")
    known = [n for n, corpus in CORPORA.items() if task in corpus.readers]
    if name in known:
        return name
    if name not in (None, "auto"):
        raise ValueError(
            f"corpus: expected auto, {', '.join(known)}; got {name!r}"
        )
    path = Path(hparams["data_folder"] if folder is None else folder)
    forms: list[str] = []
    for name in known:
        corpus = CORPORA[name]
        if forms and corpus.kind not in _FORMS:
            break
        if corpus.recognises(path):
            if corpus.kind not in _FORMS or task == "speaker_diarization":
                return name
            forms.append(name)
    if len(forms) > 1:
        found = " and ".join(f"{CORPORA[n].layout} ({n})" for n in forms)
        raise ValueError(
            f"{path}: expected data of one form; it is {found}: choose by "
            f"--corpus={forms[0]} or another"
        )
    return forms[0] if forms else None


_FORMS = ("table", "list")
"""Kinds of which a folder may have one."""


def _layouts(task):
    """What a task can be trained on, for messages: one a line."""
    return "".join(
        f"{ITEM}{corpus.layout} ({name})"
        for name, corpus in CORPORA.items()
        if task in corpus.readers and name != "synthetic"
    )


def read_corpus(
    task: str, hparams: dict[str, Any], folder: str | Path | None = None
) -> Iterable[dict[str, Any]]:
    """Reads the records of a corpus.

    Arguments
    ---------
    task : str
        What it is for: "asr", "phoneme", "pretraining", "keyword_spotting",
        "intent_classification", "emotion_recognition", "slot_filling",
        "speaker_identification", "speaker_verification",
        "speaker_diarization", "query_by_example", or "single_speaker", of
        which mixtures are simulated.
    hparams : dict
        The recipe's yaml: ``corpus``, a name of ``CORPORA`` or "auto", as when
        it is missing; ``synthetic``, which stands for the name "synthetic";
        ``data_folder``; and what the readers of the task take.
    folder : str or path-like, optional
        The folder; ``data_folder`` when omitted.

    Returns
    -------
    iterable of dict
        Utterance records.

    Raises
    ------
    ValueError
        When no corpus of the task is recognised; the message lists them. Also
        as the corpus's own reader.

    Example
    -------
    >>> read_corpus("asr", {"data_folder": "nowhere"})
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected data of one of these forms; ...
    """
    path = Path(hparams["data_folder"] if folder is None else folder)
    name = find_corpus(task, hparams, path)
    if name is None:
        raise ValueError(
            f"{path}: expected data of one of these forms; "
            + ("it is none of them" if path.exists() else "there is nothing")
            + _layouts(task)
        )
    corpus = CORPORA[name]
    records = corpus.readers[task](path, hparams)
    if corpus.kind == "corpus" or task not in CORPORA["table"].readers:
        return records
    named = corpus.kind != "table"
    return with_splits(records, task, hparams, may_lack_valid=named)
