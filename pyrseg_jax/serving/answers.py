"""What a client can ask for: the label map that `predict` writes, the masks of the classes as JSON, or the overlay."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.reporting import pictures
from pyrseg_jax.reporting.palette import colors_of
from pyrseg_jax.run.predictor import Segmented, Wants
from pyrseg_jax.serving.images import NAME
from pyrseg_jax.shapes.rle import compress_runs, encode_runs


class Answer(NamedTuple):
    """A kind of answer.

    meaning: a description for users.
    wants: what it needs besides the labels.
    encode: returns its bytes, given the prediction, the classes, and what tells the model from others.
    """

    meaning: str
    wants: Wants
    encode: Callable[[Segmented, LabelSpace, dict[str, Any]], bytes]


def _png(segmented: Segmented, label_space: LabelSpace, model: dict[str, Any]) -> bytes:
    return pictures.encode_labels(segmented.labels, label_space)


def _overlay(segmented: Segmented, label_space: LabelSpace, model: dict[str, Any]) -> bytes:
    return pictures.encode_overlay(segmented.picture, segmented.labels, label_space, NAME)


def _json(segmented: Segmented, label_space: LabelSpace, model: dict[str, Any]) -> bytes:
    assert segmented.confidence is not None, "the answer wants it"
    labels, sure = segmented.labels, segmented.confidence / np.float32(255)
    has_class = labels != label_space.void
    height, width = labels.shape
    classes = []
    for train_id, known in enumerate(classes_of(label_space)):
        mask = labels == train_id
        if mask.any():
            runs = {"size": [height, width], "counts": compress_runs(encode_runs(mask))}
            share = round(float(mask.mean()), 6)
            classes.append(known | {"share": share, "confidence": _mean(sure[mask]), "segmentation": runs})
    document = {
        "height": height,
        "width": width,
        "void": label_space.void_file_id,
        "confidence": _mean(sure[has_class]),
        "classes": classes,
        "model": model,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean(dtype=np.float64)), 4) if values.size else 0.0


def classes_of(label_space: LabelSpace) -> list[dict[str, Any]]:
    """Return value in label maps, name and color of each class, as JSON can hold them."""
    colors = np.asarray(colors_of(label_space)).tolist()
    return [
        {"value": value, "name": name, "color": color}
        for value, name, color in zip(label_space.file_ids, label_space.names, colors, strict=True)
    ]


ANSWERS = {
    "png": Answer("the label map as `pyrseg predict` writes it: one channel, the values of the classes", Wants(), _png),
    "json": Answer(
        "each class that occurs: its share of the pixels, its mean confidence, and its mask as RLE of COCO",
        Wants(has_confidence=True),
        _json,
    ),
    "overlay": Answer("the class colors over the image, as `pyrseg predict` writes them", Wants(), _overlay),
}
