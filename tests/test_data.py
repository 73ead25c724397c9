"""Reading, checking, augmenting and batching on the host."""

import io
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image
from support.data_sets import CLASSES, draw_pair, write_folder

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import decode, pipeline, transforms
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.holdout import draw_holdout
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.report import check_once, survey
from pyrseg_jax.errors import UserError

SPACE = ade_layout(CLASSES)


def png(array, mode=None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, "PNG") if mode else Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(array, **kwargs) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=95, **kwargs)
    return buffer.getvalue()


def record(image: bytes, label: bytes) -> dict:
    return {"image": image, "label": label, "image_name": "a.jpg", "label_name": "a.png", "name": "a"}


# --- label values


def test_label_values_round_trip():
    space = LabelSpace(("a", "b", "c"), (7, 2, 200), void_file_id=0)
    values = np.array([[0, 7, 2], [200, 2, 0]], np.uint8)
    train_ids = space.to_train_ids(values, "x.png")
    np.testing.assert_array_equal(train_ids, [[VOID, 0, 1], [2, 1, VOID]])
    np.testing.assert_array_equal(space.to_file_values(train_ids), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_a_value_above_the_classes_is_named_with_its_place(dtype):
    values = np.zeros((4, 5), dtype)
    values[2, 3] = values[3, 3] = 4
    with pytest.raises(UserError, match=r"x\.png: value 4 at row 2, column 3 \(2 pixels of it\).*0 \(void\) or 1 … 3"):
        SPACE.to_train_ids(values, "x.png")


def test_sixteen_bits_do_not_wrap_into_a_class():
    with pytest.raises(UserError, match="value 257"):
        SPACE.to_train_ids(np.full((2, 2), 257, np.uint16), "x.png")


def test_the_most_classes_that_fit():
    space = ade_layout(tuple(f"class {i}" for i in range(255)))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(space.to_file_values(space.to_train_ids(values, "x")), values)


# --- decoding


def test_every_kind_of_photograph_becomes_rgb(rng):
    image, _ = draw_pair(rng, 20, 30)
    grey = image[..., 0]
    np.testing.assert_array_equal(decode.decode_image(png(image), "x"), image)
    np.testing.assert_array_equal(decode.decode_image(png(grey), "x"), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(decode.decode_image(png(grey.astype(np.uint16) * 257), "x"), np.stack([grey] * 3, -1))
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG", quality=95)
    assert np.abs(decode.decode_image(cmyk.getvalue(), "x").astype(int) - image).mean() < 12
    half_transparent = np.dstack([image, np.where(np.arange(30) < 15, 255, 0) * np.ones((20, 1))]).astype(np.uint8)
    decoded = decode.decode_image(png(half_transparent), "x")
    np.testing.assert_array_equal(decoded[:, :15], image[:, :15])
    assert (decoded[:, 15:] == 255).all()
    for mode in ("P", "1", "LA", "RGBA"):
        assert decode.decode_image(png(image, mode), "x").shape == image.shape


def test_a_rotated_photograph_is_turned_upright_with_its_label(rng):
    image, label = draw_pair(rng, 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° to the right to see it upright
    stored = jpeg(np.rot90(image).copy(), exif=exif)
    assert decode.decode_image(stored, "x").shape == (20, 30, 3)
    assert decode.size_of(stored, "x") == (20, 30)
    pair = decode.decode_pair(record(stored, png(label)), SPACE)
    assert np.abs(pair.image.astype(int) - image).mean() < 8
    # A label drawn on the pixels as they are stored fits only these.
    pair = decode.decode_pair(record(stored, png(np.rot90(label).copy())), SPACE)
    assert np.abs(pair.image.astype(int) - np.rot90(image)).mean() < 8


def test_a_palette_label_holds_indices():
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    np.testing.assert_array_equal(decode.decode_label(buffer.getvalue(), "x", SPACE), [[VOID, 0], [1, 2]])


GOOD_IMAGE, GOOD_LABEL = np.zeros((8, 12, 3), np.uint8), np.ones((8, 12), np.uint8)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (jpeg(GOOD_IMAGE)[:-200], png(GOOD_LABEL), r"a\.jpg cannot be decoded .*[Tt]runcated"),
        (b"", png(GOOD_LABEL), r"a\.jpg cannot be decoded as an image \(it is empty\)"),
        (b"<html>not found</html>", png(GOOD_LABEL), r"a\.jpg cannot be decoded"),
        (jpeg(GOOD_IMAGE), png(GOOD_LABEL)[:40], r"a\.png cannot be decoded"),
        (jpeg(GOOD_IMAGE), png(GOOD_IMAGE), r"a\.png has the channels RGB \(3 numbers per pixel\)"),
        (jpeg(GOOD_IMAGE), png(GOOD_IMAGE, "RGBA"), r"a\.png has the channels RGBA"),
        (jpeg(GOOD_IMAGE), png(GOOD_LABEL, "LA"), r"a\.png has the channels LA"),
        (jpeg(GOOD_IMAGE), jpeg(GOOD_LABEL), r"a\.png is a JPEG"),
        (jpeg(GOOD_IMAGE), png(GOOD_LABEL[:, :-1]), r"a\.jpg is 12 × 8 pixels, but its label a\.png is 11 × 8"),
        (jpeg(GOOD_IMAGE), png(GOOD_LABEL * 9), r"a\.png: value 9 at row 0, column 0"),
    ],
)
def test_a_bad_file_is_named(image, label, message):
    with pytest.raises(UserError, match=message):
        decode.decode_pair(record(image, label), SPACE)


def test_the_quick_decoders_give_what_pil_gives(rng):
    image, label = draw_pair(rng, 33, 47)
    for data in (jpeg(image), jpeg(image, subsampling=2, progressive=True), jpeg(image[..., 0])):
        assert decode._decode_plain_jpeg(data) is not None
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode.decode_image(data, "x"), expected)
    assert decode._decode_plain_png(png(label)) is not None
    np.testing.assert_array_equal(decode._decode_plain_png(png(label)), label)
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 3
    for data in (cmyk.getvalue(), jpeg(image, exif=exif), jpeg(image)[:-50], jpeg(image) + b"\0", png(image)):
        assert decode._decode_plain_jpeg(data) is None
    for data in (png(image), png(label, "P"), png(label, "1"), png(label.astype(np.uint16)), jpeg(label)):
        assert decode._decode_plain_png(data) is None


def test_a_label_with_a_wrong_checksum_is_not_believed(rng):
    data = bytearray(png(rng.integers(1, 4, (40, 40)).astype(np.uint8)))
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4])
    data[start + length] ^= 1  # the chunk's checksum alone: the values are still right
    with pytest.raises(UserError, match=r"x\.png is damaged \(a checksum in it is wrong\)|x\.png cannot be decoded"):
        decode.decode_label(bytes(data), "x.png", SPACE)


# --- the folder layout


def test_folder_lists_pairs_by_name(folder):
    (folder / "images" / "training" / "._training_0.jpg").write_bytes(b"left by a file manager")
    dataset = open_dataset("folder", str(folder), None)
    source = dataset.open_split("training")
    assert [source[i]["name"] for i in range(len(source))] == [f"training_{i}" for i in range(6)]
    assert dataset.label_space.names == CLASSES


def break_folder(folder, what):
    image, label = (
        folder / kind / "training" / f"training_3.{end}" for kind, end in (("images", "jpg"), ("annotations", "png"))
    )
    if what == "no label":
        label.unlink()
    elif what == "no image":
        image.unlink()
    elif what == "two images":
        image.with_suffix(".png").write_bytes(image.read_bytes())
    elif what == "no classes":
        (folder / "classes.txt").unlink()
    elif what == "empty classes":
        (folder / "classes.txt").write_text("\n\n")
    elif what == "gap in classes":
        (folder / "classes.txt").write_text("sky\n\npost\n")
    elif what == "repeated class":
        (folder / "classes.txt").write_text("sky\nground\nsky\n")
    elif what == "binary classes":
        (folder / "classes.txt").write_bytes(b"\xff\xfe\x00s")
    elif what == "no split":
        (folder / "annotations" / "training").rename(folder / "annotations" / "train")
    elif what == "empty split":
        for path in (folder / "images" / "training").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no label", r"training_3\.jpg has no label: expected .*annotations/training/training_3\.png"),
        ("no image", r"training_3\.png has no image: expected .*images/training/training_3\.jpg"),
        ("two images", r"training_3\.(jpg|png) and training_3\.(png|jpg) have the same name"),
        ("no classes", r"classes\.txt is missing: write one class name per line"),
        ("empty classes", r"classes\.txt is empty"),
        ("gap in classes", r"classes\.txt: line 2 is empty"),
        ("repeated class", r"classes\.txt: line 3 repeats the class 'sky'"),
        ("binary classes", r"classes\.txt is not UTF-8"),
        ("no split", r"annotations/training is missing: the folder layout is"),
        ("empty split", r"images/training holds no image"),
    ],
)
def test_a_folder_that_is_not_laid_out_is_explained(folder, what, message):
    break_folder(folder, what)
    with pytest.raises(UserError, match=message):
        open_dataset("folder", str(folder), None).open_split("training")


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("folders", None, "config.data.name='folders': expected one of ade20k, coco_stuff10k, camvid, scenes, folder"),
        ("folder", None, "config.data.root is not set"),
        ("folder", "/nonexistent/place", "config.data.root=/nonexistent/place: there is no such folder"),
    ],
)
def test_a_data_set_that_cannot_be_opened_is_explained(name, root, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name, root, None)


# --- the held-out split


def names_of(source) -> list[str]:
    return [source[i]["name"] for i in range(len(source))]


def test_the_holdout_and_the_rest_are_the_training_split(tmp_path):
    root = write_folder(tmp_path / "data", {"training": 12, "validation": 2}, size=(8, 8))
    whole = names_of(open_dataset("folder", str(root), None).open_split("training"))
    draws = []
    for seed in range(4):
        dataset = open_dataset("folder", str(root), None, holdout=5, holdout_seed=seed)
        kept, held_out = (names_of(dataset.open_split(split)) for split in ("training", "holdout"))
        assert len(held_out) == 5
        assert sorted(kept + held_out) == sorted(whole)
        draws.append(tuple(held_out))
        assert names_of(dataset.open_split("validation")) == ["validation_0", "validation_1"]
    assert len(set(draws)) == 4
    # The paper's numbers depend on the draw: it must never change.
    assert draw_holdout(12, 5, 0)[1] == [3, 4, 7, 9, 10]


def test_the_holdout_is_spread_over_the_training_split():
    training, held_out = draw_holdout(20_210, 4_042, 0)
    assert sorted(training + held_out) == list(range(20_210))
    shares = np.histogram(held_out, 10, (0, 20_210))[0] / 2021
    assert shares.min() > 0.17 and shares.max() < 0.23


def test_a_held_out_file_that_changes_is_checked_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = open_dataset("folder", str(folder), None, holdout=2)
    kept, held_out = dataset.open_split("training"), dataset.open_split("holdout")
    for source in (kept, held_out):
        check_once(source, dataset.label_space, "x")
    (folder / "annotations" / "training" / f"{held_out[1]['name']}.png").write_bytes(b"")
    check_once(kept, dataset.label_space, "training")
    with pytest.raises(UserError, match=rf"{held_out[1]['name']}\.png cannot be decoded as an image \(it is empty\)"):
        check_once(held_out, dataset.label_space, "holdout")


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (6, r"config\.data\.holdout=6: the training split has 6 images.*take at most 5"),
        (0, r"the split 'holdout' is empty: say with config\.data\.holdout=N"),
    ],
)
def test_a_holdout_that_cannot_be_is_explained(folder, holdout, message):
    with pytest.raises(UserError, match=message):
        open_dataset("folder", str(folder), None, holdout=holdout).open_split("holdout")


# --- the survey


def test_survey_counts_and_collects_every_problem(folder):
    dataset = open_dataset("folder", str(folder), None)
    labels = [np.asarray(Image.open(folder / "annotations" / "training" / f"training_{i}.png")) for i in range(6)]
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"broken")
    Image.fromarray(labels[4] * 9).save(folder / "annotations" / "training" / "training_4.png")
    found = survey(dataset.open_split("training"), dataset.label_space, "training")
    kept = np.stack([labels[i] for i in (0, 2, 3, 5)])
    assert found.num_images == 4
    np.testing.assert_array_equal(found.pixels, [(kept == value).sum() for value in (1, 2, 3)])
    assert found.num_void == (kept == 0).sum()
    assert [index for index, _ in found.problems] == [1, 4]
    assert "training_1.jpg" in found.problems[0][1] and "training_4.png" in found.problems[1][1]


def test_files_are_checked_once_and_again_when_they_change(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = open_dataset("folder", str(folder), None)
    source = dataset.open_split("training")
    check_once(source, dataset.label_space, "training")
    with monkeypatch.context() as patch:
        patch.setattr(type(source), "__getitem__", lambda *_: pytest.fail("read again"))
        check_once(source, dataset.label_space, "training")
    label = folder / "annotations" / "training" / "training_2.png"
    Image.fromarray(np.full((48, 64), 8, np.uint8)).save(label)
    with pytest.raises(UserError, match=r"training_2\.png: value 8"):
        check_once(dataset.open_split("training"), dataset.label_space, "training")


# --- augmentation


def coordinate_pair(height=40, width=60):
    """An image that holds its label: class id = red / 10."""
    label = np.add.outer(np.arange(height) // 10, np.arange(width) // 10 * 4).astype(np.uint8)
    image = np.stack([label * 10, label * 10, label * 10], -1)
    return decode.Pair(image, label)


def test_image_and_label_move_together(rng):
    augment = transforms.Augmentation(crop_px=32, scale_min=0.5, scale_max=2.0, is_flipped=True)
    num_void = 0
    for _ in range(50):
        image, label = augment(coordinate_pair(), rng)
        # Where the image is flat, away from interpolated edges, it tells the class that the label must have.
        is_flat = (np.abs(np.diff(image[..., 0].astype(int), axis=0, prepend=-99)) == 0) & (
            np.abs(np.diff(image[..., 0].astype(int), axis=1, prepend=-99)) == 0
        )
        inside = is_flat & (label != VOID) & (image[..., 0] % 10 == 0)
        assert inside.mean() > 0.05
        np.testing.assert_array_equal(image[inside][:, 0] // 10, label[inside])
        num_void += (label == VOID).any()
        assert (image[(label == VOID)] != 0).any() or not (label == VOID).any()
    assert num_void > 5


@pytest.mark.parametrize("scale", [0.6, 0.7, 1.0, 1.3, 1.9])
def test_label_and_image_have_the_same_pixel_centres(rng, scale):
    """A ramp tells where each pixel comes from: nearest and linear may differ by half a pixel at most, and by none on average."""
    ramp = np.add.outer(np.zeros(60), np.arange(60)).astype(np.uint8)
    for axes in ((0, 1), (1, 0)):
        label = ramp.transpose(axes)
        pair = decode.Pair(np.repeat(4 * label[..., None], 3, -1), label)
        for _ in range(5):
            image, found = transforms.Augmentation(24, scale, scale, is_flipped=True)(pair, rng)
            difference = (image[..., 0] / 4 - found)[2:-2, 2:-2]
            assert np.abs(difference).max() <= 0.5 + 0.2
            assert abs(difference.mean()) < 0.15


def test_without_randomness_nothing_changes(rng):
    pair = decode.Pair(*draw_pair(rng, 32, 32))
    found = transforms.Augmentation(crop_px=32)(pair, rng)
    np.testing.assert_array_equal(found.image, pair.image)
    np.testing.assert_array_equal(found.label, pair.label)


def test_flip_is_exact_and_happens_half_of_the_time(rng):
    pair = decode.Pair(*draw_pair(rng, 32, 32))
    num_flipped = 0
    for _ in range(200):
        found = transforms.Augmentation(crop_px=32, is_flipped=True)(pair, rng)
        is_flipped = not (found.label == pair.label).all()
        expected = decode.Pair(*(array[:, ::-1] for array in pair)) if is_flipped else pair
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.label, expected.label)
        num_flipped += is_flipped
    assert 70 < num_flipped < 130


def test_crop_covers_the_image_and_pads_with_void(rng):
    """Positions are uniform: every pixel of a larger image is seen, and a smaller image is never cut."""
    label = np.arange(50, dtype=np.uint8)[None].repeat(10, 0)
    pair = decode.Pair(np.zeros((10, 50, 3), np.uint8), label)
    seen = np.unique([transforms.Augmentation(crop_px=16)(pair, rng).label for _ in range(200)])
    np.testing.assert_array_equal(seen, [*range(50), VOID])
    small = decode.Pair(np.zeros((10, 8, 3), np.uint8), np.ones((10, 8), np.uint8))
    for _ in range(20):
        found = transforms.Augmentation(crop_px=16)(small, rng)
        assert 70 <= (found.label == 1).sum() <= 80  # at most one row or column is lost to rounding
        assert (found.image[found.label == VOID] == transforms.PADDING_COLOR).all(
            -1
        ).mean() > 0.8  # the rest is interpolated


def test_scale_is_what_it_says(rng):
    pair = decode.Pair(np.zeros((64, 64, 3), np.uint8), np.pad(np.ones((32, 32), np.uint8), 16))
    sizes = [transforms.Augmentation(256, 0.5, 2.0)(pair, rng).label for _ in range(100)]
    sides = np.sqrt([(label == 1).sum() for label in sizes]) / 32
    assert 0.5 * 0.93 < sides.min() < 0.6
    assert 1.9 < sides.max() < 2.0 * 1.05


@pytest.mark.parametrize(
    ("factors", "law"),
    [
        ((1, 1, 1), lambda x: x),
        ((0.5, 1, 1), lambda x: x * 0.5),
        ((1, 0, 1), lambda x: np.full_like(x, (x @ [0.299, 0.587, 0.114]).mean())),
        ((1, 1, 0), lambda x: np.repeat((x @ [0.299, 0.587, 0.114])[..., None], 3, -1)),
    ],
)
def test_color_factors(rng, factors, law):
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    found = transforms.jitter_color(image, *factors)
    np.testing.assert_allclose(found, law(image.astype(float)), atol=1)


# --- batches


def batches_of(folder, count, **kwargs):
    dataset = open_dataset("folder", str(folder), None)
    augmentation = transforms.Augmentation(32, 0.5, 1.5, True, 0.2)
    arguments = {"batch_size": 4, "seed": 7} | kwargs
    stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space, augmentation, **arguments)
    return [next(stream) for _ in range(count)]


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_batches_are_a_function_of_seed_and_step(folder):
    straight = batches_of(folder, 6)
    assert straight[0]["image"].shape == (4, 32, 32, 3)
    assert straight[0]["label"].dtype == np.uint8
    assert_same_batches(batches_of(folder, 2, first_step=4), straight[4:])
    assert not (batches_of(folder, 1, seed=8)[0]["image"] == straight[0]["image"]).all()
    assert not (straight[0]["image"] == straight[3]["image"]).all()


def test_shares_of_processes_are_the_global_batch(folder):
    whole = batches_of(folder, 3)
    shares = [batches_of(folder, 3, process_index=i, num_processes=2) for i in range(2)]
    for step in range(3):
        joined = np.concatenate([share[step]["label"] for share in shares])
        order = [0, 2, 1, 3]  # process i holds images i, i + 2, …
        np.testing.assert_array_equal(joined, whole[step]["label"][order])


def test_worker_processes_change_nothing(folder):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    assert_same_batches(batches_of(folder, 3, workers=2), batches_of(folder, 3))


def test_every_epoch_sees_every_image_in_another_order(folder):
    dataset = open_dataset("folder", str(folder), None)
    whole = transforms.Augmentation(64)
    stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space, whole, batch_size=6, seed=0)
    epochs = [[image.tobytes() for image in next(stream)["image"][:, :48]] for _ in range(3)]
    # The image is higher than wide here, so the crop holds it whole; where it lies is random.
    assert all(len(set(epoch)) == 6 for epoch in epochs)


def test_ordered_map_is_ordered_and_lazy():
    started = []

    def work(i):
        started.append(i)
        return i * i

    stream = pipeline.ordered_map(work, range(1000), 2)
    assert [next(stream) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(started) < 20
    stream.close()


def test_no_file_of_the_host_side_imports_jax_or_starts_a_device(folder):
    """Workers only decode: a device that they open would be taken from the trainer."""
    code = f"""
import sys
from pyrseg_jax.data import catalog, pipeline, transforms
dataset = catalog.open_dataset("folder", {str(folder)!r}, None)
stream = pipeline.training_batches(dataset.open_split("training"), dataset.label_space,
                                   transforms.Augmentation(32), batch_size=2, seed=0)
next(stream)
bridge = sys.modules.get("jax._src.xla_bridge")
assert bridge is None or not bridge._backends, bridge._backends
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
