"""The contract between a backbone and the rest of the network."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from pyrseg_jax.models.weights.importer import Importer


class Features(NamedTuple):
    """The features that a backbone returns for images (N, H, W, 3).

    Attributes:
      stages: a map (N, H/s, W/s, D_s) for each stage, fine → coarse, each with its own stride s (for example C2 … C5).
      final: (N, H/output_stride, W/output_stride, D), the map that heads read.
      stem: (N, H/2, W/2, channels), the map before the first stage that has stride 2; None where a backbone has no such map.
      blocks: for each stage, the map after each of its blocks, of which the last is the stage; empty where stages are not rows of
        blocks.
    """

    stages: tuple[Float[Array, "n _ _ _"], ...]
    final: Float[Array, "n h w d"]
    stem: Float[Array, "n _ _ _"] | None = None
    blocks: tuple[tuple[Float[Array, "n _ _ _"], ...], ...] = ()


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
      output_stride: the stride of `Features.final`, in pixels, unless `make` is given another.
      auxiliary: the auxiliary classifier beside context modules that have one.
      first_stride: the stride of `Features.stages[0]` in pixels; None where the stages fit no decoder.
      importers: layouts of published weight files that fit, in order of preference; see `models.weights`.
      meaning: a description in one line, for help texts.
    """

    make: Callable[..., nn.Module]
    output_stride: int
    auxiliary: AuxiliaryHead = AuxiliaryHead()
    first_stride: int | None = None
    importers: tuple[Importer, ...] = ()
    meaning: str = ""
