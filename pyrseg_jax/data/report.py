"""Report what a split holds: classes, sizes, unit-cells, and every file that cannot be used."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Record, Source
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.data.unit_cells import count_cells
from pyrseg_jax.errors import UserError

# Strides of the levels that have unit-cells. The finest level (stride 4) has none: it is always taken.
STRIDES = (32, 16, 8)
COUNTS = ("pixels", "images", "cells", "unit_pixels", "cell_pixels")  # arrays of a report that add up


@dataclasses.dataclass
class DatasetReport:
    """Statistics of a split, or of a part of one. The reports of all parts add up to the report of the split.

    Attributes:
      strides: strides of the levels whose cells are counted, coarse to fine.
      pixels: (C,) labeled pixels of each class.
      images: (C,) images that show each class.
      num_void: void pixels.
      cells: (L, 2) unit-cells and mixed cells of each level.
      unit_pixels: (L, C) labeled pixels of each class that lie in unit-cells of the level; compare with `cell_pixels`.
      cell_pixels: (C,) labeled pixels of each class that whole cells of the coarsest level cover.
      sizes: (height, width) → number of images.
      problems: (index in the split, message) for each pair that cannot be used. Such a pair counts nowhere else.
    """

    strides: tuple[int, ...]
    pixels: Int64[np.ndarray, "c"]
    images: Int64[np.ndarray, "c"]
    num_void: int
    cells: Int64[np.ndarray, "l 2"]
    unit_pixels: Int64[np.ndarray, "l c"]
    cell_pixels: Int64[np.ndarray, "c"]
    sizes: collections.Counter[tuple[int, int]]
    problems: list[tuple[int, str]]

    @classmethod
    def empty(cls, num_classes: int, strides: Sequence[int] = STRIDES) -> "DatasetReport":
        """Return the report of an empty split."""
        zeros, levels = np.zeros(num_classes, np.int64), len(strides)
        return cls(
            tuple(strides), zeros, zeros.copy(), 0, np.zeros((levels, 2), np.int64),
            np.zeros((levels, num_classes), np.int64), zeros.copy(), collections.Counter(), [],
        )  # fmt: skip

    @property
    def num_images(self) -> int:
        """Number of pairs without a problem."""
        return self.sizes.total()

    def add(self, label: UInt8[np.ndarray, "h w"]) -> None:
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

    def merge(self, other: "DatasetReport") -> None:
        """Add the report of another part of the split."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.num_void += other.num_void
        self.sizes += other.sizes
        self.problems = self.problems + other.problems

    def to_json(self) -> dict:
        """Return everything as plain lists and numbers."""
        arrays = {name: getattr(self, name).tolist() for name in COUNTS}
        sizes = [[*size, count] for size, count in sorted(self.sizes.items())]
        rest = {"num_void": self.num_void, "sizes": sizes, "problems": self.problems}
        return {"strides": list(self.strides), **arrays, **rest}

    @classmethod
    def from_json(cls, values: dict) -> "DatasetReport":
        """Build a report from what `to_json` returned."""
        arrays = {name: np.array(values[name], np.int64) for name in COUNTS}
        sizes = collections.Counter({(height, width): count for height, width, count in values["sizes"]})
        problems = [(index, message) for index, message in values["problems"]]
        return cls(tuple(values["strides"]), num_void=values["num_void"], sizes=sizes, problems=problems, **arrays)


# Name of a pair → what `checksums_of` returned for it.
Checksums = Mapping[str, tuple[str, str]]


def checksums_of(image: bytes, label: UInt8[np.ndarray, "h w"]) -> tuple[str, str]:
    """Return the SHA-256 of an image file and of its label map.

    For the label map these are its train ids, because the same map may be stored in several file formats.
    """
    return hashlib.sha256(image).hexdigest(), hashlib.sha256(label.tobytes()).hexdigest()


def make_report(
    source: Source,
    label_space: LabelSpace,
    what: str,
    strides: Sequence[int] = STRIDES,
    checksums: Checksums | None = None,
) -> DatasetReport:
    """Decode every pair of a split, on all cores. Problems are collected, not raised.

    Args:
      source: the split.
      label_space: the classes of its label files.
      what: name of the split, for the progress bar.
      strides: strides of the levels whose cells are counted.
      checksums: checksums recorded earlier; a file with other content is a problem.
    """
    found = DatasetReport.empty(label_space.num_classes, strides)

    def read(index: int) -> UInt8[np.ndarray, "h w"] | str:
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
                f"{file} has changed since the data set was prepared (sha256 {now[:12]}…, recorded is {before[:12]}…), but its "
                "size and time have not: the disk may be failing; restore the file"
            )


def progress(items: Iterable, what: str, total: int) -> tqdm:
    """Show a progress bar on a terminal. Log files get none, because there it would be noise."""
    return tqdm(items, what, total, unit=" images", disable=None, leave=False)
