"""Scores against slow twins, exact whatever the sizes and the batches."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from conftest import CLASSES, draw_pair, write_folder

from pyrseg_jax import parallel
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.inference import Predictor, make_network_size, upsample_argmax
from pyrseg_jax.evaluation.metrics import best_constant_miou, confusion_matrix, scores
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import build_segmenter


def test_confusion_matrix_equals_the_twin(rng):
    truth = rng.integers(0, 5, (3, 17, 19)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    predicted = rng.integers(0, 5, truth.shape).astype(np.uint8)
    found = jax.jit(confusion_matrix, static_argnums=2)(jnp.asarray(truth), jnp.asarray(predicted), 5)
    np.testing.assert_array_equal(found, twins.confusion_matrix(truth, predicted, 5))


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


def test_without_a_labelled_pixel_there_is_no_score():
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


@pytest.mark.parametrize("size", [(40, 70), (33, 64), (7, 5), (64, 128)])
def test_upsampled_classes_equal_the_twin(rng, size):
    probs = rng.random((9, 6, 4)).astype(np.float32)
    canvas = (64, 128)
    upsample = jax.jit(upsample_argmax, static_argnums=2)
    found = upsample(jnp.asarray(probs), jnp.asarray(size), canvas)[: size[0], : size[1]]
    expected = twins.bilinear(probs, size)
    top = np.sort(expected, -1)
    is_clear = top[..., -1] - top[..., -2] > 1e-5
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(found)[is_clear], expected.argmax(-1)[is_clear])


def test_sizes_share_one_program(rng):
    upsample = jax.jit(upsample_argmax, static_argnums=2)
    for size in ((40, 70), (33, 64), (7, 5)):
        upsample(jnp.zeros((9, 6, 4)), jnp.asarray(size), (64, 128))
    assert upsample._cache_size() == 1


@functools.cache
def tiny():
    """A network whose predictions differ from place to place: with variables that are not the untrained zeros."""
    model = build_segmenter(3, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    variables = initial_variables(model, seed=1)
    rng = np.random.default_rng(0)
    for head in ("semantic_head", "unity_head"):
        for layer in variables["params"][head].values():
            if "bias" in layer:
                layer["kernel"] = layer["kernel"] * 60
    # Centred, so that cells fall on both sides of the threshold.
    images = normalize(jnp.asarray(np.stack([draw_pair(rng, 64, 64)[0] for _ in range(4)])))
    for level, logits in enumerate(model.apply(variables, images).unity, 1):
        variables["params"]["unity_head"][f"unity_{level}"]["bias"] -= np.median(logits)
    return model, variables


def evaluate(root, batch_size, data=1):
    model, variables = tiny()
    dataset = open_dataset("folder", str(root), None)
    mesh = parallel.make_mesh(data=data)
    source = dataset.open_split("validation")
    evaluator = Evaluator(model, source, dataset.label_space, mesh, make_network_size(32, None, 2048), batch_size, 0.5)
    return evaluator(variables)


def two_sizes(tmp_path):
    root = write_folder(tmp_path / "a", {"validation": 5}, size=(60, 64))
    other = write_folder(tmp_path / "b", {"validation": 2}, size=(50, 67), seed=1)
    for kind in ("images", "annotations"):
        for path in (other / kind / "validation").iterdir():
            path.rename(root / kind / "validation" / f"other_{path.name}")
    return root


def comparable(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "compiled_programs")}


def test_the_last_batch_and_the_devices_do_not_matter(tmp_path):
    """Seven images of two sizes: one by one, in threes, in fours over four devices."""
    root = two_sizes(tmp_path)
    one_by_one = evaluate(root, batch_size=1)
    assert one_by_one["images"] == 7
    assert comparable(evaluate(root, batch_size=3)) == comparable(one_by_one)
    assert comparable(evaluate(root, batch_size=3, data=4)) == comparable(one_by_one)


def test_scores_are_those_of_the_predictions(tmp_path):
    """The evaluator against the predictor, image by image, with the slow confusion matrix."""
    root = two_sizes(tmp_path)
    model, variables = tiny()
    dataset = open_dataset("folder", str(root), None)
    source = dataset.open_split("validation")
    predict = Predictor(model, variables, make_network_size(32, None, 2048), (32, 16, 8, 4), 0.5)
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


def test_network_sizes_share_programs(tmp_path):
    root = write_folder(tmp_path, {"validation": 2}, size=(60, 64))
    for seed, size in enumerate([(61, 63), (62, 60)]):
        other = write_folder(tmp_path / f"{seed}", {"validation": 1}, size=size, seed=seed)
        for kind in ("images", "annotations"):
            for path in (other / kind / "validation").iterdir():
                path.rename(root / kind / "validation" / f"other_{seed}_{path.name}")
    assert evaluate(root, batch_size=2)["compiled_programs"] == 1
