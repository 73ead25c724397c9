"""Images of other channels and values than photographs: what is read, scaled, masked, augmented and refused."""

import io
import math

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
from support.data_sets import CLASSES, draw_pair, write_folder
from support.runs import tiny_config, write_run

from pyrseg_jax.conventions import VOID, image_mean
from pyrseg_jax.data.augmentation.degradation import Blur, Noise
from pyrseg_jax.data.augmentation.erasing import Erasing
from pyrseg_jax.data.augmentation.geometry import Affine
from pyrseg_jax.data.augmentation.mixing import cutmix
from pyrseg_jax.data.augmentation.photometric import Photometric
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.checks import report_once
from pyrseg_jax.data.decode import Pair, decode_image, decode_masked, decode_pair
from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace, make_image_space, picture_of, to_values
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.weights.image_input import fit_channels
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.image_space import image_space_of, keep_image_space, known_image_space
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir

CHANNELS = (1, 2, 4, 5, 16)


def png(values):
    """Encode an array as a PNG with as many bits and channels; OpenCV writes blue before red."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(values.shape[-1], [0])
    return cv2.imencode(".png", np.ascontiguousarray(values[..., order]))[1].tobytes()


def configured(**changes):
    config = config_lib.defaults()
    config.data.name, config.data.crop_px = "folder", 64
    config.data.update(changes)
    return config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, PHOTOGRAPH),
        ({"channels": 2, "scaling": "fixed:0:3000"}, ImageSpace(2, ((0, 3000), (0, 3000)))),
        ({"channels": 2, "scaling": "fixed:-1,0:1,0.5"}, ImageSpace(2, ((-1, 1), (0, 0.5)))),
        ({"scaling": "percentile"}, ImageSpace(3, percentiles=(1, 99))),
        ({"scaling": "percentile:2:98"}, ImageSpace(3, percentiles=(2, 98))),
        ({"nodata": " -9999, 0,nan"}, ImageSpace(3, nodata=(-9999, 0))),
    ],
)
def test_keys_describe_the_values_of_images(arguments, expected):
    assert make_image_space(**arguments) == expected
    assert ImageSpace(**to_values(expected)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, r"^channels=0: expected 1 to 16$"),
        ({"channels": 17}, r"^channels=17: expected 1 to 16$"),
        ({"scaling": "minmax"}, r"^scaling='minmax': expected fixed:LOW:HIGH, percentile, or percentile:LOW:HIGH$"),
        ({"scaling": "fixed:1"}, r"^scaling='fixed:1': expected fixed"),
        ({"scaling": "fixed:a:2"}, r"^scaling='fixed:a:2': 'a' is not a number"),
        ({"scaling": "fixed:2:2"}, r"^scaling='fixed:2:2': 2 is not below 2"),
        ({"scaling": "fixed:0:inf"}, r"expected finite numbers"),
        ({"scaling": "fixed:0,0:1,1"}, r"has 2 numbers: expected one, or one for each of the 3 channels"),
        ({"scaling": "percentile:99:1"}, r"expected two percentages, 0 to 100, the smaller one first"),
        ({"scaling": "percentile:0:101"}, r"expected two percentages"),
        ({"nodata": "none"}, r"^nodata='none': 'none' is not a number; expected numbers with commas between them"),
    ],
)
def test_wrong_keys_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        make_image_space(**arguments)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int16, np.int32]), (3, 4, 2)),
    st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10**6)),
)
def test_scaling_is_linear_between_the_limits_and_clips_beyond(values, limits):
    low, high = limits[0], limits[0] + limits[1]
    image, is_void = ImageSpace(2, ((low, high),) * 2).to_image(values, None)
    assert image.dtype == np.float32
    assert is_void is None
    expected = [min(max((int(v) - low) * 255 / (high - low), 0), 255) for v in values.ravel()]
    np.testing.assert_allclose(image.ravel(), expected, rtol=1e-6, atol=1e-4)


def test_missing_values_become_zero_for_the_network_and_void_where_all_channels_miss():
    values = np.array([[[1, 2], [np.nan, 5], [-9999, np.inf], [3.4e38, -9999]]], np.float32)
    space = make_image_space(2, "fixed:0:10", "-9999")
    image, is_void = space.to_image(values, space.find_missing(values))
    assert is_void.tolist() == [[False, False, True, True]]
    np.testing.assert_allclose(image[0, 0], [25.5, 51], rtol=1e-6)
    normalized = np.asarray(normalize(jnp.asarray(image)[None]))[0, 0]
    assert normalized[1, 0] == 0
    assert normalized[1, 1] > 0
    assert not normalized[2:].any()


def test_in_bytes_only_pixels_without_any_data_are_masked():
    """0 stands for missing data, and is also the green of a pure red."""
    values = np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8)
    space = make_image_space(3, nodata="0")
    image, is_void = space.to_image(values, space.find_missing(values))
    assert is_void.tolist() == [[True, False]]
    assert image.tolist() == [[[124, 116, 104], [255, 0, 0]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pngs_keep_their_bits_and_channels(rng, dtype, channels):
    values = rng.integers(0, np.iinfo(dtype).max, (7, 9, channels), dtype)
    top = np.iinfo(dtype).max
    found = decode_image(png(values), "a.png", make_image_space(channels, f"fixed:0:{top}"))
    np.testing.assert_allclose(found, values * (255 / top), rtol=1e-5, atol=1e-4)
    if dtype == np.uint8 and channels != 3:
        np.testing.assert_array_equal(decode_image(png(values), "a.png", ImageSpace(channels)), values)


def test_gray_with_transparency_is_two_channels(rng):
    values = rng.integers(0, 256, (5, 6, 2), np.uint8)
    data = io.BytesIO()
    Image.fromarray(values, "LA").save(data, "PNG")
    np.testing.assert_array_equal(decode_image(data.getvalue(), "a.png", ImageSpace(2)), values)


def test_three_channels_of_bytes_are_read_like_photographs(rng):
    """A no-data value that does not occur changes nothing: both ways to read a picture agree."""
    image, label = draw_pair(rng, 40, 50)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    names = {"image_name": "a.png", "label_name": "b.png", "name": "a"}
    record = {"image": data.getvalue(), "label": png(label[..., None]), **names}
    plain = decode_pair(record, ade_layout(CLASSES))
    other = decode_pair({**record, "image_space": ImageSpace(nodata=(300.0,))}, ade_layout(CLASSES))
    for found, expected in zip(other, plain, strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_other_images_are_turned_like_photographs(rng, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(rng.integers(0, 256, (5, 8), np.uint8))
    data = io.BytesIO()
    image.save(data, "PNG", exif=exif)
    found = decode_image(data.getvalue(), "a.png", ImageSpace(1))
    upright = ImageOps.exif_transpose(Image.open(data))  # PIL's own rule
    np.testing.assert_array_equal(found[..., 0], np.asarray(upright))
    np.testing.assert_array_equal(found.repeat(3, -1), decode_image(data.getvalue(), "a.png"))


@pytest.mark.parametrize(
    ("mode", "space", "message"),
    [
        ("RGB", ImageSpace(1), r"^a\.png has 3 channels, and the images are expected to have 1: .* set channels=3$"),
        ("L", ImageSpace(5), r"^a\.png has 1 channel, and the images are expected to have 5"),
        (
            "I;16",
            ImageSpace(1),
            r"holds values of type uint16, and images of 8 bits are expected: .*scaling=percentile",
        ),
        ("CMYK", ImageSpace(4), r"has the channels CMYK: store its channels as a TIFF"),
    ],
)
def test_images_of_another_kind_are_refused(mode, space, message):
    data, picture = io.BytesIO(), Image.new(mode, (8, 6))
    picture.save(data, "JPEG" if mode == "CMYK" else "PNG")
    with pytest.raises(UserError, match=message):
        decode_image(data.getvalue(), "a.png", space)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_channel_is_augmented_alike(rng, channels, dtype):
    """An image that repeats one channel still does after every change that draws no number per channel."""
    gray = rng.integers(0, 256, (50, 60, 1)).astype(dtype)
    pair = Pair(gray.repeat(channels, -1), rng.integers(0, 9, (50, 60)).astype(np.uint8))
    effects = (Photometric(hue_deg=0, saturation=0.0), Blur(1.0), Erasing(0.5))
    for affine in (Affine(), Affine(rotation_deg=20, shear_deg=5, aspect=1.2)):
        augment = Augmentation(48, 0.5, 2.0, is_flipped=True, color_jitter=0.3, affine=affine, effects=effects)
        for seed in range(6):
            image, label = augment(pair, np.random.default_rng(seed))
            assert (image.shape, image.dtype, label.shape) == ((48, 48, channels), dtype, (48, 48))
            assert (image == image[..., :1]).all()
            assert 0 <= image.min() <= image.max() <= 255
            mixed = cutmix(Pair(image, label), augment(pair, rng), rng)
            assert mixed.image.shape == image.shape
    noisy = Noise(1.0, 20.0)(pair, rng).image
    assert (noisy.shape, noisy.dtype) == (pair.image.shape, dtype)
    assert 0 <= noisy.min() <= noisy.max() <= 255
    for size in ((20, 25), (70, 90), (50, 60)):
        assert resize_image(pair.image, size).shape == (*size, channels)


def test_the_padding_of_scaled_images_is_zero_for_the_network(rng):
    pair = Pair(np.full((20, 20, 5), 200, np.float32), np.zeros((20, 20), np.uint8))
    image, label = Augmentation(64)(pair, rng)
    outside = np.asarray(normalize(jnp.asarray(image)[None]))[0][label == VOID]
    assert len(outside)
    assert not outside.any()
    assert math.isclose(image_mean(5)[0], sum(image_mean(3)) / 3)


@pytest.mark.parametrize("channels", CHANNELS)
def test_pictures_show_the_first_channels(rng, channels):
    image = rng.uniform(0, 255, (4, 5, channels)).astype(np.float32)
    picture = picture_of(image)
    assert (picture.shape, picture.dtype) == ((4, 5, 3), np.uint8)
    np.testing.assert_array_equal(picture[..., 0], np.rint(image[..., 0]))
    rgb = rng.integers(0, 256, (4, 5, 3), np.uint8)
    assert picture_of(rgb) is rgb


def write_deep_folder(root, num_images=4):
    """Write a folder of gray PNGs of 16 bits, with a corner of missing values in each image."""
    write_folder(root, {"training": num_images, "validation": 1})
    for split in ("training", "validation"):
        for path in sorted((root / "images" / split).iterdir()):
            gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 40 + 100
            gray[:8, :8] = 9
            path.unlink()
            path.with_suffix(".png").write_bytes(png(gray[..., None]))
    return root


def test_a_data_set_masks_pixels_without_data_and_measures_its_scaling_once(tmp_path, caplog):
    root = write_deep_folder(tmp_path / "data")
    space = make_image_space(1, "percentile:0:100", "9")
    dataset = open_dataset("folder", str(root), None, image_space=space)
    ((low, high),) = dataset.image_space.limits
    assert low >= 100
    assert high <= 255 * 40 + 100
    source = dataset.open_split("training")
    image, label = decode_pair(source[0], dataset.label_space)
    assert (label[:8, :8] == VOID).all()
    assert (image[:8, :8] == np.float32(image_mean(1)[0])).all()
    assert 0 <= image.min() < image.max() <= 255
    report = report_once(source, dataset.label_space, "training")
    assert report.num_void >= 4 * 64
    plain = open_dataset("folder", str(root), None)
    assert report_once(plain.open_split("training"), plain.label_space, "training").num_void < report.num_void
    # The run keeps the numbers, whatever becomes of the images.
    config = config_lib.resolve(configured(root=str(root), channels=1, scaling="percentile:0:100", nodata="9"))
    workdir = Workdir(str(tmp_path / "run"))
    assert not image_space_of(config, workdir).is_measured
    workdir.open_for_training(config, dataset.label_space)
    with pytest.raises(UserError, match=r"images\.json is missing: it holds the scaling"):
        known_image_space(config, workdir)
    keep_image_space(workdir, dataset.image_space)
    assert known_image_space(config, workdir) == dataset.image_space
    again = experiment.open_data(config.data, image_space=image_space_of(config, workdir))
    assert again.image_space == dataset.image_space
    other = config_lib.changed(config, {"data.channels": 2})
    with pytest.raises(UserError, match=r"describes images of 1 channel of numbers .* config\.data\.channels is 2"):
        known_image_space(other, workdir)


def test_a_bad_image_is_left_out_of_the_measurement_or_named(tmp_path):
    root = write_deep_folder(tmp_path / "data")
    bad = root / "images" / "training" / "training_1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    space = make_image_space(1, "percentile")
    with pytest.raises(UserError, match=r"training_1\.png"):
        open_dataset("folder", str(root), None, image_space=space)
    assert len(open_dataset("folder", str(root), None, image_space=space, on_error="skip").open_split("training")) == 3
    for path in (root / "images" / "training").iterdir():
        path.write_bytes(png(np.zeros((48, 64, 1), np.uint16)))
    with pytest.raises(UserError, match=r"scaling=percentile: channel 1 of 1 has no value in the training images"):
        open_dataset("folder", str(root), None, image_space=make_image_space(1, "percentile", "0"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.channels": 5, "augment.jpeg_probability": 0.5},
            r"^config\.augment\.jpeg_probability=0\.5: JPEG",
        ),
        (
            {"data.scaling": "percentile", "augment.jpeg_probability": 1.0},
            r"jpeg_probability=1\.0: JPEG .*\.color_jitter=",
        ),
        ({"data.scaling": "fixed"}, r"^config\.data\.scaling='fixed': expected fixed:LOW:HIGH"),
        ({"data.channels": 17}, r"^config\.data\.channels=17"),
    ],
)
def test_keys_that_do_not_fit_together_are_named(changes, message):
    config = config_lib.resolve(configured())
    with pytest.raises(UserError, match=message):
        config_lib.changed(config, changes)


def test_data_sets_of_photographs_take_no_other_channels():
    for arguments, given_ in (({"channels": 5}, "channels=5"), ({"nodata": "0"}, "scaling= or nodata=")):
        with pytest.raises(
            UserError, match=f"{given_}: only name=folder takes it; the images of scenes are photographs"
        ):
            open_dataset("scenes", None, None, image_space=make_image_space(**arguments))


@given(st.integers(1, 16))
def test_imported_kernels_answer_to_gray_as_before(channels):
    rng = np.random.default_rng(channels)
    kernel = {("params", "stem1", "kernel"): rng.normal(size=(3, 3, 3, 8)).astype(np.float32)}
    ours = {("params", "stem1", "kernel"): np.empty((3, 3, channels, 8))}
    fitted, words = fit_channels(kernel, ours)
    (found,), (given_,) = fitted.values(), kernel.values()
    np.testing.assert_allclose(found.sum(2), given_.sum(2), rtol=1e-4, atol=1e-5)
    assert bool(words) == (channels != 3)
    assert channels != 3 or found is given_


@pytest.mark.slow
def test_a_run_on_photographs_starts_one_on_other_images(tmp_path, caplog):
    variables = write_run(tmp_path / "rgb", tiny_config(), CLASSES)
    config = tiny_config(init=tmp_path / "rgb")
    config = config_lib.changed(config, {"data.channels": 5})
    with caplog.at_level("INFO"):
        start = initialize(config, experiment.make_model(config, 3), ade_layout(CLASSES))
    kernel = start.variables["params"]["backbone"]["stem1"]["conv"]["kernel"]
    before = variables["params"]["backbone"]["stem1"]["conv"]["kernel"]
    assert kernel.shape[2] == 5
    np.testing.assert_allclose(kernel.sum(2), np.asarray(before).sum(2), rtol=1e-4, atol=1e-5)
    assert "random: nothing" in caplog.text
    assert "converted: the first convolution: each channel gets the mean of the kernels" in caplog.text


def test_masked_images_keep_their_shape_when_nothing_is_missing(rng):
    found = decode_masked(png(rng.integers(0, 256, (4, 5, 1), np.uint8)), "a.png", ImageSpace(1))
    assert found.image.shape == (4, 5, 1)
    assert found.is_void is None
