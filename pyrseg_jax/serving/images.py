"""Look at the header of an image, and decode it as `predict` does. What is wrong with it becomes a `Refusal`."""

import contextlib
from collections.abc import Iterator

from pyrseg_jax.data.decode import Masked, decode_masked, size_of
from pyrseg_jax.data.image_space import ImageSpace
from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.images.image_formats import kind_of_image
from pyrseg_jax.data.images.open_image import ADVICE
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.serving.refusal import Refusal

NAME = "the image"  # requests have no names that anybody should read or open
_OUR_ADVICE = "send another image"


def check_header(data: bytes, space: ImageSpace, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) of the upright image, from its header.

    Args:
      data: the file.
      space: what the values of the network's images mean.
      max_pixels: the most pixels that an image may have.

    Raises:
      Refusal: 415 if it is of no known format, 413 if it has too many pixels, 422 if it is damaged.
    """
    with _refusing(data):
        if not space.is_photograph and geotiff.is_tiff(data):
            profile = geotiff.read_profile(data, NAME)
            height, width = profile.height, profile.width
        else:
            height, width = size_of(data, NAME)
    if height * width > max_pixels:
        raise Refusal(
            413,
            f"{NAME} has {height} × {width} pixels (height × width), more than {max_pixels:,}: scale it down, or cut it into parts",
        )
    return height, width


def decode(data: bytes, space: ImageSpace) -> Masked:
    """Decode an image whose header was checked.

    Raises:
      Refusal: 422 if it is damaged, or does not hold such values.
    """
    with _refusing(data):
        return decode_masked(data, NAME, space)


@contextlib.contextmanager
def _refusing(data: bytes) -> Iterator[None]:
    try:
        with naming_file(NAME, "cannot be decoded", _OUR_ADVICE):
            yield
    except UserError as error:
        status = 415 if kind_of_image(data).format is None else 422
        raise Refusal(status, str(error).replace(ADVICE, _OUR_ADVICE)) from error
