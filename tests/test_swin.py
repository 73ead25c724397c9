"""Swin Transformers: laws of their windows, any image size, training, and files of published weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st
from support.methods import check_step
from support.runs import tiny_config
from support.training import make_batch

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.swin import SWIN, SwinBlock, SwinTransformer, WindowAttention
from pyrseg_jax.models.backbones.swin_windows import (
    from_windows,
    hidden_pairs,
    plan_windows,
    relative_index,
    to_windows,
)
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.token_layers import draw_factors, drop_path_rates
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.relative_positions import TABLE, fit_tables
from pyrseg_jax.models.weights.swin_layout import SWIN_IMPORTERS
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

SIDES = st.integers(1, 24)
WINDOWS = st.integers(2, 7)
# One stage of two blocks: what compiles fast.
ONE_STAGE = {"width": 8, "num_blocks": (2,), "num_heads": (2,), "window": 3}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_parameter_counts():
    """Those of the published networks, without the last normalization and the classifier."""
    assert num_parameters(abstract_variables(BACKBONES["swin_t"].make())) == 28_288_354 - 1_536 - 769_000


# The windows.


def cut_slowly(x: np.ndarray, side: int) -> np.ndarray:
    """Return the positions of each window of a map (h, w, …), one after the other."""
    corners = [(i, j) for i in range(0, len(x), side) for j in range(0, x.shape[1], side)]
    return np.stack([x[i : i + side, j : j + side].reshape(side * side, *x.shape[2:]) for i, j in corners])


@given(SIDES, SIDES, WINDOWS, st.booleans())
def test_positions_see_each_other_if_they_are_near(height, width, window, is_shifted):
    """Two positions of a window see each other exactly if less than a window lies between them in the padded map."""
    plan = plan_windows(height, width, window, is_shifted, splits_single=False)
    padded = (-(-height // window) * window, -(-width // window) * window)
    at = np.stack(np.meshgrid(*map(np.arange, padded), indexing="ij"), -1)
    rolled = np.roll(at, (-plan.shift[0], -plan.shift[1]), (0, 1))
    cut = cut_slowly(rolled, window)
    is_near = (np.abs(cut[:, :, None] - cut[:, None]) < window).all(-1)
    np.testing.assert_array_equal(hidden_pairs(*plan[1:]), ~is_near)


@given(SIDES, SIDES, WINDOWS)
def test_regions_are_the_published_ones(height, width, window):
    """The published programs number nine regions of the rolled map; positions of different regions do not see each other."""
    plan = plan_windows(height, width, window, is_shifted=True, splits_single=True)
    padded = (-(-height // window) * window, -(-width // window) * window)
    regions, count = np.zeros(padded), 0
    borders = [slice(0, -window), slice(-window, -(window // 2)), slice(-(window // 2), None)]
    for rows in borders:
        for columns in borders:
            regions[rows, columns], count = count, count + 1
    cut = cut_slowly(regions, window)
    np.testing.assert_array_equal(hidden_pairs(*plan[1:]), cut[:, :, None] != cut[:, None])


@pytest.mark.parametrize(("sizes", "shift"), [((7, 7), (0, 0)), ((7, 8), (0, 3)), ((15, 3), (3, 0))])
def test_no_shift_along_an_axis_of_a_single_window(sizes, shift):
    assert plan_windows(*sizes, 7, True, splits_single=False).shift == shift
    assert plan_windows(*sizes, 7, True, splits_single=True).shift == (3, 3)
    assert plan_windows(*sizes, 7, False, splits_single=True).shift == (0, 0)


def test_relative_positions():
    """The table's rows follow the published order: rows below first, then columns to the right."""
    index = relative_index(3)
    assert index[0, 0] == index[8, 8] == 12
    assert index[8, 0] == 24  # two rows below and two columns to the right of its key
    assert index[0, 8] == 0
    assert index[1, 0] == 13
    assert index[3, 0] == 17
    assert np.unique(index).size == 25


def test_hidden_pairs_get_the_published_energy():
    plan = plan_windows(5, 7, 3, True, splits_single=False)
    assert 0 < hidden_pairs(*plan[1:]).mean() < 1
    np.testing.assert_array_equal(plan.energies(), np.where(hidden_pairs(*plan[1:]), -100, 0))


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 7), (2, 3, 2), (3, 1, 3)])
def test_windows_are_joined_as_they_were_cut(rows, columns, side):
    x = jnp.asarray(draw(2, rows * side, columns * side, 3))
    cut = to_windows(x, side)
    np.testing.assert_array_equal(cut[0], cut_slowly(np.asarray(x[0]), side))
    np.testing.assert_array_equal(from_windows(cut, x.shape[1:3]), x)


@functools.cache
def attention(is_shifted: bool):
    """Return attention in windows of 3 as a program, with random variables."""
    module = WindowAttention(2, 3, is_shifted)
    drawn = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 9, 6, 4)))
    variables = {"params": jax.tree.map(lambda leaf: jnp.asarray(draw(*leaf.shape)), drawn["params"])}
    return jax.jit(functools.partial(module.apply, variables))


def changed(is_shifted: bool, row: int, column: int) -> np.ndarray:
    """Return the positions of a map of 9 × 6 whose result changes with the features at one position."""
    x = draw(1, 9, 6, 4)
    y = x.copy()
    y[0, row, column] += 1
    return np.abs(attention(is_shifted)(x) - attention(is_shifted)(y))[0].max(-1) > 1e-6


def test_windows_do_not_mix_before_they_are_shifted():
    expected = np.zeros((9, 6), bool)
    expected[3:6, :3] = True
    np.testing.assert_array_equal(changed(False, 4, 2), expected)


def test_shifted_windows_join_neighbors_and_not_opposite_borders():
    """A shift of 1: rows 1 … 3, 4 … 6 and 7 … 8 are windows, and row 0 is alone; so are columns."""
    expected = np.zeros((9, 6), bool)
    expected[4:7, 1:4] = True
    np.testing.assert_array_equal(changed(True, 4, 2), expected)
    expected[:] = False
    expected[0, 4:] = True
    np.testing.assert_array_equal(changed(True, 0, 5), expected)
    expected[:] = False
    expected[0, 0] = True
    np.testing.assert_array_equal(changed(True, 0, 0), expected)


def test_a_map_moved_by_a_window_gives_the_result_moved_by_a_window():
    x = draw(1, 9, 6, 4)
    moved = np.roll(x, 3, axis=1)
    np.testing.assert_allclose(attention(False)(moved), np.roll(attention(False)(x), 3, axis=1), atol=1e-5)
    inside = slice(4, 7)  # the window that is not at a border before or after
    np.testing.assert_allclose(
        attention(True)(moved)[:, inside, 1:4], np.asarray(attention(True)(x))[:, 1:4, 1:4], atol=1e-5
    )


# The network.


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (5, 2), (4, 7)])
def test_any_multiple_of_32_px_is_a_size(rows, columns):
    model = BACKBONES["swin_micro"].make()
    images = jax.ShapeDtypeStruct((1, 32 * rows, 32 * columns, 3), jnp.float32)
    stages = jax.eval_shape(model.apply, micro_shapes(), images).stages
    assert [x.shape for x in stages] == [(1, 8 * rows >> i, 8 * columns >> i, 8 << i) for i in range(4)]


@functools.cache
def micro_shapes():
    return abstract_variables(BACKBONES["swin_micro"].make())


def test_odd_maps_are_padded():
    images = jax.ShapeDtypeStruct((1, 18, 44, 3), jnp.float32)  # maps of 5 × 11, 3 × 6, 2 × 3, 1 × 2
    stages = jax.eval_shape(BACKBONES["swin_micro"].make().apply, micro_shapes(), images).stages
    assert [x.shape[1:3] for x in stages] == [(5, 11), (3, 6), (2, 3), (1, 2)]


@functools.cache
def one_stage():
    """Return random variables of a network of one stage, and images."""
    variables = initial_variables(SwinTransformer(**ONE_STAGE), 0, side=32)
    # Larger than those of a training's start, so that every layer matters.
    return jax.tree.map(lambda x: x + draw(*x.shape) / 4, variables), jnp.asarray(draw(2, 40, 32, 3))


def run(model: SwinTransformer, train: bool = False, **options):
    """Return the last stage and the gradient of its weighted mean."""
    variables, images = one_stage()
    weights = draw(2, 10, 8, 8, seed=1)

    def loss(params):
        final = model.apply({"params": params}, images, train, **options).final
        return (weights * final).mean(), final

    (_, final), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return jax.device_get((final, gradient))


@functools.cache
def plain():
    return run(SwinTransformer(**ONE_STAGE))


def assert_near(found, expected, tolerance: float) -> None:
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def test_bfloat16_is_near_float32():
    final, gradient = run(SwinTransformer(**ONE_STAGE, dtype=jnp.bfloat16))
    assert final.dtype == jnp.bfloat16
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(gradient))
    assert_near(final.astype(np.float32), plain()[0], 0.03)
    assert_near(gradient, plain()[1], 0.1)


@pytest.mark.parametrize("remat", ["light", pytest.param("full", marks=pytest.mark.slow)])
def test_rematerialization_changes_nothing(remat):
    assert_near(run(SwinTransformer(**ONE_STAGE, remat=remat)), plain(), 1e-5)


def test_training_differs_by_drop_path_alone():
    key = {"rngs": {"dropout": jax.random.key(0)}}
    never = run(SwinTransformer(**ONE_STAGE, drop_path=0.0), train=True, **key)
    assert_near(never, plain(), 1e-6)
    often = run(SwinTransformer(**ONE_STAGE, drop_path=0.9), train=True, **key)
    assert np.abs(often[0] - plain()[0]).max() > 0.1


def test_a_block_without_its_branches_is_the_identity():
    block, x = SwinBlock(2, 3, True), jnp.asarray(draw(3, 6, 6, 4))
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, True))
    variables = jax.tree.map(lambda leaf: jnp.asarray(draw(*leaf.shape)), shapes)
    apply = jax.jit(lambda factors: block.apply(variables, x, True, factors))
    whole = np.asarray(apply(jnp.ones((2, 3))))
    mixed = np.asarray(apply(jnp.asarray([[0.0, 1, 1], [0, 1, 0]])))
    np.testing.assert_array_equal(mixed[0], x[0])
    np.testing.assert_array_equal(mixed[1], whole[1])
    assert np.abs(mixed[2] - whole[2]).max() > 0.1
    assert np.abs(mixed[2] - x[2]).max() > 0.1


def test_factors_of_drop_path_have_a_mean_of_one():
    """Their expectation is 1, so that evaluation adds what training adds on average; rates rise from the first block."""

    class Draw(nn.Module):
        @nn.compact
        def __call__(self):
            return draw_factors(self, drop_path_rates(0.5, 3), 20_000, True, branches=2)

    factors = np.asarray(Draw().apply({}, rngs={"dropout": jax.random.key(1)}))
    assert factors.shape == (3, 2, 20_000)
    np.testing.assert_allclose(factors.mean(-1), 1, atol=0.03)
    np.testing.assert_allclose((factors == 0).mean(-1), [[0, 0], [0.25, 0.25], [0.5, 0.5]], atol=0.02)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match=rf"drop_path={rate}: expected a share from 0 to less than 1"):
        build_segmenter(3, backbone="swin_micro", drop_path=rate)


# Training.


@pytest.mark.parametrize("name", ["swin_t", "swin_micro"])
def test_depths_rise_from_the_images_to_the_last_block(name):
    spec = BACKBONES[name]
    paths = [path[1:] for path in flatten_dict(abstract_variables(spec.make()))]
    num_blocks = spec.depth_of.keywords["num_blocks"]
    depths = {path[0]: spec.depth_of(path) for path in paths}
    blocks = [f"stage{s}_block_{k}" for s, count in enumerate(num_blocks, 1) for k in range(count)]
    assert [depths.pop(block) for block in blocks] == list(range(1, sum(num_blocks) + 1))
    before = np.cumsum(num_blocks)
    assert depths == {"embed": 0, "embed_norm": 0} | {f"merge_{s}": before[s - 2] for s in (2, 3, 4)}


def test_a_step_of_training_changes_every_parameter():
    config = tiny_config(backbone="swin_micro", context="none")
    model, optimizer = experiment.make_model(config, 3), experiment.make_optimizer(config)
    state = initial_state(initial_variables(model, 0), optimizer)
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(data=1))
    before = jax.device_get(state.params)
    after, metrics = step(state, make_batch(n=2))
    assert np.isfinite(metrics["loss"])
    after = flatten_dict(jax.device_get(after.params))
    unchanged = [path for path, x in flatten_dict(before).items() if np.array_equal(x, after[path])]
    assert not unchanged


@pytest.mark.parametrize("representation", ["per_pixel", pytest.param("pyramid", marks=pytest.mark.slow)])
def test_a_step_fits_together_with_upernet(representation):
    config = tiny_config(backbone="swin_micro", context="upernet", representation=representation)
    model = experiment.make_model(config, 3)
    check_step(config, model, abstract_variables(model))


# Files.

# In the files of each publisher: a block, the joining of patches before stage 3, and the marker.
NAMES = {
    "Swin Transformer (authors or timm)": (
        "layers.2.blocks.1.attn.proj.bias",
        f"layers.2.blocks.1.attn.{TABLE}",
        "layers.2.downsample.reduction.weight",
        "norm2.bias",
    ),
    "Swin Transformer (open-mmlab)": (
        "stages.2.blocks.1.attn.w_msa.proj.bias",
        f"stages.2.blocks.1.attn.w_msa.{TABLE}",
        "stages.1.downsample.reduction.weight",
        "norm2.bias",
    ),
    "Swin Transformer (transformers)": (
        "encoder.layers.2.blocks.1.attention.output.dense.bias",
        f"encoder.layers.2.blocks.1.attention.self.{TABLE}",
        "encoder.layers.1.downsample.reduction.weight",
        "hidden_states_norms.stage3.bias",
    ),
    "Swin Transformer (torchvision)": (
        "features.5.1.attn.proj.bias",
        f"features.5.1.attn.{TABLE}",
        "features.4.reduction.weight",
        None,
    ),
}
PATHS = (
    ("params", "stage3_block_1", "attn", "proj", "bias"),
    ("params", "stage3_block_1", "attn", "table"),
    ("params", "merge_3", "reduction", "kernel"),
)


@pytest.mark.parametrize("importer", SWIN_IMPORTERS, ids=lambda importer: importer.family)
def test_names(importer):
    *names, norm = NAMES[importer.family]
    assert [importer.name_of(path) for path in PATHS] == names
    assert importer.neck_name_of(("params", "neck", "norm_3", "bias")) == norm
    assert importer.neck_name_of(("params", "neck", "project_3", "conv", "kernel")) is None
    with pytest.raises(UserError, match="stem1/conv has no published name: it does not belong to a Swin Transformer"):
        importer.name_of(("params", "stem1", "conv", "kernel"))


def file_of(name: str, importer_index: int = 0, **options) -> dict[str, np.ndarray]:
    """Return zeros under the names of a publisher's file of a member."""
    importer, model = SWIN_IMPORTERS[importer_index], BACKBONES[name].make(**options)
    return {
        importer.name_of(path): np.broadcast_to(
            np.float32(0),
            x.shape[::-1] if len(x.shape) == 2 and path[-1] == "kernel" else (x.shape[3:] + x.shape[2::-1]),
        )
        if path[-1] == "kernel"
        else np.broadcast_to(np.float32(0), x.shape)
        for path, x in flatten_dict(abstract_variables(model)).items()
    }


@functools.cache
def network_of(name: str) -> dict:
    return {kind: {"backbone": tree} for kind, tree in abstract_variables(BACKBONES[name].make()).items()}


@pytest.mark.parametrize("index", [0, 3])
def test_another_member_is_named(index):
    with pytest.raises(UserError, match="^the weights are of Swin-S, and the network's backbone is Swin-T: choose"):
        import_weights(file_of("swin_s", index), network_of("swin_t"), SWIN_IMPORTERS)


def test_other_networks_are_named():
    state = file_of("swin_micro")
    with pytest.raises(
        UserError, match="of a Swin Transformer of width 8 with 2, 1, 2, 1 blocks, and .* Swin-T: choose"
    ):
        import_weights(state, network_of("swin_t"), SWIN_IMPORTERS)
    v2 = state | {"layers.0.blocks.0.attn.logit_scale": np.zeros((1, 1, 1))}
    with pytest.raises(UserError, match="the weights are of a Swin Transformer V2 "):
        import_weights(v2, network_of("swin_micro"), SWIN_IMPORTERS)
    vit = {"patch_embed.proj.weight": np.zeros((8, 3, 16, 16)), "blocks.0.norm1.weight": np.zeros(8)}
    with pytest.raises(UserError, match="of another network, without the four stages of a Swin Transformer, and"):
        import_weights(vit, network_of("swin_micro"), SWIN_IMPORTERS)


def test_tables_of_another_window_are_converted():
    state = file_of("swin_micro", window=5)
    state = {name: x + 1 if name.endswith(TABLE) else x for name, x in state.items()}
    found = import_weights(state, network_of("swin_micro"), SWIN_IMPORTERS)
    assert found.converted == ("the tables of relative positions, from windows of 5 to windows of 3",)
    tables = [x for path, x in found.variables.items() if path[-1] == "table"]
    assert len(tables) == 6
    for table in tables:
        assert table.shape[0] == 25
        np.testing.assert_allclose(table, 1, rtol=1e-6)
    assert not import_weights(file_of("swin_micro"), network_of("swin_micro"), SWIN_IMPORTERS).converted


def test_tables_that_are_no_square_do_not_fit():
    state = file_of("swin_micro")
    name = next(name for name in state if name.endswith(TABLE))
    with pytest.raises(UserError, match=r"1 have another shape: .*relative_position_bias_table \(24, 1\) instead of"):
        import_weights(state | {name: np.zeros((24, 1))}, network_of("swin_micro"), SWIN_IMPORTERS)


@given(st.integers(2, 8), st.integers(2, 8))
def test_resampled_tables_keep_their_symmetry(old, new):
    """The center of the table is the position itself: a table that is turned stays turned."""
    table = draw((2 * old - 1) ** 2, 2)
    shapes = {TABLE: ((2 * new - 1) ** 2, 2)}
    fitted = fit_tables({TABLE: table}, shapes)[0][TABLE]
    turned = fit_tables({TABLE: table[::-1]}, shapes)[0][TABLE]
    assert fitted.shape == shapes[TABLE]
    np.testing.assert_allclose(turned, fitted[::-1], atol=1e-5)
    if old == new:
        np.testing.assert_array_equal(fitted, table)


def test_every_member_is_listed():
    assert SWIN.keys() == {"swin_t", "swin_s", "swin_b", "swin_l", "swin_b_384", "swin_l_384", "swin_micro"}
    assert SWIN.keys() <= BACKBONES.keys()
