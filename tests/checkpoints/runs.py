"""Runs of SpeechBrain's recipes: yaml, folders and checkpoints as they write
them, with the modules that their yamls name."""

import io

import speechbrain
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder, CTCTextEncoder
from torch import nn

CTC = """\
seed: 1986
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
output_folder: OUTPUT
save_folder: !ref <output_folder>/save
data_folder: !PLACEHOLDER  # e.g., /path/to/LibriSpeech
wav2vec2_hub: HUB
wav2vec2_folder: !ref <save_folder>/wav2vec2_checkpoint
lr: 0.9
dim: 16
activation: !name:torch.nn.LeakyReLU
dnn_neurons: !ref <dim> // 2
blank_index: 0
output_neurons: 6
label_encoder: !new:speechbrain.dataio.encoder.CTCTextEncoder
enc: !new:speechbrain.lobes.models.VanillaNN.VanillaNN
   input_shape: [null, null, !ref <dim>]
   activation: !ref <activation>
   dnn_blocks: 2
   dnn_neurons: !ref <dnn_neurons>
wav2vec2: !new:LOBE
   source: !ref <wav2vec2_hub>
   output_norm: True
   freeze: True
   save_path: !ref <wav2vec2_folder>
ctc_lin: !new:speechbrain.nnet.linear.Linear
   input_size: !ref <dnn_neurons>
   n_neurons: !ref <output_neurons>
log_softmax: !new:speechbrain.nnet.activations.Softmax
   apply_log: True
ctc_cost: !name:speechbrain.nnet.losses.ctc_loss
   blank_index: !ref <blank_index>
modules:
   wav2vec2: !ref <wav2vec2>
   enc: !ref <enc>
   ctc_lin: !ref <ctc_lin>
model: !new:torch.nn.ModuleList
   - [!ref <enc>, !ref <ctc_lin>]
model_opt_class: !name:torch.optim.Adadelta
   lr: !ref <lr>
scheduler: !new:speechbrain.nnet.schedulers.NewBobScheduler
   initial_value: !ref <lr>
counter: !new:speechbrain.utils.epoch_loop.EpochCounter
   limit: 3
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
   checkpoints_dir: !ref <save_folder>
   recoverables:
      wav2vec2: !ref <wav2vec2>
      model: !ref <model>
      scheduler_model: !ref <scheduler>
      counter: !ref <counter>
      tokenizer: !ref <label_encoder>
"""
"""LibriSpeech's recipe of CTC. Common Voice's has another ``enc``, and
pieces."""

BATCH_NORM = """\
enc: !new:speechbrain.nnet.containers.Sequential
   input_shape: [null, null, !ref <dim>]
   linear1: !name:speechbrain.nnet.linear.Linear
      n_neurons: !ref <dnn_neurons>
      bias: True
   bn1: !name:speechbrain.nnet.normalization.BatchNorm1d
   activation1: !new:torch.nn.LeakyReLU
   drop: !new:torch.nn.Dropout
      p: 0.1
"""

EMOTIONS = """\
output_folder: OUTPUT
save_folder: !ref <output_folder>/save
wav2vec2: !new:LOBE
    source: HUB
    output_norm: True
    save_path: !ref <save_folder>/wav2vec2_checkpoint
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False
output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 4
    bias: False
modules:
    wav2vec2: !ref <wav2vec2>
    output_mlp: !ref <output_mlp>
model: !new:torch.nn.ModuleList
    - [!ref <output_mlp>]
log_softmax: !new:speechbrain.nnet.activations.Softmax
    apply_log: True
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        model: !ref <model>
        wav2vec2: !ref <wav2vec2>
"""
"""IEMOCAP's."""

BLOCK = """\
output_folder: OUTPUT
save_folder: !ref <output_folder>/save
verification_file: https://example.org/veri_test2.txt
compute_features: !new:LOBE
    source: HUB
    save_path: !ref <save_folder>
    freeze: True
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 16
    channels: [8, 8, 8, 8, 24]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    groups: [1, 1, 1, 1, 1]
    attention_channels: 4
    lin_neurons: 6
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 6
    out_neurons: 4
modules:
    compute_features: !ref <compute_features>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    mean_var_norm: !ref <mean_var_norm>
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        normalizer: !ref <mean_var_norm>
"""
"""VoxCeleb's, with the block of its features changed: the frozen lobe is no
recoverable."""

COMMANDS = BLOCK.replace(
    BLOCK[BLOCK.index("embedding_model: !new") : BLOCK.index("modules:")],
    """\
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: 16
    activation: !name:torch.nn.LeakyReLU
    tdnn_blocks: 2
    tdnn_channels: [8, 24]
    tdnn_kernel_sizes: [5, 1]
    tdnn_dilations: [1, 1]
    lin_neurons: 6
classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, 6]
    activation: !name:torch.nn.LeakyReLU
    lin_blocks: 1
    lin_neurons: 6
    out_neurons: 4
softmax: !new:speechbrain.nnet.activations.Softmax
    apply_log: True
""",
).replace("verification_file", "noise_file")
"""Google Speech Commands'."""

_CRDNN = """\
cnn_channels: (2, 3)
enc: !new:speechbrain.lobes.models.CRDNN.CRDNN
    input_shape: [null, null, 16]
    cnn_channels: !ref <cnn_channels>
    cnn_kernelsize: (3, 3)
    rnn_class: !name:speechbrain.nnet.RNN.LSTM
    rnn_layers: 1
    rnn_neurons: 5
    dnn_blocks: 1
    dnn_neurons: 8
"""
_RNN = """\
emb: !new:speechbrain.nnet.embedding.Embedding
    num_embeddings: 6
    embedding_dim: 4
dec: !new:speechbrain.nnet.RNN.AttentionalRNNDecoder
    enc_dim: SIZE
    input_size: 4
    rnn_type: gru
    attn_type: location
    hidden_size: 8
    attn_dim: 5
    num_layers: 1
    scaling: 1.0
    channels: 2
    kernel_size: 10
    dropout: 0.5
"""
_TRANSFORMER = """\
Transformer: !new:speechbrain.lobes.models.transformer.TransformerASR.\
TransformerASR
    input_size: SIZE
    tgt_vocab: 6
    d_model: 8
    nhead: 2
    num_encoder_layers: 1
    num_decoder_layers: 1
    d_ffn: 12
"""
_LINEAR = """\
NAME: !new:speechbrain.nnet.linear.Linear
    input_size: 8
    n_neurons: 6
"""
_SEARCHER = """\
NAME: !new:speechbrain.decoders.S2SKINDSearcher
    bos_index: 0
    eos_index: 1
    min_decode_ratio: 0.4
    max_decode_ratio: 1.0
"""
_SCORER = """\
blank_index: 2
normalize: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
lm_model: !new:speechbrain.lobes.models.RNNLM.RNNLM
    output_neurons: 6
    embedding_dim: 4
    activation: !name:torch.nn.LeakyReLU
    rnn_layers: 1
    rnn_neurons: 5
    dnn_neurons: 4
    return_hidden: True
coverage_scorer: !new:speechbrain.decoders.scorer.CoverageScorer
    vocab_size: 6
rnnlm_scorer: !new:speechbrain.decoders.scorer.RNNLMScorer
    language_model: !ref <lm_model>
    temperature: 1.25
ctc_scorer: !new:speechbrain.decoders.scorer.CTCScorer
    ctc_fc: !ref <ctc_lin>
    blank_index: !ref <blank_index>
    eos_index: 1
scorer: !new:speechbrain.decoders.scorer.ScorerBuilder
    full_scorers: [!ref <rnnlm_scorer>, !ref <coverage_scorer>]
    partial_scorers: [!ref <ctc_scorer>]
    weights:
        rnnlm: 0.5
        coverage: 1.5
        ctc: 0.3
tokenizer: !new:sentencepiece.SentencePieceProcessor
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    collect_in: !ref <save_folder>/published
    loadables:
        lm: !ref <lm_model>
        tokenizer: !ref <tokenizer>
    paths:
        lm: HUB/lm.ckpt
        tokenizer: HUB/6_char.model
"""


def sequences(encoder=True, transformer=False, scorer=False):
    """The yaml of a recipe with a decoder: TIMIT's, SLURP's without an encoder,
    AISHELL's with a Transformer; LibriSpeech's with a scorer, and with its
    block of features changed, which are frozen and no module."""
    names = ["enc"] * encoder + ["ctc_lin", "seq_lin"]
    names += ["Transformer"] if transformer else ["emb", "dec"]
    decoder = _TRANSFORMER if transformer else _RNN
    used = "    embedding: !ref <emb>\n    decoder: !ref <dec>\n"
    used += "    linear: !ref <seq_lin>\n"
    if transformer:
        used = "    modules: [!ref <Transformer>, !ref <seq_lin>]\n"
    kind = "Transformer" if transformer else "RNN"
    test = (
        _SEARCHER.replace("KIND", f"{kind}Beam") + used + "    beam_size: 4\n"
    )
    test += "    scorer: !ref <scorer>\n" * scorer
    lobe, norm = ("wav2vec2", "wav2vec2")
    if scorer:
        lobe, norm = ("compute_features", "normalize")
    text = EMOTIONS[: EMOTIONS.index("avg_pool:")]
    text = text.replace("output_norm", "freeze" if scorer else "output_norm")
    modules = [*names, *(["lm_model", norm] if scorer else [lobe])]
    return "".join((
        text.replace("wav2vec2:", f"{lobe}:"),
        _CRDNN * encoder,
        decoder.replace("SIZE", "8" if encoder else "16"),
        *(_LINEAR.replace("NAME", name) for name in ("ctc_lin", "seq_lin")),
        _SCORER * scorer,
        _SEARCHER.replace("KIND", f"{kind}Greedy").replace("NAME", "valid")
        + used,
        test.replace("NAME", "test_search"),
        "modules:\n",
        *(f"    {name}: !ref <{name}>\n" for name in modules),
        "model: !new:torch.nn.ModuleList\n    - [",
        ", ".join(f"!ref <{name}>" for name in names) + "]\n",
        EMOTIONS[EMOTIONS.index("checkpointer:") :].replace(
            "wav2vec2: !ref <wav2vec2>", f"{norm}: !ref <{norm}>"
        ),
    ))  # fmt: skip


SSL = """\
output_folder: OUTPUT
save_folder: !ref <output_folder>/save
wav2vec2: !new:LOBE
    source: HUB
    save_path: !ref <save_folder>/wav2vec2_checkpoint
    mask_length: 2
modules:
    wav2vec2: !ref <wav2vec2>
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        wav2vec2: !ref <wav2vec2>
"""
"""Common Voice's of pre-training."""

THEIRS = "speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2"
OURS = "unispeech_sb.lobes.Wav2Vec2"


def run(folder, text, hub, lobe=OURS, **meta):
    """Starts a run of a recipe and saves a checkpoint, whose folder is given
    with what the yaml built, and random weights in all of it."""
    text = text.replace("LOBE", lobe).replace("HUB", str(hub))
    text = text.replace("OUTPUT", str(folder))
    file = folder.parent / f"{folder.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    overrides = {"data_folder": "/data"} if "data_folder" in text else {}
    hparams = load_hyperpyyaml(io.StringIO(text), overrides)
    speechbrain.create_experiment_directory(
        str(folder), str(file), overrides, save_env_desc=False
    )
    for module in hparams["modules"].values():
        scatter(module)
    saved = hparams["checkpointer"].save_checkpoint(meta=meta)
    return saved.path, hparams


def scatter(module):
    """Gives norms and the last layer values that are not those of a start."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == 6:
            layer.weight.data.normal_(0, 5, generator=generator)
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)


def save_characters(path):
    """The label file of a CTC recipe."""
    encoder = CTCTextEncoder()
    encoder.insert_blank(index=0)
    encoder.update_from_iterable(["A", "B", " ", "C", "D"])
    encoder.save(path)


def save_phones(path):
    """The label file of a recipe of sequences."""
    encoder = CTCTextEncoder()
    encoder.insert_bos_eos("<bos>", "<eos>", bos_index=0, eos_index=1)
    encoder.insert_blank(index=2)
    encoder.update_from_iterable(["aa", "b", "k"], sequence_input=False)
    encoder.save(path)


def save_classes(path, names=("neu", "hap", "sad", "ang")):
    """The label file of a recipe of classes."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(names)
    encoder.save(path)
