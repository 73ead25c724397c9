"""Tokens that summarize a whole image: the averages of its maps over a few bins, which every position attends to.

A large image is predicted in windows. By itself, each window would have the tokens of its own part of the image, so the labels of
a pixel would depend on where the windows lie. So the maps of all windows are collected first, and then each window is given the
tokens of the whole image.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import PYRAMID_SAMPLING_SIZES, pyramid_sampling

GIVEN = "tokens"  # the collection of variables that holds given tokens
COLLECTED = (
    "intermediates"  # the collection that takes the sampled maps; Flax does not make it part of a network's variables
)


@flax.struct.dataclass
class Sampled:
    """A map that tokens were taken from.

    Attributes:
      map: (N, h, w, C).
      sizes: bins per side.
    """

    map: Any
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False, default=PYRAMID_SAMPLING_SIZES)


def sample_tokens(
    module: nn.Module, name: str, x: Float[Array, "n h w c"], sizes: Sequence[int] = PYRAMID_SAMPLING_SIZES
) -> Float[Array, "n s c"]:
    """Return the tokens of a map as `pyramid_sampling` does, or those that the caller of the network gives instead.

    Args:
      module: the module that reads the tokens; call this inside of its compact method.
      name: tells the tokens of this module apart.
      x: the map.
      sizes: bins per side.
    """
    sampled = Sampled(x, tuple(sizes))
    module.sow(COLLECTED, name, sampled, reduce_fn=lambda _, new: new, init_fn=lambda: sampled)
    if module.has_variable(GIVEN, name):
        tokens = module.get_variable(GIVEN, name)
        return jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:])).astype(x.dtype)
    return pyramid_sampling(x, sizes)
