"""Scores of classes and images against plain twins, and the counts of each image in a workdir."""

import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from support import slow_losses, twins
from support.data_sets import CLASSES
from support.evaluation import comparable, evaluate, predictor, two_sizes

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.image_scores import (
    ImageCounts,
    collect_counts,
    from_lists,
    image_scores,
    iou_of_images,
    to_lists,
)
from pyrseg_jax.evaluation.metrics import class_scores
from pyrseg_jax.reporting.evaluation_table import evaluation_table
from pyrseg_jax.run.image_counts import path_of, read_image_counts, write_image_counts

NAMES = "abcd"
PAIRS = st.lists(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, VOID]), st.integers(0, 3)), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)


def close(found, expected):
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected, rel=1e-12)


@given(PAIRS)
def test_scores_of_classes_equal_the_twin(images):
    truth, predicted = map(np.array, zip(*sum(images, []), strict=True))
    confusion = twins.confusion_matrix(truth, predicted, 4)
    found = class_scores(confusion, NAMES)
    expected, weighted = slow_losses.scores(confusion.tolist())
    close(found["frequency_weighted_iou"], weighted)
    assert found["dice"] == found["f1"] and found["mean_dice"] == found["mean_f1"]
    for name, values in expected.items():
        for letter, value in zip(NAMES, values, strict=True):
            close(found[name][letter], value)
        there = [value for value in values if value is not None]
        close(found[f"mean_{name}"], np.mean(there) if there else None)
    json.dumps(found)


def counts_of(truths, predictions, num_classes=4):
    """Count each image with NumPy."""
    found = []
    for truth, predicted in zip(truths, predictions, strict=True):
        matrix = twins.confusion_matrix(truth, predicted, num_classes)
        found.append(np.stack([np.diag(matrix), matrix.sum(0), matrix.sum(1)], -1))
    return np.array(found)


@given(PAIRS)
def test_scores_of_images_equal_the_twin(images):
    truths, predictions = (
        [np.array(x) for x in xs] for xs in zip(*(zip(*image, strict=True) for image in images), strict=True)
    )
    counts = counts_of(truths, predictions)
    found = image_scores(ImageCounts(("",) * len(images), counts), NAMES)
    of_images, of_classes, means = slow_losses.image_scores(truths, predictions, 4)
    close(found["image_miou"], of_images)
    close(found["class_image_miou"], of_classes)
    for name, mean in zip(NAMES, means, strict=True):
        close(found["image_iou"][name], mean)
    json.dumps(found)


@given(PAIRS, st.integers(0, 99))
@settings(max_examples=20)
def test_counts_survive_lists_in_one_order(images, seed):
    truths, predictions = (
        [np.array(x) for x in xs] for xs in zip(*(zip(*image, strict=True) for image in images), strict=True)
    )
    pairs = [(bytes([i // 2]) * 32, counts) for i, counts in enumerate(counts_of(truths, predictions))]
    whole = collect_counts([pairs])
    pairs = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
    parts = collect_counts([pairs[::2], pairs[1::2]])
    lists = [tuple(image) for image in json.loads(json.dumps(to_lists(whole)))]
    for found in (parts, from_lists(lists, 4)):
        assert found.digests == whole.digests == tuple(sorted(whole.digests))
        np.testing.assert_array_equal(found.counts, whole.counts)


def test_one_image_has_the_same_score_as_the_data_set():
    """As long as its prediction has no other class than its label map."""
    truth, predicted = np.array([0, 0, 1, 1, VOID]), np.array([0, 1, 1, 1, 0])
    counts = counts_of([truth], [predicted])
    np.testing.assert_allclose(iou_of_images(counts), [[1 / 2, 2 / 3, np.nan, np.nan]])
    found = image_scores(ImageCounts(("x",), counts), NAMES)
    assert found["image_miou"] == found["class_image_miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_an_evaluation_counts_each_image(tmp_path):
    """Against the predictor image by image, whatever the batch size and the number of devices."""
    root = two_sizes(tmp_path)
    result = evaluate(root, batch_size=3)
    assert comparable(evaluate(root, batch_size=3, data=4)) == comparable(result)
    dataset, predict = open_dataset("folder", str(root), None), predictor()
    source = dataset.open_split("validation")
    pairs = [decode_pair(source[i], dataset.label_space) for i in range(len(source))]
    truths, predictions = [pair.label for pair in pairs], [predict(pair.image).labels for pair in pairs]
    images = from_lists(result["image_counts"], 3)
    expected = counts_of(truths, predictions, 3)
    assert sorted(images.counts.tolist()) == sorted(expected.tolist())
    confusion = np.array(result["confusion"])
    np.testing.assert_array_equal(images.counts.sum(0)[:, 0], np.diag(confusion))
    np.testing.assert_array_equal(images.counts.sum(0)[:, 2], confusion.sum(1))
    of_images, of_classes, _ = slow_losses.image_scores(truths, predictions, 3)
    close(result["image_miou"], of_images)
    close(result["class_image_miou"], of_classes)
    lines = evaluation_table(result).splitlines()
    assert lines[0].split() == ["class", "IoU", "Dice", "precision", "recall", "IoU", "per", "image"]
    assert lines[1].split()[0] == CLASSES[0] and len(lines[1].split()) == 6
    assert any(line.startswith(f"mIoU per image {100 * of_images:.2f}, averaged") for line in lines)


def test_counts_are_kept_beside_their_result(tmp_path):
    path = epath.Path(tmp_path / "run" / "evaluation" / "validation-7.json")
    path.parent.mkdir(parents=True)
    counts = np.array([[[3, 4, 5], [0, 0, 0]], [[0, 0, 0], [0, 2, 0]]])
    images = ImageCounts(("0" * 16, "f" * 16), counts)
    write_image_counts(path, ("sky", "ground"), to_lists(images))
    found = read_image_counts(path)
    assert found.classes == ("sky", "ground") and found.images.digests == images.digests
    np.testing.assert_array_equal(found.images.counts, counts)
    stored = path_of(path)
    assert stored == epath.Path(tmp_path / "run" / "image_counts" / "validation-7.json")
    text = stored.read_text()
    for damaged, message in (
        (
            text.replace("[0,3,", "[2,3,"),
            r"has the classes \[2\]: expected different ones, 0 … 1; evaluate the checkpoint again",
        ),
        (text.replace("f" * 16, "f" * 15), r"images\[1\]\[0\]"),
        (text.replace("[0,3,4,5]", "[0,-3,4,5]"), r"images\[0\]\[1\]\[0\]\[1\]=-3"),
        (text[:-9], r"validation-7\.json"),
    ):
        stored.write_text(damaged)
        with pytest.raises(UserError, match=message):
            read_image_counts(path)
    stored.unlink()
    with pytest.raises(UserError, match=r"validation-7\.json cannot be read .*: evaluate the checkpoint again"):
        read_image_counts(path)
