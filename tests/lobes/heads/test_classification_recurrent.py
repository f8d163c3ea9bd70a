"""SUPERB's frame heads against torch's LSTM and the published sizes."""

import pytest
import torch

from unispeech_sb.checkpoints.files import load_strict, read_tensors
from unispeech_sb.lobes.heads import ProjectedFrameHead, RecurrentHead
from unispeech_sb.lobes.lobe import without_weights
from unispeech_sb.nnet.masking import SpecAugment

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
BUILDERS = {
    "recurrent": lambda **options: RecurrentHead(8, 4, 6, 5, **options),
    "projected": lambda **options: ProjectedFrameHead(8, 4, 6, **options),
}
each_head = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@pytest.mark.parametrize(
    ("head", "size", "num_classes", "millions"),
    [
        (RecurrentHead, 768, 32, "42.83"),
        (RecurrentHead, 1024, 32, "43.09"),
        (ProjectedFrameHead, 768, 74, "0.216"),
        (ProjectedFrameHead, 1024, 74, "0.281"),
    ],
)
def test_default_sizes_are_those_of_superb(head, size, num_classes, millions):
    with torch.device("meta"):
        head = head(size, num_classes)
    count = sum(parameter.numel() for parameter in head.parameters()) / 1e6
    assert f"{count:.{len(millions) - millions.index('.') - 1}f}" == millions


def test_recurrent_head_is_torchs_stack_of_lstms():
    head = RecurrentHead(8, 4, proj_size=6, hidden_size=5).eval()
    stack = torch.nn.LSTM(
        6, 5, num_layers=2, batch_first=True, bidirectional=True
    )
    state = {
        name.replace("_l0", f"_l{index}"): tensor
        for index, layer in enumerate(head.layers)
        for name, tensor in layer.state_dict().items()
    }
    stack.load_state_dict(state)
    feats = torch.randn(2, 9, 8)
    expected = head.classifier(stack(head.projector(feats))[0])
    torch.testing.assert_close(head(feats), expected, **TOLERANCE)


def test_dropout_follows_every_lstm_and_in_training_only():
    head = RecurrentHead(8, 4, proj_size=6, hidden_size=5, dropout=1.0)
    feats = torch.randn(2, 9, 8)
    nothing = head.classifier.bias.expand(2, 9, 4)
    torch.testing.assert_close(head(feats), nothing)
    inner, dropped = [], []
    head.layers[1].register_forward_hook(
        lambda _, args, out: inner.append(args)
    )
    head.dropout.register_forward_hook(lambda _, args, out: dropped.append(out))
    head(feats)
    assert not inner[0][0].any()
    assert len(dropped) == 2
    assert (head.eval()(feats) - nothing).abs().max() > 1e-3
    assert RecurrentHead(8, 4, 6, 5).dropout.p == 0.2


def test_projected_head_is_affine():
    head = ProjectedFrameHead(8, 4, proj_size=6)
    feats = torch.randn(2, 9, 8)
    weight = head.classifier.weight @ head.projector.weight
    bias = head(torch.zeros(1, 1, 8))
    torch.testing.assert_close(
        head(feats), feats @ weight.T + bias, **TOLERANCE
    )


@each_head
@pytest.mark.parametrize("num_states", [None, 3])
def test_an_utterance_scores_the_same_alone_and_in_a_batch(build, num_states):
    head = build(num_states=num_states).eval()
    shape = (2, 10, 8) if num_states is None else (3, 2, 10, 8)
    feats = torch.randn(shape)
    for shares in ([1.0, 0.6], [0.6, 1.0], [0.6, 0.4]):
        lengths = torch.tensor(shares)
        batched = head(feats, lengths)
        assert batched.shape == (2, 10, 4)
        for row, count in enumerate((10 * lengths).round().int()):
            alone = head(feats[..., row : row + 1, :count, :])
            torch.testing.assert_close(
                batched[row, :count], alone[0], **TOLERANCE
            )


@each_head
def test_states_are_mixed_as_they_come(build):
    head, states = build(num_states=3).eval(), torch.randn(3, 2, 10, 8)
    with torch.no_grad():
        head.layer_mix.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    weights = head.layer_mix.weights.softmax(0)
    mixed = torch.einsum("l,lbtd->btd", weights, states)
    head_without = build().eval()
    state = head.state_dict()
    del state["layer_mix.weights"]
    head_without.load_state_dict(state)
    torch.testing.assert_close(
        head(iter(states)), head_without(mixed), **TOLERANCE
    )
    with pytest.raises(ValueError, match="expected 3 hidden states; got 2"):
        head(states[:2])


@each_head
def test_every_parameter_gets_a_gradient(build):
    head = build(num_states=3)
    head(torch.randn(3, 2, 10, 8), torch.tensor([1.0, 0.6])).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@each_head
def test_a_saved_head_loads_as_it_was(build, tmp_path):
    head, feats = build(num_states=3).eval(), torch.randn(3, 2, 10, 8)
    head.save(tmp_path / "head.ckpt")
    loaded = type(head)(**head.config)
    loaded.load(tmp_path / "head.ckpt")
    with without_weights(tmp_path / "head.ckpt"):  # as the converters do
        taken = type(head)(**head.config)
    tensors = read_tensors(tmp_path / "head.ckpt")
    load_strict(taken, tensors, tmp_path / "head.ckpt", assign=True)
    lengths = torch.tensor([1.0, 0.6])
    for other in (loaded, taken):
        for name, tensor in head.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor), name
        # Where a file's tensors stand in memory may move the last bit
        torch.testing.assert_close(
            other.eval()(feats, lengths), head(feats, lengths), **TOLERANCE
        )


def test_spec_augment_masks_the_mix_of_states_in_training_only(tmp_path):
    augment = SpecAugment()
    head = RecurrentHead(60, 4, 6, 5, 2, 0.0, num_states=2)
    masked = RecurrentHead(60, 4, 6, 5, 2, 0.0, 2, spec_augment=augment)
    head.save(tmp_path / "head.ckpt")
    masked.load(tmp_path / "head.ckpt")
    assert "spec_augment" not in masked.config
    seen = []
    augment.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    feats, lengths = torch.randn(2, 2, 50, 60), torch.tensor([1.0, 0.6])
    masked(feats, lengths).sum().backward()
    ((mix, frames), out) = seen[0]
    torch.testing.assert_close(mix, head.layer_mix(feats))
    assert frames.tolist() == [50, 30]
    assert (out == 0).sum() > (mix == 0).sum() + 20 * 60
    assert masked.layer_mix.weights.grad.abs().min() > 0
    masked.eval()
    torch.testing.assert_close(
        masked(feats, lengths), head.eval()(feats, lengths)
    )
