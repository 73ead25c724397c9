"""Rank labels and images: damaged labels come first, similar images wait, and files of others are not replaced."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.command_line import call, error_of
from support.data_sets import CLASSES, write_folder
from support.runs import tiny_config, write_run

from pyrseg_jax.conventions import VOID
from pyrseg_jax.evaluation.acquisition import choose_diverse, signature_of
from pyrseg_jax.evaluation.label_errors import (
    MOST_DOUBT,
    Evidence,
    find_evidence,
    pair_counts,
    score_images,
    surprise_of,
)
from pyrseg_jax.evaluation.label_shift import shift_of


def evidence_of(truth, predicted, doubt, counts=None):
    counts = pair_counts(truth, predicted, 3) if counts is None else counts
    confidence = np.full(truth.shape, 0.9, np.float32)
    return find_evidence(truth, predicted, doubt.astype(np.float32), confidence, surprise_of(counts))


def test_a_wrong_region_is_found_where_it_is():
    predicted = np.zeros((64, 96), np.uint8)
    truth = predicted.copy()
    truth[10:30, 40:70] = 2
    truth[60:, :] = VOID
    doubt = np.where(truth == 2, 5.0, 0.0)
    (region,) = evidence_of(truth, predicted, doubt).regions
    assert (region.label, region.predicted, region.num_pixels, region.box) == (2, 0, 600, (40, 10, 30, 20))
    assert region.doubt == pytest.approx(5) and region.confidence == pytest.approx(0.9)


def test_an_edge_scores_below_a_region():
    """Forty pixels in a row are less evidence than forty pixels in a square."""
    predicted, counts = np.zeros((96, 96), np.uint8), np.full((3, 3), 100)
    edge, square = predicted.copy(), predicted.copy()
    edge[40, 20:60], square[40:46, 40:46] = 1, 1
    thin, thick = (evidence_of(truth, predicted, 4.0 * (truth == 1), counts) for truth in (edge, square))
    assert thin.unlabeled[0] < thick.unlabeled[0]
    assert thin.regions[0].evidence[0] < thick.regions[0].evidence[0]


def test_usual_mistakes_count_less():
    counts = np.array([[1000, 10, 0], [900, 1000, 0], [0, 0, 1000]])
    surprise = surprise_of(counts)
    assert surprise[1, 0] < surprise[0, 1] < surprise[0, 2]
    predicted, truth = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    truth[4:12, 4:12], truth[20:28, 20:28] = 1, 2
    first, second = evidence_of(truth, predicted, 3.0 * (truth > 0), counts + np.diag([0, 0, 9000])).regions
    assert (first.label, second.label) == (2, 1)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_score_of_an_image_is_at_least_that_of_its_regions(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(4):
        truth, predicted = (
            rng.choice([0, 1, 2, VOID], (24, 32), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8) for _ in "ab"
        )
        predicted[predicted == VOID] = 0
        images.append(evidence_of(truth, predicted, 9 * rng.random((24, 32)) * (truth != predicted)))
        assert images[-1].unlabeled.max() <= MOST_DOUBT * 10
    for score, regions in score_images(images):
        assert score >= max(region.score for region in regions) - 1e-4  # sums of single precision
        assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)


def test_an_object_without_a_label_scores_above_a_wide_border():
    """As many pixels say the same; but the border touches a labeled object of the class that is predicted."""
    truth, predicted = np.zeros((2, 128, 128), np.uint8)
    truth[40:60, 40:60] = predicted[38:62, 38:62] = 1
    border = evidence_of(truth, predicted, 4.0 * (truth != predicted), counts := np.full((3, 3), 100))
    predicted = truth.copy()
    predicted[90:104, 90:103] = 1
    absent = evidence_of(truth, predicted, 4.0 * (truth != predicted), counts)
    assert absent.unlabeled[1] > 4 * border.unlabeled[1] and absent.regions[0].box == (90, 90, 13, 14)


def test_an_object_with_another_class_scores_above_one_that_is_partly_wrong():
    truth = np.zeros((64, 64), np.uint8)
    truth[8:24, 8:24], truth[40:56, 8:24] = 1, 1
    whole, half = np.where(truth == 1, 1, 0).astype(np.uint8), truth.copy()
    whole[8:24, 8:24] = 2
    half[8:24, 8:16], half[40:56, 8:16] = 2, 2
    first, second = (evidence_of(truth, p, 4.0 * (truth != p), np.full((3, 3), 100)) for p in (whole, half))
    assert first.signals[1] == pytest.approx(second.signals[1])  # as many wrong pixels, equally doubtful
    assert first.signals[0] > 4 * second.signals[0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.sampled_from([2, 4]))
@settings(max_examples=20, deadline=None)
def test_a_shifted_label_map_is_told_from_mistakes(seed, direction, distance):
    """A shift by one of the distances that are tried, in any direction, gives 1; as many random mistakes give less than a half."""
    rng = np.random.default_rng(seed)
    predicted = np.kron(rng.integers(0, 4, (12, 12)), np.ones((8, 8), int)).astype(np.uint8)
    y, x = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)][direction]
    length = np.hypot(y, x)
    down, right = round(distance * y / length), round(distance * x / length)
    truth = np.roll(predicted, (-down, -right), (0, 1))
    assert shift_of(predicted, predicted, 4) == 0
    assert shift_of(truth, predicted, 4) == 1
    wrong = np.where(rng.random((96, 96)) < (truth != predicted).mean() / 2, (predicted + 1) % 4, predicted)
    assert shift_of(wrong.astype(np.uint8), predicted, 4) < 0.5
    assert shift_of(truth[:2], predicted[:2], 4) == 0  # too small to tell


def test_scores_say_how_unusual_an_image_is_in_its_split():
    """The median image has the score 0, and one of ten has at least 1, whatever the unit of a signal is."""
    found = [Evidence(np.zeros(3, np.float32), (float(i), 100.0 * i), ()) for i in range(11)]
    scores = [score for score, _ in score_images(found)]
    assert scores[5] == 0 and scores[9] == 1 and scores == sorted(scores)


def test_objects_that_the_network_often_sees_by_mistake_score_less():
    """Evidence for class 1 counts less, because the network often predicts that class where it is absent."""
    found = [Evidence(np.eye(3, dtype=np.float32)[1] * (1 + i / 100), (), ()) for i in range(10)]
    rare = Evidence(np.array([0, 0, 1], np.float32), (), ())
    scores = [score for score, _ in score_images([*found, rare])]
    assert scores[-1] > 2 * max(scores[:-1])


def test_a_split_without_errors_has_no_score():
    truth = np.zeros((32, 32), np.uint8)
    assert score_images([evidence_of(truth, truth, np.zeros((32, 32)))] * 3) == [(0.0, ())] * 3
    assert score_images([]) == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=20)
def test_the_order_holds_every_image_once(seed, num_chosen):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(6)]
    signatures = [signature_of(labels, 3) for labels in maps]
    for signature in signatures:
        assert signature @ signature == pytest.approx(1, abs=1e-5)
    scores = rng.random(6).tolist()
    order = choose_diverse(scores, signatures, num_chosen)
    assert sorted(order) == list(range(6)) and order[0] == int(np.argmax(scores))


def test_the_same_image_again_waits():
    one, other = (np.full((16, 16), value, np.uint8) for value in (0, 1))
    signatures = [signature_of(labels, 3) for labels in (one, one, other)]
    assert choose_diverse([0.9, 0.8, 0.1], signatures, 2) == [0, 2, 1]
    assert choose_diverse([0.9, 0.8, 0.1], signatures, 1) == [0, 1, 2]


# ── With a run ──


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, and a data set whose labels are its own predictions, but for a square in one image."""
    place = tmp_path_factory.mktemp("ranking")
    root = write_folder(place / "data", {"training": 2, "validation": 5}, size=(64, 64))
    write_run(place / "run", tiny_config(), CLASSES, is_vivid=True)
    photos, labels = root / "images" / "validation", root / "annotations" / "validation"
    done = call(
        "predict", f"--workdir={place / 'run'}", f"--input={photos}", f"--output={place / 'own'}", "--outputs=labels"
    )
    assert done.returncode == 0, done.stderr
    for path in sorted(labels.iterdir()):
        label = np.asarray(Image.open(place / "own" / path.name)).copy()
        if path == sorted(labels.iterdir())[3]:
            label[20:44, 20:44] = label[20:44, 20:44] % 3 + 1
        Image.fromarray(label).save(path)
    return place, root, sorted(labels.iterdir())[3].stem


def test_a_damaged_label_map_comes_first(run, tmp_path):
    place, root, damaged = run
    arguments = [
        "rank",
        f"--workdir={place / 'run'}",
        f"--config.data.root={root}",
        f"--output={tmp_path / 'out'}",
        "--top=2",
    ]
    done = call(*arguments, "--distributed=off")
    assert done.returncode == 0, done.stderr
    images = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert len(images) == 5 and damaged in images[0]["image"] and float(images[1]["score"]) == 0
    regions = list(csv.DictReader((tmp_path / "out" / "regions.csv").open()))
    assert {region["image"] for region in regions} == {images[0]["image"]}
    assert sum(int(region["pixels"]) for region in regions) == 24 * 24
    found = json.loads((tmp_path / "out" / "ranking.json").read_text())
    assert found["kind"] == "labels" and [image["rank"] for image in found["images"]] == [1, 2, 3, 4, 5]
    assert f"{damaged}: labeled" in done.stdout
    picture = Image.open(tmp_path / "out" / "ranking.png")
    assert picture.width > 1000 and len(set(picture.getdata())) > 50
    # What is there is not replaced without permission.
    assert "give --overwrite to replace the ranking there" in error_of(call(*arguments))


def test_unlabeled_images_are_ranked(run, tmp_path):
    place, root, _ = run
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for path in sorted((root / "images" / "validation").iterdir()):
        (photos / "more" / path.name).write_bytes(path.read_bytes())
    (photos / "bad.png").write_bytes(b"no image")
    arguments = ["rank", f"--workdir={place / 'run'}", f"--input={photos}", f"--output={tmp_path / 'out'}", "--top=3"]
    message = error_of(call(*arguments))
    assert "1 of 6 images could not be ranked" in message and "bad.png" in message
    images = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert len(images) == 5 and images[0]["image"].startswith("more/")
    scores = [float(image["score"]) for image in images]
    assert scores[0] == max(scores) and scores[3:] == sorted(scores[3:], reverse=True)
    for image in images:
        total = float(image["entropy"]) + float(image["disagreement"])
        assert float(image["score"]) == pytest.approx(total, rel=1e-3)
    assert not (tmp_path / "out" / "regions.csv").exists()


def test_broken_input_is_one_line(run, tmp_path):
    place, root, _ = run
    known = ["rank", f"--workdir={place / 'run'}", f"--config.data.root={root}"]
    assert "rank needs --output=PATH" in error_of(call(*known))
    assert "in remote storage" in error_of(call(*known, "--output=gs://bucket/out"))
    (tmp_path / "file").write_text("")
    assert "is not a folder" in error_of(call(*known, f"--output={tmp_path / 'file'}"))
    assert "there is no such file or folder" in error_of(
        call(*known, f"--input={tmp_path / 'no'}", f"--output={tmp_path / 'o'}")
    )
    assert "--top=0: expected an integer, at least 1" in error_of(call(*known, f"--output={tmp_path / 'o'}", "--top=0"))
