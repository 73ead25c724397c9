"""A trained model from Python: what can be loaded, what can be segmented, and what one gets."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from support.data_sets import CLASSES, draw_pair
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "run"
    config = tiny_config()
    return path, config, write_run(path, config, CLASSES, is_vivid=True)


@pytest.fixture(scope="module")
def segmenter(run):
    return pyrseg_jax.load(run[0])


def test_results_are_those_of_the_predictor(run, segmenter, rng):
    _, config, variables = run
    image, _ = draw_pair(rng, 70, 90)
    expected = experiment.make_predictor(config, experiment.make_model(config.model, 3), variables)(image)
    found = segmenter(image)
    assert found.labels.shape == (70, 90)
    assert found.labels.dtype == np.uint8
    assert len(np.unique(found.labels)) > 1
    for name in ("labels", "probs", "level"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert [u.shape for u in found.unity] == [(2, 3), (4, 6), (8, 12)]
    assert found.class_names == segmenter.class_names == CLASSES
    assert "70 × 90 pixels" in repr(found)


def test_images_come_as_arrays_pictures_and_paths_alone_or_in_lists(segmenter, rng, tmp_path):
    image, _ = draw_pair(rng, 64, 64)
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    other, _ = draw_pair(rng, 60, 70)  # is shown to the network at 64 × 64, too
    results = segmenter([image, Image.fromarray(image), path, str(path), other])
    for result in results[1:4]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
    assert [r.labels.shape for r in results] == [(64, 64)] * 4 + [(60, 70)]
    grey = segmenter(Image.fromarray(image).convert("L"))
    assert grey.image.shape == (64, 64, 3)


def test_programs_are_per_size_of_the_network_not_of_the_image(segmenter, rng):
    sizes = [(64, 64), (60, 70), (66, 62), (50, 75), (70, 90)]
    segmenter([draw_pair(rng, *size)[0] for size in sizes])
    count = segmenter._predict._run._cache_size()
    segmenter([draw_pair(rng, height + 1, width - 1)[0] for height, width in sizes])
    assert segmenter._predict._run._cache_size() == count


def test_pictures_are_drawn(segmenter, rng):
    result = segmenter(draw_pair(rng, 64, 96)[0])
    assert result.overlay().size == (96, 64)
    assert result._repr_png_().startswith(b"\x89PNG")
    assert min(result.show_pyramid().size) > 200


def test_checkpoints_are_loaded_by_folder_or_step(run, segmenter):
    found = pyrseg_jax.load(run[0] / "checkpoints" / str(STEP))
    jax.tree.map(np.testing.assert_array_equal, found._predict._variables, segmenter._predict._variables)
    with pytest.raises(UserError, match=f"has no checkpoint of step 8: it has {STEP}"):
        pyrseg_jax.load(run[0] / "checkpoints", step=8)


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: there is no model here: expected the folder of a run"):
        pyrseg_jax.load(tmp_path / "nowhere")
    (tmp_path / "model.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"model.zip is no exported model, or a damaged one \(BadZipFile"):
        pyrseg_jax.load(tmp_path / "model.zip")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array of float32 with shape \(4, 4, 3\) is no image: expected uint8"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) is no image"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) is no image"),
        ("no_such.jpg", r"no_such.jpg: there is no such image"),
    ],
)
def test_what_is_no_image_is_named(segmenter, image, message):
    with pytest.raises(UserError, match=message):
        segmenter(image)


def test_importing_the_package_starts_nothing():
    """The processes that read images import it, too."""
    code = "import sys, pyrseg_jax; sys.exit(any(name in sys.modules for name in ('jax', 'numpy', 'flax')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
