"""CFNet, co-occurrent features (Zhang et al. 2019), as released, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextMap, ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.encoding import NUM_CODES, EncodingModule
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels

NUM_HEADS = 8


class CFNet(nn.Module):
    """Join aggregated co-occurrent features with the mean of the map, and weight the channels by an encoding of the image.

    Attributes:
      width: channels inside; a multiple of the number of heads, 8. The output (N, h, w, 2 · width) has twice as many.
      num_classes: C.
      num_mixtures: number of softmaxes that are averaged in the attention.
      has_presence_loss: whether the encoding also predicts the classes in the image, for the loss of EncNet.
      num_codes: number of codewords of the encoding.

    Source: Zhang et al. 2019; the public code of PyTorch-Encoding.
    Chosen: one softmax and no loss on the classes in the image, which are the defaults of the release; neither the paper nor the
      release says what gave the published numbers.
    Chosen: dropout before the classifier leaves out whole channels.
    """

    width: int
    num_classes: int
    num_mixtures: int = 1
    has_presence_loss: bool = False
    num_codes: int = NUM_CODES
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        """Raise ValueError, naming the argument, for a width or a number of softmaxes that does not exist."""
        if self.width < 1 or self.width % NUM_HEADS:
            raise ValueError(f"width={self.width}: CFNet has {NUM_HEADS} heads and needs a multiple of {NUM_HEADS}")
        if self.num_mixtures < 1:
            raise ValueError(f"num_mixtures={self.num_mixtures}: expected 1 or more")
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        mean = ConvNormAct(self.width, dtype=self.dtype, name="global")(x.mean((1, 2), keepdims=True), train)
        found = CoOccurrentFeatures(self.num_mixtures, dtype=self.dtype, name="attention")(x, train)
        joined = jnp.concatenate([jnp.broadcast_to(mean, x.shape), found], axis=-1)
        num_classes = self.num_classes if self.has_presence_loss else None
        encoded = EncodingModule(num_classes, self.num_codes, self.dtype, name="encoding")(joined, train)
        outputs = {"presence": encoded.presence} if self.has_presence_loss else {}
        return ContextMap(drop_channels(encoded.features, 0.1, train), outputs=outputs)


class CoOccurrentFeatures(nn.Module):
    """Attend with several heads from every position to a map of half the size, and add the result to the position.

    Queries and keys are one projection, of the map and of the map after average pooling. In training, a tenth of the attention
    weights is left out.

    Attributes:
      num_mixtures: number of softmaxes M. Queries and keys have M parts, each part gives a softmax, and the softmaxes are averaged
        by weights that depend on the mean of the queries.
      num_heads: heads; the channels of the map are a multiple of it.

    Source: Zhang et al. 2019, Sec. 3.1 and 3.2 (mixture of softmaxes); the public code of PyTorch-Encoding (`ACFModule`).
    """

    num_mixtures: int = 1
    num_heads: int = NUM_HEADS
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w d"]:
        n, h, w, width = x.shape
        head_width = width // self.num_heads
        key_width = head_width * self.num_mixtures
        project = biased_conv(
            self.num_heads * key_width, kernel_init=_init(width, key_width), dtype=self.dtype, name="query"
        )
        to_value = biased_conv(width, kernel_init=_init(width, head_width), dtype=self.dtype, name="value")
        # The padding does not count: a window at the border averages fewer positions.
        pooled = nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)  # pyright: ignore[reportArgumentType]  # declared as str
        queries, keys = (self._heads(project(y), key_width) for y in (x, pooled))
        values = self._heads(to_value(pooled), head_width)
        weights = self._weights(queries, keys, train)
        found = (weights.astype(values.dtype) @ values).swapaxes(1, 2).reshape(n, h, w, width)
        return x + ConvNormAct(width, is_active=False, dtype=self.dtype, name="out")(found, train)

    def _heads(self, x: Float[Array, "n h w c"], width: int) -> Float[Array, "n heads _ width"]:
        return x.reshape(x.shape[0], -1, self.num_heads, width).swapaxes(1, 2)

    def _weights(
        self, queries: Float[Array, "n heads p k"], keys: Float[Array, "n heads s k"], train: bool
    ) -> Float[Array, "n heads p s"]:
        width = queries.shape[-1]
        parts = [jnp.split(y, self.num_mixtures, axis=-1) for y in (queries, keys)]
        softmaxes = []
        for query, key in zip(*parts, strict=True):
            scores = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
            weights = nn.softmax(scores * width**-0.5, axis=-1)
            softmaxes.append(nn.Dropout(0.1, deterministic=not train)(weights))
        if self.num_mixtures == 1:
            return softmaxes[0]
        bound = self.num_mixtures**-0.5
        init = nn.initializers.uniform(2 * bound)
        mixture = self.param("mixture", lambda *of: init(*of) - bound, (self.num_mixtures, width))
        shares = nn.softmax(queries.astype(jnp.float32).mean(2) @ mixture.T, axis=-1)
        mixed = shares[..., 0, None, None] * softmaxes[0]
        for i in range(1, self.num_mixtures):
            mixed += shares[..., i, None, None] * softmaxes[i]
        return mixed


def _init(inputs: int, outputs: int) -> nn.initializers.Initializer:
    return nn.initializers.normal((2 / (inputs + outputs)) ** 0.5)


SPECS = {
    "cfnet": ContextSpec(
        make_pooled(lambda s: CFNet(s.width, s.num_classes, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="co-occurrent features (Zhang et al. 2019)",
    ),
}
