"""Tests of ``CTCTokenizer`` against transformers."""

import json
import random
import re

import numpy as np
import pytest
import torch
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.inference.ASR import EncoderASR
from speechbrain.utils.parameter_transfer import Pretrainer
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

from unispeech_sb.checkpoints.fairseq.options import read_vocabulary
from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.dataio.tokenizers.ctc import SUPERB_PHONES

CASES = 200
NAMED = ["<pad>", "<s>", "</s>", "<unk>"]
LETTERS = [*NAMED, "|", *"ABCDEÉß'"]
PHONES = ["h", "ə", "", "l", "oʊ", "|", "(en)ʃ", *NAMED]
KINDS = {
    "characters": (Wav2Vec2CTCTokenizer, LETTERS, {}),
    "lower case": (Wav2Vec2CTCTokenizer, LETTERS, {"do_lower_case": True}),
    "blank last": (
        Wav2Vec2CTCTokenizer,
        [*"_ab.", "[UNK]", "[PAD]"],
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "word_delimiter_token": "_",
            "replace_word_delimiter_char": "-",
        },
    ),
    "phones": (
        Wav2Vec2PhonemeCTCTokenizer,
        PHONES,
        {"do_phonemize": False},
    ),
    "phones in words": (
        Wav2Vec2PhonemeCTCTokenizer,
        PHONES,
        {"do_phonemize": False, "word_delimiter_token": "|"},
    ),
}


class Posteriors(torch.nn.Module):
    """Takes waveforms for the tokens of frames, to test what follows."""

    def __init__(self, num_tokens):
        super().__init__()
        self.num_tokens = num_tokens

    def forward(self, wav, wav_lens=None):
        """Log-posteriors that are sure of the tokens."""
        one_hot = torch.nn.functional.one_hot(wav.long(), self.num_tokens)
        return (one_hot * 50.0).log_softmax(-1)


@pytest.fixture(params=KINDS)
def pair(request, tmp_path):
    """transformers' tokenizer, and ours of the folder that it saves.

    Theirs is not loaded from there: transformers 5.23 then forgets a word
    delimiter other than ``|``.
    """
    cls, tokens, options = KINDS[request.param]
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    theirs = cls(str(vocabulary), **options)
    theirs.save_pretrained(tmp_path / "saved")
    texts = {p.name: p.read_text() for p in (tmp_path / "saved").iterdir()}
    blank = tokens.index(options.get("pad_token", "<pad>"))
    return theirs, CTCTokenizer.from_huggingface(texts, tokens, blank)


def random_frames(num_tokens, seed):
    """Most likely tokens of random logits, with runs as in real ones."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 4, (25,), generator=generator)
    logits = torch.randn(25, num_tokens, generator=generator)
    return logits.repeat_interleave(lengths, 0).argmax(-1)


def transfer(folder):
    """Loads a tokenizer as SpeechBrain's interfaces do."""
    tokenizer = CTCTokenizer()
    pretrainer = Pretrainer(
        loadables={"tokenizer": tokenizer}, collect_in=folder
    )
    pretrainer.load_collected()
    return tokenizer


def test_spelling_specials_is_transformers_default(pair):
    theirs, ours = pair
    spelt = set()
    for seed in range(CASES):
        frames = random_frames(len(ours), seed)
        text = ours.decode_frames(frames, skip_specials=False)
        assert text == theirs.decode(frames)
        spelt |= {t for t in ours.specials if t.lower() in text.lower()}
    assert spelt == set(ours.specials) - {ours.blank_label}


def test_leaving_specials_out_changes_nothing_else(pair):
    """transformers' text without the names of its special tokens."""
    theirs, ours = pair
    names = "|".join(map(re.escape, ours.specials))
    for seed in range(CASES):
        frames = random_frames(len(ours), seed)
        text = theirs.decode(frames)
        if ours.separator:
            kept = [p for p in text.split(" ") if p not in ours.specials]
            expected = " ".join(kept).strip()
        else:
            expected = re.sub(names, "", text, flags=re.I).strip()
        assert ours.decode_frames(frames) == expected


def test_without_specials_both_modes_are_transformers_default(pair):
    theirs, ours = pair
    units = [
        index
        for index in range(len(ours))
        if ours.ind2lab[index] not in ours.specials
    ]
    units.append(ours.blank_index)
    for seed in range(CASES):
        frames = torch.tensor(units)[random_frames(len(units), seed)]
        assert ours.decode_frames(frames) == theirs.decode(frames)


def test_encode_is_transformers(pair):
    theirs, ours = pair
    generator = random.Random(0)
    known = [t for t in ours.lab2ind if t not in ours.specials and t]
    known += [" "] * 2 + ["?", "Ñ", *("a", "é")]
    seen = set()
    for _ in range(CASES):
        symbols = generator.choices(known, k=generator.randint(1, 12))
        text = ours.separator.join(symbols)
        assert ours.encode(text) == theirs(text).input_ids, text
        seen.update(ours.encode(text))
    expected = {ours.lab2ind[t] for t in known if t in ours.lab2ind}
    expected.add(ours.lab2ind[ours.unk_label])
    if ours.lowercase:
        expected.remove(ours.lab2ind["ß"])  # its upper case is SS
    assert seen == expected
    assert ours.encode("") == []


def test_double_letters_survive_where_transformers_skips_them(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({t: i for i, t in enumerate(LETTERS)}))
    theirs = Wav2Vec2CTCTokenizer(str(path))
    ours = CTCTokenizer.from_huggingface({}, LETTERS, 0)
    frames = [LETTERS.index("A"), 0, 1, LETTERS.index("A")]
    assert theirs.decode(frames, skip_special_tokens=True) == "A"
    assert ours.decode_frames(frames) == "AA"


def test_delimiters_at_the_ends_go_and_doubled_ones_stay():
    tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    assert tokenizer.decode_frames([1, 0, 1, 2, 1, 1, 0, 1, 3, 1]) == "a  b"


def test_phones_are_apart_and_word_delimiters_gone():
    tokens = ["-", "|", "aɪ", "b"]
    phones = CTCTokenizer.from_tokens(tokens, 0, separator=" ")
    assert phones.decode_frames([2, 2, 0, 2, 1, 3]) == "aɪ aɪ b"
    assert phones.decode_ndim([2, 1, 3]) == ["aɪ", " ", "b"]
    kept = CTCTokenizer.from_tokens(tokens, 0, None, separator=" ")
    assert kept.decode_frames([2, 1, 3]) == "aɪ | b"


def test_a_token_for_the_unknown_is_special():
    tokenizer = CTCTokenizer.from_tokens(["-", "a", "?"], 0, unknown="?")
    assert tokenizer.encode("ab") == [1, 2]
    assert tokenizer.decode([1, 2, 1]) == "aa"


def test_tokens_of_several_characters_are_found_the_longest_first():
    tokens = ["-", "|", "<sp>", "S", "C", "SC", "SCH"]
    tokenizer = CTCTokenizer.from_tokens(tokens, 0)
    assert tokenizer.encode("SCH SCSCHS<sp>C") == [6, 1, 5, 6, 3, 2, 4]


def test_spaces_are_tokens_where_there_is_no_delimiter():
    tokenizer = CTCTokenizer.from_tokens(["-", "a", " "], 0)
    assert tokenizer.encode("a a") == [1, 2, 1]
    assert tokenizer.decode([2, 1, 2, 1, 2]) == "a a"


def test_a_text_never_holds_the_blank():
    tokenizer = CTCTokenizer.from_tokens(["-", "a", "<unk>"], 0)
    assert tokenizer.encode("a-a") == [1, 2, 1]
    assert CTCTokenizer.from_texts(["a"]).encode("<pad>") == [1]


def test_unknown_symbols_without_a_token_for_them_are_named():
    tokenizer = CTCTokenizer.from_tokens(["-", "a"], 0)
    with pytest.raises(
        ValueError, match="none is for the unknown; got 'b' in 'ab'"
    ):
        tokenizer.encode("ab")
    with pytest.raises(ValueError, match="got '-' in 'a-'"):
        tokenizer.encode("a-")


@pytest.mark.parametrize("index", [-1, 4, -100])
def test_indices_without_a_token_are_named(index):
    tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    with pytest.raises(ValueError, match=f"from 0 to 3; got {index}"):
        tokenizer.decode([2, index])


@pytest.mark.parametrize("separator", ["", " "])
def test_pieces_join_to_the_text(separator):
    tokenizer = CTCTokenizer.from_tokens(PHONES, 7, separator=separator)
    for seed in range(50):
        indices = random_frames(len(PHONES), seed)
        pieces = tokenizer.decode_ndim(indices)
        assert "".join(pieces) == tokenizer.decode(indices)
        assert all(isinstance(piece, str) for piece in pieces)


def test_nested_indices_give_nested_pieces():
    tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    rows = [[2, 1, 3], [1, 2, 0]]
    pieces = [["a", " ", "b"], ["a"]]
    assert tokenizer.decode_ndim(rows) == pieces
    assert tokenizer.decode_ndim([rows, rows]) == [pieces, pieces]
    assert tokenizer.decode_ndim(torch.tensor(rows)) == pieces
    assert tokenizer.decode_ndim(np.array(rows)) == pieces
    assert tokenizer.decode_ndim([torch.tensor(2), np.int64(3)]) == ["a", "b"]
    assert [tokenizer.decode_ndim(i) for i in range(3)] == ["", " ", "a"]
    assert tokenizer.decode_ndim([]) == []
    assert tokenizer.decode([]) == tokenizer.decode_frames([]) == ""


@pytest.mark.parametrize("texts", [["ab a", "c"], ["ab", "c"]])
def test_a_corpus_gives_the_blank_first_and_every_symbol(texts):
    tokenizer = CTCTokenizer.from_texts(texts)
    assert tokenizer.blank_index == 0
    assert ("|" in tokenizer.lab2ind) == (" " in texts[0])
    for text in texts:
        indices = tokenizer.encode(text)
        assert not {0, tokenizer.lab2ind["<unk>"]} & set(indices)
        assert tokenizer.decode(indices) == text


def test_a_corpus_of_phones_gives_phones():
    tokenizer = CTCTokenizer.from_texts(["h aɪ", "aɪ  m"], separator=" ")
    assert list(tokenizer.lab2ind) == ["<pad>", "<unk>", "aɪ", "h", "m"]
    assert tokenizer.encode("m aɪ x") == [4, 2, 1]


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_a_corpus_without_symbols_is_refused(texts):
    with pytest.raises(ValueError, match="expected texts"):
        CTCTokenizer.from_texts(texts)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (["a", "a"], {"blank_index": 0}, "distinct"),
        (["a", "b"], {"blank_index": 2}, "blank_index from 0 to 1; got 2"),
        (["a", "b"], {"blank_index": -1}, "blank_index from 0 to 1; got -1"),
        (["a"], {"blank_index": 0, "unknown": "?"}, "expected '[?]'"),
    ],
)
def test_vocabularies_that_cannot_be_are_refused(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        CTCTokenizer.from_tokens(tokens, **options)


def test_the_authors_vocabulary_keeps_its_empty_symbol(tmp_path):
    symbols = ["a", "", "|", "(en)ʃ"]
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    tokens, blank_index, _ = read_vocabulary(path)
    tokenizer = CTCTokenizer.from_tokens(tokens, blank_index, separator=" ")
    assert (len(tokenizer), tokenizer.blank_index) == (8, len(symbols))
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    loaded = transfer(tmp_path)
    assert loaded.lab2ind[""] == 1
    assert vars(loaded) == vars(tokenizer)
    assert loaded.decode_frames([3, 3, 4, 5, 6, 7, 0]) == "(en)ʃ a"
    assert loaded.encode("(en)ʃ x") == [3, 7]


def test_the_authors_checkpoint_gives_a_tokenizer(authors_folder):
    found = read_checkpoint(authors_folder / "fairseq_unispeech_ctc.pt")
    tokenizer = CTCTokenizer.from_tokens(
        found.tokens, found.blank_index, separator=" "
    )
    assert len(tokenizer) == found.top["lm_head.weight"].shape[0]
    assert tokenizer.blank_index == len(tokenizer) - 4
    every = tokenizer.decode(range(len(tokenizer)))
    assert every == " ".join(found.tokens[:-4]).strip()


def test_save_and_load_change_nothing(pair, tmp_path):
    _, tokenizer = pair
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    assert vars(transfer(tmp_path)) == vars(tokenizer)
    plain = CTCTextEncoder.from_saved(tmp_path / "tokenizer.ckpt")
    assert plain.lab2ind == tokenizer.lab2ind
    assert plain.get_blank_index() == tokenizer.blank_index
    assert plain.unk_label == tokenizer.unk_label


def test_tokens_of_any_characters_survive(tmp_path):
    tokens = ["-", "'", '"', "\n", "\u2028", "\\", "=", "#", " ", "𝄞", "é"]
    tokenizer = CTCTokenizer.from_tokens(tokens, 0, None)
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    assert vars(transfer(tmp_path)) == vars(tokenizer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'a' => 2\n", "'a' => 5\n"),
        ("'-' => 0\n", ""),
        ("'a' => 2\n", "3 => 2\n"),
        ("'a' => 2\n", "'a => 2\n"),
        ("'blank_label' => '-'\n", ""),
        ("'blank_label' => '-'\n", "'blank_label' => 'b'\n"),
        ("'blank_label' => '-'\n", "'blank_label' => ['-']\n"),
        ("'unk_label' => '<unk>'\n", "'unk_label' => 'b'\n"),
        ("'lowercase' => False\n", "'lowercase' => 'no'\n"),
        ("'separator' => ''\n", ""),
        ("'specials' => ['-', '<unk>']\n", "'specials' => ['-', 'b']\n"),
        ("'specials' => ['-', '<unk>']\n", "'specials' => ['-',\n"),
        ("================\n", ""),
        (None, ""),
    ],
)
def test_a_damaged_file_is_one_clear_error(old, new, tmp_path):
    path = tmp_path / "tokenizer.ckpt"
    CTCTokenizer.from_tokens(["-", "<unk>", "a"], 0).save(path)
    text = path.read_text()
    assert old is None or old in text
    path.write_text("" if old is None else text.replace(old, new))
    with pytest.raises(ValueError, match=f"{path}: expected labels") as caught:
        transfer(tmp_path)
    assert "\n" not in str(caught.value)


YAML = """
sample_rate: 16000
tokenizer: !new:unispeech_sb.dataio.tokenizers.CTCTokenizer
decoding_function: !name:speechbrain.decoders.{decoder}
modules:
    encoder: !new:tests.dataio.tokenizers.test_ctc.Posteriors
        num_tokens: 7
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        tokenizer: !ref <tokenizer>
"""
GREEDY = "ctc_greedy_decode\n    blank_id: 2"
BEAM = """ctc.CTCBeamSearcher
test_beam_search:
    blank_index: 2
    space_token: "|"
    beam_size: 4"""


@pytest.mark.parametrize("decoder", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_encoder_asr_transcribes(decoder, tmp_path):
    tokens = ["A", "|", "<pad>", "B", "<s>", "<unk>", "C"]
    tokenizer = CTCTokenizer.from_tokens(tokens, 2)
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    (tmp_path / "hyperparams.yaml").write_text(YAML.format(decoder=decoder))
    asr = EncoderASR.from_hparams(source=tmp_path)
    frames = torch.tensor([[1, 0, 0, 2, 0, 1, 3, 2], [6, 1, 1, 0, 2, 2, 3, 3]])
    texts, _ = asr.transcribe_batch(frames, torch.tensor([1.0, 0.75]))
    assert [text.strip() for text in texts] == ["AA B", "C A"]


def test_superbs_letters_are_in_the_order_of_s3prl():
    tokenizer = CTCTokenizer.superb_letters()
    tokens = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
    assert len(tokens) == 32 and tokenizer.blank_index == 0
    assert tokens[:6] == ["<s>", "<pad>", "</s>", "<unk>", "|", "E"]
    assert sorted(tokens[4:]) == sorted("|'ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    # fairseq's own dictionary has these two the other way round
    assert (tokens.index("C"), tokens.index("W")) == (18, 19)


def test_superbs_letters_spell_what_s3prl_does():
    tokenizer = CTCTokenizer.superb_letters()
    a, b = (tokenizer.lab2ind[letter] for letter in "AB")
    # Of the four specials it drops the blank, <s>, and the end, </s>
    assert tokenizer.decode_frames([0, a, 1, 0, 3, 3, 2, 4, b, b, 2]) == (
        "A<pad><unk> B"
    )


def test_targets_end_as_superbs_do_and_texts_do_not():
    tokenizer = CTCTokenizer.superb_letters()
    targets = tokenizer.targets("A B")
    assert [tokenizer.ind2lab[i] for i in targets] == [*"A|B|", "</s>"]
    assert tokenizer.encode("A B") == targets[:3]
    assert tokenizer.decode(targets) == "A B"


def test_without_an_ending_targets_are_the_text():
    tokenizer = CTCTokenizer.from_texts(["ab a"])
    assert tokenizer.targets("a b") == tokenizer.encode("a b")


def test_an_ending_is_saved_and_only_then_in_the_file(tmp_path):
    path = tmp_path / "tokenizer.ckpt"
    tokenizer = CTCTokenizer.superb_letters()
    tokenizer.save(path)
    loaded = CTCTokenizer()
    loaded.load_strict(path)
    assert vars(loaded) == vars(tokenizer)
    CTCTokenizer.from_texts(["ab"]).save(path)
    assert "ending" not in path.read_text()


def test_superb_has_silence_noise_and_arpabet_with_stress():
    assert len(set(SUPERB_PHONES)) == 71
    assert SUPERB_PHONES[:5] == ("SIL", "SPN", "AA0", "AA1", "AA2")
    assert list(SUPERB_PHONES[2:]) == sorted(SUPERB_PHONES[2:])
    stressed = [phone for phone in SUPERB_PHONES if phone[-1].isdecimal()]
    assert len(stressed) == 3 * 15


def test_superb_begins_with_blank_end_and_unknown():
    tokenizer = CTCTokenizer.superb_phones(["AA1"])
    first = [tokenizer.ind2lab[index] for index in range(4)]
    assert first == ["<pad>", "<eos>", "<unk>", "SIL"]
    assert len(tokenizer) == 74
    assert tokenizer.blank_index == 0


def test_superb_ends_each_target_and_drops_that_in_scoring():
    tokenizer = CTCTokenizer.superb_phones()
    targets = tokenizer.targets("AA1 Q ZH")
    assert targets == [6, 2, 73, 1]
    assert tokenizer.decode_frames([0, *targets, 0]) == "AA1 <unk> ZH"
