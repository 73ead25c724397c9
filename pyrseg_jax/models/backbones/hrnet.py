"""HRNetV2 (Wang et al., TPAMI 2019): four branches at strides 4, 8, 16, 32 that exchange features throughout.

The module names mirror those of the published weights: `stage3/module_1/branch_0_block_2/conv1` is
`stage3.1.branches.0.2.conv1` there.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.backbones.contract import Cut, Features, Gate
from pyrseg_jax.models.blocks import apply_blocks
from pyrseg_jax.models.layers import BasicBlock, Bottleneck, ConvNormAct, Mask
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.xla_cpu import add_relu

OUTPUT_STRIDE = 4

Branches = tuple[Float[Array, "n _ _ _"], ...]
# Positions that each branch computes, for all four branches; None: all positions.
Masks = tuple[Bool[Array, "n _ _"], ...] | None


class HRModule(nn.Module):
    """Blocks on each branch; then every branch becomes the sum of all branches, each brought to its size and width.

    A coarser branch is brought there by a 1×1 convolution and upsampling. A finer one takes 3×3 convolutions of stride 2, of which
    all but the last keep the finer branch's width and have a ReLU.

    Source: HRNetV2's exchange unit.
    """

    widths: Sequence[int]
    num_blocks: int
    resize: str
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    @nn.compact
    def __call__(self, branches: Branches, train: bool, masks: Masks = None) -> Branches:
        refined = []
        for i, x in enumerate(branches):
            block = functools.partial(BasicBlock, self.widths[i], dtype=self.dtype)
            names = [f"branch_{i}_block_{k}" for k in range(self.num_blocks)]
            refined.append(apply_blocks(self, block, names, x, train, self.remat, _mask(masks, i)))
        sums = []
        for target, same in enumerate(refined):
            size = same.shape[1:3]
            *terms, last = (self._bring(x, source, target, size, train, masks) for source, x in enumerate(refined))
            sums.append(add_relu(sum(terms), last))
        return tuple(sums)

    def _bring(self, x, source: int, target: int, size: tuple[int, int], train: bool, masks: Masks):
        layer = functools.partial(ConvNormAct, dtype=self.dtype)
        name = f"fuse_{target}_{source}"
        if source > target:
            x = layer(self.widths[target], is_active=False, name=name)(x, train, _mask(masks, source))
            return _leave_out(resize(x, size, self.resize), _mask(masks, target))
        for k in range(target - source):
            is_last = k == target - source - 1
            width = self.widths[target] if is_last else self.widths[source]
            x = layer(width, kernel=3, stride=2, is_active=not is_last, name=f"{name}_{k}")(
                x, train, _mask(masks, source + k + 1)
            )
        return x


class Stage(nn.Module):
    """A row of exchange units."""

    widths: Sequence[int]
    num_modules: int
    num_blocks: int
    resize: str
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    @nn.compact
    def __call__(self, branches: Branches, train: bool, masks: Masks = None) -> Branches:
        module = functools.partial(HRModule, self.widths, self.num_blocks, self.resize, self.dtype, remat=self.remat)
        # "full" recomputes one block at a time. Recomputing a whole exchange unit would need more memory than it saves.
        remat = "off" if self.remat == "full" else self.remat
        names = [f"module_{m}" for m in range(self.num_modules)]
        return apply_blocks(self, module, names, branches, train, remat, masks)


class HRNet(nn.Module):
    """HRNetV2 as a feature extractor: images (N, H, W, 3) → `Features`.

    The stages are the four branches of the last stage, at strides 4, 8, 16 and 32, with 1, 2, 4 and 8 · width channels. The final
    map (N, H/4, W/4, 15·width) joins them, upsampled to stride 4. The stem's map is that of its first convolution. A
    gate cuts after stages 2 and 3, where it reads their joined branches, see `contract.Cut`.

    Attributes:
      width: channels of the finest branch.
      num_modules: exchange units of stages 2, 3 and 4.
      num_blocks: basic blocks per branch in each of them.
      num_bottlenecks: blocks of stage 1.
      stem_width: channels of the two stride-2 convolutions at the input and of stage 1 (whose output has four times as many).
      resize: upsampling convention, see `resample.resize`. Published weights come with different ones.
      dtype: number format of the computation; parameters and batch statistics are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.
    """

    width: int
    num_modules: Sequence[int] = (1, 4, 3)
    num_blocks: int = 4
    num_bottlenecks: int = 4
    stem_width: int = 64
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False, gate: Gate | None = None) -> Features:
        layer = functools.partial(ConvNormAct, kernel=3, dtype=self.dtype)
        x = images.astype(self.dtype)
        stem = layer(self.stem_width, stride=2, name="stem1")(x, train)
        x = layer(self.stem_width, stride=2, name="stem2")(stem, train)
        bottleneck = functools.partial(Bottleneck, self.stem_width, dtype=self.dtype)
        first, *others = [f"stage1_block_{k}" for k in range(self.num_bottlenecks)]
        x = bottleneck(name=first)(x, train)  # apart from the others: its input has another number of channels
        if others:
            x = apply_blocks(self, bottleneck, others, x, train, self.remat)

        widths = tuple(self.width << i for i in range(4))
        branches = (
            layer(widths[0], name="transition1_0")(x, train),
            layer(widths[1], stride=2, name="transition1_1")(x, train),
        )
        cuts: list[Cut] = []
        masks = None
        for stage, num_modules in enumerate(self.num_modules, 2):
            if stage > 2:  # stage s has s branches: the new one starts from the coarsest so far
                new = layer(widths[stage - 1], stride=2, name=f"transition{stage - 1}_{stage - 1}")(
                    branches[-1], train, _mask(masks, stage - 1)
                )
                branches = (*branches, new)
            run = functools.partial(Stage, widths[:stage], num_modules, self.num_blocks, self.resize, self.dtype)
            branches = run(self.remat, name=f"stage{stage}")(branches, train, masks)
            if gate is not None and stage < 4:
                cuts.append(gate(len(cuts) + 1, self._join(branches), cuts[-1].is_open if cuts else None, train))
                masks = _masks_of_branches(cuts[-1].is_open)
                branches = tuple(_leave_out(x, mask) for x, mask in zip(branches, masks, strict=False))
        return Features(branches, self._join(branches), stem, cuts=tuple(cuts))

    def _join(self, branches: Branches) -> Float[Array, "n h w d"]:
        """Bring the branches to the size of the finest one, and concatenate their channels."""
        size = branches[0].shape[1:3]
        # The published networks upsample bilinearly here even when they use "nearest" inside their exchange units.
        convention = "half_pixel" if self.resize == "nearest" else self.resize
        return jnp.concatenate([resize(x, size, convention) for x in branches], axis=-1)


def _mask(masks: Masks, branch: int) -> Mask:
    return None if masks is None else masks[branch]


def _leave_out(x: Float[Array, "n h w c"], mask: Mask) -> Float[Array, "n h w c"]:
    return x if mask is None else jnp.where(mask[..., None], x, 0)


def _masks_of_branches(is_open: Bool[Array, "n h w"]) -> tuple[Bool[Array, "n _ _"], ...]:
    """Return the positions that each branch computes: those that cover an open position of the finest branch."""
    masks = [is_open]
    for _ in range(3):
        n, height, width = masks[-1].shape
        whole = jnp.pad(masks[-1], ((0, 0), (0, height % 2), (0, width % 2)))
        masks.append(whole.reshape(n, -(-height // 2), 2, -(-width // 2), 2).any((2, 4)))
    return tuple(masks)


hrnet_w18 = functools.partial(HRNet, width=18)
hrnet_w32 = functools.partial(HRNet, width=32)
hrnet_w48 = functools.partial(HRNet, width=48)
# For tests and trials on a laptop: every kind of layer once.
hrnet_tiny = functools.partial(HRNet, width=8, num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1)
# For training on two CPU cores. There, most of the time would go into the 64 channels of the published stem, which a network this
# narrow cannot use.
hrnet_small = functools.partial(HRNet, width=16, num_modules=(1, 1, 1), num_blocks=2, num_bottlenecks=1, stem_width=16)
