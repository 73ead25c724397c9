"""Read Mapillary Vistas: `config.json` with the labels, and palette PNGs, in which index i stands for label i of that file.

Labels that are not evaluated (`"evaluate": false`) become void.

Source: Neuhold et al., *The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes*, ICCV 2017; its `config.json`.
"""

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.fields import text_of
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING
from pyrseg_jax.importing.mask_painting import mask_painter
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path


def recognize(tree: SourceTree) -> str | None:
    """Find the list of labels."""
    found = _configs(tree)
    return f"{found[0]} lists labels with readable names" if found else None


def _configs(tree: SourceTree) -> list[str]:
    """Return the lists of labels, the newest version last."""
    names = [name for name in tree.annotation_files(".json") if PurePosixPath(name).name.startswith("config")]
    return sorted(name for name in names if _is_config(tree.peek(name)))


def _is_config(document: Any) -> bool:
    labels = document.get("labels") if isinstance(document, dict) else None
    return isinstance(labels, list) and bool(labels) and isinstance(labels[0], dict) and "readable" in labels[0]


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the label maps of the newest version that is there."""
    configs = _configs(tree)
    if not configs:
        raise UserError(f"{tree.place('')} has no config.json with a list of labels, each with name and readable")
    version = PurePosixPath(configs[-1]).stem.removeprefix("config").strip("_")  # "v2.0" or ""
    names, table = _labels(tree.json(configs[-1])["labels"], tree.place(configs[-1]))
    notes, pictures = Notes(), []
    found = [name for name in tree.files if PurePosixPath(name).match("labels/*.png")]
    of_version = [name for name in found if PurePosixPath(name).parent.parent.name == version]
    for name in found:
        path = PurePosixPath(name)
        if of_version and name not in of_version:
            notes.add("label map of another version", tree.place(name))
            continue
        folders = [str(path.parent.parent / "images"), str(path.parent.parent.parent / "images")]
        image = tree.find_image(f"{path.stem}.jpg", folders)
        source = image_or_error(tree, image, f"{path.stem}.jpg", tree.place(name))
        pictures.append(
            Picture(image or name, source, split_of_path(str(path.parent)), mask_painter(tree, name, table))
        )
    return Annotations(names, tuple(pictures), notes, void_meaning="the labels that Mapillary does not evaluate")


def _labels(labels: list, place: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, and the table from indices to class maps."""
    table = np.full(max(len(labels), 256), NO_MEANING, np.uint16)
    names: list[str] = []
    for index, label in enumerate(labels):
        readable = text_of(label, "readable", f"{place}: labels[{index}]")
        if label.get("evaluate", True):
            name = readable if readable not in names else text_of(label, "name", f"{place}: labels[{index}]")
            names.append(name)
            table[index] = len(names)
        else:
            table[index] = IGNORED
    if not names:
        raise UserError(f"{place} evaluates no label: expected labels with evaluate=true")
    return tuple(names), table


FORMAT = Format(
    "mapillary",
    "Mapillary Vistas: config.json and palette PNGs",
    recognize,
    read,
    has_file=True,
)
