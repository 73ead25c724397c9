"""The encoding module of EncNet (Zhang et al. 2018), which CFNet shares, and the loss on the classes that an image contains."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.contexts.contract import Outputs
from pyrseg_jax.models.layers import ConvNormAct, output_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.pyramid import levels

NUM_CODES = 32
# PyTorch's default for linear layers, U(±1/√inputs), which the releases keep for the gate.
_linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Encoded(NamedTuple):
    """The result of the encoding module.

    Attributes:
      features: (N, h, w, D), the map with its channels weighted for the whole image.
      presence: logits (N, C) of the classes that the image contains, in float32; None where the module does not predict them.
    """

    features: Float[Array, "n h w d"]
    presence: Float[Array, "n c"] | None


class EncodingModule(nn.Module):
    """Summarize a map by its residuals to learned codewords, and weight the map's channels by that summary.

    With positions z_i, codewords d_k and factors s_k, the residuals are e_k = Σ_i a_ik (z_i - d_k), where a_ik is the softmax over
    k of s_k ‖z_i - d_k‖². They are normalized over the images and channels of each codeword, made positive by a ReLU, and averaged
    over the codewords.

    Attributes:
      num_classes: C, of the logits of presence; None: the module does not predict them.
      num_codes: K.
      dtype: number format of the computation; distances, softmax and residuals are always float32.

    Source: Zhang et al. 2018, Sec. 3; the public code of PyTorch-Encoding, where the factors carry their sign and start in -1 … 0.
    Chosen: the layer of presence starts near zero, as all layers of logits here.
    """

    num_classes: int | None
    num_codes: int = NUM_CODES
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"], train: bool) -> Encoded:
        width = x.shape[-1]
        bound = (self.num_codes * width) ** -0.5
        codewords = self.param("codewords", _uniform(-bound, bound), (self.num_codes, width))
        factors = self.param("factors", _uniform(-1.0, 0.0), (self.num_codes,))
        z = ConvNormAct(width, dtype=self.dtype, name="project")(x, train)
        residuals = encode(z, codewords, factors)
        # The normalization is over codewords, so they stand where channels do: (N, 1, D, K).
        code = BatchNorm(is_active=True, name="norm")(residuals.swapaxes(1, 2)[:, None], train).mean((1, 3))
        gate = nn.sigmoid(nn.Dense(width, kernel_init=_linear_init, name="gate")(code)).astype(self.dtype)
        presence = None
        if self.num_classes is not None:
            presence = nn.Dense(self.num_classes, kernel_init=output_init, name="presence")(code)
        return Encoded(nn.relu(x + x * gate[:, None, None]), presence)


def encode(
    z: Float[Array, "n h w d"], codewords: Float[Array, "k d"], factors: Float[Array, "k"]
) -> Float[Array, "n k d"]:
    """Return the residuals of a map to each codeword, added up over the positions, in float32.

    ‖z - d‖² is computed as ‖z‖² - 2 z·d + ‖d‖²: the differences themselves would be h · w · K · D numbers per image.

    Args:
      z: the map.
      codewords: d_k.
      factors: s_k; where it is negative, the nearest codewords get the largest weights.
    """
    n, h, w, width = z.shape
    rows = z.reshape(n, h * w, width).astype(jnp.float32)
    products = jnp.matmul(rows, codewords.T, precision="highest")
    distances = jnp.sum(jnp.square(rows), -1, keepdims=True) - 2 * products + jnp.sum(jnp.square(codewords), -1)
    weights = nn.softmax(factors * distances, axis=-1)
    masses = weights.sum(1)[..., None]
    return jnp.matmul(weights.swapaxes(1, 2), rows, precision="highest") - masses * codewords


def presence_loss(
    outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str
) -> Float[levels.Array, ""]:
    """Return the semantic encoding loss: mean binary cross entropy of the classes that occur in each image's label map.

    Void does not count as a class. The supervision does not matter: labels of the full size are read.

    Args:
      outputs: `presence` are logits (N, C).
      labels: (N, H, W) train ids, 255 = void.
      supervision: unused.

    Source: Zhang et al. 2018, Sec. 3.1.
    """
    logits = outputs["presence"]
    occurs = (jnp.asarray(labels)[..., None] == jnp.arange(logits.shape[-1])).any((1, 2))
    return jnp.mean(jax.nn.softplus(logits) - jnp.where(occurs, logits, 0))


def _uniform(low: float, high: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, low, high)
