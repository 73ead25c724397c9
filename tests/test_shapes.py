"""Regions as runs and polygons: round trips, and equality with COCO's own library, bit by bit."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyrseg_jax.shapes.polygons import MAX_OUTSIDE, fill_rings, trace_polygons
from pyrseg_jax.shapes.rle import compress_runs, decode_runs, decompress_runs, encode_runs

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))
coordinates = st.floats(-8, 24, width=32) | st.integers(-80, 240).map(lambda tenths: tenths / 10)


def rings_of(polygons):
    return [ring for polygon in polygons for ring in (polygon.outer, *polygon.holes)]


@given(masks)
def test_runs_give_the_mask_back(mask):
    runs = encode_runs(mask)
    np.testing.assert_array_equal(decompress_runs(compress_runs(runs)), runs)
    np.testing.assert_array_equal(decode_runs(runs, *mask.shape), mask)


@given(st.lists(st.integers(0, 2**33), max_size=9))
def test_a_text_holds_runs_of_any_length(runs):
    assert decompress_runs(compress_runs(np.array(runs, np.int64))).tolist() == runs


@given(masks)
def test_polygons_give_the_mask_back(mask):
    np.testing.assert_array_equal(fill_rings(rings_of(trace_polygons(mask)), *mask.shape), mask)


@given(masks)
def test_each_polygon_is_one_region_without_its_holes(mask):
    num, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    polygons = trace_polygons(mask)
    assert len(polygons) == num - 1
    for polygon in polygons:
        filled = fill_rings([polygon.outer, *polygon.holes], *mask.shape)
        np.testing.assert_array_equal(filled, regions == regions[filled][0])
        with_holes = fill_rings([polygon.outer], *mask.shape)
        assert not polygon.holes or with_holes.sum() > filled.sum()


@given(masks)
def test_a_ring_turns_at_each_point(mask):
    """No point could be left out: neighbors differ in exactly one coordinate, in turns."""
    for ring in rings_of(trace_polygons(mask)):
        steps = np.roll(ring, -1, axis=0) - ring
        assert (np.count_nonzero(steps, axis=1) == 1).all()
        assert (steps[::2, 1] == 0).all() and (steps[1::2, 0] == 0).all()


def test_a_hole_within_a_hole_is_a_region_of_its_own():
    mask = np.zeros((7, 7), bool)
    mask[:], mask[1:6, 1:6], mask[2:5, 2:5], mask[3, 3] = True, False, True, False
    outside, inside = trace_polygons(mask)
    assert (len(outside.holes), len(inside.holes)) == (1, 1)
    assert outside.outer.tolist() == [[0, 0], [7, 0], [7, 7], [0, 7]]
    assert inside.holes[0].tolist() == [[3, 3], [4, 3], [4, 4], [3, 4]]


def test_a_diagonal_of_pixels_is_many_regions():
    assert len(trace_polygons(np.eye(5, dtype=bool))) == 5
    assert len(trace_polygons(~np.eye(5, dtype=bool))) == 2


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8), st.integers(3, 16), st.integers(3, 16))
def test_polygons_are_filled_as_cocos_library_does(points, height, width):
    coco = pytest.importorskip("pycocotools.mask")
    ring = np.array(points, np.float64)
    expected = coco.decode(coco.frPyObjects([ring.reshape(-1).tolist()], height, width))[..., 0]
    np.testing.assert_array_equal(fill_rings([ring], height, width), expected.astype(bool))


@given(masks)
def test_runs_are_written_as_cocos_library_does(mask):
    coco = pytest.importorskip("pycocotools.mask")
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert compress_runs(encode_runs(mask)) == text


@pytest.mark.parametrize(
    ("runs", "message"),
    [([3, -1, 2], "negative length -1"), ([3], "3 pixels, but the mask has 2 × 2 = 4"), ([2**62, 2**62], "pixels")],
)
def test_runs_that_do_not_fit_are_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        decode_runs(np.array(runs), 2, 2)


@pytest.mark.parametrize(
    ("text", "message"), [("3 ", "' ' at position 1"), ("3o", "ends within a number"), ("oooooooo0", "of 9 characters")]
)
def test_texts_that_are_no_runs_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        decompress_runs(text)


@pytest.mark.parametrize(
    ("point", "message"), [((np.nan, 1), "not a finite number"), ((1, 4 + 4 * MAX_OUTSIDE + 1), "far outside")]
)
def test_points_that_cannot_be_meant_are_refused(point, message):
    with pytest.raises(ValueError, match=message):
        fill_rings([np.array([(0, 0), (3, 0), point])], 4, 4)
