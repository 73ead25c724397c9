"""The figures of an evaluation show the numbers of its result."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pyrseg_jax.evaluation.summary import summarize
from pyrseg_jax.reporting import analysis_figures


def draw_result(num_classes, num_levels=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_classes, num_classes)
    truth = rng.integers(1, 1000, num_classes)[:, None]
    sums = {
        "fused": rng.integers(0, 9, (2, num_levels, *shape)) * truth,
        "level_counts": rng.integers(1, 100, num_levels),
        "alone": rng.integers(0, 9, (num_levels, num_levels, *shape)),
        "oracle": rng.integers(0, 9, (2, *shape)),
        "unit_cells": rng.integers(0, 50, (num_levels - 1, num_classes)),
        "unity_both": rng.integers(1, 50, num_levels - 1),
        "unity_true": np.full(num_levels - 1, 60),
        "unity_predicted": np.full(num_levels - 1, 70),
    }
    return summarize(sums, [f"class {i}" for i in range(num_classes)])


@pytest.mark.parametrize("num_classes", [3, 150])
def test_every_figure_is_written(tmp_path, num_classes):
    paths = analysis_figures.draw_analysis(tmp_path, draw_result(num_classes))
    assert {p.stem for p in paths} == {
        "confusion",
        "levels_by_class",
        "level_by_level",
        "boundary_and_oracles",
        "unity",
    }
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 10
        assert max(pixels.shape) < 4000
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


STRANGE = [
    "$x$",
    "$\\frac{$",
    "a\\$b$",
    "line\nbreak",
    "<b>&amp;",
    "שלום\u202e",
    "\U000e1234",
    "\x1b[2J",
    "long " * 50,
    "%_^{}",
]


def test_class_names_are_drawn_as_they_are_whatever_they_hold(tmp_path, recwarn, caplog):
    result = draw_result(len(STRANGE))
    for key in ("iou", "level_iou", "unit_cells"):
        result[key] = dict(zip(STRANGE, result[key].values(), strict=True))
    with matplotlib.rc_context({"text.usetex": True}):  # a setting of the user
        assert len(analysis_figures.draw_analysis(tmp_path, result)) == 5
    assert not recwarn.list and not caplog.records
    shown = {text.get_text() for text in analysis_figures.confusion_figure(result).axes[0].get_xticklabels()}
    assert {"$x$", "a\\$b$", "line break", "class 6", "class 7", ("long " * 50)[:31] + "…"} < shown


def test_a_figure_that_fails_costs_the_figure(tmp_path, monkeypatch, caplog):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(analysis_figures, "unity_figure", fail)
    assert len(analysis_figures.draw_analysis(tmp_path, draw_result(3))) == 4
    assert "the figure unity cannot be drawn (there is not enough memory): the result is complete" in caplog.text


def test_without_a_pyramid_only_the_confusion_matrix_is_drawn(tmp_path):
    paths = analysis_figures.draw_analysis(tmp_path, draw_result(4, num_levels=1))
    assert [p.stem for p in paths] == ["confusion"]


def test_level_by_level_shows_the_table():
    result = draw_result(5)
    result["level_miou"][2][1] = None
    figure = analysis_figures.level_by_level_figure(result)
    found = [text.get_text() for text in figure.axes[0].texts]
    assert found == ["–" if v is None else f"{100 * v:.1f}" for row in result["level_miou"] for v in row]


def test_levels_by_class_shows_differences_of_the_largest_classes():
    result = draw_result(60)
    figure = analysis_figures.levels_by_class_figure(result)
    largest = np.argsort(-np.asarray(result["confusion"]).sum(1), kind="stable")[: analysis_figures.MOST_CLASSES]
    for level, axes in enumerate(figure.axes):
        heights = [bar.get_height() for bar in axes.patches]
        names = [f"class {i}" for i in largest]
        np.testing.assert_allclose(heights, [100 * (result["level_iou"][n][level] - result["iou"][n]) for n in names])


def test_the_confusion_matrix_shows_shares_of_the_true_class():
    result = draw_result(4)
    figure = analysis_figures.confusion_figure(result)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown.sum(1), 100)
    order = np.argsort(-np.asarray(result["confusion"]).sum(1), kind="stable")
    expected = np.asarray(result["confusion"])[order[1], order[2]] / np.asarray(result["confusion"])[order[1]].sum()
    assert shown[1, 2] == pytest.approx(100 * expected)
