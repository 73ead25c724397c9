"""The routes of the service."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

import pyrseg_jax
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.serving.answers import ANSWERS, classes_of
from pyrseg_jax.serving.body import drain, read_image
from pyrseg_jax.serving.door import Door
from pyrseg_jax.serving.engine import Engine
from pyrseg_jax.serving.metrics import CONTENT_TYPE
from pyrseg_jax.serving.negotiation import FORM, TYPES, choose_answer
from pyrseg_jax.serving.page import page_of
from pyrseg_jax.serving.refusal import FAULT, JSON, NOT_READY, RETRY, Refusal

SEGMENT, MODEL, HEALTH, READY, METRICS, DOCS, SCHEMA = ROUTES = (
    *("/v1/segment", "/v1/model", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"),
)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"image": _BYTES["schema"]}, "required": ["image"]}}
_ERROR = {"schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}}
_ERRORS = {
    400: "the body is empty or damaged",
    401: "the token is missing or wrong",
    406: "Accept allows no answer",
    408: "the body did not arrive in time",
    413: "the image is too large",
    415: "this is not an image",
    422: "the image is damaged, or of a size that is not served",
    503: "busy, or not ready yet",
    504: "no answer in time",
}


def make_app(engine: Engine, about: dict[str, Any], token: str = "") -> Door:
    """Return the ASGI application of a server.

    Args:
      engine: what segments the images.
      about: what `GET /v1/model` tells besides classes and sizes.
      token: what clients must send as `Authorization: Bearer TOKEN`; "" lets everybody in.
    """
    # FastAPI's own pages of the documentation load scripts from the web; ours loads nothing.
    app = FastAPI(
        title="pyrseg serve",
        description="Semantic segmentation of images.",
        version=pyrseg_jax.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=SCHEMA,
    )
    _add_segment(app, engine)
    _add_facts(app, engine, about)
    _add_errors(app)
    return Door(app, ROUTES, engine.metrics, token)


def _add_segment(app: FastAPI, engine: Engine) -> None:
    answers = {type: {"schema": {"type": "string", "format": "binary"}} for type in TYPES.values() if type != JSON}
    responses: dict[int | str, dict[str, Any]] = {200: {"description": "the answer", "content": {**answers, JSON: {}}}}
    responses |= {status: {"description": text, "content": {JSON: _ERROR}} for status, text in _ERRORS.items()}
    choices = {"type": "string", "enum": list(ANSWERS)}
    meaning = "the answer, instead of the header Accept: " + "; ".join(f"{n}, {a.meaning}" for n, a in ANSWERS.items())
    body = {"required": True, "content": {"image/*": _BYTES, "application/octet-stream": _BYTES, FORM: _FORM}}
    parameters = [{"name": "format", "in": "query", "required": False, "description": meaning, "schema": choices}]

    @app.post(
        SEGMENT,
        summary="Segment an image",
        responses=responses,
        response_class=Response,
        openapi_extra={"requestBody": body, "parameters": parameters},
    )
    async def segment(request: Request) -> Response:
        try:
            form = choose_answer(_read_query(request), request.headers.get("accept"))
            with engine.holding():
                data = await read_image(request, engine.limits)
                content = await engine.segment(data, form)
        except Refusal as refusal:
            if refusal.is_unread:
                await drain(request, engine.limits)
            raise
        return Response(content, media_type=TYPES[form])


def _read_query(request: Request) -> str | None:
    """Return the value of `format`; raise Refusal for any other key, which may name something that nobody opens."""
    for name in request.query_params:
        if name != "format":
            raise Refusal(422, f"the query has the key {name[:40]!r}: expected only format={'|'.join(ANSWERS)}")
    values = request.query_params.getlist("format")
    if len(values) > 1:
        raise Refusal(422, f"the query has {len(values)} values for format: expected one")
    return values[0] if values else None


def _add_facts(app: FastAPI, engine: Engine, about: dict[str, Any]) -> None:
    label_space = engine.predictor.label_space

    @app.get(MODEL, summary="Describe the model: classes, protocol, sizes, limits")
    async def model() -> JSONResponse:
        limits = engine.limits
        return JSONResponse(
            about
            | {
                "classes": classes_of(label_space),
                "void": label_space.void_file_id,
                "images": engine.predictor.image_space.describe(),
                "protocol": engine.predictor.protocol,
                "threshold": engine.predictor.threshold,
                "is_calibrated": engine.predictor.temperatures is not None,
                "sizes": [list(size) for size in engine.sizes],
                "takes_any_size": engine.takes_any_size,
                "max_bytes": limits.max_bytes,
                "max_pixels": limits.max_pixels,
                "timeout_s": limits.timeout_s,
                "version": pyrseg_jax.__version__,
            }
        )

    @app.get(HEALTH, summary="Answer while the process is alive")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get(READY, summary="Answer 200 once every size is compiled, and 503 before")
    async def ready() -> JSONResponse:
        if not engine.is_ready:
            raise Refusal(503, NOT_READY, RETRY)
        return JSONResponse({"status": "ready"})

    @app.get(METRICS, summary="Count requests, seconds, batches and compilations, for Prometheus")
    async def metrics() -> Response:
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)

    @app.get(DOCS, include_in_schema=False)
    async def docs() -> HTMLResponse:
        headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(page_of(app.openapi()), headers=headers)


def _add_errors(app: FastAPI) -> None:
    def answer(refusal: Refusal) -> Response:
        return Response(refusal.body, refusal.status, refusal.headers, JSON)

    def wording(status: int, text: Callable[[Request], str]) -> Callable[[Request, Exception], Any]:
        async def handle(request: Request, error: Exception) -> Response:
            return answer(Refusal(status, text(request), getattr(error, "headers", None)))

        return handle

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return answer(error)

    async def fail(request: Request, error: Exception) -> Response:
        return answer(Refusal(500, f"the model failed: {error}"))

    async def break_down(request: Request, error: Exception) -> Response:
        return answer(Refusal(500, FAULT))  # it is raised again afterwards, and the door logs it

    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(UserError, fail)
    app.add_exception_handler(Exception, break_down)
    known = ", ".join(ROUTES)
    app.add_exception_handler(
        404, wording(404, lambda request: f"there is no {escaped(request.scope['path'][:80])}: expected one of {known}")
    )
    app.add_exception_handler(
        405,
        wording(
            405,
            lambda request: f"{request.scope['path']} does not take {request.method[:10]}: {DOCS} lists the methods",
        ),
    )
