"""Pretrained folders: what SpeechBrain's interfaces load.

A folder holds ``hyperparams.yaml``, one ``<name>.ckpt`` per module, texts,
and a README. It names no path and no hub, so it can be moved and used offline.
"""

import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

import yaml

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
    + "{others}",
}
"""Interface -> the part of ``hyperparams.yaml`` that wires it. Lobes that it
does not use are modules under their own names."""

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
    loadables = [*lobes, *([encoder] if labels else [])]
    others = "".join(
        f"    {name}: !ref <{name}>\n" for name in lobes if name != "backbone"
    )
    options = {"allow_silence": False, **interface_options}
    text = HEADER + "\n".join(_entry(*item) for item in lobes.items())
    if labels:
        text += f"\n{encoder}: !new:{_name(labels)}\n"
    text += INTERFACES[interface].format(others=others, **options)
    text += PRETRAINER
    text += "".join(f"        {name}: !ref <{name}>\n" for name in loadables)
    with new_folder(path, replace) as folder:
        for name, lobe in lobes.items():
            lobe.save(folder / f"{name}.ckpt")
        if labels:
            labels.save(folder / f"{encoder}.ckpt")
        for name, content in (files or {}).items():
            _write(folder / name, content)
        (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")


def _write(path, content):
    """Writes a text, or copies a file."""
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content, encoding="utf-8")


def _name(built):
    """Full name of an object's class."""
    return f"{type(built).__module__}.{type(built).__name__}"


def _entry(name, lobe):
    """The yaml lines that build one lobe."""
    lines = [f"{name}: !new:{_name(lobe)}"]
    for key, value in lobe.config.items():
        plain = list(value) if isinstance(value, tuple) else value
        flow = yaml.safe_dump({key: plain}, default_flow_style=True, width=999)
        lines.append(f"    {flow.strip()[1:-1]}")
    return "\n".join(lines) + "\n"
