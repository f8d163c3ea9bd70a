"""What stands before the application: who may ask, and how much.

A page of another site may send requests to a service on the same machine,
though it cannot read the answers; and its name may be made to lead there, after
which it can. So a request that a browser sends from elsewhere is refused, and a
service for this machine alone answers to the names of this machine alone.
"""

import asyncio
import hmac
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
)
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unispeech_sb.serve.answers import ApiError
from unispeech_sb.serve.workers import Limits

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_MOST_DRAINED = 10
"""Times the limit of an upload up to which the rest of a larger one is read,
as clients send all of it before they read the answer."""
_OPEN_PER_JOB = 4
"""Requests that may be open for each place in a queue."""
_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class Metrics:
    """What Prometheus reads of the service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        start, own = "unispeech_sb", self.registry
        self._requests = Counter(
            f"{start}_requests", "Requests", ["path", "status"], registry=own
        )
        self._seconds = Histogram(
            f"{start}_request_seconds",
            "Seconds from the first byte of a request to its answer",
            ["path"],
            buckets=_BOUNDS_S,
            registry=own,
        )
        self.audio = Counter(
            f"{start}_audio_seconds",
            "Seconds of recordings",
            ["model"],
            registry=own,
        )

    def count(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)


class Guard:
    """Checks what comes, counts it, and adds headers to what goes.

    Arguments
    ---------
    app : callable
        An ASGI application.
    limits : Limits
        What a request may take.
    metrics : Metrics
        What is counted.
    key : str, optional
        What clients have to send, ``Authorization: Bearer KEY``.
    open_paths : collection of str
        Paths that need no key.
    hosts : collection of str, optional
        Names of this machine that clients may use; any when omitted.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        key: str | None = None,
        open_paths: Collection[str] = (),
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.key, self.open_paths, self.hosts = key, open_paths, hosts
        self._open = 0

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] == "websocket":
            if self._is_foreign(Headers(scope=scope)):
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope, receive, send):
        """Answers a request."""
        start, status = time.monotonic(), 500
        scope["deadline"] = start + self.limits.request_s

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [
                    (name.lower().encode(), value.encode())
                    for name, value in _HEADERS.items()
                ]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        self._open += 1
        body = _Body(receive, self.limits.upload_bytes, scope["deadline"])
        try:
            self._check(scope)
            if body.limit < int(Headers(scope=scope).get("content-length", 0)):
                await body.refuse()
            await self.app(scope, body.receive, send_more)
        except ApiError as error:
            await error.response()(scope, receive, send_more)
        finally:
            self._open -= 1
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - start
            self.metrics.count(route, status, seconds)

    def _check(self, scope):
        """Raises where a request is not answered."""
        headers, path = Headers(scope=scope), scope["path"]
        if self._is_foreign(headers):
            raise ApiError(
                403, "the request is from a page of another site", code="origin"
            )
        if path not in self.open_paths:
            check_key(bearer(headers), self.key)
        if self._open > self.limits.queue * _OPEN_PER_JOB:
            raise ApiError(
                503,
                "too many requests at a time; try again in 5 s",
                code="queue_full",
                retry_after=5,
            )

    def _is_foreign(self, headers):
        """Whether a browser asks from elsewhere, or for another machine."""
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname
        if self.hosts is not None and name not in self.hosts:
            return True
        origin = headers.get("origin")
        return origin is not None and urlsplit(origin).netloc != host


def bearer(headers: Headers) -> str:
    """The key that a client sends."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def check_key(given: str, key: str | None) -> None:
    """Refuses a wrong key, in a time that does not tell how much of it is
    right; there may be none to check."""
    sent = str(given).encode(errors="replace")
    if key is not None and not hmac.compare_digest(sent, key.encode()):
        raise ApiError(
            401,
            "the API key is missing or wrong: expected the header "
            "Authorization: Bearer KEY",
            code="invalid_api_key",
        )


class _Body:
    """The body of a request, up to a limit and a time."""

    def __init__(self, receive, limit, deadline):
        self.limit, self._count = limit, 0
        self._receive, self._deadline = receive, deadline
        self._is_over = False

    async def receive(self):
        """The next part; what comes after the body has no limit of time."""
        if self._is_over:
            return await self._receive()
        message = await self._next()
        if self._count > self.limit:
            await self.refuse()
        return message

    async def refuse(self):
        """Reads what else comes, within limits; raises."""
        most = self.limit * _MOST_DRAINED
        while not self._is_over and self._count < most:
            await self._next()
        raise ApiError(
            413,
            f"expected at most {self.limit / 2**20:g} MB; the request has more",
            "file",
            "request_too_large",
        )

    async def _next(self):
        """The next part."""
        left_s = self._deadline - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left_s, 0))
        except asyncio.TimeoutError:
            raise ApiError(
                408, "the request took too long to arrive", code="timeout"
            ) from None
        self._count += len(message.get("body", b""))
        is_body = message["type"] == "http.request"
        self._is_over = not (is_body and message.get("more_body"))
        return message
