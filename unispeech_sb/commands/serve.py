"""The service: ``unispeech-sb serve``."""

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from unispeech_sb.commands.options import (
    add_device,
    at_least,
    new_parser,
    positive,
    take_folder,
)
from unispeech_sb.environment import require_extra
from unispeech_sb.errors import check_device, print_escaped

KEY = "UNISPEECH_SB_API_KEY"
"""Environment variable with the key that clients have to send."""
KINDS = (
    "EncoderASR",
    "SpeakerDiarization",
    "EncoderClassifier",
    "SpeakerRecognition",
)
"""Interfaces that are served."""
_PACKAGES = (
    "fastapi",
    "uvicorn",
    "python_multipart",
    "prometheus_client",
    "websockets",
)
_SHUTDOWN_S = 5
"""Seconds for open requests at the end."""


def serve(argv: Sequence[str]) -> None:
    """Serves models until it is interrupted.

    Exits with 2 when the command line makes no sense.
    """
    arguments = _parse(argv)
    named = _named(arguments.folders)
    for package in _PACKAGES:
        require_extra(package, "serve", "serve")
    key = os.environ.get(KEY)
    if key is not None and not key.strip():
        raise ValueError(f"{KEY}: expected a key; it is empty")
    folders = {
        name: take_folder(folder, *KINDS) for name, folder in named.items()
    }
    with _listening(arguments.host, arguments.port) as listener:
        _run(listener, folders, arguments, key and key.strip())


def _run(listener, folders, arguments, key):
    """Loads the models and answers requests."""
    check_device(arguments.device)

    import torch
    import uvicorn

    from unispeech_sb.inference import load
    from unispeech_sb.serve.app import create_app
    from unispeech_sb.serve.guard import LOCAL_HOSTS
    from unispeech_sb.serve.workers import Limits

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    models = {
        name: load(
            folder,
            arguments.device,
            arguments.trust,
            arguments.engine,
        )
        for name, folder in folders.items()
    }
    limits = Limits(
        round(arguments.max_upload_mb * 2**20),
        arguments.max_audio_s,
        arguments.max_request_s,
        arguments.queue,
        arguments.streams,
    )
    host, port = listener.getsockname()[:2]
    is_local = host in LOCAL_HOSTS
    hosts = [*LOCAL_HOSTS, *arguments.allow_host] if is_local else None
    app = create_app(models, limits, key, hosts)
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=2**20,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    shown = f"[{host}]" if ":" in host else host
    print_escaped(f"http://{shown}:{port} serves {', '.join(models)}")
    tasks = {name: app.state.service.workers[name].task for name in models}
    widths = [max(map(len, texts)) for texts in (tasks, tasks.values())]
    for name, task in tasks.items():
        columns = f"{name:<{widths[0]}}  {task:<{widths[1]}}"
        print_escaped(f"  {columns}  {folders[name]}")
    if key is None and not is_local:
        print_escaped(f"without a key: whoever reaches it may use it ({KEY})")
    uvicorn.Server(config).run([listener])


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "serve",
        "Serve models over HTTP: a page in the browser, and OpenAI's interface "
        "for transcription. If the environment variable UNISPEECH_SB_API_KEY "
        "is set, clients have to send it.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="pretrained folder, Hugging Face folder or hub name of a speech "
        "recognizer, a diarization model, a classifier or a speaker model; "
        "NAME=FOLDER: what clients call it, else the last part of FOLDER, of "
        "a run's export that of the run, or as many as tell it from others",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at, 0.0.0.0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="0 for any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this machine that clients use, as behind a "
        "reverse proxy; at 127.0.0.1 only",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run code that a hyperparams.yaml names: only from people whom "
        "you trust",
    )
    add_device(parser)
    _add_limits(parser)
    return parser.parse_args(argv)


def _add_limits(parser):
    """Adds what a request may take."""
    group = parser.add_argument_group("limits")
    for name, default, what in (
        ("--max-upload-mb", 100.0, "most megabytes of a request"),
        ("--max-audio-s", 3600.0, "longest recording in seconds"),
        ("--max-request-s", 600.0, "most seconds that a request takes"),
    ):
        group.add_argument(
            name,
            type=positive,
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)g)",
        )
    for name, default, what in (
        ("--queue", 64, "most requests that wait for a model"),
        ("--streams", 4, "most WebSockets at a time"),
    ):
        group.add_argument(
            name,
            type=at_least(1),
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )


def _port(text):
    """Reads the number of a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text}")
    return int(text)


def _named(folders):
    """Name -> folder: the name that is given, else the shortest end of the path
    that no other folder has."""
    candidates = []
    for text in folders:
        name, is_named, folder = text.partition("=")
        if os.path.exists(text) or not is_named:
            candidates.append((text, _names_of(Path(text).absolute().parts)))
            continue
        if not name or not name.isprintable():
            raise ValueError(f"{text}: expected NAME=FOLDER with a name")
        candidates.append((folder, [name]))
    found: dict[str, str] = {}
    for place, (folder, names) in enumerate(candidates):
        others = candidates[:place] + candidates[place + 1 :]
        taken = {name for _, some in others for name in some}
        name = next((n for n in names if n not in taken), names[0])
        if name in found or not name.isprintable():
            first = found.get(name, folder)
            raise ValueError(
                f"expected different names; {first} and {folder} would both be "
                f"{name}: give NAME=FOLDER"
            )
        found[name] = folder
    return found


def _names_of(parts):
    """What a path may be called, the shortest first: without the export of a
    run, and not by a seed alone."""
    if len(parts) > 1 and parts[-1] == "export":
        parts = parts[:-1]
    parts = [part for part in parts if part != os.sep]
    ends = ["-".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    return [end for end in ends if not end.isdecimal()] or ends


def _listening(host, port):
    """A socket that listens; raises before any model is loaded."""
    try:
        kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=kind)
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error}") from error
