"""The demo page in a headless Chromium: it shows what Python computes, and speaks to no one but its own folder."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import chromium

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support import demos  # noqa: E402
from support.demos import CLASSES, STRIDES, THRESHOLD  # noqa: E402

from pyrseg_jax.data.label_space import ade_layout  # noqa: E402
from pyrseg_jax.data.resample import resize_image, upsample_argmax  # noqa: E402
from pyrseg_jax.demo.folder import network_name  # noqa: E402
from pyrseg_jax.demo.samples import Sample  # noqa: E402
from pyrseg_jax.reporting.palette import colors_of, level_colors, probability_colors  # noqa: E402
from pyrseg_jax.run.predictor import read_image  # noqa: E402

ROOT = Path(__file__).parents[1]
MOVE = """(() => { const slider = document.getElementById("tau");
  slider.value = state.thresholds.indexOf(TAU); slider.dispatchEvent(new Event("input")); })()"""
SHOWN = "[state.shown.height, state.shown.width, Array.from(state.shown.labels)]"
STATUS, READOUT = (f"(document.getElementById('{name}')?.textContent ?? '')" for name in ("status", "readout"))
RESET = """(() => { state.cursor = null; state.view = state.views[0]; document.body.dataset.results = "0";
  document.getElementById("tau").value = state.thresholds.indexOf(state.model.threshold);
  showThreshold(); openSample(state.model.samples[0]); })()"""


def slow(value):
    """Leave a case to the slow tests."""
    return pytest.param(value, marks=pytest.mark.slow)


def draw(height, width, seed=0):
    """Draw a picture whose colors change slowly."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def png(image, mode=None):
    content = io.BytesIO()
    Image.fromarray(image, mode).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine")
    flags = ["--use-fake-device-for-media-stream"]
    with chromium.Chromium(tmp_path_factory.mktemp("profile"), flags=flags) as found:
        yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The address of a demo, and the photographs that it has as samples."""
    images = {"wide": draw(40, 57), "tall": draw(131, 96, 1), "large": draw(700, 1100, 2)}
    samples = [Sample(name, f"sample-{i}.png", png(image)) for i, (name, image) in enumerate(images.items())]
    folder = demos.write_demo(tmp_path_factory.mktemp("demo") / "demo", demos.real_runtime(), samples)
    with demos.serving(folder) as url:
        yield url, images


@pytest.fixture
def page(browser, demo):
    """The page with its first sample. It stays open from test to test, because a browser takes a while to load the network."""
    if browser.evaluate("location.href") != demo[0]:
        browser.open(demo[0])
        wait_for(browser, 1)
    browser.evaluate(RESET)
    wait_for(browser, 1)
    yield browser
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith((demo[0], f"blob:{demo[0]}"))] == []


def wait_for(browser, count):
    browser.wait(f"Number(document.body.dataset.results) >= {count}")


def show(browser, path):
    """Choose a file, and wait for its result."""
    count = browser.evaluate("Number(document.body.dataset.results)")
    choose(browser, path)
    wait_for(browser, count + 1)


def choose(browser, path):
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def size_for(image):
    return demos.SIZES[0] if image.shape[1] > image.shape[0] else demos.SIZES[1]


def expect(image, threshold=THRESHOLD):
    size = size_for(image)
    return demos.expected(demos.toy_onnx(size), image, size, threshold)


def shown_labels(browser):
    height, width, labels = browser.evaluate(SHOWN)
    return np.array(labels).reshape(height, width)


def assert_equal_maps(found, wanted, share=0.999):
    assert found.shape == wanted.shape
    assert (found == wanted).mean() >= share


# ── Numbers ──


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.3, slow(0.0), slow(1.0)])
def test_the_map_equals_that_of_python_at_every_threshold(page, demo, threshold):
    image = demo[1]["wide"]
    run = page.evaluate("state.shown.seconds")
    if threshold != THRESHOLD:
        page.evaluate(MOVE.replace("TAU", str(threshold)))
        wait_for(page, 2)
    labels, fused, _ = expect(image, threshold)
    assert_equal_maps(shown_labels(page), labels)
    level = np.array(page.evaluate("Array.from(state.shown.level.data)")).reshape(fused.level.shape[1:])
    assert_equal_maps(level, np.asarray(fused.level[0]))
    assert len(np.unique(labels)) > 1
    assert page.evaluate("state.shown.seconds") == run  # the network did not run again


@pytest.mark.parametrize(
    "make",
    [
        lambda: png(draw(131, 96, 1)),
        lambda: png(draw(64, 96, 3)),
        lambda: png(draw(33, 100, 4)[..., 0]),
        lambda: png(np.dstack([draw(70, 90, 5), np.full((70, 90), 128, np.uint8)])),
    ],
    ids=["portrait", "the size of the network", "gray", "transparent"],
)
def test_every_kind_of_photograph_gives_the_labels_of_python(page, tmp_path, make):
    path = tmp_path / "photo.png"
    path.write_bytes(make())
    show(page, path)
    assert_equal_maps(shown_labels(page), expect(read_image(path))[0], 0.99)


@pytest.mark.parametrize("orientation", [slow(3), 6])
def test_a_photograph_is_turned_as_its_camera_says(page, tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "photo.jpg"
    Image.fromarray(draw(60, 100, 6)).save(path, quality=95, exif=exif, subsampling=0)
    show(page, path)
    image = read_image(path)
    assert (image.shape[0] > image.shape[1]) == (orientation == 6)
    assert_equal_maps(shown_labels(page), expect(image)[0], 0.99)


def test_a_large_photograph_is_shown_smaller_and_downloaded_whole(page, demo, tmp_path):
    count = page.evaluate("Number(document.body.dataset.results)")
    page.evaluate("[...document.querySelectorAll('#samples button')][2].click()")
    wait_for(page, count + 1)
    image = demo[1]["large"]
    labels, fused, _ = expect(image)
    shown = shown_labels(page)
    assert shown.shape == (652, 1024)
    assert_equal_maps(shown, upsample_argmax(np.asarray(fused.probs[0]), shown.shape))
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.evaluate("download()")
    for _ in range(100):
        if (tmp_path / "sample-2.png").is_file():
            break
        time.sleep(0.05)
    with Image.open(tmp_path / "sample-2.png") as written:
        assert written.mode == "L"
        assert_equal_maps(np.asarray(written), ade_layout(CLASSES).to_file_values(labels))


def test_each_view_draws_its_own_map(page, demo):
    labels, fused, outputs = expect(demo[1]["wide"])
    colors, levels = colors_of(ade_layout(CLASSES)), level_colors(len(STRIDES))
    wanted = {"labels": colors[labels], "level": levels[np.asarray(fused.level[0])]}
    for i in range(len(STRIDES)):
        wanted[f"semantic-{i}"] = colors[outputs[f"semantic_{i + 1}"][0].argmax(-1)]
    for i in range(len(STRIDES) - 1):
        table = probability_colors(np.linspace(0, 1, 256))
        wanted[f"unity-{i}"] = table[np.floor(255 * outputs[f"unity_{i + 1}"][0] + 0.5).astype(int)]
    shown = page.evaluate("state.views.map((view) => view.id)")
    assert shown == list(wanted)
    for name, picture in wanted.items():
        page.evaluate(f"document.getElementById('view-{name}').click()")
        height, width, data = page.evaluate(
            """(() => { const canvas = document.getElementById("map"), context = canvas.getContext("2d");
            return [canvas.height, canvas.width,
              Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)]; })()"""
        )
        found = np.array(data, np.uint8).reshape(height, width, 4)[..., :3]
        assert found.shape == picture.shape
        assert (np.abs(found.astype(int) - picture).max(-1) <= 4).mean() >= 0.999, name
        pressed = page.evaluate("[...document.querySelectorAll('[aria-pressed=true]')].map((button) => button.id)")
        assert pressed == [f"view-{name}"]


def test_the_legend_has_the_share_of_each_class(page, demo):
    labels = expect(demo[1]["wide"])[0]
    found = page.evaluate(
        "[...document.querySelectorAll('#legend li')].map((item) => [...item.querySelectorAll('span')].map((s) => s.textContent))"
    )
    numbers = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert {name for name, _ in found} == {CLASSES[i] for i in np.flatnonzero(numbers)}
    for name, share in found:
        assert float(share.removesuffix(" %")) == pytest.approx(100 * numbers[CLASSES.index(name)], abs=0.15)
    shares = [float(share.removesuffix(" %")) for _, share in found]
    assert shares == sorted(shares, reverse=True)


def probability_at(fused, y, x, shape):
    """Interpolate all probabilities at a pixel, by the definition."""
    grid = fused.probs.shape[1:3]
    at = [np.clip((p + 0.5) * n / full - 0.5, 0, n - 1) for p, n, full in zip((y, x), grid, shape, strict=True)]
    weights = [np.maximum(0, 1 - np.abs(np.arange(n) - a)) for a, n in zip(at, grid, strict=True)]
    return np.einsum("h,w,hwc->c", *weights, np.asarray(fused.probs[0]))


# ── Use ──


def test_the_arrow_keys_read_pixels_and_move_the_threshold(page):
    page.evaluate("document.getElementById('stage').focus()")
    page.press("ArrowRight")
    assert page.evaluate("state.cursor") == [20, 29]
    page.press("ArrowUp")
    assert page.evaluate("state.cursor") == [19, 29]
    page.evaluate("document.getElementById('view-unity-0').click(); document.getElementById('stage').focus()")
    assert "this cell of level 1 holds a single class with probability" in page.evaluate(READOUT)
    page.press("Escape")
    assert page.evaluate(READOUT).startswith("Point at the picture")
    page.evaluate("document.getElementById('tau').focus()")
    page.press("ArrowLeft")
    wait_for(page, 2)
    assert page.evaluate("document.getElementById('tau-value').textContent") == "0.56"
    page.evaluate("document.getElementById('tau-reset').click()")
    wait_for(page, 3)
    assert page.evaluate("state.shown.threshold") == THRESHOLD


def test_a_file_that_is_no_picture_gets_a_line_and_the_page_goes_on(page, tmp_path):
    for name, content in (("broken.jpg", b"\xff\xd8\xff not a picture"), ("empty.png", b""), ("text.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        choose(page, tmp_path / name)
        page.wait(f"{STATUS}.startsWith({json.dumps(name)})")
        said = page.evaluate(STATUS)
        assert said == f"{name} is not a picture that this browser can read: choose a JPEG, PNG or WebP file."
        assert page.evaluate("document.getElementById('status').classList.contains('is-problem')")
    (tmp_path / "good.png").write_bytes(png(draw(30, 40)))
    show(page, tmp_path / "good.png")
    assert page.evaluate(STATUS) == "40 × 30 pixels."
    assert not page.evaluate("document.getElementById('status').classList.contains('is-problem')")


def test_a_dropped_photograph_is_segmented(page, tmp_path):
    (tmp_path / "dropped.png").write_bytes(png(draw(30, 40)))
    data = {"items": [], "files": [str(tmp_path / "dropped.png")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)
    wait_for(page, 2)
    assert page.evaluate(STATUS) == "40 × 30 pixels."


def test_the_camera_runs_until_it_is_stopped_and_a_refusal_gets_a_line(page, demo):
    permission = {"permission": {"name": "camera"}, "origin": demo[0].rstrip("/")}
    page.call("Browser.setPermission", setting="denied", **permission)
    page.evaluate("toggleCamera()")
    assert page.evaluate(STATUS).startswith("The camera was refused: allow it")
    page.call("Browser.setPermission", setting="granted", **permission)
    page.evaluate("void (window.live = toggleCamera())")
    wait_for(page, 4)  # three pictures
    assert page.evaluate("document.getElementById('camera').textContent") == "Stop the camera"
    page.evaluate("document.getElementById('camera').click()")
    assert page.evaluate("document.getElementById('camera').textContent") == "Camera"
    assert page.evaluate("window.live.then(() => state.video)") is None


def test_a_phone_shows_everything_without_scrolling_sideways(page):
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **screen)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        small = page.evaluate(
            """[...document.querySelectorAll("button, label, input, summary")].filter((item) => {
              const box = (item.closest("label") || item).getBoundingClientRect(); return box.height > 0 && box.height < 32;
            }).map((item) => item.outerHTML)"""
        )
        assert small == []  # what a finger must hit; WCAG 2.2 asks for 24 pixels
        page.evaluate("document.getElementById('stage').scrollIntoView()")
        box = page.evaluate("(({left, top}) => [left, top])(document.getElementById('stage').getBoundingClientRect())")
        point = [{"x": box[0] + 40, "y": box[1] + 40}]
        page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=point)
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert "confidence" in page.evaluate(READOUT)
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")
        page.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_names_of_classes_are_texts_and_never_markup(page):
    assert page.evaluate("document.querySelector('h1').textContent") == "A <toy>"
    assert page.evaluate("document.querySelectorAll('b').length") == 0


@pytest.mark.parametrize("temperatures", [slow(None), (2.0, 1.5, 1.2, 0.8)])
def test_a_pixel_has_its_class_confidence_and_level(browser, tmp_path, temperatures):
    image = draw(40, 57)
    folder = demos.write_demo(
        tmp_path / "demo", demos.real_runtime(), [Sample("one", "sample-1.png", png(image))], temperatures
    )
    labels, fused, _ = expect(image)
    with demos.serving(folder) as url:
        browser.open(url)
        wait_for(browser, 1)
        for y, x in ((3, 5), (20, 28), (39, 56)):
            box = browser.evaluate("(({left, top, width, height}) => [left, top, width, height])"
                                   "(document.getElementById('stage').getBoundingClientRect())")  # fmt: skip
            at = {"x": box[0] + box[2] * (x + 0.5) / 57, "y": box[1] + box[3] * (y + 0.5) / 40}
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
            level = int(fused.level[0, (2 * y + 1) * 16 // 80, (2 * x + 1) * 24 // 114])
            probs = probability_at(fused, y, x, (40, 57)) ** (1 / (temperatures or (1,) * 4)[level])
            said = browser.evaluate(READOUT)
            share = float(said.split("confidence ")[1].split(" %")[0])
            assert said.startswith(f"{CLASSES[labels[y, x]]}, confidence")
            assert share == pytest.approx(100 * probs[labels[y, x]] / probs.sum(), abs=0.11)
            assert said.endswith(f"decided by level {level + 1} (stride {STRIDES[level]})")


def test_the_page_asks_only_its_own_folder(browser, demo):
    """The fixture looks at the requests of each test; this one sees those of the start, and of the workers."""
    browser.open(demo[0])
    wait_for(browser, 1)
    asked = browser.requests()
    assert all(url.startswith((demo[0], f"blob:{demo[0]}")) for url in asked)
    for name in ("page.js", "ort.wasm.min.js", "ort-wasm-simd-threaded.wasm", network_name(demos.SIZES[0])):
        assert f"{demo[0]}{name}" in asked
    assert browser.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert "Content Security Policy" in " ".join(browser.complaints())


# ── What goes wrong ──


def test_a_page_opened_from_the_disk_says_what_to_do(browser, tmp_path):
    folder = demos.write_demo(tmp_path / "demo", demos.real_runtime())
    browser.call("Page.navigate", url=(folder / "index.html").as_uri())
    browser.wait(f"{STATUS}.startsWith('Browsers do not let a page from the disk load its network')")
    assert "python -m http.server" in browser.evaluate(STATUS)


@pytest.mark.parametrize(
    "name", [network_name(demos.SIZES[0]), slow("ort-wasm-simd-threaded.wasm"), slow("worker.js"), "demo.json"]
)
def test_a_missing_file_is_said(browser, tmp_path, name):
    folder = demos.write_demo(tmp_path / "demo", demos.real_runtime())
    (folder / name).unlink()
    with demos.serving(folder) as url:
        browser.call("Page.navigate", url=url)
        browser.wait(f"{STATUS}.startsWith('The network could not be loaded (')")
        assert browser.evaluate(STATUS).endswith("run pyrseg demo again.")


def test_a_model_without_a_pyramid_has_no_slider(browser, tmp_path):
    folder = demos.write_demo(
        tmp_path / "demo", demos.real_runtime(), [Sample("one", "sample-1.png", png(draw(30, 40)))]
    )
    description = json.loads((folder / "demo.json").read_text())
    single = {"probabilities": ["semantic_4"], "unity": [], "strides": [4]}
    (folder / "demo.json").write_text(json.dumps(description | single))
    with demos.serving(folder) as url:
        browser.open(url)
        wait_for(browser, 1)
        assert browser.evaluate("getComputedStyle(document.getElementById('tau-control')).display") == "none"
        assert browser.evaluate("state.views.length") == 1


# ── Resizing ──


@pytest.fixture(scope="module")
def resizing(browser):
    browser.call("Page.navigate", url="about:blank")
    browser.evaluate(f"{(ROOT / 'pyrseg_jax' / 'demo' / 'resize.js').read_text()}; 0")
    return browser


sides = st.integers(1, 30)


@settings(max_examples=25)
@given(sides, sides, sides, sides, st.integers(0, 2**32 - 1))
def test_a_picture_is_resized_as_python_does(resizing, height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    rgba = np.dstack([image, np.full((height, width), 255, np.uint8)]).ravel().tolist()
    found = resizing.evaluate(f"Array.from(resizeImage({rgba}, {height}, {width}, {new_height}, {new_width}))")
    found = np.array(found, int).reshape(new_height, new_width, 3)
    wanted = resize_image(image, (new_height, new_width))
    # OpenCV's vector code for other processors may round the last bit otherwise.
    assert np.abs(found - wanted).max() <= 1
    assert (found == wanted).mean() >= 0.9
