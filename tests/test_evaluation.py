"""Scores against slow twins: exact whatever the image sizes and the batch size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import twins
from support.data_sets import CLASSES
from support.evaluation import comparable, evaluate, predictor, programs_compiled, two_sizes

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.evaluation.batches import evaluation_batches
from pyrseg_jax.evaluation.metrics import best_constant_miou, scores
from pyrseg_jax.evaluation.padding import PaddedView, padded_positions
from pyrseg_jax.evaluation.pixels import labels_of_pixels, padded_pixels
from pyrseg_jax.evaluation.views import Protocol, make_protocol
from pyrseg_jax.models.resample import class_of_pixels


def test_the_three_conventions_of_miou():
    """Class b is predicted but never true, class d is in neither."""
    confusion = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]])
    found = scores(confusion, "abcd")
    iou = {"a": 6 / 9, "b": 0.0, "c": 3 / 4, "d": None}
    assert found["iou"] == pytest.approx(iou)
    assert found["miou"] == pytest.approx((6 / 9 + 0 + 3 / 4) / 3)
    assert found["miou_all_classes"] == pytest.approx((6 / 9 + 3 / 4) / 4)
    assert found["classes_averaged"] == 3
    assert found["pixel_accuracy"] == pytest.approx(9 / 12)
    assert found["mean_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)


def test_without_a_labeled_pixel_there_is_no_score():
    found = scores(np.zeros((2, 2), int), "ab")
    assert found["miou"] is found["pixel_accuracy"] is None
    json.dumps(found)


def test_best_constant_prediction(rng):
    truth = rng.choice(4, size=1000, p=[0.1, 0.6, 0.3, 0.0])
    confusion = twins.confusion_matrix(truth, truth, 4)
    candidates = []
    for constant in range(4):
        matrix = twins.confusion_matrix(truth, np.full_like(truth, constant), 4)
        candidates.append(scores(matrix, "abcd")["miou"])
    assert best_constant_miou(confusion) == pytest.approx(max(candidates))


def view_of(probs, is_mirrored=False):
    """Return a view of one image whose finest level is `probs` and decides everywhere."""
    height, width, num_classes = probs.shape
    size = padded_positions(height * width)
    cells = np.zeros((1, 4 * size // 3 + 1, num_classes), np.float32)
    cells[0, : height * width] = probs.reshape(-1, num_classes)
    rows = np.arange(size, dtype=np.int32)[None]
    counts, grid = np.array([[height * width]], np.int32), np.array([[height, width]], np.int32)
    return PaddedView(cells, rows, np.zeros_like(rows), counts, grid, np.array([is_mirrored]))


def labels_at(views, size):
    found = labels_of_pixels(views, np.array(size, np.int32), padded_pixels(size[0] * size[1]))
    return np.asarray(found)[: size[0] * size[1]].reshape(size)


@pytest.mark.parametrize("size", [(40, 70), (33, 64), (7, 5), (64, 128), (150, 131)])
def test_upsampled_classes_equal_the_twin(rng, size):
    probs = rng.random((9, 6, 4)).astype(np.float32)
    expected = twins.bilinear(probs, size)
    top = np.sort(expected, -1)
    is_clear = top[..., -1] - top[..., -2] > 1e-5
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(labels_at([view_of(probs)], size)[is_clear], expected.argmax(-1)[is_clear])


def test_views_are_averaged_at_the_size_of_the_label_map(rng):
    """Two scales, the second one mirrored."""
    first, second = rng.random((4, 5, 3)).astype(np.float32), rng.random((9, 6, 3)).astype(np.float32)
    size = (31, 40)
    expected = twins.bilinear(first, size) + twins.bilinear(second, size)[:, ::-1]
    top = np.sort(expected, -1)
    is_clear = top[..., -1] - top[..., -2] > 1e-5
    found = labels_at([view_of(first), view_of(second, is_mirrored=True)], size)
    np.testing.assert_array_equal(found[is_clear], expected.argmax(-1)[is_clear])


def test_sizes_share_one_program():
    with programs_compiled() as names:
        for grid, size in (((9, 6), (40, 70)), ((8, 8), (33, 64)), ((2, 31), (7, 5))):
            labels_at([view_of(np.zeros((*grid, 7), np.float32))], size)
    assert names == ["jit(labels_of_pixels)"]


def test_batches_hold_each_image_once_with_its_own_label(tmp_path):
    root = two_sizes(tmp_path)
    dataset = open_dataset("folder", str(root), None)
    source, space = dataset.open_split("validation"), dataset.label_space
    protocol = Protocol(scales=(1.0, 2.0))
    found = []
    for batch in evaluation_batches(source, space, protocol.sizes, 2):
        assert [x.shape for x in batch.images] == [(2, 64, 64, 3), (2, *batch.images[1].shape[1:])]
        assert (batch.labels[~batch.is_real] == VOID).all()
        for size, labels, near in zip(batch.sizes, batch.labels, batch.is_near_boundary, strict=True):
            assert (labels[size.prod() :] == VOID).all()
            assert not near[size.prod() :].any()
        for i in np.flatnonzero(batch.is_real):
            found.append(batch.labels[i, : batch.sizes[i].prod()].reshape(batch.sizes[i]))
    expected = [decode_pair(source[i], space).label for i in range(len(source))]
    assert sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in expected)


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        ((360, 480), (None, 2048), (352, 480)),
        ((512, 683), (512, 2048), (512, 672)),
        ((3000, 4000), (512, 2048), (512, 672)),
        ((100, 5000), (512, 2048), (32, 2048)),
        ((1, 1), (None, 2048), (32, 32)),
    ],
)
def test_network_size(size, rule, expected):
    assert make_protocol("single", *rule, 32).sizes(*size) == (expected,)


def test_batch_size_and_number_of_devices_do_not_change_the_scores(tmp_path):
    """Seven images of two sizes: one by one, in threes, in fours over four devices."""
    root = two_sizes(tmp_path)
    one_by_one = evaluate(root, batch_size=1)
    assert one_by_one["images"] == 7
    assert comparable(evaluate(root, batch_size=3)) == comparable(one_by_one)
    assert comparable(evaluate(root, batch_size=3, data=4)) == comparable(one_by_one)


def test_scores_are_those_of_the_predictions(tmp_path):
    """Compare the evaluator with the predictor, image by image, and with a slow confusion matrix."""
    root = two_sizes(tmp_path)
    dataset = open_dataset("folder", str(root), None)
    source = dataset.open_split("validation")
    predict = predictor()
    confusion, levels, cells, pixels = np.zeros((3, 3), int), np.zeros(4), 0, 0
    for i in range(len(source)):
        pair = decode_pair(source[i], dataset.label_space)
        found = predict(pair.image)
        assert found.labels.shape == pair.label.shape
        confusion += twins.confusion_matrix(pair.label, found.labels, 3)
        counts = np.bincount(found.level.ravel(), minlength=4)
        levels += counts
        cells += (counts / [64, 16, 4, 1]).sum()
        pixels += pair.label.size
        probs, level = twins.fuse([np.eye(3)[s][None] for s in found.semantic], [u[None] for u in found.unity], 0.5)
        np.testing.assert_array_equal(level[0], found.level)
        np.testing.assert_array_equal(probs[0].argmax(-1), found.probs.argmax(-1))
    assert (levels > 0).sum() >= 2, levels
    result = evaluate(root, batch_size=3)
    expected = scores(confusion, CLASSES)
    assert {name: result[name] for name in expected} == expected
    np.testing.assert_allclose(result["level_share"], levels / levels.sum())
    assert result["cells_per_image"] == pytest.approx(cells / 7)
    assert result["pixels_per_image"] == pytest.approx(pixels / 7)
    json.dumps(result)


@pytest.mark.parametrize(
    ("shape", "factor"), [((2, 5, 7, 6), 4), ((1, 4, 4, 3), 1), ((3, 1, 2, 255), 3), ((1, 6, 3, 1), 2)]
)
def test_the_class_of_pixels_is_the_argmax_of_the_interpolation(rng, shape, factor):
    n, h, w, num_classes = shape
    probs = jnp.asarray(rng.dirichlet(np.ones(num_classes), size=shape[:3]), jnp.float32)
    whole = jax.image.resize(probs, (n, factor * h, factor * w, num_classes), "bilinear", antialias=False)
    found = jax.jit(class_of_pixels, static_argnames="size")(probs, size=(factor * h, factor * w))
    chosen = jnp.take_along_axis(whole, found[..., None].astype(jnp.int32), -1)[..., 0]
    np.testing.assert_allclose(chosen, whole.max(-1), rtol=0, atol=1e-6)
    assert (np.asarray(found) == np.asarray(whole.argmax(-1))).mean() > 0.99  # but for near ties


@pytest.mark.parametrize("num_classes", [5, 13])  # 13: the last round compares classes again
def test_equal_probabilities_go_to_the_lower_class(num_classes):
    assert not class_of_pixels(jnp.full((1, 2, 2, num_classes), 0.05), (8, 8)).any()


def test_a_size_that_is_not_a_multiple_of_the_map_is_refused():
    with pytest.raises(
        ValueError, match=r"size=\(8, 9\): expected the same multiple of both sides of the map, \(2, 2\)"
    ):
        class_of_pixels(jnp.zeros((1, 2, 2, 5)), (8, 9))
