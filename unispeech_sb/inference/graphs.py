"""Models as graphs, which ONNX Runtime and OpenVINO run.

What a graph computes is the ``compute`` of an interface's model: its backbone
and its head, from waveforms to frames or vectors. It serves batches and lengths
of any size, and an utterance gives the same alone and in any batch, as nothing
of the example that it is recorded with decides anything in it.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb import __version__
from unispeech_sb.atomic import cached_folder
from unispeech_sb.checkpoints.pretrained_folder import new_folder
from unispeech_sb.lobes.heads import SpeakerHead
from unispeech_sb.nnet.frontend import (
    CPU_PIECE_SAMPLES,
    groups_of_similar_length,
)

PRECISIONS = {
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}
"""What runs a graph -> what it may compute in."""

_OPSET = 18
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> OpenVINO's hint: left alone, it takes bfloat16 where the
processor has units for it."""


class Graph(nn.Module):
    """What is recorded: from waveforms and lengths to named outputs.

    Arguments
    ---------
    holder : object
        With ``backbone``, ``head`` (but for features), ``compute`` and the
        ``outputs`` that it gives.
    classifier : torch.nn.Module, optional
        Adds the log-posteriors of vectors.
    prepared : bool
        Take normalised waveforms, counts of samples and, of models that
        normalise their first layer over time, the mean and variance to
        normalise by, as ``GraphRunner`` gives them.
    """

    def __init__(
        self,
        holder: Any,
        classifier: nn.Module | None = None,
        prepared: bool = False,
    ) -> None:
        super().__init__()
        self.holder, self.prepared = holder, prepared
        self.backbone, self.classifier = holder.backbone, classifier
        self.head = getattr(holder, "head", None)
        self.outputs = list(holder.outputs)
        if classifier is not None:
            self.outputs.append("log_posteriors")
        window_s = self.backbone.config["window_s"]
        if window_s is not None:
            raise ValueError(
                "window_s: a graph has no windows, so the backbone is expected "
                f"to have none; got {window_s}"
            )

    @property
    def inputs(self) -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
        """Name -> an example, and the axes of any size."""
        samples, least = 8 * self.min_samples + 1237, self.min_samples + 321
        wavs = torch.randn(2, samples), {0: "batch", 1: "samples"}
        counts = torch.tensor([samples, least])
        if not self.prepared:
            return {"wavs": wavs, "wav_lens": (counts / samples, {0: "batch"})}
        found = {"wavs": wavs, "num_samples": (counts, {0: "batch"})}
        moments = self.backbone.feature_extractor.first_moments(wavs[0], None)
        for name, value in zip(("mean", "variance"), moments or ()):
            found[name] = value, {0: "batch"}
        return found

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        return 16000 if self.prepared else getattr(self.holder, "rate", 16000)

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        hop = self.backbone.feature_extractor.hop
        return getattr(self.holder, "frame_s", hop / 16000)

    @property
    def is_exact(self) -> bool:
        """Whether padding changes nothing."""
        head = getattr(self.head, "config", {})
        return (
            self.backbone.mask_rule == "hf" and head.get("tdnn_lengths") != "hf"
        )

    @property
    def min_samples(self) -> int:
        """Fewest samples of an utterance."""
        extractor, frames = self.backbone.feature_extractor, 1
        if isinstance(self.head, SpeakerHead):
            frames = self.head.least_frames
        least = extractor.field + (frames - 1) * extractor.hop
        return -(-least * self.rate // 16000)

    def forward(
        self,
        wavs: torch.Tensor,
        lengths: torch.Tensor,
        mean: torch.Tensor | None = None,
        variance: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Computes the outputs of a batch, [B, N]."""
        compute = type(self.holder).compute
        if self.prepared:
            moments = None
            if mean is not None and variance is not None:
                moments = mean, variance
            with _given(self.backbone, moments):
                return compute(self.holder, wavs, lengths)
        if hasattr(self.holder, "widen"):
            wavs = self.holder.widen(wavs, lengths)
        found = compute(self.holder, wavs, lengths)
        if self.classifier is None:
            return found
        return *found, self.classifier(found[0][:, None])[:, 0]

    def digest(self) -> str:
        """Of all that the outputs depend on."""
        lobes = [
            lobe for lobe in (self.backbone, self.head) if lobe is not None
        ]
        about = [__version__, type(self.holder).__name__, self.outputs]
        about += [[type(lobe).__name__, lobe.config] for lobe in lobes]
        found = hashlib.sha256(json.dumps(about, default=str).encode())
        for lobe in lobes:
            for tensor in lobe.state_dict().values():
                data = tensor.detach().cpu().contiguous().flatten()
                found.update(data.view(torch.uint8).numpy().data)
        return found.hexdigest()[:16]


class OnnxASRGraph(Graph):
    """The same, with the names that the package onnx-asr gives, and counts of
    samples in the place of shares."""

    def __init__(self, holder: Any) -> None:
        super().__init__(holder)
        self.outputs = ["logprobs", "num_frames"]

    @property
    def inputs(self) -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
        """Name -> an example, and the axes of any size."""
        wavs, shares = super().inputs.values()
        counts = (shares[0] * wavs[0].shape[1]).round().long()
        return {"input_values": wavs, "input_lengths": (counts, shares[1])}


@contextmanager
def _given(backbone, moments):
    """Within it the backbone takes waveforms as they are, and moments."""
    extractor, normalizes = backbone.feature_extractor, backbone.normalize_wav
    extractor.moments, backbone.normalize_wav = moments, False
    try:
        yield
    finally:
        extractor.moments, backbone.normalize_wav = None, normalizes


def write_onnx(graph: Graph, path: Path, about: Mapping[str, str]) -> None:
    """Writes a graph to an .onnx file, with texts about it in its metadata."""
    inputs = graph.inputs
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=graph.outputs,
            dynamic_shapes=tuple(axes for _, axes in inputs.values()),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # of dynamo
    program.model.metadata_props.update(about)
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it the exporters say nothing but errors."""
    names = "", "torch.onnx", "onnxscript"
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def write_graph(
    graph: Graph,
    folder: Path,
    engine: str,
    int8: bool = False,
    about: Mapping[str, str] = {},
) -> None:
    """Writes what an engine reads into a folder."""
    path = folder / "model.onnx"
    write_onnx(graph, path, about)
    if engine == "openvino" or int8:
        source = path.rename(folder / "source.onnx")
        _CONVERTERS[engine](source, folder, int8, about)
        source.unlink()


def check_engine(engine: str, precision: str, holder: Any) -> None:
    """Refuses a precision that an engine does not have, and a model that is no
    graph."""
    if precision not in PRECISIONS[engine]:
        raise ValueError(
            f"precision: expected one of {', '.join(PRECISIONS[engine])} with "
            f"{engine}; got {precision!r}"
        )
    Graph(holder, prepared=True)


class GraphRunner:
    """Runs a graph in the place of a model's ``compute``.

    Waveforms are checked and normalised as by the model itself, so that what
    is normalised by statistics of a whole recording still is. Rows of similar
    length go through together, each group without the others' padding.
    """

    def __init__(self, engine: str, precision: str, holder: Any) -> None:
        self.graph = Graph(holder, prepared=True)
        digest, done = self.graph.digest(), f"{engine}: exported to"

        def write(path):
            with new_folder(path) as folder:
                write_graph(self.graph, folder, "onnx")  # which both read

        def quantize(path):
            with new_folder(path) as folder:
                _CONVERTERS[engine](source, folder, True, {})

        found = cached_folder("graphs", f"fp32-{digest}", write, done)
        if precision == "int8":
            source = found / "model.onnx"
            name = f"{engine}-int8-{digest}"
            found = cached_folder("graphs", name, quantize, done)
        self.run = open_graph(found, engine, precision)

    def __call__(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """Computes the outputs of a batch, [B, N]."""
        graph, backbone = self.graph, self.graph.backbone
        wavs, lengths, counted = backbone.prepare(wavs, wav_lens)
        batch, samples = wavs.shape
        counts = [samples] * batch if lengths is None else lengths.tolist()
        if isinstance(graph.head, SpeakerHead):
            shares = None
            if lengths is not None:
                shares = backbone.frame_lens(samples, lengths)
            graph.head.pooled_frames(
                batch, backbone.output_lengths(samples), shares
            )
        feeds = {"wavs": wavs.float(), "num_samples": torch.tensor(counts)}
        moments = backbone.feature_extractor.first_moments(wavs, counted)
        feeds |= zip(("mean", "variance"), moments or ())
        groups = groups_of_similar_length(counts, CPU_PIECE_SAMPLES)
        if not graph.is_exact:
            groups = [[*range(batch)]]
        rows: list[Any] = [None] * batch
        for group in groups:
            longest = samples if group is groups[-1] else counts[group[-1]]
            own = {name: value[group] for name, value in feeds.items()}
            own["wavs"] = own["wavs"][:, :longest].contiguous()
            found = self.run(own)
            for place, row in enumerate(group):
                rows[row] = [output[place] for output in found]
        return tuple(
            torch.stack(each)
            if each[0].dim() == 0
            else pad_sequence([*each], True)
            for each in zip(*rows, strict=True)
        )


def open_graph(
    folder: str | Path, engine: str, precision: str = "fp32"
) -> Callable[[Mapping[str, torch.Tensor]], list[torch.Tensor]]:
    """Opens the graph in a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        What ``export_graph`` wrote.
    engine : str
        ``onnx``, which reads ``model.onnx``, or ``openvino``, which reads that
        or ``model.xml``.
    precision : str
        Of OpenVINO: ``fp32``, or ``bf16`` where the processor has it.

    Returns
    -------
    callable
        From inputs, name -> tensor, to the outputs in their order.

    Raises
    ------
    ValueError
        When the file is missing or damaged.
    """
    names, folder = ["model.onnx"], Path(folder)
    if engine == "openvino":
        names.insert(0, "model.xml")
    for path in (folder / name for name in names):
        if path.is_file():
            if engine == "openvino":
                return _open_openvino(path, precision)
            return _open_onnx(path)
    raise ValueError(f"{folder}: expected {' or '.join(names)}")


def _open_onnx(path):
    """A session of ONNX Runtime."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it says is raised, too
    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile"
    names += " NotImplemented RuntimeException"
    with _refusing(path, tuple(getattr(faults, n) for n in names.split())):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    names = [output.name for output in session.get_outputs()]

    def run(feeds):
        arrays = {name: value.numpy() for name, value in feeds.items()}
        return [torch.from_numpy(x) for x in session.run(names, arrays)]

    return run


def _quantize_onnx(source, folder, int8, about):
    """Takes the linear layers of an .onnx file to 8 bits: weights for good,
    what they multiply as it comes."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded, new = folder / "folded.onnx", folder / "model.onnx"
    options = onnxruntime.SessionOptions()  # weights have to be constants
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(source), options)
    with _quiet():
        quantize_dynamic(
            folded,
            new,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    folded.unlink()
    model = onnx.load(new)
    onnx.helper.set_model_props(model, dict(about))
    onnx.save(model, new)


def _open_openvino(path, precision):
    """A model that OpenVINO has compiled."""
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with _refusing(path, (RuntimeError,)):
        compiled = openvino.Core().compile_model(path, "CPU", options)
    request = compiled.create_infer_request()

    def run(feeds):
        arrays = {name: value.numpy() for name, value in feeds.items()}
        found = request.infer(arrays)
        return [torch.from_numpy(found[output]) for output in compiled.outputs]

    return run


@contextmanager
def _refusing(path, faults):
    """Makes faults of opening a file one sentence."""
    try:
        yield
    except faults as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        raise ValueError(
            f"{path}: expected a whole graph, as unispeech-sb export writes it "
            f"({reason.strip()[:200]}): remove the folder, and export again"
        ) from error


def _quantize_openvino(model):
    """Takes the weights of linear layers to 8 bits, one scale for each output;
    where the processor can, OpenVINO takes what they multiply along."""
    from openvino import opset13 as ops
    from openvino import passes

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    for node in model.get_ordered_ops():
        weight = node.input_value(1).get_node() if _multiplies(node) else None
        if weight is None or weight.get_type_name() != "Constant":
            continue
        values = weight.data.astype(np.float32)
        inner = -1 if node.get_attributes()["transpose_b"] else -2
        largest = np.abs(values).max(inner, keepdims=True)
        scales = np.maximum(largest, np.finfo(np.float32).tiny) / 127
        small = ops.constant(np.round(values / scales).astype(np.int8))
        wide = ops.multiply(ops.convert(small, "f32"), ops.constant(scales))
        node.input(1).replace_source_output(wide.output(0))


def _multiplies(node):
    """Whether a node is a product of matrices."""
    return node.get_type_name() == "MatMul"


def _to_openvino(source, folder, int8, about):
    """Writes OpenVINO's two files of an .onnx file."""
    import openvino

    model = openvino.Core().read_model(source)
    if int8:
        _quantize_openvino(model)
    for name, text in about.items():
        model.set_rt_info(text, ["unispeech_sb", name])
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


_CONVERTERS = {"onnx": _quantize_onnx, "openvino": _to_openvino}
"""Engine -> what makes its files of a float32 .onnx file."""
