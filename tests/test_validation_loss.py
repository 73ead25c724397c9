"""The validation loss: what it is the mean of, that batches and devices do not change it, and where it is recorded."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.data_sets import write_folder

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.resample import resize_image, resize_labels
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.predict import run
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.contexts import ContextLoss
from pyrseg_jax.models.segmenter import Pyramids, Segmenter
from pyrseg_jax.reporting.logbook import Logbook
from pyrseg_jax.training.objective import PerPixelObjective, PyramidObjective, WithAuxiliary, WithContextLosses
from pyrseg_jax.training.scores import METRICS as METRICS_OF_BEST
from pyrseg_jax.training.validation import make_image_losses

TP, GT, RAW = (PyramidObjective(procedure=name) for name in ("tp", "gt", "raw"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four images, of which one has no labeled pixel."""
    root = write_folder(tmp_path_factory.mktemp("loss") / "data", {"validation": 4}, size=(60, 64))
    Image.fromarray(np.zeros((60, 64), np.uint8)).save(root / "annotations" / "validation" / "validation_2.png")
    return root


class Toy(Segmenter):
    """A network of averages that compiles quickly; its predictions differ from place to place."""

    @nn.compact
    def __call__(self, images, train=False):
        semantic = []
        for level, stride in enumerate(self.strides):
            cells = nn.avg_pool(images, (stride, stride), (stride, stride))
            logits = nn.Dense(4, name=f"classify_{level}", kernel_init=nn.initializers.normal(4.0))(cells)
            semantic.append(logits)
        return Pyramids(tuple(x[..., :3] for x in semantic), tuple(x[..., 3] for x in semantic[:-1]), outputs={})


MODEL = Toy(backbone=nn.Dense(1), context=nn.Dense(1), semantic_head=None)


@functools.cache
def variables():
    return jax.device_get(MODEL.init(jax.random.key(1), jnp.zeros((1, 64, 64, 3))))


def evaluate(root, objective, batch_size, devices=1, protocol=Protocol()):  # noqa: B008
    dataset = open_dataset("folder", str(root), None)
    mesh, losses = mesh_lib.make_mesh(devices), make_image_losses(objective)
    split = dataset.open_split("validation")
    evaluator = Evaluator(MODEL, split, dataset.label_space, mesh, protocol, batch_size, 0.5, losses)
    return evaluator(jax.device_put(variables(), mesh_lib.replicated(mesh)))


def test_every_score_that_can_choose_the_best_checkpoint_is_in_the_result(data):
    result = evaluate(data, TP, 3)
    assert all(isinstance(result[name], float) for name in METRICS_OF_BEST)


def expected_loss(root, objective):
    """Compute the loss of each image with a labeled pixel on its own, and average in plain Python."""
    dataset, found = open_dataset("folder", str(root), None), []
    for record in dataset.open_split("validation"):
        pair = decode_pair(record, dataset.label_space)
        label = resize_labels(pair.label, (64, 64))[None]
        if (label != VOID).any():
            pyramids = jax.jit(run, static_argnums=0)(MODEL, variables(), resize_image(pair.image, (64, 64))[None])
            found.append(float(objective(pyramids, jnp.asarray(label))[0]))
    assert len(found) == 3
    return sum(found) / len(found)


def test_the_loss_is_the_mean_over_labeled_images_whatever_the_batch(data):
    expected = expected_loss(data, GT)
    assert abs(expected - expected_loss(data, TP)) > 1e-3  # otherwise the procedure would not show
    for batch_size, devices in ((1, 1), (3, 1), (4, 4)):
        result = evaluate(data, TP, batch_size, devices)
        assert result["loss"] == pytest.approx(expected, rel=2e-6)
    json.dumps(result)


def test_the_loss_is_that_of_the_first_view(data):
    """Without losses the scores are the same, and for windows there is no loss."""
    single = evaluate(data, TP, 3)
    double = evaluate(data, TP, 3, protocol=Protocol(scales=(1.0, 2.0)))
    assert double["loss"] == pytest.approx(single["loss"], rel=1e-6)
    assert double["confusion"] != single["confusion"]
    assert evaluate(data, TP, 3, protocol=Protocol(window_px=32))["loss"] is None


# --- what is left out of the training objective


def draw(rng, classes=3):
    semantic = tuple(rng.normal(size=(2, side, side, classes)).astype(np.float32) for side in (1, 2, 4, 8))
    unity = tuple(3 * rng.normal(size=(2, side, side)).astype(np.float32) for side in (1, 2, 4))
    labels = np.kron(rng.integers(0, classes, (2, 4, 4)), np.ones((8, 8))).astype(np.uint8)
    labels[:, :3, :5] = VOID
    return Pyramids(semantic, unity, outputs={}), labels


def alone(objective, predicted, labels):
    objective = jax.jit(lambda *image, compute=objective: compute(*image)[0])
    one = [jax.tree.map(lambda x: x[i : i + 1], (predicted, labels)) for i in range(2)]  # noqa: B023
    return [float(objective(*image)) for image in one]


@pytest.mark.parametrize(("objective", "main"), [(TP, GT), (GT, GT), (RAW, RAW)], ids=["tp", "gt", "raw"])
def test_the_cells_that_count_do_not_depend_on_the_prediction(rng, objective, main):
    predicted, labels = draw(rng)
    found = jax.jit(make_image_losses(objective))(predicted, labels)
    np.testing.assert_allclose(found, alone(main, predicted, labels), rtol=1e-6)
    if objective is TP:
        assert not np.allclose(found, alone(TP, predicted, labels), rtol=1e-3)


def test_what_serves_training_alone_is_left_out(rng):
    predicted, labels = draw(rng)
    hard = PerPixelObjective(ohem_threshold=0.3, ohem_min_kept=1)
    extra = WithContextLosses(WithAuxiliary(hard), {"x": ContextLoss(1.0, lambda *_: jnp.nan)})
    found = jax.jit(make_image_losses(extra))(predicted._replace(outputs={"not": np.zeros(3)}), labels)
    np.testing.assert_allclose(found, alone(PerPixelObjective(), predicted, labels), rtol=1e-6)
    assert not np.allclose(found, alone(hard, predicted, labels), rtol=1e-3)


def test_a_refined_level_is_read_at_the_pixels_of_its_targets(rng):
    predicted, labels = draw(rng)
    labels = rng.integers(0, 3, labels.shape).astype(np.uint8)  # no unit-cells, so that the finest level counts
    *coarse, finest = predicted.semantic
    refined = np.kron(finest, np.ones((1, 4, 4, 1), np.float32))
    refined[:, ::4, :, 0] += 9  # rows that hold no target of stride 4
    found = jax.jit(make_image_losses(GT))(predicted._replace(semantic=(*coarse, refined)), labels)
    np.testing.assert_allclose(found, jax.jit(make_image_losses(GT))(predicted, labels), rtol=1e-6)


# --- the record


SCORES = dict.fromkeys(("miou", "pixel_accuracy", "mean_accuracy"), 0.5)
SCORES |= {"level_share": [0.5, 0.5], "classes_averaged": 2, "images": 1, "seconds": 1.0}
METRICS = {"loss": 1.0, "images_per_second": 1.0, "data_wait_share": 0.0}


def test_the_line_of_an_evaluated_step_gets_the_loss_once(tmp_path):
    def lines():
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    logbook = Logbook(tmp_path, 10, 4)
    logbook.write_step(1, METRICS)
    logbook.write_step(2, METRICS)
    logbook.write_evaluation(2, SCORES | {"loss": 0.75})
    logbook.write_step(3, METRICS)
    logbook.write_evaluation(4, SCORES | {"loss": 0.25})  # a step that was not logged
    logbook.close()
    assert [line.get("validation_loss") for line in lines()] == [None, 0.75, None]
    logbook = Logbook(tmp_path, 10, 4, first_step=2)  # as if the run had been killed before the score was stored
    before = (tmp_path / "metrics.jsonl").read_bytes()
    logbook.write_evaluation(2, SCORES | {"loss": 0.75})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    logbook.write_end(2, "loss did not improve")
    logbook.write_step(3, METRICS)
    logbook.close()
    assert lines()[1:] == [
        {"step": 2, **METRICS, "validation_loss": 0.75, "stopped": "loss did not improve"},
        {"step": 3, **METRICS},
    ]


def test_an_evaluation_without_a_loss_is_recorded_as_before(tmp_path):
    logbook = Logbook(tmp_path, 10, 4)
    logbook.write_step(2, METRICS)
    logbook.write_evaluation(2, SCORES | {"loss": None})
    logbook.write_evaluation(2, SCORES)
    logbook.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 2} | METRICS
