"""Listen, warm up, answer until a signal comes, and then finish what was accepted."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pyrseg_jax.errors import UserError
from pyrseg_jax.serving.app import MODEL
from pyrseg_jax.serving.door import Door
from pyrseg_jax.serving.engine import Engine
from pyrseg_jax.serving.refusal import JSON, line_of

log = logging.getLogger(__name__)

HEADERS_S = 10.0  # Chosen: within which the headers of a request must arrive
MAX_CONNECTIONS = 1000  # Chosen: below the usual limit of 1024 open files of a process
KEEP_ALIVE_S = 5  # Chosen: how long a connection without a request stays open


class Protocol(H11Protocol):
    """A connection that is closed if the headers of a request do not arrive in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with one line of JSON, and close the connection."""
        line = line_of("this is not a request of HTTP/1.1, or its headers are too long")
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {JSON}\r\ncontent-length: {len(line)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + line)
        self.transport.close()

    def _watch(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if not is_idle and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif is_idle and self._deadline is None:
            self._deadline = self.loop.call_later(HEADERS_S, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """A server that ends when it is told to, or when the model cannot be warmed up.

    Args:
      app: the application.
      engine: its engine.
      is_stopped: whether to accept nothing new.

    Attributes:
      failure: why the engine cannot be warmed up; None so far.
    """

    def __init__(self, app: Door, engine: Engine, is_stopped: Callable[[], bool]):
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            # What is held has twice the time: for its body, and for its answer.
            timeout_graceful_shutdown=int(2 * engine.limits.timeout_s) + 1,
        )
        super().__init__(config)
        self.failure: BaseException | None = None
        self._engine, self._is_stopped = engine, is_stopped

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; this is called ten times a second."""
        self.should_exit = self.should_exit or self._is_stopped() or self.failure is not None
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield

    def warm_up(self) -> None:
        """Warm the engine up, and note a failure."""
        try:
            self._engine.warm_up()
        except BaseException as error:
            self.failure = error


def serve(app: Door, engine: Engine, listener: socket.socket, is_stopped: Callable[[], bool]) -> None:
    """Serve until `is_stopped`; then accept nothing new, and finish what was accepted.

    Args:
      app: the application.
      engine: its engine, which is warmed up here.
      listener: the socket, of `listen`.
      is_stopped: is asked ten times a second.

    Raises:
      UserError: if the model cannot be warmed up.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what a user can use is logged by the application
    server = Server(app, engine, is_stopped)
    # A daemon, because a compilation cannot be interrupted, and the process need not wait for it.
    warming = threading.Thread(target=server.warm_up, name="warm-up", daemon=True)
    with engine.metrics.counting_compilations():
        warming.start()
        try:
            asyncio.run(server.serve([listener]))
        finally:
            engine.close()
    if server.failure is not None:
        raise server.failure


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises UserError if it cannot.

    Args:
      host: an address or a name of this machine.
      port: 0 chooses a free one.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=256)  # pyright: ignore[reportArgumentType]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host={host} --port={port}: cannot listen there ({reason}): choose another") from error


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket for people: http://HOST:PORT."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only programs of this machine reach a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def say_address(listener: socket.socket, has_token: bool) -> None:
    """Log where the server listens, and warn if everybody can use it."""
    address = address_of(listener)
    log.info("listening on %s; %s%s describes the model", address, address, MODEL)
    if not is_loopback(listener) and not has_token:
        log.warning("anyone who reaches this port can use the model: set a token with --token=FILE or PYRSEG_TOKEN")
