"""Decode images and label maps, and translate label values."""

import io

import numpy as np
import pytest
from PIL import Image
from support.data_sets import CLASSES, draw_pair

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import decode
from pyrseg_jax.data.images import fast_decode
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
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


def test_255_classes_fit_into_eight_bits():
    space = ade_layout(tuple(f"class {i}" for i in range(255)))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(space.to_file_values(space.to_train_ids(values, "x")), values)


# --- decoding


def test_every_kind_of_photograph_becomes_rgb(rng):
    image, _ = draw_pair(rng, 20, 30)
    gray = image[..., 0]
    np.testing.assert_array_equal(decode.decode_image(png(image), "x"), image)
    np.testing.assert_array_equal(decode.decode_image(png(gray), "x"), np.stack([gray] * 3, -1))
    np.testing.assert_array_equal(decode.decode_image(png(gray.astype(np.uint16) * 257), "x"), np.stack([gray] * 3, -1))
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG", quality=95)
    assert np.abs(decode.decode_image(cmyk.getvalue(), "x").astype(int) - image).mean() < 12
    half_transparent = np.dstack([image, np.where(np.arange(30) < 15, 255, 0) * np.ones((20, 1))]).astype(np.uint8)
    decoded = decode.decode_image(png(half_transparent), "x")
    np.testing.assert_array_equal(decoded[:, :15], image[:, :15])
    assert (decoded[:, 15:] == 255).all()
    for mode in ("P", "1", "LA", "RGBA"):
        assert decode.decode_image(png(image, mode), "x").shape == image.shape


def test_a_rotated_photograph_is_turned_upright(rng):
    image, label = draw_pair(rng, 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° to the right to see it upright
    stored = jpeg(np.rot90(image).copy(), exif=exif)
    assert decode.decode_image(stored, "x").shape == (20, 30, 3)
    assert decode.size_of(stored, "x") == (20, 30)
    pair = decode.decode_pair(record(stored, png(label)), SPACE)
    assert np.abs(pair.image.astype(int) - image).mean() < 8
    # A label map that was drawn on the pixels as they are stored fits only these.
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


def test_fast_decoders_return_the_same_pixels_as_pil(rng):
    image, label = draw_pair(rng, 33, 47)
    for data in (jpeg(image), jpeg(image, subsampling=2, progressive=True), jpeg(image[..., 0])):
        assert fast_decode.decode_upright_jpeg(data) is not None
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode.decode_image(data, "x"), expected)
    assert fast_decode.decode_gray_png(png(label)) is not None
    np.testing.assert_array_equal(fast_decode.decode_gray_png(png(label)), label)
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 3
    for data in (cmyk.getvalue(), jpeg(image, exif=exif), jpeg(image)[:-50], jpeg(image) + b"\0", png(image)):
        assert fast_decode.decode_upright_jpeg(data) is None
    for data in (png(image), png(label, "P"), png(label, "1"), png(label.astype(np.uint16)), jpeg(label)):
        assert fast_decode.decode_gray_png(data) is None


def test_a_label_map_with_a_wrong_checksum_is_an_error(rng):
    data = bytearray(png(rng.integers(1, 4, (40, 40)).astype(np.uint8)))
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4])
    data[start + length] ^= 1  # the chunk's checksum alone: the values are still right
    with pytest.raises(UserError, match=r"x\.png is damaged \(the checksum of its chunk IDAT at byte 33 is wrong\)"):
        decode.decode_label(bytes(data), "x.png", SPACE)
