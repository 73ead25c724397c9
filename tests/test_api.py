"""Use a trained model from Python: load it, segment images, draw results."""

import functools
import io
import subprocess
import sys

import jax
import jaxtyping
import numpy as np
import pytest
from PIL import Image
from support.data_sets import CLASSES, draw_pair
from support.evaluation import programs_compiled
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.data.resample import resize_image, upsample_argmax
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.run import experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "run"
    config = tiny_config()
    return path, config, write_run(path, config, CLASSES, is_vivid=True)


@pytest.fixture(scope="module")
def predictor(run):
    return pyrseg_jax.load(run[0])


def test_results_hold_the_fused_prediction_at_the_size_of_the_image(run, predictor, rng):
    _, config, variables = run
    image, _ = draw_pair(rng, 70, 90)
    model = experiment.make_model(config, 3)
    prediction = jax.jit(functools.partial(predict, model, threshold=0.5))(
        variables, images=resize_image(image, (64, 96))[None]
    )
    found = predictor(image)
    assert found.labels.shape == (70, 90)
    assert found.labels.dtype == np.uint8
    assert len(np.unique(found.labels)) > 1
    np.testing.assert_allclose(found.probs, prediction.fused[0], atol=1e-6)
    np.testing.assert_array_equal(found.level, prediction.level[0])
    np.testing.assert_array_equal(found.labels, upsample_argmax(found.probs, (70, 90)))
    for maps, expected in ((found.semantic, prediction.semantic), (found.unity, prediction.unity)):
        for found_map, expected_map in zip(maps, expected, strict=True):
            np.testing.assert_allclose(found_map, expected_map[0], atol=1e-6)
    assert found.strides == (32, 16, 8, 4)
    assert [u.shape for u in found.unity] == [(2, 3), (4, 6), (8, 12)]
    assert found.class_names == predictor.class_names == CLASSES
    assert "70 × 90 pixels" in repr(found)


def test_images_come_as_arrays_pictures_and_paths_alone_or_in_lists(predictor, rng, tmp_path):
    image, _ = draw_pair(rng, 64, 64)
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    other, _ = draw_pair(rng, 60, 70)  # the network sees it at 64 × 64, too
    results = predictor([image, Image.fromarray(image), path, str(path), other])
    for result in results[1:4]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
    assert [r.labels.shape for r in results] == [(64, 64)] * 4 + [(60, 70)]
    gray = predictor(Image.fromarray(image).convert("L"))
    assert gray.image.shape == (64, 64, 3)


def test_programs_are_compiled_per_network_size_not_per_image_size(predictor, rng):
    sizes = [(64, 64), (60, 70), (66, 62), (50, 75), (70, 90)]
    predictor([draw_pair(rng, *size)[0] for size in sizes])
    with programs_compiled() as names:
        predictor([draw_pair(rng, height + 1, width - 1)[0] for height, width in sizes])
        assert names == []
        predictor(draw_pair(rng, 128, 64)[0])
    assert "jit(predict_view)" in names


def test_pictures_are_drawn(predictor, rng):
    result = predictor(draw_pair(rng, 64, 96)[0])
    assert result.overlay().size == (96, 64)
    assert result._repr_png_().startswith(b"\x89PNG")
    assert min(result.show_pyramid().size) > 200


def test_checkpoints_are_loaded_by_folder_or_step(run, predictor, rng):
    image, _ = draw_pair(rng, 64, 64)
    found = pyrseg_jax.load(run[0] / "checkpoints" / str(STEP))
    np.testing.assert_array_equal(found(image).probs, predictor(image).probs)
    with pytest.raises(UserError, match=f"has no checkpoint of step 8: it has {STEP}"):
        pyrseg_jax.load(run[0] / "checkpoints", step=8)


def test_an_error_names_a_path_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UserError, match=r"nowhere holds no model: expected the folder of a run"):
        pyrseg_jax.load(tmp_path / "nowhere")
    (tmp_path / "model.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"model.zip is not an exported model, or it is damaged \(BadZipFile"):
        pyrseg_jax.load(tmp_path / "model.zip")


def test_an_address_that_is_not_read_is_named():
    for address in ("https://example.com/model.zip", "file:///model.zip"):
        with pytest.raises(UserError, match=r"model.zip: addresses of this kind are not read: download what it names"):
            pyrseg_jax.load(address)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((4, 4, 3), np.float32),
            r"an array of float32 with shape \(4, 4, 3\) is not an image: expected uint8",
        ),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) is not an image"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) is not an image"),
        ("no_such.jpg", r"no_such.jpg: there is no such image"),
        (np.zeros((4, 4, 3), np.float32), r"give \(array \* 255\)\.round\(\)\.astype\(np\.uint8\)$"),
        (np.zeros((3, 4, 4), np.uint8), r"array\.transpose\(1, 2, 0\)$"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"for a batch, give list\(array\)$"),
        (np.zeros((4, 4, 4), np.uint8), r"give an RGBA image as PIL\.Image\.fromarray\(array\)$"),
    ],
)
def test_an_error_names_an_argument_that_is_not_an_image(predictor, image, message):
    with pytest.raises(UserError, match=message):
        predictor(image)


@pytest.mark.parametrize("image", [b"\x89PNG", None, io.BytesIO(b"\x89PNG")])
def test_an_error_names_an_object_that_is_not_an_image(predictor, image):
    """As for a user, whose programs check no types while they run."""
    message = rf"an object of type {type(image).__name__} is not an image: expected a path, a PIL image, an array"
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(UserError, match=message):
            predictor(image)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_importing_the_package_starts_nothing():
    """The processes that read images import it, too."""
    code = "import sys, pyrseg_jax; sys.exit(any(name in sys.modules for name in ('jax', 'numpy', 'flax')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
