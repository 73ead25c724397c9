"""Read every image and label of a split before anything depends on them: what is in them, and what is wrong."""

import dataclasses
import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pipeline import THREADS, ordered_map
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Survey:
    """What a split holds.

    Attributes:
      num_images: pairs without a problem.
      pixels: (C,) labelled pixels of each class.
      images: (C,) images that show it.
      num_void: void pixels.
      sizes: smallest and largest (height, width), by area; None without images.
      problems: a message per pair that cannot be used.
    """

    num_images: int
    pixels: np.ndarray
    images: np.ndarray
    num_void: int
    sizes: tuple[tuple[int, int], tuple[int, int]] | None
    problems: list[str]

    def table(self, label_space: LabelSpace) -> str:
        """Lay out the classes with their share of pixels and of images, for a terminal."""
        total = max(int(self.pixels.sum()), 1)
        width = max(map(len, label_space.names))
        lines = [f"{'value':>5}  {'class':<{width}}  {'pixels':>8}  {'images':>7}"]
        for name, value, pixels, images in zip(
            label_space.names, label_space.file_ids, self.pixels, self.images, strict=True
        ):
            lines.append(f"{value:>5}  {name:<{width}}  {pixels / total:>8.2%}  {images:>7}")
        lines.append(
            f"{self.num_images} images; {self.num_void / max(total + self.num_void, 1):.2%} of all pixels are void"
        )
        if self.sizes:
            smallest, largest = (f"{width} × {height}" for height, width in self.sizes)
            lines.append(f"sizes (width × height) from {smallest} to {largest}")
        return "\n".join(lines)


def survey(source: Source, label_space: LabelSpace, what: str) -> Survey:
    """Decode every pair of a split, on all cores; problems are collected, not raised."""
    pixels = np.zeros(label_space.num_classes, np.int64)
    images = np.zeros(label_space.num_classes, np.int64)
    num_void, sizes, problems = 0, [], []

    def read(index: int) -> tuple[np.ndarray, tuple[int, int]] | str:
        try:
            label = decode_pair(source[index], label_space).label
        except UserError as error:
            return str(error)
        return np.bincount(label.ravel(), minlength=256), label.shape

    # A bar on a terminal only; in a log file it would be noise.
    for result in tqdm(
        ordered_map(read, range(len(source)), THREADS), what, len(source), unit=" images", disable=None, leave=False
    ):
        if isinstance(result, str):
            problems.append(result)
            continue
        counts, size = result
        pixels += counts[: label_space.num_classes]
        images += counts[: label_space.num_classes] > 0
        num_void += int(counts[VOID])
        sizes.append(size)
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return Survey(len(sizes), pixels, images, num_void, (by_area[0], by_area[-1]) if by_area else None, problems)


def check_once(source: Source, label_space: LabelSpace, what: str) -> None:
    """Survey a split of files and raise at its first problem; files that passed before and did not change are not read.

    A source without a `fingerprint` (one that this package prepared, and checked then) is trusted.

    Raises:
      UserError: with the first problem, and how many more there are.
    """
    if not hasattr(source, "fingerprint"):
        return
    state = "\n".join([*source.fingerprint(), repr((label_space.file_ids, label_space.void_file_id))])
    mark = _cache_dir() / hashlib.sha256(state.encode()).hexdigest()
    if mark.exists():
        return
    log.info("reading all %d pairs of %s once, to find bad files before they cost time", len(source), what)
    problems = survey(source, label_space, what).problems
    if problems:
        others = (
            f" (and {len(problems) - 1} more problems: --mode=validate lists them all)" if len(problems) > 1 else ""
        )
        raise UserError(problems[0] + others)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        log.info("%s cannot be written: the files will be checked again next time", mark.parent)


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pyrseg_jax" / "checked"
