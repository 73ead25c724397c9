"""Parameters and multiply-adds of the published networks: those that their descriptions give."""

import jax
import jax.numpy as jnp
import pytest
from support.method_counts import count_head, features_of
from support.multiply_adds import multiply_adds
from support.published_counts import AUXILIARY, BACKBONES, COUNTS

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.backbones.resnet import resnet101
from pyrseg_jax.models.contexts import CONTEXTS, ContextSettings
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter


def count(context, stem, num_classes=150, **options):
    published = COUNTS[context, stem]
    model = build_segmenter(
        num_classes,
        backbone="resnet101",
        context=context,
        representation="per_pixel",
        stem=stem,
        output_stride=published.output_stride,
        crop_px=published.crop_px,
        **options,
    )
    # One block for each stage: the maps have the same sizes.
    return count_head(model, features_of(model.backbone.clone(num_blocks=(1, 1, 1, 1))))


@pytest.mark.parametrize(("context", "stem"), COUNTS)
def test_counts(context, stem):
    """The head with 150 classes, the whole network, and the multiply-adds of the head for 512 × 512 pixels."""
    published, found = COUNTS[context, stem], count(context, stem)
    assert found.head == published.head
    assert found.auxiliary == (AUXILIARY[150] if CONTEXTS[context].has_auxiliary else 0)
    if published.total is not None:
        assert BACKBONES[stem] + found.head + found.auxiliary == published.total
    if published.multiply_adds is not None:
        ours = getattr(found, published.includes) - published.difference
        assert ours == pytest.approx(published.multiply_adds, abs=0.06)


@pytest.mark.parametrize(("context", "stem"), [key for key, counts in COUNTS.items() if counts.head_171 is not None])
def test_parameters_with_171_classes(context, stem):
    found = count(context, stem, 171)
    assert found.head == COUNTS[context, stem].head_171
    assert found.auxiliary == (AUXILIARY[171] if CONTEXTS[context].has_auxiliary else 0)


def test_emanet_with_21_classes():
    found = count("emanet", "deep", 21)
    assert (found.head, found.auxiliary) == (11_149_589, 0)


def test_the_bases_of_emanet_are_no_parameters():
    for context in ("emanet", "emanet_mmseg"):
        model = build_segmenter(150, backbone="resnet_tiny", context=context)
        states = jax.tree_util.tree_leaves_with_path(abstract_variables(model)["batch_stats"])
        assert [leaf.size for path, leaf in states if path[-1].key == "bases"] == [32_768]


def test_parts_of_pointrend():
    options = {"context": "pointrend", "representation": "per_pixel", "output_stride": 32}
    for num_classes, head, points in ((150, 1_643_158, 373_626), (171, 1_645_867, 401_892)):
        model = build_segmenter(num_classes, backbone="resnet101", **options)
        model = model.clone(backbone=model.backbone.clone(num_blocks=(1, 1, 1, 1)))
        params = abstract_variables(model)["params"]
        is_neck = {name: name.startswith(("lateral", "smooth")) for name in params["context"]["context"]}
        layers = params["context"]["context"].items()
        neck = num_parameters({"params": {name: layer for name, layer in layers if is_neck[name]}})
        others = num_parameters({"params": {name: layer for name, layer in layers if not is_neck[name]}})
        classifier = num_parameters({"params": params["semantic_head"]})
        assert (neck, others + classifier) == (3_344_384, head)
        assert num_parameters({"params": params["refiner"]}) == points


@pytest.mark.parametrize(
    ("width", "num_classes", "expected"), [(512, 150, 42_288_278), (512, 171, 42_299_051), (256, 21, 15_540_501)]
)
def test_deeplabv3(width, num_classes, expected):
    """It is not a method of its own here. ACFNet begins with its pooling; a convolution and a classifier follow.

    That convolution is a 3×3 one in mmsegmentation, of width 512, and a 1×1 one in the paper, of width 256.
    """
    module = CONTEXTS["acfnet"].make(ContextSettings(num_classes, 1, width))
    final = Features((), jax.ShapeDtypeStruct((1, 64, 64, 2048), jnp.float32))
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, None, False), final)["params"]["context"]
    pooling = num_parameters({"params": {name: layer for name, layer in params.items() if name.startswith("pool")}})
    taps = 9 if width == 512 else 1
    assert pooling + 5 * width * taps * width + 2 * width + width * num_classes + num_classes == expected


def test_multiply_adds_of_a_loop_and_of_a_transposed_convolution():
    x, kernel = jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32), jax.ShapeDtypeStruct((2, 2, 4, 3), jnp.float32)
    enlarge = jax.make_jaxpr(lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "VALID"))(x, kernel)
    assert multiply_adds(enlarge.jaxpr) == 6 * 6 * 2 * 2 * 4 * 3
    products = jax.make_jaxpr(lambda x: jax.lax.map(lambda y: y @ y, x))(jnp.zeros((5, 3, 3)))
    assert multiply_adds(products.jaxpr) == 5 * 27


@pytest.mark.parametrize("stem", BACKBONES)
def test_parameters_of_stems(stem):
    params = abstract_variables(resnet101(stem=stem, num_blocks=(1, 1, 1, 1)))["params"]
    found = num_parameters({"params": {name: layer for name, layer in params.items() if "stem" in name}})
    assert found == {"v1": 9_536, "v1c": 28_768, "deep": 112_832}[stem]
