"""Initial variables: the distributions of `model.init`, for any Flax module, the same for the same seed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.trees import assert_trees_equal

from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.layers import ConvNormAct
from pyrseg_jax.models.segmenter import build_segmenter


def tiny_segmenter():
    return build_segmenter(3, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)


def init(model, seed, side=64):
    return jax.jit(lambda: model.init(jax.random.key(seed), jnp.zeros((1, side, side, 3)), False))()


def test_drawn_variables_have_the_distributions_of_init():
    model = tiny_segmenter()
    drawn, initialized = initial_variables(model, seed=3), init(model, 3)
    assert jax.tree.structure(drawn) == jax.tree.structure(initialized)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(drawn), jax.tree.leaves(initialized), strict=True):
        assert a.shape == b.shape, path
        if a.size > 400 or np.std(b) == 0:
            np.testing.assert_allclose(np.std(a), np.std(b), rtol=0.2, err_msg=str(path))
            np.testing.assert_allclose(np.mean(a), np.mean(b), atol=4 * np.std(b) / np.sqrt(a.size) + 1e-12)


def test_drawn_variables_depend_on_the_seed_alone():
    first, again, other = (initial_variables(tiny_segmenter(), seed) for seed in (3, 3, 4))
    assert_trees_equal(first, again)
    kernels = [tree["params"]["backbone"]["stem1"]["conv"]["kernel"] for tree in (first, other)]
    assert (kernels[0] != kernels[1]).all()


def test_what_a_caller_does_to_the_shapes_stays_with_it():
    """The trace of a network is kept for the next caller."""
    model = ConvNormAct(4, 3)
    shapes = abstract_variables(model, side=8)
    del shapes["params"]["conv"]
    again = abstract_variables(ConvNormAct(4, 3), side=8)
    assert again["params"]["conv"]["kernel"].shape == (3, 3, 3, 4)
    assert abstract_variables(ConvNormAct(5, 3), side=8)["params"]["conv"]["kernel"].shape == (3, 3, 3, 5)


class Scaled(nn.Module):
    """A module with an attribute that cannot be hashed."""

    means: Any

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(2, name="dense")(images - self.means)


def test_a_module_may_hold_an_array():
    shapes = abstract_variables(Scaled(np.zeros(3)), side=8)
    assert shapes["params"]["dense"]["kernel"].shape == (3, 2)


class Mixed(nn.Module):
    """Layers that this package does not use itself, between two that it does; leaf names that mislead on purpose."""

    @nn.compact
    def __call__(self, images, train=False):
        x = ConvNormAct(4, 3, stride=2, name="ours")(images, train)
        x = nn.Conv(6, (2, 2), (2, 2), bias_init=nn.initializers.constant(-4.6), name="focal")(x)
        x = nn.LayerNorm(scale_init=nn.initializers.constant(0.1), name="norm")(x)
        x = x + self.param("bias", nn.initializers.normal(0.02), (1, 1, 1, 6))
        x = nn.Dense(5, name="dense")(x)
        self.variable("batch_stats", "mean", lambda: jax.random.uniform(self.make_rng("params"), (7,)))
        return nn.BatchNorm(use_running_average=not train, name="flax")(x)


@pytest.mark.parametrize("seed", [0, 5])
def test_any_flax_module_is_drawn_by_its_own_initializers(seed):
    model = Mixed()
    drawn, initialized = initial_variables(model, seed, side=8), init(model, seed, side=8)
    assert jax.tree.structure(drawn) == jax.tree.structure(initialized)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(drawn), jax.tree.leaves(initialized), strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype, path
        if path[1].key != "ours":
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=str(path))
    assert (drawn["params"]["focal"]["bias"] == np.float32(-4.6)).all()
    assert_trees_equal(drawn, initial_variables(model, seed, side=8))
    one, two = (initial_variables(model, s, side=8)["params"]["dense"]["kernel"] for s in (seed, seed + 1))
    assert (one != two).all()


def test_no_layer_is_computed_to_draw_variables(monkeypatch):
    """The one program that draws them holds random numbers, and no product of a layer, once compiled."""
    programs = []
    jit = jax.jit

    def spy(function, *args, **kwargs):
        jitted = jit(function, *args, **kwargs)

        def run(*arguments):
            programs.append(jitted.lower(*arguments).compile().as_text())
            return jitted(*arguments)

        return run

    monkeypatch.setattr("pyrseg_jax.models.initial.jax.jit", spy)
    initial_variables(Mixed(), 0, side=8)
    assert len(programs) == 1
    assert "rng" in programs[0] or "threefry" in programs[0] or "xor" in programs[0]
    assert "convolution(" not in programs[0] and "dot(" not in programs[0]
