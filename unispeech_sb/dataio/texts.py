"""Data of speech and phoneme recognition: manifests, a tokenizer and a head for
its tokens, and batches of similar length.
"""

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.manifest import (
    SPLITS,
    read_manifest,
    usable_records,
    write_manifests,
)
from unispeech_sb.dataio.samplers import dynamic_batches
from unispeech_sb.dataio.shard_batches import add_shard_batches
from unispeech_sb.dataio.shards import ShardItems
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.text import composed, lower, named, upper, without_tags

__all__ = [
    "add_batches",
    "build_head",
    "check_phones",
    "prepare_texts",
    "read_tokenizer",
]

logger = get_logger(__name__)

_CASES = {"upper": upper, "lower": lower}

_NUM_NAMED = 10  # utterances that an error names before it only counts


def prepare_texts(
    records: Iterable[dict[str, Any]],
    hparams: dict[str, Any],
    vocabulary: str | Path | None = None,
) -> None:
    """Checks recordings and texts, makes the tokenizer, writes the manifests.

    A run that goes on keeps the tokenizer that it began with.

    Arguments
    ---------
    records : iterable of dict
        Utterance records; not used with ``skip_prep``, which takes the
        manifests that are there.
    hparams : dict
        The recipe's yaml. ``make_tokenizer`` makes the tokenizer of the
        training texts, which are in the column ``text_column``; with
        ``head_from``, it is that of a pretrained CTC folder instead. With
        ``text_case``, texts are changed to upper or lower case, by the rules
        of their ``language``, or of the column of that name. Letters, where
        there is no ``separator``, are composed, without format characters.
    vocabulary : str or path-like, optional
        File of the tokens, for a ``make_tokenizer`` with that argument, in the
        place of the one that the yaml gives it.

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
        train = read_manifest(manifests / "train.csv")
        _fit_tokenizer(train, hparams, vocabulary)
        return
    records = usable_records(
        _with_texts(records, hparams),
        hparams["max_duration_s"],
        hparams["skip_bad_files"],
    )
    train = [record for record in records if record["split"] == "train"]
    tokenizer = _fit_tokenizer(train, hparams, vocabulary)
    _log_unknown([record[column] for record in records], tokenizer)
    write_manifests(_long_enough(records, tokenizer, hparams), manifests)


def _with_texts(records, hparams):
    """Records that all have a text, in the case that is asked for."""
    column, case = hparams["text_column"], hparams.get("text_case")
    if case not in (None, *_CASES):
        raise ValueError(
            f"text_case: expected upper, lower or null; got {case!r}"
        )
    found, num_composed = [], 0
    for record in records:
        text = record.get(column, "")
        if not hparams.get("separator"):
            text = composed(text)
            num_composed += text != record.get(column, "")
        if not text.strip():
            raise ValueError(
                f"{hparams['data_folder']}: expected a text in the column "
                f"{column!r} of {record['wav']}, got none; there are "
                f"{named(record, _NUM_NAMED)} (--text_column)"
            )
        if case is not None:
            language = hparams.get("language") or record.get("language")
            text = _CASES[case](text, language)
        found.append({**record, column: text})
    if num_composed:
        logger.info(
            f"Letters of {num_composed} texts were composed, or format "
            "characters such as soft hyphens taken out"
        )
    return found


def _tokenizer_file(hparams):
    """Where a run keeps its tokenizer."""
    return Path(hparams["save_folder"], "tokenizer.ckpt")


def _fit_tokenizer(records, hparams, vocabulary):
    """Reads the run's tokenizer, or makes it of the training texts."""
    file, started = _tokenizer_file(hparams), hparams.get("head_from")
    if hparams["checkpointer"].find_checkpoint() is not None:
        return _read_tokenizer(file)
    if started:
        _check_no_tokens(hparams)
        tokenizer = _read_tokenizer(Path(started, "tokenizer.ckpt"))
    else:
        texts = [record[hparams["text_column"]] for record in records]
        given = {} if vocabulary is None else {"vocabulary": vocabulary}
        tokenizer = hparams["make_tokenizer"](texts, **given)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file, mode=None) as draft:
        tokenizer.save(draft)
    return tokenizer


def _check_no_tokens(hparams):
    """Raises when other tokens than those of a trained head are asked for."""
    given = [k for k in ("vocabulary", "num_pieces") if hparams.get(k)]
    if given:
        raise ValueError(
            f"head_from: expected no {' and no '.join(given)} beside it: "
            "a trained head has its own tokens"
        )


def _log_unknown(texts, tokenizer):
    """Logs the symbols that the tokenizer has no token for; raises where it has
    one for none."""
    separator = tokenizer.separator
    symbols = set()
    if tokenizer.has_tags:
        texts = map(without_tags, texts)
    for text in texts:
        symbols.update(text.split(separator) if separator else text)
    symbols -= {"", " ", tokenizer.word_delimiter}
    unknown = tokenizer.lab2ind.get(getattr(tokenizer, "unk_label", None))
    names = sorted(s for s in symbols if unknown in tokenizer.encode(s))
    if names and len(names) == len(symbols):
        known = sorted(set(tokenizer.lab2ind) - set(tokenizer.specials))
        raise ValueError(
            "the texts and the tokenizer have no symbol in common: "
            f"{named(names, _NUM_NAMED)} against {named(known, _NUM_NAMED)}; "
            "text_case changes the texts"
        )
    if names:
        logger.warning(
            f"{len(names)} symbols of the texts have no token and count as "
            f"{tokenizer.unk_label}: {' '.join(names)[:200]}"
        )


def _read_tokenizer(file):
    """Loads a tokenizer, which has to be whole."""
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(file)
    return tokenizer


def _long_enough(records, tokenizer, hparams):
    """Records that have as many frames as CTC needs for their texts."""
    kept, named = [], []
    for record in records:
        tokens = tokenizer.targets(record[hparams["text_column"]])
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


def check_phones(
    folder: str | Path,
    tokenizer: CTCTokenizer,
    column: str,
    vocabulary: str | Path,
) -> None:
    """Raises where manifests have other phones than a vocabulary.

    ``column`` has a row's phones, ``vocabulary`` is what messages call it.
    """
    known = set(tokenizer.lab2ind)
    for path in (Path(folder, f"{split}.csv") for split in SPLITS):
        rows = read_manifest(path) if path.is_file() else ()
        for number, row in enumerate(rows, start=2):
            unknown = sorted(set(row[column].split()) - known)
            if unknown:
                raise ValueError(
                    f"{path}, line {number}: expected phones of {vocabulary}, "
                    f"got {unknown[0]!r} in {row['wav']}"
                )


def read_tokenizer(hparams: dict[str, Any]) -> CTCTokenizer:
    """Reads the tokenizer of a run, which ``prepare_texts`` has made.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``save_folder``.

    Returns
    -------
    CTCTokenizer
        The tokenizer.

    Raises
    ------
    ValueError
        When the file is missing or damaged.

    Example
    -------
    >>> read_tokenizer({"save_folder": getfixture("tmpdir")})
    Traceback (most recent call last):
    ...
    ValueError: ...tokenizer.ckpt: expected labels as ...
    """
    return _read_tokenizer(_tokenizer_file(hparams))


def build_head(num_classes: int, hparams: dict[str, Any]) -> None:
    """Builds the head for so many tokens.

    Arguments
    ---------
    num_classes : int
        Number of tokens, blank included.
    hparams : dict
        The recipe's yaml: ``head`` is a ``!name:`` with the argument
        ``num_classes``. What was built takes its place, and is added to the
        modules and the checkpoints. A run that begins takes the weights from
        the folder ``head_from``, if there is one.

    Example
    -------
    >>> import torch
    >>> from speechbrain.utils.checkpoints import Checkpointer
    >>> hparams = {"modules": {}}
    >>> hparams["checkpointer"] = Checkpointer(getfixture("tmpdir"))
    >>> hparams["head"] = lambda num_classes: torch.nn.Linear(4, num_classes)
    >>> build_head(30, hparams)
    >>> hparams["modules"]["head"].out_features
    30
    """
    head = hparams["head"](num_classes=num_classes)
    started = hparams.get("head_from")
    if started and hparams["checkpointer"].find_checkpoint() is None:
        head.load(Path(started, "head.ckpt"))
    hparams["head"] = hparams["modules"]["head"] = head
    hparams["checkpointer"].add_recoverable("head", head)


def add_batches(
    dataset: DynamicItemDataset, split: str, hparams: dict[str, Any]
) -> None:
    """Puts recordings of similar length in a batch.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Of the split, with durations in seconds.
    split : str
        ``train``, whose batches are shuffled by ``seed``, or another.
    hparams : dict
        The recipe's yaml; the batches are added to the split's loader options.
        ``make_batches`` takes a dataset and a seed, None for evaluations;
        without it, batches are dynamic, by ``max_batch_s`` and
        ``num_buckets``, and those of a training in shards read these from
        front to back, through a buffer of ``shuffle_buffer_s``.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> lengths = {name: {"duration": 2.0} for name in "abc"}
    >>> hparams = {"max_batch_s": 9.0, "num_buckets": 2}
    >>> hparams["valid_dataloader_opts"] = {}
    >>> add_batches(DynamicItemDataset(lengths), "valid", hparams)
    >>> len(hparams["valid_dataloader_opts"]["batch_sampler"])
    2
    """
    if isinstance(dataset, ShardItems):
        dataset.rows.skip_damaged = hparams.get("skip_damaged", False)
        if split == "train" and not hparams.get("make_batches"):
            add_shard_batches(dataset.rows, hparams)
            return
    make_batches = hparams.get("make_batches") or partial(
        dynamic_batches,
        max_batch_s=hparams["max_batch_s"],
        num_buckets=hparams["num_buckets"],
    )
    hparams[f"{split}_dataloader_opts"]["batch_sampler"] = make_batches(
        dataset, seed=hparams["seed"] if split == "train" else None
    )
