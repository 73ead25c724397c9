"""Find plain masks and their photographs by the names of folders and files, for sources that follow no published layout."""

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Notes
from pyrseg_jax.importing.list_splits import listed_splits, split_of_pair
from pyrseg_jax.importing.mask_images import MASK_SUFFIXES
from pyrseg_jax.importing.source_tree import SourceTree, common_folder
from pyrseg_jax.importing.splits import split_of_path, split_of_word

MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "groundtruth"),
    *(
        "segmentation",
        "segmentations",
        "labelmaps",
        "label_maps",
        "targets",
        "semantic",
        "seg",
        "ann",
        "anns",
        "ann_dir",
        "msk",
        "msks",
        "labeledapproved_full",  # of CamVid
    ),
)
IMAGE_FOLDERS = (
    "images",
    "image",
    "imgs",
    "img",
    "img_dir",
    "701_stillsraw_full",  # of CamVid
    "photos",
    "photographs",
    "pictures",
    "jpegimages",
    "rgb",
    "input",
    "inputs",
    "data",
)
_AFFIXES = "masks?|labels?|gt|seg|segmentation|images?|img|rgb|sat|color|annotation|l|target|ground_truth|groundtruth"


class MaskPair(NamedTuple):
    """A mask with its photograph; paths relative to the root. `image` is None where it is missing."""

    mask: str
    image: str | None
    split: str | None


def find_masks(tree: SourceTree) -> list[str]:
    """Return the masks: files in a folder named like `MASK_FOLDERS`, or else those named NAME_mask beside NAME."""
    candidates = [name for name in tree.files if suffix_of(name) in MASK_SUFFIXES]
    start = _first_part(tree)
    in_folders = [name for name in candidates if _mask_folder(name, start) is not None]
    if in_folders:
        return in_folders
    return [
        name
        for name in candidates
        if re.search(r"[_\-.](mask|label|labels|gt|seg)$", PurePosixPath(name).stem, re.IGNORECASE)
    ]


def pair_masks(tree: SourceTree, masks: Sequence[str], notes: Notes, classes: Collection[str] = ()) -> list[MaskPair]:
    """Pair masks with the photographs of the same names; photographs without a mask are counted in the notes.

    Words such as `mask`, `gt`, or `image` at the ends of names are ignored, and so are folders of `classes`.

    Raises:
      UserError: if several photographs fit a mask, or several masks a photograph, or if lists of splits contradict each other.
    """
    taken = set(masks)
    images = [name for name in tree.images() if name not in taken]
    by_key: dict[str, list[str]] = {}
    for name in images:
        by_key.setdefault(PurePosixPath(name).stem, []).append(name)
    by_loose: dict[str, list[str]] = {}
    for name in images:
        by_loose.setdefault(loose_stem(name), []).append(name)
    listed = listed_splits(tree)
    pairs: list[MaskPair] = []
    used: dict[str, str] = {}  # photograph → its mask
    for mask in masks:
        found = by_key.get(PurePosixPath(mask).stem) or by_loose.get(loose_stem(mask), [])
        image = _nearest(mask, found, tree, classes)
        if image is not None and used.setdefault(image, mask) != mask and not classes:
            raise UserError(
                f"{tree.place(mask)} and {tree.place(used[image])} are both masks of {image}: keep one kind of masks, and leave "
                "out the others in a copy of the source"
            )
        names = [name for name in (image, mask) if name is not None]
        pairs.append(MaskPair(mask, image, split_of_pair(names, listed)))
    for name in images:
        if name not in used:
            notes.add("image without a mask", tree.place(name))
    return pairs


def _nearest(mask: str, images: Sequence[str], tree: SourceTree, classes: Collection[str]) -> str | None:
    """Choose the photograph in the same folders as the mask, where names such as `images` and `masks` count as equal."""
    if len(images) <= 1:
        return images[0] if images else None
    wanted = tuple(part for part in _neutral(mask) if part not in classes)
    same = [name for name in images if _neutral(name) == wanted]
    if len(same) == 1:
        return same[0]
    raise UserError(
        f"{tree.place(mask)} fits {len(images)} photographs, for example {images[0]} and {images[1]}: give the files of each pair "
        "the same name, in folders such as images/ and masks/"
    )


def photograph_or_error(tree: SourceTree, pair: MaskPair) -> Path | Callable[[], bytes]:
    """Return the path of a mask's photograph. If it has none, return a function that raises an error saying so."""
    if pair.image is not None:
        return tree.root / pair.image

    def fail() -> bytes:
        raise UserError(
            f"{tree.place(pair.mask)} has no photograph: expected one called {loose_stem(pair.mask)!r}, such as "
            f"images/{loose_stem(pair.mask)}.jpg; add it, or remove the mask"
        )

    return fail


def _neutral(name: str) -> tuple[str, ...]:
    """Return the folders of a file without their words for masks and images, so that those of a pair are equal."""
    return tuple(filter(None, (_without_role(part)[1] for part in PurePosixPath(name).parts[:-1])))


def _without_role(part: str) -> tuple[tuple[str, ...] | None, str]:
    """Return what files in a folder are, `MASK_FOLDERS`, `IMAGE_FOLDERS`, or None, and the rest of its name.

    The name may have a split before or after this word, as in `train_masks`, or `trainannot` as in CamVid.
    """
    if part.lower().endswith("annot"):
        return MASK_FOLDERS, part[: -len("annot")]
    words = [word for word in re.split(r"[_\-. ]+", part.lower()) if word]
    role = "_".join(word for word in words if split_of_word(word) is None)
    rest = "_".join(word for word in words if split_of_word(word) is not None)
    folders = next((folders for folders in (MASK_FOLDERS, IMAGE_FOLDERS) if role in folders), None)
    if folders is None and _is_of_masks(words):
        return MASK_FOLDERS, part
    return folders, part if folders is None else rest


def _is_of_masks(words: Sequence[str]) -> bool:
    """Tell whether a folder of several words is one of masks, as in `road_masks`, `masks_machine`, or `gt_image_2` of KITTI."""
    if len(words) < 2:
        return False
    return (
        words[-1] in MASK_FOLDERS
        or words[0] == "gt"
        or (words[0] in MASK_FOLDERS and not set(words) & set(IMAGE_FOLDERS))
    )


def loose_stem(name: str) -> str:
    """Return the stem of a file without words for its role at its ends, and without a second suffix as in `NAME.jpg.png`."""
    stem, before = PurePosixPath(name).stem.lower(), None
    while stem != before:
        before = stem
        stem = PurePosixPath(stem).stem if suffix_of(stem) in IMAGE_SUFFIXES else stem
        stem = re.sub(rf"[_\-. ]+({_AFFIXES})$", "", stem)
        stem = re.sub(rf"^({_AFFIXES})[_\-. ]+", "", stem)
    return stem


def _mask_folder(name: str, start: int) -> int | None:
    """Return the place of the mask folder among the parts of a path, beginning at `start`."""
    parts = PurePosixPath(name).parts[:-1]
    return next((i for i in range(start, len(parts)) if _without_role(parts[i])[0] is MASK_FOLDERS), None)


def _first_part(tree: SourceTree) -> int:
    """Return how many folders hold all images: what these are called says nothing about the files."""
    return len(PurePosixPath(common_folder(tree.images())).parts)


def class_folders(tree: SourceTree) -> dict[str, list[str]]:
    """Return class name → masks, if the mask folder holds one folder for each class, in which file names repeat."""
    found: dict[str, list[str]] = {}
    start = _first_part(tree)
    for name in find_masks(tree):
        place, parts = _mask_folder(name, start), PurePosixPath(name).parts
        if place is None or place + 2 >= len(parts):
            return {}
        found.setdefault(parts[-2], []).append(name)
    if len(found) < 2 or any(split_of_path(name) for name in found):
        return {}
    photographs = set(tree.images()).difference(*found.values())
    if set(found) <= {part for name in photographs for part in PurePosixPath(name).parts[:-1]}:
        return {}  # such as images/CITY and masks/CITY
    stems = [PurePosixPath(name).stem for names in found.values() for name in names]
    return found if len(set(stems)) < len(stems) else {}


def unusable_masks(tree: SourceTree) -> list[str]:
    """Say, for one file in a folder of masks, that its format is not read as a mask."""
    start = _first_part(tree)
    found = (name for name in tree.images() if _mask_folder(name, start) is not None)
    return [
        f"{tree.place(name)} has the suffix {suffix_of(name)}, and masks are read as {', '.join(MASK_SUFFIXES)}: convert "
        "the masks to PNG, or export them again if they are JPEG, whose compression changes values"
        for name in itertools.islice(found, 1)
    ]


def need_masks(tree: SourceTree) -> list[str]:
    """Return the masks, or raise UserError saying where they are expected."""
    masks = find_masks(tree)
    if not masks:
        problem = next(iter(unusable_masks(tree)), None)
        raise UserError(
            problem
            or f"{tree.place('')} has no masks: expected PNG files in a folder named {', '.join(MASK_FOLDERS[:7])}, or beside the "
            "photographs as NAME_mask.png"
        )
    return masks
