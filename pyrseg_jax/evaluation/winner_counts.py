"""Count the pixels of an evaluation on a CPU, where only classes that can win are interpolated; see `winners`."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt

from pyrseg_jax.conventions import void_of
from pyrseg_jax.evaluation.analysis import PaddedTruth
from pyrseg_jax.evaluation.padding import PaddedView
from pyrseg_jax.evaluation.pixels import count_pairs, first_row_of_level, grid_of_level, level_of_pixels
from pyrseg_jax.evaluation.winners import Map, count_classes, leaders_of, patches_of_cells, patches_of_classes
from pyrseg_jax.models.resample import Index


class _Task(NamedTuple):
    """A map of an image, and where its pixels are counted.

    rows: (P,) the row of the image's cells at each position; grid: height and width.
    group: (3,) the pixels go to matrix group[0] + group[1] · level + group[2] · is_near_boundary.
    """

    rows: Array
    grid: Array
    group: Array


def count_winners(
    view: PaddedView,
    truth: PaddedTruth | None,
    labels: UInt[Array, "n a"],
    is_near_boundary: Bool[Array, "n a"],
    sizes: Int32[Array, "n 2"],
) -> tuple[dict[str, Int32[Array, "..."]], Int32[Array, "n c 3"]]:
    """Return what `pixel_counts.count_pixels` does for a single view that is not mirrored, without confidences."""
    num_images, num_rows, num_classes = view.cells.shape
    num_levels = view.level_counts.shape[-1]
    shapes = {"fused": (2, num_levels)}
    if truth is not None:
        shapes |= {"alone": (num_levels, num_levels), "oracle": (2,)}
    sides = (num_classes, num_classes)
    ends = [0]
    for shape in shapes.values():
        ends.append(ends[-1] + functools.reduce(int.__mul__, shape))
    cells = view.cells.reshape(-1, num_classes)  # a loop over images would copy the cells of each

    def count_image(before: Array, image: tuple) -> tuple[Array, Array]:
        number, view, truth, labels, is_near, size = image
        first = number * num_rows
        num_used = jnp.asarray(first_row_of_level(view, num_levels, num_levels))
        leaders = leaders_of(cells, first, num_used, num_rows)

        def add(group: Array, counts: Array, pixels: Index, classes: Index, counted: Array) -> Array:
            true = jnp.where(counted, _take(labels, pixels), void_of(labels.dtype)).astype(jnp.int32)
            level = level_of_pixels(view, jnp.where(counted, pixels, 0), size)
            at = group[0] + group[1] * level + group[2] * _take(is_near, pixels)
            return count_pairs(counts, at, true=true, predicted=classes)

        def count_map(counts: Array, task: _Task) -> tuple[Array, None]:
            rows, grid, group = task
            interpolated = Map(
                grid,
                patches_of_cells(cells, leaders, first, rows, grid),
                lambda at, classes: cells.at[first + rows[at][:, None], classes].get(mode="clip"),
                lambda at: _take(cells, first + rows[at]),
            )
            return count_classes(counts, interpolated, size, len(labels), functools.partial(add, group)), None

        tasks = _tasks(view, truth, num_levels, ends)
        after, _ = jax.lax.scan(count_map, before, tasks)
        confusion = (after[: ends[1]] - before[: ends[1]]).sum(0)
        if truth is not None:
            semantic = _map_of_classes(truth.classes, view.grid, num_classes)
            group = jnp.array([ends[2] + 1, 0, 0])
            after = count_classes(after, semantic, size, len(labels), functools.partial(add, group))
        return after, jnp.stack([jnp.diagonal(confusion), confusion.sum(0), confusion.sum(1)], axis=-1)

    rest = dataclasses.replace(view, cells=jnp.zeros((num_images, 0)))
    images = jnp.arange(num_images, dtype=jnp.int32), rest, truth, labels, is_near_boundary, sizes
    counts, of_images = jax.lax.scan(count_image, jnp.zeros((ends[-1], *sides), jnp.int32), images)
    found = {
        name: counts[start:end].reshape(*shape, *sides)
        for (name, shape), start, end in zip(shapes.items(), ends, ends[1:], strict=False)
    }
    return found, of_images


def _tasks(view: PaddedView, truth: PaddedTruth | None, num_levels: int, ends: list[int]) -> _Task:
    """Return the maps of an image whose values are its cells: fused, each level alone, and fused by the true unity pyramid."""
    tasks = [_Task(view.chosen, view.grid, jnp.array([0, 1, num_levels]))]
    if truth is not None:
        position = jnp.arange(len(view.chosen), dtype=jnp.int32)
        for i in range(num_levels):
            rows, grid = first_row_of_level(view, num_levels, i) + position, grid_of_level(view, num_levels, i)
            tasks.append(_Task(rows, grid, jnp.array([ends[1] + i * num_levels, 1, 0])))
        tasks.append(_Task(truth.chosen, view.grid, jnp.array([ends[2], 0, 0])))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)


def _map_of_classes(classes: Int32[Array, "p"], grid: Array, num_classes: int) -> Map:
    """Return a map with probability 1 for the class of each position."""

    def of_classes(at: Index, candidates: Array) -> Array:
        return (classes[at][:, None] == candidates).astype(jnp.float32)

    def of_all(at: Index) -> Array:
        return jax.nn.one_hot(classes[at], num_classes)

    return Map(grid, patches_of_classes(classes, num_classes, grid), of_classes, of_all)


def _take(values: Array, at: Array) -> Array:
    return values.at[at].get(mode="clip", wrap_negative_indices=False)
