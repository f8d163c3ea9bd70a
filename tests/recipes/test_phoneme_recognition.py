"""Phoneme recognition from recordings to a folder that SpeechBrain loads."""

import csv
import json
import re
import signal
import subprocess
import sys

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.ASR import EncoderASR

from recipes import phoneme_recognition
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak
from unispeech_sb.dataio.texts import text_datasets

TEXTS = ("yes no", "no seven", "go yes", "stop no", "seven go")
PHONES = ("j ɛ s n oː", "n oː s ɛ v n", "ɡ oː j ɛ s", "s t ɒ p n oː",
          "s ɛ v n ɡ oː")  # fmt: skip
LEXICON = """\
YES\tY EH1 S
NO\tN OW1
NO\tN OW0
SEVEN\tS EH1 V AH0 N
GO\tG OW1
STOP\tS T AA1 P
"""
SCRATCH = [
    "--model=tiny",
    "--freeze_feature_extractor=False",
    "--freeze_backbone_updates=0",
    "--spec_augment=False",
    "--layerdrop=0.0",
    "--dropout=0.0",
    "--max_batch_s=3.0",
    "--num_buckets=2",
    "--grad_accumulation_factor=1",
    "--max_grad_norm=5",
    "--noprogressbar",
    "--device=cpu",
]
OVERFIT = [
    "--model=small",
    "--number_of_epochs=40",
    "--lr=0.003",
    "--warmup_updates=10",
    "--hold_updates=80",
    "--decay_updates=30",
]
SUPERB = [
    "--subsets=[train-mini, dev-mini]",
    "--model=tiny",
    "--batch_size=3",
    "--batches_per_epoch=4",
    "--num_workers=0",
    "--noprogressbar",
    "--device=cpu",
]


@pytest.fixture(scope="module")
def waves():
    """The spoken texts."""
    voice = Voice(variant="m1", pitch=45)
    return [speak(text, voice).samples.numpy() for text in TEXTS]


@pytest.fixture(scope="module")
def corpus(waves, tmp_path_factory):
    """A folder with manifest.csv, whose validation set is in train."""
    folder = tmp_path_factory.mktemp("speech")
    rows = [("id", "path", "split", "wrd", "phones")]
    for number, wave in enumerate(waves):
        soundfile.write(folder / f"{number}.wav", wave, SAMPLE_RATE)
        rows += [
            (f"{split}_{number}", f"{number}.wav", split, TEXTS[number],
             PHONES[number])
            for split in ("train", "valid")
        ]  # fmt: skip
    with open(folder / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def authors(waves, tmp_path_factory):
    """The same, as the authors ship a language: phones as indices."""
    folder = tmp_path_factory.mktemp("ky")
    symbols = sorted(set(" ".join(PHONES).split()))
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    lines = [
        " ".join(str(vocabulary[phone]) for phone in phones.split())
        for phones in PHONES
    ]
    (folder / "wavs").mkdir()
    for stem in ("trainSeqs_1.0_x_16k", "valSeqs_1.0_x_16k"):
        rows = [f"{stem}_{number}.wav\t16000" for number in range(len(TEXTS))]
        for number, wave in enumerate(waves):
            path = folder / "wavs" / f"{stem}_{number}.wav"
            soundfile.write(path, wave, SAMPLE_RATE)
        (folder / f"{stem}.tsv").write_text("\n".join(["WAV_PATH", *rows]))
        (folder / f"{stem}.id").write_text(" \n".join(lines) + " \n")
    path = folder / "phonesMatches_reduced.json"
    path.write_text(json.dumps(vocabulary))
    return folder


@pytest.fixture(scope="module")
def librispeech(waves, tmp_path_factory):
    """The same as a LibriSpeech tree, and a lexicon beside it."""
    root = tmp_path_factory.mktemp("LibriSpeech")
    for subset, readers in (("train-mini", "19"), ("dev-mini", "26")):
        chapter = root / subset / readers / "1"
        chapter.mkdir(parents=True)
        lines = []
        for number, wave in enumerate(waves):
            name = f"{readers}-1-{number:04d}"
            soundfile.write(chapter / f"{name}.flac", wave, SAMPLE_RATE)
            lines.append(f"{name} {TEXTS[number].upper()}\n")
        (chapter / f"{readers}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text(LEXICON)
    return root


@pytest.fixture(scope="module")
def common_voice(waves, tmp_path_factory):
    """The same as a language of Common Voice."""
    root = tmp_path_factory.mktemp("en")
    (root / "clips").mkdir()
    for split in ("train", "dev", "test"):
        rows = ["client_id\tpath\tsentence"]
        for number, wave in enumerate(waves):
            name = f"common_voice_en_{split}{number}.mp3"
            soundfile.write(root / "clips" / name, wave, SAMPLE_RATE)
            rows.append(f"ann\t{name}\t“{TEXTS[number].title()}!”")
        (root / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return root


def arguments(root, data_folder, output, *options):
    """The command line of a small run."""
    return [
        str(root / "hparams/phoneme_recognition.yaml"),
        f"--data_folder={data_folder}",
        f"--output_folder={output}",
        *SCRATCH,
        *options,
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
def trained(root, authors, tmp_path_factory):
    """The folder of a finished run on the authors' manifests; its scores."""
    output = tmp_path_factory.mktemp("trained")
    options = [f"--wav_root={authors / 'wavs'}", *OVERFIT]
    return output, phoneme_recognition.main(
        arguments(root, authors, output, *options)
    )


def test_the_recipe_overfits_the_authors_manifests(trained):
    output, scores = trained
    assert set(scores) == {"loss", "PER", "blanks"}
    assert scores["PER"] == 0.0
    alignments = (output / "per.txt").read_text()
    assert alignments.startswith("%WER 0.00 [ 0 / 28, ")


def test_the_authors_blank_follows_their_symbols(trained):
    model = EncoderASR.from_hparams(source=str(trained[0] / "export"))
    tokenizer = model.tokenizer
    symbols = len(set(" ".join(PHONES).split()))
    assert tokenizer.blank_index == symbols
    assert len(tokenizer) == symbols + 4


def test_the_export_says_phones(trained, corpus):
    model = EncoderASR.from_hparams(source=str(trained[0] / "export"))
    waves = []
    for number, phones in enumerate(PHONES):
        path = str(corpus / f"{number}.wav")
        assert model.transcribe_file(path) == phones
        waves.append(torch.from_numpy(soundfile.read(path)[0]).float())
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    wav_lens = torch.tensor([len(w) for w in waves]) / batch.shape[1]
    assert model.transcribe_batch(batch, wav_lens)[0] == list(PHONES)


def written(output, split="train"):
    """ID -> phones of a manifest that a run has written."""
    with open(output / "manifests" / f"{split}.csv", newline="") as file:
        return {row["ID"]: row["phones"] for row in csv.DictReader(file)}


def test_a_table_with_phones_is_taken_as_it_is(root, corpus, tmp_path):
    phoneme_recognition.main(
        arguments(root, corpus, tmp_path, "--number_of_epochs=1")
    )
    assert list(written(tmp_path).values()) == list(PHONES)
    tokens = (tmp_path / "save" / "tokenizer.ckpt").read_text()
    assert "'oː' => " in tokens


def test_librispeech_gets_the_phones_of_a_table(root, librispeech, tmp_path):
    table = tmp_path / "phones.csv"
    rows = [f"{reader}-1-{number:04d},{PHONES[number]},"
            for reader in (19, 26) for number in range(4)]  # fmt: skip
    table.write_text("\n".join(["id,phones,oov", *rows, "19-1-0004,s,SEVEN"]))
    phoneme_recognition.main(
        arguments(
            root, librispeech, tmp_path, f"--phones_table={table}",
            "--number_of_epochs=1",
        )
    )  # fmt: skip
    assert list(written(tmp_path).values()) == list(PHONES[:4])


def test_common_voice_is_spoken_by_espeak(root, common_voice, tmp_path):
    scores = phoneme_recognition.main(
        arguments(
            root, common_voice, tmp_path, "--espeak=en",
            "--number_of_epochs=1",
        )
    )  # fmt: skip
    assert scores["PER"] > 0
    said = [speak(text, Voice("en")).phones for text in TEXTS]
    expected = [" ".join(phone.text for phone in row) for row in said]
    for split in ("train", "valid", "test"):
        assert list(written(tmp_path, split).values()) == expected


def test_a_trained_model_is_trained_on(
    root, authors, corpus, tmp_path, trained
):
    export = trained[0] / "export"
    scores = phoneme_recognition.main(
        arguments(
            root, authors, tmp_path, f"--wav_root={authors / 'wavs'}",
            f"--model={export}", f"--head_from={export}",
            "--number_of_epochs=1", "--lr=0.0",
        )
    )  # fmt: skip
    assert scores["PER"] == 0.0


def test_the_embedded_corpus_trains(root, tmp_path):
    scores = phoneme_recognition.main(
        arguments(
            root, tmp_path / "spoken", tmp_path / "out", "--synthetic=True",
            "--synthetic_sentences=[6, 2, 2]", "--max_batch_s=20.0",
            "--number_of_epochs=1",
        )
    )  # fmt: skip
    assert scores["PER"] > 0


def test_the_authors_settings_train(root, authors, tmp_path):
    phoneme_recognition.main(
        [
            str(root / "hparams/phoneme_recognition.yaml"),
            f"--data_folder={authors}", f"--wav_root={authors / 'wavs'}",
            f"--output_folder={tmp_path}", "--model=tiny", "--noprogressbar",
            "--device=cpu", "--optimizer_step_limit=2", "--max_batch_s=1.5",
            "--num_buckets=2", "--grad_accumulation_factor=2",
        ]
    )  # fmt: skip
    readme = (tmp_path / "export" / "README.md").read_text()
    assert "| optimizer updates | 2 |" in readme


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
    datasets = text_datasets(hparams)
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
    text_datasets(hparams)
    batches = hparams["train_dataloader_opts"]["batch_sampler"].batches
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


ATTEMPTS = """
import json, os, signal, sys
import torch
from recipes import phoneme_recognition
from speechbrain.utils import logger
from unispeech_sb.brains import CTCBrain

def die(brain, *_):
    if brain.optimizer_step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

logger.get_environment_description = str  # slow, and no part of it
torch.set_num_threads(1)
for killed, arguments in json.loads(sys.argv[1]):
    pid = os.fork()
    if not pid:
        if killed:
            CTCBrain.on_fit_batch_end = die
        phoneme_recognition.main(arguments)
        os._exit(0)
    print("status", os.waitpid(pid, 0)[1], flush=True)
"""


def test_a_killed_run_ends_with_the_same_weights(root, librispeech, tmp_path):
    whole, parts = (
        superb_arguments(
            root, librispeech, tmp_path / name, "--number_of_epochs=2",
            "--batches_per_epoch=8", "--ckpt_interval_steps=1",
        )
        for name in ("whole", "parts")
    )  # fmt: skip
    plans = [(False, whole), (True, parts), (False, parts)]
    printed = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, json.dumps(plans)],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    statuses = re.findall(r"^status (\d+)$", printed, re.M)
    assert [int(n) for n in statuses] == [0, signal.SIGKILL, 0]
    for name in ("backbone.ckpt", "head.ckpt", "tokenizer.ckpt"):
        exported = [
            (tmp_path / part / "export" / name).read_bytes()
            for part in ("whole", "parts")
        ]
        assert exported[0] == exported[1]


def test_a_mistake_is_one_line(
    root, corpus, authors, librispeech, tmp_path, capsys
):
    words = tmp_path / "words.txt"
    words.write_text(LEXICON.replace("SEVEN", "EIGHT"))
    mistakes = {
        ("nowhere",): "nowhere: expected a LibriSpeech folder",
        (corpus, "--text_column=phn"): f"{corpus}: expected a text in the col",
        (authors,): "trainSeqs_1.0_x_16k.tsv: expected wav_root, the folder",
        (
            authors,
            "--labels=sep",
            f"--wav_root={authors / 'wavs'}",
        ): "vocab_sep.json; t",
        (librispeech, f"--lexicon={words}"): "1 words of 4 recordings are in "
        "no lexicon: SEVEN",
        (librispeech,): "expected a text in the column 'phones' of ",
        (librispeech, "--espeak=xx"): "espeak-ng has no language 'xx'",
    }
    for number, (options, message) in enumerate(mistakes.items()):
        output = tmp_path / str(number)
        given = arguments(root, options[0], output, *options[1:])
        assert command_line(["recipe", "phoneme_recognition", *given]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


def test_words_without_phones_are_left_out_on_request(
    root, librispeech, tmp_path
):
    words = tmp_path / "words.txt"
    words.write_text(LEXICON.replace("STOP", "HALT"))
    phoneme_recognition.main(
        arguments(
            root, librispeech, tmp_path, f"--lexicon={words}",
            "--skip_bad_files=True", "--number_of_epochs=1",
        )
    )  # fmt: skip
    assert len(written(tmp_path)) == 4


@pytest.mark.real_data
def test_real_librispeech_runs_through_the_recipe(root, data_folder, tmp_path):
    corpus = data_folder / "LibriSpeech"
    scores = phoneme_recognition.main(
        arguments(
            root, corpus, tmp_path, "--number_of_epochs=1",
            f"--phones_table={corpus / 'manifest.csv'}", "--max_batch_s=60",
            "--max_duration_s=8", "--subsets=[train-mini, dev-mini]",
        )
    )  # fmt: skip
    assert set(scores) == {"loss", "PER", "blanks"}
    assert (tmp_path / "per.txt").read_text().count(", %WER ") > 0
    tokens = (tmp_path / "save" / "tokenizer.ckpt").read_text()
    assert "'AH' => " in tokens
