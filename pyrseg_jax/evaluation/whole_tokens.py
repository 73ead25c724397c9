"""Collect the tokens of a whole image from its windows, so that every window is predicted with the same ones."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Real

from pyrseg_jax.evaluation.grid import Grid
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.layers import bin_weights
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.models.tokens import COLLECTED, GIVEN, Sampled

Tree = Any  # nested dicts by the names of modules


def sampled_maps(model: Segmenter, variables: dict, images: Real[Array, "n h w c"]) -> Tree:
    """Run the network and return the maps that it takes tokens from, as a tree of `Sampled`; {} if it has no tokens."""
    _, state = model.apply(variables, normalize(images), False, mutable=[COLLECTED])
    return state.get(COLLECTED, {})


def with_tokens(variables: dict, tokens: Tree) -> dict:
    """Return variables with which the network uses these tokens instead of its own; `tokens`: {} changes nothing."""
    return {**variables, GIVEN: tokens} if tokens else variables


class TokenSums:
    """Average the maps of all windows over the bins of the whole image, as if it were one map.

    Where windows overlap, their maps are averaged with the weights of the grid.

    Args:
      rows, columns: where the windows lie.
    """

    def __init__(self, rows: Grid, columns: Grid):
        self._rows, self._columns = rows, columns
        self._sums: Tree = None

    def add(self, top: int, left: int, maps: Tree) -> None:
        """Add a window.

        Args:
          top, left: its first cells.
          maps: what `sampled_maps` returns for it, as a batch of one.
        """
        parts = jax.tree.map(lambda one: self._part(top, left, one), maps, is_leaf=_is_sampled)
        self._sums = parts if self._sums is None else jax.tree.map(np.add, self._sums, parts)

    def tokens(self) -> Tree:
        """Return the tokens (1, S, C) by the names under which modules read them."""
        return self._sums or {}

    def _part(self, top: int, left: int, sampled: Sampled) -> Float[np.ndarray, "1 s c"]:
        values = np.asarray(sampled.map[0], np.float32)
        tokens = []
        for bins in sampled.sizes:
            rows = _weights(self._rows, top, values.shape[0], bins)
            columns = _weights(self._columns, left, values.shape[1], bins)
            # Two products: NumPy would add up a product of three in one slow loop.
            strips = np.tensordot(rows, values, 1)
            tokens.append(np.tensordot(strips, columns, (1, 1)).transpose(0, 2, 1).reshape(bins * bins, -1))
        return np.concatenate(tokens)[None]


def _is_sampled(node: object) -> bool:
    return isinstance(node, Sampled)


def _weights(grid: Grid, start: int, positions: int, bins: int) -> Float[np.ndarray, "{bins} {positions}"]:
    """Return how much each position of a window counts in each bin of a side of the whole image.

    Args:
      grid: where windows lie along the side.
      start: the first cell of the window.
      positions: of the map, which spread over the window.
      bins: along the side.
    """
    cells = grid.window // positions  # of a position
    share = grid.weights(start) / grid.total()[start : start + grid.window]
    first = start // cells
    bin_of = bin_weights(grid.length // cells, bins)[:, first : first + positions]
    return bin_of * share.reshape(positions, cells).mean(1)
