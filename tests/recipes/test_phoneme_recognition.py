"""Phoneme recognition from recordings to a folder that SpeechBrain loads."""

import csv
import json

import pytest
import soundfile
import torch
from speechbrain.inference.ASR import EncoderASR

from recipes import phoneme_recognition
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.phones import LEXICON, PHONES, TEXTS, written
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, Voice, speak

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
    "--number_of_epochs=60",
    "--lr=0.003",
    "--warmup_updates=10",
    "--hold_updates=140",
    "--decay_updates=30",
]


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


@pytest.fixture(scope="module")
def trained(root, authors, tmp_path_factory):
    """The folder of a finished run on the authors' manifests; its scores."""
    output = tmp_path_factory.mktemp("trained")
    options = [f"--wav_root={authors / 'wavs'}", *OVERFIT]
    return output, phoneme_recognition.main(
        arguments(root, authors, output, *options)
    )


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


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


def test_a_mistake_is_one_line(
    root, corpus, authors, librispeech, tmp_path, capsys
):
    words = tmp_path / "words.txt"
    words.write_text(LEXICON.replace("SEVEN", "EIGHT"))
    mistakes = {
        ("nowhere",): "nowhere: expected a folder of the authors' manifests",
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
