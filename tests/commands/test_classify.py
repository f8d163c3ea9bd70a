"""The commands classify and features, on folders as convert writes them."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from tests.commands.test_transcribe import save_tiny
from tests.huggingface import save_folder, tiny_model
from tests.inference import diarization_models, speaker_models
from tests.inference.hostile import check_report, hostile_files
from tests.inference.models import uneven_speech
from tests.inference.test_classification import save_model
from unispeech_sb import commands
from unispeech_sb.commands import main
from unispeech_sb.commands.classify import classify
from unispeech_sb.commands.diarize import diarize
from unispeech_sb.commands.features import features
from unispeech_sb.commands.speakers import embed, verify
from unispeech_sb.commands.transcribe import transcribe
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.classification import UtteranceClassifier
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.features import SpeechFeatures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier's folder."""
    return save_model(tmp_path_factory.mktemp("classify") / "model")


@pytest.fixture
def files(tmp_path):
    """Two recordings, the longer one first."""
    paths = [str(tmp_path / name) for name in ("b.wav", "a.flac")]
    for path, seconds, rate in zip(paths, (2.0, 1.0), (44100, 16000)):
        soundfile.write(path, uneven_speech(seconds, rate).numpy(), rate)
    return paths


@pytest.fixture
def tree(files, tmp_path):
    """The recordings in a tree."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    shutil.copy(files[0], tmp_path / "in" / "b.wav")
    shutil.copy(files[1], tmp_path / "in" / "sub" / "a.flac")
    (tmp_path / "in" / "sub" / "._a.flac").write_text("of macOS")
    return tmp_path / "in"


def test_one_file_is_its_label(folder, files, capsys):
    classify([folder, files[0]])
    captured = capsys.readouterr()
    found = UtteranceClassifier.from_hparams(folder)(files[0])
    assert captured.out == f"{found.label}\t{found.posterior:.4f}\n"
    assert "classify: 100%" not in captured.err
    classify([folder, files[0], "--top-k", "9"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        label for label, _ in found.classes
    ]


def test_a_table_has_one_header_and_the_order_given(folder, files, capsys):
    model = UtteranceClassifier.from_hparams(folder)
    for form, delimiter in (("csv", ","), ("tsv", "\t")):
        classify([folder, *files, "-f", form, "--top-k", "2"])
        text = io.StringIO(capsys.readouterr().out)
        rows = list(csv.DictReader(text, delimiter=delimiter))
        assert [row["name"] for row in rows] == [
            name for name in files for _ in range(2)
        ]
        for row in rows:
            label, value = model(row["name"]).classes[int(row["rank"]) - 1]
            assert row["label"] == label
            assert float(row["posterior"]) == pytest.approx(value, abs=1e-4)


def test_json_has_a_line_for_each(folder, files, capsys):
    classify([folder, *files, "--output_format", "json"])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    for line, name in zip(lines, files, strict=True):
        assert line["name"] == name
        assert line["label"] == line["classes"][0]["label"]
        assert [*line] == [
            "name", "duration", "label", "posterior", "classes",
        ]  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json", "csv", "tsv"])
def test_no_file_ends_a_batch(form, folder, tmp_path, capsys):
    files = hostile_files(tmp_path)
    out = tmp_path / "out"
    for options in ([], ["-o", str(out)]):
        with pytest.raises(SystemExit) as caught:
            classify([folder, *files, "-f", form, *options])
        assert caught.value.code == 1
        captured = capsys.readouterr()
        check_report(files, captured.err, "classify")
        if not options:
            shown = captured.out.replace("\\\\", "\\")
            good = [name for name, said in files.items() if not said]
            assert all(Path(n).stem[:3] in shown for n in good)
    stems = sorted(path.stem for path in out.iterdir())
    assert stems == sorted(
        Path(n).stem for n, said in files.items() if not said
    )


def test_a_long_recording_is_named(folder, files, capsys):
    with pytest.raises(SystemExit):
        classify([folder, *files, "--max-s", "1.5"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"  {files[0]}: expected an utterance of at most 1.5 s; got 2.0 s"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--top-k 0", "expected 1 or more, got 0"),
        ("--format srt", "invalid choice: 'srt'"),
        ("--threads 0", "expected 1 or more, got 0"),
        ("--max-s nan", "expected a number above 0, got nan"),
    ],
)
def test_options_that_make_no_sense_are_2(options, said, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        classify([folder, "a.wav", *options.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def contents(root):
    """Path -> bytes of the files below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory, folder):
    """Command -> its folder."""
    root = tmp_path_factory.mktemp("models")
    return {
        "transcribe": str(save_tiny(root / "asr", 20)),
        "diarize": str(diarization_models.save_model(root / "diarization")),
        "classify": folder,
        "features": str(speaker_models.save_model(root / "speaker")),
    }


RUN = {
    "transcribe": (transcribe, "txt"),
    "diarize": (diarize, "txt"),
    "classify": (classify, "txt"),
    "features": (features, "npy"),
}
each = pytest.mark.parametrize("name", RUN)


@each
def test_a_tree_is_kept_and_what_is_done_is_skipped(
    name, models, tree, tmp_path, monkeypatch, capsys
):
    run, suffix = RUN[name]
    line = [models[name], str(tree), "--output_dir", str(tmp_path / "out")]
    run(line)
    assert capsys.readouterr().out == ""
    first = contents(tmp_path / "out")
    assert [*first] == [f"b.{suffix}", f"sub/a.{suffix}"]
    assert all(first.values())
    (tmp_path / "out" / f"b.{suffix}").unlink()
    (tmp_path / "out" / "sub" / f"a.{suffix}").write_text("mine")
    run(line)
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith(f"{name}: 1 of 2 are in {tmp_path / 'out'} already")
    found = contents(tmp_path / "out")
    assert found[f"sub/a.{suffix}"] == b"mine"
    assert len(found[f"b.{suffix}"]) == len(first[f"b.{suffix}"])
    module = getattr(commands, "classify" if name == "classify" else name)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_folder", pytest.fail)
        run(line)
        assert "2 of 2 are in" in capsys.readouterr().err
    run([*line, "--overwrite"])
    assert contents(tmp_path / "out") == first


@each
def test_lists_and_patterns_name_recordings(name, models, tree, tmp_path):
    run, suffix = RUN[name]
    (tmp_path / "wav.scp").write_text(
        f"utt1 {tree}/b.wav\nutt2 {tree}/sub/a.flac\n"
    )
    (tmp_path / "list").write_text(f"{tree}/b.wav\n{tree}/sub/a.flac\n")
    for number, (word, expected) in enumerate(
        (
            (f"{tree}/**/*.wav", ["b"]),
            (f"@{tmp_path}/list", ["b", "sub/a"]),
            (f"{tmp_path}/wav.scp", ["utt1", "utt2"]),
        )
    ):
        out = tmp_path / str(number)
        run([models[name], word, "-o", str(out)])
        assert [*contents(out)] == [f"{place}.{suffix}" for place in expected]


@each
def test_one_bad_file_in_a_tree_is_named(name, models, tree, tmp_path, capsys):
    run, suffix = RUN[name]
    (tree / "sub" / "bad.wav").write_text("no audio")
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            run([models[name], str(tree), "-o", str(tmp_path / "out")])
        assert caught.value.code == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"  {tree}/sub/bad.wav: not readable as audio")
    assert [*contents(tmp_path / "out")] == [f"b.{suffix}", f"sub/a.{suffix}"]


def test_all_formats_at_once(models, tree, tmp_path, capsys):
    for name, count in (("transcribe", 6), ("diarize", 5), ("classify", 4)):
        out = tmp_path / name
        RUN[name][0]([models[name], str(tree), "-o", str(out), "-f", "all"])
        assert len(contents(out)) == 2 * count
    table = (tmp_path / "transcribe/b.tsv").read_text()
    capsys.readouterr()
    transcribe([models["transcribe"], f"{tree}/b.wav", "-f", "tsv"])
    assert capsys.readouterr().out == table
    assert table.startswith("start\tend\ttext\n") and table.count("\n") > 1
    ids = [json.loads((tmp_path / "diarize/sub/a.json").read_text())["name"]]
    (task,) = json.loads((tmp_path / "diarize/b.labelstudio.json").read_text())
    assert ids == ["a"] and task["data"]["audio"] == f"{tree}/b.wav"


def test_kaldis_names_are_in_the_results(models, tree, tmp_path, capsys):
    (tmp_path / "wav.scp").write_text(f"utt.1 {tree}/b.wav\n")
    scp = str(tmp_path / "wav.scp")
    diarize([models["diarize"], scp, "-f", "rttm"])
    assert capsys.readouterr().out.startswith("SPEAKER utt.1 1 ")
    diarize([models["diarize"], scp, "-f", "json"])
    assert json.loads(capsys.readouterr().out)["name"] == "utt.1"
    transcribe([models["transcribe"], scp, "-f", "ctm"])
    assert capsys.readouterr().out.startswith("utt.1 1 ")
    transcribe([models["transcribe"], scp, "-f", "json"])
    assert json.loads(capsys.readouterr().out)["name"] == "utt.1"
    out = tmp_path / "e.safetensors"
    embed([models["features"], scp, "-o", str(out)])
    assert EmbeddingStore.load(out).names == ["utt.1"]
    embed([models["features"], str(tree), "-o", str(out)])
    names = [f"{tree}/b.wav", f"{tree}/sub/a.flac", "utt.1"]
    assert EmbeddingStore.load(out).names == names


def test_speakers_of_a_recording_do_not_overlap(models, tmp_path, capsys):
    path = speaker_models.write(
        tmp_path / "a.wav", diarization_models.babble(4.0)
    )
    found = {}
    for options in ([], ["--exclusive"]):
        diarize([models["diarize"], path, "-f", "json", *options])
        line = json.loads(capsys.readouterr().out)
        found[len(options)] = [(s["start"], s["end"]) for s in line["segments"]]

    def overlap(turns):
        return any(b[0] < a[1] for a, b in zip(turns, turns[1:]))

    assert overlap(found[0]) and not overlap(found[1]) and found[1]


def test_the_number_of_threads_is_set(models, files, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for name, (run, _) in RUN.items():
        out = ["-o", str(Path(files[0]).parent / name)]
        run([models[name], files[1], "--threads", "3", *out])
    assert asked == [3] * len(RUN)


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "h5"])
def test_features_are_those_of_the_layers(form, models, files, tmp_path):
    h5py = pytest.importorskip("h5py") if form == "h5" else None
    folder = models["features"]
    model = SpeechFeatures.from_hparams(folder)
    expected = model(files[1], layers=[0, 2]).states.numpy()
    line = [folder, files[1], "-f", form, "-o"]
    features([*line, str(tmp_path / "two"), "--layers", "0,2"])
    features([*line, str(tmp_path / "last")])
    features([*line, str(tmp_path / "all"), "--layers", "all"])
    path = tmp_path / "two" / f"a.{form}"
    if form == "safetensors":
        with safe_open(path, "np") as file:
            found = [file.get_tensor(f"layer{n}") for n in (0, 2)]
            about = file.metadata()
        assert about == {"frame_s": "0.02", "duration": "1.0"}
        assert len(found[0]) == 49
    elif form == "h5":
        with h5py.File(path) as file:
            found = [file[f"layer{n}"][:] for n in (0, 2)]
            assert dict(file.attrs) == {"frame_s": 0.02, "duration": 1.0}
    elif form == "npz":
        arrays = np.load(path)
        assert arrays.files == ["layer0", "layer2"]
        found = [arrays[name] for name in arrays.files]
        count = len(np.load(tmp_path / "all" / "a.npz").files)
        assert count == model.num_layers + 1
    else:
        found = np.load(path)
        assert np.load(tmp_path / "last" / "a.npy").shape == (49, 16)
        whole = np.load(tmp_path / "all" / "a.npy")
        assert whole.shape == (model.num_layers + 1, 49, 16)
        np.testing.assert_allclose(whole[[0, 2]], found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors"])
def test_a_long_recording_is_written_as_a_short_one_is(form, models, tmp_path):
    rate = np.linspace(0.01, 0.3, 5 * 16000)
    soundfile.write(
        tmp_path / "a.wav", rate * np.random.default_rng(0).normal(
            size=rate.shape), 16000,
    )  # fmt: skip
    line = [models["features"], str(tmp_path / "a.wav"), "-f", form]
    line += ["--layers", "2,0"]
    found = []
    for window_s in ("60", "2"):
        out = str(tmp_path / window_s)
        features([*line, "--window-s", window_s, "-o", out])
        path = Path(out, f"a.{form}")
        if form == "safetensors":
            with safe_open(path, "np") as file:
                states = [file.get_tensor(f"layer{n}") for n in (2, 0)]
                assert file.metadata()["duration"] == "5.0"
        elif form == "npz":
            states = [np.load(path)[f"layer{n}"] for n in (2, 0)]
        else:
            states = np.load(path)
        assert [p.name for p in Path(out).iterdir()] == [path.name]
        found.append(states)
    whole, cut = found
    np.testing.assert_allclose(cut[1], whole[1], rtol=1e-3, atol=1e-3)
    assert cut[0].shape == whole[0].shape == (249, 16)
    assert not np.array_equal(cut[0], whole[0])


def test_a_recording_that_breaks_leaves_no_features(
    models, tmp_path, monkeypatch, capsys
):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(80000)), 16000)

    def broken(self, *args):
        yield torch.zeros(1, 49, 16)
        raise AudioError("a.wav: truncated")

    monkeypatch.setattr(SpeechFeatures, "_blocks", broken)
    out = tmp_path / "out"
    line = ["features", models["features"], str(tmp_path / "a.wav")]
    with pytest.raises(SystemExit):
        main([*line, "--window-s", "2", "-o", str(out)])
    assert "a.wav: truncated" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_layers_that_are_not_there_are_refused(models, files, tmp_path, capsys):
    line = ["features", models["features"], files[1], "-o", str(tmp_path / "o")]
    assert main([*line, "--layers", "99"]) == 1
    said = "expected numbers from 0 to 2, or from -1, the last one, to -3; got"
    assert f"{said} 99" in capsys.readouterr().err
    for text in ("1,1", "--1", "1,-", "x", ""):
        with pytest.raises(SystemExit) as caught:
            main([*line, f"--layers={text}"])
        assert caught.value.code == 2
    assert not (tmp_path / "o").exists()


def test_layers_may_be_counted_from_the_last(models, files, tmp_path):
    found = []
    for place, layers in (("a", "-1,-3"), ("b", "2,0")):
        out = tmp_path / place
        line = ["features", models["features"], files[1], "-o", str(out)]
        assert not main([*line, "--layers", layers])
        (path,) = out.rglob("*.npy")
        found.append(np.load(path))
    assert found[0].shape[0] == 2 and np.array_equal(*found)


def test_a_hugging_face_folder_is_taken_by_every_command(
    files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    heads = {
        "ForCTC": {"vocab_size": 5, "pad_token_id": 0},
        "ForSequenceClassification": {"num_labels": 2},
        "ForXVector": {
            "tdnn_dim": [6], "tdnn_kernel": [3], "tdnn_dilation": [1],
            "xvector_output_dim": 4,
        },
        "ForAudioFrameClassification": {"num_labels": 2},
    }  # fmt: skip
    for head, options in heads.items():
        words = {"<pad>": 0, "|": 1, "<unk>": 2, "a": 3, "b": 4}
        save_folder(
            tiny_model("unispeech-sat", head, **options),
            tmp_path / head,
            vocabulary=words if head == "ForCTC" else None,
        )
    wav, name = files[1], str(tmp_path / "ForXVector")
    transcribe([str(tmp_path / "ForCTC"), wav])
    classify([str(tmp_path / "ForSequenceClassification"), wav])
    diarize([str(tmp_path / "ForAudioFrameClassification"), wav,
             "--speaker-model", name])  # fmt: skip
    embed([name, wav, "-o", str(tmp_path / "e.safetensors")])
    verify([name, wav, wav, "--threshold", "0.5"])
    for head in heads:
        features([str(tmp_path / head), wav, "-o", str(tmp_path / "o" / head)])
    assert "same speaker" in capsys.readouterr().out
    made = list((tmp_path / "cache/unispeech_sb/converted").iterdir())
    assert len(made) == len(heads)
    with pytest.raises(
        ValueError, match="Hugging Face model for EncoderASR: unis"
    ):
        classify([str(tmp_path / "ForCTC"), wav])
    with pytest.raises(ValueError, match="Hugging Face hub gave no model"):
        classify(["nobody/nothing", wav])
