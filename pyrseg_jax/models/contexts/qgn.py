"""QGN, Quadtree Generating Networks (Chitta et al. 2020): a decoder that predicts a quadtree of classes, dense or sparse."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.blocks import apply_blocks
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.doubling import UpBlock, double
from pyrseg_jax.models.contexts.qgn_skipping import decode_active
from pyrseg_jax.models.contexts.quadtree import COMPOSITE, STRIDES, decide, is_composite, quadtree_loss
from pyrseg_jax.models.layers import BasicBlock, ConvNormAct, Mask, output_init
from pyrseg_jax.pyramid.levels import to_children

# By the stride of the result: blocks that keep the size before the one that doubles it. The last row of blocks doubles nothing.
NUM_BLOCKS = {16: 5, 8: 3, 4: 2, 2: 2}
NUM_LAST_BLOCKS = 3
# By stride: channels of the decoder's map, as shares of its width (512).
SHARES = {32: 1, 16: 2, 8: 4, 4: 8, 2: 8}
MIN_CHANNELS = 8  # of narrow decoders at every stride
# The logit of the composite class at first, where cells that are not composite are skipped: so all cells go on.
COMPOSITE_BIAS = 2.0


class QGN(nn.Module):
    """A transposed ResNet-34 that doubles the size of C5 five times, with a classifier of C + 1 classes at each stride.

    Attributes:
      num_classes: C. Class 0 of the classifiers is the composite class, which says that a cell's pixels differ.
      width: channels of the decoder's coarsest map.
      is_sparse: whether the transposed convolutions keep within a cell's children and, if the module also classifies, a level
        computes only the children of cells that are composite.
      classifies: whether to decode to stride 1 and return class logits. Otherwise the decoder ends at stride 4.
      is_skipping: whether the sparse form computes nothing but active cells outside of training. Otherwise it always computes whole
        maps and sets inactive cells to 0, with the same result.

    The features are the map (N, H/4, W/4, width/8). The logits are those of stride 1 (N, H, W, C), without the composite class; in
    the sparse form those of each pixel's coarsest cell that is not composite. The outputs are `quadtree`, logits (N, h, w, C + 1)
    of the strides 32 … 2, or 4 where the decoder ends there; and of the sparse form `active`, the cells that were computed.

    Source: Chitta et al. 2020, and its release, variant "resnet34": dense, and sparse with transposed 2×2 convolutions, whose
      convolutions and batch statistics know active cells only.
    Chosen: classifiers start near zero, as all here do, and those of the sparse form with composite cells, so that training
      starts with all of them.
    Chosen: where a stage is finer than its stride here, as on a dilated ResNet, it is averaged to it. On HRNets the stages are the
      branches, and the stem is the first convolution.
    Chosen: where the pyramid's heads follow, the decoder ends at stride 4, and the sparse form computes all cells: the fuser of the
      pyramid chooses among levels in its stead.
    Differs: the finest logits are learned without the composite class, which is never true there; its weights stay unused.
    Chosen: in training, the coarser levels' logits pass no gradient to the class of a pixel, since each level has a loss of its
      own. So the main loss of the sparse form teaches the finest level, from the pixels that reach it.
    Differs: during training the release skips cells by their labels, and we by the prediction, as at inference. There, cells that
      were skipped may come back on finer levels of the release; here they never do.
    Chosen: outside of training, the sparse form takes lists of active cells through its loops and skips all others, as
      `active_cells` describes; whole maps remain only where results are laid out, at strides 16 … 1. At full width, for 512×512
      pixels on two cores of a CPU, two runs took 0.8 and 1.2 times as long as masked maps where all cells are active, 0.5 and 0.7
      times with half of them, and 0.25 and 0.4 times with 3 % (`benchmarks/quadtree.py`). What remains is mostly the memory of the
      logits at stride 1. It is not measured on an accelerator. During training, whole maps are computed, and inactive cells set to
      0.
    Differs: after each epoch the release doubles the weights of classes with a low IoU on 500 validation images. Labels that
      measure a network must not train it, so there are no class weights but that of the composite class.
    """

    num_classes: int
    width: int = 512
    is_sparse: bool = False
    classifies: bool = True
    dtype: DTypeLike = jnp.float32
    is_skipping: bool = True

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        assert features.stem is not None, "a backbone with a stage of stride 4 has a map of stride 2 before it"
        is_masked = self.is_sparse and self.classifies
        maps = _by_stride((features.stem, *features.stages))
        logits = [self._classify(maps[32], 32)]
        if is_masked and self.is_skipping and not train and not self.is_initializing():
            return self._skip_cells(maps, logits[0])
        computed: list[Any] = []  # masks of the cells that each level computes; None: all
        goes_on: list[Any] = [
            is_composite(logits[0]) if is_masked else None
        ]  # those of them whose children are computed
        x = self._skip(maps[32], goes_on[0], 32, train)
        quarter = maps[4]
        for stride in STRIDES[1:-1] if self.classifies else STRIDES[1:4]:
            x, mask = self._up(x, goes_on[-1], maps[stride], stride, train)
            logits.append(self._classify(x, stride))
            computed.append(mask)
            mask = None if mask is None else mask & is_composite(logits[-1])
            goes_on.append(mask)
            skip = self._skip(maps[stride], mask, stride, train)
            x = (x if mask is None else jnp.where(mask[..., None], x, 0)) + skip
            quarter = x if stride >= 4 else quarter
        outputs = {"quadtree": tuple(logits)}
        if not self.classifies:
            return ContextMap(quarter, None, outputs)
        if is_masked:
            outputs["active"] = (jnp.ones_like(goes_on[0]), *computed)
        finest = self._finish(x, goes_on[-1], train)
        earlier = [jax.lax.stop_gradient(level) if train else level for level in logits]
        found = decide((*earlier, finest), goes_on) if is_masked else finest
        return ContextMap(quarter, found[..., 1:], outputs)

    def _skip_cells(self, maps: dict[int, Array], logits: Float[Array, "n h w _"]) -> ContextMap:
        """Decode from the logits of stride 32 on; compute active cells only."""
        found = decode_active(dict(self.variables), maps, logits, NUM_BLOCKS, NUM_LAST_BLOCKS, self.dtype)
        active = (jnp.ones(logits.shape[:3], bool), *found.active)
        outputs = {"quadtree": (logits, *found.quadtree), "active": active}
        return ContextMap(found.quarter, found.found, outputs)

    def _up(self, x: Array, mask: Mask, like: Array, stride: int, train: bool) -> tuple[Array, Mask]:
        """Apply the blocks that lead to this stride; return their map, of the size of `like`, and the cells that it has."""
        name, count = f"up_{stride}_block", NUM_BLOCKS[stride]
        block = functools.partial(BasicBlock, x.shape[-1], self.dtype)
        x = apply_blocks(self, block, [f"{name}_{k}" for k in range(count)], x, train, mask=mask)
        features = max(self.width // SHARES[stride], MIN_CHANNELS)
        up = UpBlock(features, 2 if self.is_sparse else 3, self.dtype, name=f"{name}_{count}")
        x, children = up(x, train, mask), None if mask is None else jnp.asarray(to_children(mask))
        height, width = like.shape[1:3]
        return x[:, :height, :width], None if children is None else children[:, :height, :width]

    def _finish(self, x: Array, mask: Mask, train: bool) -> Float[Array, "n H W _"]:
        """Return the logits of stride 1."""
        block = functools.partial(BasicBlock, x.shape[-1], self.dtype)
        names = [f"last_block_{k}" for k in range(NUM_LAST_BLOCKS)]
        x = apply_blocks(self, block, names, x, train, mask=mask)
        last = double(self.num_classes + 1, 2, has_bias=True, kernel_init=output_init, dtype=self.dtype, name="finest")
        return last(x).astype(jnp.float32)

    def _skip(self, x: Array, mask: Mask, stride: int, train: bool) -> Array:
        features = max(self.width // SHARES[stride], MIN_CHANNELS)
        return ConvNormAct(features, dtype=self.dtype, name=f"skip_{stride}")(x, train, mask)

    def _classify(self, x: Array, stride: int) -> Float[Array, "n h w _"]:
        bias_init = _favor_composite if self.is_sparse and self.classifies else nn.initializers.zeros
        features, name = self.num_classes + 1, f"classify_{stride}"
        layer = nn.Conv(features, (1, 1), kernel_init=output_init, bias_init=bias_init, dtype=self.dtype, name=name)
        return layer(x).astype(jnp.float32)


def _favor_composite(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    return jnp.zeros(shape, dtype).at[COMPOSITE].set(COMPOSITE_BIAS)


def _by_stride(maps: tuple[Array, ...]) -> dict[int, Array]:
    """Return the maps, which start at stride 2, by their strides 2, 4, …, 32; average those that are finer than their stride."""
    height, width = maps[0].shape[1:3]
    found = {}
    for stride, x in zip(reversed(STRIDES[:-1]), maps, strict=True):
        found[stride] = _average_to(x, (height, width))
        height, width = -(-height // 2), -(-width // 2)
    return found


def _average_to(x: Array, size: tuple[int, int]) -> Array:
    """Halve a map until it has this size; a last odd position stands for two."""
    while x.shape[1:3] != size:
        padding = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
        x = nn.avg_pool(jnp.pad(x, padding, mode="edge"), (2, 2), (2, 2))
    return x


SPECS = {
    "qgn": ContextSpec(
        make_pooled(lambda s: QGN(s.num_classes, s.width, False, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=1,
        losses={"quadtree": ContextLoss(1.0, quadtree_loss)},
        meaning="quadtree generating networks, dense (Chitta et al. 2020)",
    ),
    "qgn_sparse": ContextSpec(
        make_pooled(lambda s: QGN(s.num_classes, s.width, True, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=1,
        losses={"quadtree": ContextLoss(1.0, functools.partial(quadtree_loss, is_sparse=True))},
        meaning="the same, which goes on only where a cell is composite",
    ),
}
