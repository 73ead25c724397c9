"""HRNetV2 (Wang et al., TPAMI 2019): four branches at strides 4, 8, 16, 32 that exchange features throughout.

The module names mirror those of the published weights: `stage3/module_1/branch_0_block_2/conv1` is
`stage3.1.branches.0.2.conv1` there.
"""

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.blocks import UNROLLED, Execution, run_in_a_row
from pyrseg_jax.models.layers import BasicBlock, Bottleneck, ConvNormAct, add_relu
from pyrseg_jax.models.resample import resize

OUTPUT_STRIDE = 4

Branches = tuple[Float[Array, "n _ _ _"], ...]


class HRModule(nn.Module):
    """Blocks on each branch, then every branch becomes the sum of all, each brought to its size and width.

    Source: HRNetV2's exchange unit. From a coarser branch: 1×1 convolution and upsampling. From a finer one: 3×3
    convolutions of stride 2; all but the last keep the finer branch's width and have a ReLU.
    """

    widths: Sequence[int]
    num_blocks: int
    resize: str
    dtype: DTypeLike = jnp.float32
    execution: Execution = UNROLLED

    @nn.compact
    def __call__(self, branches: Branches, train: bool) -> Branches:
        refined = []
        for i, x in enumerate(branches):
            block = functools.partial(BasicBlock, self.widths[i], dtype=self.dtype)
            names = [f"branch_{i}_block_{k}" for k in range(self.num_blocks)]
            refined.append(run_in_a_row(self, block, names, x, train, self.execution))
        sums = []
        for target, same in enumerate(refined):
            size = same.shape[1:3]
            *terms, last = (self._bring(x, source, target, size, train) for source, x in enumerate(refined))
            sums.append(add_relu(sum(terms), last))
        return tuple(sums)

    def _bring(self, x, source: int, target: int, size: tuple[int, int], train: bool):
        layer = functools.partial(ConvNormAct, dtype=self.dtype)
        name = f"fuse_{target}_{source}"
        if source > target:
            return resize(layer(self.widths[target], is_active=False, name=name)(x, train), size, self.resize)
        for k in range(target - source):
            is_last = k == target - source - 1
            width = self.widths[target] if is_last else self.widths[source]
            x = layer(width, kernel=3, stride=2, is_active=not is_last, name=f"{name}_{k}")(x, train)
        return x


class Stage(nn.Module):
    """A row of exchange units."""

    widths: Sequence[int]
    num_modules: int
    num_blocks: int
    resize: str
    dtype: DTypeLike = jnp.float32
    execution: Execution = UNROLLED

    @nn.compact
    def __call__(self, branches: Branches, train: bool) -> Branches:
        module = functools.partial(
            HRModule, self.widths, self.num_blocks, self.resize, self.dtype, execution=self.execution
        )
        # What is computed again in full is a block at a time: of a whole module it would be more than fits.
        remat = "off" if self.execution.remat == "full" else self.execution.remat
        loop = dataclasses.replace(self.execution, remat=remat)
        names = [f"module_{m}" for m in range(self.num_modules)]
        return run_in_a_row(self, module, names, branches, train, loop)


class HRNet(nn.Module):
    """HRNetV2 as a feature extractor: (N, H, W, 3) → (N, H/4, W/4, 15·width).

    The four branches of the last stage are upsampled to stride 4 (always bilinearly) and concatenated.

    Attributes:
      width: channels of the finest branch; the others have 2, 4 and 8 times as many.
      num_modules: exchange units of stages 2, 3 and 4.
      num_blocks: basic blocks per branch in each of them.
      num_bottlenecks: blocks of stage 1.
      stem_width: channels of the two stride-2 convolutions at the input and of stage 1 (a fourth of its output's).
      resize: upsampling convention, see `resample.resize`. Published weights come with different ones.
      dtype: of the computation; parameters and batch statistics are always float32.
      execution: whether equal blocks are compiled once, and whether their activations are kept.
    """

    width: int
    num_modules: Sequence[int] = (1, 4, 3)
    num_blocks: int = 4
    num_bottlenecks: int = 4
    stem_width: int = 64
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32
    execution: Execution = UNROLLED

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n _ _ d"]:
        layer = functools.partial(ConvNormAct, kernel=3, dtype=self.dtype)
        x = images.astype(self.dtype)
        x = layer(self.stem_width, stride=2, name="stem1")(x, train)
        x = layer(self.stem_width, stride=2, name="stem2")(x, train)
        bottleneck = functools.partial(Bottleneck, self.stem_width, dtype=self.dtype)
        first, *others = [f"stage1_block_{k}" for k in range(self.num_bottlenecks)]
        x = bottleneck(name=first)(x, train)  # from another number of channels than the others
        if others:
            x = run_in_a_row(self, bottleneck, others, x, train, self.execution)

        widths = tuple(self.width << i for i in range(4))
        branches = (
            layer(widths[0], name="transition1_0")(x, train),
            layer(widths[1], stride=2, name="transition1_1")(x, train),
        )
        for stage, num_modules in enumerate(self.num_modules, 2):
            if stage > 2:  # stage s has s branches: a new one starts from the coarsest so far
                new = layer(widths[stage - 1], stride=2, name=f"transition{stage - 1}_{stage - 1}")(branches[-1], train)
                branches = (*branches, new)
            run = functools.partial(Stage, widths[:stage], num_modules, self.num_blocks, self.resize, self.dtype)
            branches = run(self.execution, name=f"stage{stage}")(branches, train)
        size = branches[0].shape[1:3]
        # The published networks upsample bilinearly here even when they use "nearest" inside their exchange units.
        convention = "half_pixel" if self.resize == "nearest" else self.resize
        return jnp.concatenate([resize(x, size, convention) for x in branches], axis=-1)


hrnet_w18 = functools.partial(HRNet, width=18)
hrnet_w32 = functools.partial(HRNet, width=32)
hrnet_w48 = functools.partial(HRNet, width=48)
# For tests and tries on a laptop: every kind of layer once.
hrnet_tiny = functools.partial(HRNet, width=8, num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1)
# For training on two CPU cores: there the time goes into the 64 channels of the published stem, which a network this
# narrow cannot use.
hrnet_small = functools.partial(HRNet, width=16, num_modules=(1, 1, 1), num_blocks=2, num_bottlenecks=1, stem_width=16)

BACKBONES = {
    "hrnet_w18": hrnet_w18,
    "hrnet_w32": hrnet_w32,
    "hrnet_w48": hrnet_w48,
    "hrnet_tiny": hrnet_tiny,
    "hrnet_small": hrnet_small,
}
