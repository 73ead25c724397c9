"""PointRend and the cascade of layers against plain twins and laws, and evaluation of a finest level that is refined."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import twins
from support.data_sets import write_folder

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.analysis import compare_with_truth
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.padding import pad_view, unpad_view
from pyrseg_jax.evaluation.predict import fuse_pyramids
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.export.predictor import ExportedPredictor
from pyrseg_jax.export.read import read_export
from pyrseg_jax.export.write import write_export
from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.backbones.contract import Cut
from pyrseg_jax.models.contexts.contract import ContextOutput
from pyrseg_jax.models.contexts.layer_cascade import CascadeGate, CascadeMerge, LayerCascade, stage_loss
from pyrseg_jax.models.contexts.pointrend import PointHead, PointRefiner, choose_points, point_loss, uncertainty
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.layers import Bottleneck
from pyrseg_jax.models.resample import interpolate_at_points
from pyrseg_jax.models.segmenter import Pyramids, Segmenter, build_segmenter
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.mmseg_points import MMSEG_POINTS
from pyrseg_jax.models.weights.resnet_layout import RESNET_IMPORTERS
from pyrseg_jax.pyramid import fuse
from pyrseg_jax.pyramid.levels import to_children
from pyrseg_jax.reporting.cells import check_result
from pyrseg_jax.run.model_predictor import ModelPredictor

CLASSES = ("a", "b", "c")
TINY = {"semantic_width": 16, "key_width": 8, "unity_width": 8}


# A finest level that is refined.


class Fine(Segmenter):
    """Two coarse levels of logits, a finest one of a logit per pixel, and a unity pyramid; all linear in the mean color."""

    @nn.compact
    def __call__(self, images, train=False):
        cells = [nn.avg_pool(images, (stride, stride), (stride, stride)) for stride in self.prediction_strides]
        semantic = tuple(5 * nn.Dense(3, name=f"classify_{i}")(c) for i, c in enumerate(cells))
        unity = tuple(5 * nn.Dense(1, name=f"unity_{i}")(c)[..., 0] for i, c in enumerate(cells[:-1]))
        return Pyramids(semantic, unity)


def fine_model():
    unused = nn.Dense(1)
    model = Fine(
        backbone=unused, context=unused, semantic_head=unused, refiner=unused, strides=(16, 8, 4), refined_stride=1
    )
    return model, model.init(jax.random.key(3), jnp.zeros((1, 16, 16, 3)))


def draw_pyramid(rng, n=2, side=2, refinement=4):
    sides = (side, 2 * side, 2 * side * refinement)
    probs = [rng.dirichlet(np.ones(3), (n, s, s)).astype(np.float32) for s in sides]
    return probs, [rng.random((n, s, s)).astype(np.float32) for s in sides[:-1]]


@pytest.mark.parametrize("refinement", [2, 4, 8])
def test_a_refined_level_is_taken_exactly_where_the_finest_level_decides(rng, refinement):
    probs, unity = draw_pyramid(rng, refinement=refinement)
    found = fuse(probs, unity)
    plain = [*probs[:-1], probs[-1][:, :: refinement // 2, :: refinement // 2]]
    level = to_children(fuse(plain, unity).level, refinement // 2)
    np.testing.assert_array_equal(found.level, level)
    is_finest = np.asarray(level == 2)
    assert 0.1 < is_finest.mean() < 0.9
    np.testing.assert_array_equal(np.asarray(found.probs)[is_finest], probs[-1][is_finest])
    coarse = np.asarray(to_children(fuse(plain, unity).probs, refinement // 2))
    np.testing.assert_array_equal(np.asarray(found.probs)[~is_finest], coarse[~is_finest])


@pytest.mark.parametrize("times", [3, 6])
def test_a_level_of_any_other_size_is_refused(times):
    maps = [jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2 * times, 2 * times, 3))]
    with pytest.raises(ValueError, match="only the finest may be 4, 8"):
        fuse(maps, [jnp.zeros((1, 2, 2))])


def test_padding_keeps_a_refined_prediction(rng):
    probs, unity = draw_pyramid(rng)
    prediction = fuse_pyramids([jnp.asarray(p) for p in probs], [jnp.asarray(u) for u in unity], 0.5)
    assert prediction.refinement == 2
    view = pad_view(prediction, jnp.zeros(2, bool))
    back = unpad_view(view, prediction.unity, prediction.level.shape[1:])
    jax.tree.map(np.testing.assert_array_equal, prediction, back)


def test_analysis_of_a_refined_prediction_equals_the_twin(rng):
    """The true unity of the coarse levels and the true classes of single pixels."""
    probs, unity = draw_pyramid(rng, n=1, refinement=8)
    labels = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)[None]  # cells of 8 pixels
    labels[0, :3, :5], labels[0, 20:22] = 255, 1
    prediction = jax.jit(fuse_pyramids, static_argnums=2)(
        [jnp.asarray(p) for p in probs], [jnp.asarray(u) for u in unity], 0.5
    )
    truth, counts = jax.jit(compare_with_truth, static_argnums=2)(prediction, jnp.asarray(labels), 0.5)
    semantic, is_unit = twins.build_targets(labels, (16, 8, 1), "agree")
    cells = np.concatenate([p.reshape(-1, 3) for p in probs])
    for at in np.ndindex(32, 32):
        up = (at[0] // 16, at[1] // 16), (at[0] // 8, at[1] // 8)
        expected = (probs[0][0][up[0]], probs[1][0][up[1]], probs[2][0][at])
        first = 0 if is_unit[0][0][up[0]] == 1 else 1 if is_unit[1][0][up[1]] == 1 else 2
        np.testing.assert_array_equal(cells[truth.chosen[0, at[0] * 32 + at[1]]], expected[first])
        level = int(prediction.level[0][at])
        target = (semantic[0][0][up[0]], semantic[1][0][up[1]], semantic[2][0][at])[level]
        if target != 255:
            assert truth.classes[0, at[0] * 32 + at[1]] == target
    assert counts["unity_true"].tolist() == [[(u == 1).sum() for u in is_unit]]


@pytest.mark.parametrize("protocol", [Protocol(), Protocol(window_px=32, short_side_px=48)], ids=["whole", "windows"])
def test_evaluation_of_a_refined_network_equals_its_predictions(tmp_path, protocol):
    model, variables = fine_model()
    root = write_folder(tmp_path, {"validation": 2}, size=(45, 60))
    dataset = open_dataset("folder", str(root), None)
    source = dataset.open_split("validation")
    predict = ModelPredictor(model, variables, protocol, 0.5, ade_layout(CLASSES))
    confusion, levels = np.zeros((3, 3), int), np.zeros(3)
    for i in range(len(source)):
        pair = decode_pair(source[i], dataset.label_space)
        found = predict(pair.image)
        check_result(found)
        assert found.strides == (16, 8, 1)
        assert found.probs.shape[:2] == tuple(16 * side for side in found.unity[0].shape)
        confusion += twins.confusion_matrix(pair.label, found.labels, 3)
        levels += np.bincount(found.level.ravel(), minlength=3)
        if protocol.window_px is None:
            upsampled = twins.bilinear(found.probs, found.labels.shape)
            top = np.sort(upsampled, -1)
            is_clear = top[..., -1] - top[..., -2] > 1e-4
            np.testing.assert_array_equal(found.labels[is_clear], upsampled.argmax(-1)[is_clear])
    assert (levels > 0).sum() >= 2, levels
    mesh = mesh_lib.make_mesh(data=1, devices=jax.devices()[:1])
    result = Evaluator(model, source, dataset.label_space, mesh, protocol, 2, 0.5)(variables, is_analyzed=True)
    np.testing.assert_array_equal(result["confusion"], confusion)
    if protocol.window_px is None:
        np.testing.assert_allclose(result["level_share"], levels / levels.sum())
        assert result["cells_per_image"] == pytest.approx((levels / [256, 64, 1]).sum() / 2)
        assert np.array(result["level_miou"], object).shape == (3, 3)


def test_an_exported_pointrend_segments_as_the_network(tmp_path, rng):
    model = build_segmenter(3, backbone="hrnet_tiny", context="pointrend", strides=(16, 8, 4), **TINY)
    variables = initial_variables(model, 0)
    path = tmp_path / "model.zip"
    write_export(path, model, variables, ade_layout(CLASSES), [(32, 64)], 0.5, {"step": 1, "run": "0"})
    image = rng.integers(0, 256, (32, 64, 3), np.uint8)
    exported = ExportedPredictor(read_export(path))(image)
    ours = ModelPredictor(model, variables, Protocol(short_side_px=32), 0.5, ade_layout(CLASSES))(image)
    assert exported.strides == ours.strides == (16, 8, 1)
    np.testing.assert_allclose(exported.probs, ours.probs, atol=1e-5)
    np.testing.assert_array_equal(exported.level, ours.level)
    ours.show_pyramid()


# PointRend.


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_interpolation_at_points_equals_the_twin(height, width, seed):
    rng = np.random.default_rng(seed)
    x, points = rng.normal(size=(1, height, width, 2)).astype(np.float32), rng.random((1, 9, 2)).astype(np.float32)
    points[0, :3] = [[0, 0], [1, 1], [0, 1]]
    found = interpolate_at_points(jnp.asarray(x), jnp.asarray(points))
    for (row, column), value in zip(points[0], np.asarray(found)[0], strict=True):
        weights = [np.maximum(0, 1 - np.abs(at * n - 0.5 - np.arange(n))) for at, n in ((row, height), (column, width))]
        np.testing.assert_allclose(value, np.einsum("i,j,ijc->c", *weights, x[0]), atol=1e-5)


def draw_head(rng, classes=4, fine_width=6):
    fine, coarse = (jnp.asarray(rng.normal(size=(2, 3, 5, c)), jnp.float32) for c in (fine_width, classes))
    refiner = PointRefiner(classes, 8, num_training_points=40, num_points=10**9)
    found = ContextOutput((fine,), outputs={"fine": fine})
    arguments = (Features((), fine), found, coarse, False)
    abstract = jax.eval_shape(lambda: refiner.init(jax.random.key(0), *arguments))
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), abstract)
    return refiner, variables, arguments


def test_choosing_all_pixels_gives_the_point_head_everywhere(rng):
    refiner, variables, arguments = draw_head(rng)
    _, found, coarse, _ = arguments
    refined = jax.jit(refiner.apply, static_argnums=4)(variables, *arguments).logits
    rows, columns = np.meshgrid((np.arange(12) + 0.5) / 12, (np.arange(20) + 0.5) / 20, indexing="ij")
    points = jnp.asarray(np.tile(np.stack([rows, columns], -1).reshape(1, -1, 2), (2, 1, 1)), jnp.float32)
    head = {"params": variables["params"]["head"]}
    expected = PointHead(4, 8).apply(head, found.outputs["fine"], coarse, points)
    np.testing.assert_allclose(refined.reshape(2, -1, 4), expected, rtol=1e-4, atol=1e-4)
    once = jax.jit(refiner.clone(num_points=7).apply, static_argnums=4)(variables, *arguments).logits
    is_changed = (np.asarray(once) == np.asarray(refined)).all(-1)
    assert 7 <= is_changed.sum((1, 2)).min() < 60


def test_logits_are_doubled_twice_where_no_point_is_chosen(rng):
    refiner, variables, arguments = draw_head(rng)
    found = refiner.clone(num_points=0).apply(variables, *arguments).logits
    for expected, ours in zip(np.float64(arguments[2]), found, strict=True):
        for size in ((6, 10), (12, 20)):
            expected = twins.bilinear(expected, size)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_point_head_equals_its_formula(rng):
    _, variables, (_, found, coarse, _) = draw_head(rng)
    head = variables["params"]["head"]
    point = np.array([1.5 / 3, 2.5 / 5])  # the center of row 1, column 2
    x = np.concatenate([found.outputs["fine"][0, 1, 2], coarse[0, 1, 2]])
    for i in (1, 2, 3):
        layer = head[f"hidden_{i}"]
        x = np.concatenate([np.maximum(x @ layer["kernel"][0, 0] + layer["bias"], 0), coarse[0, 1, 2]])
    expected = x @ head["classify"]["kernel"][0, 0] + head["classify"]["bias"]
    points = jnp.asarray(np.tile(point, (2, 1, 1)), jnp.float32)
    logits = PointHead(4, 8).apply({"params": head}, found.outputs["fine"], coarse, points)
    np.testing.assert_allclose(logits[0, 0], expected, rtol=1e-4)


def test_training_points_are_the_most_uncertain_ones_and_some_at_random(rng):
    logits = jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32)
    points = choose_points(jax.random.key(0), logits, 400)
    assert points.shape == (2, 400, 2) and float(points.min()) >= 0 and float(points.max()) <= 1
    doubt = np.asarray(uncertainty(interpolate_at_points(logits, points)))
    assert (doubt <= 0).all()
    uncertain, others = doubt[:, :300], doubt[:, 300:]
    # 300 of 1200 candidates: about as uncertain as the first quarter of the points at random.
    assert ((others > uncertain.min(1, keepdims=True)).mean(1) < 0.4).all()
    assert ((others > uncertain.min(1, keepdims=True)).mean(1) > 0.1).all()
    top = np.sort(np.asarray(logits), -1)
    np.testing.assert_allclose(uncertainty(logits), top[..., -2] - top[..., -1], rtol=1e-6)


def test_the_loss_of_points(rng):
    """It equals the twin, ignores void, and no gradient flows through the choice of points."""
    refiner, variables, arguments = draw_head(rng)
    features, found, coarse, _ = arguments
    labels = rng.integers(0, 4, (2, 12, 20)).astype(np.uint8)
    labels[:, :, :7] = 255

    @jax.jit
    def run(coarse):
        return refiner.apply(variables, features, found, coarse, True, rngs={"dropout": jax.random.key(1)})

    refined = run(coarse)
    np.testing.assert_array_equal(refined.logits, coarse)
    points, logits = refined.outputs["points"]
    losses = []
    for i, p in np.ndindex(2, 40):
        row, column = (int(c * n) for c, n in zip(np.asarray(points)[i, p], labels.shape[1:], strict=True))
        if labels[i, row, column] != 255:
            x = np.asarray(logits, np.float64)[i, p]
            losses.append(np.log(np.exp(x - x.max()).sum()) + x.max() - x[labels[i, row, column]])
    loss = point_loss(refined.outputs, jnp.asarray(labels), "finest")
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    fixed = jax.grad(
        lambda c: (
            PointHead(4, 8).apply({"params": variables["params"]["head"]}, found.outputs["fine"], c, points)
        ).sum()
    )(coarse)
    np.testing.assert_allclose(jax.grad(lambda c: run(c).outputs["points"][1].sum())(coarse), fixed, atol=1e-4)


def test_names_of_mmsegmentations_pointrend(rng):
    options = {"context": "pointrend", "representation": "per_pixel", "output_stride": 32, "semantic_width": 32}
    abstract = abstract_variables(build_segmenter(3, backbone="resnet_tiny", **options))
    shapes = {
        "neck.lateral_convs.3.conv.weight": (16, 256, 1, 1),
        "neck.lateral_convs.3.conv.bias": (16,),
        "neck.fpn_convs.0.conv.weight": (16, 16, 3, 3),
        "decode_head.0.scale_heads.3.4.conv.weight": (8, 8, 3, 3),
        "decode_head.0.scale_heads.2.0.bn.running_mean": (8,),
        "decode_head.0.conv_seg.weight": (3, 8, 1, 1),
        "decode_head.1.fcs.2.conv.weight": (16, 19, 1),
        "decode_head.1.fcs.0.conv.bias": (16,),
        "decode_head.1.fc_seg.weight": (3, 19, 1),
    }
    ours = {
        "neck.lateral_convs.3.conv.weight": ("params", "context", "context", "lateral_4", "kernel"),
        "neck.lateral_convs.3.conv.bias": ("params", "context", "context", "lateral_4", "bias"),
        "neck.fpn_convs.0.conv.weight": ("params", "context", "context", "smooth_1", "kernel"),
        "decode_head.0.scale_heads.3.4.conv.weight": ("params", "context", "context", "scale_4_3", "conv", "kernel"),
        "decode_head.0.scale_heads.2.0.bn.running_mean": (
            "batch_stats",
            "context",
            "context",
            "scale_3_1",
            "bn",
            "mean",
        ),
        "decode_head.0.conv_seg.weight": ("params", "semantic_head", "classify_4", "kernel"),
        "decode_head.1.fcs.2.conv.weight": ("params", "refiner", "head", "hidden_3", "kernel"),
        "decode_head.1.fcs.0.conv.bias": ("params", "refiner", "head", "hidden_1", "bias"),
        "decode_head.1.fc_seg.weight": ("params", "refiner", "head", "classify", "kernel"),
    }
    importer = next(importer for importer in RESNET_IMPORTERS if MMSEG_POINTS[0] in importer.heads)
    flat = {(kind, *path): leaf for kind, tree in abstract.items() for path, leaf in _flatten(tree["backbone"])}
    state = {}
    for path, leaf in flat.items():
        array = np.ones(leaf.shape, np.float32)
        name = importer.name_of(path)
        state[f"backbone.{name}"] = array.transpose(3, 2, 0, 1) if path[-1] == "kernel" else array
    state |= {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}
    found = import_weights(state, abstract, RESNET_IMPORTERS)
    assert not found.left and found.trained == {"output_stride": 32}
    for name, path in ours.items():
        array = state[name]
        if array.ndim > 1:
            array = array.reshape(*array.shape[:2], *(array.shape[2:] if array.ndim == 4 else (1, 1)))
            array = array.transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found.variables[path], array)


def _flatten(tree, path=()):
    for name, value in tree.items():
        yield from _flatten(value, (*path, name)) if hasattr(value, "items") else [((*path, name), value)]


# The cascade of layers.


def cascade(backbone, threshold, **options):
    model = build_segmenter(
        3, backbone=backbone, context="layer_cascade", representation="per_pixel", **TINY, **options
    )
    return model.clone(gate=model.gate.clone(threshold=threshold, training_threshold=threshold))


@pytest.mark.parametrize("backbone", ["resnet_tiny", "hrnet_tiny"])
def test_the_cascade_decides_each_position_once(backbone, rng):
    """With ρ > 1 the network is the plain one; else, positions keep exactly the logits of the stage that was sure."""
    model = cascade(backbone, 2.0)
    variables = initial_variables(model, 0, 128)
    for name in ("classify_1", "classify_2"):
        variables["params"]["gate"][name]["kernel"] *= 100.0
    images = jnp.asarray(rng.normal(size=(2, 64, 128, 3)), jnp.float32)

    def run(threshold):
        gated = cascade(backbone, threshold)

        @jax.jit
        def all_of_it(variables):
            plain = gated.apply(variables, images, method=lambda m, x: m.backbone(x, False))
            found = gated.apply(variables, images, method=lambda m, x: m.backbone(x, False, m.gate))
            return plain.final, found, gated.apply(variables, images)

        return all_of_it(variables)

    plain, found, predicted = run(2.0)
    np.testing.assert_allclose(found.final, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(predicted.outputs["decided"], [[0, 0, 1]] * 2)
    all_cuts = predicted.outputs["cuts"]
    threshold = float(np.median(jax.nn.softmax(all_cuts[0].logits).max(-1)))
    plain, found, predicted = run(threshold)
    first, second = predicted.outputs["cuts"]
    is_sure = np.asarray(~first.is_open)
    assert 0.2 < is_sure.mean() < 0.8
    np.testing.assert_allclose(first.logits, all_cuts[0].logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(predicted.semantic[-1])[is_sure], np.asarray(first.logits)[is_sure])
    kept_second = np.asarray(first.is_open & ~second.is_open)
    np.testing.assert_array_equal(
        np.asarray(predicted.semantic[-1])[kept_second], np.asarray(second.logits)[kept_second]
    )
    assert not (np.asarray(second.is_open) & is_sure).any()
    shares = [is_sure.mean((1, 2)), kept_second.mean((1, 2)), np.asarray(second.is_open).mean((1, 2))]
    np.testing.assert_allclose(predicted.outputs["decided"], np.stack(shares, -1), atol=1e-6)
    # The coarse branches of an HRNet reach over the edge of what is open, and its finest one does not.
    masked = found.final if backbone == "resnet_tiny" else found.stages[0]
    assert not np.asarray(masked)[~np.asarray(second.is_open)].any()


def test_a_masked_block_is_a_submanifold_convolution(rng):
    """Position by position: closed positions are neither read nor written."""
    block = Bottleneck(2, dilation=2)
    x, mask = rng.normal(size=(1, 6, 7, 8)).astype(np.float32), rng.random((1, 6, 7)) < 0.6
    x[~mask] = 0
    abstract = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.asarray(x), False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), abstract)
    params, stats = variables["params"], variables["batch_stats"]

    def norm(name, y):
        bn = params[name]
        return (y - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-5) * bn["scale"] + bn["bias"]

    expected = np.zeros_like(x)
    inner = {
        at: np.maximum(norm("bn1", x[0][at] @ params["conv1"]["kernel"][0, 0]), 0)
        for at in np.ndindex(6, 7)
        if mask[0][at]
    }
    for i, j in inner:
        taps = [((a, b), (i + 2 * a - 2, j + 2 * b - 2)) for a, b in np.ndindex(3, 3)]
        y = sum(inner[at] @ params["conv2"]["kernel"][tap] for tap, at in taps if at in inner)
        y = norm("bn3", np.maximum(norm("bn2", y), 0) @ params["conv3"]["kernel"][0, 0])
        expected[0, i, j] = np.maximum(x[0, i, j] + y, 0)
    found = block.apply(variables, jnp.asarray(x), False, jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_each_stage_learns_from_the_positions_that_reach_it(rng):
    logits = [jnp.asarray(rng.normal(size=(1, 4, 4, 3)), jnp.float32) for _ in range(3)]
    opens = [jnp.asarray(rng.random((1, 4, 4)) < 0.6)]
    opens.append(opens[0] & jnp.asarray(rng.random((1, 4, 4)) < 0.6))
    labels = np.kron(rng.integers(0, 3, (1, 4, 4)), np.ones((1, 2, 2), int)).astype(np.uint8)
    features = Features((), logits[2], cuts=tuple(Cut(*pair, pair[0]) for pair in zip(logits[:2], opens, strict=True)))
    found = ContextOutput((logits[2],))
    outputs = CascadeMerge().apply({}, features, found, logits[2], True).outputs
    for index, reach in enumerate((np.ones((1, 4, 4), bool), np.asarray(opens[0]))):
        x = np.asarray(logits[index])
        losses = np.log(np.exp(x).sum(-1)) - np.take_along_axis(x, labels[:, ::2, ::2, None].astype(int), -1)[..., 0]
        np.testing.assert_allclose(
            stage_loss(outputs, jnp.asarray(labels), "finest", index=index), losses[reach].mean(), rtol=1e-5
        )

    def merged(logits):
        cuts = tuple(Cut(*pair, pair[0]) for pair in zip(logits[:2], opens, strict=True))
        return CascadeMerge().apply({}, features._replace(cuts=cuts), found, logits[2], True).logits.sum()

    first, second, last = jax.grad(merged)(logits)
    assert not first.any() and not second.any()
    np.testing.assert_array_equal(last[..., 0], opens[1])


def test_a_gate_keeps_what_is_closed_closed(rng):
    gate = CascadeGate(3, 4, threshold=0.5)
    x, mask = jnp.asarray(rng.normal(size=(1, 4, 4, 2)), jnp.float32), jnp.asarray(rng.random((1, 4, 4)) < 0.5)
    variables = gate.init(jax.random.key(0), 1, x, mask, False)
    assert not (gate.apply(variables, 1, x, mask, False).is_open & ~mask).any()


def test_a_gate_has_a_threshold_of_its_own_in_training(rng):
    gate = CascadeGate(3, 4)
    assert (gate.training_threshold, gate.threshold) == (0.95, 0.985)
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 2)), jnp.float32)
    variables = gate.init(jax.random.key(0), 1, x, None, False)
    gate = gate.clone(training_threshold=0.0, threshold=2.0)
    assert gate.apply(variables, 1, x, None, False).is_open.all()
    assert not gate.apply(variables, 1, x, None, True, mutable=["batch_stats"])[0].is_open.any()


def test_the_levels_of_a_pyramid_read_the_map_of_the_stage_that_answered(rng):
    maps = [jnp.asarray(rng.normal(size=(1, 4, 6, 5)), jnp.float32) for _ in range(3)]
    first = rng.random((1, 4, 6)) < 0.7
    second = first & (rng.random((1, 4, 6)) < 0.7)
    module = LayerCascade(5)

    def read(first, second, final):
        cuts = tuple(Cut(x, jnp.asarray(o), x) for x, o in zip(maps, (first, second), strict=False))
        features = Features((), jnp.asarray(final), cuts=cuts)
        variables = module.init(jax.random.key(0), features, None, False)
        return np.asarray(module.apply(variables, features, None, False).features)

    found = read(first, second, maps[2])
    np.testing.assert_array_equal(found[~first], np.asarray(maps[0])[~first])
    np.testing.assert_array_equal(found[first & ~second], np.asarray(maps[1])[first & ~second])
    every = np.ones_like(first)
    expected = read(every, every, np.where(second[..., None], maps[2], 0))
    np.testing.assert_allclose(found[second], expected[second], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("context", "reads_context"), [("none", False), ("danet", False), ("layer_cascade", True), ("upernet", True)]
)
def test_the_unity_head_reads_a_map_without_holes(context, reads_context):
    """Decoders and cascades give it their own map; below other modules it reads the backbone's, as in the paper."""
    assert build_segmenter(3, backbone="resnet_tiny", context=context).unity_reads_context == reads_context


@pytest.mark.parametrize(
    "options", [{"backbone": "resnet_tiny", "output_stride": 32}, {"backbone": "resnet_tiny", "output_stride": 16}]
)
def test_a_cascade_says_which_output_stride_it_needs(options):
    with pytest.raises(ValueError, match=r"context='layer_cascade' needs output_stride=8"):
        build_segmenter(3, context="layer_cascade", **options)


@pytest.mark.parametrize("context", ["pointrend", "layer_cascade"])
@pytest.mark.parametrize("backbone", ["resnet101", "hrnet_w48"])
def test_shapes_at_full_size_in_half_precision(context, backbone):
    model = build_segmenter(150, backbone=backbone, context=context, dtype="bfloat16")
    side = 2 * model.strides[0]
    variables = abstract_variables(model, side)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    found = jax.eval_shape(lambda v, x: model.apply(v, x), variables, images)
    sizes = [(1, side // stride, side // stride, 150) for stride in model.prediction_strides]
    assert [x.shape for x in found.semantic] == sizes
    assert all(x.dtype == jnp.float32 for x in (*found.semantic, *found.unity))
    training = jax.eval_shape(
        lambda v, x: model.apply(v, x, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})[0],
        variables,
        images,
    )
    assert training.semantic[-1].shape == (1, side // model.strides[-1], side // model.strides[-1], 150)
