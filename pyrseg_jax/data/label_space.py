"""Translate between the values in label files and the train ids of the package.

Inside the package, classes are numbered 0 … C-1 ("train ids") and void is 255, or 65535 where there are more classes. Every data
set numbers its files differently.
"""

import dataclasses
import functools
import unicodedata

import cv2
import numpy as np
from jaxtyping import Shaped, UInt

from pyrseg_jax.conventions import VOID, label_dtype, void_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.names import comparable

MAX_CLASSES = 10_000  # Chosen: the confusion matrices of an evaluation, (2, 4, C, C) of int32, then take 3.2 GB
MAX_VALUE = 2**16 - 1  # of a label file of 16 bits
MAX_NAME = 200  # characters of a class name
MAX_NESTING = 8  # groups within each other that may hold a class
# Invisible, but Persian, Hindi and emoji cannot be written without them: joiners, and the letters in flags of regions.
_INVISIBLE_LETTERS = {"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """Names and file values of a data set's classes, by train id.

    Attributes:
      names: names of the C classes.
      file_ids: value of each class in label files, 0 … 65535.
      void_file_id: value in label files of pixels that belong to no class.
      colors: (R, G, B) of each class, or None.
      is_stuff: whether each class is stuff (without countable instances), or None where the data set does not say.
      also: further values in label files, as (value, train id or void); they are read, and predictions never use them.
      hierarchy: for each class, the names of the groups that hold it, outermost first, or None where the data set has no hierarchy.
        Two label spaces that differ in nothing else are equal: only few networks read it.
    """

    names: tuple[str, ...]
    file_ids: tuple[int, ...]
    void_file_id: int = 0
    colors: tuple[tuple[int, int, int], ...] | None = None
    is_stuff: tuple[bool, ...] | None = None
    also: tuple[tuple[int, int], ...] = ()
    hierarchy: tuple[tuple[str, ...], ...] | None = dataclasses.field(default=None, compare=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (pydantic reads it when a label space is read from JSON)

    def __post_init__(self) -> None:
        num_classes = len(self.names)
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"expected 1 to {MAX_CLASSES} names, found {num_classes}")
        for name in ("file_ids", "colors", "is_stuff", "hierarchy"):
            values = getattr(self, name)
            if values is not None and len(values) != num_classes:
                raise ValueError(
                    f"expected one item of {name} per class, found {num_classes} names and {len(values)} {name}"
                )
        channels = (channel for color in self.colors or () for channel in color)
        if not all(0 <= value <= MAX_VALUE for value in (*self.file_ids, self.void_file_id)):
            raise ValueError(f"expected values of label files between 0 and {MAX_VALUE}")
        if not all(0 <= value <= 255 for value in channels):
            raise ValueError("expected values of colors between 0 and 255")
        if not all(0 <= value <= MAX_VALUE and (0 <= id < num_classes or id == self.void) for value, id in self.also):
            raise ValueError(f"expected pairs of a value between 0 and {MAX_VALUE} and a train id in also")
        if len(set(map(comparable, self.names))) < num_classes or len(set(self.file_ids)) < num_classes:
            raise ValueError("expected each name and each of the file_ids once")
        if self.void_file_id in self.file_ids:
            raise ValueError(f"expected void_file_id={self.void_file_id} not to be among the file_ids of the classes")
        unusable = next((name for name in self.names if not name.strip() or find_problem(name)), None)
        if unusable is not None:
            raise ValueError(f"expected names without control characters, found the name {shorten(unusable)}")
        self._check_hierarchy()

    def _check_hierarchy(self) -> None:
        for groups in self.hierarchy or ():
            if len(groups) > MAX_NESTING:
                raise ValueError(
                    f"expected at most {MAX_NESTING} groups around a class in hierarchy, found {len(groups)}"
                )
            unusable = next((name for name in groups if not name.strip() or find_problem(name)), None)
            if unusable is not None:
                raise ValueError(
                    f"expected names without control characters in hierarchy, found the name {shorten(unusable)}"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes, without void."""
        return len(self.names)

    @property
    def dtype(self) -> np.dtype:
        """Type of arrays of train ids: uint8 for up to 255 classes, and else uint16."""
        return label_dtype(self.num_classes)

    @property
    def void(self) -> int:
        """Train id of pixels without a class: 255, or 65535 where there are more than 255 classes."""
        return void_of(self.dtype)

    @functools.cached_property
    def file_dtype(self) -> np.dtype:
        """Type of the values in label files: uint8 unless one of them needs 16 bits."""
        values = (*self.file_ids, self.void_file_id, *(value for value, _ in self.also))
        return np.dtype(np.uint8 if max(values) <= 255 else np.uint16)

    @property
    def _num_values(self) -> int:
        return 256 if self.file_dtype == np.uint8 else MAX_VALUE + 1

    @functools.cached_property
    def _to_train(self) -> np.ndarray:
        table = np.zeros(self._num_values, self.dtype)
        table[list(self.file_ids)] = np.arange(self.num_classes)
        table[self.void_file_id] = self.void
        for value, train_id in self.also:
            table[value] = train_id
        return table

    @functools.cached_property
    def _is_no_class(self) -> np.ndarray:
        table = np.ones(self._num_values, np.uint8)
        table[[*self.file_ids, self.void_file_id, *(value for value, _ in self.also)]] = 0
        return table

    @functools.cached_property
    def _first_unknown(self) -> int:
        return int(self._is_no_class.argmax()) if self._is_no_class.any() else self._num_values

    @functools.cached_property
    def _to_file(self) -> np.ndarray:
        table = np.full(self.void + 1, self.void_file_id, self.file_dtype)
        table[: self.num_classes] = self.file_ids
        return table

    def to_train_ids(self, file_values: Shaped[np.ndarray, "h w"], where: str) -> UInt[np.ndarray, "h w"]:
        """Translate the values of a label file to train ids.

        Args:
          file_values: (H, W) integers of any type.
          where: name of the file, for messages.

        Raises:
          UserError: naming the file, the first value that no class has, its pixel, and how many pixels have it.
        """
        if file_values.dtype == np.uint8 and self.file_dtype == np.uint8:
            train_ids = cv2.LUT(file_values, self._to_train)  # five times as fast as NumPy indexing
            if file_values.max(initial=0) < self._first_unknown:
                return train_ids
            is_wrong = cv2.LUT(file_values, self._is_no_class)
        else:
            values = np.clip(file_values, 0, self._num_values - 1).astype(self.file_dtype)
            train_ids = self._to_train[values]
            is_wrong = self._is_no_class[values] | (values != file_values)
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0]
            value = file_values[row, column]
            raise UserError(
                f"{where}: value {value} at row {row}, column {column} ({(file_values == value).sum()} pixels of it) is "
                f"not a class: expected {self.describe_file_ids()}; correct the label file, or, in a folder of your own, "
                f"add the class to classes.txt or say what the value means with remap=VALUE:CLASS{self._advice(int(value))}"
            )
        return train_ids

    def _advice(self, value: int) -> str:
        """Say what a value of 255 usually means. As `remap=255:void` alone, it would leave class 0 void."""
        if value != VOID or self.void_file_id != 0 or self.file_ids[0] != 1:
            return ""
        return "; if the classes count from 0 and 255 is void, set first_value=0 and void_value=255"

    def to_file_values(self, train_ids: UInt[np.ndarray, "h w"]) -> UInt[np.ndarray, "h w"]:
        """Translate train ids to the values of the data set's own label files, of 8 bits, or of 16 where a value needs them."""
        return self._to_file[train_ids]

    def values(self) -> tuple:
        """Return everything that decides which value means which class."""
        return self.file_ids, self.void_file_id, self.also

    def to_json(self) -> dict:
        """Return the fields for a JSON file. Without a hierarchy, they are those that earlier versions read."""
        fields = dataclasses.asdict(self)
        return fields if self.hierarchy is not None else {key: fields[key] for key in fields if key != "hierarchy"}

    def describe_file_ids(self) -> str:
        """Describe the values that a label file may hold, for messages."""
        first, last = min(self.file_ids), max(self.file_ids)
        has_gaps = last - first + 1 != self.num_classes
        remapped = f", or {', '.join(str(value) for value, _ in self.also)} (remapped)" if self.also else ""
        gaps = " with gaps" if has_gaps else ""
        return f"{self.void_file_id} (void) or {first} … {last}{gaps} ({self.num_classes} classes){remapped}"


def find_problem(name: str) -> str | None:
    """Say why a name cannot be the name of a class, or return None: control characters, text direction, length.

    Letters of any script, signs and emoji are fine.
    """
    for position, character in enumerate(name, 1):
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _INVISIBLE_LETTERS):
            about = unicodedata.name(character, "a control character")
            return f"holds the invisible character U+{ord(character):04X} ({about}) at position {position}"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, more than {MAX_NAME}"
    return None


def ade_layout(names: tuple[str, ...], **kwargs) -> LabelSpace:
    """Return the label space of ADE20K's layout: 0 is void, and class i of the list has the value i + 1."""
    return LabelSpace(names, tuple(range(1, len(names) + 1)), 0, **kwargs)
