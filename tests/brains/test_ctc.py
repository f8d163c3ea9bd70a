"""CTCBrain scores what it hears, and trains on what is valid only."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.nnet.ctc import ctc_loss


def brain_for(tokenizer):
    """A Brain without modules, at the start of a validation."""
    brain = CTCBrain(
        hparams={
            "tokenizer": tokenizer,
            "compute_cost": partial(ctc_loss, reduction="mean"),
        },
        run_opts={"device": "cpu"},
    )
    brain.on_stage_start(Stage.VALID)
    return brain


def frames_of(tokenizer, indices):
    """Logits, [1, T, V], that say these indices."""
    return 9.0 * torch.eye(len(tokenizer))[indices][None]


def test_words_and_letters_are_counted_apart():
    tokenizer = CTCTokenizer.from_texts(["ab ba"])
    brain = brain_for(tokenizer)
    heard = frames_of(tokenizer, tokenizer.encode("ab b"))
    batch = SimpleNamespace(id=["x"], text=["ab ba"])
    brain.score(heard, torch.ones(1), batch)
    scores = brain.stage_scores(Stage.VALID)
    assert scores == {"WER": 50.0, "CER": 20.0, "blanks": 0.0}


def test_phones_have_one_rate():
    tokenizer = CTCTokenizer.from_texts(["aɪ n oː"], separator=" ")
    brain = brain_for(tokenizer)
    heard = frames_of(tokenizer, tokenizer.encode("aɪ oː"))
    batch = SimpleNamespace(id=["x"], text=["aɪ n oː"])
    brain.score(heard, torch.ones(1), batch)
    scores = brain.stage_scores(Stage.VALID)
    assert scores["PER"] == pytest.approx(100 / 3)
    assert set(scores) == {"PER", "blanks"}


def test_blanks_are_counted_in_valid_frames_only():
    tokenizer = CTCTokenizer.from_texts(["ab"])
    brain = brain_for(tokenizer)
    a, blank = tokenizer.encode("a")[0], tokenizer.blank_index
    logits = torch.cat(
        [
            frames_of(tokenizer, [a, blank, a, a]),
            frames_of(tokenizer, [a, blank, blank, blank]),
        ]
    )
    batch = SimpleNamespace(id=["x", "y"], text=["aa", "a"])
    brain.score(logits, torch.tensor([1.0, 0.5]), batch)
    scores = brain.stage_scores(Stage.VALID)
    assert scores["blanks"] == pytest.approx(2 / 6)
    assert scores["WER"] == 0.0


def test_the_loss_passes_over_padding():
    tokenizer = CTCTokenizer.from_texts(["ab"])
    brain = brain_for(tokenizer)
    texts = {"x": "abab", "y": "b"}
    batch = PaddedBatch(
        [
            {"id": i, "text": t, "tokens": torch.tensor(tokenizer.encode(t))}
            for i, t in texts.items()
        ]
    )
    logits = torch.randn(2, 8, len(tokenizer))
    lens = torch.tensor([1.0, 0.5])
    loss = brain.compute_objectives((logits, lens), batch, Stage.VALID)
    alone = [
        ctc_loss(
            logits[row : row + 1, :frames],
            torch.tensor([tokenizer.encode(text)]),
            torch.tensor([frames]),
            blank=tokenizer.blank_index,
        )
        for row, (frames, text) in enumerate(
            zip((8, 4), texts.values(), strict=True)
        )
    ]
    torch.testing.assert_close(loss, sum(alone) / 2)


def test_the_lowest_error_rate_is_the_best():
    brain = brain_for(CTCTokenizer.from_texts(["ab"]))
    metas = [
        {"WER": 10.0, "CER": 3.0, "loss": 0.1},
        {"WER": 9.0, "CER": 4.0, "loss": 0.5},
        {"WER": 9.0, "CER": 4.0, "loss": 0.4},
    ]
    checkpoints = [SimpleNamespace(meta=meta) for meta in metas]
    assert max(checkpoints, key=brain.importance).meta == metas[2]
