"""What one server accepts."""

import dataclasses

from pyrseg_jax.errors import UserError

MAX_SECONDS = 3600.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on requests.

    Attributes:
      max_bytes: of the body of a request.
      max_pixels: of an image; read from its header, before it is decoded.
      timeout_s: seconds for the body to arrive, and again as many for the answer.
      queue: requests for a segmentation that the server holds at a time.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 2**24
    timeout_s: float = 30.0
    queue: int = 64

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, found {getattr(self, name)}")
        if not 0 < self.timeout_s <= MAX_SECONDS:
            raise ValueError(f"expected timeout_s above 0 and at most {MAX_SECONDS:g}, found {self.timeout_s}")


def read_sizes(texts: list[str], limits: Limits) -> list[tuple[int, int]]:
    """Parse image sizes, each as HEIGHTxWIDTH in pixels; raises UserError naming the text, also if no such image is accepted."""
    sizes = []
    for text in dict.fromkeys(texts):
        height, _, width = text.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise UserError(
                f"--sizes={text}: expected HEIGHTxWIDTH in pixels, for example 360x480; separate several sizes with commas"
            )
        if int(height) * int(width) > limits.max_pixels:
            raise UserError(
                f"--sizes lists {text}, and --max_pixels={limits.max_pixels} refuses such images: raise the limit, or leave "
                "the size out"
            )
        sizes.append((int(height), int(width)))
    return sizes
