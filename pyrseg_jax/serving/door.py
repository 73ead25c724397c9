"""The outermost layer of the service: the token, the count of requests, their log, and no traceback in any answer."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pyrseg_jax.errors import reason_of
from pyrseg_jax.serving.metrics import Metrics
from pyrseg_jax.serving.refusal import FAULT, JSON, Refusal

log = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz")  # need no token, because those who ask for them have none
QUIET = (*OPEN, "/metrics")  # are asked for every few seconds, and not logged
MAX_PATH = 80  # characters of a path in the log
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Door:
    """An ASGI application around another one.

    Args:
      app: the application.
      routes: the paths that it knows; all others are counted as one.
      metrics: where to count.
      token: what clients must send as `Authorization: Bearer TOKEN`; "" lets everybody in.
    """

    def __init__(self, app: App, routes: tuple[str, ...], metrics: Metrics, token: str = ""):
        self._app, self._routes, self._metrics = app, routes, metrics
        self._token = token.encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start, path = time.perf_counter(), scope["path"]
        status, num_bytes = 0, 0

        async def noting(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            num_bytes += len(message.get("body", b""))
            await send(message)

        try:
            if path in OPEN or not self._token or self._has_token(scope):
                await self._app(scope, receive, noting)
            else:
                advice = "expected the header `Authorization: Bearer TOKEN` with the token of this server"
                await _answer(noting, Refusal(401, advice, {"www-authenticate": "Bearer"}, is_unread=True))
        except Exception as error:
            log.error("%s failed (%s)", path[:MAX_PATH], reason_of(error), exc_info=log.isEnabledFor(logging.DEBUG))
            if not status:
                await _answer(noting, Refusal(500, FAULT, is_unread=True))
        seconds = time.perf_counter() - start
        route = path if path in self._routes else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if path not in QUIET or status >= 500:
            log.info(
                "%s %s %d, %d bytes in %.0f ms", scope["method"][:10], path[:MAX_PATH], status, num_bytes, 1e3 * seconds
            )

    def _has_token(self, scope: MutableMapping[str, Any]) -> bool:
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        scheme, _, token = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


async def _answer(send: Send, refusal: Refusal) -> None:
    headers = {"content-type": JSON, "content-length": str(len(refusal.body)), **refusal.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": refusal.body})
