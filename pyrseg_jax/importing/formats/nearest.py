"""Say what a source of no known format lacks for the format that it is most likely meant to be."""

from pathlib import PurePosixPath

from pyrseg_jax.importing.formats import coco, label_studio, labelme
from pyrseg_jax.importing.mask_pairs import MASK_FOLDERS, find_masks
from pyrseg_jax.importing.source_tree import SourceTree, common_folder

# A folder of a layout that is there, the one that is missing, and the format.
_LAYOUTS = (
    ("JPEGImages", "SegmentationClass", "pascal_voc"),
    ("SegmentationClass", "JPEGImages", "pascal_voc"),
    ("SegmentationObject", "SegmentationClass", "pascal_voc"),
    ("leftImg8bit", "gtFine", "cityscapes"),
    ("gtFine", "leftImg8bit", "cityscapes"),
)
_KEYS = {"coco": coco.KEYS, "labelme": labelme.KEYS[:2], "label_studio": label_studio.KEYS}  # format → keys of its JSON


def describe_missing(tree: SourceTree) -> str:
    """Return a sentence about what is missing for the most likely format, or "" if nothing is like any."""
    for find in (_layout, _json, _yolo, _masks):
        if found := find(tree):
            return found
    return ""


def _layout(tree: SourceTree) -> str:
    for present, missing, name in _LAYOUTS:
        if (found := tree.folders_named(present)) and not tree.folders_named(missing):
            return f"It is most like {name}, but beside {found[0]}, the folder {missing} is missing."
    return ""


def _json(tree: SourceTree) -> str:
    """Find a JSON file with some, but not all keys of a format."""
    for name in tree.first_jsons():
        document = tree.peek(name)
        item = document[0] if isinstance(document, list) and document else document
        for form, keys in _KEYS.items():
            missing = [key for key in keys if key not in item] if isinstance(item, dict) else keys
            if 0 < len(missing) < len(keys):
                return f"It is most like {form}, but {name} lacks {' and '.join(missing)}."
    return ""


def _yolo(tree: SourceTree) -> str:
    """Find text files with the names of pictures; in a folder `labels`, they would have been recognized."""
    stems = {PurePosixPath(image).stem for image in tree.images()}
    for name in tree.annotation_files(".txt"):
        if PurePosixPath(name).stem in stems:
            return f"It is most like yolo, but {name} is not in a folder called labels, and no YAML file names the classes."
    return ""


def _masks(tree: SourceTree) -> str:
    masks, images = find_masks(tree), tree.images()
    if any(part.lower() in MASK_FOLDERS for part in PurePosixPath(common_folder(images)).parts):
        masks = images
    if masks and not set(images) - set(masks):
        return f"There are masks such as {masks[0]}, but no photographs: put them beside, for example in images/."
    if images and not masks:
        return (
            f"There are pictures such as {images[0]}, but no masks: expected a folder such as {', '.join(MASK_FOLDERS[:3])}, or "
            "files named NAME_mask.png."
        )
    return ""
