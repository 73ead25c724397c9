"""Image files that lie about their size, format, orientation or data: an error names the file, and memory stays bounded."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.data_sets import CLASSES, draw_pair
from support.image_bytes import exif_with, jpeg_with_exif, png_chunk, write_png, write_tiff

from pyrseg_jax.data import decode
from pyrseg_jax.data.images.claimed_size import MAX_PIXELS
from pyrseg_jax.data.images.image_formats import AVIF_IS_READ, IMAGE_SUFFIXES, SUFFIXES, kind_of_image
from pyrseg_jax.data.images.orientation import orientation_of
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError

SPACE = ade_layout(CLASSES)
IMAGE, LABEL = draw_pair(np.random.default_rng(0), 40, 56)


def saved(array, kind: str, **kwargs) -> bytes:
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **kwargs)
    return buffer.getvalue()


JPEG = saved(IMAGE, "JPEG", quality=95)


def claiming(kind: str, width: int, height: int) -> bytes:
    """Return a small file of a format whose header claims a size."""
    if kind in ("JPEG", "progressive JPEG"):
        data = bytearray(saved(IMAGE, "JPEG", progressive=kind != "JPEG"))
        start = data.index(b"\xff\xc2" if kind != "JPEG" else b"\xff\xc0")
        data[start + 5 : start + 9] = struct.pack(">HH", height, width)
        return bytes(data)
    if kind == "PNG":
        data = write_png(np.ones((4, 4), int), 8)
        return data[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + data[33:]
    if kind == "GIF":
        return b"GIF89a" + struct.pack("<HH", width, height) + saved(LABEL, "GIF")[10:]
    if kind == "WEBP":
        bits = (width - 1) | (height - 1) << 14
        data = saved(IMAGE[:4, :4], "WEBP", lossless=True)
        return data[:21] + struct.pack("<I", bits) + data[25:]
    if kind == "TIFF":
        return write_tiff(np.ones((4, 4), int), 8, tags={256: (4, [width]), 257: (4, [height])})
    if kind == "BMP":
        data = saved(IMAGE, "BMP")
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    return b"P5 %d %d 255\n" % (width, height) + bytes(100)


KINDS = ["JPEG", "progressive JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_file_that_claims_a_large_picture_is_refused_before_memory_is_taken(kind):
    data = claiming(kind, 13000, 13000)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"^x\.jpg "):
        decode.decode_image(data, "x.jpg")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    if kind not in ("TIFF", "BMP"):
        with pytest.raises(UserError, match=r"x claims 13000 × 13000 pixels.* has only \d+ bytes; .* at least \d+"):
            decode.decode_image(data, "x")


def test_a_picture_above_the_limit_is_refused_with_both_numbers():
    side = int(MAX_PIXELS**0.5) + 100
    with pytest.raises(
        UserError, match=rf"x has {side} × {side} pixels.*: the limit is 500 million; cut it into tiles"
    ):
        decode.decode_image(claiming("PPM", side, side), "x")


@pytest.mark.parametrize("mode", [pytest.param("L", marks=pytest.mark.slow), "P"])
def test_label_maps_above_the_limit_of_pil_are_read(mode):
    side = 13_500  # 182 million pixels; PIL refuses above 179 million
    data = saved(Image.new(mode, (side, side), 1), "PNG", compress_level=1)
    label = decode.decode_label(data, "x", SPACE)
    assert label.shape == (side, side) and not label.any()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}])
@pytest.mark.parametrize("color", [0, 128, 255])
def test_flat_pictures_are_smaller_than_all_others_and_are_read(color, options):
    for array in (np.full((800, 1000, 3), color, np.uint8), np.full((800, 1000), color, np.uint8)):
        for kind, further in (("JPEG", options), ("PNG", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("BMP", {})):
            decoded = decode.decode_image(saved(array, kind, **further), "x")
            assert np.abs(decoded.astype(int) - color).max() <= 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 7}])
@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_whose_data_ends_early_is_refused_even_with_an_end_marker(share, options, turned):
    data = saved(IMAGE, "JPEG", **options)
    start = data.index(b"\xff\xda") + 14
    cut = data[: start + int((len(data) - start) * share)].rstrip(b"\xff") + b"\xff\xd9"
    if turned:  # PIL decodes it instead of OpenCV
        cut = jpeg_with_exif(cut, exif_with(3, 1, struct.pack("<H", 6)))
    with pytest.raises(UserError, match=r"x is cut off \(its image data ends before the last pixel\)"):
        decode.decode_image(cut, "x")


def test_a_jpeg_that_ends_in_gray_is_complete():
    image = IMAGE.copy()
    image[-24:, -24:] = 128
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        data = saved(image, "JPEG", **options)
        np.testing.assert_array_equal(decode.decode_image(data, "x"), np.asarray(Image.open(io.BytesIO(data))))


def test_a_png_whose_data_ends_early_is_refused():
    values = np.arange(40 * 30).reshape(40, 30) % 4
    for bits, color_type in ((8, 0), (8, 3), (4, 0), (16, 0)):
        data = write_png(values, bits, color_type)
        short = write_png(values[:20], bits, color_type)
        data = data[:33] + short[33:]  # the header of the whole picture with the data of its upper half
        with pytest.raises(UserError, match=r"x is damaged \(its image data ends early: \d+ of \d+ bytes\)"):
            decode.decode_label(data, "x", SPACE)
        with pytest.raises(UserError, match=r"x is damaged \(its image data ends early"):
            decode.decode_image(data, "x")


def test_a_png_with_a_second_header_is_refused_before_its_size_is_believed():
    small, large = write_png(np.ones((4, 4), int), 4), claiming("PNG", 13_000, 13_000)
    for first, second in ((small, large), (large, small)):
        data = first[:33] + second[8:33] + first[33:]
        for read in (decode.decode_image, lambda data, name: decode.decode_label(data, name, SPACE)):
            with pytest.raises(
                UserError, match=r"x is damaged \(it has a second header at byte 33\)|x claims 13000 × 13000"
            ):
                read(data, "x")


# --- orientation

ODD = [
    (3, 1, struct.pack("<H", 6), 6),
    (4, 1, struct.pack("<I", 6), 6),
    (1, 1, b"\x06", 6),
    (7, 1, b"\x06", 6),
    (2, 2, b"6\0", 6),
    (5, 1, struct.pack("<II", 6, 1), 6),
    (3, 2, struct.pack("<HH", 6, 6), 6),
    (11, 1, struct.pack("<f", 6), 6),
    (12, 1, struct.pack("<d", 6), 6),
    (3, 1, struct.pack("<H", 0), 1),
    (3, 1, struct.pack("<H", 77), 1),
    (2, 20, b"upside down, perhaps", 1),
    (5, 1, struct.pack("<II", 6, 0), 1),
    (11, 1, struct.pack("<f", np.nan), 1),
    (99, 1, b"\x06\0\0\0", 1),
    (3, 2**31, b"\x06\0\0\0", 1),
]


@pytest.mark.parametrize(("kind", "count", "value", "expected"), ODD)
def test_an_oddly_typed_orientation_is_read_or_left_alone(kind, count, value, expected):
    exif = exif_with(kind, count, value)
    as_stored = decode.decode_image(JPEG, "x")
    upright = np.rot90(as_stored, -1) if expected == 6 else as_stored
    files = [
        jpeg_with_exif(JPEG, exif),
        saved(IMAGE, "PNG")[:33] + png_chunk(b"eXIf", exif[6:]) + saved(IMAGE, "PNG")[33:],
    ]
    for file, image in zip(files, (upright, np.rot90(IMAGE, -1) if expected == 6 else IMAGE), strict=True):
        assert orientation_of(file) == expected
        assert decode.size_of(file, "x") == image.shape[:2]
        np.testing.assert_array_equal(decode.decode_image(file, "x"), image)


def test_other_oddly_typed_tags_do_not_matter():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(exif.tobytes())
    for tag in (36867, 271, 282, 34665, 34853):
        entry = struct.pack("<HHI", tag, 12, 1) + struct.pack("<I", 8)
        one = data[:14] + b"\2\0" + data[16:28] + entry + bytes(4) if data[6:8] == b"II" else data
        assert decode.decode_image(jpeg_with_exif(JPEG, bytes(one)), "x").shape == (56, 40, 3)


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"]),
)
def test_damaged_exif_data_never_loses_a_good_picture(junk, start):
    decoded = decode.decode_image(jpeg_with_exif(JPEG, start + junk), "x")
    assert sorted(decoded.shape) == [3, 40, 56]


def test_an_orientation_that_cannot_be_understood_is_said_with_the_file(caplog):
    decode.decode_image(jpeg_with_exif(JPEG, exif_with(3, 1, struct.pack("<H", 77))), "odd.jpg")
    assert (
        "odd.jpg names an EXIF orientation that cannot be understood: its pixels are used as they are stored"
        in caplog.text
    )


# --- formats

DISGUISED = [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", r"a PostScript \(EPS\) file\): convert it"),
    (b"%PDF-1.7\n", "a PDF document"),
    (b"8BPS\0\1" + bytes(40), "a Photoshop file"),
    (b"\xd7\xcd\xc6\x9a" + bytes(40), "a Windows metafile"),
    (b"\x0a\x05\x01\x08" + bytes(124), "a PCX file"),
    (b'<?xml version="1.0"?><svg xmlns="x"/>', "an SVG drawing"),
    (b"<svg/>", "an SVG drawing"),
    (b"<!DOCTYPE html><p>404", "a web page"),
    (b"\n<!-- saved --><HTML>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", r"a Git LFS pointer\): fetch the file itself"),
    (b"PK\3\4" + bytes(26), "a zip archive"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC file\\): convert it to JPEG or PNG"),
    (b"\xff\x0a" + bytes(20), "a JPEG XL file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"\0\0\1\0\1\0" + bytes(20), "an icon file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\0" * 40, "of no known image format"),
]


@pytest.mark.parametrize(("data", "message"), DISGUISED)
def test_other_formats_are_named_and_no_decoder_sees_them(data, message):
    for read in (decode.decode_image, decode.size_of, lambda data, name: decode.decode_label(data, name, SPACE)):
        with pytest.raises(UserError, match=rf"x\.jpg cannot be decoded as an image \(it is {message}"):
            read(data, "x.jpg")


@pytest.mark.parametrize("kind", sorted(set(SUFFIXES)))
def test_every_listed_format_is_read(kind):
    data = saved(IMAGE, kind)
    assert kind_of_image(data).format == kind
    assert np.abs(decode.decode_image(data, "x").astype(int) - IMAGE).mean() < 12
    assert decode.size_of(data, "x") == (40, 56)
    assert (".avif" in IMAGE_SUFFIXES) == AVIF_IS_READ


# --- missing data


def test_pixels_without_data_take_the_mean_and_the_rest_stays(caplog):
    values = np.tile(np.linspace(0, 200, 50), (20, 1))
    whole = decode.decode_image(write_tiff(values, 32, sample_format=3), "whole.tif")
    for i, missing in enumerate((np.nan, np.inf, -np.inf, 3.4e38, -3.4e38)):
        holed = values.copy()
        holed[3:5, 7:9] = missing
        decoded = decode.decode_image(write_tiff(holed, 32, sample_format=3), f"holed{i}.tif")
        is_hole = holed != values
        np.testing.assert_array_equal(decoded[~is_hole], whole[~is_hole])
        assert np.abs(decoded[is_hole].astype(int) - 127).max() < 4
        assert f"holed{i}.tif has 4 pixels without data" in caplog.text


def test_a_picture_without_any_data_is_refused():
    with pytest.raises(UserError, match=r"x has no pixel with data"):
        decode.decode_image(write_tiff(np.full((4, 5), np.nan), 32, sample_format=3), "x")


def test_a_sparse_or_incomplete_tiff_is_refused():
    for tags, message in (({273: (4, [0])}, "no data in strip 0 of 1"), ({278: (4, [2])}, "it has 1 of 2 strips")):
        with pytest.raises(UserError, match=message):
            decode.decode_image(write_tiff(np.ones((4, 5), int), 8, tags=tags), "x")


# --- anything

SEEDS = [saved(IMAGE[:12, :16], kind) for kind in sorted(SUFFIXES)] + [
    write_png(LABEL[:12, :16].astype(int), 4, is_interlaced=True),
    write_tiff(LABEL[:12, :16].astype(int), 16, is_deflated=True, rows_per_strip=3),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.booleans(),
    st.floats(0, 1),
)
def test_any_damage_is_decoded_or_named(seed, changes, is_cut, share):
    data = bytearray(seed)
    for place, value in changes:
        data[int(place**3 * (len(data) - 1))] = value  # mostly the header
    damaged = bytes(data[: int(len(data) * share)] if is_cut else data)
    for read in (decode.decode_image, decode.size_of, lambda data, name: decode.decode_label(data, name, SPACE)):
        try:
            read(damaged, "x.jpg")
        except UserError as error:
            assert str(error).startswith("x.jpg") and len(str(error).splitlines()) == 1 and len(str(error)) < 500
