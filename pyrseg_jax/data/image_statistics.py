"""Measure which values the images of a training split hold, to scale all images alike."""

import dataclasses
import logging

import numpy as np

from pyrseg_jax.data.image_space import ImageSpace
from pyrseg_jax.data.images.planes import read_planes
from pyrseg_jax.data.loading import naming_pair
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

# Chosen: a few million values tell percentiles to a thousandth of their distance; reading a large split would take hours.
MAX_IMAGES = 500
MAX_PIXELS = 2**14  # of an image


def measured(space: ImageSpace, source: Source, is_skipping: bool = False) -> ImageSpace:
    """Return the image space with the limits that its percentiles have on a split; one with known limits stays as it is.

    Up to 500 images are read, evenly spread over the split, and up to 16,384 evenly spread pixels of each. Missing values do not
    count. A channel that is constant is scaled to 0.

    Args:
      space: says which percentiles.
      source: the training split.
      is_skipping: whether an image that cannot be used is left out; otherwise it is an error.

    Raises:
      UserError: naming the file that cannot be used, or the channel without data.
    """
    if space.is_measured or space.percentiles is None:
        return space

    def read(index: int) -> list[np.ndarray]:
        try:
            return _values_of(space, source, index)
        except UserError:
            if is_skipping:
                return [np.empty(0)] * space.channels
            raise

    num_images = min(len(source), MAX_IMAGES)
    log.info("reading %d training images once, to measure the values of their %d channels", num_images, space.channels)
    indices = [i * len(source) // num_images for i in range(num_images)]
    parts = list(ordered_map(read, indices, THREADS))
    limits = []
    for channel in range(space.channels):
        values = np.concatenate([part[channel] for part in parts]) if parts else np.empty(0)
        if not len(values):
            raise UserError(
                f"scaling=percentile: channel {channel + 1} of {space.channels} has no value in the training images that is not "
                "missing: correct nodata, or set scaling=fixed:LOW:HIGH"
            )
        low, high = (float(limit) for limit in np.percentile(values, space.percentiles))
        limits.append((low, high if high > low else low + 1))
    log.info("values that become 0 and 255, by channel: %s", ", ".join(f"{low:g} … {high:g}" for low, high in limits))
    return dataclasses.replace(space, limits=tuple(limits))


def _values_of(space: ImageSpace, source: Source, index: int) -> list[np.ndarray]:
    with naming_pair(source, index):
        record = source[index]
        values, is_missing = read_planes(record["image"], record["image_name"])
        space.check_type(values, record["image_name"])
        step = -(-values.shape[0] * values.shape[1] // MAX_PIXELS)
        values = values.reshape(-1, space.channels)[::step]
        is_missing = None if is_missing is None else is_missing.reshape(-1, space.channels)[::step]
        found = space.find_missing(values[None])
        is_present = np.ones(values.shape, bool) if is_missing is None else ~is_missing
        is_present &= True if found is None else ~found[0]
        return [values[is_present[:, c], c].astype(np.float64) for c in range(space.channels)]
