"""EMANet, expectation-maximization attention (Li et al. 2019), on the features of any backbone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels, hidden_init

NUM_BASES, NUM_ITERATIONS = 64, 3
MOMENTUM = 0.9  # share of the old bases that each training step keeps
# The layer before the bases. No gradient reaches it, so the releases leave it as it was drawn, without weight decay.
FROZEN = ("context/context/unit/project",)


class EMANet(nn.Module):
    """Rebuild the features from a few bases, which expectation maximization finds anew for each image.

    Attributes:
      width: channels inside. The output (N, h, w, width/2) has half of them.
      is_release: follow the original release. Otherwise follow mmsegmentation's EMAHead, which also joins the backbone's map before
        the last layer, and normalizes the mean of the batch's bases before it moves the stored ones.

    Source: Li et al. 2019, its release and mmsegmentation's EMAHead.
    """

    width: int
    is_release: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Features, auxiliary: Logits | None, train: bool
    ) -> Float[Array, "n h w {self.width}//2"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        x = EMAUnit(self.width, self.is_release, self.dtype, name="unit")(x, train)
        x = ConvNormAct(self.width // 2, 3, dtype=self.dtype, name="smooth")(x, train)
        if not self.is_release:
            joined = jnp.concatenate([features.final, x], axis=-1)
            x = ConvNormAct(self.width // 2, 3, dtype=self.dtype, name="merge")(joined, train)
        return drop_channels(x, 0.1, train)


class EMAUnit(nn.Module):
    """Add to a map (N, h, w, width) what `NUM_BASES` bases can rebuild of it.

    The bases are state (`batch_stats`), without a gradient. In training they move towards the mean over the batch of the bases that
    the iterations end with; under `jit` with a sharded batch, over the global batch. No gradient passes through the iterations or
    the rebuilt map, as in the releases: only the last projection and the path around it learn.

    Attributes:
      width: channels of the map and of the bases.
      is_release: as in `EMANet`.
    """

    width: int
    is_release: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w {self.width}"], train: bool) -> Float[Array, "n h w {self.width}"]:
        stored = self.variable("batch_stats", "bases", self._draw_bases)
        # Without a normalization or a ReLU, so that features may be negative.
        features = biased_conv(self.width, kernel_init=hidden_init, dtype=self.dtype, name="project")(x)
        # In float32: the softmax is over the bases, and the means are over all positions.
        rows = jax.lax.stop_gradient(features).reshape(x.shape[0], -1, self.width).astype(jnp.float32)
        bases, shares = expectation_maximization(rows, jnp.asarray(stored.value), self.is_release)
        if train and not self.is_initializing():
            mean = bases.mean(0)
            if not self.is_release:
                mean = to_unit_length(mean, self.is_release)
            stored.value = MOMENTUM * stored.value + (1 - MOMENTUM) * mean
        rebuilt = nn.relu(shares @ bases.swapaxes(1, 2)).astype(self.dtype).reshape(x.shape)
        return nn.relu(x + ConvNormAct(self.width, is_active=False, dtype=self.dtype, name="out")(rebuilt, train))

    def _draw_bases(self) -> Float[Array, "c k"]:
        """Draw bases of unit length in random directions."""
        drawn = jax.random.normal(self.make_rng("params"), (self.width, NUM_BASES), jnp.float32)
        return to_unit_length(drawn * (2 / NUM_BASES) ** 0.5, self.is_release)


def expectation_maximization(
    features: Float[Array, "n p c"], bases: Float[Array, "c k"], is_release: bool
) -> tuple[Float[Array, "n c k"], Float[Array, "n p k"]]:
    """Find bases of each image's features, starting from the same for all images.

    Each iteration computes the shares of the bases in each position, softmax(feature · basis), and then sets each basis to the mean
    of all features, weighted by its shares, with unit length.

    Args:
      features: a vector for each of p positions.
      bases: k vectors of unit length.
      is_release: as in `EMANet`; decides the constants that keep a division from failing.

    Returns:
      Bases (N, C, k), and the shares (N, p, k) that they come from, which sum to 1 at each position.
    """
    bases = jnp.broadcast_to(bases, (features.shape[0], *bases.shape))
    shares = None
    for _ in range(NUM_ITERATIONS):
        shares = nn.softmax(features @ bases, axis=-1)
        weights = _divide(shares, shares.sum(1, keepdims=True), is_release)
        bases = to_unit_length(features.swapaxes(1, 2) @ weights, is_release)
    assert shares is not None
    return bases, shares


def to_unit_length(bases: Float[Array, "*n c k"], is_release: bool) -> Float[Array, "*n c k"]:
    """Scale each basis to length 1; `is_release` as in `EMANet`."""
    return _divide(bases, jnp.sqrt(jnp.square(bases).sum(-2, keepdims=True)), is_release)


def _divide(x: Array, by: Array, is_release: bool) -> Array:
    return x / (by + 1e-6 if is_release else jnp.maximum(by, 1e-12))


SPECS = {
    "emanet": ContextSpec(
        make_pooled(lambda s: EMANet(s.width, is_release=True, dtype=s.dtype)),
        is_projected=False,
        frozen=FROZEN,
        meaning="expectation-maximization attention (Li et al. 2019), as in its release",
    ),
    "emanet_mmseg": ContextSpec(
        make_pooled(lambda s: EMANet(s.width, is_release=False, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        frozen=FROZEN,
        meaning="expectation-maximization attention (Li et al. 2019), as in mmsegmentation",
    ),
}
