"""Backbones: images to features, one file per family.

To add a backbone, write a file for its family and add one line to `BACKBONES`. `contract.py` says what a backbone returns, and
what its spec tells the rest of the package.
"""

import functools

from pyrseg_jax.models.backbones import hrnet, resnet
from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Cut, Features
from pyrseg_jax.models.backbones.convnext import CONVNEXT
from pyrseg_jax.models.backbones.mit import MIT
from pyrseg_jax.models.backbones.mobilenet import MOBILENET
from pyrseg_jax.models.backbones.swin import SWIN
from pyrseg_jax.models.backbones.vit import VIT
from pyrseg_jax.models.weights import hrnet_layout, resnet_layout

__all__ = ["BACKBONES", "AuxiliaryHead", "BackboneSpec", "Cut", "Features"]

_HRNET = functools.partial(
    BackboneSpec,
    output_stride=hrnet.OUTPUT_STRIDE,
    first_stride=4,
    gated_stride=hrnet.OUTPUT_STRIDE,
    importers=(hrnet_layout.HRNET,),
)
_RESNET = functools.partial(
    BackboneSpec,
    output_stride=resnet.OUTPUT_STRIDE,
    auxiliary=resnet.AUXILIARY,
    first_stride=4,
    gated_stride=resnet.GATED_STRIDE,
    importers=resnet_layout.RESNET_IMPORTERS,
)

BACKBONES: dict[str, BackboneSpec] = {
    "hrnet_w18": _HRNET(hrnet.hrnet_w18, meaning="HRNetV2-W18, the smallest of the published networks here"),
    "hrnet_w32": _HRNET(hrnet.hrnet_w32, meaning="HRNetV2-W32, as in Table 2a"),
    "hrnet_w48": _HRNET(hrnet.hrnet_w48, meaning="HRNetV2-W48, as in Table 1"),
    "hrnet_tiny": _HRNET(hrnet.hrnet_tiny, meaning="every kind of layer once, 8 channels: for tests and trials"),
    "hrnet_small": _HRNET(
        hrnet.hrnet_small, meaning="a narrow network with a narrow stem, for training on two CPU cores"
    ),
    "resnet50": _RESNET(resnet.resnet50, meaning="ResNet-50, dilated to output stride 8"),
    "resnet101": _RESNET(
        resnet.resnet101, meaning="ResNet-101, dilated to output stride 8, as in most rows of Table 1"
    ),
    "resnet_tiny": _RESNET(resnet.resnet_tiny, meaning="every kind of a ResNet's layers, 8 channels: for tests"),
    **CONVNEXT,
    **SWIN,
    **MIT,
    **MOBILENET,
    **VIT,
}
