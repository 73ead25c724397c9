"""Read label maps with one number per pixel, 0, 1, 2, …, as the lines of a list of classes count them; 255 is void.

A name such as `void` or `ignore` in the list marks a number without a class.
"""

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Annotations, Options
from pyrseg_jax.importing.class_files import find_name_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.listed_masks import read_by_colors, read_by_numbers
from pyrseg_jax.importing.mask_kinds import INDEX, kind_of_masks, means_colors, read_some
from pyrseg_jax.importing.mask_pairs import need_masks
from pyrseg_jax.importing.source_tree import SourceTree


def recognize(tree: SourceTree) -> str | None:
    """Recognize masks with one number per pixel."""
    found = kind_of_masks(tree)
    return found[1] if found is not None and found[0] == INDEX else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the numbers as the lines of the list, the first line being 0, or the colors if the list has those of the masks."""
    listed = options.classes
    if listed is None:
        listed = find_name_list(tree)
        if listed is None:
            raise UserError(
                f"{tree.place('')} has masks with one number per pixel, and no list says what they mean: write the name of each "
                "class on a line of a text file, beginning with that of 0, and give it with --classes=FILE"
            )
    masks = need_masks(tree)
    if means_colors(read_some(tree, masks), listed):
        return read_by_colors(tree, masks, listed, is_users=listed is options.classes)
    return read_by_numbers(tree, masks, listed)


FORMAT = Format(
    "index_masks",
    "label maps with one number per pixel and a list of classes",
    recognize,
    read,
    is_general=True,
)
