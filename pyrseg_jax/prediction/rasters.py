"""Images that are read row by row: arrays, and TIFFs of any size."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from etils import epath

from pyrseg_jax.data.decode import Masked, decode_masked, masked_planes
from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.images.image_formats import SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError, escaped, naming_file
from pyrseg_jax.prediction.reading import read_bytes
from pyrseg_jax.storage.paths import is_remote

STREAMED_FROM_PX = 2**26  # a smaller TIFF is decoded whole
GDAL_CACHE_MB = 64  # of decoded blocks; by default it takes a twentieth of the machine's memory
MAX_BLOCK_PX = 2**27  # a TIFF whose blocks are larger cannot be read in parts


class Raster(Protocol):
    """An image that is read row by row. `size`: height and width."""

    size: tuple[int, int]

    def read(self, top: int, bottom: int) -> Masked:
        """Return some rows, (bottom - top, W, C)."""
        ...


class ArrayRaster:
    """An image in memory."""

    def __init__(self, masked: Masked):
        self._masked, self.size = masked, (masked.image.shape[0], masked.image.shape[1])

    def read(self, top: int, bottom: int) -> Masked:
        """Return some rows."""
        image, is_void = self._masked
        return Masked(image[top:bottom], None if is_void is None else is_void[top:bottom])


class TiffRaster:
    """A TIFF of a photograph, of which only some rows are in memory. `dataset`: as rasterio opens it."""

    def __init__(self, dataset, name: str):
        self._dataset, self._name, self.size = dataset, name, (dataset.height, dataset.width)
        self._colors = self._read_palette()
        if set(dataset.dtypes) != {"uint8"}:
            raise UserError(f"{name} has samples of {dataset.dtypes[0]}: expected 8 bits; convert it")
        if dataset.count not in (1, 2, 3, 4):
            raise UserError(f"{name} has {dataset.count} channels: expected 1 to 4")
        if max(rows * columns for rows, columns in dataset.block_shapes) > MAX_BLOCK_PX:
            raise UserError(
                f"{name} is stored in one piece, so it cannot be read in parts: convert it, for example with "
                "`gdal_translate -co TILED=YES`"
            )

    def read(self, top: int, bottom: int) -> Masked:
        """Return some rows, as RGB; raises UserError naming the file if they are damaged."""
        return Masked(self._read(top, bottom), None)

    def _read(self, top: int, bottom: int) -> np.ndarray:
        with naming_file(self._name, "cannot be read", "restore it"):
            planes = self._dataset.read(window=((top, bottom), (0, self.size[1])))
        if self._colors is not None:
            return self._colors[planes[0]]
        alpha = planes[-1] if len(planes) in (2, 4) else None
        pixels = planes[:1].repeat(3, 0) if len(planes) < 3 else planes[:3]
        if alpha is not None:  # on a white background, as everywhere
            share = alpha.astype(np.uint16)
            pixels = ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def _read_palette(self) -> np.ndarray | None:
        try:
            found = self._dataset.colormap(1)
        except ValueError:  # there is none
            return None
        colors = np.zeros((256, 3), np.uint8)
        for value, color in found.items():
            colors[value] = color[:3]
        return colors


class PlanesRaster:
    """A TIFF of another image space, of which only some rows are in memory."""

    def __init__(self, reader: geotiff.GeoReader, name: str, space: ImageSpace):
        self._reader, self._name, self._space = reader, name, space
        self.size = reader.profile.height, reader.profile.width

    def read(self, top: int, bottom: int) -> Masked:
        """Return some rows; raises UserError naming the file if they are damaged or hold other values."""
        planes = self._reader.read(slice(top, bottom))
        return masked_planes(planes.values, planes.is_missing, self._name, self._space)


@contextlib.contextmanager
def open_raster(path: Path | epath.Path, space: ImageSpace = PHOTOGRAPH) -> Iterator[Raster]:
    """Open an image to read it row by row.

    A large TIFF on a disk is read in parts, by rasterio; every other image is decoded whole.

    Args:
      path: path of the image.
      space: what its values mean.

    Raises:
      UserError: naming the file, if it cannot be read.
    """
    is_tiff = suffix_of(path.name) in SUFFIXES["TIFF"] and not is_remote(path)
    with contextlib.ExitStack() as held:
        raster = _open_tiff(Path(path), space, held) if is_tiff else None
        yield raster or ArrayRaster(decode_masked(read_bytes(path), str(path), space))


def _open_tiff(path: Path, space: ImageSpace, held: contextlib.ExitStack) -> TiffRaster | PlanesRaster | None:
    """Open a large TIFF; None if it is small, or rasterio is not installed."""
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    except ImportError:
        return None
    with naming_file(str(path), "cannot be read", "replace it, or move it out of the folder"):
        held.enter_context(rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = held.enter_context(rasterio.open(path, driver="GTiff"))
        except RasterioIOError:
            return None  # the usual decoder says what is wrong with it
        if dataset.height * dataset.width < STREAMED_FROM_PX:
            return None
        if not space.is_photograph:
            return PlanesRaster(held.enter_context(geotiff.open_geotiff(path, str(path))), str(path), space)
        return TiffRaster(dataset, escaped(str(path)))
