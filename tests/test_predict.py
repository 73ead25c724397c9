"""`predict` on folders of strangers: nothing of the user is replaced, and no bad item ends the batch."""

import dataclasses
import errno
import logging
import os
import shutil
import threading
import unicodedata
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.command_line import call, error_of
from support.data_sets import CLASSES, draw_pair, write_folder
from support.runs import tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.commands.predict import predict
from pyrseg_jax.errors import UserError
from pyrseg_jax.prediction import safety, writing
from pyrseg_jax.prediction.listing import Item, find_items, with_truth
from pyrseg_jax.prediction.manifest import NAME, Line, Manifest, Written
from pyrseg_jax.prediction.outputs import files_of
from pyrseg_jax.prediction.safety import check_plan
from pyrseg_jax.reporting import pictures
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.evaluations import draw_predictions
from pyrseg_jax.run.model_predictor import ModelPredictor, make_predictor
from pyrseg_jax.run.predictor import read_image
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.names import file_name_of
from pyrseg_jax.training.checksums import checksums, host_checksum

OUTPUTS = ("labels", "overlay", "pyramid")
SUFFIXES = ("{}.png", "{}_overlay.jpg", "{}_pyramid.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict") / "run"
    config = tiny_config()
    write_run(path, config, CLASSES, is_vivid=True)
    return config, Workdir(str(path))


@pytest.fixture(scope="module")
def predictor(run):
    return pyrseg_jax.load(str(run[1].path))


@pytest.fixture
def compiled(monkeypatch, predictor):
    """Let every `predict` use the programs of one predictor, so that they are compiled once, and draw small pyramids."""
    monkeypatch.setattr("pyrseg_jax.run.model_predictor.make_predictor", lambda *_, **__: predictor)
    monkeypatch.setattr(pictures, "pyramid_figure", lambda *_, **__: Image.new("RGB", (8, 8)))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        write_photo(folder / name)
    return folder


def write_photo(path, size=(32, 32)):
    Image.fromarray(draw_pair(np.random.default_rng(len(path.name)), *size)[0]).save(path, "PNG")


def plan(images):
    return with_truth([Item(path, file_name_of(path.name), file_name_of(path.stem)) for path in images])


def find_images(folder) -> list[Path]:
    return [Path(item.path) for item in find_items(folder).items]


def names_of(item) -> list[str]:
    return list(files_of(item, OUTPUTS).values())


def check(images, folder, overwrite=False, kept=None):
    check_plan(plan(images), plan(images), names_of, Manifest(folder), overwrite, kept or {})


def line_of(image, files, **changes) -> Line:
    """Return a line that says that these files, by their contents, were written for an image."""
    outputs = {name: Written.of(content) for name, content in files.items()}
    values = {"model": "run", "step": 7, "weights": "w", "protocol": {}, "threshold": 0.5, "image": image, "bytes": 1}
    values |= {
        "modified": 1,
        "sha256": "0" * 64,
        "height": 1,
        "width": 1,
        "outputs": outputs,
        "seconds": 0.1,
        "time": "",
    }
    return Line(**values | changes)


def refuse(images, folder, overwrite=False, kept=None) -> str:
    with pytest.raises(UserError) as caught:
        check(images, folder, overwrite, kept)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ── The plan ──

# Short stems of few characters collide often; the others are whatever a file system may hold.
STEMS = st.lists(st.sampled_from(["a", "b", "_overlay", "_pyramid", ".", "%"]), min_size=1, max_size=3).map("".join)
WILD = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=260)
FILES = st.lists(
    st.tuples(STEMS | WILD, st.sampled_from([".jpg", ".png", ".tif"])).map("".join), min_size=1, max_size=6, unique=True
)


@given(FILES)
@example(["n" * 250 + ".jpg"])
@example(["line\nbreak\x1b[2J.jpg", "caf\udce9.jpg"])
def test_no_two_files_of_a_plan_are_the_same_and_none_leaves_the_folder(tmp_path, names):
    folder, images = tmp_path / "out", [tmp_path / "in" / name for name in names]
    planned = plan(images)
    files = [name for item in planned for name in names_of(item)]
    assert planned == plan(images)
    assert all((folder / name).parent == folder and len(name.encode()) <= 220 for name in files)
    assert not any(character in name for name in files for character in "\n\r\x1b\x7f\u202e")
    if len(set(files)) == len(files):
        check(images, folder)
    else:
        assert "would both write" in refuse(images, folder)


@pytest.mark.parametrize("names", [("a.jpg", "a_pyramid.jpg"), ("a.jpg", "a.png"), ("x.jpg", "X_overlay.jpg.png")])
def test_results_of_one_image_never_replace_those_of_another(tmp_path, names):
    images = [tmp_path / "in" / name for name in names]
    if names[0] == "x.jpg":  # only where the file system makes no difference between a and A
        files = [name.casefold() for item in plan(images) for name in names_of(item)]
        assert len(set(files)) == len(files)
        return
    assert f"{names[0]} and {names[1]} would both write a" in refuse(images, tmp_path / "out")


def test_case_counts_where_the_file_system_ignores_it(tmp_path, monkeypatch):
    images = [tmp_path / "in" / name for name in ("a.jpg", "A.jpg")]
    check(images, tmp_path / "out")
    monkeypatch.setattr(safety, "is_case_ignored", lambda folder: True)
    assert "A.jpg would both write A.png" in refuse(images, tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
def test_ground_truth_and_inputs_are_never_replaced(tmp_path, overwrite):
    data = write_folder(tmp_path / "data", {"training": 1, "validation": 2})
    images = find_images(data / "images" / "validation")
    before = contents(data)
    for place in (
        "annotations/validation",
        "annotations/training",
        "annotations",
        "annotations/new",
        "images/training",
    ):
        assert "which holds a data set" in refuse(images, data / place, overwrite), place
    assert "is the folder of the input" in refuse(images, data / "images" / "validation", overwrite)
    link = tmp_path / "link"
    link.symlink_to(data / "annotations")
    assert "which holds a data set" in refuse(images, link / "validation", overwrite)
    # Photographs elsewhere, and the data set that the run was trained on.
    write_photo(tmp_path / "validation_0.jpg")
    kept = safety.folders_of_data_set(data)
    assert "holds a data set" in refuse(
        [tmp_path / "validation_0.jpg"], data / "annotations" / "validation", True, kept
    )
    check(images, data / "predictions", overwrite)
    assert contents(data) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_folders_and_hard_links_are_never_replaced(tmp_path, photos, overwrite):
    out = tmp_path / "out"
    images = find_images(photos)

    def refused_with(make):
        out.mkdir()
        make(out)
        message = refuse(images, out, overwrite)
        shutil.rmtree(out)
        return message

    assert "a.png is a symbolic link" in refused_with(lambda o: (o / "a.png").symlink_to(photos / "a.jpg"))
    assert "a.png is a symbolic link" in refused_with(lambda o: (o / "a.png").symlink_to("/dev/null"))
    assert "b_overlay.jpg is a symbolic link" in refused_with(lambda o: (o / "b_overlay.jpg").symlink_to(o / "nowhere"))
    assert "a_pyramid.png is a folder" in refused_with(lambda o: (o / "a_pyramid.png").mkdir())
    assert "a.png is a named pipe" in refused_with(lambda o: os.mkfifo(o / "a.png"))
    assert "b.png is an input" in refused_with(lambda o: os.link(photos / "a.jpg", o / "b.png"))
    assert f"{NAME} is a symbolic link" in refused_with(lambda o: (o / NAME).symlink_to(photos / "a.jpg"))
    out.write_text("a file")
    assert "is not a folder" in refuse(images, out, overwrite)


def test_an_input_that_is_a_link_keeps_the_photograph_behind_it(tmp_path):
    album, inside = tmp_path / "album", tmp_path / "in"
    for folder in (album, inside):
        folder.mkdir()
    write_photo(album / "a.png")
    (inside / "a.png").symlink_to(album / "a.png")
    assert "a.png is an input" in refuse([inside / "a.png"], album, True)


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to, lambda to, path: shutil.copy(path, to)])
def test_ground_truth_stays_whatever_leads_to_its_photographs(tmp_path, make):
    data = write_folder(tmp_path / "data", {"training": 2})
    (tmp_path / "album").mkdir()
    for path in find_images(data / "images" / "training"):
        make(tmp_path / "album" / path.name, path)
    images = find_images(tmp_path / "album")
    for place in ("annotations/training", "annotations/new", "images/training", "images"):
        assert "which holds a data set" in refuse(images, data / place, True), place
    check(images, data / "predictions", True)


def test_ground_truth_stays_where_the_folder_of_a_split_is_a_link(tmp_path):
    data = write_folder(tmp_path / "data", {"training": 2})
    for kind in ("images", "annotations"):
        shutil.move(data / kind / "training", tmp_path / kind)
        (data / kind / "training").symlink_to(tmp_path / kind)
    one = data / "images" / "training" / "training_0.jpg"
    (tmp_path / "link.jpg").symlink_to(one)
    assert "which holds a data set" in refuse([one], tmp_path / "annotations", True)
    for path in (tmp_path / "link.jpg", tmp_path / "images" / one.name):
        assert "which holds a data set" in refuse([path], data / "annotations" / "training", True), path


def test_an_output_that_is_a_link_to_itself_is_one_clear_line(tmp_path, photos):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(
        UserError, match=r"--output=.*loop cannot be written \((File exists|Too many levels of symbolic links)\)"
    ):
        predict(tiny_config(), Workdir("none"), str(photos), str(tmp_path / "loop"))


def test_a_run_keeps_its_folders(run, photos):
    _, workdir = run
    kept = safety.folders_of_run(Path(workdir.path))
    for overwrite in (False, True):
        message = refuse(find_images(photos), Path(workdir.path) / "checkpoints" / "new", overwrite, kept)
        assert "which belongs to the run (name another folder)" in message


def test_many_conflicts_are_counted_and_the_first_named(tmp_path):
    out, images = tmp_path / "out", [tmp_path / f"{i}.jpg" for i in range(9)]
    out.mkdir()
    for i in range(9):
        (out / f"{i}.png").write_bytes(b"mine")
    message = refuse(images, out)
    assert "0.png" in message and "2.png and 6 more files would be replaced" in message and "--overwrite" in message
    check(images, out, overwrite=True)


# ── The record of what was written ──


def add(manifest, line):
    manifest.start()
    manifest.add(line)
    manifest.close()


def test_only_what_was_written_and_not_changed_since_may_be_replaced(tmp_path):
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    add(Manifest(tmp_path), line_of("a.jpg", {"a.png": b"first"}))
    path.write_bytes(b"first")
    other.write_bytes(b"first")
    again = Manifest(tmp_path)
    assert not again.is_foreign("a.png") and again.is_foreign("b.png")
    path.write_bytes(b"other")  # as long as what was written
    assert again.is_foreign("a.png")


def test_a_kill_between_line_and_file_leaves_no_foreign_file(tmp_path):
    path = tmp_path / "a.png"
    add(Manifest(tmp_path), line_of("a.jpg", {"a.png": b"old"}))
    path.write_bytes(b"old")
    add(Manifest(tmp_path), line_of("a.jpg", {"a.png": b"new"}))
    assert not Manifest(tmp_path).is_foreign("a.png")
    path.write_bytes(b"new")
    assert not Manifest(tmp_path).is_foreign("a.png")


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_damaged_manifest_only_makes_files_foreign(tmp_path, noise, cut):
    record, path = tmp_path / NAME, tmp_path / "a.png"
    for file in (record, path):
        file.unlink(missing_ok=True)
    path.write_bytes(b"content")
    add(Manifest(tmp_path), line_of("a.jpg", {"a.png": b"content"}))
    line = record.read_bytes()
    record.write_bytes(line + noise + line[:cut])
    assert not Manifest(tmp_path).is_foreign("a.png")
    add(Manifest(tmp_path), line_of("b.jpg", {"b.png": b"content"}))  # a torn line does not spoil the next one
    assert Manifest(tmp_path).line_of("b.jpg") is not None
    record.write_bytes(noise)
    found = Manifest(tmp_path)
    assert found.is_foreign("a.png") and bool(found.foreign) == bool(noise)


def test_a_file_of_the_user_with_the_name_of_the_record_stays(tmp_path, photos):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_text("my notes")
    assert f"{NAME} would be replaced" in refuse(find_images(photos), tmp_path / "out")


# ── The command ──


def test_the_plan_is_checked_before_the_checkpoint_is_read(tmp_path, photos):
    data = write_folder(tmp_path / "data", {"training": 1, "validation": 1})
    images = data / "images" / "validation"
    nothing = Workdir(str(tmp_path / "no run"))
    with pytest.raises(UserError, match="nothing was predicted: --output=.* holds a data set"):
        predict(tiny_config(), nothing, str(images), str(data / "annotations" / "validation"))
    write_photo(photos / "a_pyramid.jpg")
    with pytest.raises(UserError, match="would both write a_pyramid.png"):
        predict(tiny_config(), nothing, str(photos), str(tmp_path / "out"), outputs=OUTPUTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("{}/none", "{}/out", "there is no such file or folder"),
        ("{}/pipe", "{}/out", "is a named pipe: expected an image or a folder of images"),
        ("{}/empty", "{}/out", "holds no images \\(it is empty\\)"),
        ("{}/others", "{}/out", "holds no images \\(it holds 1 .heic file"),
        ("{}/" + "x" * 300, "{}/out", "cannot be read \\(File name too long\\)"),
        ("{}/photos", "", "--output=: expected a path"),
        ("{}/photos", "{}/photos/a.jpg/out", "cannot be written|is not a folder"),
    ],
)
def test_wrong_paths_are_one_clear_line(tmp_path, photos, source, target, message):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "others" / "x.jpg").mkdir(parents=True)
    (tmp_path / "others" / "y.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        predict(tiny_config(), Workdir("none"), source.format(tmp_path), target.format(tmp_path))


def test_foreign_files_are_replaced_only_with_the_flag(run, photos, tmp_path, compiled):
    (photos / "b.jpg").unlink()
    command = ["predict", f"--workdir={run[1].path}", f"--input={photos}", f"--output={tmp_path / 'out'}"]
    assert call(*command).returncode == 0
    first = contents(tmp_path / "out")
    assert set(first) == {NAME, "a.png", "a_overlay.jpg"}
    (tmp_path / "out" / "a.png").write_bytes(b"my own")
    assert "a.png would be replaced, but predict did not write it" in error_of(call(*command))
    assert (tmp_path / "out" / "a.png").read_bytes() == b"my own"
    assert call(*command, "--overwrite").returncode == 0
    del first[NAME]
    assert contents(tmp_path / "out") | first == contents(tmp_path / "out")


def test_no_bad_item_ends_the_batch(run, photos, tmp_path, caplog, compiled):
    config, workdir = run
    (photos / "broken.jpg").write_bytes(b"broken")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "device.jpg").symlink_to("/dev/zero")
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "folder.jpg").mkdir()
    (photos / "notes.txt").write_text("no image")
    write_photo(photos / ("n" * 250 + ".jpg"))
    write_photo(photos / "line\nerror: forged \x1b[2J.jpg")
    write_photo(Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.jpg")))
    write_photo(photos / "pixel.png", (1, 1))
    Image.fromarray(np.zeros((4, 70000, 3), np.uint8)).save(photos / "strip.png")
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as caught:
        predict(config, workdir, str(photos), str(tmp_path / "out"))
    assert "4 of 11 images could not be finished; the first: " in str(caught.value)
    assert "1 .txt file is passed over" in caplog.text
    assert "strip_overlay.jpg is drawn at 65500 × 4 pixels instead of 70000 × 4" in caplog.text
    written = {path.name for path in (tmp_path / "out").iterdir()}
    labels = {name for name in written if (tmp_path / "out" / name).suffix == ".png" and "_pyramid" not in name}
    assert {"a.png", "b.png", "pixel.png", "strip.png", "caf%E9.png", "line%0Aerror: forged %1B[2J.png"} < labels
    assert len(labels) == 7 and len(written) == 2 * 7 + 1
    assert Image.open(tmp_path / "out" / "strip.png").size == (70000, 4)
    for path in (tmp_path / "out").glob("*g"):
        Image.open(path).load()


def test_a_picture_that_fails_costs_the_picture_only(run, photos, tmp_path, monkeypatch, compiled):
    config, workdir = run
    predict(config, workdir, str(photos), str(tmp_path / "out"), outputs=OUTPUTS)
    first, draw = contents(tmp_path / "out"), pictures.pyramid_figure

    def fail_for_a(result, *, title, **keywords):
        if title == "a":
            raise MemoryError
        return draw(result, title=title, **keywords)

    write_photo(photos / "a.jpg", (32, 64))  # another image, so that it is segmented again
    monkeypatch.setattr(pictures, "pyramid_figure", fail_for_a)
    with pytest.raises(
        UserError, match=r"1 of 2 images .*a_pyramid.png cannot be drawn \(there is not enough memory\)"
    ):
        predict(config, workdir, str(photos), str(tmp_path / "out"), outputs=OUTPUTS)
    # The old picture shows the image as it was.
    assert contents(tmp_path / "out").keys() == first.keys() - {"a_pyramid.png"}


def test_short_memory_is_one_line_and_the_others_are_finished(run, photos, tmp_path, monkeypatch, compiled):
    config, workdir = run
    start, seen = ModelPredictor.start, []

    def fail_first(self, images, wants):
        seen.append(images)
        if len(seen) == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore lines")
        return start(self, images, wants)

    monkeypatch.setattr(ModelPredictor, "start", fail_first)
    with pytest.raises(UserError) as caught:
        predict(config, workdir, str(photos), str(tmp_path / "out"))
    assert "a.jpg cannot be segmented (" in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NAME, "b.png", "b_overlay.jpg"}


def test_a_full_disk_ends_the_batch_with_one_line_and_no_torn_file(run, photos, tmp_path, monkeypatch, compiled):
    config, workdir = run
    write, done = writing.write_bytes_atomically, []
    mutex = threading.Lock()

    def fill(path, content):
        with mutex:
            done.append(path)
            is_full = len(done) > 3
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    for number in range(30):
        write_photo(photos / f"c{number:02}.jpg")
    monkeypatch.setattr(writing, "write_bytes_atomically", fill)
    with pytest.raises(UserError, match=r"of 32 images .* the result of .* cannot be written \(.*No space left"):
        predict(config, workdir, str(photos), str(tmp_path / "out"))
    assert len(done) < 30  # the rest would only fail, too
    assert len(contents(tmp_path / "out")) == 4
    monkeypatch.setattr(writing, "write_bytes_atomically", write)
    predict(config, workdir, str(photos), str(tmp_path / "out"))
    assert len(contents(tmp_path / "out")) == 65


def test_ctrl_c_is_not_taken_for_a_bad_item(run, photos, tmp_path, monkeypatch, compiled):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelPredictor, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict(run[0], run[1], str(photos), str(tmp_path / "out"))


def test_the_truth_is_found_however_an_accent_is_stored(tmp_path):
    data = write_folder(tmp_path / "data", {"training": 1, "validation": 1})
    images, labels = data / "images" / "validation", data / "annotations" / "validation"
    (images / "validation_0.jpg").rename(images / unicodedata.normalize("NFD", "café.jpg"))
    label = labels / unicodedata.normalize("NFC", "café.png")
    (labels / "validation_0.png").rename(label)
    assert [item.truth for item in plan(find_images(images))] == [label]


@pytest.mark.parametrize("suffix", [".PNG", ".tif", ".bmp"])
def test_the_truth_may_have_any_format_of_label_maps(tmp_path, suffix):
    data = write_folder(tmp_path / "data", {"validation": 1, "training": 1})
    label = data / "annotations" / "validation" / "validation_0.png"
    other = label.with_suffix(suffix)
    label.rename(other)
    assert [item.truth for item in plan(find_images(data / "images" / "validation"))] == [other]


def test_what_predict_cannot_read_is_said_as_everywhere(run, tmp_path, caplog, compiled):
    data = write_folder(tmp_path / "data", {"validation": 2, "training": 1}, size=(32, 32))
    images = data / "images" / "validation"
    (images / "nowhere.jpg").symlink_to("missing.jpg")
    Image.new("L", (16, 32), 1).save(data / "annotations" / "validation" / "validation_0.png")
    with pytest.raises(
        UserError, match=r"1 of 3 images .*nowhere\.jpg is a link to missing\.jpg, which does not exist"
    ):
        predict(run[0], run[1], str(images), str(tmp_path / "out"), outputs=OUTPUTS)
    assert "validation_0.png is 16 × 32 pixels, but the upright image 32 × 32 (width × height)" in caplog.text


# ── From Python ──


def test_loading_is_quiet_and_leaves_the_logging_of_the_user_alone(run, tmp_path, caplog, capfd):
    _, workdir = run
    names = ("absl", "orbax", "jax", "asyncio")
    before = [logging.getLogger(name).level for name in ("", *names)]
    logging.getLogger("absl").setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        pyrseg_jax.load(str(workdir.path))
        with pytest.raises(UserError):
            pyrseg_jax.load(tmp_path)
    assert logging.getLogger("absl").level == logging.DEBUG
    logging.getLogger("absl").setLevel(before[1])
    assert [logging.getLogger(name).level for name in ("", *names)] == before
    assert {r.name for r in caplog.records if not r.name.startswith("pyrseg_jax")} == set()
    assert "".join(capfd.readouterr()) == ""


def test_a_folder_of_a_checkpoint_whose_name_only_looks_like_a_number_is_one_clear_line(run):
    with pytest.raises(UserError, match="holds no model"):
        pyrseg_jax.load(f"{run[1].checkpoints}/²")


def test_weights_that_are_not_numbers_give_no_labels(run):
    config, workdir = run
    label_space = workdir.read_label_space()
    model = experiment.make_model(config, label_space.num_classes)
    variables = initialize(config, model, label_space).variables
    variables["params"]["semantic_head"] = jax.tree.map(lambda a: a * np.nan, variables["params"]["semantic_head"])
    with pytest.raises(UserError, match="probabilities are not numbers"):
        make_predictor(config, model, variables, label_space)(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "/dev/zero", "/"])
def test_a_path_that_is_no_image_is_one_clear_line(path):
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


# ── Pictures of an evaluation ──


def test_names_from_data_write_pictures_inside_the_workdir(run, tmp_path, compiled, monkeypatch, predictor, caplog):
    config, workdir = run
    data = write_folder(tmp_path / "data", {"training": 1, "validation": 4})
    config = config_lib.changed(config, {"data.root": str(data), "data.workers": 0})
    dataset = experiment.open_data(config.data)
    records = list(dataset.open_split("validation"))
    names = ["../../x", "a", "a_pyramid", "n" * 300 + "\nerror: forged"]
    records = [record | {"name": name} for record, name in zip(records, names, strict=True)]
    dataset = dataclasses.replace(dataset, open_split=lambda _: records)
    monkeypatch.setattr("pyrseg_jax.run.evaluations.make_predictor", lambda *_, **__: predictor)
    before = set(tmp_path.rglob("*"))
    place = Workdir(str(tmp_path / "deep" / "run"))
    (tmp_path / "deep" / "run").mkdir(parents=True)
    model = experiment.make_model(config, 3)
    draw_predictions(config, model, {}, dataset, place)
    written = {path.relative_to(tmp_path / "deep" / "run") for path in tmp_path.rglob("*g") if path not in before}
    assert {path.parent for path in written} == {Path("figures")} and len(written) == 9
    assert {"..%2F..%2Fx.png", "a.png", "a_pyramid.png"} < {path.name for path in written}
    assert "a_pyramid is not drawn: its pictures would replace those of another image" in caplog.text


# ── What a run's checkpoint holds ──


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint16", "bool", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7, 2), (70000,)])
def test_checksums_on_the_host_are_those_of_the_device(dtype, shape):
    array = jax.numpy.asarray(np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    assert host_checksum(np.asarray(array)) == checksums({"a": array})["a"]


def test_a_checkpoint_of_another_network_is_one_clear_line(run, photos, tmp_path):
    config, workdir = run
    shutil.copytree(workdir.path, tmp_path / "run")
    other = config_lib.changed(config, {"model.semantic_width": 24})
    (tmp_path / "run" / "config.json").write_text(config_lib.to_json(other))
    with pytest.raises(
        UserError, match="2 images could not .* holds arrays of another network than the one configured"
    ):
        predict(other, Workdir(str(tmp_path / "run")), str(photos), str(tmp_path / "out"))
