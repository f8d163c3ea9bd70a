"""Speech recognition with tokens other than the training texts' letters."""

import json
import shutil

import pytest
import torch
from speechbrain.inference.ASR import EncoderASR

from recipes import asr
from tests.recipes.speech import TEXTS, arguments, write_speech
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.dataio.labels import LabelEncoder

OVERFIT = [
    "--model=small",
    "--number_of_epochs=40",
    "--lr=0.003",
    "--warmup_updates=10",
    "--hold_updates=90",
    "--decay_updates=30",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def pieces(root, corpus, tmp_path_factory):
    """A finished run with pieces of words, and its scores."""
    output = tmp_path_factory.mktemp("pieces")
    options = [*OVERFIT, "--num_pieces=12", "--beam_search=True"]
    return output, asr.main(arguments(root, corpus, output, *options))


def test_pieces_of_words_are_learnt_and_their_export_transcribes(
    pieces, corpus
):
    output, scores = pieces
    assert scores["WER"] == 0.0
    tokens = LabelEncoder.read_labels(output / "export" / "tokenizer.ckpt")
    assert tokens[0] == "<pad>" and "▁no" in tokens
    model = EncoderASR.from_hparams(source=str(output / "export"))
    for number, text in enumerate(TEXTS):
        assert model.transcribe_file(str(corpus / f"{number}.wav")) == text


def test_the_readme_tells_how_the_scores_were_decoded(pieces):
    readme = (pieces[0] / "export" / "README.md").read_text()
    assert "| decoded | by search |" in readme


def test_a_run_goes_on_from_a_folders_head_and_tokens(
    pieces, root, corpus, tmp_path
):
    export, output = pieces[0] / "export", tmp_path / "out"
    head = shutil.copytree(export, tmp_path / "head")
    start = [f"--model={export}", f"--head_from={head}", "--lr=0"]
    scores = asr.main(
        arguments(root, corpus, output, *start, "--number_of_epochs=1")
    )
    assert scores["WER"] == 0.0
    for name in ("backbone.ckpt", "head.ckpt"):
        old, new = (
            read_tensors(folder / name)
            for folder in (export, output / "export")
        )
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    shutil.rmtree(head)  # going on, the run needs it no more
    asr.main(arguments(root, corpus, output, *start, "--number_of_epochs=2"))


def test_a_vocabulary_of_ones_own_is_taken_with_its_order(
    root, corpus, tmp_path
):
    path = tmp_path / "vocab.json"
    tokens = [*"YESNOVGTPA", "|", "<unk>", "<pad>"]
    tokens = list(dict.fromkeys(tokens))
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    options = [f"--vocabulary={path}", "--text_case=upper"]
    asr.main(
        arguments(
            root, corpus, tmp_path / "out", *options, "--number_of_epochs=1"
        )
    )
    export = tmp_path / "out" / "export"
    assert LabelEncoder.read_labels(export / "tokenizer.ckpt") == tokens
    yaml = (export / "hyperparams.yaml").read_text()
    assert f"blank_index: {len(tokens) - 1}\n" in yaml
    assert "STOP NO" in (tmp_path / "out" / "manifests/train.csv").read_text()


def test_symbols_without_a_token_are_named(root, corpus, tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("".join(f"{letter} 1\n" for letter in "|yesnovgt"))
    options = [f"--vocabulary={path}", "--number_of_epochs=1"]
    asr.main(arguments(root, corpus, tmp_path / "out", *options))
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "1 symbols of the texts have no token and count as <unk>: p" in log


MISTAKES = {
    "--num_pieces=500": "expected a number that 5 texts give, got 500",
    "--vocabulary=nowhere": "nowhere: expected a vocabulary",
    "--text_case=title": "text_case: expected upper, lower or null",
    "--head_from=nowhere": "nowhere/tokenizer.ckpt: expected labels",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, root, corpus, tmp_path):
    with pytest.raises(ValueError, match=MISTAKES[mistake]) as caught:
        asr.main(arguments(root, corpus, tmp_path, mistake))
    assert "\n" not in str(caught.value)


def test_a_trained_head_takes_no_other_tokens(pieces, root, corpus, tmp_path):
    start = f"--head_from={pieces[0] / 'export'}"
    for option in ("--num_pieces=9", "--vocabulary=a.json"):
        with pytest.raises(ValueError, match="has its own tokens"):
            asr.main(arguments(root, corpus, tmp_path, start, option))
    with pytest.raises(ValueError, match="head.ckpt.*misshapen|classifier"):
        asr.main(arguments(root, corpus, tmp_path, start))
