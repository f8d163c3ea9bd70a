"""Speed and word error rate of CTC decoders on the same log-posteriors.

    python benchmarks/decoding.py FOLDER CSV --lm lm.arpa [--split valid]

FOLDER is for EncoderASR, CSV lists recordings with their texts. Our greedy
path and prefix beam search, SpeechBrain's two searchers, and flashlight's
LexiconFree and Lexicon decoders (pip install flashlight-text), all with the
same beam, thresholds, language model, alpha and beta; flashlight counts a word
by its own word_score = beta. Without --lm, an ARPA file of the texts
themselves is made: it tells of speed, not of error rates.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

from ngrams import write_arpa
from speechbrain.decoders.ctc import CTCBeamSearcher, CTCPrefixBeamSearcher

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora.csv_table import csv_table
from unispeech_sb.decoding import (
    HotWords,
    LanguageModel,
    PrefixBeamSearch,
    greedy_transcript,
)
from unispeech_sb.decoding.tuning import word_error_rate
from unispeech_sb.inference.asr import LongFormASR


def ours(arguments, tokenizer):
    """Name -> log-posteriors to text."""
    settings = {
        "beam_size": arguments.beam_size,
        "beam_threshold": arguments.beam_threshold,
        "token_threshold": arguments.token_threshold,
    }
    model = LanguageModel(arguments.lm, arguments.alpha, arguments.beta)
    hot_words = HotWords(arguments.hot_words, weight=4.0)
    searches = {
        "prefix beam search": {},
        "prefix beam search, LM": {"language_model": model},
        "prefix beam search, LM, hot words": {
            "language_model": model,
            "hot_words": hot_words,
        },
    }
    made = {
        "greedy with words": lambda row: (
            greedy_transcript(row, tokenizer, 0.02, 1.0).text
        )
    }
    for name, options in searches.items():
        search = PrefixBeamSearch(tokenizer, **options, **settings)
        made[name] = lambda row, s=search: s.decode(row)[0].text
    return made


def speechbrains(arguments, tokenizer):
    """The same for SpeechBrain's searchers."""
    vocabulary = [
        " " if token == tokenizer.word_delimiter else token
        for token in (tokenizer.ind2lab[i] for i in range(len(tokenizer)))
    ]
    made = {}
    for searcher in (CTCBeamSearcher, CTCPrefixBeamSearcher):
        for name, path in (("", None), (", LM", arguments.lm)):
            built = searcher(
                tokenizer.blank_index,
                vocabulary,
                kenlm_model_path=path,
                alpha=arguments.alpha,
                beta=arguments.beta,
                beam_size=arguments.beam_size,
                beam_prune_logp=-arguments.beam_threshold,
                token_prune_min_logp=-arguments.token_threshold,
            )
            made[f"SpeechBrain {searcher.__name__}{name}"] = (
                lambda row, s=built: s(row[None])[0][0].text
            )
    return made


def flashlights(arguments, tokenizer):
    """The same for flashlight's decoders in C++."""
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder import kenlm
    from flashlight.lib.text.dictionary import create_word_dict

    tokens = [tokenizer.ind2lab[i] for i in range(len(tokenizer))]
    blank, space = tokenizer.blank_index, tokens.index("|")
    shared = {
        "beam_size": arguments.beam_size,
        "beam_size_token": len(tokens),
        "beam_threshold": arguments.beam_threshold,
        "sil_score": 0.0,
        "log_add": True,
        "criterion_type": fl.CriterionType.CTC,
    }
    free = fl.LexiconFreeDecoder(
        fl.LexiconFreeDecoderOptions(lm_weight=0.0, **shared),
        fl.ZeroLM(),
        space,
        blank,
        [],
    )
    words = LanguageModel(arguments.lm)._words
    words = [w for w in words if _spelled(tokenizer, w)]
    dictionary = create_word_dict({w: [] for w in [*words, "<unk>"]})
    model = kenlm.KenLM(str(arguments.lm), dictionary)
    trie = fl.Trie(len(tokens), space)
    for word in words:
        index = dictionary.get_index(word)
        score = model.score(model.start(False), index)[1]
        trie.insert([*tokenizer.encode(word), space], index, score)
    trie.smear(fl.SmearingMode.MAX)
    lexicon = fl.LexiconDecoder(
        fl.LexiconDecoderOptions(
            lm_weight=arguments.alpha * math.log(10),
            word_score=arguments.beta,
            unk_score=-math.inf,
            **shared,
        ),
        trie,
        model,
        space,
        blank,
        dictionary.get_index("<unk>"),
        [],
        False,
    )
    return {
        "flashlight LexiconFree": lambda row: tokenizer.decode_frames(
            _best(free, row).tokens
        ),
        "flashlight Lexicon, LM": lambda row: " ".join(
            dictionary.get_entry(w) for w in _best(lexicon, row).words if w >= 0
        ),
    }


def _spelled(tokenizer, word):
    """Whether tokens can write a word."""
    return tokenizer.decode(tokenizer.encode(word)) == word


def _best(decoder, row):
    """flashlight's best result."""
    row = row.contiguous()
    return decoder.decode(row.data_ptr(), *row.shape)[0]


def log_posteriors(arguments):
    """Log-posteriors, texts and seconds of all recordings; the tokenizer."""
    asr = LongFormASR.from_hparams(arguments.folder)
    rows, texts, seconds = [], [], 0.0
    for record in csv_table(arguments.csv, label_column=None):
        if record["split"] != arguments.split:
            continue
        wav = read_audio(record["wav"], record.get("start"), record.get("stop"))
        rows.append(asr.log_probs(wav))
        texts.append(record[arguments.text_column])
        seconds += len(wav) / 16000
        if len(rows) == arguments.limit:
            break
    return rows, texts, seconds, asr.tokenizer


def main():
    """Prints one table."""
    arguments = parse()
    rows, texts, seconds, tokenizer = log_posteriors(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.lm is None:
            arguments.lm = str(Path(folder, "texts.arpa"))
            write_arpa(arguments.lm, texts)
        decoders = {
            **ours(arguments, tokenizer),
            **speechbrains(arguments, tokenizer),
            **flashlights(arguments, tokenizer),
        }
    blank = sum(
        (row.argmax(-1) == tokenizer.blank_index).sum().item() for row in rows
    ) / sum(map(len, rows))
    print(
        f"{len(rows)} recordings, {seconds:.0f} s, {len(tokenizer)} tokens, "
        f"{blank:.0%} of frames blank; beam {arguments.beam_size}, alpha "
        f"{arguments.alpha}, beta {arguments.beta}\n"
    )
    print("| decoder | CPU ms per second of speech | WER |\n|---|---|---|")
    for name, decode in decoders.items():
        decode(rows[0][:50])
        begin = time.process_time()
        found = [decode(row) for row in rows]
        spent = (time.process_time() - begin) / seconds * 1000
        rate = word_error_rate(found, texts)
        print(f"| {name} | {spent:.2f} | {rate:.2f} % |", flush=True)


def parse():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("csv")
    parser.add_argument("--lm")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--text-column", default="wrd")
    parser.add_argument("--limit", type=int, help="recordings")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--beta", type=float, default=1.5)
    parser.add_argument("--beam-size", type=int, default=100)
    parser.add_argument("--beam-threshold", type=float, default=10.0)
    parser.add_argument("--token-threshold", type=float, default=5.0)
    parser.add_argument(
        "--hot-words", nargs="+", default=["CIRCUMSTANCE", "MY ESTATE"]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
