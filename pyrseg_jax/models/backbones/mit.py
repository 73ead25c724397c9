"""MiT-B0 … B5, the encoder of SegFormer (Xie et al., NeurIPS 2021): a transformer in four stages without positions.

The module names mirror those of the published weights: `stage2_block_1/attn/query` is the query of `block2.1.attn` there.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.blocks import apply_blocks
from pyrseg_jax.models.layers import biased_conv, hidden_init
from pyrseg_jax.models.necks import MergeStages
from pyrseg_jax.models.token_layers import (
    DepthwiseConv,
    Factors,
    add_branch,
    attend,
    dense,
    draw_factors,
    drop_path_rates,
    layer_norm,
)
from pyrseg_jax.models.weights.mit_layout import MIT_IMPORTERS
from pyrseg_jax.models.xla_cpu import gelu

NUM_HEADS = (1, 2, 5, 8)  # of each stage; every head has `head_width` channels
REDUCTIONS = (8, 4, 2, 1)  # of each stage: positions along a side for each key and value
EMBEDDINGS = ((7, 4), (3, 2), (3, 2), (3, 2))  # kernel and stride of the convolution before each stage
EXPANSION = 4  # channels inside of the mix-FFN, as a multiple of the block's
LEAST_PX = 32  # side of the smallest image: smaller ones have no key
DROP_PATH = 0.1

# Publisher → epsilon of the layer normalizations in blocks and at the ends of stages, and of those after convolutions.
EPSILONS = {"nvidia": (1e-6, 1e-5), "mmsegmentation": (1e-6, 1e-6), "transformers": (1e-5, 1e-5)}


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values are made of a smaller map: (N, h, w, C) → (N, h, w, C).

    Attributes:
      num_heads: of the attention; C is a multiple of it.
      reduction: positions along a side for each key and value. Positions beyond the last whole cell have none.
      epsilon: of the layer normalization of the smaller map.
      dtype: number format of the computation.

    Source: Xie et al. 2021, Sec. 3.1, "Efficient Self-Attention"; a convolution reduces the map, as in the public code.
    """

    num_heads: int
    reduction: int
    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        source = x
        if self.reduction > 1:
            height, width = (side - side % self.reduction for side in (h, w))
            reduce = biased_conv(c, self.reduction, kernel_init=hidden_init, dtype=self.dtype, name="reduce")
            source = reduce(x[:, :height, :width])
            source = layer_norm(self.dtype, "reduce_norm", self.epsilon)(source)

        def project(y: Float[Array, "n _ _ c"], name: str) -> Float[Array, "n _ heads _"]:
            return dense(c, self.dtype, name)(y).reshape(n, -1, self.num_heads, c // self.num_heads)

        found = attend(project(x, "query"), project(source, "key"), project(source, "value"))
        return dense(c, self.dtype, "out")(found.reshape(n, h, w, c))


class MixMlp(nn.Module):
    """The mix-FFN, two dense layers with a 3×3 convolution of each channel between them: (N, h, w, C) → (N, h, w, C).

    The zeros that pad the convolution tell the network where the border is, so it needs no positions.

    Source: Xie et al. 2021, Sec. 3.1, "Mix-FFN", Eq. (3).
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        width = EXPANSION * x.shape[-1]
        hidden = dense(width, self.dtype, "fc1")(x)
        depthwise = DepthwiseConv(3, hidden_init, dtype=self.dtype, name="depthwise")
        return dense(x.shape[-1], self.dtype, "fc2")(gelu(depthwise(hidden)))


class Block(nn.Module):
    """A transformer's block of attention and mix-FFN, each with a normalization before it: (N, h, w, C) → (N, h, w, C).

    Attributes:
      num_heads, reduction: of the attention.
      epsilons: of the block's normalizations, and of that after the reduction.
      dtype: number format of the computation.
    """

    num_heads: int
    reduction: int
    epsilons: tuple[float, float]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, factors: Float[Array, "2 n"] | None = None
    ) -> Float[Array, "n h w c"]:
        own, of_reduction = self.epsilons
        of_attention: Factors = None if factors is None else factors[0]
        of_mlp: Factors = None if factors is None else factors[1]
        y = layer_norm(self.dtype, "norm1", own)(x)
        y = EfficientAttention(self.num_heads, self.reduction, of_reduction, self.dtype, name="attn")(y)
        x = add_branch(x, y, of_attention)
        y = layer_norm(self.dtype, "norm2", own)(x)
        return add_branch(x, MixMlp(self.dtype, name="mlp")(y), of_mlp)


class MiT(nn.Module):
    """A Mix Transformer: images (N, H, W, 3) → `Features`.

    The stages are the four maps that the publishers' networks return: after the last block of a stage and its layer normalization,
    with strides 4, 8, 16 and 32 and 1, 2, 5 and 8 times `head_width` channels. The final map is the last one.

    Attributes:
      num_blocks: blocks of each of the four stages.
      head_width: channels of a head of the attention.
      drop_path: rate of drop path of the last block, 0 … 1; that of the first is 0.
      epsilons: a key of `EPSILONS`. Weights load with any of them, and the features differ by some 1e-5.
      dtype: number format of the computation; parameters are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.

    Source: Xie et al. 2021, Table 6, and NVIDIA's code, whose rate of drop path is 0.1 for all members.
    Chosen: kernels of convolutions start with a standard deviation of √(2 / inputs of an output), like all convolutions here; the
      publisher divides by the number of outputs. A normalization follows those where the two differ.
    """

    num_blocks: Sequence[int] = (2, 2, 2, 2)
    head_width: int = 64
    drop_path: float = DROP_PATH
    epsilons: str = "nvidia"
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    def __post_init__(self):
        """Raise ValueError, naming the attribute, for a value that does not exist."""
        if self.epsilons not in EPSILONS:
            raise ValueError(f"epsilons={self.epsilons!r}: expected one of {', '.join(map(repr, EPSILONS))}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}: expected a rate of at least 0 and below 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Features:
        n, height, width, _ = images.shape
        if min(height, width) < LEAST_PX:
            raise ValueError(
                f"images of {height} × {width} pixels are too small for this backbone: both sides must have at least {LEAST_PX}"
            )
        rates = drop_path_rates(self.drop_path, sum(self.num_blocks))
        factors = draw_factors(self, rates, n, train, branches=2)
        x, stages = images.astype(self.dtype), []
        for stage, count in enumerate(self.num_blocks, 1):
            x = self._embed(stage, x)
            x = self._blocks(stage, count, x, train, factors[:count])
            factors = factors[count:]
            x = layer_norm(self.dtype, f"norm{stage}", EPSILONS[self.epsilons][0])(x)
            stages.append(x)
        return Features(tuple(stages), x)

    def _embed(self, stage: int, x: Float[Array, "n H W d"]) -> Float[Array, "n h w c"]:
        """Return the stage's first map, of overlapping patches of the map before."""
        (kernel, stride), pad = EMBEDDINGS[stage - 1], EMBEDDINGS[stage - 1][0] // 2
        project = nn.Conv(
            NUM_HEADS[stage - 1] * self.head_width,
            (kernel, kernel),
            (stride, stride),
            padding=((pad, pad), (pad, pad)),
            kernel_init=hidden_init,
            dtype=self.dtype,
            name=f"embed{stage}_proj",
        )
        return layer_norm(self.dtype, f"embed{stage}_norm", EPSILONS[self.epsilons][1])(project(x))

    def _blocks(
        self, stage: int, count: int, x: Float[Array, "n h w c"], train: bool, factors: Sequence[Any]
    ) -> Float[Array, "n h w c"]:
        make = functools.partial(
            Block, NUM_HEADS[stage - 1], REDUCTIONS[stage - 1], EPSILONS[self.epsilons], self.dtype
        )
        names = [f"stage{stage}_block_{k}" for k in range(count)]
        return apply_blocks(self, make, names, x, train, self.remat, each=factors)


_LAYER = re.compile(r"(?:embed|stage|norm)(\d)(?:_block_(\d+))?.*")


def depth_of(path: tuple[str, ...], num_blocks: Sequence[int]) -> int:
    """Return the number of the layer that a parameter belongs to; see `BackboneSpec.depth_of`.

    The first convolution is layer 0, and each block is a layer of its own. The convolution before a later stage belongs to that
    stage's first block, and the normalization at the end of a stage to its last one.

    Chosen: as the published recipes of other transformers number their blocks. SegFormer's own has one learning rate for all.
    """
    match = _LAYER.fullmatch(path[0])
    assert match is not None, path
    stage, before = int(match[1]), sum(num_blocks[: int(match[1]) - 1])
    if match[2] is not None:
        return before + int(match[2]) + 1
    if path[0].startswith("norm"):
        return before + num_blocks[stage - 1]
    return before + 1 if stage > 1 else 0


def _spec(num_blocks: tuple[int, ...], head_width: int, meaning: str) -> BackboneSpec:
    return BackboneSpec(
        functools.partial(MiT, num_blocks=num_blocks, head_width=head_width),
        output_stride=4,
        # The sizes of the other backbones; SegFormer's own networks have no auxiliary classifier.
        auxiliary=AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1),
        first_stride=4,
        make_neck=functools.partial(MergeStages, is_normalized=True),
        depth_of=functools.partial(depth_of, num_blocks=num_blocks),
        importers=MIT_IMPORTERS,
        meaning=meaning,
    )


MIT: dict[str, BackboneSpec] = {
    "mit_b0": _spec((2, 2, 2, 2), 32, "MiT-B0, SegFormer's smallest encoder"),
    "mit_b1": _spec((2, 2, 2, 2), 64, "MiT-B1, twice as wide as B0"),
    "mit_b2": _spec((3, 4, 6, 3), 64, "MiT-B2, with 16 blocks"),
    "mit_b3": _spec((3, 4, 18, 3), 64, "MiT-B3, with 28 blocks"),
    "mit_b4": _spec((3, 8, 27, 3), 64, "MiT-B4, with 41 blocks"),
    "mit_b5": _spec((3, 6, 40, 3), 64, "MiT-B5, SegFormer's largest encoder, with 52 blocks"),
    "mit_micro": _spec((1, 1, 1, 2), 4, "every kind of an MiT's layers, 4 channels to a head: for tests"),
}
