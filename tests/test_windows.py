"""Images of any size in windows: no seam, little memory, and files that are written row by row."""

import io
import json

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.data_sets import CLASSES, draw_pair
from support.exports import STRIDES, Toy, toy, toy_variables
from support.runs import tiny_config, write_run

from pyrseg_jax.commands.predict import predict
from pyrseg_jax.data.resample import upsample_argmax, upsample_max
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.grid import Grid
from pyrseg_jax.evaluation.temperature import scaled_log_probs
from pyrseg_jax.evaluation.whole_tokens import TokenSums, with_tokens
from pyrseg_jax.evaluation.window_network import NetworkInWindows
from pyrseg_jax.evaluation.windows import Windows
from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.coarse_to_fine import CoarseToFine
from pyrseg_jax.models.layers import bin_weights
from pyrseg_jax.models.tokens import Sampled, sample_tokens
from pyrseg_jax.prediction import rasters
from pyrseg_jax.prediction.rasters import ArrayRaster, TiffRaster, open_raster
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.png_stream import PngWriter

STRIDE, COARSEST = 4, 32
SIDES = st.integers(1, 300)
MIXING = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32) / 40


# ── PNG row by row ──


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(1, 8), (3, 8), (1, 16)]), st.integers(1, 9))
def test_a_png_written_row_by_row_is_that_picture(height, width, kind, step):
    channels, depth = kind
    pixels = np.random.default_rng(height).integers(0, 2**depth, (height, width, channels), f"uint{depth}")
    file = io.BytesIO()
    png = PngWriter(file, width, height, channels, depth)
    for top in range(0, height, step):
        png.write(pixels[top : top + step] if channels == 3 else pixels[top : top + step, :, 0])
    png.finish()
    found = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    assert np.array_equal(found.reshape(pixels.shape), pixels)
    assert np.array_equal(cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), -1).shape[:2], (height, width))


def test_a_png_has_all_its_rows_and_no_more():
    png = PngWriter(io.BytesIO(), 4, 3)
    with pytest.raises(ValueError, match="expected at most 3 rows of 4 × 1 samples"):
        png.write(np.zeros((2, 5), np.uint8))
    with pytest.raises(ValueError, match="expected at most 3 rows"):
        png.write(np.zeros((4, 4), np.uint8))
    png.write(np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"):
        png.finish()
    with pytest.raises(ValueError, match="expected 1 or 3 channels"):
        PngWriter(io.BytesIO(), 4, 3, 2)


# ── Where windows lie ──


@given(SIDES, st.sampled_from([32, 50, 64, 128]), st.integers(0, 40).map(lambda n: 4 * n))
def test_windows_cover_a_side_and_their_weights_add_up(side, window, shift):
    grid = Grid.fit(side, window, STRIDE, COARSEST, shift)
    total = grid.total()
    assert grid.starts[0] == 0 and grid.starts[-1] + grid.window == grid.length >= side / STRIDE
    assert list(grid.starts) == sorted(set(grid.starts))
    assert (total > 0).all() and grid.window * STRIDE % COARSEST == 0
    # Every level has the same cells in all windows, so the same pixels.
    assert all(start % (COARSEST // STRIDE) == 0 for start in (*grid.starts, grid.length))
    if grid.window * STRIDE % (2 * COARSEST) == 0:
        # Where neither the first nor the last window lies, two windows share each cell, and their weights add up to one.
        np.testing.assert_allclose(total[grid.window : grid.length - grid.window], 1, atol=1e-5)


def colors_of_cells(images):
    """A network that sees a cell alone: the probabilities are a function of its mean color."""
    cells = cv2.resize(images[0].astype(np.float32), None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_AREA)
    logits = cells @ MIXING
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def colors_around(images):
    """A network that sees 24 pixels around a cell, and zeros beyond the border of its window."""
    padded = cv2.copyMakeBorder(images[0], 24, 24, 24, 24, cv2.BORDER_CONSTANT)
    return colors_of_cells(cv2.blur(padded, (49, 49))[None, 24:-24, 24:-24])


class Model:
    """A network in windows, given as a function (images, tokens) → probabilities, or images → probabilities without tokens."""

    stride, coarsest_stride = STRIDE, COARSEST

    def __init__(self, network, collect=None, is_scaled=False):
        self._network, self.has_tokens, self.is_scaled = network, collect is not None, is_scaled
        self.collect = collect or (lambda images: {})

    def predict(self, images, tokens):
        return self._network(images, tokens) if self.has_tokens else self._network(images)


def rows_of(image, network=colors_of_cells, window=64, has_confidence=False, **arguments):
    model = network if isinstance(network, Model) else Model(network)
    strips = list(Windows(model, lambda a, b: image[a:b], image.shape[:2], window, **arguments).predict(has_confidence))
    tops = [strip.top for strip in strips]
    assert tops == list(np.cumsum([0, *(len(strip.labels) for strip in strips)])[:-1])
    return strips


@given(SIDES, SIDES, st.sampled_from([32, 64, 128]), st.integers(0, 20), st.integers(0, 20))
def test_a_network_that_sees_cells_alone_gives_the_same_in_windows(height, width, window, down, right):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    image = cv2.resize(image[::9, ::9], (width, height), interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    strips = rows_of(image, window=window, shift=(4 * down, 4 * right), has_confidence=True)
    labels = np.concatenate([strip.labels for strip in strips])
    to = -(-height // COARSEST) * COARSEST, -(-width // COARSEST) * COARSEST
    whole = colors_of_cells(np.pad(image, ((0, to[0] - height), (0, to[1] - width), (0, 0)), "edge")[None])
    expected = upsample_argmax(whole, to)[:height, :width]
    assert labels.shape == (height, width)
    assert (labels == expected).mean() > 0.999  # equally likely classes may be told apart by the last bit
    confidence = np.concatenate([strip.confidence for strip in strips])
    # The last rows and columns look at cells beyond the image, of which the two have different numbers.
    near = np.abs(confidence - upsample_max(whole, to)[:height, :width])[: max(height - 4, 1), : max(width - 4, 1)]
    assert near.max() < 1e-4


def test_confidences_of_windows_are_scaled_and_labels_are_not():
    image, powers = smooth_image(160, 224), np.float32([0.25, 2.0])

    def scaled(images):  # the left half of each cell row is decided by one level, the rest by another
        probs = colors_of_cells(images)
        power = powers[(images[0, ::STRIDE, ::STRIDE, 0] > 127).astype(int)]
        return np.concatenate([probs, power[..., None]], -1)

    plain, found = (
        rows_of(image, Model(network, is_scaled=is_scaled), 64, True)
        for network, is_scaled in ((colors_of_cells, False), (scaled, True))
    )
    for one, other in zip(plain, found, strict=True):
        assert np.array_equal(one.labels, other.labels)
    probs, power = np.split(scaled(image[None]), [-1], axis=-1)
    expected = np.exp(
        scaled_log_probs(jnp.asarray(probs.reshape(-1, 4)), jnp.asarray(1 / power.ravel())).max(-1)
    ).reshape(40, 56)
    confidence = np.concatenate([strip.confidence for strip in found])
    # Four cells meet at a pixel's corner; in the middle of a uniform neighborhood the cell's own value stands.
    assert abs(confidence.mean() - np.asarray(expected).mean()) < 0.02
    assert np.corrcoef(confidence[2::4, 2::4].ravel(), np.asarray(expected).ravel())[0, 1] > 0.95


# ── Tokens of the whole image ──


def colors_and_mean(images, tokens):
    """A network that sees a cell, and how its color differs from the averages of the whole image."""
    cells = cv2.resize(images[0].astype(np.float32), None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_AREA)
    averages = tokens["context"]["colors"][0] if tokens else averages_of(cells)
    logits = (cells - averages.mean(0)) @ MIXING
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def averages_of(cells):
    """The slow twin of `pyramid_sampling` with the sizes 1 and 3."""
    down, right = (bin_weights(side, 3) for side in cells.shape[:2])
    return np.concatenate([cells.mean((0, 1))[None], np.einsum("ih,hwc,jw->ijc", down, cells, right).reshape(9, -1)])


def collect_colors(images):
    cells = cv2.resize(images[0].astype(np.float32), None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_AREA)
    return {"context": {"colors": Sampled(cells[None], (1, 3))}}


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([32, 64, 96]), st.integers(0, 8), st.integers(0, 8))
def test_tokens_collected_from_windows_are_those_of_the_whole_image(rows, columns, window, down, right):
    image = smooth_image(32 * rows, 32 * columns)
    model = Model(colors_and_mean, collect_colors)
    windows = Windows(model, lambda a, b: image[a:b], image.shape[:2], window, (32 * down, 32 * right))
    tokens = windows.collect_tokens()
    if not tokens:
        assert max(image.shape[:2]) <= window
        return
    expected = averages_of(collect_colors(image[None])["context"]["colors"].map[0])
    np.testing.assert_allclose(tokens["context"]["colors"][0], expected, atol=1e-2)
    labels = np.concatenate([strip.labels for strip in windows.predict()])
    whole = upsample_argmax(colors_and_mean(image[None], {}), image.shape[:2])
    assert (labels == whole).mean() > 0.999


class WithTokens(Toy):
    """Adds the mean of attention to tokens to the image before the toy network sees it."""

    @nn.compact
    def __call__(self, images, train=False):
        tokens = sample_tokens(self, "mean", nn.avg_pool(images, (4, 4), (4, 4)))
        return Toy(self.backbone, self.context, self.semantic_head, strides=STRIDES, name="toy")(
            images - 3 * tokens.mean(1)[:, None, None]
        )


def test_a_network_takes_the_tokens_that_it_is_given():
    unused = nn.Dense(1)
    model = WithTokens(backbone=unused, context=unused, semantic_head=unused, strides=STRIDES)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert set(variables) == {"params"}  # collecting adds nothing to a network's variables
    network = NetworkInWindows(model, variables, 0.5)
    image = smooth_image(96, 160)
    assert network.has_tokens and not NetworkInWindows(toy(), toy_variables(), 0.5).has_tokens
    windows = [
        Windows(network, lambda a, b: image[a:b], image.shape[:2], side, (shift, shift))
        for side, shift in ((160, 0), (64, 0), (64, 24))
    ]
    whole, first, moved = (np.concatenate([strip.labels for strip in one.predict()]) for one in windows)
    assert len(np.unique(whole)) > 2
    assert (first == whole).mean() > 0.999 and (moved == whole).mean() > 0.999
    network.has_tokens = False  # now each window has its own
    assert (np.concatenate([strip.labels for strip in windows[1].predict()]) == whole).mean() < 0.95


@pytest.mark.parametrize("make", [CoarseToFine, ANL])
def test_a_context_module_given_its_own_tokens_returns_the_same(make, rng):
    module = CoarseToFine(2, 8, 4) if make is CoarseToFine else ANL(8, 4)
    features = Features((), jnp.asarray(rng.normal(size=(1, 16, 24, 6)), jnp.float32))
    variables = jax.jit(lambda: module.init(jax.random.key(0), features, None, False))()
    assert set(variables) == {"params", "batch_stats"}
    apply = jax.jit(lambda variables: module.apply(variables, features, None, False, mutable=["intermediates"]))
    own, state = apply(variables)
    sums = TokenSums(Grid.fit(64, 96, 4, 8), Grid.fit(96, 96, 4, 8))
    sums.add(0, 0, jax.device_get(state["intermediates"]))
    given, _ = apply(with_tokens(variables, sums.tokens()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), own, given)
    other, _ = apply(with_tokens(variables, jax.tree.map(lambda tokens: 2 * tokens, sums.tokens())))
    assert make is ANL or np.abs(other.levels[-1] - own.levels[-1]).max() > 1e-3  # ANL's last layer starts at zero
    assert with_tokens(variables, {}) is variables


def smooth_image(height, width):
    noise = np.random.default_rng(1).integers(0, 256, (height // 32, width // 32, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shift", [(64, 64), (32, 32), (4, 92)])
def test_moving_the_windows_changes_few_labels(shift):
    image = smooth_image(640, 960)
    first, moved = (
        np.concatenate([strip.labels for strip in rows_of(image, colors_around, 128, shift=s)]) for s in ((0, 0), shift)
    )
    plain = upsample_argmax(colors_around(image[None]), image.shape[:2])
    inside = slice(64, -64)
    assert (first != moved)[inside, inside].mean() <= 0.001 * (1 if shift == (64, 64) else 20)
    assert (first == plain)[inside, inside].mean() > 0.97


def test_rows_are_read_once_from_top_to_bottom_and_few_at_a_time():
    image, asked = smooth_image(960, 64), []

    def read(top, bottom):
        asked.append((top, bottom))
        return image[top:bottom]

    strips = Windows(Model(colors_of_cells), read, image.shape[:2], 64).predict()
    heights = [len(strip.labels) for strip in strips]
    assert max(bottom - top for top, bottom in asked) == 64 and asked == sorted(asked)
    assert sum(bottom - top for top, bottom in asked) < 2 * 960 + 64 and max(heights) <= 64 + STRIDE


def test_probabilities_that_are_not_numbers_are_found():
    broken = lambda images: colors_of_cells(images) * np.nan  # noqa: E731
    assert [strip.is_number for strip in rows_of(smooth_image(64, 64), broken)] == [False]


# ── Rasters ──


def write_tiff(path, pixels, **profile):
    rasterio = pytest.importorskip("rasterio")
    count = pixels.shape[2]
    shape = {"height": pixels.shape[0], "width": pixels.shape[1], "count": count, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, blockxsize=32, blockysize=32, **shape, **profile) as file:
        file.write(pixels.transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("profile", [{"compress": "deflate"}, {"compress": "jpeg"}, {"interleave": "band"}, {}])
def test_a_large_tiff_is_read_row_by_row_as_it_is_decoded(tmp_path, monkeypatch, profile):
    image = smooth_image(96, 128)
    write_tiff(tmp_path / "a.tif", image, **profile)
    with open_raster(tmp_path / "a.tif") as raster:
        assert isinstance(raster, ArrayRaster)
        whole = raster.read(0, 96).image
    monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 0)
    with open_raster(tmp_path / "a.tif") as raster:
        assert isinstance(raster, TiffRaster) and raster.size == (96, 128)
        rows = np.concatenate([raster.read(top, top + 24).image for top in range(0, 96, 24)])
    difference = np.abs(rows.astype(int) - whole)
    assert difference.max() <= (0 if profile.get("compress") != "jpeg" else 4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gray_and_transparent_tiffs_are_read_as_everywhere(tmp_path, monkeypatch):
    pytest.importorskip("rasterio")
    monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 0)
    rgba = np.dstack([smooth_image(64, 64), smooth_image(64, 64)[..., :1]])
    Image.fromarray(rgba[..., 0]).save(tmp_path / "gray.tif")
    Image.fromarray(rgba).save(tmp_path / "rgba.tif")
    Image.fromarray(rgba[..., :3]).quantize(7).save(tmp_path / "palette.tif")
    for name in ("gray", "rgba", "palette"):
        with open_raster(tmp_path / f"{name}.tif") as raster:
            found = raster.read(0, 64).image
        monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 1 << 30)
        with open_raster(tmp_path / f"{name}.tif") as raster:
            assert np.abs(found.astype(int) - raster.read(0, 64).image).max() <= 1, name
        monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tiff_that_cannot_be_used_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 0)
    write_tiff(tmp_path / "deep.tif", smooth_image(64, 64).astype(np.uint16))
    write_tiff(tmp_path / "five.tif", np.zeros((64, 64, 5), np.uint8))
    for name, message in (
        ("deep", "has samples of uint16: expected 8 bits"),
        ("five", "has 5 channels: expected 1 to 4"),
    ):
        with pytest.raises(UserError, match=message), open_raster(tmp_path / f"{name}.tif"):
            pass
    (tmp_path / "torn.tif").write_bytes((tmp_path / "five.tif").read_bytes()[:40])
    with pytest.raises(UserError, match=r"torn\.tif"), open_raster(tmp_path / "torn.tif"):
        pass


# ── The command ──


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "run"
    config = tiny_config()
    write_run(path, config, CLASSES, is_vivid=True)
    return config, Workdir(str(path))


def test_images_of_any_size_in_windows(trained, tmp_path, monkeypatch):
    pytest.importorskip("rasterio")
    image = draw_pair(np.random.default_rng(0), 150, 203)[0]
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image).save(photos / "large.png")
    Image.fromarray(image).save(photos / "tiled.tif")
    Image.fromarray(image[:20, :30]).save(photos / "small.png")
    monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 150 * 203)
    monkeypatch.setattr("pyrseg_jax.prediction.streaming.LONGEST_OVERLAY_PX", 50)
    outputs = ("labels", "overlay", "confidence", "color")
    predict(*trained, str(photos), str(tmp_path / "out"), outputs=outputs, window=96)
    read = lambda name: np.asarray(Image.open(tmp_path / "out" / name))  # noqa: E731
    labels = read("large.png")
    assert labels.shape == (150, 203) and len(np.unique(labels)) > 1
    assert np.array_equal(labels, read("tiled.png")) and read("small.png").shape == (20, 30)
    assert read("large_confidence.png").shape == labels.shape and read("large_confidence.png").min() > 80
    assert read("large_color.png").shape == (150, 203, 3)
    assert read("large_overlay.jpg").shape == (30, 40, 3) and read("small_overlay.jpg").shape == (20, 30, 3)
    (line,) = {json.dumps(json.loads(line)["protocol"]) for line in (tmp_path / "out" / "manifest.jsonl").open()}
    assert json.loads(line) == {"name": "windows", "window_px": 96}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    predict(*trained, str(photos), str(tmp_path / "out"), outputs=outputs, window=96)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="--outputs=pyramid is not written with --window: .* no window has the pyramid"):
        predict(*trained, str(photos), str(tmp_path / "other"), outputs=("pyramid",), window=96)


@pytest.mark.parametrize("window", [None, 96])
def test_the_label_map_of_a_geotiff_keeps_its_place(trained, tmp_path, monkeypatch, window):
    rasterio = pytest.importorskip("rasterio")
    image = draw_pair(np.random.default_rng(0), 150, 203)[0]
    (tmp_path / "photos").mkdir()
    transform = rasterio.Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_600_000.0)
    write_tiff(tmp_path / "photos" / "field.tif", image, crs="EPSG:32632", transform=transform)
    Image.fromarray(image).save(tmp_path / "photos" / "plain.tif")
    monkeypatch.setattr(rasters, "STREAMED_FROM_PX", 0)
    out = tmp_path / "out"
    outputs = ("labels",) if window else ("labels", "geojson")
    predict(*trained, str(tmp_path / "photos"), str(out), outputs=outputs, window=window)
    with rasterio.open(out / "field_labels.tif") as placed:
        assert placed.crs.to_epsg() == 32632 and placed.transform == transform
        labels = placed.read(1)
    assert np.array_equal(labels, np.asarray(Image.open(out / "field.png")))
    assert not (out / "plain_labels.tif").exists()
    if not window:
        document = json.loads((out / "field.geojson").read_text())
        corners = np.concatenate([ring for f in document["features"] for ring in f["geometry"]["coordinates"]])
        assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
        assert np.array_equal(corners.min(0), [500_000, 4_598_500])
        assert np.array_equal(corners.max(0), [502_030, 4_600_000])
        assert "crs" not in json.loads((out / "plain.geojson").read_text())
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    predict(*trained, str(tmp_path / "photos"), str(out), outputs=outputs, window=window)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
