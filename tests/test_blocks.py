"""Rows of equal blocks, with and without rematerialization: the same numbers and variables as the plain network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pyrseg_jax.models.backbones import hrnet
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.initial import initial_variables

# Every kind of row: bottlenecks, basic blocks and exchange units.
NETWORK = {"width": 4, "num_modules": (1, 1, 2), "num_blocks": 2, "num_bottlenecks": 3, "stem_width": 4}


def apply_plainly(parent, make_block, names, x, train, remat, mask=None):
    """The twin of `apply_blocks`: modules as Flax has them."""
    assert mask is None
    for name in names:
        x = make_block(name=name)(x, train)
    return x


@functools.cache
def train_plainly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hrnet, "apply_blocks", apply_plainly)
        return train_once("off")


def train_once(remat):
    """Return the final map, the gradient of its weighted sum, and the updated batch statistics."""
    model = HRNet(**NETWORK, remat=remat)
    variables = initial_variables(HRNet(**NETWORK), 0)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 64, 96, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 16, 24, 60)), jnp.float32)

    def loss_of(params):
        variables_of = {"params": params, "batch_stats": variables["batch_stats"]}
        features, updates = model.apply(variables_of, images, True, mutable=["batch_stats"])
        return (features.final * weights).mean(), (features.final, updates["batch_stats"])

    (_, (final, stats)), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(variables["params"])
    return jax.device_get((final, gradient, stats))


@pytest.mark.parametrize("remat", ["off", "light", pytest.param("full", marks=pytest.mark.slow)])
def test_training_is_that_of_the_plain_network(remat):
    for found, expected in zip(train_once(remat), train_plainly(), strict=True):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for ours, plain in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            scale = np.abs(plain).max()
            np.testing.assert_allclose(ours / scale, plain / scale, atol=2e-4)


def test_inference_is_that_of_the_plain_network(monkeypatch):
    variables = initial_variables(HRNet(**NETWORK), 0)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(1, 32, 32, 3)), jnp.float32)
    ours = jax.jit(HRNet(**NETWORK).apply)(variables, images)
    monkeypatch.setattr(hrnet, "apply_blocks", apply_plainly)
    plain = jax.jit(HRNet(**NETWORK).apply)(variables, images)
    np.testing.assert_allclose(ours.final, plain.final, rtol=1e-4, atol=1e-5)


def test_variables_do_not_depend_on_rematerialization():
    def shapes(remat):
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        return jax.eval_shape(HRNet(**NETWORK, remat=remat).init, jax.random.key(0), image)

    assert shapes("full") == shapes("off")


def measure(remat):
    """Return how many convolutions the program of the gradient has, and its FLOPs, both as lowered.

    The convolutions of equal blocks count once, their FLOPs once per block.
    """
    model = HRNet(**NETWORK, remat=remat)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(HRNet(**NETWORK).init, jax.random.key(0), image)

    def loss_of(variables, images):
        features, _ = model.apply(variables, images, True, mutable=["batch_stats"])
        return features.final.sum()

    lowered = jax.jit(jax.grad(loss_of)).lower(variables, image)
    return lowered.as_text().count("stablehlo.convolution"), lowered.cost_analysis()["flops"]


def test_equal_blocks_are_lowered_once(monkeypatch):
    convolutions, flops = measure("off")
    monkeypatch.setattr(hrnet, "apply_blocks", apply_plainly)
    plain_convolutions, plain_flops = measure("off")
    assert convolutions < 0.7 * plain_convolutions
    assert flops == pytest.approx(plain_flops, rel=1e-3)


def test_rematerialization_computes_more():
    convolutions, flops = measure("off")
    assert measure("full")[1] > 1.1 * flops
    # "light" computes no convolution again, but some of what is between them.
    light = measure("light")
    assert light[0] == convolutions
    assert flops < light[1] < 1.1 * flops
