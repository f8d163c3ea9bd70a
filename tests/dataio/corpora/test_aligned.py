"""Spoken sentences with the times of their phones."""

import pytest

pytest.importorskip("espeakng_loader", reason="espeakng-loader is missing")

from unispeech_sb.dataio.alignments import read_spans  # noqa: E402
from unispeech_sb.dataio.audio import read_audio  # noqa: E402
from unispeech_sb.dataio.corpora.aligned import aligned_sentences  # noqa: E402


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five sentences by three voices."""
    folder = tmp_path_factory.mktemp("aligned")
    return aligned_sentences(folder, (3, 2, 0), (2, 1, 0))


def test_no_two_splits_share_a_voice_or_a_sentence(records):
    assert [record["split"] for record in records] == [
        *(["train"] * 3), *(["valid"] * 2),
    ]  # fmt: skip
    voices = [record["spk_id"] for record in records]
    assert voices == ["v000", "v001", "v000", "v002", "v002"]
    assert len({record["wrd"] for record in records}) == 5


def test_phones_are_in_order_and_within_the_recording(records):
    for record in records:
        spans = read_spans(record)
        assert [phone for phone, _, _ in spans] == record["phn"].split()
        times = [time for _, *own in spans for time in own]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= record["duration"] + 1e-3


def test_it_sounds_where_there_are_phones(records):
    for record in records:
        wav = read_audio(record["wav"])
        stops = [0.0] + [stop for _, _, stop in read_spans(record)]
        start = read_spans(record)[0][1]
        heard = wav[round(start * 16000) : round(stops[-1] * 16000)]
        assert heard.square().mean() > 10 * wav[-320:].square().mean()


def test_a_second_call_finds_the_first_ones(records, tmp_path):
    first = aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=4)
    assert first == aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=4)
    other = aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=5)
    assert other[0]["wrd"] != first[0]["wrd"]


def test_sentences_without_a_voice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="valid: expected a voice for 2"):
        aligned_sentences(tmp_path, (1, 2, 0), (1, 0, 0))
