"""Label files of every bit depth: what a file stores arrives, or an error names the depth or the format."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.image_bytes import png_chunk, write_bmp, write_png, write_tiff

from pyrseg_jax.data.decode import decode_label
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError

# Each value of a file is a class of its own, but 255, which is void: train ids are the stored values.
SPACE = LabelSpace(tuple(f"class {i}" for i in range(255)), tuple(range(255)), void_file_id=255)


@st.composite
def label_maps(draw, bits: int) -> np.ndarray:
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, min(2**bits, 256), (height, width))


def stored(data: bytes) -> np.ndarray:
    return decode_label(data, "x", SPACE)


@given(st.data(), st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (3, 1), (3, 2), (3, 4), (3, 8)]))
def test_labels_in_a_png_are_the_stored_samples(data, kind):
    color_type, bits = kind
    values = data.draw(label_maps(bits))
    filters = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    changes_colors_only = {
        "none": b"",
        "gamma": png_chunk(b"gAMA", struct.pack(">I", 22222)),
        "significant bits": png_chunk(b"sBIT", b"\x01" * (3 if color_type == 3 else 1)),
        "sRGB": png_chunk(b"sRGB", b"\0"),
        "broken profile": png_chunk(b"iCCP", b"x\0\0broken"),
        "broken EXIF": png_chunk(b"eXIf", b"MM\0\0broken"),
        "transparent": png_chunk(b"tRNS", b"\0\1") if color_type == 0 else b"",
    }
    extra = changes_colors_only[data.draw(st.sampled_from(sorted(changes_colors_only)))]
    file = write_png(values, bits, color_type, filters, data.draw(st.booleans()), extra, data.draw(st.integers(1, 4)))
    np.testing.assert_array_equal(stored(file), values)


@given(
    st.data(),
    st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.sampled_from("<>"),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
    st.booleans(),
)
def test_labels_in_a_tiff_are_the_stored_samples_or_an_error_names_them(
    data, bits, order, photometric, is_signed, is_deflated
):
    values = data.draw(label_maps(bits - 1 if is_signed and bits == 8 else bits))
    sample_format = 2 if is_signed and bits >= 8 else 1
    photometric = 1 if bits > 8 and photometric == 3 else photometric
    rows = data.draw(st.integers(1, len(values)))
    file = write_tiff(values, bits, order, photometric, sample_format, is_deflated, rows)
    try:
        np.testing.assert_array_equal(stored(file), values)
    except UserError as error:  # PIL reads most, but not all combinations
        assert f"{bits} bit" in str(error) and bits > 4
        assert sample_format == 2 or photometric != 1 or (bits, order) == (32, ">")


@given(st.data(), st.sampled_from([1, 4, 8]), st.sampled_from(["gray", "steps", "colors", "inverted"]))
def test_labels_in_a_bmp_are_the_indices_of_its_palette(data, bits, kind):
    values = data.draw(label_maps(bits))
    top = 2**bits - 1
    palettes = {
        "gray": [(i, i, i) for i in range(2**bits)],
        "steps": [(i * 255 // top,) * 3 for i in range(2**bits)],
        "inverted": [(255 - i * 255 // top,) * 3 for i in range(2**bits)],
        "colors": [(i * 7 % 256, i * 11 % 256, i * 13 % 256) for i in range(2**bits)],
    }
    np.testing.assert_array_equal(stored(write_bmp(values, bits, palettes[kind])), values)


def test_negative_labels_are_named_and_not_wrapped():
    values = np.full((4, 5), -1)
    for bits in (8, 16, 32):
        with pytest.raises(UserError, match=r"x: value -1 at row 0, column 0"):
            stored(write_tiff(values, bits, sample_format=2))


def test_labels_above_sixteen_bits_are_named_and_not_wrapped():
    with pytest.raises(UserError, match="value 4294967295"):
        stored(write_tiff(np.full((4, 5), 2**32 - 1), 32))


@pytest.mark.parametrize(("bits", "order"), [(32, "<"), (32, ">"), (64, "<")])
def test_floating_point_labels_are_refused_with_their_depth(bits, order):
    with pytest.raises(UserError, match=rf"x .*{bits}"):
        stored(write_tiff(np.ones((4, 5)), bits, order, sample_format=3))


def saved(image: Image.Image, kind: str, **kwargs) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


GRAY = Image.fromarray(np.ones((8, 12), np.uint8))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (saved(GRAY, "GIF"), "x is a GIF: expected one of PNG, TIFF, BMP"),
        (saved(GRAY.convert("RGB"), "WEBP"), "x is a WebP: expected one of PNG, TIFF, BMP"),
        (saved(GRAY, "PPM"), "x is a PPM, PGM or PBM file: expected one of PNG, TIFF, BMP"),
        (saved(GRAY, "JPEG"), "x is a JPEG: its compression changes label values"),
        (saved(GRAY, "TIFF", compression="jpeg"), "x is a TIFF compressed as JPEG, which changes label values"),
        (saved(GRAY.convert("CMYK"), "TIFF"), r"x has the channels CMYK \(4 numbers per pixel\)"),
        (saved(GRAY.convert("LA"), "PNG"), r"x has the channels LA \(2 numbers per pixel\)"),
        (saved(GRAY.convert("RGB"), "BMP"), r"x has the channels RGB \(3 numbers per pixel\)"),
        (saved(GRAY.convert("F"), "TIFF"), "x stores floating-point numbers of 32 bits"),
    ],
)
def test_label_files_that_hold_no_class_values_are_refused_by_name(file, message):
    with pytest.raises(UserError, match=message):
        stored(file)


def test_a_second_sample_per_pixel_is_never_dropped():
    values = np.ones((6, 8), np.uint8)
    file = write_tiff(
        np.repeat(values, 2, axis=1), 8, tags={256: (4, [8]), 258: (3, [8, 8]), 277: (3, [2]), 338: (3, [0])}
    )
    with pytest.raises(UserError, match=r"x has the channels L and others \(2 numbers per pixel\)"):
        stored(file)


def test_label_maps_are_never_turned(rng):
    values = rng.integers(0, 200, (6, 9))
    for orientation in (3, 6):
        np.testing.assert_array_equal(stored(write_tiff(values, 8, tags={274: (3, [orientation])})), values)


def test_no_decoder_writes_to_the_terminal_what_a_label_file_holds(capfd, rng):
    values = rng.integers(0, 200, (16, 24))
    whole = write_png(values, 8)
    for extra in (
        png_chunk(b"iCCP", b"a\nerror: forged\x1b[2J\0\0" + zlib.compress(bytes(128))),
        png_chunk(b"PLTE", bytes(9)),
        *(png_chunk(kind, b"\xff\0\1junk") for kind in (b"sBIT", b"tRNS", b"zTXt", b"tIME", b"acTL", b"cICP")),
        png_chunk(b"gAMA", b"\0\0\0\1")[:-1] + b"x",
    ):
        np.testing.assert_array_equal(stored(write_png(values, 8, extra=extra)), values)
    wrong = whole.replace(b"IDAT", b"IDAT\xff", 1)
    for damaged in (*(whole[:end] for end in range(34, len(whole) - 12, 31)), wrong, whole[:33] + whole[8:]):
        with pytest.raises(UserError, match="^x "):
            stored(damaged)
    assert capfd.readouterr() == ("", "")
