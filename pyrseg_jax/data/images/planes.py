"""Read the values of image files of any number of channels as the files store them, without making photographs of them."""

import cv2
import numpy as np
from jaxtyping import Real
from PIL import Image

from pyrseg_jax.data.images.geotiff import Planes, is_tiff
from pyrseg_jax.data.images.geotiff import read_planes as read_tiff
from pyrseg_jax.data.images.open_image import ACTION, ADVICE
from pyrseg_jax.data.images.png_chunks import read_png_header
from pyrseg_jax.data.images.whole_photograph import open_photograph
from pyrseg_jax.errors import UserError, naming_file

# PIL's modes whose bands are the channels of the image; their numbers are those of the file.
_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")
_RGB, _GRAY_ALPHA, _RGB_ALPHA = 2, 4, 6  # color types of a PNG
_SAMPLES = {
    _RGB: [2, 1, 0],
    _GRAY_ALPHA: [0, 3],
    _RGB_ALPHA: [2, 1, 0, 3],
}  # of what OpenCV makes of them: BGR, BGRA, BGRA


def read_planes(data: bytes, name: str) -> Planes:
    """Read a file of any of the formats of photographs. All channels of a file count, transparency included.

    A TIFF needs rasterio. A palette becomes its colors.

    Raises:
      UserError: naming the file, if it is damaged, or its channels are not numbers of the picture (CMYK).
    """
    if is_tiff(data):
        return read_tiff(data, name)
    image = open_photograph(data, name)
    with naming_file(name, ACTION, ADVICE):
        header = read_png_header(data)
        if header is not None and header.depth == 16 and header.color_type in _SAMPLES:
            return Planes(_read_deep_png(data, _SAMPLES[header.color_type]), None)
        return Planes(planes_of(image, name), None)


def planes_of(image: Image.Image, name: str) -> Real[np.ndarray, "h w c"]:
    """Return the values of a PIL image; raises UserError naming it, if it is of a mode like CMYK."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if not image.mode.startswith(_MODES) or image.mode in ("LAB", "La", "RGBa", "RGBX"):
        raise UserError(
            f"{name} has the channels {image.mode}: store its channels as a TIFF, or in gray, RGB or RGBA as a PNG"
        )
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values[..., None] if values.ndim == 2 else values


def _read_deep_png(data: bytes, samples: list[int]) -> Real[np.ndarray, "h w c"]:
    """Read a PNG of 16 bits with several channels, which PIL would reduce to 8 bits; it was checked for damage before."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise ValueError("OpenCV does not decode it")
    return np.ascontiguousarray(values[..., samples])
