"""Tokenizers of given letters."""

from unispeech_sb.dataio.tokenizers import CTCTokenizer


def test_superbs_letters_are_fairseqs_of_librispeech():
    tokenizer = CTCTokenizer.superb_letters()
    tokens = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
    assert len(tokens) == 32 and tokenizer.blank_index == 0
    assert tokens[:6] == ["<s>", "<pad>", "</s>", "<unk>", "|", "E"]
    assert sorted(tokens[4:]) == sorted("|'ABCDEFGHIJKLMNOPQRSTUVWXYZ")


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
