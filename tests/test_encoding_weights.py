"""Files of PyTorch-Encoding, mmsegmentation and ContextPrior: each array of the head arrives at its place."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS

ENCODING_AUXILIARY = {"project_1": ("auxlayer.conv5.0", "auxlayer.conv5.1"), "classify_1": ("auxlayer.conv5.4",)}
MMSEG_AUXILIARY = {
    "project_1": ("auxiliary_head.convs.0.conv", "auxiliary_head.convs.0.bn"),
    "classify_1": ("auxiliary_head.conv_seg",),
}
ENCNET = {
    "reduce": ("head.conv5.0", "head.conv5.1"),
    "encoding/project": ("head.encmodule.encoding.0", "head.encmodule.encoding.1"),
    "encoding/codewords": "head.encmodule.encoding.3.codewords",
    "encoding/factors": "head.encmodule.encoding.3.scale",
    "encoding/norm": ("head.encmodule.encoding.4",),
    "encoding/gate": ("head.encmodule.fc.0",),
}
# Our layer → the published names of its convolution and its normalization, or of an array; by release.
LAYOUTS = {
    "EncNet, PyTorch-Encoding": (
        "encnet",
        "deep",
        ENCNET | {"encoding/presence": ("head.encmodule.selayer",)},
        ("head.conv6.1",),
        ENCODING_AUXILIARY,
    ),
    "CFNet, PyTorch-Encoding": (
        "cfnet",
        "deep",
        ENCNET
        | {
            "global": ("head.atten_layers.0.gap.1", "head.atten_layers.0.gap.2"),
            "attention/query": ("head.atten.conv_qs",),
            "attention/value": ("head.atten.conv_vs",),
            "attention/out": ("head.atten.conv", "head.atten.norm_layer"),
        },
        ("head.conv6.1",),
        ENCODING_AUXILIARY,
    ),
    "FCN, PyTorch-Encoding": (
        "fcn_short",
        "deep",
        {"reduce": ("head.conv5.0", "head.conv5.1")},
        ("head.conv5.4",),
        ENCODING_AUXILIARY,
    ),
    "EncNet, mmsegmentation": (
        "encnet",
        "v1c",
        {
            "reduce": ("decode_head.bottleneck.conv", "decode_head.bottleneck.bn"),
            "encoding/project": (
                "decode_head.enc_module.encoding_project.conv",
                "decode_head.enc_module.encoding_project.bn",
            ),
            "encoding/codewords": "decode_head.enc_module.encoding.0.codewords",
            "encoding/factors": "decode_head.enc_module.encoding.0.scale",
            "encoding/norm": ("decode_head.enc_module.encoding.1",),
            "encoding/gate": ("decode_head.enc_module.fc.0",),
            "encoding/presence": ("decode_head.se_layer",),
        },
        ("decode_head.conv_seg",),
        MMSEG_AUXILIARY,
    ),
    "CPNet, ContextPrior": (
        "cpnet",
        "v1c",
        {
            "aggregation/reduce": (
                "decode_head.aggregation.reduce_conv.conv",
                "decode_head.aggregation.reduce_conv.bn",
            ),
            "aggregation/first_1": ("decode_head.aggregation.t1.conv",),
            "aggregation/first_2": ("decode_head.aggregation.t2.conv",),
            "aggregation/second_1": ("decode_head.aggregation.p1.conv",),
            "aggregation/second_2": ("decode_head.aggregation.p2.conv",),
            "aggregation/norm": ("decode_head.aggregation.norm",),
            "prior": ("decode_head.prior_conv.conv", "decode_head.prior_conv.bn"),
            "intra": ("decode_head.intra_conv.conv", "decode_head.intra_conv.bn"),
            "inter": ("decode_head.inter_conv.conv", "decode_head.inter_conv.bn"),
            "merge": ("decode_head.bottleneck.conv", "decode_head.bottleneck.bn"),
        },
        ("decode_head.conv_seg",),
        MMSEG_AUXILIARY,
    ),
}
STEMS = {"deep": ["conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1"]}
STEMS["v1c"] = ["stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"]
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def build(context, stem):
    options = {"semantic_width": 8, "crop_px": 32, "stem": stem, "representation": "per_pixel"}
    return build_segmenter(3, backbone="resnet_tiny", context=context, **options)


def name_in_file(path, stem, layers, classifier, auxiliary):
    """The published name of one of our arrays, by the tables above."""
    *modules, kind = path[1:]
    is_norm = modules[-1] == "bn"
    modules = [module for module in modules if module not in ("conv", "bn")]
    if modules[0] == "backbone":
        if modules[1].startswith("stem"):
            name = STEMS[stem][2 * int(modules[1][4:]) - 2 + is_norm]
        else:
            last = "/".join(path[3:-1])
            last = {"downsample/conv": "downsample.0", "downsample/bn": "downsample.1"}.get(last, last)
            name = f"{modules[1].replace('_block_', '.')}.{last}"
        return f"{'pretrained' if stem == 'deep' else 'backbone'}.{name}.{KINDS[kind]}"
    tables = {"context": layers, "semantic_head": {"classify_4": classifier}, "auxiliary_head": auxiliary}
    inner = "/".join(modules[2:] if modules[0] == "context" else modules[1:])
    array = layers.get(f"{inner}/{kind}") if modules[0] == "context" else None
    return array or f"{tables[modules[0]][inner][is_norm]}.{KINDS[kind]}"


@pytest.mark.parametrize("release", LAYOUTS)
def test_layouts(release):
    context, stem, *tables = LAYOUTS[release]
    model, rng = build(context, stem), np.random.default_rng(0)
    abstract, state, expected = abstract_variables(model), {}, {}
    for path, leaf in flatten_dict(abstract).items():
        array = expected[path] = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if path[-1] == "kernel":
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        state[name_in_file(path, stem, *tables)] = array
    assert len(state) == len(expected)
    if context == "cfnet":  # modules that stand at two places are saved twice
        for name in [name for name in state if name.startswith("head.atten.")]:
            state[name.replace("head.atten.", "head.atten_layers.1.")] = state[name]
            if "conv_qs" in name:
                state[name.replace("conv_qs", "conv_ks")] = state[name]
    found = import_weights(state, abstract, RESNET_IMPORTERS)
    assert found.source == release
    assert found.left == ()
    assert found.trained["dilation"] == "contracted"
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected)


@pytest.mark.parametrize("context", ["none", "encnet"])
def test_a_head_of_another_method_is_left(context):
    """A file of CFNet gives its backbone; the head stays out, although the encodings have the same names."""
    abstract, state = abstract_variables(build("cfnet", "deep")), {}
    for path, leaf in flatten_dict(abstract).items():
        array = np.ones(leaf.shape, np.float32)
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}[array.ndim] if path[-1] == "kernel" else None
        state[name_in_file(path, "deep", *LAYOUTS["CFNet, PyTorch-Encoding"][2:])] = (
            array.transpose(axes) if axes else array
        )
    found = import_weights(state, abstract_variables(build(context, "deep")), RESNET_IMPORTERS)
    assert all(path[1] == "backbone" for path in found.variables)
    assert "CFNet, PyTorch-Encoding" in found.left[0]
