"""The forms of OpenAI's interface: errors, models, transcripts."""

import json
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import HTTPException, Response
from fastapi.responses import JSONResponse

from unispeech_sb.decoding import Transcript, Word
from unispeech_sb.inference.formats import (
    TRANSCRIPT_FORMATS,
    Format,
    subtitle_words,
)

GRANULARITIES = ("word", "segment")
_OF_A_LANGUAGE = re.compile("[a-z]{2,3}")
"""ISO 639-1, as OpenAI's, and 639-3."""


class ApiError(HTTPException):
    """What a client gets in place of an answer.

    Arguments
    ---------
    status : int
        Of HTTP.
    message : str
        A sentence for the user.
    param : str, optional
        The parameter that does not fit.
    code : str, optional
        What programs know the error by.
    retry_after : int, optional
        Seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(status, message)
        self.param, self.code, self.retry_after = param, code, retry_after

    @property
    def content(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        client = self.status_code < 500
        return {
            "message": self.detail,
            "type": "invalid_request_error" if client else "server_error",
            "param": self.param,
            "code": self.code,
        }

    def response(self) -> JSONResponse:
        """The answer with this error."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status_code == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.content}, self.status_code, headers)


def not_stored() -> ApiError:
    """The error of an upload for which there is no space."""
    return ApiError(503, "the upload could not be stored; try again later")


class TranscriptionOptions(NamedTuple):
    """What a client asks of a transcription."""

    response_format: str = "json"
    granularities: Sequence[str] = ()
    language: str | None = None
    stream: bool = False

    def checked(self) -> "TranscriptionOptions":
        """Itself; raises where OpenAI's interface refuses it."""
        expect_one_of("response_format", self.response_format, _TRANSCRIPTIONS)
        for name in self.granularities:
            expect_one_of("timestamp_granularities", name, GRANULARITIES)
        verbose = self.response_format == "verbose_json"
        if self.granularities and not verbose:
            raise ApiError(
                400,
                "timestamp_granularities: expected response_format "
                f"verbose_json; got {self.response_format}",
                "timestamp_granularities",
            )
        if self.stream and self.response_format not in ("json", "text"):
            raise ApiError(
                400,
                "stream: expected response_format json or text; got "
                f"{self.response_format}",
                "stream",
            )
        return self


def expect_one_of(param: str, value: str, expected: Iterable[str]) -> None:
    """Refuses what is none of some values."""
    names = list(expected)
    if value not in names:
        raise ApiError(
            400,
            f"{param}: expected {', '.join(names[:-1])} or {names[-1]}; got "
            f"{value!r:.60}",
            param,
        )


def check_language(language: str | None, known: Sequence[str]) -> None:
    """Refuses a language that a model has not, where it has several; and what
    names none. A model of one language takes any."""
    if not known:
        if language and not _OF_A_LANGUAGE.fullmatch(language):
            raise ApiError(
                400,
                "language: expected a code of ISO 639, such as en; got "
                f"{language!r:.60}",
                "language",
            )
    elif language not in known:
        got = f"{language!r:.60}" if language else "none"
        raise ApiError(
            400,
            f"language: expected one of {', '.join(known)}; got {got}",
            "language",
        )


def as_response(form: Format, result: Any, name: str) -> Response:
    """A result in a format of the commands."""
    text = form.header + form.write(result, name)
    kind = "application/json" if form.suffix.endswith("json") else "text/plain"
    return Response(text, media_type=kind)


def transcription(
    found: Transcript, options: TranscriptionOptions, name: str
) -> Response:
    """A transcript as a client asks for it."""
    form = options.response_format
    if form == "json":
        usage = _usage(found)
        return JSONResponse({"text": found.text, "usage": usage})
    if form == "verbose_json":
        return JSONResponse(_verbose(found, options))
    return as_response(TRANSCRIPT_FORMATS[form], found, name)


_TRANSCRIPTIONS = ("json", "text", "srt", "verbose_json", "vtt")
"""Values of ``response_format``."""


def word_entry(word: Word) -> dict[str, Any]:
    """A word as OpenAI's, and our confidence."""
    return {
        "word": word.text,
        "start": word.start_s,
        "end": word.end_s,
        "confidence": round(word.confidence, 6),
    }


def server_event(content: dict[str, Any]) -> str:
    """An event of a stream of server-sent events."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(found):
    """What OpenAI's interface charges: seconds, rounded up."""
    return {"type": "duration", "seconds": math.ceil(found.duration_s)}


def _verbose(found, options):
    """Text with times of segments, words or both."""
    content = {
        "task": "transcribe",
        "language": options.language or "unknown",
        "duration": round(found.duration_s, 6),
        "text": found.text,
    }
    wanted = options.granularities or ("segment",)
    if "segment" in wanted:
        content["segments"] = [
            _segment(number, words, found.separator)
            for number, words in enumerate(
                subtitle_words(found.words, found.separator)
            )
        ]
    if "word" in wanted:
        content["words"] = [word_entry(word) for word in found.words]
    return {**content, "usage": _usage(found)}


def _segment(number, words, separator):
    """The words of a subtitle. Fields of whisper that CTC models have not are
    empty or 0."""
    text = separator.join(word.text for word in words)
    logs = [math.log(max(word.confidence, 1e-10)) for word in words]
    size = len(text.encode())
    return {
        "id": number,
        "seek": 0,
        "start": words[0].start_s,
        "end": words[-1].end_s,
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 6),
        "compression_ratio": size / len(zlib.compress(text.encode())),
        "no_speech_prob": 0.0,
    }
