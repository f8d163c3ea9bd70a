"""Audio SNIPS in a miniature of its layout."""

import logging

import pytest

from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.audio_snips import (
    audio_snips,
    with_tagged_texts,
)

VOICES = {
    "train": "Ivy Joanna Joey Justin Kendra Kimberly Matthew Salli".split(),
    "valid": "Aditi Amy Geraint Nicole".split(),
    "test": "Brian Emma Raveena Russell".split(),
}
REQUEST = "BOS PLAY QUEEN ? EOS\tO O artist O PlayMusic"


def write_snips(folder, request=REQUEST, count=1):
    """A request in each split by every voice, SUPERB's of that split or not."""
    lines = []
    everyone = [voice for voices in VOICES.values() for voice in voices]
    for split in VOICES:
        (folder / split).mkdir(parents=True)
        for voice in everyone:
            for number in range(count):
                name = f"{voice}-snips-{split}-{number}"
                (folder / split / f"{name}.wav").touch()
                lines.append(f"{name} {request}")
    (folder / "all.iob.snips.txt").write_text("\n".join(lines) + "\n")
    (folder / "slots.txt").write_text("O\nartist\ncity")
    return folder


def test_voices_have_their_split(tmp_path):
    folder = write_snips(tmp_path, count=2)
    assert find_corpus("slot_filling", {}, folder) == "audio_snips"
    records = list(read_corpus("slot_filling", {}, folder))
    found = {split: [] for split in VOICES}
    for record in records:
        found[record["split"]].append(record["spk_id"])
    assert {s: sorted(v) for s, v in found.items()} == {
        split: sorted(2 * voices) for split, voices in VOICES.items()
    }
    assert records[0] == {
        "ID": "Ivy-snips-train-0",
        "wav": str(folder / "train" / "Ivy-snips-train-0.wav"),
        "split": "train",
        "spk_id": "Ivy",
        "wrd": "PLAY QUEEN ?",
        "slots": "O artist O",
    }


def test_recordings_without_a_text_are_left_out_and_counted(
    tmp_path, caplog, monkeypatch
):
    folder = write_snips(tmp_path)
    (folder / "train" / "Ivy-snips-train-9.wav").touch()
    (folder / "train" / "Zoe-snips-train-9.wav").touch()  # no voice of SUPERB's
    logger = logging.getLogger("unispeech_sb.dataio.corpora.audio_snips")
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert len(list(audio_snips(folder))) == 16
    assert "Left out 1 recordings without a text: Ivy-" in caplog.text


@pytest.mark.parametrize(
    "request_", ["BOS PLAY EOS O O x", "BOS EOS\tO x", "BOS A B EOS\tO O x"]
)
def test_a_line_of_another_form_is_named(tmp_path, request_):
    folder = write_snips(tmp_path, request_)
    with pytest.raises(ValueError, match="iob.snips.txt, line 1: expected a"):
        list(audio_snips(folder))


def tagged(words, tags, protocol):
    """The text that a recipe trains on."""
    row = {"wav": "a.wav", "wrd": words, "slots": tags}
    return next(with_tagged_texts([row], protocol))["tagged"]


def test_the_clean_protocol_loses_no_tag_to_punctuation():
    words, tags = ", ROME , ITALY .", "city city city city O"
    assert tagged(words, tags, "superb") == "ROME ITALY E-city "
    clean = "B-city ROME ITALY E-city"
    assert tagged(words, tags, "clean") == clean
    assert tagged("ROME ITALY", "B-city I-city", "clean") == clean


def test_words_and_tags_have_to_be_as_many():
    with pytest.raises(ValueError, match="a.wav: expected words .* as many"):
        tagged("PLAY QUEEN", "O", "clean")
    with pytest.raises(ValueError, match="protocol: expected superb or clean"):
        tagged("PLAY", "O", "other")
    with pytest.raises(ValueError, match="got None"):
        next(with_tagged_texts([{"wav": "a.wav"}], "clean"))
