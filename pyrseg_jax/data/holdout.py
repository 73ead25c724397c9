"""Hold random images out of the training split: some of them, or one of k folds.

The paper's ablations train on 16K images of ADE20K and score the other 4K.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from pyrseg_jax.data.contents import images_of_classes
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.source import FileSource, Record, Source
from pyrseg_jax.errors import UserError

HOLDOUT = "holdout"  # name of the split


@dataclasses.dataclass(frozen=True)
class Holdout:
    """Which images of the training split form the split `holdout` instead.

    Attributes:
      num_images: their number, for a draw of that many images.
      seed: seed of the random ranking of the images.
      folds: k ≥ 2 divides the images into k parts, of which one is held out; 0: `num_images` are held out.
      fold: the index of that part, 0 … k - 1.
    """

    num_images: int = 0
    seed: int = 0
    folds: int = 0
    fold: int = 0

    def __post_init__(self):
        if self.folds == 1:
            raise UserError("folds=1: expected 0, which switches folds off, or at least 2")
        if self.folds and self.num_images:
            raise UserError(
                f"folds={self.folds} and holdout={self.num_images} exclude each other: both say which images form the split "
                f"{HOLDOUT!r}; set one of them to 0"
            )
        if self.fold and not self.folds:
            raise UserError(f"fold={self.fold} applies only to folds: set folds=K to their number, or leave fold=0")
        if self.folds and self.fold >= self.folds:
            raise UserError(f"fold={self.fold}: expected 0 … {self.folds - 1}, because folds={self.folds}")

    @property
    def is_empty(self) -> bool:
        """Return whether all images stay in the training split."""
        return not (self.num_images or self.folds)

    def draw(self, num_images: int) -> tuple[list[int], list[int]]:
        """Return the indices to train on and those to hold out, each ascending, for a split of `num_images`.

        Raises:
          UserError: if there are too few images.
        """
        if self.folds:
            return draw_fold(num_images, self.folds, self.fold, self.seed)
        return draw_holdout(num_images, self.num_images, self.seed)


class Subset:
    """Some records of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source, self.indices = source, tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[self.indices[index]]

    def __repr__(self) -> str:  # Grain puts this into its messages
        return f"Subset({len(self)} of {self._source!r})"


class FileSubset(Subset):
    """Some records of a source that reads the user's files."""

    def __init__(self, source: FileSource, indices: Sequence[int]):
        super().__init__(source, indices)
        self._file_source = source
        self.remarks = source.remarks

    def fingerprint(self) -> list[str]:
        """Describe the files of each record in one line that changes whenever a file does."""
        lines = self._file_source.fingerprint()
        return [lines[i] for i in self.indices]

    def location(self) -> str:
        """Describe where the files are, in a text that changes when they are moved."""
        return self._file_source.location()

    def place_of(self, index: int) -> str:
        """Return the path of a record's image, for messages, without reading it."""
        return self._file_source.place_of(self.indices[index])


def take(source: Source, indices: Sequence[int]) -> Subset:
    """Select records of a source. A selection from a `FileSource` is one as well."""
    return FileSubset(source, indices) if isinstance(source, FileSource) else Subset(source, indices)


def draw_holdout(num_images: int, num_holdout: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw the images to hold out; return the indices of the others and of these, each in ascending order.

    Raises:
      UserError: if no image would be left to train on.
    """
    if num_holdout >= num_images:
        raise UserError(
            f"holdout={num_holdout}: the training split has {num_images} images, and at least one must stay to "
            f"train on; take at most {num_images - 1}"
        )
    ranked = _rank(num_images, seed)
    return sorted(ranked[num_holdout:]), sorted(ranked[:num_holdout])


def draw_fold(num_images: int, folds: int, fold: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices outside of a fold and those in it, each in ascending order.

    Every image lies in exactly one fold, and the sizes of the folds differ by at most one. Fold 0 is what `draw_holdout` draws for
    as many images.

    Args:
      num_images: N, images of the training split.
      folds: k, their number.
      fold: 0 … k - 1.
      seed: of the ranking that is cut into folds.

    Raises:
      UserError: if a fold would be empty.
    """
    if folds > num_images:
        raise UserError(
            f"folds={folds}: the training split has {num_images} images, and each fold needs at least one; take at most "
            f"{num_images}"
        )
    ranked = _rank(num_images, seed)
    start, end = fold * num_images // folds, (fold + 1) * num_images // folds
    return sorted(ranked[:start] + ranked[end:]), sorted(ranked[start:end])


def _rank(num_images: int, seed: int) -> list[int]:
    """Order the indices randomly.

    Chosen: images are ranked by a hash of seed and index, so that the draw is the same on every machine and with every version
    of NumPy.
    """
    return sorted(range(num_images), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def lost_classes(whole: DatasetReport, kept: Sequence[int]) -> list[int]:
    """Return the classes that the whole training split shows, but none of the images that are kept in it.

    Args:
      whole: the report of the whole split. Without the contents of its images, as earlier versions wrote it, the answer is empty.
      kept: the indices that stay in the training split.
    """
    if len(whole.contents) != whole.num_images:
        return []
    chosen = np.array(kept)
    shown = images_of_classes(whole.contents, len(whole.pixels))
    return [i for i, images in enumerate(shown) if len(images) and not np.isin(images, chosen).any()]
