"""Serve a demo's folder to browsers of this machine."""

import functools
import http.server
import logging
import os
from pathlib import Path

from pyrseg_jax.demo.folder import POLICY
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
HEADERS = {
    # Together, these two let the network run in several threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Answer with the files of one folder; it lists no folders."""

    extensions_map = {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".jpg": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
        "": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Add `HEADERS` to every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        """Refuse to list a folder."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Write no line for each request."""


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of the folder on the loopback interface, which other machines cannot reach.

    Args:
      folder: the demo.
      port: to listen at; 0 for any that is free.

    Raises:
      UserError: if the port cannot be used.
    """
    try:
        return http.server.ThreadingHTTPServer((LOOPBACK, port), functools.partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port={port} cannot be used ({reason}): name another, or 0 for any that is free") from error


def serve(folder: Path, port: int) -> None:
    """Serve the folder until Ctrl-C; raises UserError if the port cannot be used."""
    with make_server(folder, port) as server:
        server.daemon_threads = True
        print(f"http://{LOOPBACK}:{server.server_address[1]}/ (end with Ctrl-C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("ended")
