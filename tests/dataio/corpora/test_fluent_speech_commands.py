"""Fluent Speech Commands in a miniature of its layout."""

import pytest

from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.fluent_speech_commands import (
    fluent_speech_commands,
)

HEADER = ",path,speakerId,transcription,action,object,location\n"


def write_table(folder, split, rows, make):
    """The table of a split; ``make`` writes each recording."""
    lines = [HEADER]
    for number, (name, values) in enumerate(rows):
        path = f"wavs/speakers/{name}.wav"
        wav = folder / path
        wav.parent.mkdir(parents=True, exist_ok=True)
        make(wav)
        speaker = wav.parent.name
        text = '"Turn on, please"'
        lines.append(f"{number},{path},{speaker},{text},{','.join(values)}\n")
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / f"{split}_data.csv").write_text("".join(lines))


@pytest.fixture
def corpus(tmp_path):
    """One command in each split."""
    values = ["activate", "lights", "none"]
    for split in ("train", "valid", "test"):
        rows = [(f"spk_{split}/{split}-uuid", values)]
        write_table(tmp_path, split, rows, lambda wav: wav.touch())
    return tmp_path


def test_rows_become_records(corpus):
    task = "intent_classification"
    assert find_corpus(task, {}, corpus) == "fluent_speech_commands"
    records = list(read_corpus(task, {}, corpus))
    assert [r["split"] for r in records] == ["train", "valid", "test"]
    assert records[0] == {
        "ID": "train-uuid",
        "wav": str(corpus / "wavs/speakers/spk_train/train-uuid.wav"),
        "split": "train",
        "spk_id": "spk_train",
        "action": "activate",
        "object": "lights",
        "location": "none",
    }


def test_a_file_or_table_or_column_that_is_missing_is_named(corpus):
    (corpus / "wavs/speakers/spk_test/test-uuid.wav").unlink()
    with pytest.raises(ValueError, match="test_data.csv, line 2: no such file"):
        list(fluent_speech_commands(corpus))
    table = corpus / "data" / "valid_data.csv"
    table.write_text(table.read_text().replace("object", "thing"))
    with pytest.raises(ValueError, match="expected a column 'object'"):
        list(fluent_speech_commands(corpus))
    table.unlink()
    with pytest.raises(ValueError, match="valid_data.csv: there is no such"):
        list(fluent_speech_commands(corpus))
