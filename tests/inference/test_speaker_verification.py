"""What two recordings score must depend on their speakers only."""

import math

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from tests.inference.speaker_models import (
    CALIBRATION,
    HEADS,
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.speaker_verification import (
    EmbeddingAverager,
    SpeakerEmbedding,
    cosine,
    pair_quality,
    validate_embedding,
)
from unispeech_sb.lobes.heads import SpeakerHead
from unispeech_sb.metrics.calibration import Calibration

FRONT_ENDS = {
    f"{norm}, {'normalised' if normalize else 'raw'}": {
        "feat_extract_norm": norm,
        "conv_bias": norm == "layer",
        "normalize_wav": normalize,
    }
    for norm in ("group", "layer")
    for normalize in (False, True)
}
"""As the published models have them."""


@pytest.fixture(scope="module", params=HEADS)
def folder(request, tmp_path_factory):
    """A pretrained folder, of either head."""
    path = tmp_path_factory.mktemp("speakers") / request.param
    return save_model(path, request.param)


@pytest.fixture(scope="module")
def model(folder):
    """Its model, which takes two seconds at once."""
    return load_model(folder, window_s=2.0)


def test_the_same_file_scores_one(model, tmp_path):
    path = write(tmp_path / "a.wav", voice(1, 1.3))
    copy = write(tmp_path / "b.wav", voice(1, 1.3))
    assert model.score(path, path) == 1.0
    assert model.score(path, copy) == 1.0
    long = write(tmp_path / "c.wav", voice(1, 7.0))
    assert model.score(long, long) == 1.0


@pytest.mark.slow
def test_the_order_does_not_matter(model, tmp_path):
    paths = [write(tmp_path / f"{n}.wav", voice(n, 1.0 + n)) for n in range(4)]
    for one in paths:
        for other in paths:
            there, back = model.verify(one, other), model.verify(other, one)
            assert there == back
            assert one == other or there.score < 1 - 1e-6


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "DOUBLE"])
def test_how_samples_are_stored_does_not_matter(subtype, model, tmp_path):
    # Recorded with 16 bits, and stored with as many or more
    wavs = [(voice(n, 1.5) * 2**15).round() / 2**15 for n in (1, 2)]
    paths = [
        write(tmp_path / f"{n}.wav", wav, subtype) for n, wav in enumerate(wavs)
    ]
    assert model.score(*paths) == pytest.approx(model.score(*wavs), abs=1e-9)
    # Recorded with more bits than it is stored with
    finer = write(tmp_path / "finer.wav", voice(1, 1.5), "DOUBLE")
    assert model.score(finer, paths[0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("decibels", [-40, -6, 12])
@pytest.mark.parametrize("options", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.parametrize("head", HEADS)
def test_the_level_does_not_matter(head, options, decibels, tmp_path):
    model = load_model(save_model(tmp_path / "m", head, **options))
    gain = 10 ** (decibels / 20)
    one, other = voice(1, 1.5), voice(2, 1.5)
    wanted = model.score(one, other)
    assert model.score(gain * one, other) == pytest.approx(wanted, abs=1e-4)
    assert model.score(one, gain * one) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("options", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_without_scaling_the_level_matters(options, tmp_path):
    path = save_model(tmp_path / "m", **options)
    quiet = 0.01 * voice(1, 1.5)
    score = load_model(path, rms=None).score(quiet, voice(1, 1.5))
    hardly = (
        options["feat_extract_norm"] == "group" and (options["normalize_wav"])
    )
    assert (score > 1 - 1e-4) == hardly


@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_silence_and_what_is_no_number_are_refused(seconds, model, tmp_path):
    wav = voice(1, seconds)
    silent = write(tmp_path / "silent.wav", torch.zeros_like(wav))
    with pytest.raises(AudioError, match=r"silent\.wav: all silent"):
        model.embed(silent)
    for value in (np.nan, np.inf):
        bad = wav.clone()
        bad[-100] = value
        path = write(tmp_path / "bad.wav", bad)
        with pytest.raises(AudioError, match=r"bad\.wav: .* NaN or infinite"):
            model.embed(path)
    with pytest.raises(AudioError, match="waveform: all silent"):
        model.embed(torch.zeros_like(wav))
    bad[-100] = np.nan
    with pytest.raises(ValueError, match="finite|NaN|norm is nan"):
        model.embed(bad)


@pytest.mark.slow
def test_a_short_file_gives_what_speechbrain_gives(folder, tmp_path):
    path = write(tmp_path / "a.flac", voice(1, 1.3), "PCM_16")
    plain = SpeakerRecognition.from_hparams(str(folder))
    wanted = plain.encode_batch(plain.load_audio(path)[None])[0, 0]
    found = load_model(folder, rms=None).embed(path)
    assert torch.equal(found.vector, wanted)
    assert found.duration_s == pytest.approx(1.3, abs=1e-4)
    other = write(tmp_path / "b.flac", voice(2, 1.3), "PCM_16")
    score, _ = plain.verify_files(path, other)
    for rms, tolerance in ((None, 1e-6), (0.05, 1e-3)):
        found = load_model(folder, rms=rms).score(path, other)
        assert found == pytest.approx(score.item(), abs=tolerance)


def test_a_long_file_is_the_mean_of_its_windows(model, tmp_path):
    wav = voice(1, 7.0) * torch.linspace(0.2, 1, 112000)
    path = write(tmp_path / "long.wav", wav)
    windows = [model.embed(part).vector for part in wav.split(28000)]
    assert len(windows) == 4
    mean = sum(vector / vector.norm() for vector in windows)
    found = model.embed(path)
    torch.testing.assert_close(
        found.vector / found.vector.norm(), mean / mean.norm()
    )
    assert found.magnitude == pytest.approx(
        sum(vector.norm() for vector in windows) / 4
    )
    assert found.duration_s == 7.0
    alone = model.embed(path, batch_seconds=0.1)
    torch.testing.assert_close(alone.vector, found.vector)


def test_windows_have_every_sample_once(model):
    progress = []
    found = model.embed(voice(1, 5.0), on_progress=progress.append)
    assert found.duration_s == pytest.approx(5.0, abs=1e-6)
    assert sum(progress) == pytest.approx(5.0, abs=1e-6)


def test_silent_windows_do_not_count(model, tmp_path):
    sound = voice(1, 2.0)
    gap = torch.cat([sound, torch.zeros(64000), sound])
    found = model.embed(write(tmp_path / "gap.wav", gap))
    torch.testing.assert_close(found.vector, model.embed(sound).vector)
    assert found.duration_s == 4.0


def test_little_of_a_long_file_is_held(model, tmp_path, monkeypatch):
    seen = []
    encode = model.encode_batch

    def watched(wavs, wav_lens):
        seen.append(wavs.numel())
        return encode(wavs, wav_lens)

    monkeypatch.setattr(model, "encode_batch", watched)
    path = write(tmp_path / "long.wav", voice(1, 60.0), rate=16000)
    heard = []
    model.embed(path, batch_seconds=4.0, on_progress=heard.append)
    assert max(seen) <= 64000
    assert sum(seen) == 960000
    assert sum(heard) == pytest.approx(60.0)


def many(folder):
    """Recordings of many lengths and rates, and three that are none."""
    paths = []
    for n, seconds in enumerate([0.9, 3.1, 0.3, 1.7, 0.31, 1.2, 6.0]):
        rate = (16000, 8000, 44100)[n % 3]
        wav = voice(n, seconds, rate=rate)
        paths.append(write(folder / f"{n}.wav", wav, rate=rate))
    (folder / "text.wav").write_text("no audio")
    write(folder / "silent.wav", torch.zeros(9000))
    write(folder / "short.wav", voice(1, 0.03))
    bad = [str(folder / f"{name}.wav") for name in ("text", "silent", "short")]
    return paths, bad


@pytest.mark.parametrize("batch_seconds", [0.1, 3.0, 60.0])
def test_a_file_gives_the_same_alone_and_in_a_batch(
    batch_seconds, model, tmp_path
):
    paths, _ = many(tmp_path)
    found = dict(model.embed_files(paths, batch_seconds))
    assert found.keys() == set(paths)
    for path in paths:
        wanted = model.embed(path)
        torch.testing.assert_close(
            found[path].vector, wanted.vector, rtol=1e-5, atol=1e-5
        )
        assert found[path].duration_s == wanted.duration_s


def test_bad_files_are_named_and_passed_over(tmp_path):
    model = load_model(save_model(tmp_path / "m"), window_s=2.0)
    paths, bad = many(tmp_path)
    heard = []
    found = dict(model.embed_files([*bad, *paths], 60.0, heard.append))
    for path in paths:
        assert isinstance(found[path], SpeakerEmbedding)
    for path, said in zip(
        bad, ("not readable", "all silent", "expected at least"), strict=True
    ):
        assert isinstance(found[path], AudioError)
        assert str(found[path]).startswith(f"{path}: ")
        assert said in str(found[path])
        with pytest.raises(AudioError, match=said):
            model.embed(path)
    assert sum(heard) == pytest.approx(14.11, abs=1.0)


def test_an_embedding_without_direction_is_refused(tmp_path):
    model = load_model(save_model(tmp_path / "m"), window_s=2.0)
    head = model.mods.embedding_model.head
    assert isinstance(head, SpeakerHead)
    head.embedding.weight.zero_()
    head.embedding.bias.zero_()
    for seconds in (1.0, 5.0):
        path = write(tmp_path / "a.wav", voice(1, seconds))
        with pytest.raises(AudioError, match=r"a\.wav: .* direction"):
            model.embed(path)


def test_an_enrolment_is_the_mean_of_its_recordings(model, tmp_path):
    wavs = [voice(1, 1.0, take) for take in range(3)]
    alone = [model.embed(wav) for wav in wavs]
    path = write(tmp_path / "c.wav", wavs[2])
    found = model.enroll([wavs[0], alone[1], path])
    mean = sum(one.vector / one.magnitude for one in alone)
    torch.testing.assert_close(
        found.vector / found.magnitude, mean / mean.norm()
    )
    assert found.duration_s == pytest.approx(3.0)
    assert found.magnitude == pytest.approx(
        sum(one.magnitude for one in alone) / 3
    )
    assert model.verify(found, path).score > 0
    one = model.enroll([path])
    assert model.score(one, path) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="at least one recording; got none"):
        model.enroll([])
    with pytest.raises(AudioError, match="there is no such file"):
        model.enroll([path, "nowhere.wav"])


def test_decisions_are_the_calibrations(model):
    one, other = voice(1, 1.0), voice(2, 1.0)
    found = model.verify(one, other)
    assert found.threshold == pytest.approx(0.5)
    assert found.llr == pytest.approx(20 * found.score - 10)
    assert found.same == (found.score >= 0.5)
    rare = model.verify(one, other, p_target=0.01)
    assert rare.threshold == pytest.approx(CALIBRATION.threshold(0.01))
    assert rare.threshold > 0.7
    edge = model.verify(one, other, threshold=found.score)
    assert edge.same
    assert edge.llr == found.llr
    assert not model.verify(one, other, threshold=found.score + 1e-9).same
    with pytest.raises(ValueError, match="got both"):
        model.verify(one, other, p_target=0.5, threshold=0.5)


def test_without_calibration_a_threshold_is_needed(tmp_path):
    model = load_model(save_model(tmp_path / "m", calibration=None))
    wav = voice(1, 1.0)
    with pytest.raises(ValueError, match="no calibration; .* at 0.25"):
        model.verify(wav, wav)
    assert model.verify(wav, wav, threshold=0.9) == (1.0, None, True, 0.9)


def test_a_calibration_may_weigh_quality(tmp_path):
    quality = {"log_duration_min": -1.0, "magnitude_max": 0.5}
    calibration = Calibration(20.0, -10.0, quality, num_trials=(3, 3))
    path = save_model(tmp_path / "m", calibration=calibration)
    model = load_model(path)
    left, right = (
        SpeakerEmbedding(torch.tensor(vector), seconds)
        for vector, seconds in (([3.0, 4.0], 2.0), ([2.0, 0.0], 1.0))
    )
    found = model.verify(left, right)
    assert found.llr == pytest.approx(20 * 0.6 - 10 + 0.5 * 5)
    assert found.threshold == pytest.approx((10 - 0.5 * 5) / 20)
    model.calibration = Calibration(quality={"noise": 1.0})
    with pytest.raises(ValueError, match="got noise"):
        model.verify(left, right)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_window_has_a_length(seconds, folder):
    with pytest.raises(ValueError, match="window_s: expected more than 0"):
        load_model(folder, window_s=seconds)


def test_a_window_may_be_shorter_than_a_second(folder):
    model = load_model(folder, window_s=0.5)
    assert model.embed(voice(1, 1.2)).duration_s == pytest.approx(1.2)


@pytest.mark.real_data
def test_the_level_of_speech_does_not_matter(data_folder, tmp_path):
    files = sorted((data_folder / "digits" / "zero").glob("*.flac"))[::60]
    assert len(files) >= 3
    model = load_model(save_model(tmp_path / "m", **FRONT_ENDS["group, raw"]))
    for path in files:
        samples, rate = soundfile.read(path, dtype="float32")
        quiet = write(tmp_path / "quiet.wav", torch.from_numpy(samples / 30))
        assert rate == 16000
        assert model.score(str(path), quiet) == pytest.approx(1, abs=1e-4)


def test_an_embedding_has_a_cosine_of_one_with_itself_and_no_order():
    vectors = [torch.randn(256) * 3**n for n in range(-9, 9)]
    embeddings = [SpeakerEmbedding(vector, 1.0) for vector in vectors]
    for one in embeddings:
        assert cosine(one, one) == 1.0
        assert cosine(one, SpeakerEmbedding(-one.vector, 1.0)) == -1.0
        for other in embeddings:
            assert cosine(one, other) == cosine(other, one)
            wanted = torch.cosine_similarity(one.vector, other.vector, dim=0)
            assert cosine(one, other) == pytest.approx(wanted.item(), abs=1e-6)


def test_a_mean_weighs_directions_and_norms():
    averager = EmbeddingAverager()
    averager.add(torch.tensor([[8.0, 0.0]]), torch.tensor([3.0]), 3.0)
    averager.add(torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.ones(2), 2.0)
    found = averager.mean("a")
    assert found.magnitude == pytest.approx((3 * 8 + 2 + 1) / 5)
    direction = found.vector / found.magnitude
    assert direction.tolist() == pytest.approx([3 / 13**0.5, 2 / 13**0.5])
    assert found.duration_s == 5.0


@pytest.mark.parametrize("vectors", [[[1.0], [-1.0]], [[0.0]], [[math.inf]]])
def test_a_mean_without_direction_is_refused(vectors):
    averager = EmbeddingAverager()
    averager.add(torch.tensor(vectors), torch.ones(len(vectors)), 1.0)
    with pytest.raises(AudioError, match=r"a\.wav: .* a direction"):
        averager.mean("a.wav")


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_an_embedding_without_direction_is_named(value):
    bad = SpeakerEmbedding(torch.full((3,), value), 1.0)
    with pytest.raises(AudioError, match="^a.wav: expected an embedding"):
        validate_embedding(bad, "a.wav")


def test_only_measures_of_the_calibration_are_given():
    durations, magnitudes = [[1.0, 2.0], [3.0, 1.0]], [[4.0, 5.0], [6.0, 7.0]]
    given = durations, magnitudes
    assert pair_quality(Calibration(), *given) is None
    names = {"magnitude_max": 1.0, "log_duration_min": 2.0}
    found = pair_quality(Calibration(quality=names), *given)
    assert list(found) == list(names)
    assert found["magnitude_max"].tolist() == [6.0, 7.0]
    assert found["log_duration_min"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"among log_duration.*; got snr"):
        pair_quality(Calibration(quality={"snr": 1.0}), *given)
