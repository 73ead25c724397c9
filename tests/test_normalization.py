"""Batch normalization and its gradient in closed form, against Flax's and step-by-step differentiation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pyrseg_jax.models.normalization import EPSILON, MOMENTUM, BatchNorm, normalize_by_batch
from pyrseg_jax.models.xla_cpu import SMALL_MAP, channel_sums

CHANNELS = 5


def plain(is_active, epsilon=EPSILON):
    """Flax's normalization, and ReLU: what the published networks are built of."""
    norm = nn.BatchNorm(use_running_average=False, momentum=MOMENTUM, epsilon=epsilon)

    def apply(variables, x):
        y, updates = norm.apply(variables, x, mutable=["batch_stats"])
        return (nn.relu(y) if is_active else y), updates

    return apply


def draw(rng, shape=(3, 6, 7, CHANNELS)):
    """Return variables that are nothing special, a map of channels with means and spreads of their own, and weights for a loss."""
    channels = shape[-1:]
    variables = {
        "params": {"scale": rng.normal(1, 0.3, channels), "bias": rng.normal(0, 0.5, channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)},
    }
    x = rng.normal(size=shape) * rng.uniform(0.5, 3, channels) + rng.normal(size=channels)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (variables, x, rng.normal(size=shape)))


def gradients(apply, variables, x, weights):
    def loss_of(params, x):
        y, updates = apply({"params": params, "batch_stats": variables["batch_stats"]}, x)
        return (y.astype(jnp.float32) * weights).sum(), (y, updates)

    (dparams, dx), aux = jax.grad(loss_of, (0, 1), has_aux=True)(variables["params"], x)
    return dparams | {"x": dx}, aux


@pytest.mark.parametrize(("is_active", "epsilon"), [(False, EPSILON), (True, EPSILON), (False, 0.1), (True, 0.1)])
def test_it_is_flax_batch_norm(rng, is_active, epsilon):
    variables, x, weights = draw(rng)
    norm = BatchNorm(is_active, epsilon=epsilon)
    ours = gradients(lambda v, x: norm.apply(v, x, True, mutable=["batch_stats"]), variables, x, weights)
    theirs = gradients(plain(is_active, epsilon), variables, x, weights)
    np.testing.assert_allclose(ours[1][0], theirs[1][0], rtol=1e-5, atol=1e-6)
    for name in ("mean", "var"):
        found, expected = (stats["batch_stats"][name] for _, (_, stats) in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    for name, expected in theirs[0].items():
        np.testing.assert_allclose(ours[0][name], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert jax.tree.structure(norm.init(jax.random.key(0), x, True)) == jax.tree.structure(variables)


@pytest.mark.parametrize("is_active", [False, True])
def test_gradient_is_the_slope_of_the_result(rng, is_active):
    """By differences, in double precision: no derivation of ours or of Flax takes part."""
    with jax.enable_x64():
        variables, x, weights = jax.tree.map(lambda a: np.asarray(a, np.float64), draw(rng, (2, 3, 2, 3)))
        scale, bias = variables["params"].values()

        def loss_of(x, scale, bias):
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            y = (x - mean) / np.sqrt(var + EPSILON) * scale + bias
            return (weights * (np.maximum(y, 0) if is_active else y)).sum()

        y_of = lambda *arguments: (normalize_by_batch(*arguments, is_active)[0] * weights).sum()  # noqa: E731
        found = jax.grad(y_of, (0, 1, 2))(*map(jnp.asarray, (x, scale, bias)))
        arguments = [x, scale, bias]
        for k, gradient in enumerate(found):
            slopes = np.zeros_like(arguments[k])
            for at in np.ndindex(slopes.shape):
                changed = [a.copy() for a in arguments]
                changed[k][at] += 1e-5
                above = loss_of(*changed)
                changed[k][at] -= 2e-5
                slopes[at] = (above - loss_of(*changed)) / 2e-5
            np.testing.assert_allclose(gradient, slopes, atol=1e-7 * np.abs(slopes).max())


@pytest.mark.parametrize("epsilon", [EPSILON, 0.1])
def test_inference_takes_the_running_statistics(rng, epsilon):
    variables, x, _ = draw(rng)
    mean, var = variables["batch_stats"]["mean"], variables["batch_stats"]["var"]
    expected = (x - mean) / np.sqrt(var + epsilon) * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(BatchNorm(epsilon=epsilon).apply(variables, x, False), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(BatchNorm(True, epsilon=epsilon).apply(variables, x, False) > 0, expected > 0)


def test_half_precision_has_statistics_in_single(rng):
    variables, x, weights = draw(rng, (4, 16, 16, CHANNELS))
    x = x.astype(jnp.bfloat16)
    norm = BatchNorm(True, jnp.bfloat16)
    apply = lambda v, x: norm.apply(v, x, True, mutable=["batch_stats"])  # noqa: E731
    found, (y, updates) = gradients(apply, variables, x, weights)
    assert y.dtype == found["x"].dtype == jnp.bfloat16
    assert updates["batch_stats"]["mean"].dtype == jnp.float32
    full, (full_y, full_updates) = gradients(plain(True), variables, x.astype(jnp.float32), weights)
    np.testing.assert_allclose(updates["batch_stats"]["var"], full_updates["batch_stats"]["var"], rtol=1e-5)
    np.testing.assert_allclose(y.astype(jnp.float32), full_y, rtol=1e-2, atol=1e-3)
    for name, expected in full.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[name].astype(jnp.float32) / scale, expected / scale, atol=1e-2)


def test_a_constant_channel_keeps_gradients_finite(rng):
    variables, x, weights = draw(rng)
    x = x.at[..., 0].set(1000.0)  # the mean of the squares may come out below the square of the mean
    norm = BatchNorm(True)
    found, (_, updates) = gradients(lambda v, x: norm.apply(v, x, True, mutable=["batch_stats"]), variables, x, weights)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(found))
    assert (updates["batch_stats"]["var"] > 0).all()


def test_gradient_takes_two_sums_over_the_batch():
    """One more, and each training step reads all maps once more."""
    sums = []
    for norm in (BatchNorm(True), None):
        apply = plain(True) if norm is None else lambda v, x, n=norm: n.apply(v, x, True, mutable=["batch_stats"])
        x = jax.ShapeDtypeStruct((4, 256, 256, CHANNELS), jnp.float32)
        variables = jax.eval_shape(lambda x: BatchNorm().init(jax.random.key(0), x, False), x)
        text = jax.jit(lambda v, x, apply=apply: gradients(apply, v, x, x)).lower(variables, x).as_text()
        sums.append(text.count("stablehlo.reduce("))
    assert x.size > SMALL_MAP
    assert sums == [4, 7]  # two of them are the statistics


@pytest.mark.parametrize("width", [8, 2**10], ids=["small", "large"])
def test_sums_of_small_and_large_maps_keep_their_digits(rng, width):
    x, y = (rng.normal(3, 1, (4, 64, width, 4)).astype(np.float32) for _ in range(2))
    assert (x.size > SMALL_MAP) == (width > 8)
    for found, array in zip(jax.jit(channel_sums)(x, y), (x, y), strict=True):
        np.testing.assert_allclose(found, array.sum((0, 1, 2), dtype=np.float64), rtol=2e-6)


def test_with_a_mask_statistics_are_those_of_its_positions():
    rng = np.random.default_rng(0)
    x, active = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32), jnp.asarray(rng.random((2, 3, 5)) < 0.5)
    weights = rng.normal(size=x.shape).astype(np.float32)
    variables = draw_norm(rng)

    def masked(params, x):
        y, updates = BatchNorm(True).apply({**variables, "params": params}, x, True, active, mutable=["batch_stats"])
        return (weights * y).sum(), (y, updates["batch_stats"])

    def gathered(params, x):
        y, updates = BatchNorm(True).apply(
            {**variables, "params": params}, x[active][None, None], True, mutable=["batch_stats"]
        )
        return (weights[active] * y[0, 0]).sum(), (y, updates["batch_stats"])

    found, expected = (
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(variables["params"], x) for f in (masked, gathered)
    )
    np.testing.assert_allclose(found[0][1][0][active], expected[0][1][0][0, 0], rtol=1e-5, atol=1e-6)
    assert not found[0][1][0][~active].any()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, (found[1], found[0][1][1]), (expected[1], expected[0][1][1]))
    _, updates = BatchNorm().apply(variables, x, True, jnp.zeros_like(active), mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def draw_norm(rng):
    return {
        "params": {"scale": rng.normal(size=4).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)},
        "batch_stats": {"mean": rng.normal(size=4).astype(np.float32), "var": rng.uniform(1, 2, 4).astype(np.float32)},
    }
