"""The context modules of Table 1 against their published formulas, position by position, and what their specs say of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import export as jax_export
from support.patches import Patches

from pyrseg_jax.models.backbones import Cut, Features
from pyrseg_jax.models.contexts import CONTEXTS, ContextSettings
from pyrseg_jax.models.contexts.ccnet import CrissCrossAttention
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.segmenter import REPRESENTATIONS, build_segmenter

WIDTH, KEY_WIDTH, CLASSES = 8, 4, 3
PUBLISHED = {name: CONTEXTS[name].make for name in ("anl", "ccnet", "ocr")}


def draw_variables(module, rng, *inputs):
    """Variables without the zeros and ones of an untrained network."""
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 1.0, leaf.shape) * rng.choice([-1, 1], leaf.shape), abstract)


def positive_variances(variables):
    def fix(path, leaf):
        return np.abs(leaf) if path[-1].key == "var" else leaf

    return jax.tree_util.tree_map_with_path(fix, variables)


class Twin:
    """Convolutions, normalization and pooling in NumPy, reading the variables of one module."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def conv(self, name, x):
        layer = self.params[name]
        kernel = (layer.get("conv") or layer)["kernel"]
        size = len(kernel)
        padded = np.pad(x, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        y = np.zeros((*x.shape[:2], kernel.shape[-1]))
        for i, j in np.ndindex(*x.shape[:2]):
            y[i, j] = np.einsum("abc,abcd->d", padded[i : i + size, j : j + size], kernel)
        if "bias" in layer:
            return y + layer["bias"]
        bn, stats = layer["bn"], self.stats[name]["bn"]
        return np.maximum((y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"], 0)


def pool(x):
    height, width = x.shape[:2]
    tokens = []
    for n in (1, 3, 6, 8):
        for i, j in np.ndindex(n, n):
            rows = slice(i * height // n, -(-(i + 1) * height // n))
            columns = slice(j * width // n, -(-(j + 1) * width // n))
            tokens.append(x[rows, columns].mean((0, 1)))
    return np.array(tokens)


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def attend(queries, keys, values):
    found = np.zeros((*queries.shape[:2], values.shape[-1]))
    for at in np.ndindex(*queries.shape[:2]):
        found[at] = softmax(keys @ queries[at] / np.sqrt(keys.shape[1])) @ values
    return found


def anl(twin, features, _):
    x = twin.conv("reduce", features)
    queries, values = twin.conv("key", x), twin.conv("value", x)
    context = twin.conv("out", attend(queries, pool(queries), pool(values)))
    return twin.conv("merge", np.concatenate([context, x], -1))


def ocr(twin, features, auxiliary):
    x = twin.conv("reduce", features)
    regions = np.zeros((1, CLASSES, WIDTH))
    for c in range(CLASSES):
        weights = softmax(auxiliary[..., c])
        regions[0, c] = (weights[..., None] * x).sum((0, 1))
    queries = twin.conv("query_2", twin.conv("query_1", x))
    keys = twin.conv("key_2", twin.conv("key_1", regions))[0]
    attended = attend(queries, keys, twin.conv("value_1", regions)[0])
    return twin.conv("merge", np.concatenate([twin.conv("out", attended), x], -1))


def criss_cross(params, x):
    query, key, value = (x @ params[name]["kernel"][0, 0] + params[name]["bias"] for name in ("query", "key", "value"))
    found = np.zeros_like(x)
    height, width = x.shape[:2]
    for i, j in np.ndindex(height, width):
        path = [(g, j) for g in range(height) if g != i] + [(i, g) for g in range(width)]
        weights = softmax(np.array([key[at] @ query[i, j] for at in path]))
        found[i, j] = sum(w * value[at] for w, at in zip(weights, path, strict=True))
    return x + params["gamma"] * found


def ccnet(twin, features, _):
    x = twin.conv("reduce", features)
    for _ in range(2):
        x = criss_cross(twin.params["criss_cross"], x)
    return twin.conv("merge", np.concatenate([features, twin.conv("smooth", x)], -1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_module_equals_its_formula(rng, name):
    module = PUBLISHED[name](ContextSettings(CLASSES, 1, WIDTH, KEY_WIDTH)).context
    features, auxiliary = (rng.normal(size=(1, 5, 7, c)).astype(np.float32) for c in (6, CLASSES))
    inputs = (Features((), jnp.asarray(features)), jnp.asarray(auxiliary), False)
    variables = positive_variances(draw_variables(module, rng, *inputs))
    found = module.apply(jax.tree.map(jnp.float32, variables), *inputs)[0]
    expected = {"anl": anl, "ccnet": ccnet, "ocr": ocr}[name](Twin(variables), features[0], auxiliary[0])
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_criss_cross_attention_starts_as_the_identity(rng):
    module = CrissCrossAttention(6, 2)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 6)), jnp.float32)
    np.testing.assert_array_equal(module.apply(module.init(jax.random.key(0), x), x), x)


@pytest.mark.parametrize("name", PUBLISHED)
def test_dropout_leaves_out_whole_channels_in_training_only(rng, name):
    module = PUBLISHED[name](ContextSettings(CLASSES, 1, 40, KEY_WIDTH)).context
    features, auxiliary = (jnp.asarray(rng.normal(size=(8, 4, 4, c)), jnp.float32) for c in (6, CLASSES))
    features = Features((), features)
    variables = module.init(jax.random.key(0), features, auxiliary, False)

    def run(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(variables, features, auxiliary, train, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(run(0, False), run(1, False))
    assert (run(0, True) != run(1, True)).any()
    is_out = np.asarray(run(0, True) == 0).all((1, 2)) & ~np.asarray(run(1, True) == 0).all((1, 2))
    assert 0.01 < is_out.mean() < 0.2


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_module_alone_is_followed_by_its_classifier(name):
    """As published: no projection in between, an auxiliary classifier beside; with a pyramid a projection per level."""
    alone, levels = (
        abstract_variables(build_segmenter(CLASSES, backbone="hrnet_tiny", context=name, representation=r))["params"]
        for r in ("per_pixel", "pyramid")
    )
    assert set(alone["semantic_head"]) == {"classify_4"}
    assert set(levels["semantic_head"]) == {
        f"{part}_{level}" for part in ("project", "classify") for level in (1, 2, 3, 4)
    }
    assert set(alone["auxiliary_head"]) == {"project_1", "classify_1"}
    assert "unity_head" not in alone


# Weights of the extra losses, and shares of dropout in the order of the layers, as in the sources that the modules name.
LOSSES = {
    "acfnet": {"coarse": pytest.approx(0.6 / 0.7)},
    "cpnet": {"affinity": 1},
    "danet": {"position": 1, "channel": 1},
    "dsspn": {"neurons": 1},
    "encnet": {"presence": 0.2},
    "layer_cascade": {"stage_1": 1, "stage_2": 1},
    "pointrend": {"points": 1},
    "qgn": {"quadtree": 1},
    "qgn_sparse": {"quadtree": 1},
}
DROPOUT = {
    "acfnet": [0.5, 0.1, 0.2, 0.1],
    "acnet": [0.1],
    "anl": [0.05],
    "ann": [0.1, 0.1],
    "cfnet": [0.1, 0.1],
    "danet": [0.1, 0.1, 0.1],
    "ocr": [0.05],
    "ocr_openseg": [0.05],
} | dict.fromkeys(("none", "coarse_to_fine", "layer_cascade", "pointrend", "dsspn", "sgr", "svcnet", "upernet"), [])
DROPOUT |= dict.fromkeys(("qgn", "qgn_sparse"), [])


SETTINGS = ContextSettings(CLASSES, 1, 16, 8, map_px=8)


def shapes_for(spec, number):
    """Shapes of what a module reads of a number of images of 64 × 64 pixels: features, and the auxiliary classifier's logits."""

    def shape(side, *channels, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((number, side, side, *channels), dtype)

    stages, logits = [shape(side, 16) for side in (16, 8, 4, 2)], shape(8, CLASSES)
    cut = Cut(logits, shape(8, dtype=bool), stages[1])
    return Features(tuple(stages[i] for i in spec.reads), stages[1], shape(32, 16), cuts=(cut, cut)), logits


@pytest.mark.parametrize("name", CONTEXTS)
def test_losses_and_dropout_are_those_of_the_sources(name):
    spec, shares = CONTEXTS[name], []
    assert {key: loss.weight for key, loss in spec.losses.items()} == LOSSES.get(name, {})

    def remember(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            shares.append(context.module.rate)
        return call(*args, **kwargs)

    module, (features, auxiliary) = spec.make(SETTINGS), shapes_for(spec, 1)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with nn.intercept_methods(remember):
        jax.eval_shape(lambda *of: module.init(keys, *of, True), features, auxiliary)
    assert shares == DROPOUT.get(name, [0.1])


@pytest.mark.parametrize("name", CONTEXTS)
def test_an_exported_module_takes_any_number_of_images(name):
    """An export is traced with an unknown number of images, and lowered for all platforms."""
    spec = CONTEXTS[name]
    context, refiner = spec.make(SETTINGS), spec.make_refiner(SETTINGS) if spec.make_refiner else None

    def run(variables, features, auxiliary, logits):
        found = context.apply(variables[0], features, auxiliary, False)
        refined = refiner.apply(variables[1], features, found, logits, False).logits if refiner else ()
        return found.levels, found.logits, refined

    def draw(features, auxiliary, logits):
        found, variables = context.init_with_output(jax.random.key(0), features, auxiliary, False)
        return variables, refiner.init(jax.random.key(0), features, found, logits, False) if refiner else {}

    features, auxiliary = shapes_for(spec, 1)
    variables = jax.eval_shape(draw, features, auxiliary, auxiliary)
    (number,) = jax_export.symbolic_shape("n")
    features, auxiliary = shapes_for(spec, number)
    export = jax_export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))
    assert all(x.shape[0] == number for x in export(variables, features, auxiliary, auxiliary).out_avals)


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_spec_is_true_of_its_module(name, representation):
    spec = CONTEXTS[name]
    model = build_segmenter(CLASSES, context=name, representation=representation).copy(backbone=Patches())
    variables = abstract_variables(model)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    rngs = {"dropout": jax.random.key(0)}
    found = jax.eval_shape(
        lambda v, x: model.apply(v, x, True, rngs=rngs, mutable=["batch_stats"])[0], variables, images
    )
    assert (found.auxiliary is not None) == spec.has_auxiliary == ("auxiliary_head" in variables["params"])
    labels = jnp.zeros((2, 64, 64), jnp.uint8)
    losses = jax.eval_shape(
        lambda o: {n: loss.compute(o, labels, "finest") for n, loss in spec.losses.items()}, found.outputs
    )
    assert all(loss.shape == () for loss in losses.values())
    layers = {"/".join(path[:-1]) for path in flatten_dict(variables["params"])}
    assert set(spec.frozen) <= layers and bool(spec.frozen) == name.startswith("emanet")
    classifies = spec.classifies and representation == "per_pixel"
    assert classifies == ("semantic_head" not in variables["params"])
    stride = spec.logits_stride if classifies and spec.logits_stride else 4
    assert model.strides[-1] == stride and found.semantic[-1].shape == (2, 64 // stride, 64 // stride, CLASSES)
    if not classifies:
        has_projections = any(name.startswith("project_") for name in variables["params"]["semantic_head"])
        assert has_projections == (spec.is_projected or representation != "per_pixel")


def test_a_layer_that_is_added_to_something_starts_at_zero():
    variables = initial_variables(build_segmenter(CLASSES, backbone="hrnet_tiny", context="anl"), seed=0)
    context = variables["params"]["context"]["context"]
    assert not context["out"]["kernel"].any()
    assert np.std(context["value"]["kernel"]) == pytest.approx(np.sqrt(2 / 512), rel=0.05)
