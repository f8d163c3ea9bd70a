"""Wrong arguments of the interfaces get one sentence; arrays are taken."""

import numpy as np
import pytest
import torch

from tests.inference import diarization_models, speaker_models
from tests.inference.models import recognizer
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.diarization import SpeakerDiarization

NOISE = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
NO_SOURCE = {
    "list": NOISE.tolist(),
    "None": None,
    "number": 5,
    "bytes": b"a.wav",
    "dict": {},
    "texts": np.array(["a"]),
    "objects": np.array([None, 1.0]),
}
"""What is neither a file's name nor a waveform."""
NO_WAVEFORM = {
    "int16": (NOISE * 3000).short(),
    "array of int16": (NOISE * 3000).short().numpy(),
    "bool": NOISE > 0,
    "complex": NOISE.to(torch.complex64),
    "[1, N]": NOISE[None],
    "array [N, 2]": np.zeros((8000, 2)),
    "[]": torch.tensor(1.0),
    "empty": torch.zeros(0),
    "empty array": np.zeros(0),
    "NaN": NOISE * torch.nan,
    "infinite": torch.full((8000,), torch.inf),
    "meta": torch.zeros(8000, device="meta"),
    "sparse": NOISE.to_sparse(),
}
METHODS = {
    "asr": ("transcribe_long", "log_probs", "transcribe_stream"),
    "speakers": ("embed", "enroll", "score"),
    "diarization": ("diarize_file", "diarize_stream"),
}
LISTS = {
    "asr": "transcribe_files",
    "speakers": "embed_files",
    "diarization": "diarize_files",
}


@pytest.fixture(scope="module")
def interfaces(tmp_path_factory):
    """One of each."""
    folder = tmp_path_factory.mktemp("interfaces")
    speakers, diarization = folder / "speakers", folder / "diarization"
    speaker_models.save_model(speakers)
    diarization_models.save_model(diarization)
    return {
        "asr": recognizer(),
        "speakers": speaker_models.load_model(speakers),
        "diarization": SpeakerDiarization.from_hparams(str(diarization)),
    }


def call(interface, method, value):
    """What a method gives for a recording; generators to their end."""
    arguments = {"enroll": ([value],), "score": (NOISE, value)}
    found = getattr(interface, method)(*arguments.get(method, (value,)))
    return list(found) if hasattr(found, "__next__") else found


def sentence(raised):
    """The message, which has to be one short line."""
    text = str(raised.value)
    assert text.isprintable() and len(text) < 300, text
    return text


@pytest.mark.parametrize(
    "name, method", [(n, m) for n, some in METHODS.items() for m in some]
)
@pytest.mark.parametrize("kind", [*NO_SOURCE, *NO_WAVEFORM])
def test_what_is_no_recording_is_refused(name, method, kind, interfaces):
    value = {**NO_SOURCE, **NO_WAVEFORM}[kind]
    if method.endswith("_stream") and kind in ("list", "dict"):
        value = [value]  # a stream may be any iterable of waveforms
    with pytest.raises(AudioError) as raised:
        call(interfaces[name], method, value)
    if kind in NO_SOURCE:
        said = "expected the name of a file or a waveform, [N]; got"
        assert said in sentence(raised)
    else:
        assert "waveform" in sentence(raised)


@pytest.mark.parametrize(
    "name, method", [(n, m) for n, some in METHODS.items() for m in some]
)
def test_an_array_is_as_a_tensor(name, method, interfaces):
    expected = call(interfaces[name], method, NOISE)
    backwards = NOISE.flip(0).numpy()[::-1]  # a negative stride
    for array in (NOISE.numpy(), backwards):
        found = call(interfaces[name], method, array)
        torch.testing.assert_close(as_numbers(found), as_numbers(expected))


def as_numbers(found):
    """Tensors of a result, or the result's text."""
    if isinstance(found, torch.Tensor):
        return found
    if hasattr(found, "vector"):
        return found.vector
    return torch.tensor(list(str(found).encode()))


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("paths", ["a.wav", None, 5, NOISE, b"a"])
def test_a_list_is_expected(name, paths, interfaces):
    with pytest.raises(ValueError, match="a list of files; got") as raised:
        call(interfaces[name], LISTS[name], paths)
    sentence(raised)


@pytest.mark.parametrize("name", LISTS)
def test_what_is_no_file_does_not_end_a_list(name, interfaces):
    items = [None, 5, "gone.wav"]
    found = call(interfaces[name], LISTS[name], items)
    assert [path for path, _ in found] == items
    for _, error in found:
        assert isinstance(error, AudioError)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), None, "3"])
def test_a_batch_has_seconds(seconds, interfaces):
    for name, method in [
        ("asr", "transcribe_long"),
        ("asr", "log_probs"),
        ("speakers", "embed"),
    ]:
        with pytest.raises(ValueError, match="^batch_seconds: .* above 0"):
            getattr(interfaces[name], method)(NOISE, batch_seconds=seconds)
    for name in ("asr", "speakers"):
        listed = getattr(interfaces[name], LISTS[name])
        with pytest.raises(ValueError, match="^batch_seconds: .* above 0"):
            list(listed([], batch_seconds=seconds))


@pytest.mark.parametrize("value", ["x", float("nan"), [0.5]])
@pytest.mark.parametrize("name", ["p_target", "threshold"])
def test_a_decision_takes_numbers(name, value, interfaces):
    with pytest.raises(ValueError, match=f"^{name}: expected a number; got"):
        interfaces["speakers"].verify(NOISE, NOISE, **{name: value})


@pytest.mark.parametrize("size", [0, -1, 1.5, None, "3", float("nan")])
def test_a_beam_has_a_size(size, interfaces):
    with pytest.raises(ValueError, match="expected a beam_size from 1"):
        interfaces["asr"].use_beam_search(beam_size=size)


@pytest.mark.parametrize("words", ["word", "", None, 0, [1], [""], [None]])
def test_hot_words_are_a_list_of_words(words, interfaces):
    with pytest.raises(ValueError, match="expected a list of words; got"):
        interfaces["asr"].use_hot_words(words)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), 2.0, 16000])
def test_shares_of_a_batch_are_in_range(share, interfaces):
    with pytest.raises(ValueError, match=r"wav_lens: .* \(0, 1\]; got"):
        interfaces["asr"].transcribe_batch(
            NOISE.repeat(2, 1), torch.tensor([1.0, share])
        )
