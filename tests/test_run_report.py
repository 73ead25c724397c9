"""The report of a run: its numbers are those of the evaluation, its pyramids fuse as `fuse` does, and it works in a browser."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import chromium
from support.command_line import call, error_of
from support.contrast import contrast
from support.report_pages import NAMES, NUM_IMAGES, Page, draw_result, make_page, value_at, write_finished_run

from pyrseg_jax.data.spec import Dataset
from pyrseg_jax.evaluation.image_scores import ImageCounts, image_scores, miou_of_images
from pyrseg_jax.pyramid import fuse
from pyrseg_jax.report import build, curves, markup, reliability
from pyrseg_jax.report.choice import BEST, WORST, bound_of, choose, most_frequent
from pyrseg_jax.report.collect import collect
from pyrseg_jax.report.examples import confusion_of, shown_size
from pyrseg_jax.report.page import Gallery, assemble
from pyrseg_jax.report.pyramids import quantize, thresholds_of
from pyrseg_jax.reporting.palette import colors_of, level_colors
from pyrseg_jax.run import config as config_lib

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "$name ${title} &amp;",
    "<!--",
    "'; drop",
)


# ── Pyramids for the browser ──


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("own", [0.5, 0.123456])
def test_one_byte_decides_as_the_comparison_of_the_fuser(rng, dtype, own):
    """At every position of the slider, also where a probability lies exactly on it, or next to it."""
    thresholds = thresholds_of(own)
    on_them = np.array(thresholds, np.float32)
    near = [np.nextafter(on_them, np.float32(side)) for side in (0, 2)]
    unity = np.concatenate([on_them, *near, rng.random(200, np.float32), [0, 1, np.nan]]).astype(dtype)[None]
    numbers = quantize(unity, thresholds)
    for position, threshold in enumerate(thresholds):
        np.testing.assert_array_equal(numbers <= position, np.asarray(jnp.asarray(unity) < threshold))


def test_the_slider_has_the_multiples_of_a_hundredth_and_the_own_threshold():
    assert thresholds_of(0.5) == [i / 100 for i in range(101)]
    assert len(thresholds_of(0.333)) == 102 and 0.333 in thresholds_of(0.333)


# ── The choice of images ──


def draw_counts(seed, num_images, num_classes=4):
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 9, (num_images, num_classes, num_classes)) * (rng.random((num_images, 1, 1)) < 0.9)
    right = matrices.diagonal(axis1=1, axis2=2)
    return matrices, np.stack([right, matrices.sum(1), matrices.sum(2)], -1).astype(np.int64)


@given(st.integers(0, 999), st.integers(1, 30), st.integers(1, 24))
@settings(max_examples=30)
def test_the_choice_holds_the_worst_and_the_best_image_once(seed, num_images, most):
    matrices, counts = draw_counts(seed, num_images)
    images = ImageCounts(tuple(map(str, range(num_images))), counts)
    score = miou_of_images(counts)
    found = choose(images, most_frequent(matrices.sum(0), 4 * most), most)
    indices = [one.number for one in found]
    assert len(set(indices)) == len(indices) == min(most, int((~np.isnan(score)).sum()))
    if not found:
        return
    assert score[found[0].number] == np.nanmin(score)
    if len(found) >= 4:
        assert max(score[one.number] for one in found) == np.nanmax(score)
    worst = [score[one.number] for one in found if one.why == WORST]
    best = [score[one.number] for one in found if one.why == BEST]
    assert worst == sorted(worst) and best == sorted(best, reverse=True)


@given(st.integers(0, 999))
@settings(max_examples=20)
def test_no_image_has_more_pixels_of_a_confusion_than_its_bound(seed):
    matrices, counts = draw_counts(seed, 8)
    for entry in most_frequent(matrices.sum(0), 99):
        assert entry.truth != entry.predicted
        assert entry.pixels == matrices[:, entry.truth, entry.predicted].sum()
        assert (matrices[:, entry.truth, entry.predicted] <= bound_of(counts, entry)).all()


@given(st.integers(0, 999), st.integers(1, 12))
@settings(max_examples=20)
def test_scores_of_images_have_the_mean_of_the_evaluation(seed, num_images):
    _, counts = draw_counts(seed, num_images)
    score = miou_of_images(counts)
    mean = image_scores(ImageCounts(tuple(map(str, range(num_images))), counts), "abcd")["image_miou"]
    assert mean == (None if np.isnan(score).all() else float(score[~np.isnan(score)].mean()))


def test_wrong_pixels_of_an_image_are_counted_by_pair():
    truth = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    labels = np.array([[1, 1, 1], [0, 0, 255]], np.uint8)
    assert confusion_of(truth, labels, 3) == [[0, 1, 2], [2, 0, 1]]


def test_an_image_is_shown_at_640_pixels_at_most():
    assert shown_size(480, 640) == (480, 640)
    assert shown_size(3000, 4000) == (480, 640)
    assert shown_size(1, 64_000) == (1, 640)


# ── Curves ──


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(8, 60))
@settings(max_examples=40)
def test_a_thinned_curve_keeps_its_ends_and_extremes(values, most):
    points = list(enumerate(values))
    found = curves.thinned(points, most)
    assert set(found) <= set(points) and found == sorted(found)
    assert len(found) <= max(most, 4)
    assert found[0] == points[0] and found[-1] == points[-1]
    assert {min(v for _, v in found), max(v for _, v in found)} == {min(values), max(values)}


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_enclose_the_values(low, width):
    found = curves.ticks(low, low + width)
    span = found[-1] - found[0]
    assert found[0] <= low + 1e-6 * span and found[-1] >= low + width - 1e-6 * span
    assert 2 <= len(found) <= 9


def test_a_metric_without_numbers_has_no_curve():
    lines = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": "x"}, {"step": 3}, {"step": 4, "loss": True}]
    assert curves.points_of(lines, "loss") == []
    assert curves.draw(curves.Chart("Loss", {"loss": []}), "a") == ""


# ── The page ──


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page with two examples, one of which has a refined finest level."""
    rng = np.random.default_rng(2)
    results = [draw_result(rng), draw_result(rng, refinement=2, num_levels=3)]
    folder = tmp_path_factory.mktemp("made")
    page, collected, shown = make_page(folder / "run", results)
    (folder / "report.html").write_text(page)
    return folder, page, collected, results, shown


def test_every_number_of_the_evaluation_equals_its_json(made):
    _, page, collected, _, _ = made
    stored = json.loads(collected.run.path.read_text())
    found = Page(page).numbers()
    assert len(found) > 20
    for key, value in found:
        assert value == value_at(stored, key), key
    for key in (["miou"], ["iou", "sky"], ["boundary_miou"], ["level_share", 0]):
        assert key in [place for place, _ in found]


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(made):
    page = made[1]
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "data", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value[:80])
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]
    assert parsed.scripts.keys() == {"", "application/json"}
    policy = next(a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "sha256-" in policy


def test_hostile_names_stay_texts(tmp_path):
    results = [draw_result(np.random.default_rng(0), HOSTILE)]
    name = "</script><b>\u202eb\x1b[31m\n"  # files may have such names; classes may not
    page, _, _ = make_page(tmp_path / "a<b>&run", results, HOSTILE, [name])
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 2 and tags.count("img") == 1
    assert "\u202e" not in page and "\x1b" not in page
    values = json.loads(parsed.scripts["application/json"])
    assert values["names"][0] == HOSTILE[0]
    assert values["examples"][0]["name"] == "</script><b>\\u202eb\\x1b[31m\\n"


def test_images_have_alternatives_and_controls_have_names(made):
    parsed = Page(made[1])
    identities = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(set(identities)) == len(identities)
    for tag, attributes in parsed.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag in ("input", "select"):
            assert attributes["aria-label"]
        if tag == "svg":
            assert "aria-labelledby" in attributes or "aria-label" in attributes or attributes["aria-hidden"] == "true"
        if tag == "a":
            assert attributes["href"][1:] in identities
    assert ("html", {"lang": "en"}) in parsed.elements


def test_texts_have_enough_contrast_in_both_color_schemes(made):
    """WCAG 2.2, success criterion 1.4.3: at least 4.5 to 1."""
    style = re.search(r"<style>(.*?)</style>", made[1], re.DOTALL)[1]
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colors = {name: value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:])
                  for name, value in re.findall(r"--(\w+): (#\w+);", scheme)}  # fmt: skip
        for ground in ("ground", "panel"):
            for ink in ("ink", "faint", "accent"):
                assert contrast(colors[ground], colors[ink]) >= 4.5, (ground, ink)


def test_json_in_a_script_ends_no_element():
    for name in HOSTILE:
        found = markup.to_script({"name": name})
        assert json.loads(found) == {"name": name} and not set("<>&") & set(found)


REGION = {"label": "sky", "predicted": "<wall>", "score": 1.5, "num_pixels": 12, "doubt": 3.0, "confidence": 0.75,
          "box": {"left": 1, "top": 2, "width": 3, "height": 4}}  # fmt: skip


def test_labels_that_look_wrong_and_the_calibration_are_shown(tmp_path):
    workdir = write_finished_run(tmp_path / "run")
    folder = tmp_path / "run" / "suspects"
    folder.mkdir()
    images = [
        {"rank": 1, "name": "a.jpg", "score": 2.0, "regions": [REGION, REGION | {"score": 0.5}]},
        {"rank": 2, "name": "b.jpg", "score": 1.75, "regions": [REGION | {"score": 1.75}]},
    ]
    (folder / "ranking.json").write_text(
        json.dumps({"kind": "labels", "split": "training", "step": 7, "images": images})
    )
    Image.new("RGB", (3200, 100)).save(folder / "ranking.png")
    bins = {"pixels": [0, 30, 70], "confidence": [None, 0.5, 0.9], "accuracy": [None, 0.25, 0.75]}
    reliability = {"ece": 0.125, "level_ece": [0.0625, None], "nll": 1.0} | bins
    calibration = {"step": 7, "split": "validation", "images": 3, "temperatures": [1.5, 2.0]}
    content = calibration | {"before": reliability, "after": reliability | {"ece": 0.03125}}
    (tmp_path / "run" / "calibration.json").write_text(json.dumps(content))
    config = config_lib.resolve(config_lib.defaults())
    page = assemble(collect(workdir, config), Gallery())
    labels = page[page.index('id="labels"') : page.index('id="confidence"')]
    rows = re.findall(r'<td data-value="([\d.]+)">[\d.]+</td><td data-value="0.75">75.00</td>', labels)
    assert rows == ["1.75", "1.5", "0.5"]
    assert "&lt;wall&gt;" in labels and "<wall>" not in labels
    assert "1, 2, 3 × 4" in labels and 'src="data:image/webp' in labels
    found = page[page.index('id="confidence"') : page.index('id="configuration"')]
    assert [value for value in ("0.125", "0.03125", "0.0625") if f'data-value="{value}"' not in found] == []
    assert found.count('class="dot ') == 4 and found.count('class="bar"') == 3
    assert "without temperatures: 25 % at 50 %, 75 % at 90 %; with temperatures:" in found


@pytest.mark.parametrize("is_scaled", [False, True])
def test_the_calibration_of_an_evaluation_is_shown_with_its_exact_numbers(tmp_path, is_scaled):
    workdir = write_finished_run(tmp_path / "run")
    (path,) = (tmp_path / "run" / "evaluation").glob("*.json")
    bins = {"pixels": [0, 30, 70], "confidence": [None, 0.5, 0.9], "accuracy": [None, 0.25, 0.75]}
    measured = {"ece": 0.125, "level_ece": [0.0625, None]} | bins
    scaled = {"temperatures": [1.5, 2.0], **measured, "ece": 0.5} if is_scaled else None
    stored = json.loads(path.read_text()) | {"calibration": measured | {"scaled": scaled}}
    path.write_text(json.dumps(stored))
    page = Page(assemble(collect(workdir, config_lib.resolve(config_lib.defaults())), Gallery()))
    found = [(key, value) for key, value in page.numbers() if key[0] == "calibration"]
    assert (["calibration", "ece"], 0.125) in found and len(found) == (4 if is_scaled else 2)
    for key, value in found:
        assert value == value_at(stored, key)


def test_bins_with_hardly_a_pixel_have_no_point():
    few = reliability.Bins([1, 0, 99_999], [0.1, None, 0.9], [1.0, None, 0.8])
    assert reliability.draw({"a": few}, "x").count("<circle") == 1
    assert reliability.draw({"a": reliability.Bins([0], [None], [None])}, "x") == ""


def test_damaged_files_of_trust_cost_only_their_section(tmp_path, caplog):
    workdir = write_finished_run(tmp_path / "run")
    (tmp_path / "run" / "suspects").mkdir()
    (tmp_path / "run" / "suspects" / "ranking.json").write_text('{"kind": "labels", "images": [{}]}')
    (tmp_path / "run" / "calibration.json").write_text("{")
    page = assemble(collect(workdir, config_lib.resolve(config_lib.defaults())), Gallery())
    assert 'id="labels"' not in page and 'id="confidence"' not in page and 'id="classes"' in page
    assert "leaves out a ranking" in caplog.text and "leaves out the calibration" in caplog.text


# ── In a browser ──


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


MOVE = """(() => {{ const figure = document.getElementById("example-{example}");
  const layer = figure.querySelector(".layer"); layer.value = "{layer}"; layer.dispatchEvent(new Event("change"));
  const slider = figure.querySelector(".tau-slider"); slider.value = "{position}";
  slider.dispatchEvent(new Event("input")); }})()"""
PIXELS = """(() => {{ const canvas = document.getElementById("example-{example}").querySelector("canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, canvas.width, Array.from(data)]; }})()"""


def shown_by(browser, example):
    height, width, numbers = browser.evaluate(PIXELS.format(example=example))
    found = np.array(numbers, np.uint8).reshape(height, width, 4)
    assert (found[..., 3] == 255).all()
    return found[..., :3]


def fuse_classes(result, threshold):
    """Return the class and the level of each position by the fuser, given the most likely class of each cell."""
    probs = [jnp.eye(len(result.class_names))[classes][None] for classes in result.semantic]
    fused = fuse(probs, [jnp.asarray(unity)[None] for unity in result.unity], threshold)
    return np.asarray(fused.probs.argmax(-1)[0]), np.asarray(fused.level[0])


def test_the_page_works_in_chromium_without_a_network(made, browser):
    folder, _, _, results, shown = made
    browser.open(folder / "report.html")
    assert browser.requests() == [(folder / "report.html").as_uri()]
    assert browser.complaints() == []
    different = 0
    for example, result in enumerate(results):
        colors, levels = colors_of(result.label_space), level_colors(4)
        at_half = fuse_classes(result, 0.5)
        for threshold in (0.3, 0.0, 0.57, 1.0):
            classes, level = fuse_classes(result, threshold)
            change = {"example": example, "position": round(100 * threshold)}
            browser.evaluate(MOVE.format(layer="fused", **change))
            np.testing.assert_array_equal(shown_by(browser, example), colors[classes])
            browser.evaluate(MOVE.format(layer="level", **change))
            np.testing.assert_array_equal(shown_by(browser, example), levels[level])
            said = browser.evaluate(f'document.querySelector("#example-{example} .shares").textContent')
            for index, stride in enumerate(result.strides):
                share = re.search(rf"level {index + 1} \(stride {stride}\) ([\d.]+) %", said)[1]
                assert abs(float(share) - 100 * (level == index).mean()) <= 0.0501
            different += int((level != at_half[1]).sum())
    assert different > 0
    # The keyboard moves the slider.
    browser.evaluate('document.querySelector("#example-0 .tau-slider").focus()')
    before = int(browser.evaluate('document.querySelector("#example-0 .tau-slider").value'))
    browser.press("ArrowLeft")
    assert int(browser.evaluate('document.querySelector("#example-0 .tau-slider").value')) == before - 1
    assert browser.complaints() == []
    assert browser.requests() == [(folder / "report.html").as_uri()]


def test_a_click_on_a_confusion_leads_to_its_examples(made, browser):
    folder, _, _, _, shown = made
    browser.open(folder / "report.html")
    truth, predicted, pixels = shown[0].confusion[0]
    cell = f'table.matrix td[data-truth="{truth}"][data-predicted="{predicted}"]'
    browser.evaluate(f"document.querySelector('{cell}').click()")
    said = browser.evaluate('document.getElementById("pair-examples").textContent')
    assert f"{NAMES[truth]} predicted as {NAMES[predicted]}" in said
    assert f"picture 0: {pixels:,} pixels" in said
    browser.evaluate(
        '[...document.querySelectorAll("#pair-examples button")].find((b) => b.textContent.startsWith("picture 0")).click()'
    )
    assert browser.evaluate('document.getElementById("example-0").classList.contains("is-sought")')
    number = browser.evaluate(
        """(() => { const canvas = document.querySelector("#example-0 canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let found = 0; for (let i = 3; i < data.length; i += 4) found += data[i] > 0; return found; })()"""
    )
    assert number == pixels  # the image is small enough to be shown at its own size
    # The arrow keys move in the matrix.
    browser.evaluate("document.querySelector('table.matrix td').focus()")
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    browser.press("Enter")
    found = browser.evaluate(
        "(({truth, predicted}) => [truth, predicted])(document.querySelector('[aria-selected=true]').dataset)"
    )
    assert found == ["1", "1"]
    assert browser.complaints() == []


def test_values_of_a_curve_are_read_with_the_pointer_and_with_the_keyboard(made, browser):
    folder, _, collected, _, _ = made
    browser.open(folder / "report.html")
    loss = {line["step"]: line["loss"] for line in collected.metrics}
    steps, read = sorted(loss), "document.querySelector('#curves .readout').textContent"
    hint = browser.evaluate(read)
    assert hint.startswith("Point at the chart")
    told = lambda step: f"step {step:,}: training {float(f'{loss[step]:.4g}'):g}"  # noqa: E731
    browser.evaluate("document.querySelector('#curves svg.plot').focus()")
    assert browser.evaluate(read) == told(steps[-1])
    browser.press("ArrowLeft")
    assert browser.evaluate(read) == told(steps[-2])
    browser.press("ArrowRight")
    browser.press("ArrowRight")  # there is nothing beyond the last step
    assert browser.evaluate(read) == told(steps[-1])
    browser.evaluate("document.querySelector('#curves svg.plot').blur()")
    assert browser.evaluate(read) == hint
    point = """(() => {{ const drawing = document.querySelector("#curves svg.plot"), box = drawing.getBoundingClientRect();
      const clientX = box.left + {x} / {width} * box.width;
      drawing.dispatchEvent(new PointerEvent("pointermove", {{clientX, clientY: box.top}})); }})()"""
    for step in (steps[3], steps[-4]):
        x = curves.LEFT + step / steps[-1] * (curves.WIDTH - curves.RIGHT - curves.LEFT)
        browser.evaluate(point.format(x=x + 1, width=curves.WIDTH))
        assert browser.evaluate(read) == told(step)
    assert browser.complaints() == []


def test_tables_are_sorted_by_exact_values(made, browser):
    folder, _, collected, _, _ = made
    browser.open(folder / "report.html")
    values = json.loads(collected.run.path.read_text())["iou"]
    read = '[...document.querySelectorAll("#classes tbody th")].map((cell) => JSON.parse(cell.dataset.value))'
    browser.evaluate('document.querySelector("#classes thead th:nth-child(2) button").click()')
    assert browser.evaluate(read) == sorted(values, key=lambda name: -values[name])
    browser.evaluate('document.querySelector("#classes thead th:nth-child(2) button").click()')
    assert browser.evaluate(read) == sorted(values, key=lambda name: values[name])
    assert browser.complaints() == []


# ── The command ──


def test_the_command_writes_a_report_without_data_or_network(tmp_path):
    write_finished_run(tmp_path / "run")
    done = call("report", tmp_path / "run", "--images=0")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert done.stdout.strip() == str(tmp_path / "run" / "report.html")
    assert str(tmp_path / "run") in page and "id=&quot;" not in page
    assert page.count("<tr><th") > NUM_IMAGES
    assert call("report", f"--workdir={tmp_path / 'run'}", "--images=0").returncode == 0  # replaces its own file


def test_a_data_set_that_is_gone_is_a_note_and_not_an_error(tmp_path):
    write_finished_run(tmp_path / "run")
    done = call("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The report shows no images: config.data.root=" in page and 'id="classes"' in page
    assert "shows no images" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["report", "RUNS/none"], "holds no run"),
        (["report", "RUNS/run", "--workdir=RUNS/other"], "name two runs: name one of them"),
        (["report", "RUNS/run", "--output=RUNS"], "is a folder: name a file"),
        (["report", "RUNS/run", "--output=RUNS/there.html"], "exists: name another file, or give --overwrite"),
        (["report", "RUNS/run", "--result=validation-1"], "holds no such result"),
        (["report", "RUNS/run", "--images=-1"], "expected an integer, at least 0"),
        (["report", "RUNS/run", "RUNS/run"], "is not a flag"),
    ],
)
def test_wrong_uses_say_what_to_do(tmp_path, arguments, message):
    write_finished_run(tmp_path / "run")
    (tmp_path / "there.html").write_text("mine")
    assert message in error_of(call(*(a.replace("RUNS", str(tmp_path)) for a in arguments)))
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_run_without_an_evaluation_has_a_report_of_its_training(tmp_path):
    write_finished_run(tmp_path / "run")
    for path in (tmp_path / "run" / "evaluation").iterdir():
        path.unlink()
    assert call("report", tmp_path / "run", "--images=0").returncode == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "has no evaluation yet" in page and "Loss" in page


# ── At the end of a training; test_main.py looks at the page of a whole one ──


def test_a_report_that_fails_costs_only_the_report(tmp_path, monkeypatch, caplog):
    workdir = write_finished_run(tmp_path / "run")

    def fail(*arguments):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(build, "assemble", fail)
    dataset = Dataset(workdir.read_label_space(), "gone", fail)
    build.report_training(workdir.read_config(), workdir, "validation-660", dataset, fail)
    assert "the report could not be written" in caplog.text
    assert not (tmp_path / "run" / "report.html").exists()
