"""The names of a ConvNeXt's arrays in the files of each publisher, written down by hand, and the publishers' networks."""

import re

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import abstract_variables
from support import reference_networks

BLOCKS, WIDTHS = (1, 2, 4, 1), (8, 16, 24, 32)  # of the networks for tests
# Layout → the stem's layers, the layers before stage 2, a block of stage 3, and in a block: the depthwise convolution, the
# normalization, both dense layers, V1's scale, and the arrays of V2's normalization.
LAYOUTS = {
    "timm": (
        ("stem.0", "stem.1"),
        ("stages.1.downsample.1", "stages.1.downsample.0"),
        "stages.2.blocks.3",
        ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma", "mlp.grn.weight", "mlp.grn.bias"),
    ),
    "torchvision": (
        ("features.0.0", "features.0.1"),
        ("features.2.1", "features.2.0"),
        "features.5.3",
        ("block.0", "block.2", "block.3", "block.5", "layer_scale", None, None),
    ),
    "transformers": (
        ("convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"),
        ("convnext.encoder.stages.1.downsampling_layer.1", "convnext.encoder.stages.1.downsampling_layer.0"),
        "convnext.encoder.stages.2.layers.3",
        ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter", "grn.weight", "grn.bias"),
    ),
    "DINOv3": (
        ("stages.0.downsample_layers.0", "stages.0.downsample_layers.1"),
        ("stages.1.downsample_layers.1", "stages.1.downsample_layers.0"),
        "stages.2.layers.3",
        ("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma", None, None),
    ),
    "official": (
        ("downsample_layers.0.0", "downsample_layers.0.1"),
        ("downsample_layers.1.1", "downsample_layers.1.0"),
        "stages.2.3",
        ("dwconv", "norm", "pwconv1", "pwconv2", "gamma", "grn.gamma", "grn.beta"),
    ),
    "open-mmlab": (
        ("backbone.downsample_layers.0.0", "backbone.downsample_layers.0.1"),
        ("backbone.downsample_layers.1.1", "backbone.downsample_layers.1.0"),
        "backbone.stages.2.3",
        ("depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2", "gamma", "grn.gamma", "grn.beta"),
    ),
}
# What else is in a file: ImageNet's classifier.
OTHERS = {
    "timm": ("head.norm", "head.fc"),
    "torchvision": ("classifier.0", "classifier.2"),
    "transformers": ("convnext.layernorm", "classifier"),
    "DINOv3": ("layer_norm",),
    "official": ("norm", "head"),
    "open-mmlab": ("head.fc",),
}
_PARTS = ("depthwise", "norm", "fc1", "fc2")


def name_of(layout: str, path: tuple[str, ...]) -> str:
    """Return the published name of an array of a backbone, by its path with the collection first."""
    stem, reduction, block, parts = LAYOUTS[layout]
    kind = "bias" if path[-1] == "bias" else "weight"
    if path[1].startswith("stem"):
        return f"{stem[path[1] == 'stem_norm']}.{kind}"
    if found := re.fullmatch(r"downsample(\d)(_norm)?", path[1]):
        name = reduction[found[2] is not None]
        first = 2 * int(found[1]) - 2 if layout == "torchvision" else int(found[1]) - 1
        before = r"features\.2" if layout == "torchvision" else r"(stages|downsample_layers)\.1"
        return re.sub(before, lambda m: m[0][:-1] + str(first), name, count=1) + f".{kind}"
    stage, index = re.fullmatch(r"stage(\d)_block_(\d)", path[1]).groups()
    first = 2 * int(stage) - 1 if layout == "torchvision" else int(stage) - 1
    block = re.sub(r"\d(\.|\.blocks\.|\.layers\.)\d$", lambda m: f"{first}{m[1]}{index}", block)
    if path[2] in ("layer_scale", "grn"):
        return f"{block}.{parts[{'layer_scale': 4, 'grn': 5}[path[2]] + (path[-1] == 'beta')]}"
    return f"{block}.{parts[_PARTS.index(path[2])]}.{kind}"


def published(layout: str, backbone: str) -> tuple[dict, dict]:
    """Return a file in a publisher's layout with random numbers, and the variables that it should give."""
    rng = np.random.default_rng(0)
    state = {f"{name}.{kind}": np.zeros(3) for name in OTHERS[layout] for kind in ("weight", "bias")}
    expected = {}
    for path, leaf in flatten_dict(abstract_variables(BACKBONES[backbone].make())).items():
        array = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        expected[path] = array
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        elif path[-2] == "layer_scale" and layout == "torchvision":
            array = array[:, None, None]
        elif path[-2] == "grn" and layout in ("transformers", "official"):
            array = array[None, None, None]
        state[name_of(layout, path)] = array
    return state, unflatten_dict(expected)


def network_of(layout: str, is_v2: bool):
    """Build a publisher's network of the size for tests, with random weights."""
    if layout == "timm":
        reference_networks.timm_models()
        from timm.models.convnext import ConvNeXt

        options = {"use_grn": True, "ls_init_value": None, "conv_mlp": True} if is_v2 else {}
        network = ConvNeXt(depths=BLOCKS, dims=WIDTHS, num_classes=5, **options)
    elif layout == "torchvision":
        convnext = reference_networks.torchvision_models().convnext
        nexts = (*WIDTHS[1:], None)
        stages = [convnext.CNBlockConfig(*stage) for stage in zip(WIDTHS, nexts, BLOCKS, strict=True)]
        network = convnext.ConvNeXt(stages, num_classes=5)
    elif layout == "open-mmlab":
        network = _mmpretrain(is_v2)
    else:
        transformers, options = (
            reference_networks.transformers_models(),
            {"depths": list(BLOCKS), "hidden_sizes": list(WIDTHS)},
        )
        if layout == "DINOv3":
            network = transformers.DINOv3ConvNextModel(transformers.DINOv3ConvNextConfig(**options))
        elif is_v2:
            network = transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**options))
        else:
            network = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**options))
    return reference_networks.randomize(network)


def _mmpretrain(is_v2: bool):
    """Build the network of mmpretrain 1.2.0, which mmsegmentation uses.

    It is installed without its dependencies, but for these: importlib_metadata, zipp, model-index, mat4py, ordered-set, einops.
    """
    reference_networks.mmseg_models()
    reference_networks.require("mmpretrain")
    from mmpretrain.models.backbones.convnext import ConvNeXt

    arch = {"depths": BLOCKS, "channels": WIDTHS}
    options = {"use_grn": True, "layer_scale_init_value": 0.0} if is_v2 else {}
    return ConvNeXt(arch, out_indices=(0, 1, 2, 3), gap_before_final_norm=False, **options)


def stages_of(layout: str, network, images) -> list:
    """Return the features of all stages (N, C, H, W) of a publisher's network for images (N, 3, H, W)."""
    if layout == "timm":
        return network.forward_intermediates(images, intermediates_only=True)
    if layout == "torchvision":
        stages, x = [], images
        for index, module in enumerate(network.features):
            x = module(x)
            stages += [x] if index % 2 else []
        return stages
    if layout == "open-mmlab":
        stages, x = [], images
        for reduce, stage in zip(network.downsample_layers, network.stages, strict=True):
            x = stage(reduce(x))
            stages.append(x)
        return stages
    states = network(images, output_hidden_states=True).hidden_states
    return list(states)[-len(WIDTHS) :]


def state_of(network, layout: str) -> dict:
    """Return the arrays of a network as its publisher's files have them, but for those that go to the neck of ours."""
    prefix = "backbone." if layout == "open-mmlab" else ""
    return {
        f"{prefix}{name}": tensor.detach().clone().contiguous()
        for name, tensor in network.state_dict().items()
        if not re.match(r"norm\d\.", name)
    }


def to_official(state: dict) -> dict:
    """Return the arrays of timm's network under the names, and in the shapes, of the official files."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"\.blocks\.", ".", name).replace("conv_dw", "dwconv").replace("head.norm", "norm")
        name = re.sub(r"mlp\.fc(\d)", r"pwconv\1", name).replace("head.fc", "head")
        name = name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
        if "pwconv" in name:
            tensor = tensor.reshape(tensor.shape[:2])
        renamed[name] = tensor.reshape(1, 1, 1, -1) if ".grn." in name else tensor
    return renamed
