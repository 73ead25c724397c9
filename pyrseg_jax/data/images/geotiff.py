"""Read TIFF files of any number of channels and any type, and keep the coordinate system of maps (GeoTIFF).

It takes rasterio, which is in the extra `geo`. Files are read whole from bytes, or in windows from a disk, so that an image may be
larger than memory. Label maps are written in tiles, with the coordinate system, transform and control points of their image.
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Real, UInt

from pyrseg_jax.data.images.claimed_size import MAX_PIXELS, check_claimed_size
from pyrseg_jax.errors import UserError, naming_file

ACTION, ADVICE = "cannot be read as a TIFF", "replace the file or remove it from the data set"
TILE_PX = 256  # side of the tiles of label maps, a multiple of 16 as TIFF demands
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Planes(NamedTuple):
    """The values of an image or of a window.

    values: (H, W, C), of the type that the file stores.
    is_missing: (H, W, C) whether the file says that a value is missing, by its no-data value or by its mask; None: it says nothing.
    """

    values: Real[np.ndarray, "h w c"]
    is_missing: Bool[np.ndarray, "h w c"] | None


class GeoProfile(NamedTuple):
    """A TIFF's size, values, and place on Earth.

    height, width, channels: the size.
    dtype: type of the values, for example "uint16".
    crs: the coordinate system as WKT; None if the file names none.
    transform: (a, b, c, d, e, f): column x and row y lie at (a x + b y + c, d x + e y + f); None if the file names none.
    control_points: (row, column, x, y, z) of ground control points, for images without a transform.
    """

    height: int
    width: int
    channels: int
    dtype: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    control_points: tuple[tuple[float, ...], ...] = ()

    @property
    def is_georeferenced(self) -> bool:
        """Whether the file says where on Earth it lies."""
        return self.crs is not None or self.transform is not None or bool(self.control_points)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return the place on Earth of column x and row y; without a transform, (x, y)."""
        if self.transform is None:
            return x, y
        a, b, c, d, e, f = self.transform
        return a * x + b * y + c, d * x + e * y + f

    def crs_name(self) -> str | None:
        """Return the name of the coordinate system of `point`: that of its EPSG code if it has one, and else its WKT."""
        if self.crs is None or self.transform is None:
            return None
        code = import_rasterio().CRS.from_wkt(self.crs).to_epsg()
        return f"urn:ogc:def:crs:EPSG::{code}" if code else self.crs


def is_tiff(data: bytes) -> bool:
    """Tell by its first bytes whether a file is a TIFF."""
    return data[:4] in SIGNATURES


def is_available() -> bool:
    """Return whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


class GeoReader:
    """An opened TIFF; `open_geotiff` makes one.

    Attributes:
      profile: its size, values and place.
    """

    def __init__(self, datasets: Sequence[Any], name: str):
        self._datasets, self._name = tuple(datasets), name
        first = self._datasets[0]
        count = first.count if len(self._datasets) == 1 else len(self._datasets)
        points, gcps_crs = first.gcps
        crs = first.crs or (gcps_crs if points else None)
        self.profile = GeoProfile(
            first.height,
            first.width,
            count,
            first.dtypes[0],
            crs.to_wkt() if crs else None,
            None if first.transform.is_identity else tuple(first.transform)[:6],
            tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in points),
        )

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> Planes:
        """Read a window, or by default the whole image; raises UserError naming the file, if its data is damaged."""
        height, width = self.profile.height, self.profile.width
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        window = ((top, bottom), (left, right))
        with naming_file(self._name, ACTION, ADVICE):
            values = np.concatenate([source.read(window=window) for source in self._datasets])
            masks = [source.read_masks(window=window) for source in self._datasets if _has_mask(source)]
        is_missing = np.concatenate(masks) == 0 if len(masks) == len(self._datasets) else None
        if is_missing is not None and not is_missing.any():
            is_missing = None
        return Planes(
            np.ascontiguousarray(np.moveaxis(values, 0, -1)),
            None if is_missing is None else np.ascontiguousarray(np.moveaxis(is_missing, 0, -1)),
        )


@contextlib.contextmanager
def open_geotiff(source: bytes | Path, name: str) -> Iterator[GeoReader]:
    """Open a TIFF, from its bytes or from a disk.

    A file of several pages of one channel and one size, as microscopes and ImageJ write them, is an image with these channels.

    Args:
      source: the bytes of a file, or its path.
      name: the file, for messages.

    Raises:
      UserError: naming the file, if it cannot be read or claims an impossible size, or if rasterio is missing.
    """
    rasterio = _rasterio(name)
    with contextlib.ExitStack() as held:
        with naming_file(name, ACTION, ADVICE):
            # GDAL would look for files beside the TIFF, follow its links to others, and print its warnings.
            held.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"))
            place = source if isinstance(source, Path) else held.enter_context(_in_memory(source)).name
            held.enter_context(_without_warnings())
            first = held.enter_context(rasterio.open(str(place), driver="GTiff"))
            _check(first, source, name)
            pages = first.subdatasets if first.count == 1 else []
            others = [held.enter_context(rasterio.open(page, driver="GTiff")) for page in pages[1:]]
        if any((page.height, page.width, page.count) != (first.height, first.width, 1) for page in others):
            others = []  # smaller versions of the same picture, or a document
        yield GeoReader((first, *others), name)


def read_profile(source: bytes | Path, name: str) -> GeoProfile:
    """Read a TIFF's size, values and place without its pixels; raises UserError as `open_geotiff`."""
    with open_geotiff(source, name) as reader:
        return reader.profile


def read_planes(source: bytes | Path, name: str) -> Planes:
    """Read a TIFF as a whole; raises UserError as `open_geotiff`."""
    with open_geotiff(source, name) as reader:
        return reader.read()


class LabelWriter:
    """A label map that is being written; `open_label_writer` makes one."""

    def __init__(self, dataset: Any, window: Any):
        self._dataset, self._window = dataset, window

    def write(self, top: int, left: int, values: UInt[np.ndarray, "h w"]) -> None:
        """Write the values of a window whose first pixel is at (top, left). Whole tiles (`TILE_PX`) are written fastest."""
        height, width = values.shape
        self._dataset.write(values, 1, window=self._window(left, top, width, height))


@contextlib.contextmanager
def open_label_writer(
    path: str | Path, profile: GeoProfile, dtype: np.dtype, void: int | None
) -> Iterator[LabelWriter]:
    """Create a label map as a tiled, compressed GeoTIFF in the place of an image, to be written window by window.

    Args:
      path: the file; it is complete when the context ends.
      profile: of the image.
      dtype: uint8 or uint16: `LabelSpace.file_dtype`.
      void: the value of pixels without a class, which the file names as its no-data value; None: it names none.

    Raises:
      OSError: if the file cannot be written.
    """
    rasterio = _rasterio(str(path))
    # A file of more than 4 GB needs BigTIFF.
    options = {
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    place: dict[str, Any] = {"crs": profile.crs}
    if profile.transform is not None:
        place["transform"] = rasterio.Affine(*profile.transform)
    with _without_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(
        str(path), "w", driver="GTiff", height=profile.height, width=profile.width, count=1, dtype=np.dtype(dtype).name,
        nodata=void, **options, **place,
    ) as dataset:  # fmt: skip
        if profile.control_points and profile.transform is None:
            points = [
                rasterio.control.GroundControlPoint(row, column, x, y, z)
                for row, column, x, y, z in profile.control_points
            ]
            dataset.gcps = (points, rasterio.CRS.from_wkt(profile.crs) if profile.crs else rasterio.CRS())
        yield LabelWriter(dataset, rasterio.windows.Window)


def encode_labels(values: UInt[np.ndarray, "h w"], profile: GeoProfile, void: int | None) -> bytes:
    """Return a label map as the bytes of a GeoTIFF in the place of its image; see `open_label_writer`.

    Raises:
      ValueError: if the label map has another size than the image.
    """
    if values.shape != (profile.height, profile.width):
        raise ValueError(
            f"values has shape {values.shape}; expected {(profile.height, profile.width)}, that of the image"
        )
    with _rasterio("the label map").io.MemoryFile(ext=".tif") as file:
        with open_label_writer(file.name, profile, values.dtype, void) as writer:
            writer.write(0, 0, values)
        return bytes(file.getbuffer())


def _has_mask(source: Any) -> bool:
    """Return whether a file names missing pixels: by a value, by a mask of its own, or by transparency."""
    flags = {flag.name for band in source.mask_flag_enums for flag in band}
    return flags != {"all_valid"}


def _check(dataset: Any, source: bytes | Path, name: str) -> None:
    kinds = set(dataset.dtypes)
    if len(kinds) > 1 or "complex" in dataset.dtypes[0]:
        raise UserError(
            f"{name} holds values of the types {', '.join(sorted(kinds))}: expected real numbers of one type"
        )
    if isinstance(source, bytes):
        check_claimed_size(name, "TIFF", dataset.width, dataset.height, source)
        if dataset.width * dataset.height * dataset.count > 4 * MAX_PIXELS:
            raise UserError(
                f"{name} claims {dataset.width} × {dataset.height} pixels of {dataset.count} channels: the limit is "
                f"{4 * MAX_PIXELS / 1e6:.0f} million values; cut it into tiles"
            )


def _in_memory(data: bytes) -> Any:
    return _rasterio("the file").io.MemoryFile(data, ext=".tif")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rasterio warns about each image without a place on Earth
        yield


@functools.cache
def import_rasterio() -> ModuleType:
    """Import rasterio with the parts that are used; raises ImportError if it is not installed."""
    for part in ("control", "crs", "io", "windows"):
        importlib.import_module(f"rasterio.{part}")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what goes wrong becomes an error that names the file
    return importlib.import_module("rasterio")


def _rasterio(name: str) -> ModuleType:
    try:
        return import_rasterio()
    except ImportError as error:
        raise UserError(
            f"{name}: TIFF files that are not photographs, and their coordinate systems, need the package rasterio, which is not "
            "installed: install the extra `geo` (`pip install 'pyrseg-jax[geo]'`)"
        ) from error
