"""Hand a file to the one decoder of PIL that belongs to its first bytes, after its size was checked."""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pyrseg_jax.data.images import jpeg_header, png_chunks
from pyrseg_jax.data.images.avif import open_avif
from pyrseg_jax.data.images.claimed_size import MAX_PIXELS, check_claimed_size
from pyrseg_jax.data.images.image_formats import advice_for, kind_of_image
from pyrseg_jax.data.images.orientation import without_orientation
from pyrseg_jax.data.images.tiff_layout import check_tiff, describe_tiff, find_tiff_damage
from pyrseg_jax.data.images.webp_size import webp_size
from pyrseg_jax.errors import UserError, naming_file

ACTION = "cannot be decoded as an image"
ADVICE = "replace the file or remove it from the data set"
_pil_limit = threading.Lock()

# `Image.open` would choose by content among dozens of decoders, some of which start other programs.
_OPENERS: dict[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "JPEG": lambda data: JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg_header.without_metadata(data))),
    "PNG": lambda data: PngImagePlugin.PngImageFile(io.BytesIO(png_chunks.without_metadata(data))),
    "TIFF": lambda data: TiffImagePlugin.TiffImageFile(io.BytesIO(without_orientation(data))),
    "WEBP": lambda data: WebPImagePlugin.WebPImageFile(io.BytesIO(data)),
    "BMP": lambda data: BmpImagePlugin.BmpImageFile(io.BytesIO(data)),
    "GIF": lambda data: GifImagePlugin.GifImageFile(io.BytesIO(data)),
    "PPM": lambda data: PpmImagePlugin.PpmImageFile(io.BytesIO(data)),
    "JPEG2000": lambda data: Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data)),
    "AVIF": open_avif,
}


def recognize(data: bytes, name: str, formats: tuple[str, ...]) -> str:
    """Return the format of a file, one of `formats`.

    Raises:
      UserError: naming the file and what it is instead.
    """
    if not data:
        raise UserError(f"{name} {ACTION} (it is empty): {ADVICE}")
    kind = kind_of_image(data)
    if kind.format is None:
        raise UserError(f"{name} {ACTION} (it is {kind.name}): {advice_for(kind)}")
    if kind.format not in formats:
        raise UserError(
            f"{name} is {kind.name}: expected one of {', '.join(formats)}; convert it without changing its values"
        )
    return kind.format


def open_image(data: bytes, name: str, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Read the header of an image file; its pixels are as stored, not turned upright, once they are loaded.

    Raises:
      UserError: naming the file, if it is of another format, damaged, or claims a size that it cannot have.
    """
    kind = recognize(data, name, formats)
    with naming_file(name, ACTION, ADVICE), _quiet():
        if kind == "PNG" and png_chunks.read_png_header(data) is None:
            raise UserError(f"{name} is damaged (its header is not that of a PNG): {ADVICE}")
        if size := _size_in_header(kind, data):
            check_claimed_size(name, kind, *size, data)
        image = _open(kind, name, data, *(size or (0, 0)))
        check_claimed_size(name, kind, *image.size, data)
        if kind == "TIFF":
            check_tiff(image, data, name)
    return image


def load_image(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
    """Decode the pixels of an image that `open_image` returned; raises UserError as it does."""
    with naming_file(name, ACTION, ADVICE), _quiet(), _pil_allows(*image.size):
        if image.format == "PNG" and (damage := png_chunks.find_png_damage(data)):
            raise UserError(f"{name} is damaged ({damage}): {ADVICE}")
        if image.format == "TIFF" and (damage := find_tiff_damage(image, data)):
            raise UserError(f"{name} is damaged ({damage}): {ADVICE}")
        image.load()


def _open(kind: str, name: str, data: bytes, width: int, height: int) -> ImageFile.ImageFile:
    with _pil_allows(width, height):
        try:
            return _OPENERS[kind](data)
        except SyntaxError as error:
            if kind == "TIFF" and str(error) == "unknown pixel mode":
                raise UserError(
                    f"{name} is {describe_tiff(data)}, which no decoder here reads: store it as PNG"
                ) from error
            raise


def _size_in_header(kind: str, data: bytes) -> tuple[int, int] | None:
    """Read (width, height) where that takes no decoder. Some decoders set memory aside as soon as they open a file."""
    if kind == "WEBP":
        return webp_size(data)
    header = {"JPEG": jpeg_header.read_jpeg_header, "PNG": png_chunks.read_png_header}.get(kind, lambda _: None)(data)
    return (header.width, header.height) if header else None


@contextlib.contextmanager
def _pil_allows(width: int, height: int) -> Iterator[None]:
    """Raise PIL's limit on the size of images, a global variable, while one that is larger is decoded."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or width * height <= limit:
        yield
        return
    with _pil_limit:
        Image.MAX_IMAGE_PIXELS, limit = MAX_PIXELS, Image.MAX_IMAGE_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PIL warns about unusual metadata, which is not used here, and about images above half its size limit.
        warnings.simplefilter("ignore")
        yield
