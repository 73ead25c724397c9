"""ConvNeXt and ConvNeXt V2: names in the files of every publisher, and the laws that such a network obeys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.methods import check_step
from support.parity import draw
from support.published_convnexts import LAYOUTS, published
from support.runs import tiny_config
from support.training import make_batch, sgd

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models import xla_cpu_depthwise
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.convnext import CONVNEXT, IMPORTERS, Block, ConvNeXt
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.token_layers import GlobalResponseNorm
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

MICROS = ("convnext_micro", "convnextv2_micro")
COUNTS = {
    "convnext_t": 27_818_592,
    "convnext_s": 49_453_152,
    "convnext_b": 87_564_416,
    "convnext_l": 196_227_264,
    "convnextv2_a": 3_386_760,
    "convnextv2_f": 4_847_472,
    "convnextv2_p": 8_552_256,
    "convnextv2_n": 14_981_520,
    "convnextv2_t": 27_864_960,
    "convnextv2_b": 87_690_752,
    "convnextv2_l": 196_416_768,
}


@functools.cache
def micro(name: str) -> tuple[ConvNeXt, dict]:
    """The network for tests, with variables as after a training."""
    model = BACKBONES[name].make()
    rng = np.random.default_rng(0)
    variables = flatten_dict(draw(model))
    for path, array in variables.items():
        if path[-2:] == ("grn", "beta"):
            variables[path] = rng.normal(0, 0.3, array.shape).astype(np.float32)
    return model, unflatten_dict(variables)


def draw_images(height: int, width: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, height, width, 3)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def stages_of(model, variables, images):
    return model.apply(variables, images).stages


def import_backbone(state: dict, model: ConvNeXt) -> dict:
    """Return the variables of a backbone, from the arrays of a file; check that all were used."""
    nested = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    found = import_weights(state, nested, IMPORTERS)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert num_parameters(abstract_variables(BACKBONES[name].make(), 32)) == COUNTS[name]


# --- Files --------------------------------------------------------------------------------------------------------------------

V1_ONLY = ("torchvision", "DINOv3")
FILES = [(layout, name) for layout in LAYOUTS for name in MICROS if name == MICROS[0] or layout not in V1_ONLY]


@pytest.mark.parametrize(("layout", "name"), FILES)
def test_layouts(layout, name):
    state, expected = published(layout, name)
    if layout == "DINOv3":  # earlier releases of transformers had no prefix
        state = {f"model.{key}": array for key, array in state.items()}
    jax.tree.map(np.testing.assert_array_equal, import_backbone(state, BACKBONES[name].make()), expected)


def test_backbones_of_whole_networks_and_of_v2_have_their_own_prefixes():
    for layout, old, new in (
        ("transformers", "convnext.", "convnextv2."),
        ("transformers", "convnext.", ""),
        ("transformers", "convnext.", "backbone."),
        ("open-mmlab", "backbone.", ""),
        ("official", "", "backbone."),
    ):
        state, expected = published(layout, MICROS[1])
        state = {new + key.removeprefix(old): array for key, array in state.items() if not key.startswith("classifier")}
        jax.tree.map(np.testing.assert_array_equal, import_backbone(state, BACKBONES[MICROS[1]].make()), expected)


NECKS = {"open-mmlab": ("norm", 0), "transformers": ("hidden_states_norms.stage", 1)}


@pytest.mark.parametrize("layout", NECKS)
def test_normalizations_of_the_stages_go_to_the_neck(layout, rng):
    state, _ = published(layout, MICROS[0])
    state = {f"backbone.{key.removeprefix('backbone.').removeprefix('convnext.')}": x for key, x in state.items()}
    norm, first = NECKS[layout]
    norms = {
        f"backbone.{norm}{i + first}.{kind}": rng.normal(size=width).astype(np.float32)
        for i, width in enumerate((8, 16, 24, 32))
        for kind in ("weight", "bias")
    }
    model = build_segmenter(3, backbone=MICROS[0], context="upernet_512", representation="per_pixel", semantic_width=8)
    found = import_weights(state | norms, abstract_variables(model), IMPORTERS)
    for name, array in norms.items():
        number, kind = int(name.removeprefix(f"backbone.{norm}")[0]) + 1 - first, name.rpartition(".")[2]
        path = ("params", "neck", f"norm_{number}", {"weight": "scale", "bias": "bias"}[kind])
        np.testing.assert_array_equal(found.variables[path], array)
    without = import_weights(state, abstract_variables(model), IMPORTERS)
    assert not any(path[1] == "neck" for path in without.variables)


def zeros_of(name: str, layout: str = "timm") -> dict:
    """A file of a real member, in which each array takes no memory."""
    importer = next(importer for importer in IMPORTERS if layout in importer.family)
    state = {}
    for path, leaf in flatten_dict(abstract_variables(BACKBONES[name].make(), 32)).items():
        shape = tuple(leaf.shape[i] for i in {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, range(leaf.ndim)))
        state[importer.name_of(path)] = np.broadcast_to(np.float32(0), shape)
    return state


@pytest.mark.parametrize(
    ("file", "network", "message"),
    [
        (
            "convnext_s",
            "convnext_t",
            r"^the weights are of ConvNeXt-S with 3, 3, 27 and 3 blocks of 96, 192, 384 and 768 channels, and the network's "
            r"backbone is ConvNeXt-T with 3, 3, 9 and 3 blocks of 96, 192, 384 and 768 channels: choose the backbone",
        ),
        ("convnext_t", "convnextv2_t", r"are of ConvNeXt-T with .* backbone is ConvNeXt V2-T with"),
        ("convnextv2_p", "convnextv2_n", r"are of ConvNeXt V2-P with .* backbone is ConvNeXt V2-N with"),
    ],
)
def test_a_file_of_another_member_gives_one_clear_line(file, network, message):
    with pytest.raises(UserError, match=message):
        import_backbone(zeros_of(file), BACKBONES[network].make())


def test_a_file_without_an_array_or_with_one_too_many_names_it():
    state, _ = published("official", MICROS[0])
    model = BACKBONES[MICROS[0]].make()
    removed = {key: array for key, array in state.items() if key != "stages.2.1.gamma"}
    with pytest.raises(UserError, match=r"1 names are missing: stages\.2\.1\.gamma"):
        import_backbone(removed, model)
    with pytest.raises(UserError, match=r"1 are unknown: stages\.2\.1\.extra"):
        import_backbone(state | {"stages.2.1.extra": np.zeros(3)}, model)


# --- Laws ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MICROS)
def test_stages_of_any_size(name):
    """Where a side is not a multiple of the stride, the publishers' convolutions leave out the last pixels."""
    model, variables = micro(name)
    for height, width in ((32, 96), (64, 64), (66, 101)):
        shapes = jax.eval_shape(model.apply, variables, jnp.zeros((1, height, width, 3))).stages
        expected = [
            (1, height >> i, width >> i, channels) for i, channels in zip((2, 3, 4, 5), model.widths, strict=True)
        ]
        assert [x.shape for x in shapes] == expected
    images = draw_images(66, 101)
    found, cropped = (stages_of(model, variables, x) for x in (images, images[:, :64, :100]))
    jax.tree.map(np.testing.assert_array_equal, found, cropped)


def test_a_shift_by_the_stride_shifts_the_stages():
    """Far enough from the borders, where the padding does not reach."""
    model, variables = micro(MICROS[0])
    images = draw_images(192, 224)
    before, after = (stages_of(model, variables, x) for x in (images, np.roll(images, (16, -8), (1, 2))))
    # C2 has one block, which reaches 3 positions; C3 has two more, of 6 positions, and its first layer reads what C2 reached.
    for a, b, margin, (rows, columns) in zip(before, after, (3, 8), ((4, -2), (2, -1)), strict=False):
        inner = slice(margin + abs(rows), -margin - abs(rows))
        np.testing.assert_allclose(np.roll(a, (rows, columns), (1, 2))[:, inner, inner], b[:, inner, inner], atol=1e-5)
        assert b[:, inner, inner].size


def test_a_pixel_reaches_three_positions_in_v1_and_the_whole_image_in_v2():
    images = draw_images(64, 64)
    for name, reach in ((MICROS[0], 7), (MICROS[1], 16)):
        model, variables = micro(name)
        changed = images.copy()
        changed[0, 32, 32] += 5
        difference = np.abs(
            np.asarray(stages_of(model, variables, changed)[0]) - stages_of(model, variables, images)[0]
        ).max(-1)[0]
        rows, columns = np.nonzero(difference)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (reach, reach)


def test_global_response_normalization_is_the_papers_formula(rng):
    x = rng.normal(size=(2, 4, 3, 5))
    gamma, beta = rng.normal(size=(2, 5))
    norms = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = gamma * x * norms / (norms.mean(-1, keepdims=True) + 1e-6) + beta + x
    x, gamma, beta = (jnp.asarray(array, jnp.float32) for array in (x, gamma, beta))
    found = GlobalResponseNorm().apply({"params": {"gamma": gamma, "beta": beta}}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_global_response_normalization_starts_as_the_identity_and_has_a_gradient_at_zero():
    model = GlobalResponseNorm()
    x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0, 0].set(1)  # two channels are 0 everywhere
    variables = model.init(jax.random.key(0), x)
    np.testing.assert_array_equal(model.apply(variables, x), x)
    gradient = jax.grad(lambda v, x: model.apply(v, x).sum(), (0, 1))(jax.tree.map(lambda a: a + 1, variables), x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_drop_path_leaves_out_the_branch_of_single_images():
    """A factor of 0 leaves the branch out, 1 changes nothing, and the result is linear in the factor."""
    block, x = Block(), jnp.asarray(draw_images(8, 8, 3))
    variables = jax.tree.map(lambda a: a + 0.1, block.init(jax.random.key(0), x, False))
    plain = block.apply(variables, x, True)
    found = block.apply(variables, x, True, jnp.array([[0.0, 1.0, 2.0]]))
    np.testing.assert_array_equal(found[0], x[0])
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-6)
    np.testing.assert_allclose(found[2] - x[2], 2 * (plain[2] - x[2]), atol=1e-5)


def test_drop_path_acts_in_training_alone_and_by_the_seed():
    model, variables = micro(MICROS[0])
    images = jnp.asarray(draw_images(32, 32, 4))

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(seed, train, rate=0.9):
        rngs = {"dropout": jax.random.key(seed)}
        return model.clone(drop_path=rate).apply(variables, images, train, rngs=rngs).final

    np.testing.assert_array_equal(run(0, False), run(1, False))
    np.testing.assert_array_equal(run(0, True), run(0, True))
    np.testing.assert_array_equal(run(0, True, 0.0), run(0, False))
    assert (run(0, True) != run(1, True)).any()
    with pytest.raises(ValueError, match=r"drop_path=1.0: expected a rate from 0 to less than 1"):
        ConvNeXt(drop_path=1.0)


@pytest.mark.parametrize("name", MICROS)
def test_bfloat16_is_near_float32(name):
    model, variables = micro(name)
    images = draw_images(64, 96)
    half = stages_of(model.clone(dtype=jnp.bfloat16), variables, images)
    for a, b in zip(half, stages_of(model, variables, images), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.float32(a) - b).max() < 0.05 * np.abs(b).max()


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["light", "full"])
def test_rematerialization_changes_no_gradient(remat, monkeypatch):
    """Also with the work-around for the CPU, which small maps do not need."""
    model, variables = micro(MICROS[1])
    images = jnp.asarray(draw_images(32, 32, 2))

    def gradient(remat):
        return jax.jit(jax.grad(lambda v: model.clone(remat=remat).apply(v, images).final.sum()))(variables)

    plain = gradient("off")
    monkeypatch.setattr(xla_cpu_depthwise, "TINY_MAP", 300)  # the first map is larger
    found = gradient(remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6), found, plain)


@pytest.mark.parametrize("remat", ["light", "full"])
def test_rematerialization_reaches_every_block(remat):
    model, variables = micro(MICROS[1])
    program = jax.make_jaxpr(lambda v: model.clone(remat=remat).apply(v, jnp.zeros((1, 32, 32, 3))).final)(variables)
    assert str(program).count("remat2[") == len(model.num_blocks)  # the equal blocks of a stage are traced once


@pytest.mark.parametrize("name", ["convnext_t", "convnext_s", "convnextv2_a", "convnextv2_n", *MICROS])
def test_layer_numbers_for_learning_rates(name):
    """0 for the stem, one number for each of the first two stages and the last, one for every three blocks of the third."""
    spec = CONVNEXT[name]
    blocks = spec.make().num_blocks
    depths = {path: spec.depth_of(path) for path in flatten_dict(abstract_variables(spec.make(), 32)["params"])}
    last = {9: 6, 27: 12, 6: 5, 8: 6, 4: 5}[blocks[2]]
    assert set(depths.values()) == set(range(last + 1))
    order = [f"stage{i}_block_{k}" for i, count in enumerate(blocks, 1) for k in range(count)]
    numbers = [next(depth for path, depth in depths.items() if path[0] == module) for module in order]
    assert numbers == sorted(numbers)
    for path, depth in depths.items():
        if path[0].startswith(("stem", "downsample")):
            stage = path[0].removeprefix("downsample")[0]
            assert depth == (0 if stage == "s" else numbers[order.index(f"stage{stage}_block_0")])


# --- Training -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(MICROS[0], marks=pytest.mark.slow), MICROS[1]])
def test_a_training_step_with_the_pyramid(name):
    config = tiny_config(backbone=name, context="none")
    model, optimizer = experiment.make_model(config, 3), sgd()
    state = initial_state(initial_variables(model, 0), optimizer)
    before = jax.device_get(state.params["backbone"])
    step = make_train_step(
        model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    )
    after, metrics = step(state, jax.tree.map(jnp.asarray, make_batch()))
    assert np.isfinite(metrics["loss"])
    changed = jax.tree.map(lambda a, b: (a != b).any(), before, jax.device_get(after.params["backbone"]))
    assert changed["stem"]["kernel"]
    assert changed["stage4_block_0"]["fc2"]["kernel"]


@pytest.mark.parametrize(
    ("context", "representation"),
    [
        ("upernet_512", "per_pixel"),
        ("upernet", "pyramid"),
        pytest.param("coarse_to_fine", "per_pixel", marks=pytest.mark.slow),
        pytest.param("coarse_to_fine", "pyramid", marks=pytest.mark.slow),
    ],
)
def test_a_step_fits_together_with_other_contexts(context, representation):
    config = tiny_config(backbone=MICROS[0], context=context, representation=representation)
    model = experiment.make_model(config, 3)
    assert model.strides == (32, 16, 8, 4) or representation != "pyramid"
    check_step(config, model, abstract_variables(model))
