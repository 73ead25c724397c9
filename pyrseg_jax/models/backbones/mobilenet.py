"""MobileNetV3 (Howard et al., ICCV 2019) as a feature extractor: small networks for phones and browsers.

The blocks are numbered as in torchvision: our `block_3` is `features.4` there, whose `features.0` is the stem.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.backbones.mobilenet_plans import LARGE, MICRO, SMALL, BlockPlan, Plan, squeezed
from pyrseg_jax.models.blocks import apply_each_block
from pyrseg_jax.models.layers import biased_conv, conv, hidden_init, linear_init
from pyrseg_jax.models.necks import MergeStages
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.token_layers import add_branch, draw_factors, drop_path_rates
from pyrseg_jax.models.weights.mobilenet_layout import EPSILON, BlockNames, make_importers

OUTPUT_STRIDE = 4
# On C4, as on the other backbones here; no network was published with one.
AUXILIARY = AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1)
# Channels of each stage in the final map.
# Chosen: a quarter of the other backbones', so that the heads do not take most of the time.
NECK_WIDTH = 32

ACTIVATIONS: dict[str, Callable] = {"relu": nn.relu, "hard_swish": jax.nn.hard_swish}


class ConvNorm(nn.Module):
    """Convolution, batch normalization and an activation: (N, H, W, C) → (N, H/stride, W/stride, features).

    Attributes:
      act: one of `ACTIVATIONS`; None: no activation.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n _ _ f"]:
        x = conv(self.features, self.kernel, self.stride, groups=self.groups, dtype=self.dtype, name="conv")(x)
        x = BatchNorm(self.act == "relu", self.dtype, epsilon=EPSILON, name="bn")(x, train)
        return x if self.act in (None, "relu") else ACTIVATIONS[self.act](x)


class SqueezeExcite(nn.Module):
    """Multiply each channel by a factor in 0 … 1 that depends on the averages of all channels.

    Source: Hu et al. 2018, "Squeeze-and-excitation networks"; MobileNetV3, Sec. 5.3, which takes the hard sigmoid.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        width = x.shape[-1]
        means = x.mean((1, 2), keepdims=True)
        hidden = biased_conv(squeezed(width), kernel_init=hidden_init, dtype=self.dtype, name="reduce")(means)
        factors = biased_conv(width, kernel_init=linear_init, dtype=self.dtype, name="restore")(nn.relu(hidden))
        return x * jax.nn.hard_sigmoid(factors)


class InvertedResidual(nn.Module):
    """A block that expands the channels, filters each of them on its own, and projects to few channels again.

    The input is added where it has the result's shape. A block that does not expand lacks the first convolution.

    Attributes:
      plan: the block's sizes.
      dtype: number format of the computation.
    """

    plan: BlockPlan
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, factors: Float[Array, "1 n"] | None = None
    ) -> Float[Array, "n _ _ d"]:
        """Return the block's result; `factors` are those of drop path, see `token_layers.draw_factors`."""
        plan, y = self.plan, x
        if plan.expanded != x.shape[-1]:
            y = ConvNorm(plan.expanded, act=plan.act, dtype=self.dtype, name="expand")(y, train)
        depthwise = ConvNorm(
            plan.expanded, plan.kernel, plan.stride, plan.expanded, plan.act, self.dtype, name="depthwise"
        )
        y = depthwise(y, train)
        if plan.has_squeeze:
            y = SqueezeExcite(self.dtype, name="squeeze")(y)
        y = ConvNorm(plan.features, dtype=self.dtype, name="project")(y, train)
        if x.shape != y.shape:
            return y
        return add_branch(x, y, None if factors is None else factors[0])


class MobileNetV3(nn.Module):
    """A MobileNetV3 as a feature extractor: images (N, H, W, 3) → `Features`.

    The stages are C2 … C5 with strides 4, 8, 16 and 32: the maps before the size is halved again, and the last convolution's. They
    are those of timm with `features_only`, without its first, which is `Features.stem` here, and have 24, 40, 112 and 960 channels
    in the large network and 16, 24, 48 and 576 in the small one.

    Attributes:
      plan: the network's sizes.
      drop_path: the rate of drop path at the last block.
      dtype: number format of the computation; parameters and batch statistics are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.

    Source: Tables 1 and 2 of the paper; padding and epsilon as in torchvision's `mobilenet_v3_large`.
    Chosen: C5 is the map of the 1×1 convolution to 960 or 576 channels, which classification averages. timm's features and
      torchvision's networks for segmentation include it, too. The layers after the average are ImageNet's classifier.
    Chosen: no drop path by default, as in torchvision's recipe; timm's uses a rate of 0.2.
    """

    plan: Plan = LARGE
    drop_path: float = 0.0
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Features:
        stem = ConvNorm(self.plan.stem, 3, 2, act="hard_swish", dtype=self.dtype, name="stem")
        x = stem(images.astype(self.dtype), train)
        blocks, before_halving = self.plan.blocks, []
        factors = draw_factors(self, drop_path_rates(self.drop_path, len(blocks)), images.shape[0], train)
        # Blocks of equal sizes run in groups, so that each is traced once.
        for numbers in _equal_blocks(self.plan):
            plan = blocks[numbers[0]]
            if plan.stride == 2:
                before_halving.append(x)
            block = functools.partial(InvertedResidual, plan, self.dtype)
            names, each = [f"block_{i}" for i in numbers], [factors[i] for i in numbers]
            x = apply_each_block(self, block, names, x, train, self.remat, each=each)[-1]
        before_halving.append(x)
        final = ConvNorm(self.plan.last, act="hard_swish", dtype=self.dtype, name="last")(x, train)
        return Features((*before_halving[1:4], final), final, before_halving[0])


def _equal_blocks(plan: Plan) -> list[list[int]]:
    """Return the numbers of the blocks in rows: those of a row have the same sizes, that of their input included."""
    rows = itertools.groupby(range(len(plan.blocks)), lambda i: (plan.blocks[i], plan.widths[i]))
    return [list(row) for _, row in rows]


def depth_of(path: Sequence[str], num_blocks: int) -> int:
    """Return the number of a parameter's layer: 0 for the stem, then one for each block, and one for the last convolution.

    Chosen: no recipe with rates by layer was published for this family.
    """
    part = path[0]
    if part == "stem":
        return 0
    return num_blocks + 1 if part == "last" else int(part.removeprefix("block_")) + 1


def _spec(plan: Plan, meaning: str) -> BackboneSpec:
    widths = iter(plan.widths)
    names = [
        BlockNames(group, k, block.expanded != next(widths), block.has_squeeze)
        for group, blocks in enumerate(plan.groups)
        for k, block in enumerate(blocks)
    ]
    return BackboneSpec(
        functools.partial(MobileNetV3, plan),
        OUTPUT_STRIDE,
        AUXILIARY,
        first_stride=OUTPUT_STRIDE,
        # Each stage but the last ends with normalizations whose results are added up, the last with one and an activation.
        make_neck=functools.partial(MergeStages, is_normalized=True, width=NECK_WIDTH),
        depth_of=functools.partial(depth_of, num_blocks=len(plan.blocks)),
        importers=make_importers(names),
        meaning=meaning,
    )


MOBILENET: dict[str, BackboneSpec] = {
    "mobilenetv3_l": _spec(LARGE, "MobileNetV3-Large, for phones and browsers"),
    "mobilenetv3_s": _spec(SMALL, "MobileNetV3-Small, the fastest of the published networks here"),
    "mobilenetv3_micro": _spec(MICRO, "every kind of a MobileNetV3's layers, 8 channels: for tests"),
}
