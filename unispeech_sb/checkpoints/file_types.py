"""What a file or folder is that is no checkpoint of these families, told by
its first bytes, its names and its tensors' names.
"""

import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unispeech_sb.checkpoints.options import FAMILIES
from unispeech_sb.checkpoints.safety.pickles import ZIP_FAULTS

FAILED = "as a failed download leaves it"
UNPACK = "unpack it first"
STARTS = (
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS; `git lfs pull` in its repository fetches the "
        "file that it stands for",
    ),
    (0, b"\x89HDF", "an HDF5 file, as Keras and TensorFlow write weights"),
    (4, b"TFL3", "a model of TensorFlow Lite"),
    (0, b"GGUF", "a model in GGUF"),
    (0, b"lmgg", "a model in GGML"),
    (0, b"\x93NUMPY", "an array of NumPy"),
    (0, b"\x1f\x8b", f"a gzip file; {UNPACK}"),
    (0, b"BZh", f"a bzip2 file; {UNPACK}"),
    (0, b"\xfd7zXZ", f"an xz file; {UNPACK}"),
    (0, b"(\xb5/\xfd", f"a zstd file; {UNPACK}"),
    (0, b"7z\xbc\xaf", f"a 7z archive; {UNPACK}"),
    (0, b"Rar!", f"a rar archive; {UNPACK}"),
    (257, b"ustar", f"a tar archive; {UNPACK}"),
    (8, b"WAVE", "a recording (WAV)"),
    (0, b"fLaC", "a recording (FLAC)"),
    (0, b"OggS", "a recording (Ogg)"),
    (0, b"ID3", "a recording (MP3)"),
    (0, b"mmap lm", "a language model of KenLM; transcribe --lm takes it"),
    (0, b"\\data\\", "a language model (ARPA); transcribe --lm takes it"),
    (0, b"%PDF", "a PDF document"),
    (0, b"SQLite format 3", "an SQLite database"),
)
"""Place, bytes that stand there, and what such a file is."""

NAMES = (
    (r".*\.index", "a part of a TensorFlow checkpoint"),
    (r".*\.data-\d+-of-\d+", "a part of a TensorFlow checkpoint"),
    (r".*\.ckpt\.meta", "a part of a TensorFlow checkpoint"),
    (r"saved_model\.pb", "a part of TensorFlow's SavedModel"),
    (r".*\.pb", "a graph of TensorFlow"),
    (r".*\.h5|.*\.keras", "weights of Keras or TensorFlow"),
    (r".*\.msgpack", "weights of Flax"),
    (r".*\.onnx", "a model in ONNX"),
    (r".*\.tflite", "a model of TensorFlow Lite"),
    (r".*\.gguf", "a model in GGUF"),
    (r".*\.nemo", "a model of NeMo"),
    (r".*\.mlmodel|.*\.mlpackage", "a model of Core ML"),
    (r"rust_model\.ot", "weights of rust-bert"),
    (
        r"(pytorch_)?model\.\w+\.(safetensors|bin)(\.index\.json)?",
        "weights of a variant, which are read under their name without it",
    ),
    (r"adapter_model\.(safetensors|bin)", "adapters of PEFT, not a model"),
)
"""Pattern of a file's name -> what it is, where its bytes do not tell."""

ZIPS = (
    (r"[^/]+/code/.*", "a program of TorchScript, not the tensors of a model"),
    (r".*\.npy", "arrays of NumPy"),
    (r"model\.weights\.h5", "a model of Keras"),
    (r"\[Content_Types\]\.xml", "a document of an office program"),
    (r"META-INF/.*", "a Java archive"),
    (r".*\.dist-info/.*", "a Python package"),
)
"""Pattern of a name in a zip file without torch's tensors -> what it is."""

TENSORS = (
    (r"grep_linear|relative_attention_bias", "WavLM"),
    (r"^data2vec_audio\.|regression_head|modality_encoders", "data2vec"),
    (r"^wav2vec2_bert\.|^sew(_d)?\.|^speecht5\.|^w2v_bert", "another family"),
    (r"^model\.decoder\.embed_positions|^decoder\.token_embedding", "Whisper"),
    (r"encoder\.transformer\.layers\.\d+\.attention\.k_proj", "torchaudio"),
)
"""Pattern of a tensor's name -> the model that has it."""

MOST_HEADER = 8 * 2**20
"""Bytes of a safetensors header that is read; real ones have 100,000."""
HEADER_FAULTS = (
    ValueError,
    RecursionError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
FIRST = 512


def what_file(path: str | Path) -> str | None:
    """What a file is that is known to be no checkpoint, in words that follow
    "it is"; None for what may be one."""
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as stream:
        start = stream.read(FIRST)
    if not start:
        return "empty"
    for place, mark, what in STARTS:
        if start[place : place + len(mark)] == mark:
            return what
    if start[8:9] == b"{":
        return _cut_safetensors(path, start, size)
    if start[:2] == b"PK":
        return _other_zip(path)
    if start[:1] == b"\x80":  # a pickle: safety.pickles looks inside
        return None
    if _starts_onnx(start):
        return "a model in ONNX"
    named = what_name(path.name)
    return named or _what_text(start)


def check_file(path: str | Path) -> None:
    """Refuses a file that is known to be no checkpoint."""
    what = what_file(path) if Path(path).is_file() else None
    if what is not None:
        raise ValueError(f"{path}: expected a checkpoint; it is {what}")


def what_name(name: str) -> str | None:
    """What a file is by its name alone; None where that does not tell."""
    found = (what for pattern, what in NAMES if re.fullmatch(pattern, name))
    return next(found, None)


def what_folder(folder: str | Path) -> str | None:
    """What a folder is that has no checkpoint, in words that follow "it"."""
    names = sorted(path.name for path in Path(folder).iterdir())
    if any(name.startswith("CKPT+") for name in names):
        return "has training checkpoints of SpeechBrain, one in each CKPT+..."
    if "hyperparams.yaml" in names:
        saved = "save" in names or "train_log.txt" in names
        what = "of a training" if saved else "of a model"
        return f"is SpeechBrain's folder {what} that is none of this package"
    if "trainer_state.json" in names or any(
        re.fullmatch(r"checkpoint-\d+", name) for name in names
    ):
        return "is a training folder of transformers; give a checkpoint in it"
    known = ((name, what_name(name)) for name in names)
    return next((f"has {name}, {what}" for name, what in known if what), None)


def what_objects(objects: Any) -> str | None:
    """What a file of ``torch.save`` holds that is no model of these families,
    in words that follow "it is"; None where that is not known."""
    if not isinstance(objects, Mapping):
        return None
    keys = set(objects)
    if {"state", "param_groups"} <= keys:
        return "the state of an optimizer alone"
    if keys and all(
        isinstance(key, str) and re.search("optim|sched|scaler|epoch|step", key)
        for key in keys
    ):
        return "the state of a training without its model"
    for key in ("model", "state_dict", "model_state_dict", "module"):
        if isinstance(objects.get(key), Mapping):
            found = what_tensors(objects[key])
            if found is None and "pytorch-lightning_version" in keys:
                found = "a checkpoint of PyTorch Lightning"
            return found
    return what_tensors(keys)


def what_tensors(names: Iterable[Any]) -> str | None:
    """What model the names of tensors are of, in words that follow "it is"."""
    texts = [name for name in names if isinstance(name, str)]
    for pattern, model in TENSORS:
        if any(re.search(pattern, name) for name in texts):
            if model == "another family":
                return "a model of another family"
            return f"a {model} model"
    if any(name.startswith(tuple(FAMILIES.values())) for name in texts):
        return (
            "the weights of a Hugging Face folder, whose config.json has to "
            "stand beside them"
        )
    return None


def _cut_safetensors(path, start, size):
    """Says where a safetensors file ends before its tensors do."""
    (length,) = struct.unpack("<Q", start[:8])
    if length > MOST_HEADER:
        return None
    if 8 + length > size:
        return f"a safetensors file cut short, at {size} bytes in its header"
    with open(path, "rb") as stream:
        stream.seek(8)
        header = stream.read(length)
    try:
        entries = json.loads(header)
        ends = [
            int(entry["data_offsets"][1])
            for name, entry in entries.items()
            if name != "__metadata__"
        ]
    except HEADER_FAULTS:
        return None  # damaged in another way: safetensors says how
    whole = 8 + length + max(ends, default=0)
    if whole <= size:
        return None
    return f"a safetensors file cut short, at {size} of {whole} bytes"


def _other_zip(path):
    """What a zip file holds that has no tensors of torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_FAULTS:
        return None  # damaged: safety.pickles says how
    for pattern, what in ZIPS:
        if any(re.fullmatch(pattern, name) for name in names):
            return f"a zip file with {what}"
    if any(name.endswith("/data.pkl") for name in names):
        return None
    first = ", ".join(ascii(name)[1:-1][:60] for name in names[:3]) or "nothing"
    return f"a zip file with {first}; {UNPACK}"


def _starts_onnx(start):
    """Whether bytes start as ONNX: the version of its format, then the name
    of the program that wrote it, or the graph."""
    return start[0] == 8 and 0 < start[1] < 32 and start[2:3] in (b"\x12", b":")


def _what_text(start):
    """What a text is; None for bytes."""
    try:
        text = start.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return None
        text = start[: error.start].decode("utf-8")
    if any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return None
    text = text.lstrip("\ufeff \t\r\n").lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return f"a web page, {FAILED}"
    if text.startswith("<"):
        return f"an XML text, {FAILED}"
    if text[:1] in ("{", "["):
        return "a JSON text"
    return "a text"
