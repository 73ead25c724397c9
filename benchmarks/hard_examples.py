"""Time the selection of hard examples (`training/losses/hard_examples.py`) against a selection by sorting.

    python benchmarks/hard_examples.py [--full]

Prints the milliseconds of both and their ratio, measured in turn in one run, for the probabilities of a batch at the size of its
label maps: 4 × 512 × 512, or with --full, for an accelerator, 16 × 512 × 512.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turn, ready

from pyrseg_jax.training import losses

ROUNDS = 11


def by_sort(probs, is_cared, k):
    """Return the k-th smallest probability among the positions that count."""
    ranked = jnp.sort(jnp.where(is_cared, probs, jnp.inf).ravel())
    return ranked[jnp.minimum(k, is_cared.sum()) - 1]


def main():
    """Check that both give the same result, and time them."""
    shape = (16, 512, 512) if "--full" in sys.argv else (4, 512, 512)
    rng = np.random.default_rng(0)
    probs = jnp.asarray(rng.random(shape), jnp.float32)
    is_cared = jnp.asarray(rng.random(shape) < 0.9)
    k = probs.size // 8
    ways = {"ours": losses.kth_smallest, "by sorting": by_sort}
    runs = {name: ready(jax.jit(way, static_argnums=2), probs, is_cared, k) for name, way in ways.items()}
    ours, plain = (1e3 * seconds for seconds in in_turn(runs, ROUNDS).values())
    assert losses.kth_smallest(probs, is_cared, k) == by_sort(probs, is_cared, k)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {shape}")
    print(f"k-th smallest of {probs.size}: ours {ours:.1f} ms, by sorting {plain:.1f} ms, ratio {plain / ours:.2f}")


if __name__ == "__main__":
    main()
