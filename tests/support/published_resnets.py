"""The names of a ResNet's arrays in the files of each publisher, written down by hand."""

import re

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.models.initial import abstract_variables

# The published names of the stem's layers, and of a block, in each layout; see the docstring of `resnet_layout`.
LAYOUTS = {
    "torchvision": ("v1", ["conv1", "bn1"], "layer3.1.conv2"),
    "open-mmlab": ("v1c", ["stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"], "layer3.1.conv2"),
    "PyTorch-Encoding": ("deep", ["conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1"], "layer3.1.conv2"),
    "CSAIL": ("deep", ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"], "layer3.1.conv2"),
    "semseg": ("deep", ["layer0.0", "layer0.1", "layer0.3", "layer0.4", "layer0.6", "layer0.7"], "layer3.1.conv2"),
    "EMANet": (
        "deep",
        ["extractor.0.0", "extractor.0.1", "extractor.0.3", "extractor.0.4", "extractor.0.6", "extractor.1"],
        "extractor.6.1.conv2",
    ),
}


def published(layout: str, model: nn.Module) -> tuple[dict, dict]:
    """Return a file in a publisher's layout with distinct numbers, and the variables that it should give.

    Args:
      layout: a key of `LAYOUTS`.
      model: a ResNet.
    """
    rng = np.random.default_rng(0)
    _, stem, block = LAYOUTS[layout]
    state, expected = {}, {}
    for path, leaf in flatten_dict(abstract_variables(model)).items():
        kind, module = path[-1], "/".join(path[1:-1])
        array = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if found := re.match(r"stem(\d)/(conv|bn)", module):
            name = stem[2 * (int(found[1]) - 1) + (found[2] == "bn")]
        else:
            number, index, rest = re.match(r"layer(\d)_block_(\d+)/(.*)", module).groups()
            rest = {"downsample/conv": "downsample.0", "downsample/bn": "downsample.1"}.get(rest, rest)
            prefix = f"extractor.{int(number) + 3}" if block.startswith("extractor") else f"layer{number}"
            name = f"{prefix}.{index}.{rest}"
        suffix = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}[
            kind
        ]
        state[f"{name}.{suffix}"] = array.transpose(3, 2, 0, 1) if kind == "kernel" else array
        expected[path] = array
    assert f"{block}.weight" in state
    return state, unflatten_dict(expected)
