"""Slots from recordings to a folder that SpeechBrain loads."""

import csv
import json

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.ASR import EncoderASR

from recipes import slot_filling
from tests.dataio.corpora.test_audio_snips import write_snips
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.speech import SCRATCH
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak
from unispeech_sb.inference.asr import LongFormASR

REQUESTS = {
    "go seven": ("O number", "go B-number seven E-number"),
    "stop seven": ("O number", "stop B-number seven E-number"),
    "go yes no": ("O word word", "go B-word yes no E-word"),
    "stop yes": ("O word", "stop B-word yes E-word"),
    "no": ("O", "no"),
}
OVERFIT = [
    "--model=small",
    "--number_of_epochs=40",
    "--lr=0.003",
    "--warmup_updates=10",
    "--hold_updates=90",
    "--decay_updates=40",
]
SLOTS = [f"slot_{number}" for number in range(37)] + ["artist", "city"]
SUPERB = [
    "--model=tiny",
    "--proj_size=8",
    "--hidden_size=8",
    "--batches_per_epoch=2",
    "--number_of_epochs=1",
    "--num_workers=0",
    "--noprogressbar",
    "--device=cpu",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv, whose validation set is in train."""
    folder = tmp_path_factory.mktemp("requests")
    rows = [("id", "path", "split", "wrd", "slots")]
    for number, (text, (tags, _)) in enumerate(REQUESTS.items()):
        speech = speak(text, Voice(variant="m1", pitch=45))
        name = f"{number}.wav"
        soundfile.write(folder / name, speech.samples.numpy(), SAMPLE_RATE)
        rows += [
            (f"{split}_{number}", name, split, text, tags)
            for split in ("train", "valid")
        ]
    with open(folder / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    yaml = str(root / "hparams/slot_filling.yaml")
    places = [f"--data_folder={corpus}", f"--output_folder={output}"]
    return output, slot_filling.main([yaml, *places, *SCRATCH, *OVERFIT])


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_recipe_overfits_what_it_was_trained_on(trained):
    output, scores = trained
    assert scores["slot_type_f1"] == 1.0
    assert scores["slot_value_cer"] == scores["WER"] == 0.0
    assert json.loads((output / "scores.json").read_text()) == scores
    hypotheses = (output / "test-hyp.ark").read_text()
    assert "valid_2 go B-word yes no E-word\n" in hypotheses
    assert (output / "test-ref.ark").read_text() == hypotheses
    words = (output / "wer.txt").read_text()
    assert words.startswith("%WER 0.00 [ 0 / ")


def test_the_export_writes_tags_and_ours_gives_the_slots(trained, corpus):
    export = str(trained[0] / "export")
    speechbrain = EncoderASR.from_hparams(source=export)
    ours = LongFormASR.from_hparams(export)
    found = dict(ours.transcribe_files([corpus / f"{n}.wav" for n in range(5)]))
    for number, (_, text) in enumerate(REQUESTS.values()):
        path = corpus / f"{number}.wav"
        assert speechbrain.transcribe_file(str(path)) == text
        assert found[path].text == text
    assert found[corpus / "2.wav"].slots == [("word", "yes no")]
    assert found[corpus / "4.wav"].slots == []
    words = [word.text for word in found[corpus / "0.wav"].words]
    assert words == ["go", "B-number", "seven", "E-number"]


def test_transcribe_prints_slots_as_json(trained, corpus, capsys):
    command = ["transcribe", str(trained[0] / "export"), "--format=json"]
    assert command_line([*command, str(corpus / "0.wav")]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["slots"] == [{"slot": "number", "value": "seven"}]


def test_tags_that_do_not_fit_are_one_line(root, corpus, tmp_path, capsys):
    table = (corpus / "manifest.csv").read_text()
    table = table.replace(",0.wav", f",{corpus}/0.wav")
    for change, message in (
        (("O number", "number"), "as many tags in 'slots'; got 'go seven' and"),
        (("slots", "tags"), "as many tags in 'slots'; got 'go seven' and"),
    ):
        rows = table.replace(*change).splitlines()[:3]
        (tmp_path / "manifest.csv").write_text("\n".join(rows))
        arguments = [
            str(root / "hparams/slot_filling.yaml"), *SCRATCH,
            f"--data_folder={tmp_path}", f"--output_folder={tmp_path / 'out'}",
        ]  # fmt: skip
        assert command_line(["recipe", "slot_filling", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error


def write_requests(folder, longer=0):
    """Audio SNIPS with two requests of each voice and little sound, each
    longer by some samples than the last."""
    folder.mkdir(exist_ok=True)
    request = "BOS PLAY QUEEN & ABBA ! EOS\tO O artist artist artist O Play"
    folder = write_snips(folder, request, count=2)
    (folder / "slots.txt").write_text("\n".join(["O", *SLOTS]))
    for number, wav in enumerate(sorted(folder.rglob("*.wav"))):
        noise = torch.rand(24000 + number * longer) - 0.5
        soundfile.write(wav, noise.numpy(), 16000)
    return folder


@pytest.fixture(scope="module")
def snips(tmp_path_factory):
    """Audio SNIPS; not to be changed."""
    return write_requests(tmp_path_factory.mktemp("SNIPS"))


def test_superb_runs_on_the_archives_layout(root, snips, tmp_path):
    scores = slot_filling.main(
        [
            str(root / "hparams/slot_filling_superb.yaml"),
            f"--data_folder={snips}", f"--output_folder={tmp_path}", *SUPERB,
        ]
    )  # fmt: skip
    assert {"slot_type_f1", "slot_value_cer", "WER", "CER"} < set(scores)
    lines = (tmp_path / "test-ref.ark").read_text().splitlines()
    text = "PLAY B-artist QUEEN AND ABBA E-artist"
    assert len(lines) == 8
    assert lines[0] == f"Brian-snips-test-0 {text}"
    readme = (tmp_path / "export" / "README.md").read_text()
    assert "Speech to text with tags of slots, by CTC over 109 tok" in readme
    assert 'transcribe_long("a.wav").slots' in readme


def superb_hparams(root, snips, output, **overrides):
    """The yaml as a run sees it after its preparation."""
    text = (root / "hparams/slot_filling_superb.yaml").read_text()
    given = {"data_folder": str(snips), "output_folder": str(output)}
    given |= {"proj_size": 8, "hidden_size": 8, "model": "tiny"}
    hparams = load_hyperpyyaml(text, {**given, **overrides})
    slot_filling.prepare(hparams)
    return hparams


def test_superb_trains_on_windows_of_neighbours(root, snips, tmp_path):
    hparams = superb_hparams(root, snips, tmp_path, batch_size=4)
    datasets = slot_filling.dataio_prep(hparams)
    batches = hparams["train_dataloader_opts"]["batch_sampler"].items
    assert len(batches) == len(datasets["train"]) == 16
    assert batches[0] == [0, 1, 2, 3] and batches[1] == [1, 2, 3, 4]
    assert batches[12:] == [[12, 13, 14, 15]] * 4
    # The last word is punctuation: no end, but a space
    tokens = datasets["train"][0]["tokens"].tolist()
    names = [hparams["tokenizer"].ind2lab[i] for i in tokens]
    assert names == [
        *"PLAY ", "B-artist ", *"QUEEN AND ABBA", " E-artist", " ",
    ]  # fmt: skip
    for batch in hparams["valid_dataloader_opts"]["batch_sampler"]:
        assert len(batch) == 1
    hparams = superb_hparams(
        root, snips, tmp_path / "b", batch_size=4, halve_over_s=1.0
    )
    slot_filling.dataio_prep(hparams)
    batches = hparams["train_dataloader_opts"]["batch_sampler"].items
    assert {len(batch) for batch in batches} == {2}


def test_superb_as_it_stands_is_the_published_protocol(root, tmp_path):
    text = (root / "hparams/slot_filling_superb.yaml").read_text()
    given = {"data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hyperpyyaml(text, {**given, "model": "tiny"})
    assert (hparams["batch_size"], hparams["batches_per_epoch"]) == (32, 2000)
    assert hparams["batches_per_epoch"] * hparams["number_of_epochs"] == 200_000
    assert hparams["halve_over_s"] * hparams["sample_rate"] == 300_000
    assert (hparams["max_grad_norm"], hparams["seed"]) == (1.0, 1337)
    assert hparams["protocol"] == "superb" and "augmentation" not in hparams
    head = hparams["head"](num_classes=109)
    assert head.projector.out_features == 1024
    assert [layer.hidden_size for layer in head.layers] == [1024, 1024]
    assert head.dropout.p == 0.2 and head.classifier.in_features == 2048
    assert hparams["opt_class"](head.parameters()).defaults["lr"] == 1e-4
