"""Temperatures: the fit against a minimizer, errors of confidences against a twin, and what is stored with a run."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import minimize_scalar
from support import slow_uncertainty
from support.command_line import call
from support.data_sets import CLASSES, write_folder
from support.evaluation import comparable, evaluate, tiny, two_sizes
from support.runs import tiny_config, write_run

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.calibrator import Calibrator
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.reliability import BINS, PARTS, count_confidences, no_confidences, summarize_confidences
from pyrseg_jax.evaluation.temperature import INVERSES, fit_temperatures, slopes_of_loss
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.restore import Trained
from pyrseg_jax.run.workdir import Workdir


def draw_pixels(rng, true_temperature, num_pixels=4000, num_classes=4):
    """Draw classes from softmax(z / T), and return the probabilities softmax(z), which are not true, with the classes."""
    logits = 3 * rng.standard_normal((num_pixels, num_classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = [rng.choice(num_classes, p=p) for p in slow_uncertainty.scaled(probs, np.full(num_pixels, true_temperature))]
    return probs.astype(np.float32), np.array(true, np.int32)


def slopes_at(probs, true, level, num_levels):
    arrays = map(jnp.asarray, (probs, true, level))
    return np.asarray(slopes_of_loss(*arrays, num_levels), np.float64)


def loss_of(probs, true, inverse):
    logs = inverse * np.log(probs.astype(np.float64))
    return (np.log(np.exp(logs).sum(1)) - logs[np.arange(len(true)), true]).sum()


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_the_fit_is_the_minimum(rng, true_temperature):
    probs, true = draw_pixels(rng, true_temperature)
    level = rng.integers(0, 2, len(true)).astype(np.int32)
    true[:50] = 255  # void
    found = fit_temperatures(slopes_at(probs, true, level, 3))
    for i in range(2):
        mine = (level == i) & (true < 4)
        best = minimize_scalar(lambda b: loss_of(probs[mine], true[mine], b), (0.1, 1.0))  # noqa: B023
        assert found[i] == pytest.approx(1 / best.x, rel=2e-3)
        assert found[i] == pytest.approx(true_temperature, rel=0.15)
    assert found[2] == 1.0  # no pixel


def test_the_slopes_are_those_of_the_loss(rng):
    probs, true = draw_pixels(rng, 1.5, 200)
    found = slopes_at(probs, true, np.zeros(200, np.int32), 1)[0]
    for i in (3, 14, 25):
        b, h = INVERSES[i], 1e-4
        before, here, after = (loss_of(probs, true, x) for x in (b - h, b, b + h))
        assert found[i, 0] == pytest.approx((after - before) / (2 * h), rel=2e-3, abs=1e-2)
        assert found[i, 1] == pytest.approx((after - 2 * here + before) / h**2, rel=5e-2, abs=1e-1)


def test_temperatures_have_bounds():
    """Where every pixel is right, or none, the loss has no minimum."""
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (10, 1))
    right, wrong = (np.full(10, i, np.int32) for i in (0, 1))
    level = np.zeros(10, np.int32)
    assert fit_temperatures(slopes_at(probs, right, level, 1))[0] == pytest.approx(1 / 8)
    assert fit_temperatures(slopes_at(probs, wrong, level, 1))[0] == pytest.approx(16)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.floats(0.05, 1))
@settings(max_examples=20)
def test_the_calibration_error_equals_the_twin(seed, num_pixels, spread):
    rng = np.random.default_rng(seed)
    # At the middle of a part, so that a part stands for exactly this confidence.
    confidence = (np.floor((1 - spread * rng.random(200)) * (BINS * PARTS - 1)) + 0.5) / (BINS * PARTS)
    is_right, level = rng.random(200) < confidence, rng.integers(0, 2, 200)
    is_labeled = np.arange(200) < num_pixels  # the others do not count
    arrays = map(
        jnp.asarray, (level.astype(np.int32), confidence.astype(np.float32), is_right & is_labeled, is_labeled)
    )
    found = summarize_confidences(np.asarray(count_confidences(no_confidences(2), *arrays)))
    assert found["ece"] == pytest.approx(slow_uncertainty.ece(confidence[:num_pixels], is_right[:num_pixels]), abs=1e-9)
    assert sum(found["pixels"]) == num_pixels
    for i in range(2):
        mine = is_labeled & (level == i)
        expected = slow_uncertainty.ece(confidence[mine], is_right[mine]) if mine.any() else None
        assert found["level_ece"][i] == (None if expected is None else pytest.approx(expected, abs=1e-9))


# ── On a network ──


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return two_sizes(tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="module")
def source(root):
    dataset = open_dataset("folder", str(root), None)
    return dataset.open_split("validation"), dataset.label_space


@pytest.fixture(scope="module")
def fitted(source):
    model, variables = tiny()
    return Calibrator(model, *source, Protocol(), 2, 0.5)(variables)


def test_calibrating_lowers_the_loss_and_the_error(fitted):
    assert len(fitted.temperatures) == 4 and fitted.num_images == 7
    assert fitted.after["nll"] < fitted.before["nll"]
    assert fitted.after["ece"] < fitted.before["ece"]


def test_batches_do_not_matter(fitted, source):
    model, variables = tiny()
    again = Calibrator(model, *source, Protocol(), 5, 0.5)(variables)
    assert again.temperatures == pytest.approx(fitted.temperatures, rel=1e-4) and again.pixels == fitted.pixels
    assert again.before["pixels"] == pytest.approx(fitted.before["pixels"], abs=3)


def test_an_evaluation_counts_the_same_confidences(root, source, fitted):
    """The evaluation counts them beside the confusion matrix, and its other numbers stay."""
    model, variables = tiny()
    evaluator = Evaluator(
        model, *source, mesh_lib.make_mesh(data=1), Protocol(), 2, 0.5, None, True, fitted.temperatures
    )
    found = evaluator(variables)
    plain = evaluate(root, 2, is_analyzed=False)
    assert plain["calibration"] is None
    same = comparable(found) | {"calibration": None}
    assert same == comparable(plain)
    measured = found["calibration"]
    assert measured["ece"] == pytest.approx(fitted.before["ece"], abs=1e-6)
    assert measured["pixels"] == fitted.before["pixels"]
    assert measured["scaled"]["temperatures"] == list(fitted.temperatures)
    assert measured["scaled"]["ece"] < measured["ece"]
    json.dumps(found)


def test_without_labels_there_is_nothing_to_fit(tmp_path):
    root = write_folder(tmp_path / "void", {"validation": 1})
    for path in (root / "annotations" / "validation").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    dataset = open_dataset("folder", str(root), None)
    model, variables = tiny()
    with pytest.raises(UserError, match="no labeled pixel to calibrate on"):
        Calibrator(model, dataset.open_split("validation"), dataset.label_space, Protocol(), 1, 0.5)(variables)


# ── With a run ──


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("calibrated")
    root = write_folder(place / "data", {"training": 2, "validation": 3}, size=(64, 64))
    write_run(place / "run", tiny_config(), CLASSES, is_vivid=True)
    arguments = [f"--workdir={place / 'run'}", f"--config.data.root={root}", "--distributed=off"]
    done = call("calibrate", *arguments)
    assert done.returncode == 0, done.stderr
    return place, arguments, done


def test_a_run_keeps_its_calibration(run):
    place, _, done = run
    assert "level  temperature" in done.stdout and "every label stays as it was" in done.stdout
    stored = json.loads((place / "run" / "calibration.json").read_text())
    assert stored["step"] == 7 and stored["split"] == "validation" and len(stored["temperatures"]) == 4
    assert {path.name for path in (place / "run" / "figures" / "calibration").iterdir()} == {
        "reliability.png",
        "reliability.pdf",
    }


def test_a_calibration_is_for_one_checkpoint_and_protocol(run, caplog):
    place, _, _ = run
    workdir = Workdir(str(place / "run"))
    config = workdir.read_config()
    stored = json.loads((place / "run" / "calibration.json").read_text())
    trained = Trained(7, {}, stored["weights"])
    assert read_temperatures(config, workdir, trained, 4) == tuple(stored["temperatures"])
    caplog.set_level("INFO")
    assert read_temperatures(config, workdir, trained._replace(fingerprint="other"), 4) is None
    assert "calibration.json is for other predictions (weights" in caplog.text
    changed = config_lib.changed(config, {"evaluation.threshold": 0.4})
    assert read_temperatures(changed, workdir, trained, 4) is None
    with pytest.raises(UserError, match="has 4 temperatures: expected one for each of the 2 levels"):
        read_temperatures(config, workdir, trained, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": [1.0, -1.0, 1.0, 1.0]}, r"temperatures\[1\]=-1.0"),
        ({"pixels": [1]}, "pixels has 1 values: expected one for each of the 4 temperatures"),
        ({"threshold": "0.5"}, "threshold='0.5': expected float, found str"),
        ({"more": 1}, "the key more is not known"),
    ],
)
def test_a_damaged_calibration_is_one_line(run, tmp_path, change, message):
    place, _, _ = run
    stored = json.loads((place / "run" / "calibration.json").read_text())
    (tmp_path / "calibration.json").write_text(json.dumps(stored | change))
    workdir = Workdir(str(tmp_path))
    config = Workdir(str(place / "run")).read_config()
    with pytest.raises(UserError, match=message) as caught:
        read_temperatures(config, workdir, Trained(7, {}, stored["weights"]), 4)
    assert str(caught.value).endswith("delete it, or run `pyrseg calibrate` again")


def test_predict_uses_the_calibration(run, tmp_path):
    place, arguments, _ = run
    photos, out = place / "data" / "images" / "validation", tmp_path / "out"
    outputs = "--outputs=labels,confidence,entropy,disagreement"
    done = call("predict", arguments[0], f"--input={photos}", f"--output={out}", outputs)
    assert done.returncode == 0, done.stderr
    stored = json.loads((place / "run" / "calibration.json").read_text())
    lines = [json.loads(line) for line in (out / "manifest.jsonl").open()]
    assert [line["temperatures"] for line in lines] == [stored["temperatures"]] * 3
    assert len(list(out.glob("*_entropy.png"))) == len(list(out.glob("*_disagreement.png"))) == 3
    # A calibration that is gone changes the confidences, so the photographs are segmented again.
    kept = (place / "run" / "calibration.json").read_bytes()
    (place / "run" / "calibration.json").unlink()
    try:
        again = call("predict", arguments[0], f"--input={photos}", f"--output={out}", outputs)
    finally:
        (place / "run" / "calibration.json").write_bytes(kept)
    assert "temperatures" in again.stderr and "they are segmented again" in again.stderr
