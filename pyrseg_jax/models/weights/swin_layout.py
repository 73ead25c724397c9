"""Names of the arrays of a Swin Transformer in the files of each publisher.

Source: the files of the authors, timm, torchvision, transformers and open-mmlab, and the code that reads them.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import Path, State
from pyrseg_jax.models.weights.importer import Importer
from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING
from pyrseg_jax.models.weights.relative_positions import TABLE, fit_tables

# What can be computed from the sizes of the network.
BUFFERS = (".relative_position_index", ".attn_mask")
KINDS = {"kernel": ".weight", "scale": ".weight", "bias": ".bias", "table": ""}
NUM_STAGES = 4
MEMBERS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "Swin-T",
    (96, (2, 2, 18, 2)): "Swin-S",
    (128, (2, 2, 18, 2)): "Swin-B",
    (192, (2, 2, 18, 2)): "Swin-L",
}
# mmsegmentation's UperNet; a Swin Transformer has no output stride to choose.
_UPERNET = next(head for head in MMSEG_POOLING if head.source.startswith("UperNet"))
UPERNET = _UPERNET._replace(trained={"resize": "half_pixel"})

_BLOCK = re.compile(r"stage(\d)_block_(\d+)/(.+)")
_MERGE = re.compile(r"merge_(\d)/(norm|reduction)")
_NECK_NORM = re.compile(r"norm_(\d)")


class _Names(NamedTuple):
    """The names of one publisher's modules.

    Attributes:
      embed, embed_norm: the convolution of patches, and the normalization after it.
      blocks: number of a stage, from 1 → the list of its blocks.
      merge: number of a stage → the module that joins patches before it.
      parts: module of a block of ours → its name there.
      norm: number of a stage → the normalization of its output, in networks for segmentation.
    """

    embed: str
    embed_norm: str
    blocks: Callable[[int], str]
    merge: Callable[[int], str]
    parts: Mapping[str, str]
    norm: Callable[[int], str] | None = None

    def name_of(self, path: Path) -> str:
        """Return the published name of an array of the backbone."""
        module = "/".join(path[1:-1])
        if block := _BLOCK.fullmatch(module):
            part = f"{block[3]}/table" if path[-1] == "table" else block[3]
            name = f"{self.blocks(int(block[1]))}.{block[2]}.{self.parts[part]}"
        elif merge := _MERGE.fullmatch(module):
            name = f"{self.merge(int(merge[1]))}.{merge[2]}"
        elif module in ("embed", "embed_norm"):
            name = self.embed if module == "embed" else self.embed_norm
        else:
            raise UserError(f"{module} has no published name: it does not belong to a Swin Transformer")
        return name + KINDS[path[-1]]

    def neck_name_of(self, path: Path) -> str | None:
        """Return the published name of an array of the neck, if there is one."""
        norm = _NECK_NORM.fullmatch(path[2])
        return f"{self.norm(int(norm[1]))}{KINDS[path[-1]]}" if norm and self.norm else None

    def member(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Name the member of the family that has these arrays."""
        width = shapes[f"{self.embed}.weight"][0]
        depths = tuple(self._count_blocks(shapes, stage) for stage in range(1, NUM_STAGES + 1))
        if not all(depths):
            return "another network, without the four stages of a Swin Transformer"
        known = MEMBERS.get((width, depths))
        name = known or f"a Swin Transformer of width {width} with {', '.join(map(str, depths))} blocks"
        return f"a Swin Transformer V2 ({name})" if any(array.endswith("logit_scale") for array in shapes) else name

    def _count_blocks(self, shapes: Mapping[str, tuple[int, ...]], stage: int) -> int:
        count = 0
        while f"{self.blocks(stage)}.{count}.{self.parts['norm1']}.weight" in shapes:
            count += 1
        return count


def _without_buffers(state: State) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if not name.endswith(BUFFERS)}


def _number_as_timm(state: State) -> dict[str, np.ndarray]:
    """Number the modules that join patches as timm does.

    The authors count a module to the stage before it, and timm to the stage after it.
    """
    state = _without_buffers(state)
    if "layers.0.downsample.reduction.weight" not in state:
        return state
    pattern = re.compile(r"^layers\.(\d)\.downsample\.")
    return {
        pattern.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name): array
        for name, array in state.items()
    }


def _reorder_merged(state: State) -> dict[str, np.ndarray]:
    """Bring the inputs of the modules that join patches into the authors' order.

    mmsegmentation has the four neighbors of a channel side by side, row by row. The authors have all channels of a neighbor side by
    side, and the neighbors column by column.
    """
    state = _without_buffers(state)
    for name, array in state.items():
        if ".downsample." in name:
            *outputs, inputs = array.shape
            split = array.reshape(*outputs, inputs // 4, 2, 2)  # channel, row, column
            state[name] = np.moveaxis(split, (-1, -2, -3), (-3, -2, -1)).reshape(array.shape)
    return state


# The names that transformers has given the modules of a block since version 5 → those in its published files.
_RENAMED = {
    ".attention.q_proj.": ".attention.self.query.",
    ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.",
    f".attention.relative_position_bias.{TABLE}": f".attention.self.{TABLE}",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def _join_projections(state: State) -> dict[str, np.ndarray]:
    """Join the projections to queries, keys and values, and bring all names to those of transformers' published files."""
    renamed = {}
    for name, array in _without_buffers(state).items():
        for new, old in _RENAMED.items():
            name = name.replace(new, old)
        renamed[name] = array
    for name in [name for name in renamed if ".attention.self.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            arrays = [renamed.pop(part) for part in parts]
            renamed[name.replace(".query.", ".qkv.")] = np.concatenate(arrays)
    return renamed


_PARTS = {
    "norm1": "norm1",
    "attn/qkv": "attn.qkv",
    "attn/proj": "attn.proj",
    "attn/table": f"attn.{TABLE}",
    "norm2": "norm2",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
_TIMM = _Names(
    "patch_embed.proj",
    "patch_embed.norm",
    blocks=lambda stage: f"layers.{stage - 1}.blocks",
    merge=lambda stage: f"layers.{stage - 1}.downsample",
    parts=_PARTS,
    norm=lambda stage: f"norm{stage - 1}",
)
_MMSEG = _Names(
    "patch_embed.projection",
    "patch_embed.norm",
    blocks=lambda stage: f"stages.{stage - 1}.blocks",
    merge=lambda stage: f"stages.{stage - 2}.downsample",
    parts=_PARTS
    | {name: f"attn.w_msa.{_PARTS[name].removeprefix('attn.')}" for name in ("attn/qkv", "attn/proj", "attn/table")}
    | {"mlp/fc1": "ffn.layers.0.0", "mlp/fc2": "ffn.layers.1"},
    norm=lambda stage: f"norm{stage - 1}",
)
_TRANSFORMERS = _Names(
    "embeddings.patch_embeddings.projection",
    "embeddings.norm",
    blocks=lambda stage: f"encoder.layers.{stage - 1}.blocks",
    merge=lambda stage: f"encoder.layers.{stage - 2}.downsample",
    parts={
        "norm1": "layernorm_before",
        "attn/qkv": "attention.self.qkv",
        "attn/proj": "attention.output.dense",
        "attn/table": f"attention.self.{TABLE}",
        "norm2": "layernorm_after",
        "mlp/fc1": "intermediate.dense",
        "mlp/fc2": "output.dense",
    },
    norm=lambda stage: f"hidden_states_norms.stage{stage}",
)
_TORCHVISION = _Names(
    "features.0.0",
    "features.0.2",
    blocks=lambda stage: f"features.{2 * stage - 1}",
    merge=lambda stage: f"features.{2 * stage - 2}",
    parts=_PARTS | {"mlp/fc1": "mlp.0", "mlp/fc2": "mlp.3"},
)


def _importer(
    family: str, names: _Names, rewrite: Callable[[State], dict[str, np.ndarray]], ignored: tuple[str, ...], **options
) -> Importer:
    """Return the importer of one publisher's files, which ignores ImageNet's classifier and the normalization before it."""
    return Importer(
        family,
        marker=f"{names.embed}.weight",
        member=names.member,
        name_of=names.name_of,
        neck_name_of=names.neck_name_of,
        ignored=ignored,
        rewrite=rewrite,
        fit=fit_tables,
        **options,
    )


SWIN_IMPORTERS = (
    _importer("Swin Transformer (authors or timm)", _TIMM, _number_as_timm, ("norm.", "head."), heads=(UPERNET,)),
    _importer("Swin Transformer (open-mmlab)", _MMSEG, _reorder_merged, ("norm.", "head."), heads=(UPERNET,)),
    _importer(
        "Swin Transformer (transformers)",
        _TRANSFORMERS,
        _join_projections,
        ("layernorm.", "swin.layernorm.", "classifier.", "embeddings.mask_token", "decoder."),
        prefixes=("swin.",),
    ),
    _importer("Swin Transformer (torchvision)", _TORCHVISION, _without_buffers, ("norm.", "head.")),
)
