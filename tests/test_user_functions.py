"""A user's own function, or an Albumentations pipeline, as a part of the augmentation."""

import concurrent.futures
import re

import numpy as np
import pytest
from support.augmentations import random_pair

from pyrseg_jax.data import pipeline
from pyrseg_jax.data.augmentation.user_function import UserFunction, check_name, load_function
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError

MODULE = "support.user_functions"


def test_a_function_of_a_module_or_a_file_gets_the_crop_and_the_generator(tmp_path, rng):
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass Shift:\n    most: int\n"
        "    def __call__(self, image, label, generator):\n"
        "        assert image.shape == (16, 16, 3) and label.shape == (16, 16)\n"
        "        return image + generator.integers(self.most, dtype='uint8'), label\n"
        "shift = Shift(9)\n"
    )
    pair = random_pair(rng, 20, 20)
    for name in (f"{file}:shift", f"{MODULE}:turned_colors"):
        augment = Augmentation(16, 0.5, 2.0, function=UserFunction(name, 6))
        first, second = (augment(pair, np.random.default_rng(5)) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        plain = Augmentation(16, 0.5, 2.0)(pair, np.random.default_rng(5))
        assert (plain.image != first.image).any()
        assert any((augment(pair, np.random.default_rng(s)).image != first.image).any() for s in range(3))


def test_a_function_may_change_its_arguments_and_not_the_pair(rng):
    pair = random_pair(rng, 8, 8)
    before = pair.image.copy()
    UserFunction(f"{MODULE}:in_place", 6)(pair, rng, "a.jpg")
    np.testing.assert_array_equal(pair.image, before)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("failing", r"failed with a\.jpg \(KeyError: 'no such thing'\): correct the function"),
        ("nothing", r"returned for a\.jpg a NoneType, but \(image, label\) is expected"),
        ("too_small", r"returned for a\.jpg as an image 7×8×3 uint8, but 8×8×3 uint8 is expected"),
        ("of_floats", r"returned for a\.jpg as an image 8×8×3 float64, but 8×8×3 uint8 is expected"),
        ("as_integers", r"returned for a\.jpg as a label map 8×8 int64, but 8×8 uint8 is expected"),
        ("unknown_class", r"returned for a\.jpg the label 77, but 0 … 5 are the classes, and 255 is void"),
    ],
)
def test_what_a_function_returns_is_checked(rng, function, message):
    with pytest.raises(UserError, match=rf"^function='{MODULE}:{function}' {message}"):
        UserFunction(f"{MODULE}:{function}", 6)(random_pair(rng, 8, 8), rng, "a.jpg")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("support.user_functions", "expected package.module:NAME or path/to/file.py:NAME"),
        (":f", "expected package.module:NAME"),
        ("mine.py:a b", "expected package.module:NAME"),
        ("no_such_module_here:f", "no_such_module_here cannot be imported (ModuleNotFoundError: No module named"),
        ("missing/mine.py:f", "there is no file "),
        (f"{MODULE}:absent", f"{MODULE} does not define absent"),
    ],
)
def test_a_name_that_leads_nowhere_is_explained(name, message):
    with pytest.raises(UserError, match=re.escape(f"function={name!r}: {message}")):
        load_function(name)


def test_a_file_that_fails_and_a_thing_that_cannot_be_called_are_explained(tmp_path):
    (tmp_path / "mine.py").write_text("raise ValueError('early')\n")
    with pytest.raises(UserError, match=r"mine\.py cannot be imported \(ValueError: early\)"):
        load_function(f"{tmp_path / 'mine.py'}:f")
    with pytest.raises(UserError, match="not_a_function' is a int: expected a function, or an Albumentations pipeline"):
        load_function(f"{MODULE}:not_a_function")
    check_name(f"{MODULE}:absent")  # only the form


def test_a_pipeline_is_seeded_for_each_image_and_each_thread_has_its_own(rng):
    function, pair = UserFunction(f"{MODULE}:pipeline", 6), random_pair(rng, 40, 40)

    def call(seed):
        return function(pair, np.random.default_rng(seed), "a.jpg").image.tobytes()

    alone = [call(seed) for seed in range(40)]
    assert len(set(alone)) == 40
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(40))) == alone


def test_an_albumentations_pipeline_gives_the_same_bits_again(tmp_path, rng):
    pytest.importorskip("albumentations")
    (tmp_path / "mine.py").write_text(
        "import albumentations as A\n"
        "pipeline = A.Compose([A.RandomBrightnessContrast(p=0.9), A.HorizontalFlip(), A.GridDistortion(p=0.5)])\n"
    )
    function, pair = UserFunction(f"{tmp_path / 'mine.py'}:pipeline", 6), random_pair(rng, 32, 32)
    found = [[function(pair, np.random.default_rng(seed), "a.jpg") for seed in range(8)] for _ in range(2)]
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.label, second.label)
    assert len({pair.image.tobytes() for pair in found[0]}) > 4


def test_an_error_of_a_function_names_the_image_of_the_batch(folder):
    dataset = open_dataset("folder", str(folder), None)
    augmentation = Augmentation(32, function=UserFunction(f"{MODULE}:failing", 3))
    stream = pipeline.training_batches(
        dataset.open_split("training"), dataset.label_space, augmentation, batch_size=2, seed=0
    )
    with pytest.raises(UserError, match=rf"^function='{MODULE}:failing' failed with .*training_\d\.jpg"):
        next(stream)
