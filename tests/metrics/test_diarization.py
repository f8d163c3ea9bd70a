"""Diarization errors: by hand, as published, and beside pyannote.metrics."""

import math
import warnings
from itertools import permutations

import numpy as np
import pytest
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from unispeech_sb.metrics.diarization import (
    ErrorTimes,
    JaccardErrors,
    diarization_error,
    jaccard_error,
    speaker_count_error,
    sum_errors,
)


def turns(generator, num_speakers, step=1e-3):
    """Segments of speakers who overlap each other but not themselves."""
    segments = []
    for speaker in range(num_speakers):
        count = 2 * generator.integers(1, 8)
        times = np.sort(generator.uniform(0, 30, count)) / step
        times = np.unique(times.round()) * step
        if generator.random() < 0.3:  # touching ones
            times = np.repeat(times, 2)[1:-1]
        pairs = zip(times[::2].tolist(), times[1::2].tolist())
        segments += [(start, end, f"s{speaker}") for start, end in pairs]
    return segments


def likeness(generator, segments):
    """What a fair system makes of segments: late, mixed up, split."""
    found, names = [], [f"h{n}" for n in range(4)]
    for start, end, speaker in segments:
        if generator.random() < 0.2:
            continue
        name = names[int(speaker[1:]) % len(names)]
        if generator.random() < 0.2:
            name = generator.choice(names)
        shift = generator.normal(0, 0.2, 2)
        start, end = max(start + shift[0], 0.0), end + shift[1]
        clash = any(n == name and s < end and start < e for s, e, n in found)
        if start < end and not clash:
            found.append((float(start), float(end), str(name)))
    return found


def stretches(generator):
    """Stretches of time that do not touch."""
    times = np.sort(generator.uniform(0, 32, 2 * generator.integers(1, 4)))
    return [(a, b) for a, b in times.reshape(-1, 2).tolist() if b - a > 1e-3]


def annotation(segments):
    """Segments as pyannote.core has them."""
    made = Annotation()
    for number, (start, end, speaker) in enumerate(segments):
        made[Segment(start, end), number] = speaker
    return made


def peer(reference, hypothesis, uem=None, collar=0.0, skip_overlap=False):
    """Seconds by pyannote.metrics, whose collar is twice as wide."""
    metric = DiarizationErrorRate(collar=2 * collar, skip_overlap=skip_overlap)
    if uem is not None:
        uem = Timeline([Segment(*stretch) for stretch in uem])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a UEM that is not given
        found = metric(
            annotation(reference),
            annotation(hypothesis),
            uem=uem,
            detailed=True,
        )
    names = "missed detection", "false alarm", "confusion", "total"
    times = ErrorTimes(*(float(found[name]) for name in names))
    return times, found["diarization error rate"]


def drawn(seed):
    """A reference, a hypothesis and how to compare them."""
    generator = np.random.default_rng(seed)
    reference = turns(generator, generator.integers(1, 6))
    if generator.random() < 0.5:
        hypothesis = likeness(generator, reference)
    else:
        hypothesis = turns(generator, generator.integers(0, 6), 1e-7)
    options = {
        "uem": stretches(generator) if generator.random() < 0.5 else None,
        "collar": float(generator.choice([0.0, 0.0, 0.1, 0.25, 0.5])),
        "skip_overlap": bool(generator.random() < 0.3),
    }
    return reference, hypothesis, options


def test_errors_are_those_of_pyannote():
    seen = {"uem": 0, "collar": 0, "skip_overlap": 0, "rate": 0}
    for seed in range(500):
        reference, hypothesis, options = drawn(seed)
        ours = diarization_error(reference, hypothesis, **options)
        theirs, rate = peer(reference, hypothesis, **options)
        assert ours == pytest.approx(theirs, abs=1e-6), seed
        for name, value in options.items():
            seen[name] += bool(value)
        if theirs.total_s:
            assert ours.rate == pytest.approx(rate, abs=1e-6), seed
            seen["rate"] += 0.05 < rate < 1
    assert min(seen.values()) > 100, seen


def test_hours_are_scored_at_once():
    generator = np.random.default_rng(0)
    reference = [
        (3600 * hour + start, 3600 * hour + end, speaker)
        for hour in range(200)
        for start, end, speaker in turns(generator, 5)
    ]
    error = diarization_error(reference, reference, collar=0.25)
    assert error.rate == 0.0
    assert error.total_s > 1000


SPYDER = (
    [(0.0, 2.0, "A"), (1.5, 3.5, "B"), (4.0, 5.1, "A")],
    [(0.0, 0.8, "1"), (0.6, 2.3, "2"), (2.1, 3.9, "3"), (3.8, 5.2, "1")],
)


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({}, (9.80, 21.57, 25.49, 5.10, 56.86)),
        ({"uem": [(0.5, 5.0)]}, (11.11, 22.22, 26.67, 4.50, 60.00)),
        ({"collar": 0.2}, (3.23, 12.90, 19.35, 3.10, 35.48)),
    ],
)
def test_the_example_of_spyders_documentation(options, published):
    *times, total_s = diarization_error(*SPYDER, **options)
    shares = [100 * part / total_s for part in times]
    found = [*shares, total_s, sum(shares)]
    assert found == pytest.approx(published, abs=0.005)


def test_the_example_of_pyannotes_documentation():
    reference = [(0, 10, "A"), (12, 20, "B"), (24, 27, "A"), (30, 40, "C")]
    hypothesis = [(2, 13, "a"), (13, 14, "d"), (14, 20, "b")]
    hypothesis += [(22, 38, "c"), (38, 40, "d")]
    error = diarization_error(reference, hypothesis)
    assert error == (2.0, 7.0, 7.0, 31.0)
    assert error.rate == pytest.approx(0.516129, abs=1e-6)


# What one instant counts, by the rule of NIST: names heard in the reference,
# names heard in the hypothesis -> miss, false alarm, confusion, total. Before
# it, each a is with x, each b with y and each c with z for long.
INSTANTS = [
    ("", "", (0, 0, 0, 0)),
    ("a", "", (1, 0, 0, 1)),
    ("", "x", (0, 1, 0, 0)),
    ("a", "x", (0, 0, 0, 1)),
    ("a", "y", (0, 0, 1, 1)),
    ("ab", "x", (1, 0, 0, 2)),
    ("ab", "z", (1, 0, 1, 2)),
    ("ab", "yx", (0, 0, 0, 2)),
    ("ab", "yz", (0, 0, 1, 2)),
    ("a", "xy", (0, 1, 0, 1)),
    ("a", "yz", (0, 1, 1, 1)),
    ("abc", "xy", (1, 0, 0, 3)),
    ("abc", "x", (2, 0, 0, 3)),
    ("ab", "xyz", (0, 1, 0, 2)),
]


@pytest.mark.parametrize(("true", "found", "expected"), INSTANTS)
def test_an_instant_counts_as_nist_has_it(true, found, expected):
    reference = [(10 * n, 10 * n + 10, s) for n, s in enumerate("abc")]
    hypothesis = [(10 * n, 10 * n + 10, s) for n, s in enumerate("xyz")]
    reference += [(30, 31, speaker) for speaker in true]
    hypothesis += [(30, 31, speaker) for speaker in found]
    *error, total_s = diarization_error(reference, hypothesis)
    assert (*error, total_s - 30) == expected


def test_a_collar_lies_on_each_side_of_a_reference_boundary():
    reference = [(1.0, 2.0, "a"), (2.0, 4.0, "b")]
    # Scored are 1.25..1.75 and 2.25..3.75, 0..0.75 and all after 4.25; also
    # around the boundary between two speakers that touch.
    error = diarization_error(reference, [], collar=0.25)
    assert error == (2.0, 0.0, 0.0, 2.0)
    hypothesis = [(0.5, 5.0, "x")]
    error = diarization_error(reference, hypothesis, collar=0.25)
    assert error == (0.0, 1.0, 0.5, 2.0)


def test_boundaries_of_the_hypothesis_have_no_collar():
    error = diarization_error([], [(1.0, 2.0, "x")], collar=0.25)
    assert error.false_alarm_s == 1.0


def test_a_boundary_within_a_speakers_speech_has_a_collar():
    touching = [(0.0, 2.0, "a"), (2.0, 4.0, "a")]
    assert diarization_error(touching, [], collar=0.5).total_s == 2.0
    assert diarization_error([(0.0, 4.0, "a")], [], collar=0.5).total_s == 3.0


def test_collars_reach_into_the_uem_from_outside():
    reference = [(0.0, 2.0, "a")]
    error = diarization_error(reference, [], uem=[(1.9, 3)], collar=0.25)
    assert error.total_s == 0.0
    error = diarization_error(reference, [], uem=[(1.5, 3)], collar=0.25)
    assert error.total_s == 0.25


def test_skipped_overlap_leaves_nothing_of_it():
    reference = [(0.0, 4.0, "a"), (3.0, 6.0, "b")]
    hypothesis = [(0.0, 3.5, "x"), (3.5, 7.0, "y")]
    error = diarization_error(reference, hypothesis, skip_overlap=True)
    assert error == (0.0, 1.0, 0.0, 5.0)
    assert diarization_error(reference, hypothesis) == (1.0, 1.0, 0.0, 7.0)


def test_overlap_of_the_hypothesis_is_never_skipped():
    error = diarization_error(
        [(0.0, 2.0, "a")],
        [(0.0, 2.0, "x"), (1.0, 2.0, "y")],
        skip_overlap=True,
    )
    assert error == (0.0, 1.0, 0.0, 2.0)


def test_without_a_uem_all_time_is_scored_as_dscore_does():
    # md-eval by itself would end at the last boundary of the reference.
    error = diarization_error([(1.0, 2.0, "a")], [(0.0, 9.0, "x")])
    assert error == (0.0, 8.0, 0.0, 1.0)


def test_stretches_of_a_uem_count_once_where_they_overlap():
    uem = [(0.0, 2.0), (1.0, 3.0), (5.0, 5.5)]
    error = diarization_error([(0.0, 9.0, "a")], [], uem=uem)
    assert error.total_s == 3.5
    assert diarization_error([(0.0, 9.0, "a")], [], uem=[]).total_s == 0.0


def test_speakers_are_mapped_within_the_uem():
    reference = [(0, 1, "a"), (1, 3, "b"), (5, 9, "a")]
    hypothesis = [(0, 3, "x"), (5, 9, "x")]
    assert diarization_error(reference, hypothesis).confusion_s == 2.0
    error = diarization_error(reference, hypothesis, uem=[(0, 3)])
    assert error.confusion_s == 1.0


def test_nist_maps_speakers_also_by_what_is_not_scored():
    reference = [(0, 2, "a"), (3, 5, "a"), (10, 13, "b")]
    hypothesis = [(0, 2, "x"), (3, 5, "x"), (10, 13, "x")]
    # Collars leave 11..12 of b and nothing of a.
    options = {"collar": 1.0}
    assert diarization_error(reference, hypothesis, **options) == (0, 0, 0, 1)
    options["nist_mapping"] = True
    assert diarization_error(reference, hypothesis, **options) == (0, 0, 1, 1)
    options["uem"] = [(9, 14)]
    assert diarization_error(reference, hypothesis, **options) == (0, 0, 0, 1)


def test_a_speaker_that_overlaps_itself_counts_once():
    twice = [(0.0, 3.0, "a"), (1.0, 2.0, "a"), (2.5, 5.0, "a")]
    assert diarization_error(twice, twice) == (0.0, 0.0, 0.0, 5.0)


def test_names_and_order_do_not_matter():
    reference, hypothesis, _ = drawn(3)
    expected = diarization_error(reference, hypothesis)
    renamed = [(start, end, hash(name)) for start, end, name in hypothesis]
    found = diarization_error(reference[::-1], np.array(renamed, object)[::-1])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("hypothesis", "rate"), [([], 0.0), ([(0, 1, "x")], math.inf)]
)
def test_rates_without_reference_speech(hypothesis, rate):
    assert diarization_error([], hypothesis).rate == rate


def test_silent_recordings_add_their_false_alarms():
    silent = diarization_error([], [(0, 1, "x")])
    other = diarization_error([(0, 4, "a")], [(0, 4, "x")])
    assert sum_errors([silent, other]).rate == 0.25
    assert isinstance(sum_errors([silent]), ErrorTimes)
    with pytest.raises(ValueError, match="the errors of a recording, got none"):
        sum_errors([])


def test_jaccard_errors_by_hand():
    reference = [(0, 4, "a"), (4, 8, "b"), (8, 9, "c")]
    hypothesis = [(0, 3, "x"), (3, 10, "y")]
    # a: 3 of 4 s; b: 4 of 7 s; nobody is left for c.
    error = jaccard_error(reference, hypothesis)
    assert error == (pytest.approx(1 / 4 + 3 / 7 + 1), 3, 2)
    # Within the UEM: a 1 of 1 s; b 2 of 2 s; c is not there.
    assert jaccard_error(reference, hypothesis, [(2, 3), (4, 6)]) == (0, 2, 2)


def test_jaccard_speakers_are_mapped_by_their_shares():
    # x has most in common with a, and y does, too; but x is all of b.
    reference = [(0, 10, "a"), (10, 12, "b")]
    hypothesis = [(0, 3, "x"), (10, 12, "x"), (3, 8, "y")]
    shares = (5 / 10, 2 / 5)
    assert jaccard_error(reference, hypothesis).error_sum == pytest.approx(
        2 - sum(shares)
    )


def shares_on_a_grid(reference, hypothesis, uem, num_frames=3300):
    """Jaccard shares of speakers, counted in frames of 10 ms, [R, H]."""

    def frames(segments):
        active = {}
        for start, end, speaker in segments:
            row = active.setdefault(speaker, np.zeros(num_frames, bool))
            row[round(100 * start) : round(100 * end)] = True
        return active

    where = frames([(*s, "all") for s in uem])["all"]
    sides = [
        [row & where for row in frames(side).values() if (row & where).any()]
        for side in (reference, hypothesis)
    ]
    return np.array(
        [[(a & b).sum() / (a | b).sum() for b in sides[1]] for a in sides[0]]
    ).reshape(len(sides[0]), len(sides[1]))


def test_jaccard_errors_are_the_least_of_all_mappings():
    generator = np.random.default_rng(0)
    several = 0
    for _ in range(80):
        reference = turns(generator, generator.integers(0, 5), 0.01)
        hypothesis = turns(generator, generator.integers(0, 5), 0.01)
        uem = [(0.0, 12.34), (20.0, 33.0)]
        shares = shares_on_a_grid(reference, hypothesis, uem)
        large = shares if len(shares) <= shares.shape[1] else shares.T
        best = max(
            sum(large[row, column] for row, column in enumerate(columns))
            for columns in permutations(range(large.shape[1]), len(large))
        )
        found = jaccard_error(reference, hypothesis, uem)
        assert found.error_sum == pytest.approx(len(shares) - best)
        assert found[1:] == shares.shape
        several += min(shares.shape) > 1
    assert several > 20


def test_each_reference_speaker_of_all_recordings_counts_as_much():
    one = jaccard_error([(0, 1, "a"), (1, 2, "b")], [(0, 1, "x")])
    other = jaccard_error([(0, 100, "a")], [(0, 50, "x")])
    assert one.rate == 0.5
    assert sum_errors([one, other]).rate == pytest.approx((0 + 1 + 0.5) / 3)
    assert isinstance(sum_errors([one, other]), JaccardErrors)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"),
    [
        ([], [], 0.0),
        ([], [(0, 1, "x")], 1.0),
        ([(0, 1, "a")], [], 1.0),
    ],
)
def test_jaccard_rates_without_speech_are_dscores(reference, hypothesis, rate):
    assert jaccard_error(reference, hypothesis).rate == rate


def test_speakers_are_counted_within_the_uem():
    reference = [(0, 1, "a"), (1, 2, "b"), (9, 10, "c")]
    hypothesis = [(0, 2, "x")]
    assert speaker_count_error(reference, hypothesis) == -2
    assert speaker_count_error(reference, hypothesis, [(0, 2)]) == -1
    assert speaker_count_error(hypothesis, reference) == 2
    assert speaker_count_error([], []) == 0


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ([(1, 1, "a")], {}, "an end behind the start 1.0, got 1.0"),
        ([(0, math.nan, "a")], {}, "an end behind the start 0.0, got nan"),
        ([(0, 1, "a")], {"uem": [(2, 1)]}, "an end behind the start 2.0"),
        ([(0, 1, "a")], {"collar": -0.1}, "a collar from 0 on, got -0.1"),
        ([(0, 1, "a")], {"collar": math.inf}, "a collar from 0 on, got inf"),
    ],
)
def test_bad_input_is_refused(reference, options, message):
    with pytest.raises(ValueError, match=message):
        diarization_error(reference, [], **options)
