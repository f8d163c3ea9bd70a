"""The application: what may be asked for, and how it is answered."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    File,
    Form,
    Request,
    Response,
    UploadFile,
    WebSocket,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from unispeech_sb.decoding.words import TokenToWordMapping
from unispeech_sb.inference.formats import (
    CLASSIFICATION_FORMATS,
    DIARIZATION_FORMATS,
    recording_name,
)
from unispeech_sb.inference.loading import CheckedFolder
from unispeech_sb.serve.answers import (
    ApiError,
    TranscriptionOptions,
    as_response,
    check_language,
    expect_one_of,
    not_stored,
    server_event,
    transcription,
)
from unispeech_sb.serve.guard import Guard, Metrics
from unispeech_sb.serve.service import Service, name_of, only
from unispeech_sb.serve.streams import answer_stream
from unispeech_sb.serve.workers import Limits

PAGE = Path(__file__).parent / "page"


def _service(request: Request) -> Service:
    """The service of an application."""
    return request.app.state.service


Served = Annotated[Service, Depends(_service)]
Model = Annotated[str | None, Form(description="as of /v1/models")]
router = APIRouter()


def _transcription_options(
    language: Annotated[str | None, Form()] = None,
    response_format: Annotated[str, Form()] = "json",
    granularities: Annotated[
        list[str] | None, Form(alias="timestamp_granularities[]")
    ] = None,
    stream: Annotated[bool, Form()] = False,
    temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
    prompt: Annotated[str, Form()] = "",
) -> TranscriptionOptions:
    """Reads what a client asks for. Decoding is the model's own:
    ``temperature`` and ``prompt`` are accepted and change nothing."""
    return TranscriptionOptions(
        response_format, granularities or (), language or None, stream
    ).checked()


@router.post("/v1/audio/transcriptions")
async def transcriptions(
    request: Request,
    service: Served,
    file: UploadFile,
    model: Annotated[str, Form()],
    options: Annotated[TranscriptionOptions, Depends(_transcription_options)],
) -> Response:
    """Speech recognition, as OpenAI's clients ask for it."""
    worker = service.worker(model, "transcribe")
    check_language(options.language, worker.model.languages)
    if options.stream:
        return await _events(request, service, worker, file, options.language)

    def work(check, path):
        worker.set_language(options.language)
        return only(worker.model.transcribe_files([path], on_progress=check))

    found = await service.answer(request, [file], worker, work)
    return transcription(found, options, name_of(file))


async def _events(request, service, worker, file, language):
    """Words as they are found, as server-sent events of OpenAI's names."""
    events: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(kind, **content):
        content["type"] = f"transcript.text.{kind}"
        event = server_event(content)
        loop.call_soon_threadsafe(events.put_nowait, event)

    def work(check, path):
        worker.set_language(language)
        words = []
        between = TokenToWordMapping(worker.model.tokenizer).separator
        for word in worker.model.transcribe_stream(path, on_partial=check):
            emit("delta", delta=between * bool(words) + word.text)
            words.append(word.text)
        emit("done", text=between.join(words))

    task = asyncio.ensure_future(service.answer(request, [file], worker, work))
    task.add_done_callback(lambda _: events.put_nowait(None))
    first = await events.get()
    if first is None:
        await task

    async def sent():
        event = first
        try:
            while event is not None:
                yield event
                event = await events.get()
            await task
        except ApiError as error:
            yield server_event({"error": error.content})
        finally:
            task.cancel()

    return StreamingResponse(sent(), media_type="text/event-stream")


@router.post("/classify")
async def classify(
    request: Request,
    service: Served,
    file: UploadFile,
    model: Model = None,
    top_k: Annotated[int | None, Form(ge=1)] = None,
    response_format: Annotated[str, Form()] = "json",
) -> Response:
    """Classes of an utterance."""
    expect_one_of("response_format", response_format, CLASSIFICATION_FORMATS)
    worker = service.worker(model, "classify")

    def work(check, path):
        return only(
            worker.model.classify_files([path], top_k, on_progress=check)
        )

    found = await service.answer(request, [file], worker, work)
    form = CLASSIFICATION_FORMATS[response_format]
    return as_response(form, found, name_of(file))


@router.post("/embed")
async def embed(
    request: Request, service: Served, file: UploadFile, model: Model = None
) -> dict[str, Any]:
    """The embedding of a speaker."""
    worker = service.worker(model, "embed")

    def work(check, path):
        return only(worker.model.embed_files([path], on_progress=check))

    found = await service.answer(request, [file], worker, work)
    return {
        "name": name_of(file),
        "duration": round(found.duration_s, 6),
        "embedding": found.vector.tolist(),
        "magnitude": found.magnitude,
    }


@router.post("/verify")
async def verify(
    request: Request,
    service: Served,
    file: Annotated[list[UploadFile], File()],
    model: Model = None,
    p_target: Annotated[float | None, Form(gt=0, lt=1)] = None,
    threshold: Annotated[float | None, Form(ge=-1, le=1)] = None,
) -> dict[str, Any]:
    """Whether two recordings, both sent as ``file``, are of one speaker."""
    if len(file) != 2:
        raise ApiError(
            400, f"file: expected two recordings; got {len(file)}", "file"
        )
    worker = service.worker(model, "embed")

    def work(check, *paths):
        pair = [only(worker.model.embed_files([path])) for path in paths]
        return worker.model.verify(*pair, p_target, threshold)

    found = await service.answer(request, file, worker, work)
    return found._asdict()


@router.post("/diarize")
async def diarize(
    request: Request,
    service: Served,
    file: UploadFile,
    model: Model = None,
    num_speakers: Annotated[int | None, Form(ge=1)] = None,
    max_speakers: Annotated[int | None, Form(ge=1)] = None,
    exclusive: Annotated[bool, Form()] = False,
    response_format: Annotated[str, Form()] = "json",
) -> Response:
    """Who speaks when."""
    expect_one_of("response_format", response_format, DIARIZATION_FORMATS)
    if max_speakers is not None and max_speakers < (num_speakers or 1):
        raise ApiError(
            400,
            f"max_speakers: expected {num_speakers} at least; got "
            f"{max_speakers}",
            "max_speakers",
        )
    worker = service.worker(model, "diarize")

    def work(check, path):
        return only(
            worker.model.diarize_files(
                [path],
                num_speakers,
                max_speakers=max_speakers,
                on_progress=check,
                exclusive=exclusive,
            )
        )

    found = await service.answer(request, [file], worker, work)
    found = replace(found, name=recording_name(name_of(file)))
    form = DIARIZATION_FORMATS[response_format]
    return as_response(form, found, name_of(file))


@router.websocket("/stream/{task}")
async def stream(socket: WebSocket, task: str) -> None:
    """A recording that goes on: transcribe or diarize."""
    state = socket.app.state
    await answer_stream(socket, task, state.service, state.key)


@router.get("/v1/models")
async def list_models(service: Served) -> dict[str, Any]:
    """All models."""
    entries = [service.entry(worker) for worker in service.workers.values()]
    return {"object": "list", "data": entries}


@router.get("/v1/models/{name}")
async def show_model(service: Served, name: str) -> dict[str, Any]:
    """One model."""
    expected = service.workers.get(name)
    if expected is None:
        raise ApiError(
            404, f"there is no model {name!r:.60}", "model", "model_not_found"
        )
    return service.entry(expected)


@router.get("/health")
async def health(request: Request, service: Served) -> dict[str, Any]:
    """That the service answers; how much its models have to do; its limits."""
    return {
        "status": "ok",
        "needs_key": request.app.state.key is not None,
        "jobs": {w.name: w.jobs for w in service.workers.values()},
        "limits": service.limits._asdict(),
    }


@router.get("/metrics")
async def metrics(service: Served) -> Response:
    """For Prometheus."""
    content = generate_latest(service.metrics.registry)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


def create_app(
    models: Mapping[str, CheckedFolder],
    limits: Limits | None = None,
    key: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Makes the application for some models.

    Arguments
    ---------
    models : mapping of str to CheckedFolder
        Name -> an interface, as ``unispeech_sb.load`` gives it.
    limits : Limits, optional
        What a request may take.
    key : str, optional
        What clients have to send, as ``Authorization: Bearer KEY``.
    hosts : collection of str, optional
        Names of this machine that clients may use; any when omitted.

    Returns
    -------
    FastAPI
        An ASGI application: uvicorn runs it.

    Example
    -------
    >>> app = create_app({}, key="secret")
    >>> app.title
    'unispeech_sb'
    """
    metrics, limits = Metrics(), limits or Limits()
    service = Service(models, limits, metrics)
    app = FastAPI(
        title="unispeech_sb",
        docs_url=None,  # these pages come from another server
        redoc_url=None,
        lifespan=service.running,
    )
    app.state.service, app.state.key = service, key
    app.include_router(router)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _on_error)
    app.add_middleware(
        Guard,
        limits=limits,
        metrics=metrics,
        key=key,
        open_paths={"/", "/health", *(f"/{f.name}" for f in PAGE.iterdir())},
        hosts=hosts,
    )
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    """An error of any kind in OpenAI's form; no traceback."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = str(first["loc"][-1])
        return ApiError(400, f"{param}: {first['msg']}", param).response()
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, OSError):  # of the temporary file
            return not_stored().response()
        return ApiError(error.status_code, str(error.detail)).response()
    return ApiError(
        500, "the service failed on this request; its log says why"
    ).response()
