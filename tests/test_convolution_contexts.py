"""FCN, PSPNet, UperNet, DeepLabV3+ and PSANet against their formulas, and the laws that hold for them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.twins import bilinear

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import CONTEXTS, ContextMap, ContextSettings
from pyrseg_jax.models.contexts.deeplabv3plus import DeepLabV3Plus
from pyrseg_jax.models.contexts.fcn import FCN
from pyrseg_jax.models.contexts.fcn_short import ShortFCN
from pyrseg_jax.models.contexts.pointrend import PointRend
from pyrseg_jax.models.contexts.psanet import (
    PSANet,
    collect,
    distribute,
    halve_size,
    mmseg_window_of,
    spread,
    window_of,
)
from pyrseg_jax.models.contexts.pspnet import PSPNet
from pyrseg_jax.models.contexts.upernet import UperNet
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import build_segmenter

WIDTH, WINDOW = 6, 5
SIZES, CHANNELS = ((32, 36), (16, 18), (8, 9), (8, 9)), (3, 4, 5, 6)  # of C2 … C5, at output stride 16


class Twin:
    """Convolutions and normalization in NumPy, reading the variables of one module."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def layer(self, name, x, dilation=1):
        """A convolution with normalization and ReLU, or without where the layer has none; name may be a path."""
        params, stats = self.params, self.stats
        for part in name.split("/"):
            params, stats = params[part], stats.get(part, {})
        kernel = (params.get("conv") or params)["kernel"]
        y = convolve(x, kernel, dilation)
        if "bn" not in params:
            return y + params.get("bias", 0)
        mean, var = stats["bn"]["mean"], stats["bn"]["var"]
        return np.maximum((y - mean) / np.sqrt(var + 1e-5) * params["bn"]["scale"] + params["bn"]["bias"], 0)

    def separable(self, name, x, dilation=1):
        return self.layer(f"{name}/pointwise", self.layer(f"{name}/depthwise", x, dilation))


def convolve(x, kernel, dilation):
    """Sum over the taps of the kernel; a kernel with one input channel takes each channel by itself."""
    side, reach = len(kernel), dilation * (len(kernel) // 2)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    y = 0
    for a, b in np.ndindex(side, side):
        part = padded[a * dilation :, b * dilation :][: x.shape[0], : x.shape[1]]
        y = y + (part * kernel[a, b] if kernel.shape[2] == 1 != x.shape[2] else part @ kernel[a, b])
    return y


def average(x, bins):
    height, width = x.shape[:2]
    pooled = np.zeros((bins, bins, x.shape[2]))
    for i, j in np.ndindex(bins, bins):
        rows = slice(i * height // bins, -(-(i + 1) * height // bins))
        pooled[i, j] = x[rows, j * width // bins : -(-(j + 1) * width // bins)].mean((0, 1))
    return pooled


def join(*maps):
    return np.concatenate(maps, axis=-1)


def fcn(twin, stages):
    x = stages[-1]
    return twin.layer("merge", join(x, twin.layer("conv_2", twin.layer("conv_1", x))))


def pspnet(twin, stages):
    x = stages[-1]
    pooled = [bilinear(twin.layer(f"pool_{n}", average(x, n)), x.shape[:2]) for n in (1, 2, 3, 6)]
    return twin.layer("merge", join(x, *pooled))


def upernet(twin, stages, is_enlarged_first):
    x, pooled = stages[-1], []
    for n in (1, 2, 3, 6):
        if is_enlarged_first:
            pooled.append(twin.layer(f"pool_{n}", bilinear(average(x, n), x.shape[:2])))
        else:
            pooled.append(bilinear(twin.layer(f"pool_{n}", average(x, n)), x.shape[:2]))
    five = twin.layer("top", join(x, *pooled))
    four = twin.layer("lateral_4", stages[2])
    four = four + bilinear(five, four.shape[:2])
    three = twin.layer("lateral_3", stages[1])
    three = three + bilinear(four, three.shape[:2])
    two = twin.layer("lateral_2", stages[0])
    two = two + bilinear(three, two.shape[:2])
    size = two.shape[:2]
    maps = [twin.layer("smooth_2", two), twin.layer("smooth_3", three), twin.layer("smooth_4", four), five]
    return twin.layer("merge", join(*(bilinear(y, size) for y in maps)))


def deeplabv3plus(twin, stages):
    """At stride 16, with rates 6, 12 and 18."""
    x = stages[-1]
    mean = np.broadcast_to(twin.layer("pool", x.mean((0, 1), keepdims=True)), (*x.shape[:2], WIDTH))
    maps = [mean, twin.layer("rate_0", x), *(twin.separable(f"rate_{i}", x, 6 * i) for i in (1, 2, 3))]
    x = bilinear(twin.layer("join", join(*maps)), stages[0].shape[:2])
    x = join(x, twin.layer("detail", stages[0]))
    return twin.separable("refine_2", twin.separable("refine_1", x))


def fcn_short(twin, stages):
    assert twin.params["reduce"]["conv"]["kernel"].shape[:2] == (3, 3)
    return twin.layer("reduce", stages[-1])


def pointrend(twin, stages):
    """The sum of the levels beside the finest of them. Here C5 is as large as C4, so its first layer doubles nothing."""
    maps = [twin.layer("lateral_4", stages[3])]
    for i in (3, 2, 1):
        x = twin.layer(f"lateral_{i}", stages[i - 1])
        factor = len(x) // len(maps[0])
        maps.insert(0, x + maps[0].repeat(factor, 0).repeat(factor, 1))
    maps = [twin.layer(f"smooth_{i}", x) for i, x in enumerate(maps, 1)]
    total = twin.layer("scale_1_1", maps[0])
    for i, doublings in ((2, (2,)), (3, (2, 2)), (4, (1, 2, 2))):
        x = maps[i - 1]
        for k, factor in enumerate(doublings, 1):
            x = twin.layer(f"scale_{i}_{k}", x)
            x = bilinear(x, (factor * x.shape[0], factor * x.shape[1]))
        total = total + x
    return join(total, maps[0])


def attend_slowly(values, scores, window, is_collecting):
    """PSANet's attention over the positions of a map, one target after the other."""
    height, width = values.shape[:2]
    found = np.zeros_like(values)
    for target in np.ndindex(height, width):
        given = np.zeros((height, width))
        for source in np.ndindex(height, width):
            here, there = (target, source) if is_collecting else (source, target)
            row, column = (b - a + (window - 1) // 2 for a, b in zip(here, there, strict=True))
            if 0 <= row < window and 0 <= column < window:
                given[source] = scores[here][row * window + column]
        weights = np.exp(given) / np.exp(given).sum()
        found[target] = np.einsum("hw,hwc->c", weights, values)
    return found


def psanet(twin, stages, border):
    x = stages[-1]
    half, branches = tuple((n + 1) // 2 if not border else n // 2 for n in x.shape[:2]), []
    for name in ("collect", "distribute"):
        y = bilinear(twin.layer(f"{name}_reduce", x), half)
        scores = twin.layer(f"{name}_scores", twin.layer(f"{name}_hidden", y))
        branches.append(attend_slowly(y, scores, WINDOW, name == "collect"))
    y = np.pad(join(*branches), ((border, border), (border, border), (0, 0)))
    return twin.layer("merge", join(x, bilinear(twin.layer("join", y), x.shape[:2])))


# Name → our module, the stages that it reads, and its twin.
TWINS = {
    "fcn": (FCN(WIDTH), (), fcn),
    "fcn_short": (ShortFCN(WIDTH), (), fcn_short),
    "pointrend": (PointRend(WIDTH, WIDTH // 2), (0, 1, 2, 3), pointrend),
    "pspnet": (PSPNet(WIDTH), (), pspnet),
    "upernet": (
        UperNet(WIDTH, 2 * WIDTH, is_enlarged_first=True),
        (0, 1, 2, 3),
        functools.partial(upernet, is_enlarged_first=True),
    ),
    "upernet_512": (UperNet(WIDTH, WIDTH), (0, 1, 2, 3), functools.partial(upernet, is_enlarged_first=False)),
    "deeplabv3plus": (DeepLabV3Plus(WIDTH), (0,), deeplabv3plus),
    "psanet": (PSANet(WIDTH, WINDOW), (), functools.partial(psanet, border=0)),
    "psanet_mmseg": (PSANet(WIDTH, WINDOW, None, border=1), (), functools.partial(psanet, border=1)),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_module_equals_its_formula(rng, name):
    module, reads, twin = TWINS[name]
    stages = [rng.normal(size=(*size, width)) for size, width in zip(SIZES, CHANNELS, strict=True)]
    features = Features(tuple(jnp.float32(stages[i])[None] for i in reads), jnp.float32(stages[-1])[None])
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), features, None, False))

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:3])), leaf.shape)
        return rng.uniform(0.5, 1.5, leaf.shape) if kind in ("scale", "var") else rng.uniform(-0.3, 0.3, leaf.shape)

    variables = jax.tree_util.tree_map_with_path(draw, abstract)
    found = jax.jit(lambda v: module.apply(v, features, None, False))(jax.tree.map(jnp.float32, variables))
    found = join(found.features, *found.outputs.values())[0] if isinstance(found, ContextMap) else found[0]
    expected = twin(Twin(variables), stages)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("height", "width", "window"), [(1, 1, 1), (1, 5, 4), (3, 4, 7), (3, 2, 2), (4, 5, 3), (2, 3, 10)]
)
def test_scores_are_spread_to_positions(rng, height, width, window):
    """Also where the window is smaller or larger than the map, and of an even side, whose middle is the earlier position."""
    scores = rng.normal(size=(1, height, width, window**2)).astype(np.float32)
    expected = np.zeros((1, height * width, height * width), np.float32)
    for a, b, y, x in np.ndindex(height, width, height, width):
        row, column = y - a + (window - 1) // 2, x - b + (window - 1) // 2
        if 0 <= row < window and 0 <= column < window:
            expected[0, a * width + b, y * width + x] = scores[0, a, b, row * window + column]
    np.testing.assert_array_equal(jax.jit(spread, static_argnums=1)(scores, window), expected)


def test_a_window_over_the_whole_map_is_full_attention(rng):
    """With a number for every pair of positions, softmax(numbers) · values, as in any attention."""
    height, width, window = 3, 4, 7
    pairs = rng.normal(size=(12, 12)).astype(np.float32)
    scores = np.zeros((1, height, width, window**2), np.float32)
    for p, q in np.ndindex(12, 12):
        row, column = q // width - p // width + 3, q % width - p % width + 3
        scores[0, p // width, p % width, row * window + column] = pairs[p, q]
    x = rng.normal(size=(1, height, width, 5)).astype(np.float32)
    flat = x.reshape(12, 5)
    found = collect(jnp.asarray(x), spread(jnp.asarray(scores), window))
    np.testing.assert_allclose(found.reshape(12, 5), jax.nn.softmax(pairs, axis=1) @ flat, rtol=1e-5, atol=1e-6)
    found = distribute(jnp.asarray(x), spread(jnp.asarray(scores), window))
    np.testing.assert_allclose(found.reshape(12, 5), jax.nn.softmax(pairs, axis=0).T @ flat, rtol=1e-5, atol=1e-6)


def test_collecting_and_distributing_are_transposes_of_one_another(rng):
    scores = spread(jnp.asarray(rng.normal(size=(2, 3, 5, 16)), jnp.float32), 4)
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 6)), jnp.float32)
    np.testing.assert_allclose(distribute(x, scores), collect(x, scores.swapaxes(1, 2)), rtol=1e-5, atol=1e-6)


def test_windows():
    """Those of the published weights: semseg with crops of 465 pixels, and 480 here; mmsegmentation with 512 and 769."""
    assert (window_of(59), window_of(60), window_of(64)) == (59, 59, 63)
    assert (mmseg_window_of(64), mmseg_window_of(97)) == (66, 97)
    assert halve_size(9, 7, None) == ((5, 4), "align_corners")
    assert halve_size(9, 8, None) == ((4, 4), "half_pixel")
    assert halve_size(9, 8, "half_pixel") == ((5, 4), "half_pixel")


@pytest.mark.parametrize("name", TWINS)
def test_a_pyramid_on_a_resnet(name):
    """Of one image that is not square, in bfloat16; the auxiliary classifier reads a map of another size."""
    strides, widths = (32, 16, 8, 4), {"semantic_width": 8, "unity_width": 4, "crop_px": 64}
    model = build_segmenter(3, backbone="resnet_tiny", context=name, strides=strides, dtype="bfloat16", **widths)
    images = jax.ShapeDtypeStruct((1, 96, 32, 3), jnp.float32)
    found = jax.eval_shape(lambda v, x: model.apply(v, x, False), abstract_variables(model), images)
    assert model.strides == strides
    assert [x.shape for x in found.semantic] == [(1, 96 // s, 32 // s, 3) for s in model.prediction_strides]
    assert all(x.dtype == jnp.float32 for x in found.semantic)


def test_deeplabv3plus_reaches_as_far_at_every_stride():
    """The published rates, 12, 24 and 36 at stride 8 and 6, 12 and 18 at stride 16, are the same distances in pixels."""
    cases = ((8, 8), (24, 48, 72)), ((16, 8), (12, 24, 36)), ((32, 8), (6, 12, 18)), ((6, 2), (6, 12, 18))  # odd sides
    for (side, final_side), rates in cases:
        module = DeepLabV3Plus(4)
        features = Features((jnp.zeros((1, side, side, 3)),), jnp.zeros((1, final_side, final_side, 5)))
        found = {}

        def remember(call, args, kwargs, context, found=found):
            if type(context.module).__name__ == "SeparableConv":
                found[context.module.name] = context.module.dilation
            return call(*args, **kwargs)

        with nn.intercept_methods(remember):
            jax.eval_shape(lambda m=module, f=features: m.init(jax.random.key(0), f, None, False))
        assert tuple(found[f"rate_{i}"] for i in (1, 2, 3)) == rates


def test_specs():
    """What the published networks have beside the module, and which of two releases a name stands for."""
    made = {name: CONTEXTS[name].make(ContextSettings(3, 1, 8)).context for name in TWINS}
    assert [name for name, module in made.items() if getattr(module, "is_enlarged_first", False)] == ["upernet"]
    assert [name for name, module in made.items() if getattr(module, "border", 0)] == ["psanet_mmseg"]
    assert [name for name in TWINS if not CONTEXTS[name].has_auxiliary] == ["pointrend", "upernet"]
    assert [name for name in TWINS if CONTEXTS[name].stride == 4] == [
        "pointrend",
        "upernet",
        "upernet_512",
        "deeplabv3plus",
    ]
