"""The images that the report shows: found in the data set, segmented, and packed for the browser."""

import base64
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt, UInt8
from PIL import Image

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.resample import resize_image, resize_labels
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.evaluation.batches import digest_of_pair
from pyrseg_jax.evaluation.image_scores import DIGEST_DIGITS
from pyrseg_jax.report.pyramids import pack, pack_pyramids
from pyrseg_jax.reporting.result import Result

log = logging.getLogger(__name__)

LONGEST_PX = 640  # of the side of an image in the report
QUALITY = 80  # of its WebP file

Segment = Callable[[np.ndarray], Result]


class Place(NamedTuple):
    """The place of an image in a split: its number there, from 0, and its name."""

    number: int
    name: str


class Example(NamedTuple):
    """An image in the report.

    name: of the pair.
    digest: that of its counts; "" if it is not known.
    photograph: the image as a WebP file.
    size: (height, width) of the maps that are shown, in pixels.
    confusion: [true class, predicted class, pixels] of the pixels at the image's own size that are predicted wrongly, the most
      frequent first.
    packed: what the browser needs beside these.
    """

    name: str
    digest: str
    photograph: bytes
    size: tuple[int, int]
    confusion: list[list[int]]
    packed: dict[str, Any]


def read_split(source: Source, label_space: LabelSpace) -> tuple[dict[str, Place], DatasetReport]:
    """Read all files of a split; bad ones are left out.

    Returns:
      The place of each image by the digest of its counts, and the report of the split.
    """

    def read(index: int) -> tuple[str, Place | None, DatasetReport]:
        one = DatasetReport.empty(label_space.num_classes)
        try:
            record, pair = load_pair(source, index, label_space)
        except UserError as error:
            log.warning("%s", error)
            one.add_problem(index, error)
            return "", None, one
        one.add(pair.label)
        digest = digest_of_pair(record["image"], pair.label).hex()[:DIGEST_DIGITS]
        return digest, Place(index, record["name"]), one

    places, report = {}, DatasetReport.empty(label_space.num_classes)
    for digest, place, one in ordered_map(read, range(len(source)), THREADS):
        report.merge(one)
        if place is not None:
            places[digest] = place
    return places, report


def spread_places(source: Source, most: int) -> list[Place]:
    """Return the places of images that are evenly spread over a split, for a result without counts of images."""
    most = min(most, len(source))
    indices = [i * len(source) // most for i in range(most)]
    return [Place(index, source[index]["name"]) for index in indices]


def segment_examples(
    source: Source,
    label_space: LabelSpace,
    places: Mapping[str, Place] | Sequence[Place],
    segment: Segment,
    thresholds: Sequence[float],
) -> list[Example]:
    """Segment images and pack them; one that cannot be read or segmented is left out, and a warning names it.

    Args:
      source: the split.
      label_space: the classes.
      places: the images, by their digests where these are known.
      segment: segments an image.
      thresholds: positions of the slider.
    """
    named = places if isinstance(places, Mapping) else {f"\n{i}": place for i, place in enumerate(places)}
    found = []
    for digest, place in named.items():
        try:
            _, pair = load_pair(source, place.number, label_space)
            result = segment(pair.image)
        except UserError as error:
            log.warning("%s is not in the report: %s", escaped(place.name), error)
            continue
        found.append(make_example(place.name, digest.strip() and digest, result, pair.label, thresholds))
    return found


def make_example(
    name: str, digest: str, result: Result, truth: UInt[np.ndarray, "h w"], thresholds: Sequence[float]
) -> Example:
    """Pack a prediction with its ground truth.

    Args:
      name, digest: see `Example`.
      result: the prediction.
      truth: train ids at the image's own size.
      thresholds: positions of the slider.
    """
    size = shown_size(*truth.shape)
    packed = pack_pyramids(result, thresholds)
    packed |= {"labels": pack(resize_labels(result.labels, size)), "truth": pack(resize_labels(truth, size))}
    confusion = confusion_of(truth, result.labels, result.label_space.num_classes)
    return Example(name, digest, to_webp(resize_image(result.image, size)), size, confusion, packed)


def confusion_of(truth: UInt[np.ndarray, "h w"], labels: UInt[np.ndarray, "h w"], num_classes: int) -> list[list[int]]:
    """Return [true class, predicted class, pixels] for each pair of different classes that occurs, the most frequent first."""
    is_wrong = (truth != labels) & (truth != void_of(truth.dtype)) & (labels < num_classes)
    pairs, pixels = np.unique(num_classes * truth[is_wrong].astype(np.int64) + labels[is_wrong], return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    return [[int(pairs[i] // num_classes), int(pairs[i] % num_classes), int(pixels[i])] for i in order]


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the size (height, width) at which an image is shown: its own, or with `LONGEST_PX` as the longer side."""
    longest = max(height, width)
    if longest <= LONGEST_PX:
        return height, width
    return max(1, round(height * LONGEST_PX / longest)), max(1, round(width * LONGEST_PX / longest))


def to_webp(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Compress a photograph."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "WEBP", quality=QUALITY)
    return data.getvalue()


def data_uri(photograph: bytes) -> str:
    """Return a WebP file as the source of an `<img>`."""
    return f"data:image/webp;base64,{base64.b64encode(photograph).decode()}"
