"""Published heads of attention on ResNets, by the names in their publishers' files, written down by hand."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.published_resnets import LAYOUTS, published

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.resnet import resnet_tiny
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.heads import HEADS
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.mmseg_attention import MMSEG_ATTENTION
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS

CLASSES = 3
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# A name with a comma is that of a convolution and that of its normalization; one that begins with "=" is that of a convolution
# alone, or of a single array; another one has ".conv" and ".bn" below it. Ours without a slash are layers of the context module.
LAST = {"semantic_head/classify_4": "=decode_head.conv_seg"}
AUXILIARY = {
    "auxiliary_head/project_1": "auxiliary_head.convs.0",
    "auxiliary_head/classify_1": "=auxiliary_head.conv_seg",
}
AROUND = {"reduce": "decode_head.convs.0", "smooth": "decode_head.convs.1", "merge": "decode_head.conv_cat"}
OCR_BLOCK = "decode_head.1.object_context_block"
OPENSEG_BLOCK = "spatial_ocr_head.object_context_block"
# (layout of the ResNet, prefix of its names, context) → names.
NAMES = {
    ("open-mmlab", "backbone.", "nonlocal"): {
        "query": "=decode_head.nl_block.theta.conv",
        "key": "=decode_head.nl_block.phi.conv",
        "value": "=decode_head.nl_block.g.conv",
        "out": "decode_head.nl_block.conv_out",
    }
    | (AROUND | LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "danet"): {
        "position_reduce": "decode_head.pam_in_conv",
        "position_smooth": "decode_head.pam_out_conv",
        "position_classify": "=decode_head.pam_conv_seg",
        "channel_reduce": "decode_head.cam_in_conv",
        "channel_smooth": "decode_head.cam_out_conv",
        "channel_classify": "=decode_head.cam_conv_seg",
        "context/context/position/query": "=decode_head.pam.query_project",
        "context/context/position/key": "=decode_head.pam.key_project",
        "context/context/position/value": "=decode_head.pam.value_project",
        "context/context/position/gamma": "=decode_head.pam.gamma.scale",
        "context/context/channel/gamma": "=decode_head.cam.gamma.scale",
    }
    | (LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "emanet_mmseg"): {
        "reduce": "decode_head.ema_in_conv",
        "context/context/unit/project": "=decode_head.ema_mid_conv.conv",
        "context/context/unit/out": "decode_head.ema_out_conv",
        "context/context/unit/bases": "=decode_head.ema_module.bases",
        "smooth": "decode_head.bottleneck",
        "merge": "decode_head.conv_cat",
    }
    | (LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "apcnet"): {
        f"context/context/scale_{scale}/{ours}": name.format(f"decode_head.acm_modules.{i}")
        for i, scale in enumerate((1, 2, 3, 6))
        for ours, name in {
            "regions": "{}.pooled_redu_conv",
            "reduce": "{}.input_redu_conv",
            "global": "{}.global_info",
            "affinity": "={}.gla",
            "residual": "{}.residual_conv",
            "fusion": "{}.fusion_conv",
        }.items()
    }
    | {"merge": "decode_head.bottleneck"}
    | (LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "ccnet"): {
        "context/context/criss_cross/query": "=decode_head.cca.query_conv",
        "context/context/criss_cross/key": "=decode_head.cca.key_conv",
        "context/context/criss_cross/value": "=decode_head.cca.value_conv",
        "context/context/criss_cross/gamma": "=decode_head.cca.gamma.scale",
    }
    | (AROUND | LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "ann"): {
        "context/context/fusion/query": "decode_head.fusion.stages.0.query_project",
        "context/context/fusion/key": "decode_head.fusion.stages.0.key_project",
        "context/context/fusion/value": "=decode_head.fusion.stages.0.value_project",
        "context/context/fusion/out": "=decode_head.fusion.stages.0.out_project",
        "context/context/fusion/merge": "decode_head.fusion.bottleneck",
        "context/context/self_attention/reduce": "decode_head.bottleneck",
        "context/context/self_attention/key": "decode_head.context.stages.0.key_project",
        "context/context/self_attention/value": "=decode_head.context.stages.0.value_project",
        "context/context/self_attention/out": "=decode_head.context.stages.0.out_project",
        "context/context/self_attention/merge": "decode_head.context.bottleneck",
    }
    | (LAST | AUXILIARY),
    ("open-mmlab", "backbone.", "ocr"): {
        "reduce": "decode_head.1.bottleneck",
        "query_1": f"{OCR_BLOCK}.query_project.0",
        "query_2": f"{OCR_BLOCK}.query_project.1",
        "key_1": f"{OCR_BLOCK}.key_project.0",
        "key_2": f"{OCR_BLOCK}.key_project.1",
        "value_1": f"{OCR_BLOCK}.value_project",
        "out": f"{OCR_BLOCK}.out_project",
        "merge": f"{OCR_BLOCK}.bottleneck",
        "semantic_head/classify_4": "=decode_head.1.conv_seg",
        "auxiliary_head/project_1": "decode_head.0.convs.0",
        "auxiliary_head/classify_1": "=decode_head.0.conv_seg",
    },
    ("torchvision", "pretrained.", "danet"): {
        "position_reduce": "head.conv5a.0, head.conv5a.1",
        "position_smooth": "head.conv51.0, head.conv51.1",
        "position_classify": "=head.conv6.1",
        "channel_reduce": "head.conv5c.0, head.conv5c.1",
        "channel_smooth": "head.conv52.0, head.conv52.1",
        "channel_classify": "=head.conv7.1",
        "context/context/position/query": "=head.sa.query_conv",
        "context/context/position/key": "=head.sa.key_conv",
        "context/context/position/value": "=head.sa.value_conv",
        "context/context/position/gamma": "=head.sa.gamma",
        "context/context/channel/gamma": "=head.sc.gamma",
        "semantic_head/classify_4": "=head.conv8.1",
    },
    ("EMANet", "", "emanet"): {
        "reduce": "fc0",
        "context/context/unit/project": "=emau.conv1",
        "context/context/unit/out": "emau.conv2.0, emau.conv2.1",
        "context/context/unit/bases": "=emau.mu",
        "smooth": "fc1.0",
        "semantic_head/classify_4": "=fc2",
    },
    ("CSAIL", "", "ccnet"): {
        "reduce": "head.conva.0, head.conva.1",
        "smooth": "head.convb.0, head.convb.1",
        "merge": "head.bottleneck.0, head.bottleneck.1",
        "context/context/criss_cross/query": "=head.cca.query_conv",
        "context/context/criss_cross/key": "=head.cca.key_conv",
        "context/context/criss_cross/value": "=head.cca.value_conv",
        "context/context/criss_cross/gamma": "=head.cca.gamma",
        "semantic_head/classify_4": "=head.bottleneck.3",
    },
    ("openseg", "backbone.", "ocr_openseg"): {
        "reduce": "conv_3x3.0, conv_3x3.1.0",
        "query_1": f"{OPENSEG_BLOCK}.f_pixel.0, {OPENSEG_BLOCK}.f_pixel.1.0",
        "query_2": f"{OPENSEG_BLOCK}.f_pixel.2, {OPENSEG_BLOCK}.f_pixel.3.0",
        "key_1": f"{OPENSEG_BLOCK}.f_object.0, {OPENSEG_BLOCK}.f_object.1.0",
        "key_2": f"{OPENSEG_BLOCK}.f_object.2, {OPENSEG_BLOCK}.f_object.3.0",
        "value_1": f"{OPENSEG_BLOCK}.f_down.0, {OPENSEG_BLOCK}.f_down.1.0",
        "out": f"{OPENSEG_BLOCK}.f_up.0, {OPENSEG_BLOCK}.f_up.1.0",
        "merge": "spatial_ocr_head.conv_bn_dropout.0, spatial_ocr_head.conv_bn_dropout.1.0",
        "semantic_head/classify_4": "=head",
        "auxiliary_head/project_1": "dsn_head.0, dsn_head.1.0",
        "auxiliary_head/classify_1": "=dsn_head.3",
    },
}
# The options that the publishers trained with.
TRAINED = {
    "open-mmlab": {"dilation": "contracted"},
    "torchvision": {"dilation": "contracted", "multi_grid": (4, 8, 16)},
    "EMANet": {"dilation": "contracted", "multi_grid": (2, 8, 16)},
    "CSAIL": {"dilation": "plain"},
    "openseg": {"dilation": "contracted"},
}


def build(layout, context):
    return build_segmenter(
        CLASSES,
        backbone="resnet_tiny",
        stem=LAYOUTS[layout][0],
        context=context,
        representation="per_pixel",
        strides=(64, 32, 16, 8),
        semantic_width=16,
        key_width=8,
    )


def name_of(names, path):
    """The published name of one of our arrays, from the tables above; a bias before a normalization is not among ours."""
    whole, layer = "/".join(path[1:]), "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn")
    name = names.get(whole) or names.get(layer) or names[layer.removeprefix("context/context/")]
    if whole in names:
        return name.removeprefix("=")
    if name.startswith("="):
        return f"{name[1:]}.{KINDS[path[-1]]}"
    convolution, _, norm = name.partition(", ")
    if not norm:
        convolution, norm = f"{name}.conv", f"{name}.bn"
    return f"{norm if '/bn' in '/'.join(path) else convolution}.{KINDS[path[-1]]}"


def write(layout, prefix, context):
    """A file of a whole network with distinct numbers, the variables that it should give, and the network."""
    rng = np.random.default_rng(1)
    names, model = NAMES[layout, prefix, context], build(layout, context)
    state, backbone = published(layout, resnet_tiny(stem=LAYOUTS[layout][0]))
    state = {f"{prefix}{name}": array for name, array in state.items()}
    expected = {(path[0], "backbone", *path[1:]): array for path, array in flatten_dict(backbone).items()}
    for path, leaf in flatten_dict(abstract_variables(model)).items():
        if path[1] == "backbone" or f"{path[1]}/{path[2]}" not in names and path[1] == "auxiliary_head":
            continue  # some releases have no auxiliary classifier
        array = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        name = name_of(names, path)
        assert name not in state
        state[name] = (
            array.transpose(3, 2, 0, 1) if path[-1] == "kernel" else array[None] if path[-1] == "bases" else array
        )
        expected[path] = array
    return state, expected, model


@pytest.mark.parametrize(("layout", "prefix", "context"), NAMES)
def test_published_heads(layout, prefix, context):
    state, expected, model = write(layout, prefix, context)
    if layout == "openseg":  # each convolution has a bias there, which the mean of the normalization takes over
        for name in [name for name in state if name.endswith("running_mean") and not name.startswith(prefix)]:
            state[name] = state[name] + np.float32(0.25)
        biased = [entry.partition(", ")[0] for entry in NAMES[layout, prefix, context].values() if ", " in entry]
        state |= {f"{name}.bias": np.full(len(state[f"{name}.weight"]), 0.25, np.float32) for name in biased}
    if context == "ann":  # query and key are one projection, and stand in the file twice
        stage = "decode_head.context.stages.0"
        state |= {
            name.replace("key_project", "query_project"): array
            for name, array in state.items()
            if name.startswith(f"{stage}.key_project")
        }
    if layout == "CSAIL":
        state |= {"dsn.0.weight": np.zeros((512, 8, 3, 3), np.float32), "dsn.0.bias": np.zeros(512, np.float32)}
        state["bn1.num_batches_tracked"] = np.array(7)  # so that the normalizations are PyTorch's
    found = import_weights(state, abstract_variables(model), RESNET_IMPORTERS)
    assert not found.left
    assert dict(found.trained) == TRAINED[layout]
    assert set(found.variables) == set(expected)
    # The first layer of networks for BGR images is rewritten, see test_published_conventions.py.
    assert bool(found.converted) == (layout in ("openseg", "CSAIL"))
    rewritten = ("stem1/conv/kernel", "stem1/bn/mean") if found.converted else ()
    for path, array in expected.items():
        if not "/".join(path).endswith(rewritten):
            np.testing.assert_allclose(found.variables[path], array, rtol=1e-6, err_msg="/".join(path))


@pytest.mark.parametrize("file", [head.source for head in MMSEG_ATTENTION])
def test_a_file_of_another_method_gives_the_backbone_alone(file):
    """Each head is told from the others."""
    key = next(key for key in NAMES if key[0] == "open-mmlab" and file.lower().startswith(key[2][:3]))
    state, _, _ = write(*key)
    other = next(k for k in NAMES if k[0] == "open-mmlab" and k[2] != key[2])
    found = import_weights(state, abstract_variables(build("open-mmlab", other[2])), RESNET_IMPORTERS)
    assert found.source == file
    assert all(path[1] == "backbone" for path in found.variables)
    assert len(found.left) == 1


def test_the_file_of_emanet_keeps_its_weights_under_net(tmp_path):
    torch = pytest.importorskip("torch")
    state, expected, model = write("EMANet", "", "emanet")
    path = tmp_path / "final.pth"
    torch.save({"net": {name: torch.from_numpy(array.copy()) for name, array in state.items()}, "step": 30_000}, path)
    found = import_weights(read_weights(path).state_dict, abstract_variables(model), RESNET_IMPORTERS)
    assert set(found.variables) == set(expected)


@pytest.mark.parametrize(("context", "is_taken"), [("ocr", False), ("ocr_openseg", True)])
def test_the_coarse_classifier_of_openseg_on_an_hrnet(context, is_taken):
    """Only the context that has its sizes takes it."""
    model = build_segmenter(
        CLASSES, backbone="hrnet_tiny", context=context, representation="per_pixel", semantic_width=16, key_width=8
    )
    theirs = build_segmenter(
        CLASSES,
        backbone="hrnet_tiny",
        context="ocr_openseg",
        representation="per_pixel",
        semantic_width=16,
        key_width=8,
    )
    importer = BACKBONES["hrnet_tiny"].importers[0]
    head = next(head for head in HEADS if "openseg" in head.source)
    state = {}
    for path, leaf in flatten_dict(abstract_variables(theirs)).items():
        if path[1] == "backbone":
            name = f"backbone.{importer.name_of((path[0], *path[2:]))}"
        else:
            layer = "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn")
            name = f"{head.names[layer][path[-2] == 'bn']}.{KINDS[path[-1]]}"
        state[name] = (
            np.ones(leaf.shape, np.float32).transpose(3, 2, 0, 1) if path[-1] == "kernel" else np.ones(leaf.shape)
        )
    found = import_weights(state, abstract_variables(model), (importer,))
    taken = {path[2] for path in found.variables if path[1] == "auxiliary_head"}
    assert taken == ({"project_1", "classify_1"} if is_taken else set())
    assert set(found.left) == (set() if is_taken else {"aux_head.0", "aux_head.1.0", "aux_head.2"})
