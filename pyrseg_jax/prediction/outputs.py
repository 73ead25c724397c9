"""The files that a prediction can be written to, by the names that --outputs takes."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyrseg_jax.data.images.geotiff import GeoProfile
from pyrseg_jax.data.images.image_formats import SUFFIXES
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.prediction import annotations
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.reporting import pictures
from pyrseg_jax.run.predictor import Segmented, Wants
from pyrseg_jax.storage.paths import is_remote

DEFAULT = ("labels", "overlay")
GEOTIFF = "geotiff"  # also written wherever labels are
_drawing = threading.Lock()  # Matplotlib's fonts cannot be used by two threads at a time


class Prediction(NamedTuple):
    """One image with everything that its files are made of.

    item: the image.
    segmented: the prediction.
    label_space: the classes.
    truth: (H, W) train ids of the ground truth, if there is one.
    folder: the output folder.
    place: where on Earth the image lies, for a GeoTIFF.
    """

    item: Item
    segmented: Segmented
    label_space: LabelSpace
    truth: np.ndarray | None
    folder: os.PathLike[str]
    place: GeoProfile | None = None


class Output(NamedTuple):
    """A kind of file.

    suffix: what follows the name of the image.
    meaning: a description for users.
    encode: returns the content of the file; None if this image has no such file.
    wants: what the file needs besides the labels.
    """

    suffix: str
    meaning: str
    encode: Callable[[Prediction], bytes | None]
    wants: Wants = Wants()


def _labels(found: Prediction) -> bytes:
    return pictures.encode_labels(found.segmented.labels, found.label_space)


def _overlay(found: Prediction) -> bytes:
    name = f"{found.item.name}{OUTPUTS['overlay'].suffix}"
    return pictures.encode_overlay(found.segmented.picture, found.segmented.labels, found.label_space, name)


def _pyramid(found: Prediction) -> bytes:
    assert found.segmented.result is not None, "the output wants it"
    with _drawing:
        return pictures.encode_pyramid(found.segmented.result, found.truth, found.item.path.stem)


def _confidence(found: Prediction) -> bytes:
    assert found.segmented.confidence is not None, "the output wants it"
    return pictures.encode_gray(found.segmented.confidence)


def _entropy(found: Prediction) -> bytes:
    assert found.segmented.entropy is not None, "the output wants it"
    return pictures.encode_gray(found.segmented.entropy)


def _disagreement(found: Prediction) -> bytes:
    assert found.segmented.disagreement is not None, "the output wants it"
    return pictures.encode_gray(found.segmented.disagreement)


def _geojson(found: Prediction) -> bytes:
    labels, place = found.segmented.labels, found.place
    point, crs = (None, None) if place is None else (place.point, place.crs_name())
    return annotations.geojson(labels, found.label_space, found.item.path.name, point, crs)


def _labelme(found: Prediction) -> bytes:
    path = found.item.path.name
    if not is_remote(found.item.path) and not is_remote(found.folder):
        place = (Path(found.folder) / found.item.name).parent
        path = os.path.relpath(Path(found.item.path).absolute(), place.absolute())
    return annotations.labelme(found.segmented.labels, found.label_space, path)


OUTPUTS = {
    "labels": Output(".png", "the label map: one channel with the values of the data set's own label files", _labels),
    "overlay": Output("_overlay.jpg", "the class colors over the image", _overlay),
    "pyramid": Output(
        "_pyramid.png",
        "both pyramids, the fused map, and the ground truth if there is one",
        _pyramid,
        Wants(has_pyramid=True),
    ),
    "confidence": Output(
        "_confidence.png",
        "the probability of each pixel's class: one channel, 0 … 255 for 0 … 1",
        _confidence,
        Wants(has_confidence=True),
    ),
    "entropy": Output(
        "_entropy.png",
        "how evenly the probabilities of each pixel are spread over the classes: one channel, 0 … 255 for 0 … 1",
        _entropy,
        Wants(has_entropy=True),
    ),
    "disagreement": Output(
        "_disagreement.png",
        "how much the levels of the pyramid disagree at each pixel: one channel, 0 … 255 for 0 … 1",
        _disagreement,
        Wants(has_disagreement=True),
    ),
    "color": Output(
        "_color.png",
        "the class colors alone, as RGB",
        lambda found: pictures.encode_color(found.segmented.labels, found.label_space),
    ),
    "coco": Output(
        "_coco.json",
        "a COCO document: one mask per class, as compressed RLE",
        lambda found: annotations.coco(found.segmented.labels, found.label_space, found.item.path.name),
    ),
    "geojson": Output(
        ".geojson",
        "one polygon per region, with holes: in the coordinates of a GeoTIFF, for other images in pixels",
        _geojson,
    ),
    GEOTIFF: Output(
        "_labels.tif",
        "for a GeoTIFF: the label map with the coordinate system of the image; it also comes with labels",
        lambda found: pictures.encode_in_place(found.segmented.labels, found.label_space, found.place),
    ),
    "labelme": Output(".json", "a LabelMe document: one polygon per region", _labelme),
}
STREAMED = ("labels", "overlay", "confidence", "color", GEOTIFF)  # that are written of pictures in windows
OF_VIDEOS = {"labels": "_labels.mkv", "overlay": "_overlay.mp4"}  # files of a video, instead of the above


def files_of(item: Item, outputs: Sequence[str]) -> dict[str, str]:
    """Return the files of an image or a video, by output: their paths below the output folder.

    A TIFF may have no place on Earth; then its file of the output `geotiff` is never written.
    """
    if item.is_video:
        return {name: f"{item.name}{OF_VIDEOS[name]}" for name in outputs if name in OF_VIDEOS}
    files = {name: f"{item.name}{OUTPUTS[name].suffix}" for name in outputs if name != GEOTIFF}
    if {"labels", GEOTIFF} & {*outputs} and suffix_of(item.path.name) in SUFFIXES["TIFF"]:
        files[GEOTIFF] = f"{item.name}{OUTPUTS[GEOTIFF].suffix}"
    return files


def all_files_of(item: Item) -> list[str]:
    """Return the files that an image or a video can have, whatever outputs are asked for."""
    return list(files_of(item, tuple(OUTPUTS)).values())


def wants_of(outputs: Sequence[str]) -> Wants:
    """Return what these outputs need besides the labels."""
    wants = [OUTPUTS[name].wants for name in outputs]
    return Wants(*map(any, zip(*wants, strict=True)))
