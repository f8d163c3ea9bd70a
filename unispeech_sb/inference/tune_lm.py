"""The command that fits a language model to a recogniser:
``unispeech-sb tune-lm``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from speechbrain.utils.fetching import FetchConfig
from tqdm import tqdm

from unispeech_sb.checkpoints.folder import write_beam_search
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora.table import table
from unispeech_sb.decoding import LanguageModel, PrefixBeamSearch
from unispeech_sb.decoding.tuning import tune, word_error_rate
from unispeech_sb.inference.asr import LongFormASR


def main(argv=None):
    """Finds alpha and beta: tune-lm FOLDER CSV --lm FILE [--to NEW] ...

    Each recording goes through the model once. Prints the word error rates
    and, if asked to, writes a folder that decodes with the language model.

    Arguments
    ---------
    argv : list of str, optional
        Arguments of the command; those of the process when omitted.

    Raises
    ------
    ValueError
        When the folder, the table or the language model cannot be used, or
        ``--to`` exists.

    Example
    -------
    >>> try:
    ...     main(["no/such/folder", "a.csv", "--lm", "a.arpa"])
    ... except ValueError as error:
    ...     print(error)
    no/such/folder: expected a folder with hyperparams.yaml
    """
    arguments = _parse(argv)
    if arguments.to is not None and Path(arguments.to).exists():
        raise ValueError(f"{arguments.to}: expected a new folder; it exists")
    if not Path(arguments.folder, "hyperparams.yaml").is_file():
        raise ValueError(
            f"{arguments.folder}: expected a folder with hyperparams.yaml"
        )
    model = LanguageModel(arguments.lm, case=arguments.case)
    records = _records(arguments.csv, arguments.split, arguments.text_column)
    texts = [record[arguments.text_column] for record in records]
    asr = LongFormASR.from_hparams(
        arguments.folder,
        fetch_config=FetchConfig(allow_network=False),
        run_opts={"device": arguments.device} if arguments.device else None,
    )
    rows = [
        asr.log_probs(
            read_audio(
                record["wav"],
                record.get("start"),
                record.get("stop"),
                asr.audio_normalizer.sample_rate,
            )
        )
        for record in tqdm(records, desc="recordings", file=sys.stderr)
    ]
    results = _tuned(rows, texts, asr.tokenizer, model, arguments)
    print(_shown(results["word_error_rates"], model))
    if arguments.json is not None:
        _write_json(arguments.json, results)
    if arguments.to is not None:
        weights = {"alpha": model.alpha, "beta": model.beta}
        if model.case is not None:
            weights["case"] = model.case
        write_beam_search(
            arguments.to,
            arguments.folder,
            arguments.lm,
            weights,
            beam_size=arguments.beam_size,
        )


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb tune-lm")
    parser.add_argument("folder", help="a folder for EncoderASR")
    parser.add_argument("csv", help="recordings and what is said in them")
    parser.add_argument(
        "--lm", required=True, metavar="FILE", help="ARPA file or KenLM binary"
    )
    parser.add_argument(
        "--split", default="valid", help="the rows that count; valid"
    )
    parser.add_argument(
        "--text-column", default="wrd", metavar="NAME", help="its texts; wrd"
    )
    parser.add_argument(
        "--case",
        choices=("upper", "lower"),
        help="how the language model writes words",
    )
    parser.add_argument("--beam-size", type=int, default=100, metavar="N")
    parser.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="refinements; 2"
    )
    parser.add_argument(
        "--to", metavar="NEW", help="a folder to make, which decodes so"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="all points that were tried"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    return parser.parse_args(argv)


def _records(path, split, column):
    """The rows of a split, which need a text."""
    records = [
        record
        for record in table(path, label_column=None)
        if record["split"] == split
    ]
    if not records:
        raise ValueError(f"{path}: expected rows of the split {split!r}")
    for record in records:
        if not record.get(column, "").strip():
            raise ValueError(
                f"{path}: expected a text in the column {column!r} of "
                f"{record['wav']}, got none"
            )
    return records


def _tuned(rows, texts, tokenizer, model, arguments):
    """Word error rates by way of decoding, and the points that were tried."""

    def rate(language_model=None, beam_size=arguments.beam_size):
        search = PrefixBeamSearch(
            tokenizer, language_model, beam_size=beam_size
        )
        found = [search.decode(row)[0].text for row in rows]
        return word_error_rate(found, texts)

    greedy = [tokenizer.decode_frames(row.argmax(-1)) for row in rows]
    rates = {
        "greedy": word_error_rate(greedy, texts),
        "beam search": rate(),
        "language model": rate(model),
    }
    with tqdm(desc="points", file=sys.stderr) as bar:
        best, tried = tune(
            rows,
            texts,
            tokenizer,
            model,
            rounds=arguments.rounds,
            on_point=lambda point: bar.update(),
            beam_size=arguments.beam_size,
        )
    rates["language model, tuned"] = best.wer
    return {
        "word_error_rates": rates,
        "alpha": best.alpha,
        "beta": best.beta,
        "tried": [point._asdict() for point in tried],
    }


def _shown(rates, model):
    """The table."""
    width = max(map(len, rates))
    lines = [f"{name:{width}}  {rate:6.2f} %" for name, rate in rates.items()]
    lines.append(f"alpha {model.alpha:g}, beta {model.beta:g}")
    return "\n".join(lines)


def _write_json(path, results):
    """Writes all results, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
