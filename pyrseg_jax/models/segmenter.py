"""The whole network: backbone, context module and the heads of both pyramids."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones import BACKBONES, AuxiliaryHead
from pyrseg_jax.models.contexts import CONTEXTS, ContextOutput, ContextSettings, ContextSpec
from pyrseg_jax.models.contexts.contract import NO_OUTPUTS, Outputs
from pyrseg_jax.models.heads import AuxiliaryClassifier, SemanticHead, UnityHead
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.strides import plan_strides, refine
from pyrseg_jax.pyramid.levels import check_divisible

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What the network predicts for an image.
REPRESENTATIONS = {
    "per_pixel": "a class for each position of the finest level",
    "auxiliary": "the same, and during training also a class for each cell of the coarser levels",
    "pyramid": "the paper's semantic pyramid and unity pyramid",
}
T = TypeVar("T")


class Pyramids(NamedTuple):
    """Both pyramids of logits, coarse → fine, in float32.

    Attributes:
      semantic: L maps (N, H/s, W/s, C); only the finest one where a network predicts no pyramid.
      unity: L-1 maps (N, H/s, W/s), since the finest level is always taken; empty where a network predicts no pyramid.
      auxiliary: logits (N, h, w, C) of the auxiliary classifier beside the context module, for training; None without one.
      outputs: what the extra losses of the context module read, by name; empty without any.
    """

    semantic: tuple[Float[Array, "n _ _ c"], ...]
    unity: tuple[Float[Array, "n _ _"], ...]
    auxiliary: Float[Array, "n h w c"] | None = None
    outputs: Outputs = NO_OUTPUTS


class Segmenter(nn.Module):
    """Predict the semantic and the unity pyramid of a batch of images (Fig. 2), or a class per pixel in the same form.

    Attributes:
      backbone: (images, train) → `Features`.
      context: (features, auxiliary logits, train) → `ContextOutput`, one map per level; see `contexts.contract`.
      neck: (features, train) → features with the stages and the final map that the rest reads; None: those of the backbone.
      semantic_head: maps one feature map per level to class logits per level; None where the context module classifies.
      unity_head: finest map → unity logits per level but the finest; None without a pyramid.
      auxiliary_head: maps one feature map of the backbone to class logits; None without an auxiliary classifier.
      refiner: (features, context output, logits of the finest level, train) → `Refined`; None: those logits are the prediction.
      gate: (index, map, open positions, train) → `Cut`; the backbone calls it. None: the backbone takes none.
      representation: one of `REPRESENTATIONS`.
      strides: strides of the levels in pixels, coarse → fine. The last one is that of the finest logits.
      refined_stride: stride of the refiner's logits outside of training; None: that of the finest level.
      upsampling: factor by which the backbone's final map is enlarged to the finest stride; 1 where that is the output stride,
        and for decoders.
      reads: indices of the backbone's stages that the context module reads.
      unity_reads_context: whether the unity head reads the context module's finest map, and not the backbone's final map: below
        decoders, which have a stride of their own, and where a gate leaves out positions of the final map.
      channels: number of channels of the images.
      auxiliary_stage: index of the stage that the auxiliary classifier reads; None: the final map.
    """

    backbone: nn.Module
    context: nn.Module
    semantic_head: nn.Module | None
    neck: nn.Module | None = None
    unity_head: nn.Module | None = None
    auxiliary_head: nn.Module | None = None
    refiner: nn.Module | None = None
    gate: nn.Module | None = None
    representation: str = "pyramid"
    strides: Sequence[int] = (32, 16, 8, 4)
    refined_stride: int | None = None
    upsampling: int = 1
    reads: tuple[int, ...] = ()
    unity_reads_context: bool = False
    auxiliary_stage: int | None = None
    channels: int = 3

    @property
    def prediction_strides(self) -> tuple[int, ...]:
        """Return the strides of the predicted levels outside of training: those of the levels, but for a refined finest one."""
        return (*self.strides[:-1], self.refined_stride or self.strides[-1])

    @property
    def num_predicted_levels(self) -> int:
        """Return the number of levels that decide outside of training: all of a pyramid, and otherwise one."""
        return len(self.strides) if self.representation == "pyramid" else 1

    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Pyramids:
        """Return the logits of normalized images (N, H, W, channels); H and W must be multiples of the coarsest stride."""
        _, height, width, _ = images.shape
        check_divisible(height, width, self.strides)
        features = self.backbone(images, train) if self.gate is None else self.backbone(images, train, self.gate)
        if self.neck is not None:
            features = self.neck(features, train)
        stages, final = features.stages, _enlarge(features.final, self.upsampling)
        blocks = tuple(features.blocks[i] for i in self.reads) if features.blocks else ()
        auxiliary = None
        if self.auxiliary_head is not None:
            auxiliary = self.auxiliary_head(
                final if self.auxiliary_stage is None else stages[self.auxiliary_stage], train
            )
        features = features._replace(stages=tuple(stages[i] for i in self.reads), final=final, blocks=blocks)
        found = self.context(features, auxiliary, train)
        semantic = self._classify(found, train)
        outputs = found.outputs
        if self.refiner is not None:
            refined = self.refiner(features, found, semantic[-1], train)
            semantic, outputs = (*semantic[:-1], refined.logits), {**outputs, **refined.outputs}
        unity = ()
        if self.unity_head is not None:
            unity = self.unity_head(found.levels[-1] if self.unity_reads_context else final, train)
        return Pyramids(semantic, unity, auxiliary, dict(outputs))

    def _classify(self, found: ContextOutput, train: bool) -> tuple[Float[Array, "n _ _ c"], ...]:
        if self.semantic_head is None:
            assert found.logits is not None, "the context module classifies"
            return (found.logits.astype(jnp.float32),)
        semantic = self.semantic_head(found.levels[-1:] if self.representation == "per_pixel" else found.levels, train)
        return semantic[-1:] if self.representation == "auxiliary" and not train else semantic


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
    crop_px: int = 512,
    hierarchy: tuple[tuple[str, ...], ...] | None = None,
    channels: int = 3,
    **options: Any,
) -> Segmenter:
    """Build a segmenter from names and widths.

    Args:
      num_classes: C.
      backbone, context: keys of `BACKBONES` and `CONTEXTS`.
      representation: one of `REPRESENTATIONS`.
      strides: strides of the pyramid's levels in pixels, coarse → fine; by default 8, 4, 2 and 1 times that of the finest map.
      semantic_width, key_width: D_s, channels inside the context module and of its output; and of queries and keys in it.
      unity_width: D_u, channels inside the unity head.
      dtype: number format of the computation, a key of `DTYPES`. Parameters, batch statistics and loss are always float32.
      crop_px, channels: side of the training images in pixels, which some context modules read; channels of all images.
      hierarchy: for each class, the names of its groups, outermost first, for context modules that read it.
      options: `resize` (upsampling convention of backbone and context, see `resample.resize`) and options of the backbone:
        `remat` (what the backward pass recomputes, see `blocks.REMATS`), `output_stride`, and others that its class has. None is
        the backbone's default.

    Raises:
      ValueError: naming the argument, if its value is not one of these, or if the strides do not fit the backbone.

    Chosen: where the finest stride is finer than the output stride, all modules read an enlarged final map (half-pixel).
    """
    _check_choice("representation", representation, REPRESENTATIONS)
    spec, context_spec = _choose("backbone", backbone, BACKBONES), _choose("context", context, CONTEXTS)
    kind, shape = _choose("dtype", dtype, DTYPES), context_spec.auxiliary(spec.auxiliary)
    strides, upsampling = plan_strides(strides, backbone, context, options.get("output_stride"))
    map_px = crop_px * upsampling // (options.get("output_stride") or spec.output_stride)
    # "nearest" concerns HRNet's exchange units alone.
    rule = "align_corners" if options.get("resize") == "align_corners" else "half_pixel"
    classifies = context_spec.classifies and representation == "per_pixel"
    sizes = num_classes, len(strides), semantic_width, key_width
    settings = ContextSettings(*sizes, rule, map_px, kind, hierarchy, classifies)
    return Segmenter(
        backbone=make_backbone(backbone, context, dtype=kind, **options),
        neck=spec.make_neck(has_final=context_spec.stride is None, dtype=kind) if spec.make_neck else None,
        **_make_parts(context_spec, settings, representation, shape, unity_width),
        representation=representation,
        strides=refine(strides, context_spec.logits_stride if classifies else None),
        refined_stride=context_spec.refined_stride,
        upsampling=upsampling,
        reads=context_spec.reads,
        unity_reads_context=context_spec.stride is not None or context_spec.make_gate is not None,
        auxiliary_stage=shape.stage,
        channels=channels,
    )


def _make_parts(
    spec: ContextSpec, settings: ContextSettings, representation: str, auxiliary: AuxiliaryHead, unity_width: int
) -> dict[str, Any]:
    """Make all parts of a segmenter but the backbone, by the names of its attributes.

    Chosen: a published context module that predicts per pixel is followed by its classifier alone, as published; with levels to
      specialize, each level has a projection of its own, as with every other context.
    """
    num_classes, num_levels, dtype = settings.num_classes, settings.num_levels, settings.dtype
    is_projected = spec.is_projected or representation != "per_pixel"
    return {
        "context": make_context(spec, settings),
        "semantic_head": None
        if settings.classifies
        else SemanticHead(num_classes, num_levels, is_projected, dtype=dtype),
        "unity_head": UnityHead(num_levels, unity_width, dtype=dtype) if representation == "pyramid" else None,
        "auxiliary_head": AuxiliaryClassifier(num_classes, auxiliary, dtype) if spec.has_auxiliary else None,
        "refiner": spec.make_refiner(settings) if spec.make_refiner else None,
        "gate": spec.make_gate(settings) if spec.make_gate else None,
    }


def make_context(spec: ContextSpec, settings: ContextSettings) -> nn.Module:
    """Make a context module; raise ValueError, naming the argument of `build_segmenter`, for a width that it does not have."""
    try:
        return spec.make(settings)
    except ValueError as error:
        raise ValueError(str(error).replace("width=", "semantic_width=", 1)) from error


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


# A backbone that does not take one of these options behaves as if it had this value.
_OPTIONS = {
    "resize": "half_pixel",
    "remat": "off",
    "output_stride": None,
    "stem": None,
    "dilation": None,
    "multi_grid": None,
    "drop_path": None,
}


def make_backbone(name: str, context: str, **options: Any) -> nn.Module:
    """Make a backbone with those options that its constructor takes.

    Args:
      name: a key of `BACKBONES`.
      context: a key of `CONTEXTS`, which may take the option `resize`.
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
        elif value != unset and not (option == "resize" and CONTEXTS[context].has_resize):
            raise ValueError(f"{option}={value!r}: the backbone {name!r} has no such option; leave it at {unset!r}")
    return spec.make(**given)
