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
    """

    stages: tuple[Float[Array, "n _ _ _"], ...]
    final: Float[Array, "n h w d"]


class BackboneSpec(NamedTuple):
    """Everything that the rest of the package must know about a backbone. Nothing else outside `backbones/` depends on one.

    Attributes:
      make: creates the Flax module. The module is called as `module(images, train)` and returns `Features`. `make` takes the
        keyword `dtype` (of the computation), and may take `resize` (a convention of `models.resample.resize`) and `remat` (one
        of `models.blocks.REMATS`) where the backbone upsamples or has rows of equal blocks, and `output_stride`, `stem`,
        `dilation` and `multi_grid` where it comes in such variants.
      output_stride: the stride of `Features.final`, in pixels, unless `make` is given another.
      auxiliary_stage: index in `Features.stages` of the map that an auxiliary classifier reads on this backbone, where the
        context module does not ask for the final map; None: the final map.
      importers: layouts of published weight files that fit, in order of preference; see `models.weights`.
      meaning: a description in one line, for help texts.
    """

    make: Callable[..., nn.Module]
    output_stride: int
    auxiliary_stage: int | None = None
    importers: tuple[Importer, ...] = ()
    meaning: str = ""
