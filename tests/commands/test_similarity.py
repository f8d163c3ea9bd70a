"""Speaker similarity of pairs, lists and folders of recordings."""

import csv
import json
import re
import shutil

import pytest
import torch

from benchmarks.loading import as_fairseq
from tests.huggingface import tiny_model
from tests.inference.speaker_models import (
    load_model,
    save_model,
    voice,
    write,
)
from unispeech_sb import commands
from unispeech_sb.checkpoints.authors import VERIFICATION_PARTS
from unispeech_sb.commands.similarity import similarity
from unispeech_sb.inference import embedding_store
from unispeech_sb.inference.speaker_verification import (
    SpeakerVerification,
    cosine,
)
from unispeech_sb.lobes.heads import ECAPAHead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder."""
    return str(save_model(tmp_path_factory.mktemp("similarity") / "model"))


@pytest.fixture
def speech(tmp_path):
    """References of four speakers at different levels, and two takes of each
    in files of another suffix."""
    for name in ("ref", "gen"):
        (tmp_path / name).mkdir()
    for n in range(4):
        write(tmp_path / "ref" / f"s{n}.wav", 0.3**n * voice(n, 1.5 + n / 4))
        write(tmp_path / "gen" / f"s{n}.flac", voice(n, 2.0, 1), "PCM_16")
    return tmp_path


def expected(folder, one, other):
    """The cosine of whole recordings at the level that they have."""
    model = load_model(folder, rms=None, window_s=float("inf"))
    return cosine(model.embed(one), model.embed(other))


def authors_file(path):
    """WavLM with the authors' ECAPA-TDNN in a file as they save it, and the
    model of transformers and the head that it has."""
    model = tiny_model(
        "wavlm", hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    head = ECAPAHead(16, 3, channels=16, pooled_channels=24).eval()
    torch.nn.init.normal_(head.layer_mix.weights)
    back = {new: old for old, new in VERIFICATION_PARTS.items()}
    tensors = as_fairseq(model.state_dict(), "feature_extract.model.")
    for name, tensor in head.state_dict().items():
        parts = [back.get(part, part) for part in name.split(".")]
        new = ".".join(parts).replace("layer_mix.weights", "feature_weight")
        tensors[new] = tensor
    torch.save({"model": tensors}, path)
    return model, head


@torch.no_grad()
def test_wavlm_with_ecapa_gives_the_authors_score(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "wavlm_large_finetune.pth"
    model, head = authors_file(path)
    # The file does not tell from where on distances share a bucket
    model.config.max_bucket_distance = 800
    for block in model.encoder.layers:
        block.attention.max_distance = 800
    embeddings, files = [], []
    for n in range(2):
        wav = 0.1 * voice(n, 1.0 + n)
        files.append(write(tmp_path / f"{n}.wav", wav))
        normed = torch.nn.functional.layer_norm(wav, wav.shape)[None]
        found = model(normed, output_hidden_states=True)
        states = (*found.hidden_states[:-1], found.last_hidden_state)
        embeddings.append(head(torch.stack(states)).flatten())
    score = torch.cosine_similarity(*embeddings, dim=0).item()
    similarity([str(path), *files, "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)["list"]
    assert row["similarity"] == pytest.approx(score, abs=1e-5)


def test_two_recordings_get_their_cosine(folder, speech, capsys):
    one, other = (str(speech / "ref" / f"s{n}.wav") for n in (0, 3))
    similarity([folder, one, other])
    value = expected(folder, one, other)
    assert capsys.readouterr().out == f"{value:.4f}\n"
    similarity([folder, one, one])
    assert capsys.readouterr().out == "1.0000\n"


def test_folders_are_matched_by_stem(folder, speech, capsys):
    write(speech / "ref" / "other.wav", voice(9, 1.0))
    dirs = ["--reference-dir", str(speech / "ref")]
    dirs += ["--generated-dir", str(speech / "gen")]
    out = speech / "new" / "out"
    similarity([folder, *dirs, "-o", str(out), "--draws", "100"])
    captured = capsys.readouterr()
    assert "1 of 5 recordings in" in captured.err
    with open(out / "similarity.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        value = expected(folder, row["reference"], row["generated"])
        assert float(row["similarity"]) == pytest.approx(value, abs=1e-5)
    found = json.loads((out / "similarity.json").read_text())
    values = [float(row["similarity"]) for row in rows]
    mean = found["mean"]
    assert mean["value"] == pytest.approx(sum(values) / 4, abs=1e-5)
    low, high = mean["interval"]
    assert min(values) <= low < mean["value"] < high <= max(values)
    assert (found["pairs"], found["failed"]) == (4, 0)
    assert f"mean    {mean['value']:.4f}" in captured.out
    similarity([folder, *dirs, "-f", "csv"])
    assert capsys.readouterr().out == (out / "similarity.csv").read_text()


def test_equal_stems_are_matched_by_their_folders(
    folder,
    speech,
    capsys,
):
    for side in ("ref", "gen"):
        for n in range(2):
            (speech / side / f"d{n}").mkdir()
            for path in (speech / side).glob(f"s{n}.*"):
                path.rename(path.with_name(f"d{n}") / f"x{path.suffix}")
        for path in (speech / side).glob("s*"):
            path.unlink()
    dirs = ["--reference-dir", str(speech / "ref")]
    similarity([folder, *dirs, "--generated-dir", str(speech / "gen"),
                "-f", "csv"])  # fmt: skip
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "reference,generated,similarity" and len(lines) == 2
    assert all(f"ref/d{n}/x.wav" in lines[n] for n in range(2))


def test_a_list_names_pairs(folder, speech, capsys, monkeypatch):
    (speech / "pairs.csv").write_text(
        "left,right\nref/s0.wav,gen/s0.flac\nref/s0.wav,gen/s1.flac\n"
    )
    (speech / "pairs.txt").write_text(
        "ref/s0.wav gen/s0.flac\nref/s0.wav gen/s1.flac\n"
    )
    outputs = []
    for name in ("pairs.csv", "pairs.txt"):
        pairs = ["--pairs", str(speech / name), "--audio-root", str(speech)]
        similarity([folder, *pairs, "-f", "csv"])
        outputs.append(capsys.readouterr().out)
    monkeypatch.chdir(speech)
    similarity([folder, "--pairs", "pairs.txt"])
    text = capsys.readouterr().out
    assert outputs[0] == outputs[1] and len(outputs[0].splitlines()) == 3
    # One reference alone: other references cannot be drawn
    assert "pairs   2" in text and "[" not in text


def test_an_interruption_costs_what_was_not_written(
    folder,
    speech,
    monkeypatch,
):
    monkeypatch.setattr(embedding_store, "PART_S", 0.0)
    whole, seen = SpeakerVerification.embed_files, []

    def cut(self, paths, *options):
        for result in whole(self, paths, 0.1, *options[1:]):
            seen.append(result[0])
            yield result
            if len(seen) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(SpeakerVerification, "embed_files", cut)
    line = [folder, "--reference-dir", str(speech / "ref")]
    line += ["--generated-dir", str(speech / "gen")]
    line += ["-o", str(speech / "out")]
    with pytest.raises(KeyboardInterrupt):
        similarity(line)
    similarity(line)
    assert len(seen) == len(set(seen)) == 8


def test_a_recording_that_fails_leaves_the_others(
    folder,
    speech,
    capsys,
):
    (speech / "gen" / "s1.flac").write_bytes(b"no audio")
    line = [folder, "--reference-dir", str(speech / "ref")]
    line += ["--generated-dir", str(speech / "gen"), "-f", "json"]
    with pytest.raises(SystemExit, match="1"):
        similarity(line)
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["pairs"], found["failed"]) == (3, 1)
    assert [row["similarity"] is None for row in found["list"]] == [
        False, True, False, False,
    ]  # fmt: skip
    assert "1 of 8 files failed" in captured.err


WRONG = [
    ([], "expected two recordings, --pairs, or .*; got none of them"),
    (["a.wav"], "expected two recordings; got 1"),
    (["a.wav", "b.wav", "--pairs", "x"], "got several of them"),
    (["--reference-dir", "a"], "go together"),
    (["a.wav", "b.wav", "--draws", "5"], "expected 0, or 100 or more"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=str)
def test_wrong_command_lines_are_refused(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        similarity(["model", *line])
    assert re.search(message, capsys.readouterr().err)


def test_what_is_not_there_is_named(folder, speech, capsys):
    ref, gen = str(speech / "ref"), str(speech / "gen")
    (speech / "empty").mkdir()
    empty = str(speech / "empty")
    for line, message in (
        ([f"{ref}/s0.wav", "no.wav"], "no.wav: there is no such file"),
        (["--pairs", "no.txt"], "no.txt: there is no such list of pairs"),
        (["--reference-dir", ref, "--generated-dir", "no"], "no such folder"),
        (["--reference-dir", empty, "--generated-dir", gen], "there are none"),
        (
            ["--reference-dir", ref, "--generated-dir", f"{gen}/../ref"],
            "expected another folder than --reference-dir",
        ),
    ):
        assert commands.main(["similarity", folder, *line]) == 1
        assert message in capsys.readouterr().err
    shutil.copy(f"{gen}/s0.flac", f"{gen}/s9.flac")
    line = ["--reference-dir", ref, "--generated-dir", gen]
    assert commands.main(["similarity", folder, *line]) == 1
    assert "1 have none: s9" in capsys.readouterr().err
    assert commands.main(["similarity", f"{ref}/s0.wav", ref, gen]) == 1
    assert "a recording (WAV)" in capsys.readouterr().err
