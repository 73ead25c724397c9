"""A server in a thread of the test, a model that needs no network, and clients that can say anything."""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.run.predictor import Predictor, Segmented, Wants
from pyrseg_jax.serving import server
from pyrseg_jax.serving.app import make_app
from pyrseg_jax.serving.engine import Engine
from pyrseg_jax.serving.limits import Limits
from pyrseg_jax.serving.metrics import Metrics

MODEL = {"model": "toy", "step": 7, "weights": "0123456789abcdef"}
PATIENCE_S = 20


class Bright(Predictor):
    """A model of two classes: the dark pixels and the bright ones.

    Attributes:
      batches: the number of images of each batch that was started.
      gate: predictions wait while it is cleared.
      failure: what predictions raise; None: nothing.
    """

    def __init__(self, batch_size: int = 1):
        super().__init__(ade_layout(("dark", "bright")), 0.5, {"name": "toy"})
        self.batch_size, self.batches, self.failure = batch_size, [], None
        self.gate = threading.Event()
        self.gate.set()

    def segment(self, image):
        raise AssertionError("the server asks for batches")

    def group_of(self, height: int, width: int):
        """Images of the same size in units of eight pixels are in one batch."""
        return height // 8, width // 8

    def start(self, images: Sequence[np.ndarray], wants: Wants):
        """Note the batch, and wait for the gate in the second half."""
        self.batches.append(len(images))
        assert len({self.group_of(*image.shape[:2]) for image in images}) == 1

        def finish() -> list[Segmented]:
            assert self.gate.wait(PATIENCE_S)
            if self.failure is not None:
                raise self.failure
            return [
                Segmented(image, self.labels_of(image), np.full(image.shape[:2], 204, np.uint8) if wants[0] else None)
                for image in images
            ]

        return finish

    def labels_of(self, image: np.ndarray) -> np.ndarray:
        """Return the train ids of an image."""
        return (image.mean(-1) > 127).astype(np.uint8)

    def answer_to(self, image: np.ndarray) -> bytes:
        """Return the label map that the server must answer."""
        return png_of(self.labels_of(image) + np.uint8(1))


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The line of an error; checks that it is one line of JSON and nothing else."""
        assert self.headers["content-type"] == "application/json", self
        text = self.body.decode()
        assert text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text, text
        document = json.loads(text)
        assert document.keys() == {"error"}, text
        return document["error"]


class Service(NamedTuple):
    """A server that runs. `port`: where, on this machine."""

    port: int
    engine: Engine

    def ask(self, body: bytes | None = None, path: str = "/v1/segment", method: str = "", **headers: str) -> Answer:
        """Send one request on a connection of its own; underscores in names of headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            return read_answer(connection.getresponse())

    def say(self, *pieces: bytes, pause_s: float = 0.0) -> Answer | None:
        """Send bytes that need not be HTTP, with pauses between them; return the answer, or None if there was none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may answer early
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause_s)
            response = http.client.HTTPResponse(connection)
            try:
                response.begin()
                return read_answer(response)
            except (http.client.HTTPException, ConnectionResetError):
                return None

    def value(self, name: str, **labels: str) -> float:
        """Return a value of the page of metrics."""
        return self.engine.metrics.value(name, labels)


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Read an answer to its end."""
    body = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


@contextlib.contextmanager
def running(
    predictor: Predictor,
    sizes: Sequence[tuple[int, int]] = (),
    token: str = "",
    is_waiting: bool = True,
    **limits,
) -> Iterator[Service]:
    """Run a server inside of the context.

    Args:
      predictor: the model.
      sizes: of images, which are compiled first; without any, all are accepted.
      token: what clients must send.
      is_waiting: whether to wait until the server is ready.
      limits: see `Limits`.
    """
    is_stopped = threading.Event()
    engine = Engine(predictor, MODEL, Limits(**limits), Metrics(), sizes, not sizes)
    failures: list[BaseException] = []

    def work(listener: socket.socket) -> None:
        try:
            server.serve(make_app(engine, MODEL, token), engine, listener, is_stopped.is_set)
        except BaseException as error:
            failures.append(error)

    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=work, args=(listener,), name="server")
        thread.start()
        try:
            deadline = time.monotonic() + PATIENCE_S
            while is_waiting and not engine.is_ready and not failures:
                assert time.monotonic() < deadline, "the server is not ready"
                time.sleep(0.01)
            if not failures:
                yield Service(port, engine)
        finally:
            is_stopped.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the server does not end"
    if failures:
        raise failures[0]


def png_of(values: np.ndarray) -> bytes:
    """Return an array of bytes as a PNG."""
    return encoded(Image.fromarray(values), "PNG")


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    """Return a picture as a file."""
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


def form_of(content: bytes, field: str = "image", filename: str = "photo.png", num_parts: int = 1) -> tuple[bytes, str]:
    """Return a form with a file, and its content type."""
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{filename}"'.encode()
    part = b"--edge\r\n" + disposition + b"\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n"
    return part * num_parts + b"--edge--\r\n", "multipart/form-data; boundary=edge"
