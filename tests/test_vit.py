"""Plain vision transformers: the laws of their layers, their neck, and files in every publisher's layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from support.published_vits import MICROS, variables_of
from support.runs import tiny_config
from support.training import make_batch, sgd

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.backbones import BACKBONES, Features
from pyrseg_jax.models.backbones.positions import bicubic_weights, fit_positions
from pyrseg_jax.models.backbones.rotary import rotary_tables, rotate
from pyrseg_jax.models.backbones.vit import DEPTHS, VIT, Block, vit_micro
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.necks import Enlarge, RescaleDepths
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step


def draw_images(height, width, n=1, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, height, width, 3)), jnp.float32)


@functools.cache
def plain(name, height, width):
    model = MICROS[name]()
    return jax.device_get(jax.jit(model.apply)(variables_of(name), draw_images(height, width)).stages)


def far(found, expected):
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))


# Positions


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_bicubic_weights_sum_to_1_and_do_not_know_left_from_right(size, new_size, antialias):
    weights = bicubic_weights(size, new_size, antialias)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-9)


@pytest.mark.parametrize("antialias", [False, True])
def test_bicubic_weights_of_the_same_size_change_nothing(antialias):
    np.testing.assert_allclose(bicubic_weights(7, 7, antialias), np.eye(7), atol=1e-12)


def test_a_column_of_positions_stays_a_column():
    """Rows and columns are not exchanged: what depends on the column alone does so on another grid."""
    positions = jnp.broadcast_to(jnp.arange(4.0)[None, :, None], (4, 4, 1))
    found = np.asarray(fit_positions(positions, (2, 6), False))[..., 0]
    assert found.shape == (2, 6)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert (np.diff(found[0]) > 0).all()


def test_rotation_keeps_norms_and_leaves_other_tokens_alone():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2 + 12, 3, 8)), jnp.float32)
    turned = rotate(x, rotary_tables((3, 4), 2, 8))
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, :2], x[:, :2])
    assert np.abs(turned[:, 2:] - x[:, 2:]).max() > 0.1


def test_products_of_turned_tokens_depend_on_their_distance_alone():
    h, w, width = 4, 5, 8
    query, key = np.random.default_rng(1).normal(size=(2, 1, 1, 1, width)).astype(np.float32)
    tables = rotary_tables((h, w), 0, width)
    query, key = (np.asarray(rotate(jnp.tile(x, (1, h * w, 1, 1)), tables))[0, :, 0] for x in (query, key))
    products = (query @ key.T).reshape(h, w, h, w)
    np.testing.assert_allclose(products[1:, 1:, 1:, 1:], products[:-1, :-1, :-1, :-1], atol=1e-5)
    assert np.abs(products[0, 1, 0, 0] - products[1, 0, 0, 0]) > 0.01  # an axis is not mistaken for the other
    assert np.abs(products[0, 1, 0, 0] - products[0, 0, 0, 1]) > 0.01  # nor left for right


# The network


def test_without_positions_a_shift_by_a_patch_shifts_the_maps():
    model = vit_micro(patch=16)
    variables = flatten_dict(variables_of("vit_micro"))
    variables[("params", "positions")] = np.zeros((4, 4, 16), np.float32)
    variables[("params", "patch_embed", "kernel")] = np.random.default_rng(0).normal(0, 0.05, (16, 16, 3, 16))
    apply = jax.jit(functools.partial(model.apply, unflatten_dict(variables)))
    images = draw_images(64, 96)
    shifted = apply(jnp.roll(images, (16, 32), (1, 2))).stages
    assert far([np.roll(x, (-1, -2), (1, 2)) for x in shifted], apply(images).stages) < 1e-5


@pytest.mark.parametrize("name", MICROS)
def test_positions_matter(name):
    """The maps of a rolled image are not the rolled maps."""
    images = draw_images(32, 64)
    rolled = MICROS[name]().apply(variables_of(name), jnp.roll(images, 32, 2)).stages
    assert far([np.roll(x, 2, 2) for x in rolled], plain(name, 32, 64)) > 0.01


@pytest.mark.parametrize("name", MICROS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_any_size_gives_four_maps_at_the_stride_of_the_patches(name, height, width):
    stages = plain(name, height, width)
    assert [x.shape for x in stages] == [(1, height // 16, width // 16, 16)] * 4
    assert all(np.isfinite(x).all() for x in stages)


def test_a_side_that_is_no_multiple_of_the_patch_is_an_error():
    with pytest.raises(ValueError, match=r"images of 64 × 40 px: expected multiples of 16 px"):
        abstract = jax.eval_shape(
            vit_micro().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 40, 3), jnp.float32)
        )
        assert abstract


@pytest.mark.parametrize("name", MICROS)
def test_bfloat16_is_near_float32(name):
    stages = jax.jit(MICROS[name](dtype=jnp.bfloat16).apply)(variables_of(name), draw_images(32, 64)).stages
    assert all(x.dtype == jnp.bfloat16 for x in stages)
    exact = plain(name, 32, 64)
    assert far([np.asarray(x, np.float32) for x in stages], exact) < 0.1
    errors = [
        np.abs(np.asarray(x, np.float32) - y).mean() / np.abs(y).mean() for x, y in zip(stages, exact, strict=True)
    ]
    assert max(errors) < 0.03


@functools.cache
def gradient(name, remat):
    model, images = MICROS[name](remat=remat, drop_path=0.5), draw_images(32, 64, n=3)

    def loss(params):
        stages = model.apply({"params": params}, images, True, rngs={"dropout": jax.random.key(1)}).stages
        return sum((x * jnp.cos(jnp.arange(x.size).reshape(x.shape))).sum() for x in stages)

    return jax.device_get(jax.jit(jax.grad(loss))(variables_of(name)["params"]))


@pytest.mark.parametrize("remat", ["light", pytest.param("full", marks=pytest.mark.slow)])
def test_rematerialization_changes_no_gradient(remat):
    found, expected = (jax.tree.leaves(gradient("dinov3_micro", kind)) for kind in (remat, "off"))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_every_parameter_but_those_of_dropped_branches_has_a_gradient():
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient("dinov3_micro", "off")))


def test_drop_path_leaves_a_branch_out_or_enlarges_it():
    block = Block(num_heads=2)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    variables = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(np.float32), block.init(jax.random.key(0), x, False)
    )
    of_none, of_zeros, of_ones = (
        block.apply(variables, x, True, factors) for factors in (None, jnp.zeros((2, 3)), jnp.ones((2, 3)))
    )
    np.testing.assert_array_equal(of_zeros, x)
    np.testing.assert_allclose(of_ones, of_none, rtol=1e-5, atol=1e-5)
    mixed = block.apply(variables, x, True, jnp.array([[0.0, 2, 1], [0, 0, 1]]))
    np.testing.assert_array_equal(mixed[0], x[0])
    np.testing.assert_allclose(mixed[2], of_none[2], rtol=1e-5, atol=1e-5)
    attention = block.apply(variables, x, True, jnp.array([[1.0, 1, 1], [0, 0, 0]]))
    np.testing.assert_allclose(mixed[1] - x[1], 2 * (attention[1] - x[1]), rtol=1e-4, atol=1e-4)


def test_training_differs_from_inference_by_drop_path_alone_and_follows_the_key():
    images, variables = draw_images(32, 64, n=2), variables_of("vit_micro")

    @functools.partial(jax.jit, static_argnums=0)
    def train(rate, key):
        return vit_micro(drop_path=rate).apply(variables, images, True, rngs={"dropout": key}).final

    keys = [jax.random.key(i) for i in (0, 0, 1)]
    first, again, other = (np.asarray(train(0.5, key)) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    without = jax.jit(vit_micro().apply)(variables, images).final
    np.testing.assert_allclose(train(0.0, keys[0]), without, rtol=1e-5, atol=1e-5)


# Specs and neck


@pytest.mark.parametrize("name", ["dinov2_s", "dinov3_l", *MICROS])
def test_depths_grow_from_the_patches_to_the_last_normalization(name):
    spec = BACKBONES[name]
    paths = [path[1:] for path in flatten_dict(abstract_variables(spec.make()))]
    depths = {path: spec.depth_of(path) for path in paths}
    num_blocks = len({path[0] for path in paths if path[0].startswith("block_")})
    assert set(depths.values()) == set(range(num_blocks + 2))
    for path, depth in depths.items():
        expected = int(path[0].removeprefix("block_")) + 1 if path[0].startswith("block_") else None
        assert depth == (num_blocks + 1 if path[0] == "norm" else 0) if expected is None else depth == expected


@pytest.mark.parametrize("name", VIT)
def test_maps_are_taken_at_four_depths_of_which_the_last_block_is_one(name):
    model = BACKBONES[name].make()
    assert len(model.depths) == 4 and model.depths[-1] == model.num_blocks - 1
    assert "micro" in name or model.depths == DEPTHS[model.num_blocks]


def test_an_enlargement_is_a_transposed_convolution():
    x = draw_images(2, 3, n=2)
    model = Enlarge(width=4)
    variables = model.init(jax.random.key(0), x)
    kernel = variables["params"]["squares"]["kernel"].reshape(3, 2, 2, 4).transpose(1, 2, 0, 3)
    # JAX turns the kernel around only where it transposes it.
    kernel = kernel[::-1, ::-1]
    expected = jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_the_neck_makes_four_strides_of_one():
    maps = tuple(jnp.full((1, 2, 4, 8), float(i)) for i in range(4))
    model = RescaleDepths()
    features = Features(maps, maps[-1])
    found, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, False), features)
    assert [x.shape for x in found.stages] == [(1, 8, 16, 2), (1, 4, 8, 4), (1, 2, 4, 8), (1, 1, 2, 8)]
    assert found.final.shape == (1, 8, 16, 512)
    assert "merge" in variables["params"] and not any(name.startswith("project") for name in variables["params"])


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("vit_micro", {"context": "none"}),
        ("dinov3_micro", {"context": "upernet", "representation": "per_pixel"}),
        pytest.param("dinov3_micro", {"context": "coarse_to_fine"}, marks=pytest.mark.slow),
        pytest.param("vit_micro", {"context": "upernet", "representation": "per_pixel"}, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_training(name, choices):
    config = tiny_config(backbone=name, **choices)
    model, optimizer = experiment.make_model(config, 3), sgd()
    variables = initial_variables(model, 0)
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh)
    after, metrics = step(initial_state(variables, optimizer), jax.tree.map(jnp.asarray, make_batch(n=2)))
    assert np.isfinite(metrics["loss"])
    before = variables["params"]["backbone"]["patch_embed"]["kernel"]
    assert not np.array_equal(after.params["backbone"]["patch_embed"]["kernel"], before)


def test_strides_of_a_pyramid_on_a_vit():
    model = build_segmenter(3, backbone="vit_micro", semantic_width=16, key_width=8, unity_width=8)
    pyramids = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 64, 96, 3)))
    assert [x.shape for x in pyramids.semantic] == [(1, 2, 3, 3), (1, 4, 6, 3), (1, 8, 12, 3), (1, 16, 24, 3)]
