"""What layers tell of phones and speakers, by an item file."""

import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.inference.speaker_models import save_model, voice, write
from unispeech_sb import commands
from unispeech_sb.commands.layers import _clusters, _probe, layers, read_items
from unispeech_sb.inference import SpeechFeatures
from unispeech_sb.metrics.phones import abx_error

pytest.importorskip("sklearn")
HEADER = "#file onset offset #phone prev-phone next-phone speaker"
PHONES = ("A", "B", "C")
BY_FASTABX = [0.5053086330, 0.5083796233]
"""ABX errors of ``write_abx``, within and across, by fastabx 0.9.0."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder."""
    return str(save_model(tmp_path_factory.mktemp("layers") / "model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings of two speakers with six phones each, and their items."""
    root = tmp_path_factory.mktemp("corpus")
    lines = [HEADER]
    for n in range(6):
        name, speaker = f"s{n}", f"spk{n % 2}"
        (root / "wavs" / speaker).mkdir(parents=True, exist_ok=True)
        write(root / "wavs" / speaker / f"{name}.wav", voice(n % 2, 1.0, n))
        for i in range(6):
            span = f"{0.15 * i:.4f} {0.15 * i + 0.12:.4f}"
            lines.append(f"{name} {span} {PHONES[(i + n) % 3]} X Y {speaker}")
    lines.append("s0 0.0000 0.0050 A X Y spk0")  # no frame
    (root / "phones.item").write_text("\n".join(lines) + "\n")
    return root


def line(folder, corpus, *more):
    """A command line."""
    return [folder, "--items", str(corpus / "phones.item"), "--audio-root",
            str(corpus / "wavs"), "--num-units", "4", *more]  # fmt: skip


def test_each_layer_gets_its_row(folder, corpus, tmp_path, capsys):
    layers(line(folder, corpus, "-o", str(tmp_path / "out"), "-f", "json"))
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert [row["layer"] for row in rows] == [0, 1, 2]
    with open(tmp_path / "out" / "layers.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for row, written in zip(rows, table):
        for name, value in row.items():
            assert float(written[name]) == pytest.approx(value, abs=1e-4)
        assert 0 < row["pnmi"] < 1 and 0 <= row["speaker_probe"] <= 1
        assert 0 < row["abx_within"] < 1 and 0 < row["abx_across"] < 1
    found = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert found == {"layers": rows}
    assert (tmp_path / "out" / "layers.png").read_bytes()[:4] == b"\x89PNG"
    layers(line(folder, corpus, "--layers", "2", "-f", "csv"))
    assert capsys.readouterr().out.splitlines()[1].split(",")[1:] == [
        table[2][name] for name in table[2] if name != "layer"
    ]
    layers(line(folder, corpus, "--layers", "1", "--max-items", "12"))
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["layer", "pnmi"] and row.split()[0] == "1"


def test_frames_are_those_within_both_ends(folder, corpus, monkeypatch, capsys):
    from unispeech_sb.commands import layers as module

    seen, measure = [], module._measure

    def watch(cut, place, *more):
        seen.extend(cut)
        return measure(cut, place, *more)

    monkeypatch.setattr(module, "_measure", watch)
    layers(line(folder, corpus, "--layers", "1"))
    capsys.readouterr()
    assert len(seen) == 36
    model = SpeechFeatures.from_hparams(folder)
    item, states = seen[7]
    path = corpus / "wavs" / item.speaker / f"{item.file}.wav"
    whole = model.extract(str(path), [1]).states[0].numpy()
    times = (np.arange(len(whole)) + 0.5) * 0.02
    inside = (times >= item.start - 1e-9) & (times <= item.stop + 1e-9)
    np.testing.assert_allclose(states[0], whole[inside], rtol=1e-2, atol=1e-2)


def write_abx(root):
    """Items whose ends are often centres of frames, features, their numbers
    all whole, of 50 frames a second."""
    lines = [HEADER]
    for n in range(6):
        places = np.arange(600) + 601 * n
        feats = (places**2 * 7919 + places * 104729) % 1009 - 504.0
        np.save(root / f"f{n}.npy", feats.reshape(100, 6).astype(np.float32))
        for i in range(16):
            start, phone = 0.01 * (11 * i + n), PHONES[(i * i + n) % 3]
            span = f"{start:.4f} {start + 0.05 + 0.01 * (i % 7):.4f}"
            around = f"c{(i + n) % 2} d"
            lines.append(f"f{n} {span} {phone} {around} s{n % 3}")
    (root / "x.item").write_text("\n".join(lines) + "\n")


def abx_of(root, monkeypatch):
    """ABX within and across speakers, of frames that ``layers`` takes."""
    from unispeech_sb.commands import layers as module

    def states(paths, *_):
        for path in paths:
            found = torch.from_numpy(np.load(path))[None]
            yield path, SimpleNamespace(frame_s=320 / 16000, states=found)

    monkeypatch.setattr(module, "advance", lambda bar: None)
    items = read_items(root / "x.item")
    files = {item.file: str(root / f"{item.file}.npy") for item in items}
    cut, _ = module._cut(
        SimpleNamespace(extract_files=states), items, files, [0],
        SimpleNamespace(batch_seconds=1.0), None,
    )  # fmt: skip
    about = [
        [getattr(item, name) for item, _ in cut]
        for name in ("phone", "context", "speaker")
    ]
    feats = [states[0].astype(np.float32) for _, states in cut]
    return [abx_error(feats, *about, across=x) for x in (False, True)]


def test_abx_is_what_fastabx_has_found(tmp_path, monkeypatch):
    write_abx(tmp_path)
    found = abx_of(tmp_path, monkeypatch)
    assert found == pytest.approx(BY_FASTABX, abs=1e-6)


def test_abx_is_what_fastabx_finds(tmp_path, monkeypatch):
    reason = "fastabx is not installed; it needs Python 3.12"
    fastabx = pytest.importorskip("fastabx", reason=reason)
    write_abx(tmp_path)
    theirs = [
        fastabx.zerospeech_abx(
            tmp_path / "x.item",
            tmp_path,
            max_size_group=None,
            max_x_across=None,
            speaker=speaker,
            extension=".npy",
            feature_maker=lambda path: torch.from_numpy(np.load(path)),
            device="cpu",
            progress=False,
        )  # fmt: skip
        for speaker in ("within", "across")
    ]
    assert theirs == pytest.approx(BY_FASTABX, abs=1e-6)
    found = abx_of(tmp_path, monkeypatch)
    assert found == pytest.approx(theirs, abs=1e-6)


class Options:
    """Options of the clusters."""

    num_units, seed = 3, 0


def test_clusters_that_are_phones_have_all_of_their_information():
    feats = [np.full((5, 4), 10.0 * n, np.float32) for n in (0, 1, 2) * 9]
    phones = ["a", "b", "c"] * 9
    found = _clusters(feats, phones, Options)
    assert found == pytest.approx({"pnmi": 1.0, "phone_purity": 1.0})


def test_a_probe_needs_two_recordings_of_two_speakers():
    text = HEADER + "\n" + "\n".join(
        f"f{n} 0.0 0.1 A X Y s{n % 2}" for n in range(8)
    )  # fmt: skip
    draw = np.random.default_rng(0)
    feats = [draw.normal(size=(3, 4)) + 5 * (n % 2) for n in range(8)]
    items = [
        type("I", (), {"file": r.split()[0], "speaker": r.split()[6]})
        for r in text.splitlines()[1:]
    ]
    assert _probe(feats, items, 0) == 1.0
    assert _probe(feats[:2], items[:2], 0) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a first line with #file onset .*; got none"),
        ("a b c\n", "expected a first line with .*; got a b c"),
        (f"{HEADER}\n", "expected items; got none"),
        (f"{HEADER}\ns0 0.1 0.2 A\n", "line 2: expected 7 fields; got 4"),
        (f"{HEADER}\ns0 x 0.2 A X Y s\n", "line 2: expected seconds"),
        (f"{HEADER}\ns0 0.2 0.1 A X Y s\n", "an onset before its offset"),
    ],
)
def test_other_item_files_are_refused(text, message, tmp_path):
    path = tmp_path / "x.item"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_items(path)


def test_what_is_not_there_is_named(folder, corpus, tmp_path, capsys):
    other = tmp_path / "x.item"
    other.write_text(f"{HEADER}\nnowhere 0.1 0.2 A X Y s\n")
    for given, message in (
        (["--items", str(other)], "1 of 1 are not there: nowhere"),
        (["--items", "none.item"], "there is no such item file"),
        (["--audio-root", "none"], "none: there is no such folder"),
        (["--layers", "9"], "expected numbers from 0 to 2"),
        (["--layers", "-1,-9"], "to -3; got -1, -9"),
        (["--num-units", "5000"], "--num-units: expected at most the 37 items"),
    ):
        words = line(folder, corpus, *given)
        assert commands.main(["layers", *words]) == 1
        assert re.search(message, capsys.readouterr().err)
