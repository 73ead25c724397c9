"""Plain vision transformers equal those of timm and transformers, from files in each publisher's layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.reference_networks import randomize, timm_models, transformers_models

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.vit import dinov3_micro, vit_micro
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.importer import import_weights

SIZE = {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2}
TIMM_SIZE = {
    "depth": 4,
    "embed_dim": 16,
    "num_heads": 2,
    "init_values": 1e-5,
    "dynamic_img_size": True,
    "num_classes": 0,
}
EVA = {
    "qkv_bias": True,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
}
# Ours, by the name of the reference.
OURS = {
    "transformers dinov2": vit_micro,
    "transformers dinov2 with registers": functools.partial(vit_micro, registers=2, antialias=True),
    "transformers dinov3": dinov3_micro,
    "timm dinov2": functools.partial(vit_micro, antialias=True),
    "timm dinov2 with registers": functools.partial(vit_micro, registers=2, antialias=True),
    "timm dinov3": dinov3_micro,
    "timm dinov3 with biases": dinov3_micro,
    "facebook dinov3": dinov3_micro,
}


def eva(**changes):
    """timm's class with the arguments of its DINOv3 networks."""
    timm_models()
    from timm.layers import LayerNorm
    from timm.models.eva import Eva

    norm = functools.partial(LayerNorm, eps=1e-5)
    options = {"img_size": 64, "patch_size": 16, "num_reg_tokens": 2, "use_abs_pos_emb": False, "use_fc_norm": False}
    return Eva(**TIMM_SIZE | EVA | options | changes, norm_layer=norm)


def timm_dinov2(**changes):
    timm_models()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**TIMM_SIZE | {"img_size": 56, "patch_size": 14} | changes)


def transformers_backbone(kind, **options):
    library = transformers_models()
    config = getattr(library, f"{kind}Config")(**SIZE | options, out_indices=[1, 2, 3, 4])
    return getattr(library, f"{kind}Backbone")(config)


def build(reference):
    """Build a small network of the publisher's class, with random weights; all scales and tokens matter."""
    registers = {"num_register_tokens": 2}
    make = {
        "transformers dinov2": lambda: transformers_backbone("Dinov2", image_size=56, patch_size=14),
        "transformers dinov2 with registers": lambda: transformers_backbone(
            "Dinov2WithRegisters", image_size=56, patch_size=14, **registers
        ),
        "transformers dinov3": lambda: transformers_backbone(
            "DINOv3ViT", image_size=64, intermediate_size=64, **registers
        ),
        "timm dinov2": timm_dinov2,
        "timm dinov2 with registers": lambda: timm_dinov2(reg_tokens=2, no_embed_class=True),
        "timm dinov3": lambda: eva(qkv_bias=False),
        "timm dinov3 with biases": eva,
        "facebook dinov3": eva,
    }
    return prepare(make[reference]())


def prepare(network):
    import torch

    randomize(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gamma" in name or "lambda" in name:
                parameter.mul_(5)
            elif "pos" in name or "token" in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))
    return network


def maps_of(network, x, patch=14, depths=(0, 1, 2, 3)):
    """The four maps of a publisher's network, for images that are resampled to its patch."""
    import torch

    if patch != 16:
        size = [side * patch // 16 for side in x.shape[2:]]
        # In float64, because PyTorch rounds the places where it interpolates as it does the numbers.
        x = torch.nn.functional.interpolate(x.double(), size=size, mode="bilinear", align_corners=False).to(x.dtype)
    if hasattr(network, "forward_intermediates"):
        return network.forward_intermediates(x, indices=list(depths), norm=True, intermediates_only=True)
    return network(pixel_values=x).feature_maps


def write(network, reference, folder):
    """Write a network as its publisher does; return the path of the file."""
    import torch
    from safetensors.torch import save_file

    state = network.state_dict()
    if reference.startswith("transformers"):
        network.save_pretrained(folder)
        return folder / "model.safetensors"
    if reference.startswith("timm"):
        save_file(state, folder / "model.safetensors")
        return folder / "model.safetensors"
    torch.save(as_facebook(state), folder / "model.pth")
    return folder / "model.pth"


def as_facebook(state):
    """DINOv3's own names of timm's arrays, with the arrays that only the release has; the masked bias of keys is not 0 there."""
    import torch

    state = {name.replace("gamma_", "ls"): array for name, array in state.items()}
    result = {"mask_token": torch.ones(1, 16), "rope_embed.periods": torch.ones(2)}
    for name, array in state.items():
        block = name.rpartition(".")[0]
        if name.endswith("q_bias"):
            result[f"{block}.qkv.bias"] = torch.cat([array, torch.ones(16), state[f"{block}.v_bias"]])
            result[f"{block}.qkv.bias_mask"] = torch.cat([torch.ones(16), torch.zeros(16), torch.ones(16)])
        elif not name.endswith("v_bias"):
            name = f"{name}.gamma" if name.endswith(("ls1", "ls2")) else name
            result["storage_tokens" if name == "reg_token" else name] = array
    return result


def import_state(state, model, importers=BACKBONES["vit_micro"].importers):
    abstract = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    found = import_weights(state, abstract, importers)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): jnp.asarray(array) for path, array in found.variables.items()})


def draw(height, width, n=1):
    import torch

    images = np.random.default_rng(height + width).normal(size=(n, height, width, 3)).astype(np.float32)
    return jnp.asarray(images), torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def far(found, expected):
    """The largest difference of each map, relative to its largest value."""
    pairs = [(np.asarray(a), b.detach().numpy().transpose(0, 2, 3, 1)) for a, b in zip(found, expected, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def compare(network, model, variables, sizes, tolerance):
    import torch

    apply = jax.jit(model.apply)
    for height, width in sizes:
        images, x = draw(height, width)
        with torch.no_grad():
            theirs = maps_of(network, x, model.patch, model.depths)
        distance = far(apply(variables, images).stages, theirs)
        print(f"{height} × {width}: {distance:.1e}")
        assert distance <= tolerance


@pytest.mark.parametrize("reference", OURS)
def test_features(reference, tmp_path):
    model, network = OURS[reference](), build(reference)
    variables = import_state(read_weights(write(network, reference, tmp_path)).state_dict, model)
    compare(network, model, variables, [(64, 64), (96, 32)], 1e-5)


GRADIENTS = [
    "transformers dinov2",
    "transformers dinov2 with registers",
    "timm dinov3 with biases",
    "transformers dinov3",
]


@pytest.mark.parametrize("reference", GRADIENTS)
def test_gradients(reference):
    """Gradients with respect to parameters and images, against the publisher's network in float64."""
    import torch

    model, network = OURS[reference](), build(reference)
    variables = import_state({name: array.numpy() for name, array in network.state_dict().items()}, model)
    images, x = draw(96, 64, n=2)
    weights = [np.random.default_rng(i).normal(size=(2, 6, 4, 16)).astype(np.float32) for i in range(4)]

    def loss(params, images):
        stages = model.apply({"params": params}, images).stages
        return sum((w * y).sum() for w, y in zip(weights, stages, strict=True))

    of_params, of_images = jax.device_get(jax.jit(jax.grad(loss, (0, 1)))(variables["params"], images))
    network, x = network.double(), x.double().requires_grad_()
    maps = maps_of(network, x, model.patch)
    sum((torch.from_numpy(w.transpose(0, 3, 1, 2)) * y).sum() for w, y in zip(weights, maps, strict=True)).backward()
    state = {
        name: np.zeros(p.shape) if p.grad is None else p.grad.numpy().copy() for name, p in network.named_parameters()
    }
    if (
        "with registers" in reference
    ):  # an import adds the position of the class token to it: here both have the same gradient
        state["embeddings.position_embeddings"][:, 0] = 0
    expected, found = flatten_dict(import_state(state, model)["params"]), flatten_dict(of_params)
    whole = np.sqrt(sum(np.sum(np.square(g)) for g in expected.values()))
    far_params = {
        path: float(np.linalg.norm(found[path] - g) / max(np.linalg.norm(g), 1e-3 * whole))
        for path, g in expected.items()
    }
    worst = max(far_params, key=far_params.get)
    far_image = float(np.abs(of_images - x.grad.numpy().transpose(0, 2, 3, 1)).max() / x.grad.abs().max())
    print(f"parameters {far_params[worst]:.1e} ({'/'.join(worst)}), images {far_image:.1e}")
    assert found.keys() == expected.keys()
    assert far_params[worst] <= 1e-3 and far_image <= 1e-3


TIMM_NAMES = {
    f"{ours}_{letter}{end}": f"vit_{word}_patch{theirs}"
    for letter, word in (("s", "small"), ("b", "base"), ("l", "large"))
    for ours, end, theirs in (
        ("dinov2", "", "14_dinov2"),
        ("dinov2", "_reg", "14_reg4_dinov2"),
        ("dinov3", "", "16_dinov3_qkvb"),
    )
}


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_parameter_counts(name):
    timm = timm_models()
    import torch

    ours = num_parameters(abstract_variables(BACKBONES[name].make()))
    with torch.device("meta"):
        network = timm.create_model(TIMM_NAMES[name], num_classes=0)
    assert ours == sum(p.numel() for p in network.parameters())
    with torch.device("meta"):
        network = full_size(name)
    theirs = {key: p.numel() for key, p in network.named_parameters()}
    width = BACKBONES[name].make().width
    # transformers keeps a token for masked patches, and with registers a position of the class token that is added to that token.
    assert ours == sum(theirs.values()) - theirs["embeddings.mask_token"] - (width if name.endswith("_reg") else 0)


def full_size(name):
    """A network of transformers with the sizes of the published one."""
    model = BACKBONES[name].make()
    kind = "DINOv3ViT" if "dinov3" in name else "Dinov2WithRegisters" if name.endswith("_reg") else "Dinov2"
    options = {
        "num_hidden_layers": model.num_blocks,
        "hidden_size": model.width,
        "num_attention_heads": model.num_heads,
    }
    options |= {"num_register_tokens": 4} if model.registers else {}
    options |= {"intermediate_size": 4 * model.width} if kind == "DINOv3ViT" else {"image_size": 518, "patch_size": 14}
    library = transformers_models()
    config = getattr(library, f"{kind}Config")(**options, out_indices=[i + 1 for i in model.depths])
    return getattr(library, f"{kind}Backbone")(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2_s", "dinov2_s_reg", "dinov3_s", "dinov2_l", "dinov3_l"])
def test_features_of_published_sizes(name, tmp_path):
    network, model = prepare(full_size(name)), BACKBONES[name].make()
    file = write(network, "transformers", tmp_path)
    variables = import_state(read_weights(file).state_dict, model, BACKBONES[name].importers)
    is_large = model.num_blocks == 24
    compare(network, model, variables, [(64, 96)] if is_large else [(224, 224), (128, 96)], 1e-4 if is_large else 1e-5)
