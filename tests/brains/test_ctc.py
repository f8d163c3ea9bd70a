"""CTCBrain scores what it hears, and trains on what is valid only."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch

from unispeech_sb.brains import CTCBrain, SlotBrain
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.nnet.ctc import ctc_loss


def brain_for(tokenizer, brain_class=CTCBrain, **hparams):
    """A Brain without modules, at the start of a validation."""
    brain = brain_class(
        hparams={
            "tokenizer": tokenizer,
            "compute_cost": partial(ctc_loss, reduction="mean"),
            **hparams,
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


class Doubling(torch.nn.Module):
    """An augmentation that keeps the batch above its own copies."""

    def replicate_multiple_labels(self, *labels):
        return [torch.cat([label, label]) for label in labels]


def short_batch():
    """An utterance that fits in two frames, and one that needs three."""
    return PaddedBatch(
        [
            {"id": i, "text": t, "tokens": torch.tensor(tokens)}
            for i, t, tokens in (("fits", "ab", [2, 3]), ("long", "aa", [2, 2]))
        ]
    )


def test_utterances_too_short_for_their_text_are_named_once(caplog):
    brain = brain_for(CTCTokenizer.from_texts(["ab"]))
    brain.hparams.compute_cost = partial(ctc_loss, zero_infinity=True)
    predictions = torch.randn(2, 2, 4), torch.ones(2)
    for _ in range(2):
        brain.compute_objectives(predictions, short_batch(), Stage.TRAIN)
    named = [r.message for r in caplog.records if "too short" in r.message]
    assert len(named) == 1
    assert named[0].startswith("long is too short for its text: 2 frames")
    assert named[0].endswith("where 3 are needed")


def test_copies_that_an_augmentation_made_too_short_are_named(caplog):
    brain = brain_for(CTCTokenizer.from_texts(["ab"]))
    brain.hparams.compute_cost = partial(ctc_loss, zero_infinity=True)
    brain.hparams.augmentation = Doubling()
    lens = torch.tensor([1.0, 1.0, 1 / 3, 1.0])
    predictions = torch.randn(4, 3, 4), lens
    brain.compute_objectives(predictions, short_batch(), Stage.TRAIN)
    (named,) = [r.message for r in caplog.records if "too short" in r.message]
    assert named.startswith("fits is too short for its text: 1 frames")


class Oracle:
    """A searcher that finds one text, and notes what it was given."""

    def __init__(self, tokenizer, vocab_list):
        assert vocab_list == [*tokenizer.lab2ind]

    def __call__(self, log_probs, wav_lens):
        sums = log_probs.exp().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        hypothesis = SimpleNamespace(text="ab ba")
        return [[hypothesis] for _ in wav_lens]


def test_a_searcher_decodes_the_test_set_only():
    tokenizer = CTCTokenizer.from_texts(["ab ba"])
    brain = brain_for(tokenizer)
    brain.hparams.test_searcher, brain.hparams.beam_search = Oracle, True
    heard = frames_of(tokenizer, tokenizer.encode("b"))
    batch = SimpleNamespace(id=["x"], text=["ab ba"])
    rates = {}
    for stage in (Stage.VALID, Stage.TEST):
        brain.on_stage_start(stage)
        brain.score(heard, torch.ones(1), batch)
        rates[stage] = brain.stage_scores(stage)["WER"]
    assert rates == {Stage.VALID: 100.0, Stage.TEST: 0.0}


def test_endings_of_targets_are_not_scored():
    tokenizer = CTCTokenizer.superb_letters()
    brain = brain_for(tokenizer)
    heard = frames_of(tokenizer, tokenizer.targets("IT IS"))
    batch = SimpleNamespace(id=["x"], text=["IT IS"])
    brain.score(heard, torch.ones(1), batch)
    scores = brain.stage_scores(Stage.VALID)
    assert scores == {"WER": 0.0, "CER": 0.0, "blanks": 0.0}


def test_slots_are_scored_by_the_worked_example(tmp_path):
    truth = ["PLAY B-artist QUEEN E-artist AND B-artist ABBA E-artist", "STOP"]
    found = ["PLAY B-artist QUEN E-artist IN B-city ROME E-city", "STOP"]
    tokenizer = CTCTokenizer.from_slots(truth + found)
    brain = brain_for(tokenizer, SlotBrain)
    for name, reference, hypothesis in zip("ab", truth, found, strict=True):
        frames = [f for i in tokenizer.targets(hypothesis) for f in (i, 0)]
        batch = SimpleNamespace(id=[name], text=[reference])
        brain.score(frames_of(tokenizer, frames), torch.ones(1), batch)
    scores = brain.stage_scores(Stage.TEST)
    assert scores["slot_type_f1"] == pytest.approx(0.8333, abs=5e-5)
    assert scores["slot_value_cer"] == pytest.approx(0.5556, abs=5e-5)
    brain.scores = scores
    brain.write_report(tmp_path)
    texts = [(tmp_path / f"test-{n}.ark").read_text() for n in ("ref", "hyp")]
    assert texts == [f"a {t[0]}\nb {t[1]}\n" for t in (truth, found)]


def test_texts_without_a_slot_have_no_rate_of_values():
    tokenizer = CTCTokenizer.from_slots(["B-a X E-a"])
    brain = brain_for(tokenizer, SlotBrain)
    batch = SimpleNamespace(id=["a"], text=["X"])
    brain.score(
        frames_of(tokenizer, tokenizer.encode("X")), torch.ones(1), batch
    )
    scores = brain.stage_scores(Stage.VALID)
    assert scores["slot_type_f1"] == 1.0 and "slot_value_cer" not in scores


def test_the_highest_f1_of_slots_is_the_best():
    metas = [
        {"slot_type_f1": 0.5, "slot_value_cer": 0.1, "WER": 1.0, "loss": 0.1},
        {"slot_type_f1": 0.6, "slot_value_cer": 0.4, "WER": 9.0, "loss": 0.5},
        {"slot_type_f1": 0.6, "slot_value_cer": 0.3, "WER": 9.0, "loss": 0.9},
    ]
    checkpoints = [SimpleNamespace(meta=meta) for meta in metas]
    tokenizer = CTCTokenizer.from_slots(["B-a X E-a"])
    brain = brain_for(tokenizer, SlotBrain)
    assert max(checkpoints, key=brain.importance).meta == metas[2]
