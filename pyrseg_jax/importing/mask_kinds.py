"""Tell what kind plain masks are, judging by a few of them and by the lists of classes beside them."""

from collections.abc import Sequence

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.class_files import find_color_list, find_name_list
from pyrseg_jax.importing.class_list import ClassList
from pyrseg_jax.importing.mask_images import Mask, one_channel, read_mask
from pyrseg_jax.importing.mask_pairs import class_folders, find_masks, unusable_masks
from pyrseg_jax.importing.source_tree import SourceTree

VOID_VALUE = 255  # of masks with one number per pixel
_SAMPLES = 12  # masks that decide what kind they are
COLOR, BINARY, INDEX, CLASS_FOLDERS = "color", "binary", "index", "class folders"


def kind_of_masks(tree: SourceTree) -> tuple[str, str] | None:
    """Return what kind of masks these are, judging by a few of them, and why; None if there are no masks with photographs."""
    masks = find_masks(tree)
    if not masks:
        tree.problems += unusable_masks(tree)
    if not masks or not set(tree.images()) - set(masks):
        return None
    if folders := class_folders(tree):
        return CLASS_FOLDERS, f"the masks are in a folder for each class: {', '.join(list(folders)[:4])}"
    try:
        read = read_some(tree, masks)
    except UserError as error:
        tree.problems.append(str(error))
        return None
    where = f"masks such as {masks[0]}"
    binary = [_binary_values(mask) for mask in read]
    if all(binary):
        return _kind_by_list(tree, set().union(*binary), where)
    colors, has_names = find_color_list(tree), find_name_list(tree) is not None
    if has_names and colors is None and all(mask.values is None and _is_gray(mask) for mask in read):
        return INDEX, f"{where} hold one number per pixel, in three equal channels"
    if any(mask.values is None for mask in read):
        return COLOR, f"{where} hold colors"
    if any(mask.colors is not None for mask in read) and (colors is not None or not has_names):
        return COLOR, f"{where} hold colors"
    if colors is not None and means_colors(read, colors):
        return COLOR, f"{where} hold grays of {colors.path.name}"
    return INDEX, f"{where} hold one number per pixel"


def read_some(tree: SourceTree, masks: Sequence[str]) -> list[Mask]:
    """Read a few masks, evenly spread, to judge all by them."""
    return [read_mask(tree.read(name), tree.place(name)) for name in masks[:: -(-len(masks) // _SAMPLES)]]


def _is_gray(mask: Mask) -> bool:
    return mask.colors is not None and one_channel(mask.colors) is not None


def means_colors(masks: Sequence[Mask], listed: ClassList) -> bool:
    """Tell whether a list means the colors of masks, judging by a few masks: those of palettes, or grays that it gives.

    Colors of a palette always count where the list has colors: its order may be another than that of the numbers.
    """
    if listed.colors is None:
        return False
    if any(mask.colors is not None for mask in masks):
        return True
    values = set().union(*(np.unique(mask.values).tolist() for mask in masks if mask.values is not None))
    return _has_grays(listed, values - {VOID_VALUE}) and values != {VOID_VALUE}


def _has_grays(listed: ClassList, values: set[int]) -> bool:
    return {(v, v, v) for v in values} <= set(listed.colors or ())


def _kind_by_list(tree: SourceTree, values: set[int], where: str) -> tuple[str, str]:
    """Return the kind of masks that hold up to two values: a list of classes may say what others there are."""
    colors, names = find_color_list(tree), find_name_list(tree)
    if colors is not None and _has_grays(colors, values):
        return COLOR, f"{where} hold colors of {colors.path.name}"
    if names is not None and (len(names.names) > 2 or names.first) and values <= {0, 1}:
        return INDEX, f"{where} hold numbers of {names.path.name}"
    return BINARY, f"{where} hold two values"


def _binary_values(mask: Mask) -> set[int]:
    """Return the values of a mask if it can be one of a single class, or else nothing."""
    values = mask.values
    if values is None:
        assert mask.colors is not None
        values = one_channel(mask.colors)
        if values is None:
            return set()
    elif mask.colors is not None:
        return set()
    found = set(np.unique(values).tolist())
    return found if found in ({0}, {1}, {255}, {65535}, {0, 1}, {0, 255}, {0, 65535}) else set()
