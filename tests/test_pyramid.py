"""The pyramid's algebra: compared with slow twins, and with the laws that it must obey."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import twins

from pyrseg_jax import pyramid
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.pyramid import PROCEDURES, VOID_RULES, Targets

# Each is compiled as a whole. Outside of a compiled function, every small operation would be compiled by itself.
build_targets = jax.jit(pyramid.build_targets, static_argnames=("strides", "void"))
specialize = jax.jit(pyramid.specialize, static_argnames=("procedure", "threshold"))
pyramid_loss = jax.jit(pyramid.pyramid_loss)
fuse = jax.jit(pyramid.fuse, static_argnames="threshold")

STRIDES = [(32, 16, 8, 4), (4,), (8, 4), (8, 4, 2, 1), (24, 12, 6)]


def blocky_maps(rng, strides, num_classes=4, void_share=0.1):
    """Draw maps of patches with random sizes, so that every level has unit-cells, mixed-cells and cells with some or only void."""
    s = strides[0]
    maps = []
    for height, width in [(2 * s, 3 * s)] * 3:
        label = np.zeros((height, width), np.uint8)
        for _ in range(40):
            y, x = rng.integers(0, height), rng.integers(0, width)
            h, w = rng.integers(1, 2 * s + 1, 2)
            label[y : y + h, x : x + w] = 255 if rng.random() < 2 * void_share else rng.integers(0, num_classes)
        maps.append(label)
    maps[1][rng.random(maps[1].shape) < void_share / 4] = 255
    maps.append(np.full_like(maps[0], 255))  # all void
    maps.append(np.full_like(maps[0], 2))  # one class
    return np.stack(maps)


def random_pyramids(rng, label_map, strides, num_classes=4):
    n, h, w = label_map.shape
    semantic = [rng.normal(size=(n, h // s, w // s, num_classes)).astype(np.float32) for s in strides]
    unity = [rng.normal(size=(n, h // s, w // s)).astype(np.float32) for s in strides[:-1]]
    return semantic, unity


def assert_same_targets(found: Targets, expected):
    for name, levels, twin_levels in zip(("semantic", "unity"), found, expected, strict=True):
        assert len(levels) == len(twin_levels)
        for level, (a, b) in enumerate(zip(levels, twin_levels, strict=True)):
            assert a.dtype == jnp.int32
            np.testing.assert_array_equal(a, b, err_msg=f"{name}[{level}]")


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("void", VOID_RULES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_targets_equal_the_twin(rng, strides, void, dtype):
    label_map = blocky_maps(rng, strides)
    found = build_targets(label_map.astype(dtype), strides, void)
    assert_same_targets(found, twins.build_targets(label_map, strides, void))


def test_class_254_is_not_confused_with_void():
    label_map = np.full((1, 8, 8), 254, np.uint8)
    targets = build_targets(label_map, (8, 4))
    assert targets.semantic[0].item() == 254
    assert targets.unity[0].item() == 1


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 1.0])
def test_specialize_equals_the_twin(rng, strides, procedure, threshold):
    label_map = blocky_maps(rng, strides)
    _, logits = random_pyramids(rng, label_map, strides)
    targets = build_targets(label_map, strides)
    found = specialize(targets, logits, procedure, threshold)
    probs = [np.asarray(jax.nn.sigmoid(x)) for x in logits]
    plain = [np.asarray(t) for t in targets.semantic], [np.asarray(t) for t in targets.unity]
    assert_same_targets(found, twins.specialize(*plain, probs, procedure, threshold))


@pytest.mark.parametrize("strides", STRIDES)
def test_loss_equals_the_twin(rng, strides):
    label_map = blocky_maps(rng, strides)
    semantic, unity = random_pyramids(rng, label_map, strides)
    targets = specialize(build_targets(label_map, strides), unity)
    loss, terms = jax.jit(pyramid_loss)(semantic, unity, targets)
    plain = [np.asarray(t) for t in targets.semantic], [np.asarray(t) for t in targets.unity]
    expected, cross_entropies, binary = twins.loss(semantic, unity, *plain)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose([terms[f"semantic_{i + 1}"] for i in range(len(strides))], cross_entropies, rtol=1e-5)
    np.testing.assert_allclose([terms[f"unity_{i + 1}"] for i in range(len(strides) - 1)], binary, rtol=1e-5)
    np.testing.assert_allclose(terms["semantic"] + terms["unity"], loss, rtol=1e-6)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.1])
def test_fuse_equals_the_twin(rng, strides, threshold):
    label_map = blocky_maps(rng, strides)
    semantic, unity = random_pyramids(rng, label_map, strides)
    semantic = [np.asarray(jax.nn.softmax(x)) for x in semantic]
    unity = [np.asarray(jax.nn.sigmoid(x)) for x in unity]
    found = jax.jit(fuse, static_argnums=2)(semantic, unity, threshold)
    probs, level = twins.fuse(semantic, unity, threshold)
    np.testing.assert_array_equal(found.probs, probs)
    np.testing.assert_array_equal(found.level, level)


@pytest.mark.parametrize("strides", STRIDES)
def test_fusing_the_true_pyramids_returns_the_label_map(rng, strides):
    """Law: with perfect predictions, only what the finest stride cannot resolve is lost."""
    label_map = blocky_maps(rng, strides, void_share=0)[:3]
    targets = build_targets(label_map, strides)
    semantic = [jax.nn.one_hot(jnp.where(t == 255, 0, t), 4) for t in targets.semantic]
    fused = fuse(semantic, [u.astype(jnp.float32) for u in targets.unity])
    half = strides[-1] // 2
    np.testing.assert_array_equal(fused.probs.argmax(-1), label_map[:, half :: strides[-1], half :: strides[-1]])


def test_tp_relabeling_ranges_from_raw_to_gt(rng):
    """Law: predicting "mixed" everywhere relabels as `raw` does, and predicting "unit" everywhere as `gt` does."""
    label_map = blocky_maps(rng, (32, 16, 8, 4))
    targets = build_targets(label_map)
    nothing = specialize(targets, [jnp.full(u.shape, -9.0) for u in targets.unity], "tp")
    assert_same_targets(nothing, targets)
    everything = specialize(targets, [jnp.full(u.shape, 9.0) for u in targets.unity], "tp")
    assert_same_targets(everything, specialize(targets, [jnp.zeros(u.shape) for u in targets.unity], "gt"))


def test_a_false_positive_relabels_nothing():
    """A mixed-cell that is predicted to be a unit-cell is not a true positive: its children still have to learn."""
    label_map = np.zeros((1, 8, 8), np.uint8)
    label_map[:, :, 5:] = 1
    targets = build_targets(label_map, (8, 4))
    assert_same_targets(specialize(targets, [jnp.full((1, 1, 1), 9.0)]), targets)


def test_dont_care_cells_change_neither_loss_nor_gradient(rng):
    label_map = blocky_maps(rng, (32, 16, 8, 4))
    semantic, unity = random_pyramids(rng, label_map, (32, 16, 8, 4))
    targets = specialize(build_targets(label_map), unity)
    value_and_grad = jax.jit(jax.value_and_grad(lambda s, u: pyramid_loss(s, u, targets)[0], argnums=(0, 1)))
    loss, gradients = value_and_grad(semantic, unity)
    changed_semantic = [
        np.where((t == 255)[..., None], s * 100 - 7, s) for s, t in zip(semantic, targets.semantic, strict=True)
    ]
    changed_unity = [np.where(t == 255, -50 * u, u) for u, t in zip(unity, targets.unity, strict=True)]
    changed_loss, changed_gradients = value_and_grad(changed_semantic, changed_unity)
    assert loss == changed_loss
    jax.tree.map(np.testing.assert_array_equal, gradients, changed_gradients)
    for gradient, target in zip(jax.tree.leaves(gradients), jax.tree.leaves(tuple(targets)), strict=True):
        is_touched = np.abs(np.asarray(gradient)).reshape(*target.shape, -1).max(-1) > 0
        np.testing.assert_array_equal(is_touched, np.asarray(target) != 255)


def test_nothing_to_learn_gives_zero_and_finite_gradients(rng):
    label_map = np.full((2, 32, 64), 255, np.uint8)
    semantic, unity = random_pyramids(rng, label_map, (32, 16, 8, 4))
    targets = specialize(build_targets(label_map), unity)
    value_and_grad = jax.jit(jax.value_and_grad(lambda s, u: pyramid_loss(s, u, targets)[0], argnums=(0, 1)))
    loss, gradients = value_and_grad(semantic, unity)
    assert loss == 0
    assert all((g == 0).all() for g in jax.tree.leaves(gradients))


def test_a_level_that_is_done_contributes_nothing():
    """If the coarsest level finds the only class everywhere, the other three levels have no cells left to learn."""
    label_map = np.ones((1, 32, 32), np.uint8)
    semantic = [jnp.zeros((1, 32 // s, 32 // s, 4)) for s in (32, 16, 8, 4)]
    unity = [jnp.full((1, 32 // s, 32 // s), 3.0) for s in (32, 16, 8)]
    _, terms = pyramid_loss(semantic, unity, specialize(build_targets(label_map), unity))
    np.testing.assert_allclose(terms["semantic"], np.log(4) / 4, rtol=1e-6)
    assert terms["semantic_4"] == terms["unity_3"] == 0


def test_a_sharded_batch_gives_the_same_numbers(rng):
    """The loss is the mean over the cells of the global batch, however they are distributed over devices."""
    label_map = blocky_maps(rng, (32, 16, 8, 4))[:4]
    label_map[0] = 255  # one device has nothing to learn, so a mean of means per device would differ
    semantic, unity = random_pyramids(rng, label_map, (32, 16, 8, 4))

    @jax.jit
    def run(label_map, semantic, unity):
        targets = specialize(build_targets(label_map), unity)
        loss, _ = pyramid_loss(semantic, unity, targets)
        fused = fuse([jax.nn.softmax(s) for s in semantic], [jax.nn.sigmoid(u) for u in unity])
        return targets, loss, fused.level

    mesh = mesh_lib.make_mesh(data=4)
    place = functools.partial(jax.device_put, device=mesh_lib.batch_sharding(mesh))
    whole = run(label_map, semantic, unity)
    split = run(*jax.tree.map(place, (label_map, semantic, unity)))
    np.testing.assert_allclose(whole[1], split[1], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, (whole[0], whole[2]), (split[0], split[2]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_targets(np.zeros((1, 48, 65), np.uint8)), "nearest is 64 × 64"),
        (lambda: build_targets(np.zeros((1, 64, 64), np.uint8), (32, 8)), "each twice the next"),
        (lambda: build_targets(np.zeros((1, 64, 64), np.uint8), ()), "at least one level"),
        (lambda: build_targets(np.zeros((1, 64, 64), np.uint8), void="maybe"), "'agree', 'mixed', 'ignore'"),
        (lambda: specialize(Targets((), ()), (), procedure="best"), "'tp', 'gt', 'raw'"),
        (lambda: fuse((), ()), "at least one map"),
        (lambda: fuse([jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 4, 5, 3))], [jnp.zeros((1, 2, 2))]), "twice the height"),
        (lambda: fuse([jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 4, 4, 3))], []), "unity_probs have shapes"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
