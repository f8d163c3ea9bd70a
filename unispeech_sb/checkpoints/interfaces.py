"""What loads a folder: SpeechBrain's interfaces, and which one is meant.

A folder is told by names of files and the text of ``hyperparams.yaml`` alone,
and nothing here imports torch: commands ask before they load anything.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unispeech_sb.checkpoints.safe_yaml import (
    HEADS,
    Name,
    New,
    Ref,
)
from unispeech_sb.checkpoints.yaml_nodes import compose_file
from unispeech_sb.text import absent, named

YAML_FILE = "hyperparams.yaml"
BACKBONE_FILE = "backbone.ckpt"
GRAPH_FILE = "model.json"
"""What is known of a model that was exported for another runtime."""
EXPORT = "export"
"""Folder of a run that has its trained model."""
META_FILE = "CKPT.yaml"
"""What SpeechBrain writes into the folder of each training checkpoint."""


class Interface(NamedTuple):
    """What loads a folder, and how its yaml is made.

    Arguments
    ---------
    task : str
        What a folder for it does.
    speechbrain : str
        SpeechBrain's class.
    ours : str
        This package's class that loads the same folders; empty where
        SpeechBrain's is all there is.
    command : str
        What to type, with FOLDER for the folder; empty where there is none.
    usage : str
        Python code for the folder's README.
    wire : callable
        From the names of the lobes, whether there are labels, and options of
        the interface to entries of ``hyperparams.yaml``.
    labels : str
        What the interface calls its tokens or classes.
    pipeline_tag : str
        What the Hugging Face hub calls the task, the nearest that it has.
    transformers : str
        The class of transformers that loads what ``to-hf`` writes.
    """

    task: str
    speechbrain: str
    ours: str
    command: str
    usage: str
    wire: Callable[..., dict[str, Any]]
    labels: str = "label_encoder"
    pipeline_tag: str = "feature-extraction"
    transformers: str = "AutoModel"


def _features(lobes, labelled):
    """The backbone as the encoder; the rest under its own names."""
    return {"modules": {"encoder": Ref("backbone"), **_others(lobes)}}


def _embedding(allow_silence):
    """Modules from waveforms to the vector of each."""
    encoder = {"backbone": Ref("backbone"), "head": Ref("head")}
    encoder["allow_silence"] = allow_silence
    return {
        "compute_features": New(f"{HEADS}.PassThrough"),
        "mean_var_norm": New(f"{HEADS}.PassThrough"),
        "embedding_model": New(f"{HEADS}.UtteranceEncoder", encoder),
    }


def _classifier(
    lobes, labelled, problem_type, allow_silence=False, slot_sizes=None
):
    """A class for each utterance, or a value for each slot of an intent."""
    rule = {"head": Ref("head"), "problem_type": problem_type}
    classifier = New(f"{HEADS}.UtterancePosteriors", rule)
    if slot_sizes is not None:
        rule = {"head": Ref("head"), "slot_sizes": slot_sizes}
        classifier = New(f"{HEADS}.IntentPosteriors", rule)
    return {"modules": {**_embedding(allow_silence), "classifier": classifier}}


def _asr(lobes, labelled, blank_index):
    """Log-posteriors of frames, decoded greedily."""
    blank = Ref("blank_index")
    encoder = {"backbone": Ref("backbone"), "head": Ref("head")}
    return {
        "blank_index": blank_index,
        "decoding_function": Name(
            "speechbrain.decoders.ctc_greedy_decode", {"blank_id": blank}
        ),
        "modules": {
            "encoder": New(
                f"{HEADS}.FramePosteriors", {**encoder, "blank_index": blank}
            )
        },
    }


def _speakers(lobes, labelled, allow_silence=False):
    """A vector for each utterance; for ``EncoderClassifier`` also the speaker,
    where there are an objective and the names of its speakers."""
    modules = {**_embedding(allow_silence), **_others(lobes)}
    if labelled and "objective" in lobes:
        scored = {"head": Ref("head"), "objective": Ref("objective")}
        modules["classifier"] = New(f"{HEADS}.SpeakerPosteriors", scored)
    norm = New(f"{HEADS}.PassThrough")
    return {"mean_var_norm_emb": norm, "modules": modules}


def _diarization(lobes, labelled, **rule):
    """Activities of speakers, and how they are decided."""
    encoder = {"encoder": Ref("backbone"), "backbone": Ref("backbone")}
    decided = {name: rule.pop(name) for name in DECISION}
    if rule:
        raise TypeError(
            f"expected {', '.join(DECISION)}; got {', '.join(rule)}"
        )
    return {**decided, "modules": {**encoder, **_others(lobes)}}


def _others(lobes):
    """All modules but the backbone, under their own names."""
    return {name: Ref(name) for name in lobes if name != "backbone"}


DECISION = (
    *("threshold", "median_filter", "frame_s", "min_speech_s", "min_pause_s"),
    *("chunk_s", "num_local_speakers", "narrow_band"),
)
"""How diarization decides: options of its folders."""
COMMENTS = {
    "threshold": "probability above which a speaker is active",
    "median_filter": "frames",
    "num_local_speakers": "of one chunk",
    "narrow_band": "whether it was trained on speech of 8 kHz",
    "mean_var_norm_emb": "for encode_batch(normalize=True)",
}
"""Entry of a yaml -> what stands beside it."""

FEATURES = """\
from speechbrain.inference.encoders import WaveformEncoder
from unispeech_sb.lobes.backbone import Backbone

encoder = WaveformEncoder.from_hparams(source="PATH/TO/THIS/FOLDER")
features = encoder.encode_batch(wavs, wav_lens)  # [B, T, D]
modules = encoder.mods  # the heads too, by name

backbone = Backbone.from_pretrained("PATH/TO/THIS/FOLDER")
# Every recipe takes the folder: --model=PATH/TO/THIS/FOLDER"""
CLASSIFIER = """\
from speechbrain.inference.classifiers import EncoderClassifier

classifier = EncoderClassifier.from_hparams(source="PATH/TO/THIS/FOLDER")
log_posteriors, score, index, label = classifier.classify_file("a.wav")"""
ASR = """\
from speechbrain.inference.ASR import EncoderASR

asr = EncoderASR.from_hparams(source="PATH/TO/THIS/FOLDER")
text = asr.transcribe_file("a.wav")"""
ASR_DECODER = ASR.replace("EncoderASR", "EncoderDecoderASR")
SPEAKERS = """\
from unispeech_sb.inference import SpeakerVerification

verification = SpeakerVerification.from_hparams("PATH/TO/THIS/FOLDER")
cosine = verification.score("a.wav", "b.wav")
# By calibration.ckpt, where the folder has one; else give a threshold
found = verification.verify("a.wav", "b.wav")  # score, llr, same, threshold

from speechbrain.inference.speaker import SpeakerRecognition

recognizer = SpeakerRecognition.from_hparams(source="PATH/TO/THIS/FOLDER")
cosine, _ = recognizer.verify_files("a.wav", "b.wav")  # decides at 0.25"""
DIARIZATION = """\
from unispeech_sb.inference.diarization import SpeakerDiarization

diarization = SpeakerDiarization.from_hparams("PATH/TO/THIS/FOLDER")
found = diarization.diarize_file("a.wav")
for start, end, speaker, confidence in found.segments:
    print(f"{start:7.2f} {end:7.2f} {speaker}")"""

INTERFACES = {
    "WaveformEncoder": Interface(
        "features of speech",
        "speechbrain.inference.encoders.WaveformEncoder",
        "unispeech_sb.inference.SpeechFeatures",
        "unispeech-sb features FOLDER FILES -o DIR (also recipe TASK "
        "--model=FOLDER)",
        FEATURES,
        _features,
    ),
    "EncoderClassifier": Interface(
        "classification of utterances",
        "speechbrain.inference.classifiers.EncoderClassifier",
        "unispeech_sb.inference.UtteranceClassifier",
        "unispeech-sb classify FOLDER FILES",
        CLASSIFIER,
        _classifier,
        pipeline_tag="audio-classification",
        transformers="AutoModelForAudioClassification",
    ),
    "EncoderASR": Interface(
        "speech recognition",
        "speechbrain.inference.ASR.EncoderASR",
        "unispeech_sb.inference.asr.LongFormASR",
        "unispeech-sb transcribe FOLDER FILES",
        ASR,
        _asr,
        labels="tokenizer",
        pipeline_tag="automatic-speech-recognition",
        transformers="AutoModelForCTC",
    ),
    "EncoderDecoderASR": Interface(
        "speech recognition, token by token",
        "speechbrain.inference.ASR.EncoderDecoderASR",
        "",
        "",
        ASR_DECODER,
        _features,
        labels="tokenizer",
        pipeline_tag="automatic-speech-recognition",
    ),
    "SpeakerRecognition": Interface(
        "speaker verification",
        "speechbrain.inference.speaker.SpeakerRecognition",
        "unispeech_sb.inference.SpeakerVerification",
        "unispeech-sb verify FOLDER A B (also embed, score)",
        SPEAKERS,
        _speakers,
        pipeline_tag="audio-classification",
        transformers="AutoModelForAudioXVector",
    ),
    "SpeakerDiarization": Interface(
        "speaker diarization",
        # of which WaveformEncoder loads the features
        "speechbrain.inference.encoders.WaveformEncoder",
        "unispeech_sb.inference.diarization.SpeakerDiarization",
        "unispeech-sb diarize FOLDER FILES",
        DIARIZATION,
        _diarization,
        pipeline_tag="voice-activity-detection",
        transformers="AutoModelForAudioFrameClassification",
    ),
}
"""Name -> all that is known of an interface. A new one is one row here and
one of ``MARKS``."""

MARKS = (
    ("SpeakerRecognition", {"mean_var_norm_emb", "modules.embedding_model"}),
    ("EncoderClassifier", {"modules.embedding_model", "modules.classifier"}),
    ("SpeakerRecognition", {"modules.embedding_model"}),  # first versions'
    ("EncoderDecoderASR", {"tokenizer", "modules.encoder", "modules.decoder"}),
    ("EncoderASR", {"tokenizer", "decoding_function", "modules.encoder"}),
    ("SpeakerDiarization", {"threshold", "chunk_s", "modules.backbone"}),
    ("WaveformEncoder", {"modules.encoder"}),
)
"""Interface, names that its yamls have; the first that has all is meant."""

PRECISIONS = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16, on GPUs",
    "int8": "8-bit integers, on CPUs",
    "auto": "bf16 where the CPU or GPU has units for it, else fp32",
}
"""Name of what a backbone computes in -> what it is."""

FOREIGN = "another package"
HUGGING_FACE = "Hugging Face"
OTHERS = {
    "run": "the folder of a recipe's run",
    "training checkpoint": "a training checkpoint",
    "units": "a folder of units: unispeech-sb recipe pretrain_unispeech_sat "
    "--units_folder=FOLDER",
    "graph": "an export for another runtime: its README.md shows how to run it",
    "modules": "a folder of modules without hyperparams.yaml: unispeech-sb "
    "recipe TASK --model=FOLDER",
    HUGGING_FACE: "a Hugging Face folder: unispeech-sb convert FOLDER NEW",
    "file": "a file: unispeech-sb info FOLDER",
}
"""Kind of what no interface loads -> what it is, and what takes it."""


def folder_kind(path: str | Path) -> str:
    """Tells what a folder or file is for: a key of ``INTERFACES`` or of
    ``OTHERS``; ``FOREIGN`` for a folder whose ``hyperparams.yaml`` names
    nothing of this package; empty for everything else, and for what does not
    exist."""
    path = Path(path)
    if not path.is_dir():
        return "file" if path.exists() else ""
    if is_training_checkpoint(path) or any(path.glob(f"CKPT+*/{META_FILE}")):
        return "training checkpoint"
    if (path / YAML_FILE).is_file():
        return _kind_of_yaml(path / YAML_FILE)
    for name, kind in (
        (GRAPH_FILE, "graph"),
        (BACKBONE_FILE, "modules"),
        ("units.json", "units"),
        ("config.json", HUGGING_FACE),
    ):
        if (path / name).is_file():
            return kind
    return ""


def is_training_checkpoint(path: str | Path) -> bool:
    """Whether a path is the folder of one checkpoint of SpeechBrain."""
    return (Path(path) / META_FILE).is_file()


def expect_folder(
    path: str | Path, interface: str | type, *others: str
) -> None:
    """Refuses what is not for an interface, a key of ``INTERFACES`` or a class
    of this package, nor for one of the other keys, before anything is loaded:
    the error says what was expected, what is there, and which command takes it.

    A folder of another package passes: loading it shows what it has.
    """
    kind = folder_kind(path)
    if not kind:
        raise ValueError(
            f"{path}: expected a folder with {YAML_FILE}; {contents(path)}"
        )
    name = interface if isinstance(interface, str) else interface.__name__
    ours = {i.ours.rpartition(".")[2]: key for key, i in INTERFACES.items()}
    wanted = ours.get(name, name)
    if kind not in (wanted, *others, FOREIGN):
        raise ValueError(
            f"{path}: expected a folder for {wanted}; {purpose(path, kind)}"
        )


def contents(path: str | Path) -> str:
    """What a folder holds: "it holds ...", or that it is not there."""
    if not os.path.isdir(path):
        return absent(path, "folder")
    names = sorted(os.listdir(path))
    return f"it holds {named(names, 5)}" if names else "it is empty"


def may_be_converted(source: str | Path) -> bool:
    """Whether a source is a Hugging Face folder, or is not here and may be the
    hub name of a model: ``converted_folder`` makes a folder of it."""
    name = str(source)
    if Path(source).exists():
        return folder_kind(source) == HUGGING_FACE
    return name[:1] not in "./~" and name.count("/") == 1


def purpose(path: str | Path, kind: str) -> str:
    """What a path of a ``folder_kind`` is, and what takes it: "it is ..."."""
    if kind in INTERFACES:
        interface = INTERFACES[kind]
        use = interface.command or interface.speechbrain
        return f"it is for {kind}: {use.replace('FOLDER', str(path))}"
    text = f"it is {OTHERS[kind].replace('FOLDER', str(path))}"
    if kind not in ("run", "training checkpoint"):
        return text
    found = result_of(path)
    if found is None:
        return f"{text}; the run has no result yet"
    return f"{text}; the result of the run is {found}"


def result_of(path: str | Path) -> Path | None:
    """The exported model or the units of a run, from the folder of the run
    or of its checkpoints; None before its end."""
    for folder in (Path(path), *Path(path).parents[:2]):
        for found in (folder / EXPORT / YAML_FILE, folder / "units/units.json"):
            if found.is_file():
                return found.parent
    return None


def _kind_of_yaml(path):
    """The interface of a ``hyperparams.yaml``, by the names in it."""
    entries = _entries(compose_file(path, aliases=True))
    if "pretrainer" not in entries:
        return "run" if "output_folder" in entries else FOREIGN
    if not any("unispeech" in node.tag for node in entries.values()):
        return FOREIGN
    modules = _entries(entries.get("modules"))
    names = {*entries, *(f"modules.{name}" for name in modules)}
    found = (interface for interface, marks in MARKS if marks <= names)
    return next(found, FOREIGN)


def _entries(node):
    """Name -> node of a yaml's mapping; empty for any other node."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): value for key, value in node.value}
