"""The published HRNets under the path that other code imports them from; they live in `models.backbones.hrnet`."""

from pyrseg_jax.models.backbones.hrnet import hrnet_w18, hrnet_w32, hrnet_w48

__all__ = ["hrnet_w18", "hrnet_w32", "hrnet_w48"]
