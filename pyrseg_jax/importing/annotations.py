"""What every format of a label tool is read into: pictures, classes, and notes on what was left out."""

import collections
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt16

from pyrseg_jax.importing.class_list import ClassList

# Values of class maps. Class i of `Annotations.classes` has the value i + 1.
UNLABELED = 0  # no annotation covers the pixel
IGNORED = 2**16 - 1  # the source excludes the pixel, or its class is unknown: always void
BACKGROUND, VOID = "background", "void"  # what unlabeled pixels become
BY_AREA, BY_FILE = "area", "file"  # in which order overlapping objects are painted; the last one stays visible

# (height, width) of the upright picture → its class map, of this size or of the size as stored.
Paint = Callable[[int, int], UInt16[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user may decide about reading annotations.

    Attributes:
      classes: the list of classes that the user gives, or None.
      unlabeled: what pixels without annotation become, `BACKGROUND` or `VOID`; None takes the default of the format.
      overlap: how overlapping objects are ordered, `BY_AREA` or `BY_FILE`; None takes the default of the format.
      proposal: the file that a list of the found colors is written to if no list of classes is there, or None.
    """

    classes: ClassList | None = None
    unlabeled: str | None = None
    overlap: str | None = None
    proposal: Path | None = None


class Picture(NamedTuple):
    """A photograph and how to paint its class map.

    name: its path in the source, for messages and for the name of the pair.
    image: the file, or a function that returns its bytes where it lies inside another file.
    split: "training", "validation", "test", or None where the source does not say.
    paint: see `Paint`. It raises UserError if the annotations of this picture are damaged.
    """

    name: str
    image: Path | Callable[[], bytes]
    split: str | None
    paint: Paint


class Notes:
    """What was left out and why, and what was read in a special way: a count for each, and the first place.

    Several threads may add.
    """

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, str] = {}
        self._remarks: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def add(self, reason: str, place: str, count: int = 1) -> None:
        """Count something that is left out.

        Args:
          reason: what it is and why, in the singular: "bounding box without an outline".
          place: where it is: a file, or a file and an object in it.
          count: how many of them.
        """
        with self._lock:
            self._counts[reason] += count
            self._first.setdefault(reason, place)

    def remark(self, text: str, place: str) -> None:
        """Count something that is read, but not as it stands: "label map with three equal channels, which was read as one"."""
        with self._lock:
            count, first = self._remarks.get(text, (0, place))
            self._remarks[text] = count + 1, first

    def remarks(self) -> list[tuple[str, int, str]]:
        """Return (remark, count, first place), in the order of their first occurrence."""
        return [(text, count, first) for text, (count, first) in self._remarks.items()]

    def lines(self) -> list[tuple[str, int, str]]:
        """Return (reason, count, first place), the most frequent reason first."""
        return [(reason, count, self._first[reason]) for reason, count in self._counts.most_common()]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a format reads from its files.

    Attributes:
      classes: names of the classes, in the order of the source.
      pictures: the photographs, in a fixed order.
      notes: what was left out.
      unlabeled: what pixels without annotation become if the user does not say: `BACKGROUND` or `VOID`.
      void_meaning: describes which pixels of the source become void because they have no label; "" if there are none.
      has_own_order: whether `classes` already follows the list that the user gave.
    """

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    notes: Notes
    unlabeled: str = VOID
    void_meaning: str = "pixels without annotation"
    has_own_order: bool = False
