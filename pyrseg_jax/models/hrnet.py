"""The published HRNets under the path that other code imports them from; they live in `models.backbones.hrnet`.

Here, calling a network returns its final map (N, H/4, W/4, 15·width) alone. The variables are the same.
"""

import functools

from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.hrnet import HRNet

__all__ = ["hrnet_w18", "hrnet_w32", "hrnet_w48"]


class FinalMap(HRNet):
    """An HRNet that returns the final map without the stages."""

    # Callers of this path have always got the array, so this method returns something else than the one that it overrides.
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: Float[Array, "n h w _"], train: bool = False
    ) -> Float[Array, "n _ _ d"]:
        return super().__call__(images, train).final


hrnet_w18 = functools.partial(FinalMap, width=18)
hrnet_w32 = functools.partial(FinalMap, width=32)
hrnet_w48 = functools.partial(FinalMap, width=48)
