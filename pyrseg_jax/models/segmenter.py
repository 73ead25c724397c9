"""The whole network: backbone, context module and the heads of both pyramids."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones import BACKBONES, BackboneSpec, Features
from pyrseg_jax.models.contexts import CONTEXTS, STAGE, ContextSpec
from pyrseg_jax.models.heads import SemanticHead, UnityHead
from pyrseg_jax.models.resample import resize
from pyrseg_jax.pyramid.levels import check_divisible, check_strides

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What the network predicts for an image.
REPRESENTATIONS = {
    "per_pixel": "a class for each position of the finest level",
    "auxiliary": "the same, and during training also a class for each cell of the coarser levels",
    "pyramid": "the paper's semantic pyramid and unity pyramid",
}
# By default the pyramid has four levels, whose strides are these multiples of the backbone's output stride.
DEFAULT_MULTIPLES = (8, 4, 2, 1)

T = TypeVar("T")


class Pyramids(NamedTuple):
    """Both pyramids of logits, coarse → fine, in float32.

    Attributes:
      semantic: L maps (N, H/s, W/s, C); only the finest one where a network predicts no pyramid.
      unity: L-1 maps (N, H/s, W/s), since the finest level is always taken; empty where a network predicts no pyramid.
      auxiliary: logits (N, h, w, C) of the auxiliary classifier beside the context module, for training; None without one.
      losses: extra losses of the context module by name, scalars, for training; None without any.
    """

    semantic: tuple[Float[Array, "n _ _ c"], ...]
    unity: tuple[Float[Array, "n _ _"], ...]
    auxiliary: Float[Array, "n h w c"] | None = None
    losses: dict[str, Float[Array, ""]] | None = None


class Segmenter(nn.Module):
    """Predict the semantic and the unity pyramid of a batch of images (Fig. 2), or a class per pixel in the same form.

    Attributes:
      backbone: (images, train) → `Features`.
      context: (features, auxiliary logits, train) → `ContextOutput`, one map per level; see `contexts.contract`.
      semantic_head: maps one feature map per level to class logits per level.
      unity_head: final map → unity logits per level but the finest; None without a pyramid.
      auxiliary_head: maps one feature map of the backbone to class logits; None without an auxiliary classifier.
      representation: one of `REPRESENTATIONS`.
      strides: strides of the levels in pixels, coarse → fine.
      upsampling: factor by which the backbone's final map is enlarged to the finest stride; 1 where that is the output stride.
      reads: indices of the backbone's stages that the context module reads.
      auxiliary_stage: index of the stage that the auxiliary classifier reads; None: the final map.
    """

    backbone: nn.Module
    context: nn.Module
    semantic_head: nn.Module
    unity_head: nn.Module | None = None
    auxiliary_head: nn.Module | None = None
    representation: str = "pyramid"
    strides: Sequence[int] = (32, 16, 8, 4)
    upsampling: int = 1
    reads: tuple[int, ...] = ()
    auxiliary_stage: int | None = None

    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Pyramids:
        """Return the logits of normalized images (N, H, W, 3); H and W must be multiples of the coarsest stride."""
        _, height, width, _ = images.shape
        check_divisible(height, width, self.strides)
        stages, final = self.backbone(images, train)
        final = _enlarge(final, self.upsampling)
        auxiliary = None
        if self.auxiliary_head is not None:
            read = final if self.auxiliary_stage is None else stages[self.auxiliary_stage]
            (auxiliary,) = self.auxiliary_head((read,), train)
        features = Features(tuple(stages[i] for i in self.reads), final)
        levels, losses = self.context(features, auxiliary, train)
        if self.representation == "per_pixel":
            levels = levels[-1:]
        semantic = self.semantic_head(levels, train)
        if self.representation == "auxiliary" and not train:
            semantic = semantic[-1:]
        unity = () if self.unity_head is None else self.unity_head(final, train)
        return Pyramids(semantic, unity, auxiliary, losses)


def build_segmenter(
    num_classes: int,
    *,
    backbone: str = "hrnet_w48",
    context: str = "coarse_to_fine",
    representation: str = "pyramid",
    strides: Sequence[int] | None = None,
    semantic_width: int = 512,
    key_width: int = 256,
    unity_width: int = 128,
    dtype: str = "float32",
    **options: Any,
) -> Segmenter:
    """Build a segmenter from names and widths.

    Args:
      num_classes: C.
      backbone: a key of `BACKBONES`.
      context: a key of `CONTEXTS`.
      representation: one of `REPRESENTATIONS`.
      strides: strides of the pyramid's levels in pixels, coarse → fine; by default 8, 4, 2 and 1 times the backbone's output
        stride.
      semantic_width: D_s, channels inside the context module and of its output.
      key_width: channels of queries and keys in its attention.
      unity_width: D_u, channels inside the unity head.
      dtype: number format of the computation, a key of `DTYPES`. Parameters, batch statistics, softmax and loss are always
        float32.
      options: options of the backbone: `resize` (upsampling convention, see `resample.resize`), `remat` (what the backward pass
        recomputes, see `blocks.REMATS`), `output_stride`, and others that its class has. None is the backbone's default.

    Raises:
      ValueError: naming the argument, if its value is not one of these, or if the strides do not fit the backbone.

    Chosen: a published context module that predicts per pixel is followed by its classifier alone, as published; with levels to
      specialize, each level has a projection of its own, as with every other context.
    Chosen: where the finest stride is finer than the backbone's output stride, the final map is enlarged bilinearly (half-pixel)
      before the context module and the heads read it.
    """
    _check_choice("representation", representation, REPRESENTATIONS)
    spec, context_spec = _choose("backbone", backbone, BACKBONES), _choose("context", context, CONTEXTS)
    kind = _choose("dtype", dtype, DTYPES)
    output_stride = options.get("output_stride") or spec.output_stride
    strides = default_strides(output_stride) if strides is None else check_strides(strides)
    num_levels = len(strides)
    is_projected = context_spec.is_projected or representation != "per_pixel"
    return Segmenter(
        backbone=make_backbone(backbone, dtype=kind, **options),
        context=context_spec.make(num_levels, semantic_width, key_width, kind),
        semantic_head=SemanticHead(num_classes, num_levels, is_projected, dtype=kind),
        unity_head=UnityHead(num_levels, unity_width, dtype=kind) if representation == "pyramid" else None,
        auxiliary_head=SemanticHead(num_classes, 1, dtype=kind) if context_spec.auxiliary else None,
        representation=representation,
        strides=strides,
        upsampling=upsampling_to(strides, output_stride),
        reads=context_spec.reads,
        auxiliary_stage=_auxiliary_stage(context_spec, spec),
    )


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


def _check_choice(argument: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{argument}={value!r}: expected one of {', '.join(map(repr, choices))}")


def _choose(argument: str, value: str, choices: Mapping[str, T]) -> T:
    _check_choice(argument, value, choices)
    return choices[value]


def _enlarge(x: Float[Array, "n h w c"], factor: int) -> Float[Array, "n _ _ c"]:
    if factor == 1:
        return x
    height, width = x.shape[1:3]
    return resize(x, (factor * height, factor * width), "half_pixel")


def _auxiliary_stage(context: ContextSpec, backbone: BackboneSpec) -> int | None:
    return backbone.auxiliary_stage if context.auxiliary == STAGE else None


# A backbone that does not take one of these options behaves as if it had this value.
_OPTIONS = {
    "resize": "half_pixel",
    "remat": "off",
    "output_stride": None,
    "stem": None,
    "dilation": None,
    "multi_grid": None,
}


def make_backbone(name: str, **options: Any) -> nn.Module:
    """Make a backbone with those options that its constructor takes.

    Args:
      name: a key of `BACKBONES`.
      options: arguments of `BackboneSpec.make`.

    Raises:
      ValueError: if an option like `resize` is set for a backbone that does not have it, or to a value that it does not have.
    """
    spec = _choose("backbone", name, BACKBONES)
    accepted = inspect.signature(spec.make).parameters
    given = {}
    for option, value in options.items():
        unset = _OPTIONS.get(option)
        if option in accepted or option not in _OPTIONS:
            if value is not None:
                given[option] = value
        elif value != unset:
            raise ValueError(f"{option}={value!r}: the backbone {name!r} has no such option; leave it at {unset!r}")
    return spec.make(**given)
