"""QGN: its label quadtrees, its decoder against PyTorch's layers under the published names, and what the sparse form skips."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parity import far

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.contexts.doubling import UpBlock, double
from pyrseg_jax.models.contexts.qgn import QGN
from pyrseg_jax.models.contexts.quadtree import build_quadtree, decide, quadtree_loss, rebuild_labels
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.layers import BasicBlock
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS

torch = pytest.importorskip("torch")
CLASSES, WIDTH, STRIDES = 3, 64, (32, 16, 8, 4, 2, 1)
# Numbers that one class more has in the six classifiers: a weight per input, four in the transposed convolution, and a bias.
PER_CLASS = 2048 + 256 + 128 + 64 + 64 + 4 * 64 + 6


@pytest.mark.parametrize(
    ("context", "classes", "expected"),
    [("qgn", 150, 35_362_058), ("qgn_sparse", 150, 34_481_418), ("qgn", 171, 35_362_058 + 21 * PER_CLASS)],
)
def test_parameter_counts(context, classes, expected):
    model = build_segmenter(
        classes, backbone="resnet101", context=context, representation="per_pixel", stem="deep", output_stride=32
    )
    variables = abstract_variables(model)
    assert num_parameters({"params": variables["params"]["context"]}) == expected
    assert num_parameters(variables) == 42_623_936 + expected


def draw_labels(rng, height, width, block):
    """Label maps of large patches with some void, so that cells of all levels are of one class."""
    coarse = rng.choice([0, 1, 2, 254, 255], (2, -(-height // block), -(-width // block)))
    return np.repeat(np.repeat(coarse, block, 1), block, 2)[:, :height, :width].astype(np.uint8)


@jax.jit
def rebuild(labels):
    return [rebuild_labels(build_quadtree(labels, is_sparse)) for is_sparse in (False, True)]


@given(st.integers(0, 2**32), st.sampled_from([(64, 96), (33, 70)]), st.sampled_from([1, 3, 16, 40]))
@settings(max_examples=30, deadline=None)
def test_labels_are_rebuilt_from_their_quadtree(seed, size, block):
    labels = draw_labels(np.random.default_rng(seed), *size, block)
    for found in rebuild(labels):
        np.testing.assert_array_equal(found, labels)


def slow_quadtree(labels, is_sparse):
    """Each cell on its own."""
    n, height, width = labels.shape
    tree, parents = [], np.zeros((n, height // 64, width // 64), int)
    for stride in STRIDES:
        level = np.empty((n, height // stride, width // stride), int)
        for at in np.ndindex(*level.shape):
            image, i, j = at
            cell = labels[image, stride * i : stride * (i + 1), stride * j : stride * (j + 1)]
            label = 0 if (cell != cell[0, 0]).any() else -1 if cell[0, 0] == 255 else int(cell[0, 0]) + 1
            is_below = is_sparse and stride < 32 and parents[image, i // 2, j // 2] != 0
            level[at] = -1 if is_below else label
        tree.append(level)
        parents = level
    return tree


@pytest.mark.parametrize("is_sparse", [False, True])
def test_quadtree(is_sparse):
    labels = draw_labels(np.random.default_rng(0), 64, 96, 43)
    tree = jax.jit(build_quadtree, static_argnums=1)(labels, is_sparse)
    for found, expected in zip(tree, slow_quadtree(labels, is_sparse), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all((level == 0).any() and (level > 0).any() for level in slow_quadtree(labels, is_sparse)[:4])


def test_loss_weights_composite_cells_twice_and_ignores_inactive_ones():
    rng = np.random.default_rng(0)
    labels = draw_labels(rng, 64, 64, 24)
    tree = slow_quadtree(labels, True)[:2]
    logits = tuple(rng.normal(size=(*level.shape, 256)).astype(np.float32) for level in tree)
    active = tuple(rng.random(level.shape) < 0.7 for level in tree)
    expected = 0.0
    for level, values, cells in zip(tree, logits, active, strict=True):
        total = weights = 0.0
        for at in np.ndindex(*level.shape):
            if level[at] >= 0 and cells[at]:
                weight = 2.0 if level[at] == 0 else 1.0
                total += weight * (np.log(np.exp(values[at]).sum()) - values[at][level[at]])
                weights += weight
        expected += total / weights
    outputs = {"quadtree": logits, "active": active}
    loss = jax.jit(lambda outputs, labels: quadtree_loss(outputs, labels, "finest", is_sparse=True))
    assert float(loss(outputs, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(outputs, np.full_like(labels, 255))) == 0


def test_each_form_learns_from_its_own_quadtree():
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (1, 8, 8)), np.ones((16, 16), int)).astype(np.uint8)
    outputs = {"quadtree": [jnp.float32(rng.normal(size=(1, 128 // s, 128 // s, 4))) for s in STRIDES[:-1]]}
    compute = jax.jit(quadtree_loss, static_argnums=(2, 3))
    dense, sparse = (compute(outputs, jnp.asarray(labels), "finest", is_sparse) for is_sparse in (False, True))
    assert abs(dense - sparse) > 0.01
    for context, expected in (("qgn", dense), ("qgn_sparse", sparse)):
        compute = jax.jit(CONTEXTS[context].losses["quadtree"].compute, static_argnums=2)
        assert compute(outputs, jnp.asarray(labels), "finest") == expected


def test_each_pixel_is_decided_by_its_coarsest_cell_that_is_not_composite():
    """With the labels as logits, the decision returns the labels."""
    labels = draw_labels(np.random.default_rng(3), 64, 96, 24)
    labels[labels > 2] = 0
    tree = jax.jit(build_quadtree, static_argnums=1)(labels, True)
    goes_on = [level == 0 for level in tree[:-1]]
    found = jax.jit(decide)([jax.nn.one_hot(level, CLASSES + 1) for level in tree], goes_on)
    np.testing.assert_array_equal(found.argmax(-1) - 1, labels)


@pytest.mark.parametrize("kernel", [2, 3])
def test_doubling_is_pytorchs_transposed_convolution(kernel):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(4, 6, kernel, kernel))
    padding = {2: {}, 3: {"padding": 1, "output_padding": 1}}[kernel]
    expected = torch.nn.functional.conv_transpose2d(
        torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(weight), stride=2, **padding
    )
    layer = double(6, kernel, dtype=jnp.float32, name="double")
    found = layer.apply({"params": {"kernel": weight.transpose(2, 3, 1, 0)}}, x)
    assert far(found, expected.permute(0, 2, 3, 1)) < 1e-6


def published_decoder(rng, kernel):
    """A file of the release's decoder with `WIDTH` channels, written down by hand: its names and shapes, and random numbers."""
    state = {}

    def add_norm(name, channels):
        for kind, low in (("weight", 0.5), ("bias", -0.3), ("running_mean", -0.3), ("running_var", 0.5)):
            state[f"{name}.{kind}"] = rng.uniform(low, low + 0.6, channels)

    def add(name, *shape):
        fan_in = np.prod(shape[1:])
        state[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / fan_in), shape)

    def add_block(name, width):
        for part in (1, 2):
            add(f"{name}.conv{part}", width, width, 3, 3)
            add_norm(f"{name}.bn{part}", width)

    widths = [WIDTH, WIDTH // 2, WIDTH // 4, WIDTH // 8, WIDTH // 8]
    for row, count in enumerate((6, 4, 3, 3), 1):
        before, after = widths[row - 1], widths[row]
        for k in range(count - 1):
            add_block(f"orig_resnet.deconv{row}.{k}", before)
        name = f"orig_resnet.deconv{row}.{count - 1}"
        add(f"{name}.conv1", before, before, 3, 3)
        add_norm(f"{name}.bn1", before)
        add(f"{name}.conv2", before, after, kernel, kernel)
        add_norm(f"{name}.bn2", after)
        add(f"{name}.upsample.0", before, after, 2, 2)
        add_norm(f"{name}.upsample.1", after)
    for k in range(3):
        add_block(f"orig_resnet.final_conv.{k}", widths[-1])
    for k, channels in enumerate((16, 32, 64, 128, 256)):  # those of `resnet_tiny` with a deep stem
        add(f"orig_resnet.skip{k}.0", widths[4 - k], channels, 1, 1)
        add_norm(f"orig_resnet.skip{k}.1", widths[4 - k])
    for name, channels in zip(("out6", "out5", "out4", "out3", "out2"), (256, *widths[1:]), strict=True):
        add(f"orig_resnet.{name}_conv", CLASSES + 1, channels, 1, 1)
        state[f"orig_resnet.{name}_conv.bias"] = rng.normal(size=CLASSES + 1)
    add("orig_resnet.final_deconv", widths[-1], CLASSES + 1, 2, 2)
    state["orig_resnet.final_deconv.bias"] = rng.normal(size=CLASSES + 1)
    return {name: array.astype(np.float32) for name, array in state.items()}


class Decoder:
    """The release's dense decoder in evaluation, by PyTorch's functions and a file's names."""

    def __init__(self, state):
        self.state = {name.removeprefix("orig_resnet."): torch.tensor(array) for name, array in state.items()}

    def norm(self, name, x):
        mean, var, scale, bias = (
            self.state[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.nn.functional.batch_norm(x, mean, var, scale, bias)

    def conv(self, name, x, padding=0):
        return torch.nn.functional.conv2d(
            x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), padding=padding
        )

    def double(self, name, x):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        extra = {"padding": 1, "output_padding": 1} if weight.shape[-1] == 3 else {}
        return torch.nn.functional.conv_transpose2d(x, weight, bias, stride=2, **extra)

    def block(self, name, x, is_up=False):
        y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, 1)).relu()
        y = self.double(f"{name}.conv2", y) if is_up else self.conv(f"{name}.conv2", y, 1)
        y = self.norm(f"{name}.bn2", y)
        return (y + (self.norm(f"{name}.upsample.1", self.double(f"{name}.upsample.0", x)) if is_up else x)).relu()

    def __call__(self, maps):
        """Return the logits of all strides, coarse → fine, of maps of the strides 2, 4, …, 32."""
        skips = [self.norm(f"skip{k}.1", self.conv(f"skip{k}.0", x)).relu() for k, x in enumerate(maps)]
        logits, x = [self.conv("out6_conv", maps[-1])], skips[-1]
        for row, count in enumerate((6, 4, 3, 3), 1):
            for k in range(count):
                x = self.block(f"deconv{row}.{k}", x, is_up=k == count - 1)
            logits.append(self.conv(f"out{6 - row}_conv", x))
            x = x + skips[4 - row]
        for k in range(3):
            x = self.block(f"final_conv.{k}", x)
        return [y.permute(0, 2, 3, 1) for y in (*logits, self.double("final_deconv", x))]


@functools.cache
def imported(kernel, composite_bias=0.0):
    """The decoder's file, our variables of it by the importer, and maps of the backbone."""
    rng = np.random.default_rng(0)
    state = published_decoder(rng, kernel)
    for name in state:
        if name.startswith("orig_resnet.out") and name.endswith("bias"):
            state[name][0] += composite_bias
    context = "qgn" if kernel == 3 else "qgn_sparse"
    model = build_segmenter(
        CLASSES,
        backbone="resnet_tiny",
        context=context,
        representation="per_pixel",
        semantic_width=WIDTH,
        stem="deep",
        output_stride=32,
    )
    abstract = abstract_variables(model)
    found = import_weights(encoder(abstract) | state, abstract, RESNET_IMPORTERS)
    assert found.left == () and found.source == "QGN, dense" and found.trained == {"output_stride": 32}
    assert set(found.variables) == set(flatten_dict(abstract))
    variables = unflatten_dict(found.variables)
    sizes = {2: (32, 48), 4: (16, 24), 8: (8, 12), 16: (4, 6), 32: (2, 3)}
    channels = (16, 32, 64, 128, 256)
    maps = [
        np.maximum(rng.normal(size=(2, *size, c)), 0).astype(np.float32)
        for size, c in zip(sizes.values(), channels, strict=True)
    ]
    return state, {kind: tree["context"]["context"] for kind, tree in variables.items()}, maps


def encoder(abstract):
    """The encoder's file: CSAIL's names."""
    csail = RESNET_IMPORTERS[0]
    state = {}
    for path, leaf in flatten_dict(abstract).items():
        if path[1] == "backbone":
            array = np.ones(leaf.shape, np.float32)
            state[csail.name_of((path[0], *path[2:]))] = array.transpose(3, 2, 0, 1) if path[-1] == "kernel" else array
    return state


@functools.cache
def runner(is_sparse, **options):
    module = QGN(CLASSES, WIDTH, is_sparse, **options)
    return jax.jit(lambda v, m: module.apply(v, Features(tuple(m[1:]), m[-1], m[0]), None, False))


def run(variables, maps, is_sparse, **options):
    return runner(is_sparse, **options)(variables, maps)


def expect(state, maps):
    return Decoder(state)([torch.tensor(x.transpose(0, 3, 1, 2)) for x in maps])


def test_dense_decoder_of_the_release():
    state, variables, maps = imported(3)
    found, expected = run(variables, maps, is_sparse=False), expect(state, maps)
    for ours, theirs in zip(found.outputs["quadtree"], expected[:-1], strict=True):
        assert far(ours, theirs) < 1e-5
    assert far(found.logits, expected[-1][..., 1:]) < 1e-5
    shorter = run(variables, maps, is_sparse=False, classifies=False)
    np.testing.assert_allclose(shorter.features, found.features, rtol=1e-5, atol=1e-5)
    assert len(shorter.outputs["quadtree"]) == 4


def test_sparse_equals_dense_where_every_cell_is_composite():
    state, variables, maps = imported(2, composite_bias=1e4)
    found, expected = run(variables, maps, is_sparse=True), expect(state, maps)
    assert all(cells.all() for cells in found.outputs["active"])
    for ours, theirs in zip(found.outputs["quadtree"], expected[:-1], strict=True):
        assert far(ours[..., 1:], theirs[..., 1:]) < 1e-5
    assert far(found.logits, expected[-1][..., 1:]) < 1e-5


def test_sparse_decides_and_skips():
    """Pixels have the logits of the coarsest cell that is not composite, and what lies below it is never read."""
    _, variables, maps = imported(2, composite_bias=2.0)
    found = run(variables, maps, is_sparse=True)
    levels, active = found.outputs["quadtree"], found.outputs["active"]
    composite = [a & (y.argmax(-1) == 0) for y, a in zip(levels, active, strict=True)]
    for parents, cells in zip(composite, active[1:], strict=False):
        np.testing.assert_array_equal(np.repeat(np.repeat(parents, 2, 1), 2, 2), cells)
    for decided, level, stride in zip(composite, levels, STRIDES, strict=False):
        is_last = active[STRIDES.index(stride)] & ~decided
        assert is_last.any() or stride == 2
        spread = np.repeat(np.repeat(is_last, stride, 1), stride, 2)
        logits = np.repeat(np.repeat(level[..., 1:], stride, 1), stride, 2)
        np.testing.assert_array_equal(found.logits[spread], logits[spread])
    noise = [np.where(c[..., None], x, 1e3 + x) for x, c in zip(maps[:-1], composite[:0:-1], strict=True)]
    np.testing.assert_array_equal(run(variables, [*noise, maps[-1]], is_sparse=True).logits, found.logits)


def test_the_class_of_a_pixel_teaches_the_finest_level_alone():
    """The coarser levels, which decide some pixels, have losses of their own."""
    _, variables, maps = imported(2, composite_bias=2.0)

    def decided(params):
        stem, *stages = map(jnp.asarray, maps)
        features = Features(tuple(stages), stages[-1], stem)
        found, _ = QGN(CLASSES, WIDTH, True).apply(
            {**variables, "params": params}, features, None, True, mutable=["batch_stats"]
        )
        return jnp.square(found.logits).sum(), found.outputs["active"][-1].mean()

    gradient, reached = jax.jit(jax.grad(decided, has_aux=True))(variables["params"])
    assert 0.05 < reached < 0.95
    assert gradient["finest"]["kernel"].any()
    for stride in STRIDES[:-1]:
        assert not gradient[f"classify_{stride}"]["kernel"].any()


@pytest.mark.parametrize("composite_bias", [-1e4, 2.0, 1e4])
def test_skipping_equals_masking(composite_bias):
    """Where no cell, some cells and all cells of stride 32 are composite, for maps whose sides are odd."""
    _, variables, _ = imported(2, composite_bias)
    rng = np.random.default_rng(1)
    maps = [
        np.maximum(rng.normal(size=(2, *size, c)), 0).astype(np.float32)
        for size, c in zip(((38, 54), (19, 27), (10, 14), (5, 7), (3, 4)), (16, 32, 64, 128, 256), strict=True)
    ]
    found, expected = run(variables, maps, True), run(variables, maps, True, is_skipping=False)
    jax.tree.map(np.testing.assert_array_equal, found.outputs["active"], expected.outputs["active"])
    shares = [cells.mean() for cells in expected.outputs["active"]]
    assert shares[0] == 1 and all((0 < share < 1) == (composite_bias == 2) for share in shares[1:])
    pairs = [(found.logits, expected.logits), (found.features, expected.features)]
    levels = zip(found.outputs["quadtree"], expected.outputs["quadtree"], expected.outputs["active"], strict=True)
    pairs += [(ours[active], theirs[active]) for ours, theirs, active in levels]
    for ours, theirs in pairs:
        scale = max(np.abs(theirs).max(initial=0), 1e-30)
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)


def test_all_cells_are_composite_at_first():
    model = build_segmenter(CLASSES, backbone="resnet_tiny", context="qgn_sparse", representation="per_pixel")
    variables = initial_variables(model, 0)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)
    run = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"])[0].outputs["active"])
    assert all(cells.all() for cells in run(variables, images))


class Row(nn.Module):
    """A block that keeps the size and one that doubles it."""

    @nn.compact
    def __call__(self, x, active):
        return UpBlock(2, kernel=2, name="up")(BasicBlock(4, name="block")(x, False, active), False, active)


def test_masked_blocks_read_and_write_active_cells_only():
    """Cell by cell: a convolution sums over the active neighbors of an active cell."""
    rng = np.random.default_rng(0)
    x, active = rng.normal(size=(1, 4, 6, 4)).astype(np.float32), jnp.asarray(rng.random((1, 4, 6)) < 0.6)
    x = jnp.where(active[..., None], x, 0)
    variables = draw_all(Row(), x, active)
    found = Row().apply(variables, x, active)
    x, active = np.asarray(x), np.asarray(active)

    def norm(x, part, *names):
        params, stats = variables["params"][part], variables["batch_stats"][part]
        for name in names:
            params, stats = params[name], stats[name]
        return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]

    def conv(cells, kernel):
        result = {}
        for i, j in cells:
            taps = [(a, b, (i + a - 1, j + b - 1)) for a in range(3) for b in range(3)]
            result[i, j] = sum(cells[at] @ kernel[a, b] for a, b, at in taps if at in cells)
        return result

    def apply(f, cells):
        return {at: f(value) for at, value in cells.items()}

    cells = {at: x[0][at] for at in zip(*np.nonzero(active[0]), strict=True)}
    block, up = variables["params"]["block"], variables["params"]["up"]
    y = apply(lambda v: np.maximum(norm(v, "block", "bn1"), 0), conv(cells, block["conv1"]["kernel"]))
    y = apply(lambda v: norm(v, "block", "bn2"), conv(y, block["conv2"]["kernel"]))
    cells = {at: np.maximum(y[at] + cells[at], 0) for at in cells}
    y = apply(lambda v: np.maximum(norm(v, "up", "bn1"), 0), conv(cells, up["conv1"]["kernel"]))
    expected = np.zeros(found.shape)
    for i, j in cells:
        for a, b in np.ndindex(2, 2):
            main = norm(y[i, j] @ up["conv2"]["kernel"][a, b].T, "up", "bn2")
            beside = norm(cells[i, j] @ up["upsample"]["conv"]["kernel"][a, b].T, "up", "upsample", "bn")
            expected[0, 2 * i + a, 2 * j + b] = np.maximum(main + beside, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def draw_all(module, *inputs):
    rng = np.random.default_rng(1)
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))

    def fill(path, leaf):
        low = 0.5 if path[-1].key == "var" else -0.5
        return rng.uniform(low, low + 1, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, abstract)


@pytest.mark.parametrize(("context", "backbone"), [("qgn", "resnet_tiny"), ("qgn_sparse", "hrnet_tiny")])
def test_any_size_and_stride(context, backbone):
    """On a dilated ResNet and an HRNet; for images whose sides are multiples of the coarsest stride only."""
    model = build_segmenter(
        CLASSES,
        backbone=backbone,
        context=context,
        representation="per_pixel",
        strides=(8, 4),
        semantic_width=WIDTH,
        dtype="bfloat16",
    )
    assert model.strides == (8, 4, 2, 1)
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(model))
    found = jax.eval_shape(lambda: model.apply(variables, jnp.zeros((1, 40, 56, 3)), False))
    assert found.semantic[-1].shape == (1, 40, 56, CLASSES)
    labels = jnp.zeros((1, 40, 56), jnp.uint8)
    assert jax.eval_shape(lambda o: quadtree_loss(o, labels, "finest"), found.outputs).shape == ()
