"""Report what a split holds: classes, sizes, unit-cells, and every file that cannot be used."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt
from tqdm import tqdm

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.contents import pack_classes
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.images.orientation import orientation_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair, may_pass, naming_pair
from pyrseg_jax.data.source import Record, Source
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.data.unit_cells import count_cells
from pyrseg_jax.errors import UserError

# Strides of the levels that have unit-cells. The finest level (stride 4) has none: it is always taken.
STRIDES = (32, 16, 8)
# What adds up in a report: arrays, numbers and lists.
COUNTS = ("pixels", "images", "cells", "unit_pixels", "cell_pixels")
TOTALS = ("num_void", "num_constant", "num_unlabeled")
LISTS = ("problems", "turned", "digests", "contents")


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
      num_constant: label maps with a single value, void included.
      num_unlabeled: label maps that are void everywhere.
      turned: indices of the photographs that EXIF turns, and whose label maps fit the pixels as stored equally well.
      digests: (index in the split, digest of the image file, digest of the label file) of each pair that can be used. They are
        parts of SHA-256 and tell files apart. Sets that earlier versions prepared have none.
      contents: (index in the split, classes that the image shows; see `data.contents`) of each pair that can be used. Sets that
        earlier versions prepared have none.
      is_lasting: whether the problems remain until a file changes; unlike short memory. It is not stored.
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
    num_constant: int = 0
    num_unlabeled: int = 0
    turned: list[int] = dataclasses.field(default_factory=list)
    digests: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    contents: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    is_lasting: bool = True

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

    def add(self, label: UInt[np.ndarray, "h w"], facts: "PairFacts | None" = None) -> None:
        """Count one more label map of train ids; `facts` are about the files that it came from."""
        void = void_of(label.dtype)
        counts = np.bincount(label.ravel(), minlength=void + 1)
        self.pixels += counts[: len(self.pixels)]
        self.images += counts[: len(self.images)] > 0
        self.num_void += int(counts[void])
        found = count_cells(label, self.strides, len(self.pixels))
        self.cells += found.cells
        self.unit_pixels += found.unit_pixels
        self.cell_pixels += found.pixels
        self.sizes[label.shape] += 1
        self.num_constant += int(counts.max(initial=0) == label.size)
        self.num_unlabeled += int(counts[void] == label.size)
        if facts is not None:
            self.digests.append((facts.pair, facts.image_digest, facts.label_digest))
            self.contents.append((facts.pair, pack_classes(counts[: len(self.pixels)] > 0)))
            self.turned += [facts.pair] if facts.is_turned else []

    def add_problem(self, index: int, error: UserError) -> None:
        """Count one more pair that cannot be used."""
        self.problems.append((index, str(error)))
        self.is_lasting = self.is_lasting and not may_pass(error)

    def merge(self, other: "DatasetReport") -> None:
        """Add the report of another part of the split."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in TOTALS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sizes.update(other.sizes)
        for name in LISTS:
            getattr(self, name).extend(getattr(other, name))
        self.is_lasting = self.is_lasting and other.is_lasting

    def without_problems(self) -> "DatasetReport":
        """Return the report of the split that is left when the pairs with problems are left out."""
        renumbered = {index: i for i, (index, *_) in enumerate(sorted(self.digests))}
        return dataclasses.replace(
            self,
            problems=[],
            turned=[renumbered[index] for index in self.turned],
            digests=[(renumbered[index], *digests) for index, *digests in self.digests],
            contents=[(renumbered[index], classes) for index, classes in self.contents],
            is_lasting=True,
        )

    def to_json(self) -> dict:
        """Return everything as plain lists and numbers."""
        arrays = {name: getattr(self, name).tolist() for name in COUNTS}
        sizes = [[*size, count] for size, count in sorted(self.sizes.items())]
        rest = {name: getattr(self, name) for name in (*TOTALS, *LISTS)}
        return {"strides": list(self.strides), **arrays, "sizes": sizes, **rest}

    @classmethod
    def from_json(cls, values: dict) -> "DatasetReport":
        """Build a report from what `to_json` returned."""
        arrays = {name: np.array(values[name], np.int64) for name in COUNTS}
        sizes = collections.Counter({(height, width): count for height, width, count in values["sizes"]})
        totals = {name: values.get(name, 0) for name in TOTALS}
        lists = {name: values.get(name, []) for name in LISTS}
        for name in ("problems", "digests", "contents"):
            lists[name] = [tuple(item) for item in lists[name]]
        return cls(tuple(values["strides"]), sizes=sizes, **arrays, **totals, **lists)


class PairFacts(NamedTuple):
    """What a report remembers of the files of a pair; see the attributes of `DatasetReport`."""

    pair: int
    image_digest: str
    label_digest: str
    is_turned: bool


def facts_of(index: int, record: Record, pair: Pair) -> PairFacts:
    """Return the facts about the files of a pair that was decoded."""
    orientation = orientation_of(record["image"])
    height, width = pair.label.shape
    # The orientations 5 … 8 exchange height and width, so only square label maps fit both ways.
    is_turned = orientation in (2, 3, 4) or (orientation >= 5 and height == width)
    return PairFacts(index, _digest(record["image"]), _digest(record["label"]), is_turned)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


# Name of a pair → what `checksums_of` returned for it.
Checksums = Mapping[str, tuple[str, str]]


def checksums_of(image: bytes, label: UInt[np.ndarray, "h w"]) -> tuple[str, str]:
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

    def read(index: int) -> DatasetReport:
        one = DatasetReport.empty(label_space.num_classes, strides)
        try:
            with naming_pair(source, index):
                record, pair = load_pair(source, index, label_space)
                if checksums and record["name"] in checksums:
                    _compare(record, pair.label, checksums[record["name"]])
                one.add(pair.label, facts_of(index, record, pair))
        except UserError as error:
            one = DatasetReport.empty(label_space.num_classes, strides)
            one.add_problem(index, error)
        return one

    for one in progress(ordered_map(read, range(len(source)), THREADS), what, len(source)):
        found.merge(one)
    return found


def say_first(problems: Sequence[str]) -> str:
    """Return the first of some problems, and say how many more there are."""
    num_more = len(problems) - 1
    others = f" (and {num_more} more problem{'s' if num_more > 1 else ''}: --mode=validate lists them all)"
    return problems[0] + (others if num_more else "")


def _compare(record: Record, label: np.ndarray, recorded: tuple[str, str]) -> None:
    files = (record["image_name"], record["label_name"])
    for file, now, before in zip(files, checksums_of(record["image"], label), recorded, strict=True):
        if now != before:
            raise UserError(
                f"{file} has changed since the data set was prepared (sha256 {now[:12]}…, recorded is {before[:12]}…), but its "
                "size and time have not: if nobody replaced it, the disk may be failing; restore the file"
            )


def progress(items: Iterable, what: str, total: int) -> tqdm:
    """Show a progress bar on a terminal. Log files get none, because there it would be noise."""
    return tqdm(items, what, total, unit=" images", disable=None, leave=False)
