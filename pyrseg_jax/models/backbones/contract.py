"""The contract between a backbone and the rest of the network."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.weights.importer import Importer


class Cut(NamedTuple):
    """The decision of a gate after a part of a backbone.

    A backbone that takes a gate is called as `module(images, train, gate)`. It calls `gate(index, x, is_open, train)` after parts
    that it chooses, where the index counts from 1, x is the map (N, h, w, channels) so far, and `is_open` is that of the cut before
    (None at the first). The parts after a cut compute only the open positions: all other values are 0, before and after each layer,
    and batch statistics are those of the open positions.

    Attributes:
      logits: (N, h, w, C) class logits, float32.
      is_open: (N, h, w) the positions that later parts compute, a subset of those of the cut before.
      features: (N, h, w, width) the map that was classified.
    """

    logits: Float[Array, "n h w c"]
    is_open: Bool[Array, "n h w"]
    features: Float[Array, "n h w d"]


class Features(NamedTuple):
    """The features that a backbone returns for images (N, H, W, 3).

    Attributes:
      stages: a map (N, H/s, W/s, D_s) for each stage, fine → coarse, each with its own stride s (for example C2 … C5).
      final: (N, H/output_stride, W/output_stride, D), the map that heads read.
      stem: (N, H/2, W/2, channels), the map before the first stage that has stride 2; None where a backbone has no such map.
      blocks: for each stage, the map after each of its blocks, of which the last is the stage; empty where stages are not rows of
        blocks.
      cuts: the decisions of the gate that the backbone was called with, in order, all of the final map's size; empty without one.
    """

    stages: tuple[Float[Array, "n _ _ _"], ...]
    final: Float[Array, "n h w d"]
    stem: Float[Array, "n _ _ _"] | None = None
    blocks: tuple[tuple[Float[Array, "n _ _ _"], ...], ...] = ()
    cuts: tuple[Cut, ...] = ()


# (index, map, open positions or None for all, train) → `Cut`.
Gate = Callable[[int, Float[Array, "n h w c"], Bool[Array, "n h w"] | None, bool], Cut]


class AuxiliaryHead(NamedTuple):
    """The auxiliary classifier that the published networks on a backbone have: a convolution, dropout, and a classifier.

    Attributes:
      stage: index in `Features.stages` of the map that it reads; None: the final map.
      kernel: side of the convolution's kernel.
      width: channels of the convolution; None: as many as the map that it reads.
      dropout: share of the channels that training leaves out.
    """

    stage: int | None = None
    kernel: int = 1
    width: int | None = None
    dropout: float = 0.0


class BackboneSpec(NamedTuple):
    """Everything that the rest of the package must know about a backbone. Nothing else outside `backbones/` depends on one.

    Attributes:
      make: creates the Flax module. The module is called as `module(images, train)` and returns `Features`. `make` takes the
        keyword `dtype` (of the computation), and may take `resize` (a convention of `models.resample.resize`) and `remat` (one
        of `models.blocks.REMATS`) where the backbone upsamples or has rows of equal blocks, and `output_stride`, `stem`,
        `dilation` and `multi_grid` where it comes in such variants.
      output_stride: the stride of `Features.final`, in pixels, unless `make` is given another; with a neck, that of the neck's.
      auxiliary: the auxiliary classifier beside context modules that have one.
      first_stride: the stride of `Features.stages[0]` in pixels; None where the stages fit no decoder.
      gated_stride: the output stride at which the module takes a gate, see `Cut`; None: it takes none.
      make_neck: creates the neck, which turns what the module returns into the four stages and the final map that the rest of the
        network reads; see `models.necks`. It takes the keywords `has_final`, whether the final map is read, and `dtype`. None: the
        module returns all that itself.
      depth_of: path of a parameter inside the module → the number of the layer that it belongs to, 0 at the images, for learning
        rates that decay with the distance from the heads. None: this backbone has no such order.
      importers: layouts of published weight files that fit, in order of preference; see `models.weights`.
      meaning: a description in one line, for help texts.
    """

    make: Callable[..., nn.Module]
    output_stride: int
    auxiliary: AuxiliaryHead = AuxiliaryHead()
    first_stride: int | None = None
    gated_stride: int | None = None
    make_neck: Callable[..., nn.Module] | None = None
    depth_of: Callable[[tuple[str, ...]], int] | None = None
    importers: tuple[Importer, ...] = ()
    meaning: str = ""
