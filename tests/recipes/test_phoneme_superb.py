"""SUPERB's phoneme recognition: windows, updates, a killed run."""

import re

import pytest
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.ASR import EncoderASR

from recipes import phoneme_recognition
from tests.recipes.phones import written
from tests.recipes.processes import assert_same, run_killed

SUPERB = [
    "--subsets=[train-mini, dev-mini]",
    "--model=tiny",
    "--batch_size=3",
    "--batches_per_epoch=4",
    "--num_workers=0",
    "--noprogressbar",
    "--device=cpu",
]


def superb_arguments(root, librispeech, output, *options):
    """The command line of a small run by SUPERB's rules."""
    return [
        str(root / "hparams/phoneme_recognition_superb.yaml"),
        f"--data_folder={librispeech}",
        f"--lexicon={librispeech / 'lexicon.txt'}",
        f"--output_folder={output}",
        *SUPERB,
        *options,
    ]


@pytest.fixture(scope="module")
def superb(root, librispeech, tmp_path_factory):
    """A finished run by SUPERB's rules, its backbone trained too."""
    output = tmp_path_factory.mktemp("superb")
    return output, phoneme_recognition.main(
        superb_arguments(
            root, librispeech, output, "--model=small", "--freeze=False",
            "--number_of_epochs=12", "--lr=0.003", "--batches_per_epoch=10",
        )
    )  # fmt: skip


def test_superb_learns_arpabet_with_stress(superb, librispeech):
    output, scores = superb
    assert scores["PER"] == 0.0
    assert written(output)["19-1-0001"] == "N OW1 S EH1 V AH0 N"
    model = EncoderASR.from_hparams(source=str(output / "export"))
    path = librispeech / "dev-mini" / "26" / "1" / "26-1-0001.flac"
    assert model.transcribe_file(str(path)) == "N OW1 S EH1 V AH0 N"


def test_superb_makes_an_update_of_two_batches(superb):
    readme = (superb[0] / "export" / "README.md").read_text()
    epoch, updates = (
        int(re.search(rf"\| {name} \| (\d+) \|", readme)[1])
        for name in ("best epoch", "optimizer updates")
    )
    assert updates == 5 * epoch > 0


def superb_hparams(root, librispeech, output, **overrides):
    """The yaml as a run sees it after its preparation."""
    text = (root / "hparams/phoneme_recognition_superb.yaml").read_text()
    hparams = load_hyperpyyaml(
        text,
        {
            "data_folder": str(librispeech),
            "lexicon": [str(librispeech / "lexicon.txt")],
            "output_folder": str(output),
            "subsets": ["train-mini", "dev-mini"],
            "model": "tiny",
            **overrides,
        },
    )
    phoneme_recognition.prepare(hparams)
    return hparams


def test_superb_trains_on_windows_of_neighbours(root, librispeech, tmp_path):
    hparams = superb_hparams(
        root, librispeech, tmp_path, batch_size=3, batches_per_epoch=10
    )
    datasets = phoneme_recognition.dataio_prep(hparams)
    items = {item["id"]: len(item["tokens"]) for item in datasets["train"]}
    assert sorted(items.values()) == [6, 6, 7, 8, 8]  # <eos> is one of them
    ids = list(items)
    sampler = hparams["train_dataloader_opts"]["batch_sampler"]
    lengths = [[items[ids[i]] for i in batch] for batch in sampler]
    assert len(lengths) == 10
    assert sorted(lengths) == sorted(
        2 * [[8, 8, 7], [8, 7, 6], [7, 6, 6], [7, 6, 6], [7, 6, 6]]
    )
    for batch in hparams["valid_dataloader_opts"]["batch_sampler"]:
        assert len(batch) == 1


def test_superb_halves_batches_with_a_long_utterance(
    root, librispeech, tmp_path
):
    hparams = superb_hparams(
        root, librispeech, tmp_path, batch_size=4, halve_over_s=0.1
    )
    phoneme_recognition.dataio_prep(hparams)
    batches = hparams["train_dataloader_opts"]["batch_sampler"].items
    assert {len(batch) for batch in batches} == {2}


def test_superb_as_it_stands_is_the_published_protocol(root, tmp_path):
    text = (root / "hparams/phoneme_recognition_superb.yaml").read_text()
    hparams = load_hyperpyyaml(
        text,
        {"data_folder": "data", "lexicon": "lexicon", "model": "tiny",
         "output_folder": str(tmp_path)},
    )  # fmt: skip
    updates = hparams["batches_per_epoch"] / hparams["grad_accumulation_factor"]
    assert updates == 1000
    assert updates * hparams["number_of_epochs"] == 100_000
    assert hparams["batch_size"] * hparams["grad_accumulation_factor"] == 32
    assert hparams["halve_over_s"] * hparams["sample_rate"] == 300_000
    head = hparams["head"](num_classes=len(hparams["make_tokenizer"]([])))
    assert head.projector.out_features == head.classifier.in_features == 256
    assert head.classifier.out_features == 74
    assert not any(p.requires_grad for p in hparams["backbone"].parameters())


def test_a_killed_run_ends_with_the_same_weights(root, librispeech, tmp_path):
    arguments = superb_arguments(
        root, librispeech, tmp_path, "--number_of_epochs=2",
        "--batches_per_epoch=8", "--ckpt_interval_steps=1",
    )  # fmt: skip
    assert_same(
        run_killed("phoneme_recognition", arguments, 7),
        *(f"export/{name}.ckpt" for name in ("backbone", "head", "tokenizer")),
    )
