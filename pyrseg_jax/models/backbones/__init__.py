"""Backbones: images to features, one file per family.

To add a backbone, write a file for its family and add one line to `BACKBONES`. `contract.py` says what a backbone returns, and
what its spec tells the rest of the package.
"""

from pyrseg_jax.models.backbones import hrnet
from pyrseg_jax.models.backbones.contract import BackboneSpec, Features
from pyrseg_jax.models.weights import hrnet_layout

__all__ = ["BACKBONES", "BackboneSpec", "Features"]

BACKBONES: dict[str, BackboneSpec] = {
    "hrnet_w18": BackboneSpec(hrnet.hrnet_w18, hrnet.OUTPUT_STRIDE, importers=(hrnet_layout.HRNET,)),
    "hrnet_w32": BackboneSpec(hrnet.hrnet_w32, hrnet.OUTPUT_STRIDE, importers=(hrnet_layout.HRNET,)),
    "hrnet_w48": BackboneSpec(hrnet.hrnet_w48, hrnet.OUTPUT_STRIDE, importers=(hrnet_layout.HRNET,)),
    "hrnet_tiny": BackboneSpec(hrnet.hrnet_tiny, hrnet.OUTPUT_STRIDE, importers=(hrnet_layout.HRNET,)),
    "hrnet_small": BackboneSpec(hrnet.hrnet_small, hrnet.OUTPUT_STRIDE, importers=(hrnet_layout.HRNET,)),
}
