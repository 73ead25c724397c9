"""The keys `model.*`."""

from typing import Annotated

from pydantic import StrictInt

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, group, key


@group
class Model:
    """The network. The default widths are the paper's for HRNet-W32 and HRNet-W48."""

    backbone: Annotated[str, OneOf(choices.backbones)] = key("hrnet_w48", "Network that computes the features.")
    context: Annotated[str, OneOf(choices.contexts)] = key(
        "coarse_to_fine", "Context module between backbone and heads (Sec. 3.3)."
    )
    representation: Annotated[str, OneOf(choices.representations)] = key(
        "pyramid",
        "Kind of prediction: the paper's pyramid, or one class per pixel.",
    )
    strides: tuple[StrictInt, ...] = key(
        (),
        "Strides of the pyramid's levels, coarse to fine. Each stride is twice the next. () takes 8, 4, 2 and 1 times the stride "
        "of the finest map, (32, 16, 8, 4) on an HRNet.",
        unit="px",
    )
    semantic_width: int = key(512, "Channels of the semantic features, D_s.", unit="channels", at_least=1)
    key_width: int = key(256, "Channels of the attention's queries and keys.", unit="channels", at_least=1)
    unity_width: int = key(128, "Channels of the unity features, D_u.", unit="channels", at_least=1)
    resize: Annotated[str, OneOf(choices.resize_conventions)] = key(
        "half_pixel",
        "Convention for upsampling in the backbone and the context module. Published weights come with different ones.",
    )
    output_stride: int | None = key(
        None, "Stride of the last stage of a ResNet: 8, 16 or 32. None takes the backbone's default.", unit="px"
    )
    stem: Annotated[str | None, OneOf(choices.stems)] = key(
        None, "First layers of a ResNet. None takes the backbone's default."
    )
    dilation: Annotated[str | None, OneOf(choices.dilation_rules)] = key(
        None, "Dilation of the first block of a ResNet's dilated stages. None takes the backbone's default."
    )
    multi_grid: tuple[StrictInt, ...] | None = key(
        None, "Dilation of each block of a ResNet's last stage. None follows the output stride.", is_tuple=True
    )
    drop_path: float | None = key(
        None,
        "Rate at which training leaves out the branches of the last block for one image (stochastic depth); it falls to 0 at the "
        "first block. ConvNeXt, Swin, MiT, ViT and MobileNetV3 have it. None takes the backbone's default.",
        at_least=0.0,
        at_most=0.99,
    )
    init: str | None = key(
        None,
        "Weights to start from: a file of published weights, or several that are parts of one network, joined with commas; a "
        "repository of the Hugging Face hub, `hf://ORG/NAME`, `hf://ORG/NAME@REVISION` or `hf://ORG/NAME/FILE`, or its folder in "
        "the hub's cache; or the folder of another run. None starts from random weights.",
    )
    remat: Annotated[str, OneOf(choices.remats)] = key(
        "off",
        "Activations that the backward pass recomputes to save memory.",
        resumable=True,
    )
    dtype: Annotated[str, OneOf(choices.dtypes)] = key(
        "bfloat16", "Number format of the computation. Parameters and loss are always float32."
    )
