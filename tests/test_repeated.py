"""Blocks compiled once, or computed again: the same numbers and variables as the plain network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pyrseg_jax.models.backbones import hrnet
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.blocks import Execution
from pyrseg_jax.models.initial import initial_variables

# Every kind of row: bottlenecks, blocks and modules.
NETWORK = {"width": 4, "num_modules": (1, 1, 2), "num_blocks": 2, "num_bottlenecks": 3, "stem_width": 4}


def apply_plainly(parent, make_block, names, x, train, execution):
    """Do what `run_in_a_row` does with modules as Flax has them."""
    for name in names:
        x = make_block(name=name)(x, train)
    return x


@functools.cache
def train_plainly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hrnet, "run_in_a_row", apply_plainly)
        return train_once(Execution())


def train_once(execution, dtype=jnp.float32):
    """Return features, the gradient of their weighted sum, and the updated batch statistics."""
    model = HRNet(**NETWORK, dtype=dtype, execution=execution)
    variables = initial_variables(HRNet(**NETWORK), 0)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 64, 96, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 16, 24, 60)), jnp.float32)

    def loss_of(params):
        variables_of = {"params": params, "batch_stats": variables["batch_stats"]}
        features, updates = model.apply(variables_of, images, True, mutable=["batch_stats"])
        return (features.astype(jnp.float32) * weights).mean(), (features, updates["batch_stats"])

    (_, (features, stats)), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(variables["params"])
    return jax.device_get((features, gradient, stats))


EXECUTIONS = [
    Execution(),
    Execution(True),
    Execution(True, "light"),
    pytest.param(Execution(False, "full"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
def test_training_is_that_of_the_plain_network(execution):
    for found, expected in zip(train_once(execution), train_plainly(), strict=True):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for ours, plain in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            scale = np.abs(plain).max()
            np.testing.assert_allclose(ours / scale, plain / scale, atol=2e-4)


@pytest.mark.parametrize("execution", EXECUTIONS[:2], ids=str)
def test_inference_is_that_of_the_plain_network(execution, monkeypatch):
    variables = initial_variables(HRNet(**NETWORK), 0)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(1, 32, 32, 3)), jnp.float32)
    ours = jax.jit(HRNet(**NETWORK, execution=execution).apply)(variables, images)
    monkeypatch.setattr(hrnet, "run_in_a_row", apply_plainly)
    plain = jax.jit(HRNet(**NETWORK).apply)(variables, images)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


def test_variables_are_named_the_same():
    def shapes(execution):
        model = HRNet(**NETWORK, execution=execution)
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        return jax.eval_shape(model.init, jax.random.key(0), image)

    assert shapes(Execution(True, "full")) == shapes(Execution())


def measure(execution):
    """Return how many convolutions the program of the gradient has, and its FLOPs, both as lowered.

    In loops either counts once; of blocks that are equal, convolutions count once and FLOPs each time.
    """
    model = HRNet(**NETWORK, execution=execution)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(HRNet(**NETWORK).init, jax.random.key(0), image)

    def loss_of(variables, images):
        out = model.apply(variables, images, True, mutable=["batch_stats"])
        return out[0].sum()

    lowered = jax.jit(jax.grad(loss_of)).lower(variables, image)
    return lowered.as_text().count("stablehlo.convolution"), lowered.cost_analysis()["flops"]


def test_equal_blocks_are_lowered_once(monkeypatch):
    convolutions, flops = measure(Execution())
    monkeypatch.setattr(hrnet, "run_in_a_row", apply_plainly)
    plain_convolutions, plain_flops = measure(Execution())
    assert convolutions < 0.7 * plain_convolutions
    assert flops == pytest.approx(plain_flops, rel=1e-3)


def test_scanned_programs_are_smaller_and_rematerialised_ones_compute_more():
    convolutions, flops = measure(Execution())
    assert measure(Execution(True))[1] < 0.7 * flops
    assert measure(Execution(False, "full"))[1] > 1.1 * flops
    # No convolution is computed again, but some of what is between them.
    light = measure(Execution(False, "light"))
    assert light[0] == convolutions
    assert flops < light[1] < 1.1 * flops
