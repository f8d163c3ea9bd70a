"""Intents from recordings to a folder that SpeechBrain loads."""

import csv
import json

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier

from recipes import intent_classification
from tests.dataio.corpora.test_fluent_speech_commands import write_table
from tests.recipes.conftest import (
    assert_refused_run_stays,
    kept_by_overwrite,
)
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

COMMANDS = {
    "yes lamp": ("activate", "lamp"),
    "no lamp": ("deactivate", "lamp"),
    "yes music": ("activate", "music"),
    "no music": ("deactivate", "music"),
}
OWN = ["--slots=[action, object]", "--num_classes=4", "--augmentation=null"]
TINY = ["--model=tiny", "--num_workers=0", "--noprogressbar", "--device=cpu"]
OVERFIT = [
    "--number_of_epochs=40",
    "--freeze_backbone_updates=0",
    "--warmup_updates=10",
    "--hold_updates=80",
    "--decay_updates=30",
    "--lr=0.01",
    "--lr_backbone=0.01",
    "--batch_size=8",
]
ACTIONS = "change language,activate,deactivate,increase,decrease,bring"
OBJECTS = "none,music,lights,volume,heat,lamp,newspaper,juice,socks,shoes,"
OBJECTS += "Chinese,Korean,English,German"
LOCATIONS = "none,kitchen,bedroom,washroom"
"""The corpus's values, in the order in which the miniature has them."""


def run(root, yaml, corpus, output, *options):
    """One run of the recipe in this process."""
    return intent_classification.main(
        [
            str(root / "hparams" / f"{yaml}.yaml"),
            f"--data_folder={corpus}",
            f"--output_folder={output}",
            *TINY,
            *options,
        ]
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Each command three times; the validation clips are among them."""
    folder = tmp_path_factory.mktemp("commands")
    rows = [("id", "path", "split", "action", "object")]
    for number in range(3):
        voice = Voice(variant=f"m{number + 1}", pitch=40 + 5 * number)
        for text, values in COMMANDS.items():
            name = f"{text.replace(' ', '_')}_{number}"
            samples = speak(text, voice).samples.numpy()
            soundfile.write(folder / f"{name}.wav", samples, SAMPLE_RATE)
            splits = ("train", "valid") if number < 2 else ("train",)
            rows += [(f"{s}_{name}", f"{name}.wav", s, *values) for s in splits]
    with open(folder / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    yaml = "intent_classification"
    return output, run(root, yaml, corpus, output, *OWN, *OVERFIT)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_overwrite_with_a_wrong_number_removes_nothing(trained, root, corpus):
    wrong = [*OWN, "--overwrite", "--num_classes=5"]
    yaml = "intent_classification"
    assert_refused_run_stays(
        trained[0], lambda: run(root, yaml, corpus, trained[0], *wrong)
    )


def test_the_recipe_overfits_what_it_was_trained_on(trained):
    output, scores = trained
    assert scores["accuracy"] == 1.0
    assert json.loads((output / "scores.json").read_text()) == scores
    lines = (output / "test_predict.csv").read_text().splitlines()
    assert len(lines) == 8
    assert "valid_no_music_1,deactivate,music" in lines


def test_the_export_gives_intents_of_files_and_batches(trained, corpus):
    classifier = EncoderClassifier.from_hparams(
        source=str(trained[0] / "export")
    )
    waves = []
    for text, values in COMMANDS.items():
        path = str(corpus / f"{text.replace(' ', '_')}_0.wav")
        assert classifier.classify_file(path)[3] == ["|".join(values)]
        waves.append(torch.from_numpy(soundfile.read(path)[0]).float())
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    wav_lens = torch.tensor([len(w) for w in waves]) / batch.shape[1]
    batched = classifier.classify_batch(batch, wav_lens)[0]
    assert batched.shape == (4, 4)  # 2 x 2 combinations
    for row, wave in zip(batched, waves, strict=True):
        alone = classifier.classify_batch(wave[None])[0][0]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


def test_mistakes_are_one_line(root, corpus, tmp_path, capsys):
    rows = (corpus / "manifest.csv").read_text().splitlines()
    paths = [row.replace(",", f",{corpus}/", 1) for row in rows[1:]]
    unseen = [row.replace(",valid,act", ",valid,re-act") for row in paths]
    (tmp_path / "unseen.csv").write_text("\n".join([rows[0], *unseen]))
    yaml = str(root / "hparams/intent_classification.yaml")
    for mistake, message in {
        "--num_classes=5": "expected 5 values of action, object; it has 4: "
        "--num_classes=4",
        "--slots=[action, place]": "there is none for place: --slots=",
        f"--data_folder={tmp_path / 'unseen.csv'}": "valid: expected only the "
        "labels of train",
    }.items():
        arguments = [
            yaml, f"--data_folder={corpus}", *TINY, *OWN,
            f"--output_folder={tmp_path / 'out'}", mistake,
        ]  # fmt: skip
        code = command_line(["recipe", "intent_classification", *arguments])
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 1 and message in error


@pytest.fixture
def miniature(tmp_path):
    """Fluent Speech Commands with all 24 values and little sound."""
    actions, objects, locations = (
        text.split(",") for text in (ACTIONS, OBJECTS, LOCATIONS)
    )
    rows = [
        (
            f"speaker{number % 3}/uuid-{number:02d}",
            (actions[number % 6], value, locations[number % 4]),
        )
        for number, value in enumerate(objects)
    ]

    def make(wav):
        sound = torch.rand(3200).sub(0.5).numpy()
        soundfile.write(wav, sound, 16000)

    folder = tmp_path / "fluent_speech_commands_dataset"
    write_table(folder, "train", rows, make)
    write_table(folder, "valid", [("v/a", rows[3][1])], make)
    write_table(
        folder, "test", [("t/b", rows[5][1]), ("t/c", rows[0][1])], make
    )
    return folder


def test_superb_runs_on_the_corpus_layout(root, miniature, tmp_path):
    output = tmp_path / "out"
    scores = run(
        root, "intent_classification_superb", miniature, output,
        "--number_of_epochs=1", "--draws_per_epoch=32",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    lines = (output / "test_predict.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["b", "c"]
    values = [set(t.split(",")) for t in (ACTIONS, OBJECTS, LOCATIONS)]
    for line in lines:
        _, *triple = line.split(",")
        assert all(v in vs for v, vs in zip(triple, values, strict=True))
    labels = (output / "export" / "label_encoder.ckpt").read_text()
    assert labels.count(" => ") >= 336  # 6 x 14 x 4
    assert "'change language|none|none' => 0" in labels
    assert "'bring|German|washroom' => 335" in labels


def test_labels_are_in_the_order_of_the_training_table(
    root, miniature, tmp_path
):
    text = (root / "hparams/intent_classification_superb.yaml").read_text()
    given = {"data_folder": str(miniature), "output_folder": str(tmp_path)}
    hparams = load_hyperpyyaml(text, {**given, "model": "tiny"})
    intent_classification.prepare(hparams)
    datasets = intent_classification.dataio_prep(hparams)
    encoders = hparams["slot_encoders"]
    found = {
        slot: [encoder.ind2lab[i] for i in range(len(encoder))]
        for slot, encoder in encoders.items()
    }
    assert found == {
        "action": ACTIONS.split(","),
        "object": OBJECTS.split(","),
        "location": LOCATIONS.split(","),
    }
    item = datasets["test"][0]
    assert item["label_encoded"].tolist() == [5, 5, 1]
    cost = hparams["compute_cost"](
        torch.zeros(1, 24), item["label_encoded"][None]
    )
    expected = torch.tensor([6.0, 14.0, 4.0]).log().sum()
    torch.testing.assert_close(cost, expected)


def test_superb_as_it_stands_is_the_published_protocol(root, tmp_path):
    text = (root / "hparams/intent_classification_superb.yaml").read_text()
    given = {"data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hyperpyyaml(text, {**given, "model": "tiny"})
    updates = hparams["draws_per_epoch"] / hparams["batch_size"]
    assert (updates, hparams["batch_size"]) == (5000, 32)
    assert updates * hparams["number_of_epochs"] == 200_000
    assert (hparams["max_grad_norm"], hparams["seed"]) == (1.0, 1337)
    head = hparams["head"]
    assert head.projector.out_features == 256
    assert head.classifier.out_features == 24
    optimizer = hparams["opt_class"](head.parameters())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-4
    assert hparams["protocol"] == "superb" and "augmentation" not in hparams
    # For features of 768 the head has 203 thousand parameters, with the mix
    size = 768 * 256 + 256 + 256 * 24 + 24 + 13
    assert size == pytest.approx(203_000, rel=1e-2)


@pytest.mark.real_data
def test_real_orders_run_through_the_recipe(root, data_folder, tmp_path):
    scores = run(
        root, "intent_classification", data_folder / "intent", tmp_path,
        "--slots=[coffeeDrink, roast, size]", "--num_classes=22",
        "--number_of_epochs=1", "--augmentation=null",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    assert len((tmp_path / "test_predict.csv").read_text().splitlines()) == 25
