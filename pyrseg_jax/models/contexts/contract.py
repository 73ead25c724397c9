"""The contract between a context module and the rest of the network.

A context module turns the backbone's features into one feature map per level of the pyramid. It is a Flax module, called as
`context(features, auxiliary, train)`:

* `features` is a `Features`: `final` (N, h, w, D), and in `stages` those stages that the spec names. `final` has the finest
  level's stride; for a decoder, which has a stride of its own, it is the backbone's map as it is.
* `auxiliary` holds the class logits (N, h', w', C) of the auxiliary classifier, or is None where the spec asks for none.
* `train` says whether the network is in training, for batch statistics and dropout. Dropout takes the rng `dropout`.

It returns a `ContextOutput`. State that no gradient changes, such as a memory of class prototypes, belongs in the collection
`batch_stats`: training carries it from step to step and keeps it in checkpoints.

The file of a module ends with `SPECS`: for each name that the module has in `CONTEXTS`, its `ContextSpec`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, Features
from pyrseg_jax.models.layers import average_levels
from pyrseg_jax.models.resample import resize
from pyrseg_jax.pyramid import levels

Logits = Float[Array, "n _ _ c"]  # the auxiliary classifier may read a map of another size
Outputs = Mapping[str, Any]  # arrays, or tuples of arrays, by name
NO_OUTPUTS: Outputs = FrozenDict()  # unlike other mappings that cannot be changed, jax knows this one


class ContextSettings(NamedTuple):
    """What a context module is built for.

    Attributes:
      num_classes: C.
      num_levels: L.
      width: D_s, channels inside of most modules and of their output.
      key_width: channels of queries and keys, in modules of attention.
      resize: convention of `models.resample.resize` by which the module enlarges maps.
      map_px: side in positions of the map that the backbone makes of a training image, for modules whose parameters depend on it.
      dtype: number format of the computation.
      hierarchy: for each class, the names of the groups that hold it, outermost first; None: all classes belong together. See
        `contexts.tree`.
      classifies: whether the network takes the module's own logits: it predicts one class per pixel, and the spec says that the
        module classifies.
    """

    num_classes: int
    num_levels: int
    width: int = 512
    key_width: int = 256
    resize: str = "half_pixel"
    map_px: int = 64
    dtype: DTypeLike = jnp.float32
    hierarchy: tuple[tuple[str, ...], ...] | None = None
    classifies: bool = True


class ContextOutput(NamedTuple):
    """The result of a context module.

    Attributes:
      levels: L maps (N, h/2^(L-l), w/2^(L-l), channels), coarse → fine.
      logits: class logits (N, h, w, C) of the finest level, or of the spec's `logits_stride`, from modules whose spec says that
        they classify; else None.
      outputs: what the module's extra losses and its refiner read, by name; empty for most modules.
    """

    levels: tuple[Float[Array, "n _ _ _"], ...]
    logits: Logits | None = None
    outputs: Outputs = NO_OUTPUTS


class ContextLoss(NamedTuple):
    """An extra loss of a context module.

    Attributes:
      weight: factor in the training objective.
      compute: (outputs, labels (N, H, W) of train ids with 255 = void, supervision) → the loss, a scalar in float32. The outputs
        are those of the module and its refiner; the supervision is one of `models.supervision.SUPERVISIONS`.
    """

    weight: float
    compute: Callable[[Outputs, Integer[levels.Array, "n H W"], str], Float[levels.Array, ""]]


class Refined(NamedTuple):
    """The result of a refiner.

    Attributes:
      logits: class logits (N, h', w', C) that replace those of the finest level. In training they have its size, and else that of
        the spec's `refined_stride`.
      outputs: more outputs for the module's extra losses, by name.
    """

    logits: Logits
    outputs: Outputs = NO_OUTPUTS


Make = Callable[[ContextSettings], nn.Module]


def _same(shape: AuxiliaryHead) -> AuxiliaryHead:
    return shape


class ContextSpec(NamedTuple):
    """Everything that the rest of the package must know about a context module. Being listed in `CONTEXTS` implies none of it.

    Attributes:
      make: settings → the Flax module.
      reads: indices in `Features.stages` of the stages that it reads, beside the final map. On ResNets, 0 … 3 are C2 … C5; on
        HRNets, the four branches.
      stride: stride in pixels of the finest map that it returns; None: that of the final map. A module with a stride of its own, a
        decoder, needs a backbone whose first stage has stride 4.
      has_auxiliary: whether an auxiliary classifier stands beside it, on the stage that the backbone's spec names.
      auxiliary: sizes of the backbone's auxiliary classifier → those of the one beside this module, on the same stage.
      is_projected: whether a non-linear projection stands between the module and the classifier of a network that predicts one
        class per pixel. With levels to specialize, each level always has a projection of its own.
      classifies: whether it returns the logits of a network that predicts one class per pixel itself.
      logits_stride: stride in pixels of these logits, where they are finer than the module's finest map; None: that of the map.
      has_resize: whether it enlarges maps by the setting `resize`.
      make_refiner: settings → a module that improves the logits of the finest level, called as `refiner(features, context output,
        logits, train)` → `Refined`; None: there is none.
      refined_stride: stride in pixels of the refiner's logits outside of training, a half, a quarter … of that of the finest level;
        None: that of the finest level.
      make_gate: settings → a module that decides after some of the backbone's stages which positions the later ones leave out, see
        `backbones.contract.Cut`; None: all positions pass through the whole backbone. It needs a backbone that takes a gate.
      losses: its extra losses by name.
      reads_hierarchy: whether it is built for the hierarchy of the classes, and so for one data set.
      frozen: paths of layers in the network's parameters, joined by "/", that no gradient reaches. The optimizer leaves them as
        they are, without weight decay.
      meaning: a description in one line, for help texts.
    """

    make: Make
    reads: tuple[int, ...] = ()
    stride: int | None = None
    has_auxiliary: bool = False
    auxiliary: Callable[[AuxiliaryHead], AuxiliaryHead] = _same
    is_projected: bool = True
    classifies: bool = False
    logits_stride: int | None = None
    has_resize: bool = False
    make_refiner: Make | None = None
    refined_stride: int | None = None
    make_gate: Make | None = None
    losses: Mapping[str, ContextLoss] = MappingProxyType({})
    reads_hierarchy: bool = False
    frozen: tuple[str, ...] = ()
    meaning: str = ""


class ContextMap(NamedTuple):
    """The result of a module that predicts one map, where it is more than the map; see `Pooled`.

    Attributes:
      features: (N, h, w, channels).
      logits, outputs: as in `ContextOutput`.
    """

    features: Float[Array, "n h w c"]
    logits: Logits | None = None
    outputs: Outputs = NO_OUTPUTS


class Pooled(nn.Module):
    """One map, averaged to the size of each level.

    Attributes:
      num_levels: L.
      context: (features, auxiliary, train) → the map (N, h, w, channels) or a `ContextMap`; None: the backbone's final map as it
        is.

    Source: Sec. 3.3, "A naive way …". Without a context, these are the rows A, D, E and F of Table 2a; with ANL, rows B and G.
    """

    num_levels: int
    context: nn.Module | None = None

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextOutput:
        found = features.final if self.context is None else self.context(features, auxiliary, train)
        found = found if isinstance(found, ContextMap) else ContextMap(found)
        return ContextOutput(average_levels(found.features, self.num_levels), found.logits, found.outputs)


def make_pooled(make: Make) -> Make:
    """Return the `make` of a published module that predicts one map: `Pooled` brings it to every level."""
    return lambda settings: Pooled(settings.num_levels, make(settings))


def make_none(settings: ContextSettings) -> nn.Module:
    """Return the network's part where there is no context module: the final map, averaged to the size of each level."""
    return Pooled(settings.num_levels)


def enlarge(x: Float[Array, "n h w c"], like: Float[Array, "n H W _"], convention: str) -> Float[Array, "n H W c"]:
    """Resample a map to the height and width of another one; a map that has them stays as it is."""
    return x if x.shape[1:3] == like.shape[1:3] else resize(x, like.shape[1:3], convention)
