"""Test the rendered scenes: reproducible, balanced, labeled as rendered, and prepared without TensorFlow."""

import concurrent.futures
import hashlib
import io
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import scenes
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.inspection import inspect_for_evaluation, inspect_for_training
from pyrseg_jax.data.training_report import training_report
from pyrseg_jax.errors import UserError
from pyrseg_jax.scenes import CLASS_COLORS, CLASS_NAMES, IS_STUFF, encode, paint_scene
from pyrseg_jax.scenes.lens import halve_labels

NUM_CLASSES = 12
SKY, BUILDING, ROAD, PAVEMENT, GRASS, WATER, WALL, TREE, CAR, PERSON, POLE, SIGN = range(1, 13)
SAMPLE_SIZE = 20  # scenes are drawn independently: the first ones stand for the split


@pytest.fixture(scope="module")
def encoded() -> list[tuple[int, bytes, bytes]]:
    """Return the first training scenes as two worker processes encode them."""
    return list(encode.encode_in_pool("training", SAMPLE_SIZE, num_workers=2))


@pytest.fixture(scope="module")
def sample(encoded) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images (256, 256, 3), as JPEG keeps them, and labels (256, 256)."""
    return [tuple(np.array(Image.open(io.BytesIO(data))) for data in pair) for _, *pair in encoded]


def test_names_colors_and_kinds_belong_together():
    assert len(CLASS_NAMES) == len(CLASS_COLORS) == len(IS_STUFF) == NUM_CLASSES
    assert CLASS_NAMES == (
        "sky", "building", "road", "pavement", "grass", "water",
        "wall", "tree", "car", "person", "pole", "sign",
    )  # fmt: skip
    assert [name for name, is_stuff in zip(CLASS_NAMES, IS_STUFF, strict=True) if not is_stuff] == [
        "car", "person", "pole", "sign",
    ]  # fmt: skip
    colors = np.array(CLASS_COLORS, float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 999 * np.eye(NUM_CLASSES)
    assert distances.min() > 50, "two classes have colors that are hard to tell apart"


def test_a_scene_is_the_same_twice_and_in_another_process(encoded, sample):
    assert [index for index, _, _ in encoded] == list(range(SAMPLE_SIZE))
    for index in (17, 0):  # in the workers, in another order, after other scenes
        assert encode.encode_scene("training", index) == encoded[index]
    first, second = paint_scene("training", 0), paint_scene("training", 0)
    for once, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(first[1], sample[0][1])


def test_scenes_differ_between_numbers_and_splits(sample):
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image, _ in sample}
    assert len(digests) == len(sample)
    validation = paint_scene("validation", 0)[1]
    assert (validation != sample[0][1]).mean() > 0.2


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match="'train'.*training and validation"):
        paint_scene("train", 0)


GOLDEN_LABELS = {
    ("training", 0): "5f1341a79e429e62",
    ("training", 7): "a4de6063bddcc407",
    ("validation", 3): "9c116b4fa38fb2e4",
}


@pytest.mark.parametrize(("split", "index"), GOLDEN_LABELS)
def test_labels_are_the_published_ones(split, index):
    digest = hashlib.sha256(paint_scene(split, index)[1].tobytes()).hexdigest()[:16]
    assert digest == GOLDEN_LABELS[split, index], (
        "The pictures have changed: raise PAINTING_VERSION and the builder's VERSION, then note the new "
        "digests. If nobody changed them, this machine draws other polygons."
    )


def test_colors_are_the_published_ones_within_a_gray_level(sample):
    """Compare means and quantiles: other builds of OpenCV may round single pixels otherwise."""
    images = np.stack([image for image, _ in sample]).astype(np.float64)
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), GOLDEN_MEAN, atol=1.0)
    np.testing.assert_allclose(np.quantile(images, (0.1, 0.5, 0.9)), GOLDEN_QUANTILES, atol=2.0)


GOLDEN_MEAN = (108.0, 111.0, 111.6)
GOLDEN_QUANTILES = (48.0, 99.0, 194.0)


def test_images_and_labels_have_the_promised_form(sample):
    for image, labels in sample:
        assert image.shape == (256, 256, 3)
        assert labels.shape == (256, 256)
        assert labels.max() <= NUM_CLASSES
    image, labels = paint_scene("training", 0, size_px=96)
    assert image.shape == (96, 96, 3) and labels.shape == (96, 96)
    assert image.dtype == labels.dtype == np.uint8


def test_every_class_is_common_and_seen_well(sample):
    counts = np.array([np.bincount(labels.ravel(), minlength=NUM_CLASSES + 1) for _, labels in sample])
    is_seen = counts >= 60  # fewer pixels could be a glimpse behind something else
    shares = dict(zip(CLASS_NAMES, is_seen[:, 1:].mean(axis=0), strict=True))
    assert min(shares.values()) >= 0.08, shares
    pixels = counts[:, 1:].sum(axis=0) / counts[:, 1:].sum()
    assert pixels.min() > 0.005, "a thin class is dominated out"
    assert pixels.max() < 0.4


def test_void_is_a_small_share(sample):
    shares = [(labels == 0).mean() for _, labels in sample]
    assert 0.01 < np.mean(shares) < 0.08
    assert max(shares) < 0.15


def unity_levels(labels: np.ndarray) -> np.ndarray:
    """Return the level 0..3 (strides 32, 16, 8, 4) of every pixel: the coarsest whose cell holds one class."""
    levels = np.full(labels.shape, 3)
    for level, stride in reversed(list(enumerate((32, 16, 8)))):
        for top in range(0, labels.shape[0], stride):
            for left in range(0, labels.shape[1], stride):
                cell = (slice(top, top + stride), slice(left, left + stride))
                if len(np.unique(labels[cell][labels[cell] > 0])) <= 1:
                    levels[cell] = level
    return levels


def test_every_level_of_the_pyramid_has_work(sample):
    counts = np.zeros(4)
    for _, labels in sample:
        counts += np.bincount(unity_levels(labels)[labels > 0], minlength=4)
    shares = counts / counts.sum()
    assert shares.min() >= 0.05, shares


def edge_contrast(image: np.ndarray, labels: np.ndarray) -> float:
    """Return how much more colors change where labels do than elsewhere, from one column to the next."""
    steps = np.abs(np.diff(image.astype(int), axis=1)).sum(axis=-1)
    is_edge = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    return float(steps[is_edge].mean() / steps[~is_edge].mean())


def test_labels_lie_on_what_was_painted(sample):
    """Where labels change, colors change; labels of another scene, or moved by 3 pixels, fit worse."""
    own = np.median([edge_contrast(image, labels) for image, labels in sample])
    others = [labels for _, labels in sample[1:] + sample[:1]]
    foreign = np.median([edge_contrast(image, other) for (image, _), other in zip(sample, others, strict=True)])
    moved = np.median([edge_contrast(image, np.roll(labels, 3, axis=1)) for image, labels in sample])
    assert own > 4 * max(foreign, moved), (own, foreign, moved)


def test_classes_look_as_they_should(sample):
    """Grass and trees are greener than roads; sky is the brightest, and above all that stands or lies."""
    colors, rows = {label: [] for label in range(1, 13)}, {label: [] for label in range(1, 13)}
    for image, labels in sample:
        for label in np.unique(labels[labels > 0]):
            mask = labels == label
            colors[label].append(image[mask].mean(axis=0))
            rows[label].append(np.nonzero(mask)[0].mean())
    green = {label: np.mean([c[1] - (c[0] + c[2]) / 2 for c in colors[label]]) for label in colors}
    assert green[GRASS] > green[ROAD] + 8 and green[TREE] > green[BUILDING] + 4
    brightness = {label: np.mean([c.mean() for c in colors[label]]) for label in colors}
    assert max(brightness, key=brightness.get) == SKY
    height = {label: np.mean(rows[label]) for label in rows}
    assert max(height[SKY], height[BUILDING], height[TREE]) < min(
        height[label] for label in (ROAD, PAVEMENT, GRASS, WATER, CAR, PERSON)
    )


def test_nothing_floats(sample):
    """Below the ground there is no sky, and what stands has something to stand on, not sky, below it."""
    for _, labels in sample:
        is_ground = np.isin(labels, (ROAD, PAVEMENT, GRASS, WATER))
        assert not (np.maximum.accumulate(is_ground, axis=0) & (labels == SKY)).any()
        stands = np.isin(labels, (CAR, WALL))
        assert not (np.maximum.accumulate(stands, axis=0) & (labels == SKY)).any()
        # Between an arm and the body a little sky may show.
        assert (np.maximum.accumulate(labels == PERSON, axis=0) & (labels == SKY)).sum() < 20


def test_halving_takes_the_majority_and_voids_what_is_mixed_with_a_thing():
    labels = np.full((64, 64), ROAD, np.uint8)
    labels[:, 32:] = GRASS
    labels[0, 33] = ROAD  # three to one among stuff: the majority
    labels[20:30, 9:20] = CAR  # the left edge cuts through blocks of four, half and half
    labels[40:44, 40:43] = POLE
    labels[43, 41] = GRASS  # three to one for a thin thing: it stays
    halved = halve_labels(labels, np.random.default_rng(0))
    assert halved[0, 16] == GRASS
    assert (halved[10:15, 4] == 0).all() and (halved[10:15, 5:10] == CAR).all()
    assert (halved[21, 20], halved[20, 20], halved[20, 21]) == (POLE, POLE, 0)
    assert set(np.unique(halved)) == {0, ROAD, GRASS, CAR, POLE}
    is_far = np.ones((32, 32), bool)
    is_far[9:16, 3:12] = is_far[19:23, 19:23] = False
    assert not (halved[is_far] == 0).any()


def test_encoding_falls_back_to_one_process(monkeypatch):
    """A pool that dies half-way must leave no gap and no repetition."""

    def dying_pool(split, num_scenes, num_workers):
        yield encode.encode_scene(split, 0)
        raise BrokenProcessPool("a worker was killed")

    expected = [(index, bytes([index]), b"") for index in range(20)]
    monkeypatch.setattr(encode, "encode_scene", lambda split, index: expected[index])
    monkeypatch.setattr(encode, "encode_in_pool", dying_pool)
    assert list(encode.encode_scenes("training", 20, num_workers=2)) == expected


def test_the_prepared_data_set_holds_what_was_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", {"training": 3, "validation": 2})
    dataset = open_dataset("scenes", None, str(tmp_path))
    assert Path(dataset.place) == tmp_path / "scenes" / "1.0.0"
    assert [path.suffix for path in tmp_path.rglob("*training*")] == [".array_record-00000-of-00001"]
    training, validation = (dataset.open_split(split) for split in ("training", "validation"))
    assert (len(training), len(validation)) == (3, 2)
    assert {training[i]["name"] for i in range(3)} == {f"train_{i:05}" for i in range(3)}
    records = {record["name"]: record for record in (validation[i] for i in range(2))}
    assert set(records) == {"val_00000", "val_00001"}
    image, labels = paint_scene("validation", 1)
    found = decode_pair(records["val_00001"], dataset.label_space)
    np.testing.assert_array_equal(dataset.label_space.to_file_values(found.label), labels)
    difference = np.abs(found.image.astype(int) - image)
    assert difference.mean() < 2.5, "JPEG at quality 95 keeps within a few gray levels"


def test_neither_jax_nor_tensorflow_is_needed():
    code = (
        "import sys; import pyrseg_jax.data.datasets.scenes; "
        "print([name for name in ('jax', 'tensorflow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_two_that_start_together_render_the_scenes_once(tmp_path, monkeypatch):
    """Two runs that start at the same time must not fail at each other's files."""
    monkeypatch.setattr(scenes, "NUM_SCENES", {"training": 2, "validation": 1})
    rendered = []
    original = scenes.encode_scenes

    def count(split, num_scenes):
        rendered.append(split)
        return original(split, num_scenes)

    monkeypatch.setattr(scenes, "encode_scenes", count)

    def open_it(_):
        return len(open_dataset("scenes", None, str(tmp_path)).open_split("training"))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(open_it, range(2))) == [2, 2]
    assert sorted(rendered) == ["training", "validation"]


def test_scenes_without_an_end_begin_with_the_prepared_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", {"training": 2, "validation": 1})
    prepared, endless = (open_dataset(name, None, str(tmp_path)) for name in ("scenes", "endless_scenes"))
    assert endless.label_space == prepared.label_space
    training, validation = prepared.open_split("training"), endless.open_split("validation")
    known = {record["name"]: record for record in (training[i] for i in range(2))}
    stream = endless.open_split("training")
    for index in range(2):
        record = stream[index]
        assert (record["image"], record["label"]) == (known[record["name"]]["image"], known[record["name"]]["label"])
    far = len(stream) - 1
    assert far >= 999_999
    found = decode_pair(stream[far], endless.label_space)
    np.testing.assert_array_equal(endless.label_space.to_file_values(found.label), paint_scene("training", far)[1])
    assert (len(validation), validation[0]["name"]) == (1, "val_00000")


def test_scenes_without_an_end_are_counted_in_a_sample_and_never_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", {"training": 2, "validation": 1})
    dataset = open_dataset("endless_scenes", None, str(tmp_path))
    report = training_report(dataset)
    assert report.num_images == 2
    assert report.pixels.sum() == pytest.approx(2 * 256 * 256, rel=0.2)
    for check in (inspect_for_evaluation, inspect_for_training):
        with pytest.raises(UserError, match="'training' cannot be evaluated, because its images are rendered"):
            check(dataset, "training")
    inspect_for_evaluation(dataset, "validation")
