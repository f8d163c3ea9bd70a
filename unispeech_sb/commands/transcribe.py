"""Speech recognition: ``unispeech-sb transcribe`` and ``tune-lm``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unispeech_sb.atomic import write_json
from unispeech_sb.commands.bulk import add_bulk, run_bulk, take_ray
from unispeech_sb.commands.diarize import (
    add_attribution,
    check_attribution,
    load_attribution,
    take_attribution,
)
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    at_least,
    check_file,
    check_output,
    check_output_folder,
    finite,
    load_folder,
    new_parser,
    print_results,
    progress_bar,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    add_files,
    add_outputs,
    take_outputs,
)
from unispeech_sb.environment import require_extra
from unispeech_sb.inference.formats import SPEAKER_FORMATS, TRANSCRIPT_FORMATS

_OTHERS = {
    name: form
    for name, form in SPEAKER_FORMATS.items()
    if name not in TRANSCRIPT_FORMATS
}
"""Formats of transcripts with speakers alone."""


def transcribe(argv: Sequence[str]) -> None:
    """Transcribes recordings; those that cannot be used are named at the end.

    Exits with 1 when a recording could not be transcribed, with 2 when the
    command line makes no sense.
    """
    arguments = _parse_transcribe(argv)
    is_bulk = take_ray(arguments)
    arguments.folder = take_folder(arguments.folder, "EncoderASR")
    check_file(arguments.lm, "language model")
    formats = TRANSCRIPT_FORMATS
    if arguments.speakers:
        take_attribution(arguments)
        formats = SPEAKER_FORMATS
    if arguments.lm:
        require_extra("kenlm", "lm", "--lm")
    if is_bulk:
        return run_bulk("transcribe", arguments)
    inputs = arguments.lm, arguments.enrolled
    outputs = take_outputs(arguments, formats, inputs)
    files = outputs.left("transcribe", arguments.overwrite)
    if not files:
        return
    run = open_transcriber(arguments)
    outputs.print_header()
    with progress_bar(files, "transcribe") as bar:
        results = run(files, on_progress=advance(bar))
        print_results("transcribe", files, results, outputs.write, bar)


def open_transcriber(arguments):
    """Loads the models; gives what runs files."""
    from unispeech_sb.dataio.audio import AudioError, attempt
    from unispeech_sb.inference.asr import LongFormASR

    model = _language_model(arguments)
    speakers = load_attribution(arguments)
    asr = _configured(load_folder(LongFormASR, arguments), arguments, model)

    def run(files, on_progress=None):
        for path, result in asr.transcribe_files(
            files, arguments.batch_seconds, on_progress
        ):
            if speakers is not None and not isinstance(result, AudioError):
                result = attempt(path, speakers.add_speakers, path, result)
            yield path, result

    return run


def _parse_transcribe(argv):
    """Reads the command line."""
    parser = new_parser(
        "transcribe",
        "Transcribe recordings of any length by a CTC model.",
    )
    add_folder(parser, "a speech recognizer (EncoderASR)")
    add_files(parser)
    add_outputs(parser, TRANSCRIPT_FORMATS, _OTHERS, "with --speakers")
    parser.add_argument(
        "--language",
        metavar="L",
        help="language, for a model with adapters of several languages",
    )
    add_batch_seconds(parser, 30.0)
    add_device(parser, ray=True)
    add_bulk(parser)
    _add_decoding(parser)
    add_attribution(parser)
    arguments = parser.parse_args(argv)
    check_attribution(parser, arguments)
    if arguments.format in _OTHERS and arguments.speakers is None:
        parser.error(f"--format {arguments.format}: give --speakers, too")
    weights = {"--alpha": arguments.alpha, "--beta": arguments.beta}
    for name, weight in weights.items():
        if weight is not None and arguments.lm is None:
            parser.error(f"{name} weighs a language model: give --lm")
    return arguments


def _add_decoding(parser):
    """Adds what changes the folder's decoding."""
    group = parser.add_argument_group(
        "decoding",
        "That of the folder, greedy or beam search; with one of these "
        "options, by prefix beam search.",
    )
    group.add_argument(
        "--lm",
        metavar="FILE",
        help="n-gram language model of words: an ARPA file or a KenLM binary",
    )
    group.add_argument(
        "--alpha",
        type=finite,
        metavar="A",
        help="weight of the language model; unispeech-sb tune-lm finds it",
    )
    group.add_argument(
        "--beta",
        type=finite,
        metavar="B",
        help="score of each word, to balance the language model's preference "
        "for few words",
    )
    group.add_argument(
        "--hot-words",
        type=_words,
        metavar="A,B",
        help="words and phrases to prefer, with commas in between",
    )
    group.add_argument(
        "--beam-size",
        type=at_least(1),
        metavar="N",
        help="hypotheses that are kept at each frame",
    )


def _language_model(arguments):
    """Reads the language model, which is faster than a recognizer is; None
    without one."""
    if arguments.lm is None:
        return None

    from unispeech_sb.decoding import LanguageModel

    weights = {"alpha": arguments.alpha, "beta": arguments.beta}
    given = {k: v for k, v in weights.items() if v is not None}
    return LanguageModel(arguments.lm, **given)


def _configured(asr, arguments, model):
    """Sets language and decoding by the command line."""
    if arguments.language:
        if model is not None:
            asr.use_language_model(None)  # that of the language before
        asr.set_language(arguments.language)
    if arguments.beam_size:
        asr.use_beam_search(beam_size=arguments.beam_size)
    if arguments.hot_words:
        asr.use_hot_words(arguments.hot_words)
    if model is not None:
        asr.use_beam_search(language_model=model)
    return asr


def _words(text):
    """Words and phrases between commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(
            f"expected words between commas, got {text!r}"
        )
    return words


def tune_lm(argv: Sequence[str]) -> None:
    """Finds the weights of a language model that give the fewest word errors.

    Each recording goes through the model once. Prints the word error rates
    and, with ``--to``, writes a folder that decodes with the language model.
    """
    arguments = _parse_tune_lm(argv)
    if arguments.to is not None and Path(arguments.to).exists():
        raise ValueError(f"{arguments.to}: expected a new folder; it exists")
    check_output_folder(arguments.to)
    check_output(arguments.json, [arguments.csv, arguments.lm])
    arguments.folder = take_folder(arguments.folder, "EncoderASR")
    if not Path(arguments.csv).exists():
        raise ValueError(f"{arguments.csv}: there is no such table")
    check_file(arguments.lm, "language model")
    require_extra("kenlm", "lm", "--lm")

    from unispeech_sb.checkpoints.pretrained_folder import write_beam_search
    from unispeech_sb.decoding import LanguageModel

    model = LanguageModel(arguments.lm, case=arguments.case)
    records = _records(arguments.csv, arguments.split, arguments.text_column)
    texts = [record[arguments.text_column] for record in records]
    rows, tokenizer = _log_probs(records, arguments)
    results = _tuned(rows, texts, tokenizer, model, arguments)
    print(_shown(results["word_error_rates"], model))
    if arguments.json is not None:
        write_json(arguments.json, results)
    if arguments.to is not None:
        weights: dict[str, float | str]
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


def _parse_tune_lm(argv):
    """Reads the command line."""
    parser = new_parser(
        "tune-lm",
        "Find the weights alpha and beta of a language model that give the "
        "lowest word error rate, and write a folder that decodes by them.",
    )
    add_folder(parser, "a speech recognizer (EncoderASR)")
    parser.add_argument(
        "csv",
        metavar="CSV",
        help="table of recordings and their texts, with the columns path, "
        "split and wrd; or a folder with manifest.csv, or of another layout "
        "that the recipe asr reads",
    )
    parser.add_argument(
        "--lm",
        required=True,
        metavar="FILE",
        help="n-gram language model of words: an ARPA file or a KenLM binary",
    )
    parser.add_argument(
        "--to",
        metavar="NEW",
        help="folder to make: FOLDER with the language model and its weights",
    )
    parser.add_argument(
        "--split",
        default="valid",
        help="rows of the table to use (default: %(default)s)",
    )
    parser.add_argument(
        "--text-column",
        default="wrd",
        metavar="NAME",
        help="column of the texts (default: %(default)s)",
    )
    parser.add_argument(
        "--case",
        choices=("upper", "lower"),
        help="how the language model spells words, where the model spells "
        "them otherwise",
    )
    _add_search(parser)
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all weights that were tried, with their word error rates",
    )
    add_device(parser)
    return parser.parse_args(argv)


def _add_search(parser):
    """Adds how the weights are searched for."""
    parser.add_argument(
        "--beam-size",
        type=at_least(1),
        default=100,
        metavar="N",
        help="hypotheses that are kept at each frame (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=at_least(0),
        default=2,
        metavar="N",
        help="times that the grid of weights is refined (default: %(default)s)",
    )


def _records(path, split, column):
    """The rows of a split, which need a text."""
    from unispeech_sb.dataio.corpora import read_corpus

    found = list(read_corpus("asr", {}, path))
    records = [record for record in found if record["split"] == split]
    if not records:
        splits = sorted({record["split"] for record in found})
        raise ValueError(
            f"{path}: expected rows of the split {split!r}, got those of "
            f"{', '.join(splits) or 'none'}"
        )
    for record in records:
        if not record.get(column, "").strip():
            raise ValueError(
                f"{path}: expected a text in the column {column!r} of "
                f"{record['wav']}, got none"
            )
    return records


def _log_probs(records, arguments):
    """Log probabilities of each recording, and the model's tokenizer."""
    from tqdm import tqdm

    from unispeech_sb.dataio.audio import read_audio
    from unispeech_sb.inference.asr import LongFormASR

    asr = load_folder(LongFormASR, arguments)
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
    return rows, asr.tokenizer


def _tuned(rows, texts, tokenizer, model, arguments):
    """Word error rates by way of decoding, and the points that were tried."""
    from tqdm import tqdm

    from unispeech_sb.decoding import PrefixBeamSearch
    from unispeech_sb.decoding.tuning import tune, word_error_rate

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
