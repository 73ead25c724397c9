"""Comparisons of trees of arrays."""

import jax
import numpy as np


def assert_trees_equal(found, expected) -> None:
    """Assert that two trees of arrays have the same structure and, to the bit, the same arrays; and that there are some."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.leaves(found)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
