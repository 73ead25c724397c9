"""Class weights from the training split and their place in a run, and the sampling of images with rare classes."""

import collections
import json
import logging
import math

import numpy as np
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.data_sets import CLASSES
from support.evaluation import comparable
from support.runs import tiny_config

from pyrseg_jax.commands.train import train
from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.contents import images_of_classes, num_digits, pack_classes
from pyrseg_jax.data.pipeline import training_batches
from pyrseg_jax.data.rare_sampling import RareSampling
from pyrseg_jax.data.report import DatasetReport, PairFacts
from pyrseg_jax.data.training_report import training_report
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.class_weights import find_class_weights, keep_class_weights
from pyrseg_jax.run.image_counts import read_image_counts
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.losses.class_weights import effective_number, inverse_frequency, inverse_log

# Label files of a hand-made split of six images of 8 × 10 pixels, as (value, pixels) lists. Value 0 is void.
IMAGES = [[(1, 80)], [(1, 70), (0, 10)], [(1, 60), (2, 20)], [(1, 80)], [(1, 40), (2, 40)], [(1, 70), (2, 5), (3, 5)]]
PIXELS = np.array([400, 65, 5])
SHOWN_BY = [[0, 1, 2, 3, 4, 5], [2, 4, 5], [5]]


@pytest.fixture
def rare(tmp_path):
    """Write the hand-made split; each photograph is as bright as its number, times 40."""
    root = tmp_path / "rare"
    for kind in ("images", "annotations"):
        for split in ("training", "validation"):
            (root / kind / split).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for i, content in enumerate(IMAGES):
        label = np.concatenate([np.full(count, value, np.uint8) for value, count in content]).reshape(8, 10)
        for split in ("training", "validation"):
            Image.fromarray(np.full((8, 10, 3), 40 * i, np.uint8)).save(root / "images" / split / f"{i}.png")
            Image.fromarray(label).save(root / "annotations" / split / f"{i}.png")
    return root


def config_of(root, **changes):
    values = {"data.name": "folder", "data.root": str(root), "data.crop_px": 32}
    return config_lib.changed(config_lib.Config(), values | changes)


# --- class weights


def test_class_weights_of_a_hand_made_split(rare, tmp_path, caplog):
    dataset, workdir = open_dataset("folder", str(rare), None), Workdir(str(tmp_path / "run"))
    caplog.set_level(logging.INFO)
    found = find_class_weights(config_of(rare, **{"loss.class_weights": "inverse_frequency"}), dataset, workdir)
    np.testing.assert_allclose(found, PIXELS.sum() / (3 * PIXELS))
    lines = [r.getMessage() for r in caplog.records if "class weights" in r.getMessage()]
    assert lines == ["class weights (inverse_frequency): sky 0.3917, ground 2.41, post 31.33"]
    found = find_class_weights(config_of(rare, **{"loss.class_weights": "inverse_log"}), dataset, workdir)
    raw = [1 / math.log(1.1 + share) for share in PIXELS / PIXELS.sum()]
    np.testing.assert_allclose(found, np.array(raw) * PIXELS.sum() / (raw * PIXELS).sum())
    changes = {"loss.class_weights": "effective_number", "loss.effective_beta": 0.5}
    found = find_class_weights(config_of(rare, **changes), dataset, workdir)
    raw = [1 / sum(0.5**k for k in range(len(images))) for images in SHOWN_BY]  # (1 - β^n) / (1 - β) is a geometric sum
    np.testing.assert_allclose(found, np.array(raw) * PIXELS.sum() / (raw * PIXELS).sum())
    assert find_class_weights(config_of(rare), dataset, workdir) is None


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_class_weights_are_finite_and_average_to_one(pixels, beta, seed):
    pixels = np.array(pixels)
    images = np.where(pixels > 0, np.random.default_rng(seed).integers(1, 10**5, len(pixels)), 0)
    for weights in (inverse_frequency(pixels), inverse_log(pixels), effective_number(images, pixels, beta)):
        assert np.isfinite(weights).all() and (weights > 0).all()
        assert (weights[pixels == 0] == 1).all()
        if pixels.any():
            np.testing.assert_allclose((weights * pixels).sum() / pixels.sum(), 1)
    if beta == 0:
        np.testing.assert_allclose(effective_number(images, pixels, beta), 1)


def test_given_weights_are_read_from_the_key_or_from_a_file(rare, tmp_path):
    dataset, workdir = open_dataset("folder", str(rare), None), Workdir(str(tmp_path / "run"))
    file = tmp_path / "weights.txt"
    file.write_text("1\n2.5\n0\n")
    for value in ("1, 2.5, 0", "1 2.5 0", (1, 2.5, 0), [1.0, 2.5, 0.0], str(file)):
        found = find_class_weights(config_of(rare, **{"loss.class_weights": value}), dataset, workdir)
        assert found == (1.0, 2.5, 0.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "1, 2",
            r"config\.loss\.class_weights has 2 numbers: expected one for each of the 3 classes \(sky, ground, post, …\)",
        ),
        ("1, -2, 1", r"config\.loss\.class_weights holds -2: expected finite numbers"),
        ("1, nan, 1", r"config\.loss\.class_weights holds nan: expected finite numbers"),
        ("0, 0, 0", r"config\.loss\.class_weights holds only zeros"),
        (
            "inverse",
            r"config\.loss\.class_weights='inverse': expected inverse_frequency, inverse_log, effective_number, one .*No such",
        ),
        ("classes.txt", r"config\.loss\.class_weights='.*classes\.txt': expected a text file of numbers"),
    ],
)
def test_weights_that_do_not_fit_are_explained(rare, tmp_path, value, message):
    value = str(rare / value) if value.endswith(".txt") else value
    with pytest.raises(UserError, match=message):
        config = config_of(rare, **{"loss.class_weights": value})
        find_class_weights(config, open_dataset("folder", str(rare), None), Workdir(str(tmp_path)))


def test_a_run_keeps_its_weights(rare, tmp_path):
    """A resumed run neither computes them again nor reads the changed file."""
    dataset, workdir, file = (
        open_dataset("folder", str(rare), None),
        Workdir(str(tmp_path / "run")),
        tmp_path / "weights.txt",
    )
    file.write_text("1, 2, 3")
    config = config_of(rare, **{"loss.class_weights": str(file)})
    weights = find_class_weights(config, dataset, workdir)
    workdir.open_for_training(config, dataset.label_space, "random")
    keep_class_weights(config, dataset, workdir, weights)
    file.write_text("3, 2, 1")
    assert find_class_weights(config, dataset, workdir) == weights == (1.0, 2.0, 3.0)
    stored = workdir.path / "class_weights.json"
    assert json.loads(stored.read_text()) == {"source": str(file), "classes": list(CLASSES), "weights": [1.0, 2.0, 3.0]}
    stored.write_text(stored.read_text().replace("sky", "sea"))
    with pytest.raises(
        UserError, match=r"class_weights\.json holds the weights of other classes \(sea, ground, post, …\)"
    ):
        find_class_weights(config, dataset, workdir)
    stored.write_text('{"source": "x", "classes": ["sky"], "weights": []}')
    with pytest.raises(
        UserError, match=r"class_weights\.json: .*expected one weight for each of the 1 classes, found 0"
    ):
        find_class_weights(config, dataset, workdir)


# --- contents of images


@given(
    st.integers(1, 255).flatmap(lambda c: st.lists(st.sets(st.integers(0, c - 1)), max_size=6).map(lambda x: (c, x)))
)
def test_contents_survive_packing(case):
    num_classes, shown = case
    contents = [(i, pack_classes(np.isin(np.arange(num_classes), sorted(classes)))) for i, classes in enumerate(shown)]
    assert all(len(text) == num_digits(num_classes) for _, text in contents)
    found = images_of_classes(contents[::-1], num_classes)
    assert [list(images) for images in found] == [
        [i for i, s in enumerate(shown) if c in s] for c in range(num_classes)
    ]


def test_reports_know_what_each_image_shows(rare):
    report = training_report(open_dataset("folder", str(rare), None), has_contents=True)
    np.testing.assert_array_equal(report.pixels, PIXELS)
    assert [list(images) for images in images_of_classes(report.contents, 3)] == SHOWN_BY
    again = DatasetReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again.contents == report.contents


def test_contents_are_renumbered_when_bad_pairs_are_left_out(rare):
    (rare / "images" / "training" / "2.png").write_bytes(b"no image")
    dataset = open_dataset("folder", str(rare), None, on_error="skip")
    report = training_report(dataset, has_contents=True)
    assert [list(images) for images in images_of_classes(report.contents, 3)] == [[0, 1, 2, 3, 4], [3, 4], [4]]
    whole = report_of([{0}, {1}, {2}], [1, 1, 1])
    whole.contents, whole.digests = whole.contents[1:], whole.digests[1:]
    assert [index for index, _ in whole.without_problems().contents] == [0, 1]


def test_a_report_without_contents_is_made_again(rare):
    dataset = open_dataset("folder", str(rare), None)
    old = DatasetReport.empty(3)
    old.add(np.zeros((8, 10), np.uint8), None)
    dataset.reports["training"] = old
    assert training_report(dataset) is old
    np.testing.assert_array_equal(training_report(dataset, has_contents=True).pixels, PIXELS)


# --- sampling


def report_of(shown, pixels):
    report = DatasetReport.empty(len(pixels))
    for i, classes in enumerate(shown):
        label = np.full((8, 8), VOID, np.uint8)
        label.ravel()[: len(classes)] = sorted(classes)
        report.add(label, PairFacts(i, "", "", False))
    report.pixels = np.array(pixels)
    return report


@pytest.mark.parametrize(("share", "temperature"), [(0.7, 0.3), (1.0, 5.0)])
def test_images_come_as_often_as_the_formula_says(share, temperature):
    shown = [{0}, {0}, {0, 1}, {0}, {0, 1}, {0, 1, 2}]
    sampling = RareSampling.of(report_of(shown, [*PIXELS, 0]), share, temperature)
    raw = np.exp((1 - PIXELS / PIXELS.sum()) / temperature)
    of_class = raw / raw.sum()
    expected = np.array([sum(of_class[c] / len(SHOWN_BY[c]) for c in classes) for classes in shown])
    rng, times = np.random.default_rng(0), 20_000
    counts = collections.Counter(sampling.draw(i % 6, rng) for i in range(times))
    found = np.array([counts[i] for i in range(6)]) / times
    np.testing.assert_allclose(found, (1 - share) / 6 + share * expected, atol=0.01)


def test_a_small_temperature_draws_the_rarest_class_alone():
    sampling = RareSampling.of(report_of([{0}, {1}, {0}], [90, 10]), 1.0, 1e-4)
    rng = np.random.default_rng(0)
    assert {sampling.draw(i, rng) for i in range(50)} == {1}


def test_without_a_labeled_image_the_order_stays():
    sampling = RareSampling.of(report_of([set(), set()], [0, 0]), 1.0, 0.01)
    rng = np.random.default_rng(0)
    assert [sampling.draw(i, rng) for i in range(2)] == [0, 1]


def batches_of(root, share, first_step=0, num=4, **options):
    """Return the images of some batches as the numbers of the photographs, and the crops."""
    dataset = open_dataset("folder", str(root), None)
    report = training_report(dataset, has_contents=True)
    sampling = RareSampling.of(report, share, 0.01) if share else None
    source, space, augmentation = dataset.open_split("training"), dataset.label_space, Augmentation(8, 1.0, 1.5, True)
    settings = {"batch_size": 4, "seed": 3, "first_step": first_step, "rare_sampling": sampling} | options
    batches = training_batches(source, space, augmentation, **settings)
    found = [next(batches) for _ in range(num)]
    batches.close()
    return [[int(np.median(image)) // 40 for image in batch["image"]] for batch in found], found


def test_the_order_depends_on_seed_and_step_alone(rare):
    """Whatever the number of processes and workers, and whether a run was interrupted; and without it, nothing changes."""
    numbers, straight = batches_of(rare, 0.8)
    assert collections.Counter(sum(numbers, []))[5] > 6  # the only image with the rarest class, among 16
    _, resumed = batches_of(rare, 0.8, first_step=2, num=2)
    np.testing.assert_array_equal(resumed[1]["image"], straight[3]["image"])
    _, shares = zip(*(batches_of(rare, 0.8, process_index=i, num_processes=2) for i in range(2)), strict=True)
    together = np.stack([share[1]["label"] for share in shares], 1).reshape(4, 8, 8)
    np.testing.assert_array_equal(together, straight[1]["label"])
    plain, _ = batches_of(rare, 0)
    assert sorted(sum(plain, [])[:6]) == [0, 1, 2, 3, 4, 5]  # an epoch shows each image once


def test_workers_do_not_change_the_order(rare):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    assert batches_of(rare, 0.8, num=2, workers=1)[0] == batches_of(rare, 0.8, num=2)[0]


def test_the_keys_switch_the_sampling_on(rare):
    dataset = open_dataset("folder", str(rare), None)
    changes = {"data.rare_sampling": 1.0, "data.rare_temperature": 1e-3, "data.workers": 0, "training.batch_size": 8}
    batches = experiment.open_batches(config_of(rare, **changes), dataset, 0)
    batch = next(batches)
    batches.close()
    pairs = zip(batch["image"], batch["label"], strict=True)
    assert {int(np.median(image[label != VOID])) // 40 for image, label in pairs} == {5}


@pytest.mark.slow
def test_a_run_with_everything_resumes_with_the_same_weights(folder, tmp_path):
    """In two parts and in one: the same checkpoint and scores; and the counts of each image lie beside each result."""
    changes = {
        "data.root": str(folder), "data.rare_sampling": 0.5, "data.workers": 0, "training.batch_size": 4, "training.steps": 4,
        "training.evaluate_every": 2, "training.ohem_threshold": 0.9, "training.ohem_min_kept": 64, "loss.focal": 0.5,
        "loss.dice": 1.0, "loss.lovasz": 1.0, "loss.boundary": 1.0, "loss.label_smoothing": 0.1, "loss.unity_gamma": 1.0,
        "loss.class_weights": "effective_number", "evaluation.num_pictures": 0, "evaluation.analysis": False,
    }  # fmt: skip
    config = config_lib.changed(tiny_config(), changes)
    straight, parted = Workdir(str(tmp_path / "straight")), Workdir(str(tmp_path / "parted"))
    expected = train(config, straight)
    train(config_lib.changed(config, {"training.stop_after": 2}), parted)
    before = (parted.path / "class_weights.json").read_bytes()
    found = train(config, parted)
    assert comparable(found) == comparable(expected)
    assert (parted.path / "class_weights.json").read_bytes() == before
    line = json.loads((parted.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"cross_entropy", "focal", "dice", "lovasz", "boundary", "unity"} <= line.keys()
    for step in (2, 4):
        result = parted.results.folder / f"validation-{step}.json"
        counts = read_image_counts(result).images.counts
        np.testing.assert_array_equal(counts.sum(0)[:, 2], np.sum(json.loads(result.read_text())["confusion"], 1))
    parted.results.drop_after(2)
    assert [path.name for path in (parted.path / "image_counts").iterdir()] == ["validation-2.json"]
