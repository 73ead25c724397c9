"""From TIFFs of five channels of floats and 300 classes to a trained network, its predictions and its exported file."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY, call, error_of
from support.exports import CLASSES as TOY_CLASSES
from support.exports import SIZES, Toy, toy
from support.runs import tiny_config

import pyrseg_jax
from pyrseg_jax.conventions import VOID, WIDE_VOID
from pyrseg_jax.data.image_space import ImageSpace
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.batches import evaluation_batches
from pyrseg_jax.export.predictor import ExportedPredictor
from pyrseg_jax.export.read import read_export
from pyrseg_jax.export.write import write_export
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.predictor import read_image
from pyrseg_jax.run.workdir import Workdir

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import from_origin  # noqa: E402

SHOWN = np.array([[299, 256], [255, 300]])  # values of label files: classes 255 and beyond, and one below


def write_pair(root, split, name, rng):
    """Write an image whose channels tell its four classes; a corner holds no data."""
    values = SHOWN.repeat(32, 0).repeat(32, 1).astype(np.uint16)
    image = np.stack([(values * factor) % 97 * 0.01 for factor in (1, 3, 7, 11, 13)]).astype(np.float32)
    image += rng.normal(0, 0.01, image.shape).astype(np.float32)
    image[:, :6, :9] = -9999
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        root / "images" / split / f"{name}.tif", "w", driver="GTiff", height=64, width=64, count=5, dtype="float32",
        nodata=-9999, crs="EPSG:32632", transform=from_origin(5e5, 4e6, 10, 10), compress="deflate",
    ) as file:  # fmt: skip
        file.write(image)
    Image.fromarray(values).save(root / "annotations" / split / f"{name}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("other") / "data", np.random.default_rng(0)
    for split, name in (("training", "a"), ("training", "b"), ("validation", "c")):
        write_pair(root, split, name, rng)
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(1, 301)))
    return root


@pytest.fixture(scope="module")
def trained(root):
    workdir = root.parent / "run"
    flags = [
        *TINY,
        f"--config.data.root={root}",
        "--config.data.channels=5",
        "--config.data.scaling=percentile",
        "--config.data.color_jitter=0.1",
        "--config.data.scale_min=1.0",
        "--config.data.scale_max=1.0",
        "--config.data.workers=0",
        "--config.training.steps=24",
        "--config.training.evaluate_every=24",
        "--config.training.save_every=24",
        "--config.training.learning_rate=0.05",
        "--config.evaluation.analysis=false",
    ]
    done = call("--config=configs/scenes.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return root, workdir


@pytest.fixture(scope="module")
def opened(root):
    """The configuration of such a run, and its data set."""
    values = dataclasses.asdict(tiny_config().data) | {"root": str(root), "channels": 5, "scaling": "percentile"}
    config = dataclasses.replace(tiny_config(), data=type(tiny_config().data)(**values))
    return config, experiment.open_data(config.data)


def test_training_batches_hold_other_images_and_labels(opened):
    config, dataset = opened
    config = config_lib.changed(config, {"data.workers": 0, "training.batch_size": 4, "data.color_jitter": 0.1})
    with contextlib.closing(experiment.open_batches(config, dataset, 0)) as batches:
        batch = next(batches)
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 64, 64, 5), np.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((4, 64, 64), np.uint16)
    assert set(np.unique(batch["label"])) <= {254, 255, 298, 299, WIDE_VOID}


def test_evaluation_batches_hold_other_images_and_labels(opened):
    _, dataset = opened
    (batch,) = evaluation_batches(dataset.open_split("validation"), dataset.label_space, lambda h, w: ((h, w),), 2)
    assert (batch.images[0].shape, batch.images[0].dtype) == ((2, 64, 64, 5), np.float32)
    assert (batch.labels.dtype, batch.view_labels.dtype) == (np.uint16, np.uint16)
    assert (batch.view_labels[0, :6, :9] == WIDE_VOID).all()
    assert (batch.view_labels[1] == WIDE_VOID).all(), "the padding of the batch is void"
    assert (batch.labels[0, 64 * 64 :] == WIDE_VOID).all()


def test_images_of_other_channels_are_refused_by_name(opened, root, tmp_path):
    space = opened[1].image_space
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png has 3 channels, and the images are expected to have 5"):
        read_image(tmp_path / "photo.png", space)
    with pytest.raises(UserError, match=r"an array of uint8 with shape \(64, 64, 3\) has 3 channels"):
        read_image(np.zeros((64, 64, 3), np.uint8), space)
    with pytest.raises(UserError, match=r"shape \(64, 64\) is not an image: expected the shape \(height, width, 5\)"):
        read_image(np.zeros((64, 64)), space)
    image = root / "images" / "validation" / "c.tif"
    with rasterio.open(image) as file:
        values = np.moveaxis(file.read(), 0, -1)
    same = np.where(values == -9999, np.nan, values)  # arrays name no missing value
    np.testing.assert_array_equal(read_image(same, space), read_image(image, space))


def test_a_run_without_its_scaling_is_refused(opened, tmp_path):
    config, dataset = opened
    Workdir(str(tmp_path)).open_for_training(config, dataset.label_space)
    for mode in ("evaluate", "export"):
        assert "images.json is missing" in error_of(call(f"--mode={mode}", f"--workdir={tmp_path}"))
    (tmp_path / "images.json").write_text('{"channels": 5, "limits": [[1, 0]]}')
    assert "images.json" in error_of(call("--mode=evaluate", f"--workdir={tmp_path}"))


@pytest.mark.slow
def test_a_network_of_five_channels_learns_300_classes(trained):
    _, workdir = trained
    losses = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0], losses
    images = json.loads((workdir / "images.json").read_text())
    assert (images["channels"], images["nodata"], images["percentiles"]) == (5, [], [1, 99])
    assert all(-0.1 < low < high < 1.1 for low, high in images["limits"]), "missing values do not count"
    result = json.loads((workdir / "evaluation" / "validation-24.json").read_text())
    assert len(result["iou"]) == 300
    assert np.sum(result["confusion"]) == 64 * 64 - 6 * 9
    assert (workdir / "figures" / "c_overlay.jpg").is_file()


@pytest.mark.slow
def test_predictions_are_16_bit_maps_that_are_void_without_data(trained, tmp_path):
    root, workdir = trained
    image = root / "images" / "validation" / "c.tif"
    done = call("--mode=predict", f"--workdir={workdir}", f"--input={image}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    stored = np.asarray(Image.open(tmp_path / "out" / "c.png"))
    assert stored.dtype == np.uint16
    assert not stored[:6, :9].any()
    assert stored.max() > 255
    model = pyrseg_jax.load(workdir)
    result = model(image)
    assert result.labels.dtype == np.uint16
    assert (result.labels[:6, :9] == WIDE_VOID).all()
    np.testing.assert_array_equal(model.label_space.to_file_values(result.labels), stored)
    with rasterio.open(image) as file:
        values = np.moveaxis(file.read(), 0, -1)
    same = np.where(values == -9999, np.nan, values)  # arrays name no missing value
    np.testing.assert_array_equal(model(same).labels, result.labels)
    with rasterio.open(tmp_path / "out" / "c_labels.tif") as file:
        assert (file.crs.to_epsg(), file.transform, file.nodata) == (32632, from_origin(5e5, 4e6, 10, 10), 0)
        np.testing.assert_array_equal(file.read(1), stored)


def test_exported_models_know_their_images(tmp_path, rng):
    space = ImageSpace(5, ((0, 50),) * 5, (7.0,))
    parts = {name: getattr(toy(), name) for name in ("backbone", "context", "semantic_head", "strides")}
    model = Toy(**parts, channels=space.channels)
    variables, path = initial_variables(model, 0, 16), tmp_path / "model.zip"
    write_export(path, model, variables, ade_layout(TOY_CLASSES), SIZES, 0.5, {"run": "0" * 16, "step": 1}, space)
    exported = read_export(path)
    assert exported.image_space == space
    predictor = ExportedPredictor(exported)
    values = rng.integers(0, 50, (20, 24, space.channels), np.uint8)
    values[3, 3] = 7
    result = predictor(values)
    assert (result.labels.shape, result.image.shape) == ((20, 24), (20, 24, 3))
    assert result.labels[3, 3] == VOID
    with pytest.raises(UserError, match="channels, and the images are expected to have"):
        predictor(values[..., :1].repeat(3, -1))
