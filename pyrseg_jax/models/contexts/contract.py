"""The contract between a context module and the rest of the network.

A context module turns the backbone's features into one feature map per level of the pyramid. It is a Flax module, called as
`context(features, auxiliary, train)`:

* `features` is a `Features`: `final` (N, h, w, D) has the finest level's stride, and `stages` holds the stages that the spec names.
* `auxiliary` holds the class logits (N, h', w', C) of the auxiliary classifier, or is None where the spec asks for none.
* `train` says whether the network is in training, for batch statistics and dropout. Dropout takes the rng `dropout`.

It returns a `ContextOutput`. State that no gradient changes, such as a memory of class prototypes, belongs in the collection
`batch_stats`: training carries it from step to step and keeps it in checkpoints.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.layers import halve

Logits = Float[Array, "n h w c"]

# Places where an auxiliary classifier may stand: on the map that the heads read, or on the stage that the backbone's spec names for
# it (which is the final map where the backbone names none).
FINAL, STAGE = "final", "stage"


class ContextOutput(NamedTuple):
    """The result of a context module.

    Attributes:
      levels: L maps (N, h/2^(L-l), w/2^(L-l), channels), coarse → fine.
      losses: extra losses by name, scalars, as listed in the module's spec; None for a module without any.
    """

    levels: tuple[Float[Array, "n _ _ _"], ...]
    losses: dict[str, Float[Array, ""]] | None = None


class ContextSpec(NamedTuple):
    """Everything that the rest of the package must know about a context module. Being listed in `CONTEXTS` implies none of it.

    Attributes:
      make: (num_levels, width, key_width, dtype) → the Flax module. `width` is D_s, the channels of its output; `key_width` is the
        number of channels of its queries and keys.
      reads: indices in `Features.stages` of the stages that it reads, beside the final map.
      auxiliary: position of the auxiliary classifier, `FINAL` or `STAGE`; None if there is none.
      is_projected: whether a non-linear projection stands between the module and the classifier of a network that predicts one
        class per pixel. With levels to specialize, each level always has a projection of its own.
      losses: the extra losses that it returns, name → weight in the training objective.
      has_state: whether it keeps state beside its parameters and its running batch statistics.
      meaning: a description in one line, for help texts.
    """

    make: Callable[[int, int, int, DTypeLike], nn.Module]
    reads: tuple[int, ...] = ()
    auxiliary: str | None = None
    is_projected: bool = True
    losses: Mapping[str, float] = MappingProxyType({})
    has_state: bool = False
    meaning: str = ""


class Pooled(nn.Module):
    """One map, averaged to the size of each level.

    Attributes:
      num_levels: L.
      context: (features, auxiliary, train) → the map (N, h, w, channels); None: the backbone's final map as it is.

    Source: Sec. 3.3, "A naive way …". Without a context, these are the rows A, D, E and F of Table 2a; with ANL, rows B and G.
    """

    num_levels: int
    context: nn.Module | None = None

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextOutput:
        x = features.final if self.context is None else self.context(features, auxiliary, train)
        return ContextOutput(tuple(halve(x, times) for times in reversed(range(self.num_levels))))


def make_pooled(module: Callable[..., nn.Module]) -> Callable[[int, int, int, DTypeLike], nn.Module]:
    """Return the `make` of a published module that predicts one map: `Pooled` brings it to every level."""

    def make(num_levels: int, width: int, key_width: int, dtype: DTypeLike) -> nn.Module:
        return Pooled(num_levels, module(width, key_width, dtype))

    return make


def make_none(num_levels: int, width: int, key_width: int, dtype: DTypeLike) -> nn.Module:
    """Return the network's part where there is no context module: the final map, averaged to the size of each level."""
    del width, key_width, dtype  # nothing is computed but means
    return Pooled(num_levels)
