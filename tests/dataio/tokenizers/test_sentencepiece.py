"""SentencePiece's models, and the tokenizers of them."""

import io

import pytest
import sentencepiece
import torch
from speechbrain.inference.ASR import EncoderASR
from speechbrain.utils.parameter_transfer import Pretrainer

from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.dataio.tokenizers import sentencepiece as pieces

TEXTS = [
    "SO IT IS",
    "IT IS SO",
    "THE STORY IS NOT OVER",
    "THE OTHER STORIES ARE OVER",
    "É ﬁN  TWO",
]
SIZE = 24


@pytest.fixture(scope="module")
def model():
    """A small model."""
    return pieces.train(TEXTS, SIZE)


@pytest.fixture
def tokenizer(model):
    """Its tokenizer."""
    return CTCTokenizer.from_pieces(model)


def load(folder):
    """Loads a tokenizer as SpeechBrain's interfaces do."""
    tokenizer = CTCTokenizer()
    Pretrainer(
        loadables={"tokenizer": tokenizer}, collect_in=folder
    ).load_collected()
    return tokenizer


def test_training_twice_gives_the_same_model(model):
    assert pieces.train(iter(TEXTS), SIZE) == model
    assert pieces.train(TEXTS, SIZE - 1) != model


def test_the_blank_comes_before_the_pieces(tokenizer, model):
    tokens = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
    assert tokens == ["<pad>", *pieces.read(model).tokens]
    assert len(tokens) == SIZE + 1 and tokenizer.blank_index == 0
    assert tokenizer.specials == ["<pad>", "<unk>"]


def test_texts_go_there_and_back(tokenizer):
    for text in TEXTS:
        indices = tokenizer.encode(text)
        assert tokenizer.decode(indices) == " ".join(text.split())
        assert tokenizer.lab2ind["<unk>"] not in indices
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_frames_merge_before_pieces_join(tokenizer):
    indices = tokenizer.encode("SO SO")
    frames = [index for i in indices for index in (i, i, 0)]
    assert tokenizer.decode_frames([0, *frames]) == "SO SO"


def test_what_has_no_piece_is_unknown_and_left_out(tokenizer):
    indices = tokenizer.encode("IT 字 IS")
    assert tokenizer.lab2ind["<unk>"] in indices
    assert "字" not in tokenizer.decode(indices)
    assert tokenizer.decode(tokenizer.encode("<pad>")).count("pad") == 0


def test_decoded_rows_join_to_texts(tokenizer):
    rows = [tokenizer.encode(text) for text in TEXTS[:2]]
    assert ["".join(row) for row in tokenizer.decode_ndim(rows)] == TEXTS[:2]


def test_saving_and_loading_change_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    loaded = load(tmp_path)
    assert vars(loaded) == vars(tokenizer)
    assert loaded.decode(loaded.encode(TEXTS[2])) == TEXTS[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("'sentencepiece' => '", "&AAAA"),
        lambda text: text[:-20] + "'\n",
        lambda text: text.replace("'THE'", "'THEE'"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tokenizer, change, tmp_path):
    path = tmp_path / "tokenizer.ckpt"
    tokenizer.save(path)
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(ValueError, match=f"{path}: expected labels"):
        load(tmp_path)


def test_specials_of_a_model_are_left_out():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=29,
        pad_id=3, control_symbols=["<en>"], minloglevel=2,
    )  # fmt: skip
    tokenizer = CTCTokenizer.from_pieces(model.getvalue())
    assert tokenizer.blank_label == "<blank>"
    names = ["<blank>", "<unk>", "<s>", "</s>", "<pad>", "<en>"]
    assert tokenizer.specials == names
    indices = [tokenizer.lab2ind[name] for name in names]
    assert tokenizer.decode([*indices, *tokenizer.encode("IT IS")]) == "IT IS"


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="5 texts give, got 900 .Vocab.* high"):
        pieces.train(TEXTS, 900)
    with pytest.raises(ValueError, match="5 texts give, got 3 .Vocab.* small"):
        pieces.train(TEXTS, 3)
    with pytest.raises(ValueError, match="0 texts give"):
        pieces.train(["", " "], 9)


def test_a_file_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected a SentencePiece model"):
        CTCTokenizer.from_pieces(b"not a model")


YAML = """
sample_rate: 16000
tokenizer: !new:unispeech_sb.dataio.tokenizers.CTCTokenizer
decoding_function: !name:speechbrain.decoders.{decoder}
modules:
    encoder: !new:tests.dataio.tokenizers.test_ctc.Posteriors
        num_tokens: 25
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        tokenizer: !ref <tokenizer>
"""
GREEDY = "ctc_greedy_decode\n    blank_id: 0"
BEAM = "ctc.CTCBeamSearcher\ntest_beam_search: {blank_index: 0, beam_size: 4}"


@pytest.mark.parametrize("decoder", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_encoder_asr_transcribes(decoder, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    (tmp_path / "hyperparams.yaml").write_text(YAML.format(decoder=decoder))
    asr = EncoderASR.from_hparams(source=tmp_path)
    indices = tokenizer.encode("THE STORY IS")
    frames = torch.tensor([[0, *(i for i in indices for _ in (0, 1)), 0]])
    texts, _ = asr.transcribe_batch(frames, torch.ones(1))
    assert [text.strip() for text in texts] == ["THE STORY IS"]
