"""Read an image and what belongs to it, unless an earlier command has finished it."""

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from pyrseg_jax.data.decode import Masked, decode_label, decode_masked
from pyrseg_jax.data.images.geotiff import GeoProfile
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.manifest import Source
from pyrseg_jax.prediction.writing import Outcome, Writer
from pyrseg_jax.reporting.pictures import find_place
from pyrseg_jax.run.predictor import Predictor
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import open_regular_file, read_regular_file, unreadable

log = logging.getLogger(__name__)
MAX_STREAMED_BYTES = 2**40  # of a file that is never read whole


class Loaded(NamedTuple):
    """An image that is to be segmented.

    item: the image.
    masked: its pixels, and which of them have no data.
    truth: (H, W) train ids of its ground truth, if there is one.
    place: where on Earth it lies, for a GeoTIFF.
    source: its file.
    started_at: when the work on it began, as `time.perf_counter` counts.
    """

    item: Item
    masked: Masked
    truth: np.ndarray | None
    place: GeoProfile | None
    source: Source
    started_at: float


class Reader:
    """Read images, and pass over those that an earlier command has finished.

    Args:
      writer: knows what is finished.
      predictor: knows what images and label maps mean.
      has_truth: whether label maps are needed.
    """

    def __init__(self, writer: Writer, predictor: Predictor, has_truth: bool):
        self._writer, self._predictor, self._has_truth = writer, predictor, has_truth

    def load(self, item: Item) -> Loaded | Outcome:
        """Read an image; return its outcome if it is finished already, or cannot be read."""
        started_at = time.perf_counter()
        try:
            with naming_file(str(item.path), "cannot be segmented", "replace it, or move it out of the folder"):
                source = stat_source(item.path)
                if self._writer.is_finished(item, source):
                    return Outcome(item, is_earlier=True)
                data = read_bytes(item.path)
                source = Source(len(data), source.modified, hashlib.sha256(data).hexdigest())
                if self._writer.is_finished(item, source):
                    return Outcome(item, is_earlier=True)
                masked = decode_masked(data, str(item.path), self._predictor.image_space)
                truth = self._read_truth(item.truth, masked.image.shape[:2]) if self._has_truth else None
                place = find_place(data, str(item.path))
                if place is not None and (place.height, place.width) != masked.image.shape[:2]:
                    place = None  # the image was turned upright
                return Loaded(item, masked, truth, place, source, started_at)
        except UserError as error:
            return Outcome(item, (str(error),))

    def _read_truth(self, label: Path | None, size: tuple[int, ...]) -> np.ndarray | None:
        """Read the label map of an image; None unless it has the size of the image."""
        if label is None:
            return None
        try:
            with naming_file(str(label), "cannot be read", "replace it"):
                truth = decode_label(read_bytes(label), str(label), self._predictor.label_space)
        except UserError as error:
            log.warning("the ground truth cannot be drawn: %s", error)
            return None
        if truth.shape == size:
            return truth
        log.warning(
            "the ground truth cannot be drawn: %s is %d × %d pixels, but the upright image %d × %d (width × height)",
            *(label, *truth.shape[::-1], *size[::-1]),
        )
        return None


def stat_source(path: Path | epath.Path) -> Source:
    """Return size and time of change of a file; raises UserError if there is none."""
    try:
        if is_remote(path):
            found = epath.Path(path).stat()
            return Source(found.length, int(1e9 * (found.mtime or 0)))
        found = os.stat(path)
        return Source(found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise unreadable(Path(path), error) from error


def read_bytes(path: Path | epath.Path) -> bytes:
    """Read a file whole, from a disk or from remote storage; raises UserError if it cannot be read."""
    try:
        return epath.Path(path).read_bytes() if is_remote(path) else read_regular_file(Path(path))
    except (OSError, MemoryError) as error:
        raise unreadable(Path(path), error) from error


def digest_source(path: Path) -> Source:
    """Return size, time of change and SHA-256 of a local file that is too large to read whole."""
    source = stat_source(path)
    try:
        with open_regular_file(path, MAX_STREAMED_BYTES) as file:
            return source._replace(sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise unreadable(path, error) from error
