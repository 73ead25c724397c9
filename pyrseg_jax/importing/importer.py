"""Import a source: recognize its format, read it, and write a data set in the folder layout."""

import collections
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.archive import describe_absence
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Annotations, Options
from pyrseg_jax.importing.folders import MARKER, check_output, new_folder, unpack_zip
from pyrseg_jax.importing.formats import Format, choose
from pyrseg_jax.importing.legend import Legend, make_legend
from pyrseg_jax.importing.names import stems_of
from pyrseg_jax.importing.near_duplicates import find_near_pairs
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import TEST, TRAINING, VALIDATION, draw_splits
from pyrseg_jax.importing.summary import make_summary
from pyrseg_jax.importing.writing import Pair, in_order, write_pair

log = logging.getLogger(__name__)

MAX_WORKERS = 8
BAD = "picture that cannot be used"
_PACKED = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class Plan(NamedTuple):
    """How the pictures are written.

    share: share of the pictures for validation, or None; see `splits.draw_splits`.
    group: pattern of groups, or None; see `splits.draw_splits`.
    seed: seed of the draw.
    is_skipping: whether pictures that cannot be used are left out; otherwise the first one ends the import.
    is_copying: whether files are copied instead of linked.
    is_replacing: whether the output of an earlier import may be replaced.
    """

    share: float | None = None
    group: str | None = None
    seed: int = 0
    is_skipping: bool = False
    is_copying: bool = False
    is_replacing: bool = False


def import_dataset(
    source: str,
    output: str,
    format_name: str | None = None,
    options: Options = Options(),  # noqa: B008 (it is frozen)
    plan: Plan = Plan(),  # noqa: B008
    on_start: Callable[[Format, str, Annotations], None] | None = None,
) -> dict:
    """Import a source as a data set in the folder layout; the source stays as it is.

    Args:
      source: a folder, a zip, or a file of annotations with its photographs beside it.
      output: the folder to write. It appears when it is complete.
      format_name: a key of `formats.FORMATS`; None recognizes the format.
      options: how annotations are read.
      plan: how pictures are written.
      on_start: called with the format, the evidence for it, and the annotations, before anything is written.

    Returns:
      The summary, which is also written as `import.json`; see `summary.make_summary`.

    Raises:
      UserError: in one line, for a format that is not recognized, and for files that cannot be used.
    """
    path = Path(source).expanduser()
    if not path.is_file() and not path.is_dir():
        raise UserError(
            f"--input={source}: {describe_absence(path)}; name the folder, the zip or the file that was exported"
        )
    if path.suffix.lower() in _PACKED:
        raise UserError(
            f"--input={source} is packed as {path.suffix}: unpack it, and name its folder; only zip is unpacked here"
        )
    target = check_output(output, path, plan.is_replacing)
    with new_folder(target) as folder:
        if path.suffix.lower() == ".zip":
            unpacked = folder / ".unpacked"
            unpack_zip(path, unpacked)
            try:
                summary = _import(SourceTree(unpacked, path), path, folder, format_name, options, plan, on_start)
            except UserError as error:  # the folder is gone when the message is read
                raise UserError(str(error).replace(str(unpacked), str(path))) from error
            _remove(unpacked)
        else:
            summary = _import(SourceTree(path), path, folder, format_name, options, plan, on_start)
        (folder / MARKER).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _import(
    tree: SourceTree,
    source: Path,
    folder: Path,
    format_name: str | None,
    options: Options,
    plan: Plan,
    on_start: Callable[[Format, str, Annotations], None] | None,
) -> dict:
    chosen, evidence = choose(tree, format_name)
    annotations = chosen.read(tree, options)
    if not annotations.pictures:
        left_out = "; ".join(
            f"{reason} ({count}, the first: {first})" for reason, count, first in annotations.notes.lines()
        )
        raise UserError(f"{source} ({chosen.name}) has no picture with annotations{': ' if left_out else ''}{left_out}")
    legend = make_legend(annotations, options)
    if on_start is not None:
        on_start(chosen, evidence, annotations)
    names = [picture.name for picture in annotations.pictures]
    splits, split_source = draw_splits(
        names, [picture.split for picture in annotations.pictures], plan.share, plan.group, plan.seed
    )
    pairs, pixels = _write_all(annotations, splits, folder, legend, plan)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in legend.names), encoding="utf-8")
    _check_rest(splits, pairs, annotations, source)
    written = [split for split in (TRAINING, VALIDATION, TEST) if any(splits[i] == split for i in pairs)]
    by_split = {split: [i for i in pairs if splits[i] == split] for split in written}
    return make_summary(
        source,
        chosen.name,
        evidence,
        legend,
        {split: pixels[split] for split in written},
        {split: len(indices) for split, indices in by_split.items()},
        collections.Counter(pair.how for pair in pairs.values()),
        split_source,
        annotations.notes,
        _near_duplicates(names, pairs, by_split),
    )


def _write_all(
    annotations: Annotations, splits: Sequence[str], folder: Path, legend: Legend, plan: Plan
) -> tuple[dict[int, Pair], dict[str, np.ndarray]]:
    """Write all pairs.

    Returns:
      The pairs that could be written, without their counts, by the index of the picture; and the sums of their counts by split.
    """
    for split in dict.fromkeys(splits):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
    pictures, stems = annotations.pictures, stems_of([picture.name for picture in annotations.pictures])

    def write(i: int) -> Pair:
        return write_pair(pictures[i], stems[i], splits[i], folder, legend.table, plan.is_copying)

    pairs: dict[int, Pair] = {}
    pixels = {split: np.zeros(len(legend.table), np.int64) for split in splits}
    for i, result in in_order(write, len(pictures), min(os.cpu_count() or 1, MAX_WORKERS)):
        if isinstance(result, Pair):
            pixels[splits[i]] += result.pixels
            pairs[i] = result._replace(pixels=result.pixels[:0])
        elif plan.is_skipping:
            annotations.notes.add(BAD, str(result))
        else:
            raise UserError(f"{result}; or give --skip_bad to leave such pictures out")
        if (i + 1) % 1000 == 0:
            log.info("%d of %d pictures are written", i + 1, len(pictures))
    return pairs, pixels


def _check_rest(splits: Sequence[str], pairs: dict[int, Pair], annotations: Annotations, source: Path) -> None:
    for split in (TRAINING, VALIDATION):
        if split in splits and not any(splits[i] == split for i in pairs):
            first = next(first for reason, _, first in annotations.notes.lines() if reason == BAD)
            raise UserError(f"{source}: no picture for {split} can be used; the first problem: {first}")


def _near_duplicates(
    names: Sequence[str], pairs: dict[int, Pair], by_split: dict[str, list[int]]
) -> list[dict[str, Any]]:
    training = by_split.get(TRAINING, [])
    found = []
    for split in (VALIDATION, TEST):
        others = by_split.get(split, [])
        if not training or not others:
            continue
        first, second = (np.stack([pairs[i].thumbnail for i in indices]) for indices in (training, others))
        for pair in find_near_pairs(first, second):
            found.append(
                {
                    "training": names[training[pair.first]],
                    "other": names[others[pair.second]],
                    "split": split,
                    "difference": round(pair.difference, 3),
                }
            )
    return found


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)
