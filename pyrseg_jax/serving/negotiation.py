"""Which answer a client asks for, and in which form it sends its image."""

from pyrseg_jax.errors import escaped
from pyrseg_jax.serving.refusal import Refusal

# What the server can answer, and as which type; the first of those that a client accepts equally is taken.
TYPES = {"png": "image/png", "json": "application/json", "overlay": "image/jpeg"}
FORM = "multipart/form-data"
MAX_RANGES = 32  # of types in a header that are read


def choose_answer(asked: str | None, accept: str | None) -> str:
    """Return a key of `TYPES`.

    Args:
      asked: the value of `?format=`, which counts more than the header.
      accept: the header Accept.

    Raises:
      Refusal: 422 for another format, 406 if the client accepts none of the types.
    """
    if asked is not None:
        if asked not in TYPES:
            raise Refusal(422, f"format={asked[:40]}: expected one of {', '.join(TYPES)}")
        return asked
    if accept is None or not accept.strip():
        return "png"
    weights = {name: _weight_of(type, accept) for name, type in TYPES.items()}
    best = max(weights, key=lambda name: weights[name])  # the first of equal ones
    if weights[best] <= 0:
        raise Refusal(
            406, f"Accept: {accept[:80]} allows none of the answers: expected one of {', '.join(TYPES.values())}"
        )
    return best


def _weight_of(type: str, accept: str) -> float:
    """Return the weight that the most specific range of a header Accept gives to a type; 0 without any."""
    best = (-1, 0.0)
    for part in accept.split(",")[:MAX_RANGES]:
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        ranges = {type: 2, f"{type.partition('/')[0]}/*": 1, "*/*": 0}
        if name not in ranges:
            continue
        text = next((word.partition("=")[2] for word in parameters if word.partition("=")[0].strip() == "q"), "1")
        try:
            weight = min(max(float(text), 0.0), 1.0)
        except ValueError:
            weight = 0.0
        if weight != weight:  # NaN
            weight = 0.0
        best = max(best, (ranges[name], weight))
    return best[1]


def is_form(content_type: str | None) -> bool:
    """Return whether the body of a request is a form; otherwise it is the image itself.

    Raises:
      Refusal: 415, if the header Content-Type names neither.
    """
    name = (content_type or "").partition(";")[0].strip().lower()
    if name == FORM:
        return True
    if name in ("", "application/octet-stream") or name.startswith("image/"):
        return False
    raise Refusal(
        415,
        f"Content-Type: {escaped(name[:80])}: expected the bytes of an image as image/png, image/jpeg or another image/…, or a "
        f"form, {FORM}",
    )
