"""Speech recognition from recordings to a folder that SpeechBrain loads."""

import json
import shutil
import subprocess
import sys

import pytest
import soundfile
import torch
from speechbrain.inference.ASR import EncoderASR

from recipes import asr
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.speech import TEXTS, arguments, write_speech
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line

OVERFIT = [
    "--model=small",
    "--number_of_epochs=30",
    "--lr=0.003",
    "--warmup_updates=10",
    "--hold_updates=60",
    "--decay_updates=30",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv, whose validation set is in train."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    return output, asr.main(arguments(root, corpus, output, *OVERFIT))


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_recipe_overfits_what_it_has_heard(trained):
    output, scores = trained
    assert scores["WER"] == scores["CER"] == 0.0
    assert 0.0 <= scores["blanks"] < 1.0
    assert json.loads((output / "scores.json").read_text()) == scores


def test_the_run_leaves_alignments_and_logs_blanks(trained):
    output, _ = trained
    words = (output / "wer.txt").read_text()
    assert words.startswith("%WER 0.00 [ 0 / 10, 0 ins, 0 del, 0 sub ]")
    assert "valid_3, %WER 0.00 [ 0 / 2" in words
    assert (output / "cer.txt").read_text().startswith("%WER 0.00 [ 0 / ")
    assert "valid blanks: " in (output / "train_log.txt").read_text()


def test_the_export_transcribes_files_and_batches(trained, corpus):
    model = EncoderASR.from_hparams(source=str(trained[0] / "export"))
    waves = []
    for number, text in enumerate(TEXTS):
        path = str(corpus / f"{number}.wav")
        assert model.transcribe_file(path) == text
        waves.append(torch.from_numpy(soundfile.read(path)[0]).float())
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    wav_lens = torch.tensor([len(w) for w in waves]) / batch.shape[1]
    assert model.transcribe_batch(batch, wav_lens)[0] == list(TEXTS)


ELSEWHERE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from speechbrain.inference.ASR import EncoderASR
print(EncoderASR.from_hparams(source="moved").transcribe_file(sys.argv[1]))
"""


def test_the_moved_export_transcribes_offline(trained, corpus, tmp_path, root):
    shutil.copytree(trained[0] / "export", tmp_path / "moved")
    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(corpus / "1.wav")],
        cwd=tmp_path, env={"PYTHONPATH": str(root)}, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert found.strip().splitlines()[-1] == TEXTS[1]


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    root, corpus, tmp_path
):
    options = ["--lr=0.01", "--warmup_updates=0", "--augment_prob=0.5"]
    for name, epochs in (("whole", 4), ("parts", 2), ("parts", 4)):
        asr.main(
            arguments(
                root, corpus, tmp_path / name, *options,
                f"--number_of_epochs={epochs}",
            )
        )  # fmt: skip
    for name in ("backbone.ckpt", "head.ckpt", "tokenizer.ckpt"):
        whole, parts = (
            tmp_path / run / "export" / name for run in ("whole", "parts")
        )
        assert whole.read_bytes() == parts.read_bytes()


def test_a_run_that_goes_on_keeps_its_tokens(
    root, corpus, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    asr.main(arguments(root, corpus, output, "--number_of_epochs=1"))
    tokenizer = output / "save" / "tokenizer.ckpt"
    first = tokenizer.read_bytes()
    name = "unispeech_sb.convert.tokenizers.make_tokenizer"
    monkeypatch.setattr(name, lambda *args, **kwargs: pytest.fail("made anew"))
    asr.main(arguments(root, corpus, output, "--number_of_epochs=2"))
    assert tokenizer.read_bytes() == first


def test_a_model_starts_from_an_exported_one(trained, root, corpus, tmp_path):
    asr.main(
        arguments(
            root, corpus, tmp_path, "--number_of_epochs=1", "--lr=0.01",
            "--freeze_backbone_updates=100",
            f"--model={trained[0] / 'export'}",
        )
    )  # fmt: skip
    start, end = (
        read_tensors(folder / "export" / "backbone.ckpt")
        for folder in (trained[0], tmp_path)
    )
    for name, tensor in start.items():
        assert torch.equal(end[name], tensor)


def test_the_authors_masks_and_layerdrop_train(root, corpus, tmp_path):
    scores = asr.main(
        arguments(
            root, corpus, tmp_path, "--number_of_epochs=1",
            "--spec_augment=True", "--layerdrop=0.1", "--dropout=0.1",
            "--freeze_feature_extractor=True",
        )
    )  # fmt: skip
    assert scores["WER"] > 0.0


def write_fairseq(corpus, folder):
    """Tables of the corpus, with letters."""
    letters = [" ".join(text.replace(" ", "|")) + " |" for text in TEXTS]
    rows = [str(corpus)]
    for number, _ in enumerate(TEXTS):
        frames = soundfile.info(corpus / f"{number}.wav").frames
        rows.append(f"{number}.wav\t{frames}")
    for split in ("train", "valid"):
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"{split}.ltr").write_text("\n".join(letters) + "\n")
    (folder / "dict.ltr.txt").write_text("".join(f"{c} 1\n" for c in "|yesno"))


def write_kaldi(corpus, folder):
    """Kaldi folders of the corpus."""
    for split in ("train", "dev"):
        (folder / split).mkdir()
        names = [f"{split}-{number}" for number, _ in enumerate(TEXTS)]
        lists = {
            "wav.scp": [f"{corpus}/{number}.wav" for number in range(5)],
            "text": TEXTS,
            "utt2spk": ["ann"] * 5,
        }
        for name, values in lists.items():
            lines = [f"{n} {value}\n" for n, value in zip(names, values)]
            (folder / split / name).write_text("".join(lines))


@pytest.mark.parametrize("write", [write_fairseq, write_kaldi])
def test_lists_of_other_toolkits_train(write, root, corpus, tmp_path, capsys):
    folder = tmp_path / "lists"
    folder.mkdir()
    write(corpus, folder)
    output = tmp_path / "out"
    scores = asr.main(arguments(root, folder, output, "--number_of_epochs=1"))
    assert set(scores) == {"loss", "WER", "CER", "blanks"}
    assert (output / "wer.txt").read_text().count(", %WER ") == 5
    log = (output / "log.txt").read_text() + capsys.readouterr().err
    assert "5 recordings are in two splits" in log
    missing = "letters of the texts are not in" in log
    assert missing == (write is write_fairseq)


def test_phones_are_scored_by_their_error_rate(root, corpus, tmp_path):
    scores = asr.main(
        arguments(
            root, corpus, tmp_path, "--number_of_epochs=1",
            "--text_column=phones", '--separator=" "',
        )
    )  # fmt: skip
    assert set(scores) == {"loss", "PER", "blanks"}
    assert (tmp_path / "per.txt").read_text().startswith("%WER ")
    tokens = (tmp_path / "save" / "tokenizer.ckpt").read_text()
    assert "'oː' => " in tokens


def test_a_mistake_is_one_line(root, corpus, tmp_path, capsys):
    rows = (corpus / "manifest.csv").read_text().splitlines()
    rows = [row.replace(",", f",{corpus}/", 1) for row in rows[1:]]
    header = "id,path,split,wrd,phones\n"
    empty, long = tmp_path / "empty.csv", tmp_path / "long.csv"
    empty.write_text(header + "\n".join(rows).replace("stop no", ""))
    long.write_text(header + "\n".join(rows).replace("stop no", 40 * "stop "))
    mistakes = {
        "--data_folder=nowhere": "nowhere: expected LibriSpeech, a language",
        "--text_column=text": f"{corpus}: expected a text in the column 'text'",
        f"--data_folder={empty}": f"of {corpus / '3.wav'}, got none",
        f"--data_folder={long}": "2 recordings are too short for their texts: "
        f"{corpus / '3.wav'}",
        "--num_buckets=1": "expected num_buckets of at least 2",
        "--model=bass": "expected a preset (unispeech_large, ",
    }
    for number, (mistake, message) in enumerate(mistakes.items()):
        output = tmp_path / str(number)
        options = arguments(root, corpus, output, mistake)
        assert command_line(["recipe", "asr", *options]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


def test_utterances_too_short_for_their_text_are_left_out_on_request(
    root, corpus, tmp_path
):
    rows = (corpus / "manifest.csv").read_text().splitlines()
    rows = [row.replace(",", f",{corpus}/", 1) for row in rows[1:]]
    long = tmp_path / "long.csv"
    long.write_text(
        "id,path,split,wrd,phones\n"
        + "\n".join(rows).replace("stop no", 40 * "stop ")
    )
    asr.main(
        arguments(
            root, long, tmp_path / "out", "--skip_bad_files=True",
            "--number_of_epochs=1",
        )
    )  # fmt: skip
    train = (tmp_path / "out" / "manifests" / "train.csv").read_text()
    assert "train_2" in train
    assert "train_3" not in train


@pytest.mark.real_data
def test_librispeech_runs_through_the_recipe(root, data_folder, tmp_path):
    scores = asr.main(
        arguments(
            root, data_folder / "LibriSpeech", tmp_path, "--number_of_epochs=1",
            "--max_batch_s=60", "--max_duration_s=6",
            "--subsets=[train-mini, dev-mini]",
        )
    )  # fmt: skip
    assert set(scores) == {"loss", "WER", "CER", "blanks"}
    assert (tmp_path / "wer.txt").read_text().count(", %WER ") > 0


def test_the_embedded_corpus_trains(root, tmp_path):
    output = tmp_path / "out"
    scores = asr.main(
        arguments(
            root, tmp_path / "spoken", output, "--synthetic=True",
            "--synthetic_sentences=[6, 2, 2]", "--max_batch_s=20.0",
            "--number_of_epochs=1",
        )
    )  # fmt: skip
    assert scores["WER"] > 0
    assert (output / "export" / "tokenizer.ckpt").is_file()
