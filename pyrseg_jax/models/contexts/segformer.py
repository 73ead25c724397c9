"""The decoder of SegFormer (Xie et al., NeurIPS 2021): a dense layer for each stage, and one that joins them at stride 4."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, Kernel, drop_channels
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.token_layers import dense


class AllMlp(nn.Module):
    """Bring the four stages to one width and to stride 4, join them, and reduce them to that width again.

    Attributes:
      width: channels inside and of the output (N, H/4, W/4, width).
      resize: convention for all enlargements.
      is_normalized: whether a batch normalization and a ReLU follow the layer of each stage, which then has no bias. The stages are
        joined fine → coarse; without the normalization, coarse → fine.
      dropout: share of the output's channels that training leaves out.
      dtype: number format of the computation.

    Source: Xie et al. 2021, Sec. 3.2, Eq. (4), and NVIDIA's code, whose width is 256 on MiT-B0 and B1 and 768 on the others.
      mmsegmentation's head has the normalizations, and a width of 256 everywhere.
    """

    width: int
    resize: str = "half_pixel"
    is_normalized: bool = False
    dropout: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n _ _ {self.width}"]:
        maps = []
        for i, stage in enumerate(features.stages, 1):
            if self.is_normalized:
                maps.append(ConvNormAct(self.width, dtype=self.dtype, name=f"linear_{i}")(stage, train))
            else:
                maps.append(dense(self.width, self.dtype, f"linear_{i}")(stage))
        maps = maps if self.is_normalized else maps[::-1]
        joined = _Join(self.width, features.stages[0].shape[1:3], self.resize, self.dtype, name="merge")(maps, train)
        return drop_channels(joined, self.dropout, train)


class _Join(nn.Module):
    """Enlarge maps to one size, concatenate them, and apply a 1×1 convolution, a batch normalization and a ReLU.

    The convolution comes before the enlargement, because it then computes far fewer positions: a coarse map has 1/64 of those of
    the finest. Both are linear, so the result differs by rounding alone.
    """

    width: int
    size: tuple[int, int]
    resize: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, maps: list[Float[Array, "n _ _ _"]], train: bool) -> Float[Array, "n h w {self.width}"]:
        kernel = Kernel(sum(x.shape[-1] for x in maps), self.width, name="conv")().astype(self.dtype)
        total, first = jnp.zeros((), self.dtype), 0
        for x in maps:
            y = x @ kernel[0, 0, first : first + x.shape[-1]]
            total += y if y.shape[1:3] == self.size else resize(y, self.size, self.resize)
            first += x.shape[-1]
        return BatchNorm(is_active=True, dtype=self.dtype, name="bn")(total, train)


def _spec(is_normalized: bool, meaning: str) -> ContextSpec:
    return ContextSpec(
        make_pooled(lambda s: AllMlp(s.width, s.resize, is_normalized, dtype=s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        has_resize=True,
        meaning=meaning,
    )


SPECS = {
    "segformer": _spec(False, "a dense layer for each of four stages, and one that joins them (Xie et al. 2021)"),
    "segformer_mmseg": _spec(
        True, "the same with a batch normalization and a ReLU for each stage, as in mmsegmentation"
    ),
}
