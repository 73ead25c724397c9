"""Data sets with more than 255 classes: label maps of 16 bits, from the file to the network, its scores and its pictures."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pyrseg_jax.conventions import VOID, WIDE_VOID, label_dtype, void_of
from pyrseg_jax.data.augmentation.mixing import classmix
from pyrseg_jax.data.decode import Pair, decode_label
from pyrseg_jax.data.label_mapping import LabelMapping, make_label_space
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.resample import upsample_argmax
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.boundary import near_boundary
from pyrseg_jax.evaluation.pixels import count_pairs
from pyrseg_jax.models.resample import class_of_pixels
from pyrseg_jax.models.supervision import fit_to_labels
from pyrseg_jax.pyramid import build_targets, fuse, pyramid_loss, specialize
from pyrseg_jax.pyramid.levels import as_classes
from pyrseg_jax.reporting.evaluation_table import MOST_CLASSES, evaluation_table
from pyrseg_jax.reporting.figures import legend_entries
from pyrseg_jax.reporting.palette import default_colors, overlay
from pyrseg_jax.training.losses import LOSSES, LossSettings, ohem_targets
from pyrseg_jax.training.losses.registry import LevelTargets

WIDE = 300  # classes
SPACE = ade_layout(tuple(f"class {i}" for i in range(WIDE)))
compiled_targets = jax.jit(build_targets, static_argnums=(1, 2))
maps = hnp.arrays(np.uint8, (2, 32, 32), elements=st.sampled_from([0, 1, 7, 254, VOID]))


def widened(labels):
    """The same map in 16 bits: every class as it was, void as the void of that type."""
    return np.where(labels == VOID, np.uint16(WIDE_VOID), labels.astype(np.uint16))


def png(values):
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()


def test_the_type_of_a_label_map_says_which_value_is_void():
    assert [label_dtype(n) for n in (1, 255, 256, 10_000)] == [np.uint8, np.uint8, np.uint16, np.uint16]
    assert [void_of(dtype) for dtype in (np.uint8, np.int32, np.uint16, jnp.uint16)] == [255, 255, 65535, 65535]
    assert (SPACE.dtype, SPACE.void) == (np.uint16, WIDE_VOID)


@given(st.integers(1, 600), st.randoms(use_true_random=False))
def test_files_of_16_bits_and_train_ids_translate_into_each_other(num_classes, random):
    values = random.sample(range(65536), num_classes + 1)
    space = LabelSpace(tuple(map(str, range(num_classes))), tuple(values[1:]), values[0])
    stored = np.array(random.choices(values, k=60), np.uint16).reshape(6, 10)
    found = decode_label(png(stored.astype(space.file_dtype)), "a.png", space)
    assert found.dtype == space.dtype == label_dtype(num_classes)
    assert ((found == space.void) == (stored == values[0])).all()
    np.testing.assert_array_equal(space.to_file_values(found), stored)
    assert LabelSpace(**space.to_json()) == space


def test_a_value_of_16_bits_that_no_class_has_is_an_error_with_its_place():
    stored = np.full((4, 5), 300, np.uint16)
    stored[2, 3] = 301
    with pytest.raises(
        UserError, match=r"a\.png: value 301 at row 2, column 3 \(1 pixels of it\) is not a class: expected 0"
    ):
        decode_label(png(stored), "a.png", SPACE)


def test_few_classes_may_have_large_values_in_the_files():
    """The values of the files need 16 bits; inside, the labels are bytes like those of every data set with few classes."""
    space = make_label_space(("a", "b"), LabelMapping(first_value=1000, void_value=65535, remap="7:1001"))
    found = decode_label(png(np.array([[1000, 1001, 65535, 7]], np.uint16)), "a.png", space)
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, VOID, 1]]
    assert space.to_file_values(found).tolist() == [[1000, 1001, 65535, 1001]]


@settings(max_examples=20)
@given(maps, st.sampled_from(["agree", "mixed", "ignore"]))
def test_targets_of_wide_maps_are_those_of_narrow_ones(labels, void):
    narrow, wide = (
        compiled_targets(labels, (32, 16, 8, 4), void),
        compiled_targets(widened(labels), (32, 16, 8, 4), void),
    )
    for small, large in zip(narrow.semantic, wide.semantic, strict=True):
        assert large.dtype == jnp.uint16
        np.testing.assert_array_equal(widened(np.asarray(small)), large)
    for small, large in zip(narrow.unity, wide.unity, strict=True):
        np.testing.assert_array_equal(small, large)


def test_class_255_is_a_class_like_any_other_in_a_wide_map():
    labels = np.full((1, 32, 32), 255, np.uint16)
    labels[0, :16] = 299
    targets = compiled_targets(labels, (32, 16, 8, 4), "agree")
    assert np.asarray(targets.unity[0]).tolist() == [[[0]]]
    assert np.asarray(targets.semantic[1]).tolist() == [[[299, 299], [255, 255]]]
    truth = [np.eye(WIDE, dtype=np.float32)[np.where(np.asarray(c) == WIDE_VOID, 0, c)] for c in targets.semantic]
    unity = [(np.asarray(u) == 1).astype(np.float32) for u in targets.unity]
    np.testing.assert_array_equal(np.asarray(jax.jit(fuse)(truth, unity).probs).argmax(-1)[0], labels[0, ::4, ::4])
    assert near_boundary(labels[0], 1)[14:18, 0].tolist() == [True] * 4
    assert near_boundary(labels[0], 1).sum() == 4 * 32


def test_loss_and_gradient_are_those_of_narrow_targets(rng):
    labels = rng.choice(np.array([0, 1, 2, VOID], np.uint8), (2, 4, 4)).repeat(16, 1).repeat(16, 2)
    semantic = [jnp.asarray(rng.normal(size=(2, 64 // s, 64 // s, 3)), jnp.float32) for s in (32, 16, 8, 4)]
    unity = [jnp.asarray(rng.normal(size=(2, 64 // s, 64 // s)), jnp.float32) for s in (32, 16, 8)]

    @jax.jit
    @jax.value_and_grad
    def loss(semantic, labels):
        return pyramid_loss(semantic, unity, specialize(build_targets(labels), unity, "tp"))[0]

    found, expected = (jax.tree.leaves(loss(semantic, x)) for x in (widened(labels), labels))
    for large, small in zip(found, expected, strict=True):
        np.testing.assert_array_equal(large, small)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_reads_wide_classes(rng, name):
    labels = rng.choice(np.array([0, 1, 2, VOID], np.uint8), (2, 8, 8))
    logits = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(logits, labels):
        classes = as_classes(labels)
        level = LevelTargets(logits, classes, ohem_targets(logits, classes, 0.4, 20), classes, 4)
        return LOSSES[name].compute(level, LossSettings(None, 0.1, 2.0, 8))

    found, expected = (jax.tree.leaves(loss(logits, jnp.asarray(x))) for x in (widened(labels), labels))
    for large, small in zip(found, expected, strict=True):
        np.testing.assert_array_equal(large, small)
    for supervision in ("finest", "full_size"):
        _, classes = fit_to_labels(logits, widened(labels).repeat(4, 1).repeat(4, 2), supervision)
        assert classes.dtype == jnp.uint16


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_class_255_for_a_class(rng, name):
    """Exchanging classes 7 and 255 in logits and labels changes nothing."""
    labels = rng.choice(np.array([7, 255, 299], np.uint16), (1, 4, 4))
    logits = rng.normal(size=(1, 4, 4, WIDE)).astype(np.float32)
    order = np.arange(WIDE)
    order[[7, 255]] = 255, 7

    @jax.jit
    def loss(logits, labels):
        level = LevelTargets(logits, labels, ohem_targets(logits, labels, 0.9, 2), labels, 4)
        return LOSSES[name].compute(level, LossSettings(None, 0.1, 2.0, 8))

    np.testing.assert_allclose(
        loss(logits[..., order], order[labels].astype(np.uint16)), loss(logits, labels), rtol=1e-5
    )


def test_predicted_classes_and_counts_reach_beyond_255(rng):
    probs = np.zeros((1, 4, 4, WIDE), np.float32)
    classes = rng.integers(0, WIDE, (4, 4))
    np.put_along_axis(probs[0], classes[..., None], 1, axis=-1)
    for found in (class_of_pixels(jnp.asarray(probs), (4, 4))[0], upsample_argmax(probs[0], (4, 4))):
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, classes)
    true, predicted = jnp.array([255, 299, WIDE_VOID]), jnp.array([255, 298, 0])
    counts = np.asarray(count_pairs(jnp.zeros((WIDE, WIDE), jnp.int32), true=true, predicted=predicted))
    assert counts.sum() == 2
    assert counts[255, 255] == counts[299, 298] == 1


def test_augmentation_keeps_wide_labels(rng):
    label = rng.integers(0, WIDE, (40, 60)).astype(np.uint16)
    pair = Pair(rng.integers(0, 256, (40, 60, 3), np.uint8), label)
    for scale in (2.0, 0.5):
        image, found = Augmentation(64, scale, scale, is_flipped=True)(pair, rng)
        assert found.dtype == np.uint16
        assert set(np.unique(found).tolist()) <= {*np.unique(label).tolist(), WIDE_VOID}
    assert WIDE_VOID in found, "the image does not fill the crop"
    mixed = classmix(Pair(image, np.full_like(found, 7)), Pair(image, found), rng)
    assert set(np.unique(mixed.label).tolist()) <= {7, *np.unique(label).tolist()}
    assert len(np.unique(mixed.label)) > 50


def test_reports_count_wide_labels():
    label = np.full((32, 64), 255, np.uint16)
    label[:, 32:], label[0, 0] = 299, WIDE_VOID
    report = DatasetReport.empty(WIDE)
    report.add(label)
    assert (report.pixels[255], report.pixels[299], report.num_void) == (1023, 1024, 1)
    assert report.cells[0].tolist() == [2, 0]
    assert DatasetReport.from_json(report.to_json()).pixels.tolist() == report.pixels.tolist()


def test_colors_of_thousands_of_classes_differ_and_begin_as_before():
    colors = default_colors(10_000)
    assert len(np.unique(colors, axis=0)) == 10_000
    np.testing.assert_array_equal(colors[:255], default_colors(255))
    assert (colors.max(1).astype(int) - colors.min(1)).min() > 25, "gray means that no class is shown"


def test_pictures_show_wide_labels(rng):
    labels = rng.integers(0, WIDE, (20, 30)).astype(np.uint16)
    labels[0] = WIDE_VOID
    image, colors = rng.integers(0, 256, (20, 30, 3), np.uint8), default_colors(WIDE)
    drawn = overlay(image, labels, colors)
    np.testing.assert_array_equal(drawn[0], image[0])
    assert (drawn[1:] != image[1:]).any()
    listed, num_more = legend_entries([labels], SPACE.names, 10)
    assert len(listed) == 10
    assert num_more == len(np.unique(labels)) - 11
    with pytest.raises(ValueError, match=r"type uint8; expected .* and uint16"):
        overlay(image, labels.astype(np.uint8), colors)


def test_the_table_of_a_thousand_classes_shows_the_largest():
    names = [f"class {i}" for i in range(1000)]
    confusion = np.diag(np.arange(1000)[::-1]).tolist()
    one = dict.fromkeys(names, 0.5)
    scores = {
        "level_share": [1.0], "classes_averaged": 1000, "boundary_px": 8, "cells_per_image": 1.0, "pixels_per_image": 1.0,
        "level_miou": None, "confusion": confusion, **dict.fromkeys(("iou", "dice", "precision", "recall", "image_iou"), one),
    }  # fmt: skip
    means = (
        "miou",
        "miou_all_classes",
        "best_constant_miou",
        "pixel_accuracy",
        "mean_accuracy",
        "boundary_miou",
        "mean_dice",
    )
    means += ("mean_precision", "frequency_weighted_iou", "image_miou", "class_image_miou")
    lines = evaluation_table(scores | dict.fromkeys(means, 0.5)).splitlines()
    assert lines[MOST_CLASSES].startswith("class 254 ")
    assert lines[MOST_CLASSES + 1] == "… and 745 classes with fewer pixels, which the result's file lists"
