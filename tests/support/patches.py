"""A backbone that traces and compiles quickly, for tests of what does not depend on the backbone."""

import flax.linen as nn
import jax.numpy as jnp

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.layers import ConvNormAct, average_levels


class Patches(nn.Module):
    """A backbone of three convolutions.

    Its coarser stages are positions of the first one. A gate decides before and after the last convolution.
    """

    @nn.compact
    def __call__(self, images, train, gate=None):
        half = ConvNormAct(16, 3, 2)(images, train)
        quarter = ConvNormAct(16, 3, 2)(half, train)
        stages = average_levels(quarter, 4)[::-1]
        last = ConvNormAct(24, 3, dtype=jnp.float32)
        if gate is None:
            return Features(stages, last(quarter, train), half)
        first = gate(1, quarter, None, train)
        final = last(quarter * first.is_open[..., None], train, first.is_open)
        second = gate(2, final, first.is_open, train)
        return Features(stages, final * second.is_open[..., None], half, cuts=(first, second))
