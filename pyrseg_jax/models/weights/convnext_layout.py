"""Names of the arrays of a ConvNeXt in the files of each publisher.

Source: the official files of ConvNeXt and ConvNeXt V2, of UperNets on them and of DINOv3's ConvNeXt; those of timm, torchvision,
  transformers and open-mmlab; and the code that reads them.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import Head, Path, State
from pyrseg_jax.models.weights.importer import Importer, Shapes
from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING

# (whether it is V2, blocks of each stage, channels of each stage) → the member's name.
Members = Mapping[tuple[bool, tuple[int, ...], tuple[int, ...]], str]

NUM_STAGES = 4
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# Arrays of V2's normalization, in two conventions.
GAMMA_BETA = {"gamma": "grn.gamma", "beta": "grn.beta"}
WEIGHT_BIAS = {"gamma": "grn.weight", "beta": "grn.bias"}

# mmsegmentation's UperNet, which the official release has, too; a ConvNeXt has no output stride to choose.
_UPERNET = next(head for head in MMSEG_POOLING if head.source.startswith("UperNet"))
UPERNET = _UPERNET._replace(trained={"resize": "half_pixel"})

_BLOCK = re.compile(r"stage(\d)_block_(\d+)/(.+)")
_REDUCTION = re.compile(r"(stem|downsample(\d))(_norm)?")
_NECK_NORM = re.compile(r"norm_(\d)")


def _in_transformers(name: str | None) -> str:
    """Return the name that transformers has for an array of mmsegmentation's UperNet."""
    return (name or "").replace(".bn", ".batch_norm").replace("conv_seg", "classifier")


# The same network as transformers has it.
UPERNET_TRANSFORMERS = Head(
    "UperNet, transformers",
    UPERNET.marker,
    {ours: (_in_transformers(conv), norm and _in_transformers(norm)) for ours, (conv, norm) in UPERNET.names.items()},
    trained=UPERNET.trained,
)


class _Names(NamedTuple):
    """The names of one publisher's modules.

    Attributes:
      reduce: number of a stage, from 1 → the pair of modules before it: the convolution and the normalization.
      block: number of a stage, index of a block → the block.
      depthwise, norm, fc1, fc2: modules of a block.
      layer_scale: the array of V1's layer scale in a block.
      response: arrays of V2's global response normalization in a block, by our names.
      neck_norm: number of a stage → the normalization of its output, in networks for segmentation; None: there is none.
    """

    reduce: Callable[[int], tuple[str, str]]
    block: Callable[[int, int | str], str]
    depthwise: str
    norm: str
    fc1: str
    fc2: str
    layer_scale: str = "gamma"
    response: Mapping[str, str] = GAMMA_BETA
    neck_norm: Callable[[int], str] | None = None

    def name_of(self, path: Path) -> str:
        """Return the published name of an array of the backbone."""
        module = "/".join(path[1:-1])
        if block := _BLOCK.fullmatch(module):
            return f"{self.block(int(block[1]), int(block[2]))}.{self._part(block[3], path[-1])}"
        reduction = _REDUCTION.fullmatch(module)
        if reduction is None:
            raise UserError(f"{module} has no published name: it does not belong to a ConvNeXt")
        conv, norm = self.reduce(int(reduction[2] or 1))
        return f"{norm if reduction[3] else conv}.{KINDS[path[-1]]}"

    def _part(self, module: str, kind: str) -> str:
        if module == "layer_scale":
            return self.layer_scale
        if module == "grn":
            return self.response[kind]
        names = {"depthwise": self.depthwise, "norm": self.norm, "fc1": self.fc1, "fc2": self.fc2}
        return f"{names[module]}.{KINDS[kind]}"

    def neck_name_of(self, path: Path) -> str | None:
        """Return the published name of an array of the neck, if there is one."""
        norm = _NECK_NORM.fullmatch(path[2])
        return f"{self.neck_norm(int(norm[1]))}.{KINDS[path[-1]]}" if norm and self.neck_norm else None

    def rewrite(self, state: State) -> dict[str, np.ndarray]:
        """Remove axes of length 1: dense layers may be convolutions there, and scales may have axes for the positions."""
        dense = (f"{self.fc1}.weight", f"{self.fc2}.weight")
        scales = (f".{self.layer_scale}", *(f".{name}" for name in self.response.values()))
        rewritten = dict(state)
        for name, array in state.items():
            if name.endswith(dense) and np.shape(array)[2:] == (1, 1):
                rewritten[name] = array[:, :, 0, 0]
            elif name.endswith(scales) and np.size(array) == max(np.shape(array), default=0):
                rewritten[name] = np.reshape(array, -1)
        return rewritten

    def member(self, shapes: Shapes, members: Members) -> str:
        """Name the member of the family that has these arrays."""
        num_blocks, widths = [], []
        for stage in range(1, NUM_STAGES + 1):
            prefix, suffix = f"{self.block(stage, '')}", f".{self.depthwise}.weight"
            kernels = [name for name in shapes if name.startswith(prefix) and name.endswith(suffix)]
            num_blocks.append(len(kernels))
            widths.append(shapes[kernels[0]][0] if kernels and shapes[kernels[0]] else 0)
        is_v2 = any(name.endswith(f".{self.response['gamma']}") for name in shapes)
        name = members.get((is_v2, tuple(num_blocks), tuple(widths)), f"a ConvNeXt{' V2' * is_v2}")
        return f"{name} with {_join(num_blocks)} blocks of {_join(widths)} channels"


def _join(numbers: list[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _downsample_layers(stage: int) -> tuple[str, str]:
    """Return the official names of what comes before a stage; the stem has its normalization last, the others first."""
    conv, norm = (0, 1) if stage == 1 else (1, 0)
    return f"downsample_layers.{stage - 1}.{conv}", f"downsample_layers.{stage - 1}.{norm}"


_OFFICIAL = _Names(
    _downsample_layers,
    lambda stage, block: f"stages.{stage - 1}.{block}",
    "dwconv",
    "norm",
    "pwconv1",
    "pwconv2",
    neck_norm=lambda stage: f"norm{stage - 1}",
)
_MMLAB = _OFFICIAL._replace(depthwise="depthwise_conv", fc1="pointwise_conv1", fc2="pointwise_conv2")
_TIMM = _Names(
    lambda stage: (
        ("stem.0", "stem.1") if stage == 1 else (f"stages.{stage - 1}.downsample.1", f"stages.{stage - 1}.downsample.0")
    ),
    lambda stage, block: f"stages.{stage - 1}.blocks.{block}",
    "conv_dw",
    "norm",
    "mlp.fc1",
    "mlp.fc2",
    response={ours: f"mlp.{name}" for ours, name in WEIGHT_BIAS.items()},
)
_TORCHVISION = _Names(
    lambda stage: (
        ("features.0.0", "features.0.1")
        if stage == 1
        else (f"features.{2 * stage - 2}.1", f"features.{2 * stage - 2}.0")
    ),
    lambda stage, block: f"features.{2 * stage - 1}.{block}",
    "block.0",
    "block.2",
    "block.3",
    "block.5",
    layer_scale="layer_scale",
)
_TRANSFORMERS = _Names(
    lambda stage: (
        ("embeddings.patch_embeddings", "embeddings.layernorm")
        if stage == 1
        else (f"encoder.stages.{stage - 1}.downsampling_layer.1", f"encoder.stages.{stage - 1}.downsampling_layer.0")
    ),
    lambda stage, block: f"encoder.stages.{stage - 1}.layers.{block}",
    "dwconv",
    "layernorm",
    "pwconv1",
    "pwconv2",
    layer_scale="layer_scale_parameter",
    response=WEIGHT_BIAS,
    neck_norm=lambda stage: f"hidden_states_norms.stage{stage}",
)
_DINO_TRANSFORMERS = _Names(
    lambda stage: (
        ("stages.0.downsample_layers.0", "stages.0.downsample_layers.1")
        if stage == 1
        else (f"stages.{stage - 1}.downsample_layers.1", f"stages.{stage - 1}.downsample_layers.0")
    ),
    lambda stage, block: f"stages.{stage - 1}.layers.{block}",
    "depthwise_conv",
    "layer_norm",
    "pointwise_conv1",
    "pointwise_conv2",
)


def make_importers(members: Members) -> tuple[Importer, ...]:
    """Make the importers of all layouts, whose messages name these members of the family.

    Ignored is what belongs to ImageNet's classifier: its normalization of the averaged last map, and the layer itself.
    """

    def layout(
        publisher: str,
        names: _Names,
        ignored: tuple[str, ...],
        heads: tuple[Head, ...] = (),
        prefixes: tuple[str, ...] = (),
    ) -> Importer:
        return Importer(
            f"ConvNeXt ({publisher})",
            f"{names.block(1, 0)}.{names.depthwise}.weight",
            lambda shapes: names.member(shapes, members),
            names.name_of,
            ignored,
            heads,
            prefixes=prefixes,
            rewrite=names.rewrite,
            neck_name_of=names.neck_name_of,
        )

    return (
        layout("timm", _TIMM, ("head.", "norm_pre.")),
        layout("torchvision", _TORCHVISION, ("classifier.",)),
        layout(
            "transformers",
            _TRANSFORMERS,
            ("classifier.", "layernorm."),
            (UPERNET_TRANSFORMERS,),
            ("convnext.", "convnextv2."),
        ),
        layout("DINOv3, transformers", _DINO_TRANSFORMERS, ("layer_norm.",)),
        # DINOv3's files have a normalization of the last stage, under two names.
        layout("official", _OFFICIAL, ("head.", "norm.", "norms."), (UPERNET,)),
        layout("open-mmlab", _MMLAB, ("head.",), (UPERNET,)),
    )
