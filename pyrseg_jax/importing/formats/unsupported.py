"""Name formats that are known but not read, and what to export instead."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.source_tree import SourceTree

_AS_COCO = "export the project as COCO instead"
_MAX_FILES = 12  # files of each suffix that are looked at


class Unsupported(NamedTuple):
    """A format that is not read: its name, what tells that a JSON document is of it, and what to do instead."""

    name: str
    fits: Callable[[Any], bool]
    advice: str


def _has(document: Any, *keys: str) -> bool:
    return isinstance(document, dict) and all(key in document for key in keys)


def _first(document: Any) -> Any:
    values = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return next(iter(values), None)


_JSON = (
    Unsupported(
        "Label Studio's JSON-MIN",
        lambda document: _has(_first(document), "annotation_id"),
        "export the project as JSON",
    ),
    Unsupported(
        "a file of VGG Image Annotator",
        lambda document: _has(document, "_via_img_metadata") or _has(_first(document), "filename", "regions"),
        _AS_COCO,
    ),
    Unsupported("a file of Supervisely", lambda document: _has(document, "objects", "size", "tags"), _AS_COCO),
    Unsupported("a file of Darwin (V7)", lambda document: _has(document, "item", "annotations"), _AS_COCO),
    Unsupported(
        "a release of Segments.ai",
        lambda document: _has(document, "dataset") and _has(document["dataset"], "samples"),
        "export it as COCO panoptic instead",
    ),
    Unsupported(
        "a file of Cityscapes' polygons",
        lambda document: _has(document, "imgHeight", "imgWidth", "objects"),
        "add the files that end in _gtFine_labelIds.png, as the data set or its scripts provide them",
    ),
)
# Text at the beginning of a file → name and advice.
_TEXTS = {
    ".xml": ("<annotation>", "a file of PASCAL VOC's boxes", "boxes have no outlines: annotate polygons or masks"),
    ".csv": ("filename,file_size,file_attributes", "a table of VGG Image Annotator", _AS_COCO),
    ".names": ("", "a list of Darknet's YOLO", "export it as YOLO segmentation with data.yaml, or as COCO"),
}


def find_unsupported(tree: SourceTree) -> str | None:
    """Return a line that names a known format, and what to export instead; None if the files are of none."""
    for name in tree.first_jsons(_MAX_FILES):
        document = tree.peek(name)
        for item in _JSON:
            if item.fits(document):
                return _describe(tree, name, item.name, item.advice)
    for suffix, (start, meaning, advice) in _TEXTS.items():
        for name in tree.annotation_files(suffix)[:_MAX_FILES]:
            try:
                text = tree.text(name)[:1000].lstrip()
            except UserError:
                continue
            if start in text:
                return _describe(tree, name, meaning, advice)
    return None


def _describe(tree: SourceTree, name: str, meaning: str, advice: str) -> str:
    return f"{tree.place(name)} is {meaning}, which is not read: {advice}"
