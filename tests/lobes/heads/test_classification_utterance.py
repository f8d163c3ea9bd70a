"""Heads against transformers, and as SpeechBrain's interfaces use them."""

import pytest
import torch

from tests.huggingface import attention_mask, save_folder, tiny_model
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    IntentPosteriors,
    UtteranceEncoder,
    UtteranceHead,
    UtterancePosteriors,
)
from unispeech_sb.nnet.losses import classification_loss

HEAD = "ForSequenceClassification"


def loaded(folder, weighted):
    """Backbone and head of a converted folder."""
    backbone = Backbone.from_pretrained(
        folder, layerdrop=0.0, output_all_hiddens=weighted
    )
    head = UtteranceHead(16, 5, 12, weighted, num_states=4)
    head.load(folder / "head.ckpt")
    return backbone, head


@pytest.mark.parametrize("family", ["unispeech", "unispeech-sat"])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_loss_and_gradients_equal_transformers(
    family, weighted, tmp_path
):
    model = tiny_model(
        family, HEAD, feat_extract_norm="layer",
        use_weighted_layer_sum=weighted,
    ).train()  # fmt: skip
    save_folder(model, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "sb")
    backbone, head = loaded(tmp_path / "sb", weighted)
    lengths = torch.tensor([6000, 3333])
    mask, labels = attention_mask(lengths), torch.tensor([2, 4])
    wavs = torch.randn(2, 6000) * mask
    theirs = model(wavs, attention_mask=mask, labels=labels)
    wav_lens = lengths / 6000
    logits = head(backbone(wavs, wav_lens), backbone.frame_lens(6000, wav_lens))
    loss = classification_loss(logits, labels)
    torch.testing.assert_close(logits, theirs.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=1e-5)
    theirs.loss.backward()
    loss.backward()
    reference = {n: p.grad for n, p in model.named_parameters()}
    reference["layer_mix.weights"] = reference.pop("layer_weights", None)
    prefix = model.base_model_prefix + "."
    for name, parameter in [
        *((prefix + n, p) for n, p in backbone.named_parameters()),
        *head.named_parameters(),
    ]:
        if reference[name] is not None:
            torch.testing.assert_close(
                parameter.grad, reference[name], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_utterance_scores_the_same_alone_and_in_a_batch(weighted, norm):
    backbone = Backbone.from_preset("tiny", feat_extract_norm=norm).eval()
    head = UtteranceHead(16, 5, 12, weighted, backbone.num_states).eval()
    encoder = UtteranceEncoder(backbone, head)
    kinds = UtterancePosteriors(head), IntentPosteriors(head, [2, 3])
    lengths = torch.tensor([9000, 5170, 501, 400])
    rounded = torch.round(lengths / 9000 * backbone.output_lengths(9000))
    assert not torch.equal(rounded.long(), backbone.output_lengths(lengths))
    wavs = torch.randn(4, 9000)
    batched = encoder(wavs, lengths / 9000)
    for row, samples in enumerate(lengths):
        alone = encoder(wavs[row : row + 1, :samples])
        for posteriors in kinds:
            torch.testing.assert_close(
                posteriors(batched)[row], posteriors(alone)[0],
                rtol=1e-5, atol=1e-5,
            )  # fmt: skip


def test_posteriors_of_intents_are_products_over_slots():
    head = UtteranceHead(16, 7)
    embeddings = torch.randn(2, 1, 256)
    found = IntentPosteriors(head, [2, 1, 4])(embeddings).exp()
    parts = head.classifier(embeddings).split([2, 1, 4], -1)
    action, _, place = (part.softmax(-1) for part in parts)
    assert found.shape == (2, 1, 8)
    for number in range(8):
        expected = action[..., number // 4] * place[..., number % 4]
        torch.testing.assert_close(found[..., number], expected)


@pytest.mark.parametrize("sizes", [[3, 3], [7, 0], [8, -1], ["7"], [7.0]])
def test_slots_have_to_fit_the_head(sizes):
    with pytest.raises(ValueError, match="slot_sizes: expected 7 values"):
        IntentPosteriors(UtteranceHead(16, 7), sizes)
    with pytest.raises(ValueError, match="head: expected one with a class"):
        IntentPosteriors(torch.nn.Linear(16, 7), sizes)


def test_posteriors_follow_the_problem_type():
    head = UtteranceHead(16, 5)
    embeddings = torch.randn(2, 1, 256)
    logits = head.classifier(embeddings)
    single, multi, regression = (
        UtterancePosteriors(head, kind)(embeddings)
        for kind in (
            "single_label_classification",
            "multi_label_classification",
            "regression",
        )
    )
    torch.testing.assert_close(single.exp().sum(-1), torch.ones(2, 1))
    torch.testing.assert_close(multi.exp(), logits.sigmoid())
    torch.testing.assert_close(regression, logits)
    with pytest.raises(ValueError, match="got 'ranking'"):
        UtterancePosteriors(head, "ranking")


@pytest.mark.parametrize(
    ("wavs", "message"),
    [
        (torch.full((2, 800), torch.nan), "waveform 0 .* finite"),
        (
            torch.tensor([[1.0] * 800, [torch.inf] * 800]),
            "waveform 1 .* finite",
        ),
        (torch.tensor([[1.0] * 800, [0.0] * 800]), "waveform 1 .* sound"),
        (torch.ones(1, 0), "at least 400 samples, one frame; got 0"),
        (torch.ones(1, 399), "at least 400 samples, one frame; got 399"),
    ],
)
def test_bad_waveforms_get_one_clear_error(wavs, message):
    head = UtteranceHead(16, 5)
    encoder = UtteranceEncoder(Backbone.from_preset("tiny"), head)
    with pytest.raises(ValueError, match=message):
        encoder(wavs)


def test_silence_passes_where_the_model_has_a_class_for_it():
    head = UtteranceHead(16, 5)
    backbone = Backbone.from_preset("tiny")
    encoder = UtteranceEncoder(backbone, head, allow_silence=True)
    assert encoder(torch.zeros(1, 800)).isfinite().all()


def test_layer_mix_needs_the_number_of_states():
    with pytest.raises(ValueError, match="expected num_states"):
        UtteranceHead(16, 5, use_weighted_layer_sum=True)
