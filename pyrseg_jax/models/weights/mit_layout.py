"""Names of the arrays of an MiT, SegFormer's encoder, in the files of each publisher.

Source: the code of NVIDIA's release, of mmsegmentation and of transformers, whose version 5 has renamed all arrays. It still saves
  them under the names of the versions before, which all public files have.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pyrseg_jax.models.weights.head import KINDS, Head, Path, State
from pyrseg_jax.models.weights.importer import Importer
from pyrseg_jax.models.weights.segformer_heads import MMSEGMENTATION, NVIDIA, TRANSFORMERS, TRANSFORMERS_5

_LAYER = re.compile(r"(embed(?=\d)|stage|norm)(\d)(?:_(proj|norm)|_block_(\d+)/(.*))?")

# Channels of the first stage and blocks of each → name of the member.
MEMBERS = {
    (32, (2, 2, 2, 2)): "an MiT-B0",
    (64, (2, 2, 2, 2)): "an MiT-B1",
    (64, (3, 4, 6, 3)): "an MiT-B2",
    (64, (3, 4, 18, 3)): "an MiT-B3",
    (64, (3, 8, 27, 3)): "an MiT-B4",
    (64, (3, 6, 40, 3)): "an MiT-B5",
}


class _Names(NamedTuple):
    """The published names of layers.

    Attributes:
      embed, embed_norm, norm: of the convolution before a stage, its normalization, and the one at the stage's end. `{0}` is the
        number of the stage.
      block: what comes before the names of a block's layers; `{0}` is the number of the stage, and `{1}` that of the block.
      layers: our name of a layer in a block → its name there, or after `rewrite`.
      first: number of the first stage.
    """

    embed: str
    embed_norm: str
    norm: str
    block: str
    layers: Mapping[str, str]
    first: int = 0


# Our names of the layers in a block.
_OURS = (
    "norm1",
    "attn/query",
    "attn/key",
    "attn/value",
    "attn/reduce",
    "attn/reduce_norm",
    "attn/out",
    "norm2",
    "mlp/fc1",
    "mlp/depthwise",
    "mlp/fc2",
)


def _layers(*theirs: str) -> dict[str, str]:
    return dict(zip(_OURS, theirs, strict=True))


_NVIDIA = _Names(
    "patch_embed{0}.proj",
    "patch_embed{0}.norm",
    "norm{0}",
    "block{0}.{1}.",
    _layers(
        *("norm1", "attn.q", "attn.k", "attn.v", "attn.sr", "attn.norm", "attn.proj"),
        *("norm2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2"),
    ),
    first=1,
)
_MMSEGMENTATION = _Names(
    "layers.{0}.0.projection",
    "layers.{0}.0.norm",
    "layers.{0}.2",
    "layers.{0}.1.{1}.",
    _layers(
        *("norm1", "attn.attn.q", "attn.attn.k", "attn.attn.v", "attn.sr", "attn.norm", "attn.attn.out_proj"),
        *("norm2", "ffn.layers.0", "ffn.layers.1", "ffn.layers.4"),
    ),
)
_TRANSFORMERS = _Names(
    "encoder.patch_embeddings.{0}.proj",
    "encoder.patch_embeddings.{0}.layer_norm",
    "encoder.layer_norm.{0}",
    "encoder.block.{0}.{1}.",
    _layers(
        *("layer_norm_1", "attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.self.sr", "attention.self.layer_norm", "attention.output.dense"),
        *("layer_norm_2", "mlp.dense1", "mlp.dwconv.dwconv", "mlp.dense2"),
    ),
)
_REDUCTION = "attention.sequence_reduction"
_TRANSFORMERS_5 = _Names(
    "stages.{0}.patch_embeddings.proj",
    "stages.{0}.patch_embeddings.layer_norm",
    "stages.{0}.layer_norm",
    "stages.{0}.blocks.{1}.",
    _layers(
        *("layernorm_before", "attention.q_proj", "attention.k_proj", "attention.v_proj"),
        *(f"{_REDUCTION}.sequence_reduction", f"{_REDUCTION}.layer_norm", "attention.o_proj"),
        *("layernorm_after", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2"),
    ),
)


def _name(names: _Names, path: Path) -> str:
    """Return the published name of an array of ours."""
    match = _LAYER.fullmatch("/".join(path[1:-1]))
    assert match is not None, path
    part, number, kind, block, layer = match.groups()
    stage = int(number) - 1 + names.first
    if part == "embed":
        module = (names.embed if kind == "proj" else names.embed_norm).format(stage)
    else:
        module = names.norm.format(stage) if layer is None else names.block.format(stage, block) + names.layers[layer]
    return f"{module}.{KINDS[path[-1]]}"


def _member(names: _Names, marker: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the name of the member that arrays of these shapes belong to."""
    width, blocks = shapes[marker][0], []
    for stage in range(names.first, names.first + 4):
        before, count = names.layers["norm1"], 0
        while f"{names.block.format(stage, count)}{before}.weight" in shapes:
            count += 1
        blocks.append(count)
    return MEMBERS.get(
        (width, tuple(blocks)),
        f"an MiT of {', '.join(map(str, blocks))} blocks with {width} channels in the first stage",
    )


def _split(name: str, array: np.ndarray, fused: str, parts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the parts of an array that holds several layers, one after the other along its first axis."""
    if array.ndim == 0 or len(array) % len(parts):
        return {name: array}  # the message about unknown names says the rest
    return {name.replace(fused, part): piece for part, piece in zip(parts, np.split(array, len(parts)), strict=True)}


def _of_nvidia(state: State) -> dict[str, np.ndarray]:
    """Split keys and values."""
    found = {}
    for name, array in state.items():
        found |= _split(name, array, ".kv.", (".k.", ".v.")) if ".attn.kv." in name else {name: array}
    return found


def _of_mmsegmentation(state: State) -> dict[str, np.ndarray]:
    """Split queries, keys and values, and turn the 1×1 convolutions of the mix-FFN into dense layers."""
    found = {}
    for name, array in state.items():
        if ".attn.in_proj_" in name:
            found |= _split(name, array, ".in_proj_", (".q.", ".k.", ".v."))
        elif name.endswith((".ffn.layers.0.weight", ".ffn.layers.4.weight")) and array.shape[2:] == (1, 1):
            found[name] = array[:, :, 0, 0]
        else:
            found[name] = array
    return found


def _layout(
    publisher: str,
    names: _Names,
    heads: tuple[Head, ...],
    ignored: tuple[str, ...],
    prefixes: tuple[str, ...] = (),
    rewrite: Callable[[State], dict[str, np.ndarray]] | None = None,
) -> Importer:
    """Build the importer of one publisher's files; `ignored` are ImageNet's classifier and arrays that no network reads."""
    marker = f"{names.embed.format(names.first)}.weight"
    return Importer(
        f"MiT ({publisher})",
        marker,
        lambda shapes: _member(names, marker, shapes),
        lambda path: _name(names, path),
        ignored,
        heads,
        prefixes=prefixes,
        rewrite=rewrite,
    )


MIT_IMPORTERS = (
    # `conv_seg` is a classifier that the release's program makes and never calls.
    _layout("NVIDIA", _NVIDIA, (NVIDIA,), ("head.", "decode_head.conv_seg."), rewrite=_of_nvidia),
    _layout("transformers", _TRANSFORMERS, (TRANSFORMERS,), ("classifier.",), ("segformer.",)),
    _layout("transformers 5", _TRANSFORMERS_5, (TRANSFORMERS_5,), ("classifier.",), ("segformer.",)),
    _layout("mmsegmentation", _MMSEGMENTATION, (MMSEGMENTATION,), (), rewrite=_of_mmsegmentation),
)
