"""Plain vision transformers in the sizes S, B and L, as DINOv2 and DINOv3 published them.

All blocks have the same width and work on one token for each patch of 16 × 16 pixels. `necks.RescaleDepths` makes stages of four
strides of that.

Source: Dosovitskiy et al. 2021, "An image is worth 16x16 words"; Oquab et al. 2023, "DINOv2"; Darcet et al. 2023, "Vision
  transformers need registers"; Siméoni et al. 2025, "DINOv3". The sizes are those of the publishers' code.
"""

import functools
import re
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.backbones.positions import fit_positions
from pyrseg_jax.models.backbones.rotary import rotary_tables, rotate
from pyrseg_jax.models.blocks import apply_each_block
from pyrseg_jax.models.necks import RescaleDepths
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.token_layers import (
    LayerScale,
    Mlp,
    add_branch,
    attend,
    dense,
    draw_factors,
    drop_path_rates,
    layer_norm,
    token_init,
)
from pyrseg_jax.models.weights.vit_layout import VIT_IMPORTERS

STRIDE = 16  # side of the part of an image that belongs to one token, in pixels
MLP_RATIO = 4
# Source: the release of DINOv2, whose models have it at the start of their training.
SCALE_INIT = 1e-5
# Number of blocks → the blocks after which the four maps are taken.
# Source: the heads for dense prediction in DINOv2's release (`linear4` and `dpt`).
DEPTHS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23)}

_BLOCK = re.compile(r"block_(\d+)")


class Attention(nn.Module):
    """Attention of all tokens to all tokens: (N, T, C) → (N, T, C).

    Attributes:
      num_heads: heads, each with C / num_heads channels.
      rotary_grid: number of patches along each axis, which are the last tokens; None: queries and keys are not turned.
      dtype: number format of the computation.

    Queries and values have a bias. Keys have none with rotary positions, where the publisher multiplies theirs by 0.
    """

    num_heads: int
    rotary_grid: tuple[int, int] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        n, t, c = x.shape
        query, key, value = (
            dense(c, self.dtype, name, has_bias)(x).reshape(n, t, self.num_heads, -1)
            for name, has_bias in (("query", True), ("key", self.rotary_grid is None), ("value", True))
        )
        if self.rotary_grid is not None:
            h, w = self.rotary_grid
            tables = rotary_tables((h, w), t - h * w, c // self.num_heads)
            query, key = rotate(query, tables), rotate(key, tables)
        return dense(c, self.dtype, "out")(attend(query, key, value).reshape(n, t, c))


class Block(nn.Module):
    """A block of a transformer: attention and an MLP, each behind a normalization and before a layer scale.

    Attributes:
      num_heads, rotary_grid: of the attention.
      epsilon: of the normalizations.
      dtype: number format of the computation.
    """

    num_heads: int
    rotary_grid: tuple[int, int] | None = None
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"], train: bool, factors: Float[Array, "2 n"] | None = None
    ) -> Float[Array, "n t c"]:
        """Apply the block; the factors are those of drop path, for the attention and for the MLP."""
        of_attention, of_mlp = (None, None) if factors is None else factors
        y = layer_norm(self.dtype, "norm1", self.epsilon)(x)
        y = Attention(self.num_heads, self.rotary_grid, self.dtype, name="attn")(y)
        x = add_branch(x, LayerScale(SCALE_INIT, name="scale1")(y), of_attention)
        y = layer_norm(self.dtype, "norm2", self.epsilon)(x)
        y = Mlp(MLP_RATIO * x.shape[-1], dtype=self.dtype, name="mlp")(y)
        return add_branch(x, LayerScale(SCALE_INIT, name="scale2")(y), of_mlp)


class ViT(nn.Module):
    """A plain vision transformer: images (N, H, W, 3), H and W multiples of 16 → `Features` of four maps (N, H/16, W/16, C).

    The maps are the tokens of the patches after four of the blocks, each through the network's last normalization:
    `get_intermediate_layers` of the publishers' code, `forward_intermediates` with norm=True of timm, and the feature maps of the
    backbone classes of transformers. The final map is the last of them.

    Before the patches, there are a class token and the register tokens, which only the attention reads.

    Attributes:
      width: C, channels of a token.
      num_heads: heads of the attention.
      num_blocks: number of blocks.
      depths: indices of the blocks after which the maps are taken.
      patch: side of the kernel that makes a token of a patch, in pixels.
      registers: number of register tokens.
      side: patches along each axis of the grid on which positions are learned; None: rotary positions.
      antialias: how learned positions are interpolated, see `positions.bicubic_weights`.
      epsilon: of the normalizations.
      drop_path: rate at which training leaves out the last block; that of the first is 0.
      dtype: number format of the computation; parameters are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.

    Chosen: a kernel of 14 × 14 pixels reads an image that is resampled to 14/16 of its size, so that each token covers 16 × 16
      pixels and the pyramid's strides fit. Kernel and positions stay as published. The resampling is bilinear with half-pixel
      centers and without antialiasing: at 7/8 of the size, antialiasing would widen the kernel from 2 to 2.3 pixels.
    Chosen: the position of the class token is a parameter without registers, and part of the class token with them, as in timm's
      files. Both are only ever used as their sum.
    Chosen: positions are interpolated as transformers does it: without antialiasing for DINOv2, with it for DINOv2 with registers.
      DINOv2's own code does the latter as well, and scales the former by a size that is 0.1 patches larger (its
      `interpolate_offset`). timm always antialiases. We measured how far these are from ours, from 37 × 37 to 32 × 32 positions
      (images of 512 × 512 pixels), as the norm of the difference over the norm. With independent random positions, DINOv2's code is
      16 % away and timm 23 %; with random positions that a Gaussian of 2 patches smooths, 3.3 % and 2.2 %.
    """

    width: int
    num_heads: int
    num_blocks: int = 12
    depths: Sequence[int] = DEPTHS[12]
    patch: int = 14
    registers: int = 0
    side: int | None = 37
    antialias: bool = False
    epsilon: float = 1e-6
    drop_path: float = 0.1
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Features:
        n, height, width, _ = images.shape
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"images of {height} × {width} px: expected multiples of {STRIDE} px, the side of a patch; choose such a size"
            )
        grid = (height // STRIDE, width // STRIDE)
        make = functools.partial(Block, self.num_heads, grid if self.side is None else None, self.epsilon, self.dtype)
        names = [f"block_{i}" for i in range(self.num_blocks)]
        factors = draw_factors(self, drop_path_rates(self.drop_path, self.num_blocks), n, train, branches=2)
        x = self._tokens(images, grid)
        rows = apply_each_block(self, make, names, x, train, self.remat, each=factors)
        norm = layer_norm(self.dtype, "norm", self.epsilon)
        maps = [norm(rows[i][:, 1 + self.registers :]).reshape(n, *grid, self.width) for i in self.depths]
        return Features(tuple(maps), maps[-1])

    def _tokens(self, images: Float[Array, "n h w _"], grid: tuple[int, int]) -> Float[Array, "n t c"]:
        """Return the class token, the register tokens, and a token for each patch."""
        n, width = images.shape[0], self.width
        if self.patch != STRIDE:
            images = resize(images, (grid[0] * self.patch, grid[1] * self.patch), "half_pixel")
        sides = (self.patch, self.patch)
        embed = nn.Conv(
            width, sides, sides, padding="VALID", dtype=self.dtype, kernel_init=token_init, name="patch_embed"
        )
        patches = embed(images.astype(self.dtype))
        first = self.param("class_token", token_init, (1, width))
        if self.side is not None:
            if not self.registers:
                first = first + self.param("class_position", token_init, (1, width))
            positions = jnp.asarray(self.param("positions", token_init, (self.side, self.side, width)))
            patches = patches + fit_positions(positions, grid, self.antialias).astype(self.dtype)
        if self.registers:
            first = jnp.concatenate([first, self.param("register_tokens", token_init, (self.registers, width))])
        first = jnp.broadcast_to(first.astype(self.dtype), (n, *first.shape))
        return jnp.concatenate([first, patches.reshape(n, -1, width)], axis=1)


def depth_of(path: tuple[str, ...], num_blocks: int) -> int:
    """Return the layer that a parameter belongs to: 0 for patches, tokens and positions, then the blocks, then the last norm.

    Source: the layer-wise learning rates of BEiT, which mmsegmentation takes for plain transformers.
    """
    if match := _BLOCK.fullmatch(path[0]):
        return int(match[1]) + 1
    return num_blocks + 1 if path[0] == "norm" else 0


# Rates of drop path: those with which mmsegmentation trains BEiT and MAE of the sizes B and L with UperNet; S has that of B. The
# publishers of DINO keep the backbone frozen when they segment.
dinov2_s = functools.partial(ViT, width=384, num_heads=6)
dinov2_b = functools.partial(ViT, width=768, num_heads=12)
dinov2_l = functools.partial(ViT, width=1024, num_heads=16, num_blocks=24, depths=DEPTHS[24], drop_path=0.2)
vit_micro = functools.partial(ViT, width=16, num_heads=2, num_blocks=4, depths=(0, 1, 2, 3), side=4)

_REGISTERS = {"registers": 4, "antialias": True}
_DINOV3 = {"patch": 16, "registers": 4, "side": None, "epsilon": 1e-5}
dinov3_micro = functools.partial(vit_micro, **_DINOV3 | {"registers": 2})

_WORDS = {"s": "ViT-S", "b": "ViT-B", "l": "ViT-L"}
_SIZES = {"s": dinov2_s, "b": dinov2_b, "l": dinov2_l}


def _spec(make: functools.partial, meaning: str) -> BackboneSpec:
    num_blocks = make.keywords.get("num_blocks", 12)
    return BackboneSpec(
        make,
        output_stride=4,
        auxiliary=AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1),
        first_stride=4,
        make_neck=RescaleDepths,
        depth_of=functools.partial(depth_of, num_blocks=num_blocks),
        importers=VIT_IMPORTERS,
        meaning=meaning,
    )


VIT: dict[str, BackboneSpec] = {
    **{f"dinov2_{size}": _spec(make, f"{_WORDS[size]}/14 of DINOv2") for size, make in _SIZES.items()},
    **{
        f"dinov2_{size}_reg": _spec(
            functools.partial(make, **_REGISTERS), f"{_WORDS[size]}/14 of DINOv2 with 4 register tokens"
        )
        for size, make in _SIZES.items()
    },
    **{
        f"dinov3_{size}": _spec(
            functools.partial(make, **_DINOV3), f"{_WORDS[size]}/16 of DINOv3, with rotary positions"
        )
        for size, make in _SIZES.items()
    },
    "vit_micro": _spec(vit_micro, "a ViT like DINOv2's, 16 channels: for tests"),
    "dinov3_micro": _spec(dinov3_micro, "a ViT like DINOv3's, 16 channels: for tests"),
}
