"""Read every image and label of a split before anything depends on them: what is in them, and what is wrong."""

import collections
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.holdout import take
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pipeline import THREADS, ordered_map
from pyrseg_jax.data.source import Record, Source
from pyrseg_jax.data.unit_cells import count_cells
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)
# Levels that say whether a cell is a unit-cell; the finest level (stride 4) is always taken.
STRIDES = (32, 16, 8)


@dataclasses.dataclass
class Survey:
    """What a split, or a part of one, holds. The parts add up.

    Attributes:
      strides: of the levels whose cells are counted, coarse to fine.
      pixels: (C,) labelled pixels of each class.
      images: (C,) images that show it.
      num_void: void pixels.
      cells: (L, 2) unit-cells and mixed cells of each level.
      unit_pixels: (L, C) labelled pixels of each class that lie in unit-cells of the level, out of
      cell_pixels: (C,), those that whole cells of the coarsest level cover.
      sizes: how many images have a (height, width).
      problems: (index in the split, message) for each pair that cannot be used; it counts nowhere else.
    """

    strides: tuple[int, ...]
    pixels: np.ndarray
    images: np.ndarray
    num_void: int
    cells: np.ndarray
    unit_pixels: np.ndarray
    cell_pixels: np.ndarray
    sizes: collections.Counter
    problems: list[tuple[int, str]]

    @classmethod
    def empty(cls, num_classes: int, strides: Sequence[int] = STRIDES) -> "Survey":
        """Return what an empty split holds."""
        zeros, levels = np.zeros(num_classes, np.int64), len(strides)
        return cls(
            tuple(strides), zeros, zeros.copy(), 0, np.zeros((levels, 2), np.int64),
            np.zeros((levels, num_classes), np.int64), zeros.copy(), collections.Counter(), [],
        )  # fmt: skip

    @property
    def num_images(self) -> int:
        """Pairs without a problem."""
        return self.sizes.total()

    def add(self, label: np.ndarray) -> None:
        """Count one more label map of train ids."""
        counts = np.bincount(label.ravel(), minlength=256)
        self.pixels += counts[: len(self.pixels)]
        self.images += counts[: len(self.images)] > 0
        self.num_void += int(counts[VOID])
        found = count_cells(label, self.strides, len(self.pixels))
        self.cells += found.cells
        self.unit_pixels += found.unit_pixels
        self.cell_pixels += found.pixels
        self.sizes[label.shape] += 1

    def merge(self, other: "Survey") -> None:
        """Add what another part of the split holds."""
        for name in ("pixels", "images", "cells", "unit_pixels", "cell_pixels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.num_void += other.num_void
        self.sizes += other.sizes
        self.problems = self.problems + other.problems

    def to_json(self) -> dict:
        """Return everything as plain lists and numbers."""
        arrays = {
            name: getattr(self, name).tolist() for name in ("pixels", "images", "cells", "unit_pixels", "cell_pixels")
        }
        sizes = [[*size, count] for size, count in sorted(self.sizes.items())]
        rest = {"num_void": self.num_void, "sizes": sizes, "problems": self.problems}
        return {"strides": list(self.strides), **arrays, **rest}

    @classmethod
    def from_json(cls, values: dict) -> "Survey":
        """Read what `to_json` returned."""
        arrays = {
            name: np.array(values[name], np.int64)
            for name in ("pixels", "images", "cells", "unit_pixels", "cell_pixels")
        }
        sizes = collections.Counter({(height, width): count for height, width, count in values["sizes"]})
        problems = [(index, message) for index, message in values["problems"]]
        return cls(tuple(values["strides"]), num_void=values["num_void"], sizes=sizes, problems=problems, **arrays)


# Name of a pair → what `checksums_of` gave for it.
Checksums = Mapping[str, tuple[str, str]]


def checksums_of(image: bytes, label: np.ndarray) -> tuple[str, str]:
    """Return the SHA-256 of an image file, and of the train ids of its label map (which may be stored in several ways)."""
    return hashlib.sha256(image).hexdigest(), hashlib.sha256(label.tobytes()).hexdigest()


def survey(
    source: Source,
    label_space: LabelSpace,
    what: str,
    strides: Sequence[int] = STRIDES,
    checksums: Checksums | None = None,
) -> Survey:
    """Decode every pair of a split, on all cores; problems are collected, not raised.

    Args:
      source: the split.
      label_space: of its label files.
      what: to call the split on a progress bar.
      strides: of the levels whose cells are counted.
      checksums: recorded before; another content is a problem.
    """
    found = Survey.empty(label_space.num_classes, strides)

    def read(index: int) -> np.ndarray | str:
        try:
            record = source[index]
            label = decode_pair(record, label_space).label
            if checksums and record["name"] in checksums:
                _compare(record, label, checksums[record["name"]])
            return label
        except UserError as error:
            return str(error)

    labels = ordered_map(read, range(len(source)), THREADS)
    for index, result in enumerate(progress(labels, what, len(source))):
        if isinstance(result, str):
            found.problems.append((index, result))
        else:
            found.add(result)
    return found


def _compare(record: Record, label: np.ndarray, recorded: tuple[str, str]) -> None:
    files = (record["image_name"], record["label_name"])
    for file, now, before in zip(files, checksums_of(record["image"], label), recorded, strict=True):
        if now != before:
            raise UserError(
                f"{file} is not what it was when the data set was prepared (sha256 {now[:12]}…, recorded is {before[:12]}…), but "
                "has the same size and time: the disk may be failing; restore the file"
            )


def progress(items: Iterable, what: str, total: int) -> Iterable:
    """Show a bar on a terminal; in a log file it would be noise."""
    return tqdm(items, what, total, unit=" images", disable=None, leave=False)


def check_once(source: Source, label_space: LabelSpace, what: str) -> None:
    """Survey a split of files and raise at its first problem; files that passed before and did not change are not read.

    A source without a `fingerprint` (one that this package prepared, and checked then) is trusted.

    Raises:
      UserError: with the first problem, and how many more there are.
    """
    problems = find_problems(source, label_space, what)
    if problems:
        others = (
            f" (and {len(problems) - 1} more problems: --mode=validate lists them all)" if len(problems) > 1 else ""
        )
        raise UserError(problems[0][1] + others)


def find_problems(source: Source, label_space: LabelSpace, what: str) -> list[tuple[int, str]]:
    """List (index, message) of the pairs of a split that cannot be used; what was found before is remembered."""
    if not hasattr(source, "fingerprint"):
        return []
    memory = _memory_of(source, label_space)
    try:
        return [(index, message) for index, message in json.loads(memory.read_text())]
    except (OSError, ValueError):  # never read, or cut off while it was written
        pass
    log.info("reading all %d pairs of %s once, to find bad files before they cost time", len(source), what)
    problems = survey(source, label_space, what).problems
    _remember(memory, problems)
    return problems


def leave_out(source: Source, label_space: LabelSpace, what: str) -> Source:
    """Return the pairs of a split that can be used, and say how many cannot."""
    problems = find_problems(source, label_space, what)
    if not problems:
        return source
    bad = {index for index, _ in problems}
    if len(bad) == len(source):
        raise UserError(f"{what}: none of the {len(source)} pairs can be used, the first: {problems[0][1]}")
    log.warning(
        "%d of %d pairs of %s are left out (config.data.on_error=skip), the first: %s",
        len(bad), len(source), what, problems[0][1],
    )  # fmt: skip
    usable = take(source, [index for index in range(len(source)) if index not in bad])
    _remember(_memory_of(usable, label_space), [])
    return usable


def _memory_of(source: Source, label_space: LabelSpace) -> Path:
    """Name the file that keeps the problems of these files, in the state that they are in."""
    state = "\n".join([*source.fingerprint(), repr(label_space.values())])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "pyrseg_jax" / "checked" / f"{hashlib.sha256(state.encode()).hexdigest()}.json"


def _remember(memory: Path, problems: list[tuple[int, str]]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(problems))
    except OSError:
        log.info("%s cannot be written: the files will be checked again next time", memory.parent)
