"""Non-local, DANet, EMANet, APCNet, CCNet, ANN and OCR: their formulas, sizes, starts, and EMANet's bases."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from support.attention_formulas import FORMULAS, Formulas, danet_branches, find_bases, rows
from support.training import sgd

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import CONTEXTS, ContextMap, ContextSettings, attention
from pyrseg_jax.models.contexts.attention import attend_to_all
from pyrseg_jax.models.contexts.emanet import EMAUnit, expectation_maximization
from pyrseg_jax.models.heads import AuxiliaryClassifier
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.training.step import initial_state, make_train_step

WIDTH, KEY_WIDTH, CLASSES = 16, 4, 3


def test_openseg_has_a_coarse_classifier_of_its_own():
    for backbone, channels, width in (("resnet101", 1024, 512), ("hrnet_w48", 720, 720)):
        head = build_segmenter(150, backbone=backbone, context="ocr_openseg").auxiliary_head
        assert isinstance(head, AuxiliaryClassifier)
        shapes = jax.eval_shape(lambda h=head, c=channels: h.init(jax.random.key(0), jnp.zeros((1, 8, 8, c)), False))
        assert shapes["params"]["project_1"]["conv"]["kernel"].shape == (3, 3, channels, width)


def make_module(context, width=WIDTH):
    return CONTEXTS[context].make(ContextSettings(CLASSES, 1, width, KEY_WIDTH)).context


def draw_maps(rng, num_images=1):
    """C4 and C5 of other sizes, as a module may get them on any backbone; it reads C4 only if its spec says so."""
    return tuple(jnp.asarray(rng.normal(size=(num_images, *shape)), jnp.float32) for shape in ((6, 5, 5), (7, 9, 6)))


def features_of(context, c4, c5):
    return Features((c4,) if CONTEXTS[context].reads else (), c5)


def draw_variables(module, rng, *inputs):
    """Variables as of a trained module: nothing is 0 or 1."""
    abstract = flatten_dict(jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)))
    drawn = {}
    for path, leaf in abstract.items():
        if path[-1] in ("scale", "var"):
            drawn[path] = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            drawn[path] = rng.normal(size=leaf.shape) * max(np.prod(leaf.shape[:-1]), 1) ** -0.5
    return unflatten_dict(drawn)


@pytest.mark.parametrize("context", FORMULAS)
def test_a_module_equals_its_formula(rng, context):
    module, (c4, c5) = make_module(context), draw_maps(rng, 2)
    inputs = (features_of(context, c4, c5), None, False)
    variables = draw_variables(module, rng, *inputs)
    found = jax.jit(lambda v: module.apply(v, *inputs))(jax.tree.map(jnp.float32, variables))
    found = found.features if isinstance(found, ContextMap) else found
    for i in range(2):
        expected = FORMULAS[context](Formulas(variables), np.float64(c4[i]), np.float64(c5[i]))
        assert expected.std() > 0.05
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_danet_learns_from_each_branch_alone(rng):
    """Its outputs are classifiers on either branch, and their losses the cross entropy with the labels."""
    module, (c4, c5) = make_module("danet"), draw_maps(rng)
    inputs = (features_of("danet", c4, c5), None, False)
    variables = draw_variables(module, rng, *inputs)
    outputs = module.apply(jax.tree.map(jnp.float32, variables), *inputs).outputs
    labels = rng.integers(0, CLASSES, (1, 7, 9)).astype(np.uint8)
    labels[0, :2] = 255
    formulas = Formulas(variables)
    for name, branch in zip(("position", "channel"), danet_branches(formulas, np.float64(c5[0])), strict=True):
        logits = formulas.linear(f"{name}_classify", branch)
        np.testing.assert_allclose(outputs[name][0], logits, rtol=1e-4, atol=1e-4)
        odds = np.exp(logits[2:]) / np.exp(logits[2:]).sum(-1, keepdims=True)
        expected = -np.log(np.take_along_axis(odds, labels[0, 2:, :, None].astype(int), -1)).mean()
        extra = CONTEXTS["danet"].losses[name]
        assert extra.weight == 1
        assert extra.compute(outputs, jnp.asarray(labels), "finest") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("context", ["nonlocal", "danet", "ccnet", "ann"])
def test_attention_starts_by_adding_nothing(rng, context):
    """At the start, the layers that attention reads do not matter."""
    module, (c4, c5) = make_module(context), draw_maps(rng)
    inputs = (features_of(context, c4, c5), None, False)
    variables = jax.jit(lambda key: module.init(key, *inputs))(jax.random.key(0))
    others = {
        path: leaf + 1.0
        if path[-2] in ("query", "key", "value", "conv") and {"query", "key", "value"} & {*path}
        else leaf
        for path, leaf in flatten_dict(variables).items()
    }
    assert sum(leaf is not others[path] for path, leaf in flatten_dict(variables).items()) >= 4
    run = jax.jit(lambda v: module.apply(v, *inputs))
    jax.tree.map(np.testing.assert_array_equal, run(variables), run(unflatten_dict(others)))


def test_initial_values_are_those_of_the_sources():
    """Without compiling anything, as training draws them."""
    start = {
        context: flatten_dict(
            initial_variables(
                build_segmenter(CLASSES, backbone="hrnet_tiny", context=context, representation="per_pixel"), 0
            )
        )
        for context in ("nonlocal", "danet", "emanet")
    }
    at = ("params", "context", "context")
    non_local = start["nonlocal"]
    assert not non_local[*at, "out", "bn", "scale"].any()
    assert non_local[*at, "smooth", "bn", "scale"].all()
    for name in ("query", "key", "value"):
        assert non_local[*at, name, "kernel"].std() == pytest.approx(0.01, rel=0.05)
    assert not start["danet"][*at, "position", "gamma"].any()
    assert not start["danet"][*at, "channel", "gamma"].any()
    bases = start["emanet"]["batch_stats", "context", "context", "unit", "bases"]
    assert bases.shape == (512, 64)
    np.testing.assert_allclose(np.linalg.norm(bases, axis=0), 1, rtol=1e-5)
    assert np.abs(bases.mean()) < 1e-3


@pytest.mark.parametrize(("height", "width", "most"), [(6, 5, 450), (6, 5, 200), (5, 4, 1), (7, 1, 30)])
def test_attention_in_parts_equals_attention_at_once(rng, monkeypatch, height, width, most):
    query, key, value = (jnp.asarray(rng.normal(size=(2, height, width, c)), jnp.float32) for c in (3, 3, 5))

    @jax.jit
    def run(q):
        found, pull = jax.vjp(lambda q: attend_to_all(q, key, value, 0.5), q)
        return found, pull(found)[0]

    whole = run(query)
    monkeypatch.setattr(attention, "MAX_WEIGHTS", most)
    run.clear_cache()
    assert "scan" in str(jax.make_jaxpr(run)(query))
    for part, all_at_once in zip(run(query), whole, strict=True):
        np.testing.assert_allclose(part, all_at_once, rtol=1e-4, atol=1e-5)


def test_attention_of_a_large_map_keeps_few_weights():
    """On a map of stride 4, all weights of one image would be 1 GiB."""
    maps = [jax.ShapeDtypeStruct((1, 128, 128, 8), jnp.float32)] * 3
    program = jax.make_jaxpr(jax.grad(lambda *x: attend_to_all(*x).sum()))(*maps)

    def sizes(jaxpr):
        for step in jaxpr.eqns:
            yield from (np.prod(out.aval.shape) for out in step.outvars)
            for value in step.params.values():
                if hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
                    yield from sizes(inner)

    assert max(sizes(program.jaxpr)) == attention.MAX_WEIGHTS


iterate = jax.jit(expectation_maximization, static_argnums=2)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3), st.booleans())
def test_expectation_maximization_returns_shares_and_unit_vectors(seed, size, is_release):
    rng = np.random.default_rng(seed)
    features = np.float32(rng.normal(size=(2, 7, 5)) * size)
    stored = rng.normal(size=(5, 4))
    stored = np.float32(stored / np.linalg.norm(stored, axis=0))
    bases, shares = jax.device_get(iterate(features, stored, is_release))
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(bases, axis=-2), 1, rtol=1e-2)
    for i in range(2):
        expected = find_bases(np.float64(features[i]), np.float64(stored))
        np.testing.assert_allclose(bases[i], expected[0], atol=1e-2)
        np.testing.assert_allclose(shares[i], expected[1], atol=1e-2)


@pytest.mark.parametrize("is_release", [True, False])
def test_bases_move_in_training_and_learn_nothing(rng, is_release):
    unit = EMAUnit(6, is_release)
    x = jnp.asarray(rng.normal(size=(3, 4, 5, 6)), jnp.float32)
    variables = unit.init(jax.random.key(0), x, False)

    def loss(params, train):
        found, updates = unit.apply({**variables, "params": params}, x, train, mutable=["batch_stats"])
        return (found**2).sum(), updates["batch_stats"]["bases"]

    gradients, after = jax.jit(jax.grad(lambda p: loss(p, True), has_aux=True))(variables["params"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["project"]))
    assert gradients["out"]["conv"]["kernel"].any()
    stored = variables["batch_stats"]["bases"]
    np.testing.assert_array_equal(loss(variables["params"], False)[1], stored)
    formulas = Formulas(jax.tree.map(np.float64, variables))
    found = [find_bases(rows(formulas.linear("project", np.float64(image))), np.float64(stored))[0] for image in x]
    mean = np.mean(found, axis=0)
    if not is_release:
        mean /= np.linalg.norm(mean, axis=0)
    np.testing.assert_allclose(after, 0.9 * stored + 0.1 * mean, rtol=1e-3, atol=1e-4)


class Cells(nn.Module):
    """A backbone of stride 8 without parameters: the means of cells of pixels, and of their squares."""

    @nn.compact
    def __call__(self, images, train=False):
        cells = nn.avg_pool(images, (8, 8), (8, 8))
        final = jnp.concatenate([cells, cells**2], axis=-1)
        return Features((final,) * 4, final)


@pytest.mark.parametrize("context", ["emanet", "emanet_mmseg"])
def test_bases_after_a_step_belong_to_the_global_batch(rng, context):
    """On two devices as on one; and weight decay leaves the layer before the bases alone."""
    model = build_segmenter(
        CLASSES,
        backbone="resnet_tiny",
        context=context,
        representation="per_pixel",
        semantic_width=8,
        strides=(64, 32, 16, 8),
    ).clone(backbone=Cells(), auxiliary_head=None)
    frozen = CONTEXTS[context].frozen
    optimizer = sgd(0.1, 10, weight_decay=0.1, frozen=frozen)
    start = initial_variables(model, 0)
    batch = {
        "image": rng.integers(0, 255, (4, 64, 64, 3)).astype(np.uint8),
        "label": rng.integers(0, CLASSES, (4, 64, 64)).astype(np.uint8),
    }

    def objective(predicted, labels):
        return (predicted.semantic[-1] ** 2).mean(), {}

    def step(devices):
        mesh = mesh_lib.make_mesh(data=devices)
        state = initial_state(jax.tree.map(jnp.asarray, start), optimizer)
        state, _ = make_train_step(model, optimizer, objective, mesh)(state, batch)
        return jax.device_get(state.variables)

    one, two = step(1), step(2)
    bases = ("context", "context", "unit", "bases")
    before, after, sharded = (flatten_dict(v["batch_stats"])[bases] for v in (start, one, two))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(sharded, after, rtol=1e-4, atol=1e-5)
    project = ("context", "context", "unit", "project", "kernel")
    np.testing.assert_array_equal(flatten_dict(one["params"])[project], flatten_dict(start["params"])[project])
    out = ("context", "context", "unit", "out", "conv", "kernel")
    assert (flatten_dict(one["params"])[out] != flatten_dict(start["params"])[out]).any()


@pytest.mark.parametrize("context", ["danet", "emanet", "nonlocal", "ann", "apcnet"])
def test_half_precision_is_close_to_single(rng, context):
    """Softmaxes, energies and means over many positions are in float32 inside."""
    c4, c5 = draw_maps(rng)
    features = features_of(context, c4, c5)
    single, half = (
        CONTEXTS[context].make(ContextSettings(CLASSES, 1, WIDTH, KEY_WIDTH, dtype=dtype)).context
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    variables = jax.tree.map(jnp.float32, draw_variables(single, rng, features, None, False))
    expected, found = (jax.jit(lambda v, m=m: m.apply(v, features, None, False))(variables) for m in (single, half))
    if isinstance(expected, ContextMap):
        expected, found = expected.features, found.features
    assert found.dtype == jnp.bfloat16
    assert np.abs(np.float32(found) - expected).max() < 0.1 * np.abs(expected).max()
