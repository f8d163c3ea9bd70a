"""SUPERB's phones."""

from unispeech_sb.dataio.phones import SUPERB_PHONES, superb_tokenizer


def test_superb_has_silence_noise_and_arpabet_with_stress():
    assert len(set(SUPERB_PHONES)) == 71
    assert SUPERB_PHONES[:5] == ("SIL", "SPN", "AA0", "AA1", "AA2")
    assert list(SUPERB_PHONES[2:]) == sorted(SUPERB_PHONES[2:])
    stressed = [phone for phone in SUPERB_PHONES if phone[-1].isdecimal()]
    assert len(stressed) == 3 * 15


def test_superb_begins_with_blank_end_and_unknown():
    tokenizer = superb_tokenizer(["AA1"])
    first = [tokenizer.ind2lab[index] for index in range(4)]
    assert first == ["<pad>", "<eos>", "<unk>", "SIL"]
    assert len(tokenizer) == 74
    assert tokenizer.blank_index == 0


def test_superb_ends_each_target_and_drops_that_in_scoring():
    tokenizer = superb_tokenizer()
    targets = tokenizer.targets("AA1 Q ZH")
    assert targets == [6, 2, 73, 1]
    assert tokenizer.decode_frames([0, *targets, 0]) == "AA1 <unk> ZH"
