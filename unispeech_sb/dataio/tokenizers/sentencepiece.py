"""SentencePiece (Kudo and Richardson 2018): pieces of words, learnt from texts.

A model is kept as text, its bytes in base64, so that SpeechBrain's label files
can hold it.
"""

import base64
import functools
import io
from typing import NamedTuple

_MOST_BYTES_OF_A_TEXT = 2**20  # SentencePiece passes over longer ones


class Pieces(NamedTuple):
    """Pieces of a model by index, those that stand for no text, the unknown."""

    tokens: list[str]
    specials: list[str]
    unknown: str


def train(texts, num_pieces):
    """Learns so many pieces of texts by the unigram model, which it returns."""
    import sentencepiece

    texts = [text for text in texts if text.strip()]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=num_pieces,
            model_type="unigram",
            character_coverage=1.0,
            max_sentence_length=_MOST_BYTES_OF_A_TEXT,
            normalization_rule_name="identity",  # decoding gives texts back
            num_threads=1,  # their number changes the pieces
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"pieces: expected a number that {len(texts)} texts give, got "
            f"{num_pieces} ({_last_line(error)})"
        ) from error
    return base64.b64encode(model.getvalue()).decode()


def read(model):
    """Reads the vocabulary of a model, which has to be one."""
    processor = _processor(model)
    indices = range(processor.get_piece_size())
    tokens = [processor.id_to_piece(index) for index in indices]
    specials = [
        tokens[index]
        for index in indices
        if processor.is_control(index) or processor.is_unknown(index)
    ]
    return Pieces(tokens, specials, tokens[processor.unk_id()])


def split(model, text):
    """Splits a text into pieces, and symbols that are in none."""
    return _processor(model).encode(text, out_type=str)


def join(model, tokens):
    """Makes the text of pieces."""
    return _processor(model).decode(tokens) if tokens else ""


@functools.lru_cache(maxsize=4)
def _processor(model):
    """SentencePiece's own object, made once for a model."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(base64.b64decode(model))
        processor.unk_id()
    except (RuntimeError, ValueError) as error:
        raise ValueError("expected a SentencePiece model") from error
    return processor


def _last_line(error):
    """Message of an error of SentencePiece, without its place in the source."""
    return str(error).strip().splitlines()[-1].rpartition("] ")[2].strip()
