"""TIFF photographs of many kinds: their samples become the right colors, or an error or a warning says why not."""

import re
import struct

import numpy as np
import pytest
from support.data_sets import CLASSES
from support.image_bytes import png_chunk, write_png, write_tiff

from pyrseg_jax.data.decode import decode_image, decode_label, decode_pair
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError

NO_DATA, ORIENTATION = 42113, 274
TURNS = {2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: np.swapaxes(x, 0, 1),
         6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(np.swapaxes(x, 0, 1), 2), 8: np.rot90}  # fmt: skip


def write_channels(values: np.ndarray, bits: int = 8, planar: int = 1, tags=()) -> bytes:
    """Write a TIFF of several channels, given values (H, W, C)."""
    height, width, channels = values.shape
    rows = values.reshape(height, -1) if planar == 1 else np.moveaxis(values, -1, 0).reshape(-1, width)
    count = len(rows) * rows.shape[1] * bits // 8
    own = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 277: (3, [channels]), 278: (4, [height]),
           284: (3, [planar]), 339: (3, [1] * channels)}  # fmt: skip
    if planar == 2:
        size = count // channels
        own |= {273: (4, [8 + i * size for i in range(channels)]), 279: (4, [size] * channels)}
    return write_tiff(rows, bits, photometric=2, tags=own | dict(tags))


def no_data(text: str) -> tuple[int, list[int]]:
    return 2, list(text.encode() + b"\0")


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["no data", "inverted", "twelve bits"])
def test_a_turned_tiff_keeps_the_meaning_of_its_numbers(rng, orientation, kind):
    values = rng.integers(100, 4000, (7, 11))
    values[:2] = 4095
    options = {
        "no data": {"tags": {NO_DATA: no_data("4095")}},
        "inverted": {"photometric": 0},
        "twelve bits": {},
    }[kind]
    options.setdefault("tags", {})
    stored = decode_image(write_tiff(values, 16, **options), "x")
    options["tags"][ORIENTATION] = (3, [orientation])
    upright = decode_image(write_tiff(values, 16, **options), "x")
    np.testing.assert_array_equal(upright, TURNS[orientation](stored))
    record = {"image": write_tiff(values, 16, **options), "image_name": "x", "label_name": "y", "name": "z"}
    for turn in (TURNS[orientation], lambda x: x):  # a label map may lie as the pixels are stored
        label = turn(np.ones((7, 11), int))
        pair = decode_pair(record | {"label": write_png(label, 8)}, ade_layout(CLASSES))
        np.testing.assert_array_equal(pair.image, upright if pair.image.shape == upright.shape else stored)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [None, 0])
def test_further_channels_are_not_taken_for_transparency(rng, caplog, bits, extra):
    values = rng.integers(0, 256, (6, 9, 4)) * (257 if bits == 16 else 1)
    tags = {} if extra is None else {338: (3, [extra])}
    decoded = decode_image(write_channels(values, bits, tags=tags), f"infrared {bits} {extra}.tif")
    np.testing.assert_array_equal(decoded, values[..., :3] // (257 if bits == 16 else 1))
    assert f"infrared {bits} {extra}.tif has 4 channels: only the first 3 are used" in caplog.text


def test_planes_of_sixteen_bits_are_refused_instead_of_scrambled(rng):
    values = rng.integers(0, 65536, (6, 9, 3))
    with pytest.raises(UserError, match=r"x is a TIFF with 3 samples per pixel of 16 bits .* in separate planes"):
        decode_image(write_channels(values, 16, planar=2), "x")
    np.testing.assert_array_equal(decode_image(write_channels(values >> 8, planar=2), "x"), values >> 8)


def test_unsigned_numbers_of_32_bits_do_not_become_negative(caplog):
    values = np.linspace(0, 2**32 - 1, 60).reshape(6, 10)
    decoded = decode_image(write_tiff(values, 32), "unsigned.tif")
    assert np.abs(decoded[..., 0] - values / (2**32 - 1) * 255).max() <= 1
    assert "unsigned.tif" not in caplog.text


def test_missing_pixels_of_eight_bits_are_masked_and_said(rng, caplog):
    values = rng.integers(1, 256, (6, 9, 3))
    values[:2] = 0
    values[3, 3] = (0, 7, 0)
    decoded = decode_image(write_channels(values, tags={NO_DATA: no_data("0")}), "border.tif")
    np.testing.assert_array_equal(decoded[2:], values[2:])
    assert np.abs(decoded[:2] - values[2:].reshape(-1, 3).mean(0)).max() <= 1
    assert "border.tif has 18 pixels without data" in caplog.text
    with pytest.raises(UserError, match="x has no pixel with data"):
        decode_image(write_channels(values * 0, tags={NO_DATA: no_data("0")}), "x")


def test_pictures_that_show_nothing_are_pointed_out(caplog):
    decode_image(write_tiff(np.full((4, 5), 255), 16), "dark.tif")
    assert "dark.tif is nearly black: its largest number is 255, and 65535 is white" in caplog.text
    empty = write_png(np.ones((4, 5), int), 8, extra=png_chunk(b"tRNS", struct.pack(">H", 1)))
    assert (decode_image(empty, "empty.png") == 255).all()
    assert "empty.png is transparent everywhere" in caplog.text


def test_damage_in_a_compressed_tiff_is_found_by_its_checksum(rng):
    values, messages = rng.integers(0, 3, (40, 60)), []
    for order in "<>":
        data = write_tiff(values, 8, order, is_deflated=True, rows_per_strip=20)
        assert (decode_image(data, "x")[..., 0] == values).all()
        end = data.index(struct.pack(f"{order}HHI", 256, 4, 1)) - 2
        for place in range(11, end - 2, 7):
            damaged = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
            for read in (decode_image, lambda *file: decode_label(*file, ade_layout(CLASSES))):
                try:
                    np.testing.assert_array_equal(read(damaged, "x"), read(data, "x"))  # some bits mean nothing
                except UserError as error:
                    messages.append(str(error))
    assert len(messages) > 300
    assert all(re.match(r"x is damaged \(strip \d cannot be unpacked: ", message) for message in messages)
