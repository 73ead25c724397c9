"""Take images out of the training split at random: the paper's ablations train on 16K images of ADE20K and score 4K."""

import hashlib
from collections.abc import Sequence

from pyrseg_jax.data.source import Record, Source
from pyrseg_jax.errors import UserError

HOLDOUT = "holdout"


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
    """The same of a source that knows its files."""

    def fingerprint(self) -> list[str]:
        """Describe the files of these records such that any change of one shows."""
        lines = self._source.fingerprint()  # one per record
        return [lines[i] for i in self._indices]


def take(source: Source, indices: Sequence[int]) -> Subset:
    """Select records of a source; one that can be asked for its files still can."""
    return (FileSubset if hasattr(source, "fingerprint") else Subset)(source, indices)


def draw_holdout(num_images: int, num_holdout: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw which images are held out; returns (the others, these), each in ascending order.

    Chosen: ranked by a hash of seed and index, so that the draw is the same on every machine and with every version of NumPy.

    Raises:
      UserError: if none would be left to train on.
    """
    if num_holdout >= num_images:
        raise UserError(
            f"config.data.holdout={num_holdout}: the training split has {num_images} images, and at least one must stay to "
            f"train on; take at most {num_images - 1}"
        )
    ranked = sorted(range(num_images), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    return sorted(ranked[num_holdout:]), sorted(ranked[:num_holdout])
