"""What recipes of SpeechBrain trained, in SpeechBrain's interfaces."""

import shutil

import pytest
import torch
from speechbrain.inference.ASR import EncoderASR, EncoderDecoderASR
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.RNNLM import RNNLM
from speechbrain.tokenizers.SentencePiece import SentencePiece

from tests.checkpoints import runs
from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.pretrained_folder import check_sums
from unispeech_sb.cli import main
from unispeech_sb.convert import describe, export_recipe, to_huggingface
from unispeech_sb.inference import SpeechFeatures, load
from unispeech_sb.lobes.backbone import Backbone

WAVS = torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([1.0, 0.5])
BOTH = pytest.mark.parametrize("lobe", [runs.OURS, runs.THEIRS])
WEIGHTED = "unispeech_sb.lobes.WeightedSSLModel"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder of transformers: the model that all runs begin with."""
    model = tiny_model("unispeech-sat", feat_extract_norm="layer")
    return save_folder(model, tmp_path_factory.mktemp("hub"), True)


@pytest.fixture
def export(hub, tmp_path):
    """Runs a recipe; gives the checkpoint and what the yaml built, in
    evaluation mode, and removes what the export must not need."""

    def start(text, lobe=runs.OURS, labels=runs.save_classes, **meta):
        own = shutil.copytree(hub, tmp_path / "began_with", dirs_exist_ok=True)
        ckpt, built = runs.run(tmp_path / "results", text, own, lobe, **meta)
        labels(ckpt.parent / "label_encoder.txt")
        for module in built["modules"].values():
            module.eval()
        return ckpt, built

    yield start


def moved(folder, tmp_path):
    """A folder alone in another place, without what it was made from."""
    new = tmp_path / "alone"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    shutil.rmtree(tmp_path / "results")
    shutil.rmtree(tmp_path / "began_with")
    return str(new)


def log_probs(built):
    """What the CTC recipes compute."""
    with torch.no_grad():
        feats = built["wav2vec2"](WAVS, LENS)
        logits = built["ctc_lin"](built["enc"](feats))
        return built["log_softmax"](logits)


@BOTH
@pytest.mark.parametrize("enc", ["dnn", "batch norm"])
def test_ctc_recipes_transcribe(export, tmp_path, lobe, enc):
    text = runs.CTC
    if enc == "batch norm":
        start, end = text.index("enc: !new"), text.index("wav2vec2: !new")
        text = text[:start] + runs.BATCH_NORM + text[end:]
    ckpt, built = export(text, lobe, runs.save_characters, WER=12.5)
    expected = log_probs(built)
    report = export_recipe(ckpt)
    assert "backbone -> enc -> ctc_lin -> log_softmax" in report
    folder = tmp_path / "results" / "export"
    assert check_sums(folder).is_whole
    assert "12.5" in (folder / "training.json").read_text()
    asr = EncoderASR.from_hparams(source=moved(folder, tmp_path))
    found = asr.encode_batch(WAVS, LENS)
    # SpeechBrain's lobe takes the padding for speech
    rows = (0, 1) if lobe == runs.OURS else (0,)
    for row in rows:
        torch.testing.assert_close(
            found[row], expected[row], rtol=1e-4, atol=1e-4
        )
    texts, tokens = asr.transcribe_batch(WAVS, LENS)
    names = {1: "A", 2: "B", 3: " ", 4: "C", 5: "D"}
    ids = found[0].argmax(-1).unique_consecutive().tolist()
    assert texts[0] == "".join(names[i] for i in ids if i) != ""


def test_pieces_of_words_are_decoded(export, tmp_path):
    ckpt, _ = export(runs.CTC, labels=lambda path: None)
    (tmp_path / "train.csv").write_text(
        "ID,wrd\n" + "".join(f"{i},A B AB BA CAB ACE\n" for i in range(9))
    )
    SentencePiece(
        str(ckpt.parent), 6, annotation_train=str(tmp_path / "train.csv"),
        annotation_read="wrd", model_type="char", character_coverage=1.0,
    )  # fmt: skip
    export_recipe(ckpt, tmp_path / "new")
    asr = EncoderASR.from_hparams(source=moved(tmp_path / "new", tmp_path))
    texts, tokens = asr.transcribe_batch(WAVS, LENS)
    assert texts[0] == asr.tokenizer.decode_ids(tokens[0])


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"encoder": False},
        {"encoder": False, "transformer": True},
    ],
    ids=["TIMIT", "SLURP", "AISHELL"],
)
@BOTH
def test_decoders_write_what_the_test_of_the_recipe_does(
    export, tmp_path, lobe, shape
):
    ckpt, built = export(runs.sequences(**shape), lobe, runs.save_phones)
    # SpeechBrain's lobe takes the padding for speech
    wavs, lens = (WAVS, LENS) if lobe == runs.OURS else (WAVS[:1], LENS[:1])
    with torch.no_grad():
        states = built["wav2vec2"](wavs, lens)
        if "enc" in built:
            states = built["enc"](states)
        if "Transformer" in built:
            states = built["Transformer"].encode(states, lens)
        expected, *_ = built["test_search"](states, lens)
    report = export_recipe(ckpt, tmp_path / "new")
    assert "-> test_search\n" in report and "for EncoderDecoderASR" in report
    folder = moved(tmp_path / "new", tmp_path)
    asr = EncoderDecoderASR.from_hparams(source=folder)
    texts, tokens = asr.transcribe_batch(wavs, lens)
    assert tokens == expected and any(tokens)
    names = ["<bos>", "<eos>", "<blank>", "aa", "b", "k"]
    assert texts == [" ".join(names[i] for i in row) for row in tokens]


def test_commands_say_what_decodes_token_by_token(export, tmp_path, capsys):
    ckpt, built = export(runs.sequences(), labels=runs.save_phones)
    new = tmp_path / "new"
    assert main(["export", str(ckpt), str(new)]) == 0
    assert main(["info", str(new)]) == 0
    named = "speechbrain.inference.ASR.EncoderDecoderASR"
    assert named in capsys.readouterr().out
    assert main(["transcribe", str(new), str(new)]) == 1
    assert named in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"it is for EncoderDecod.*{named}"):
        load(new)
    wav = 0.1 * WAVS[:1]
    states = SpeechFeatures.from_hparams(new, trust=True).extract(wav[0])
    backbone = Backbone.from_pretrained(new, output_norm=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            states.states[0], backbone(wav)[0], rtol=1e-4, atol=1e-4
        )


def publish(hub):
    """A language model and pieces of words, as LibriSpeech's recipe gets."""
    model = RNNLM(
        6, 4, rnn_layers=1, rnn_neurons=5, dnn_neurons=4, return_hidden=True
    )
    torch.save(model.state_dict(), hub / "lm.ckpt")
    (hub / "t.csv").write_text("ID,wrd\n1,AB\n2,A BA\n")
    SentencePiece(
        str(hub), 6, annotation_train=str(hub / "t.csv"),
        annotation_read="wrd", model_type="char", character_coverage=1.0,
        bos_id=0, eos_id=1, unk_id=2,
    )  # fmt: skip
    return model.state_dict()


def test_what_scores_hypotheses_goes_along(export, hub, tmp_path):
    """Norm, language model, CTC: as in LibriSpeech's recipe of sequences."""
    model = publish(hub)
    ckpt, built = export(
        runs.sequences(scorer=True), labels=lambda path: None, WER=1.0
    )
    built["pretrainer"].collect_files()
    built["pretrainer"].load_collected()
    with torch.no_grad():
        feats = built["compute_features"](WAVS)
        built["normalize"].train()(3 * feats + 1, LENS)
        ckpt = built["checkpointer"].save_checkpoint().path
        states = built["enc"](built["normalize"].eval()(feats, LENS)[:1])
        expected, *_ = built["test_search"](states, LENS[:1])
    export_recipe(ckpt, tmp_path / "new")
    folder = moved(tmp_path / "new", tmp_path)
    asr = EncoderDecoderASR.from_hparams(source=folder)
    torch.testing.assert_close(asr.mods.lm_model.state_dict(), model)
    texts, tokens = asr.transcribe_batch(WAVS[:1], LENS[:1])
    assert tokens == expected and tokens[0]
    assert texts == [built["tokenizer"].decode_ids(tokens[0])]


def test_a_searcher_and_a_branch_of_ctc_are_given_by_hand(export, tmp_path):
    text = runs.sequences().replace("enc:", "crdnn:")
    text = text.replace("<enc>", "<crdnn>") + "blank_index: 2\n"
    ckpt, built = export(text, labels=runs.save_phones)
    with pytest.raises(ValueError, match="got crdnn: give --forward"):
        export_recipe(ckpt, tmp_path / "new")
    for name in ("valid", "test_search"):
        with torch.no_grad():
            states = built["crdnn"](built["wav2vec2"](WAVS, LENS))
            expected, *_ = built[name](states, LENS)
        forward = ["wav2vec2", "crdnn"] + [name] * (name == "valid")
        export_recipe(ckpt, tmp_path / name, forward=forward)
        asr = EncoderDecoderASR.from_hparams(source=str(tmp_path / name))
        assert asr.transcribe_batch(WAVS, LENS)[1] == expected
    export_recipe(
        ckpt, tmp_path / "ctc", interface="EncoderASR",
        forward=["wav2vec2", "crdnn", "ctc_lin"],
    )  # fmt: skip
    EncoderASR.from_hparams(source=str(tmp_path / "ctc"))


def test_a_searcher_has_to_be_there(export, tmp_path):
    ckpt, _ = export(runs.CTC, labels=runs.save_characters)
    with pytest.raises(ValueError, match="an entry that decodes"):
        export_recipe(ckpt, tmp_path / "new", interface="EncoderDecoderASR")


@BOTH
def test_emotions_are_classified(export, tmp_path, lobe):
    ckpt, built = export(runs.EMOTIONS, lobe)
    with torch.no_grad():
        pooled = built["avg_pool"](built["wav2vec2"](WAVS, LENS), LENS)
        expected = built["log_softmax"](built["output_mlp"](pooled[:, 0]))
    export_recipe(ckpt, tmp_path / "new")
    folder = moved(tmp_path / "new", tmp_path)
    classifier = EncoderClassifier.from_hparams(source=folder)
    found, score, index, labels = classifier.classify_batch(WAVS, LENS)
    rows = slice(None) if lobe == runs.OURS else slice(1)
    torch.testing.assert_close(
        found[rows], expected[rows], rtol=1e-4, atol=1e-4
    )
    assert labels == [classifier.hparams.label_encoder.ind2lab[int(i)]
                      for i in index]  # fmt: skip
    assert set(labels) <= {"neu", "hap", "sad", "ang"}


@pytest.mark.parametrize("name", ["speakers", "commands"])
def test_a_block_that_was_frozen_comes_from_the_model_it_began_with(
    export, tmp_path, name
):
    text = runs.BLOCK if name == "speakers" else runs.COMMANDS
    ckpt, built = export(text)
    assert not (ckpt / "compute_features.ckpt").exists()
    with torch.no_grad():
        feats = built["compute_features"](WAVS, LENS)
        feats = built["mean_var_norm"](feats, LENS)
        vectors = built["embedding_model"](feats, LENS)
        scores = built["classifier"](vectors)
        if "softmax" in built:
            scores = built["softmax"](scores)
    export_recipe(ckpt, tmp_path / "new")
    folder = moved(tmp_path / "new", tmp_path)
    cls = SpeakerRecognition if name == "speakers" else EncoderClassifier
    interface = cls.from_hparams(source=folder)
    same = {"rtol": 1e-3, "atol": 1e-3}  # Xvector's pooling adds noise
    torch.testing.assert_close(
        interface.encode_batch(WAVS, LENS), vectors, **same
    )
    found = EncoderClassifier.from_hparams(source=folder)
    posteriors = found.classify_batch(WAVS, LENS)[0]
    torch.testing.assert_close(posteriors, scores.squeeze(1), **same)
    if name == "speakers":
        score, _ = interface.verify_batch(WAVS, WAVS, LENS, LENS)
        torch.testing.assert_close(score.squeeze(), torch.ones(2))


@pytest.mark.parametrize("layernorm", [False, True])
@BOTH
def test_a_weighted_sum_goes_along(export, tmp_path, lobe, layernorm):
    """As in MP3S, whose lobe is in the model's list of modules or alone."""
    text = runs.EMOTIONS.replace("source: HUB", "hub: HUB")
    text = text.replace("output_norm: True", f"layernorm: {layernorm}")
    cls = WEIGHTED if lobe == runs.OURS else (
        "speechbrain.integrations.huggingface.weighted_ssl.WeightedSSLModel"
    )  # fmt: skip
    ckpt, built = export(text, cls)
    with torch.no_grad():
        built["wav2vec2"].weights.copy_(torch.tensor([1.0, -1.0, 0.5, 2.0]))
        ckpt = built["checkpointer"].save_checkpoint().path
        pooled = built["avg_pool"](built["wav2vec2"](WAVS))
        expected = built["log_softmax"](built["output_mlp"](pooled[:, 0]))
    export_recipe(ckpt, tmp_path / "new")
    folder = moved(tmp_path / "new", tmp_path)
    classifier = EncoderClassifier.from_hparams(source=folder)
    found = classifier.classify_batch(WAVS)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_folder_is_one_of_this_package(export, tmp_path):
    ckpt, built = export(runs.CTC, labels=runs.save_characters)
    export_recipe(ckpt, tmp_path / "new")
    text = str(describe(tmp_path / "new"))
    assert "EncoderASR" in text and "would not convert: " in text
    with pytest.raises(ValueError, match="no class for ctc_lin, enc"):
        to_huggingface(tmp_path / "new", tmp_path / "hf")
    to_huggingface(
        tmp_path / "new", tmp_path / "hf", None, True, output_norm=False
    )
    again = Backbone.from_pretrained(tmp_path / "new", output_norm=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(WAVS), built["wav2vec2"](WAVS))


def test_other_names_are_given_by_hand(export, tmp_path):
    text = runs.CTC.replace("ctc_lin", "scores").replace("enc:", "dnn:")
    text = text.replace("<enc>", "<dnn>")
    ckpt, built = export(text, labels=runs.save_characters)
    yaml = tmp_path / "results.yaml"
    options = {"interface": "EncoderASR", "yaml": yaml}
    with pytest.raises(ValueError, match="give --forward"):
        export_recipe(ckpt, tmp_path / "new", **options)
    line = ["export", str(ckpt), str(tmp_path / "new"), "--yaml", str(yaml)]
    line += ["--interface", "EncoderASR", "--forward", "wav2vec2,dnn,scores"]
    assert main(line) == 0
    asr = EncoderASR.from_hparams(source=str(tmp_path / "new"))
    assert asr.encode_batch(WAVS, LENS).shape == (2, 24, 6)


HOSTILE = """\
enc: !new:subprocess.Popen
    args: [touch, PROOF]
"""


def test_nothing_that_is_not_listed_is_built(export, tmp_path):
    ckpt, _ = export(runs.CTC, labels=runs.save_characters)
    yaml, proof = tmp_path / "results.yaml", tmp_path / "proof"
    text = yaml.read_text()
    start, end = text.index("enc: !new"), text.index("wav2vec2: !new")
    hostile = HOSTILE.replace("PROOF", str(proof))
    nested = text.replace("!name:torch.nn.LeakyReLU", "!name:os.system")
    applied = text.replace(text[start:end], "enc: !apply:os.getcwd []\n")
    for content, named in (
        (text[:start] + hostile + text[end:], "subprocess.Popen"),
        (nested, "os.system"),
        (applied, "os.getcwd"),
    ):
        yaml.write_text(content)
        with pytest.raises(ValueError, match=named) as caught:
            export_recipe(ckpt, tmp_path / "new", yaml)
        assert "\n" not in str(caught.value)
    assert not proof.exists() and not (tmp_path / "new").exists()


def change(ckpt, name, change_it):
    """Rewrites a file of a checkpoint."""
    state = torch.load(ckpt / name)
    change_it(state)
    torch.save(state, ckpt / name)


@pytest.mark.parametrize(
    "name, damage, expected",
    [
        ("a tensor is missing", lambda s: s.pop("1.w.bias"), "missing w.bias"),
        ("one is added", lambda s: s.update({"1.x": s["1.w.bias"]}),
         "unexpected x"),
        ("NaN", lambda s: s["1.w.bias"].fill_(float("nan")), "finite"),
        ("shape", lambda s: s.update({"1.w.bias": torch.ones(7)}), "misshapen"),
    ],
)  # fmt: skip
def test_files_have_to_fit(export, tmp_path, name, damage, expected):
    ckpt, _ = export(runs.CTC, labels=runs.save_characters)
    change(ckpt, "model.ckpt", damage)
    with pytest.raises(ValueError, match=expected) as caught:
        export_recipe(ckpt, tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.glob("*new*")] == []


def test_labels_have_to_fit(export, tmp_path, capsys):
    ckpt, _ = export(runs.CTC, labels=lambda path: None)
    new = str(tmp_path / "new")
    for labels, expected in (
        (None, "--labels FILE"),
        (tmp_path / "results.yaml", "expected labels"),
        (tmp_path / "none", "no such file"),
    ):
        given = [] if labels is None else ["--labels", str(labels)]
        assert main(["export", str(ckpt), new, *given]) == 1
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and expected in error[0]
    many = [f"c{i}" for i in range(9)]
    runs.save_classes(tmp_path / "many.txt", many)
    with pytest.raises(ValueError, match="scores of 9 labels"):
        export_recipe(ckpt, new, labels=tmp_path / "many.txt")
    few = tmp_path / "few.txt"
    runs.save_classes(few, ["a", "b"])
    assert "6 outputs, labels for 2" in export_recipe(ckpt, new, labels=few)


def test_what_was_trained_and_not_saved_is_named(export, tmp_path):
    ckpt, _ = export(runs.BLOCK.replace("    freeze: True\n", ""))
    with pytest.raises(ValueError, match="trained and not saved"):
        export_recipe(ckpt, tmp_path / "new")


def test_a_module_that_was_not_saved_is_named(export, tmp_path):
    text = runs.CTC.replace("- [!ref <enc>, !ref", "- [!ref")
    ckpt, _ = export(text, labels=runs.save_characters)
    with pytest.raises(ValueError, match="weights of .*enc.*not saved"):
        export_recipe(ckpt, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_a_checkpoint_is_exported(hub, tmp_path, capsys):
    for source in (hub, tmp_path / "none"):
        assert main(["export", str(source)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["decoder", "pre-training"])
def test_what_no_interface_loads_is_named(export, tmp_path, name):
    text = runs.EMOTIONS.replace("output_mlp: !ref", "dec: !ref")
    text = (
        runs.SSL.replace("    mask_length: 2\n", "")
        if name != "decoder"
        else text
    )
    ckpt, _ = export(text)
    expected = "a decoder, dec," if name == "decoder" else "a backbone alone"
    with pytest.raises(ValueError, match=expected) as caught:
        export_recipe(ckpt, tmp_path / "new")
    assert "unispeech-sb convert" in str(caught.value)
