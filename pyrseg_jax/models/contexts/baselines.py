"""The context modules that the paper compares with in Table 1, as published, on the features of any backbone.

Each is called as `module(features, auxiliary, train)` with features (N, h, w, D) and the class logits (N, h, w, C) of the
auxiliary classifier beside it, and returns (N, h, w, width). Dropout, of whole channels, takes the rng `dropout`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.contexts.attention import attend
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, hidden_init, pyramid_sampling, zero_init

Features = Float[Array, "n h w d"]
Logits = Float[Array, "n h w c"]


class ANL(nn.Module):
    """Asymmetric non-local attention, in its form for one map: each position attends to 110 pooled positions.

    Attributes:
      width: channels inside and of the output.
      key_width: channels of queries, keys and values.

    Source: Zhu et al. 2019 (APNB), with the sizes of its release for semantic segmentation. Query and key are one
      projection; keys and values are pooled after their projection. The output projection starts at zero.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features, train)
        queries = ConvNormAct(self.key_width, dtype=self.dtype, name="key")(x, train)
        values = biased_conv(self.key_width, kernel_init=hidden_init, dtype=self.dtype, name="value")(x)
        attended = attend(queries, pyramid_sampling(queries), pyramid_sampling(values))
        context = biased_conv(self.width, kernel_init=zero_init, dtype=self.dtype, name="out")(attended)
        return _merge(self.width, 1, 0.05, self.dtype, train, context, x)


class CCNet(nn.Module):
    """Criss-cross attention, twice with the same weights, so that every position reaches every other one.

    Attributes:
      width: channels inside and of the output; queries and keys have an eighth.
      key_width: not used; for a common constructor.

    Source: Huang et al. 2019, its release for semantic segmentation.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features, train)
        criss_cross = CrissCrossAttention(self.width, max(self.width // 8, 1), self.dtype, name="criss_cross")
        x = criss_cross(criss_cross(x))
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="smooth")(x, train)
        return _merge(self.width, 3, 0.1, self.dtype, train, features, x)


class CrissCrossAttention(nn.Module):
    """Add to every position what it finds in its row and its column.

    The softmax is over the H + W - 1 positions of both (the own one is masked in the column), its scores are not scaled.
    The result is multiplied by a learned number that starts at 0.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w {self.width}"]) -> Float[Array, "n h w {self.width}"]:
        query, key, value = (
            biased_conv(size, kernel_init=hidden_init, dtype=self.dtype, name=name)(x)
            for name, size in (("query", self.key_width), ("key", self.key_width), ("value", self.width))
        )
        height = x.shape[1]
        scores = {"preferred_element_type": jnp.float32}
        in_column = jnp.einsum("nhwk,ngwk->nhwg", query, key, **scores)
        in_column = jnp.where(jnp.eye(height, dtype=bool)[:, None], -jnp.inf, in_column)
        in_row = jnp.einsum("nhwk,nhgk->nhwg", query, key, **scores)
        weights = nn.softmax(jnp.concatenate([in_column, in_row], axis=-1), axis=-1).astype(value.dtype)
        found = jnp.einsum("nhwg,ngwc->nhwc", weights[..., :height], value)
        found += jnp.einsum("nhwg,nhgc->nhwc", weights[..., height:], value)
        gamma = self.param("gamma", zero_init, (1,), jnp.float32)
        return x + gamma.astype(self.dtype) * found


class OCR(nn.Module):
    """Object-contextual representations: every position attends to one vector per class.

    A class's vector is the mean of the features, weighted by the softmax over positions of the auxiliary classifier's logits.

    Attributes:
      width: channels inside and of the output.
      key_width: channels of queries, keys and values.

    Source: Yuan et al. 2020, HRNet + OCR.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features, train)
        n, h, w, c = auxiliary.shape
        share = nn.softmax(auxiliary.astype(jnp.float32).reshape(n, h * w, c), axis=1).astype(x.dtype)
        regions = (share.swapaxes(1, 2) @ x.reshape(n, h * w, -1))[:, None]  # (N, 1, C, width)

        def project(y, name: str, times: int):
            for i in range(1, times + 1):
                y = ConvNormAct(self.key_width, dtype=self.dtype, name=f"{name}_{i}")(y, train)
            return y

        queries, keys = project(x, "query", 2), project(regions, "key", 2)[:, 0]
        attended = attend(queries, keys, project(regions, "value", 1)[:, 0])
        context = ConvNormAct(self.width, dtype=self.dtype, name="out")(attended, train)
        return _merge(self.width, 1, 0.05, self.dtype, train, context, x)


def _merge(width: int, kernel: int, dropout: float, dtype: DTypeLike, train: bool, *maps) -> Array:
    """Join maps into `width` channels, as the last layer of each of these modules; call inside of a compact method."""
    x = ConvNormAct(width, kernel, dtype=dtype, name="merge")(jnp.concatenate(maps, axis=-1), train)
    return nn.Dropout(dropout, broadcast_dims=(1, 2), deterministic=not train)(x)


BASELINES = {"anl": ANL, "ccnet": CCNet, "ocr": OCR}
