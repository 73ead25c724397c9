"""The `serve` mode: answer images over HTTP with a trained model."""

import logging
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import signals
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.packaged_models import find_model
from pyrseg_jax.run.predictor import Predictor
from pyrseg_jax.storage.regular_file import read_regular_file

if TYPE_CHECKING:
    from pyrseg_jax.run.workdir import Workdir
    from pyrseg_jax.serving.engine import Engine

log = logging.getLogger(__name__)

TOKEN = "PYRSEG_TOKEN"  # name of the environment variable
MIN_TOKEN, MAX_TOKEN = 16, 1024  # characters


class Model(NamedTuple):
    """A trained model, what tells it from others, and the sizes of images to compile for.

    takes_any_size: whether images of other sizes need nothing compiled.
    """

    predictor: Predictor
    about: dict[str, Any]
    sizes: Sequence[tuple[int, int]]
    takes_any_size: bool


def serve(
    config: Config | None,
    workdir: "Workdir | None",
    model: str | None = None,
    step: int | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    sizes: Sequence[str] = (),
    any_size: bool = False,
    token: str | None = None,
    max_bytes: int = 32 * 2**20,
    max_pixels: int = 2**24,
    timeout: float = 30.0,
    queue: int = 64,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C; what was accepted by then is answered.

    Args:
      config: the run's configuration; None with `model`.
      workdir: the run's folder; None with `model`.
      model: path of an exported model or a model folder, or the name of a packaged model, instead of a run.
      step: step of the checkpoint; by default the newest.
      host: address to listen on.
      port: port to listen on; 0 chooses a free one.
      sizes: image sizes, as "HEIGHTxWIDTH" in pixels, that are compiled before the server is ready. Images of other sizes are then
        refused. If empty, every size is accepted, and the size of a training crop is compiled.
      any_size: whether images of other sizes are accepted nevertheless; the first one of a size is compiled.
      token: path of a file with the token that clients must send; None reads the environment variable PYRSEG_TOKEN.
      max_bytes, max_pixels, timeout, queue: see `serving.limits.Limits`.

    Raises:
      UserError: if the extra `serve` is not installed, there is no model, the address cannot be used, or a size cannot be compiled.
    """
    _import_extra()
    from pyrseg_jax.serving import server
    from pyrseg_jax.serving.engine import Engine
    from pyrseg_jax.serving.limits import Limits, read_sizes
    from pyrseg_jax.serving.metrics import Metrics

    limits = Limits(max_bytes, max_pixels, timeout, queue)
    shapes, secret = read_sizes(list(sizes), limits), _read_token(token)
    with server.listen(host, port) as listener:  # before the seconds that loading takes
        trained = _load(config, workdir, model, step, shapes, any_size)
        takes_any_size = any_size or trained.takes_any_size
        engine = Engine(trained.predictor, trained.about, limits, Metrics(), trained.sizes, takes_any_size)
        server.say_address(listener, bool(secret))
        _serve(engine, listener, secret)


def _serve(engine: "Engine", listener: socket.socket, token: str) -> None:
    """Serve until a signal comes; SIGTERM is the usual end of a server, and any other one is raised."""
    from pyrseg_jax.serving import server
    from pyrseg_jax.serving.app import make_app

    log.info("compiling for %s", ", ".join(f"{height} × {width}" for height, width in engine.sizes))
    with signals.postponing() as postponed:
        server.serve(make_app(engine, engine.model, token), engine, listener, postponed.has_come)
    if postponed.number == signal.SIGTERM and engine.is_ready:
        log.info("stopped by SIGTERM: every request that was accepted was answered")
        return
    postponed.raise_again()


def _import_extra() -> None:
    try:
        import fastapi as fastapi
        import prometheus_client as prometheus_client
        import python_multipart as python_multipart
        import uvicorn as uvicorn
    except ImportError as error:
        raise UserError(
            f"serve needs the package {error.name}, which is not installed: install the extra `serve` (`pip install "
            "'pyrseg-jax[serve]'`)"
        ) from error


def _load(
    config: Config | None,
    workdir: "Workdir | None",
    model: str | None,
    step: int | None,
    sizes: Sequence[tuple[int, int]],
    any_size: bool,
) -> Model:
    """Read the exported model or the model folder, or restore the run."""
    name = os.path.basename(str(model if workdir is None else workdir.path).rstrip("/"))
    if model is not None:
        place = find_model(model)
        if not place.is_dir():
            if sizes or any_size:
                raise UserError(
                    f"--sizes and --any_size need a run or a model folder: {model} has programs for sizes of its own, and takes "
                    "images of any size"
                )
            from pyrseg_jax.export.predictor import load_exported

            predictor, digest = load_exported(Path(place))
            own = [(height, width) for height, width in predictor.protocol["sizes"]]
            return Model(predictor, {"model": name, "step": None, "weights": digest}, own, True)
        from pyrseg_jax.run.workdir import Workdir

        workdir = Workdir(str(place))
        config = workdir.read_config()
    assert config is not None and workdir is not None, "without a model there is a run"
    from pyrseg_jax.run.trained_predictor import load_predictor

    predictor, trained = load_predictor(config, workdir, step)
    about = {"model": name, "step": trained.step, "weights": trained.fingerprint}
    crop = config.data.crop_px
    if not sizes:
        log.info("without --sizes, images of any size are accepted, and the first one of each size takes seconds")
    return Model(predictor, about, sizes or [(crop, crop)], not sizes)


def _read_token(file: str | None) -> str:
    """Return the token, "" if there is none; raises UserError if it cannot be read, or is not one."""
    if file is None:
        text, place = os.environ.get(TOKEN, ""), TOKEN
        if not text:
            return ""
    else:
        path, place = Path(file).expanduser(), f"--token={file}"
        try:
            text = read_regular_file(path, 4 * MAX_TOKEN).decode("ascii", "replace").strip()
        except OSError as error:
            raise UserError(
                f"{place} cannot be read ({error.strerror or error}): name a file that holds the token"
            ) from error
    if not MIN_TOKEN <= len(text) <= MAX_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise UserError(
            f"{place} holds no token: expected {MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces, for example "
            "of `openssl rand -hex 32`"
        )
    return text
