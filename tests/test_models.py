"""The networks against published facts, slow twins and each other."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import twins

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models import hrnet as published
from pyrseg_jax.models import layers, resample
from pyrseg_jax.models.backbones import BACKBONES, Features
from pyrseg_jax.models.contexts.attention import TokenAttention
from pyrseg_jax.models.heads import UnityHead
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment

PUBLISHED_PARAMETERS = {"hrnet_w18": 9_562_260, "hrnet_w32": 29_305_536, "hrnet_w48": 65_325_120}


def tiny_segmenter(**kwargs):
    widths = {"semantic_width": 16, "key_width": 8, "unity_width": 8}
    return build_segmenter(3, **({"backbone": "hrnet_tiny"} | widths | kwargs))


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_backbone_has_the_published_parameter_count(name):
    model = BACKBONES[name].make()
    variables = abstract_variables(model)
    assert num_parameters(variables) == PUBLISHED_PARAMETERS[name]
    features = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32))
    assert features.final.shape == (2, 16, 24, 15 * model.width)
    assert [x.shape for x in features.stages] == [(2, 64 // s, 96 // s, model.width * s // 4) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_a_published_backbone_under_its_public_path_returns_the_final_map(name):
    model, ours = getattr(published, name)(resize="nearest", dtype=jnp.bfloat16), BACKBONES[name].make()
    variables = abstract_variables(model)
    assert variables == abstract_variables(ours)
    features = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32))
    assert (features.shape, features.dtype) == ((2, 16, 24, 15 * ours.width), jnp.bfloat16)


def test_semantic_head_costs_about_one_convolution():
    """Sec. 3.4: about 1.3 × a 3×3 convolution at the finest level; ours is counted by the compiler, without running."""
    segmenter = build_segmenter(150, backbone="hrnet_w48")
    features = Features((), jax.ShapeDtypeStruct((1, 128, 128, 720), jnp.float32))

    def flops_of(module, x, *more):
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, *more, False), x)
        run = jax.jit(lambda v, x: module.apply(v, x, *more, False))
        return run.lower(variables, x).cost_analysis()["flops"], jax.eval_shape(run, variables, x)

    context_flops, output = flops_of(segmenter.context, features, None)
    head_flops, logits = flops_of(segmenter.semantic_head, output.levels)
    assert [x.shape for x in logits] == [(1, 512 // s, 512 // s, 150) for s in (32, 16, 8, 4)]
    convolution = 2 * 9 * 512 * 512 * 128 * 128
    assert 1.1 < (context_flops + head_flops) / convolution < 1.5


@pytest.mark.parametrize("strides", [(32, 16, 8, 4), (8, 4), (4,)])
@pytest.mark.parametrize("context", ["none", "coarse_to_fine"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_segmenter_returns_both_pyramids_in_float32(strides, context, dtype):
    model = tiny_segmenter(strides=strides, context=context, dtype=dtype)
    variables = abstract_variables(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    for train in (False, True):
        apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
        out, statistics = jax.eval_shape(apply, variables, images)
        assert [x.shape for x in out.semantic] == [(2, 64 // s, 96 // s, 3) for s in strides]
        assert [x.shape for x in out.unity] == [(2, 64 // s, 96 // s) for s in strides[:-1]]
        assert {x.dtype for x in jax.tree.leaves((out, statistics))} == {jnp.dtype("float32")}


def test_bfloat16_agrees_with_float32(rng):
    images = jnp.asarray(rng.normal(size=(8, 64, 64, 3)), jnp.float32)
    variables = initial_variables(tiny_segmenter(), seed=1)
    full, half = (jax.jit(tiny_segmenter(dtype=d).apply)(variables, images) for d in ("float32", "bfloat16"))
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(half), strict=True):
        # At random weights 0.5 to 6 %, by level and by the order in which sums are rounded.
        assert np.abs(a - b).mean() < 0.1 * np.abs(a).mean()
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(half), strict=True))


def test_size_that_does_not_divide_is_refused():
    model = tiny_segmenter()
    with pytest.raises(ValueError, match="nearest is 64 × 96"):
        jax.eval_shape(model.apply, abstract_variables(model), jax.ShapeDtypeStruct((1, 60, 96, 3), jnp.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backbone": "hrnet_w47"}, "backbone='hrnet_w47'"),
        ({"context": "ocr!"}, "context='ocr!'"),
        ({"representation": "voxels"}, "representation='voxels'"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"strides": (16, 8)}, "the finest stride is 8, and the backbone's output stride is 4"),
    ],
)
def test_unknown_parts_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_segmenter(3, **kwargs)


@pytest.mark.parametrize("size", [(7, 11), (6, 8), (3, 4), (12, 5)])
def test_half_pixel_resize_is_bilinear(rng, size):
    x = rng.normal(size=(3, 4, 2)).astype(np.float32)
    found = resample.resize(jnp.asarray(x[None]), size, "half_pixel")[0]
    np.testing.assert_allclose(found, twins.bilinear(x, size), atol=1e-5)


def test_align_corners_resize_keeps_the_corners_and_straight_lines(rng):
    ramp = jnp.arange(5.0)[None, :, None, None] + 10 * jnp.arange(4.0)[None, None, :, None]
    found = resample.resize(ramp, (9, 7), "align_corners")[0, :, :, 0]
    expected = np.linspace(0, 4, 9)[:, None] + 10 * np.linspace(0, 3, 7)[None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nearest_resize_repeats(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    np.testing.assert_array_equal(resample.resize(x, (6, 8), "nearest"), x.repeat(2, 1).repeat(2, 2))


def test_levels_average_the_cells_of_the_finest_one(rng):
    x = rng.normal(size=(2, 8, 16, 3)).astype(np.float32)
    found = layers.average_levels(jnp.asarray(x), 4)
    for side, level in zip((8, 4, 2, 1), found, strict=True):
        expected = x.reshape(2, 8 // side, side, 16 // side, side, 3).mean((2, 4))
        np.testing.assert_allclose(level, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 3), (16, 16), (23, 37)])
def test_pyramid_sampling_averages_adaptive_bins(rng, size):
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    expected = []
    for bins in (1, 3, 6, 8):
        for i in range(bins):
            for j in range(bins):
                rows = slice(i * size[0] // bins, -(-(i + 1) * size[0] // bins))
                columns = slice(j * size[1] // bins, -(-(j + 1) * size[1] // bins))
                expected.append(x[:, rows, columns].mean((1, 2)))
    found = layers.pyramid_sampling(jnp.asarray(x))
    assert found.shape == (2, 110, 3)
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)


def test_attention_equals_the_formula(rng):
    """Eq. (3)'s attention, position by position, from the module's own variables."""
    module = TokenAttention(width=6, key_width=4)
    x, tokens = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((1, 3, 2, 5), (1, 7, 5)))
    variables = jax.tree.map(lambda a: a + 0.3, module.init(jax.random.key(0), x, tokens, False))
    found = module.apply(variables, x, tokens, False)

    def project(name, v, is_normalized):
        p = variables["params"][name]
        if not is_normalized:
            return v @ p["kernel"][0, 0]
        stats = variables["batch_stats"][name]["bn"]
        y = v @ p["conv"]["kernel"][0, 0]
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * p["bn"]["scale"] + p["bn"]["bias"]
        return np.maximum(y, 0)

    keys, values = project("key", tokens[0], True), project("value", tokens[0], False)
    for i, j in np.ndindex(3, 2):
        scores = keys @ project("query", x[0, i, j], True) / np.sqrt(4)
        weights = np.exp(scores - scores.max())
        np.testing.assert_allclose(found[0, i, j], (weights / weights.sum()) @ values, rtol=1e-4, atol=1e-5)


def test_unity_logit_sees_its_own_cell_alone(rng):
    """Sec. 3.2: kernel = stride, so a change in one cell moves no other cell's logit."""
    module = UnityHead(num_levels=4, width=8)
    x = jnp.asarray(rng.normal(size=(1, 16, 16, 5)), jnp.float32)
    variables = module.init(jax.random.key(0), x, False)
    before, after = (module.apply(variables, y, False) for y in (x, x.at[0, 9, 13].add(5.0)))
    for level, (a, b) in enumerate(zip(before, after, strict=True)):
        cell = 8 >> level
        assert np.argwhere(np.asarray(a != b)).tolist() == [[0, 9 // cell, 13 // cell]]


def test_context_passes_from_coarse_to_fine(rng):
    """Eq. (4): changing what level 1 aggregated changes the finer levels, and never the other way round."""
    model = tiny_segmenter().context
    features = Features((), jnp.asarray(rng.normal(size=(1, 16, 16, 12)), jnp.float32))
    variables = jax.jit(model.init, static_argnums=3)(jax.random.key(0), features, None, False)
    compute = jax.jit(lambda variables: model.apply(variables, features, None, False))

    def changed_levels(name):
        params = dict(variables["params"])
        params[name] = jax.tree.map(lambda a: a * 1.5 + 0.1, params[name])
        before, after = (compute(v) for v in (variables, {**variables, "params": params}))
        return [bool(np.abs(a - b).max() > 1e-7) for a, b in zip(before.levels, after.levels, strict=True)]

    assert changed_levels("aggregate_1") == [True, True, True, True]
    assert changed_levels("update_2") == [False, False, True, True]
    assert changed_levels("aggregate_4") == [False, False, False, True]


def test_stride_two_convolution_is_centered():
    """ "SAME" would pad on one side only: position 0 would see pixels 0, 1, 2 in place of -1, 0, 1."""
    layer = layers.conv(1, 3, 2, dtype=jnp.float32)
    x = jnp.arange(1.0, 9)[None, None, :, None] * jnp.ones((1, 8, 1, 1))
    kernel = jnp.zeros((3, 3, 1, 1)).at[1].set(jnp.asarray([1.0, 10, 100])[:, None, None])
    found = layer.apply({"params": {"kernel": kernel}}, x)[0, 0, :, 0]
    np.testing.assert_allclose(found, [0 + 10 + 200, 2 + 30 + 400, 4 + 50 + 600, 6 + 70 + 800])


def test_batch_statistics_are_those_of_the_global_batch(rng):
    model = layers.ConvNormAct(4)
    x = jnp.asarray(rng.normal(size=(4, 8, 8, 3)) * np.arange(1, 5)[:, None, None, None], jnp.float32)
    variables = model.init(jax.random.key(0), x, False)
    apply = jax.jit(lambda x: model.apply(variables, x, True, mutable=["batch_stats"]))
    split = jax.device_put(x, mesh_lib.batch_sharding(mesh_lib.make_mesh(data=4)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), apply(x), apply(split))
    mean = apply(x)[1]["batch_stats"]["bn"]["mean"] * 10  # momentum 0.9 from 0
    y = np.einsum("nhwc,cd->nhwd", x, variables["params"]["conv"]["kernel"][0, 0])
    np.testing.assert_allclose(mean, y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_normalize_brings_the_mean_color_to_zero():
    image = np.full((1, 2, 2, 3), 128, np.uint8)
    expected = (128 - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(normalize(jnp.asarray(image))[0, 0, 0], expected, rtol=1e-6)


def test_opencv_and_this_package_mean_the_same_by_half_pixel(rng):
    """Images are enlarged on the host by OpenCV and features on the device by us: one convention."""
    x = rng.random((5, 6, 3)).astype(np.float32)
    expected = cv2.resize(x, (12, 10), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resample.resize(jnp.asarray(x[None]), (10, 12), "half_pixel")[0], expected, atol=1e-5)


@pytest.mark.parametrize("backbone", ["convnext_micro", "swin_micro", "mit_micro", "vit_micro", "mobilenetv3_micro"])
def test_the_rate_of_drop_path_reaches_the_backbone(backbone):
    values = config_lib.defaults()
    values.model.backbone = backbone
    default = experiment.make_model(config_lib.resolve(values), 3).backbone.drop_path
    assert default == BACKBONES[backbone].make().drop_path != 0.25
    values.model.drop_path = 0.25
    assert experiment.make_model(config_lib.resolve(values), 3).backbone.drop_path == 0.25


@pytest.mark.parametrize("backbone", ["hrnet_tiny", "resnet_tiny"])
def test_a_backbone_without_drop_path_refuses_a_rate(backbone):
    values = config_lib.defaults()
    values.model.backbone, values.model.drop_path = backbone, 0.0
    with pytest.raises(
        UserError, match=rf"config.model.drop_path=0.0: the backbone '{backbone}' has no such option; leave"
    ):
        config_lib.resolve(values)
