"""WavLM's relative positions: buckets, gates, a few queries at a time."""

import pytest
import torch
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from unispeech_sb.nnet import attention
from unispeech_sb.nnet.attention import Attention

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def pair(num_buckets=12, max_distance=9):
    """transformers' attention, and ours with its weights."""
    theirs = WavLMAttention(8, 2, 0.0, num_buckets, max_distance).eval()
    torch.nn.init.normal_(theirs.gru_rel_pos_const)
    ours = Attention(8, 2, 0.0, num_buckets, max_distance, True).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize(
    "setting", [(320, 800), (320, 1280), (32, 128), (12, 9), (4, 2)], ids=str
)
def test_buckets_equal_transformers(setting):
    theirs, ours = pair(*setting)
    frames = 1000
    by_pair = theirs.compute_bias(frames, frames)  # [H, T, T]
    biases = ours.biases(frames)
    assert biases.shape == (2, 2 * frames - 1)
    assert torch.equal(biases[:, frames - 1 :], by_pair[:, 0])
    assert torch.equal(biases[:, :frames], by_pair[:, -1])


def test_far_frames_share_a_bucket_and_directions_do_not():
    biases = pair()[1].biases(30).detach()
    assert (biases[:, :1] == biases[:, : 30 - 9]).all()
    assert (biases[:, -1:] == biases[:, 29 + 9 :]).all()
    assert not (biases[:, 0] == biases[:, -1]).any()


@pytest.mark.parametrize("entries", [1, 100, 2**20], ids="{} entries".format)
@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
def test_any_number_of_queries_at_a_time_gives_the_same(
    entries, graph, monkeypatch
):
    theirs, ours = pair()
    monkeypatch.setattr(attention, "_CPU_BIASES", entries)
    monkeypatch.setattr(attention, "makes_graph", lambda: graph)
    feats = torch.randn(3, 11, 8)
    expected, _, _ = theirs(feats)
    biases = ours.biases(14)  # of a longer utterance
    torch.testing.assert_close(ours(feats, biases=biases)[0], expected, **CLOSE)
    mask = torch.arange(11) < torch.tensor([11, 4, 7])[:, None]
    expected, _, _ = theirs(feats, attention_mask=mask)
    for need_map in (False, True):
        found, _ = ours(feats, mask[:, None, None], need_map, biases=biases)
        torch.testing.assert_close(found, expected, **CLOSE)


def test_utterances_of_a_row_have_biases_of_their_own():
    ours = pair()[1]
    feats, biases = torch.randn(1, 16, 8), ours.biases(11)
    found, _ = ours(feats, counts=torch.tensor([11, 5]), biases=biases)
    alone = [ours(part, biases=biases)[0] for part in feats.split([11, 5], 1)]
    torch.testing.assert_close(found, torch.cat(alone, 1), **CLOSE)


def test_a_distance_that_ends_no_bucket_is_refused():
    with pytest.raises(ValueError, match="max_bucket_distance above a quarter"):
        Attention(8, 2, 0.0, 320, 80)
    assert Attention(8, 2).biases(5) is None


@pytest.mark.parametrize("scores", [1, 600, 5000, 2**20])
@pytest.mark.parametrize("queries, biased", [(37, False), (37, True), (9, 1)])
@torch.no_grad()
def test_blocks_in_bfloat16_equal_torch(scores, queries, biased, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES", scores)
    query, key, value = (
        torch.randn(2, 5, frames, 16, dtype=torch.bfloat16)
        for frames in (queries, 37, 37)
    )
    biases = torch.randn(2, 5, queries, 37).bfloat16() if biased else None
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x if x is None else x.float() for x in (query, key, value, biases))
    )
    got = attention._attend_in_blocks(query, key, value, biases)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 0.03
