"""The pyramid pooling of PSPNet, which UperNet has, too."""

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.contexts.contract import enlarge
from pyrseg_jax.models.layers import ConvNormAct, pyramid_sampling

BINS = (1, 2, 3, 6)  # per side, of each pooled map


def pool_pyramid(
    x: Float[Array, "n h w c"],
    width: int,
    resize: str,
    *,
    is_enlarged_first: bool = False,
    dtype: DTypeLike,
    train: bool,
) -> tuple[Float[Array, "n h w {width}"], ...]:
    """Average a map over 1, 2, 3 and 6 bins per side, and bring each result back to its size. Call it inside of a compact method.

    Args:
      x: (N, h, w, C).
      width: channels of each result, from a 1×1 convolution with normalization and ReLU, named `pool_1` … `pool_6`.
      resize: convention of `models.resample.resize`.
      is_enlarged_first: whether the convolution comes after the enlargement, and not before it.
      dtype: number format of the computation.
      train: whether the network is in training.

    Source: Zhao et al. 2017, "Pyramid Pooling Module".
    """
    tokens, first, pooled = pyramid_sampling(x, BINS), 0, []
    for bins in BINS:
        y = tokens[:, first : first + bins * bins].reshape(x.shape[0], bins, bins, -1)
        first += bins * bins
        project = ConvNormAct(width, dtype=dtype, name=f"pool_{bins}")
        pooled.append(
            project(enlarge(y, x, resize), train) if is_enlarged_first else enlarge(project(y, train), x, resize)
        )
    return tuple(pooled)
