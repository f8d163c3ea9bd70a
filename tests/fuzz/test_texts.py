"""A short run over damaged texts, and whether it finds what it looks for."""

import pytest

from tests.fuzz import texts


def test_damaged_texts_are_read_or_refused_in_one_line(tmp_path):
    num_read, failures = texts.fuzz(400, 0, tmp_path)
    assert not failures, failures[0]
    assert 50 < num_read < 350


@pytest.mark.parametrize("name", texts.TEXTS)
def test_every_text_is_read_by_its_readers(name, tmp_path):
    texts.write_texts(tmp_path)
    kind = name.split("/")[0]
    for read in texts.READERS[kind]:
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe\0")
    refused = 0
    for read in texts.READERS[kind]:
        try:
            read(tmp_path / name)
        except (ValueError, FileNotFoundError):
            refused += 1
    assert refused


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), ValueError("no file"), KeyError("a")]
)
def test_other_errors_are_failures(error, tmp_path, monkeypatch):
    def fail(path):
        raise error

    monkeypatch.setattr(texts, "READERS", dict.fromkeys(texts.READERS, [fail]))
    assert len(texts.fuzz(3, 0, tmp_path)[1]) == 3
