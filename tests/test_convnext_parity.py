"""ConvNeXt and ConvNeXt V2: equal to the publishers' networks, from files that they write."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.published_convnexts import BLOCKS, LAYOUTS, WIDTHS, network_of, stages_of, state_of, to_official
from support.reference_networks import mmseg_models, randomize, require, timm_models, transformers_models

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.convnext import CONVNEXT, IMPORTERS
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.importer import import_weights

V1_ONLY = ("torchvision", "DINOv3")
# The official files are those of timm's network under the official names.
CASES = [(layout, is_v2) for layout in LAYOUTS for is_v2 in (False, True) if not (is_v2 and layout in V1_ONLY)]
SIZES = ((96, 128), (160, 64))  # of images, in pixels


def write_file(state: dict, path) -> None:
    import torch

    if path.suffix == ".pth":
        torch.save({"model": state}, path)
    else:
        require("safetensors")
        from safetensors.torch import save_file

        save_file(state, path)


def load(layout: str, network, folder, backbone: str) -> tuple:
    """Return our network with the arrays of a publisher's network, by way of a file."""
    state = state_of(network, layout)
    if layout == "official":
        state = to_official(state)
    path = folder / ("file.pth" if layout in ("official", "torchvision") else "file.safetensors")
    write_file(state, path)
    model = BACKBONES[backbone].make()
    return model, import_backbone(read_weights(path).state_dict, model)


def import_backbone(state: dict, model) -> dict:
    nested = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    found = import_weights(state, nested, IMPORTERS)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


def network(layout: str, is_v2: bool):
    return network_of("timm" if layout == "official" else layout, is_v2)


def draw_images(height: int, width: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, height, width, 3)).astype(np.float32)


def channels_first(images: np.ndarray):
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def far(found, expected) -> float:
    """Return the largest difference, relative to the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def distances(layout: str, reference, model, variables, images) -> list[float]:
    import torch

    with torch.no_grad():
        theirs = stages_of("timm" if layout == "official" else layout, reference, channels_first(images))
    ours = jax.jit(model.apply)(variables, images).stages
    return [far(a, b.numpy().transpose(0, 2, 3, 1)) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize(("layout", "is_v2"), CASES)
def test_features_from_a_file_equal_the_publishers(layout, is_v2, tmp_path):
    reference = network(layout, is_v2)
    model, variables = load(layout, reference, tmp_path, f"convnext{'v2' * is_v2}_micro")
    for size in SIZES:
        found = distances(layout, reference, model, variables, draw_images(*size))
        print(layout, is_v2, size, [f"{distance:.1e}" for distance in found])
        assert max(found) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ours"), [("convnext_tiny", "convnext_t"), ("convnextv2_atto", "convnextv2_a")])
def test_features_of_real_members_equal_timms(name, ours, tmp_path):
    reference = randomize(timm_models().create_model(name))
    model, variables = load("timm", reference, tmp_path, ours)
    for size in ((224, 224), (96, 160)):
        found = distances("timm", reference, model, variables, draw_images(*size))
        print(name, size, [f"{distance:.1e}" for distance in found])
        assert max(found) < 1e-5


@pytest.mark.parametrize(("layout", "is_v2"), [("timm", False), ("transformers", True)])
def test_gradients_equal_the_publishers_in_float64(layout, is_v2, tmp_path):
    reference = network(layout, is_v2)
    model, variables = load(layout, reference, tmp_path, f"convnext{'v2' * is_v2}_micro")
    images = draw_images(96, 64, 2)
    given = channels_first(images).double().requires_grad_()
    theirs = stages_of(layout, reference.double(), given)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=tuple(stage.shape)) for stage in theirs]
    import torch

    sum((torch.from_numpy(w) * stage).sum() for w, stage in zip(weights, theirs, strict=True)).backward()

    def loss(params, images):
        stages = model.apply({"params": params}, images).stages
        return sum((jnp.float32(w.transpose(0, 2, 3, 1)) * x).sum() for w, x in zip(weights, stages, strict=True))

    ours, of_images = jax.jit(jax.grad(loss, (0, 1)))(variables["params"], images)
    state = {name: x.grad.float().numpy() for name, x in reference.named_parameters() if x.grad is not None}
    expected = flatten_dict(import_backbone(state, model)["params"])
    found = {path: far(x, expected[path]) for path, x in flatten_dict(ours).items()}
    print(layout, f"{max(found.values()):.1e}", max(found, key=found.__getitem__))
    assert max(found.values()) < 1e-3
    assert far(of_images, given.grad.numpy().transpose(0, 2, 3, 1)) < 1e-3


TIMM_NAMES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "a": "atto", "f": "femto", "p": "pico", "n": "nano"}
MEMBERS = [name for name in CONVNEXT if not name.endswith("micro")]


@pytest.mark.parametrize("name", MEMBERS)
def test_parameter_counts_equal_timms(name):
    timm = timm_models()
    import torch

    family, size = name.split("_")
    with torch.device("meta"):
        reference = timm.create_model(f"{family}_{TIMM_NAMES[size]}")
    expected = sum(x.numel() for key, x in reference.named_parameters() if not key.startswith("head."))
    assert num_parameters(abstract_variables(BACKBONES[name].make(), 32)) == expected


@pytest.mark.parametrize("name", ["convnext_t", "convnext_b"])
def test_layer_numbers_equal_mmsegmentations(name):
    mmseg_models()
    from mmseg.engine.optimizers.layer_decay_optimizer_constructor import get_layer_id_for_convnext

    spec = BACKBONES[name]
    name_of = next(importer for importer in IMPORTERS if "open-mmlab" in importer.family).name_of
    for path in flatten_dict(abstract_variables(spec.make(), 32)):
        expected = get_layer_id_for_convnext(f"backbone.{name_of(path)}", {"convnext_t": 6, "convnext_b": 12}[name])
        assert spec.depth_of(path[1:]) == expected


@functools.cache
def upernet(is_v2: bool):
    """UperNet on a ConvNeXt as transformers has it, for 5 classes, with a neck of normalizations."""
    transformers = transformers_models()
    kind = transformers.ConvNextV2Config if is_v2 else transformers.ConvNextConfig
    backbone = kind(depths=list(BLOCKS), hidden_sizes=list(WIDTHS), out_features=[f"stage{i}" for i in range(1, 5)])
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=5, auxiliary_in_channels=WIDTHS[2]
    )
    return randomize(transformers.UperNetForSemanticSegmentation(config))


@pytest.mark.parametrize("is_v2", [False, True])
def test_a_whole_upernet_equals_that_of_transformers(is_v2, tmp_path):
    import torch

    reference = upernet(is_v2)
    write_file({name: x.contiguous() for name, x in reference.state_dict().items()}, tmp_path / "file.safetensors")
    model = build_segmenter(
        5,
        backbone=f"convnext{'v2' * is_v2}_micro",
        context="upernet_512",
        representation="per_pixel",
        semantic_width=16,
    )
    abstract = abstract_variables(model)
    found = import_weights(read_weights(tmp_path / "file.safetensors").state_dict, abstract, IMPORTERS)
    assert not found.left
    assert set(found.variables) == set(flatten_dict(abstract))
    images = draw_images(96, 128)
    ours = jax.jit(model.apply)(unflatten_dict(found.variables), images).semantic[-1]
    with torch.no_grad():
        theirs = reference(channels_first(images)).logits
    ours = jax.image.resize(ours, (1, 96, 128, 5), "linear")  # transformers enlarges its logits to the image's size
    distance = far(ours, theirs.numpy().transpose(0, 2, 3, 1))
    print(f"UperNet {is_v2} {distance:.1e}")
    assert distance < 1e-5
