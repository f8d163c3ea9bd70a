"""Speech recognition by CTC: which letters, or phones, does speech say?

LibriSpeech, as the folder that its archives unpack to:

    python recipes/asr.py hparams/asr.yaml --data_folder=LibriSpeech

Recordings of your own, listed in a CSV with the columns id, path, split, wrd:

    python recipes/asr.py hparams/asr.yaml --data_folder=my_speech

Each run ends with the scores, wer.txt and cer.txt with the alignments, and
export/, a folder that SpeechBrain's EncoderASR loads.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech
from unispeech_sb.dataio.corpora.synthetic import synthetic_sentences
from unispeech_sb.dataio.corpora.table import table
from unispeech_sb.dataio.manifest import (
    read_manifest,
    usable_records,
    write_manifests,
)
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    dynamic_batches,
    text_pipeline,
)
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run

logger = get_logger(__name__)

_NUM_NAMED = 10  # utterances that an error names before it only counts


def _corpus(hparams):
    """Utterance records of what the data folder holds."""
    folder = Path(hparams["data_folder"])
    if hparams["synthetic"]:
        return synthetic_sentences(
            folder, hparams["synthetic_sentences"], seed=hparams["seed"]
        )
    if not folder.exists():
        raise ValueError(
            f"{folder}: expected a LibriSpeech folder, a folder with "
            "manifest.csv, or a CSV; there is nothing"
        )
    if is_librispeech(folder):
        return librispeech(folder, hparams["subsets"])
    return table(folder, label_column=None)


def prepare(hparams):
    """Checks every recording, writes the manifests and fits the tokenizer.

    A run that goes on keeps the tokenizer that it began with.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    manifests = Path(hparams["manifest_folder"])
    if hparams["skip_prep"]:
        _fit_tokenizer(read_manifest(manifests / "train.csv"), hparams)
        return
    records = list(_corpus(hparams))
    column = hparams["text_column"]
    for record in records:
        if not record.get(column, "").strip():
            raise ValueError(
                f"{hparams['data_folder']}: expected a text in the column "
                f"{column!r} of {record['wav']}, got none"
            )
    records = usable_records(
        records, hparams["max_duration_s"], hparams["skip_bad_files"]
    )
    tokenizer = _fit_tokenizer(
        [record for record in records if record["split"] == "train"], hparams
    )
    records = _fitting(records, tokenizer, hparams)
    write_manifests(records, manifests)


def _tokenizer_file(hparams):
    """Where a run keeps its tokenizer."""
    return Path(hparams["save_folder"], "tokenizer.ckpt")


def _fit_tokenizer(records, hparams):
    """Reads the run's tokenizer, or makes it of the training texts."""
    file = _tokenizer_file(hparams)
    if hparams["checkpointer"].find_checkpoint() is not None:
        return _read_tokenizer(file)
    texts = [record[hparams["text_column"]] for record in records]
    tokenizer = CTCTokenizer.from_texts(texts, hparams["separator"])
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".partial")
    tokenizer.save(draft)
    draft.replace(file)
    return tokenizer


def _read_tokenizer(file):
    """Loads a tokenizer, which has to be whole."""
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(file)
    return tokenizer


def _fitting(records, tokenizer, hparams):
    """Records that are long enough for CTC to say their texts."""
    kept, named = [], []
    for record in records:
        tokens = tokenizer.encode(record[hparams["text_column"]])
        # Between two equal tokens there has to be a blank
        needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
        num_samples = int(record["duration"] * hparams["sample_rate"])
        frames = hparams["backbone"].output_lengths(num_samples)
        if frames >= needed:
            kept.append(record)
        else:
            named.append(
                f"{record['wav']} ({frames} frames for a text of {needed})"
            )
    if named and not hparams["skip_bad_files"]:
        more = f" and {len(named) - _NUM_NAMED} more"
        raise ValueError(
            f"{len(named)} recordings are too short for their texts: "
            + "; ".join(named[:_NUM_NAMED])
            + (more if len(named) > _NUM_NAMED else "")
        )
    for name in named:
        logger.warning(f"Left out, too short for its text: {name}")
    return kept


def dataio_prep(hparams):
    """Builds the datasets, and the head for as many tokens as there are.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``tokenizer``, the built ``head`` and the batches
        of each split are added to it.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    tokenizer = _read_tokenizer(_tokenizer_file(hparams))
    hparams["tokenizer"] = tokenizer
    head = hparams["head"](num_classes=len(tokenizer))
    hparams["head"] = hparams["modules"]["head"] = head
    hparams["checkpointer"].add_recoverable("head", head)
    datasets = {}
    for split in ("train", "valid", "test"):
        manifest = Path(hparams["manifest_folder"], f"{split}.csv")
        if not manifest.is_file():
            continue
        dataset = DynamicItemDataset.from_csv(manifest)
        dataset.add_dynamic_item(audio_pipeline(hparams["sample_rate"]))
        dataset.add_dynamic_item(
            text_pipeline(tokenizer, hparams["text_column"])
        )
        dataset.set_output_keys(["id", "sig", "text", "tokens"])
        datasets[split] = dataset
        hparams[f"{split}_dataloader_opts"]["batch_sampler"] = dynamic_batches(
            dataset,
            hparams["max_batch_s"],
            hparams["num_buckets"],
            seed=hparams["seed"] if split == "train" else None,
        )
    return datasets


main = partial(run, CTCBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
