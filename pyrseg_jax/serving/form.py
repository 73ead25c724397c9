"""Read the image out of a form (multipart/form-data) in memory: no temporary file, and no name in it is used."""

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pyrseg_jax.errors import escaped
from pyrseg_jax.serving.refusal import Refusal

FIELD = "image"
_EXPECTED = f"expected one file in the field `{FIELD}`"


class _Parts:
    """Collects the one part of a form. `is_complete`: whether the form has ended as it must."""

    def __init__(self) -> None:
        self.field: str | None = None
        self.is_complete = False
        self._pieces: list[bytes] = []
        self._name, self._value = b"", b""

    @property
    def content(self) -> bytes:
        return b"".join(self._pieces)

    def callbacks(self) -> Any:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_field,
            "on_part_data": lambda data, start, end: self._pieces.append(bytes(data[start:end])),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if self.field is not None:
            raise Refusal(422, f"the form has several parts: {_EXPECTED}")
        self.field = ""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self.field = parse_options_header(self._value)[1].get(b"name", b"").decode("utf-8", "replace")
        self._name, self._value = b"", b""

    def _check_field(self) -> None:
        if self.field != FIELD:
            raise Refusal(422, f"the form has the field {escaped((self.field or '')[:40])!r}: {_EXPECTED}")

    def _end(self) -> None:
        self.is_complete = True


def image_in_form(body: bytes, content_type: str) -> bytes:
    """Return the content of the field `image`.

    Args:
      body: the form.
      content_type: the header Content-Type, which names the boundary of the parts.

    Raises:
      Refusal: 400 for a damaged form, 422 for one with other parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Refusal(
            400, "Content-Type: multipart/form-data names no boundary: send the form as a browser or curl does"
        )
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"the form is damaged: {_EXPECTED}") from error
    if not parts.is_complete:
        raise Refusal(400, f"the form is cut off or empty: {_EXPECTED}")
    if parts.field is None:
        raise Refusal(422, f"the form is empty: {_EXPECTED}")
    return parts.content
