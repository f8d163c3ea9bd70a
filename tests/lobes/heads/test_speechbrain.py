"""Frame posteriors against transformers and through SpeechBrain's decoders."""

import pytest
import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher

from tests.huggingface import (
    FAMILIES,
    attention_mask,
    needs_5_21,
    save_folder,
    tiny_model,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AAMSoftmax,
    AMSoftmax,
    Chain,
    ECAPAHead,
    FrameHead,
    FramePosteriors,
    ProjectedFrameHead,
    RecurrentHead,
    SpeakerHead,
    SpeakerPosteriors,
)
from unispeech_sb.nnet.ctc import ctc_loss
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.pooling import masked_mean

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
HEADS = {
    "frame": lambda: FrameHead(16, 6),
    "frame, mixed": lambda: FrameHead(16, 6, num_states=3),
    "recurrent": lambda: RecurrentHead(16, 6, 8, 8, num_states=3),
    "projected": lambda: ProjectedFrameHead(16, 6, 8),
}
WORDS = ["<blank>", " ", "a", "b", "c", "d"]


@pytest.fixture(scope="module")
def encoder():
    """A small model of the layer-norm kind that changes its mind often."""
    torch.manual_seed(0)
    backbone = Backbone.from_preset("tiny", feat_extract_norm="layer")
    head = FrameHead(16, 6)
    with torch.no_grad():
        head.classifier.weight.mul_(40.0)
    return FramePosteriors(backbone, head).eval()


def pairs(count):
    """Batches of two waveforms of random lengths, with their shares."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        lengths = torch.randint(400, 9000, (2,), generator=generator)
        # The longest fills the batch, as SpeechBrain pads
        wavs = torch.randn(2, int(lengths.max()), generator=generator)
        yield wavs, lengths, (lengths / lengths.max()).float()


@needs_5_21
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_posteriors_loss_and_gradients_equal_transformers(
    family, stable, tmp_path
):
    model = tiny_model(
        family, "ForCTC", vocab_size=7, feat_extract_norm="layer",
        do_stable_layer_norm=stable, ctc_loss_reduction="mean",
    ).train()  # fmt: skip
    backbone = Backbone.from_pretrained(
        save_folder(model, tmp_path), layerdrop=0.0
    )
    head = FrameHead(16, 7)
    head.classifier.load_state_dict(model.lm_head.state_dict())
    encoder = FramePosteriors(backbone, head)
    lengths = torch.tensor([7000, 4444])
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 7000) * mask
    labels = torch.tensor([[3, 3, 1, 6], [2, 0, 5, -100]])
    theirs = model(wavs, attention_mask=mask, labels=labels)
    found = encoder(wavs, lengths / 7000)
    counts = backbone.output_lengths(lengths)
    expected = theirs.logits.log_softmax(-1)
    for row, count in enumerate(counts):
        torch.testing.assert_close(
            found[row, :count], expected[row, :count], **TOLERANCE
        )
    loss = ctc_loss(found, labels, counts)
    torch.testing.assert_close(loss, theirs.loss, **TOLERANCE)
    loss.backward()
    theirs.loss.backward()
    reference = dict(model.base_model.named_parameters())
    reference |= dict(model.lm_head.named_parameters("head.classifier"))
    for name, parameter in encoder.named_parameters():
        if not name.endswith("masked_spec_embed"):  # nothing is masked
            gradient = reference[name.removeprefix("backbone.")].grad
            torch.testing.assert_close(parameter.grad, gradient, **TOLERANCE)


def test_posteriors_without_padding_equal_transformers(tmp_path):
    model = tiny_model("unispeech", "ForCTC", vocab_size=7)
    backbone = Backbone.from_pretrained(save_folder(model, tmp_path)).eval()
    encoder = FramePosteriors(backbone, FrameHead(16, 7))
    encoder.head.classifier.load_state_dict(model.lm_head.state_dict())
    wavs = torch.randn(2, 4000)
    expected = model(wavs).logits.log_softmax(-1)
    for wav_lens in (None, torch.ones(2)):
        torch.testing.assert_close(
            encoder(wavs, wav_lens), expected, **TOLERANCE
        )


def decoded_alone(encoder, wavs, lengths, decode):
    """Each waveform's text when there is no other and no padding."""
    return [
        decode(encoder(wav[None, :length]), torch.ones(1))[0]
        for wav, length in zip(wavs, lengths)
    ]


def greedy(log_probs, wav_lens):
    """SpeechBrain's greedy search."""
    return ctc_greedy_decode(log_probs, wav_lens, blank_id=0)


@torch.no_grad()
def test_padded_batches_decode_as_each_utterance_alone(encoder):
    """Most of all where SpeechBrain rounds to another number of frames."""
    rounded_up = rounded_down = symbols = 0
    for wavs, lengths, wav_lens in pairs(200):
        counts = encoder.backbone.output_lengths(lengths)
        rounded = (wav_lens * counts.max()).round()
        is_up, is_down = (rounded > counts).any(), (rounded < counts).any()
        if symbols > 60 and not is_down and not (is_up and rounded_up < 11):
            continue
        rounded_up += int(is_up)
        rounded_down += int(is_down)
        alone = decoded_alone(encoder, wavs, lengths, greedy)
        assert greedy(encoder(wavs, wav_lens), wav_lens) == alone
        symbols += len(alone[0])
    assert rounded_up > 10
    assert rounded_down > 2
    assert symbols > 60


@torch.no_grad()
def test_beam_search_reads_all_frames_and_no_padding(encoder):
    searcher = CTCBeamSearcher(blank_index=0, vocab_list=WORDS, beam_size=5)

    def search(log_probs, wav_lens):
        hypotheses = searcher(log_probs, wav_lens)
        return [(row[0].text, round(row[0].score, 3)) for row in hypotheses]

    cut = 0
    for wavs, lengths, wav_lens in pairs(20):
        alone = decoded_alone(encoder, wavs, lengths, search)
        assert search(encoder(wavs, wav_lens), wav_lens) == alone
        counts = encoder.backbone.output_lengths(lengths)
        cut += int(((wav_lens * counts.max()).long() < counts).any())
    assert cut > 2


@pytest.mark.parametrize("rule", ["hf", "fairseq"])
@torch.no_grad()
def test_padding_is_certain_to_be_blank_and_holds_every_frame(rule):
    backbone = Backbone.from_preset("tiny", mask_rule=rule).eval()
    encoder = FramePosteriors(backbone, FrameHead(16, 6), blank_index=2)
    for wavs, _, wav_lens in pairs(20):
        log_probs = encoder(wavs, wav_lens)
        total = backbone.output_lengths(wavs.shape[1])
        counts = absolute_lengths(
            backbone.frame_lens(wavs.shape[1], wav_lens), total
        )
        assert (wav_lens * log_probs.shape[1] >= counts).all()
        if rule == "hf":
            assert log_probs.shape[1] <= total + 1
        for row, count in zip(log_probs, counts):
            assert (row[count:].exp() == torch.eye(6)[2]).all()
            assert (row[:count].exp() < 1).all()


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("norm", ["group", "layer"])
@torch.no_grad()
def test_frames_score_the_same_alone_and_in_a_batch(build, norm):
    backbone = Backbone.from_preset("tiny", feat_extract_norm=norm)
    encoder = FramePosteriors(backbone, build()).eval()
    lengths = torch.tensor([9000, 5170, 501, 400])
    wavs = torch.randn(4, 9000)
    batched = encoder(wavs, lengths / 9000)
    assert batched.dtype == torch.float32
    for row, samples in enumerate(lengths):
        alone = encoder(wavs[row : row + 1, :samples])
        assert alone.shape[1] == backbone.output_lengths(samples)
        torch.testing.assert_close(
            batched[row, : alone.shape[1]], alone[0], **TOLERANCE
        )


def test_posteriors_are_float32_under_autocast(encoder):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        log_probs = encoder(torch.randn(2, 4000), torch.tensor([1.0, 0.6]))
    assert log_probs.dtype == torch.float32
    sums = log_probs.exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), **TOLERANCE)


def test_silence_is_scored_and_what_is_no_number_refused(encoder):
    assert encoder(torch.zeros(1, 800)).isfinite().all()
    with pytest.raises(ValueError, match="waveform 1 .* finite"):
        encoder(torch.tensor([[1.0] * 800, [torch.nan] * 800]))
    with pytest.raises(ValueError, match="at least 400 samples"):
        encoder(torch.ones(1, 399))


@pytest.mark.parametrize("index", [-1, 6])
def test_a_blank_that_the_head_does_not_score_is_refused(encoder, index):
    with pytest.raises(ValueError, match=f"expected 0 to 5; got {index}"):
        FramePosteriors(encoder.backbone, encoder.head, index)


@pytest.mark.parametrize("relu", [False, True])
def test_speakers_get_the_softmax_of_the_objectives_scores(relu):
    head = SpeakerHead(16, [8], [1], [1], xvector_output_dim=6, relu=relu)
    objective = AMSoftmax(6, 5, scale=10.0)
    embeddings = torch.randn(3, 1, 6)
    found = SpeakerPosteriors(head, objective)(embeddings)
    vectors = head.classifier(embeddings[:, 0])
    vectors = vectors.relu() if relu else vectors
    cosines = torch.cosine_similarity(
        vectors[:, None], objective.weight.T[None], dim=-1
    )
    torch.testing.assert_close(
        found[:, 0], (10 * cosines).log_softmax(-1), **TOLERANCE
    )


def test_the_nearest_of_a_speakers_vectors_counts():
    head = ECAPAHead(16, 3, channels=16, pooled_channels=24, embedding_size=6)
    objective = AAMSoftmax(6, 4, sub_centers=2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = objective.weight.T[5].detach()  # the second one of speaker 2
        found = SpeakerPosteriors(head, objective)(wanted[None, None])
    assert found.dtype == torch.float32
    assert int(found.argmax(-1)) == 2


class Pooled(torch.nn.Module):
    """Takes lengths under another name, and gives two results."""

    def forward(self, x, lens=None):
        return masked_mean(x, lens)[:, None], "not used"


def test_a_chain_gives_lengths_to_whoever_takes_them():
    backbone = Backbone.from_preset("tiny").eval()
    chain = Chain(backbone=backbone, lin=torch.nn.Identity(), pool=Pooled())
    wavs = torch.randn(2, 8000)
    padded = chain(wavs, torch.tensor([1.0, 0.5]))
    alone = chain(wavs[1:, :4000], torch.tensor([1.0]))
    torch.testing.assert_close(padded[1:], alone)
    assert chain(wavs).shape == (2, 1, 16)
