"""The class of every pixel by the classes that can win, against interpolating all classes at all pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrseg_jax.conventions import VOID
from pyrseg_jax.evaluation import winners
from pyrseg_jax.evaluation.analysis import PaddedTruth
from pyrseg_jax.evaluation.padding import pad_view
from pyrseg_jax.evaluation.pixel_counts import count_all_classes, count_pixels
from pyrseg_jax.evaluation.pixels import PIXELS_AT_A_TIME
from pyrseg_jax.evaluation.predict import fuse_pyramids
from pyrseg_jax.models.resample import interpolate_at

NUM_CLASSES = 12  # more than `winners.CANDIDATES`
POSITIONS, PIXELS = 5096, 1 << 16  # of a map: more than are compared at a time, and no multiple of it


def note(found, pixels, classes, counted):
    """Write the class + 1 of each counted pixel; twice the same pixel adds up, and so differs from the twin."""
    return found.at[jnp.where(counted, pixels, len(found))].add(classes + 1, mode="drop")


@jax.jit
def by_winners(cells, rows, grid, size):
    first = jnp.int32(0)
    leaders = winners.leaders_of(cells, first, jnp.int32(len(cells)), len(cells))
    interpolated = winners.Map(
        grid,
        winners.patches_of_cells(cells, leaders, first, rows, grid),
        lambda at, classes: cells[rows[at][:, None], classes],
        lambda at: cells[rows[at]],
    )
    return winners.count_classes(jnp.zeros(PIXELS, jnp.int32), interpolated, size, PIXELS, note)


@jax.jit
def by_all_classes(cells, rows, grid, size):
    def fill(i, found):  # in pieces, as `pixel_counts.count_all_classes` does: XLA may round another loop differently
        pixels = i * PIXELS_AT_A_TIME + jnp.arange(PIXELS_AT_A_TIME)
        classes = interpolate_at(lambda at: cells[rows[at]], grid, pixels, size).argmax(-1)
        piece = jnp.where(pixels < size[0] * size[1], classes + 1, 0)
        return jax.lax.dynamic_update_slice(found, piece, (i * PIXELS_AT_A_TIME,))

    return jax.lax.fori_loop(0, PIXELS // PIXELS_AT_A_TIME, fill, jnp.zeros(PIXELS, jnp.int32))


@jax.jit
def of_classes_by_winners(classes, grid, size):
    interpolated = winners.Map(
        grid,
        winners.patches_of_classes(classes, NUM_CLASSES, grid),
        lambda at, some: (classes[at][:, None] == some).astype(jnp.float32),
        lambda at: jax.nn.one_hot(classes[at], NUM_CLASSES),
    )
    return winners.count_classes(jnp.zeros(PIXELS, jnp.int32), interpolated, size, PIXELS, note)


def softmax(logits):
    return np.array(jax.nn.softmax(logits), np.float32)


def noise(rng):
    return softmax(rng.normal(0, 1, (POSITIONS, NUM_CLASSES)))


def confident(rng):
    return softmax(
        9 * np.eye(NUM_CLASSES)[rng.integers(0, 4, POSITIONS)] + rng.normal(0, 0.3, (POSITIONS, NUM_CLASSES))
    )


def ties(rng):
    return (rng.integers(0, 3, (POSITIONS, NUM_CLASSES)) / 4).astype(np.float32)


def leads_by_rounding(rng):
    return np.float32(0.5) + (rng.integers(-2, 3, (POSITIONS, NUM_CLASSES)) * 6e-8).astype(np.float32)


def constant(rng):
    return np.full((POSITIONS, NUM_CLASSES), rng.random(), np.float32)


def not_a_number(rng):
    cells = confident(rng)
    cells[rng.integers(0, POSITIONS, 40), rng.integers(0, NUM_CLASSES, 40)] = np.nan
    return cells


CELLS = (noise, confident, ties, leads_by_rounding, constant, not_a_number)
sides = st.integers(1, 71)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CELLS), st.tuples(sides, sides), st.tuples(*[st.integers(1, 256)] * 2), st.integers(0, 99))
def test_every_pixel_has_the_class_of_the_argmax_of_all(make, grid, size, seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(POSITIONS) if seed % 2 else np.arange(POSITIONS)
    arguments = make(rng), rows.astype(np.int32), np.array(grid, np.int32), np.array(size, np.int32)
    np.testing.assert_array_equal(by_winners(*arguments), by_all_classes(*arguments))


@settings(max_examples=15, deadline=None)
@given(st.tuples(sides, sides), st.tuples(*[st.integers(1, 256)] * 2), st.integers(0, 99))
def test_a_map_of_classes_has_those_of_its_one_hot_vectors(grid, size, seed):
    rng = np.random.default_rng(seed)
    classes = rng.choice([0, 1, 2, 11, VOID], POSITIONS).astype(np.int32)
    sizes = np.array(grid, np.int32), np.array(size, np.int32)
    one_hot = np.asarray(jax.nn.one_hot(classes, NUM_CLASSES))
    expected = by_all_classes(one_hot, np.arange(POSITIONS, dtype=np.int32), *sizes)
    np.testing.assert_array_equal(of_classes_by_winners(classes, *sizes), expected)


def test_few_classes_remain_where_the_network_is_sure(rng):
    """A class is interpolated only if it can win: at a border of two confident classes, these two."""
    cells = np.full((64, NUM_CLASSES), 0.01, np.float32)
    cells[:, 3], cells[:, 7] = (np.where(np.arange(64) % 8 < 4, high, low) for high, low in ((0.8, 0.1), (0.1, 0.8)))
    grid, first, rows = jnp.array([8, 8]), jnp.int32(0), jnp.arange(64, dtype=jnp.int32)
    leaders = winners.leaders_of(jnp.asarray(cells), first, jnp.int32(64), 64)
    patches = jax.tree.map(np.asarray, winners.patches_of_cells(jnp.asarray(cells), leaders, first, rows, grid))
    winner = patches.winner.reshape(8, 8)
    assert (winner[:, :3] == 3).all()
    assert (winner[:, 4:] == 7).all()
    assert (np.sort(-1 - winner[:, 3]) == np.arange(8)).all()
    assert {frozenset(row) for row in patches.candidates[:8].tolist()} == {frozenset({3, 7})}


@pytest.fixture(scope="module")
def batch():
    """Return views of two images with four levels, a truth, labels, pixels near boundaries, and sizes."""
    rng = np.random.default_rng(0)
    sides = [(2 << i, 3 << i) for i in range(4)]
    probs = [jax.nn.softmax(rng.normal(0, 2, (2, *side, NUM_CLASSES))) for side in sides]
    unity = [jnp.asarray(rng.random((2, *side))) for side in sides[:-1]]
    view = pad_view(fuse_pyramids(probs, unity, 0.5), jnp.zeros(2, bool))
    positions, cells = 16 * 24, sum(height * width for height, width in sides)
    chosen = np.zeros(view.chosen.shape, np.int32)
    chosen[:, :positions] = rng.integers(0, cells, (2, positions))
    truth = PaddedTruth(chosen, rng.integers(0, NUM_CLASSES, chosen.shape).astype(np.int32))
    labels = rng.choice([*range(NUM_CLASSES), VOID], (2, PIXELS)).astype(np.uint8)
    sizes = np.array([[70, 101], [61, 93]], np.int32)
    return jax.tree.map(jnp.asarray, ([view], truth, labels, rng.random((2, PIXELS)) < 0.3, sizes))


@pytest.mark.parametrize("temperatures", [(), ((1.0,) * 4, (2.0, 1.5, 1.0, 0.5))])
def test_counts_equal_those_of_all_classes(batch, temperatures):
    """Each matrix of the analysis, and the counts of each image; with confidences, too."""
    found, expected = (
        jax.jit(count, static_argnames="temperatures")(*batch, temperatures=temperatures)
        for count in (count_pixels, count_all_classes)
    )
    assert found[0].keys() == expected[0].keys()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(np.asarray(counts).any() for counts in found[0].values())
