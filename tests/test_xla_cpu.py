"""The work-arounds for XLA's CPU compiler against their plain twins, with gradients."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pyrseg_jax.models import xla_cpu, xla_cpu_convolution
from pyrseg_jax.models.layers import conv
from pyrseg_jax.models.token_layers import DepthwiseConv, token_init
from pyrseg_jax.models.xla_cpu_depthwise import TINY_MAP, convolve_depthwise


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, kernel.shape[:2], "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def resample(x, rows, columns):
    return jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns, precision="highest")


def sums(x, y):
    return x.sum((0, 1, 2)), y.sum((0, 1, 2))


CASES = {
    "1×1 convolution": (xla_cpu.convolve_as_matrix_product, convolve, (2, 4, 6, 5), (1, 1, 5, 3)),
    "2×2 cells": (xla_cpu.convolve_as_matrix_product, convolve, (2, 4, 6, 5), (2, 2, 5, 3)),
    "resample": (xla_cpu.resample_separably, resample, (2, 4, 6, 5), (7, 4), (3, 6)),
    "sums": (xla_cpu.channel_sums, sums, (2, 4, 6, 5), (2, 4, 6, 5)),
    "cells beyond the last whole one": (xla_cpu.convolve_as_matrix_product, convolve, (2, 5, 7, 5), (2, 2, 5, 3)),
    "rows of a map": (xla_cpu.multiply_rows, jnp.matmul, (2, 4, 6, 5), (5, 3)),
    "rows of tokens": (xla_cpu.multiply_rows, jnp.matmul, (3, 4, 5), (5, 7)),
    "one row": (xla_cpu.multiply_rows, jnp.matmul, (5,), (5, 7)),
    "gelu": (xla_cpu.gelu, functools.partial(jax.nn.gelu, approximate=False), (2, 4, 6, 5)),
    "one image": (lambda x: xla_cpu.one_image_at_a_time(jnp.sin, x), jnp.sin, (3, 4, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_work_around_equals_its_twin(rng, name):
    ours, plain, *shapes = CASES[name]
    arguments = [normal(rng, *shape) for shape in shapes]
    (found, pull), (expected, pull_plain) = (jax.vjp(jax.jit(f), *arguments) for f in (ours, plain))
    weights = jax.tree.map(lambda x: normal(rng, *x.shape), expected)
    for a, b in zip(
        jax.tree.leaves((found, pull(weights))), jax.tree.leaves((expected, pull_plain(weights))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_gaussian_error_unit_is_exact_everywhere(dtype):
    """Near the largest negative numbers, where the result is nearly 0, it may be some 1e-6 away, as PyTorch's formula is."""
    x = jnp.linspace(-12, 12, 4001).astype(dtype)
    found, slope = jax.jit(xla_cpu.gelu)(x), jax.jit(jax.vmap(jax.grad(xla_cpu.gelu)))(x)
    assert found.dtype == slope.dtype == dtype
    exact = np.asarray(x, np.float64)
    share = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in exact])
    density = np.exp(-(exact**2) / 2) / math.sqrt(2 * math.pi)
    digit = float(jnp.finfo(dtype).eps)
    for a, b in ((found, exact * share), (slope, share + exact * density)):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=digit, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "sides", "strides", "padding", "dilation", "dtype"),
    [
        ((2, 17, 13, 41), (7, 7), (1, 1), ((3, 3), (3, 3)), 1, jnp.float32),
        ((1, 10, 20, 90), (7, 7), (1, 1), ((3, 3), (3, 3)), 1, jnp.bfloat16),
        ((1, 6, 24, 150), (3, 3), (1, 1), ((1, 1), (1, 1)), 1, jnp.float32),
        ((2, 3, 4, 700), (5, 5), (1, 1), ((2, 2), (2, 2)), 1, jnp.float32),
        ((2, 9, 11, 90), (5, 7), (1, 1), ((1, 3), (2, 0)), 1, jnp.float32),
        ((2, 14, 13, 50), (3, 3), (2, 2), ((1, 1), (2, 0)), 1, jnp.float32),
        ((2, 15, 14, 50), (5, 3), (2, 1), ((2, 2), (1, 1)), 1, jnp.bfloat16),
        ((2, 12, 11, 70), (3, 3), (1, 1), ((4, 4), (4, 4)), 4, jnp.float32),
        ((2, 12, 11, 70), (3, 3), (1, 1), ((12, 12), (12, 12)), 12, jnp.float32),
        ((2, 12, 11, 70), (1, 3), (1, 2), ((0, 0), (3, 3)), 2, jnp.float32),
        ((2, 4, 6, 5), (7, 7), (1, 1), ((3, 3), (3, 3)), 1, jnp.bfloat16),
    ],
)
def test_a_depthwise_convolution_equals_its_twin(rng, shape, sides, strides, padding, dilation, dtype):
    """Also in half precision, where both are summed in float32; the last map is so small that both are the same program."""

    def plain(x, kernel, *bias):
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
        return y + bias[0] if bias else y

    @jax.jit
    def ours(x, kernel, *bias):
        given = bias[0] if bias else None
        return convolve_depthwise(x, kernel, strides, padding, rhs_dilation=(dilation, dilation), bias=given)

    has_bias = strides == (1, 1) and math.prod(shape) > TINY_MAP
    shapes = [shape, (*sides, 1, shape[-1])] + [shape[-1:]] * has_bias
    inputs = [normal(rng, *each).astype(dtype) for each in shapes]
    found, pull = jax.vjp(ours, *inputs)
    expected, pull_plain = jax.vjp(plain, *(a.astype(jnp.float32) for a in inputs))
    weights = normal(rng, *found.shape).astype(dtype)
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-8
    for a, b in zip((found, *pull(weights)), (expected, *pull_plain(weights.astype(jnp.float32))), strict=True):
        assert a.dtype == dtype
        assert np.abs(np.float32(a) - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding", "dilation", "dtype"),
    [
        ((2, 6, 7, 96), (3, 3, 96, 100), (1, 1), ((1, 1), (1, 1)), (1, 1), jnp.float32),
        ((1, 9, 8, 99), (3, 3, 99, 96), (2, 2), ((1, 1), (1, 1)), (1, 1), jnp.float32),
        ((2, 8, 9, 96), (3, 3, 96, 96), (1, 1), ((4, 4), (4, 4)), (4, 4), jnp.float32),
        ((2, 7, 6, 96), (1, 5, 96, 97), (1, 2), ((0, 0), (2, 2)), (1, 1), jnp.float32),
        ((1, 8, 9, 98), (5, 1, 98, 96), (3, 1), ((0, 3), (1, 0)), (2, 1), jnp.float32),
        ((1, 64, 65, 33), (3, 3, 33, 32), (1, 1), ((1, 1), (1, 1)), (1, 1), jnp.float32),
        ((1, 6, 7, 96), (3, 3, 96, 96), (1, 1), ((1, 1), (1, 1)), (1, 1), jnp.bfloat16),
        ((1, 6, 7, 5), (3, 3, 5, 4), (1, 1), ((1, 1), (1, 1)), (1, 1), jnp.float32),
    ],
)
def test_a_wide_convolution_equals_its_twin(rng, shape, kernel, strides, padding, dilation, dtype):
    """The last two are the same program as their twins."""

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, kernel):
        return xla_cpu_convolution.convolve(x, kernel, strides, padding, rhs_dilation=dilation)

    inputs = [normal(rng, *each).astype(dtype) for each in (shape, kernel)]
    (found, pull), (expected, pull_plain) = (jax.vjp(jax.jit(f), *inputs) for f in (ours, plain))
    weights = normal(rng, *found.shape).astype(dtype)
    for a, b in zip((found, *pull(weights)), (expected, *pull_plain(weights)), strict=True):
        assert a.dtype == dtype
        assert np.abs(np.float32(a) - np.float32(b)).max() <= 1e-5 * np.abs(np.float32(b)).max()


def test_the_gradient_of_a_wide_kernel_is_no_convolution():
    """It would be one with a kernel as large as the map, 11 × 13 positions. Every block of a network relies on this."""
    layer = conv(96, 3, dtype=jnp.float32)
    x = jax.ShapeDtypeStruct((2, 11, 13, 96), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda variables, x: layer.apply(variables, x).sum()))
    assert "11x13" not in gradient.lower(variables, x).compile().as_text()


@pytest.mark.parametrize("side", [3, 7])
def test_the_layer_has_the_variables_and_the_results_of_flax(rng, side):
    plain = nn.Conv(40, (side, side), padding=side // 2, feature_group_count=40, kernel_init=token_init)
    ours, x = DepthwiseConv(side, token_init), normal(rng, 2, 12, 20, 40)
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, jax.eval_shape(plain.init, jax.random.key(0), x)
    )
    variables["params"]["bias"] += normal(rng, 40)
    np.testing.assert_allclose(ours.apply(variables, x), plain.apply(variables, x), atol=1e-6)


def test_a_depthwise_convolution_is_computed_once_for_all_that_reads_it(rng):
    """A layer normalization and its gradient read it seven times: as compiled, they may add few FLOPs."""
    layer, norm = DepthwiseConv(7, token_init), nn.LayerNorm(use_fast_variance=False)
    x = jax.ShapeDtypeStruct((2, 32, 32, 16), jnp.float32)
    variables = [jax.eval_shape(module.init, jax.random.key(0), x) for module in (layer, norm)]

    def flops(finish):
        run = jax.jit(jax.grad(lambda v, x: jnp.square(finish(layer.apply(v[0], x), v[1])).sum(), (0, 1)))
        return run.lower(variables, x).compile().cost_analysis()["flops"]

    assert flops(lambda y, v: norm.apply(v, y)) < 1.3 * flops(lambda y, v: y)


def test_the_gradient_of_a_matrix_needs_no_transposed_map():
    def loss(x, kernel):
        return jnp.square(xla_cpu.multiply_rows(x, kernel)).sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 16, 16, 8), (8, 24))]
    program = jax.jit(jax.grad(loss, 1)).lower(*shapes).compile().as_text()
    assert not re.search(r"= \S+ (transpose|copy)\(", program)


def test_relu_of_a_sum_is_relu_of_a_sum_with_its_gradient(rng):
    x, y = (jnp.asarray(rng.integers(-2, 3, 1000), jnp.float32) for _ in range(2))  # every fifth sum is 0 …
    y = y.at[500:].divide(3)  # … and others are rounded
    weights = jnp.asarray(rng.normal(size=1000), jnp.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        a, b = x.astype(dtype), y.astype(dtype)
        ours, pull = jax.vjp(xla_cpu.add_relu, a, b)
        plain, pull_plain = jax.vjp(lambda a, b: jax.nn.relu(a + b), a, b)
        np.testing.assert_array_equal(ours, plain)
        for found, expected in zip(pull(weights.astype(dtype)), pull_plain(weights.astype(dtype)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_residual_blocks_are_computed_once():
    """XLA must not compute the sums of all blocks before again for each fusion that reads one: as compiled, so many FLOPs."""

    def flops_per_block(count):
        def loss_of(kernels, x):
            for kernel in kernels:
                y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
                x = xla_cpu.add_relu(x, y * 2)
            return (x * x).sum()

        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 3, 2, 2), (2, 32, 32, 2))]
        run = jax.jit(jax.grad(loss_of)).lower([arguments[0]] * count, arguments[1]).compile()
        return run.cost_analysis()["flops"] / count

    assert flops_per_block(12) < 1.05 * flops_per_block(6)
