"""The authors' downstream files: recorded runs, and what is refused."""

import inspect

import pytest
import torch
from safetensors.torch import load_file
from torchaudio.transforms import Resample

from unispeech_sb.checkpoints.authors import (
    is_diarization,
    is_speaker_verification,
    read_diarization,
    read_speaker_verification,
)
from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import ECAPAHead, EENDVCHead
from unispeech_sb.nnet.eend import speaker_loss
from unispeech_sb.nnet.permutation import pit_loss

LOSS = "loss_calculator.projection.weight"
TINY = {"num_attention_heads": 4}
KINDS = {
    "sv_ecapa": (
        is_speaker_verification, read_speaker_verification, ECAPAHead,
    ),
    "sd_eend_vc": (is_diarization, read_diarization, EENDVCHead),
}  # fmt: skip


def recorded(folder, name):
    """The model's state, and what went in and came out."""
    tensors = load_file(folder / f"{name}.safetensors")
    start = "state/"
    state = {k[len(start) :]: t for k, t in tensors.items() if start in k}
    return state, tensors


def built(cls, config, tensors, **options):
    """A module of a checkpoint's options, with its tensors."""
    names = inspect.signature(cls).parameters.keys() & config.keys()
    module = cls(**{name: config[name] for name in names}, **options)
    load_strict(module, tensors, "test", assign=True)
    return module.eval()


def lobes_of(found):
    """Backbone and head of a checkpoint."""
    cls = {"ForECAPA": ECAPAHead, "ForEENDVC": EENDVCHead}[found.task]
    backbone = built(
        Backbone, found.config, found.backbone, output_all_hiddens=True
    )
    return backbone, built(cls, found.config, found.top)


def close(found, expected):
    """Asserts equality to 1e-5."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_speaker_verification_gives_the_recorded_embeddings(
    authors_folder, tmp_path
):
    state, tensors = recorded(authors_folder, "sv_ecapa")
    path = tmp_path / "model.pth"
    # As the published files: with the training's classifier, and a record
    torch.save(
        {"model": {**state, LOSS: torch.randn(7, 256)}, "best_eer": 0.0}, path
    )
    found = read_speaker_verification(read_objects(path), path, {})
    backbone, head = lobes_of(found)
    states = backbone(tensors["in/wavs"])
    for layer, hidden in enumerate(states):
        close(hidden, tensors[f"out/hidden.{layer}"])
    close(head(states), tensors["out/embedding"])
    dropped = {name.removeprefix("feature_extract.model.").split(".")[0]
               for name in found.dropped}  # fmt: skip
    assert dropped == {
        "label_embs_concat", "final_proj", "encoder", "loss_calculator",
    }  # fmt: skip
    assert len(found.backbone) + len(found.top) + len(found.dropped) == (
        len(state) + 1
    )


PART = "feature_extract.model."


@pytest.mark.parametrize(
    ("kept", "added", "family"),
    [
        (("encoder.layer_norm_for_extract",), {}, "unispeech-sat"),
        ((), {"spk_proj.weight": [4, 32], "quantizer.vars": [1, 4, 2]},
         "unispeech-sat"),
        ((), {}, "unispeech-sat"),  # assumed
        ((), {"label_embs_concat": [9, 8], "final_proj.weight": [8, 32]},
         "hubert"),
        ((), {"quantizer.vars": [1, 4, 2], "project_q.weight": [8, 4]},
         "wav2vec2"),
        ((), {"encoder.layers.0.self_attn.relative_attention_bias.weight":
              [320, 4]}, "wavlm"),
    ],
)  # fmt: skip
def test_the_family_is_what_the_tensors_tell(
    kept, added, family, authors_folder
):
    state, _ = recorded(authors_folder, "sv_ecapa")
    others = ("label_embs_concat", "final_proj", "layer_norm_for_extract")
    state = {
        name: tensor
        for name, tensor in state.items()
        if any(part in name for part in kept)
        or not any(part in name for part in others)
    }
    state |= {PART + name: torch.ones(shape) for name, shape in added.items()}
    found = read_speaker_verification({"model": state}, "x.pth", TINY)
    assert found.family == found.facts["family"].value == family
    if family == "wavlm":
        assert found.config["num_buckets"] == 320
        assert found.config["max_bucket_distance"] == 800


@torch.no_grad()
def test_diarization_gives_the_recorded_activities_vectors_and_losses(
    authors_folder,
):
    state, tensors = recorded(authors_folder, "sd_eend_vc")
    found = read_diarization({"model": state}, "x.pt", {"num_heads": 4})
    backbone, head = lobes_of(found)
    assert any("trained on 8000 Hz" in note for note in found.notes)
    resample = Resample(found.config["sampling_rate"], 16000)
    assert torch.equal(resample.kernel, state["resample.kernel"])
    states = backbone(resample(tensors["in/wavs_8k"]))
    logits, vectors = head(states)
    activities, speakers = head.estimate(states)
    close(logits, tensors["out/activity_logits"])
    close(activities[0], tensors["out/estimate.0"])
    for speaker in range(3):
        close(vectors[:, :, speaker], tensors[f"out/speaker_vectors.{speaker}"])
        close(speakers[0, speaker], tensors[f"out/estimate.{speaker + 1}"])
    loss, order = pit_loss(logits, tensors["in/activity_labels"])
    targets = tensors["in/speaker_ids"].gather(1, order)
    against_all = speaker_loss(
        speakers, targets, head.embed.weight, head.alpha, head.beta
    )
    assert loss.item() == pytest.approx(0.73351, abs=1e-5)
    assert against_all.item() == pytest.approx(2.30369, abs=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_each_reader_knows_its_own_files_only(name, authors_folder):
    state, _ = recorded(authors_folder, name)
    for other, (recognises, _, _) in KINDS.items():
        assert recognises({"model": state}) == (name == other)
        assert recognises(state) == (name == other)
        assert not recognises({"model": None}) and not recognises([state])


@pytest.mark.parametrize("name", KINDS)
def test_sizes_and_facts_are_read_off_the_tensors(name, authors_folder):
    state, _ = recorded(authors_folder, name)
    _, read, cls = KINDS[name]
    found = read(state, "x.pt", {})
    values = {key: fact.value for key, fact in found.facts.items()}
    assert values["hidden_size"] == values["input_size"] == 32
    assert values["num_hidden_layers"] == values["num_states"] - 1 == 3
    assert values["last_state"] == "normed" and values["mask_rule"] == "hf"
    assert values["normalize_wav"] is True
    assert found.config["normalize_eps"] == 1e-5
    assert values["sampling_rate"] == (8000 if cls is EENDVCHead else 16000)
    assert all(found.config[key] == values[key] for key in found.config)
    assert set(inspect.signature(cls).parameters) <= found.config.keys()
    assert any("normalize_wav: assumed true" in note for note in found.notes)
    assert any("num_heads: assumed 8" in note for note in found.notes) == (
        cls is EENDVCHead
    )


@pytest.mark.parametrize("name", KINDS)
def test_given_options_win_where_no_tensor_tells(name, authors_folder):
    state, _ = recorded(authors_folder, name)
    given = {"normalize_wav": False, "mask_rule": "fairseq", **TINY}
    found = KINDS[name][1](state, "x.pt", given)
    for key, value in given.items():
        assert found.config[key] == value
        assert found.facts[key].source == "given"
    assert not any("normalize_wav" in note for note in found.notes)


@pytest.mark.parametrize("name", KINDS)
def test_a_head_without_its_backbone_is_read_too(name, authors_folder):
    state, _ = recorded(authors_folder, name)
    head = {k: t for k, t in state.items() if not k.startswith("feature_ex")}
    found = KINDS[name][1](head, "x.pt", {})
    assert not found.backbone and found.top
    assert "normalize_wav" not in found.config
    assert found.config["num_hidden_layers"] == 3
    built(KINDS[name][2], found.config, found.top)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stranger.weight": torch.ones(1)}, "unexpected stranger.weight"),
        ({"feature_weight": None}, "layer_mix.weights; it is missing"),
        ({"feature_weight": torch.zeros(9)}, "num_hidden_layers 3.* got one"),
        ({"feature_weight": torch.zeros(())}, "with 1 dimensions"),
        ({"feature_weight": "weights"}, "named tensors in model"),
        (
            {"feature_extract.model.encoder.layers.0.fc1.weight": None},
            "feed_forward.intermediate_dense.weight",
        ),
        (
            {"feature_extract.model.encoder.layers.0.self_attn.bias_k": 1},
            "named tensors in model",
        ),
        (
            {
                "feature_extract.model.encoder.layers.0.self_attn.bias_k":
                torch.ones(1)
            },
            "unexpected .*bias_k",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name, change, message, authors_folder):
    state, _ = recorded(authors_folder, name)
    state = {k: t for k, t in (state | change).items() if t is not None}
    with pytest.raises(ValueError, match=f"^x.pt: .*{message}"):
        KINDS[name][1](state, "x.pt", {})


def test_groups_of_channels_must_part_them(authors_folder):
    state, _ = recorded(authors_folder, "sv_ecapa")
    state["layer2.Res2Conv1dReluBn.convs.0.weight"] = torch.ones(7, 7, 3)
    with pytest.raises(ValueError, match="share of 512 channels; got 7"):
        read_speaker_verification(state, "x.pt", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_heads": 5}, "num_heads to divide the encoder's size of 32"),
        ({"num_heads": 0}, "num_heads to be a whole number from 1"),
        ({"num_heads": "four"}, "num_heads to be a whole number"),
        ({"num_speakers": 4}, "num_speakers 3 .shapes of the tensors.; got 4"),
        ({"hidden_size": 64}, "hidden_size 32"),
        ({"normalize_wav": 1}, "normalize_wav to be true or false"),
    ],
)
def test_given_options_that_cannot_be_are_refused(
    given, message, authors_folder
):
    state, _ = recorded(authors_folder, "sd_eend_vc")
    with pytest.raises(ValueError, match=message):
        read_diarization(state, "x.pt", given)


def test_another_resampling_is_refused(authors_folder):
    state, _ = recorded(authors_folder, "sd_eend_vc")
    kernel = Resample(8000, 16000, lowpass_filter_width=5).kernel
    for other in (kernel, state["resample.kernel"] * 1.01):
        state["resample.kernel"] = other
        with pytest.raises(ValueError, match="expected resample.kernel"):
            read_diarization(state, "x.pt", {})
    del state["resample.kernel"]
    found = read_diarization(state, "x.pt", {})
    assert not any("8000" in note for note in found.notes)
    assert found.config["sampling_rate"] == 16000
