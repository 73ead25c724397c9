"""Hold random images out of the training split: the paper's ablations train on 16K images of ADE20K and score the other 4K."""

import hashlib
from collections.abc import Sequence

from pyrseg_jax.data.source import FileSource, Record, Source
from pyrseg_jax.errors import UserError

HOLDOUT = "holdout"  # name of the split


class Subset:
    """Some records of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source, self._indices = source, tuple(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._indices[index]]

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
        return [lines[i] for i in self._indices]

    def location(self) -> str:
        """Describe where the files are, in a text that changes when they are moved."""
        return self._file_source.location()

    def place_of(self, index: int) -> str:
        """Return the path of a record's image, for messages, without reading it."""
        return self._file_source.place_of(self._indices[index])


def take(source: Source, indices: Sequence[int]) -> Subset:
    """Select records of a source. A selection from a `FileSource` is one as well."""
    return FileSubset(source, indices) if isinstance(source, FileSource) else Subset(source, indices)


def draw_holdout(num_images: int, num_holdout: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw the images to hold out; return the indices of the others and of these, each in ascending order.

    Chosen: images are ranked by a hash of seed and index, so that the draw is the same on every machine and with every version
    of NumPy.

    Raises:
      UserError: if no image would be left to train on.
    """
    if num_holdout >= num_images:
        raise UserError(
            f"holdout={num_holdout}: the training split has {num_images} images, and at least one must stay to "
            f"train on; take at most {num_images - 1}"
        )
    ranked = sorted(range(num_images), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    return sorted(ranked[num_holdout:]), sorted(ranked[:num_holdout])
