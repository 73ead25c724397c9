"""The networks in the style of SVCNet and ACNet: their parts against slow twins and laws, and which maps they read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.parity import far

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts.acnet import AdaptiveContext, global_demand
from pyrseg_jax.models.contexts.svcnet import (
    REGION,
    Doubled,
    SVCNet,
    gaussian_init,
    pair_signs,
    paired_init,
    sum_shape,
)
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.segmenter import build_segmenter

torch = pytest.importorskip("torch")
CLASSES, WIDTH = 3, 8


def slow_sum(x, gates):
    """Position by position and neighbor by neighbor."""
    n, height, width, _ = x.shape
    found, middle = np.zeros_like(x), REGION // 2
    for i, j, row, column in np.ndindex(height, width, REGION, REGION):
        at = i + row - middle, j + column - middle
        if 0 <= at[0] < height and 0 <= at[1] < width:
            found[:, i, j] += gates[:, i, j, row * REGION + column, None] * x[:, *at]
    return found


def test_shape_variant_sum():
    rng = np.random.default_rng(0)
    x, gates = jnp.asarray(rng.normal(size=(2, 4, 7, 3))), jnp.asarray(rng.uniform(size=(2, 4, 7, REGION**2)))
    weights = rng.normal(size=x.shape).astype(np.float32)
    found, back = jax.vjp(jax.jit(sum_shape), x, gates)
    np.testing.assert_allclose(found, slow_sum(np.asarray(x), np.asarray(gates)), rtol=1e-5, atol=1e-5)
    # It is linear in each argument, so that its gradients answer with the same number.
    by_map, by_gates = back(jnp.asarray(weights))
    total = float((weights * found).sum())
    assert float((by_map * x).sum()) == pytest.approx(total, rel=1e-4)
    assert float((by_gates * gates).sum()) == pytest.approx(total, rel=1e-4)
    nudge = rng.normal(size=gates.shape)
    expected = (weights * slow_sum(np.asarray(x, np.float64), nudge)).sum()
    assert float((by_gates * nudge).sum()) == pytest.approx(expected, rel=1e-4)


def test_no_tensor_holds_the_region_of_every_position():
    """Neither forward nor backward: 121 products for each of 32 × 32 positions and 16 channels would be the largest by far."""
    x, gates = jnp.zeros((1, 32, 32, 16)), jnp.zeros((1, 32, 32, REGION**2))
    program = jax.jit(jax.grad(lambda x, g: (sum_shape(x, g) ** 2).sum(), (0, 1))).lower(x, gates).compile()
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes < 4 * (x.nbytes + gates.nbytes) < x.nbytes * REGION**2


def test_doubling_is_a_transposed_convolution_that_starts_bilinear():
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32), rng.normal(size=(4, 4, 4)).astype(np.float32)
    expected = torch.nn.functional.conv_transpose2d(
        torch.tensor(np.array(x).transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(2, 0, 1)[:, None].copy()),
        stride=2,
        padding=1,
        groups=4,
    )
    layer = Doubled()
    assert far(layer.apply({"params": {"kernel": kernel}}, x), expected.permute(0, 2, 3, 1)) < 1e-6
    found = layer.apply(layer.init(jax.random.key(0), x), x)
    inside = jax.image.resize(jnp.asarray(x), (2, 6, 10, 4), "bilinear")[:, 1:-1, 1:-1]
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], inside, rtol=1e-5, atol=1e-6)


def test_kernels_at_first():
    """Constant maps have no contrast. Each offset compares its window with the central one, and the central one with itself."""
    kernel = gaussian_init(jax.random.key(0), (REGION, REGION, 1, 2))
    np.testing.assert_allclose(kernel.sum((0, 1)), 0, atol=1e-6)
    assert kernel[5, 5, 0, 0] == kernel.max() and kernel[0, 0, 0, 1] == kernel.min()
    signs = pair_signs()
    assert not signs.sum((0, 1)).any()
    assert not signs[..., REGION**2 // 2].any()
    first, last = signs[..., 0], signs[..., -1]
    np.testing.assert_array_equal(first, last[::-1, ::-1])
    assert (first[:3, :3] == -1).all() and (first[5:8, 5:8] == 1).all() and np.abs(first).sum() == 18
    beside = signs[..., REGION**2 // 2 + 1]  # a column to the right: the windows overlap in two columns
    assert (beside[5:8, 5] == 1).all() and not beside[5:8, 6:8].any() and (beside[5:8, 8] == -1).all()
    drawn = paired_init(jax.random.key(0), (13, 13, 6, REGION**2))
    np.testing.assert_array_equal(np.sign(drawn), np.broadcast_to(signs[:, :, None], drawn.shape))


def norm(x, variables, *path, active=False):
    params, stats = variables["params"], variables["batch_stats"]
    for name in path:
        params, stats = params[name], stats[name]
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    return np.maximum(y, 0) if active else y


def conv(x, kernel, groups=1):
    """Cross-correlation with zeros beyond the edges, by PyTorch."""
    return (
        torch.nn.functional.conv2d(
            torch.tensor(x.transpose(0, 3, 1, 2)),
            torch.tensor(np.asarray(kernel, x.dtype).transpose(3, 2, 0, 1)),
            padding=len(kernel) // 2,
            groups=groups,
        )
        .numpy()
        .transpose(0, 2, 3, 1)
    )


def draw_all(module, *inputs):
    rng = np.random.default_rng(1)
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))

    def fill(path, leaf):
        low = 0.5 if path[-1].key == "var" else -0.5
        return rng.uniform(low, low + 1, leaf.shape)

    return jax.tree_util.tree_map_with_path(fill, abstract)


def test_svcnet():
    """The whole module by its formulas, in double precision: on a network of one block per stage."""
    rng = np.random.default_rng(0)
    sizes = (8, 4, 2, 1)
    stages = [np.maximum(rng.normal(size=(2, 2 * s, 3 * s, 4)), 0) for s in sizes]
    features = Features(tuple(jnp.asarray(x, jnp.float32) for x in stages), jnp.zeros((2, 1, 1, 1)))
    module = SVCNet(CLASSES, WIDTH)
    v = draw_all(module, features, None, False)
    assert v["params"]["hidden_1_0"]["conv"]["kernel"].shape[-1] == WIDTH // 2
    features_of = jax.jit(lambda v, f: module.apply(v, f, None, False)[:2])
    found, logits = features_of(v, features)
    p = v["params"]

    def score(x, name):
        hidden = norm(x @ p[f"hidden_{name}"]["conv"]["kernel"][0, 0], v, f"hidden_{name}", "bn", active=True)
        return hidden @ p[f"score_{name}"]["kernel"][0, 0] + p[f"score_{name}"]["bias"]

    x = norm(stages[3] @ p["reduce"]["conv"]["kernel"][0, 0], v, "reduce", "bn", active=True)
    unlike = np.maximum(conv(norm(x, v, "contrast_bn"), p["contrast"]["kernel"], groups=WIDTH), 0)
    gates = np.exp(-((0.5 * conv(norm(unlike, v, "compare_bn"), p["compare"]["kernel"])) ** 2))
    assert 0 < gates.min() < 0.8 < gates.max() <= 1
    maps = (x, slow_sum(x, gates), unlike, stages[3])
    scores = sum(score(y, f"4_{i}") for i, y in enumerate(maps))
    for stage in (3, 2, 1):
        doubled = Doubled().apply({"params": p[f"double_{stage + 1}"]}, jnp.asarray(scores))
        scores = np.asarray(doubled) + score(stages[stage - 1], f"{stage}_0")
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-4 * np.abs(scores).max())
    assert logits.shape == (2, 32, 48, CLASSES)


@pytest.mark.parametrize(("backbone", "count"), [("resnet50", 6), ("resnet101", 12), ("hrnet_w18", 1)])
def test_svcnet_reads_every_second_block_of_long_stages(backbone, count):
    options = {"output_stride": 32} if backbone.startswith("resnet") else {}
    model = build_segmenter(CLASSES, backbone=backbone, context="svcnet", representation="per_pixel", **options)
    names = abstract_variables(model)["params"]["context"]["context"]
    assert sum(name.startswith("score_3") for name in names) == count
    blocks = {"resnet50": (6, 6, 4, 1), "resnet101": (6, 12, 4, 1), "hrnet_w18": (4, 1, 1, 1)}[backbone]
    assert [sum(name.startswith(f"score_{stage}") for name in names) for stage in (4, 3, 2, 1)] == list(blocks)
    assert [name in names for name in ("double_4", "double_3", "double_2", "double_1")] == [True] * 4


def test_blocks_of_a_resnet():
    model = build_segmenter(CLASSES, backbone="resnet_tiny").backbone
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    variables = initial_variables(model, 0)
    features = jax.jit(model.apply)(variables, images)
    assert [len(row) for row in features.blocks] == [1, 2, 2, 3]
    for row, stage in zip(features.blocks, features.stages, strict=True):
        np.testing.assert_array_equal(row[-1], stage)
        assert all(x.shape == stage.shape for x in row)


def test_svcnet_starts_with_even_odds():
    model = build_segmenter(CLASSES, backbone="resnet_tiny", context="svcnet", representation="per_pixel")
    params = initial_variables(model, 0)["params"]["context"]["context"]
    scores = {name: layer for name, layer in params.items() if name.startswith("score_")}
    assert scores and not any(np.any(array) for array in jax.tree.leaves(scores))


def test_demands_for_global_and_local_context():
    """The position nearest to the global feature takes all of it, the farthest takes 1/e, and the order is that of the distance."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    mean = x.mean((1, 2), keepdims=True)
    demand = np.asarray(global_demand(x, mean)).reshape(2, -1)
    distance = np.linalg.norm(np.asarray(x - mean), axis=-1).reshape(2, -1)
    for d, g in zip(distance, demand, strict=True):
        assert g[d.argmin()] == 1 and g[d.argmax()] == pytest.approx(np.exp(-1))
        np.testing.assert_allclose(g, np.exp(-(d - d.min()) / (d.max() - d.min())), rtol=1e-4)
    same = jnp.ones((1, 2, 2, 3))
    assert (global_demand(same, same[:, :1, :1]) == 1).all()
    gradient = jax.grad(lambda x: global_demand(x, x.mean((1, 2), keepdims=True)).sum())(same)
    assert np.isfinite(gradient).all()


def test_adaptive_context():
    """By its formulas. With equal global and local parts, the demands, which sum to 1, do not matter."""
    rng = np.random.default_rng(0)
    x, finer = rng.normal(size=(2, 3, 4, WIDTH)), rng.normal(size=(2, 6, 8, 5))
    module = AdaptiveContext(WIDTH)
    inputs = jnp.asarray(x, jnp.float32), jnp.asarray(finer, jnp.float32), False
    v = draw_all(module, *inputs)
    p = v["params"]
    large = np.asarray(jax.image.resize(inputs[0], (2, 6, 8, WIDTH), "bilinear"), np.float64)
    mean = large.mean((1, 2), keepdims=True)
    demand = np.asarray(global_demand(jnp.asarray(large), jnp.asarray(mean)), np.float64)
    detail = norm(finer @ p["detail"]["conv"]["kernel"][0, 0], v, "detail", "bn", active=True)
    local = norm(conv(np.concatenate((large, detail), -1), p["local"]["conv"]["kernel"]), v, "local", "bn", active=True)
    shared = np.maximum(mean @ p["global"]["kernel"][0, 0] + p["global"]["bias"], 0)
    joined = large + demand * shared + (1 - demand) * local
    expected = norm(conv(joined, p["out"]["conv"]["kernel"]), v, "out", "bn", active=True)
    found = jax.jit(lambda v, x, y: module.apply(v, x, y, False))(v, *inputs[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.mark.parametrize("context", ["acnet", "svcnet"])
@pytest.mark.parametrize("backbone", ["resnet_tiny", "hrnet_tiny"])
def test_any_size_and_number_format(context, backbone):
    """For images whose sides are multiples of the coarsest stride only, on a dilated ResNet and an HRNet."""
    options = {"backbone": backbone, "context": context, "strides": (8, 4), "dtype": "bfloat16"}
    model = build_segmenter(CLASSES, representation="per_pixel", semantic_width=WIDTH, **options)
    assert model.strides == (8, 4, 2)
    abstract = abstract_variables(model)
    images = jax.ShapeDtypeStruct((1, 40, 56, 3), jnp.float32)
    found = jax.eval_shape(lambda v, x: model.apply(v, x, False), abstract, images)
    assert found.semantic[-1].shape == (1, 20, 28, CLASSES) and found.semantic[-1].dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in flatten_dict(abstract).values())
