"""Swin Transformers of other packages: small ones with random weights, in files as their programs write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.models.backbones.swin import SwinTransformer
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.necks import MergeStages
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.importer import Import, import_weights
from pyrseg_jax.models.weights.swin_layout import SWIN_IMPORTERS
from support.reference_networks import mmseg_models, randomize, timm_models, torchvision_models, transformers_models

SIZES: dict[str, Any] = {"num_blocks": (2, 1, 2, 2), "num_heads": (1, 2, 2, 4), "width": 8, "window": 3}
DEPTHS, HEADS, WIDTH, WINDOW = SIZES["num_blocks"], SIZES["num_heads"], SIZES["width"], SIZES["window"]


class Stages(nn.Module):
    """A Swin Transformer and its neck: images → the stages as they are, or normalized."""

    backbone: SwinTransformer
    is_normalized: bool

    def setup(self):
        """Make the neck, which has no final map."""
        self.neck = MergeStages(has_final=False, epsilon=1e-5)

    def __call__(self, images, train: bool = False):
        """Return the four stages, coarse last."""
        features = self.backbone(images, train)
        normalized = self.neck(features, train).stages
        return normalized if self.is_normalized else features.stages


class Published(NamedTuple):
    """A publisher's network.

    Attributes:
      network: with random weights.
      stages: (network, images (N, 3, H, W)) → the four stages as PyTorch's tensors in our axes.
      is_normalized, splits_single: what the stages are, see `Stages` and `SwinTransformer`.
    """

    network: Any
    stages: Callable[[Any, Any], list]
    is_normalized: bool = False
    splits_single: bool = False


def channels_last(maps) -> list:
    """Bring maps (N, C, h, w) to our axes."""
    return [x.permute(0, 2, 3, 1) for x in maps]


def build_timm(size: tuple[int, int] = (96, 96)) -> Published:
    """timm's class, whose native size is `size`."""
    module = timm_models().models.swin_transformer
    sizes = {"depths": DEPTHS, "num_heads": HEADS, "embed_dim": WIDTH, "window_size": WINDOW, "num_classes": 5}
    network = module.SwinTransformer(img_size=size, **sizes)
    return Published(
        randomize(network), lambda net, x: channels_last(net.forward_intermediates(x, intermediates_only=True))
    )


def build_torchvision() -> Published:
    """torchvision's class."""
    module = torchvision_models().swin_transformer
    network = module.SwinTransformer([4, 4], WIDTH, DEPTHS, HEADS, [WINDOW, WINDOW], num_classes=5)
    return Published(randomize(network), torchvision_stages)


def torchvision_stages(network, x) -> list:
    """Return the outputs of the lists of blocks."""
    stages = []
    for i, part in enumerate(network.features):
        x = part(x)
        stages += [x] if i % 2 else []
    return stages


def build_mmseg() -> Published:
    """mmsegmentation's class, which normalizes the stages."""
    sizes = {"depths": DEPTHS, "num_heads": HEADS, "embed_dims": WIDTH, "window_size": WINDOW}
    network = mmseg_models().build({"type": "SwinTransformer", **sizes})
    return Published(randomize(network), lambda net, x: channels_last(net(x)), True, True)


def transformers_config():
    """Return transformers' configuration of the same network."""
    sizes = {"depths": DEPTHS, "num_heads": HEADS, "embed_dim": WIDTH, "window_size": WINDOW}
    names = [f"stage{i}" for i in range(1, 5)]
    return transformers_models().SwinConfig(**sizes, image_size=128, num_labels=5, out_features=names)


def build_transformers_backbone() -> Published:
    """transformers' class for segmentation, which normalizes the stages."""
    network = transformers_models().SwinBackbone(transformers_config())
    return Published(randomize(network), lambda net, x: channels_last(net(x).feature_maps), True, True)


def build_transformers_classifier() -> Published:
    """transformers' class for ImageNet."""
    network = transformers_models().SwinForImageClassification(transformers_config())

    def stages(net, x) -> list:
        options = {"output_hidden_states": True, "output_hidden_states_before_downsampling": True}
        return channels_last(net.swin(x, **options).reshaped_hidden_states[1:])

    return Published(randomize(network), stages)


BUILD = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "mmseg": build_mmseg,
    "transformers backbone": build_transformers_backbone,
    "transformers classifier": build_transformers_classifier,
}


def save(network, path: Path) -> Path:
    """Write a network as its package does; return the file."""
    import torch

    if hasattr(network, "save_pretrained"):
        network.save_pretrained(path)
        return path / "model.safetensors"
    file = path / "weights.pth"
    torch.save({"model": network.state_dict()}, file)
    return file


def ours(published: Published, **options) -> tuple[Stages, dict]:
    """Return our network that corresponds to a publisher's, and its initial variables."""
    backbone = SwinTransformer(**SIZES | options, splits_single=published.splits_single)
    model = Stages(backbone, published.is_normalized)
    return model, initial_variables(model, 0)


def import_state(state: dict[str, np.ndarray], variables: dict) -> tuple[dict, Import]:
    """Give variables what a publisher's state dict has; return them, and what the importer says."""
    found = import_weights(state, variables, SWIN_IMPORTERS)
    return unflatten_dict(flatten_dict(variables) | found.variables), found


def import_file(file: Path, variables: dict) -> tuple[dict, Import]:
    """The same with a file."""
    return import_state(read_weights(file).state_dict, variables)
