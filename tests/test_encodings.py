"""EncNet, CFNet, ACFNet and CPNet against their formulas, their laws, and the published counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import encoding_twins, twins

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.contexts.acfnet import ACFNet, mix_class_centers
from pyrseg_jax.models.contexts.cfnet import CFNet, CoOccurrentFeatures
from pyrseg_jax.models.contexts.cpnet import CPNet
from pyrseg_jax.models.contexts.encnet import EncNet
from pyrseg_jax.models.contexts.encoding import EncodingModule, encode, presence_loss
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter

WIDTH, CLASSES, SIDE = 16, 3, 6
MODULES = {
    "encnet": EncNet(WIDTH, CLASSES, num_codes=5),
    "cfnet": CFNet(WIDTH, CLASSES, num_codes=5),
    "cfnet, 3 softmaxes": CFNet(WIDTH, CLASSES, num_mixtures=3, has_presence_loss=True, num_codes=5),
    "acfnet": ACFNet(WIDTH, CLASSES),
    "cpnet": CPNet(WIDTH, SIDE),
}
# (module, height, width of the map): CPNet on its training map and on maps of other sizes.
CASES = [("encnet", 5, 7), ("cfnet", 5, 7), ("cfnet, 3 softmaxes", 4, 6), ("acfnet", 5, 7)]
CASES += [("cpnet", SIDE, SIDE), ("cpnet", 4, 9)]


def draw_variables(module, inputs, rng):
    """Variables of a trained network: no zeros, positive variances."""
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        if kind in ("kernel", "codewords", "mixture"):
            return rng.normal(0, 1.5 * np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        return rng.uniform(-0.5, 0.5, leaf.shape)

    return jax.tree.map(np.float32, jax.tree_util.tree_map_with_path(draw, abstract))


def inputs_of(rng, height, width, n=1, channels=6):
    features = rng.normal(size=(n, height, width, channels)).astype(np.float32)
    return Features((), jnp.asarray(features)), None, False


def run(module, variables, x):
    """Apply a module to a map, or to a context module's input, in evaluation."""
    arguments = (None, False) if isinstance(x, Features) else (False,)
    return jax.jit(lambda variables, x: module.apply(variables, x, *arguments))(variables, x)


def twin_of(name, variables, features):
    layers = encoding_twins.Layers(*(jax.tree.map(np.float64, variables[kind]) for kind in ("params", "batch_stats")))
    method = name.partition(",")[0]
    options = {"sample": functools.partial(twins.bilinear, size=(SIDE, SIDE))} if method == "cpnet" else {}
    return getattr(encoding_twins, method)(layers, features.astype(np.float64), **options)


@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_a_module_equals_its_formula(rng, name, height, width):
    module, inputs = MODULES[name], inputs_of(rng, height, width)
    variables = draw_variables(module, inputs, rng)
    found = run(module, variables, inputs[0])
    expected, outputs = twin_of(name, variables, np.asarray(inputs[0].final[0]))
    assert expected.std() > 0.05
    np.testing.assert_allclose(found.features[0], expected, atol=2e-5 * np.abs(expected).max())
    assert set(found.outputs) == set(outputs)
    for key, value in outputs.items():
        np.testing.assert_allclose(found.outputs[key][0], value, atol=2e-5 * np.abs(value).max())


@pytest.mark.parametrize("name", ["encnet", "cfnet", "acfnet", "cpnet"])
def test_half_precision_stays_close(rng, name):
    inputs = inputs_of(rng, SIDE, SIDE, n=2)
    variables = draw_variables(MODULES[name], inputs, rng)
    exact, half = (run(MODULES[name].clone(dtype=kind), variables, inputs[0]) for kind in (jnp.float32, jnp.bfloat16))
    assert half.features.dtype == jnp.bfloat16
    for a, b in [(exact.features, half.features), *((exact.outputs[k], half.outputs[k]) for k in exact.outputs)]:
        assert np.abs(a - b.astype(jnp.float32)).max() < 0.05 * np.abs(a).max()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4]), st.floats(0.1, 10))
def test_residuals_equal_those_of_the_differences(seed, num_codes, scale):
    rng = np.random.default_rng(seed)
    z, codewords = scale * rng.normal(size=(2, 3, 4, 5)), scale * rng.normal(size=(num_codes, 5))
    factors = -rng.random(num_codes)
    found = jax.jit(encode)(*map(jnp.float32, (z, codewords, factors)))
    expected = np.stack([encoding_twins.encode(image, codewords, factors) for image in z])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_an_encoding_does_not_depend_on_where_things_are(rng):
    module, x = EncodingModule(CLASSES, 4), jnp.float32(rng.normal(size=(1, 4, 6, 8)))
    variables = draw_variables(module, (x, False), rng)
    shuffled = rng.permutation(np.asarray(x).reshape(24, 8)).reshape(x.shape)
    first, second = (run(module, variables, jnp.asarray(y)).presence for y in (x, shuffled))
    assert np.abs(first).max() > 0.1
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_an_encoding_starts_as_in_the_release():
    model = build_segmenter(CLASSES, backbone="resnet_tiny", context="encnet", semantic_width=64)
    encoding = initial_variables(model, 0)["params"]["context"]["context"]["encoding"]
    bound = (32 * 64) ** -0.5
    assert 0.98 * bound < encoding["codewords"].max() <= bound
    assert -bound <= encoding["codewords"].min() < -0.98 * bound
    assert -1 <= encoding["factors"].min() < encoding["factors"].max() <= 0
    assert encoding["factors"].std() > 0.2
    assert 0.9 * 64**-0.5 < np.abs(encoding["gate"]["kernel"]).max() <= 64**-0.5


def attention_of(num_mixtures, rng, edit):
    """Run the attention of CFNet on a random map, with variables that `edit` has changed in place."""
    module = CoOccurrentFeatures(num_mixtures)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 6, WIDTH)), jnp.float32)
    variables = draw_variables(module, (x, False), rng)
    edit(variables["params"])
    return np.asarray(run(module, variables, x) - x)


@pytest.mark.parametrize("num_mixtures", [1, 3])
def test_attention_weights_add_up_to_one(rng, num_mixtures):
    """Where all values are equal, every position gets the same."""

    def edit(params):
        params["value"]["kernel"][:] = 0

    found = attention_of(num_mixtures, rng, edit)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1, :1], found.shape), rtol=1e-4, atol=1e-5)


def test_a_mixture_of_equal_softmaxes_is_one_softmax():
    """All parts of queries and keys are those of a single softmax, times 2^¼ to undo the division by the root of their width."""
    parts = {}

    def keep(params):
        parts.update(jax.tree.map(np.copy, params))

    def repeat(params):
        kernel = parts["query"]["kernel"].reshape(WIDTH, 8, 1, -1)
        bias = parts["query"]["bias"].reshape(8, 1, -1)
        params.update(jax.tree.map(np.copy, parts))
        params["query"] = {
            "kernel": 2**0.25 * np.repeat(kernel, 2, 2).reshape(1, 1, WIDTH, -1),
            "bias": 2**0.25 * np.repeat(bias, 2, 1).ravel(),
        }
        params["mixture"] = np.random.default_rng(0).normal(size=(2, 2 * WIDTH // 8)).astype(np.float32)

    one = attention_of(1, np.random.default_rng(0), keep)
    two = attention_of(2, np.random.default_rng(0), repeat)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 12}, r"width=12: CFNet has 8 heads"), ({"num_mixtures": 0}, r"num_mixtures=0: expected 1 or more")],
)
def test_cfnet_refuses_what_it_cannot_build(options, message):
    with pytest.raises(ValueError, match=message):
        CFNet(**({"width": 16, "num_classes": 3} | options))


def test_certain_classes_get_their_mean(rng):
    """Each position gets the mean of the features of its class; a class that is nowhere changes nothing."""
    classes, features = rng.integers(0, 3, (1, 5, 4)), rng.normal(size=(1, 5, 4, 6)).astype(np.float32)
    logits = jnp.asarray(200.0 * np.eye(4)[classes], jnp.float32)
    found, gradient = jax.value_and_grad(lambda f: jnp.sum(mix_class_centers(f, logits) ** 2))(jnp.asarray(features))
    expected = np.zeros_like(features)
    for k in range(3):
        expected[classes == k] = features[classes == k].mean(0)
    np.testing.assert_allclose(mix_class_centers(jnp.asarray(features), logits), expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(found)
    assert np.isfinite(gradient).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_presence_loss_equals_the_twin(seed, void):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 3], (2, 4, 6)).astype(np.uint8)
    labels[rng.random(labels.shape) < void] = 255
    logits = 3 * rng.normal(size=(2, 5))
    probs, values = encoding_twins.sigmoid(logits), []
    for i, k in np.ndindex(2, 5):
        values.append(-np.log(probs[i, k] if (labels[i] == k).any() else 1 - probs[i, k]))
    found = jax.jit(presence_loss, static_argnums=2)({"presence": jnp.float32(logits)}, labels, "finest")
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-5)


def test_the_losses_of_acfnet_keep_their_ratio():
    assert CONTEXTS["acfnet"].losses["coarse"].weight == pytest.approx(0.6 / 0.7)
