"""ACFNet, attentional class features (Zhang et al. 2019), from its formulas, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, Outputs, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels, hidden_init
from pyrseg_jax.models.supervision import cross_entropy
from pyrseg_jax.pyramid import levels

RATES = (12, 24, 36)  # dilations of the pyramid pooling's 3×3 convolutions
COARSE_WEIGHT = 0.6 / 0.7  # of the coarse prediction's loss, where the main loss has weight 1; see `ACFNet`


class ACFNet(nn.Module):
    """Mix the centers of the classes at every position by the classes that a coarse classifier predicts there.

    The center of a class is the mean of the features, weighted by the coarse probability of the class.

    Attributes:
      width: channels inside; the output (N, h, w, 2 · width) has twice as many.
      num_classes: C.

    Source: Zhang et al. 2019, Sec. 3.2 and 3.3 (class centers and class attention), 3.4 (losses). No official code was published;
      the pooling's width and dilations, the coarse classifier and the last layer are those of an unofficial copy.
    Differs: the copy normalizes the centers by a softmax over channels, which the paper does not.
    Chosen: the published weights of the losses are 0.7 for the result, 0.6 for the coarse prediction and 0.4 for the auxiliary
      classifier. The main loss has weight 1 here, so the others are divided by 0.7: 6/7, and 4/7 for the auxiliary classifier if
      the recipe says so. With 0.7 times the published learning rate, the steps are the published ones.
    Chosen: dropout leaves out half of the channels before the coarse classifier's 3×3 convolution, a fifth of those that the
      centers average, and a tenth before each classifier, as in the copy.
    """

    width: int
    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        x = self._pool(features.final, train)
        coarse = self._classify(x, train)
        y = ConvNormAct(self.width, dtype=self.dtype, name="feature")(x, train)
        mixed = mix_class_centers(drop_channels(y, 0.2, train), coarse)
        attended = biased_conv(self.width, kernel_init=hidden_init, dtype=self.dtype, name="attention")(mixed)
        merged = merge((attended, x), 2 * self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)
        return ContextMap(merged, outputs={"coarse": coarse})

    def _pool(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w _"]:
        """Return the map at several dilations and its mean, joined (atrous spatial pyramid pooling)."""
        branches = [ConvNormAct(self.width, dtype=self.dtype, name="pool_1")(x, train)]
        for i, rate in enumerate(RATES, 2):
            branch = ConvNormAct(self.width, 3, dilation=rate, dtype=self.dtype, name=f"pool_{i}")
            branches.append(branch(x, train))
        mean = ConvNormAct(self.width, dtype=self.dtype, name="pool_mean")(x.mean((1, 2), keepdims=True), train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        return jnp.concatenate(branches, axis=-1)

    def _classify(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w c"]:
        x = ConvNormAct(self.width, dtype=self.dtype, name="coarse_1")(x, train)
        x = drop_channels(x, 0.5, train)
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="coarse_2")(x, train)
        x = drop_channels(x, 0.1, train)
        return biased_conv(self.num_classes, dtype=self.dtype, name="coarse_classify")(x).astype(jnp.float32)


def mix_class_centers(features: Float[Array, "n h w d"], logits: Logits) -> Float[Array, "n h w d"]:
    """Return Σ_k p_ik c_k at every position i, with the class centers c_k = Σ_i p_ik f_i / Σ_i p_ik.

    Args:
      features: f_i.
      logits: class logits; p is their softmax over the classes, computed in float32.
    """
    n, h, w, width = features.shape
    share = nn.softmax(logits.astype(jnp.float32), axis=-1).reshape(n, h * w, -1)
    mass = share.sum(1)[..., None]
    rows = features.reshape(n, h * w, width).astype(jnp.float32)
    # A class that is probable nowhere has a center of zeros instead of 0 / 0; it has no share in the mixture.
    centers = (share.swapaxes(1, 2) @ rows) / jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)
    return (share @ centers).reshape(n, h, w, width).astype(features.dtype)


def coarse_loss(outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str) -> Float[levels.Array, ""]:
    """Return the mean cross entropy of the coarse prediction over the labeled positions."""
    return cross_entropy(outputs["coarse"], labels, supervision)


SPECS = {
    "acfnet": ContextSpec(
        make_pooled(lambda s: ACFNet(s.width, s.num_classes, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"coarse": ContextLoss(COARSE_WEIGHT, coarse_loss)},
        meaning="attentional class features (Zhang et al. 2019)",
    ),
}
