"""The simulator of the loader against cases that can be worked out."""

import pytest

from benchmarks.loader_simulator import Setting, predict

QUICK = Setting(
    ranks=1, readers=1, batches=20, batch_s=10.0, bytes_per_s=1000.0,
    decode_rate=100.0, step_s=0.0, bandwidth=1e12, stream_bandwidth=1e12,
    latency_s=0.0, request_bytes=1e9, prefetch=2, buffer_s=0.0,
)  # fmt: skip


def test_readers_that_decode_share_the_work():
    for readers in (1, 2, 4):
        found = predict(QUICK._replace(readers=readers))
        assert found.seconds == pytest.approx(20 * 0.1)
        assert found.first_batch_s == pytest.approx(0.1)
        assert found.limit == "reader"


def test_the_storage_is_shared():
    slow = QUICK._replace(bandwidth=20000.0, readers=4)
    found = predict(slow)
    reading = 4 * 20 * 10.0 * 1000.0 / 20000.0
    assert found.seconds == pytest.approx(reading + 0.1)
    assert found.storage_share == pytest.approx(reading / (reading + 0.1))
    assert found.limit == "storage"
    alone = predict(QUICK._replace(stream_bandwidth=20000.0))
    assert alone.seconds == pytest.approx(20 * (0.5 + 0.1))


def test_training_that_is_slower_never_waits():
    found = predict(QUICK._replace(step_s=0.2))
    assert found.stall_s == pytest.approx(0.0)
    assert found.seconds == pytest.approx(0.1 + 20 * 0.2)
    assert found.limit == "training"


def test_training_waits_for_a_slower_reader():
    found = predict(QUICK._replace(step_s=0.04))
    assert found.stall_s == pytest.approx(19 * 0.06)
    assert found.audio_per_s == pytest.approx(200 / (19 * 0.1 + 0.04))


def test_each_request_waits_for_the_latency():
    asked = QUICK._replace(request_bytes=1000.0, latency_s=0.01)
    assert predict(asked).seconds == pytest.approx(20 * (10 * 0.01 + 0.1))


def test_the_buffer_is_read_before_the_first_batch_and_once():
    asked = QUICK._replace(buffer_s=100.0, bandwidth=10000.0)
    found = predict(asked)
    assert found.first_batch_s == pytest.approx(11.0 + 0.1)
    reading = 20 * 10.0 * 1000.0 / 10000.0
    assert found.storage_share * found.seconds == pytest.approx(reading)
    # the last ten batches are in the buffer
    assert found.seconds == pytest.approx(reading + 20 * 0.1)


def test_ranks_begin_a_step_together():
    one = QUICK._replace(step_s=0.05, bandwidth=200000.0)
    several = predict(one._replace(ranks=8))
    reading = 8 * 20 * 10.0 * 1000.0 / 200000.0
    assert several.seconds == pytest.approx(reading + 0.1 + 0.05, rel=0.02)
    assert several.audio_per_s < 8 * predict(one).audio_per_s


def test_two_workers_as_they_were_measured():
    """docs/shards.md: two workers of a loader on two cores, each of which had
    decoded 2310 s of audio in a second."""
    asked = Setting(
        readers=2, batches=27, batch_s=3600 / 54, bytes_per_s=20400.0,
        decode_rate=2310.0, step_s=0.0, bandwidth=7.18e8,
        stream_bandwidth=7.18e8, latency_s=0.0, buffer_s=600.0,
    )  # fmt: skip
    found = predict(asked).audio_per_s * (1 - 1 / 54)
    assert found == pytest.approx(5058, rel=0.25)
