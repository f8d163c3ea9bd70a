"""Training checkpoints of SpeechBrain: ours, theirs, of pre-training."""

import shutil

import pytest
import torch
from speechbrain.integrations.huggingface import wav2vec2 as theirs
from speechbrain.utils.checkpoints import Checkpointer
from transformers import UniSpeechSatModel

from tests.checkpoints import runs
from tests.huggingface import save_folder, tiny_model
from unispeech_sb import lobes
from unispeech_sb.checkpoints.source import read_backbone, read_checkpoint
from unispeech_sb.cli import main
from unispeech_sb.convert import convert_checkpoint, describe, to_huggingface
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UniSpeechHead, UniSpeechSATHead
from unispeech_sb.lobes.pretraining import Instances, UniSpeech, UniSpeechSAT

WAVS = torch.randn(2, 3000, generator=torch.Generator().manual_seed(1)) / 100


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder of transformers: the model that all runs begin with."""
    model = tiny_model("unispeech-sat", feat_extract_norm="layer")
    return save_folder(model, tmp_path_factory.mktemp("hub"), True)


@pytest.fixture(scope="module", params=[runs.OURS, runs.THEIRS])
def trained(request, hub, tmp_path_factory):
    """A checkpoint of a CTC recipe, and the lobe that was saved."""
    folder = tmp_path_factory.mktemp("run") / "results"
    ckpt, hparams = runs.run(folder, runs.CTC, hub, request.param, WER=12.5)
    return ckpt, hparams["wav2vec2"].eval()


def features(lobe, **options):
    """Features of waveforms without padding."""
    for name, value in options.items():
        setattr(lobe, name, value)
    with torch.no_grad():
        return lobe.eval()(WAVS)


def same(one, other):
    """Whether two tensors are, but for rounding."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", ["", "wav2vec2.ckpt"])
def test_a_lobe_comes_back(trained, place):
    ckpt, lobe = trained
    again = Backbone.from_pretrained(ckpt / place, output_norm=True)
    same(features(again), features(lobe))


def test_it_converts_with_its_options_and_goes_to_transformers(
    trained, tmp_path
):
    ckpt, lobe = trained
    convert_checkpoint(ckpt, tmp_path / "new")
    options, _, _ = read_backbone(tmp_path / "new")
    assert options["output_norm"] and options["normalize_eps"] <= 1e-5
    for source in (ckpt, ckpt / "wav2vec2.ckpt", tmp_path / "new"):
        with pytest.raises(ValueError, match="--set output_norm=False") as e:
            to_huggingface(source, tmp_path / "hf")
        assert str(e.value).startswith(f"{source}: ")
    assert not (tmp_path / "hf").exists()
    to_huggingface(ckpt, tmp_path / "hf", output_norm=False)
    model, loading = UniSpeechSatModel.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    normed = theirs.Wav2Vec2(str(tmp_path / "hf"), "", output_norm=True)
    same(features(normed), features(lobe))


def test_it_is_described(trained, capsys):
    ckpt, _ = trained
    text = str(describe(ckpt))
    for part in ("training checkpoint", "WER", "12.5", "num_hidden_layers"):
        assert part in text
    assert main(["info", str(ckpt / "wav2vec2.ckpt")]) == 0
    assert "num_hidden_layers" in capsys.readouterr().out


def test_tensors_alone_need_the_model_they_began_with(hub, tmp_path, capsys):
    ckpt, hparams = runs.run(tmp_path / "results", runs.CTC, hub, runs.THEIRS)
    moved = shutil.copytree(ckpt, tmp_path / "elsewhere" / ckpt.name)
    capsys.readouterr()  # transformers' progress
    for path in (moved, moved / "wav2vec2.ckpt"):
        assert main(["convert", str(path), str(tmp_path / "new")]) == 1
        error = capsys.readouterr().err
        assert "--config FOLDER" in error and error.count("\n") == 1
    found = Backbone.from_pretrained(moved, config=hub)
    same(features(found), features(hparams["wav2vec2"], output_norm=False))
    assert found.normalize_eps == 1e-5  # SpeechBrain's, not transformers'
    # A configuration and no weights are enough, as recipes leave them
    small = tmp_path / "small"
    small.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(hub / name, small)
    found = Backbone.from_pretrained(moved, config=small)
    same(features(found), features(hparams["wav2vec2"]))
    line = ["convert", str(moved), str(tmp_path / "new"), "--config"]
    assert main([*line, str(small)]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "new")
    assert main([*line, str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_the_family_is_that_of_the_model_it_began_with(tmp_path):
    model = tiny_model("hubert", feat_extract_norm="layer")
    begun = save_folder(model, tmp_path / "hubert", True)
    ckpt, _ = runs.run(tmp_path / "results", runs.CTC, begun, runs.OURS)
    for path in (ckpt, ckpt / "wav2vec2.ckpt"):
        found = read_checkpoint(path)
        assert found.family == "hubert" and not found.notes
    moved = shutil.copytree(ckpt, tmp_path / "elsewhere" / ckpt.name)
    found = read_checkpoint(moved)
    assert found.family == "unispeech-sat" and found.notes
    assert read_checkpoint(moved, config=begun).family == "hubert"
    wavlm = tiny_model("wavlm", feat_extract_norm="layer")
    other = save_folder(wavlm, tmp_path / "wavlm", True)  # cannot be it
    assert read_checkpoint(moved, config=other).family == "unispeech-sat"
    shutil.rmtree(begun)
    assert read_checkpoint(ckpt).notes


def test_a_model_that_is_gone_is_named(hub, tmp_path):
    gone = shutil.copytree(hub, tmp_path / "gone")
    ckpt, _ = runs.run(tmp_path / "results", runs.CTC, gone, runs.THEIRS)
    shutil.rmtree(gone)
    with pytest.raises(ValueError, match=f"{gone}.*--config") as caught:
        read_checkpoint(ckpt)
    assert "\n" not in str(caught.value)


def test_sizes_that_differ_are_refused(hub, tmp_path):
    ckpt, _ = runs.run(tmp_path / "results", runs.CTC, hub, runs.THEIRS)
    other = tiny_model("unispeech-sat", num_hidden_layers=2)
    save_folder(other, tmp_path / "other", True)
    with pytest.raises(ValueError, match=r"unexpected .*encoder\.layers\.2"):
        Backbone.from_pretrained(ckpt, config=tmp_path / "other")


@pytest.mark.parametrize("cls", ["unispeech", "sat"])
@pytest.mark.parametrize("noted", [True, False])
def test_a_pretraining_objective_comes_back(hub, tmp_path, cls, noted):
    backbone = Backbone.from_pretrained(hub)
    if cls == "sat":
        head = UniSpeechSATHead(16, 9, 12, [2, 4, 6])
        objective = UniSpeechSAT(backbone, head, instances=Instances(layer=1))
    else:
        objective = UniSpeech(backbone, UniSpeechHead(16, 8, [2, 4, 6], 12))
    parts = {"objective": objective}
    ckpt = Checkpointer(tmp_path, parts).save_checkpoint().path
    config = None
    if not noted:  # as the first versions saved it
        torch.save(objective.state_dict(), ckpt / "objective.ckpt")
        config = hub
    found = Backbone.from_pretrained(ckpt, config=config)
    assert torch.equal(features(found), features(backbone))
    checkpoint = read_checkpoint(ckpt, config=config)
    dropped = checkpoint.dropped
    if noted:
        family = "unispeech-sat" if cls == "sat" else "unispeech"
        assert checkpoint.family == family and not checkpoint.notes
    assert "head.project_q.weight" in dropped
    assert not any(name.startswith("backbone.") for name in dropped)
    report = convert_checkpoint(ckpt, tmp_path / "new", config=config)
    assert report.used == {"backbone": 79}


def test_what_speechbrains_recipe_pretrained_comes_back(tmp_path):
    model = tiny_model("unispeech", feat_extract_norm="layer")
    hub = save_folder(model, tmp_path / "hub", True)
    folder = tmp_path / "results"
    name = "Wav2Vec2Pretrain"
    text = runs.SSL
    ckpt, hparams = runs.run(folder, text, hub, f"unispeech_sb.lobes.{name}")
    lobe = hparams["wav2vec2"].eval()
    found = Backbone.from_pretrained(ckpt)
    assert torch.equal(features(found), features(lobe.backbone))
    fresh = lobes.Wav2Vec2Pretrain(hub)
    fresh.recover(ckpt / "wav2vec2.ckpt", end_of_epoch=True)
    assert torch.equal(features(fresh.backbone), features(lobe.backbone))
    their = f"{runs.THEIRS}Pretrain"
    ckpt, hparams = runs.run(tmp_path / "theirs", text, hub, their)
    inner = hparams["wav2vec2"].model.unispeech.eval()
    found = Backbone.from_pretrained(ckpt, normalize_wav=False)
    with torch.no_grad():
        same(features(found), inner(WAVS).last_hidden_state)
    checkpoint = read_checkpoint(ckpt)
    assert checkpoint.family == "unispeech"
    assert any("project_q" in name for name in checkpoint.dropped)


@pytest.mark.parametrize("prefix", ["", "module.", "0.model.", "1.module."])
def test_a_backbone_is_found_behind_any_prefix(hub, tmp_path, prefix):
    backbone = Backbone.from_pretrained(hub)
    state = {prefix + k: v for k, v in backbone.state_dict().items()}
    path = tmp_path / "model.ckpt"
    torch.save({**state, "ctc_lin.w.weight": torch.ones(2, 2)}, path)
    found = Backbone.from_pretrained(path, config=hub)
    same(features(found), features(backbone))
    assert "ctc_lin.w.weight" in read_checkpoint(path, config=hub).dropped


def test_two_backbones_are_not_guessed_between(hub, tmp_path):
    ckpt, hparams = runs.run(tmp_path / "results", runs.CTC, hub)
    hparams["wav2vec2"].save(ckpt / "teacher.ckpt")
    with pytest.raises(ValueError, match=r"got 2 \(teacher.ckpt.*wav2vec2"):
        read_checkpoint(ckpt)
    assert Backbone.from_pretrained(ckpt / "teacher.ckpt").dim == 16


def test_another_model_is_named(tmp_path):
    names = (
        "feature_extractor.conv_layers.0.conv.weight",
        "encoder.grep_linear.weight",
    )
    state = {f"model.{name}": torch.ones(1) for name in names}
    (tmp_path / "CKPT+1").mkdir()
    torch.save(state, tmp_path / "CKPT+1" / "wavlm.ckpt")
    (tmp_path / "CKPT+1" / "CKPT.yaml").write_text("WER: 1.0\n")
    with pytest.raises(ValueError, match="it is a WavLM model"):
        read_checkpoint(tmp_path / "CKPT+1")


class Touch:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_not_read(hub, tmp_path):
    ckpt, hparams = runs.run(tmp_path / "results", runs.CTC, hub)
    torch.save({"a": Touch(tmp_path / "proof")}, ckpt / "other.ckpt")
    found = Backbone.from_pretrained(ckpt, output_norm=True)
    same(features(found), features(hparams["wav2vec2"]))
    torch.save({"a": Touch(tmp_path / "proof")}, ckpt / "wav2vec2.ckpt")
    with pytest.raises(ValueError, match="ckpt: expected a file of tensors"):
        Backbone.from_pretrained(ckpt)
    with pytest.raises(ValueError, match="ckpt: expected a file of tensors"):
        Backbone.from_pretrained(ckpt / "wav2vec2.ckpt")
    assert not (tmp_path / "proof").exists()
