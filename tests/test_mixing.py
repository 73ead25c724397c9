"""CutMix and ClassMix: what is pasted, and which images are mixed with which."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.augmentations import random_pair

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import pipeline
from pyrseg_jax.data.augmentation.mixing import Mix, classmix, cutmix
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.transforms import Augmentation


def two_pairs(rng) -> tuple[Pair, Pair]:
    """Return two pairs whose images differ at every pixel: the first is even, the second is odd."""
    first, second = (random_pair(rng, 30, 20) for _ in range(2))
    return Pair(first.image & 254, first.label), Pair(second.image | 1, second.label)


@given(st.integers(0, 2**32 - 1))
def test_cutmix_pastes_one_rectangle_exactly(seed):
    rng = np.random.default_rng(seed)
    first, second = two_pairs(rng)
    image, label = cutmix(first, second, rng)
    is_pasted = (image & 1).any(-1)
    assert (is_pasted == np.outer(is_pasted.any(1), is_pasted.any(0))).all()
    np.testing.assert_array_equal(image, np.where(is_pasted[..., None], second.image, first.image))
    np.testing.assert_array_equal(label, np.where(is_pasted, second.label, first.label))


@given(st.integers(0, 2**32 - 1))
def test_classmix_pastes_half_of_the_classes_exactly(seed):
    rng = np.random.default_rng(seed)
    first, second = two_pairs(rng)
    second = Pair(second.image, np.where(second.label < 5 - seed % 6, second.label, VOID).astype(np.uint8))
    image, label = classmix(first, second, rng)
    is_pasted = (image & 1).any(-1)
    present, pasted = (set(np.unique(labels)) - {VOID} for labels in (second.label, second.label[is_pasted]))
    assert len(pasted) == len(present) // 2
    np.testing.assert_array_equal(is_pasted, np.isin(second.label, list(pasted)))
    np.testing.assert_array_equal(image, np.where(is_pasted[..., None], second.image, first.image))
    np.testing.assert_array_equal(label, np.where(is_pasted, second.label, first.label))


def test_shares_and_classes_are_drawn_evenly(rng):
    first, second = two_pairs(rng)
    shares = [(cutmix(first, second, rng).image & 1).any(-1).mean() for _ in range(1000)]
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.06)
    counts = np.zeros(256)
    for _ in range(600):
        mixed = classmix(first, second, rng)
        counts[np.unique(second.label[(mixed.image & 1).any(-1)])] += 1
    np.testing.assert_allclose(counts[:6] / 600, 0.5, atol=0.07)
    assert counts[6:].sum() == 0


# --- in the pipeline


def batches(folder, mix, count=3, **arguments):
    dataset = open_dataset("folder", str(folder), None)
    augmentation = Augmentation(32, 0.8, 1.2, True, 0.2, mix=mix)
    stream = pipeline.training_batches(
        dataset.open_split("training"), dataset.label_space, augmentation, **({"batch_size": 4, "seed": 3} | arguments)
    )
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("kind", ["cutmix", "classmix"])
def test_mixing_changes_its_share_of_the_images_and_leaves_the_others(folder, kind):
    plain = batches(folder, None, 10)
    never, often = batches(folder, Mix(kind, 0.0), 10), batches(folder, Mix(kind, 0.6), 10)
    for expected, found in zip(plain, never, strict=True):
        for name in ("image", "label"):
            np.testing.assert_array_equal(found[name], expected[name])
    is_changed = [(a["image"][i] != b["image"][i]).any() for a, b in zip(plain, often, strict=True) for i in range(4)]
    assert 0.4 < np.mean(is_changed) < 0.8
    unchanged = np.concatenate([(a["image"] == b["image"]).all(-1) for a, b in zip(plain, often, strict=True)])
    labels = [np.concatenate([batch["label"] for batch in stream]) for stream in (plain, often)]
    np.testing.assert_array_equal(labels[0][unchanged & (labels[1] != labels[0])], [])


def test_the_second_images_have_an_order_of_their_own(folder):
    """Where everything is pasted, the batches show the second images: all of them, in another order than the first ones."""

    @dataclasses.dataclass(frozen=True)
    class Replace(Mix):
        def __call__(self, pair, other, generator):
            return other

    whole = Augmentation(64, mix=Replace("cutmix", 1.0))
    dataset = open_dataset("folder", str(folder), None)
    orders = []
    for augmentation in (dataclasses.replace(whole, mix=None), whole):
        stream = pipeline.training_batches(
            dataset.open_split("training"), dataset.label_space, augmentation, batch_size=6, seed=0
        )
        orders.append([[image[:, :48].mean() for image in next(stream)["image"]] for _ in range(3)])
    first, second = np.array(orders)
    assert all(len(set(epoch)) == 6 for epoch in second)
    assert (np.abs(first - second) > 1e-6).mean() > 0.5


def test_a_bad_second_record_is_counted(folder):
    for path in (folder / "images" / "training").iterdir():
        if path.name != "training_3.jpg":
            path.write_bytes(b"bad")
    dataset = open_dataset("folder", str(folder), None)
    stream = pipeline.training_batches(
        dataset.open_split("training"), dataset.label_space, Augmentation(32, mix=Mix("cutmix", 1.0)),
        batch_size=6, seed=0, on_error="skip",
    )  # fmt: skip
    next(stream)
    assert stream.num_skipped >= 5
