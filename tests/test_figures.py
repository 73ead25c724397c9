"""The figure of a prediction: laws of the drawn pyramid, exact colors in the right places, clear errors."""

import dataclasses

import numpy as np
import pytest

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.reporting import palette, sheet
from pyrseg_jax.reporting.cells import DONE, MIXED, cell_states, cells_taken
from pyrseg_jax.reporting.figures import legend_entries, pyramid_figure
from pyrseg_jax.reporting.palette import default_colors, overlay
from pyrseg_jax.reporting.result import Result

NUM_CLASSES = 5
NAMES = ["road", "sky", "tree", "car", "pole"]


def space(names=NAMES, colors=None):
    return LabelSpace(tuple(names), tuple(range(1, len(names) + 1)), colors=colors)


def photograph(size=(50, 71)):
    return np.random.default_rng(7).integers(0, 256, (*size, 3)).astype(np.uint8)


def random_prediction(num_levels=3, cells=(2, 3), size=(50, 71), seed=0):
    """Draw a pyramid of random cells and fuse it position by position, in the words of Eq. (2)."""
    rng = np.random.default_rng(seed)
    shapes = [(cells[0] << i, cells[1] << i) for i in range(num_levels)]
    semantic = tuple(rng.integers(0, NUM_CLASSES, shape).astype(np.uint8) for shape in shapes)
    unity = tuple(rng.random(shape).astype(np.float32) for shape in shapes[:-1])
    level, fused = np.zeros(shapes[-1], int), np.zeros(shapes[-1], np.uint8)
    for row, column in np.ndindex(shapes[-1]):
        for index in range(num_levels):
            shift = num_levels - 1 - index
            cell = row >> shift, column >> shift
            if index == num_levels - 1 or unity[index][cell] >= 0.5:
                level[row, column], fused[row, column] = index, semantic[index][cell]
                break
    rows = np.arange(size[0]) * shapes[-1][0] // size[0]
    columns = np.arange(size[1]) * shapes[-1][1] // size[1]
    strides = tuple(4 << (num_levels - 1 - i) for i in range(num_levels))
    probs = np.eye(NUM_CLASSES, dtype=np.float32)[fused]
    labels = fused[rows[:, None], columns]
    return Result(labels, probs, level, unity, semantic, strides, photograph(size), space(), 0.5)


def colors_in(pixels):
    return {tuple(int(v) for v in color) for color in np.unique(np.asarray(pixels).reshape(-1, 3), axis=0)}


def find_panels(figure):
    """Cut the panels out of a figure by their frames: rows of panels, each a list of (h, w, 3) arrays."""
    pixels = np.asarray(figure)
    is_frame = (pixels == 170).all(axis=-1)
    tops = [y for y in range(len(pixels)) if is_frame[y].sum() > 250 and not is_frame[y - 1].sum() > 250]
    rows = []
    for top in tops:
        edges = np.flatnonzero(np.diff(np.pad(is_frame[top], 1).astype(int)))
        row = []
        for left, right in zip(edges[::2], edges[1::2]):
            height = np.flatnonzero(is_frame[top + 1 :, left + 5 : right - 5].all(axis=1))
            if right - left > 250 and height.size and is_frame[top : top + height[0], left].all():
                row.append(pixels[top + 1 : top + 1 + height[0], left + 1 : right - 1])
        if row and row[0].shape[0] > 30:
            rows.append(row)
    return rows


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_each_position_is_taken_from_exactly_one_level(num_levels):
    prediction = random_prediction(num_levels)
    finest = prediction.level.shape
    taken = cells_taken(prediction.unity, 0.5, finest)
    assert len(taken) == num_levels
    times = np.zeros(finest, int)
    for index, cells in enumerate(taken):
        factor = finest[0] // cells.shape[0]
        stretched = cells.repeat(factor, 0).repeat(factor, 1)
        times += stretched
        assert (prediction.level[stretched] == index).all()
    assert (times == 1).all()


def test_a_probability_at_the_threshold_is_a_unit_cell_and_its_descendants_are_done():
    unity = (np.array([[0.5, 0.49]]), np.array([[0.9, 0.1, 0.9, 0.1], [0.0, 0.0, 0.0, 0.0]]))
    coarse, middle, fine = cell_states(unity, 0.5)
    assert coarse.tolist() == [[0, MIXED]]
    assert middle.tolist() == [[DONE, DONE, 0, MIXED], [DONE, DONE, MIXED, MIXED]]
    assert (fine[:, :4] == DONE).all() and (fine[:2, 4:6] == DONE).all() and (fine[:2, 6:] == 0).all()


def test_cells_of_a_single_level_need_its_size():
    assert cells_taken((), 0.5, (3, 4))[0].all()
    with pytest.raises(ValueError, match="pass finest_shape"):
        cells_taken((), 0.5)


def test_overlay_leaves_void_alone_and_mixes_elsewhere():
    image = photograph((40, 60))
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 20:40] = VOID
    labels[10:30, 50:] = 1
    colors = default_colors(2)
    drawn = overlay(image, labels, colors, alpha=0.25)
    assert drawn.dtype == np.uint8
    assert (drawn[labels == VOID] == image[labels == VOID]).all()
    inside = np.s_[5, 5], np.s_[20, 55]
    for (y, x), class_id in zip(inside, (0, 1)):
        expected = 0.75 * image[y, x] + 0.25 * colors[class_id]
        assert np.abs(drawn[y, x] - expected).max() <= 0.5


def test_overlay_draws_contours_between_segments_and_beside_void():
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 10:20] = 1
    labels[:, 20:] = VOID
    colors = np.array([[250, 250, 200], [10, 10, 40]], np.uint8)
    drawn = overlay(np.full((20, 30, 3), 128, np.uint8), labels, colors).astype(int)
    assert (drawn[:, 9] < drawn[:, 5]).all(), "a bright class has a darker contour"
    assert (drawn[:, 19] > drawn[:, 15]).all(), "a dark class has a lighter contour"
    mirrored = overlay(np.full((20, 30, 3), 128, np.uint8), labels[:, ::-1].copy(), colors).astype(int)
    assert (mirrored[:, 10] > mirrored[:, 14]).all() and (mirrored[:, 9] == 128).all()


def test_default_colors_differ_from_each_other_and_from_the_grays():
    colors = default_colors(255).astype(int)
    assert len(colors_in(colors)) == 255
    assert (colors.max(axis=1) - colors.min(axis=1)).min() > 25, "gray means that no class is shown"
    assert (default_colors(11) == colors[:11]).all()
    gaps = np.abs(colors[:11, None] - colors[None, :11]).sum(axis=-1) + 999 * np.eye(11)
    assert gaps.min() > 90, "the first eleven must be told apart at a glance"
    for wrong in (0, 10_001):
        with pytest.raises(ValueError, match=f"num_classes is {wrong}; expected 1..10000"):
            default_colors(wrong)


def test_a_level_shows_class_colors_only_where_it_decides():
    prediction = random_prediction()
    colors = default_colors(NUM_CLASSES)
    panels = find_panels(pyramid_figure(prediction))
    states = cell_states(prediction.unity, 0.5)
    assert [len(row) for row in panels] == [3, 2, 3]
    for classes, cells, pixels in zip(prediction.semantic, states, panels[0]):
        for (row, column), state in np.ndenumerate(cells):
            # The middle of a cell is free of grid lines.
            y = int((row + 0.5) * pixels.shape[0] / cells.shape[0])
            x = int((column + 0.5) * pixels.shape[1] / cells.shape[1])
            shown = tuple(pixels[y, x])
            if state == DONE:
                assert shown == (palette.DONE_GRAY,) * 3
            elif state == MIXED:
                assert shown[0] == shown[1] == shown[2] < palette.DONE_GRAY - 50
            else:
                assert shown == tuple(colors[classes[row, column]])


def test_the_fused_map_and_the_levels_are_drawn_in_their_exact_colors():
    prediction = random_prediction()
    prediction.labels[:10, :10] = 4
    truth = prediction.labels.copy()
    truth[30:, :30] = VOID
    colors = default_colors(NUM_CLASSES)
    figure = pyramid_figure(prediction, truth=truth, title="a street")
    _, fused, level, true = find_panels(figure)[-1]
    assert colors_in(fused) == colors_in(colors[np.unique(prediction.labels)])
    assert tuple(fused[3, 3]) == tuple(colors[4])
    corners = np.ix_([3, -4], [3, -4])
    expected = palette.level_colors(3)[prediction.level[np.ix_([0, -1], [0, -1])]]
    assert (level[corners] == expected).all() and len(colors_in(expected)) > 1
    assert colors_in(level) == colors_in(palette.level_colors(3)[np.unique(prediction.level)])
    void = true[-40:-5, 5:40]
    assert (255, 255, 255) in colors_in(void) and len(colors_in(void)) == 2, "void is white, hatched"


@pytest.mark.parametrize(
    "size, num_levels, has_truth",
    [
        ((64, 64), 4, True),
        ((90, 20), 2, False),
        ((20, 90), 1, True),
        ((7, 400), 3, False),
        ((30, 40), 6, True),
        ((4, 70000), 2, True),
        ((70000, 4), 2, False),
        ((1, 1), 2, True),
    ],
)
def test_any_size_and_number_of_levels_gives_a_figure(size, num_levels, has_truth):
    prediction = random_prediction(num_levels, (1, 2), size)
    truth = prediction.labels if has_truth else None
    figure = pyramid_figure(prediction, truth=truth)
    assert figure.mode == "RGB" and 1600 <= figure.width <= 2000
    border = np.asarray(figure)[:, -38:]
    assert (border == 255).all(), "something runs off the sheet"


def test_texts_stay_within_their_columns(monkeypatch):
    placed = []
    write = sheet.Sheet.text

    def remember(self, x, y, string, size_px=15, *, width_px, **style):
        used_px = write(self, x, y, string, size_px, width_px=width_px, **style)
        placed.append((x, y, x + used_px))
        assert used_px <= width_px
        return used_px

    monkeypatch.setattr(sheet.Sheet, "text", remember)
    prediction = random_prediction(6, (1, 1), (90, 20))
    names = [("a name that goes on and on " * 9)[:200], "$x_1$", "дорога", "می\u200cخواهم", "-"]
    pyramid_figure(dataclasses.replace(prediction, label_space=space(names)), title="long " * 99)
    for x, y, right in placed:
        assert not any(other_y == y and x < other_x < right for other_x, other_y, _ in placed)


def test_the_legend_lists_what_occurs_most_frequent_first():
    prediction = np.array([[1, 1, 1, 3], [3, VOID, VOID, VOID]], np.uint8)
    truth = np.array([[3, 3, 0, VOID]], np.uint8)
    assert legend_entries([prediction, truth], NAMES) == ([(3, "car"), (1, "sky"), (0, "road")], 0)
    assert legend_entries([prediction, truth], NAMES, limit=1) == ([(3, "car")], 2)


def test_a_name_without_glyphs_becomes_the_class_id():
    unassigned = "\U000e1234"
    assert legend_entries([np.array([1], np.uint8)], ["a", f"b{unassigned}"]) == ([(1, "class 1")], 0)
    assert legend_entries([np.array([0], np.uint8)], ["дорога α"]) == ([(0, "дорога α")], 0)


def test_a_probability_that_rounds_across_the_threshold_does_not_contradict_the_level():
    prediction = random_prediction()
    prediction.unity[0][0, 0] = 0.5 - 1e-6
    prediction.level[:4, :4] = 0
    pyramid_figure(prediction)
    prediction.unity[0][0, 0] = 0.45
    with pytest.raises(ValueError, match="level and unity disagree at 16 of 96 positions"):
        pyramid_figure(prediction)


def replaced(**parts):
    return dataclasses.replace(random_prediction(), **parts)


GOOD = random_prediction()


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"unity": GOOD.unity[:1]}, "3 semantic maps, 1 unity maps and 3 strides; expected L, L-1 and L"),
        ({"strides": (16, 4, 2)}, r"strides are \(16, 4, 2\); expected each to be half"),
        ({"labels": GOOD.labels[:-1]}, r"labels has shape \(49, 71\) and type uint8; expected \(50, 71\)"),
        ({"labels": GOOD.labels.astype(int)}, "type int64; expected .* uint8"),
        ({"labels": np.full_like(GOOD.labels, 5)}, "labels holds the class id 5; .* expected 0..4 or 255"),
        (
            {"semantic": (GOOD.semantic[0], *GOOD.semantic[:2])},
            r"semantic\[1\] has shape \(2, 3\) .* \(4, 6\)",
        ),
        ({"unity": (GOOD.unity[1], GOOD.unity[0])}, r"unity\[1\] has shape \(2, 3\); expected \(8, 12\)"),
        ({"unity": (GOOD.unity[0] * 9 - 5, GOOD.unity[1])}, r"unity\[0\] holds values .* apply the sigmoid"),
        ({"level": GOOD.level[:, :-1]}, r"level has shape \(8, 11\); expected \(8, 12\)"),
        ({"level": GOOD.level + 1}, r"level holds 1..3; expected 0..2"),
        ({"level": 2 - GOOD.level}, "level and unity disagree at .* of 96 positions with threshold=0.5"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, message):
    with pytest.raises(ValueError, match=message):
        pyramid_figure(replaced(**parts))


def test_images_colors_and_truth_that_do_not_fit_are_named():
    image, colors = photograph(), default_colors(NUM_CLASSES)
    with pytest.raises(ValueError, match=r"truth has shape \(5, 71\)"):
        pyramid_figure(GOOD, truth=GOOD.labels[:5])
    with pytest.raises(ValueError, match="threshold is 1.5; expected a probability in 0..1"):
        pyramid_figure(replaced(threshold=1.5))
    with pytest.raises(ValueError, match=r"image has shape \(50, 71\) and type uint8; expected \(H, W, 3\)"):
        overlay(image[..., 0], GOOD.labels, colors)
    with pytest.raises(ValueError, match=r"colors has shape \(5, 3\) and type float64"):
        overlay(image, GOOD.labels, colors / 255)
    with pytest.raises(ValueError, match="alpha is 2.0; expected a weight in 0..1"):
        overlay(image, GOOD.labels, colors, alpha=2.0)
