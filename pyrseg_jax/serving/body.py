"""Read the body of a request within limits of bytes and seconds."""

import asyncio
import contextlib

from fastapi import Request

from pyrseg_jax.serving.form import image_in_form
from pyrseg_jax.serving.limits import Limits
from pyrseg_jax.serving.negotiation import is_form
from pyrseg_jax.serving.refusal import Refusal

DRAIN_S = (
    1.0  # how long the rest of a refused body is read, so that clients that send first and read later get the answer
)


async def read_image(request: Request, limits: Limits) -> bytes:
    """Return the bytes of the image in a request.

    Raises:
      Refusal: 400, 408, 413, 415 or 422, if there is none within the limits.
    """
    content_type = request.headers.get("content-type")
    has_form = is_form(content_type)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Refusal(415, f"Content-Encoding: {encoding[:40]}: send the image as it is", is_unread=True)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_bytes:
        raise _too_large(limits)
    body = await _read(request, limits)
    if not body:
        raise Refusal(400, "the body is empty: expected the bytes of an image")
    if not has_form:
        return body
    image = image_in_form(body, content_type or "")
    if not image:
        raise Refusal(400, "the file in the form is empty: expected the bytes of an image")
    return image


async def _read(request: Request, limits: Limits) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the connection was closed before the body was complete", is_unread=True)
                body += message.get("body", b"")
                if len(body) > limits.max_bytes:
                    raise _too_large(limits)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refusal(
            408, f"the body did not arrive within {limits.timeout_s:g} s: send it faster", is_unread=True
        ) from error


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, f"the body has more than {limits.max_bytes:,} bytes: send a smaller or compressed image", is_unread=True
    )


async def drain(request: Request, limits: Limits) -> None:
    """Read the rest of a body that is refused, for a second at most; a client that waits to be asked for it sends none."""
    if "expect" in request.headers:
        return
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while num_bytes <= limits.max_bytes:
                message = await request.receive()
                num_bytes += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
