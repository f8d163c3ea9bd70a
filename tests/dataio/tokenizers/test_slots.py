"""Letters and tags of slots as tokens: SUPERB's 109, to the letter."""

import pytest

from unispeech_sb.dataio.corpora.audio_snips import tagged_text
from unispeech_sb.dataio.tokenizers import CTCTokenizer

LETTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
SLOTS = [f"slot_{number}" for number in range(37)] + ["artist", "city"]


@pytest.fixture
def tokenizer(tmp_path):
    """SUPERB's tokenizer: 39 slots in a file that begins with O."""
    path = tmp_path / "slots.txt"
    path.write_text("\n".join(["O", *SLOTS]))
    return CTCTokenizer.from_slots([], path, LETTERS)


def names(tokenizer, indices):
    return [tokenizer.ind2lab[index] for index in indices]


def test_there_are_109_tokens_in_superbs_order(tokenizer, tmp_path):
    assert len(tokenizer) == 109
    assert tokenizer.blank_index == 0
    first = names(tokenizer, range(5))
    assert first == ["<pad>", "<eos>", "<unk>", " ", "A"]
    assert names(tokenizer, [29, 30]) == ["Z", "'"]
    assert names(tokenizer, [31, 32]) == ["B-slot_0 ", " E-slot_0"]
    assert names(tokenizer, [107, 108]) == ["B-city ", " E-city"]
    # A last line end, with which s3prl would have two tokens more
    path = tmp_path / "ended.txt"
    path.write_text("\n".join(["O", *SLOTS]) + "\n")
    assert len(CTCTokenizer.from_slots([], path, LETTERS)) == 109


END, SPACE = "<eos>", " "


@pytest.mark.parametrize(
    ("words", "tags", "tokens"),
    [
        (
            "PLAY AB", "O artist",
            [*"PLAY", SPACE, "B-artist ", *"AB", " E-artist", END],
        ),
        (  # neighbours of one type are one slot
            "A B C", "city city O",
            ["B-city ", "A", SPACE, "B", " E-city", SPACE, "C", END],
        ),
        (
            "A B", "city artist",
            ["B-city ", "A", " E-city", SPACE,
             "B-artist ", "B", " E-artist", END],
        ),
        # What is a part of ?!.,;- is skipped; !! is none
        ("A ?! B ,; C", "O O O O O", [*"A B C", END]),
        ("A !!", "O O", ["A", SPACE, "<unk>", "<unk>", END]),
        ("A & B", "O O O", [*"A AND B", END]),
        ("A .", "O O", ["A", SPACE]),  # no end, but a space
        ("A .", "city city", ["B-city ", "A", SPACE]),  # and no tag
        (". A", "city city", ["A", " E-city", END]),
        (  # so the slot is lost
            "- A ; B", "city city city O",
            ["A", SPACE, "B", END],
        ),
        ("7 CO-OP É", "O O O", ["<unk>", SPACE, *"CO", "<unk>", *"OP",
                                SPACE, "<unk>", END]),
        (".", "O", []),
    ],
)  # fmt: skip
def test_texts_are_encoded_to_the_letter(tokenizer, words, tags, tokens):
    text = tagged_text(words.split(" "), tags.split(" "))
    assert names(tokenizer, tokenizer.targets(text)) == tokens


def test_the_unknown_is_spelt_and_the_end_is_not(tokenizer):
    text = tagged_text(["PLAY", "7", "UP"], ["O", "artist", "artist"])
    indices = tokenizer.targets(text)
    spelt = "PLAY B-artist <unk> UP E-artist"
    assert tokenizer.decode(indices) == spelt
    blanks = [i for index in indices for i in (0, index, index)]
    assert tokenizer.decode_frames([*blanks, 1, 0]) == spelt


def test_a_file_brings_all_of_it_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    loaded = CTCTokenizer()
    loaded.load_strict(tmp_path / "tokenizer.ckpt")
    assert loaded.lab2ind == tokenizer.lab2ind and loaded.has_tags
    text = "A B-city X E-city"
    assert loaded.targets(text) == tokenizer.targets(text)
    assert not CTCTokenizer.superb_letters().has_tags


def test_slots_and_letters_of_texts():
    texts = ["ÄB B-city x E-city", "B-artist x E-artist"]
    tokenizer = CTCTokenizer.from_slots(texts)
    found = names(tokenizer, range(3, len(tokenizer)))
    tags = ["B-artist ", " E-artist", "B-city ", " E-city"]
    assert found == [" ", "B", "x", "Ä", *tags]


def test_what_is_no_list_of_slots_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected texts with slots, such as"):
        CTCTokenizer.from_slots(["PLAY ABBA"])
    path = tmp_path / "slots.txt"
    path.write_text("artist\nO\n")
    with pytest.raises(ValueError, match="slots.txt, line 1: expected O, then"):
        CTCTokenizer.from_slots([], path)
