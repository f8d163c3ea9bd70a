"""DiarizationBrain learns without an order, decides, scores and reports."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpointer

from unispeech_sb.brains import DiarizationBrain
from unispeech_sb.brains.diarization import (
    Chunk,
    chunk_segments,
    clip_uem,
    compare_configs,
    join_chunks,
    score_chunks,
    sum_error_times,
)
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.lobes.heads import EENDVCHead
from unispeech_sb.nnet.binarize import BinarizeConfig
from unispeech_sb.nnet.eend import speaker_loss, speaker_means
from unispeech_sb.nnet.permutation import pit_loss

ANN, BOB = [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]
CONFIG = BinarizeConfig(frame_s=0.5)
REFERENCE = [(0.0, 1.0, "ann"), (1.0, 2.0, "bob")]


def brain_for(protocol="clean", checkpointer=None, **hparams):
    """A Brain at the start of a validation; a frame is half a second."""
    references = {"talk": REFERENCE, "silence": []}
    brain = DiarizationBrain(
        hparams={
            "protocol": protocol,
            "compute_cost": pit_loss,
            "frame_s": 0.5,
            "min_speech_s": 0.0,
            "min_pause_s": 0.0,
            "thresholds": [0.3, 0.5],
            "median_filters": [1, 3],
            "references": {Stage.VALID: references, Stage.TEST: references},
            "train_logger": None,
            **hparams,
        },
        run_opts={"device": "cpu"},
        checkpointer=checkpointer,
    )
    brain.on_stage_start(Stage.VALID, 1)
    return brain


def item(*speakers, name="talk", recording=None, start_s=0.0, labels=(-1, -1)):
    """An item whose speakers are active as the lists say."""
    return {
        "id": name,
        "activity": torch.tensor(speakers).T.contiguous(),
        "recording": recording or name,
        "start_s": start_s,
        "speaker_labels": torch.tensor(labels),
    }


def logits_of(*speakers, sure=4.0):
    """What a head says of active (1) and silent (0) speakers."""
    return sure * (2 * torch.tensor(speakers).T[None] - 1)


def validate(brain, logits, *items, stage=Stage.VALID, vectors=None):
    """Passes a batch through the Brain; the loss."""
    batch = PaddedBatch([dict(entry) for entry in items])
    return brain.compute_objectives((logits, vectors), batch, stage)


def test_the_loss_has_no_order_of_speakers():
    brain = brain_for()
    logits = torch.randn(1, 4, 2)
    losses = [
        validate(brain, logits, item(*speakers), stage=Stage.TRAIN)
        for speakers in ((ANN, BOB), (BOB, ANN))
    ]
    assert losses[0] == losses[1]
    assert not brain.chunks


def test_embeddings_are_learnt_beside_activities():
    head = EENDVCHead(
        8, 2, num_speakers=2, num_known_speakers=5, model_size=8,
        num_layers=1, num_heads=2, speaker_size=4,
    )  # fmt: skip
    brain = brain_for(head=head, speaker_loss_weight=0.3)
    logits, vectors = logits_of(BOB, ANN), torch.randn(1, 4, 2, 4)
    entry = item(ANN, BOB, labels=(3, 1))
    loss = validate(brain, logits, entry, stage=Stage.TRAIN, vectors=vectors)
    pit, order = pit_loss(logits, entry["activity"][None])
    assert order.tolist() == [[1, 0]]
    embeddings = speaker_loss(
        speaker_means(logits, vectors), torch.tensor([[1, 3]]),
        head.embed.weight, head.alpha, head.beta,
    )  # fmt: skip
    torch.testing.assert_close(loss, pit + 0.3 * embeddings)


def test_chunks_are_kept_without_padding_and_where_they_begin():
    brain = brain_for()
    logits = torch.cat([logits_of(BOB, ANN)] * 2)
    short = item(
        ANN[:2], BOB[:2], name="talk_00001", recording="talk", start_s=1.0
    )
    validate(brain, logits, item(ANN, BOB), short)
    whole, part = brain.chunks
    assert whole.activities.shape == (4, 2) and part.activities.shape == (2, 2)
    torch.testing.assert_close(
        torch.from_numpy(whole.activities), logits[0].sigmoid()
    )
    assert (whole.uem, part.uem) == ([(0.0, 2.0)], [(1.0, 2.0)])
    assert (part.recording, part.start_s) == ("talk", 1.0)
    assert part.reference == REFERENCE


def test_only_what_is_to_be_scored_is_scored():
    uems = {Stage.VALID: {"talk": [(0.5, 9.0)]}}
    brain = brain_for(uems=uems)
    validate(brain, logits_of(BOB, ANN), item(ANN, BOB))
    assert brain.chunks[0].uem == [(0.5, 2.0)]


def test_accuracy_is_the_share_of_right_frames_of_all_speakers():
    brain = brain_for()
    found = logits_of([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    validate(brain, found, item(BOB, ANN))
    assert brain.accuracies == [7 / 8]


@pytest.mark.parametrize(("protocol", "right"), [("clean", 1), ("superb", 0)])
def test_superb_takes_a_chunk_without_speech_for_wrong(protocol, right):
    brain, nobody = brain_for(protocol), [0.0] * 4
    silence = item(nobody, nobody, name="silence")
    validate(brain, logits_of(nobody, nobody), silence)
    assert brain.accuracies == [right]


def test_a_validation_chooses_the_decision_that_the_test_takes():
    brain = brain_for()
    unsure = torch.tensor([[[-0.5, -2.0]] * 2 + [[-2.0, -0.5]] * 2])
    validate(brain, unsure, item(ANN, BOB))
    brain.choose_binarization(Stage.VALID)
    assert brain.binarize_config == chosen(0.3, 1)
    assert brain.stage_scores(Stage.VALID)["DER"] == 0.0
    brain.on_stage_start(Stage.TEST)
    validate(brain, logits_of(ANN, BOB), item(ANN, BOB), stage=Stage.TEST)
    brain.choose_binarization(Stage.TEST)
    assert brain.binarize_config == chosen(0.3, 1) and not brain.comparison
    scores = brain.stage_scores(Stage.TEST)
    assert scores["DER"] == scores["JER"] == scores["speakers off"] == 0.0
    assert (scores["threshold"], scores["median_filter"]) == (0.3, 1)


def test_superb_joins_chunks_and_takes_the_best_decision_on_the_test():
    brain = brain_for("superb")
    unsure = torch.tensor([[[-0.5, -2.0]] * 2, [[-2.0, -0.5]] * 2])
    first = item(ANN[:2], BOB[:2], name="talk_0", recording="talk")
    second = item(
        ANN[2:], BOB[2:], name="talk_1", recording="talk", start_s=1.0
    )
    validate(brain, unsure, first, second)
    brain.choose_binarization(Stage.VALID)
    assert brain.binarize_config == CONFIG
    assert brain.stage_scores(Stage.VALID)["miss"] == 100.0
    brain.on_stage_start(Stage.TEST)
    validate(brain, unsure, first, second, stage=Stage.TEST)
    brain.choose_binarization(Stage.TEST)
    assert [chunk.name for chunk in brain.chunks] == ["talk"]
    scores = brain.stage_scores(Stage.TEST)
    assert brain.binarize_config == chosen(0.3, 1) and scores["DER"] == 0.0
    listed = {n: s for n, s in scores.items() if n.startswith("DER at")}
    assert len(listed) == 4 and min(listed.values()) == 0.0
    assert listed["DER at 0.5, median 1"] == 100.0


def test_features_are_fitted_to_the_labels():
    class Backbone(torch.nn.Module):
        def forward(self, wavs, wav_lens):
            return torch.arange(3.0)[None, None, :, None].expand(2, 2, 3, 1)

        def frame_lens(self, num_samples, wav_lens):
            return torch.tensor([1.0, 2 / 3])

    seen = []

    class Head(torch.nn.Module):
        def forward(self, feats, lengths):
            seen.append((feats, lengths))
            return feats[0].expand(-1, -1, 2)

    backbone = Backbone()
    brain = brain_for(backbone=backbone)
    brain.modules = torch.nn.ModuleDict({"backbone": backbone, "head": Head()})
    rows = [item(ANN, BOB), item(ANN[:3], BOB[:3])]
    batch = PaddedBatch([{**row, "sig": torch.zeros(9)} for row in rows])
    logits, vectors = brain.compute_forward(batch, Stage.VALID)
    feats, lengths = seen[0]
    assert feats.shape == (2, 2, 4, 1) and vectors is None
    assert feats[0, :, :, 0].tolist() == [[0, 1, 2, 2], [0, 1, 1, 1]]
    assert lengths.tolist() == [1.0, 0.75]
    assert logits.shape == (2, 4, 2)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_model_that_is_silent_or_talks_always_is_scored(level):
    brain = brain_for()
    always = [level] * 4
    validate(brain, logits_of(always, always), item(ANN, BOB))
    brain.choose_binarization(Stage.VALID)
    scores = brain.stage_scores(Stage.VALID)
    assert scores["DER"] == 100.0
    assert scores["false alarm" if level else "miss"] == 100.0


def test_a_recording_without_a_reference_is_named():
    with pytest.raises(ValueError, match="other: .* of the recording 'other'"):
        validate(brain_for(), logits_of(ANN, BOB), item(ANN, BOB, name="other"))


@pytest.mark.parametrize(
    ("protocol", "better", "worse"),
    [
        ("clean", {"DER": 9.0, "accuracy": 0.1}, {"DER": 10.0, "accuracy": 1}),
        ("superb", {"DER": 9.0, "accuracy": 0.9}, {"DER": 1, "accuracy": 0.8}),
        ("clean", {"DER": 9.0}, {"DER": float("inf")}),
    ],
)
def test_each_protocol_has_its_best_checkpoint(protocol, better, worse):
    brain = brain_for(protocol)
    ranks = [
        brain.importance(SimpleNamespace(meta={"loss": 0.5, **scores}))
        for scores in (better, worse)
    ]
    assert ranks[0] > ranks[1]


def test_the_decision_comes_back_with_its_checkpoint(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    brain = brain_for(checkpointer=checkpointer)
    brain.binarize_config = chosen(0.25, 11)
    checkpointer.save_checkpoint()
    brain.binarize_config = CONFIG
    checkpointer.recover_if_possible()
    assert brain.binarize_config == chosen(0.25, 11)


def test_the_report_has_segments_and_activities_with_their_frames(tmp_path):
    brain = brain_for(output_folder=tmp_path)
    validate(brain, logits_of(BOB, ANN), item(ANN, BOB))
    brain.chunks.append(
        Chunk("quiet", "silence", 4.0, np.zeros((3, 2), np.float32), [], None)
    )
    brain.scores = {"DER": 0.0}
    brain.write_report(tmp_path)
    found = read_rttm(tmp_path / "hypotheses.rttm")
    assert [tuple(segment) for segment in found["talk"]] == [
        (0.0, 1.0, "talk_1"),
        (1.0, 2.0, "talk_0"),
    ]
    assert "silence" not in found
    path = tmp_path / "activities.safetensors"
    with safe_open(path, "pt") as stream:
        notes = stream.metadata()
        activities = stream.get_tensor("talk").numpy()
    assert json.loads(notes["frame_s"]) == 0.5
    places = json.loads(notes["pieces"])
    assert places == {"talk": ["talk", 0.0], "quiet": ["silence", 4.0]}
    assert np.array_equal(activities, brain.chunks[0].activities)


TALK = [(0.0, 2.0, "ann"), (2.0, 4.0, "bob")]


def chunk(*columns, reference=TALK, uem=None, **fields):
    """A chunk whose frames are half a second."""
    activities = np.array(columns, float).T
    named = {"name": "a", "recording": "a", "start_s": 0.0, **fields}
    return Chunk(activities=activities, reference=reference, uem=uem, **named)


def chosen(threshold, median_filter):
    """A config of that threshold and filter."""
    return BinarizeConfig(threshold, median_filter, frame_s=0.5)


RIGHT = chunk([0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0])


def test_the_order_of_the_speakers_does_not_matter():
    times = sum_error_times([RIGHT], CONFIG)
    assert times.rate == 0.0 and times.total_s == 4.0


def test_segments_are_at_the_chunk_s_place_and_bear_its_name():
    later = RIGHT._replace(start_s=10.0, name="a_00001")
    assert chunk_segments(later, CONFIG) == [
        (10.0, 12.0, "a_00001_1"),
        (12.0, 14.0, "a_00001_0"),
    ]


def test_only_the_scored_stretch_counts():
    half = chunk([1, 1, 1, 1], [0, 0, 0, 0], uem=[(0.0, 2.0)])
    assert sum_error_times([half], CONFIG).rate == 0.0
    whole = half._replace(uem=None)
    assert sum_error_times([whole], CONFIG).miss_s == 2.0


@pytest.mark.parametrize(
    ("uem", "wanted"),
    [
        (None, [(3.0, 6.0)]),
        ([(0.0, 4.0), (5.0, 9.0)], [(3.0, 4.0), (5.0, 6.0)]),
        ([(0.0, 3.0), (6.0, 9.0)], []),
    ],
)
def test_a_stretch_is_scored_where_its_recording_is(uem, wanted):
    assert clip_uem(uem, 3.0, 6.0) == wanted


def test_chunks_are_joined_by_recording_and_time():
    parts = [
        RIGHT._replace(name=f"{recording}_{start}", recording=recording,
                       start_s=float(start), activities=np.full((1, 2), start))
        for recording, start in (("b", 1), ("a", 40), ("a", 0), ("a", 120))
    ]  # fmt: skip
    found = join_chunks(parts)
    assert [(p.name, p.start_s) for p in found] == [("a", 0.0), ("b", 1.0)]
    assert found[0].activities[:, 0].tolist() == [0, 40, 120]


def test_the_config_with_the_least_error_comes_first():
    noisy = chunk(
        [0.35] * 3 + [0.1] + [0.35] * 4,  # a gap that a median filter closes
        [0.15] * 8,
        reference=[(0.0, 4.0, "ann")],
    )
    errors = compare_configs([noisy], [0.1, 0.3, 0.5], [1, 3], CONFIG)
    assert len(errors) == 6
    best = next(iter(errors))
    assert best == chosen(0.3, 3) and errors[best].rate == 0.0
    rates = [times.rate for times in errors.values()]
    assert rates == sorted(rates)


def test_of_equal_configs_the_plainest_is_taken():
    errors = compare_configs([RIGHT], [0.1, 0.9, 0.6], [3, 1], CONFIG)
    assert next(iter(errors)) == chosen(0.6, 1)


def test_scores_are_shares_of_the_reference_speech():
    one = chunk([1] * 8, reference=TALK)
    scores = score_chunks([one, RIGHT], CONFIG, thorough=True)
    assert scores == pytest.approx(
        {
            "DER": 25.0, "miss": 0.0, "false alarm": 0.0, "confusion": 25.0,
            "JER": 100 * (0.5 + 1.0) / 4, "speakers off": 0.5,
        }
    )  # fmt: skip


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silent_references_and_silent_hypotheses_are_scored(level):
    silent = chunk([level] * 4, reference=[])
    scores = score_chunks([silent], CONFIG, thorough=True)
    assert scores["DER"] == (0.0 if level == 0.0 else np.inf)
    missed = chunk([0] * 4)
    assert score_chunks([missed], CONFIG)["miss"] == 100.0


def test_a_damaged_decision_of_a_checkpoint_is_named(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    brain_for(checkpointer=checkpointer)
    path = checkpointer.save_checkpoint().path / "decision.ckpt"
    assert json.loads(path.read_text()) == {
        "threshold": 0.5,
        "median_filter": 1,
    }
    for text in ("", "[]", '{"threshold": "x"}', '{"threshold": 0.5}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="decision.ckpt: expected a thre"):
            checkpointer.recover_if_possible()
