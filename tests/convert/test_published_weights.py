"""Real weights against the numbers that transformers' own tests publish.

``pip install datasets``, then ``pytest -m network tests/convert``: some
4 GB are downloaded. transformers pads its examples into a batch. Where a
group-norm model sees the padding there and not here, only the longest
example is compared to the last digit.
"""

import io
import os
from urllib.request import urlretrieve

import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.commands import main
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.convert.lobes import build_lobes
from unispeech_sb.lobes.backbone import Backbone

pytestmark = pytest.mark.network
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
"""Tolerance of transformers' tests."""


def padded(samples):
    """A batch as SpeechBrain pads it: waveforms, relative lengths."""
    rows = [torch.as_tensor(row, dtype=torch.float32) for row in samples]
    lengths = torch.tensor([float(len(row)) for row in rows])
    return pad_sequence(rows, batch_first=True), lengths / lengths.max()


@pytest.fixture(scope="module")
def sentences():
    """The first two utterances of the reader that transformers tests on."""
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(
        "hf-internal-testing/librispeech_asr_dummy", "clean", split="validation"
    ).cast_column("audio", datasets.Audio(decode=False))
    names = ["1272-141231-0000", "1272-141231-0001"]
    rows = {row["id"]: row["audio"] for row in found if row["id"] in names}
    assert sorted(rows) == names
    return padded(
        [soundfile.read(io.BytesIO(rows[name]["bytes"]))[0] for name in names]
    )


def superb(task):
    """The first four examples of SUPERB's dummy corpus."""
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(
        "anton-l/superb_dummy",
        task,
        split="test",
        revision="refs/convert/parquet",
    )
    return padded(found[:4]["speech"])


def loaded(name, **options):
    """Modules of a public checkpoint, in evaluation mode."""
    checkpoint = read_checkpoint(name, overrides=options)
    lobes = build_lobes(checkpoint, name)
    return {key: lobe.float().eval() for key, lobe in lobes.items()}


@torch.no_grad()
def test_sat_large_gives_the_published_features(sentences, tmp_path):
    convert_checkpoint("microsoft/unispeech-sat-large", tmp_path / "sb")
    backbone = Backbone.from_pretrained(tmp_path / "sb").eval()
    assert backbone.normalize_wav
    found = backbone(*sentences)[:, :2, -2:]
    expected = torch.tensor(
        [
            [[-0.1172, -0.0797], [-0.0012, 0.0213]],
            [[-0.1225, -0.1277], [-0.0668, -0.0585]],
        ]
    )
    torch.testing.assert_close(found, expected, **CLOSE)


@torch.no_grad()
def test_sat_base_plus_gives_the_published_features(sentences):
    name = "microsoft/unispeech-sat-base-plus"
    # their test normalises waveforms whatever the checkpoint's file says
    backbone = loaded(name, normalize_wav=True)["backbone"]
    longest = int(sentences[1].argmax())
    found = backbone(*sentences)[longest, :2, -2:]
    expected = torch.tensor(
        [
            [[-0.0743, 0.1384], [-0.0845, 0.1704]],
            [[-0.0954, 0.1936], [-0.1123, 0.2095]],
        ]
    )
    torch.testing.assert_close(found, expected[longest], **CLOSE)


@torch.no_grad()
def test_unispeech_large_gives_the_published_cosines(sentences):
    lobes = loaded("microsoft/unispeech-large-1500h-cv")
    out = lobes["backbone"].encode(*sentences)
    found = lobes["head"](out.last_hidden_state, out.extract_features)
    cosines = torch.cosine_similarity(
        found.projected_states, found.projected_quantized_states, dim=-1
    )
    assert cosines.mean() > 0.5
    expected = torch.tensor(
        [
            [0.8290, 0.8335, 0.8815, 0.8580, 0.8249],
            [0.8892, 0.9221, 0.8711, 0.8601, 0.8482],
        ]
    )
    torch.testing.assert_close(cosines[:, :5], expected, **CLOSE)


@torch.no_grad()
def test_sat_base_plus_sv_gives_the_published_scores():
    lobes = loaded("microsoft/unispeech-sat-base-plus-sv")
    wavs, lengths = superb("si")
    states = lobes["backbone"].iter_states(wavs, lengths)
    frames = lobes["backbone"].frame_lens(wavs.shape[1], lengths)
    found = lobes["head"].embed(states, frames)
    for (one, other), cosine in {
        (1, 2): 0.9671, (0, 1): 0.4941, (2, 3): 0.5616,
    }.items():  # fmt: skip
        score = torch.cosine_similarity(found[one], found[other], dim=0)
        assert abs(float(score) - cosine) < 0.03  # they see the padding


@torch.no_grad()
def test_sat_base_plus_sd_gives_the_published_activities():
    lobes = loaded("microsoft/unispeech-sat-base-plus-sd")
    wavs, lengths = superb("sd")
    states = list(lobes["backbone"].iter_states(wavs, lengths))
    feats = states if lobes["head"].layer_mix is not None else states[-1]
    logits = lobes["head"](feats)
    starts = torch.tensor(
        [
            [[-5.6119, -5.5845], [-3.7772, -5.4824]],
            [[-6.3785, -4.8365], [-5.5863, -5.4149]],
            [[-6.0355, -3.7414], [-5.5968, -4.8061]],
            [[-5.9493, -4.8963], [-4.4050, -5.4476]],
        ]
    )
    longest = int(lengths.argmax())
    torch.testing.assert_close(
        logits[longest, :2], starts[longest], rtol=1e-2, atol=1e-2
    )
    valid = lobes["backbone"].frame_lens(wavs.shape[1], lengths)
    frames = round(float(valid[0]) * logits.shape[1])
    active = (logits[0, :frames] > 0).sum(0).tolist()
    for count, published in zip(active, (270, 647)):
        assert abs(count - published) <= 0.03 * published


CLIPS = (
    "https://raw.githubusercontent.com/microsoft/UniSpeech/main/downstreams/"
    "speaker_verification/vox1_data/"
)
FAUSTINO = "David_Faustino/hn8GyCJIfLM_0000012.wav"
PAIRS = {
    "Josh_Gad/HXUqYaOwrxA_0000015.wav": 0.0317,
    "David_Faustino/xTOk1Jz-F_g_0000015.wav": 0.5389,
}
"""What the authors' page says of two clips with that of ``FAUSTINO``."""


def test_the_authors_pairs_get_their_similarity(tmp_path, capsys):
    """``UNISPEECH_SB_SV`` names the authors' file of UniSpeech-SAT Large for
    speaker verification, which is on a drive that asks questions."""
    path = os.environ.get("UNISPEECH_SB_SV")
    if not path:
        pytest.skip("set UNISPEECH_SB_SV to the authors' file")
    files = {}
    for name in (FAUSTINO, *PAIRS):
        files[name] = str(tmp_path / name.replace("/", "_"))
        urlretrieve(CLIPS + name, files[name])
    for name, score in PAIRS.items():
        assert main(["similarity", path, files[FAUSTINO], files[name]]) == 0
        assert float(capsys.readouterr().out) == pytest.approx(score, abs=1e-3)
