"""Files of publishers with other conventions: networks for BGR images, and networks with InPlaceABN."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file
from support.published_resnets import published
from support.runs import tiny_config

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.backbones.resnet import resnet_tiny
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.hrnet import convert_hrnet, to_state_dict
from pyrseg_jax.models.weights.image_input import (
    BGR_255,
    BGR_255_CCNET,
    BGR_BY_RGB_STATISTICS,
    ImageInput,
    rewrite_first_layer,
)
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS
from pyrseg_jax.run import experiment
from pyrseg_jax.run.start import initialize

CLASSES = 3
# Each publisher's input of an RGB pixel, written out.
INPUTS = {
    "openseg and QGN": (BGR_255, lambda r, g, b: (b - 102.9801, g - 115.9465, r - 122.7717)),
    "CCNet": (BGR_255_CCNET, lambda r, g, b: (b - 104.00698793, g - 116.66876762, r - 122.67891434)),
    "openseg on HRNets": (
        BGR_BY_RGB_STATISTICS,
        lambda r, g, b: ((b - 123.675) / 58.395, (g - 116.28) / 57.12, (r - 103.53) / 57.375),
    ),
    "RGB from -1 to 1": (
        ImageInput("", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), is_bgr=False),
        lambda r, g, b: (r / 127.5 - 1, g / 127.5 - 1, b / 127.5 - 1),
    ),
}
# Largest difference next to the border, where the padding has another color, relative to the largest value of the stem's map. It is
# proportional to the difference of the mean colors: 0.3 to 0.9 of 255 levels for openseg and QGN.
AT_BORDER = {"openseg and QGN": 0.005, "CCNet": 0.01, "openseg on HRNets": 0.2, "RGB from -1 to 1": 0.2}


def draw(model, rng) -> dict:
    """Variables of a network with numbers of the usual sizes; normalizations are not trivial."""

    def draw_one(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if path[-1] == "kernel":
            return noise * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return {"mean": 0.3 * noise, "var": np.exp(0.3 * noise), "scale": 1 + 0.2 * noise, "bias": 0.2 * noise}[
            path[-1]
        ]

    flat = flatten_dict(abstract_variables(model))
    return {path: draw_one(path, leaf).astype(np.float32) for path, leaf in flat.items()}


@pytest.mark.parametrize("publisher", INPUTS)
def test_the_first_layer_computes_from_our_input_what_it_did_from_theirs(rng, publisher):
    """Away from the border all maps agree; next to it they differ by the color of the padding."""
    given, make_input = INPUTS[publisher]
    model = resnet_tiny(stem="deep")
    theirs = draw(model, rng)
    if max(given.std) == 1:  # so that the first layer's results are of the size that the statistics expect
        theirs[("params", "stem1", "conv", "kernel")] /= 57
    ours = rewrite_first_layer(theirs, given)
    photograph = rng.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    r, g, b = np.moveaxis(photograph.astype(np.float64), -1, 0)
    images = np.stack(make_input(r, g, b), axis=-1).astype(np.float32)
    apply = jax.jit(lambda variables, x: model.apply(variables, x).stem)
    expected = np.asarray(apply(unflatten_dict(theirs), images))
    difference = (
        np.abs(np.asarray(apply(unflatten_dict(ours), normalize(jnp.asarray(photograph)))) - expected) / expected.max()
    )
    # The stem has three 3×3 convolutions, the first with stride 2.
    assert difference[:, 3:-3, 3:-3].max() < 1e-5
    assert difference.max() < AT_BORDER[publisher]
    changed = {path[-3:] for path in theirs if not np.array_equal(theirs[path], ours[path])}
    assert changed == {("stem1", "conv", "kernel"), ("stem1", "bn", "mean")}


def test_the_whole_network_agrees_up_to_the_color_of_the_padding(rng):
    """The final map sees the border everywhere. With a padding of the publisher's mean color, both networks agree."""
    model = resnet_tiny(stem="deep")
    theirs = draw(model, rng)
    theirs[("params", "stem1", "conv", "kernel")] /= 57
    ours = rewrite_first_layer(theirs, BGR_255)
    photograph = rng.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    apply = jax.jit(lambda variables, x: model.apply(variables, x).final)
    expected = apply(unflatten_dict(theirs), photograph[..., ::-1] - np.float32(BGR_255.mean))
    difference = (
        np.abs(apply(unflatten_dict(ours), normalize(jnp.asarray(photograph))) - expected).max()
        / np.abs(expected).max()
    )
    assert difference < 0.01
    same_mean = ImageInput("", (103.53, 116.28, 123.675))
    again = apply(unflatten_dict(rewrite_first_layer(theirs, same_mean)), normalize(jnp.asarray(photograph)))
    expected = apply(unflatten_dict(theirs), photograph[..., ::-1] - np.float32(same_mean.mean))
    assert np.abs(again - expected).max() / np.abs(expected).max() < 1e-4


def build(context, backbone="resnet_tiny", **options):
    options = {"stem": "deep", "strides": (64, 32, 16, 8)} | options if backbone == "resnet_tiny" else options
    sizes = {"semantic_width": 16, "key_width": 8}
    return build_segmenter(CLASSES, backbone=backbone, context=context, representation="per_pixel", **sizes, **options)


KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def head_arrays(model, names, rng):
    """Arrays of a head, by names written down by hand as (convolution, normalization), with scales of both signs."""
    state, scales = {}, {}
    for path, leaf in flatten_dict(abstract_variables(model)).items():
        layer = "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn").removeprefix("context/context/")
        if layer not in names:
            continue
        convolution, norm = names[layer]
        array = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if path[-1] == "scale":
            array *= np.where(np.arange(array.size) % 2, 1, -1).astype(np.float32)
            scales[path] = array
        name = norm if path[-2] == "bn" else convolution
        state[f"{name}.{KINDS[path[-1]]}"] = array.transpose(3, 2, 0, 1) if path[-1] == "kernel" else array
    return state, scales


BLOCK = "spatial_ocr_head.object_context_block"
OPENSEG = {
    "reduce": ("conv_3x3.0", "conv_3x3.1"),
    "query_1": (f"{BLOCK}.f_pixel.0", f"{BLOCK}.f_pixel.1"),
    "query_2": (f"{BLOCK}.f_pixel.2", f"{BLOCK}.f_pixel.3"),
    "key_1": (f"{BLOCK}.f_object.0", f"{BLOCK}.f_object.1"),
    "key_2": (f"{BLOCK}.f_object.2", f"{BLOCK}.f_object.3"),
    "value_1": (f"{BLOCK}.f_down.0", f"{BLOCK}.f_down.1"),
    "out": (f"{BLOCK}.f_up.0", f"{BLOCK}.f_up.1"),
    "merge": ("spatial_ocr_head.conv_bn_dropout.0", "spatial_ocr_head.conv_bn_dropout.1"),
    "semantic_head/classify_4": ("head", None),
    "auxiliary_head/project_1": ("dsn_head.0", "dsn_head.1"),
    "auxiliary_head/classify_1": ("dsn_head.3", None),
}
CCNET = {
    "reduce": ("head.conva.0", "head.conva.1"),
    "smooth": ("head.convb.0", "head.convb.1"),
    "merge": ("head.bottleneck.0", "head.bottleneck.1"),
    "criss_cross/query": ("head.cca.query_conv", None),
    "criss_cross/key": ("head.cca.key_conv", None),
    "criss_cross/value": ("head.cca.value_conv", None),
    "semantic_head/classify_4": ("head.bottleneck.3", None),
}


def write(layout, has_index=False):
    """A file of openseg or CCNet with negative scales in backbone and head; also the network and the scales by path."""
    rng = np.random.default_rng(0)
    model = build("ocr_openseg" if layout == "openseg" else "ccnet")
    names = OPENSEG if layout == "openseg" else CCNET
    if has_index:
        names = {ours: (theirs[0], theirs[1] and f"{theirs[1]}.0") for ours, theirs in names.items()}
    state, backbone = published(layout, resnet_tiny(stem="deep"))
    prefix = "backbone." if layout == "openseg" else ""
    last = f"{prefix}{'resinit.' if layout == 'openseg' else ''}bn3.weight"
    state = {f"{prefix}{name}": array for name, array in state.items()}
    state[last] = -state[last]
    head, scales = head_arrays(model, names, rng)
    scales |= {("params", "backbone", "stem3", "bn", "scale"): state[last]}
    if layout != "openseg":
        head["head.cca.gamma"] = np.ones(1, np.float32)
    return state | head, model, scales, backbone


def with_counters(state):
    """The file with PyTorch's counters beside its normalizations."""
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": np.array(7) for norm in norms}


@pytest.mark.parametrize("layout", ["openseg", "CSAIL"])
def test_files_with_in_place_abn_give_the_scales_that_it_uses(layout):
    """openseg's lack the index inside of a pair of normalization and activation; CCNet's lack PyTorch's counters."""
    state, model, scales, backbone = write(layout)
    found = import_weights(state, abstract_variables(model), RESNET_IMPORTERS)
    assert not found.left
    missing = {path[1] for path in flatten_dict(abstract_variables(model)) if path not in found.variables}
    assert missing == (set() if layout == "openseg" else {"auxiliary_head"})
    for path, scale in scales.items():
        assert (scale < 0).any()
        np.testing.assert_allclose(found.variables[path], np.abs(scale) + 1e-5, rtol=1e-6)
    assert len(found.converted) == 2 and "absolute values" in found.converted[1]
    assert len(found.differs) == 1 and "leaky ReLU" in found.differs[0]


@pytest.mark.parametrize("layout", ["openseg", "CSAIL"])
def test_plain_normalizations_keep_the_signs_of_their_scales(layout):
    state, model, scales, _ = write(layout, has_index=layout == "openseg")
    found = import_weights(with_counters(state), abstract_variables(model), RESNET_IMPORTERS)
    assert not found.left
    for path, scale in scales.items():
        np.testing.assert_array_equal(found.variables[path], scale)
    assert len(found.converted) == 1 and not found.differs


@pytest.mark.parametrize("layout", ["openseg", "CSAIL"])
def test_the_first_convolution_of_these_files_is_rewritten(layout):
    """By the formula for a single number: ours = theirs of the reversed channel · standard deviation."""
    state, model, _, backbone = write(layout)
    found = import_weights(state, abstract_variables(model), RESNET_IMPORTERS)
    theirs = backbone["params"]["stem1"]["conv"]["kernel"]
    ours = found.variables[("params", "backbone", "stem1", "conv", "kernel")]
    for channel, std in enumerate((58.395, 57.12, 57.375)):
        np.testing.assert_allclose(ours[:, :, channel], std * theirs[:, :, 2 - channel], rtol=1e-6)
    mean = (102.9801, 115.9465, 122.7717) if layout == "openseg" else (104.00698793, 116.66876762, 122.67891434)
    constant = sum(
        (ours_mean - mean[2 - channel]) * theirs[:, :, 2 - channel].sum((0, 1))
        for channel, ours_mean in enumerate((123.675, 116.28, 103.53))
    )
    np.testing.assert_allclose(
        found.variables[("batch_stats", "backbone", "stem1", "bn", "mean")],
        backbone["batch_stats"]["stem1"]["bn"]["mean"] - constant,
        rtol=1e-4,
    )


def test_imagenet_weights_of_csail_and_other_publishers_are_not_rewritten():
    """Whether its ImageNet file expects BGR is not published for certain, and the code that reads it today gives it RGB."""
    for layout in ("CSAIL", "semseg", "PyTorch-Encoding"):
        state, expected = published(layout, resnet_tiny(stem="deep"))
        found = import_weights(state, abstract_variables(build("fcn")), RESNET_IMPORTERS)
        assert not found.converted
        kernel = found.variables[("params", "backbone", "stem1", "conv", "kernel")]
        np.testing.assert_array_equal(kernel, expected["params"]["stem1"]["conv"]["kernel"])


def official(context, is_openseg=False, has_counters=True):
    """A file of an HRNet with an official head or openseg's, with the last scale of the stem negative."""
    model = build(context, "hrnet_tiny")
    variables = initial_variables(model, 0)
    scale = np.array(variables["params"]["backbone"]["stem2"]["bn"]["scale"])
    variables["params"]["backbone"]["stem2"]["bn"]["scale"] = -scale
    state = to_state_dict(variables)
    if is_openseg:
        state = {name.replace("conv3x3_ocr", "conv3x3"): array for name, array in state.items()}
    if not has_counters:
        state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    return state, variables, model


@pytest.mark.parametrize("context", ["none", "ocr"])
@pytest.mark.parametrize("has_counters", [True, False])
def test_official_networks_without_counters_come_from_in_place_abn(context, has_counters):
    """The files named torch04. Their activation is a module of its own, a ReLU as ours."""
    state, variables, model = official(context, has_counters=has_counters)
    for found in (
        unflatten_dict(import_weights(state, abstract_variables(model), BACKBONES["hrnet_tiny"].importers).variables)[
            "params"
        ]["backbone"],
        convert_hrnet(state)["params"],
    ):
        scale = variables["params"]["backbone"]["stem2"]["bn"]["scale"]
        expected = scale if has_counters else np.abs(scale) + 1e-5
        np.testing.assert_allclose(found["stem2"]["bn"]["scale"], expected, rtol=1e-6)
    found = import_weights(state, abstract_variables(model), BACKBONES["hrnet_tiny"].importers)
    assert not found.left and not found.differs and bool(found.converted) != has_counters


def test_the_hrnet_of_openseg_reads_bgr():
    state, variables, model = official("ocr", is_openseg=True)
    found = import_weights(state, abstract_variables(model), BACKBONES["hrnet_tiny"].importers)
    assert found.converted == ("the first convolution, from BGR normalized by the statistics of RGB to normalized RGB",)
    kernel = found.variables[("params", "backbone", "stem1", "conv", "kernel")]
    theirs = variables["params"]["backbone"]["stem1"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0], theirs[:, :, 2] * 58.395 / 57.375, rtol=1e-5)
    np.testing.assert_array_equal(convert_hrnet(state)["params"]["stem1"]["conv"]["kernel"], kernel)


def test_an_hrnet_without_a_head_keeps_its_scales():
    """ImageNet files of any publisher, whatever their converter left out."""
    model = HRNet(8)
    variables = jax.tree.map(lambda x: -np.ones(x.shape, np.float32), abstract_variables(model)["params"])
    stats = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_variables(model)["batch_stats"])
    state = to_state_dict({"params": variables, "batch_stats": stats})
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    assert convert_hrnet(state)["params"]["stem1"]["bn"]["scale"].max() == -1


def test_the_log_says_what_was_converted_and_what_still_differs(tmp_path, caplog):
    state, _, _, _ = write("openseg")
    path = tmp_path / "openseg.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, path)
    options = {"backbone": "resnet_tiny", "stem": "deep", "context": "ocr_openseg", "representation": "per_pixel"}
    config = tiny_config(path, strides=(64, 32, 16, 8), dilation="contracted", resize="half_pixel", **options)
    with caplog.at_level(logging.INFO):
        initialize(config, experiment.make_model(config, CLASSES), ade_layout(("a", "b", "c")))
    messages = [record.getMessage() for record in caplog.records]
    assert messages[-1].endswith(
        "; converted: the first convolution, from BGR from 0 to 255 minus a mean to normalized RGB; the scales of "
        "normalizations, to the absolute values that InPlaceABN uses"
    )
    assert any(
        "the weights are of OCR, openseg: its layers after the backbone have a leaky ReLU" in m for m in messages
    )
