"""Training batches depend on seed and step alone."""

import os
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from support.augmentations import everything

from pyrseg_jax.data import pipeline, transforms
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.threads import ordered_map

PLAIN = transforms.Augmentation(32, 0.5, 1.5, True, 0.2)


def batches_of(folder, count, augmentation=PLAIN, **kwargs):
    dataset = open_dataset("folder", str(folder), None)
    arguments = {"batch_size": 4, "seed": 7} | kwargs
    stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space, augmentation, **arguments)
    return [next(stream) for _ in range(count)]


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


@pytest.mark.parametrize("augmentation", [PLAIN, everything()], ids=["plain", "everything"])
def test_batches_are_a_function_of_seed_and_step(folder, augmentation):
    straight = batches_of(folder, 6, augmentation)
    assert straight[0]["image"].shape == (4, 32, 32, 3)
    assert straight[0]["label"].dtype == np.uint8
    assert_same_batches(batches_of(folder, 2, augmentation, first_step=4), straight[4:])
    assert_same_batches(batches_of(folder, 6, augmentation), straight)
    assert not (batches_of(folder, 1, augmentation, seed=8)[0]["image"] == straight[0]["image"]).all()
    assert not (straight[0]["image"] == straight[3]["image"]).all()


@pytest.mark.parametrize("augmentation", [PLAIN, everything()], ids=["plain", "everything"])
def test_shares_of_processes_are_the_global_batch(folder, augmentation):
    whole = batches_of(folder, 3, augmentation)
    shares = [batches_of(folder, 3, augmentation, process_index=i, num_processes=2) for i in range(2)]
    for step in range(3):
        for name in ("image", "label"):
            joined = np.concatenate([share[step][name] for share in shares])
            order = [0, 2, 1, 3]  # process i holds images i, i + 2, …
            np.testing.assert_array_equal(joined, whole[step][name][order])


def test_worker_processes_give_the_same_batches(folder):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    augmentation = everything()  # with a second image and the user's function, which every worker imports itself
    assert_same_batches(batches_of(folder, 3, augmentation, workers=2), batches_of(folder, 3, augmentation))


def test_every_epoch_sees_every_image_in_another_order(folder):
    dataset = open_dataset("folder", str(folder), None)
    whole = transforms.Augmentation(64)
    stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space, whole, batch_size=6, seed=0)
    epochs = [[image.tobytes() for image in next(stream)["image"][:, :48]] for _ in range(3)]
    # The crop is larger than the image and holds it whole, at a random place.
    assert all(len(set(epoch)) == 6 for epoch in epochs)


def test_ordered_map_is_ordered_and_lazy():
    started = []

    def work(i):
        started.append(i)
        return i * i

    stream = ordered_map(work, range(1000), 2)
    assert [next(stream) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(started) < 20
    stream.close()


def test_reading_data_starts_no_device(folder):
    """Data workers only decode. A device that one of them opened would be missing in the trainer."""
    code = f"""
import sys
from pyrseg_jax.data import catalog, pipeline, transforms
dataset = catalog.open_dataset("folder", {str(folder)!r}, None)
stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space,
                                   transforms.Augmentation(32), batch_size=2, seed=0)
next(stream)
assert "tensorflow" not in sys.modules
"""
    # With a platform that does not exist, JAX raises an error as soon as anything asks for a device.
    environment = os.environ | {"JAX_PLATFORMS": "no_such_platform"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_listing_data_sets_imports_neither_jax_nor_tfds():
    """Both take a second or more, which `--help` and a mistyped name should not."""
    code = (
        "import sys; import pyrseg_jax.data.catalog; "
        "print([name for name in ('jax', 'grain', 'tensorflow_datasets', 'scipy', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
