"""CPNet, context prior (Yu et al. 2020), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.affinity import affinity_loss
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, drop_channels, hidden_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

KERNEL = 11  # length of the one-dimensional kernels that aggregate the map


class CPNet(nn.Module):
    """Collect, for every position, the features of its own class and those of other classes, by a learned prior.

    The prior is a number 0 … 1 for every position and every position of the training map: whether both have one class.

    Attributes:
      width: channels inside and of the output (N, h, w, width).
      map_px: side of the training map, so that the prior has map_px² channels.

    Source: Yu et al. 2020; the public code of ContextPrior.
    Chosen: on maps of another size than the training map, the aggregated map is resampled to the training map's size (bilinear,
      half-pixel) where the prior's columns read it. The release accepts no other size and tests by windows.
    """

    width: int
    map_px: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        value = Aggregation(self.width, self.dtype, name="aggregation")(features.final, train)
        n, h, w, _ = value.shape
        prior = ConvNormAct(self.map_px**2, is_active=False, dtype=self.dtype, name="prior")(value, train)
        sampled = resize(value, (self.map_px, self.map_px), "half_pixel").reshape(n, -1, self.width)
        weights = nn.sigmoid(prior.reshape(n, h * w, -1).astype(jnp.float32)).astype(sampled.dtype)
        same = jnp.matmul(weights, sampled, preferred_element_type=jnp.float32) / self.map_px**2
        # (1 - P) V = Σ V - P V, so that the product with the complement of the prior is free.
        other = sampled.astype(jnp.float32).mean(1, keepdims=True) - same
        contexts = [
            ConvNormAct(self.width, dtype=self.dtype, name=name)(y.reshape(n, h, w, -1), train)
            for name, y in (("intra", same), ("inter", other))
        ]
        joined = jnp.concatenate([features.final, *contexts], axis=-1)
        merged = ConvNormAct(self.width, 3, dtype=self.dtype, name="merge")(joined, train)
        return ContextMap(drop_channels(merged, 0.1, train), outputs={"prior": prior})


class Aggregation(nn.Module):
    """Aggregate each channel over an 11×11 neighborhood by two pairs of one-dimensional kernels, after a 3×3 convolution.

    Attributes:
      width: channels of the output (N, h, w, width).
      kernel: length of the kernels, odd.

    Source: Yu et al. 2020, Sec. 3.3; the public code of ContextPrior.
    """

    width: int
    dtype: DTypeLike = jnp.float32
    kernel: int = KERNEL

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(x, train)
        down, across = (self.kernel, 1), (1, self.kernel)
        first = self._convolve(self._convolve(x, down, "first_1"), across, "first_2")
        second = self._convolve(self._convolve(x, across, "second_1"), down, "second_2")
        return BatchNorm(is_active=True, dtype=self.dtype, name="norm")(first + second, train)

    def _convolve(self, x: Array, size: tuple[int, int], name: str) -> Array:
        """Convolve each channel by itself, with a bias, and keep the size."""
        pads = [(side // 2, side // 2) for side in size]
        layer = nn.Conv(
            self.width,
            size,
            padding=pads,
            feature_group_count=self.width,
            conv_general_dilated=convolve_depthwise,
            kernel_init=hidden_init,
            dtype=self.dtype,
            name=name,
        )
        return layer(x)


SPECS = {
    "cpnet": ContextSpec(
        make_pooled(lambda s: CPNet(s.width, s.map_px, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"affinity": ContextLoss(1.0, affinity_loss)},
        meaning="context prior with affinity loss (Yu et al. 2020)",
    ),
}
