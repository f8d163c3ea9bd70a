"""Checkpoints: ``unispeech-sb convert``, ``to-hf``, ``export``, ``info`` and
``push-to-hub``."""

import json
from collections.abc import Sequence
from pathlib import Path

from unispeech_sb.checkpoints.interfaces import (
    FOREIGN,
    INTERFACES,
    folder_kind,
    purpose,
    result_of,
)
from unispeech_sb.checkpoints.options import FAMILIES
from unispeech_sb.commands.features import numbers, with_layers
from unispeech_sb.commands.options import new_parser, take_folder
from unispeech_sb.environment import require_engine
from unispeech_sb.errors import print_escaped
from unispeech_sb.text import absent

_SOURCES = (
    "a Hugging Face folder or the hub name of a model; a file of fairseq, of "
    "the authors' speaker verification or diarization, or of s3prl; a training "
    "checkpoint of SpeechBrain (CKPT+...) or a file in it"
)
_EXPORTED = (
    *("EncoderASR", "EncoderDecoderASR", "EncoderClassifier"),
    "SpeakerRecognition",
)
"""Interfaces of what recipes of SpeechBrain train."""
_WORDS = {"True": "true", "False": "false", "None": "null"}
"""Values as Python and SpeechBrain's yamls write them, and as JSON does."""


def convert(argv: Sequence[str]) -> None:
    """Converts a checkpoint to a pretrained folder."""
    parser = new_parser(
        "convert",
        "Convert a checkpoint to a pretrained folder, which SpeechBrain's "
        "interfaces load.",
    )
    parser.add_argument("src", metavar="SRC", help=_SOURCES)
    parser.add_argument("dst", metavar="DST", help="folder to make")
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help="the model that a head was trained on, for files with a head only "
        "(those of s3prl)",
    )
    _add_options(parser)
    arguments = parser.parse_args(argv)
    options = _options(arguments.set)
    _check_source(arguments.src)
    if arguments.backbone is not None:
        _check_source(arguments.backbone)
    _check_target(arguments.dst)

    from unispeech_sb.convert import convert_checkpoint

    print_escaped(
        convert_checkpoint(
            arguments.src,
            arguments.dst,
            arguments.backbone,
            arguments.config,
            **options,
        )
    )


def to_hf(argv: Sequence[str]) -> None:
    """Converts a pretrained folder to one that transformers loads."""
    parser = new_parser(
        "to-hf",
        "Convert a pretrained folder to a Hugging Face folder, which "
        "transformers loads.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="pretrained folder: the export/ of a recipe, or what "
        "unispeech-sb convert wrote; or anything that it reads",
    )
    parser.add_argument("dst", metavar="DST", help="folder to make")
    parser.add_argument(
        "--family",
        choices=FAMILIES,
        metavar="NAME",
        help=f"transformers' classes to use, of {', '.join(FAMILIES)}; by "
        "default those of the model that the folder came from or was trained "
        "from, else of unispeech-sat, or of wavlm for its relative positions",
    )
    parser.add_argument(
        "--backbone-only", action="store_true", help="leave the head out"
    )
    _add_options(parser)
    arguments = vars(parser.parse_args(argv))
    options = _options(arguments.pop("set"))
    _check_source(arguments["folder"])
    _check_target(arguments["dst"])

    from unispeech_sb.convert import to_huggingface

    print_escaped(to_huggingface(**arguments, **options))


def export(argv: Sequence[str]) -> None:
    """Exports a model to another runtime, or what a recipe of SpeechBrain
    trained to a pretrained folder."""
    parser = new_parser(
        "export",
        "With --to: export the model of a pretrained folder of any kind for "
        "ONNX Runtime or OpenVINO. Without: export what a recipe of "
        "SpeechBrain trained, backbone, head and labels, to a folder that "
        "EncoderASR, EncoderDecoderASR, EncoderClassifier or "
        "SpeakerRecognition loads.",
    )
    parser.add_argument(
        "ckpt",
        metavar="FOLDER|CKPT",
        help="pretrained folder, Hugging Face folder or hub name; or a "
        "training checkpoint, a folder CKPT+...",
    )
    parser.add_argument(
        "dst",
        metavar="DST",
        nargs="?",
        help="folder to make; FOLDER-onnx or FOLDER-openvino by default, or "
        "export in the folder of the run",
    )
    parser.add_argument(
        *("-o", "--output"), metavar="DST", help="the same", dest="output"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="build any class that the yaml names, which may run any code",
    )
    _add_graph(parser)
    _add_recipe(parser)
    arguments = vars(parser.parse_args(with_layers(argv)))
    output = arguments.pop("output")
    if output is not None and arguments["dst"] is not None:
        parser.error("expected DST or --output; got both")
    arguments["dst"] = output or arguments["dst"]
    graph = {name: arguments.pop(name) for name in ("to", "int8", "layers")}
    for_recipes = ("yaml", "interface", "forward", "labels", "config")
    wrong = for_recipes if graph["to"] else ()
    given = [f"--{name}" for name in wrong if arguments[name]]
    if not graph["to"]:
        given = [f"--{name}" for name in ("int8", "layers") if graph[name]]
    if given:
        which = "not with" if graph["to"] else "only with"
        parser.error(f"{given[0]}: {which} --to")
    if graph["to"]:
        folder, trust = arguments["ckpt"], arguments["trust"]
        _export_graph(folder, arguments["dst"], trust, **graph)
        return
    for path in (arguments["ckpt"], arguments["yaml"], arguments["labels"]):
        if path is not None and not Path(path).exists():
            raise ValueError(f"{path}: {absent(path)}")
    _expect_training(arguments["ckpt"])
    if arguments["dst"] is not None:
        _check_target(arguments["dst"])

    from unispeech_sb.convert import export_recipe

    print_escaped(export_recipe(**arguments))


def _expect_training(path):
    """Refuses what is known to be no training checkpoint."""
    kind = folder_kind(path)
    if kind in ("", FOREIGN, "training checkpoint"):
        return  # files say more when they are read
    what = purpose(path, kind)
    last = max(Path(path).glob("*/CKPT+*"), default=None)
    if kind == "run" and last is not None and result_of(path) is None:
        what = f"it is the folder of a run, whose last checkpoint is {last}"
    raise ValueError(
        f"{path}: expected a training checkpoint, CKPT+..., or --to onnx and "
        f"a pretrained folder; {what}"
    )


def _export_graph(folder, dst, trust, to, int8, layers):
    """Exports a model to another runtime."""
    if dst is None:
        place = Path(folder) if Path(folder).exists() else Path(folder).name
        dst = f"{place}-{to}"
    _check_target(dst)
    engine = "openvino" if to == "openvino" else "onnx"
    require_engine(engine, f"--to {to}")
    kinds = ["EncoderASR"]
    if to != "onnx-asr":
        kinds = [name for name, row in INTERFACES.items() if row.ours]
    folder = take_folder(folder, *kinds)
    if layers is not None and folder_kind(folder) != "WaveformEncoder":
        raise ValueError(
            f"{folder}: --layers is for folders of features; "
            f"{purpose(folder, folder_kind(folder))}"
        )

    from unispeech_sb.inference.exporting import export_graph

    print_escaped(export_graph(folder, dst, to, int8, layers, trust))


def _add_graph(parser):
    """Adds what concerns other runtimes."""
    group = parser.add_argument_group("for another runtime")
    group.add_argument(
        "--to",
        choices=("onnx", "openvino", "onnx-asr"),
        help="ONNX Runtime, OpenVINO, or the package onnx-asr, for which a "
        "speech recognizer has other names",
    )
    group.add_argument(
        "--int8",
        action="store_true",
        help="weights of the linear layers in 8 bits",
    )
    group.add_argument(
        "--layers",
        type=numbers,
        metavar="9,12|all",
        help="of a folder of features, the layers to give, as for features; "
        "the features themselves when omitted",
    )


def _add_recipe(parser):
    """Adds what concerns the recipes of SpeechBrain."""
    parser.add_argument(
        "--yaml",
        metavar="FILE",
        help="yaml of the recipe; the run's hyperparams.yaml by default",
    )
    parser.add_argument(
        "--interface",
        metavar="NAME",
        choices=_EXPORTED,
        help="what is to load it: %(choices)s; by default as the recipe's "
        "modules say",
    )
    parser.add_argument(
        "--forward",
        metavar="NAME,NAME",
        type=lambda text: text.split(","),
        default=(),
        help="entries of the yaml in the order in which the recipe runs them, "
        "the backbone first, where its names are not those of SpeechBrain",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="label_encoder.txt or SentencePiece's model, in place of the "
        "run's own",
    )
    _add_config(parser)


def info(argv: Sequence[str]) -> None:
    """Describes a checkpoint, with the source of each fact."""
    parser = new_parser(
        "info",
        "Describe a checkpoint without building the model: what it is, where "
        "each fact is from, and what a conversion would drop.",
    )
    parser.add_argument(
        "path", metavar="PATH", help=f"{_SOURCES}; or a pretrained folder"
    )
    _add_options(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the files of a folder with its SHA256SUMS, in place of "
        "a description; exits with 1 where any differs",
    )
    arguments = parser.parse_args(argv)
    options = _options(arguments.set)
    _check_source(arguments.path)
    if arguments.verify:
        _verify(arguments.path)
        return

    from unispeech_sb.convert import describe

    print_escaped(describe(arguments.path, config=arguments.config, **options))


def push_to_hub(argv: Sequence[str]) -> None:
    """Uploads a pretrained folder to the Hugging Face hub."""
    parser = new_parser(
        "push-to-hub",
        "Upload a pretrained folder and its model card to the Hugging Face "
        "hub, where every command then finds it by its name.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="pretrained folder: the export/ of a recipe, or what "
        "unispeech-sb convert wrote",
    )
    parser.add_argument(
        "repo",
        metavar="REPO",
        help="name on the hub, user/name; made where it is not there",
    )
    parser.add_argument(
        "--private", action="store_true", help="make a private repository"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence for the card, as the hub calls it: cc-by-4.0, "
        "apache-2.0, ...; by default what the card says",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list the files and show the card; nothing is uploaded",
    )
    arguments = parser.parse_args(argv)

    from unispeech_sb.checkpoints.sharing import plan_upload

    upload = plan_upload(arguments.folder, arguments.repo, arguments.license)
    print_escaped(upload)
    if arguments.dry_run:
        print_escaped(f"\n{upload.card}")
        return
    print_escaped(f"Uploaded to {upload.push(arguments.private)}")


def _verify(folder):
    """Says which files of a folder are not as they were written."""
    from unispeech_sb.checkpoints.pretrained_folder import check_sums

    report = check_sums(folder)
    print_escaped(report)
    if not report.is_whole:
        raise SystemExit(1)


def _add_config(parser):
    """Adds the option that names the model a training began with."""
    parser.add_argument(
        "--config",
        metavar="SOURCE",
        help="the model that a training began with, for checkpoints of "
        "SpeechBrain with tensors alone, where the yaml of the run does not "
        "tell: its config.json is read",
    )


def _add_options(parser):
    """Adds the options that say what a file does not."""
    _add_config(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the model in place of the file's, like "
        "num_attention_heads=12 or mask_rule=hf; may be given several times",
    )


def _options(pairs):
    """NAME=VALUE texts as a dict; values are JSON, else plain text."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set: expected NAME=VALUE; got {pair!r}")
        try:
            options[name] = json.loads(_WORDS.get(text, text))
        except json.JSONDecodeError:
            options[name] = text
    return options


def _check_source(source):
    """Refuses what is neither here nor may be the hub name of a model."""
    path = Path(source)
    # A weight file of a Hugging Face folder stands for the folder
    if path.exists() or (path.parent / "config.json").is_file():
        return
    if source[:1] in "./~" or source.count("/") != 1:
        raise ValueError(
            f"{source}: expected a folder, a checkpoint file, or the hub name "
            "of a model, like microsoft/unispeech-sat-base; "
            + absent(path, "folder or file")
        )


def _check_target(target):
    """Refuses to write where something is."""
    path = Path(target)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{target}: expected a new folder; it exists already")
