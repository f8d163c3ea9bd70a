"""Pretrained folders: what SpeechBrain's interfaces load.

A folder holds ``hyperparams.yaml``, one ``<name>.ckpt`` per module, texts,
and a README. It names no path and no hub, so it can be moved and used offline.
"""

import json
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

import yaml

from unispeech_sb.checkpoints.files import public_path
from unispeech_sb.checkpoints.pretrained import TRAINING_FILE

HEADER = """\
# Needs the package unispeech_sb: without it, SpeechBrain says
# "There is no such class as unispeech_sb...."
# yamllint disable
sample_rate: 16000

"""

PRETRAINER = """
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
"""

SERVED = """
modules:
    compute_features: !new:unispeech_sb.lobes.heads.PassThrough
    mean_var_norm: !new:unispeech_sb.lobes.heads.PassThrough
    embedding_model: !new:unispeech_sb.lobes.heads.UtteranceEncoder
        backbone: !ref <backbone>
        head: !ref <head>
        allow_silence: {allow_silence}
"""
INTERFACES = {
    # speechbrain.inference.encoders.WaveformEncoder
    "WaveformEncoder": """
modules:
    encoder: !ref <backbone>
{others}""",
    # speechbrain.inference.classifiers.EncoderClassifier
    "EncoderClassifier": SERVED
    + """\
    classifier: !new:unispeech_sb.lobes.heads.UtterancePosteriors
        head: !ref <head>
        problem_type: {problem_type}
""",
    # speechbrain.inference.ASR.EncoderASR
    "EncoderASR": """
blank_index: {blank_index}
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: !ref <blank_index>

modules:
    encoder: !new:unispeech_sb.lobes.heads.FramePosteriors
        backbone: !ref <backbone>
        head: !ref <head>
        blank_index: !ref <blank_index>
""",
    # speechbrain.inference.speaker.SpeakerRecognition
    "SpeakerRecognition": """
# for encode_batch(normalize=True)
mean_var_norm_emb: !new:unispeech_sb.lobes.heads.PassThrough
"""
    + SERVED
    + "{others}{speakers}",
    # unispeech_sb.inference.diarization.SpeakerDiarization; WaveformEncoder,
    # which wants an encoder, loads it, too
    "SpeakerDiarization": """
threshold: {threshold} # probability above which a speaker is active
median_filter: {median_filter} # frames
frame_s: {frame_s}
min_speech_s: {min_speech_s}
min_pause_s: {min_pause_s}
chunk_s: {chunk_s}
num_local_speakers: {num_local_speakers} # of one chunk
narrow_band: {narrow_band} # whether it hears what 8 kHz leave

modules:
    encoder: !ref <backbone>
    backbone: !ref <backbone>
{others}""",
}
"""Interface -> the part of ``hyperparams.yaml`` that wires it. Lobes that it
does not use are modules under their own names."""

BEAM_SEARCH = """\
{language_model}decoding_function: !name:{searcher}
test_beam_search:
    tokenizer: !ref <tokenizer>
{search}

"""
"""What takes the place of the greedy ``decoding_function`` of EncoderASR."""

LANGUAGE_MODEL = """\
language_model: !new:unispeech_sb.decoding.LanguageModel
{options}

"""

SPEAKERS = """\
    classifier: !new:unispeech_sb.lobes.heads.SpeakerPosteriors
        head: !ref <head>
        objective: !ref <objective>
"""
"""What ``SpeakerRecognition`` folders have beside, for ``EncoderClassifier``:
where there are an objective and the names of its speakers."""

ENCODERS = {"EncoderASR": "tokenizer"}
"""Interface -> what it calls its labels; ``label_encoder`` for all others."""


@contextmanager
def new_folder(path, replace=False):
    """Makes a folder that appears whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make; must not hold anything yet.
    replace : bool
        Take the place of a pretrained folder that is there.

    Yields
    ------
    pathlib.Path
        A temporary folder beside it, renamed when the block ends well.

    Raises
    ------
    ValueError
        When the path exists and is not an empty folder, or one to replace.

    Example
    -------
    >>> path = getfixture("tmp_path") / "new"
    >>> with new_folder(path) as folder:
    ...     _ = (folder / "a.txt").write_text("a")
    >>> [p.name for p in path.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    old = replace and (path / "hyperparams.yaml").is_file()
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not old and not free:
        raise ValueError(f"{path}: expected a new folder; it exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        yield temporary
        if old:
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_pretrained(
    path,
    lobes,
    interface,
    readme,
    labels=None,
    replace=False,
    files=None,
    calibration=None,
    **interface_options,
):
    """Writes a pretrained folder.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make.
    lobes : dict
        Name in the yaml -> ``Lobe``.
    interface : str
        A name in ``INTERFACES``.
    readme : str
        Text of ``README.md``.
    labels : speechbrain.dataio.encoder.CategoricalEncoder, optional
        Written as ``label_encoder.ckpt``, or ``tokenizer.ckpt`` for
        ``EncoderASR``.
    replace : bool
        Take the place of a pretrained folder that is there.
    files : dict, optional
        Name in the folder -> text, or path of a file to copy.
    calibration : unispeech_sb.metrics.calibration.Calibration, optional
        Written as ``calibration.ckpt``: what the scores of
        ``SpeakerRecognition`` mean.
    **interface_options
        Values for the interface's part of the yaml.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> path = getfixture("tmp_path") / "tiny"
    >>> lobes = {"backbone": Backbone.from_preset("tiny")}
    >>> write_pretrained(path, lobes, "WaveformEncoder", "A test.")
    >>> sorted(p.name for p in path.iterdir())
    ['README.md', 'backbone.ckpt', 'hyperparams.yaml']
    """
    encoder = ENCODERS.get(interface, "label_encoder")
    plain = {encoder: labels} if labels else {}
    if calibration is not None:
        plain["calibration"] = calibration
    others = "".join(
        f"    {name}: !ref <{name}>\n" for name in lobes if name != "backbone"
    )
    named = labels and "objective" in lobes
    options = {
        "allow_silence": False,
        "speakers": SPEAKERS if named else "",
        **interface_options,
    }
    text = HEADER + "\n".join(_entry(*item) for item in lobes.items())
    for name, built in plain.items():
        text += f"\n{name}: !new:{public_path(type(built))}\n"
    text += INTERFACES[interface].format(others=others, **options)
    text += PRETRAINER
    text += "".join(
        f"        {name}: !ref <{name}>\n" for name in (*lobes, *plain)
    )
    with new_folder(path, replace) as folder:
        for name, lobe in lobes.items():
            lobe.save(folder / f"{name}.ckpt")
        for name, built in plain.items():
            built.save(folder / f"{name}.ckpt")
        for name, content in (files or {}).items():
            _write(folder / name, content)
        (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")


def training_record(scores, scored_on, training, family=None):
    """Makes ``training.json``, by which ``info`` says how a folder was made.

    Arguments
    ---------
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    training : dict
        What was trained on and how: name -> number, text, or list of these.
    family : str, optional
        ``unispeech`` or ``unispeech-sat``, where the backbone was one.

    Returns
    -------
    dict
        Name of the file -> text, for ``files`` of ``write_pretrained``.

    Example
    -------
    >>> files = training_record({"WER": 12.5}, "test", {"lr": 0.001})
    >>> json.loads(files["training.json"])["scores"]
    {'WER': 12.5}
    """
    record = {
        "scores": scores,
        "scored_on": scored_on,
        "training": training,
        "family": family,
    }
    # What is not finite becomes a text: JSON has no such numbers
    plain = json.loads(json.dumps(record, default=str), parse_constant=str)
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    return {TRAINING_FILE: text + "\n"}


def write_beam_search(
    path, source, language_model=None, model_options=None, **search_options
):
    """Copies a pretrained folder for ``EncoderASR``, to decode by beam search.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make.
    source : str or pathlib.Path
        A folder that ``write_pretrained`` or this function wrote.
    language_model : str or pathlib.Path, optional
        ARPA or KenLM file, which becomes ``language_model.ckpt``.
    model_options : dict, optional
        Arguments of ``LanguageModel``.
    **search_options
        Arguments of ``PrefixBeamSearch``.

    Raises
    ------
    ValueError
        When the source is another kind of folder, or the path exists.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "greedy").mkdir()
    >>> _ = (folder / "greedy" / "hyperparams.yaml").write_text(
    ...     "tokenizer: 1\\ndecoding_function: !name:a.b\\n    c: 0\\n"
    ...     "modules: {}\\npretrainer:\\n    loadables:\\n        d: e\\n"
    ... )
    >>> write_beam_search(folder / "beam", folder / "greedy", beam_size=9)
    >>> print((folder / "beam" / "hyperparams.yaml").read_text())
    tokenizer: 1
    decoding_function: !name:unispeech_sb.decoding.PrefixBeamSearcher
    test_beam_search:
        tokenizer: !ref <tokenizer>
        beam_size: 9
    <BLANKLINE>
    modules: {}
    pretrainer:
        loadables:
            d: e
    <BLANKLINE>
    """
    yaml_file, line = Path(source, "hyperparams.yaml"), ""
    if not yaml_file.is_file():
        raise ValueError(f"{source}: expected a folder with {yaml_file.name}")
    parts = _parts(yaml_file.read_text(encoding="utf-8"))
    if not {"tokenizer", "decoding_function", "pretrainer"} <= set(parts):
        raise ValueError(
            f"{yaml_file}: expected a tokenizer, a decoding_function and a "
            "pretrainer, as in folders for EncoderASR"
        )
    for name in ("language_model", "test_beam_search"):
        parts.pop(name, None)
    loaded = re.sub("\n +language_model: .*", "", parts["pretrainer"])
    if language_model is not None:
        options = {"alpha": 0.5, "beta": 1.5, **(model_options or {})}
        line = LANGUAGE_MODEL.format(options=_arguments(options))
        search_options["language_model"] = _Reference("language_model")
        loaded = loaded.rstrip() + "\n        language_model: !ref "
        loaded += "<language_model>\n"
    parts["pretrainer"] = loaded
    parts["decoding_function"] = BEAM_SEARCH.format(
        language_model=line,
        searcher="unispeech_sb.decoding.PrefixBeamSearcher",
        search=_arguments(search_options),
    )
    with new_folder(path) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "language_model.ckpt").unlink(missing_ok=True)
        if language_model is not None:
            shutil.copyfile(language_model, folder / "language_model.ckpt")
        (folder / yaml_file.name).write_text("".join(parts.values()), "utf-8")


def _parts(text):
    """Name at the left of a yaml -> its lines; others are numbered."""
    parts = {}
    for place, part in enumerate(re.split(r"(?m)^(?=[^\s#])", text)):
        name = re.match(r"(\w+):", part)
        parts[name.group(1) if name else place] = part
    return parts


class _Reference(str):
    """Name of another entry."""


def _arguments(options):
    """The yaml lines of arguments."""
    lines = []
    for key, value in options.items():
        if isinstance(value, _Reference):
            lines.append(f"    {key}: !ref <{value}>")
            continue
        plain = list(value) if isinstance(value, tuple) else value
        flow = yaml.safe_dump({key: plain}, default_flow_style=True, width=999)
        lines.append(f"    {flow.strip()[1:-1]}")
    return "\n".join(lines)


def _write(path, content):
    """Writes a text, or copies a file."""
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content, encoding="utf-8")


def _entry(name, lobe):
    """The yaml lines that build one lobe."""
    path = public_path(type(lobe))
    return f"{name}: !new:{path}\n{_arguments(lobe.config)}\n"
