"""Swin Transformers (Liu et al., ICCV 2021): attention inside of windows, which every second block shifts.

The module names say what a layer does: `stage3_block_4/attn/qkv` is `layers.2.blocks.4.attn.qkv` in the authors' files.
`weights/swin_layout.py` knows the names of all publishers.
"""

import functools
import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Not `from … import MergeStages`: that file imports from this package, so its names may not exist yet.
from pyrseg_jax.models import necks
from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.backbones.swin_windows import (
    Windows,
    from_windows,
    pad_to_multiple,
    plan_windows,
    relative_index,
    to_windows,
)
from pyrseg_jax.models.blocks import apply_blocks
from pyrseg_jax.models.token_layers import (
    Mlp,
    add_branch,
    attend,
    dense,
    draw_factors,
    drop_path_rates,
    layer_norm,
    token_init,
)
from pyrseg_jax.models.weights.swin_layout import SWIN_IMPORTERS

PATCH_PX = 4  # side of the patch that becomes the first position
MLP_RATIO = 4
LAYER_NORM_EPSILON = 1e-5  # of all publishers
# Source: the configs of the authors and of mmsegmentation for UperNet on ADE20K, from Swin-T to Swin-L.
DROP_PATH = 0.3
# On the third stage, as in mmsegmentation's and the authors' networks.
AUXILIARY = AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1)


class WindowAttention(nn.Module):
    """Attention inside of windows, with a learned bias for each relative position: (N, h, w, C) → (N, h, w, C).

    Padded positions are keys like all others, as in the publishers' networks: their features are 0, and their keys the bias.

    Attributes:
      num_heads: heads; C is a multiple of it.
      window, is_shifted, splits_single: as in `plan_windows`.
      dtype: number format of the computation.
      table_init: initializer of the table of relative positions.

    Differs: timm rolls the map first and pads it then, unlike the authors' code for segmentation, mmsegmentation, torchvision and
      transformers. Its results are the same where every map is a multiple of the window.
    """

    num_heads: int
    window: int
    is_shifted: bool
    splits_single: bool = False
    dtype: DTypeLike = jnp.float32
    table_init: Callable = token_init

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        height, width, channels = x.shape[1:]
        plan = plan_windows(height, width, self.window, self.is_shifted, self.splits_single)
        x = jnp.roll(pad_to_multiple(x, self.window), (-plan.shift[0], -plan.shift[1]), (1, 2))
        size = x.shape[1], x.shape[2]
        x = to_windows(x, self.window)
        projected = dense(3 * channels, self.dtype, "qkv")(x)
        projected = projected.reshape(*x.shape[:3], 3, self.num_heads, channels // self.num_heads)
        query, key, value = (projected[..., i, :, :] for i in range(3))
        # All images have the same bias: `vmap` adds it without a copy for each.
        attended = jax.vmap(attend, (0, 0, 0, None))(query, key, value, self._bias(plan))
        x = from_windows(dense(channels, self.dtype, "proj")(attended.reshape(x.shape)), size)
        return jnp.roll(x, plan.shift, (1, 2))[:, :height, :width]

    def _bias(self, plan: Windows) -> Float[Array, "_ heads t t"]:
        """Return what is added to the energies, for each window or for all of them."""
        table = self.param("table", self.table_init, ((2 * self.window - 1) ** 2, self.num_heads))
        bias = jnp.asarray(table, jnp.float32)[relative_index(self.window)].transpose(2, 0, 1)[None]
        return bias + plan.energies()[:, None] if any(plan.shift) else bias


class SwinBlock(nn.Module):
    """Attention inside of windows and an MLP, each after a normalization and beside the identity: (N, h, w, C) → (N, h, w, C).

    Attributes: as in `WindowAttention`.
    """

    num_heads: int
    window: int
    is_shifted: bool
    splits_single: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, factors: Float[Array, "2 n"] | None = None
    ) -> Float[Array, "n h w c"]:
        of_attention, of_mlp = (None, None) if factors is None else factors
        attention = WindowAttention(
            self.num_heads, self.window, self.is_shifted, self.splits_single, self.dtype, name="attn"
        )
        x = add_branch(x, attention(layer_norm(self.dtype, "norm1", LAYER_NORM_EPSILON)(x)), of_attention)
        mlp = Mlp(MLP_RATIO * x.shape[-1], dtype=self.dtype, name="mlp")
        return add_branch(x, mlp(layer_norm(self.dtype, "norm2", LAYER_NORM_EPSILON)(x)), of_mlp)


class PatchMerging(nn.Module):
    """Join 2×2 positions to one of twice the channels: (N, h, w, C) → (N, ⌈h/2⌉, ⌈w/2⌉, 2C).

    The four stand column by column, as in all files but mmsegmentation's: upper left, lower left, upper right, lower right.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ 2*c"]:
        x = pad_to_multiple(x, 2)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5).reshape(n, h // 2, w // 2, 4 * c)
        return dense(2 * c, self.dtype, "reduction", use_bias=False)(
            layer_norm(self.dtype, "norm", LAYER_NORM_EPSILON)(x)
        )


class SwinTransformer(nn.Module):
    """A Swin Transformer as a feature extractor: images (N, H, W, 3) → `Features`.

    The stages have strides of 4, 8, 16 and 32 pixels and 1, 2, 4 and 8 · width channels. They are the outputs of the last blocks,
    not normalized, as timm's `features_only` and transformers' `reshaped_hidden_states` give them. mmsegmentation's class also
    normalizes each; here the neck does so. The final map is the last stage: the neck makes one of stride 4.

    Attributes:
      width: channels of the first stage.
      num_blocks: blocks of each of the four stages. Every second one shifts its windows.
      num_heads: heads of the blocks of each stage.
      window: side of a window, in positions.
      drop_path: share of images for which training leaves out a branch of the last block; it falls to 0 at the first block.
      splits_single: whether windows are shifted also along an axis that a single window covers.
      dtype: number format of the computation; parameters are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.

    Source: Liu et al. 2021, Sec. 3.
    Chosen: where a single window covers an axis of a map, nothing is shifted along it, as in torchvision, in timm, and in the
      networks for ImageNet. A shift would only keep many pairs of positions from seeing each other. The authors' code for
      segmentation, mmsegmentation, and transformers' `SwinBackbone` shift all the same: `splits_single`. That matters for images of
      at most 32 · window pixels, 224 for windows of 7.
    """

    width: int = 96
    num_blocks: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 7
    drop_path: float = DROP_PATH
    splits_single: bool = False
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    def __post_init__(self):
        """Raise ValueError, naming the attribute, for a rate that cannot be."""
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}: expected a share from 0 to less than 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Features:
        patch = (PATCH_PX, PATCH_PX)
        x = pad_to_multiple(images.astype(self.dtype), PATCH_PX)
        x = nn.Conv(self.width, patch, patch, "VALID", dtype=self.dtype, kernel_init=token_init, name="embed")(x)
        x = layer_norm(self.dtype, "embed_norm", LAYER_NORM_EPSILON)(x)
        rates = drop_path_rates(self.drop_path, sum(self.num_blocks))
        factors = iter(draw_factors(self, rates, images.shape[0], train, branches=2))
        stages = []
        for stage, (count, heads) in enumerate(zip(self.num_blocks, self.num_heads, strict=True), 1):
            if stage > 1:
                x = PatchMerging(self.dtype, name=f"merge_{stage}")(x)
            for k in range(count):
                # Blocks that shift and blocks that do not alternate. Each kind is traced once for a stage.
                make = functools.partial(SwinBlock, heads, self.window, k % 2 == 1, self.splits_single, self.dtype)
                x = apply_blocks(self, make, [f"stage{stage}_block_{k}"], x, train, self.remat, next(factors))
            stages.append(x)
        return Features(tuple(stages), x)


_BLOCK = re.compile(r"stage(\d)_block_(\d+)")
_MERGE = re.compile(r"merge_(\d)")


def depth_of(path: tuple[str, ...], num_blocks: Sequence[int]) -> int:
    """Return the number of the layer that a parameter belongs to: 0 for the patches, and 1, 2, … for the blocks.

    Joining patches belongs to the block before it.

    Args:
      path: of the parameter, inside of the module.
      num_blocks: blocks of each stage.

    Source: the authors' layer numbers for fine-tuning with learning rates that decay layer by layer (SimMIM).
    """
    if block := _BLOCK.fullmatch(path[0]):
        return sum(num_blocks[: int(block[1]) - 1]) + int(block[2]) + 1
    merge = _MERGE.fullmatch(path[0])
    return sum(num_blocks[: int(merge[1]) - 1]) if merge else 0


def _spec(meaning: str, **sizes) -> BackboneSpec:
    """Return the spec of a member of the family, of these sizes."""
    make = functools.partial(SwinTransformer, **sizes)
    return BackboneSpec(
        make,
        output_stride=4,
        auxiliary=AUXILIARY,
        first_stride=4,
        make_neck=lambda **options: necks.MergeStages(epsilon=LAYER_NORM_EPSILON, **options),
        depth_of=functools.partial(depth_of, num_blocks=make.keywords.get("num_blocks", SwinTransformer.num_blocks)),
        importers=SWIN_IMPORTERS,
        meaning=meaning,
    )


_B = {"width": 128, "num_blocks": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
_L = {"width": 192, "num_blocks": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}
SWIN: dict[str, BackboneSpec] = {
    "swin_t": _spec("Swin-T, windows of 7"),
    "swin_s": _spec("Swin-S, windows of 7", num_blocks=(2, 2, 18, 2)),
    "swin_b": _spec("Swin-B, windows of 7", **_B),
    "swin_l": _spec("Swin-L, windows of 7", **_L),
    "swin_b_384": _spec("Swin-B, windows of 12, as in the files for images of 384 px", **_B, window=12),
    "swin_l_384": _spec("Swin-L, windows of 12, as in the files for images of 384 px", **_L, window=12),
    "swin_micro": _spec(
        "every kind of a Swin Transformer's layers, 8 channels: for tests",
        width=8,
        num_blocks=(2, 1, 2, 1),
        num_heads=(1, 2, 2, 4),
        window=3,
        drop_path=0.1,
    ),
}
