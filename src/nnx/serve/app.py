"""The ASGI application: what is answered at which address. Any ASGI server runs it."""

from __future__ import annotations

import asyncio
import html
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nnx import __version__
from nnx._base import check
from nnx._base.typing import Path
from nnx.serve import openapi
from nnx.serve.batching import Batcher
from nnx.serve.errors import RequestError, request_error
from nnx.serve.metrics import Metrics
from nnx.serve.rows import ENCODINGS, Rows
from nnx.serve.service import Asked, Service

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 16 << 20
MAX_CONCURRENCY = 256
#: How many bodies of the largest size are in memory at the same time, at most.
MAX_HELD = 8
#: Bytes of JSON and of CSV from which on reading them leaves the event loop.
LONG_JSON, LONG_CSV = 1 << 16, 1 << 14

JSON, CSV = b"application/json", b"text/csv"
TOO_MANY = RequestError(503, "too many requests are waiting. Try again in a second.", ((b"retry-after", b"1"),))

logger = logging.getLogger("nnx.serve")


def create_app(
    model: Path | Service, *, max_body: int = MAX_BODY, max_concurrency: int = MAX_CONCURRENCY, threads: int = 1
) -> Starlette:
    """Return the application that `nnx serve` runs, for an ASGI server of your choice.

    Parameters
    ----------
    model : path-like, or Service
        A model's file.
    max_body : int
        The most bytes of a request's body. A larger body gets the status 413.
    max_concurrency : int
        The most requests to ``/predict`` that are read, wait or are answered at the same time. Others get the status
        503.
    threads : int
        The most threads for a prediction of many rows, if ``model`` is a path.

    Returns
    -------
    Starlette
        With ``POST /predict``, ``/health``, ``/metrics``, ``/openapi.json`` and a page at ``/``. ``app.state.service``
        is the model, ``app.state.metrics`` what is counted. It needs no lifespan events. It predicts long
        batches in a separate thread.

    Raises
    ------
    FileNotFoundError, ModelFileError
        If the file does not exist, or holds no model.
    """
    where = "create_app"
    max_body = check.whole(where, "max_body", max_body, 1, check.MAX_COUNT)
    max_concurrency = check.whole(where, "max_concurrency", max_concurrency, 1, check.MAX_COUNT)
    service = model if isinstance(model, Service) else Service(model, threads=threads)
    metrics = Metrics(service.name, __version__)
    predict = Predict(service, metrics, max_body, max_concurrency)
    described = orjson.dumps(openapi.description(service, __version__))
    page = openapi.page(service, __version__)
    health = orjson.dumps({"status": "ok", "model": service.name})
    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/health", partial(_fixed, health, "application/json")),
        Route("/openapi.json", partial(_fixed, described, "application/json")),
        Route("/", partial(_page, page)),
        Route("/metrics", partial(_metrics, metrics)),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _bug})
    app.state.service, app.state.metrics = service, metrics
    return app


async def _fixed(content: bytes, media_type: str, request: Request) -> Response:
    return Response(content, media_type=media_type, headers={"x-content-type-options": "nosniff"})


async def _page(page: bytes, request: Request) -> Response:
    """Answer with the page, whose examples have the address that was asked."""
    address = html.escape(f"{request.url.scheme}://{request.headers.get('host', 'HOST')[:200]}")
    content = page.replace(openapi.ADDRESS.encode(), address.encode())
    return await _fixed(content, "text/html; charset=utf-8", request)


async def _metrics(metrics: Metrics, request: Request) -> Response:
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _http_error(request: Request, error: Exception) -> Response:
    """Answer another address or method."""
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing at this address. Ask POST /predict; / has the description.",
        405: "this address takes another method: /predict takes POST, all others GET.",
    }
    content = orjson.dumps({"error": sentences.get(error.status_code, error.detail)})
    return Response(content, error.status_code, dict(error.headers or {}), "application/json")


def _bug(request: Request, error: Exception) -> Response:
    return Response(orjson.dumps({"error": "the service has failed."}), 500, media_type="application/json")


class Predict:
    """``POST /predict``, as ASGI has it: a request object of the framework would double what a small row costs."""

    def __init__(self, service: Service, metrics: Metrics, max_body: int, max_concurrency: int) -> None:
        self.service, self.metrics = service, metrics
        self.max_body, self.max_concurrency = max_body, max_concurrency
        self._held = 0
        self.pool = ThreadPoolExecutor(1, "predict")
        self.batcher = Batcher(service.answer, service.seconds_per_row, self.pool, metrics.count_batch)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = time.perf_counter()
        metrics = self.metrics
        status, kind = 200, JSON
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if metrics.active >= self.max_concurrency:
            metrics.responses[503] += 1
            await _send(send, 503, _error(TOO_MANY), JSON, TOO_MANY.headers)
            return
        metrics.active += 1
        held: list[int] = []
        try:
            try:
                body_kind, encoding, kind = self._head(scope["headers"])
                body = await self._body(receive, held)
                if body is None:  # the client has gone
                    return
                rows = await self._rows(body, body_kind, encoding)
                found = await self.batcher.submit(Asked(rows, kind is CSV))
                if isinstance(found, RequestError):
                    raise found
                content = found
            except RequestError as refusal:
                status, headers, kind, content = refusal.status, refusal.headers, JSON, _error(refusal)
            except Exception:
                logger.exception("a request was answered 500")
                status, kind, content = 500, JSON, b'{"error":"the service has failed."}'
            await _send(send, status, content, kind, headers)
            metrics.responses[status] += 1
            metrics.seconds.add(time.perf_counter() - began)
        finally:
            metrics.active -= 1
            self._held -= sum(held)

    def _head(self, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, str | None, bytes]:
        """Return the body's type and encoding, and the answer's type."""
        content_type = accept = b""
        length = None
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = int(value) if value.isdigit() else None
            elif name == b"accept":
                accept += b"," + value
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise RequestError(415, "the body must not be compressed.", ((b"accept-encoding", b"identity"),))
        if length is not None and length > self.max_body:
            raise self._too_large()
        if content_type == JSON:
            kind, encoding = JSON, None
        else:
            kind, encoding = _type_of(content_type)
        return kind, encoding, _answer_type(accept, kind)

    async def _body(self, receive: Receive, held: list[int]) -> bytes | None:
        """Return a request's body; None if the client leaves. Note in ``held`` what large ones take in memory."""
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body") and len(body) <= self.max_body:
            return body
        parts, size = [body], len(body)
        while message["type"] == "http.request" and message.get("more_body") and size <= self.max_body:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            held.append(len(parts[-1]))
            self._held += held[-1]
            if self._held > MAX_HELD * self.max_body:
                raise TOO_MANY
        if size > self.max_body:
            raise self._too_large()
        return b"".join(parts) if message["type"] == "http.request" else None

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body must have at most {self.max_body:,} bytes. Send fewer rows at a time.")

    async def _rows(self, body: bytes, kind: bytes, encoding: str | None) -> Rows:
        """Return a body's rows, or the refusal that says what is wrong with them."""
        reader = self.service.reader
        read: Callable[[], Rows]
        if kind is JSON:
            read, is_long = partial(reader.of_json, body), len(body) > LONG_JSON
        else:
            read, is_long = partial(reader.of_csv, body, encoding), len(body) > LONG_CSV
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, read) if is_long else read()
        except (TypeError, ValueError) as error:
            raise request_error(error) from None


def _type_of(content_type: bytes) -> tuple[bytes, str | None]:
    """Return which type of body a Content-Type names, JSON if none does, and an encoding."""
    given = content_type.decode("latin-1")
    essence, _, rest = given.partition(";")
    essence = essence.strip().lower()
    charset = next((value for name, value in _parameters(rest) if name == "charset"), "")
    if essence in ("", "application/json") or essence.endswith("+json"):
        if charset not in ("", "utf-8", "utf8", "us-ascii", "ascii"):
            raise RequestError(415, f"JSON must be in UTF-8, got charset={charset[:40]!r}.")
        return JSON, None
    if essence in ("text/csv", "application/csv"):
        if charset and charset not in ENCODINGS:
            raise RequestError(
                415, f"CSV must be in UTF-8, UTF-16, Latin-1 or Windows-1252, got charset={charset[:40]!r}."
            )
        return CSV, ENCODINGS.get(charset)
    raise RequestError(415, f"Content-Type must be application/json or text/csv, got {essence[:80]!r}.")


def _parameters(text: str) -> list[tuple[str, str]]:
    """Return the parameters of a Content-Type."""
    pairs = [part.partition("=") for part in text.split(";")]
    return [(name.strip().lower(), value.strip().strip('"').lower()) for name, _, value in pairs]


def _answer_type(accept: bytes, kind: bytes) -> bytes:
    """Return the type of the answer: the body's, unless only the other one is accepted."""
    if not accept:
        return kind
    accept = accept.lower()
    if kind is CSV and b"json" in accept and CSV not in accept:
        return JSON
    if kind is JSON and CSV in accept and b"json" not in accept:
        return CSV
    return kind


def _error(refusal: RequestError) -> bytes:
    content: bytes = orjson.dumps({"error": refusal.sentence.encode("utf-8", "replace").decode()})
    return content


async def _send(
    send: Send, status: int, content: bytes, kind: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    media_type = kind if kind is JSON else b"text/csv; charset=utf-8"
    start = [(b"content-type", media_type), (b"content-length", b"%d" % len(content)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})
