"""ResNet: equal to the implementations of torchvision and mmsegmentation, from weights in every publisher's layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from support.multiply_adds import multiply_adds
from support.published_counts import BACKBONES as PUBLISHED
from support.published_resnets import LAYOUTS, published
from support.reference_networks import mmseg_models, randomize, torchvision_models

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.resnet import (
    DILATION_RULES,
    STEMS,
    ResNet,
    plan_stages,
    resnet50,
    resnet101,
    resnet_tiny,
)
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS

COUNTS = {
    ("resnet50", "v1"): 23_508_032,
    ("resnet50", "v1c"): 23_527_264,
    ("resnet50", "deep"): 23_631_808,
    ("resnet101", "v1"): PUBLISHED["v1"],
    ("resnet101", "v1c"): PUBLISHED["v1c"],
    ("resnet101", "deep"): PUBLISHED["deep"],
}
# (stem, output stride, side of the image in pixels) → billions of multiply-adds of the convolutions.
MULTIPLY_ADDS = {
    ("v1", 8, 512): 177.3,
    ("v1", 16, 512): 51.8,
    ("v1", 32, 512): 40.8,
    ("v1c", 8, 512): 178.5,
    ("v1c", 16, 512): 53.1,
    ("v1c", 32, 512): 42.0,
    ("deep", 8, 512): 184.3,
    ("deep", 16, 512): 58.9,
    ("deep", 32, 512): 47.8,
    ("deep", 8, 513): 189.9,
}


def variables_from(state_dict: dict, model: ResNet) -> dict:
    """The variables of a backbone, from a publisher's file."""
    abstract = abstract_variables(model)
    nested = {kind: {"backbone": tree} for kind, tree in abstract.items()}
    found = import_weights(state_dict, nested, RESNET_IMPORTERS)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


def stages_of(model: ResNet, variables: dict, images: np.ndarray) -> tuple[np.ndarray, ...]:
    return jax.device_get(jax.jit(model.apply)(variables, images).stages)


def assert_equal(ours: tuple[np.ndarray, ...], theirs: list, tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, theirs, strict=True):
        b = b.numpy().transpose(0, 2, 3, 1)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(("name", "stem"), COUNTS)
def test_parameter_counts(name, stem):
    assert num_parameters(abstract_variables(BACKBONES[name].make(stem=stem))) == COUNTS[name, stem]


@pytest.mark.parametrize(("stem", "stride", "side"), MULTIPLY_ADDS)
def test_multiply_adds(stem, stride, side):
    model = resnet101(stem=stem, output_stride=stride)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    program = jax.make_jaxpr(model.apply)(variables_of(stem), images)
    assert multiply_adds(program.jaxpr) / 1e9 == pytest.approx(MULTIPLY_ADDS[stem, stride, side], abs=0.06)


@functools.lru_cache
def variables_of(stem: str) -> dict:
    """Return the shapes of the variables, which are the same at every output stride."""
    return abstract_variables(resnet101(stem=stem))


@pytest.mark.parametrize("rule", DILATION_RULES)
def test_dilations(rule):
    plan = [(stage.stride, stage.dilations) for stage in plan_stages((3, 4, 6, 3), 8, rule, None)]
    contracted = rule == "contracted"
    assert plan == [
        (1, (1, 1, 1)),
        (2, (1, 1, 1, 1)),
        (1, (1 if contracted else 2, 2, 2, 2, 2, 2)),
        (1, (2 if contracted else 4, 4, 4)),
    ]
    assert [stage.stride for stage in plan_stages((3, 4, 6, 3), 32, rule, None)] == [1, 2, 2, 2]
    assert plan_stages((3, 4, 6, 3), 16, rule, (2, 8, 16))[-1].dilations == (2, 8, 16)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_equal_to_torchvision(stride):
    dilated = {8: [False, True, True], 16: [False, False, True], 32: [False, False, False]}[stride]
    network = randomize(torchvision_models().resnet50(weights=None, replace_stride_with_dilation=dilated))
    import torch

    model = resnet50(stem="v1", output_stride=stride)
    images = np.random.default_rng(0).normal(size=(1, 96, 128, 3)).astype(np.float32)
    x, theirs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), []
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            theirs.append(x)
    assert_equal(stages_of(model, variables_from(to_numpy(network), model), images), theirs)


@pytest.mark.parametrize(
    ("depth", "rule", "stride", "multi_grid"),
    [(50, "contracted", 8, None), (50, "plain", 8, (4, 8, 16)), (101, "plain", 16, None)],
)
def test_equal_to_mmsegmentation(depth, rule, stride, multi_grid):
    strides, dilations = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}[stride]
    network = randomize(
        mmseg_models().build(
            {
                "type": "ResNetV1c",
                "depth": depth,
                "strides": strides,
                "dilations": dilations,
                "contract_dilation": rule == "contracted",
                "multi_grid": multi_grid,
                "norm_cfg": {"type": "BN"},
            }
        )
    )
    import torch

    model = {50: resnet50, 101: resnet101}[depth](output_stride=stride, dilation=rule, multi_grid=multi_grid)
    images = np.random.default_rng(1).normal(size=(1, 96, 128, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert_equal(stages_of(model, variables_from(to_numpy(network), model), images), theirs)


def to_numpy(network) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    model = resnet_tiny(stem=LAYOUTS[layout][0])
    state, expected = published(layout, model)
    state |= {"fc.weight": np.zeros((1000, 256)), "fc.bias": np.zeros(1000)}
    found = variables_from(state, model)
    if layout == "openseg":  # the first layer is rewritten, see test_published_conventions.py
        for kind, at, array in (("params", "conv", "kernel"), ("batch_stats", "bn", "mean")):
            assert not np.array_equal(found[kind]["stem1"][at][array], expected[kind]["stem1"][at][array])
            found[kind]["stem1"][at][array] = expected[kind]["stem1"][at][array]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_file_with_another_stem_says_so():
    state, _ = published("torchvision", resnet_tiny(stem="v1"))
    with pytest.raises(UserError, match=r"stem"):
        variables_from(state, resnet_tiny(stem="v1c"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 4}, r"output_stride=4: expected one of 8, 16, 32"),
        ({"dilation": "half"}, r"dilation='half': expected one of 'contracted', 'plain'"),
        ({"stem": "v2"}, r"stem='v2': expected one of 'v1', 'v1c', 'deep'"),
        ({"multi_grid": (1, 2)}, r"multi_grid=\(1, 2\): expected 3 dilations"),
        ({"resize": "align_corners"}, r"resize='align_corners': the backbone 'resnet_tiny' has no such option"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_segmenter(3, backbone="resnet_tiny", strides=(32, 16, 8, 4), **options)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stride", [8, 32])
def test_pyramid_on_a_resnet(stem, stride):
    """The pyramid has stride 4 on every output stride."""
    model = build_segmenter(
        3,
        backbone="resnet_tiny",
        stem=stem,
        output_stride=stride,
        strides=(32, 16, 8, 4),
        semantic_width=16,
        key_width=8,
    )
    shapes = jax.eval_shape(lambda: model.apply(abstract_zeros(model), jnp.zeros((1, 64, 96, 3))))
    assert [x.shape for x in shapes.semantic] == [(1, 2, 3, 3), (1, 4, 6, 3), (1, 8, 12, 3), (1, 16, 24, 3)]


def abstract_zeros(model) -> dict:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(model))
