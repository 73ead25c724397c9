"""Compare logits with label maps of another size."""

from jaxtyping import Float, Integer

from pyrseg_jax.models.resample import resize
from pyrseg_jax.pyramid import build_targets
from pyrseg_jax.pyramid.levels import Array, as_classes
from pyrseg_jax.pyramid.losses import masked_cross_entropy

# The size at which per-pixel logits are compared with the label map.
SUPERVISIONS = {
    "finest": "sample the labels at the positions of the finest level",
    "full_size": "interpolate the logits to the size of the label map, as the other methods of Table 1 do",
}


def fit_to_labels(
    logits: Float[Array, "n h w c"], labels: Integer[Array, "n H W"], supervision: str
) -> tuple[Float[Array, "n h2 w2 c"], Integer[Array, "n h2 w2"]]:
    """Bring logits and labels to one size; labels are sampled but never interpolated.

    Args:
      logits: (N, H/s, W/s, C) for a stride s.
      labels: (N, H, W) train ids; `conventions.void_of` their type is void.
      supervision: `"finest"` samples the labels at the logits' positions; `"full_size"` interpolates the logits to H × W.
    """
    if supervision == "full_size":
        return resize(logits, labels.shape[1:], "half_pixel"), as_classes(labels)
    stride = labels.shape[1] // logits.shape[1]
    return logits, build_targets(labels, (stride,)).semantic[0]


def cross_entropy(
    logits: Float[Array, "n h w c"], labels: Integer[Array, "n H W"], supervision: str
) -> Float[Array, ""]:
    """Return the mean cross entropy of logits of any stride over the labeled positions, or 0 if there are none."""
    return masked_cross_entropy(*fit_to_labels(logits, labels, supervision))
