"""AAM-softmax: parity, hand-worked cases, and what training needs of it."""

import math

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from unispeech_sb.lobes.heads import AAMSoftmax, AMSoftmax
from unispeech_sb.lobes.heads.speaker import margin_ramp
from unispeech_sb.nnet.losses import aam_softmax_loss

PLAIN = {"top_k": 0, "sub_centers": 1}
LABELS = torch.tensor([0, 3, 1])


def gradients(objective, vectors, labels):
    """Loss, and its gradients for the weights and the vectors."""
    vectors = vectors.clone().requires_grad_()
    loss = objective(vectors, labels)
    return loss, *torch.autograd.grad(loss, [objective.weight, vectors])


@pytest.mark.parametrize(("scale", "margin"), [(30.0, 0.2), (64.0, 0.5)])
def test_loss_and_gradients_equal_speechbrains(scale, margin):
    objective = AAMSoftmax(6, 9, scale, margin, **PLAIN)
    vectors, labels = torch.randn(40, 6), torch.randint(9, (40,))
    reference = LogSoftmaxWrapper(AdditiveAngularMargin(margin, scale))

    def theirs(vectors, labels):
        cosines = F.normalize(vectors) @ F.normalize(objective.weight, dim=0)
        beyond = cosines[range(40), labels] < -math.cos(margin)
        assert beyond.any() or margin < 0.5  # both branches are compared
        return reference(cosines[:, None], labels[:, None])

    theirs.weight = objective.weight
    for ours, expected in zip(
        gradients(objective, vectors, labels),
        gradients(theirs, vectors, labels),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def degrees(*angles):
    """Unit vectors at angles, [2, len(angles)]."""
    angles = torch.tensor(angles).deg2rad()
    return torch.stack([angles.cos(), angles.sin()])


def test_margin_sub_centres_and_penalty_by_hand():
    # Four speakers with two vectors each; seen from 0 degrees they are 30,
    # 50, 80 and 100 degrees away, each by the nearer vector.
    objective = AAMSoftmax(
        2, 4, scale=8.0, margin=math.radians(10), sub_centers=2,
        top_k=2, top_k_margin=math.radians(5),
    )  # fmt: skip
    with torch.no_grad():
        objective.weight.copy_(degrees(30, 170, -160, -50, 80, 120, 180, 100))
    vectors = 3 * degrees(0.0).T
    cosines = torch.tensor([30.0, 50, 80, 100]).deg2rad().cos()
    torch.testing.assert_close(objective(vectors)[0], 8 * cosines)
    # Right is the second: 50 + 10; the two nearest others: 30 - 5, 80 - 5
    angles = torch.tensor([[25.0, 60, 75, 100]])
    expected = F.cross_entropy(8 * angles.deg2rad().cos(), torch.tensor([1]))
    loss = objective(vectors, torch.tensor([1]))
    torch.testing.assert_close(loss, expected)


def test_the_penalty_takes_all_others_where_there_are_few():
    cosines = torch.tensor([[0.5, 0.1, -0.3]])
    for top_k in (2, 5):
        loss = aam_softmax_loss(
            cosines, torch.tensor([2]), 4.0, 0.0, top_k, top_k_margin=0.3
        )
        angles = cosines.acos() - torch.tensor([[0.3, 0.3, 0.0]])
        expected = F.cross_entropy(4 * angles.cos(), torch.tensor([2]))
        torch.testing.assert_close(loss, expected)
    alone = aam_softmax_loss(torch.tensor([[0.5]]), torch.tensor([0]), top_k=5)
    assert alone == 0


def test_no_margin_leaves_the_cosines():
    objective = AAMSoftmax(6, 5, margin=0.0, top_k_margin=0.0, sub_centers=2)
    vectors = torch.randn(3, 6)
    expected = F.cross_entropy(objective(vectors), LABELS)
    torch.testing.assert_close(objective(vectors, LABELS), expected)


def test_a_loss_falls_with_the_right_angle_and_rises_with_the_wrong_ones():
    angles = torch.linspace(0, math.pi, 400)
    for right in (0, 1):  # the other speaker is at 90 degrees
        pair = torch.stack([angles.cos(), torch.zeros(400)], 1)
        losses = torch.stack(
            [
                aam_softmax_loss(
                    row[None], torch.tensor([right]), 8.0, 0.3, 1, 0.2
                )
                for row in pair
            ]
        )
        steps = losses.diff() if right == 0 else -losses.diff()
        assert (steps > 0).all()


def test_gradients_are_finite_at_every_angle():
    cosines = torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])
    cosines = cosines.requires_grad_()
    loss = aam_softmax_loss(
        cosines, torch.tensor([0, 0]), top_k=1, top_k_margin=0.1
    )
    loss.backward()
    assert cosines.grad.isfinite().all()
    assert cosines.grad[1, 0] < 0  # towards the right speaker all the same


def test_margins_set_in_by_their_share():
    options = {"sub_centers": 2, "top_k": 2}
    objective = AAMSoftmax(6, 5, margin=0.4, top_k_margin=0.2, **options)
    halved = AAMSoftmax(6, 5, margin=0.2, top_k_margin=0.1, **options)
    halved.load_state_dict(objective.state_dict())
    vectors = torch.randn(3, 6)
    whole = objective(vectors, LABELS)
    objective.margin_share = 0.5
    half = objective(vectors, LABELS)
    torch.testing.assert_close(half, halved(vectors, LABELS))
    objective.margin_share = 0.0
    none = objective(vectors, LABELS)
    torch.testing.assert_close(
        none, F.cross_entropy(objective(vectors), LABELS)
    )
    assert none < half < whole


def test_the_margins_rise_between_two_epochs():
    assert [margin_ramp(e, 2, 4) for e in (0, 2, 2.5, 4, 9)] == [
        0.0, 0.0, 0.25, 1.0, 1.0,
    ]  # fmt: skip
    assert [margin_ramp(e) for e in (0, 1.99, 2, 3)] == [0.0, 0.0, 1.0, 1.0]
    assert margin_ramp(0, 0, 0) == 1.0
    with pytest.raises(ValueError, match="start <= stop; got 3 and 2"):
        margin_ramp(0, 3, 2)


def test_scores_and_loss_are_float32_under_autocast():
    objective, vectors = AAMSoftmax(6, 5, sub_centers=3), torch.randn(3, 6)
    scores, loss = objective(vectors), objective(vectors, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(objective(vectors), scores)
        torch.testing.assert_close(objective(vectors, LABELS), loss)
    assert objective.bfloat16()(vectors.bfloat16()).dtype == torch.float32


def test_a_file_holds_one_tensor_that_am_softmax_can_go_on_with(tmp_path):
    objective, vectors = AAMSoftmax(6, 5, scale=30.0), torch.randn(3, 6)
    objective.save(tmp_path / "objective.ckpt")
    other = AMSoftmax(6, 5, scale=30.0)
    other.load(tmp_path / "objective.ckpt")
    torch.testing.assert_close(other(vectors), objective(vectors))
    with pytest.raises(ValueError, match="weight"):
        AAMSoftmax(6, 5, sub_centers=3).load(tmp_path / "objective.ckpt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_centers": 0}, "got 0 and 5"),
        ({"top_k": -1}, "got 1 and -1"),
        ({"margin": 1.6}, "got 1.6 and 0.1"),
        ({"top_k_margin": -0.1}, "got 0.2 and -0.1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AAMSoftmax(6, 5, **options)


@pytest.fixture
def process_group():
    """A distributed run of one process."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_distributed_steps_use_every_parameter(process_group):
    objective = AAMSoftmax(6, 5, sub_centers=3, top_k=2)
    vectors = torch.randn(3, 6)
    _, expected, _ = gradients(objective, vectors, LABELS)
    wrapped = DistributedDataParallel(objective)
    for _ in range(2):  # the second fails if a parameter went unused
        objective.zero_grad()
        wrapped(vectors, LABELS).backward()
        torch.testing.assert_close(objective.weight.grad, expected)
    objective.margin_share = 0.0  # training sets it on the wrapped module
    expected = F.cross_entropy(objective(vectors), LABELS)
    torch.testing.assert_close(wrapped(vectors, LABELS), expected)
    del wrapped
