"""A network in the style of ACNet (Fu et al. 2019): each position takes global and local context by its own demand."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextMap, ContextSpec, Logits, enlarge, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels, hidden_init

DETAIL_SHARE = 4  # the finer map of a block is reduced to 1/4 of the block's channels
DROPOUT = 0.1
EPSILON = 1e-6


class ACNet(nn.Module):
    """Four adaptive context blocks, coarse → fine; each joins the next finer map: C4, C3, C2, and the stem's map at stride 2.

    Attributes:
      num_classes: C.
      width: twice the number of the blocks' channels.
      resize: convention for enlarging maps.
      classifies: whether to return class logits (N, H/2, W/2, C).

    The features are the map of the last block, averaged to stride 4.

    Source: Fu et al. 2019, its abstract: the similarity of a position's features to the global feature says how much of the global
      context it demands, and its reverse how much of the local one; several such blocks follow each other, coarse → fine, from the
      output stride 16 to 2.
    Chosen: everything else, since the paper's code is not public. The network is in the style of ACNet, and not ACNet. The global
      feature is the mean over positions. The demand for global context is exp(-(d - min d) / (max d - min d)), with the Euclidean
      distance d between a position's feature and the global one; the demand for local context is 1 minus that. The global part is a
      1×1 convolution and a ReLU of the global feature. The local part is a 3×3 convolution of the block's map joined with the finer
      map, which a 1×1 convolution reduces to a quarter of the channels. Both, weighted, are added to the block's map, and a 3×3
      convolution follows. There are four blocks of width/2 channels, dropout of 0.1 before the classifier, and the auxiliary
      classifier of the other methods.
    Chosen: on HRNets the blocks join the branches and the first convolution's map. The pyramid's heads read the averaged features.
    """

    num_classes: int
    width: int = 512
    resize: str = "half_pixel"
    classifies: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        assert features.stem is not None, "a backbone with a stage of stride 4 has a map of stride 2 before it"
        width = max(self.width // 2, 1)
        *finer, coarsest = (features.stem, *features.stages)
        x = ConvNormAct(width, dtype=self.dtype, name="reduce")(coarsest, train)
        for i, detail in enumerate(reversed(finer), 1):
            x = AdaptiveContext(width, self.resize, self.dtype, name=f"block_{i}")(x, detail, train)
        quarter = average_to(x, features.stages[0])
        if not self.classifies:
            return ContextMap(quarter)
        logits = biased_conv(self.num_classes, dtype=self.dtype, name="classify")(drop_channels(x, DROPOUT, train))
        return ContextMap(quarter, logits)


class AdaptiveContext(nn.Module):
    """Bring a map to the size of a finer one, and add global and local context to each position by its demand.

    Attributes:
      width: channels of the map and of the result.
      resize: convention for enlarging the map.
    """

    width: int
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w {self.width}"], finer: Float[Array, "n H W _"], train: bool
    ) -> Float[Array, "n H W {self.width}"]:
        x = enlarge(x, finer, self.resize)
        mean = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        demand = global_demand(x, mean).astype(self.dtype)
        # Without a normalization: over the single position of a single image, it would leave nothing.
        layer = biased_conv(self.width, kernel_init=hidden_init, dtype=self.dtype, name="global")
        shared = nn.relu(layer(mean.astype(self.dtype)))
        detail = ConvNormAct(max(self.width // DETAIL_SHARE, 1), dtype=self.dtype, name="detail")(finer, train)
        local = ConvNormAct(self.width, 3, dtype=self.dtype, name="local")(jnp.concatenate((x, detail), -1), train)
        x = x + demand * shared + (1 - demand) * local
        return ConvNormAct(self.width, 3, dtype=self.dtype, name="out")(x, train)


def global_demand(x: Float[Array, "n h w c"], mean: Float[Array, "n 1 1 c"]) -> Float[Array, "n h w 1"]:
    """Return each position's demand for global context in float32: 1 at the one nearest to the mean, 1/e at the farthest."""
    squares = jnp.square(x.astype(jnp.float32) - mean).sum(-1, keepdims=True)
    distance = jnp.sqrt(squares + EPSILON)  # the gradient of a root is infinite at 0
    lowest, highest = distance.min((1, 2), keepdims=True), distance.max((1, 2), keepdims=True)
    return jnp.exp(-(distance - lowest) / jnp.maximum(highest - lowest, EPSILON))


def average_to(x: Array, like: Array) -> Array:
    """Average a map over cells of 2 × 2 positions to the size of another one, which has half of its sides."""
    height, width = like.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, 2 * height - x.shape[1]), (0, 2 * width - x.shape[2]), (0, 0)), mode="edge")
    return nn.avg_pool(x, (2, 2), (2, 2))


SPECS = {
    "acnet": ContextSpec(
        make_pooled(lambda s: ACNet(s.num_classes, s.width, s.resize, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        classifies=True,
        logits_stride=2,
        has_resize=True,
        meaning="ACNet-style adaptive context blocks (after Fu et al. 2019)",
    ),
}
