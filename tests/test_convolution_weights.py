"""Published heads of FCN, PSPNet, UperNet, DeepLabV3+ and PSANet on ResNets, by the names in their publishers' files."""

import logging

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from support.published_resnets import LAYOUTS, published
from support.runs import tiny_config

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones.resnet import resnet_tiny
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS
from pyrseg_jax.run import experiment
from pyrseg_jax.run.start import initialize

CLASSES = 3
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# (publisher, our context) → our layer → its published name. An entry with a comma names convolution and normalization, one without
# has ".conv" and ".bn" below it, and one that begins with "=" is a convolution alone. Our names without a slash are of the module.
MMSEG_AUXILIARY = {
    "auxiliary_head/project_1": "auxiliary_head.convs.0",
    "auxiliary_head/classify_1": "=auxiliary_head.conv_seg",
    "semantic_head/classify_4": "=decode_head.conv_seg",
}
SEMSEG_LAST = {
    "merge": "cls.0, cls.1",
    "semantic_head/classify_4": "=cls.4",
    "auxiliary_head/project_1": "aux.0, aux.1",
    "auxiliary_head/classify_1": "=aux.4",
}
NAMES = {
    ("open-mmlab", "fcn"): {
        "conv_1": "decode_head.convs.0",
        "conv_2": "decode_head.convs.1",
        "merge": "decode_head.conv_cat",
    }
    | MMSEG_AUXILIARY,
    ("open-mmlab", "pspnet"): {
        "pool_1": "decode_head.psp_modules.0.1",
        "pool_2": "decode_head.psp_modules.1.1",
        "pool_3": "decode_head.psp_modules.2.1",
        "pool_6": "decode_head.psp_modules.3.1",
        "merge": "decode_head.bottleneck",
    }
    | MMSEG_AUXILIARY,
    ("open-mmlab", "upernet_512"): {
        "pool_1": "decode_head.psp_modules.0.1",
        "pool_2": "decode_head.psp_modules.1.1",
        "pool_3": "decode_head.psp_modules.2.1",
        "pool_6": "decode_head.psp_modules.3.1",
        "top": "decode_head.bottleneck",
        "lateral_2": "decode_head.lateral_convs.0",
        "lateral_3": "decode_head.lateral_convs.1",
        "lateral_4": "decode_head.lateral_convs.2",
        "smooth_2": "decode_head.fpn_convs.0",
        "smooth_3": "decode_head.fpn_convs.1",
        "smooth_4": "decode_head.fpn_convs.2",
        "merge": "decode_head.fpn_bottleneck",
    }
    | MMSEG_AUXILIARY,
    ("open-mmlab", "deeplabv3plus"): {
        "pool": "decode_head.image_pool.1",
        "rate_0": "decode_head.aspp_modules.0",
        "context/context/rate_1/depthwise": "decode_head.aspp_modules.1.depthwise_conv",
        "context/context/rate_1/pointwise": "decode_head.aspp_modules.1.pointwise_conv",
        "context/context/rate_2/depthwise": "decode_head.aspp_modules.2.depthwise_conv",
        "context/context/rate_2/pointwise": "decode_head.aspp_modules.2.pointwise_conv",
        "context/context/rate_3/depthwise": "decode_head.aspp_modules.3.depthwise_conv",
        "context/context/rate_3/pointwise": "decode_head.aspp_modules.3.pointwise_conv",
        "join": "decode_head.bottleneck",
        "detail": "decode_head.c1_bottleneck",
        "context/context/refine_1/depthwise": "decode_head.sep_bottleneck.0.depthwise_conv",
        "context/context/refine_1/pointwise": "decode_head.sep_bottleneck.0.pointwise_conv",
        "context/context/refine_2/depthwise": "decode_head.sep_bottleneck.1.depthwise_conv",
        "context/context/refine_2/pointwise": "decode_head.sep_bottleneck.1.pointwise_conv",
    }
    | MMSEG_AUXILIARY,
    ("open-mmlab", "psanet_mmseg"): {
        "collect_reduce": "decode_head.reduce",
        "collect_hidden": "decode_head.attention.0",
        "collect_scores": "=decode_head.attention.1",
        "distribute_reduce": "decode_head.reduce_p",
        "distribute_hidden": "decode_head.attention_p.0",
        "distribute_scores": "=decode_head.attention_p.1",
        "join": "decode_head.proj",
        "merge": "decode_head.bottleneck",
    }
    | MMSEG_AUXILIARY,
    ("semseg", "pspnet"): {
        "pool_1": "ppm.features.0.1, ppm.features.0.2",
        "pool_2": "ppm.features.1.1, ppm.features.1.2",
        "pool_3": "ppm.features.2.1, ppm.features.2.2",
        "pool_6": "ppm.features.3.1, ppm.features.3.2",
    }
    | SEMSEG_LAST,
    ("semseg", "psanet"): {
        "collect_reduce": "psa.reduce.0, psa.reduce.1",
        "collect_hidden": "psa.attention.0, psa.attention.1",
        "collect_scores": "=psa.attention.3",
        "distribute_reduce": "psa.reduce_p.0, psa.reduce_p.1",
        "distribute_hidden": "psa.attention_p.0, psa.attention_p.1",
        "distribute_scores": "=psa.attention_p.3",
        "join": "psa.proj.0, psa.proj.1",
    }
    | SEMSEG_LAST,
    ("CSAIL", "upernet"): {
        "pool_1": "ppm_conv.0.0, ppm_conv.0.1",
        "pool_2": "ppm_conv.1.0, ppm_conv.1.1",
        "pool_3": "ppm_conv.2.0, ppm_conv.2.1",
        "pool_6": "ppm_conv.3.0, ppm_conv.3.1",
        "top": "ppm_last_conv.0, ppm_last_conv.1",
        "lateral_2": "fpn_in.0.0, fpn_in.0.1",
        "lateral_3": "fpn_in.1.0, fpn_in.1.1",
        "lateral_4": "fpn_in.2.0, fpn_in.2.1",
        "smooth_2": "fpn_out.0.0.0, fpn_out.0.0.1",
        "smooth_3": "fpn_out.1.0.0, fpn_out.1.0.1",
        "smooth_4": "fpn_out.2.0.0, fpn_out.2.0.1",
        "merge": "conv_last.0.0, conv_last.0.1",
        "semantic_head/classify_4": "=conv_last.1",
    },
}
SOURCES = {
    "open-mmlab": {
        "fcn": "FCN, mmsegmentation",
        "pspnet": "PSPNet, mmsegmentation",
        "upernet_512": "UperNet, mmsegmentation",
        "deeplabv3plus": "DeepLabV3+, mmsegmentation",
        "psanet_mmseg": "PSANet, mmsegmentation",
    },
    "semseg": {"pspnet": "PSPNet, semseg", "psanet": "PSANet, semseg"},
    "CSAIL": {"upernet": "UperNet, CSAIL"},
}


def tiny_network(context, layout, **options):
    return build_segmenter(
        CLASSES,
        backbone="resnet_tiny",
        context=context,
        representation="per_pixel",
        stem=LAYOUTS[layout][0],
        semantic_width=8,
        crop_px=64,
        **options,
    )


def layers_of(names):
    """Yield our layer with its published convolution and normalization."""
    for ours, name in names.items():
        ours = ours if "/" in ours else f"context/context/{ours}"
        if name.startswith("="):
            yield ours, name[1:], None
        else:
            yield ours, *(name.split(", ") if "," in name else (f"{name}.conv", f"{name}.bn"))


def published_head(layout, context, model):
    """A head's arrays with distinct numbers by their published names, and by the paths of ours."""
    rng = np.random.default_rng(1)
    state, expected = {}, {}
    layers = {ours: names for ours, *names in layers_of(NAMES[layout, context])}
    for path, leaf in flatten_dict(abstract_variables(model)).items():
        if path[1] == "backbone":
            continue
        ours = "/".join(path[1:-1])
        convolution, norm = layers[ours.removesuffix("/conv").removesuffix("/bn")]
        array = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        name = f"{norm if ours.endswith('/bn') else convolution}.{KINDS[path[-1]]}"
        state[name] = array.transpose(3, 2, 0, 1) if path[-1] == "kernel" else array
        expected[path] = array
    return state, expected


def published_network(layout, context, model):
    """The arrays of a backbone and those of its head, and both by the paths of ours."""
    backbone, ours = published(layout, resnet_tiny(stem=LAYOUTS[layout][0]))
    head, expected = published_head(layout, context, model)
    expected |= {(path[0], "backbone", *path[1:]): array for path, array in flatten_dict(ours).items()}
    return backbone, head, expected


@pytest.mark.parametrize(("layout", "context"), NAMES)
def test_layouts(layout, context):
    model = tiny_network(context, layout)
    backbone, head, expected = published_network(layout, context, model)
    prefix = "backbone." if layout == "open-mmlab" else ""
    state = {f"{prefix}{name}": array for name, array in backbone.items()} | head
    state = {f"module.{name}": array for name, array in state.items()} if layout == "semseg" else state
    found = import_weights(state, abstract_variables(model), RESNET_IMPORTERS)
    assert found.source == SOURCES[layout][context]
    assert not found.left
    assert set(found.variables) == set(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(found.variables[path], array)
    assert found.trained.get("resize", "half_pixel") == ("align_corners" if layout == "semseg" else "half_pixel")
    if context.startswith("upernet"):
        assert found.trained["output_stride"] == 32
    else:
        assert found.trained["dilation"] == ("plain" if layout == "semseg" else "contracted")


def test_psanet_of_semseg_has_its_window_at_480_pixels():
    """Its crops have 465 pixels, which no stride divides. 480 pixels give the same window, with three levels of strides."""
    options = {"strides": (32, 16, 8), "crop_px": 480}
    model = build_segmenter(CLASSES, backbone="resnet_tiny", context="psanet", representation="per_pixel", **options)
    scores = abstract_variables(model)["params"]["context"]["context"]["collect_scores"]["kernel"]
    assert scores.shape == (1, 1, 512, 59**2)


def test_a_head_fits_any_number_of_levels():
    model = tiny_network("pspnet", "semseg", strides=(16, 8))
    backbone, head, _ = published_network("semseg", "pspnet", tiny_network("pspnet", "semseg"))
    found = import_weights(backbone | head, abstract_variables(model), RESNET_IMPORTERS)
    assert not found.left
    assert set(found.variables) == set(flatten_dict(abstract_variables(model)))
    np.testing.assert_array_equal(
        found.variables["params", "semantic_head", "classify_2", "bias"],
        head["cls.4.bias"],
    )


@pytest.mark.parametrize(
    ("context", "of_file", "extra"), [("pspnet", "upernet_512", ()), ("fcn", "fcn", ("cca.query_conv",))]
)
def test_a_head_that_only_begins_alike_is_not_taken(context, of_file, extra):
    """A UperNet holds all layers of a PSPNet by name, and a CCNet those of an FCN."""
    model = tiny_network(of_file, "open-mmlab")
    backbone, head, _ = published_network("open-mmlab", of_file, model)
    state = {f"backbone.{name}": array for name, array in backbone.items()} | head
    state |= {f"decode_head.{name}.weight": np.zeros((1, 1, 1, 1), np.float32) for name in extra}
    found = import_weights(state, abstract_variables(tiny_network(context, "open-mmlab")), RESNET_IMPORTERS)
    assert all(path[1] == "backbone" for path in found.variables)
    assert found.left


def write(path, state):
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, path)
    return path


def upernet_config(init, **options):
    network = {"backbone": "resnet_tiny", "context": "upernet", "representation": "per_pixel", "stem": "deep"}
    return tiny_config(init, **(network | {"output_stride": 32, "strides": (32, 16, 8, 4)} | options))


def start_from(config):
    return initialize(config, experiment.make_model(config, CLASSES), ade_layout(("sky", "ground", "post")))


@pytest.fixture
def upernet(tmp_path):
    """CSAIL's two files, and the variables that they should give."""
    model = experiment.make_model(upernet_config(None), CLASSES)
    backbone, head, expected = published_network("CSAIL", "upernet", model)
    files = write(tmp_path / "encoder.safetensors", backbone), write(tmp_path / "decoder.safetensors", head)
    return files, expected


def test_a_network_starts_from_two_files(upernet, caplog):
    (encoder, decoder), expected = upernet
    with caplog.at_level(logging.INFO):
        start = start_from(upernet_config(f"{encoder},{decoder}"))
    found = flatten_dict(start.variables)
    assert set(found) == set(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)
    assert start.origin["file"] == f"{encoder},{decoder}"
    assert start.origin["source"] == "UperNet, CSAIL"
    assert len(start.origin["sha256"]) == 64
    messages = [record.getMessage() for record in caplog.records]
    assert messages[-1].endswith("random: nothing; not used: nothing")
    assert not any("predict worse" in message for message in messages)


def test_other_options_than_those_of_the_weights_are_named(upernet, caplog):
    (encoder, decoder), _ = upernet
    start_from(upernet_config(f"{encoder},{decoder}", output_stride=16, resize="align_corners"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"config.model.{key}: the weights (UperNet, CSAIL) were trained with {theirs!r}, and the network has {ours!r}, with which "
        "they predict worse"
        for key, theirs, ours in (("output_stride", 32, 16), ("resize", "half_pixel", "align_corners"))
    ]


def test_parts_that_overlap_or_are_missing_are_named(upernet, tmp_path):
    (encoder, _), _ = upernet
    with pytest.raises(
        UserError, match=r"config\.model\.init=.*both hold a tensor named .*: expected the parts of one"
    ):
        start_from(upernet_config(f"{encoder},{encoder}"))
    with pytest.raises(UserError, match=r"missing\.safetensors: there is no such file"):
        start_from(upernet_config(f"{encoder},{tmp_path / 'missing.safetensors'}"))


def test_a_file_whose_name_has_a_comma_is_one_file(upernet, tmp_path):
    (encoder, _), expected = upernet
    encoder.rename(tmp_path / "a,b.safetensors")
    start = start_from(upernet_config(tmp_path / "a,b.safetensors"))
    at = ("params", "backbone", "stem1", "conv", "kernel")
    np.testing.assert_array_equal(flatten_dict(start.variables)[at], expected[at])
