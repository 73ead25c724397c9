"""Names of the arrays of DINOv2's and DINOv3's vision transformers in the files of each publisher.

Source: the code of the releases (`DinoVisionTransformer` of both), of timm (`VisionTransformer`, `Eva`), and of transformers
  (`Dinov2Model`, `Dinov2WithRegistersModel`, `DINOv3ViTModel`).

Parts of one published array have its name and the part in brackets, such as `blocks.0.attn.qkv.weight[q]`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import KINDS, Path, State
from pyrseg_jax.models.weights.importer import Importer

_BLOCK = re.compile(r"block_(\d+)/(.+)")
_SIZES = {384: "ViT-S", 768: "ViT-B", 1024: "ViT-L"}
_BLOCKS = {"ViT-S": 12, "ViT-B": 12, "ViT-L": 24}


class _Layout(NamedTuple):
    """How a publisher names things.

    Attributes:
      family: the publisher's network, in words.
      patches: the layer that makes tokens of patches.
      class_token, registers, positions: arrays of tokens.
      block: of a block with its number.
      layers: our layer in a block → the published one.
      scale: of the array of a layer scale.
      norm: the last normalization.
      ignored: prefixes of arrays that have no use in our networks: tokens for masked patches, classifiers, periods of rotary
        positions, and a normalization that only a training without labels uses.
      prefixes: what whole networks put before all names.
    """

    family: str
    patches: str
    class_token: str
    registers: str
    positions: str
    block: str
    layers: Mapping[str, str]
    scale: str
    norm: str
    ignored: tuple[str, ...]
    prefixes: tuple[str, ...] = ()

    def name_of(self, path: Path) -> str:
        """Return the published name of an array of ours."""
        inside, kind = "/".join(path[1:-1]), path[-1]
        tokens = {
            "class_token": self.class_token,
            "register_tokens": self.registers,
            "class_position": f"{self.positions}[class]",
            "positions": f"{self.positions}[patches]",
        }
        if not inside and kind in tokens:
            return tokens[kind]
        if match := _BLOCK.fullmatch(inside):
            layer = self.block.format(match[1]) + self.layers[match[2]]
            if kind == "gamma":
                return f"{layer}.{self.scale}"
            name, bracket, part = layer.partition("[")
            return f"{name}.{KINDS[kind]}{bracket}{part}"
        layers = {"patch_embed": self.patches, "norm": self.norm}
        if inside not in layers:
            raise UserError(f"{'/'.join(path[1:])} has no published name: it does not belong to a vision transformer")
        return f"{layers[inside]}.{KINDS[kind]}"

    def member(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return the member of the family that has arrays of these shapes, in words."""
        width, _, patch, _ = shapes[f"{self.patches}.weight"]
        pattern = re.compile(re.escape(self.block).replace(r"\{\}", r"(\d+)") + r".*")
        num_blocks = len({match[1] for name in shapes if (match := pattern.fullmatch(name))})
        size = _SIZES.get(width, "ViT")
        is_known = _BLOCKS.get(size) == num_blocks
        name = size if is_known else f"ViT of {width} channels and {num_blocks} blocks"
        registers = (shapes.get(self.registers) or (0,))[0]
        grid = shapes.get(f"{self.positions}[patches]")
        positions = f"positions of {grid[0]} × {grid[1]} patches" if grid else "rotary positions"
        return f"a {name} with patches of {patch} px, {positions} and {registers or 'no'} register tokens"


def _rewrite_tokens(state: State, layout: _Layout) -> dict[str, np.ndarray]:
    """Remove axes of length 1 from tokens, and split positions into those of the class token and those of the patches.

    With registers, the position of the class token is added to it, as the publisher's network does it.
    """
    state = dict(state)
    tokens = (layout.class_token, layout.registers, layout.positions)
    state |= {name: state[name][0] for name in tokens if name in state and np.shape(state[name])[:-2] == (1,)}
    if layout.positions not in state or state[layout.positions].ndim != 2:
        return state
    positions = state.pop(layout.positions)
    has_class = math.isqrt(len(positions)) ** 2 != len(positions)
    side = math.isqrt(len(positions) - has_class)
    if side**2 + has_class != len(positions):
        raise UserError(
            f"{layout.positions} has {len(positions)} positions: expected those of a square grid of patches, and perhaps one more; "
            "choose a file of another network"
        )
    state[f"{layout.positions}[patches]"] = positions[has_class:].reshape(side, side, -1)
    has_registers = layout.registers in state and np.shape(state.get(layout.class_token, ())) == positions[:1].shape
    if has_class and has_registers:
        state[layout.class_token] = state[layout.class_token] + positions[:1]
    elif has_class:
        state[f"{layout.positions}[class]"] = positions[:1]
    return state


def _rewrite_meta(state: State) -> dict[str, np.ndarray]:
    """Bring the files of timm and of the releases to one set of names, with separate queries, keys and values."""
    renamed = {"reg_token": "register_tokens", "storage_tokens": "register_tokens"}
    state = {re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", renamed.get(name, name)): array for name, array in state.items()}
    result = _rewrite_tokens(state, META)
    is_rotary = META.positions not in state
    for name in [name for name in result if name.endswith((".attn.qkv.weight", ".attn.qkv.bias"))]:
        if not np.ndim(result[name]) or len(result[name]) % 3:
            continue  # left as it is, and so reported as unknown
        array = result.pop(name)
        mask = result.pop(f"{name}_mask", None)
        if mask is not None and mask.shape == array.shape:
            array = np.where(mask == 0, 0, array)
        for part, piece in zip("qkv", np.split(array, 3), strict=True):
            result[f"{name}[{part}]"] = piece
        if is_rotary and name.endswith("bias"):
            _drop_key_bias(result, f"{name}[k]")
    for name in [name for name in result if name.endswith((".attn.q_bias", ".attn.v_bias"))]:
        result[f"{name[:-6]}qkv.bias[{name[-6]}]"] = result.pop(name)
    if is_rotary and not any(".attn.qkv.bias" in name for name in result):
        # timm left out the biases of releases in which all of them are 0.
        for name in [name for name in result if name.endswith(("qkv.weight[q]", "qkv.weight[v]"))]:
            result[name.replace("weight", "bias")] = np.zeros(len(result[name]), np.float32)
    return result


def _drop_key_bias(state: dict[str, np.ndarray], name: str) -> None:
    """Remove the bias of keys, which must be 0."""
    if state.pop(name).any():
        raise UserError(
            f"{name} is not 0: this network has no bias for keys, because DINOv3 was published without; choose a file of DINOv3"
        )


# Names in networks of transformers 5 → those in files.
_IN_MEMORY = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}


def _rewrite_dinov2(state: State) -> dict[str, np.ndarray]:
    def in_file(name: str) -> str:
        return re.sub(r"\.attention\.([qkvo]_proj)\.", lambda match: f".attention.{_IN_MEMORY[match[1]]}.", name)

    return _rewrite_tokens({in_file(name): array for name, array in state.items()}, DINOV2)


def _rewrite_dinov3(state: State) -> dict[str, np.ndarray]:
    return _rewrite_tokens(state, DINOV3)


def _layers(names: Sequence[str]) -> Mapping[str, str]:
    ours = (
        "norm1",
        "attn/query",
        "attn/key",
        "attn/value",
        "attn/out",
        "scale1",
        "norm2",
        "mlp/fc1",
        "mlp/fc2",
        "scale2",
    )
    return dict(zip(ours, names, strict=True))


def _prefixed(prefix: str, names: Iterable[str]) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


META = _Layout(
    family="ViT (DINO, timm)",
    patches="patch_embed.proj",
    class_token="cls_token",
    registers="register_tokens",
    positions="pos_embed",
    block="blocks.{}.",
    layers=_layers(
        (
            "norm1",
            *_prefixed("attn", ("qkv[q]", "qkv[k]", "qkv[v]", "proj")),
            "ls1",
            "norm2",
            "mlp.fc1",
            "mlp.fc2",
            "ls2",
        )
    ),
    scale="gamma",
    norm="norm",
    ignored=("mask_token", "head.", "rope_embed.", "local_cls_norm."),
)
DINOV2 = _Layout(
    family="ViT (DINOv2, transformers)",
    patches="embeddings.patch_embeddings.projection",
    class_token="embeddings.cls_token",
    registers="embeddings.register_tokens",
    positions="embeddings.position_embeddings",
    block="encoder.layer.{}.",
    layers=_layers(
        (
            "norm1",
            *_prefixed("attention.attention", ("query", "key", "value")),
            "attention.output.dense",
            "layer_scale1",
            "norm2",
            "mlp.fc1",
            "mlp.fc2",
            "layer_scale2",
        )
    ),
    scale="lambda1",
    norm="layernorm",
    ignored=("embeddings.mask_token",),
    prefixes=("dinov2.", "dinov2_with_registers."),
)
DINOV3 = _Layout(
    family="ViT (DINOv3, transformers)",
    patches="embeddings.patch_embeddings",
    class_token="embeddings.cls_token",
    registers="embeddings.register_tokens",
    positions="embeddings.position_embeddings",  # no file has them
    block="layer.{}.",
    layers=_layers(
        (
            "norm1",
            *_prefixed("attention", ("q_proj", "k_proj", "v_proj", "o_proj")),
            "layer_scale1",
            "norm2",
            "mlp.up_proj",
            "mlp.down_proj",
            "layer_scale2",
        )
    ),
    scale="lambda1",
    norm="norm",
    ignored=("embeddings.mask_token", "rope_embeddings."),
    prefixes=("dinov3_vit.",),
)


def _importer(layout: _Layout, rewrite: Callable[[State], dict[str, np.ndarray]]) -> Importer:
    return Importer(
        layout.family,
        f"{layout.patches}.weight",
        layout.member,
        layout.name_of,
        layout.ignored,
        prefixes=layout.prefixes,
        rewrite=rewrite,
    )


VIT_IMPORTERS = (_importer(META, _rewrite_meta), _importer(DINOV2, _rewrite_dinov2), _importer(DINOV3, _rewrite_dinov3))
