"""PSANet, point-wise spatial attention (Zhao et al. 2018), as published, on the features of any backbone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, conv
from pyrseg_jax.models.resample import resize

By = Float[Array, "n s s"]  # a number for each pair of the s positions of a map


class PSANet(nn.Module):
    """Attend from every position to the positions of a window around it, by attention that a convolution predicts.

    There are two branches at half the size of the map. In the first, every position collects from the others by attention that it
    predicts itself. In the second, every position distributes to the others by attention that it predicts. A prediction has a
    number for each offset inside the window; for a position outside of it the number is 0. The softmax over all positions that a
    target reads from covers these zeros, too.

    Attributes:
      width: channels of the branches and of the output (N, h, w, width).
      window: side of the window in positions of the half-size map; see `window_of` and `mmseg_window_of`. It may be smaller than
        what a larger test image would need.
      resize: convention for halving and enlarging. None: align-corners if both sides of the map are odd, otherwise half-pixel, and
        the half of an odd side is rounded down.
      border: positions of zeros around the map before the convolution that joins the branches.

    Source: Zhao et al. 2018 and semseg (both branches, align-corners, no border). mmsegmentation has None and a border of 1; with
      others its weights predict worse.
    Chosen: on maps of stride 4 (HRNets, and ResNets below a pyramid with that stride) the window covers the map as well. It then
      has four times as many offsets, and attention needs sixteen times the memory.
    """

    width: int
    window: int
    resize: str | None = "half_pixel"
    border: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = features.final
        height, width = x.shape[1:3]
        half, convention = halve_size(height, width, self.resize)
        branches = []
        for name, attend in (("collect", collect), ("distribute", distribute)):
            y = ConvNormAct(self.width, dtype=self.dtype, name=f"{name}_reduce")(x, train)
            y = resize(y, half, convention)
            scores = ConvNormAct(self.width, dtype=self.dtype, name=f"{name}_hidden")(y, train)
            scores = conv(self.window**2, 1, dtype=self.dtype, name=f"{name}_scores")(scores)
            branches.append(attend(y, spread(scores.astype(jnp.float32), self.window)))
        y = jnp.concatenate(branches, axis=-1)
        y = jnp.pad(y, ((0, 0), *[(self.border, self.border)] * 2, (0, 0)))
        y = ConvNormAct(x.shape[-1], dtype=self.dtype, name="join")(y, train)
        y = resize(y, (height, width), convention)
        return merge((x, y), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


def window_of(map_px: int) -> int:
    """Return the side of the window that covers the half of a map with this side: 59 for 59 and 60, as in semseg's weights."""
    return 2 * ((map_px + 1) // 2) - 1


def mmseg_window_of(map_px: int) -> int:
    """Return the side of mmsegmentation's window for a map with this side: 66 for 64 (512 pixels), 97 for 97 (769 pixels)."""
    return map_px if map_px % 2 else map_px + 2


def halve_size(height: int, width: int, convention: str | None) -> tuple[tuple[int, int], str]:
    """Return the size of the branches' maps, and the convention of resizing; see `PSANet.resize`."""
    if convention is None and not (height % 2 and width % 2):
        return (max(height // 2, 1), max(width // 2, 1)), "half_pixel"
    return ((height + 1) // 2, (width + 1) // 2), convention or "align_corners"


def collect(x: Float[Array, "n h w c"], scores: By) -> Float[Array, "n h w c"]:
    """Average x for each position by the softmax of its own scores: row p of the scores is what p gives to all positions."""
    weights = nn.softmax(scores, axis=2).astype(x.dtype)
    return (weights @ x.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)


def distribute(x: Float[Array, "n h w c"], scores: By) -> Float[Array, "n h w c"]:
    """Average x for each position by the softmax of what all positions give to it: column p of the scores."""
    weights = nn.softmax(scores, axis=1).astype(x.dtype)
    return (weights.swapaxes(1, 2) @ x.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)


def spread(scores: Float[Array, "n h w m"], window: int) -> By:
    """Bring scores by offset to scores by position: entry (p, q) is the score that p has for the offset q - p, or 0.

    Args:
      scores: for each position a number for each offset (row, column) from -⌊(window - 1) / 2⌋ on, row by row.
      window: offsets per side; m is its square.
    """
    n, h, w, _ = scores.shape
    x = scores.reshape(n, h, w, window, window)
    x = _skew(x.transpose(0, 2, 4, 1, 3))  # (N, column, offset of column, row, row of the other position)
    x = _skew(x.transpose(0, 3, 4, 1, 2))  # (N, row, row of the other, column, column of the other)
    return x.transpose(0, 1, 3, 2, 4).reshape(n, h * w, h * w)


def _skew(x: Float[Array, "*b p m"]) -> Float[Array, "*b p p"]:
    """Bring (…, position, offset) to (…, position, other position), with 0 for offsets that x does not have.

    Padded to 2P offsets, row p holds its own position at P - 1. Cut into rows of 2P - 1 from there on, each row begins one element
    earlier than the row before, so that column q is the offset q - p. This takes no gather, whose gradient would be a scatter.
    """
    *batch, side, window = x.shape
    before = side - 1 - (window - 1) // 2
    after = 2 * side - window - before
    # A negative padding removes offsets that lead out of the map.
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 1) + [(before, after, 0)])
    flat = x.reshape(*batch, 2 * side * side)[..., side - 1 : 2 * side * side - 1]
    return flat.reshape(*batch, side, 2 * side - 1)[..., :side]


SPECS = {
    "psanet": ContextSpec(
        make_pooled(lambda s: PSANet(s.width, window_of(s.map_px), s.resize, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="point-wise spatial attention (Zhao et al. 2018)",
    ),
    "psanet_mmseg": ContextSpec(
        make_pooled(lambda s: PSANet(s.width, mmseg_window_of(s.map_px), None, border=1, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="point-wise spatial attention as in mmsegmentation, for its weights",
    ),
}
