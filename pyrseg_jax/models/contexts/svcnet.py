"""A network in the style of SVCNet (Ding et al. 2019): context from a region whose shape each position chooses."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextMap, ContextSpec, Logits, enlarge, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, hidden_init, zero_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

REGION = 11  # side of the region around a position, of which it chooses a part
WINDOW = 3  # side of the windows that are compared to decide whether a neighbor belongs to it
GAUSSIAN_STD, GAUSSIAN_FACTOR = 5.0, 0.1  # of the kernel at first that compares a position with its surroundings
PAIR_STD = 0.01  # of the kernel at first that compares windows
GATE_SLOPE = 0.5
# Of rows of more blocks than this, every second one is classified: 12 of the 23 of ResNet-101, and all 6 of ResNet-50.
MAX_CLASSIFIED = 6


class SVCNet(nn.Module):
    """Shape-variant context on C5, and the sum of the scores of many blocks, coarse → fine.

    Attributes:
      num_classes: C.
      width: channels inside of the context and of most branches; those of the finest stage have half of them.
      classifies: whether to return class logits (N, H/2, W/2, C). Otherwise the branches' scores have `width` channels.

    The features are the sum of the scores at stride 4.

    Source: Ding et al. 2019, and their code for Pascal Context, with the learning of the transposed convolutions, which start as
      bilinear ones.
    Differs: that code refines the finest scores by a function ("label denoising") that is not public. Here they are added like the
      others. The network is in the style of SVCNet, and not SVCNet.
    Differs: the loss of the code weights classes by how rare they are. Here all count alike. Convolutions before a normalization
      have no bias.
    Chosen: on HRNets, each branch counts as a stage of one block. Between two stages of the same size, as on a dilated ResNet,
      nothing is enlarged.
    Chosen: where the pyramid's heads follow, the branches do not start at 0, since nothing else would reach those heads.
    """

    num_classes: int
    width: int = 512
    classifies: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        rows = features.blocks or tuple((x,) for x in features.stages)
        branches = {
            4: self._context(rows[3][-1], train) + list(rows[3]),
            3: list(rows[2] if len(rows[2]) <= MAX_CLASSIFIED else rows[2][::2]),
            2: list(rows[1]),
            1: [rows[0][-1]],
        }
        scores = self._add(None, branches[4], 4, train)
        for stage in (3, 2, 1):
            scores = self._double(scores, f"double_{stage + 1}", rows[stage - 1][-1])
            scores = self._add(scores, branches[stage], stage, train)
        if not self.classifies:
            return ContextMap(scores)
        return ContextMap(scores, Doubled(self.dtype, name="double_1")(scores))

    def _context(self, x: Float[Array, "n h w d"], train: bool) -> list[Float[Array, "n h w {self.width}"]]:
        """Return the features, what surrounds them, and the sum over the region that each position chooses."""
        x = ConvNormAct(self.width, dtype=self.dtype, name="reduce")(x, train)
        contrast = nn.Conv(
            self.width,
            (REGION, REGION),
            padding=REGION // 2,
            feature_group_count=self.width,
            conv_general_dilated=convolve_depthwise,
            use_bias=False,
            kernel_init=gaussian_init,
            dtype=self.dtype,
            name="contrast",
        )
        unlike = nn.relu(contrast(BatchNorm(dtype=self.dtype, name="contrast_bn")(x, train)))
        side = REGION + WINDOW - 1
        compare = nn.Conv(
            REGION**2,
            (side, side),
            padding=side // 2,
            use_bias=False,
            kernel_init=paired_init,
            dtype=self.dtype,
            name="compare",
        )
        found = compare(BatchNorm(dtype=self.dtype, name="compare_bn")(unlike, train))
        gates = jnp.exp(-jnp.square(GATE_SLOPE * found.astype(jnp.float32)))
        return [x, sum_shape(x, gates.astype(self.dtype)), unlike]

    def _add(self, scores: Array | None, branches: list[Array], stage: int, train: bool) -> Float[Array, "n h w _"]:
        """Add the scores of these maps."""
        width = self.width if stage > 1 else max(self.width // 2, 1)
        outputs, init = (self.num_classes, zero_init) if self.classifies else (self.width, hidden_init)
        for i, x in enumerate(branches):
            x = ConvNormAct(width, dtype=self.dtype, name=f"hidden_{stage}_{i}")(x, train)
            x = biased_conv(outputs, kernel_init=init, dtype=self.dtype, name=f"score_{stage}_{i}")(x)
            scores = x if scores is None else scores + x
        assert scores is not None
        return scores

    def _double(self, scores: Array, name: str, like: Array) -> Array:
        if scores.shape[1:3] == like.shape[1:3]:
            return scores
        doubled = Doubled(self.dtype, name=name)(scores)[:, : like.shape[1], : like.shape[2]]
        return enlarge(doubled, like, "half_pixel")


def sum_shape(x: Float[Array, "n h w c"], gates: Float[Array, "n h w k"]) -> Float[Array, "n h w c"]:
    """Sum a map over a square region around each position, with weights of the position's own: Σ_o gates_o(p) · x(p + o).

    Args:
      x: the map, which is 0 beyond its edges.
      gates: for each position a weight of each offset o, row by row from the upper left one. All channels have the same weight.

    It goes from offset to offset, forward and backward, so that no tensor holds the region of every position.
    """
    side = round(gates.shape[-1] ** 0.5)
    pad = side // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    @jax.checkpoint  # else the backward pass would keep the product of every offset
    def at_offset(padded: Array, gates: Array, k: Array) -> Array:
        shifted = jax.lax.dynamic_slice(padded, (0, k // side, k % side, 0), x.shape)
        return shifted * jax.lax.dynamic_index_in_dim(gates, k, axis=3)

    def step(total: Array, k: Array) -> tuple[Array, None]:
        return total + at_offset(padded, gates, k).astype(jnp.float32), None

    total, _ = jax.lax.scan(step, jnp.zeros(x.shape, jnp.float32), jnp.arange(side**2))
    return total.astype(x.dtype)


class Doubled(nn.Module):
    """Double the size of a map by a transposed convolution of each channel alone, which starts as a bilinear interpolation.

    The kernel has 4 × 4 taps and the stride 2; beyond its edges, the map is 0.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
        n, h, w, c = x.shape
        kernel = self.param("kernel", _bilinear_init, (4, 4, c)).astype(self.dtype)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))

        def between(row: int, column: int) -> Array:
            """Return the outputs of one of the four phases: each is a sum over 2 × 2 inputs."""
            # An even output reads the input at its half by tap 1 and the one before by tap 3; an odd one reads the input at its
            # half by tap 2 and the one after by tap 0.
            total = jnp.zeros(x.shape, self.dtype)
            for i, tap_i in ((1, 1 + row), (2 * row, 3 - 3 * row)):
                for j, tap_j in ((1, 1 + column), (2 * column, 3 - 3 * column)):
                    total += padded[:, i : i + h, j : j + w] * kernel[tap_i, tap_j]
            return total

        phases = jnp.stack([between(i, j) for i in (0, 1) for j in (0, 1)]).reshape(2, 2, n, h, w, c)
        return phases.transpose(2, 3, 0, 4, 1, 5).reshape(n, 2 * h, 2 * w, c)


def _bilinear_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    taps = jnp.array([0.25, 0.75, 0.75, 0.25], dtype)
    return jnp.broadcast_to(jnp.outer(taps, taps)[..., None], shape)


def gaussian_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Return a tenth of a Gaussian that sums to 1, minus its mean, in every channel (rows, columns, 1, channels)."""
    distance = jnp.arange(REGION) - REGION // 2
    taps = jnp.exp(-jnp.square(distance) / (2 * GAUSSIAN_STD**2))
    kernel = jnp.outer(taps, taps)
    kernel = GAUSSIAN_FACTOR * kernel / kernel.sum()
    return jnp.broadcast_to((kernel - kernel.mean())[..., None, None], shape).astype(dtype)


def paired_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draw a kernel (rows, columns, in, offsets) of |N(0, 0.01)| times the signs of `pair_signs`."""
    signs = jnp.asarray(pair_signs(), dtype)[:, :, None]
    return jnp.abs(PAIR_STD * jax.random.normal(key, shape, dtype)) * signs


@functools.lru_cache
def pair_signs() -> np.ndarray:
    """Return (rows, columns, offsets): for each offset, 1 in the window at the center minus 1 in the window at the offset."""
    side, middle = REGION + WINDOW - 1, REGION // 2
    signs = np.zeros((side, side, REGION**2), np.float32)
    signs[middle : middle + WINDOW, middle : middle + WINDOW] += 1
    for k in range(REGION**2):
        row, column = divmod(k, REGION)
        signs[row : row + WINDOW, column : column + WINDOW, k] -= 1
    return signs


SPECS = {
    "svcnet": ContextSpec(
        make_pooled(lambda s: SVCNet(s.num_classes, s.width, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=2,
        meaning="SVCNet-style shape-variant context (after Ding et al. 2019)",
    ),
}
