"""The HTTP interface: routes, and errors as JSON. What answers is passed in; knows no Ray."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from derain.errors import DerainError
from derain.pipelines.serve.answers import Derained, Refused, RefusedError
from derain.pipelines.serve.limits import RETRY_S, Limits, Queue, check_key, read_body
from derain.pipelines.serve.metrics import CONTENT_TYPE, Metrics
from derain.pipelines.serve.page import page

log = logging.getLogger(__name__)

Backend = Callable[[bytes], Awaitable[Derained | Refused]]
"""Answers one encoded image. Raises RefusedError if nobody is there to answer."""

REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@dataclass
class Served:
    """A network in use: which version, and what answers."""

    model: str
    backend: Backend
    in_hand: int = 0


@dataclass
class Service:
    """What the routes share."""

    limits: Limits
    key: str | None = None
    models: dict[str, Served] = field(default_factory=dict)
    """By the name in `?model=`; the first is the default."""
    ready: bool = True


def make_app(service: Service) -> FastAPI:
    """The application: `/`, `/v1/derain`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`."""
    app = FastAPI(title="derain", docs_url=None, redoc_url=None)
    queue = Queue(service.limits.queue)
    metrics = Metrics(queue)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return _refusal(error.refused)

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> Response:
        return _refusal(
            Refused(error.status_code, "no_such_route", f"{error.detail}; see /openapi.json.")
        )

    @app.post("/v1/derain", openapi_extra=REQUEST_BODY, response_class=Response)
    async def derain(request: Request) -> Response:
        """Derain one image: the body, or the first file of a form. The same format comes back;
        with `Accept: application/json` its size and the milliseconds of each step."""
        start = time.perf_counter()
        try:
            check_key(request, service.key)
            with queue.place():
                answer = await _answer(service, request)
        except RefusedError as error:
            answer = error.refused
        response = _response(answer, "application/json" in request.headers.get("accept", ""))
        metrics.requests.labels(response.status_code).inc()
        metrics.seconds.observe(time.perf_counter() - start)
        return response

    @app.get("/healthz")
    async def healthz() -> Mapping[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether requests would be answered, and by which versions."""
        models = {name: served.model for name, served in service.models.items()}
        return JSONResponse(
            {"ready": service.ready, "models": models}, 200 if service.ready else 503
        )

    @app.get("/metrics")
    async def prometheus(request: Request) -> Response:
        """Counts for Prometheus."""
        check_key(request, service.key)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        text, policy = page(service.limits, list(service.models), service.key is not None)
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return app


async def _answer(service: Service, request: Request) -> Derained | Refused:
    served = _chosen(service, request.query_params.get("model"))
    served.in_hand += 1  # while its body arrives, too: then its version stays
    try:
        data = await _image(request, await read_body(request, service.limits))
        async with asyncio.timeout(service.limits.answer_s):
            return await served.backend(data)
    except TimeoutError:
        message = f"No answer within {service.limits.answer_s:g} s. Send a smaller image."
        return Refused(504, "too_long", message, RETRY_S)
    except DerainError as error:
        return Refused(500, "failed", str(error))
    finally:
        served.in_hand -= 1


def _chosen(service: Service, name: str | None) -> Served:
    if name is None:
        return next(iter(service.models.values()))
    if name not in service.models:
        known = ", ".join(service.models)
        raise RefusedError(404, "no_such_model", f"No model {name!r} here; expected {known}.")
    return service.models[name]


async def _image(request: Request, body: bytes) -> bytes:
    """The body, or the first file of a form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return body

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=1, max_fields=8) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
    except HTTPException as error:
        raise RefusedError(400, "bad_form", f"The form cannot be read ({error.detail}).") from None
    raise RefusedError(400, "no_file", "The form has no file; expected one field with an image.")


def _response(answer: Derained | Refused, as_json: bool) -> Response:
    if isinstance(answer, Refused):
        return _refusal(answer)
    spent = {name: round(value, 3) for name, value in answer.milliseconds.items()}
    if as_json:
        return JSONResponse({**answer.facts, "bytes": len(answer.data), "milliseconds": spent})
    timing = ", ".join(f"{name};dur={value}" for name, value in spent.items())
    return Response(answer.data, media_type=answer.media_type, headers={"Server-Timing": timing})


def _refusal(refused: Refused) -> Response:
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    if refused.status in (400, 401, 408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    content = {"error": {"kind": refused.kind, "message": refused.message}}
    return JSONResponse(content, refused.status, headers)
