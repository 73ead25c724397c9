"""Print a dataset report as a table."""

import numpy as np

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.report import DatasetReport


def table(found: DatasetReport, label_space: LabelSpace) -> str:
    """Format a report as a table of classes, followed by sizes, void and cells.

    The columns of a class are: its value in label files; stuff or thing; its share of the labeled pixels; the number of images
    that show it; and, for each level, the share of its pixels that lie in unit-cells, which is what this level could decide.
    """
    total = max(int(found.pixels.sum()), 1)
    width = max(map(len, (*label_space.names, "class")))
    levels = "".join(f"  {f'unit {stride}':>8}" for stride in found.strides)
    lines = [f"{'value':>5}  {'class':<{width}}  {'kind':<5}  {'pixels':>8}  {'images':>7}{levels}"]
    for i, (name, value) in enumerate(zip(label_space.names, label_space.file_ids, strict=True)):
        kind = "–" if label_space.is_stuff is None else "stuff" if label_space.is_stuff[i] else "thing"
        shares = "".join(f"  {_share(unit[i], found.cell_pixels[i]):>8}" for unit in found.unit_pixels)
        pixels, images = _share(found.pixels[i], total), found.images[i]
        lines.append(f"{value:>5}  {name:<{width}}  {kind:<5}  {pixels:>8}  {images:>7}{shares}")
    return "\n".join([*lines, *_totals(found)])


def _totals(found: DatasetReport) -> list[str]:
    num_pixels = int(found.pixels.sum()) + found.num_void
    lines = [f"{found.num_images} images; {_share(found.num_void, num_pixels)} of all pixels are void"]
    if found.sizes:
        by_area = sorted(found.sizes.elements(), key=lambda size: size[0] * size[1])
        smallest, median, largest = (f"{w} × {h}" for h, w in (by_area[0], by_area[len(by_area) // 2], by_area[-1]))
        sizes = f"{len(found.sizes)} size{'s' if len(found.sizes) > 1 else ''}"
        lines.append(f"{sizes} (width × height): from {smallest} to {largest}, median {median}")
    shares = ", ".join(
        f"{_share(unit, unit + mixed)} at stride {stride}" for stride, (unit, mixed) in zip(found.strides, found.cells)
    )
    lines.append(f"unit-cells among the cells with a labeled pixel: {shares}")
    return lines


def _share(part: int | np.integer, whole: int | np.integer) -> str:
    return f"{part / whole:.2%}" if whole else "–"
