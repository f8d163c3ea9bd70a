"""What the recipes of transcribed speech share: from records to manifests, a
tokenizer, and datasets of waveforms and tokens in batches of like length.
"""

from itertools import pairwise
from pathlib import Path

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.manifest import (
    SPLITS,
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

logger = get_logger(__name__)

_NUM_NAMED = 10  # utterances that an error names before it only counts


def prepare_texts(records, hparams):
    """Checks recordings and texts, makes the tokenizer, writes the manifests.

    A run that goes on keeps the tokenizer that it began with.

    Arguments
    ---------
    records : iterable of dict
        Utterance records; not used with ``skip_prep``, which takes the
        manifests that are there.
    hparams : dict
        The recipe's yaml. ``make_tokenizer`` makes the tokenizer of the
        training texts, which are in the column ``text_column``.

    Raises
    ------
    ValueError
        When a recording is not usable, has no text, or is too short for it.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> hparams = {"data_folder": "my_speech", "manifest_folder": folder}
    >>> hparams |= {"text_column": "wrd", "skip_prep": False}
    >>> prepare_texts([{"wav": "a.wav", "wrd": " "}], hparams)
    Traceback (most recent call last):
    ...
    ValueError: my_speech: expected a text in the column ...
    """
    manifests, column = Path(hparams["manifest_folder"]), hparams["text_column"]
    if hparams["skip_prep"]:
        _fit_tokenizer(read_manifest(manifests / "train.csv"), hparams)
        return
    records = list(records)
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
    write_manifests(_long_enough(records, tokenizer, hparams), manifests)


def _tokenizer_file(hparams):
    """Where a run keeps its tokenizer."""
    return Path(hparams["save_folder"], "tokenizer.ckpt")


def _fit_tokenizer(records, hparams):
    """Reads the run's tokenizer, or makes it of the training texts."""
    file = _tokenizer_file(hparams)
    if hparams["checkpointer"].find_checkpoint() is not None:
        return _read_tokenizer(file)
    texts = [record[hparams["text_column"]] for record in records]
    tokenizer = hparams["make_tokenizer"](texts)
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


def _long_enough(records, tokenizer, hparams):
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


def text_datasets(hparams):
    """Builds the datasets, and the head for as many tokens as there are.

    Each item has ``id``, ``sig``, ``text`` and ``tokens``.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``tokenizer``, the built ``head`` and the batches
        of each split are added to it.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.

    Example
    -------
    >>> text_datasets({"save_folder": getfixture("tmpdir")})
    Traceback (most recent call last):
    ...
    ValueError: ...tokenizer.ckpt: expected labels as ...
    """
    tokenizer = _read_tokenizer(_tokenizer_file(hparams))
    hparams["tokenizer"] = tokenizer
    head = hparams["head"](num_classes=len(tokenizer))
    hparams["head"] = hparams["modules"]["head"] = head
    hparams["checkpointer"].add_recoverable("head", head)
    datasets = {}
    for split in SPLITS:
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
