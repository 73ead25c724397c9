"""TIFF files of any channels and types, read whole and in windows, and label maps that keep the place of their image."""

import functools
import sys

import numpy as np
import pytest

from pyrseg_jax.data.decode import decode_label, decode_masked
from pyrseg_jax.data.image_space import ImageSpace, make_image_space
from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.images.geotiff import (
    GeoProfile,
    encode_labels,
    open_geotiff,
    open_label_writer,
    read_planes,
    read_profile,
)
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.pictures import encode_in_place, find_place

rasterio = pytest.importorskip("rasterio")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.io import MemoryFile  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
PLACE = {"crs": "EPSG:32632", "transform": from_origin(500_000, 4_600_000, 10, 10)}


def tiff(values, mask=None, points=None, **options):
    """Encode (H, W, C) as a TIFF with GDAL's own writer."""
    height, width, channels = values.shape
    with MemoryFile() as file:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            file.open(
                driver="GTiff", height=height, width=width, count=channels, dtype=values.dtype, **options
            ) as dataset,
        ):
            dataset.write(np.moveaxis(values, -1, 0))
            if mask is not None:
                dataset.write_mask(mask)
            if points is not None:
                dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
        return file.read()


@pytest.mark.parametrize("channels", [1, 3, 5, 16])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_values_come_back_from_every_layout(rng, channels, dtype):
    values = (rng.normal(size=(40, 50, channels)) * 100).astype(dtype)
    layouts = ({"interleave": "band"}, {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 32})
    for layout in layouts:
        for compression in (
            {},
            {"compress": "deflate", "predictor": 2 if values.dtype.kind != "f" else 3},
            {"compress": "lzw"},
        ):
            found = read_planes(tiff(values, **layout, **compression), "a.tif")
            assert found.values.dtype == dtype
            assert found.is_missing is None
            np.testing.assert_array_equal(found.values, values)


def test_a_scaled_image_is_made_of_its_channels(rng):
    values = rng.uniform(0, 3000, (20, 30, 5)).astype(np.float32)
    values[:4, :4] = -9999
    values[10, 10, 2] = np.nan
    masked = decode_masked(tiff(values, nodata=-9999), "a.tif", make_image_space(5, "fixed:0:3000"))
    assert (masked.image.shape, masked.image.dtype) == ((20, 30, 5), np.float32)
    assert masked.is_void.sum() == 16
    np.testing.assert_allclose(masked.image[12:], values[12:] * (255 / 3000), rtol=1e-5)


def test_a_mask_within_the_file_marks_missing_pixels(rng):
    values = rng.integers(1, 200, (20, 30, 4), np.uint8)
    mask = np.ones((20, 30), bool)
    mask[:, :7] = False
    masked = decode_masked(tiff(values, mask), "a.tif", ImageSpace(4))
    np.testing.assert_array_equal(masked.is_void, ~mask)
    np.testing.assert_array_equal(masked.image[:, 7:], values[:, 7:])


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("int16", -32768), ("float32", -3.4028234663852886e38)])
def test_tiles_of_a_mosaic_may_differ_in_type_and_missing_value(rng, dtype, nodata):
    values = rng.integers(1, 100, (20, 30, 2)).astype(dtype)
    values[5:9, 5:9] = nodata
    masked = decode_masked(tiff(values, nodata=nodata), "a.tif", make_image_space(2, "fixed:0:100"))
    assert masked.is_void[5:9, 5:9].all()
    assert masked.is_void.sum() == 16


def test_pages_of_one_channel_are_the_channels(tmp_path, rng):
    from PIL import Image

    pages = [rng.integers(0, 256, (20, 30), np.uint8) for _ in range(5)]
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    for source in (tmp_path / "stack.tif", (tmp_path / "stack.tif").read_bytes()):
        np.testing.assert_array_equal(read_planes(source, "stack.tif").values, np.dstack(pages))


def test_windows_are_parts_of_the_whole(tmp_path, rng):
    values = rng.integers(0, 60000, (70, 90, 3)).astype(np.uint16)
    values[:5] = 0
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values, nodata=0, tiled=True, blockxsize=16, blockysize=16))
    with open_geotiff(path, "a.tif") as reader:
        assert reader.profile == GeoProfile(70, 90, 3, "uint16")
        whole = reader.read()
        for rows, columns in ((slice(0, 20), slice(30, 90)), (slice(64, 70), slice(0, 5))):
            part = reader.read(rows, columns)
            np.testing.assert_array_equal(part.values, values[rows, columns])
            missing = np.zeros(part.values.shape, bool) if part.is_missing is None else part.is_missing
            np.testing.assert_array_equal(missing, whole.is_missing[rows, columns])


def test_label_maps_keep_the_coordinate_system(tmp_path, rng):
    profile = read_profile(tiff(np.zeros((300, 400, 5), np.float32), **PLACE), "a.tif")
    assert profile.is_georeferenced
    labels = rng.integers(0, 300, (300, 400)).astype(np.uint16)
    data = encode_labels(labels, profile, void=0)
    with MemoryFile(data) as file, file.open() as dataset:
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32632, PLACE["transform"], 0)
        np.testing.assert_array_equal(dataset.read(1), labels)
    space = ade_layout(tuple(map(str, range(300))))  # and it is a label map that can be trained on
    np.testing.assert_array_equal(space.to_file_values(decode_label(data, "b.tif", space)), labels)
    # Written window by window, the file holds the same.
    with open_label_writer(tmp_path / "b.tif", profile, labels.dtype, 0) as writer:
        for top in range(0, 300, 256):
            for left in range(0, 400, 256):
                writer.write(top, left, labels[top : top + 256, left : left + 256])
    found = read_planes(tmp_path / "b.tif", "b.tif").values[..., 0]
    np.testing.assert_array_equal(found, labels)
    assert read_profile(tmp_path / "b.tif", "b.tif")[4:6] == profile[4:6]
    with pytest.raises(ValueError, match=r"values has shape \(3, 3\); expected \(300, 400\)"):
        encode_labels(labels[:3, :3], profile, 0)


def test_predictions_for_geotiffs_alone_are_written_in_place(rng):
    labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    labels[0] = 255
    space = ade_layout(("a", "b", "c"))
    place = find_place(tiff(np.zeros((20, 30, 3), np.uint8), **PLACE), "a.tif")
    assert encode_in_place(labels.T, space, place) is None  # it was turned upright
    data = encode_in_place(labels, space, place)
    with MemoryFile(data) as file, file.open() as dataset:
        assert (dataset.crs.to_epsg(), dataset.nodata) == (32632, 0)
        np.testing.assert_array_equal(dataset.read(1), np.where(labels == 255, 0, labels + 1))
    assert find_place(tiff(np.zeros((20, 30, 3), np.uint8)), "a.tif") is None
    assert find_place(b"\x89PNG", "a.png") is None
    assert find_place(b"II*\0", "a.tif") is None
    assert encode_in_place(labels, space, None) is None


def test_control_points_are_kept_and_other_images_have_no_place():
    points = [GroundControlPoint(r, c, 8 + c, 47 - r) for r, c in ((0, 0), (0, 29), (19, 0), (19, 29))]
    profile = read_profile(tiff(np.zeros((20, 30, 1), np.uint8), points=points), "a.tif")
    assert len(profile.control_points) == 4
    assert profile.is_georeferenced
    copied = read_profile(encode_labels(np.zeros((20, 30), np.uint8), profile, None), "b.tif")
    assert copied.control_points == profile.control_points
    assert "4326" in copied.crs
    assert not read_profile(tiff(np.zeros((20, 30, 1), np.uint8)), "a.tif").is_georeferenced


def cut(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: cut(tiff(v)), r"^a\.tif cannot be read as a TIFF \("),
        (lambda v: tiff(v)[:30], r"^a\.tif cannot be read as a TIFF \("),
        (lambda v: tiff(v)[:4], r"^a\.tif cannot be read as a TIFF \("),
        (
            lambda v: tiff(v.astype(np.complex64)),
            r"^a\.tif holds values of the types complex64: expected real numbers",
        ),
        (
            lambda v: tiff(v[..., :4]),
            r"^a\.tif has 4 channels, and the images are expected to have 5: .* set channels=4$",
        ),
        (lambda v: tiff(v), r"^a\.tif holds values of type float32, and images of 8 bits are expected"),
    ],
)
def test_broken_and_foreign_files_are_one_clear_line(rng, make, message):
    values = rng.normal(size=(64, 64, 5)).astype(np.float32)
    with pytest.raises(UserError, match=message) as raised:
        decode_masked(make(values), "a.tif", ImageSpace(5))
    assert "\n" not in str(raised.value)


def test_without_rasterio_one_line_says_what_to_install(monkeypatch, rng):
    data = tiff(rng.normal(size=(8, 8, 2)).astype(np.float32))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setattr(geotiff, "import_rasterio", functools.cache(geotiff.import_rasterio.__wrapped__))
    with pytest.raises(
        UserError, match=r"a\.tif: .* need the package rasterio, which is not installed: .*pyrseg-jax\[geo\]"
    ):
        decode_masked(data, "a.tif", ImageSpace(2))
