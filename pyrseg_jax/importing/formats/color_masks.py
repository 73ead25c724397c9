"""Read masks with one color for each class, with a list of the classes and their colors, or with the colors that are found.

Lists are read from `--classes`, or from a file of a usual name beside the masks. Without a list, the import writes one with the
colors that occur, and ends, so that the user can name them.
"""

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Annotations, Options
from pyrseg_jax.importing.class_files import find_color_list
from pyrseg_jax.importing.color_maps import find_colors, propose_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.listed_masks import hold_numbers, read_by_colors, read_by_numbers
from pyrseg_jax.importing.mask_kinds import COLOR, kind_of_masks, read_some
from pyrseg_jax.importing.mask_painting import read_colors
from pyrseg_jax.importing.mask_pairs import need_masks
from pyrseg_jax.importing.source_tree import SourceTree


def recognize(tree: SourceTree) -> str | None:
    """Recognize masks with colors."""
    found = kind_of_masks(tree)
    return found[1] if found is not None and found[0] == COLOR else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the masks by their colors, or by their numbers if the user's list has only names."""
    masks = need_masks(tree)
    listed = options.classes if options.classes is not None and options.classes.colors else find_color_list(tree)
    if listed is not None:
        return read_by_colors(tree, masks, listed, is_users=listed is options.classes)
    if options.classes is not None and hold_numbers(read_some(tree, masks)):
        return read_by_numbers(tree, masks, options.classes)
    raise _without_list(tree, masks, options)


def _without_list(tree: SourceTree, masks: list[str], options: Options) -> UserError:
    """Find the colors, write a list of them for the user to name, and return the error that says so."""
    colors = find_colors((tree.place(name), read_colors(tree, name)) for name in masks)
    listed = ", ".join(f"({', '.join(map(str, color))})" for color, _ in colors[:6]) + (
        ", …" if len(colors) > 6 else ""
    )
    message = f"the masks have {len(colors)} colors ({listed}), and no list says what they mean"
    if options.proposal is None:
        return UserError(f"{message}: list NAME,R,G,B for each in a file, and give it with --classes=FILE")
    try:
        options.proposal.parent.mkdir(parents=True, exist_ok=True)
        options.proposal.write_text(propose_list(colors), encoding="utf-8")
    except OSError as error:
        return UserError(f"{message}, and {options.proposal} cannot be written ({error.strerror or error}): make room")
    return UserError(
        f"{message}: {options.proposal} now lists them; replace the names in it, and start the command again with "
        f"--classes={options.proposal}"
    )


FORMAT = Format(
    "color_masks",
    "masks with one color for each class",
    recognize,
    read,
    is_general=True,
)
