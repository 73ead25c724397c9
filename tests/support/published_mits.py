"""SegFormer's networks of transformers and mmsegmentation, and their weights under the names of each publisher's files.

NVIDIA's own code does not run with today's packages. Its networks are those of transformers with other names and other epsilons.
"""

import re
from pathlib import Path

import numpy as np

from pyrseg_jax.models.backbones.mit import EPSILONS
from support.reference_networks import mmseg_models, randomize, transformers_models

MICRO = {"num_blocks": (1, 1, 1, 2), "head_width": 4}
CLASSES = 7
HEAD_WIDTH = 16  # channels inside of the tests' decoders

# Names of transformers 5 → those of earlier versions, which its files still have.
_OF_TRANSFORMERS_4 = (
    (r"stages\.(\d)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"stages\.(\d)\.blocks\.", r"encoder.block.\1."),
    (r"stages\.(\d)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "mlp.dense1"),
    (r"mlp\.fc2", "mlp.dense2"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"linear_projections\.", "linear_c."),
)
# Those of transformers 5 → NVIDIA's, with keys and values still apart. Stages are counted from 1 there.
_OF_NVIDIA = (
    (r"segformer\.", "backbone."),
    (r"stages\.(\d)\.patch_embeddings\.proj", r"patch_embed\1.proj"),
    (r"stages\.(\d)\.patch_embeddings\.layer_norm", r"patch_embed\1.norm"),
    (r"stages\.(\d)\.blocks\.", r"block\1."),
    (r"stages\.(\d)\.layer_norm\.", r"norm\1."),
    (r"attention\.q_proj", "attn.q"),
    (r"attention\.k_proj", "attn.k"),
    (r"attention\.v_proj", "attn.v"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attn.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attn.norm"),
    (r"attention\.o_proj", "attn.proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"linear_projections\.(\d)\.", r"linear_c\1."),
    (r"linear_fuse\.", "linear_fuse.conv."),
    (r"batch_norm\.", "linear_fuse.bn."),
    (r"decode_head\.classifier\.", "decode_head.linear_pred."),
)


def build_transformers(kind: str, num_blocks=MICRO["num_blocks"], head_width=MICRO["head_width"], **options):
    """Return a network of transformers, a class of this name, without dropout; `options` are more of its configuration."""
    models = transformers_models()
    config = models.SegformerConfig(
        depths=list(num_blocks),
        hidden_sizes=[head_width * heads for heads in (1, 2, 5, 8)],
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        **{"num_labels": CLASSES, "decoder_hidden_size": HEAD_WIDTH, "output_hidden_states": True} | options,
    )
    return getattr(models, kind)(config)


def build_mmseg(num_blocks=MICRO["num_blocks"], head_width=MICRO["head_width"]):
    """Return mmsegmentation's backbone, whose output is a list of four maps."""
    options = {"embed_dims": head_width, "num_heads": [1, 2, 5, 8], "num_layers": list(num_blocks)}
    return mmseg_models().build({"type": "MixVisionTransformer"} | options)


def set_epsilons(network, publisher: str):
    """Give the normalizations of a network of transformers a publisher's epsilons; return the network."""
    own, of_convolutions = EPSILONS[publisher]
    for name, module in network.named_modules():
        if name.endswith(("layer_norm", "layernorm_before", "layernorm_after")):
            is_after_convolution = "patch_embeddings" in name or "sequence_reduction" in name
            module.eps = of_convolutions if is_after_convolution else own
    return network


def as_transformers_4(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of transformers 5 under the names of earlier versions."""
    return {_rename(name, _OF_TRANSFORMERS_4): array for name, array in state.items()}


def as_nvidia(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of transformers 5 as NVIDIA's release has them: other names, and keys and values in one array."""
    found = {}
    for name, array in state.items():
        name = re.sub(
            r"(stages|linear_projections)\.(\d)", lambda match: f"{match[1]}.{int(match[2]) + 1}", name, count=1
        )
        found[_rename(name, _OF_NVIDIA)] = array
    for name in [name for name in found if ".attn.k." in name]:
        value = name.replace(".attn.k.", ".attn.v.")
        found[name.replace(".attn.k.", ".attn.kv.")] = np.concatenate((found.pop(name), found.pop(value)))
    return found


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def state_of(network) -> dict[str, np.ndarray]:
    """Return a network's arrays by name."""
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def write_file(state: dict[str, np.ndarray], path: Path) -> Path:
    """Write arrays to a `.safetensors` file, or, with any other ending, as PyTorch does."""
    import torch

    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def stages_of(network, images: np.ndarray, double: bool = False):
    """Return a network's four maps as tensors (N, C, h, w), and the tensor of images, whose gradient can be asked for."""
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    network, x = (network.double(), x.double()) if double else (network.float(), x)
    x.requires_grad_()
    found = network(x)
    return list(found if isinstance(found, list) else found.hidden_states), x


def draw_network(layout: str, seed: int = 0):
    """Return a backbone with random weights, and a function that gives its arrays the names of the layout's files."""
    if layout == "mmsegmentation":
        return randomize(build_mmseg(), seed), lambda state: state
    network = set_epsilons(randomize(build_transformers("SegformerModel"), seed), EPSILONS_OF[layout])
    return network, {"transformers": as_transformers_4, "transformers 5": dict, "NVIDIA": as_nvidia}[layout]


# Layout of files → the epsilons of the publisher's network.
EPSILONS_OF = {
    "transformers": "transformers",
    "transformers 5": "transformers",
    "NVIDIA": "nvidia",
    "mmsegmentation": "mmsegmentation",
}
