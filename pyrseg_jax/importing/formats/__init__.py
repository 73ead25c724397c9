"""The formats of label tools. To add one, write a file in this folder that defines `FORMAT`, and add it to `FORMATS`."""

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.formats import (
    binary_masks,
    cityscapes,
    class_folders,
    coco,
    coco_panoptic,
    coco_stuff_maps,
    color_masks,
    cvat_masks,
    cvat_xml,
    hugging_face,
    index_masks,
    label_studio,
    labelme,
    labelme_folders,
    mapillary,
    pascal_voc,
    yolo,
)
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.formats.nearest import describe_missing
from pyrseg_jax.importing.formats.unsupported import find_unsupported
from pyrseg_jax.importing.source_tree import SourceTree

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        coco,
        coco_panoptic,
        coco_stuff_maps,
        pascal_voc,
        cvat_masks,
        cvat_xml,
        labelme,
        labelme_folders,
        yolo,
        label_studio,
        cityscapes,
        mapillary,
        hugging_face,
        color_masks,
        binary_masks,
        class_folders,
        index_masks,
    )
}


_WHERE = "All formats are in docs/guide/importing.md; `pyrseg help import` says how to name one with --format."


def choose(tree: SourceTree, name: str | None) -> tuple[Format, str]:
    """Return the format of a source, and a text that names the evidence for it.

    Args:
      tree: the files.
      name: the format that the user names; None recognizes it. General formats (plain masks) count only where no other fits.

    Raises:
      UserError: for an unknown name; if no format is recognized, saying what is missing for the most likely one; or if several are.
    """
    if name is not None:
        if name not in FORMATS:
            raise UserError(f"--format={name}: expected one of {', '.join(FORMATS)}")
        return FORMATS[name], "--format names it"
    if not tree.files:
        raise UserError(f"{tree.root} holds no files: name the folder, the zip or the file that was exported")
    _refuse_own_layout(tree)
    forms = [form for form in FORMATS.values() if tree.focus is None or form.has_file]
    for is_general in (False, True):
        found = [
            (form, evidence)
            for form in forms
            if form.is_general == is_general and (evidence := form.recognize(tree)) is not None
        ]
        if len(found) == 1:
            return found[0]
        if found:
            listed = "; ".join(f"{form.name} ({evidence})" for form, evidence in found)
            raise UserError(
                f"{tree.root} fits several formats: {listed}. Choose one with --format=NAME, or name its own folder or "
                "file with --input"
            )
    if known := find_unsupported(tree):
        raise UserError(f"{known}. The formats that are read are {', '.join(FORMATS)}")
    problem = f" One file cannot be used: {tree.problems[0]}." if tree.problems else ""
    missing = "" if tree.problems else f" {describe_missing(tree)}".rstrip()
    rest = f"{problem}{missing} {_WHERE}"
    if tree.focus is not None:
        raise UserError(
            f"{tree.place(tree.focus)} is of no known format.{rest} If it belongs to masks, name their folder with --input"
        )
    raise UserError(f"{tree.root} is of no known format. It holds {', '.join(_kinds(tree))}.{rest}")


def _refuse_own_layout(tree: SourceTree) -> None:
    if "classes.txt" in tree.files and {"images/training", "annotations/training"} <= tree.folders():
        raise UserError(
            f"{tree.root} already has the folder layout, so there is nothing to import: train on it with name=folder and "
            f"root={tree.root}"
        )


def _kinds(tree: SourceTree) -> list[str]:
    import collections

    from pyrseg_jax.data.listing import suffix_of

    counts = collections.Counter(suffix_of(name) or "no suffix" for name in tree.files)
    return [f"{count} {suffix} file{'s' if count > 1 else ''}" for suffix, count in counts.most_common(6)]
