"""Names of the arrays of a MobileNetV3 in the files of timm and torchvision.

Source: the public code of timm (`mobilenetv3_large_100`, `mobilenetv3_small_100`) and of torchvision (`mobilenet_v3_large`,
  `mobilenet_v3_small`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import KINDS, Path, State
from pyrseg_jax.models.weights.importer import Importer

EPSILON = 1e-3  # of the family's normalizations, in the paper's code and in torchvision
TIMM_EPSILON = 1e-5  # of timm's own networks; its `tf_…` networks have the paper's, but other padding

# Number of blocks and channels of the last convolution → name of the network.
_MEMBERS = {(15, 960): "MobileNetV3-Large", (11, 576): "MobileNetV3-Small"}


class BlockNames(NamedTuple):
    """What the names of a block's arrays depend on.

    Attributes:
      group, position: the number of its group in timm, and its place in that group.
      is_expanded: whether the block begins with a convolution that expands the channels.
      has_squeeze: whether it has a squeeze-and-excitation.
    """

    group: int
    position: int
    is_expanded: bool
    has_squeeze: bool


# (block's number, its names, layer of the block, "conv" or "bn") → published name of that part.
LayerName = Callable[[int, BlockNames, str, str], str]


def make_importers(blocks: Sequence[BlockNames]) -> tuple[Importer, ...]:
    """Return the importers of one member of the family, given what its blocks' names depend on."""
    return (
        Importer(
            "MobileNetV3 (timm)",
            "blocks.0.0.conv_dw.weight",
            _member_by(r"blocks\.\d+\.\d+\.conv_dw\.weight", r"blocks\.\d+\.0\.conv\.weight"),
            _name_of(blocks, ("conv_stem", "bn1"), _timm_last(blocks), _timm_layer),
            ignored=("conv_head.", "norm_head.", "classifier."),
            prefixes=("timm_model.",),
            rewrite=to_our_epsilon,
            conversion=f"the scales of normalizations, from an epsilon of {TIMM_EPSILON:g} to {EPSILON:g}",
        ),
        Importer(
            "MobileNetV3 (torchvision)",
            "features.1.block.0.0.weight",
            _member_by(r"features\.\d+\.block\.0\.0\.weight", r"features\.\d+\.0\.weight"),
            _name_of(blocks, ("features.0.0", "features.0.1"), _torchvision_last(blocks), _torchvision_layer),
            ignored=("classifier.",),
        ),
    )


def to_our_epsilon(state: State) -> dict[str, np.ndarray]:
    """Return a file's arrays with scales that, with our epsilon, give what the published ones give with timm's.

    A variance v and a scale γ normalize by γ / √(v + ε). Another ε therefore needs another γ. In training, where v is that of the
    batch, the results differ by as much as this v differs from the file's.
    """
    result = dict(state)
    for name, var in state.items():
        scale_name = name.removesuffix(".running_var") + ".weight"
        scale = state.get(scale_name)
        if scale is None or not name.endswith(".running_var") or np.shape(scale) != np.shape(var):
            continue
        wide = np.asarray(var, np.float64)
        with np.errstate(invalid="ignore"):  # a negative variance is an error of its own later
            ratio = np.sqrt((wide + EPSILON) / (wide + TIMM_EPSILON))
        result[scale_name] = (scale * ratio).astype(np.float32)
    return result


def _member_by(block: str, last: str) -> Callable[[Mapping[str, tuple[int, ...]]], str]:
    """Return the function that names the member, given patterns of the names of a kernel of each block and of the last kernel."""

    def member(shapes: Mapping[str, tuple[int, ...]]) -> str:
        num_blocks = sum(re.fullmatch(block, name) is not None for name in shapes)
        width = max((shape[0] for name, shape in shapes.items() if shape and re.fullmatch(last, name)), default=0)
        return _MEMBERS.get(
            (num_blocks, width), f"a MobileNetV3 with {num_blocks} blocks and {width} channels at its end"
        )

    return member


def _name_of(
    blocks: Sequence[BlockNames], stem: tuple[str, str], last: tuple[str, str], layer_name: LayerName
) -> Callable[[Path], str]:
    """Return the function from a path of ours to the published name.

    Args:
      blocks: those of the member.
      stem, last: names of the first and of the last convolution, and of their normalizations.
      layer_name: see `LayerName`.
    """

    def name_of(path: Path) -> str:
        kind, layers = KINDS[path[-1]], path[1:-1]
        if layers[0] in ("stem", "last"):
            return f"{(stem if layers[0] == 'stem' else last)[layers[1] == 'bn']}.{kind}"
        number = layers[0].removeprefix("block_")
        if not number.isdecimal():
            raise UserError(f"{'/'.join(layers)} has no published name: it does not belong to a MobileNetV3")
        return f"{layer_name(int(number), blocks[int(number)], layers[1], layers[2])}.{kind}"

    return name_of


def _timm_layer(_: int, block: BlockNames, layer: str, part: str) -> str:
    at = f"blocks.{block.group}.{block.position}"
    if layer == "squeeze":
        return f"{at}.se.{'conv_reduce' if part == 'reduce' else 'conv_expand'}"
    # Convolutions and normalizations are counted by their order, and a block without an expansion has other names.
    order = ("expand", "depthwise", "project") if block.is_expanded else ("depthwise", "project")
    convolutions = ("conv_pw", "conv_dw", "conv_pwl") if block.is_expanded else ("conv_dw", "conv_pw")
    i = order.index(layer)
    return f"{at}.{f'bn{i + 1}' if part == 'bn' else convolutions[i]}"


def _torchvision_layer(number: int, block: BlockNames, layer: str, part: str) -> str:
    # A block is a sequence that lacks what the block lacks.
    present = {"expand": block.is_expanded, "depthwise": True, "squeeze": block.has_squeeze, "project": True}
    i = [name for name, is_there in present.items() if is_there].index(layer)
    parts = {"conv": "0", "bn": "1", "reduce": "fc1", "restore": "fc2"}
    return f"features.{number + 1}.block.{i}.{parts[part]}"


def _timm_last(blocks: Sequence[BlockNames]) -> tuple[str, str]:
    at = f"blocks.{blocks[-1].group + 1}.0"
    return f"{at}.conv", f"{at}.bn1"


def _torchvision_last(blocks: Sequence[BlockNames]) -> tuple[str, str]:
    at = f"features.{len(blocks) + 1}"
    return f"{at}.0", f"{at}.1"
