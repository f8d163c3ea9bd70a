"""Folders of an exported model: a graph, and what is known of it.

A folder has ``model.onnx`` for ONNX Runtime, or ``model.xml`` and ``model.bin``
for OpenVINO, with ``model.json`` and a README beside; or what the package
onnx-asr reads.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unispeech_sb import __version__
from unispeech_sb.atomic import write_json
from unispeech_sb.checkpoints.interfaces import GRAPH_FILE, INTERFACES
from unispeech_sb.checkpoints.pretrained_folder import new_folder
from unispeech_sb.inference.features import StateEncoder
from unispeech_sb.inference.graphs import (
    Graph,
    OnnxASRGraph,
    open_graph,
    write_graph,
)
from unispeech_sb.inference.loading import expect_exportable, load
from unispeech_sb.lobes.heads import FramePosteriors, UtteranceEncoder

_RUNTIMES = {
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "onnx-asr": "onnx-asr",
}
"""What a model is exported to -> what runs it."""
_SECONDS = (1.31, 0.7, 2.3)
"""Of the batch that a written graph is tried with."""

_MEANINGS = {
    "wavs": "[batch, samples], float32: waveforms at {rate} Hz, from -1 to 1, "
    "anything behind the shorter ones; each at least {least} samples",
    "wav_lens": "[batch], float32: valid share of each, in (0, 1]",
    "input_lengths": "[batch], int64: valid samples of each",
    "log_posteriors": "[batch, classes], or [batch, frames, classes]: "
    "log-posteriors of the `labels` in model.json",
    "num_frames": "[batch], int64: valid frames of each row",
    "embeddings": "[batch, size]: a vector for each utterance",
    "activities": "[batch, frames, speakers]: probability that each is active, "
    "0 in the padding",
    "speakers": "[batch, speakers, size]: a unit vector for each",
    "features": "[batch, frames, size]: features, or states of a layer",
}
"""Input or output -> what it is."""
_SAME = {"input_values": "wavs", "logprobs": "log_posteriors"}

_CODE = {
    "onnx": """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
feeds = {"wavs": wavs, "wav_lens": np.ones(len(wavs), np.float32)}
outputs = session.run(None, feeds)""",
    "openvino": """\
import numpy as np
import openvino

# Left alone, OpenVINO computes in bfloat16 where the processor has it
options = {"INFERENCE_PRECISION_HINT": "f32"}
model = openvino.compile_model("model.xml", "CPU", options)
feeds = {"wavs": wavs, "wav_lens": np.ones(len(wavs), np.float32)}
outputs = model(feeds)""",
    "onnx-asr": """\
import onnx_asr

model = onnx_asr.load_model("wav2vec2-ctc", "PATH/TO/THIS/FOLDER")
text = model.recognize("a.wav")""",
}

_README = """\
# {name} for {runtime}

Exported by unispeech_sb {version} for {task}, {precision}: a folder for {kind}.

| input or output | shape, type and meaning |
|---|---|
{rows}

Batch and length may be any, and an utterance gives the same alone and in any
batch{but}. Waveforms are normalised inside, where the model asks for it.

```python
{code}
```
"""


def export_graph(
    folder: str | Path,
    dst: str | Path,
    to: str = "onnx",
    int8: bool = False,
    layers: Sequence[int] | str | None = None,
    trust: bool = False,
) -> str:
    """Exports the model of a pretrained folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        A pretrained folder of any kind, or what ``load`` takes.
    dst : str or pathlib.Path
        The folder to make; must not hold anything yet.
    to : str
        ``onnx``, ``openvino``, or ``onnx-asr``: for the package of that name,
        of a folder for ``EncoderASR``.
    int8 : bool
        Weights of the linear layers in 8 bits.
    layers : list of int or str, optional
        Of a folder of features: the layers to give, 0 for the encoder's input,
        or ``all``; the features when omitted.
    trust : bool
        As for ``CheckedFolder.from_hparams``.

    Returns
    -------
    str
        The report for the terminal.

    Raises
    ------
    ValueError
        When the model cannot be exported, or ``dst`` exists. Nothing is
        written then.

    Example
    -------
    >>> export_graph("nowhere", "new")
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected a folder with hyperparams.yaml, a Hugging ...
    """
    interface = load(folder, trust=trust)
    graph = _graph(interface, to, layers)
    about = _about(interface, graph, int8)
    files = _onnx_asr_files(interface, graph) if to == "onnx-asr" else {}
    engine = "openvino" if to == "openvino" else "onnx"
    with new_folder(dst) as new:
        notes = {name: _text(value) for name, value in about.items()}
        write_graph(graph, new, engine, int8, notes)
        write_json(new / GRAPH_FILE, about)
        files["README.md"] = _readme(Path(folder).name, graph, about, to)
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        distance = _distance(graph, open_graph(new, engine))
        names = sorted(path.name for path in new.iterdir())
    return "\n".join(
        [
            f"Wrote {dst} for {_RUNTIMES[to]}: {', '.join(names)}",
            f"inputs   {', '.join(graph.inputs)}",
            f"outputs  {', '.join(graph.outputs)}",
            f"tried    {distance:.1e} of their root mean square is the largest "
            "difference from the model",
        ]
    )


def _graph(interface, to, layers):
    """The graph of a folder's model."""
    model, classifier = interface.exportable, None
    if to == "onnx-asr":
        return OnnxASRGraph(expect_exportable(model, FramePosteriors))
    if isinstance(model, StateEncoder):
        numbers = layers and interface.checked_layers(layers)
        model = StateEncoder(model.backbone, numbers)
    elif layers is not None:
        raise ValueError(
            "layers: expected a folder for WaveformEncoder, which gives "
            f"features; got one that gives {', '.join(model.outputs)}"
        )
    if isinstance(model, UtteranceEncoder) and "classifier" in interface.mods:
        classifier = interface.mods["classifier"]
    return Graph(model, classifier)


def _about(interface, graph, int8):
    """What is known of a graph: name -> value."""
    kinds = {row.ours.rpartition(".")[2]: k for k, row in INTERFACES.items()}
    found: dict[str, Any] = {
        "class": kinds[type(interface).__name__],
        "sampling_rate": graph.rate,
        "min_samples": graph.min_samples,
        "precision": "int8" if int8 else "float32",
        "unispeech_sb": __version__,
    }
    if "num_frames" in graph.outputs:
        found["frame_s"] = graph.frame_s
    encoder = getattr(interface.hparams, "label_encoder", None)
    if isinstance(graph.holder, FramePosteriors):
        found["blank_index"] = graph.holder.blank_index
        encoder = interface.tokenizer
    if encoder is not None:
        found["labels"] = _labels(encoder)
    return found


def _labels(encoder):
    """Labels or tokens by index."""
    return [str(encoder.ind2lab[n]) for n in range(len(encoder.ind2lab))]


def _text(value):
    """A value in a metadata entry: texts as they are, else JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _onnx_asr_files(interface, graph):
    """What onnx-asr reads beside a graph: name -> text. It spells a token as
    it is, but for spaces, which are U+2581 there; special ones are empty."""
    tokenizer, blank = interface.tokenizer, graph.holder.blank_index
    lines, start = [], "\u2581" if tokenizer.separator else ""
    for index, token in enumerate(_labels(tokenizer)):
        if index == blank:
            token = "<blk>"
        elif token == tokenizer.word_delimiter:
            token = "\u2581"
        elif token in tokenizer.specials:
            token = ""
        else:
            token = f"{start}{token.lower() if tokenizer.lowercase else token}"
        lines.append(f"{token} {index}\n")
    if any(line.count(" ") > 1 for line in lines):
        raise ValueError(
            "tokens: expected those without spaces, as onnx-asr reads no others"
        )
    hop = graph.backbone.feature_extractor.hop
    config = {"model_type": "wav2vec2-ctc", "subsampling_factor": hop}
    return {
        "vocab.txt": "".join(lines),
        "config.json": json.dumps(config, indent=2) + "\n",
    }


def _readme(name, graph, about, to):
    """Text of the folder's README."""
    but = ""
    if not graph.is_exact:
        but = (
            ", but for padding, which its `mask_rule` or `tdnn_lengths` counts"
        )
    rows = []
    for entry in (*graph.inputs, *graph.outputs):
        known = _SAME.get(entry, entry)
        meaning = _MEANINGS.get(known, _MEANINGS["features"])
        meaning = meaning.format(rate=graph.rate, least=graph.min_samples)
        rows.append(f"| `{entry}` | {meaning} |")
    kind = about["class"]
    return _README.format(
        name=name, runtime=_RUNTIMES[to], version=__version__, kind=kind,
        task=INTERFACES[kind].task, precision=about["precision"], but=but,
        rows="\n".join(rows), code=_CODE[to],
    )  # fmt: skip


@torch.no_grad()
def _distance(graph, run):
    """Largest difference of the written graph from the model, over the root
    mean square of an output, for waveforms alone and in a padded batch."""
    names = list(graph.inputs)
    counts = [max(round(s * graph.rate), graph.min_samples) for s in _SECONDS]
    draw = torch.Generator().manual_seed(0)
    wavs = 0.1 * torch.randn(len(counts), max(counts), generator=draw)
    lengths = torch.tensor(counts)
    if isinstance(graph, OnnxASRGraph):
        whole = lengths
    else:
        whole, lengths = torch.ones(len(counts)), lengths / max(counts)
    batch, largest = run(dict(zip(names, (wavs, lengths)))), 0.0
    for row, count in enumerate(counts):
        alone = wavs[row : row + 1, :count], whole[row : row + 1]
        pairs = [run(dict(zip(names, alone))), [x[row:] for x in batch]]
        for found in pairs if graph.is_exact else pairs[:1]:
            for value, expected in zip(found, graph(*alone), strict=True):
                expected = expected[0].float()
                valid = value[0][tuple(slice(n) for n in expected.shape)]
                scale = expected.square().mean().sqrt().clamp(min=1e-6)
                off = (valid - expected).abs().max() / scale
                largest = max(largest, off.item())
    return largest
