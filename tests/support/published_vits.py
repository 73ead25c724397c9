"""Files of vision transformers as each publisher names their arrays, from variables of ours or from the publishers' networks."""

import functools

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.models.backbones.vit import dinov3_micro, vit_micro
from pyrseg_jax.models.initial import initial_variables

MICROS = {"vit_micro": vit_micro, "dinov3_micro": dinov3_micro}

# Layout → the layer that makes tokens, the class token, register tokens, positions, prefix of blocks, last normalization.
_TOKENS = {
    "facebook": ("patch_embed.proj", "cls_token", "{}_tokens", "pos_embed", "blocks", "norm"),
    "timm": ("patch_embed.proj", "cls_token", "reg_token", "pos_embed", "blocks", "norm"),
    "transformers dinov2": (
        "embeddings.patch_embeddings.projection",
        "embeddings.cls_token",
        "embeddings.register_tokens",
        "embeddings.position_embeddings",
        "encoder.layer",
        "layernorm",
    ),
    "transformers dinov3": (
        "embeddings.patch_embeddings",
        "embeddings.cls_token",
        "embeddings.register_tokens",
        None,
        "layer",
        "norm",
    ),
}
LAYOUTS = {
    "vit_micro": ("facebook", "timm", "transformers dinov2"),
    "dinov3_micro": ("facebook", "timm", "transformers dinov3"),
}
_HF_ATTENTION = {
    "transformers dinov2": ("attention.attention.{}", "attention.output.dense"),
    "transformers dinov3": ("attention.{}_proj", "attention.o_proj"),
}


@functools.cache
def variables_of(name):
    """Variables of a micro network with scales and tokens as after a training, so that each part matters."""
    rng = np.random.default_rng(0)
    flat = flatten_dict(initial_variables(MICROS[name](), 0))
    for path, array in flat.items():
        if path[-1] == "gamma":
            flat[path] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        elif path[-1] != "scale":
            flat[path] = rng.normal(0, 0.3 if path[-1] == "kernel" else 0.5, array.shape).astype(np.float32)
    return unflatten_dict(flat)


def to_published(variables: dict, layout: str, junk: float = 7.0) -> dict[str, np.ndarray]:
    """Return the arrays of a backbone as a publisher's file holds them; what networks do not need is filled with `junk`."""
    flat = {"/".join(path): np.asarray(array) for path, array in flatten_dict(variables["params"]).items()}
    patches, class_token, registers, positions, blocks, norm = _TOKENS[layout]
    is_rotary, width = "positions" not in flat, flat["class_token"].shape[-1]
    state = {
        f"{patches}.weight": flat["patch_embed/kernel"].transpose(3, 2, 0, 1),
        f"{patches}.bias": flat["patch_embed/bias"],
        class_token: flat["class_token"][None],
        f"{norm}.weight": flat["norm/scale"],
        f"{norm}.bias": flat["norm/bias"],
    }
    if not is_rotary:
        rows = [flat["positions"].reshape(-1, width)]
        rows = [flat["class_position"], *rows] if "class_position" in flat else rows
        state[positions] = np.concatenate(rows)[None]
    if "register_tokens" in flat:
        state[registers.format("storage" if is_rotary else "register")] = flat["register_tokens"][None]
    if layout != "timm":
        name = "embeddings.mask_token" if "transformers" in layout else "mask_token"
        state[name] = np.full((1, width), junk)
    if layout == "facebook" and is_rotary:
        state["rope_embed.periods"] = np.full(2, junk)
    for i in range(sum(name.endswith("norm1/scale") for name in flat)):
        block = {name.split("/", 1)[1]: array for name, array in flat.items() if name.startswith(f"block_{i}/")}
        write = _write_transformers if "transformers" in layout else _write_meta
        state |= {f"{blocks}.{i}.{name}": array for name, array in write(block, layout, is_rotary, junk).items()}
    return state


def _linear(block: dict, ours: str, theirs: str) -> dict[str, np.ndarray]:
    arrays = {f"{theirs}.weight": block[f"{ours}/kernel"].T}
    return arrays | ({f"{theirs}.bias": block[f"{ours}/bias"]} if f"{ours}/bias" in block else {})


def _norms(block: dict) -> dict[str, np.ndarray]:
    kinds = (("weight", "scale"), ("bias", "bias"))
    return {f"norm{i}.{kind}": block[f"norm{i}/{ours}"] for i in (1, 2) for kind, ours in kinds}


def _write_transformers(block: dict, layout: str, is_rotary: bool, junk: float) -> dict[str, np.ndarray]:
    inner, out = _HF_ATTENTION[layout]
    state = _norms(block) | _linear(block, "attn/out", out)
    for name in ("query", "key", "value"):
        state |= _linear(block, f"attn/{name}", inner.format(name[0] if is_rotary else name))
    for ours, theirs in (("fc1", "up_proj" if is_rotary else "fc1"), ("fc2", "down_proj" if is_rotary else "fc2")):
        state |= _linear(block, f"mlp/{ours}", f"mlp.{theirs}")
    return state | {f"layer_scale{i}.lambda1": block[f"scale{i}/gamma"] for i in (1, 2)}


def _write_meta(block: dict, layout: str, is_rotary: bool, junk: float) -> dict[str, np.ndarray]:
    names = ("query", "key", "value")
    state = _norms(block) | _linear(block, "attn/out", "attn.proj")
    state |= _linear(block, "mlp/fc1", "mlp.fc1") | _linear(block, "mlp/fc2", "mlp.fc2")
    state["attn.qkv.weight"] = np.concatenate([block[f"attn/{name}/kernel"].T for name in names])
    query, value = block["attn/query/bias"], block["attn/value/bias"]
    if not is_rotary:
        state["attn.qkv.bias"] = np.concatenate([query, block["attn/key/bias"], value])
    elif layout == "timm":
        state |= {"attn.q_bias": query, "attn.v_bias": value}
    else:
        state["attn.qkv.bias"] = np.concatenate([query, np.full_like(query, junk), value])
        state["attn.qkv.bias_mask"] = np.repeat([1.0, 0.0, 1.0], len(query))
    scale = "gamma_{}" if layout == "timm" and is_rotary else "ls{}.gamma"
    return state | {scale.format(i): block[f"scale{i}/gamma"] for i in (1, 2)}
