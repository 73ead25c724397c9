"""How a request is refused: a status, and one line of JSON that says what was found and what was expected."""

import json
from collections.abc import Mapping

from pyrseg_jax.errors import escaped

JSON = "application/json"
RETRY = {"retry-after": "1"}  # seconds
FAULT = "the server has a fault, which its log names"
NOT_READY = "the model is being loaded and compiled: ask again in a second"


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
      status: of HTTP.
      text: one line for the user.
      headers: further headers of the answer.
      is_unread: whether a part of the body may not have been read. The connection is closed then.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None, is_unread: bool = False):
        super().__init__(text)
        self.status, self.text, self.is_unread = status, text, is_unread
        self.headers = dict(headers or {}) | ({"connection": "close"} if is_unread else {})

    @property
    def body(self) -> bytes:
        """The line of the answer."""
        return line_of(self.text)


def line_of(text: str) -> bytes:
    """Return an error as a line of JSON; no text in it can break the line."""
    return json.dumps({"error": escaped(text)}, ensure_ascii=False).encode(errors="replace") + b"\n"
