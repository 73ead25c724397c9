"""The strides of the pyramid's levels on a backbone and below a context module."""

from collections.abc import Sequence

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.pyramid.levels import check_strides

# By default the pyramid has four levels, whose strides are these multiples of the backbone's output stride.
DEFAULT_MULTIPLES = (8, 4, 2, 1)


def plan_strides(
    strides: Sequence[int] | None, backbone: str, context: str, output_stride: int | None = None
) -> tuple[tuple[int, ...], int]:
    """Return the strides of the levels, coarse → fine, and the factor that brings the backbone's final map to the finest.

    Args:
      strides: the strides; None: 8, 4, 2 and 1 times that of the finest map.
      backbone: a key of `BACKBONES`.
      context: a key of `CONTEXTS`.
      output_stride: stride of the final map; None: the backbone's default.

    Raises:
      ValueError: naming the argument, if backbone, context and strides do not fit together.

    Chosen: where the finest stride is finer than the backbone's output stride, the final map is enlarged bilinearly (half-pixel)
      before the context module and the heads read it.
    """
    spec, context_spec = BACKBONES[backbone], CONTEXTS[context]
    if context_spec.stride is None:
        output_stride = output_stride or spec.output_stride
        strides = default_strides(output_stride) if strides is None else check_strides(strides)
        return strides, upsampling_to(strides, output_stride)
    if spec.first_stride != 4:
        raise ValueError(
            f"context={context!r} needs a backbone whose first stage has stride 4, and {backbone!r} has none: choose another one "
            "of the two"
        )
    strides = default_strides(context_spec.stride) if strides is None else check_strides(strides)
    if strides[-1] != context_spec.stride:
        raise ValueError(
            f"strides={tuple(strides)}: the finest stride is {strides[-1]}, and the context {context!r} decodes to stride "
            f"{context_spec.stride}, which the finest must be, for example strides={default_strides(context_spec.stride)}"
        )
    return strides, 1


def default_strides(output_stride: int) -> tuple[int, ...]:
    """Return the strides of a four-level pyramid, coarse → fine, on a backbone of this output stride."""
    return tuple(output_stride * multiple for multiple in DEFAULT_MULTIPLES)


def upsampling_to(strides: Sequence[int], output_stride: int) -> int:
    """Return the factor that brings a backbone's final map to the finest stride.

    Raises:
      ValueError: naming both strides, if the factor is not 1, 2, 4, 8, …
    """
    factor, rest = divmod(output_stride, strides[-1])
    if rest or factor & (factor - 1) or not factor:
        raise ValueError(
            f"strides={tuple(strides)}: the finest stride is {strides[-1]}, and the backbone's output stride is "
            f"{output_stride}: the finest must be the output stride, or a half, a quarter … of it, for example "
            f"strides={default_strides(output_stride)}"
        )
    return factor
